"""Clusterings of one table compared: runs or exports, matched row for row, and which cluster is which."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gpuclust.analysis.comparison import Comparison, compare_all
from gpuclust.errors import DataError, ExportError
from gpuclust.export import ADDED, ASSIGNMENTS, MANIFEST, find_run, reload_run, verify
from gpuclust.folders import whole_folder
from gpuclust.pipeline.context import RunContext
from gpuclust.pipeline.run_files import contingency_figure
from gpuclust.sanitize import safe_row
from gpuclust.tracking.mlflow import MlflowRecorder


@dataclass(frozen=True)
class Labeled:
    """One clustering to compare. ``rows`` (n_rows,) int64 are the numbers of its rows in the source, None where they are not
    known (an export does not have them); ``ids`` (n_rows,) are the table's."""

    name: str
    run_id: str
    fingerprint: str
    labels: np.ndarray
    rows: np.ndarray | None
    ids: pd.Series


@dataclass(frozen=True)
class Compared:
    """Run ids by the names that tell the runs apart, every pair of them, and how many rows all of them have."""

    runs: Mapping[str, str]
    comparisons: tuple[Comparison, ...]
    n_rows: int
    notes: tuple[str, ...] = ()


def is_export(name: str) -> bool:
    """Whether an argument of `compare` is an export folder, not a run."""
    return (Path(name) / MANIFEST).is_file()


def compare_runs(
    names: Sequence[str], *, recorder: MlflowRecorder | None, context: RunContext, data_path: str | None = None
) -> Compared:
    """Compare clusterings of one table, each pair of them. ``names`` are run ids, sweeps, ``best``, or export folders;
    ``recorder`` may be None where all are export folders.

    Clusterings of rows that were cleaned differently are compared over the rows that all of them kept. Raises ExportError
    when a run or an export is missing or is of another table, DataError when rows cannot be matched.
    """
    if len(names) < 2:
        raise ExportError("compare needs two runs or more; `gpuclust ui` shows them")
    opened = []
    for name in names:
        context.display.stage(f"reading {name}")
        opened.append(_of_export(Path(name)) if is_export(name) else _of_run(name, recorder, context, data_path))
    opened = distinct(opened)
    if len({one.fingerprint for one in opened}) > 1:
        raise ExportError("these runs are of different tables; compare runs of the same file")
    labelings, notes = _aligned(opened)
    context.display.stage("comparing")
    n_rows = len(next(iter(labelings.values())))
    return Compared({one.name: one.run_id for one in opened}, tuple(compare_all(labelings)), n_rows, notes)


def _of_run(name: str, recorder: MlflowRecorder | None, context: RunContext, data_path: str | None) -> Labeled:
    if recorder is None:
        raise ExportError(f"{name} is not an export folder, and no tracking store is open to find it as a run")
    run = find_run(recorder, name)
    found = reload_run(run, recorder=recorder, context=context, data_path=data_path)
    table = found.table
    ids = context.backend.frames.to_pandas(table.frame[[table.roles.id]])[table.roles.id]
    rows = np.arange(table.n_rows) if table.rows is None else table.rows
    return Labeled(run.name, run.run_id, found.job.fingerprint, found.prediction.cluster, rows, ids)


def _of_export(folder: Path) -> Labeled:
    manifest = verify(folder)
    try:
        id_column = str(manifest["roles"]["id"])
        name, run_id, fingerprint = (str(manifest[key]) for key in ("run_name", "run_id", "fingerprint"))
        column = f"{id_column}_source" if id_column in ADDED else id_column
        frame = pq.read_table(folder / f"{ASSIGNMENTS}.parquet", columns=[column, "cluster"]).to_pandas()
    except (KeyError, TypeError, ValueError, OSError, pa.ArrowException) as error:
        raise ExportError(f"the export {folder} is damaged ({error}); export the run again") from error
    return Labeled(name, run_id, fingerprint, frame["cluster"].to_numpy(dtype=np.int32), None, frame[column])


def distinct(opened: Sequence[Labeled]) -> list[Labeled]:
    """The clusterings with names that tell them apart: where a name is not unique, with the beginning of the run id."""
    names = [one.name for one in opened]
    named = [
        one if names.count(one.name) == 1 else replace(one, name=f"{one.name} ({one.run_id[:8]})") for one in opened
    ]
    if len({one.name for one in named}) < len(named):
        raise ExportError("the same run is named twice; name different runs")
    return named


def _aligned(opened: Sequence[Labeled]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The labels of every clustering over the same rows: by their numbers in the source, else as they stand where ids and
    order are the same, else by ids that are unique."""
    keys: list[pd.Index]
    if all(one.rows is not None for one in opened):
        keys = [pd.Index(np.asarray(one.rows)) for one in opened]
    elif all(len(one.ids) == len(opened[0].ids) and one.ids.equals(opened[0].ids) for one in opened):
        keys = [pd.RangeIndex(len(one.ids)) for one in opened]
    else:
        keys = [pd.Index(one.ids.astype(str)) for one in opened]
        if repeated := [one.name for one, key in zip(opened, keys, strict=True) if key.has_duplicates]:
            raise DataError(
                f"{repeated[0]} has rows with the same id and the exports hold different rows, so their rows cannot be "
                f"matched; compare the runs: gpuclust compare {' '.join(one.run_id for one in opened)}"
            )
    if all(key.equals(keys[0]) for key in keys):
        return {one.name: one.labels for one in opened}, ()
    common = keys[0]
    for key in keys[1:]:
        common = common.intersection(key, sort=False)
    if not len(common):
        raise DataError("these runs have no row in common")
    most = max(len(key) for key in keys)
    note = f"cleaned differently: {len(common):,} rows that all runs kept, of up to {most:,}"
    return {one.name: one.labels[key.get_indexer(common)] for one, key in zip(opened, keys, strict=True)}, (note,)


def table_csv(comparisons: Sequence[Comparison]) -> str:
    """A line for each pair: the agreement with noise as a cluster, and over the rows that both cluster."""
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
    """A line for each cluster: its partner in the other run, the rows they share, and the Jaccard similarity."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(safe_row([comparison.first, comparison.second, "shared", "jaccard"]))
    for m in comparison.matches:
        writer.writerow(["" if c is None else c for c in (m.first, m.second)] + [m.shared, m.jaccard])
    return out.getvalue()


def write(compared: Compared, out: Path, *, force: bool = False) -> Path:
    """Write the comparison into a folder: ``comparison.csv``, ``comparison.json``, and for each pair its contingency table,
    its matches and its heat map. Raises ExportError when the folder exists (unless ``force``) or cannot be written."""
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
