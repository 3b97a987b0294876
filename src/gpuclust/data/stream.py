"""`read_streamed`: read and clean a table that does not fit in memory, with the result of `read` and `clean`.

A few passes over the files decide what depends on all rows (types, ids, columns that are not measurements); each reads only the columns
that it needs. One pass then cleans the rows batch by batch and writes those that are kept to the scratch folder. Medians, means
and repeated rows are found in what was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gpuclust.config import CleanConfig, DataConfig
from gpuclust.data.batches import BATCH_ROWS, BatchedFrames
from gpuclust.data.clean import Effects, IdCounts, RowRules, StepLog, compared_columns, finish, require_two_rows
from gpuclust.data.disk_frame import DiskFrame, DiskFrameWriter
from gpuclust.data.distinct import DistinctRows, row_keys
from gpuclust.data.encode import CategoryCounts, Encoder
from gpuclust.data.frames import PandasFrames, hash_rows
from gpuclust.data.medians import means, medians, read_parts
from gpuclust.data.read import OpenedTable, find_id, open_table
from gpuclust.data.row_stream import RowStream
from gpuclust.data.stream_types import StreamedTypes
from gpuclust.data.table import Audit, Frames, Roles, Table
from gpuclust.errors import ConfigurationError

if TYPE_CHECKING:
    from gpuclust.runtime.blocks import DiskBlocks
    from gpuclust.runtime.scratch import Scratch

Progress = Callable[[str, float], None]


def _silent(text: str, done: float) -> None:
    del text, done


def read_streamed(
    data: DataConfig,
    config: CleanConfig,
    frames: Frames,
    scratch: Scratch,
    *,
    batch_rows: int = BATCH_ROWS,
    progress: Progress = _silent,
) -> Table:
    """Read and clean a table in bounded memory: the table that ``clean(read(data, frames), config, frames)`` gives, with a `DiskFrame`.

    ``batch_rows`` rows are in memory at a time; the result does not depend on it. Batches are pandas frames, also where ``frames`` are
    those of a GPU. ``progress`` receives the name of the step and the share of it that is done. `Table.rows` is memory-mapped.

    Raises:
        ConfigurationError, DataError, CleaningError: as `read` and `clean`.
        BackendError: the disk of the scratch folder is full.
    """
    frames = frames if isinstance(frames, PandasFrames) else PandasFrames()
    progress("reading", 0.0)
    with open_stream(data, frames, scratch, batch_rows=batch_rows) as typed:
        opened, stream, types = typed.opened, typed.stream, typed.types
        require_two_rows(stream.n_rows)
        written = _write_kept(stream, types, config, frames, scratch, progress)
    progress("cleaning", 0.0)
    rules, log = written.rules, written.log
    frame, rows = written.frame, written.rows
    fills: dict[str, float] = {}
    if config.nulls != "drop":
        values = (means if config.nulls == "mean" else medians)(frame.values_of(types.typed.features))
        fills = rules.fills(values, written.effects)
    table = opened.table(types.typed, frame, stream.sample, stream.n_rows, stream.joined)
    keep = None
    if config.duplicates != "none":
        repeats = _repeats(table, frame, fills, config.duplicates, scratch)
        log.filter("duplicates", rules.repeats, len(frame) - len(repeats))
        if len(repeats):
            keep = np.ones(len(frame), bool)
            keep[repeats] = False
    if keep is not None or (written.effects.missing and fills):
        frame = frame.rewrite(keep, fills)
        rows = rows if keep is None else _kept_rows(rows, keep, scratch)
    every = len(frame) == len(opened.frame)
    return finish(
        replace(table, frame=frame, rows=None if every else rows),
        config,
        log,
        extremes=_extremes(frame, types.typed.features),
        fills=fills,
        ids=_id_counts(table, frame, scratch, unique=config.duplicates == "id"),
        count_distinct=lambda features: _count_distinct(frame, features, scratch),
    )


@dataclass(frozen=True)
class TypedStream:
    """The rows of a source with their final columns and types, before cleaning."""

    opened: OpenedTable
    stream: RowStream
    types: StreamedTypes

    def batches(self) -> Iterator[pd.DataFrame]:
        """All rows in order; may be called repeatedly."""
        return (self.types.apply(batch.frame) for batch in self.stream.batches(self.types.sources, join=True))


@contextmanager
def open_stream(
    data: DataConfig,
    frames: Frames,
    scratch: Scratch,
    *,
    batch_rows: int = BATCH_ROWS,
    encoder: Encoder | None = None,
) -> Iterator[TypedStream]:
    """A context with the rows that `read` returns, in batches. Raises the errors of `read`."""
    readers = BatchedFrames(scratch)
    try:
        opened = open_table(data, readers)
        if opened.selection.vectors:
            raise ConfigurationError(
                f"vectors ({', '.join(opened.selection.vectors)}) are held in memory, which memory.mode=disk and memory.limit do not "
                "allow; use memory.mode=resident, a higher memory.limit, or data.n_rows for a sample"
            )
        if data.weight is not None:
            raise ConfigurationError(
                "data.weight needs all rows in memory, which memory.mode=disk and memory.limit do not allow; use memory.mode=resident, a "
                "higher memory.limit, or data.n_rows for a sample"
            )
        opened = opened.with_id(find_id(opened.candidates, lambda name: _all_distinct(opened.frame, name, scratch)))
        stream = RowStream(opened, frames, batch_rows)
        types = StreamedTypes.infer(stream, frames, scratch, encoder or CategoryCounts(data))
        yield TypedStream(opened, stream, types)
    finally:
        readers.remove_parsed()


@dataclass(frozen=True)
class _Written:
    """The rows on disk that the rules for single rows keep, their numbers in the source, and the effects of the rules."""

    frame: DiskFrame
    rows: np.ndarray
    rules: RowRules
    effects: Effects
    log: StepLog


def _write_kept(
    stream: RowStream,
    types: StreamedTypes,
    config: CleanConfig,
    frames: Frames,
    scratch: Scratch,
    progress: Progress,
) -> _Written:
    """Type, clean and write all rows, a batch at a time."""
    rules, effects = None, Effects()
    numbers = scratch.writer("rows", 1, np.int64)
    with closing(numbers), DiskFrameWriter(scratch, types.typed.features) as writer:
        for batch in stream.batches(types.sources, join=True):
            frame = types.apply(batch.frame)
            if rules is None:
                typed = types.typed
                roles = Roles(**typed.roles)
                table = Table(frame, roles, typed.features, "", Audit(), encodings=typed.encodings)
                rules = RowRules(table, config, frames)
            frame, mask, effect = rules.apply(frame)
            effects += effect
            kept = slice(None) if mask is None else mask.to_numpy(bool)
            writer.append(frame[kept])
            numbers.append(batch.rows[kept, None])
            progress("reading", effects.n_rows / stream.n_rows)
        assert rules is not None
        log = rules.log(effects)  # raises if no row is left
        return _Written(writer.close(), _mapped(numbers.close()), rules, effects, log)


def _mapped(rows: DiskBlocks) -> np.ndarray:
    """Numbers of rows (n,) int64 in a file, as a memory-mapped array."""
    return np.memmap(rows.path, np.int64, mode="r", shape=(len(rows),))


def _kept_rows(rows: np.ndarray, keep: np.ndarray, scratch: Scratch) -> np.ndarray:
    writer = scratch.writer("rows", 1, np.int64)
    for start in range(0, len(rows), BATCH_ROWS):
        part = slice(start, start + BATCH_ROWS)
        writer.append(rows[part][keep[part], None])
    return _mapped(writer.close())


def _all_distinct(columns: Any, name: str, scratch: Scratch) -> bool:
    """Whether no value of a column is missing or repeated; numbers must be whole."""
    with DistinctRows(scratch, width=2) as distinct:
        for batch in columns.batches([name]):
            column = batch[name]
            if bool(column.isna().any()) or (column.dtype.kind == "f" and bool((column % 1 != 0).any())):
                return False
            distinct.add(row_keys([column], len(column)))
        return distinct.n_distinct() == distinct.n_rows


def _repeats(table: Table, frame: DiskFrame, fills: dict[str, float], by: str, scratch: Scratch) -> np.ndarray:
    """The numbers of the rows that repeat an earlier id, or an earlier row; rows without an id are not repeats."""
    names = [table.roles.id] if by == "id" else compared_columns(table, frame)
    start = 0
    with DistinctRows(scratch, width=2, numbered=True) as distinct:
        for batch in frame[names].batches():
            rows = np.arange(start, start + len(batch))
            start += len(batch)
            if by == "id":
                present = batch[table.roles.id].notna().to_numpy(bool)
                batch, rows = batch[present], rows[present]
            elif fills:
                batch = batch.fillna({name: fill for name, fill in fills.items() if name in batch})
            distinct.add(row_keys((batch[name] for name in names), len(batch)), rows)
        return distinct.repeats()


def _id_counts(table: Table, frame: DiskFrame, scratch: Scratch, *, unique: bool) -> IdCounts:
    if table.audit.source.get("id_made"):
        return IdCounts()
    name, n_missing = table.roles.id, 0
    with DistinctRows(scratch, width=2) as distinct:
        for batch in frame.batches([name]):
            ids = batch[name].dropna()
            n_missing += len(batch) - len(ids)
            if not unique:
                distinct.add(row_keys([ids], len(ids)))
        return IdCounts(n_missing, distinct.n_rows - distinct.n_distinct())


def _extremes(frame: DiskFrame, features: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """The minimum and maximum of each feature."""
    lows, highs = np.full(len(features), np.inf), np.full(len(features), -np.inf)
    for X in read_parts(frame.values_of(features)):
        lows, highs = np.minimum(lows, X.min(axis=0)), np.maximum(highs, X.max(axis=0))
    return dict(zip(features, zip(lows.tolist(), highs.tolist(), strict=True), strict=True))


def _count_distinct(frame: DiskFrame, features: list[str], scratch: Scratch) -> int:
    """The number of distinct rows, by the hash of `PandasFrames.count_distinct`."""
    with DistinctRows(scratch) as distinct:
        for X in read_parts(frame.values_of(features)):
            distinct.add(hash_rows((X[:, j] for j in range(X.shape[1])), len(X)))
        return distinct.n_distinct()
