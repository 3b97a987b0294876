"""`other_columns_batches`: the columns of the source that a job does not use, for an export in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gpuclust.config import DataConfig
from gpuclust.data.arrow_types import common_schema, with_schema
from gpuclust.data.batches import BATCH_ROWS, BatchedFrames, feather_tables, file_schema, parquet_tables, regroup
from gpuclust.data.disk_frame import GROUP_ROWS, DiskFrame
from gpuclust.data.frames import PandasFrames
from gpuclust.data.join import LoadedJoin, key_format
from gpuclust.data.load import load_columns
from gpuclust.data.read import other_columns, wanted_columns
from gpuclust.data.source import FileSource, TextKinds, open_source
from gpuclust.data.table import Frames, Table


def other_columns_batches(
    table: Table, data: DataConfig, frames: Frames, names: Sequence[str] | None = None, *, rows: int = GROUP_ROWS
) -> Iterator[pa.Table]:
    """The columns of `gpuclust.data.read.other_columns`, with the same types, in Arrow tables of ``rows`` rows (the last may be shorter).

    The tables are in the order of the rows of ``table``: the first has its rows 0 to ``rows`` - 1. There is no table if no column is
    requested. For a table in memory the columns are read at once. Raises DataError if the source has changed.
    """
    if not isinstance(table.frame, DiskFrame):
        whole = other_columns(table, data, frames, names)
        yield from (whole.slice(start, rows) for start in range(0, len(whole), rows) if whole.num_columns)
        return
    if not (wanted := wanted_columns(table, data, names)):
        return
    source, readers = open_source(data), BatchedFrames(table.frame.scratch)
    try:
        if isinstance(source, FileSource):
            parts = _source_batches(source, wanted, readers)
        else:
            parts = regroup(iter([source.arrow_columns(wanted, frames)]), BATCH_ROWS)
        yield from regroup(_kept(parts, table.rows), rows)
    finally:
        readers.remove_parsed()


def _kept(parts: Iterator[pa.Table], rows: np.ndarray | None) -> Iterator[pa.Table]:
    """The rows of a table among those of its source."""
    start = 0
    for part in parts:
        stop = start + len(part)
        if rows is not None:
            first, last = np.searchsorted(rows, (start, stop))
            part = part.take(pa.array(np.asarray(rows[first:last]) - start))
        start = stop
        yield part


def _source_batches(source: FileSource, names: list[str], readers: BatchedFrames) -> Iterator[pa.Table]:
    """Columns of the files and of the joined table, in batches of `BATCH_ROWS` rows."""
    own = [name for name in names if name in source.schema.kinds]
    added = [name for name in names if name not in source.schema.kinds]
    streams: list[Iterator[pa.Table]] = []
    if own:
        text = source.schema.files.format == "csv"
        streams.append(regroup((_csv_batches if text else _binary_batches)(source, own, readers), BATCH_ROWS))
    if added:
        streams.append(regroup(_joined_batches(source, added, readers), BATCH_ROWS))
    for parts in zip(*streams, strict=True):
        columns = {name: part[name] for part in parts for name in part.column_names}
        yield pa.table({name: columns[name] for name in names})


def _binary_batches(source: FileSource, names: list[str], readers: BatchedFrames) -> Iterator[pa.Table]:
    """Columns of Parquet or Feather files with their own types, or with one that holds the values of all files where these differ."""
    del readers
    files = source.schema.files
    tables = parquet_tables if files.format == "parquet" else feather_tables
    schema = common_schema([file_schema(file, files.format, names) for file in files.paths])
    for file in files.paths:
        for table in tables(file, names):
            yield with_schema(table, schema)


def _csv_batches(source: FileSource, names: list[str], readers: BatchedFrames) -> Iterator[pa.Table]:
    """Columns of CSV files, each with the narrowest type that holds all of its values."""
    columns: Any = load_columns(source.schema, readers, names, text=names).frame

    def texts() -> Iterator[dict[str, Any]]:
        for frame in columns.batches(names):
            yield {name: pa.array(frame[name], pa.string(), from_pandas=True) for name in names}

    kinds = {name: TextKinds(source.decimal) for name in names}
    for part in texts():
        for name, kind in kinds.items():
            if kind.possible:
                kind.add(part[name])
    for part in texts():
        yield pa.table({name: kinds[name].narrow(column) for name, column in part.items()})


def _joined_batches(source: FileSource, names: list[str], readers: BatchedFrames) -> Iterator[pa.Table]:
    """Columns of the joined table."""
    assert source.join is not None
    left = source.join.left
    keys: Any = load_columns(source.schema, readers, [left], text=[left]).frame
    loaded = LoadedJoin(source.join, names, bad_rows="skip")
    form = key_format(frame[left] for frame in keys.batches([left]))
    for frame in keys.batches([left]):
        joined = loaded.add(frame, form, PandasFrames()).frame
        yield pa.table({name: pa.array(joined[name], from_pandas=True) for name in names})
