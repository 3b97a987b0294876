"""``report.html``: one self-contained page for a job or a sweep, from the templates beside this file.

The page loads nothing, and its content security policy forbids it. Everything that comes from the data is escaped. It
works offline, follows the reader's light or dark theme, and prints.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from numbers import Real
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from gpuclust.analysis.comparison import label_name
from gpuclust.analysis.naming import percent
from gpuclust.report.palette import cluster_color, ink_on
from gpuclust.report.text import INVISIBLE, count, number, one_line

if TYPE_CHECKING:
    from gpuclust.model.records import Cluster

JOB, SWEEP = "Clustering job", "Clustering sweep"
MAX_CARDS = 60
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_FRACTIONS = ("fraction", "noise_fraction", "largest_fraction", "smallest_fraction", "explained_variance")
_NOT_COLUMNS = ("chosen", "rank", "failure")
_MAX_BAR_Z = 3.0


@dataclass(frozen=True)
class Report:
    """The content of a page. Only ``name`` is required; a section without content is left out.

    ``kind`` is `JOB` or `SWEEP`. ``verdict`` is the decision and ``reasons`` are the figures behind it. ``leaderboard`` has
    one row a job, best first; ``chosen`` is true in the row of the chosen job, whose clusters are in ``clusters``.
    ``figures`` maps titles (also the texts for screen readers) to PNG bytes. ``metrics`` and ``about`` (run ids, versions,
    device) keep their order. ``audit`` is :meth:`gpuclust.data.table.Audit.to_dict`, ``command`` runs the job again.
    """

    name: str
    kind: str = JOB
    warnings: Sequence[str] = ()
    verdict: str = ""
    reasons: Sequence[str] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    leaderboard: Sequence[Mapping[str, Any]] = ()
    figures: Mapping[str, bytes] = field(default_factory=dict)
    clusters: Sequence[Cluster] = ()
    audit: Mapping[str, Any] | None = None
    command: str = ""
    configuration: str = ""
    about: Mapping[str, str] = field(default_factory=dict)

    def sections(self) -> dict[str, str]:
        """Anchor -> title of each section that has content, in their order."""
        titles = {
            "leaderboard": ("Leaderboard", self.leaderboard),
            "figures": ("Figures", self.figures),
            "clusters": ("Clusters of the chosen job" if self.kind == SWEEP else "Clusters", self.clusters),
            "cleaning": ("Cleaning", self.audit),
            "reproduce": ("Reproduce", self.command or self.configuration or self.about),
        }
        return {anchor: title for anchor, (title, content) in titles.items() if content}


@dataclass(frozen=True)
class _Row:
    """A job of the leaderboard: ``cells`` are column names with texts, ``mark`` is chosen, failed or empty."""

    rank: Any
    mark: str
    cells: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class _Board:
    """The leaderboard as text: columns, those of them that hold numbers, rows, and (job, reason) of each failure."""

    columns: Sequence[str]
    numeric: frozenset[str]
    rows: Sequence[_Row]
    failures: Sequence[tuple[Any, Any]]


def page(report: Report) -> str:
    """The page as HTML text, to be written in UTF-8."""
    board = _board(report.leaderboard)
    return _template().render(report=report, sections=report.sections(), board=board, max_cards=MAX_CARDS) + "\n"


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("gpuclust.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bar_width": _bar_width,
        "base64": lambda png: base64.b64encode(png).decode("ascii"),
        "color": cluster_color,
        "count": count,
        "data": _data,
        "ink_on": ink_on,
        "label_name": label_name,
        "metric": _metric,
        "number": number,
        "numeric_columns": lambda rows: [all(map(_is_number, column)) for column in zip(*rows, strict=True)],
        "one_line": one_line,
        "percent": percent,
        "pick": lambda rows, *names: [tuple(row.get(name, "") for name in names) for row in rows],
        "short_name": lambda name: _words(one_line(name).rpartition(".")[2]),
        "whole_percent": "{:.0%}".format,
        "words": _words,
    }
    return environment.get_template("page.html.j2")


def _printable(value: object) -> object:
    """Text without control and bidirectional characters; several lines are allowed. HTML passes unchanged."""
    return value if isinstance(value, Markup) else _CONTROL.sub("", INVISIBLE.sub("", str(value)))


def _data(text: object, limit: int = 200) -> Markup:
    """Text from the data on one line, cut to ``limit`` characters, isolated from the direction of the text around it."""
    return Markup("<bdi>{}</bdi>").format(one_line(text, limit))


def _words(name: object) -> str:
    return str(name).replace("_", " ")


def _bar_width(z: float) -> str:
    """The length of a bar in per cent of its cell: half of the cell is three standard deviations."""
    return f"{50 * min(abs(z) / _MAX_BAR_Z, 1.0) if math.isfinite(z) else 0.0:.1f}"


def _metric(name: str, value: Any) -> str:
    """A metric as text: shares in per cent, times in seconds."""
    if not _is_number(value) or not math.isfinite(value):
        return number(value)
    if name in _FRACTIONS:
        return percent(value)
    if name.endswith("_seconds"):
        return f"{value:.3g} s"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 10 and value != int(value) else number(value)


def _board(rows: Sequence[Mapping[str, Any]]) -> _Board:
    columns = _columns(rows)
    numeric = {c for c in columns if all(_is_number(row.get(c)) or not _filled(row.get(c)) for row in rows)}
    return _Board(
        columns,
        frozenset(numeric),
        [
            _Row(
                row.get("rank", i),
                _mark(row),
                [(c, _metric(c, row[c]) if _filled(row.get(c)) else "") for c in columns],
            )
            for i, row in enumerate(rows, 1)
        ],
        [(row.get("job", ""), row["failure"]) for row in rows if row.get("failure")],
    )


def _mark(row: Mapping[str, Any]) -> str:
    if row.get("chosen") in (True, "true", "True"):
        return "chosen"
    return "failed" if str(row.get("status", "")).lower() == "failed" else ""


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns that any row fills, each fact once: the job's name first, run ids last."""
    present = [c for c in dict.fromkeys(c for row in rows for c in row) if any(_filled(row.get(c)) for row in rows)]

    def is_repeated(column: str) -> bool:
        """Whether ``cluster.n_clusters`` only repeats ``n_clusters``."""
        short = column.rpartition(".")[2]
        return short != column and short in present and all(r.get(short) in (r.get(column), None) for r in rows)

    kept = [c for c in present if c not in _NOT_COLUMNS and not is_repeated(c)]
    return sorted(kept, key=lambda c: 0 if c == "job" else 2 if c == "run_id" else 1)


def _filled(value: Any) -> bool:
    return value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))


def _is_number(value: Any) -> bool:
    """Whether the value is a number; a bool is not."""
    return isinstance(value, Real) and not isinstance(value, bool)
