"""Blocks of rows in page-locked ("pinned") host memory, for a matrix that is larger than the memory of the GPU.

A GPU copies from such memory at the full speed of its bus, several times faster than from other memory, so that the passes of a fit can
stream the rows to it. Arrays that are not page-locked work too, with slower copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gpuclust.runtime.blocks import BLOCK_ROWS, RUN_BLOCKS, LocalBlocks

RUN_ROWS = BLOCK_ROWS * RUN_BLOCKS


Allocate = Callable[[tuple[int, int], np.dtype[Any]], np.ndarray]
"""Gives a new array on the host: `gpuclust.runtime.backend.Backend.host_array`."""


class PinnedBlocks(LocalBlocks):
    """Rows in arrays of `RUN_ROWS` rows each; the last array may be shorter."""

    def __init__(self, parts: Sequence[np.ndarray], n_columns: int, dtype: Any) -> None:
        super().__init__((sum(map(len, parts)), n_columns), dtype)
        self._parts = list(parts)

    @property
    def nbytes(self) -> int:
        """Bytes in host memory."""
        return self.total_bytes

    def runs(self) -> Iterator[tuple[int, np.ndarray]]:
        """All rows in order."""
        for i, part in enumerate(self._parts):
            yield i * RUN_BLOCKS, part

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Rows by their numbers."""
        rows = np.asarray(rows, dtype=np.int64)
        taken = np.empty((len(rows), self.shape[1]), self.dtype)
        of = rows // RUN_ROWS
        for i, part in enumerate(self._parts):
            mine = np.flatnonzero(of == i)
            taken[mine] = part[rows[mine] - i * RUN_ROWS]
        return taken


class PinnedWriter:
    """Collects rows in order and returns them as `PinnedBlocks`, in arrays from ``allocate``."""

    def __init__(self, n_columns: int, dtype: Any, allocate: Allocate) -> None:
        self._allocate = allocate
        self._n_columns, self._dtype = n_columns, np.dtype(dtype)
        self._parts: list[np.ndarray] = []
        self._free = 0  # rows of the last part that are not filled

    def append(self, rows: np.ndarray) -> None:
        """Add rows (n, n_columns)."""
        assert rows.shape[1:] == (self._n_columns,)
        while len(rows):
            if not self._free:
                self._parts.append(self._allocate((RUN_ROWS, self._n_columns), self._dtype))
                self._free = RUN_ROWS
            start, n = RUN_ROWS - self._free, min(self._free, len(rows))
            self._parts[-1][start : start + n] = rows[:n]
            self._free -= n
            rows = rows[n:]

    def close(self) -> PinnedBlocks:
        """The rows."""
        if self._free:
            self._parts[-1] = self._parts[-1][: RUN_ROWS - self._free]
            self._free = 0
        return PinnedBlocks(self._parts, self._n_columns, self._dtype)
