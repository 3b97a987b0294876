"""Jobs, left to right: read, clean, prepare, cluster, score, describe, record.

Several jobs on one matrix run together, because their fits and their silhouettes then share each read of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from gpuclust.algorithms.cluster import Clustering, cluster
from gpuclust.algorithms.registry import algorithm_of
from gpuclust.analysis.diagnostics import Diagnostics, reference_column, run_diagnostics
from gpuclust.analysis.profile import Profile, profile
from gpuclust.analysis.profile import with_rules as add_rules
from gpuclust.analysis.table_stats import TableStats, compute_table_stats, feature_blocks
from gpuclust.compose import from_yaml
from gpuclust.config import SOURCE, AnalysisConfig, ScoreConfig, clusters_within, needs_length, unit_rows
from gpuclust.data.clean import clean, keep_rows
from gpuclust.data.read import other_columns, read
from gpuclust.data.stream import read_streamed
from gpuclust.data.table import Table, sample_rows
from gpuclust.errors import (
    ConfigurationError,
    DeviceLost,
    ExportError,
    FitError,
    GpuclustError,
    RecordingError,
    TrackingError,
    why,
)
from gpuclust.metrics.trustworthiness import MAX_COMPARED, sampled_trustworthiness
from gpuclust.metrics.validity import Scores, score
from gpuclust.model.bundle import Bundle
from gpuclust.model.preparation import Projection
from gpuclust.pipeline.context import Job, Outcome, Result, RunContext, make_job
from gpuclust.pipeline.full_figures import figure_input, full_figures
from gpuclust.pipeline.run_log import digest_of, fail, record, table_lines
from gpuclust.pipeline.warm_start import starts_of
from gpuclust.reducers.landmarks import taken
from gpuclust.reducers.maps import FittedMap, fit_map
from gpuclust.reducers.prepare import prepare
from gpuclust.runtime.matrix import Matrix
from gpuclust.tracking import recorder as tags
from gpuclust.tracking.recorder import FINISHED


def run(jobs: Sequence[Job], run_ids: Sequence[str], context: RunContext, parent: str | None = None) -> list[Outcome]:
    """Run jobs that share a matrix (`Job.batch_key`) and record each on its run. A job that fails is a FAILED outcome and run; the
    others go on.

    Raises RecordingError naming the jobs whose results were lost, and DeviceLost where no other job can run on the GPU.
    """
    return record_all(jobs, run_ids, compute_all(jobs, context), context, parent)


def compute_all(jobs: Sequence[Job], context: RunContext) -> list[Result | Exception]:
    """The results of jobs that share a matrix; a job that fails gives its exception."""
    try:
        with context.backend.errors("the job"):
            return list(compute(jobs, context))
    except (GpuclustError, MemoryError, ArithmeticError, ValueError, RuntimeError) as error:
        return [error for _ in jobs]


def record_all(
    jobs: Sequence[Job],
    run_ids: Sequence[str],
    results: Sequence[Result | Exception],
    context: RunContext,
    parent: str | None,
) -> list[Outcome]:
    """Record the results of jobs, or why they failed, on their runs. Raises RecordingError, which names the jobs whose results were
    lost; and DeviceLost where that is why jobs failed, once this is recorded."""
    outcomes: list[Outcome] = []
    try:
        for job, run_id, result in zip(jobs, run_ids, results, strict=True):
            if isinstance(result, Exception):
                outcomes.append(fail(job, run_id, result, context))
                continue
            outcomes.append(_recorded(job, run_id, result, context, with_details=parent is None))
    except (TrackingError, OSError) as error:
        lost = ", ".join(job.name for job in jobs[len(outcomes) :])
        raise RecordingError(f"{lost} could not be recorded: {why(error)}") from error
    for result in results:
        if isinstance(result, DeviceLost):
            raise result
    return outcomes


def _recorded(job: Job, run_id: str, result: Result, context: RunContext, *, with_details: bool) -> Outcome:
    """Record a result, with decision rules for a job that people look at. What is recorded of a table on a GPU is computed there: an error
    of the GPU fails the job. Raises DeviceLost once this is recorded."""
    try:
        with context.backend.errors("recording the job"):
            if with_details:
                rules = with_rules(job, result.table, result.profile, result.clustering.labels, context)
                result = replace(result, profile=rules)
            return record(job, run_id, result, context, _full_figures(job, result, context))
    except (FitError, DeviceLost) as error:
        failed = fail(job, run_id, error, context)
        if isinstance(error, DeviceLost):
            raise
        return failed


def _full_figures(job: Job, result: Result, context: RunContext) -> Mapping[str, Any]:
    """The figures of `report=full`."""
    if not (job.config.report.figures and job.config.report.full):
        return {}
    context.display.stage("drawing figures")
    stats = table_stats(job, result.table, context)
    return full_figures(figure_input(result, stats, context.backend.frames, job.config.seed))


def compute(jobs: Sequence[Job], context: RunContext) -> list[Result | GpuclustError]:
    """Read, clean, prepare, cluster, score and describe; recording nothing."""
    table = get_table(jobs[0], context)
    matrix = context.hold(get_matrix(jobs[0], context), jobs)
    clusterings = _cluster(jobs, table, matrix, context)
    scores = iter(_score(jobs, matrix, [c for c in clusterings if isinstance(c, Clustering)], context))
    return [
        _result(job, table, matrix, clustering, next(scores), context)
        if isinstance(clustering, Clustering)
        else clustering
        for job, clustering in zip(jobs, clusterings, strict=True)
    ]


def get_table(job: Job, context: RunContext) -> Table:
    """Read and clean, once for all jobs that use the same columns of the same content."""

    def make() -> Table:
        data, rules, frames = job.config.data, job.config.clean, context.backend.frames
        if (scratch := context.scratch(job)) is not None:
            context.display.stage("reading and cleaning")
            table = read_streamed(data, rules, frames, scratch, progress=context.display.stage)
        else:
            context.display.stage("reading")
            with context.backend.errors("reading the table"):
                table = read(data, frames)
            context.display.stage("cleaning")
            with context.backend.errors("cleaning the table"):
                table = clean(table, rules, frames, unit=needs_length(job.config))
        if data.within is not None:
            with context.backend.errors("the rows of a cluster"):
                table = _within(table, job, context)
        say_table(job, table_lines(table), context)
        return table

    with context.backend.errors("the table"):  # the cache asks for its size
        return context.cache.get_or_create(job.key_of_table, make)


def _within(table: Table, job: Job, context: RunContext) -> Table:
    """The rows that are in the clusters of `data.within`. Raises ConfigurationError, or ExportError where the run is not of this table."""
    if context.scratch(job) is not None:
        raise ConfigurationError("data.within needs all rows in memory; use memory.mode=resident")
    run_id, clusters = clusters_within(job.config.data.within or "")
    found = context.recorder.job(run_id)
    if found is None or found.status != FINISHED or found.tags.get(tags.KIND) != "job":
        raise ExportError(f"data.within: the tracking store has no finished job {run_id}; gpuclust ui lists the runs")
    with context.recorder.download(run_id, tags.CONFIG_FILE) as path:
        config = from_yaml(path.read_text(encoding="utf-8"))
    for place in ("source", *SOURCE):
        setattr(config.data, place, getattr(job.config.data, place))
    config.score, config.analysis = ScoreConfig(silhouette=False), AnalysisConfig()
    parent = make_job(config, found.name, {}, context.backend.name)
    if parent.fingerprint != found.tags.get(tags.FINGERPRINT):
        raise ExportError(f"data.within: the run {run_id} is of another table; use the file that it clustered")
    of_parent, labels = _labels_of(parent, run_id, replace(context, say=lambda text: None))
    if digest_of(labels) != found.tags.get(tags.LABELS):
        raise ExportError(
            f"data.within: the labels of run {run_id} cannot be reproduced here; run it again with sweep.resume=false"
        )
    if unknown := sorted(set(clusters) - set(np.unique(labels).tolist())):
        raise ConfigurationError(
            f"data.within: the run {run_id} has no cluster {unknown[0]}; it has 0 to {labels.max()}"
        )
    inside = np.flatnonzero(np.isin(labels, clusters))
    numbers = inside if of_parent.rows is None else of_parent.rows[inside]
    own = np.arange(table.n_rows) if table.rows is None else table.rows
    named = " and ".join(map(str, clusters))
    detail = f"another cluster than {named} of {found.name} ({run_id[:8]})"
    return keep_rows(
        table, np.flatnonzero(np.isin(own, numbers)), job.config.clean, context.backend.frames, detail=detail
    )


def _labels_of(job: Job, run_id: str, context: RunContext) -> tuple[Table, np.ndarray]:
    """The table and the labels (n_rows,) int32 of a recorded job: from its model, or computed again where none was kept."""
    table = get_table(job, context)
    with context.recorder.download_model(run_id) as folder:
        bundle = None if folder is None else Bundle.load(folder)
    if bundle is None or bundle.features != table.features:
        (result,) = compute([job], context)
        if isinstance(result, Exception):
            raise result
        return table, result.clustering.labels
    blocks = feature_blocks(table, context.backend.frames)
    model = bundle
    return table, model.training(table.n_rows, lambda: model.assign(blocks.take(np.arange(table.n_rows)))).cluster


def get_matrix(job: Job, context: RunContext) -> Matrix:
    """Scale and reduce, once for all jobs with the same table, scaling, reduction and dtype; its coordinates are those of the map."""

    def make() -> Matrix:
        table = get_table(job, context)
        context.display.stage("preparing")
        c = job.config
        with context.backend.errors("scaling and reducing"):
            return prepare(
                table,
                c.scale,
                c.reduce,
                dtype=c.dtype,
                key=job.key_of_matrix,
                backend=context.backend,
                scratch=context.scratch(job),
                unit=unit_rows(c),
            )

    with context.backend.errors("the matrix"):
        matrix = context.cache.get_or_create(job.key_of_matrix, make)
    if job.config.map.method == Projection.name:
        return matrix
    return context.cache.get_or_create(job.key_of_map, lambda: _mapped(matrix, job, context)).on(matrix)


def _mapped(matrix: Matrix, job: Job, context: RunContext) -> FittedMap:
    """The map of the matrix, and how well it and the principal components keep neighbours."""
    wanted, seed, backend = job.config.map, job.config.seed, context.backend
    context.display.stage(f"fitting the map ({wanted.method})")
    with backend.errors("the map"):
        fitted = fit_map(matrix, wanted, seed=seed, backend=backend, scratch=context.scratch(job))
        context.display.stage("measuring the map")
        rows = sample_rows(matrix.n_rows, MAX_COMPARED, seed)
        maps = [taken(c, rows, backend)[:, : wanted.n_components] for c in (fitted.coordinates, matrix.coordinates)]
        own, linear = sampled_trustworthiness(taken(matrix.X, rows, backend), maps, seed=seed)
    found = {"map_trustworthiness": own, "map_trustworthiness_pca": linear}
    return replace(fitted, metrics={name: value for name, value in found.items() if np.isfinite(value)})


def _cluster(
    jobs: Sequence[Job], table: Table, matrix: Matrix, context: RunContext
) -> list[Clustering | GpuclustError]:
    with context.backend.errors("the clustering"):
        starts = starts_of(jobs, table, context)
        return cluster(
            matrix,
            [job.config.cluster for job in jobs],
            seed=jobs[0].config.seed,
            backend=context.backend,
            cache=context.cache,
            progress=_progress(context, [_fitting(jobs, job) for job in jobs], len(jobs), 0.0),
            memory=context.memory_limit(jobs[0]),
            starts=starts,
        )


def _score(jobs: Sequence[Job], matrix: Matrix, clusterings: Sequence[Clustering], context: RunContext) -> list[Scores]:
    config = jobs[0].config
    progress = _progress(context, [f"scoring {_names(jobs)}"], len(jobs), 0.5)
    with context.backend.errors("the scores"):
        return score(matrix, clusterings, config.score, seed=config.seed, backend=context.backend, progress=progress)


def _names(jobs: Sequence[Job]) -> str:
    return jobs[0].name if len(jobs) == 1 else f"{jobs[0].name} … {jobs[-1].name}"


def _result(
    job: Job, table: Table, matrix: Matrix, clustering: Clustering, scores: Scores, context: RunContext
) -> Result:
    with context.backend.errors("the profile"):
        described = describe(
            job, table, clustering.labels, context, distance=clustering.distance, confidence=clustering.confidence
        )
    with context.backend.errors("the diagnostics"):
        diagnostics = diagnose(job, table, matrix, clustering, context)
    seconds = {
        "load_seconds": context.cache.pop_seconds(job.key_of_table),
        "prepare_seconds": context.cache.pop_seconds(job.key_of_matrix),
        "fit_seconds": clustering.seconds,
        "score_seconds": scores.seconds,
    }
    if job.config.map.method != Projection.name:
        seconds["map_seconds"] = context.cache.pop_seconds(job.key_of_map)
    metrics = {**scores.metrics, **matrix.map_metrics, **diagnostics.metrics(), **seconds}
    return Result(table, matrix, clustering, scores, described, diagnostics, metrics)


def _fitting(jobs: Sequence[Job], job: Job) -> str:
    """What a fit of several jobs does when it has come to one of them."""
    algorithm = algorithm_of(job.config.cluster)
    if algorithm.shared_step:
        return f"building the {algorithm.label} {algorithm.shared_step} ({_names(jobs)})"
    return f"fitting {_names(jobs)}"


def _progress(context: RunContext, texts: Sequence[str], n_jobs: int, begins: float) -> Callable[[float], None]:
    """Shows a step that is half of the work on some jobs: fitting, from 0, or scoring, from 0.5. Each text is shown for an equal
    share of the step."""
    context.display.stage(texts[0])

    def report(done: float) -> None:
        context.display.stage(texts[min(int(done * len(texts)), len(texts) - 1)], done)
        context.work(n_jobs * (begins + 0.5 * done))

    return report


def say_table(job: Job, lines: str, context: RunContext) -> None:
    """Print the summary and the warnings of a job's table, after what varies in it; print nothing for a share of its rows."""
    if job.share < 1:
        return
    words = [f"{key}={value}" for key, value in job.swept.items() if key.split(".")[0] in ("data", "clean")]
    for line in lines.splitlines():
        context.say(f"{' '.join(words)}: {line}" if words else line)


def table_stats(job: Job, table: Table, context: RunContext) -> TableStats:
    """What all profiles of a table share."""
    return context.cache.get_or_create(
        f"facts-{job.key_of_table}", lambda: compute_table_stats(table, context.backend.frames)
    )


def describe(
    job: Job,
    table: Table,
    labels: np.ndarray,
    context: RunContext,
    *,
    distance: np.ndarray | None = None,
    confidence: np.ndarray | None = None,
) -> Profile:
    """What is in each cluster of a labelling of the table."""
    stats = table_stats(job, table, context)
    return profile(
        stats,
        table.column_features,
        labels,
        distance=distance,
        confidence=confidence,
        preset=job.config.data.preset,
        encodings=table.encodings,
    )


def with_rules(job: Job, table: Table, described: Profile, labels: np.ndarray, context: RunContext) -> Profile:
    """The profile with a decision rule for each cluster: for a job that people look at, not for each of a sweep."""
    context.display.stage("finding rules")
    return add_rules(described, table_stats(job, table, context), labels, seed=job.config.seed)


def _reference(job: Job, table: Table, context: RunContext) -> pd.Series | None:
    """The column of the known labels (n_rows,), read once; None where none is configured."""
    if job.config.analysis.reference is None:
        return None
    column = reference_column(table, job.config.analysis.reference)

    def load() -> pd.DataFrame:
        frames = context.backend.frames
        if column in table.frame.columns:
            return frames.to_pandas(table.frame[[column]])
        return other_columns(table, job.config.data, frames, [column]).to_pandas()

    return context.cache.get_or_create(f"reference-{job.key_of_table}-{column}", load)[column]


def diagnose(job: Job, table: Table, matrix: Matrix, clustering: Clustering, context: RunContext) -> Diagnostics:
    """The analyses of a clustering that the configuration requests in addition to the scores."""
    return run_diagnostics(
        table,
        matrix,
        clustering,
        job.config,
        raw=table_stats(job, table, context).raw,
        backend=context.backend,
        reference=_reference(job, table, context),
        report=lambda text, done: context.display.stage(f"{job.name}: {text}", done),
    )
