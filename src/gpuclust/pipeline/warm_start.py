"""The clusters of an earlier run on the rows of a job, from which its fit starts (`cluster.init_from`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpuclust.algorithms.cluster import StartLabels
from gpuclust.analysis.table_stats import feature_blocks
from gpuclust.data.table import Table
from gpuclust.errors import FitError
from gpuclust.model.bundle import Bundle
from gpuclust.model.records import NOISE
from gpuclust.model.vectors import listed
from gpuclust.pipeline.context import Job, RunContext
from gpuclust.runtime.blocks import Run


def starts_of(jobs: Sequence[Job], table: Table, context: RunContext) -> dict[str, StartLabels]:
    """Run id -> the clusters that its model gives the rows of the table, for the runs that the jobs start from. Raises FitError for a run without a
    model, or with other features."""
    runs = dict.fromkeys(run for job in jobs if (run := getattr(job.config.cluster, "init_from", None)))
    return {run: _labels(run, _model(run, jobs[0], context), table, context) for run in runs}


def _model(run_id: str, job: Job, context: RunContext) -> Bundle:
    recorder = context.recorder
    if recorder.job(run_id) is None:  # this job is recorded elsewhere, or not at all
        from gpuclust.tracking.mlflow import MlflowRecorder

        tracking = job.config.tracking
        recorder = MlflowRecorder(tracking.uri, tracking.experiment, create=False)
    with recorder.download_model(run_id) as folder:
        if folder is None:
            raise FitError(f"run {run_id} (cluster.init_from) has no model; run it again with tracking.models=all")
        return Bundle.load(folder)


def _labels(run_id: str, bundle: Bundle, table: Table, context: RunContext) -> StartLabels:
    if bundle.features != table.features:
        own = ", ".join(listed(bundle.features))
        raise FitError(
            f"run {run_id} (cluster.init_from) has the features {own}, and this job has {', '.join(listed(table.features))}; "
            "give the same data.features"
        )
    context.display.stage("assigning the rows to the clusters of the earlier run")
    parts: list[np.ndarray] = feature_blocks(table, context.backend.frames).collect(_assigned, bundle)
    n_clusters = sum(int(cluster) != NOISE for cluster in bundle.details.get("clusters", {}))
    return StartLabels(np.maximum(np.concatenate(parts), NOISE), n_clusters)


def _assigned(run: Run, bundle: Bundle) -> np.ndarray:
    """The clusters of the rows of a run of blocks, (n,) int32; -2 where a row cannot be placed."""
    return bundle.assign(run.X).cluster
