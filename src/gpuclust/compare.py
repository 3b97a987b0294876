"""Recorded runs held against one another: the same rows, each run's labels, which cluster is which."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gpuclust.analysis.compare import Comparison, compare_all
from gpuclust.artifacts import contingency_figure
from gpuclust.desk import Desk
from gpuclust.errors import DataError, ExportError
from gpuclust.export import Recorded, find_run, recorded, whole_folder
from gpuclust.sanitize import safe_row
from gpuclust.tracking.mlflow import MlflowRecorder
from gpuclust.tracking.recorder import RecordedJob


@dataclass(frozen=True)
class Compared:
    """Runs by the names they are told apart by, every pair of them, and how many rows all of them have."""

    runs: Mapping[str, RecordedJob]
    comparisons: tuple[Comparison, ...]
    n_rows: int
    notes: tuple[str, ...] = ()


def compare_runs(
    run_ids: Sequence[str], *, recorder: MlflowRecorder, desk: Desk, data_path: str | None = None
) -> Compared:
    """Compare finished jobs of one table, each pair of them.

    Runs that were cleaned differently are compared over the rows that all of them kept, matched by id. Raises ExportError
    when a run is not there or has another file, DataError when rows cannot be matched.
    """
    if len(run_ids) < 2:
        raise ExportError("compare needs two runs or more; `gpuclust ui` shows them")
    found = [find_run(recorder, run_id) for run_id in run_ids]
    names = distinct_names(found)
    opened = {}
    for name, run in zip(names, found, strict=True):
        desk.display.stage(f"reading {name}")
        opened[name] = recorded(run, recorder=recorder, desk=desk, data_path=data_path)
    if len({one.job.fingerprint for one in opened.values()}) > 1:
        raise ExportError("these runs are of different tables; compare runs of the same file")
    labelings, notes = _aligned(opened, desk)
    desk.display.stage("comparing")
    n_rows = len(next(iter(labelings.values())))
    return Compared(dict(zip(names, found, strict=True)), tuple(compare_all(labelings)), n_rows, notes)


def distinct_names(runs: Sequence[RecordedJob]) -> list[str]:
    """The runs' names; those that are not unique with the beginning of their run id."""
    names = [run.name for run in runs]
    named = [n if names.count(n) == 1 else f"{n} ({run.run_id[:8]})" for n, run in zip(names, runs, strict=True)]
    if len(set(named)) < len(named):
        raise ExportError("the same run is named twice; name different runs")
    return named


def _aligned(opened: Mapping[str, Recorded], desk: Desk) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The labels of every run over the same rows."""
    if len({one.job.key_of_table for one in opened.values()}) == 1:
        return {name: one.prediction.cluster for name, one in opened.items()}, ()
    columns = {}
    for name, one in opened.items():
        ids = desk.backend.frames.to_pandas(one.table.frame[[one.table.roles.id]])[one.table.roles.id].astype(str)
        if ids.duplicated().any():
            raise DataError(f"{name} has rows with the same id, so its rows cannot be matched; use clean.duplicates=id")
        columns[name] = pd.Series(one.prediction.cluster, index=pd.Index(ids))
    together = pd.concat(columns, axis=1, join="inner")
    if together.empty:
        raise DataError("these runs have no row in common")
    most = max(len(column) for column in columns.values())
    note = f"cleaned differently: {len(together):,} rows that all runs kept, of up to {most:,}"
    return {name: together[name].to_numpy(dtype=np.int32) for name in together.columns}, (note,)


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
            "runs": {name: run.run_id for name, run in compared.runs.items()},
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
