"""The features of a table with columns of vectors, as blocks of rows: float64 for one block at a time, whatever is held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpuclust.data.table import Frames, Table
from gpuclust.data.vectors import VectorColumn
from gpuclust.runtime.blocks import BLOCK_ROWS, LocalBlocks, RowBlocks
from gpuclust.runtime.passes import on_host


def host_columns(table: Table, frames: Frames) -> np.ndarray:
    """The features of a table in memory that are columns of its frame: (n_rows, n_columns) float64 on the host."""
    names = table.column_features
    values = np.empty((table.n_rows, len(names)))
    if not names:
        return values
    if frames.name == "cudf":
        return on_host(frames.to_matrix(table.frame, names))
    host = frames.to_pandas(table.frame[list(names)])
    for j, name in enumerate(names):
        values[:, j] = host[name].to_numpy(np.float64)
    return values


class VectorBlocks(LocalBlocks):
    """Raw features (n_rows, n_features) float64: ``columns`` (n_rows, n_columns) float64, an array or blocks on disk, then the values of
    ``vectors``. Rows are put together when they are read, one block at a time."""

    def __init__(self, columns: np.ndarray | RowBlocks, vectors: Sequence[VectorColumn]) -> None:
        super().__init__((len(vectors[0]), columns.shape[1] + sum(v.size for v in vectors)), np.float64)
        self.columns, self.vectors = columns, tuple(vectors)

    def runs(self) -> Iterator[tuple[int, np.ndarray]]:
        """All rows in order, one block at a time."""
        for start in range(0, len(self), BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, len(self))
            yield start // BLOCK_ROWS, self._rows(slice(start, stop), [v.read(start, stop) for v in self.vectors])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Rows by their numbers."""
        return self._rows(np.asarray(rows, np.int64), [v.take(rows) for v in self.vectors])

    def _rows(self, rows: Any, vectors: Sequence[np.ndarray]) -> np.ndarray:
        found = np.empty((len(vectors[0]), self.shape[1]))
        at = self.columns.shape[1]
        if at:
            if isinstance(self.columns, RowBlocks):
                numbers = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
                found[:, :at] = self.columns.take(numbers)
            else:
                found[:, :at] = self.columns[rows]
        for values in vectors:
            found[:, at : at + values.shape[1]] = values
            at += values.shape[1]
        return found
