"""``report.html``: one self-contained page for a job or a sweep, from the templates of `gpuclust.pages`.

The page loads nothing, and its content security policy forbids it. Everything that comes from the data is escaped. It
works offline, follows the reader's light or dark theme, and prints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from gpuclust.model.records import NOISE
from gpuclust.pages.cards import cards, data, heat_map
from gpuclust.pages.environment import template
from gpuclust.pages.facts import headline, rows_word, sentences, unit
from gpuclust.pages.text import count, duration, number, one_line, percent, without_unit

if TYPE_CHECKING:
    from gpuclust.model.records import Cluster

JOB, SWEEP = "Clustering job", "Clustering sweep"
_FRACTIONS = ("fraction", "noise_fraction", "largest_fraction", "smallest_fraction", "explained_variance")
_NOT_COLUMNS = ("chosen", "rank", "failure")
# Metrics and columns as people call them; others are their names with spaces.
LABELS = {
    "n_clusters": "Clusters",
    "n_rows": "Rows",
    "n_features": "Features",
    "n_iter": "Iterations",
    "calinski_harabasz": "Calinski-Harabasz",
    "davies_bouldin": "Davies-Bouldin",
    "largest_fraction": "Largest cluster",
    "smallest_fraction": "Smallest cluster",
    "n_init": "Starts",
    "silhouette_se": "Silhouette std. error",
    "silhouette_with_noise": "Silhouette with noise",
    "noise_fraction": "Noise",
    "bic": "BIC",
    "aic": "AIC",
    "icl": "ICL",
    "ami": "AMI",
    "ari": "ARI",
    "dbcv": "DBCV",
    "id_made": "Generated ids",
    "run_id": "Run",
    "load_seconds": "Reading",
    "prepare_seconds": "Preparing",
    "fit_seconds": "Fitting",
    "score_seconds": "Scoring",
}


@dataclass(frozen=True)
class Report:
    """The content of a page. Only ``name`` is required; a section without content is left out.

    ``kind`` is `JOB` or `SWEEP`. ``verdict`` is the decision, ``verdict_kind`` its kind (`gpuclust.analysis.verdict`), and
    ``reasons`` are the figures behind it. ``leaderboard`` has one row a job, best first; ``chosen`` is true in the row of the
    chosen job, whose clusters are in ``clusters``. ``pictures`` (the map) and ``figures`` (all others) map titles, also the texts for
    screen readers, to PNG bytes. ``metrics`` of the (chosen) job and ``about`` (run ids, versions, device) keep
    their order. ``audit`` is :meth:`gpuclust.data.table.Audit.to_dict`, ``command`` runs the job again. ``dataset`` names the table,
    ``date`` is the day of the run, ``preset`` that of the columns.
    """

    name: str
    kind: str = JOB
    dataset: str = ""
    date: str = ""
    preset: str = "none"
    warnings: Sequence[str] = ()
    verdict: str = ""
    verdict_kind: str = ""
    reasons: Sequence[str] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    leaderboard: Sequence[Mapping[str, Any]] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    figures: Mapping[str, bytes] = field(default_factory=dict)
    clusters: Sequence[Cluster] = ()
    audit: Mapping[str, Any] | None = None
    command: str = ""
    configuration: str = ""
    about: Mapping[str, str] = field(default_factory=dict)

    def sections(self) -> dict[str, str]:
        """Anchor -> title of each section that has content, in their order."""
        titles = {
            "clusters": ("Clusters of the chosen job" if self.kind == SWEEP else "Clusters", self.clusters),
            "leaderboard": ("Leaderboard", self.leaderboard),
            "metrics": ("Metrics", self.metrics),
            "figures": ("Figures", self.figures),
            "preparation": ("Data preparation", self.audit),
            "reproduce": ("Reproduce", self.command or self.configuration or self.about),
        }
        return {anchor: title for anchor, (title, content) in titles.items() if content}


@dataclass(frozen=True)
class _Row:
    """A job of the leaderboard: ``cells`` are HTML, ``mark`` is chosen, failed or empty."""

    rank: str
    mark: str
    cells: Markup


@dataclass(frozen=True)
class _Board:
    """The leaderboard: HTML of the heads, rows, and (job, reason) of each failure."""

    heads: Markup
    rows: Sequence[_Row]
    failures: Sequence[tuple[Any, Any]]


def page(report: Report) -> str:
    """The page as HTML text, to be written in UTF-8."""
    rows = rows_word(report.preset)
    features = next((tuple(c.features) for c in report.clusters), ())
    words = {f: without_unit(f).replace("_", " ").strip() or f for f in features}
    units = {f: u for f in features if (u := unit(f, report.preset))}
    kind = report.verdict_kind
    return (
        template("page.html.j2").render(
            report=report,
            headline=headline(report.clusters, verdict=report.verdict, kind=kind, rows=rows) if report.clusters else "",
            line=_line(report, int(report.metrics.get("n_features") or len(features)), rows),
            tiles=_tiles(report, rows),
            heat=heat_map(report.clusters, words),
            sentences=sentences(report.clusters, report.metrics, words, rows=rows),
            sections=report.sections(),
            cards=cards(report.clusters, words, units, rows=rows, rest="profile.csv"),
            metrics=[(label(m), _metric(m, v)) for m, v in report.metrics.items()],
            board=_board(report.leaderboard),
            table=_table,
            label=label,
        )
        + "\n"
    )


def _line(report: Report, n_features: int, rows: str) -> list[str]:
    """The data set, its size, and the date."""
    n_rows = sum(c.size for c in report.clusters)
    parts = [one_line(report.dataset), f"{count(n_rows)} {rows}" if n_rows else ""]
    parts += [f"{count(n_features)} features" if n_features else "", report.date]
    return [part for part in parts if part]


def _tiles(report: Report, rows: str) -> list[tuple[str, str, str]]:
    """The four figures at the top: label, value, and what the value means."""
    clusters = [c for c in report.clusters if c.cluster != NOISE]
    if not report.clusters:
        return []
    n_rows = sum(c.size for c in report.clusters)
    noise = n_rows - sum(c.size for c in clusters)
    read = (report.audit or {}).get("rows_read", n_rows)
    silhouette = "silhouette_with_noise" if noise and "silhouette_with_noise" in report.metrics else "silhouette"
    tiles = [
        (rows.capitalize(), count(n_rows), f"of {count(read)} that were read" if read != n_rows else ""),
        ("Clusters", count(len(clusters)), ""),
        (label(silhouette), _metric(silhouette, report.metrics[silhouette]), "1: well separated; 0: overlapping")
        if silhouette in report.metrics
        else None,
        ("Noise", percent(noise / n_rows), f"{count(noise)} {rows} in no cluster")
        if noise
        else ("Largest cluster", percent(max((c.fraction for c in clusters), default=0.0)), f"of the {rows}"),
    ]
    return [tile for tile in tiles if tile is not None]


def label(name: object) -> str:
    """A metric or a key of the configuration as people call it."""
    short = one_line(name).rpartition(".")[2]
    return LABELS.get(short) or short.replace("_", " ").strip().capitalize() or short


def _metric(name: str, value: Any) -> str:
    """A metric as text: shares in per cent, times as times."""
    if not _is_number(value) or not math.isfinite(value):
        return number(value)
    if name in _FRACTIONS:
        return percent(value)
    if name.endswith("_seconds"):
        return duration(value)
    return f"{value:.4f}" if 1e-3 <= abs(value) < 10 and value != int(value) else number(value)


def _board(rows: Sequence[Mapping[str, Any]]) -> _Board:
    columns = _columns(rows)
    numeric = {c for c in columns if all(_is_number(row.get(c)) or not _filled(row.get(c)) for row in rows)}
    attributes = {c: ' class="n"' if c in numeric else "" for c in columns}
    return _Board(
        Markup("".join(f"<th{attributes[c]}>{data(label(c))}</th>" for c in columns)),
        [
            _Row(
                number(row.get("rank", i)),
                _mark(row),
                Markup("".join(_cell(c, row.get(c), attributes[c], _mark(row)) for c in columns)),
            )
            for i, row in enumerate(rows, 1)
        ],
        [(row.get("job", ""), row["failure"]) for row in rows if row.get("failure")],
    )


def _cell(column: str, value: Any, attribute: str, mark: str) -> str:
    text = data(_metric(column, value), 300) if _filled(value) else ""
    if column == "job":
        chosen = '<span class="mark">chosen</span>' if mark == "chosen" else ""
        return f'<th scope="row">{text}{chosen}</th>'
    if column == "run_id" and text:
        return f'<td><code title="{Markup.escape(one_line(value))}">{data(str(value)[:8])}</code></td>'
    return f"<td{attribute}>{text}</td>"


def _mark(row: Mapping[str, Any]) -> str:
    if row.get("chosen") in (True, "true", "True"):
        return "chosen"
    return "failed" if str(row.get("status", "")).lower() == "failed" else ""


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns that tell the rows apart, each fact once: the job's name first, run ids last."""
    present = [c for c in dict.fromkeys(c for row in rows for c in row) if any(_filled(row.get(c)) for row in rows)]

    def is_repeated(column: str) -> bool:
        """Whether ``cluster.n_clusters`` only repeats ``n_clusters``."""
        short = column.rpartition(".")[2]
        return short != column and short in present and all(r.get(short) in (r.get(column), None) for r in rows)

    def is_constant(column: str) -> bool:
        return len(rows) > 1 and column not in ("job", "run_id") and len({str(row.get(column)) for row in rows}) == 1

    kept = [c for c in present if c not in _NOT_COLUMNS and not is_repeated(c) and not is_constant(c)]
    return sorted(kept, key=lambda c: 0 if c == "job" else 2 if c == "run_id" else 1)


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> Markup:
    """A table as HTML; columns of numbers are aligned at the right."""
    numeric = [' class="n"' if all(map(_is_number, column)) else "" for column in zip(*rows, strict=True)]
    head = "".join(f"<th{n}>{data(text)}</th>" for text, n in zip(heads, numeric, strict=True))
    lines = [
        f"<tr>{''.join(f'<td{n}>{data(number(value), 600)}</td>' for value, n in zip(row, numeric, strict=True))}</tr>"
        for row in rows
    ]
    return Markup(
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def _filled(value: Any) -> bool:
    return value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))


def _is_number(value: Any) -> bool:
    """Whether the value is a number; a bool is not."""
    return isinstance(value, Real) and not isinstance(value, bool)
