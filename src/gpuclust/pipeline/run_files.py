"""The files beside a run: configuration, audit, profile, figures and the page of a job; leaderboard of a sweep."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuclust.analysis.comparison import Comparison
from gpuclust.analysis.profile import Profile
from gpuclust.analysis.selection import Curves, knee
from gpuclust.analysis.verdict import Verdict
from gpuclust.compose import to_yaml
from gpuclust.config import DataConfig
from gpuclust.data.files import short_name
from gpuclust.data.table import Audit
from gpuclust.metrics.gap import Gap
from gpuclust.pages.text import label_name
from gpuclust.pipeline.context import Outcome, Result
from gpuclust.sanitize import mask, safe_row
from gpuclust.tracking.recorder import COMMAND, CONFIG_FILE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_CLUSTERS = "cluster.n_clusters"


@dataclass(frozen=True)
class SweepReportInput:
    """What a sweep's files are written from. ``curves``: axis (a swept key) -> metric -> line -> [(size, value, standard error)];
    ``documents``: name of a JSON file -> its content; ``data`` is the data of the chosen job, ``metrics`` are its metrics, ``chosen``
    its profile, and ``pictures`` its `PICTURES` as PNG."""

    name: str
    run_id: str
    rows: Sequence[Mapping[str, Any]]
    curves: Mapping[str, Curves]
    reason: str
    verdict: Verdict
    about: Mapping[str, str]
    documents: Mapping[str, Any]
    gap: Gap | None = None
    comparisons: Sequence[Comparison] = ()
    data: DataConfig = field(default_factory=DataConfig)
    metrics: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    chosen: Profile | None = None
    audit: Audit | None = None
    warnings: Sequence[str] = ()
    further: Mapping[str, Figure] = field(default_factory=dict)


def job_files(
    folder: Path, outcome: Outcome, result: Result, about: Mapping[str, str], further: Mapping[str, Figure]
) -> Path:
    """Write the files of a job into a folder, with ``further`` figures; the same folder back."""
    config = outcome.job.config
    configuration = to_yaml(config)
    (folder / CONFIG_FILE).write_text(configuration, encoding="utf-8")
    _json(folder / "audit.json", mask(result.table.audit.to_dict()))
    (folder / "profile.json").write_text(result.profile.to_json() + "\n", encoding="utf-8")
    (folder / "profile.csv").write_text(result.profile.to_csv(), encoding="utf-8")
    for name, content in result.diagnostics.documents().items():
        _json(folder / f"{name}.json", content)
    if config.report.figures:
        figures = _job_figures(result) | pngs(further)
        _write_figures(folder, figures)
        text = _job_page(outcome, result, about, figures, configuration)
        (folder / "report.html").write_text(text, encoding="utf-8")
    return folder


def sweep_files(folder: Path, facts: SweepReportInput, *, figures: bool) -> Path:
    """Write the files of a sweep into a folder; the same folder back."""
    (folder / "leaderboard.csv").write_text(leaderboard_csv(facts.rows), encoding="utf-8")
    for name, content in facts.documents.items():
        _json(folder / f"{name}.json", content)
    for comparison in facts.comparisons:
        (folder / f"contingency_{comparison.slug}.csv").write_text(comparison.to_csv(), encoding="utf-8")
    if figures:
        drawn = _sweep_figures(facts) | pngs(facts.further)
        _write_figures(folder, drawn)
        (folder / "report.html").write_text(_sweep_page(facts, drawn), encoding="utf-8")
    return folder


def leaderboard_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV, with every column that any of them has."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(safe_row(columns))
    writer.writerows(safe_row(row.get(column, "") for column in columns) for row in rows)
    return out.getvalue()


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    return str(value)


def _write_figures(folder: Path, figures: Mapping[str, bytes]) -> None:
    (folder / "figures").mkdir(exist_ok=True)
    for name, png in figures.items():
        (folder / "figures" / f"{name}.png").write_bytes(png)


def pngs(figures: Mapping[str, Figure]) -> dict[str, bytes]:
    """The figures as PNG."""
    if not figures:
        return {}
    from gpuclust.report.figures import to_png

    return {name: to_png(figure) for name, figure in figures.items()}


def _job_figures(result: Result) -> dict[str, bytes]:
    from gpuclust.report import figures

    matrix, described = result.matrix, result.profile.proper
    names = {c.cluster: c.name for c in result.profile.clusters}
    labels = result.clustering.labels
    drawn = {"map": figures.map_of(matrix.preparation, matrix.coordinates, labels, result.metrics, names)}
    if described and result.profile.features:
        drawn["profile"] = figures.profile_heatmap(
            result.profile.z(),
            result.profile.features,
            [c.fraction for c in described],
            names={c.cluster: c.name for c in described},
            clusters=[c.cluster for c in described],
        )
    stable = result.diagnostics.stability
    if stable is not None:
        drawn["stability"] = figures.stability_bars(
            stable.jaccard,
            errors=stable.jaccard_std,
            names={c.cluster: c.name for c in described},
        )
    search = result.clustering.size_search
    if search is not None and len(search.sizes):
        drawn["persistence"] = figures.persistence_curve(search.sizes, search.scores, chosen=search.chosen)
    tree = dendrogram_figure(result)
    if tree is not None:
        drawn["dendrogram"] = tree
    return {name: figures.to_png(figure) for name, figure in drawn.items()}


def dendrogram_figure(result: Result) -> Figure | None:
    """The tree of merges of a clustering that is a cut of one (see `gpuclust.algorithms.registry.FitResult`), else None."""
    from gpuclust.report import figures

    fitted = result.clustering.parameters
    if "merges" not in fitted:
        return None
    return figures.dendrogram(
        fitted["merges"],
        fitted["leaf_sizes"],
        fitted["leaf_labels"],
        names={c.cluster: c.name for c in result.profile.clusters},
    )


def _sweep_figures(facts: SweepReportInput) -> dict[str, bytes]:
    from gpuclust.report import figures

    drawn: dict[str, Figure] = {}
    for axis, curves in sorted(facts.curves.items()):
        drawn |= _curves_over(axis, curves)
    if facts.gap is not None:
        drawn["gap"] = figures.gap_curve(facts.gap.sizes, facts.gap.gap, facts.gap.error, chosen=facts.gap.chosen)
    for comparison in facts.comparisons:
        drawn[f"contingency_{comparison.slug}"] = contingency_figure(comparison)
    return {name: figures.to_png(figure) for name, figure in drawn.items()}


def _curves_over(axis: str, curves: Curves) -> dict[str, Figure]:
    """The figures of one axis: ``elbow``, ``silhouette`` and ``bic`` over the number of clusters; over another axis, a figure for
    each score that its jobs have, such as ``silhouette_by_min_cluster_size``."""
    from gpuclust.report import figures

    lines = {
        metric: {line: figures.Curve(*zip(*points, strict=True)) for line, points in by_line.items() if points}
        for metric, by_line in curves.items()
    }
    drawn: dict[str, Figure] = {}
    if axis == N_CLUSTERS:
        if "inertia" in lines:
            # One line is drawn as an elbow; several share a chart.
            only = next(iter(lines["inertia"].values())) if len(lines["inertia"]) == 1 else None
            drawn["elbow"] = (
                figures.elbow(only.sizes, only.values, knee=knee(list(next(iter(curves["inertia"].values())))))
                if only
                else figures.score_curve(lines["inertia"], label="inertia", higher_is_better=False)
            )
        if "silhouette" in lines:
            drawn["silhouette"] = figures.silhouette_curve(lines["silhouette"])
        if "bic" in lines:
            drawn["bic"] = figures.bic_curve(lines["bic"])
        return drawn
    name = axis.rpartition(".")[2]
    label = name.replace("_", " ").replace("min ", "minimum ")
    noisy = any(value > 0 for points in curves.get("noise_fraction", {}).values() for _, value, _ in points)
    silhouette = "silhouette_with_noise" if noisy else "silhouette"
    if silhouette in lines:
        drawn[f"silhouette_by_{name}"] = figures.silhouette_curve(lines[silhouette], x_label=label, with_noise=noisy)
    for metric, title, higher in OVER_OTHER_AXES:
        if metric in lines and (noisy or metric != "noise_fraction"):
            drawn[f"{metric}_by_{name}"] = figures.score_curve(
                lines[metric], label=title, higher_is_better=higher, x_label=label
            )
    return drawn


def contingency_figure(comparison: Comparison) -> Figure:
    """The heat map of two clusterings: per cluster of the first, where its rows are in the second."""
    from gpuclust.report import figures

    counts = comparison.contingency
    return figures.contingency(
        counts.table,
        [label_name(c) for c in counts.first],
        [label_name(c) for c in counts.second],
        rows=comparison.first,
        columns=comparison.second,
    )


# What is drawn over an axis that is not the number of clusters: the metric, what people call it, and whether higher is better.
OVER_OTHER_AXES = (
    ("relative_validity", "relative validity", True),
    ("noise_fraction", "share of noise", False),
    ("n_clusters", "clusters found", None),
    ("inertia", "inertia", False),
    ("bic", "BIC", False),
)

# The figures of a job that are at the top of a page; those of the chosen job on the page of a sweep. The page has its own heat map.
PICTURES = ("map",)
TITLES = {
    "map": "Map of the clusters",
    "profile": "Profile of each cluster",
    "elbow": "Inertia by size",
    "silhouette": "Silhouette by size",
    "bic": "BIC by size",
    "persistence": "Persistence by size",
    "dendrogram": "Dendrogram",
    "stability": "Stability of each cluster",
    "gap": "Gap statistic",
    "cluster_sizes": "Rows of each cluster",
    "silhouette_rows": "Silhouette of each row",
    "pair_plot": "Pairs of features",
    "component_pairs": "Pairs of principal components",
    "group_bubbles": "Where each group lies",
    "groups": "Most frequent groups",
    "creators": "Most frequent creators",
}


def _job_page(
    outcome: Outcome, result: Result, about: Mapping[str, str], figures: Mapping[str, bytes], configuration: str
) -> str:
    from gpuclust.report.page import Report, page

    return page(
        Report(
            name=outcome.job.name,
            **_data_facts(outcome.job.config.data),
            warnings=outcome.warnings,
            metrics=result.metrics,
            pictures=_titled({name: png for name, png in figures.items() if name in PICTURES}),
            figures=_titled({name: png for name, png in figures.items() if name not in (*PICTURES, "profile")}),
            clusters=result.profile.clusters,
            audit=mask(result.table.audit.to_dict()),
            command=about.get(COMMAND, ""),
            configuration=configuration,
            about={"run": outcome.run_id} | _shown(about),
        )
    )


def _sweep_page(facts: SweepReportInput, figures: Mapping[str, bytes]) -> str:
    from gpuclust.report.page import SWEEP, Report, page

    return page(
        Report(
            name=facts.name,
            kind=SWEEP,
            **_data_facts(facts.data),
            warnings=facts.warnings,
            verdict=facts.verdict.text,
            verdict_kind=facts.verdict.kind,
            reasons=(f"Chosen: {facts.reason}", *facts.verdict.because),
            metrics=facts.metrics,
            leaderboard=facts.rows,
            pictures=_titled(facts.pictures),
            figures=_titled(figures),
            clusters=facts.chosen.clusters if facts.chosen else (),
            audit=mask(facts.audit.to_dict()) if facts.audit else None,
            command=facts.about.get(COMMAND, ""),
            about={"run": facts.run_id} | _shown(facts.about),
        )
    )


def _data_facts(data: DataConfig) -> dict[str, Any]:
    """What a page says of the data: the file's name, the day, and the preset of its columns."""
    today = datetime.now().astimezone()
    name = short_name(mask(data.shown))
    return {"dataset": name, "date": f"{today.day} {today:%B %Y}", "preset": data.preset}


def _titled(figures: Mapping[str, bytes]) -> dict[str, bytes]:
    return {TITLES.get(name, name.replace("_", " ").capitalize()): png for name, png in figures.items()}


def _shown(about: Mapping[str, str]) -> dict[str, str]:
    return {k.removeprefix("gpuclust."): v for k, v in about.items() if k != COMMAND}
