"""`gpuclust figures`: draw the figures of a recorded run, and the clustergram of a sweep, from the table and the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpuclust.algorithms.registry import algorithm_of
from gpuclust.analysis.table_stats import feature_blocks
from gpuclust.errors import ExportError
from gpuclust.export import ReloadedRun, reload_run
from gpuclust.folders import whole_folder
from gpuclust.pipeline import job as jobs
from gpuclust.pipeline.context import RunContext
from gpuclust.pipeline.full_figures import (
    MIN_SIZES,
    FigureInput,
    clustergram_of,
    full_figures,
    labels_of_sample,
    sampled,
)
from gpuclust.pipeline.run_files import pngs
from gpuclust.tracking import recorder as tags
from gpuclust.tracking.recorder import FINISHED, RecordedJob, Recorder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures_of_run(
    run: RecordedJob, *, recorder: Recorder, context: RunContext, data_path: str | None = None
) -> dict[str, Figure]:
    """The figures of a finished job by name (`gpuclust.pipeline.full_figures`). The table is read again from its source, or from
    ``data_path``. Raises ExportError where the content or the labels are not those of the run."""
    found = reload_run(run, recorder=recorder, context=context, data_path=data_path)
    context.display.stage("drawing figures")
    return full_figures(_input(found, run, context))


def _input(found: ReloadedRun, run: RecordedJob, context: RunContext) -> FigureInput:
    assigned = found.assignment
    described = jobs.describe(
        found.job, found.table, assigned.cluster, context, distance=assigned.distance, confidence=assigned.confidence
    )
    return FigureInput(
        table=found.table,
        stats=jobs.table_stats(found.job, found.table, context),
        labels=assigned.cluster,
        preparation=found.bundle.preparation,
        parameters=found.bundle.parameters,
        profile=described,
        blocks=feature_blocks(found.table, context.backend.frames),
        seed=found.job.config.seed,
        silhouette=run.metrics.get("silhouette"),
    )


def clustergram_of_run(
    run: RecordedJob,
    others: Sequence[RecordedJob],
    *,
    recorder: Recorder,
    context: RunContext,
    data_path: str | None = None,
) -> Figure:
    """The clustergram of the jobs among ``others`` that differ from a job in their number of clusters alone. A job without a model is
    computed again. Raises ExportError where fewer than three numbers of clusters were tried, or the algorithm has none."""
    found = reload_run(run, recorder=recorder, context=context, data_path=data_path)
    config = found.job.config.cluster
    algorithm = algorithm_of(config)
    size = f"cluster.{algorithm.size_key}"
    labels: dict[int, np.ndarray] = {}
    if algorithm.counts_clusters:
        for other in sorted((o for o in others if _differs_in_size(run, o, size)), key=lambda o: int(o.params[size])):
            own = reload_run(other, recorder=recorder, context=context, data_path=data_path)
            labels.setdefault(int(other.params[size]), labels_of_sample(own.assignment.cluster, own.job.config.seed))
    if len(labels) < MIN_SIZES:
        raise ExportError(
            f"a clustergram needs {MIN_SIZES} numbers of clusters; the sweep of {run.name} has {len(labels)} that differ in nothing else"
        )
    rows = sampled(found.table.n_rows, found.job.config.seed)
    raw = feature_blocks(found.table, context.backend.frames).take(rows)
    return clustergram_of(labels, found.bundle.preparation.map_points(raw), found.bundle.preparation)


def _differs_in_size(run: RecordedJob, other: RecordedJob, size: str) -> bool:
    """Whether two jobs are of one table and preparation, and of one algorithm with the same settings but for its size."""

    def settings(job: RecordedJob) -> Mapping[str, str]:
        return {k: v for k, v in job.params.items() if k.startswith(("cluster.", "seed", "dtype")) and k != size}

    keys = (tags.FINGERPRINT, tags.MATRIX_KEY)
    return (
        other.status == FINISHED
        and size in other.params
        and settings(other) == settings(run)
        and all(other.tags.get(key) == run.tags.get(key) for key in keys)
    )


def write_figures(figures: Mapping[str, Figure], out: Path, *, force: bool = False) -> Path:
    """Write each figure as a PNG file into a folder. Raises ExportError if the folder exists (unless ``force``)."""
    with whole_folder(out, force) as folder:
        for name, png in pngs(figures).items():
            (folder / f"{name}.png").write_bytes(png)
    return out
