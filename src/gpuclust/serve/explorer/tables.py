"""Rows of an export as files: CSV that is safe in a spreadsheet, and Parquet."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from gpuclust.serve.library import Library
from gpuclust.serve.playlist_files import FORMULA


def rows_of(library: Library, ranks: np.ndarray | None = None) -> pa.Table:
    """The items of some ranks, or all: a column for each role that is filled, each feature, and what the clustering added."""
    table = library.rows if ranks is None else library.rows.take(pa.array(ranks))
    taken = set(table.column_names)
    names = []
    for name in table.column_names:
        plain = name.removeprefix("f/")
        names.append(plain if plain == name or plain not in taken else f"{plain}_source")
    roles = library.facts.roles
    absent = {"title", "creator", "group", "popularity", "year", "preview"} - set(roles)
    table = table.rename_columns(names)
    return table.drop_columns([c for c in table.column_names if ("group" if c == "groups" else c) in absent])


def as_csv(table: pa.Table) -> bytes:
    """UTF-8, a header, commas; a text that a spreadsheet would run as a formula begins with an apostrophe."""
    out = io.BytesIO()
    pyarrow.csv.write_csv(pa.table({_safe_name(name): _safe(table[name]) for name in table.column_names}), out)
    return out.getvalue()


def as_parquet(table: pa.Table) -> bytes:
    """Parquet, as it is."""
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def _safe(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = pc.binary_join(column.cast(pa.list_(pa.string())), "; ")
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    risky = pc.is_in(pc.utf8_slice_codeunits(column, 0, 1), pa.array(FORMULA, column.type))
    return pc.if_else(
        risky, pc.binary_join_element_wise(pa.scalar("'", column.type), column, pa.scalar("", column.type)), column
    )


def _safe_name(name: str) -> str:
    return f"'{name}" if name.startswith(FORMULA) else name
