"""The columns that a job does not use, for exports: read again when they are wanted, so that no job holds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gpuclust.config import DataConfig
from gpuclust.data.frames import read_arrow
from gpuclust.data.inspect import Look, load, look
from gpuclust.data.join import attach, open_join
from gpuclust.data.read import CATALOGUE_ROWS, fingerprint
from gpuclust.data.table import NULL_SPELLINGS, Frames, Table
from gpuclust.errors import DataError


def other_columns(table: Table, data: DataConfig, frames: Frames, names: Sequence[str] | None = None) -> Any:
    """The columns of the source that are neither features nor roles: an Arrow table, a row for each row of ``table``.

    ``names`` keeps some of `Table.other_columns`, in that order. Parquet and Feather columns keep their types; a column of
    a CSV file is int64, float64 or bool where all of its values are written so, else text.

    Raises:
        DataError: the source has changed since the table was read from it.
    """
    if fingerprint(data) != table.fingerprint:
        raise DataError(f"{data.path or data.source} has changed since it was read; run the job again")
    wanted = [name for name in (table.other_columns if names is None else names) if name in table.other_columns]
    if not wanted:
        return pa.table({})
    if data.source == "catalogue":
        columns = _of_catalogue(data, wanted)
    else:
        assert data.path is not None
        seen = look(data.path)
        columns = _of_files(seen, frames, [name for name in wanted if name in seen.kinds])
        columns = _joined(columns, seen, data, frames, [name for name in wanted if name not in seen.kinds])
        columns = columns.select(wanted)
    return columns if table.rows is None else columns.take(pa.array(table.rows))


def _of_catalogue(data: DataConfig, names: list[str]) -> Any:
    from gpuclust.tracks.catalogue import catalogue

    made = catalogue(data.n_rows or CATALOGUE_ROWS, seed=data.seed)
    return pa.Table.from_pandas(made[names], preserve_index=False).replace_schema_metadata(None)


def _of_files(seen: Look, frames: Frames, names: list[str]) -> Any:
    if seen.source.format == "csv":
        read = frames.to_pandas(load(seen, frames, names, text=names).frame)
        decimal = seen.layouts[0].decimal
        return pa.table({name: _typed(pa.array(read[name], pa.string(), from_pandas=True), decimal) for name in names})
    parts = [read_arrow(file, seen.source.format, names) for file in seen.source.files]
    if all(part.schema.equals(parts[0].schema) for part in parts):
        return pa.concat_tables(parts)
    return pa.concat_tables([pa.table({n: part[n].cast(pa.string()) for n in names}) for part in parts])


def _joined(columns: Any, seen: Look, data: DataConfig, frames: Frames, names: list[str]) -> Any:
    """The columns with some of the second table's added."""
    join = open_join(data.join, seen.kinds, str(data.path), bad_rows="skip")
    if join is None or not names:
        return columns
    frame = load(seen, frames, [join.left], text=[join.left]).frame
    added = frames.to_pandas(attach(frame, join, frames, names)[0])
    for name in names:
        columns = columns.append_column(name, pa.array(added[name], from_pandas=True))
    return columns


def _typed(column: Any, decimal: str) -> Any:
    """Text as bool, int64 or float64 where every known value is written as one; a code such as 007 stays text."""
    cells = pc.utf8_trim_whitespace(column)
    cells = pc.if_else(pc.is_in(cells, value_set=pa.array(NULL_SPELLINGS)), pa.scalar(None, pa.string()), cells)
    if decimal != ".":
        cells = pc.replace_substring(cells, decimal, ".")
    known = cells.drop_null()

    def all_match(pattern: str) -> bool:
        return bool(pc.all(pc.match_substring_regex(known, pattern, ignore_case=True)).as_py())

    if not len(known):
        return column
    if all_match("^(true|false)$"):
        return pc.equal(pc.utf8_lower(cells), "true")
    if all_match("^(0|-?[1-9][0-9]{0,17})$"):
        return cells.cast(pa.int64())
    if all_match(r"^[+-]?(0|[1-9][0-9]*|0?[.][0-9]+|[1-9][0-9]*[.][0-9]*|0[.])(e[+-]?[0-9]+)?$"):
        return cells.cast(pa.float64())
    return column
