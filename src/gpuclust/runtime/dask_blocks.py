"""A matrix whose blocks of rows are on the workers of a Dask cluster.

A pass is one task on each worker. If a worker ends, nothing is lost: Dask repeats its tasks on another worker, and its rows are read from
their file, or sent, again. For this reason rows are arguments of tasks; data that is scattered, or held by actors, is lost with its
worker.
"""

from __future__ import annotations

import itertools
import os
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from gpuclust.config import WorkersConfig
from gpuclust.errors import BackendError, GpuclustError
from gpuclust.resources import gigabytes
from gpuclust.runtime.blocks import (
    BLOCK_ROWS,
    DiskBlocks,
    LocalBlocks,
    MemoryBlocks,
    MergeTree,
    Request,
    RowBlocks,
)
from gpuclust.runtime.dask import (
    LOOK_SECONDS,
    RETRIES,
    Say,
    Workers,
    connect,
    memory_limit,
    no_display,
    packed,
    shared_hosts,
    unpacked,
    use_cores,
)
from gpuclust.runtime.passes import PerRow
from gpuclust.runtime.scratch import Scratch

SEND_BYTES = 10**9
"""The most bytes of rows that are sent to workers that cannot read the file; the scheduler keeps a copy."""
SHARE = 0.5
"""The share of a worker's memory limit that rows may take. Dask moves data to the disk from 0.6 on."""

Call = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclass(frozen=True)
class _Spec:
    """Consecutive blocks of a matrix of ``n_blocks``: rows ``start`` to ``stop``, which are in the file ``path`` from ``file_row`` on."""

    n_blocks: int
    start: int
    stop: int
    shape: tuple[int, int]
    dtype: str
    path: str | None
    file_row: int
    sharing: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class _Shard:
    """The blocks of a spec on a worker, in memory or read from the file in each pass, with the cache of the passes."""

    spec: _Spec
    blocks: LocalBlocks

    def __sizeof__(self) -> int:
        """Bytes in memory; Dask uses them to run a task on the worker that holds its rows."""
        return self.blocks.nbytes + 1000


# The shards that this process holds, on a worker.
_held: weakref.WeakSet[_Shard] = weakref.WeakSet()


def _load(spec: _Spec, rows: np.ndarray | None, precompile: Call | None) -> _Shard:
    """On a worker: the blocks of a spec, from its file, or from the rows that were sent; kernels are compiled at the same time."""
    with ThreadPoolExecutor(1, thread_name_prefix="gpuclust-compile") as pool:
        compiling = pool.submit(precompile[0], *precompile[1]) if precompile else None
        blocks: LocalBlocks
        if rows is not None:
            blocks = MemoryBlocks(rows if rows.flags.writeable else rows.copy())
        else:
            shape, dtype = (spec.stop - spec.start, spec.shape[1]), np.dtype(spec.dtype)
            blocks = DiskBlocks(Path(str(spec.path)), shape, dtype, spec.file_row)
            if blocks.total_bytes <= _room():
                blocks = MemoryBlocks(blocks.read(0, shape[0]))
        if compiling is not None:
            with suppress(Exception):  # it would be raised by the pass that needs the kernel
                compiling.result()
    shard = _Shard(spec, blocks)
    _held.add(shard)
    return shard


def _room() -> float:
    """On a worker: bytes of memory that rows may still take."""
    return SHARE * memory_limit() - sum(shard.blocks.nbytes for shard in list(_held))


@dataclass(frozen=True)
class _Failed:
    """A GpuclustError, returned instead of raised: it would occur again, so Dask must not retry the task."""

    error: GpuclustError


def _pass(shard: _Shard, message: bytes) -> bytes | _Failed:
    """On a worker: for each request, the complete sub-trees of its blocks, or its results run by run. They are packed as bytes, because
    arrays that Dask sends are read-only."""
    requests, released = unpacked(message)
    for owner in released:
        shard.blocks.release(owner)
    use_cores(shard.spec.sharing)
    try:
        found = shard.blocks.collected(requests, shard.spec.n_blocks, shard.spec.start // BLOCK_ROWS)
    except GpuclustError as error:
        return _Failed(error)
    return packed([collector.found if collector.tree is None else collector.tree.nodes for collector in found])


class DaskBlocks(RowBlocks):
    """A matrix whose blocks are on the workers of a cluster. ``source`` holds the rows too, for `take`.

    Each worker has one shard of consecutive blocks, which it reads from ``path`` if that is given; otherwise the rows are sent. A worker
    with too little memory reads the file again in each pass. ``precompile``, a function and its arguments, is called on the workers at the
    same time.
    """

    def __init__(
        self,
        workers: Workers,
        source: LocalBlocks,
        *,
        path: Path | None = None,
        n_shards: int | None = None,
        precompile: Call | None = None,
        stage: Callable[[str, float], None] = no_display,
        say: Say = no_display,
    ) -> None:
        super().__init__(source.shape, source.dtype)
        self.in_memory = source.in_memory
        self._workers, self._source, self._path = workers, source, path
        self._precompile, self._say = precompile, say
        self._released: set[int] = set()
        self._moved: list[Any] = []
        self._next_look = 0.0
        found = workers.survey()
        self._addresses = [worker.address for worker in found]
        self._specs = self._cut(n_shards or len(found), shared_hosts(found))
        self._shards = [self._place(spec, self._addresses[i % len(found)]) for i, spec in enumerate(self._specs)]
        self._wait(stage)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Rows by their numbers."""
        return self._source.take(rows)

    def release(self, owner: int) -> None:
        """Delete what the passes of an owner have cached; the workers do so before the next pass."""
        self._released.add(owner)

    def passes(self, requests: Sequence[Request]) -> list[Any]:
        """Make several passes in one task on each worker."""
        self._balance()
        released = set(self._released)
        messages = self._messages(requests, released)
        by_shard = []
        for found in self._workers.results(self._workers.map(_pass, self._shards, messages, name="pass")):
            if isinstance(found, _Failed):
                raise found.error
            by_shard.append(unpacked(found))
        self._released -= released
        if self._moved:
            self._workers.unpin(self._moved)
            self._moved = []
        return [self._merged(request, [found[i] for found in by_shard]) for i, request in enumerate(requests)]

    def _merged(self, request: Request, parts: Sequence[Any]) -> Any:
        if request.add is None:
            return [result for part in parts for result in part]
        tree = MergeTree(self.n_blocks, request.add)
        for nodes in parts:
            for (level, index), value in nodes.items():
                tree.put(level, index, value)
        return tree.value

    def _messages(self, requests: Sequence[Request], released: set[int]) -> list[bytes]:
        """The message to each worker: the requests, in which arguments with one value per row are cut to the worker's rows."""
        if not any(isinstance(arg, PerRow) for request in requests for arg in request.args):
            return [packed((list(requests), released))] * len(self._specs)

        def cut(request: Request, spec: _Spec) -> Request:
            args = (arg.slice(spec.start, spec.stop) if isinstance(arg, PerRow) else arg for arg in request.args)
            return replace(request, args=tuple(args))

        return [packed(([cut(request, spec) for request in requests], released)) for spec in self._specs]

    def _cut(self, n_shards: int, sharing: Mapping[str, int]) -> list[_Spec]:
        """The rows of each shard. Edges are at multiples of a power of two of blocks, so that a shard gives few sub-trees."""
        n_shards = max(1, min(n_shards, self.n_blocks))
        step = 2 ** max(0, (self.n_blocks // n_shards).bit_length() - 6)
        blocks = [round(i * self.n_blocks / n_shards / step) * step for i in range(n_shards)]
        edges = [block * BLOCK_ROWS for block in blocks] + [len(self)]
        path = None if self._path is None else str(self._path)
        before = self._source.first_row if isinstance(self._source, DiskBlocks) else 0
        return [
            _Spec(self.n_blocks, start, stop, self.shape, self.dtype.name, path, before + start, sharing)
            for start, stop in itertools.pairwise(edges)
        ]

    def _place(self, spec: _Spec, address: str) -> Any:
        """A task that loads a shard on a worker, or elsewhere when that has ended."""
        rows = _rows(self._source, spec.start, spec.stop) if spec.path is None else None
        return self._workers.submit(_load, spec, rows, self._precompile, name="rows", address=address, retries=RETRIES)

    def _wait(self, stage: Callable[[str, float], None]) -> None:
        """Wait until the shards are loaded."""
        verb = "sending" if self._path is None else "loading"
        many = "1 Dask worker" if len(self._shards) == 1 else f"{len(self._shards)} Dask workers"
        for i, shard in enumerate(self._shards):
            stage(f"{verb} rows to {many}", i / len(self._shards))
            self._workers.finish(shard)
        self._workers.unpin(self._shards)

    def _balance(self) -> None:
        """Move shards to workers that have joined, as long as another worker has several shards."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        addresses = self._workers.addresses()
        if addresses == self._addresses:
            return
        where = self._workers.holders(self._shards)
        if None in where:  # a shard is being loaded again: look later
            return
        if lost := set(self._addresses) - set(addresses):
            self._say(f"a Dask worker ended ({', '.join(sorted(lost))}); another worker has its rows")
        self._addresses = addresses
        n_held = Counter(where)
        idle = [address for address in addresses if address not in n_held]
        for i, address in enumerate(where):
            if idle and n_held[address] > 1:
                n_held[address] -= 1
                self._shards[i] = self._place(self._specs[i], idle.pop())
                self._moved.append(self._shards[i])


def _rows(source: LocalBlocks, start: int, stop: int) -> np.ndarray:
    """Rows ``start`` to ``stop`` of blocks that this process reads."""
    if isinstance(source, DiskBlocks):
        return source.read(start, stop)
    assert isinstance(source, MemoryBlocks)
    return source.X[start:stop]


def dask_blocks(
    X: np.ndarray | LocalBlocks,
    config: WorkersConfig,
    display: Any,
    *,
    folder: Path | None = None,
    precompile: Call | None = None,
    n_shards: int | None = None,
) -> DaskBlocks:
    """The rows of X (n_rows, n_columns), an array on the host or blocks, on the workers of a configuration.

    If all workers can read the file of `DiskBlocks`, they do so. Other rows are sent, up to `SEND_BYTES`; a larger array is written to
    a `Scratch` in ``folder``, which the workers must be able to read. ``display`` has ``say`` and ``stage``.

    Raises BackendError where the workers cannot be reached or cannot get the rows.
    """
    say = getattr(display, "say", no_display)
    workers = connect(config, say)
    source = MemoryBlocks(X) if isinstance(X, np.ndarray) else X
    path: Path | None = None
    with ExitStack() as on_error:
        if isinstance(source, DiskBlocks):
            path = source.path.absolute() if _visible(workers, source.path) else None
            if path is None and source.total_bytes > SEND_BYTES:
                raise _unreadable(workers, source.path, source.total_bytes)
        elif source.total_bytes > SEND_BYTES:
            path = _written(source, on_error.enter_context(Scratch(folder)))
            if not _visible(workers, path):
                raise _unreadable(workers, path, source.total_bytes)
        blocks = DaskBlocks(
            workers, source, path=path, n_shards=n_shards, precompile=precompile, stage=display.stage, say=say
        )
        weakref.finalize(blocks, on_error.pop_all().close)
    return blocks


def _written(source: LocalBlocks, scratch: Scratch) -> Path:
    """The rows in a flat file of a folder."""
    writer = scratch.writer("rows", source.shape[1], source.dtype)
    for _, X in source.runs():
        writer.append(X)
    return writer.close().path.absolute()


def _unreadable(workers: Workers, path: Path, n_bytes: int) -> BackendError:
    return BackendError(
        f"the Dask workers at {workers.scheduler} cannot read {path.absolute()}, and {gigabytes(n_bytes)} are too many to send; "
        "set memory.folder to a folder on a file system that all machines share"
    )


def _visible(workers: Workers, path: Path) -> bool:
    """Whether all workers can read this file."""
    path = path.absolute()
    found = workers.everywhere(_mark, str(path))
    return bool(found) and set(map(str, found.values())) == {_mark(str(path))}


def _mark(path: str) -> str:
    """The size of a file and a digest of its first and last bytes; the error where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            first = file.read(4096)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 4096))
            return f"{size} {blake2b(first + file.read()).hexdigest()}"
    except OSError as error:
        return str(error)
