"""Export rows as CSV, with formulas escaped, or as Parquet."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from gpuclust.sanitize import safe_table
from gpuclust.serve.library import Library


def rows_of(library: Library, ranks: np.ndarray | None = None) -> pa.Table:
    """The items with some ranks, or all: the columns of roles, features, and those added by the clustering."""
    table = library.rows if ranks is None else library.rows.take(pa.array(ranks))
    table = _with_named_columns(table.drop_columns(["recording", "repeat"]))
    taken = set(table.column_names)
    names = []
    for name in table.column_names:
        plain = name.removeprefix("f/")
        names.append(plain if plain == name or plain not in taken else f"{plain}_source")
    roles = library.facts.roles
    absent = {"title", "creator", "group", "popularity", "year", "preview"} - set(roles)
    table = table.rename_columns(names)
    return table.drop_columns([c for c in table.column_names if ("group" if c == "groups" else c) in absent])


def _with_named_columns(table: pa.Table) -> pa.Table:
    """Rename the columns of album, address and duration if they have values and no feature has the name."""
    for name in [name for name in table.column_names if name.startswith("x/")]:
        column, plain = table[name], name.removeprefix("x/")
        filled = pc.any(pc.not_equal(column, "") if pa.types.is_large_string(column.type) else pc.is_valid(column))
        table = table.drop_columns([name])
        if filled.as_py() and f"f/{plain}" not in table.column_names:
            table = table.append_column(plain, column)
    return table


def as_csv(table: pa.Table) -> bytes:
    """CSV in UTF-8 with a header; text that a spreadsheet would run as a formula begins with an apostrophe."""
    out = io.BytesIO()
    pyarrow.csv.write_csv(safe_table(table), out)
    return out.getvalue()


def as_parquet(table: pa.Table) -> bytes:
    """Parquet with zstd compression."""
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()
