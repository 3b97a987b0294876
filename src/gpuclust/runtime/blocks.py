"""A matrix held in blocks of rows, in memory or on disk, and passes over all of its rows.

A pass is a function of a few consecutive blocks, so that it can run wherever they are. Its results are merged in one fixed binary tree
over the blocks. The blocks depend only on the number of rows, so a sum has the same bits wherever the blocks are, and however many workers
hold them.
"""

from __future__ import annotations

import mmap
import operator
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gpuclust.errors import BackendError

BLOCK_ROWS = 65_536
"""Rows of a block. The last one may be shorter."""
RUN_BLOCKS = 16
"""Blocks that are read and processed together: the unit of memory and of parallel work."""

MADV_POPULATE_READ = 22  # of Linux 5.14 and later; Python has no name for it

T = TypeVar("T")
Part = Callable[..., Any]


@dataclass(frozen=True)
class Run:
    """Consecutive blocks: the argument of a pass.

    ``X`` (n, n_columns), C-contiguous. ``first_block`` is the number of its first block. ``cache`` holds values that a pass keeps for the
    next pass over the same rows by the same owner. It may be empty at any time, for example after a worker was lost, so results must not
    depend on it.
    """

    X: np.ndarray
    first_block: int
    cache: dict[Any, Any] = field(default_factory=dict)

    @property
    def first_row(self) -> int:
        """The number of its first row in the matrix."""
        return self.first_block * BLOCK_ROWS

    @property
    def edges(self) -> list[tuple[int, int]]:
        """The rows of each block in ``X``: (start, stop)."""
        n = len(self.X)
        return [(start, min(start + BLOCK_ROWS, n)) for start in range(0, n, BLOCK_ROWS)]


@dataclass(frozen=True)
class Request:
    """A request for a pass: ``part(run, *args)``.

    With ``add``, ``part`` returns a list with one statistic for each block, and ``add`` merges these. Without it, the results are
    collected run by run.
    """

    part: Part
    args: tuple[Any, ...]
    add: Callable[[Any, Any], Any] | None
    owner: int = 0


class MergeTree:
    """Merges the values of blocks 0..n_blocks-1 in one fixed binary tree, independent of the order and the groups in which they arrive."""

    def __init__(self, n_blocks: int, add: Callable[[Any, Any], Any] = operator.add) -> None:
        self._widths = [n_blocks]
        while self._widths[-1] > 1:
            self._widths.append(-(-self._widths[-1] // 2))
        self._add = add
        self.nodes: dict[tuple[int, int], Any] = {}
        """The complete sub-trees so far: (level, index) -> merged value. They can be sent and put into another tree."""

    def put(self, level: int, index: int, value: Any) -> None:
        """Add a complete sub-tree, by default of one block (level 0), and merge it as far as possible."""
        while level < len(self._widths) - 1:
            sibling = index ^ 1
            if sibling < self._widths[level]:
                if (level, sibling) not in self.nodes:
                    break
                other = self.nodes.pop((level, sibling))
                value = self._add(value, other) if index < sibling else self._add(other, value)
            level, index = level + 1, index // 2
        self.nodes[level, index] = value

    @property
    def value(self) -> Any:
        """The merged value of all blocks."""
        ((level, _), value), *others = self.nodes.items()
        assert not others, "some blocks have no value"
        assert level == len(self._widths) - 1, "some blocks have no value"
        return value


class RowBlocks(ABC):
    """A matrix of ``shape`` (n_rows, n_columns) and ``dtype`` float32 or float64, in blocks of `BLOCK_ROWS` rows."""

    ndim = 2
    in_memory = False
    """Whether this process holds all rows in memory, even if others hold them too."""
    on_device = False
    """Whether the runs are arrays on a GPU."""

    def __init__(self, shape: tuple[int, int], dtype: Any) -> None:
        self.shape = (int(shape[0]), int(shape[1]))
        self.dtype = np.dtype(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return -(-self.shape[0] // BLOCK_ROWS)

    @property
    def nbytes(self) -> int:
        """Bytes in host memory, for the cache of results."""
        return 0

    @property
    def total_bytes(self) -> int:
        """Bytes of all rows, wherever they are."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def reduce(self, part: Part, *args: Any, add: Callable[[Any, Any], Any] = operator.add) -> Any:
        """Merge the results of ``part(run, *args)``, which returns a list with one statistic for each block of the run."""
        return self.passes([Request(part, args, add)])[0]

    def collect(self, part: Part, *args: Any) -> list[Any]:
        """The results of ``part(run, *args)`` for all runs, in the order of the rows. The runs need not be those of another pass."""
        found: list[Any] = self.passes([Request(part, args, None)])[0]
        return found

    def release(self, owner: int) -> None:
        """Forget what the passes of an owner keep."""
        del owner

    @abstractmethod
    def passes(self, requests: Sequence[Request]) -> list[Any]:
        """Make several passes in one read of the rows; the result of each."""

    @abstractmethod
    def take(self, rows: np.ndarray) -> np.ndarray:
        """Rows by their numbers (n,), in any order: (n, n_columns)."""


class LocalBlocks(RowBlocks):
    """Blocks that this process reads."""

    def __init__(self, shape: tuple[int, int], dtype: Any) -> None:
        super().__init__(shape, dtype)
        self._caches: dict[int, dict[int, dict[Any, Any]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_caches": {}}

    @abstractmethod
    def runs(self) -> Iterator[tuple[int, np.ndarray]]:
        """All rows in order: the number of the first block, and up to `RUN_BLOCKS` blocks, valid until the next step."""

    def passes(self, requests: Sequence[Request]) -> list[Any]:
        """Make several passes in one read of the rows; the result of each."""
        return [collector.result for collector in self.collected(requests, self.n_blocks)]

    def collected(self, requests: Sequence[Request], n_blocks: int, first_block: int = 0) -> list[Collector]:
        """The results of several passes over these blocks, which start at ``first_block`` of a matrix of ``n_blocks``."""
        collectors = [Collector(n_blocks, request) for request in requests]
        for first, X in self.runs():
            for request, collector in zip(requests, collectors, strict=True):
                cache = self._caches.setdefault(request.owner, {}).setdefault(first, {})
                collector.add(Run(X, first_block + first, cache))
        return collectors

    def release(self, owner: int) -> None:
        """Forget what the passes of an owner keep."""
        self._caches.pop(owner, None)


class Collector:
    """Applies one request to runs that arrive in order, and holds the results."""

    def __init__(self, n_blocks: int, request: Request) -> None:
        self._request = request
        self.tree = None if request.add is None else MergeTree(n_blocks, request.add)
        self.found: list[Any] = []

    def add(self, run: Run) -> None:
        """Pass over a run."""
        result = self._request.part(run, *self._request.args)
        if self.tree is None:
            self.found.append(result)
        else:
            assert len(result) == len(run.edges), "a pass must return one statistic for each block"
            for i, value in enumerate(result):
                self.tree.put(0, run.first_block + i, value)

    @property
    def result(self) -> Any:
        """The merged statistic, or the list of results."""
        return self.found if self.tree is None else self.tree.value


class MemoryBlocks(LocalBlocks):
    """The rows of an array X (n_rows, n_columns) in memory: NumPy, or CuPy, whose runs are CuPy arrays too."""

    in_memory = True

    def __init__(self, X: Any) -> None:
        super().__init__(X.shape, X.dtype)
        self.on_device = not isinstance(X, np.ndarray)
        self.X = X if self.on_device else np.require(X, requirements=["C", "ALIGNED"])

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self.X, np.ndarray):  # Dask's bytes of moved rows are read-only, and may begin at any address
            self.X = np.require(self.X, requirements=["C", "ALIGNED", "WRITEABLE"])

    @property
    def nbytes(self) -> int:
        """Bytes in host memory."""
        return int(self.X.nbytes)

    def runs(self) -> Iterator[tuple[int, np.ndarray]]:
        """All rows in order."""
        step = BLOCK_ROWS * RUN_BLOCKS
        for start in range(0, len(self), step):
            yield start // BLOCK_ROWS, self.X[start : start + step]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Rows by their numbers."""
        return self.X[rows]


class DiskBlocks(LocalBlocks):
    """Rows in a flat file, row after row. The next run is brought into memory while the present one is processed; at most two are there.

    ``first_row`` is the number of rows in the file before the first of these. Raises BackendError if the file cannot be read, or is
    shorter than the rows.
    """

    def __init__(self, path: Path, shape: tuple[int, int], dtype: Any, first_row: int = 0) -> None:
        super().__init__(shape, dtype)
        self.path, self.first_row = Path(path), first_row

    @property
    def _row_bytes(self) -> int:
        return self.shape[1] * self.dtype.itemsize

    def read(self, start: int, stop: int, out: np.ndarray | None = None, file: int | None = None) -> np.ndarray:
        """Rows ``start`` to ``stop``; into ``out`` (at least as many rows) where it is given."""
        rows = np.empty((stop - start, self.shape[1]), self.dtype) if out is None else out[: stop - start]
        view, at = memoryview(rows.reshape(-1).view(np.uint8)), 0  # type: ignore[arg-type]
        offset = (self.first_row + start) * self._row_bytes
        opened = os.open(self.path, os.O_RDONLY) if file is None else file
        try:
            while at < len(view):
                n = os.preadv(opened, [view[at:]], offset + at)
                if not n:
                    raise BackendError(f"{self.path} is shorter than its {self.shape[0]:,} rows; is the disk full?")
                at += n
        except OSError as error:
            raise BackendError(f"{self.path} cannot be read: {error.strerror}") from error
        finally:
            if file is None:
                os.close(opened)
        return rows

    def runs(self) -> Iterator[tuple[int, np.ndarray]]:
        """All rows in order."""
        step = BLOCK_ROWS * RUN_BLOCKS
        starts = range(0, len(self), step)
        file = os.open(self.path, os.O_RDONLY)
        pool = ThreadPoolExecutor(1, thread_name_prefix="gpuclust-read")
        try:

            def load(start: int) -> np.ndarray:
                return self._mapped(start, min(start + step, len(self)), file)

            coming = pool.submit(load, 0)
            for start in starts:
                X = coming.result()
                if start + step < len(self):
                    coming = pool.submit(load, start + step)
                yield start // BLOCK_ROWS, X
        finally:
            pool.shutdown()
            os.close(file)

    def _mapped(self, start: int, stop: int, file: int) -> np.ndarray:
        """Rows ``start`` to ``stop`` in the page cache of the system, without a copy; a copy where the system cannot do that.

        The pages are private to the process and in memory when this returns, so an error of the disk is an exception here.
        """
        begin, end = ((self.first_row + row) * self._row_bytes for row in (start, stop))
        first = begin - begin % mmap.ALLOCATIONGRANULARITY
        try:
            pages = mmap.mmap(file, end - first, flags=mmap.MAP_PRIVATE, offset=first)
            pages.madvise(MADV_POPULATE_READ)
        except (OSError, ValueError, AttributeError):
            return self.read(start, stop, file=file)
        return np.frombuffer(pages, self.dtype, offset=begin - first).reshape(stop - start, self.shape[1])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Rows by their numbers; a row is read alone, or with its block if many rows of the block are wanted."""
        rows = np.asarray(rows, dtype=np.int64)
        taken = np.empty((len(rows), self.shape[1]), self.dtype)
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        file = os.open(self.path, os.O_RDONLY)
        try:
            for block in np.unique(ordered // BLOCK_ROWS).tolist():
                first, last = np.searchsorted(ordered, (block * BLOCK_ROWS, (block + 1) * BLOCK_ROWS))
                mine, start = order[first:last], block * BLOCK_ROWS
                if len(mine) * 64 >= BLOCK_ROWS:
                    stop = min(start + BLOCK_ROWS, len(self))
                    taken[mine] = self.read(start, stop, file=file)[rows[mine] - start]
                else:
                    for i in mine.tolist():
                        self.read(int(rows[i]), int(rows[i]) + 1, taken[i : i + 1], file)
        finally:
            os.close(file)
        return taken


class DiskWriter:
    """Writes rows to a flat file, from the first to the last, and opens them as `DiskBlocks`."""

    def __init__(self, path: Path, n_columns: int, dtype: Any) -> None:
        self._path, self._n_columns, self._dtype = Path(path), n_columns, np.dtype(dtype)
        self._file = self._path.open("wb")
        self.n_rows = 0

    def append(self, rows: np.ndarray) -> None:
        """Write rows (n, n_columns). Raises BackendError where the disk is full."""
        assert rows.shape[1:] == (self._n_columns,)
        try:
            np.ascontiguousarray(rows, self._dtype).tofile(self._file)
        except OSError as error:
            raise BackendError(
                f"{self._path.parent} cannot hold the rows: {error.strerror or error}; set memory.folder to a larger disk"
            ) from error
        self.n_rows += len(rows)

    def close(self) -> DiskBlocks:
        """End the file; its rows."""
        self._file.close()
        return DiskBlocks(self._path, (self.n_rows, self._n_columns), self._dtype)


class _Shared(RowBlocks):
    """The blocks for one of several tasks: each pass waits until all tasks have requested one."""

    def __init__(self, meeting: _Meeting, owner: int) -> None:
        super().__init__(meeting.blocks.shape, meeting.blocks.dtype)
        self.in_memory, self.on_device = meeting.blocks.in_memory, meeting.blocks.on_device
        self._meeting, self._owner = meeting, owner

    def passes(self, requests: Sequence[Request]) -> list[Any]:
        """Make passes together with those of the other tasks."""
        return self._meeting.wait([Request(r.part, r.args, r.add, self._owner) for r in requests])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Rows by their numbers."""
        return self._meeting.blocks.take(rows)


class _Meeting:
    """Collects the requests of tasks in threads; the last task to make a request runs the passes of all in one read."""

    def __init__(self, blocks: RowBlocks, n_tasks: int) -> None:
        self.blocks = blocks
        self._running = n_tasks
        self.stopped = False
        self._waiting: list[tuple[list[Request], list[Any]]] = []
        self._changed = threading.Condition()

    def wait(self, requests: list[Request]) -> list[Any]:
        """The results of the requests."""
        slot: list[Any] = []
        with self._changed:
            if self.stopped:
                raise _interrupted()
            self._waiting.append((requests, slot))
            self._serve()
            while not slot:
                self._changed.wait()
        if isinstance(slot[0], BaseException):
            raise slot[0]
        results: list[Any] = slot[0]
        return results

    def stop(self) -> None:
        """Let every task that waits for a pass, or asks for one later, end with an error."""
        with self._changed:
            self.stopped = True
            for _, slot in self._waiting:
                slot.append(_interrupted())
            self._waiting = []
            self._changed.notify_all()

    def leave(self, owner: int) -> None:
        """A task has ended."""
        with self._changed:
            self._running -= 1
            self.blocks.release(owner)
            self._serve()

    def _serve(self) -> None:
        """Make the passes if every running task waits for one. The lock is held: all others wait."""
        if not self._waiting or len(self._waiting) < self._running:
            return
        waiting, self._waiting = self._waiting, []
        try:
            self._pass(waiting)
        except Exception:  # of one task: the passes of the others are made again without it
            for one in waiting:
                try:
                    self._pass([one])
                except Exception as error:
                    one[1].append(error)
        self._changed.notify_all()

    def _pass(self, waiting: Sequence[tuple[list[Request], list[Any]]]) -> None:
        results = iter(self.blocks.passes([r for requests, _ in waiting for r in requests]))
        for requests, slot in waiting:
            slot.append([next(results) for _ in requests])


def _interrupted() -> BackendError:
    return BackendError("the fits were interrupted")


def together(blocks: RowBlocks, tasks: Sequence[Callable[[RowBlocks], T]]) -> list[T | Exception]:
    """Run tasks whose passes over the blocks share each read; return the result, or the exception, of each task.

    The result of a task depends only on the blocks and the task, not on the other tasks.
    """
    meeting = _Meeting(blocks, len(tasks))

    def run(owner: int) -> T | Exception:
        try:
            return tasks[owner](_Shared(meeting, owner))
        except Exception as error:  # given to the caller in place of the result
            return error
        finally:
            meeting.leave(owner)

    if not tasks:
        return []
    with ThreadPoolExecutor(len(tasks), thread_name_prefix="gpuclust-fit") as pool:
        try:
            return list(pool.map(run, range(len(tasks))))
        except BaseException:  # Ctrl-C: no further pass begins
            meeting.stop()
            raise
