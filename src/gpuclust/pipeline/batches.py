"""Where the batches of a sweep are computed: in this process, or as tasks on the workers of a Dask cluster.

This process claims and records all jobs; a worker makes each table and each matrix once, and sends back what recording needs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numba import get_num_threads

from gpuclust.algorithms.cluster import Clustering
from gpuclust.algorithms.registry import FitInput, algorithm_of, fit
from gpuclust.analysis.diagnostics import Diagnostics
from gpuclust.analysis.profile import Profile
from gpuclust.config import ClusterConfig
from gpuclust.errors import BackendError
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
from gpuclust.runtime.forecast import forecast
from gpuclust.runtime.matrix import Matrix
from gpuclust.runtime.memory import scratch_folder
from gpuclust.tracking.recorder import MemoryRecorder

HERE, JOBS, ROWS = "here", "jobs", "rows"

# The share of a worker's memory that a job may take.
MEMORY_SHARE = 0.8
# Seconds of a pass on one core, for each row, cluster and feature, and the overhead of a pass on workers: measured.
PASS_SECONDS = {"gmm": 1.4e-9, "kmeans": 0.3e-9}
OVERHEAD_SECONDS, OVERHEAD_PER_WORKER = 0.010, 0.001
# A pass on workers pays where it computes this many times its overhead.
PAYS = 10.0


class BatchRunner(Protocol):
    """Computes batches of jobs and records them."""

    def run(self, jobs: Sequence[Job], run_ids: Sequence[str]) -> list[Outcome]:
        """Compute a batch, or begin to; the outcomes of the batches that have ended by now, not of this one alone."""

    def rest(self) -> Iterator[list[Outcome]]:
        """The outcomes of the other batches, as they end."""


@dataclass(frozen=True)
class HereRunner:
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
    """What a worker is sent, and the runs that wait for it. ``sharing``: the machines with several workers."""

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
        """Begin a batch on a free worker; the outcomes of batches that end until another worker is free."""
        pool = jobs[0].config.backend.pool_fraction
        self._tasks.start(_Batch(tuple(jobs), tuple(run_ids), self._context.choice, pool, self._sharing))
        outcomes: list[Outcome] = []
        while not self._tasks.free:
            outcomes += self._ended()
        return outcomes

    def rest(self) -> Iterator[list[Outcome]]:
        """The outcomes of the batches that are still on workers."""
        while self._tasks:
            if outcomes := self._ended():
                yield outcomes

    def _ended(self) -> list[Outcome]:
        """Wait for a while; the outcomes of the batches that ended."""
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
    """The result with the table and the matrix that this process has, or makes once."""
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


_busy = threading.Lock()  # of a worker with several threads: a batch uses all cores


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
    """Connect to the workers of a job, if it has some, before its table is read. Raises BackendError where none can be used."""
    if job.config.workers.name != HERE:
        context.display.stage("connecting to Dask workers")
        connect(job.config.workers, context.say)


def runner(context: RunContext, parent: str | None, jobs: Sequence[Job]) -> BatchRunner:
    """Where the batches of the jobs are computed, as `with_workers` decided."""
    if context.batches_on == JOBS:
        return WorkersRunner(connect(jobs[0].config.workers), context, parent)
    return HereRunner(context, parent)


def with_workers(jobs: Sequence[Job], n_batches: int, n_rows: int, context: RunContext) -> RunContext:
    """The context, with how its workers are used: they run whole batches, or they hold the rows of the matrices, or neither.

    ``n_rows`` are those of the first job's table. Raises BackendError where the workers cannot be used as ``workers.use`` says.
    """
    config = jobs[0].config.workers
    if config.name == HERE:
        return context
    workers = connect(config)
    found = workers.survey()
    unseen = _unseen(jobs, workers)
    use, why = config.use, "workers.use"
    if use == "auto":
        use, why = choose(jobs, n_batches, n_rows, found, can_read=unseen is None)
    if use == JOBS and unseen is not None:
        raise BackendError(unseen)
    words = {JOBS: f"{n_batches} batches of jobs on the workers", ROWS: "rows on the workers", HERE: "computing here"}
    context.say(f"Dask: {words[use]} ({why})")
    if use == ROWS:
        return replace(context, hold=lambda matrix, job: _held(matrix, job, context))
    return replace(context, batches_on=use)


def choose(
    jobs: Sequence[Job], n_batches: int, n_rows: int, workers: Sequence[Worker], *, can_read: bool = True
) -> tuple[str, str]:
    """How workers are used where the configuration leaves it open, and why: ``jobs``, ``rows`` or ``here``."""
    n = len(workers)
    memory = min((worker.memory for worker in workers if worker.memory), default=float("inf"))
    fits = can_read and forecast([job.config for job in jobs]).resident_bytes <= MEMORY_SHARE * memory
    if fits and n_batches > 1 and n_batches >= n:
        return JOBS, f"the table fits a worker, and there are {n_batches} batches for {n} workers"
    seconds = max(_pass_seconds(job, n_rows) for job in jobs)
    overhead = OVERHEAD_SECONDS + OVERHEAD_PER_WORKER * n
    times = f"a pass takes about {1e3 * seconds:,.0f} ms here, and {1e3 * overhead:,.0f} ms to ask {n} workers"
    if seconds >= PAYS * overhead:
        return ROWS, times
    if fits and n_batches > 1:
        return JOBS, f"the table fits a worker; {times}"
    return HERE, times


def _pass_seconds(job: Job, n_rows: int) -> float:
    """The time of one pass over all rows in this process, roughly; 0 where the algorithm does not work in passes."""
    cluster = job.config.cluster
    n_features = len(job.config.data.features) or 10
    cost = PASS_SECONDS.get(cluster.name, 0.0) * getattr(cluster, "n_clusters", 1)
    return n_rows * n_features * cost / get_num_threads()


def _unseen(jobs: Sequence[Job], workers: Workers) -> str | None:
    """Why the workers cannot read the files of the jobs; None where they can."""
    paths = {p for job in jobs for p in (job.config.data.path, job.config.data.join.path) if p and "://" not in p}
    for path in sorted(paths):
        own = _size(path)
        for address, found in workers.everywhere(_size, path).items():
            if found != own:
                return (
                    f"the Dask worker {address} cannot read {path}; put it on a file system that all machines share, or into object "
                    "storage, or use workers.use=rows"
                )
    return None


def _size(path: str) -> int | None:
    """The bytes of a file, or the number of entries of a folder; None where there is none."""
    place = Path(path)
    if place.is_dir():
        return sum(1 for _ in place.iterdir())
    return place.stat().st_size if place.is_file() else None


def _held(matrix: Matrix, job: Job, context: RunContext) -> Matrix:
    """The matrix with its rows on the workers, once for all jobs with this matrix."""
    X = matrix.X
    if not isinstance(X, np.ndarray | LocalBlocks):
        return matrix  # on a GPU, or on the workers already

    def make() -> Any:
        c = job.config
        compile_first = (warm_up, (c.cluster, X.dtype.name, X.shape[1]))
        return dask_blocks(X, c.workers, context.display, folder=scratch_folder(c.memory), precompile=compile_first)

    return replace(matrix, X=context.cache.get_or_create(f"workers-{matrix.key}", make))


def warm_up(config: ClusterConfig, dtype: str, n_columns: int) -> None:
    """On a worker: compile what a fit of this algorithm to blocks of rows needs, by a fit to a few rows."""
    if "blocks" not in algorithm_of(config).fit:
        return
    n_rows = 2_000_000 // n_columns + BLOCK_ROWS  # from 2 million values on a mixture is fitted in the dtype itself
    X = np.random.default_rng(0).normal(size=(n_rows, n_columns)).astype(dtype)
    settings: dict[str, Any] = {"max_iter": 2} if hasattr(config, "max_iter") else {}
    short = replace(config, **settings)
    fit(FitInput(MemoryBlocks(X), 0, CpuBackend(), ResultCache(0), "warm-up"), [short])
