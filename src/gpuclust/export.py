"""Export a run as a folder that can be used without gpuclust: assignments, clusters, model and manifest."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from gpuclust import __version__
from gpuclust.algorithms.registry import algorithm_of, algorithms
from gpuclust.analysis.arrow_schema import cluster_table
from gpuclust.analysis.table_stats import feature_blocks
from gpuclust.assignments import (
    SourceColumns,
    assign,
    free_names,
    neighbour_points,
    with_assignments,
    with_path,
    write_tables,
)
from gpuclust.choice import find
from gpuclust.compose import from_yaml
from gpuclust.config import DataConfig, MemoryConfig, WorkersConfig, clusters_within
from gpuclust.data.table import Table
from gpuclust.edits import carry_edits
from gpuclust.errors import ExportError, ModelError
from gpuclust.folders import whole_folder
from gpuclust.model.bundle import Assignment, Bundle
from gpuclust.model.encodings import encoded_columns
from gpuclust.model.manifest import ASSIGNMENTS, CLUSTERS, FORMAT, MANIFEST, MODEL, POINTS
from gpuclust.model.records import NOISE, noise_warning
from gpuclust.model.vectors import source_columns
from gpuclust.pages.palette import cluster_color
from gpuclust.pipeline import job as jobs
from gpuclust.pipeline.context import Job, RunContext, data_name, make_job
from gpuclust.pipeline.run_log import bundle_of, digest_of, training_of
from gpuclust.pipeline.summary import rebuild
from gpuclust.reducers.neighbours import distance_warnings
from gpuclust.sanitize import mask
from gpuclust.tracking import recorder as tags
from gpuclust.tracking.mlflow import MlflowRecorder
from gpuclust.tracking.recorder import RecordedJob, Recorder

PACKAGES = (
    "cuml-cu13",
    "cudf-cu13",
    "cupy-cuda13x",
    "mlflow",
    "numba",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
)

MAX_PATH = 50  # runs within runs


@dataclass(frozen=True)
class Exported:
    """The folder that was written, and its run. ``notes``: the names and edits that the folder keeps of the one that it replaced."""

    folder: Path
    run: RecordedJob
    n_rows: int
    n_clusters: int
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def find_run(recorder: MlflowRecorder, run: str) -> RecordedJob:
    """The finished job that a run id or ``best`` names (`gpuclust.choice.find`)."""
    return find(recorder, run).run


def export(
    run: RecordedJob,
    out: Path,
    *,
    recorder: Recorder,
    context: RunContext,
    form: str = "parquet",
    data_path: str | None = None,
    force: bool = False,
    sweep: str | None = None,
    keep: Sequence[str] | None = None,
    memberships: int = 0,
) -> Exported:
    """Write the export folder of a finished job. ``sweep``: the sweep that the manifest describes, where it is not the run's own.
    ``keep``: which columns of the source that are neither features nor roles are kept; None for all of them. ``memberships``: in how many
    clusters, the likeliest first, the export has the membership of each row, and its outlier score (`Bundle.memberships`).

    The table is read and cleaned again from its source (``data_path`` where it has moved), its content checked against
    the run's fingerprint, and its labels against the run's. A folder that is replaced hands its names on (`gpuclust.edits.carry_edits`). Raises ExportError when the folder exists (unless ``force``),
    cannot be written, or the content is another.
    """
    refuse_existing(out, force)
    found = reload_run(run, recorder=recorder, context=context, data_path=data_path)
    job, table, assigned = found.job, found.table, found.assignment
    columns = SourceColumns(table, job.config.data, context.backend.frames, keep)
    described = jobs.describe(
        job, table, assigned.cluster, context, distance=assigned.distance, confidence=assigned.confidence
    )
    described = jobs.with_rules(job, table, described, assigned.cluster, context)
    with whole_folder(out, force) as folder:
        context.display.stage("writing")
        bundle = with_training(found.bundle, table, assigned)
        tables = with_assignments(
            columns,
            bundle,
            feature_blocks(table, context.backend.frames),
            assigned,
            rescue=True,
            memberships=memberships,
            progress=lambda done: context.display.stage("writing", done),
        )
        path = path_of(job.config.data, recorder)
        tables = with_path(tables, path) if path else tables
        csv = (folder / ASSIGNMENTS).with_suffix(".csv") if form == "csv" else None
        write_tables(tables, parquet=folder / ASSIGNMENTS, csv=csv)
        pq.write_table(cluster_table(described), folder / CLUSTERS, compression="zstd")
        if table.vectors:
            np.save(folder / POINTS, neighbour_points(bundle, feature_blocks(table, context.backend.frames)))
        bundle.save(folder / MODEL)
        renamed = {name: free for name, free in free_names(columns.names, memberships).items() if name != free}
        found_in = _at_sizes(recorder.sweep_of(run, sweep), recorder, job.config.cluster.name)
        manifest = _manifest(folder, run, job, table, assigned, found_in) | {"renamed": renamed}
        manifest |= {"path": path} if path else {}
        manifest |= {"memberships": memberships} if memberships else {}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        notes = carry_edits(folder, out) if (out / MANIFEST).is_file() else ()
    return Exported(out, run, table.n_rows, len(described.proper), tuple(manifest["warnings"]), notes)


def path_of(data: DataConfig, recorder: Recorder) -> str:
    """Where the clusters of a run are, if its rows are those of clusters of other runs: ``3`` of a run within cluster 3, ``1.3`` where that run
    is within cluster 1 of another; else empty."""
    parts: list[str] = []
    within = data.within
    while within is not None and len(parts) < MAX_PATH:
        run_id, clusters = clusters_within(within)
        parts.append("+".join(map(str, clusters)))
        job = recorder.job(run_id)
        within = None if job is None else job.params.get("data.within")
    return ".".join(reversed(parts))


def with_training(bundle: Bundle, table: Table, assigned: Assignment) -> Bundle:
    """The bundle with the ranges of its training rows, which version 0.1.0 did not keep."""
    if "training" in bundle.details:
        return bundle
    training = training_of(table, assigned.distance, assigned.confidence)
    return replace(bundle, details={**bundle.details, "training": training})


def refuse_existing(out: Path, force: bool) -> None:
    """Raise ExportError when the folder exists and may not be replaced."""
    if out.exists() and not force:
        raise ExportError(f"{out} exists; name another --out, or replace it with --force")


@dataclass(frozen=True)
class ReloadedRun:
    """A recorded job that is loaded again: its configuration, the table that was clustered, its model, and the clusters of the rows."""

    job: Job
    table: Table
    bundle: Bundle
    assignment: Assignment


def reload_run(
    run: RecordedJob, *, recorder: Recorder, context: RunContext, data_path: str | None = None
) -> ReloadedRun:
    """A finished job's table and labels again, each checked against what the run recorded.

    The model is the run's, or the job computed again where none was kept. Raises ExportError when the content of the
    file, or the labels, are not those of the run.
    """
    with recorder.download(run.run_id, tags.CONFIG_FILE) as path:
        config = from_yaml(path.read_text(encoding="utf-8"))
    if data_path is not None:
        config.data = config.data.at(data_path)
    if context.memory is None:  # the limit, the folder and the workers of the run may be those of another machine
        config.memory, config.workers = MemoryConfig(), WorkersConfig()
    job = make_job(config, run.name, {}, context.backend.name)
    if job.fingerprint != run.tags.get(tags.FINGERPRINT):
        raise ExportError(
            f"{mask(config.data.shown)} has changed since run {run.run_id}; "
            "give the file that was clustered with --data, or run the job again"
        )
    context.display.stage("reading the model")
    expected = run.tags.get(tags.LABELS)
    with recorder.download_model(run.run_id) as folder:
        bundle = _whole_bundle(folder)
    table = jobs.get_table(job, context)
    if bundle is not None and bundle.features != table.features:  # an earlier version took other columns by default
        made = encoded_columns(bundle.encodings, bundle.features)
        config.data.features = list(source_columns([name for name in bundle.features if name not in made]))
        job = make_job(config, run.name, {}, context.backend.name)
        table = jobs.get_table(job, context)
    if bundle is None:
        result = rebuild(job, context, expect=expected)
        bundle = bundle_of(job.config, table, result.matrix, result.clustering, result.profile)
    context.display.stage("assigning")
    assignment = bundle.training(table.n_rows, lambda: assign(bundle, feature_blocks(table, context.backend.frames)))
    if expected is not None and digest_of(assignment.cluster) != expected:
        raise ExportError(
            f"the model of run {run.run_id} does not give the labels that the run recorded on this table; "
            "run the job again with sweep.resume=false"
        )
    return ReloadedRun(job, table, bundle, assignment)


def _whole_bundle(folder: Path | None) -> Bundle | None:
    """The bundle of a folder; None where there is none, or it is damaged."""
    try:
        return Bundle.load(folder) if folder is not None else None
    except ModelError:
        return None


def _at_sizes(sweep: dict[str, Any] | None, recorder: Recorder, algorithm: str) -> dict[str, Any] | None:
    """The sweep with its curves at the sizes that were swept. The store has them at steps 0, 1, ... where sizes are not whole numbers."""
    parent = recorder.job(sweep["run_id"]) if sweep else None
    if sweep is None or parent is None:
        return sweep
    curves = {}
    for name, points in sweep["curves"].items():
        line = name.split("/")[1:2]
        owner = algorithms()[line[0] if line and line[0] in algorithms() else algorithm]
        tried = str(parent.params.get(f"swept.{owner.size_axis}", "")).split(", ")
        sizes = sorted(float(text) for text in tried if re.fullmatch(r"[\d.e+-]+", text))
        places = any(size % 1 for size in sizes) and max(map(int, points), default=0) < len(sizes)
        curves[name] = {f"{sizes[int(at)]:g}": v for at, v in points.items()} if places else points
    return sweep | {"curves": curves}


def _manifest(
    folder: Path, run: RecordedJob, job: Job, table: Table, assigned: Assignment, sweep: dict[str, Any] | None
) -> dict[str, Any]:
    """The content of manifest.json."""
    config = job.config
    chosen = (sweep or {}).get("chosen")
    n_noise = int((assigned.cluster == NOISE).sum())
    algorithm = algorithm_of(config.cluster)
    much_noise = noise_warning(n_noise, table.n_rows, algorithm.less_noise)
    return {
        "format": FORMAT,
        "gpuclust": __version__,
        "run_id": run.run_id,
        "run_name": run.name,
        "key": run.tags.get(tags.KEY, ""),
        "fingerprint": job.fingerprint,
        "source": mask(config.data.shown),
        "dataset": data_name(config.data),
        "algorithm": config.cluster.name,
        "size_keys": {name: known.size_key for name, known in algorithms().items()},
        "config": mask(asdict(config)),
        "roles": table.roles.named(),
        "features": list(table.column_features),
        "vectors": {column.name: column.size for column in table.vectors},
        "colors": {str(c): cluster_color(int(c)) for c in np.unique(assigned.cluster)},
        "rows": {
            "read": table.audit.rows_read,
            "kept": table.n_rows,
            "noise": n_noise,
            "in_clusters": table.n_rows - n_noise,
        },
        "noise_fraction": n_noise / table.n_rows,
        "warnings": [
            *([much_noise] if much_noise else []),
            *algorithm.warnings(run.metrics),
            *distance_warnings(config.reduce),
        ],
        "metrics": dict(run.metrics),
        "backend": {k: run.tags.get(k, "") for k in (tags.BACKEND, tags.BACKEND_REASON, tags.DEVICE)},
        "sweep": sweep,
        "selected": chosen is not None and chosen["run_id"] == run.run_id,
        "versions": versions(),
        "sha256": {
            str(path.relative_to(folder)): _digest(path) for path in sorted(folder.rglob("*")) if path.is_file()
        },
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that computed the results."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
