"""Which clusters became which: the rows of each cluster of a run, or of an export, in the clusters of the next one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from gpuclust.compare import Labeled, aligned, read_clusterings
from gpuclust.errors import DataError, ExportError
from gpuclust.folders import whole_folder
from gpuclust.metrics.agreement import Contingency, contingency
from gpuclust.model.records import NOISE
from gpuclust.pages.text import label_name
from gpuclust.sanitize import safe_row

if TYPE_CHECKING:
    from gpuclust.pipeline.context import RunContext
    from gpuclust.tracking.mlflow import MlflowRecorder

MIN_SHARE = 0.2
"""A cluster goes to another where so large a share of its rows does, or of the rows of the other comes from it."""
MAJORITY = 0.5


@dataclass(frozen=True)
class Flow:
    """The rows of a cluster of one run that are in a cluster of the next: their number, and their share of each of the two."""

    first_run: str
    first: int
    first_name: str
    second_run: str
    second: int
    second_name: str
    shared: int
    of_first: float
    of_second: float


@dataclass(frozen=True)
class Lineage:
    """Runs in their order (name -> id), the flows between each and the next, what became of each cluster, in words, and ``n_rows`` that all
    runs have."""

    runs: Mapping[str, str]
    flows: tuple[Flow, ...]
    changes: tuple[str, ...]
    n_rows: int
    notes: tuple[str, ...] = ()

    def to_csv(self) -> str:
        """CSV with one line for each pair of clusters that share rows."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(Flow.__dataclass_fields__)
        for flow in self.flows:
            writer.writerow(safe_row(asdict(flow).values()))
        return out.getvalue()


def lineage(
    names: Sequence[str], *, recorder: MlflowRecorder | None, context: RunContext, data_path: str | None = None
) -> Lineage:
    """Follow the clusters through runs (ids, sweeps, ``best``, or export folders), in the order given.

    Runs of one table are matched by its rows; those of different tables by their ids, over the rows that all have. Raises ExportError if a run
    is missing, DataError if rows cannot be matched.
    """
    if len(names) < 2:
        raise ExportError("lineage needs two runs or more, in their order in time")
    clusterings = read_clusterings(names, recorder=recorder, context=context, data_path=data_path)
    several_tables = len({one.fingerprint for one in clusterings}) > 1
    if several_tables:
        clusterings = [_by_id(one) for one in clusterings]
    labelings, notes = aligned(clusterings)
    n_rows = len(next(iter(labelings.values())))
    if several_tables:
        notes = (f"different tables: {n_rows:,} rows have the same ids in all of them",)
    flows: list[Flow] = []
    changes: list[str] = []
    for before, after in pairwise(clusterings):
        counts = contingency(labelings[before.name], labelings[after.name])
        own = _flows(before, after, counts)
        flows += own
        changes += in_words(own, before, after)
    return Lineage({one.name: one.run_id for one in clusterings}, tuple(flows), tuple(changes), n_rows, notes)


def _by_id(one: Labeled) -> Labeled:
    """A clustering whose rows are known by their ids alone. Raises DataError where these only number the rows."""
    ids = one.ids.reset_index(drop=True)
    if pd.api.types.is_integer_dtype(ids) and ids.equals(pd.Series(range(len(ids)), dtype=ids.dtype, name=ids.name)):
        raise DataError(
            f"{one.name} has no ids, and the runs are of different tables, so their rows cannot be matched; name the id with data.roles.id"
        )
    return replace(one, rows=None, ids=ids.astype(str))


def _flows(before: Labeled, after: Labeled, counts: Contingency) -> list[Flow]:
    """The flows between two runs, by the clusters of the first, the largest first."""
    in_first, in_second = counts.table.sum(axis=1), counts.table.sum(axis=0)
    found = []
    for i, first in enumerate(counts.first):
        for j in sorted(counts.table[i].nonzero()[0], key=lambda j: -counts.table[i, j]):
            shared, second = int(counts.table[i, j]), int(counts.second[j])
            found.append(
                Flow(before.name, int(first), before.names.get(int(first), ""), after.name, second, after.names.get(second, ""),
                     shared, shared / int(in_first[i]), shared / int(in_second[j]))
            )  # fmt: skip
    return sorted(found, key=lambda flow: (flow.first == NOISE, flow.first))


def in_words(flows: Sequence[Flow], before: Labeled, after: Labeled) -> list[str]:
    """What became of each cluster of a run in the next: it continues, splits, joins others, or dissolves; and which clusters are new."""
    lines = []
    for cluster in dict.fromkeys(flow.first for flow in flows if flow.first != NOISE):
        own = [flow for flow in flows if flow.first == cluster and flow.of_first >= MIN_SHARE]
        best = own[0] if own else None
        targets = ", ".join(f"{_name(flow.second, flow.second_name)} {flow.of_first:.0%}" for flow in own)
        if best is None:
            said = "dissolves"
        elif len(own) > 1:
            said = f"splits into {targets}"
        elif best.of_first < MAJORITY:
            said = f"dissolves; most of it in {targets}"
        elif best.of_second >= MAJORITY:
            said = f"continues as {targets}"
        else:
            said = f"joins {targets}"
        lines.append(f"{before.name} {_name(cluster, before.names.get(cluster, ''))}: {said}")
    for cluster in sorted({flow.second for flow in flows if flow.second != NOISE}):
        into = [flow for flow in flows if flow.second == cluster and flow.of_second >= MIN_SHARE]
        name = _name(cluster, after.names.get(cluster, ""))
        if len(into) > 1:
            parts = ", ".join(f"{_name(flow.first, flow.first_name)} {flow.of_second:.0%}" for flow in into)
            lines.append(f"{after.name} {name}: made of {parts}")
        elif not into or into[0].first == NOISE:
            lines.append(f"{after.name} {name}: new")
    return lines


def _name(cluster: int, name: str) -> str:
    return f"{label_name(cluster)} ({name})" if name and cluster != NOISE else label_name(cluster)


def write(found: Lineage, out: Path, *, force: bool = False) -> Path:
    """Write a lineage to a folder: ``lineage.csv``, ``lineage.json`` and the Sankey diagram ``lineage.png``. Raises ExportError if the
    folder exists (unless ``force``) or cannot be written."""
    from gpuclust.report.figures import sankey, to_png

    if out.exists() and not force:
        raise ExportError(f"{out} exists; name another --out, or replace it with --force")
    with whole_folder(out, force) as folder:
        (folder / "lineage.csv").write_text(found.to_csv(), encoding="utf-8")
        content = {**asdict(found), "flows": [asdict(flow) for flow in found.flows]}
        (folder / "lineage.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        runs = list(found.runs)
        at = {run: i for i, run in enumerate(runs)}
        sizes = [(at[f.first_run], f.first, f.second, f.shared) for f in found.flows]
        named = {(at[f.first_run], f.first): f.first_name for f in found.flows}
        named |= {(at[f.second_run], f.second): f.second_name for f in found.flows}
        (folder / "lineage.png").write_bytes(to_png(sankey(runs, sizes, named)))
    return out
