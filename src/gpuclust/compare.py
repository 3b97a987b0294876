"""Compare clusterings of one table, from runs or exports: match their rows and their clusters."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gpuclust.analysis.comparison import Comparison, compare_all
from gpuclust.errors import DataError, ExportError
from gpuclust.export import find_run, reload_run
from gpuclust.folders import whole_folder
from gpuclust.model.manifest import ASSIGNMENTS, CLUSTERS, MANIFEST, read_manifest, verify_all
from gpuclust.pipeline.context import RunContext
from gpuclust.pipeline.run_files import contingency_figure
from gpuclust.sanitize import safe_row
from gpuclust.tracking.mlflow import MlflowRecorder


@dataclass(frozen=True)
class Labeled:
    """One clustering to compare.

    ``rows`` (n_rows,) int64 are the row numbers in the source, None if unknown (an export does not have them); ``ids``
    (n_rows,) are the ids of the table. ``names``: cluster -> its name.
    """

    name: str
    run_id: str
    fingerprint: str
    labels: np.ndarray
    rows: np.ndarray | None
    ids: pd.Series
    names: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Compared:
    """Run ids by distinct names, the comparison of each pair, and the number of common rows."""

    runs: Mapping[str, str]
    comparisons: tuple[Comparison, ...]
    n_rows: int
    notes: tuple[str, ...] = ()


def is_export(name: str) -> bool:
    """Whether an argument of `compare` is an export folder rather than a run."""
    return (Path(name) / MANIFEST).is_file()


def compare_runs(
    names: Sequence[str], *, recorder: MlflowRecorder | None, context: RunContext, data_path: str | None = None
) -> Compared:
    """Compare each pair of clusterings of one table.

    ``names`` are run ids, sweeps, ``best``, or export folders; ``recorder`` may be None if all are export folders. Clusterings
    with different cleaning are compared over their common rows. Raises ExportError if a run or an export is missing or has
    another table, DataError if rows cannot be matched.
    """
    if len(names) < 2:
        raise ExportError("compare needs two runs or more; `gpuclust ui` shows them")
    clusterings = read_clusterings(names, recorder=recorder, context=context, data_path=data_path)
    if len({one.fingerprint for one in clusterings}) > 1:
        raise ExportError("these runs are of different tables; compare runs of the same file")
    labelings, notes = aligned(clusterings)
    context.display.stage("comparing")
    n_rows = len(next(iter(labelings.values())))
    return Compared({one.name: one.run_id for one in clusterings}, tuple(compare_all(labelings)), n_rows, notes)


def read_clusterings(
    names: Sequence[str], *, recorder: MlflowRecorder | None, context: RunContext, data_path: str | None = None
) -> list[Labeled]:
    """The clusterings of runs and export folders, under distinct names. Raises ExportError."""
    found = []
    for name in names:
        context.display.stage(f"reading {name}")
        found.append(_of_export(Path(name)) if is_export(name) else _of_run(name, recorder, context, data_path))
    return distinct(found)


def _of_run(name: str, recorder: MlflowRecorder | None, context: RunContext, data_path: str | None) -> Labeled:
    if recorder is None:
        raise ExportError(f"{name} is not an export folder, and no tracking store is open to find it as a run")
    run = find_run(recorder, name)
    found = reload_run(run, recorder=recorder, context=context, data_path=data_path)
    table = found.table
    ids = context.backend.frames.to_pandas(table.frame[[table.roles.id]])[table.roles.id]
    rows = np.arange(table.n_rows) if table.rows is None else table.rows
    described = found.bundle.details.get("clusters") or {}
    named = {int(c): str(note["name"]) for c, note in described.items()}
    return Labeled(run.name, run.run_id, found.job.fingerprint, found.assignment.cluster, rows, ids, named)


def _of_export(folder: Path) -> Labeled:
    manifest = read_manifest(folder)
    verify_all(manifest)
    try:
        name, run_id, fingerprint = (str(manifest.text[key]) for key in ("run_name", "run_id", "fingerprint"))
        column = manifest.roles["id"]
        frame = pq.read_table(folder / ASSIGNMENTS, columns=[column, "cluster"]).to_pandas()
        clusters = pq.read_table(folder / CLUSTERS, columns=["cluster", "name"]).to_pydict()
    except (KeyError, ValueError, OSError, pa.ArrowException) as error:
        raise ExportError(f"the export {folder} is damaged ({error}); export the run again") from error
    labels = frame["cluster"].to_numpy(dtype=np.int32)
    named = dict(zip(clusters["cluster"], clusters["name"], strict=True))
    return Labeled(name, run_id, fingerprint, labels, None, frame[column], named)


def distinct(clusterings: Sequence[Labeled]) -> list[Labeled]:
    """Make names unique by adding the beginning of the run id."""
    names = [one.name for one in clusterings]
    named = [
        one if names.count(one.name) == 1 else replace(one, name=f"{one.name} ({one.run_id[:8]})")
        for one in clusterings
    ]
    if len({one.name for one in named}) < len(named):
        raise ExportError("the same run is named twice; name different runs")
    return named


def aligned(clusterings: Sequence[Labeled]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Align the labels of all clusterings to the same rows: by row numbers, else by position if ids and order are equal,
    else by unique ids."""
    keys: list[pd.Index]
    if all(one.rows is not None for one in clusterings):
        keys = [pd.Index(np.asarray(one.rows)) for one in clusterings]
    elif all(len(one.ids) == len(clusterings[0].ids) and one.ids.equals(clusterings[0].ids) for one in clusterings):
        keys = [pd.RangeIndex(len(one.ids)) for one in clusterings]
    else:
        keys = [pd.Index(one.ids.astype(str)) for one in clusterings]
        if repeated := [one.name for one, key in zip(clusterings, keys, strict=True) if key.has_duplicates]:
            raise DataError(
                f"{repeated[0]} has rows with the same id and the exports hold different rows, so their rows cannot be "
                f"matched; compare the runs: gpuclust compare {' '.join(one.run_id for one in clusterings)}"
            )
    if all(key.equals(keys[0]) for key in keys):
        return {one.name: one.labels for one in clusterings}, ()
    common = keys[0]
    for key in keys[1:]:
        common = common.intersection(key, sort=False)
    if not len(common):
        raise DataError("these runs have no rows in common")
    most = max(len(key) for key in keys)
    note = f"cleaned differently: {len(common):,} rows that all runs kept, of up to {most:,}"
    return {one.name: one.labels[key.get_indexer(common)] for one, key in zip(clusterings, keys, strict=True)}, (note,)


def table_csv(comparisons: Sequence[Comparison]) -> str:
    """CSV with one line per pair: the agreement with noise as a cluster, and over the rows clustered in both."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    measures = ("ami", "ari", "homogeneity", "completeness")
    writer.writerow(["first", "second", "rows", *measures, "rows_clustered", *(f"{m}_clustered" for m in measures)])
    for c in comparisons:
        every, inside = c.with_noise, c.without_noise
        cells = [[a.n_rows, *(getattr(a, m) for m in measures)] for a in (every, inside)]
        writer.writerow(safe_row([c.first, c.second, *cells[0], *cells[1]]))
    return out.getvalue()


def matches_csv(comparison: Comparison) -> str:
    """CSV with one line per cluster: its match in the other run, the shared rows, and the Jaccard similarity."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(safe_row([comparison.first, comparison.second, "shared", "jaccard"]))
    for m in comparison.matches:
        writer.writerow(["" if c is None else c for c in (m.first, m.second)] + [m.shared, m.jaccard])
    return out.getvalue()


def write(compared: Compared, out: Path, *, force: bool = False) -> Path:
    """Write a comparison to a folder: ``comparison.csv``, ``comparison.json``, and for each pair a contingency table, the
    matches and a heat map. Raises ExportError if the folder exists (unless ``force``) or cannot be written."""
    from gpuclust.report.figures import to_png

    if out.exists() and not force:
        raise ExportError(f"{out} exists; name another --out, or replace it with --force")
    with whole_folder(out, force) as folder:
        (folder / "comparison.csv").write_text(table_csv(compared.comparisons), encoding="utf-8")
        content = {
            "runs": dict(compared.runs),
            "n_rows": compared.n_rows,
            "notes": list(compared.notes),
            "pairs": [c.to_dict() for c in compared.comparisons],
        }
        (folder / "comparison.json").write_text(
            json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        for c in compared.comparisons:
            (folder / f"contingency_{c.slug}.csv").write_text(c.to_csv(), encoding="utf-8")
            (folder / f"matches_{c.slug}.csv").write_text(matches_csv(c), encoding="utf-8")
            (folder / f"contingency_{c.slug}.png").write_bytes(to_png(contingency_figure(c)))
    return out
