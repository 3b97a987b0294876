"""Jobs, left to right: read, clean, prepare, cluster, score, describe, record.

Several jobs on one matrix run together, because their fits and their silhouettes then share each read of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gpuclust.algorithms.cluster import Clustering, cluster
from gpuclust.analysis.diagnostics import Diagnostics, judge
from gpuclust.analysis.profile import Profile, TableStats, compute_table_stats, profile, with_rules
from gpuclust.data.clean import clean
from gpuclust.data.read import read
from gpuclust.data.table import Table
from gpuclust.errors import GpuclustError, RecordingError, TrackingError, why
from gpuclust.metrics.validity import score
from gpuclust.pipeline.context import Job, Outcome, Result, RunContext
from gpuclust.pipeline.run_log import fail, record, table_lines
from gpuclust.reducers.prepare import prepare
from gpuclust.runtime.matrix import Matrix


def run(jobs: Sequence[Job], run_ids: Sequence[str], desk: RunContext, parent: str | None = None) -> list[Outcome]:
    """Run jobs that share a matrix (`Job.shares`) and record each on its run. A job that fails is a FAILED outcome and run; the
    others go on.

    Raises RecordingError naming the jobs whose results were lost.
    """
    results: Sequence[Result | Exception]
    try:
        results = compute(jobs, desk)
    except (GpuclustError, MemoryError, ArithmeticError, ValueError, RuntimeError) as error:
        results = [error for _ in jobs]
    if parent is None:  # a job on its own is looked at
        results = [result if isinstance(result, Exception) else _ruled(jobs[0], result, desk) for result in results]
    outcomes: list[Outcome] = []
    try:
        for job, run_id, result in zip(jobs, run_ids, results, strict=True):
            outcomes.append(
                fail(job, run_id, result, desk) if isinstance(result, Exception) else record(job, run_id, result, desk)
            )
    except (TrackingError, OSError) as error:
        lost = ", ".join(job.name for job in jobs[len(outcomes) :])
        raise RecordingError(f"{lost} could not be recorded: {why(error)}") from error
    return outcomes


def compute(jobs: Sequence[Job], desk: RunContext) -> list[Result | GpuclustError]:
    """Read, clean, prepare, cluster, score and describe; recording nothing."""
    first = jobs[0]
    config = first.config
    names = jobs[0].name if len(jobs) == 1 else f"{jobs[0].name} … {jobs[-1].name}"
    slow = (
        " (building the HDBSCAN tree is the slow part)" if any(j.config.cluster.name == "hdbscan" for j in jobs) else ""
    )
    table = load(first, desk)
    matrix = prepared(first, table, desk)
    clusterings = cluster(
        matrix,
        [job.config.cluster for job in jobs],
        seed=config.seed,
        backend=desk.backend,
        cache=desk.cache,
        progress=_progress(desk, f"fitting {names}{slow}", len(jobs), 0.0),
    )
    fitted = [c for c in clusterings if isinstance(c, Clustering)]
    scored = iter(
        score(
            matrix,
            fitted,
            config.score,
            seed=config.seed,
            backend=desk.backend,
            progress=_progress(desk, f"scoring {names}", len(jobs), 0.5),
        )
    )
    results: list[Result | GpuclustError] = []
    for clustering in clusterings:
        if not isinstance(clustering, Clustering):
            results.append(clustering)
            continue
        scores = next(scored)
        seconds = {
            "load_seconds": desk.cache.claim(first.key_of_table),
            "prepare_seconds": desk.cache.claim(first.key_of_matrix),
            "fit_seconds": clustering.seconds,
            "score_seconds": scores.seconds,
        }
        described = describe(
            first, table, clustering.labels, desk, distance=clustering.distance, confidence=clustering.confidence
        )
        judged = diagnose(jobs[len(results)], table, matrix, clustering, desk)
        metrics = {**scores.metrics, **judged.metrics(), **seconds}
        results.append(Result(table, matrix, clustering, scores, described, judged, metrics))
    return results


def _progress(desk: RunContext, text: str, n_jobs: int, begins: float) -> Callable[[float], None]:
    """Shows a step that is half of the work on some jobs: fitting, from 0, or scoring, from 0.5."""
    desk.display.stage(text)

    def tell(done: float) -> None:
        desk.display.stage(text, done)
        desk.work(n_jobs * (begins + 0.5 * done))

    return tell


def load(job: Job, desk: RunContext) -> Table:
    """Read and clean, once for all jobs that use the same columns of the same content."""

    def make() -> Table:
        desk.display.stage("reading")
        table = read(job.config.data, desk.backend.frames)
        desk.display.stage("cleaning")
        table = clean(table, job.config.clean, desk.backend.frames)
        say_table(job, table_lines(table), desk)
        return table

    return desk.cache.get(job.key_of_table, make)


def say_table(job: Job, lines: str, desk: RunContext) -> None:
    """Print the summary and the warnings of a job's table, after what varies in it."""
    words = [f"{key}={value}" for key, value in job.swept.items() if key.split(".")[0] in ("data", "clean")]
    for line in lines.splitlines():
        desk.say(f"{' '.join(words)}: {line}" if words else line)


def prepared(job: Job, table: Table, desk: RunContext) -> Matrix:
    """Scale and reduce, once for all jobs with the same table, scaling, reduction and dtype."""

    def make() -> Matrix:
        desk.display.stage("preparing")
        c = job.config
        return prepare(table, c.scale, c.reduce, dtype=c.dtype, key=job.key_of_matrix, backend=desk.backend)

    return desk.cache.get(job.key_of_matrix, make)


def table_stats(job: Job, table: Table, desk: RunContext) -> TableStats:
    """What all profiles of a table share."""
    return desk.cache.get(f"facts-{job.key_of_table}", lambda: compute_table_stats(table, desk.backend.frames))


def describe(
    job: Job,
    table: Table,
    labels: np.ndarray,
    desk: RunContext,
    *,
    distance: np.ndarray | None = None,
    confidence: np.ndarray | None = None,
) -> Profile:
    """What is in each cluster of a labelling of the table."""
    stats = table_stats(job, table, desk)
    return profile(stats, table.features, labels, distance=distance, confidence=confidence)


def ruled(job: Job, table: Table, described: Profile, labels: np.ndarray, desk: RunContext) -> Profile:
    """The profile with a decision rule for each cluster: for a job that people look at, not for each of a sweep."""
    desk.display.stage("finding rules")
    return with_rules(described, table_stats(job, table, desk), labels, seed=job.config.seed)


def _ruled(job: Job, result: Result, desk: RunContext) -> Result:
    return replace(result, profile=ruled(job, result.table, result.profile, result.clustering.labels, desk))


def diagnose(job: Job, table: Table, matrix: Matrix, clustering: Clustering, desk: RunContext) -> Diagnostics:
    """What the job's configuration asks of a clustering beyond its scores."""
    return judge(
        table,
        matrix,
        clustering,
        job.config,
        raw=table_stats(job, table, desk).raw,
        backend=desk.backend,
        tell=lambda text, done: desk.display.stage(f"{job.name}: {text}", done),
    )
