"""Where the batches of a sweep are computed: in this process, or as tasks on the workers of a Dask cluster.

This process claims and records all jobs. A worker reads each table and prepares each matrix once, and returns the results to record.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol

import numpy as np
from numba import get_num_threads

from gpuclust.algorithms.cluster import Clustering
from gpuclust.algorithms.registry import IN_BLOCKS, FitInput, algorithm_of, fit
from gpuclust.analysis.diagnostics import Diagnostics
from gpuclust.analysis.profile import Profile
from gpuclust.config import ClusterConfig
from gpuclust.data.files import find_files, split_paths
from gpuclust.data.remote import is_remote
from gpuclust.errors import BackendError, DataError
from gpuclust.metrics.validity import Scores
from gpuclust.pipeline.context import Job, Outcome, Result, RunContext
from gpuclust.pipeline.job import compute_all, get_matrix, get_table, record_all
from gpuclust.pipeline.job import run as run_jobs
from gpuclust.runtime.backend import BackendChoice, create_backend
from gpuclust.runtime.blocks import BLOCK_ROWS, LocalBlocks, MemoryBlocks
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.dask import Tasks, Worker, Workers, connect, shared_hosts, use_cores
from gpuclust.runtime.dask_blocks import dask_blocks
from gpuclust.runtime.forecast import forecast, pass_seconds
from gpuclust.runtime.matrix import Matrix
from gpuclust.runtime.memory import scratch_folder
from gpuclust.tracking.recorder import MemoryRecorder

HERE, JOBS, ROWS = "here", "jobs", "rows"

# The share of a worker's memory that a job may take.
MEMORY_SHARE = 0.8
# The overhead of a pass on workers: measured.
OVERHEAD_SECONDS, OVERHEAD_PER_WORKER = 0.010, 0.001
# A pass runs on workers only if it would take at least this many times its overhead here.
MIN_PASS_TO_OVERHEAD = 10.0


class BatchRunner(Protocol):
    """Computes batches of jobs and records them."""

    def run(self, jobs: Sequence[Job], run_ids: Sequence[str]) -> list[Outcome]:
        """Compute or start a batch; return the outcomes of all batches that have ended since the last call."""

    def rest(self) -> Iterator[list[Outcome]]:
        """The outcomes of the other batches, as they end."""


@dataclass(frozen=True)
class LocalRunner:
    """Computes each batch in this process."""

    context: RunContext
    parent: str | None

    def run(self, jobs: Sequence[Job], run_ids: Sequence[str]) -> list[Outcome]:
        """The outcomes of the batch."""
        return run_jobs(jobs, run_ids, self.context, self.parent)

    def rest(self) -> Iterator[list[Outcome]]:
        """Nothing."""
        return iter(())


@dataclass(frozen=True)
class _Batch:
    """A batch as it is sent to a worker. ``sharing``: the machines with several workers."""

    jobs: tuple[Job, ...]
    run_ids: tuple[str, ...]
    backend: BackendChoice
    pool_fraction: float
    sharing: dict[str, int]


@dataclass(frozen=True)
class _Computed:
    """A `Result` without its table and its matrix."""

    clustering: Clustering
    scores: Scores
    profile: Profile
    diagnostics: Diagnostics
    metrics: dict[str, float]


class WorkersRunner:
    """Computes batches on workers, one at a time on each, and records them in this process."""

    def __init__(self, workers: Workers, context: RunContext, parent: str | None) -> None:
        self._context, self._parent = context, parent
        self._sharing = shared_hosts(workers.survey())
        self._tasks: Tasks[_Batch] = Tasks(workers, _compute_batch)

    def run(self, jobs: Sequence[Job], run_ids: Sequence[str]) -> list[Outcome]:
        """Start a batch on an idle worker; return the outcomes of the batches that end until another worker is idle."""
        pool = jobs[0].config.backend.pool_fraction
        self._tasks.start(_Batch(tuple(jobs), tuple(run_ids), self._context.choice, pool, self._sharing))
        outcomes: list[Outcome] = []
        while not self._tasks.free:
            outcomes += self._ended()
        return outcomes

    def rest(self) -> Iterator[list[Outcome]]:
        """The outcomes of the batches that workers still compute."""
        while self._tasks:
            if outcomes := self._ended():
                yield outcomes

    def _ended(self) -> list[Outcome]:
        """Wait a few seconds; return the outcomes of the batches that ended."""
        n = len(self._tasks)
        self._context.display.stage(f"{n} {'batch' if n == 1 else 'batches'} of jobs on Dask workers")
        try:
            ended = self._tasks.ended()
            return [outcome for batch, found in ended for outcome in self._record(batch, found)]
        except BaseException:
            self._tasks.cancel()
            raise

    def _record(self, batch: _Batch, found: Any) -> list[Outcome]:
        context = self._context
        if isinstance(found, Exception):
            found = [found for _ in batch.jobs]
        results = [
            result if isinstance(result, Exception) else _completed(job, result, context)
            for job, result in zip(batch.jobs, found, strict=True)
        ]
        return record_all(batch.jobs, batch.run_ids, results, context, self._parent)


def _completed(job: Job, found: _Computed, context: RunContext) -> Result:
    """The result with the table and the matrix of this process, which reads and prepares them once."""
    return Result(
        get_table(job, context),
        get_matrix(job, context),
        found.clustering,
        found.scores,
        found.profile,
        found.diagnostics,
        found.metrics,
    )


class _NoDisplay:
    """The display of a worker."""

    def stage(self, text: str, done: float = 0.0) -> None:
        """Nothing."""

    def finished(self, outcome: Outcome) -> None:
        """Nothing."""


_busy = threading.Lock()  # for a worker with several threads: one batch uses all cores


@cache
def _worker_context(choice: BackendChoice, pool_fraction: float) -> RunContext:
    """On a worker: its backend, and the cache of its tables and matrices."""
    backend = create_backend(choice.name, pool_fraction)
    return RunContext(backend, choice, ResultCache(), MemoryRecorder(), _NoDisplay())


def _compute_batch(batch: _Batch) -> list[_Computed | Exception]:
    """On a worker: the results of jobs that share a matrix."""
    with _busy:
        use_cores(batch.sharing)
        results = compute_all(batch.jobs, _worker_context(batch.backend, batch.pool_fraction))
    return [
        r if isinstance(r, Exception) else _Computed(r.clustering, r.scores, r.profile, r.diagnostics, dict(r.metrics))
        for r in results
    ]


def connect_workers(job: Job, context: RunContext) -> None:
    """Connect to the workers of a job, if it uses any, before its table is read. Raises BackendError if no worker can be used."""
    if job.config.workers.name != HERE:
        context.display.stage("connecting to Dask workers")
        connect(job.config.workers, context.say)


def runner(context: RunContext, parent: str | None, jobs: Sequence[Job]) -> BatchRunner:
    """Where the batches of the jobs are computed, as `with_workers` decided."""
    if context.batches_on == JOBS:
        return WorkersRunner(connect(jobs[0].config.workers), context, parent)
    return LocalRunner(context, parent)


def with_workers(jobs: Sequence[Job], n_batches: int, n_rows: int, context: RunContext) -> RunContext:
    """The context with the decision how workers are used: they run whole batches, or hold the rows of the matrices, or are not used.

    ``n_rows`` is the number of rows of the first job's table. Raises BackendError if the workers cannot be used as ``workers.use`` says.
    """
    config = jobs[0].config.workers
    if config.name == HERE:
        return context
    workers = connect(config)
    found = workers.survey()
    unreadable = _unreadable(jobs, workers)
    use, why = config.use, "workers.use"
    if use == "auto":
        use, why = choose(jobs, n_batches, n_rows, found, can_read=unreadable is None)
    if use == JOBS and unreadable is not None:
        raise BackendError(unreadable)
    if use == ROWS and context.scratch(jobs[0]) is None:  # the matrix is one array
        if context.backend.name == "gpu":
            use, why = HERE, "the matrix is in the memory of the GPU"
        elif not any(map(_in_blocks, jobs)):
            use, why = HERE, f"cluster={jobs[0].config.cluster.name} needs all rows in memory"
    words = {JOBS: f"{n_batches} batches of jobs on the workers", ROWS: "rows on the workers", HERE: "computing here"}
    context.say(f"Dask: {words[use]} ({why})")
    if use == ROWS:
        return replace(context, hold=lambda matrix, batch: _held(matrix, batch, context))
    return replace(context, batches_on=use)


def choose(
    jobs: Sequence[Job], n_batches: int, n_rows: int, workers: Sequence[Worker], *, can_read: bool = True
) -> tuple[str, str]:
    """How workers are used with ``workers.use=auto`` (``jobs``, ``rows`` or ``here``), and why."""
    n = len(workers)
    memory = min((worker.memory for worker in workers if worker.memory), default=float("inf"))
    fits = can_read and forecast([job.config for job in jobs]).resident_bytes <= MEMORY_SHARE * memory
    if fits and n_batches > 1 and n_batches >= n:
        return JOBS, f"the table fits a worker, and there are {n_batches} batches for {n} workers"
    seconds = max(pass_seconds(job.config, n_rows) for job in jobs) / get_num_threads()
    overhead = OVERHEAD_SECONDS + OVERHEAD_PER_WORKER * n
    times = (
        f"a pass takes about {1e3 * seconds:,.0f} ms here, and its overhead on {n} workers is {1e3 * overhead:,.0f} ms"
    )
    if seconds >= MIN_PASS_TO_OVERHEAD * overhead:
        return ROWS, times
    if fits and n_batches > 1:
        return JOBS, f"the table fits a worker; {times}"
    return HERE, times


def _unreadable(jobs: Sequence[Job], workers: Workers) -> str | None:
    """Why the workers cannot read the files of the jobs; None if they can."""
    if any(job.config.data.query for job in jobs):
        return "each worker would run the query again; use workers.use=rows"
    given = {name for job in jobs for name in (job.config.data.path, job.config.data.join.path) if name}
    for path in sorted({part for name in given for part in split_paths(name) if not is_remote(part)}):
        own = _size(path)
        for address, found in workers.everywhere(_size, path).items():
            if found != own:
                return (
                    f"the Dask worker {address} cannot read {path}; put it on a file system that all machines share, or into object "
                    "storage, or use workers.use=rows"
                )
    return None


def _size(path: str) -> int | None:
    """The bytes of a file, or of the files in a folder or of a pattern; None if they cannot be read."""
    try:
        files = find_files(path)
        return sum(file.stat().st_size for file in (files.origin.files if files.origin else files.paths))
    except (DataError, OSError):
        return None


def _in_blocks(job: Job) -> bool:
    """Whether the algorithm of a job can fit blocks of rows."""
    return IN_BLOCKS in algorithm_of(job.config.cluster).fit


def _held(matrix: Matrix, jobs: Sequence[Job], context: RunContext) -> Matrix:
    """The matrix of a batch with its rows on the workers, once for all batches with this matrix.

    An array stays here if it is on a GPU, or if an algorithm of the batch cannot fit blocks of rows.
    """
    X = matrix.X
    if not isinstance(X, np.ndarray | LocalBlocks):
        return matrix
    if isinstance(X, np.ndarray) and not all(map(_in_blocks, jobs)):
        return matrix

    def make() -> Any:
        c = jobs[0].config
        compile_first = (warm_up, (c.cluster, X.dtype.name, X.shape[1]))
        return dask_blocks(X, c.workers, context.display, folder=scratch_folder(c.memory), precompile=compile_first)

    return replace(matrix, X=context.cache.get_or_create(f"workers-{matrix.key}", make))


def warm_up(config: ClusterConfig, dtype: str, n_columns: int) -> None:
    """On a worker: compile the kernels of a fit to blocks of rows, by a fit to a small random matrix.

    Nothing is compiled for an algorithm with a shared step: the process that runs the job computes it (HDBSCAN's tree).
    """
    algorithm = algorithm_of(config)
    if IN_BLOCKS not in algorithm.fit or algorithm.shared_step:
        return
    n_rows = 2_000_000 // n_columns + BLOCK_ROWS  # from 2 million values on a mixture is fitted in the dtype itself
    X = np.random.default_rng(0).normal(size=(n_rows, n_columns)).astype(dtype)
    settings: dict[str, Any] = {"max_iter": 2} if hasattr(config, "max_iter") else {}
    short = replace(config, **settings)
    fit(FitInput(MemoryBlocks(X), 0, CpuBackend(), ResultCache(0), "warm-up"), [short])
