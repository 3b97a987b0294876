"""What is written of a job: its run, its scores, its files, its model, or why it failed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gpuclust.algorithms.cluster import Clustering
from gpuclust.analysis.profile import Profile
from gpuclust.config import Config, flatten
from gpuclust.data.disk_frame import DiskFrame
from gpuclust.data.summary import summary
from gpuclust.data.table import Table
from gpuclust.errors import GpuclustError
from gpuclust.model.bundle import Bundle
from gpuclust.model.drift import DECILES, as_bins, bin_counts, bin_edges
from gpuclust.model.novelty import RANGE, training_summary
from gpuclust.model.vectors import listed
from gpuclust.pipeline.context import Job, Outcome, Result, RunContext, about, data_name, with_size
from gpuclust.pipeline.full_figures import labels_of_sample
from gpuclust.pipeline.run_files import job_files
from gpuclust.runtime.blocks import Run
from gpuclust.runtime.matrix import Matrix
from gpuclust.runtime.order_statistics import order_statistics
from gpuclust.sanitize import mask
from gpuclust.tracking import recorder as tags
from gpuclust.tracking.recorder import FAILED, FINISHED, DatasetInput, RunStart


def start(job: Job, context: RunContext) -> RunStart:
    """What is recorded before a job's work starts."""
    return RunStart(
        name=job.name,
        tags={
            tags.KIND: "job",
            tags.KEY: job.key,
            tags.FINGERPRINT: job.fingerprint,
            tags.MATRIX_KEY: job.key_of_matrix,
            **about(context),
        },
        params=as_params(flatten(job.config) | {f"swept.{k}": v for k, v in job.swept.items()}),
    )


def as_params(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are set: what is None or an empty list is no parameter."""
    return {k: v for k, v in values.items() if v is not None and v != []}


def features_used(table: Table) -> dict[str, Any]:
    """The features that were clustered, and their number, as parameters of a run."""
    return {"features": ", ".join(listed(table.features)), "n_features": len(table.features)}


def record(
    job: Job, run_id: str, result: Result, context: RunContext, further: Mapping[str, Any] | None = None
) -> Outcome:
    """Log what a job found, with ``further`` figures by name, and close its run."""
    digest = labels_digest(result.clustering)
    planned, job = job.name, with_size(job, result.metrics)
    swept = {k: float(v) for k, v in job.swept.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    full = job.config.report.figures and job.config.report.full
    outcome = Outcome(
        job, run_id, FINISHED, result.metrics, labels=digest, clustering=result.clustering, profile=result.profile,
        sampled_labels=labels_of_sample(result.clustering.labels, job.config.seed) if full else None,
    )  # fmt: skip
    of_parts = (*result.matrix.notes, *result.clustering.notes, *result.scores.notes)
    notes = dict.fromkeys((*outcome.warnings, *of_parts))
    context.recorder.log(
        run_id,
        metrics={**result.metrics, **swept},
        tags={
            tags.LABELS: digest,
            tags.TABLE: table_lines(result.table),
            **({"gpuclust.notes": "; ".join(notes)} if notes else {}),
            **({"mlflow.runName": job.name} if job.name != planned else {}),
            **({"mlflow.note.content": f"**Warning:** {outcome.warnings[0]}"} if outcome.warnings else {}),
        },
        params=features_used(result.table),
        dataset=dataset(job, result.table),
    )
    _log_size_search(run_id, result.clustering, context)
    with TemporaryDirectory() as folder:
        context.recorder.log_files(run_id, job_files(Path(folder), outcome, result, about(context), further or {}))
    if job.config.tracking.models == "all":
        log_model(job, run_id, result.table, result.matrix, result.clustering, result.profile, context)
    context.recorder.end(run_id, FINISHED)
    context.display.finished(outcome)
    return outcome


def table_lines(table: Table) -> str:
    """The rows kept of the rows read, why the others were dropped, and the features; then a line for each warning."""
    return "\n".join([summary(table.audit), *(f"warning: {text}" for text in table.audit.warnings)])


def fail(job: Job, run_id: str, error: Exception, context: RunContext) -> Outcome:
    """Log why a job failed, and close its run."""
    reason = str(error) if isinstance(error, GpuclustError) else f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError):
        reason = "out of memory; lower data.n_rows, use dtype=float32 or a machine with more"
    reason = mask(reason)
    context.recorder.log(run_id, tags={tags.FAILURE: reason, "mlflow.note.content": f"Failed: {reason}"})
    context.recorder.end(run_id, FAILED)
    outcome = Outcome(job, run_id, FAILED, {}, error=reason)
    context.display.finished(outcome)
    return outcome


def dataset(job: Job, table: Table) -> DatasetInput:
    """The data set that the recorder logs as a job's input."""
    source = mask(job.config.data.shown)
    return DatasetInput(data_name(job.config.data), job.fingerprint, source, table.n_rows, table.features)


def _log_size_search(run_id: str, clustering: Clustering, context: RunContext) -> None:
    """The curve that an automatic size was chosen from, a point for each size: ``min_cluster_size/persistence``."""
    search = clustering.size_search
    if search is not None:
        name = f"{search.key}/persistence"
        points = zip(search.sizes, search.scores, strict=True)
        context.recorder.log_points(run_id, {int(size): {name: float(score)} for size, score in points})


def log_model(
    job: Job, run_id: str, table: Table, matrix: Matrix, clustering: Clustering, described: Profile, context: RunContext
) -> None:
    """Keep the job's bundle as its run's model."""
    with TemporaryDirectory() as folder:
        with context.backend.errors("the model"):
            bundle = bundle_of(job.config, table, matrix, clustering, described)
        saved = bundle.save(Path(folder) / "bundle")
        context.recorder.log_model(run_id, saved, table.features, job.name)


def bundle_of(config: Config, table: Table, matrix: Matrix, clustering: Clustering, described: Profile) -> Bundle:
    """The portable model of a clustering."""
    return Bundle(
        algorithm=clustering.algorithm,
        preparation=matrix.preparation,
        parameters=clustering.parameters,
        options=clustering.options,
        fills=table.audit.fills,
        encodings=table.encodings,
        bounds={f: (low, high) for f, (low, high) in config.clean.bounds.items() if f in table.features},
        details={
            "clusters": {str(c.cluster): {"name": c.name, "size": c.size} for c in described.clusters},
            "training": training_of(table, clustering.distance, clustering.confidence),
        },
    )


def training_of(table: Table, distance: np.ndarray | None, confidence: np.ndarray) -> dict[str, Any]:
    """What a model keeps of its training rows, to compare new rows with: ranges of the features, and of what was found."""
    # Values that occur, on the outer side of the quantile: at most 1 % of the training rows lie beyond, and interpolating
    # between values near 1e308 would overflow.
    names = table.column_features
    if not names:
        return training_summary({}, table.n_rows, distance, confidence)
    numbers = table.frame[list(names)]
    if isinstance(numbers, DiskFrame):
        blocks = numbers.values_of(names)
        places = np.array((*RANGE[:2], *DECILES, *RANGE[2:])) * (table.n_rows - 1)
        ranks = np.concatenate([np.floor(places[:-2]), np.ceil(places[-2:])]).astype(np.int64)
        values = order_statistics(blocks, ranks)
    else:
        blocks = None
        sides = (((*RANGE[:2], *DECILES), "lower"), (RANGE[2:], "higher"))
        found = [numbers.quantile(list(q), interpolation=side) for q, side in sides]
        values = np.vstack([_on_host(q).to_numpy(np.float64) for q in found])
    ranges = dict(zip(names, values[[0, 1, -2, -1]].T.tolist(), strict=True))
    edges = [bin_edges(values[2:-2, i], values[-1, i]) for i in range(len(names))]
    if blocks is None:
        counts = [bin_counts(_on_host(numbers[name]).to_numpy(), own) for name, own in zip(names, edges, strict=True)]
    else:
        parts = blocks.collect(_count_bins, edges)
        counts = [np.sum([part[i] for part in parts], axis=0) for i in range(len(names))]
    bins = {name: as_bins(*own) for name, *own in zip(names, edges, counts, strict=True)}
    return training_summary(ranges, table.n_rows, distance, confidence, bins)


def _on_host(values: Any) -> Any:
    """A pandas object of one of pandas or cuDF."""
    return values.to_pandas() if hasattr(values, "to_pandas") else values


def _count_bins(run: Run, edges: list[np.ndarray]) -> list[np.ndarray]:
    """The counts of the bins of each column of a run of blocks."""
    return [bin_counts(run.X[:, i], own) for i, own in enumerate(edges)]


def labels_digest(clustering: Clustering) -> str:
    """A digest of the labels, by which a rebuilt clustering is known to be the recorded one."""
    return digest_of(clustering.labels)


def digest_of(labels: np.ndarray) -> str:
    """A digest of int32 labels (n_rows,)."""
    return hashlib.blake2b(np.ascontiguousarray(labels, dtype=np.int32).data, digest_size=12).hexdigest()
