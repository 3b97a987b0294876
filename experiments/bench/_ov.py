"""A sweep's own cost: forty K-Means jobs of 20,000 generated tracks in MLflow on SQLite, against their bare fits.

    python experiments/bench/sweep_overhead.py            # about a minute on two cores

Both sides fit and score the same forty configurations one by one on the same backend; the sweep also records each job with
parameters, metrics, its table, profile, two figures and a page, and in the end chooses, keeps a model and draws its curves.
The store is migrated beforehand, and what was imported is frozen, as the command line does. What a job costs beyond its
fit and its scores is the difference of the medians, divided by the jobs: in seconds on the clock, and in processor seconds,
which a busy machine changes less. A last run, instrumented and not in those medians, says where that goes.
"""

from __future__ import annotations

import gc
import os
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import heading, interleaved
write = lambda *a, **k: None

from gpuclust.algorithms.cluster import Clustering, cluster
from gpuclust.compose import Plan, plan
from gpuclust.metrics.validity import score
from gpuclust.pipeline import job as jobs_module
from gpuclust.pipeline import run_files as artifacts
from gpuclust.pipeline import run_log as record_module
from gpuclust.pipeline import sweep
from gpuclust.pipeline.context import Outcome, RunContext
from gpuclust.pipeline.run_log import labels_digest
from gpuclust.report import figures
from gpuclust.runtime.backend import BackendChoice
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.tracking.mlflow import MlflowRecorder

ROWS = 20_000
SIZES = range(2, 42)
TARGET = 0.2  # seconds a job
REPEATS = 1
OVERRIDES = (
    f"data.n_rows={ROWS}",
    "cluster=kmeans",
    "cluster.n_init=1",
    f"cluster.n_clusters=range({SIZES.start},{SIZES.stop})",
)


class Silent:
    """A display for nobody."""

    def stage(self, text: str, done: float = 0.0) -> None:
        """Nothing is shown."""

    def finished(self, outcome: Outcome) -> None:
        """Nothing is shown."""


def context(template: Path, folder: Path) -> RunContext:
    """A place to work with a fresh, migrated store."""
    shutil.copy(template, folder / "mlflow.db")
    recorder = MlflowRecorder(f"sqlite:///{folder / 'mlflow.db'}")
    return RunContext(CpuBackend(), BackendChoice("cpu", "a bench"), ResultCache(), recorder, Silent(), "bench")


def whole(planned: Plan, at: RunContext) -> sweep.SweepResult:
    """The sweep as the command line runs it."""
    result = sweep.run(planned, sweep.jobs_of(planned, at.backend), at)
    assert not result.failed, [o.error for o in result.failed]
    return result


def bare(planned: Plan, at: RunContext) -> list[tuple[Clustering, dict[str, float]]]:
    """The same table, matrix, fits and scores, and nothing else."""
    jobs = sweep.jobs_of(planned, at.backend)
    matrix = jobs_module.get_matrix(jobs[0], at)
    found = []
    for job in jobs:
        (fitted,) = cluster(matrix, [job.config.cluster], seed=job.config.seed, backend=at.backend, cache=at.cache)
        assert isinstance(fitted, Clustering), fitted
        (scores,) = score(matrix, [fitted], job.config.score, seed=job.config.seed, backend=at.backend)
        found.append((fitted, dict(scores.metrics)))
    return found


def agreement(result: sweep.SweepResult, fits: list[tuple[Clustering, dict[str, float]]], at: RunContext) -> None:
    """Every job gave the labels and metrics of its bare fit, and all of its files are in the store."""
    for outcome, (fitted, metrics) in zip(result.outcomes, fits, strict=True):
        assert outcome.labels == labels_digest(fitted), outcome.job.name
        recorded = at.recorder.job(outcome.run_id)
        assert recorded is not None
        assert recorded.status == "FINISHED"
        assert {k: recorded.metrics[k] for k in metrics} == metrics, outcome.job.name
        with at.recorder.download(outcome.run_id, "") as folder:
            files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
        expected = {"config.yaml", "audit.json", "profile.json", "profile.csv", "report.html", "figures/map.png",
                    "figures/profile.png"}  # fmt: skip
        assert expected <= files, sorted(files)


@contextmanager
def watched(places: dict[str, tuple[Any, str]], seconds: Counter[str]) -> Iterator[None]:
    """Add the seconds spent in each named function to ``seconds``, a call within another one's counted in both."""
    kept = {name: getattr(owner, attribute) for name, (owner, attribute) in places.items()}

    def timed(name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return kept[name](*args, **kwargs)
            finally:
                seconds[name] += time.perf_counter() - began

        return call

    for name, (owner, attribute) in places.items():
        setattr(owner, attribute, timed(name))
    try:
        yield
    finally:
        for name, (owner, attribute) in places.items():
            setattr(owner, attribute, kept[name])


def parts(planned: Plan, at: RunContext) -> dict[str, float]:
    """Milliseconds a job in each part of the work, from one instrumented run."""
    recorder: Any = at.recorder
    places = {
        "fit": (jobs_module, "cluster"),
        "score": (jobs_module, "score"),
        "profile": (jobs_module, "describe"),
        "start run": (recorder, "claim"),
        "log metrics, tags, table": (recorder, "log"),
        "log curves": (recorder, "log_points"),
        "log files": (recorder, "log_files"),
        "end run": (recorder, "end"),
        "write files": (record_module, "job_files"),
        "of these, map": (figures, "cluster_map"),
        "of these, heatmap": (figures, "profile_heatmap"),
        "of these, PNG": (figures, "to_png"),
        "of these, page": (artifacts, "_job_page"),
        "conclude sweep": (sweep, "conclude"),
    }
    seconds: Counter[str] = Counter()
    with watched(places, seconds):
        result = whole(planned, at)
    return {"whole": 1e3 * result.seconds / len(SIZES)} | {k: 1e3 * v / len(SIZES) for k, v in seconds.items()}


def main() -> None:
    planned = plan(OVERRIDES, multirun=True)
    facts = heading("Overhead of a sweep", f"{len(SIZES)} K-Means jobs on {ROWS:,} generated tracks, MLflow on SQLite")
    with TemporaryDirectory() as root:
        template = Path(root) / "template" / "mlflow.db"
        MlflowRecorder(f"sqlite:///{template}")
        folders = (Path(root) / str(i) for i in range(100))

        def fresh() -> RunContext:
            folder = next(folders)
            folder.mkdir()
            return context(template, folder)

        first = fresh()
        agreement(whole(planned, first), bare(planned, fresh()), first)
        gc.freeze()
        print(f"agreement: the labels, metrics and files of all {len(SIZES)} jobs")
        processor: dict[str, list[float]] = {"sweep": [], "bare": []}

        def timed(name: str, work: Callable[[Plan, RunContext], object]) -> None:
            began = time.process_time()
            work(planned, fresh())
            processor[name].append(time.process_time() - began)

        seconds = interleaved({"sweep": lambda: timed("sweep", whole), "bare": lambda: timed("bare", bare)}, REPEATS)
        processor_seconds = {name: statistics.median(values) for name, values in processor.items()}
        where = parts(planned, fresh())
    overhead = (seconds["sweep"] - seconds["bare"]) / len(SIZES)
    processor_overhead = (processor_seconds["sweep"] - processor_seconds["bare"]) / len(SIZES)
    print(f"sweep {seconds['sweep']:.2f} s, bare fits and scores {seconds['bare']:.2f} s")
    print(
        f"overhead {1e3 * overhead:.0f} ms a job, {1e3 * processor_overhead:.0f} ms of them the processor's (at most "
        f"{1e3 * TARGET:.0f} wanted); load of the machine {os.getloadavg()[0]:.1f}"
    )
    for name, milliseconds in where.items():
        print(f"  {name:<26}{milliseconds:8.1f} ms a job")
    record = {"n_jobs": len(SIZES), "n_rows": ROWS, "repeats": REPEATS, "seconds": seconds}
    write(
        "sweep_overhead",
        {
            "environment": facts,
            **record,
            "processor_seconds": processor_seconds,
            "overhead_seconds_per_job": overhead,
            "overhead_processor_seconds_per_job": processor_overhead,
            "load": os.getloadavg()[0],
            "target_seconds_per_job": TARGET,
            "milliseconds_per_job": where,
            "configuration": asdict(planned.jobs[0].config),
        },
    )


if __name__ == "__main__":
    main()
