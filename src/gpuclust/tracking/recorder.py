"""Interface between a sweep and its run store: the protocol, its records, and a recorder that keeps all in memory."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from gpuclust.errors import TrackingError

FINISHED, FAILED, KILLED, RUNNING = "FINISHED", "FAILED", "KILLED", "RUNNING"

# Tags of the public contract.
KIND, KEY = "gpuclust.kind", "gpuclust.key"
BACKEND, BACKEND_REASON, DEVICE = "gpuclust.backend", "gpuclust.backend_reason", "gpuclust.device"
SELECTED, SELECTION_REASON = "gpuclust.selected", "gpuclust.selection_reason"
SELECTED_RUN, SELECTION_METRIC = "gpuclust.selected_run", "gpuclust.selection_metric"
# The key of a job's prepared matrix: jobs with the same key were clustered in the same space, so their scores compare.
MATRIX_KEY = "gpuclust.matrix_key"
# Further tags.
LABELS, FINGERPRINT, FAILURE, VERSION = (
    "gpuclust.labels",
    "gpuclust.fingerprint",
    "gpuclust.failure",
    "gpuclust.version",
)
COMMAND, VERDICT, VERDICT_KIND = "gpuclust.command", "gpuclust.verdict", "gpuclust.verdict_kind"
# The rows kept of the rows read, why the others were dropped, and the features; then a line for each warning.
TABLE = "gpuclust.table"
# The expected memory and time, and where the rows were held.
FORECAST = "gpuclust.forecast"

# The address of the MLflow model of a run: ``models:/m-...``.
MODEL_ADDRESS = "gpuclust.model"
# Its address in the Model Registry: ``models:/NAME/VERSION``.
REGISTERED = "gpuclust.registered"

GIT_COMMIT = "mlflow.source.git.commit"

CONFIG_FILE, VERDICT_FILE, LEADERBOARD = "config.yaml", "verdict.json", "leaderboard.csv"


@dataclass(frozen=True)
class DatasetInput:
    """The table that a run used: its name, a digest of its content, and where it came from."""

    name: str
    fingerprint: str
    source: str
    n_rows: int
    features: tuple[str, ...]


@dataclass(frozen=True)
class RunStart:
    """What is known of a run before its work starts."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordedJob:
    """A job as the store has it."""

    run_id: str
    name: str
    status: str
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    parent: str | None = None
    started: int = 0
    """Milliseconds since 1970."""


@dataclass(frozen=True)
class Claim:
    """Who does a job or a sweep. ``run_id``: the run that this process was given to work on; None where another process has
    it, whose ``run`` this is: FINISHED, RUNNING, or FAILED lately (None while that cannot be told)."""

    run_id: str | None = None
    run: RecordedJob | None = None


class Recorder(Protocol):
    """Keeps runs. Every method raises TrackingError, in one line, when the store cannot be reached or written.

    Recorders are subclasses: what they inherit is right for a recorder in memory.
    """

    def finished_jobs(self) -> dict[str, RecordedJob]:
        """The finished jobs of the experiment by their key, the latest of each; what resume looks up."""

    def children(self, parent: str) -> list[RecordedJob]:
        """The jobs that were started in a sweep, whatever their status."""

    def document(self, run_id: str, name: str) -> dict[str, Any] | None:
        """A JSON artifact of a run; None where it is not there."""
        try:
            with self.download(run_id, name) as path:
                found = json.loads(path.read_text(encoding="utf-8"))
        except (TrackingError, OSError, ValueError, KeyError):
            return None
        return found if isinstance(found, dict) else None

    def close_stale(self) -> int:
        """End runs that a killed process of this host left RUNNING; how many there were."""
        return 0

    def claim_sweep(self, start: RunStart, since: int, *, again: bool = False) -> Claim:
        """A parent to work on: the unfinished one of the same key if there is one, else a new one; or the sweep of that key that
        is finished (unless ``again``), that another process works on, or that another one failed after ``since``."""

    def claim(self, start: RunStart, parent: str | None, since: int) -> Claim:
        """A new job to work on, linked to its parent; or the job of the same key that is finished, that another process works on,
        or that failed there after ``since`` (milliseconds since 1970)."""

    def taken(self, start: RunStart, since: int) -> RecordedJob | None:
        """The job that `claim` would find, finished or claimed by another process; nothing is claimed."""

    def start_job(self, start: RunStart, parent: str | None) -> str:
        """Start a run for a job under its parent and return its id, even if another process runs the same job."""

    def log(
        self,
        run_id: str,
        *,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        dataset: DatasetInput | None = None,
    ) -> None:
        """Add metrics, tags, parameters and the table that was used to a run."""

    def log_points(self, run_id: str, points: Mapping[int, Mapping[str, float]]) -> None:
        """Add points to curves: step -> metric name -> value."""

    def missing_points(self, run_id: str, points: Mapping[int, Mapping[str, float]]) -> dict[int, dict[str, float]]:
        """The points (step -> metric name -> value) that are missing in the curves of a run."""

    def log_files(self, run_id: str, folder: Path) -> None:
        """Add every file of a folder, with its sub-folders, to a run's artifacts."""

    def log_model(self, run_id: str, bundle: Path, features: tuple[str, ...], name: str = "model") -> None:
        """Keep a bundle folder as the run's model called ``name``; it replaces one that was not stored completely."""

    def has_model(self, run_id: str) -> bool:
        """Whether a model of the run was stored completely."""

    def register(self, run_id: str, name: str) -> str:
        """Make the model of a run a version of the registered model ``name``, with the alias ``challenger``; its address."""
        raise TrackingError("tracking=none keeps no models; models are registered in a store (tracking.uri)")

    def job(self, run_id: str) -> RecordedJob | None:
        """The run of that id, of whatever kind and status, or None."""

    def download(self, run_id: str, path: str) -> AbstractContextManager[Path]:
        """A file of a run on the local disk, for as long as the context lasts."""

    def download_model(self, run_id: str) -> AbstractContextManager[Path | None]:
        """The bundle folder of a run's model, for as long as the context lasts; None where none was kept."""

    def sweep_of(self, run: RecordedJob, sweep_id: str | None = None) -> dict[str, Any] | None:
        """What an export says of the sweep ``sweep_id``, or else of the one that the job was first run in; None without one: its name,
        its choice and the reason, its verdict with the figures that led to it, and its curves (metric -> step -> value)."""
        wanted = sweep_id or run.parent
        sweep = self.job(wanted) if wanted else None
        if sweep is None:
            return None
        chosen = self.job(sweep.tags[SELECTED_RUN]) if sweep.tags.get(SELECTED_RUN) else None
        because = (self.document(sweep.run_id, VERDICT_FILE) or {}).get("because", ())
        return {
            "run_id": sweep.run_id,
            "name": sweep.name,
            "chosen": {"run_id": chosen.run_id, "name": chosen.name} if chosen else None,
            "selection_reason": sweep.tags.get(SELECTION_REASON, ""),
            "verdict": sweep.tags.get(VERDICT, ""),
            "verdict_kind": sweep.tags.get(VERDICT_KIND, ""),
            "because": [str(line) for line in because],
            "curves": self.curves_of(sweep),
        }

    def curves_of(self, sweep: RecordedJob) -> dict[str, dict[str, float]]:
        """The curves of a sweep: metric -> step -> value."""

    def end(self, run_id: str, status: str) -> None:
        """Close a run as FINISHED, FAILED or KILLED."""

    def abandon(self, status: str) -> None:
        """Close every run that this recorder started and did not close, as far as the store can be written; raises nothing."""

    def watch(self, run_id: str) -> AbstractContextManager[None]:
        """A context within which the use of processor, memory and GPU is recorded on the run."""
        return nullcontext()

    def links(self, run_id: str | None = None, *, sweeps: bool = True) -> Mapping[str, str]:
        """Addresses where a person can look at the experiment (with ``sweeps``: at their curves) and at a run, by what they show."""
        return {}


@dataclass
class MemoryRun:
    """A run of a MemoryRecorder."""

    start: RunStart
    parent: str | None
    status: str = RUNNING
    params: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    model: dict[str, bytes] | None = None
    dataset: DatasetInput | None = None


class MemoryRecorder(Recorder):
    """Keeps runs in this process only: for dry runs (``tracking=none``) and for tests of everything above it."""

    def __init__(self) -> None:
        self.runs: dict[str, MemoryRun] = {}
        self._numbers = itertools.count(1)

    def finished_jobs(self) -> dict[str, RecordedJob]:
        return {
            run.tags[KEY]: self._recorded(run_id)
            for run_id, run in self.runs.items()
            if run.status == FINISHED and run.tags.get(KIND) == "job"
        }

    def children(self, parent: str) -> list[RecordedJob]:
        return [self._recorded(run_id) for run_id, run in self.runs.items() if run.parent == parent]

    def _recorded(self, run_id: str) -> RecordedJob:
        run = self.runs[run_id]
        return RecordedJob(
            run_id=run_id,
            name=run.tags.get("mlflow.runName", run.start.name),
            status=run.status,
            metrics=dict(run.metrics),
            params={k: str(v) for k, v in run.params.items()},
            tags=dict(run.tags),
            parent=run.parent,
        )

    def claim_sweep(self, start: RunStart, since: int, *, again: bool = False) -> Claim:
        same = [i for i, run in self.runs.items() if run.tags.get(KIND) == "sweep" and run.tags[KEY] == start.tags[KEY]]
        if not same:
            return Claim(self.start_job(start, None))
        if self.runs[same[-1]].status == FINISHED and not again:
            return Claim(run=self._recorded(same[-1]))
        self.runs[same[-1]].status = RUNNING
        return Claim(same[-1])

    def claim(self, start: RunStart, parent: str | None, since: int) -> Claim:
        found = self.taken(start, since)
        return Claim(run=found) if found else Claim(self.start_job(start, parent))

    def taken(self, start: RunStart, since: int) -> RecordedJob | None:
        return self.finished_jobs().get(start.tags[KEY])

    def start_job(self, start: RunStart, parent: str | None) -> str:
        run_id = f"memory-{next(self._numbers)}"
        self.runs[run_id] = MemoryRun(start, parent, tags=dict(start.tags), params=dict(start.params))
        return run_id

    def log(
        self,
        run_id: str,
        *,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        dataset: DatasetInput | None = None,
    ) -> None:
        run = self.runs[run_id]
        run.metrics |= metrics or {}
        run.tags |= tags or {}
        run.params |= params or {}
        run.dataset = dataset or run.dataset

    def log_points(self, run_id: str, points: Mapping[int, Mapping[str, float]]) -> None:
        for step, values in points.items():
            for metric, value in values.items():
                self.runs[run_id].curves.setdefault(metric, {})[step] = value

    def missing_points(self, run_id: str, points: Mapping[int, Mapping[str, float]]) -> dict[int, dict[str, float]]:
        curves = self.runs[run_id].curves
        return {
            step: {name: value for name, value in values.items() if step not in curves.get(name, {})}
            for step, values in points.items()
        }

    def log_files(self, run_id: str, folder: Path) -> None:
        self.runs[run_id].files |= _contents(folder)

    def log_model(self, run_id: str, bundle: Path, features: tuple[str, ...], name: str = "model") -> None:
        self.runs[run_id].model = _contents(bundle)

    def has_model(self, run_id: str) -> bool:
        return self.runs[run_id].model is not None

    def end(self, run_id: str, status: str) -> None:
        self.runs[run_id].status = status

    def abandon(self, status: str) -> None:
        for run in self.runs.values():
            if run.status == RUNNING:
                run.status = status

    def job(self, run_id: str) -> RecordedJob | None:
        return self._recorded(run_id) if run_id in self.runs else None

    @contextmanager
    def download(self, run_id: str, path: str) -> Iterator[Path]:
        with TemporaryDirectory() as folder:
            yield _write({path: self.runs[run_id].files[path]}, Path(folder)) / path

    @contextmanager
    def download_model(self, run_id: str) -> Iterator[Path | None]:
        model = self.runs[run_id].model
        if model is None:
            yield None
            return
        with TemporaryDirectory() as folder:
            yield _write(model, Path(folder))

    def curves_of(self, sweep: RecordedJob) -> dict[str, dict[str, float]]:
        return {
            name.removeprefix("curve/"): {str(step): value for step, value in points.items()}
            for name, points in self.runs[sweep.run_id].curves.items()
            if name.startswith("curve/")
        }


def _write(files: Mapping[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
