"""``report.html``: one self-contained page for a job and one for a sweep, from plain values.

Nothing is loaded from anywhere, and a content security policy forbids it; everything that comes from the data is
escaped. The pages work offline, follow the reader's light or dark theme, and print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from gpuclust.report import page_sections as sections
from gpuclust.report.markup import Html, data, join, style_sheet, tag
from gpuclust.report.report_models import ClusterCard, FeatureLine, Item, Picture, ShareLine, Verdict

__all__ = [
    "ClusterCard",
    "FeatureLine",
    "Item",
    "JobReport",
    "Picture",
    "ShareLine",
    "SweepReport",
    "Verdict",
    "job_page",
    "sweep_page",
]

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class JobReport:
    """What the page of a job shows. Only ``name`` is needed; a part without content is left out.

    ``metrics`` and ``about`` (run ids, versions, device) are shown in their order; ``audit`` is
    :meth:`gpuclust.data.table.Audit.to_dict`; ``command`` is what a person types to run the job again.
    """

    name: str
    verdict: Verdict | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    figures: Sequence[Picture] = ()
    clusters: Sequence[ClusterCard] = ()
    audit: Mapping[str, Any] | None = None
    command: str = ""
    configuration: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class SweepReport:
    """What the page of a sweep shows; as for a job, and the leaderboard.

    ``leaderboard`` has one row a job, best first; a true ``chosen`` marks the chosen one. ``clusters`` are those of the
    chosen job.
    """

    name: str
    leaderboard: Sequence[Mapping[str, Any]] = ()
    verdict: Verdict | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    figures: Sequence[Picture] = ()
    clusters: Sequence[ClusterCard] = ()
    audit: Mapping[str, Any] | None = None
    command: str = ""
    configuration: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()


def job_page(report: JobReport) -> str:
    """The page of one job as HTML text, to be written in UTF-8."""
    parts = {
        "Figures": sections.figures(report.figures),
        "Clusters": sections.cards(report.clusters),
        "Cleaning": sections.audit(report.audit),
        "Reproduce": sections.reproduce(report.command, report.configuration, report.about),
    }
    return _page(
        "Clustering job",
        report.name,
        (sections.warnings(report.warnings), sections.verdict(report.verdict)),
        report.metrics,
        parts,
    )


def sweep_page(report: SweepReport) -> str:
    """The page of one sweep as HTML text, to be written in UTF-8."""
    parts = {
        "Leaderboard": sections.leaderboard(report.leaderboard),
        "Figures": sections.figures(report.figures),
        "Clusters of the chosen job": sections.cards(report.clusters),
        "Cleaning": sections.audit(report.audit),
        "Reproduce": sections.reproduce(report.command, report.configuration, report.about),
    }
    return _page(
        "Clustering sweep",
        report.name,
        (sections.warnings(report.warnings), sections.verdict(report.verdict)),
        report.metrics,
        parts,
    )


def _page(
    kind: str, name: str, first: Sequence[Html | None], metrics: Mapping[str, float], parts: Mapping[str, Html | None]
) -> str:
    """The whole document."""
    present = {title: part for title, part in parts.items() if part is not None}
    anchors = {title: title.split()[0].lower() for title in present}
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{name} · gpuclust"),
        style_sheet(_style()),
    )
    links = [tag("a", title, href=f"#{anchors[title]}") for title in present]
    top = tag(
        "header", tag("div", kind, class_="kind"), tag("h1", data(name)), tag("nav", *links, aria_label="On this page")
    )
    bodies = [
        tag("section", tag("h2", title), part, id=anchors[title], aria_label=title) for title, part in present.items()
    ]
    main = tag("main", *first, sections.tiles(metrics), *bodies)
    return "<!doctype html>\n" + tag("html", head, tag("body", join(top, main)), lang="en") + "\n"


@cache
def _style() -> str:
    """The style sheet that ships with the package."""
    return files("gpuclust.report").joinpath("page.css").read_text(encoding="utf-8")
