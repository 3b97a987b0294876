"""A forecast of the memory and the time of jobs, and the decision where their rows are held, before any row is read.

The model is linear in the rows, the numbers and the bytes of text, with constants in ``forecast.json`` that
``experiments/bench/forecast.py --fit`` measures on child processes and writes. Seconds are those of the machine that measured them,
scaled by the number of cores: an order of magnitude.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gpuclust.config import AUTO, Config
from gpuclust.data.source_size import SourceSize, source_size
from gpuclust.errors import BackendError
from gpuclust.resources import gigabytes
from gpuclust.runtime.blocks import BLOCK_ROWS, RUN_BLOCKS
from gpuclust.runtime.memory import free_bytes, memory_limit, scratch_folder

RESIDENT, PINNED, DISK, CLUSTER, REFUSE = "resident", "pinned", "disk", "cluster", "refuse"

QUIET_BYTES, QUIET_SECONDS = 2e9, 60
"""The forecast of a job in memory is not printed if it is below both, and below half of the limit."""
DEVICE_SHARE = 0.8
"""The share of a GPU's memory that a job may take."""
TREE_SHARE = 0.8
"""The share of the memory beyond the libraries that HDBSCAN's tree may take; the rest is for blocks and results."""
MAX_OVERESTIMATE = 1.3
"""How many times the peak a forecast may be: a job from disk is refused only where it certainly exceeds the limit."""
RESULT_BYTES = 12
"""Bytes per row of the labels, confidences and distances, which are always held in memory."""
TREE_SAMPLE = 250_000
"""The sample that HDBSCAN's tree is built from if the tree of all rows does not fit in memory; smaller if this does not fit either."""
VECTOR_BYTES, VECTOR_BLOCKS = 4, 4
"""Bytes of a value of a vector as it is read, and blocks of rows that are held in float64."""
COORDINATE_BYTES = 12
"""Bytes per row of the three coordinates of the map."""


@dataclass(frozen=True)
class Forecast:
    """The forecast for the jobs of a command.

    ``resident_bytes``, ``pinned_bytes`` and ``disk_bytes`` are peaks of the process with all rows in memory, with the matrix in page-locked
    memory and the table on disk, and with blocks of rows on disk;
    ``scratch_bytes`` is the size of the temporary files, ``pass_bytes`` what one pass over the matrix reads. ``rung`` is what will be done:
    ``resident``, ``pinned``, ``disk``, ``cluster`` or ``refuse``. ``limit`` is the memory that the process may take, ``seconds`` the time of all jobs.
    ``tree_rows``: the rows that HDBSCAN's tree is built of, where not all fit. ``device_bytes`` and ``device_limit`` are of a GPU.
    """

    n_rows: int
    exact_rows: bool
    n_features: int
    resident_bytes: int
    disk_bytes: int
    scratch_bytes: int
    pass_bytes: int
    limit: int
    seconds: float
    rung: str
    folder: Path
    why: str = ""
    tree_rows: int | None = None
    device_bytes: int | None = None
    device_limit: int | None = None
    pinned_bytes: int = 0

    @property
    def noteworthy(self) -> bool:
        """Whether the forecast is printed before the work: not for a job that is small for this machine."""
        small = self.resident_bytes < min(QUIET_BYTES, self.limit / 2) and self.seconds < QUIET_SECONDS
        return self.rung != RESIDENT or not small

    @property
    def text(self) -> str:
        """One line: ``needs 31 GB of 24: streams from disk, 3.4 GB read a pass, about 6 min``."""
        needs = f"needs {gigabytes(self.resident_bytes)} of {gigabytes(self.limit).removesuffix(' GB')}"
        if self.device_bytes is not None and self.device_limit is not None and self.device_bytes > self.device_limit:
            needs = f"needs {gigabytes(self.device_bytes)} of the GPU's {gigabytes(self.device_limit)}"
        does = {
            RESIDENT: "all rows in memory",
            PINNED: f"the matrix in page-locked memory, {gigabytes(self.pass_bytes)} read a pass",
            DISK: f"streams from disk, {gigabytes(self.pass_bytes)} read a pass",
            CLUSTER: "rows on the workers of the cluster",
            REFUSE: "cannot run",
        }[self.rung]
        time = "" if self.rung == REFUSE else f", about {_duration(self.seconds)}"
        tree = "" if self.tree_rows is None else f"; HDBSCAN's tree of {self.tree_rows:,} of {self.n_rows:,} rows"
        return f"{needs}: {does}{time}{tree}{f' ({self.why})' if self.why else ''}"

    @property
    def summary(self) -> str:
        """The number of rows and features, then `text`: the first line of ``--cost``."""
        rows = f"{self.n_rows:,}" if self.exact_rows else f"about {_two_digits(self.n_rows):,}"
        return f"{rows} rows × {self.n_features} features: {self.text}"

    @property
    def details(self) -> tuple[str, ...]:
        """The peak memory of each way to hold the rows, one line each."""
        return (
            f"  in memory: {gigabytes(self.resident_bytes)} at the peak",
            f"  on disk: {gigabytes(self.disk_bytes)} at the peak, {gigabytes(self.scratch_bytes)} of temporary files in {self.folder}, "
            f"{gigabytes(self.pass_bytes)} read a pass",
        )


@dataclass(frozen=True)
class MemoryPlan:
    """How a job holds its rows: ``mode`` is ``resident``, ``pinned``, ``disk`` or ``cluster``; ``limit`` the bytes that the process may take;
    ``folder`` where temporary files go; ``reason`` the forecast in words."""

    mode: str
    limit: int
    folder: Path
    reason: str
    forecast: Forecast


def plan_memory(configs: Config | Sequence[Config], *, backend: str = "cpu") -> MemoryPlan:
    """Decide how the jobs of a command hold their rows. ``backend`` is ``cpu`` or ``gpu``.

    Raises:
        BackendError: neither memory nor the disk of ``memory.folder`` can hold the rows, and there is no cluster.
        DataError, ConfigurationError: the source cannot be read, or a named column does not exist.
    """
    found = forecast(configs, backend=backend)
    if found.rung == REFUSE:
        raise BackendError(f"the job {found.summary}")
    return MemoryPlan(found.rung, found.limit, found.folder, found.text, found)


def forecast(configs: Config | Sequence[Config], *, backend: str = "cpu") -> Forecast:
    """The forecast for jobs that run one after another in one process: the largest peak, and the sum of the seconds."""
    jobs = [configs] if isinstance(configs, Config) else list(configs)
    sizes: dict[str, SourceSize] = {}
    for job in jobs:
        if repr(job.data) not in sizes:
            sizes[repr(job.data)] = source_size(job.data)
    needs = [_Need(job, sizes[repr(job.data)]) for job in jobs]
    largest = max(needs, key=lambda need: need.resident_bytes)
    config = largest.config
    limit, folder = memory_limit(config.memory), scratch_folder(config.memory)
    device = _device_limit() if backend == "gpu" else None
    device_bytes = largest.device_bytes if device is not None else None
    disk_bytes = max(need.disk_bytes for need in needs)
    tables, matrices = _file_bytes(jobs, needs)
    pinned_bytes, scratch = disk_bytes + matrices, tables + matrices
    rung, why = _rung(largest, disk_bytes, pinned_bytes, scratch, limit, folder, device)
    seconds, rows_of_tree, unread = 0.0, None, set(sizes)
    for job, need in zip(jobs, needs, strict=True):
        terms = need.time_terms()
        if repr(job.data) not in unread:  # a table is read once for all jobs that use it
            terms["read"] = 0.0
        unread.discard(repr(job.data))
        seconds += _total(terms, "seconds")
    if jobs[0].sweep.search != "grid":  # a search runs only n_trials of these jobs
        seconds *= min(1.0, jobs[0].sweep.n_trials / len(jobs))
    seconds *= constants()["seconds"]["disk"] if rung == DISK else 1.0
    if rung in (PINNED, DISK, CLUSTER):
        trees = [need for need in needs if need.config.cluster.name == "hdbscan"]
        of_trees = (need.tree_rows(limit) for need in trees)
        rows = min(of_trees, default=largest.n_rows)
        rows_of_tree = rows if rows < largest.n_rows else None
    return Forecast(
        n_rows=largest.n_rows,
        exact_rows=largest.size.exact,
        n_features=largest.size.n_features,
        resident_bytes=largest.resident_bytes,
        disk_bytes=disk_bytes,
        scratch_bytes=scratch,
        pass_bytes=largest.pass_bytes,
        limit=limit,
        seconds=seconds,
        rung=rung,
        folder=folder,
        why=why,
        tree_rows=rows_of_tree,
        device_bytes=device_bytes,
        device_limit=device,
        pinned_bytes=pinned_bytes,
    )


def tree_rows(n_rows: int, n_columns: int, limit: int) -> int:
    """The number of rows in HDBSCAN's tree with ``cluster.sample_rows=auto``: all rows if their tree fits, else a sample."""
    most = hdbscan_rows(limit, n_columns)
    return n_rows if n_rows <= most else min(most, TREE_SAMPLE)


def hdbscan_rows(limit: int, n_columns: int) -> int:
    """The number of rows whose HDBSCAN tree a process of ``limit`` bytes can build, in ``n_columns`` dimensions."""
    c = constants()["memory"]
    room = TREE_SHARE * (limit - c["disk_base"])
    return max(int(room / (c["tree_row"] + c["tree_number"] * n_columns)), 1000)


def _rung(
    need: _Need, disk_bytes: int, pinned_bytes: int, scratch: int, limit: int, folder: Path, device: int | None
) -> tuple[str, str]:
    """How the rows are held, and the reason in words where the user needs it."""
    memory, workers = need.config.memory, getattr(need.config, "workers", None)
    fits = need.resident_bytes <= limit
    on_device = device is None or need.device_bytes <= device
    if memory.mode == RESIDENT:
        if not fits and memory.limit != AUTO:
            return (
                REFUSE,
                "memory.mode=resident; use memory.mode=auto, a higher memory.limit, or data.n_rows for a sample",
            )
        return RESIDENT, "" if fits else "memory.mode=resident; it may run out of memory"
    if memory.mode == AUTO and fits and on_device:
        return RESIDENT, ""
    free = free_bytes(folder)
    if disk_bytes <= MAX_OVERESTIMATE * limit and scratch <= free:
        use = workers.use if workers is not None and workers.name != "here" else None
        if use == "rows":
            return CLUSTER, "prepared in temporary files"
        if on_device:
            return DISK, "memory.mode=disk" if memory.mode == DISK and fits else ""
        streams = "each pass of EM streams to it" if need.algorithm == "gmm" else "the CPU computes the fits"
        in_memory = memory.mode == AUTO and pinned_bytes <= limit and use is None
        return PINNED if in_memory else DISK, f"the table is too large for the GPU, so {streams}"
    missing = (
        f"temporary files of {gigabytes(scratch)} exceed the {gigabytes(free)} free in {folder}; set memory.folder to a larger disk"
        if scratch > free
        else f"streaming from disk needs {gigabytes(disk_bytes)}; raise memory.limit"
    )
    return REFUSE, f"{missing}, or use data.n_rows for a sample"


class _Need:
    """The forecast for one job, from the constants."""

    def __init__(self, config: Config, size: SourceSize) -> None:
        self.config, self.size = config, size
        self.n_rows = size.n_rows if config.data.n_rows is None else min(config.data.n_rows, size.n_rows)
        kept = config.reduce.n_components
        reduced = config.reduce.method != "none" and isinstance(kept, int)
        self.n_columns = min(int(kept), size.n_features) if reduced else size.n_features
        name = config.cluster.forecast or config.cluster.name
        self.algorithm = name if name in WORK else "kmeans"

    @property
    def _itemsize(self) -> int:
        return 8 if self.config.dtype == "float64" else 4

    def memory_terms(self, mode: str) -> dict[str, float]:
        """Constant -> what it is multiplied by in the peak of a mode; ``fixed`` are bytes. A sample is drawn after the file is read."""
        n, size = float(self.size.n_rows), self.size
        if mode == DISK:
            kept = float(self.n_rows)
            run = min(n, RUN_BLOCKS * BLOCK_ROWS) * 8.0 * (size.n_features + self.n_columns)
            drawn = 8 * n if kept < n else 0.0  # the numbers of the rows, of which a sample is drawn
            of_fit = self.config.cluster.fit_bytes(self.n_rows, self.n_columns)
            return {"disk_base": 1.0, "disk_row": kept, "fixed": run + kept * RESULT_BYTES + drawn + of_fit}
        return {
            "base": 1.0,
            "number": n * (size.n_features - size.n_vector_values),
            "text": n * size.text_bytes,
            self.algorithm: n,
            "generated": n if self.config.data.source == "catalogue" else 0.0,
            "fixed": n * self.n_columns * 2 * (self._itemsize - 4)
            + self._vector_bytes
            + self._transform_bytes
            + self.config.cluster.fit_bytes(self.n_rows, self.n_columns),
        }

    @property
    def _transform_bytes(self) -> float:
        """The copy of features in memory that has some of them transformed."""
        copied = bool(self.config.scale.transform) and not self.size.n_vector_values
        return 8.0 * self.size.n_rows * self.size.n_features if copied else 0.0

    @property
    def _vector_bytes(self) -> float:
        """The vectors in memory as they are read, the matrix, what K-Means keeps of it, and a few blocks in float64."""
        values = self.size.n_vector_values
        if not values:
            return 0.0
        n, blocks = float(self.size.n_rows), VECTOR_BLOCKS * 8.0 * min(self.size.n_rows, BLOCK_ROWS)
        return n * VECTOR_BYTES * values + 2 * n * self._itemsize * min(self.n_columns, values) + blocks * values

    def time_terms(self) -> dict[str, float]:
        """Constant -> what it is multiplied by in the seconds of a job that reads its table alone."""
        n, size, score = float(self.n_rows), self.size, self.config.score
        pairs = n * n if n * n <= score.exact_limit else n * min(score.sample_size, n)
        refits = (
            score.stability + 10 if score.stability else 0
        )  # five splits for the prediction strength, five other seeds
        work = WORK[self.algorithm](self.config.cluster, self.n_rows, self.n_columns)
        return {
            "job": 1.0,
            "read": size.n_rows * (8 * size.n_features + size.text_bytes),
            "row": n,
            self.algorithm: work * _cores_factor() * (1 + refits),
            "silhouette": pairs * self.n_columns * _cores_factor() if score.silhouette else 0.0,
        }

    def tree_rows(self, limit: int) -> int:
        """The number of rows in HDBSCAN's tree when the rows are on disk."""
        asked = self.config.cluster.sample_rows  # type: ignore[attr-defined]
        return min(asked, self.n_rows) if isinstance(asked, int) else tree_rows(self.n_rows, self.n_columns, limit)

    @property
    def resident_bytes(self) -> int:
        """The peak of the process with all rows in memory."""
        return int(_total(self.memory_terms(RESIDENT), "memory"))

    @property
    def disk_bytes(self) -> int:
        """The peak with blocks of rows on disk."""
        return int(_total(self.memory_terms(DISK), "memory"))

    @property
    def device_bytes(self) -> int:
        """The memory of the GPU: the part of the resident peak that depends on the rows. Never measured."""
        return int(self.resident_bytes - constants()["memory"]["base"])

    @property
    def pass_bytes(self) -> int:
        """What one pass over the matrix reads."""
        return self.n_rows * self.n_columns * self._itemsize

    @property
    def table_bytes(self) -> int:
        """The size of a table's temporary files: features in float64, and the other columns."""
        return int(self.n_rows * (8 * self.size.n_features + self.size.text_bytes))

    @property
    def matrix_bytes(self) -> int:
        """The size of a matrix's temporary files, with its coordinates."""
        return self.n_rows * COORDINATE_BYTES + self.pass_bytes


def pass_seconds(config: Config, n_rows: int) -> float:
    """A rough estimate of the seconds of one pass of a fit over all rows, on one core; 0 if the algorithm does not work in passes."""
    cluster = config.cluster
    cost = constants()["pass_seconds"].get(cluster.name, 0.0) * getattr(cluster, "n_clusters", 1)
    return float(n_rows * (len(config.data.features) or 10) * cost)


def sample_of_tree(config: Config, limit: int) -> int | None:
    """The number of rows in the HDBSCAN tree of a job whose rows are not in memory; None where it has all rows."""
    need = _Need(config, source_size(config.data))
    rows = need.tree_rows(limit)
    return rows if rows < need.n_rows else None


def _file_bytes(jobs: Sequence[Config], needs: Sequence[_Need]) -> tuple[int, int]:
    """The sizes of all tables and of all matrices of jobs on disk, each once: they stay until the end of the process."""
    tables: dict[str, int] = {}
    matrices: dict[str, int] = {}
    for job, need in zip(jobs, needs, strict=True):
        table = f"{job.data} {job.clean}"
        tables[table] = need.table_bytes
        matrices[f"{table} {job.scale} {job.reduce} {job.dtype}"] = need.matrix_bytes
    return sum(tables.values()), sum(matrices.values())


def memory_terms(config: Config, mode: str) -> dict[str, float]:
    """Constant -> what it is multiplied by in the peak of a job, for the fit of the constants."""
    return _Need(config, source_size(config.data)).memory_terms(mode)


def time_terms(config: Config) -> dict[str, float]:
    """Constant -> what it is multiplied by in the seconds of a job, for the fit of the constants."""
    return _Need(config, source_size(config.data)).time_terms()


def _total(terms: Mapping[str, float], kind: str) -> float:
    known = constants()[kind]
    return sum(factor * (1.0 if name == "fixed" else known[name]) for name, factor in terms.items())


def _kmeans_work(cluster: Any, n_rows: int, n_columns: int) -> float:
    """Distances from rows to centres, in all starts."""
    n_init = getattr(cluster, "n_init", 1)
    return float(n_rows) * n_columns * cluster.fit_clusters(n_rows) * (n_init if isinstance(n_init, int) else 1)


def _gmm_work(cluster: Any, n_rows: int, n_columns: int) -> float:
    wide = n_columns if cluster.covariance_type in ("full", "tied") else 4
    return float(n_rows) * n_columns * wide * cluster.fit_clusters(n_rows) * cluster.n_init


def _hdbscan_work(cluster: Any, n_rows: int, n_columns: int) -> float:
    """The tree's time grows with the rows to the power of 1.3 and with the columns to that of 1.7 (docs/howto/sizing.md)."""
    return float(n_rows) ** 1.3 * n_columns**1.7 * math.sqrt(max(getattr(cluster, "min_samples", 10), 1) / 10)


WORK: Mapping[str, Any] = {"kmeans": _kmeans_work, "gmm": _gmm_work, "hdbscan": _hdbscan_work}
"""The work of a fit, in units whose seconds are in ``forecast.json``; another algorithm counts as one pass over n_clusters centres."""


@cache
def constants() -> dict[str, Any]:
    """The constants of the model."""
    found: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return found


def _cores_factor() -> float:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return float(constants()["cores"]) / cores


def _device_limit() -> int:
    from gpuclust.runtime.gpu import device_memory

    return int(DEVICE_SHARE * device_memory())


def _two_digits(number: float) -> int:
    """A whole number rounded to two digits."""
    return round(round(number, 1 - int(math.log10(number)))) if number >= 1 else 0


def _duration(seconds: float) -> str:
    """``20 s``, ``6 min`` or ``3 h``."""
    if seconds < 90:
        return f"{max(_two_digits(seconds), 1)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h".replace(".0 h", " h")
