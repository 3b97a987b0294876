"""The clusters as HTML: a card for each, a table of many, and a heat map. Written in Python, because a page has thousands of these
cells, and a template engine takes ten times as long for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from gpuclust.model.records import NOISE, CategoryShare, Cluster, Example, Term
from gpuclust.pages.facts import telling_features, z_matrix
from gpuclust.pages.palette import cluster_color, ink_on
from gpuclust.pages.text import count, label_name, measure, number, one_line, percent

MAX_FEATURES = 10  # rows of a card's table
MAX_CARDS = 24  # further clusters are rows of a table
SHOWN_CARDS = 6  # further cards are folded
MAX_ROWS = 1_000  # of the table of further clusters
MAX_HEAT_ROWS, MAX_HEAT_COLUMNS = 24, 12
_LIMITS = (1.0, 2.0, 3.0)  # possible ends of the axis of z-scores
Link = Callable[[Example], str]


def data(text: object, limit: int = 200) -> Markup:
    """Text from the data on one line, cut to ``limit`` characters, isolated from the direction of the text around it."""
    return Markup(f"<bdi>{escape(one_line(text, limit))}</bdi>")


def chip(cluster: int) -> str:
    """The number of a cluster on its colour."""
    color = cluster_color(cluster)
    return f'<span class="chip" style="--chip:{color};--chip-ink:{ink_on(color)}">{label_name(cluster)}</span>'


def cards(
    clusters: Sequence[Cluster],
    words: Mapping[str, str],
    units: Mapping[str, str],
    *,
    rows: str = "rows",
    rest: str = "",
    link: Link | None = None,
) -> Markup:
    """A card for each cluster. Cards beyond the first `SHOWN_CARDS` are folded, and clusters beyond the first `MAX_CARDS` are rows of
    a folded table. ``words``: feature -> how people read it; ``units``: feature -> unit; ``rest``: where further features are listed; ``link``: the address of an example."""
    shown, own = list(clusters[:MAX_CARDS]), list(clusters[MAX_CARDS : MAX_CARDS + MAX_ROWS])
    limit = _limit(shown)
    written = [_card(c, words, units, limit, rows, rest, link) for c in shown]
    parts = ['<div class="cards">', *written[:SHOWN_CARDS], "</div>"]
    if len(clusters) > SHOWN_CARDS:
        parts.append(f'<details class="more"><summary>Show all {count(len(clusters))} clusters</summary>')
        parts += ['<div class="cards">', *written[SHOWN_CARDS:], "</div>"]
        if own:
            parts.append(_table(own, rows))
        if (hidden := len(clusters) - len(shown) - len(own)) > 0:
            parts.append(f'<p class="quiet">and {count(hidden)} more clusters{rest and f" in {rest}"}</p>')
        parts.append("</details>")
    return Markup("".join(parts))


def _signed(z: float) -> str:
    return f"{round(z, 1) + 0.0:+.1f}"  # not -0.0


def _limit(clusters: Sequence[Cluster]) -> float:
    """The end of the axis of z-scores that all cards of a page share."""
    largest = max((abs(s.z) for c in clusters for s in c.features.values() if math.isfinite(s.z)), default=0.0)
    return next((limit for limit in _LIMITS if largest <= limit), _LIMITS[-1])


def _card(
    c: Cluster,
    words: Mapping[str, str],
    units: Mapping[str, str],
    limit: float,
    rows: str,
    rest: str,
    link: Link | None,
) -> str:
    color = cluster_color(c.cluster)
    subtitle = f'<p class="sub">{data(c.subtitle, 160)}</p>' if c.subtitle else ""
    about = f"<p>{data(_without_size(c), 800)}</p>" if c.description else ""
    return (
        f'<article class="card" id="cluster-{c.cluster}" style="--chip:{color};--chip-ink:{ink_on(color)}">'
        f'<header><span class="chip">{label_name(c.cluster)}</span><div><h3 title="{escape(one_line(c.name))}">{data(c.name, 400)}</h3>'
        f"{subtitle}</div></header>"
        f'<p class="quiet">{count(c.size)} {rows} · {percent(c.fraction)}</p>'
        f'<div class="share"><i style="width:{100 * c.fraction:.2f}%"></i></div>'
        f"{about}{_features(c, words, units, limit, rest)}{_rule(c)}"
        f"{_categories(c)}{_circular(c)}"
        f"{_examples('Representative', c.representatives, link)}{_examples('Most popular', c.popular, link)}"
        f"{_terms(c.top_terms)}{_shares('Top groups', c.top_groups)}{_shares('Top creators', c.top_creators)}"
        "</article>"
    )


def _without_size(c: Cluster) -> str:
    """The description without its size, which the card has already."""
    start, size, rest = c.description.partition("): ")
    return rest[:1].upper() + rest[1:] if size and start.startswith(f"{c.size:,} rows (") else c.description


def _features(c: Cluster, words: Mapping[str, str], units: Mapping[str, str], limit: float, rest: str) -> str:
    if not c.numbers:
        return ""
    ranked = sorted(c.numbers.items(), key=lambda item: -abs(item[1].z) if item[1].z == item[1].z else 0.0)
    lines = []
    for name, s in ranked[:MAX_FEATURES]:
        side = "above" if s.z >= 0 else "below"
        length = 50 * min(abs(s.z) / limit, 1.0) if math.isfinite(s.z) else 0.0
        of = units.get(name, "")
        error = f" ± {s.z_se:.2f}" if s.z_se >= 0.005 else ""
        lines.append(
            f'<tr><td title="{escape(one_line(name))}">{data(words.get(name, name), 60)}</td><td class="n" title="median {escape(measure(s.median, of))}">{escape(measure(s.mean, of))}</td>'
            f'<td class="n" title="{s.z:+.2f}{error} standard deviations">{_signed(s.z)}</td>'
            f'<td class="bar"><span aria-hidden="true"><i class="{side}" style="width:{length:.1f}%"></i></span></td></tr>'
        )
    more = len(ranked) - MAX_FEATURES
    note = (
        f'<p class="quiet">The {MAX_FEATURES} of {count(len(ranked))} features that differ most from the average'
        if more > 0
        else ""
    )
    note += f"{f'; all in {rest}' if rest else ''}</p>" if more > 0 else ""
    return (
        '<table class="z"><thead><tr><th>feature</th><th class="n">mean</th><th class="n" title="mean of the cluster less the mean of '
        'all rows, in standard deviations">z</th><th class="bar"><span class="axis" aria-hidden="true">'
        f"<b>−{limit:.0f}</b><b>0</b><b>+{limit:.0f}</b></span></th></tr></thead><tbody>{''.join(lines)}</tbody></table>{note}"
    )


def _rule(c: Cluster) -> str:
    if c.rule is None or c.rule.precision is None or c.rule.recall is None:
        return ""
    return (
        f'<p class="quiet">Rule: {data(c.rule.text, 400)} ({c.rule.precision:.0%} of the rows that meet it are in this cluster; '
        f"{c.rule.recall:.0%} of this cluster meets it)</p>"
    )


def _categories(c: Cluster) -> str:
    """The shares of the most frequent categories of each column."""
    parts = []
    for column in c.categories:
        lines = (
            f'<li>{data(v.value, 80)} <span class="quiet">{percent(v.fraction)} ({v.lift:.1f}×)</span></li>'
            for v in column.values
        )
        parts.append(f"<h4>{data(column.column, 60)}</h4><ul>{''.join(lines)}</ul>")
    return "".join(parts)


def _circular(c: Cluster) -> str:
    """The mean of each circular column."""
    lines = [
        f'<li>{data(m.column, 60)} {measure(m.mean)} <span class="quiet">of {measure(m.period)}, concentration {m.concentration:.2f}</span></li>'
        for m in c.circular
    ]
    return f"<h4>Circular means</h4><ul>{''.join(lines)}</ul>" if lines else ""


def _examples(title: str, examples: Sequence[Example], link: Link | None) -> str:
    if not examples:
        return ""
    lines = []
    for row in examples:
        text: Any = data(row.title or row.id or "(no title)", 120)
        if link and (address := link(row)):
            text = f'<a href="{escape(address)}" rel="noopener noreferrer" target="_blank">{text}</a>'
        by = f'<span class="quiet"> · {data(row.creator.replace(";", ", "), 100)}</span>' if row.creator else ""
        lines.append(f"<li>{text}{by}</li>")
    return f"<h4>{title}</h4><ul>{''.join(lines)}</ul>"


def _shares(title: str, shares: Sequence[CategoryShare]) -> str:
    lines = [
        f'<li>{data(s.value.replace(";", ", "), 80)} <span class="quiet">{count(s.count)}'
        f"{f' ({s.lift:.1f}×)' if s.lift is not None else ''}</span></li>"
        for s in shares
    ]
    return f"<h4>{title}</h4><ul>{''.join(lines)}</ul>" if lines else ""


def _terms(terms: Sequence[Term]) -> str:
    if not terms:
        return ""
    lines = [f'<li>{data(t.value, 80)} <span class="quiet">{count(t.count)}</span></li>' for t in terms]
    return f"<h4>Words</h4><ul>{''.join(lines)}</ul>"


def _table(clusters: Sequence[Cluster], rows: str) -> str:
    """A row for each cluster that has no card."""
    lines = [
        f'<tr id="cluster-{c.cluster}"><td>{chip(c.cluster)}</td><td title="{escape(one_line(c.description))}">{data(c.name, 400)}'
        f"{f'<span class=quiet> · {data(c.subtitle, 160)}</span>' if c.subtitle else ''}</td>"
        f'<td class="n">{count(c.size)}</td><td class="n">{percent(c.fraction)}</td></tr>'
        for c in clusters
    ]
    head = f'<tr><th>cluster</th><th>name</th><th class="n">{rows}</th><th class="n">share</th></tr>'
    return f'<div class="scroll"><table class="rest"><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table></div>'


def heat_map(clusters: Sequence[Cluster], words: Mapping[str, str]) -> Markup:
    """The z-scores of the largest clusters in the most telling features as a table with coloured cells, and a note where some are
    left out. Colours are mixed by the page's style sheet, so that they fit its theme."""
    proper = [c for c in clusters if c.cluster != NOISE]
    shown = proper[:MAX_HEAT_ROWS]
    features = list(shown[0].features) if shown else []
    if not features:
        return Markup("")
    z = z_matrix(proper, features)
    telling = telling_features(z, np.array([c.fraction for c in proper]), MAX_HEAT_COLUMNS)
    limit = _limit(shown)
    heads = "".join(
        f'<th title="{escape(one_line(features[f]))}"><span>{data(words.get(features[f], features[f]), 60)}</span></th>'
        for f in telling
    )
    lines = []
    for c, own in zip(shown, z, strict=False):
        cells = "".join(_heat_cell(float(own[f]), limit) for f in telling)
        lines.append(
            f'<tr><th scope="row" title="{escape(one_line(c.name))}">{chip(c.cluster)} {data(c.name, 400)}</th>{cells}</tr>'
        )
    notes = ["mean of the cluster less the mean of all rows, in standard deviations"]
    notes += (
        [f"the {len(telling)} most different of {count(len(features))} features"]
        if len(telling) < len(features)
        else []
    )
    notes += [f"the {len(shown)} largest of {count(len(proper))} clusters"] if len(shown) < len(proper) else []
    return Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="Heat map of the clusters"><table class="heat"><thead><tr><td></td>'
        f'{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div><p class="quiet">{"; ".join(notes)}</p>'
    )


def _heat_cell(z: float, limit: float) -> str:
    if not math.isfinite(z):
        return f"<td>{number(z)}</td>"
    side, strength = "above" if z >= 0 else "below", round(100 * min(abs(z) / limit, 1.0))
    return f'<td class="{side}" style="--z:{strength}%">{_signed(z)}</td>'
