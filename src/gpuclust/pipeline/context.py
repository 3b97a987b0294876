"""A job, what it runs with, its result and its outcome: the types of `job.py` and `sweep.py`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gpuclust import __version__
from gpuclust.algorithms.cluster import Clustering
from gpuclust.algorithms.registry import algorithm_of
from gpuclust.analysis.diagnostics import Diagnostics
from gpuclust.analysis.profile import Profile
from gpuclust.config import SOURCE, Config, DataConfig, flatten
from gpuclust.data.files import short_name
from gpuclust.data.source import fingerprint
from gpuclust.data.table import Table
from gpuclust.metrics.validity import Scores
from gpuclust.model.records import noise_warning
from gpuclust.overrides import OF_THE_SWEEP, WITHOUT_EFFECT
from gpuclust.reducers.neighbours import distance_warnings
from gpuclust.runtime.backend import Backend, BackendChoice
from gpuclust.runtime.cache import ResultCache, key, map_key, matrix_key, table_key
from gpuclust.runtime.forecast import PINNED, RESIDENT, MemoryPlan, plan_memory
from gpuclust.runtime.matrix import Matrix
from gpuclust.runtime.scratch import Scratch
from gpuclust.sanitize import mask
from gpuclust.tracking import recorder as tags
from gpuclust.tracking.recorder import Recorder

# Groups that decide which rows and features are clustered, and in which space.
OF_THE_SPACE = ("data", "clean", "scale", "reduce", "dtype", "experiments")


@dataclass(frozen=True)
class Job:
    """One configuration to run: its name among its sweep's, what varies in it, and the key that resume looks up. ``share`` is below 1 for
    a fit of a search on a share of the rows; the sweep does not choose from these."""

    name: str
    config: Config
    swept: Mapping[str, Any]
    fingerprint: str
    key: str
    share: float = 1.0

    @property
    def batch_key(self) -> tuple[Any, ...]:
        """Jobs with an equal key can run together."""
        c = self.config
        return (self.key_of_map, c.seed, repr(c.score), c.analysis.reference, c.analysis.dbcv)

    @property
    def space(self) -> str:
        """What varies in how its matrix was made, in words: ``scale=minmax reduce.n_components=2``; its name where nothing does."""
        words = [f"{k}={_written(v)}" for k, v in self.swept.items() if k.split(".")[0] in OF_THE_SPACE]
        return " ".join(words) or self.name

    @cached_property
    def key_of_table(self) -> str:
        """Key of the cleaned table."""
        return table_key(self.config, self.fingerprint)

    @cached_property
    def key_of_matrix(self) -> str:
        """Key of the prepared matrix."""
        return matrix_key(self.config, self.key_of_table)

    @cached_property
    def key_of_map(self) -> str:
        """Key of the map of the matrix."""
        return map_key(self.config, self.key_of_matrix)


@dataclass(frozen=True)
class Result:
    """The results of a job, ready to record."""

    table: Table
    matrix: Matrix
    clustering: Clustering
    scores: Scores
    profile: Profile
    diagnostics: Diagnostics
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """How a job ended. ``status`` is FINISHED or FAILED; a ``resumed`` job was found in the store, not run.

    ``labels`` is the digest of the labels; ``table`` the summary of the table of a resumed job; ``parent`` the sweep that a resumed
    job was first run in, if any; ``clustering`` and ``profile`` are None when the job failed, was resumed, or its arrays were released.
    """

    job: Job
    run_id: str
    status: str
    metrics: Mapping[str, float]
    error: str | None = None
    resumed: bool = False
    labels: str | None = None
    parent: str | None = None
    table: str | None = None
    clustering: Clustering | None = None
    profile: Profile | None = None
    sampled_labels: np.ndarray | None = None
    """With ``report=full``: the labels of the rows that the clustergram of a sweep draws."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the use of the clustering, in sentences."""
        n_rows = round(self.metrics.get("n_rows", 0))
        n_noise = round(self.metrics.get("noise_fraction", 0.0) * n_rows)
        algorithm = algorithm_of(self.job.config.cluster)
        much_noise = noise_warning(n_noise, n_rows, algorithm.less_noise)
        of_space = distance_warnings(self.job.config.reduce)
        return (*([much_noise] if much_noise else []), *algorithm.warnings(self.metrics), *of_space)

    @property
    def short_name(self) -> str:
        """The algorithm and its size, fit for a file name: ``kmeans-k8``, ``hdbscan-50``, ``toy-0.3``."""
        cluster, algorithm = self.job.config.cluster, algorithm_of(self.job.config.cluster)
        if algorithm.size_key is None:
            return cluster.name
        size = getattr(cluster, algorithm.size_key)
        size = size if algorithm.counts_clusters else self.metrics.get(algorithm.size_key, size)
        number = f"{size:.10g}" if isinstance(size, (int, float)) else str(size)
        return f"{cluster.name}-{'k' if algorithm.counts_clusters else ''}{number}"

    def without_arrays(self) -> Outcome:
        """The outcome without its arrays."""
        return replace(self, clustering=None)


class Display(Protocol):
    """Receives progress updates and the outcome of each job."""

    def stage(self, text: str, done: float = 0.0) -> None:
        """The current step, and the fraction of it that is done, in [0, 1]."""

    def finished(self, outcome: Outcome) -> None:
        """A job ended."""


class RowStorage:
    """The folders for the rows of tables that are not held in memory, and the memory plans of jobs that are run without a common plan."""

    def __init__(self) -> None:
        self._plans: dict[str, MemoryPlan] = {}
        self._scratch: dict[tuple[Path, bool], Scratch] = {}  # by folder, and whether matrices are in pinned memory

    def plan(self, job: Job, backend: str) -> MemoryPlan:
        """How the rows of a single job are held. Raises BackendError if neither memory nor disk can hold them."""
        if job.key_of_table not in self._plans:
            self._plans[job.key_of_table] = plan_memory(job.config, backend=backend)
        return self._plans[job.key_of_table]

    def __del__(self) -> None:
        for scratch in self._scratch.values():  # a program that fits many tables keeps no files of those that are done
            scratch.close()

    def folder(self, plan: MemoryPlan, backend: Backend) -> Scratch | None:
        """The folder of a plan; None where all rows are in memory."""
        if plan.mode == RESIDENT:
            return None
        pinned = plan.mode == PINNED
        if (plan.folder, pinned) not in self._scratch:
            self._scratch[plan.folder, pinned] = Scratch(plan.folder, pinned=backend.host_array if pinned else None)
        return self._scratch[plan.folder, pinned]


@dataclass(frozen=True)
class RunContext:
    """What jobs run with: the backend and why it was chosen, the shared cache, the recorder and the display.

    ``say`` prints a line for the user; ``work`` receives how much of the batch is done, in jobs. With Dask workers (`gpuclust.pipeline.batches`),
    ``batches_on`` is ``jobs`` where they compute whole batches, and ``hold`` puts the rows of the matrix of a batch of jobs on them.
    ``memory`` says where all jobs hold their rows; None: it is decided for each table.
    """

    backend: Backend
    choice: BackendChoice
    cache: ResultCache
    recorder: Recorder
    display: Display
    command: str = ""
    say: Callable[[str], None] = lambda text: None
    work: Callable[[float], None] = lambda units: None
    batches_on: str = "here"
    hold: Callable[[Matrix, Sequence[Job]], Matrix] = lambda matrix, jobs: matrix
    memory: MemoryPlan | None = None
    storage: RowStorage = field(default_factory=RowStorage)

    def scratch(self, job: Job) -> Scratch | None:
        """The folder for the rows of a job's table; None where they are held in memory."""
        return self.storage.folder(self._plan(job), self.backend)

    def memory_limit(self, job: Job) -> int:
        """The bytes that the process may take while it computes a job."""
        return self._plan(job).limit

    def _plan(self, job: Job) -> MemoryPlan:
        return self.memory or self.storage.plan(job, self.backend.name)


def with_size(job: Job, metrics: Mapping[str, float]) -> Job:
    """The job, its name with the size that it took where none was given: ``hdbscan min_cluster_size=auto (21)``."""
    size_key = algorithm_of(job.config.cluster).size_key
    words = re.search(rf"\b{size_key}=(auto|default)(?! \()", job.name)
    if words is None or size_key is None or size_key not in metrics:
        return job
    took = f"{words[0]} ({metrics[size_key]:.10g})"
    return replace(job, name=job.name.replace(words[0], took, 1))


def _written(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, (list, tuple)) else str(value)


def make_job(config: Config, name: str, swept: Mapping[str, Any], backend: str) -> Job:
    """The job of a configuration. Raises DataError when its file cannot be read."""
    content = fingerprint(config.data)
    leaves = flatten(config).items()
    without = {*OF_THE_SWEEP, *(f"data.{name}" for name in SOURCE[1:])}
    matters = {k: v for k, v in leaves if k.split(".")[0] not in WITHOUT_EFFECT and k not in without}
    for unused in ("data.within", "clean.where"):  # a key that is not used does not change the key of older runs
        if matters[unused] is None:
            del matters[unused]
    matters |= {"data.path": None, "data.where": None, "bounds": config.clean.bounds}
    return Job(name, config, swept, content, key("job", __version__, content, backend, matters))


def data_name(data: DataConfig) -> str:
    """The data of a run in a few letters: the name of the file, or of the source."""
    return short_name(mask(data.shown))


@cache
def git_commit(folder: Path) -> str | None:
    """The commit that is checked out in a folder; None where it is in no git repository."""
    try:
        asked = ["git", "-C", str(folder), "rev-parse", "--verify", "--quiet", "HEAD"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def about(context: RunContext) -> dict[str, str]:
    """Tags of a run: the device, its reason, the version, the command and the git commit."""
    commit = git_commit(Path.cwd())
    return {
        **({tags.GIT_COMMIT: commit} if commit else {}),
        tags.BACKEND: context.choice.name,
        tags.BACKEND_REASON: context.choice.reason,
        tags.DEVICE: context.backend.device,
        **({tags.FORECAST: context.memory.reason} if context.memory else {}),
        tags.VERSION: __version__,
        tags.COMMAND: mask(context.command),
    }
