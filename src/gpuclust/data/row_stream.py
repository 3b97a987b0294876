"""`RowStream`: the rows of an opened table in batches, with the generated id, the sample and the joined columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gpuclust.data.batches import BatchedColumns
from gpuclust.data.join import KeyFormat, LoadedJoin, key_format
from gpuclust.data.read import OpenedTable, made_id
from gpuclust.data.source import FileSource, LoadedTable
from gpuclust.data.table import Frames


@dataclass(frozen=True)
class Batch:
    """Consecutive rows: a frame with an index 0..n-1, and their numbers in the source (n,) int64."""

    frame: pd.DataFrame
    rows: np.ndarray


class RowStream:
    """The rows of an opened table before their types are inferred, in as many passes as are needed.

    ``columns`` are the names of all columns; ``roles`` map each role to its column; ``sample`` are the numbers of the sampled rows.
    """

    def __init__(self, opened: OpenedTable, frames: Frames, batch_rows: int) -> None:
        self.opened, self._frames, self._batch_rows = opened, frames, batch_rows
        self._loaded: BatchedColumns = opened.frame
        self.sample = opened.sampled_rows()
        self.columns = list(self._loaded.columns)
        self.roles = dict(opened.selection.roles)
        self._made: str | None = None
        if "id" not in self.roles:
            self._made = made_id(self.columns)
            self.columns.append(self._made)
            self.roles = {"id": self._made, **self.roles}
        self._join, self._form, self._joined = self._open_join()
        self.columns += self._joined
        self._matched = 0

    def _open_join(self) -> tuple[LoadedJoin | None, KeyFormat | None, list[str]]:
        source = self.opened.source
        if not isinstance(source, FileSource) or source.join is None:
            return None, None, []
        names, left = source.joined_columns(self.opened.selection), source.join.left
        loaded = LoadedJoin(source.join, names, bad_rows=source.bad_rows)
        return loaded, key_format(batch.frame[left] for batch in self._batches([left])), names

    @property
    def n_rows(self) -> int:
        """Number of rows, of the sample where there is one."""
        return len(self._loaded) if self.sample is None else len(self.sample)

    @property
    def joined(self) -> LoadedTable:
        """What the audit says about the joined columns, once a pass has counted the rows that match."""
        source = self.opened.source
        if self._join is None or not isinstance(source, FileSource):
            return LoadedTable(None)
        return source.describe_joined(self._join.result(self._matched), self._joined)

    def batches(self, names: Sequence[str], *, join: bool = False) -> Iterator[Batch]:
        """Columns of all rows in order. With ``join`` the rows with a match are counted even if no joined column is read."""
        names = list(dict.fromkeys(names))
        if self._join is None or self._form is None or not (join or set(names) & set(self._joined)):
            yield from self._batches(names)
            return
        own = [name for name in names if name not in self._joined]
        self._matched = 0
        for batch in self._batches([*own, self._join.left]):
            result = self._join.add(batch.frame, self._form, self._frames)
            self._matched += result.rows_matched
            yield Batch(result.frame[names], batch.rows)

    def _batches(self, names: Sequence[str]) -> Iterator[Batch]:
        """Columns of the first table and the generated id."""
        own = [name for name in dict.fromkeys(names) if name != self._made] or [self._loaded.columns[0]]
        start = 0
        for frame in self._loaded.batches(own, self._batch_rows):
            rows = np.arange(start, start + len(frame), dtype=np.int64)
            start += len(frame)
            if self.sample is not None:
                first, last = np.searchsorted(self.sample, (rows[0], start))
                rows = self.sample[first:last]
                if not len(rows):
                    continue
                frame = frame.iloc[rows - (start - len(frame))].reset_index(drop=True)
            if self._made in names:
                frame[self._made] = rows
            yield Batch(frame[list(dict.fromkeys(names))], rows)
