"""Helpers for passes over blocks of rows: values per row as arguments, the array module of a run, and arrays as blocks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from gpuclust.model.prediction import in_threads
from gpuclust.runtime.blocks import MemoryBlocks, RowBlocks, Run

if TYPE_CHECKING:
    from gpuclust.runtime.backend import Backend

T = TypeVar("T")


@dataclass(frozen=True)
class PerRow:
    """One value for each row of a matrix, as an argument of a pass.

    ``values`` (n, ...) are those of the rows from ``first_row`` on. A worker is sent only the values of its rows (`slice`).
    """

    values: np.ndarray
    first_row: int = 0

    def of(self, run: Run) -> np.ndarray:
        """The values of a run's rows (n, ...), a view."""
        start = run.first_row - self.first_row
        return self.values[start : start + len(run.X)]

    def slice(self, start: int, stop: int) -> PerRow:
        """The values of the rows ``start`` to ``stop`` of the matrix, which serve every run within them."""
        return PerRow(self.values[start - self.first_row : stop - self.first_row], start)


class OneByOne(Generic[T]):
    """The statistics of a run's blocks, each computed when it is merged, so that only one is in memory: ``make(start, stop)``."""

    def __init__(self, run: Run, make: Callable[[int, int], T]) -> None:
        self._edges, self._make = run.edges, make

    def __len__(self) -> int:
        return len(self._edges)

    def __iter__(self) -> Iterator[T]:
        return (self._make(start, stop) for start, stop in self._edges)


def each_block(run: Run, make: Callable[[int, int], T]) -> list[T]:
    """``make(start, stop)`` for each block of a run on the host, in threads; on a GPU one after another."""
    if not isinstance(run.X, np.ndarray):
        return [make(start, stop) for start, stop in run.edges]
    found: dict[int, T] = {}

    def one(block: slice) -> None:
        found[block.start] = make(block.start, block.stop)

    in_threads(one, [slice(*edge) for edge in run.edges])
    return [found[start] for start, _ in run.edges]


def for_whole_run(run: Run, value: T) -> list[T | None]:
    """The statistics of a run's blocks where one stands for all of them, in the place of the first; for `add_some`."""
    return [value, *[None] * (len(run.edges) - 1)]


def add_some(a: Any, b: Any) -> Any:
    """The sum of two statistics, of which None adds nothing."""
    return b if a is None else a if b is None else a + b


def xp_of(X: Any) -> ModuleType:
    """The module of an array: numpy or cupy."""
    return np if isinstance(X, np.ndarray) else sys.modules[type(X).__module__.partition(".")[0]]


def on_host(array: Any) -> np.ndarray:
    """A NumPy or a CuPy array in host memory."""
    found: np.ndarray = array if isinstance(array, np.ndarray) else array.get()
    return found


def as_blocks(X: Any) -> RowBlocks:
    """The matrix X, a NumPy or a CuPy array (n_rows, n_columns) or blocks, as blocks."""
    return X if isinstance(X, RowBlocks) else MemoryBlocks(X)


def array_of(X: Any) -> Any:
    """The array of blocks in memory; None of other blocks."""
    return X.X if isinstance(X, MemoryBlocks) else None


def take_rows(X: Any, rows: np.ndarray, backend: Backend) -> Any:
    """Rows by their numbers (n,) of X, an array on the backend's device or blocks: an array on its device."""
    return backend.to_device(X.take(rows)) if isinstance(X, RowBlocks) else X[backend.to_device(rows)]
