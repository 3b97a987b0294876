"""Figures other than the map: curves of a sweep, cluster sizes, profiles, averages, and transitions between clusterings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isclose

import numpy as np
import plotly.graph_objects as go

from gpuclust.model.records import NOISE, CategoryShare
from gpuclust.serve.explorer.session import OpenExport
from gpuclust.serve.explorer.texts import as_hover, feature_word, figure, fit, reading, short, words
from gpuclust.serve.explorer.transitions import ClusterTransitions
from gpuclust.serve.records import Average, Averages
from gpuclust.serve.schemas import Why

BLUE, ORANGE = "#0072B2", "#D55E00"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8F7EE5", "#7A4419")
OTHERS = "#909090"
MAX_BARS = 30
MAX_FEATURES = 20  # columns of a heat map
MAX_SPOKES = 12  # features of a radar chart
MAX_NAMED_BUBBLES = 25
MAX_REASONS = 10  # features whose contributions are shown
STILL = {"displayModeBar": False}  # the configuration of a figure without tools
MAX_Z = 3.0  # limit of the colour scale, so that one extreme cluster does not make all others pale
_MARGIN = {"l": 0, "r": 8, "t": 36, "b": 0}


def curve(
    title: str,
    named: Mapping[str, Mapping[str, float]],
    own: tuple[float, float] | None,
    *,
    size: str = "clusters",
) -> go.Figure:
    """A score over the swept size, one line for each of ``named``.

    ``own`` is the size and score of the export, marked with a ring. If no line has this point (an ``auto`` size), it is added
    to the only line, or drawn separately.
    """
    found = go.Figure()
    on_a_line = own is not None and any(_is_on(points, own) for points in named.values())
    for (name, points), color in zip(named.items(), LINES, strict=False):
        placed = {float(at): value for at, value in points.items()}
        if own is not None and not on_a_line and len(named) == 1:
            placed[own[0]] = own[1]
        ordered = sorted(placed.items())
        found.add_scatter(
            x=[at for at, _ in ordered], y=[value for _, value in ordered], mode="lines+markers", name=as_hover(name),
            line={"color": color, "width": 2}, marker={"size": 7},
        )  # fmt: skip
    if own is not None:
        ring = {"size": 15, "symbol": "circle-open", "color": ORANGE, "line": {"width": 3}}
        text = f"this export: {figure(own[1])} at {figure(own[0])}"
        found.add_scatter(
            x=[own[0]], y=[own[1]], mode="markers", marker=ring, showlegend=False, hovertext=text, hoverinfo="text"
        )
    found.update_layout(
        title=as_hover(title), height=260, margin=_MARGIN, showlegend=len(named) > 1, xaxis={"title": size, "dtick": 1}
    )
    found.update_layout(legend={"orientation": "h", "y": 1.12, "x": 1, "xanchor": "right"})
    all_sizes = [float(each) for points in named.values() for each in points]
    if max(all_sizes) - min(all_sizes) > 15 or any(size % 1 for size in all_sizes):  # too many whole numbers, or others
        found.update_xaxes(dtick=None)
    return found


def _is_on(points: Mapping[str, float], own: tuple[float, float]) -> bool:
    return any(
        float(at) == own[0] and isclose(value, own[1], rel_tol=1e-6, abs_tol=1e-9) for at, value in points.items()
    )


def size_bars(shown: OpenExport) -> go.Figure:
    """Rows per cluster, the noise first; of many clusters the largest, and one bar for the rest."""
    listed = sorted(shown.clusters.values(), key=lambda c: (c.cluster != NOISE, c.cluster))
    rest = listed[MAX_BARS:] if len(listed) > MAX_BARS + 1 else []
    bars = [
        (
            as_hover(fit(shown.name(c.cluster), 44)),
            c.size,
            shown.colors[c.cluster],
            as_hover(shown.name(c.cluster), 200),
        )
        for c in listed[: len(listed) - len(rest)]
    ]
    if rest:
        bars.append((f"{len(rest):,} smaller clusters", sum(c.size for c in rest), OTHERS, ""))
    names, counts, colors, full = zip(*bars[::-1], strict=True)
    n_rows = sum(c.size for c in listed)
    found = go.Figure(
        go.Bar(
            x=counts, y=names, orientation="h", marker={"color": colors},
            text=[f"{count:,} · {count / n_rows:.1%}" for count in counts], textposition="auto",
            hovertext=full, hoverinfo="text", insidetextanchor="start",
        )
    )  # fmt: skip
    found.update_layout(
        height=90 + 34 * len(bars), margin={**_MARGIN, "t": 8}, xaxis={"title": "rows"}, yaxis={"automargin": True}
    )
    longest = 1.25 * max(counts[1:] if rest else counts)
    if rest and counts[0] > longest:  # the bar for the rest would make all others short: it is cut at the edge
        found.update_xaxes(range=[0, longest])
    return found


def left_out_features(shown: OpenExport, most: int) -> str:
    """Which features a chart of at most so many shows; empty if it shows all."""
    count = len(shown.library.features)
    return f"The {most} of {count:,} features that differ most." if count > most else ""


def profile_heatmap(shown: OpenExport, order: Sequence[int]) -> go.Figure:
    """Means of the features by cluster, in standard deviations from the mean of all rows; original units on hover.

    Of many features, those that differ most."""
    features = shown.telling_features(order, MAX_FEATURES)
    z = np.array([[shown.clusters[c].features[f].z for f in features] for c in order])
    most = min(max(float(np.nanmax(np.abs(z), initial=0.5)), 0.5), MAX_Z)
    hover = [
        [
            f"{as_hover(shown.name(c))}<br>{as_hover(feature_word(f))}: {reading(f, shown.clusters[c].features[f].mean)}"
            f"<br>z {shown.clusters[c].features[f].z:+.2f}"
            for f in features
        ]
        for c in order
    ]
    found = go.Figure(
        go.Heatmap(
            z=z, x=[as_hover(words(f)) for f in features], y=[as_hover(fit(shown.name(c), 36)) for c in order], zmin=-most, zmax=most,
            colorscale="RdBu_r", text=[[f"{v:+.1f}" for v in row] for row in z], texttemplate="%{text}", hovertext=hover, hoverinfo="text",
            xgap=2, ygap=2, colorbar={"title": {"text": "z"}, "thickness": 12, "lenmode": "pixels", "len": 190, "y": 1, "yanchor": "top"},
        )
    )  # fmt: skip
    found.update_layout(
        height=180 + 38 * len(order),
        margin={**_MARGIN, "t": 8},
        yaxis={"autorange": "reversed"},
        xaxis={"tickangle": -40},
    )
    return found


def radar(shown: OpenExport, chosen: Sequence[int]) -> go.Figure:
    """Radar chart of mean z-scores; the ring at 0 is the mean of all rows. Of many features, those that differ most."""
    features = shown.telling_features(chosen, MAX_SPOKES)
    angles = [as_hover(words(f)) for f in features]
    found = go.Figure()
    mean = {"r": [0.0] * (len(angles) + 1), "theta": [*angles, *angles[:1]]}
    found.add_scatterpolar(
        **mean, mode="lines", line={"color": "#808080", "dash": "dot", "width": 1.5}, hoverinfo="skip", showlegend=False
    )
    most = max([1.0, *(abs(shown.clusters[c].features[f].z) for c in chosen for f in features)])
    for c in chosen:
        z = [shown.clusters[c].features[f].z for f in features]
        means = [reading(f, shown.clusters[c].features[f].mean) for f in features]
        texts = [f"{a}: {m} (z {v:+.2f})" for a, m, v in zip(angles, means, z, strict=True)]
        found.add_scatterpolar(
            r=[*z, z[0]], theta=[*angles, angles[0]], fill="toself", fillcolor=_faint(shown.colors[c], 0.2), name=as_hover(fit(shown.name(c), 40)),
            line={"color": shown.colors[c], "width": 2}, hovertext=[*texts, texts[0]], hoverinfo="text+name",
        )  # fmt: skip
    found.update_layout(
        height=430, margin={"l": 84, "r": 84, "t": 30, "b": 20}, showlegend=len(chosen) > 1,
        legend={"orientation": "h", "y": -0.12}, polar={"bgcolor": "rgba(0,0,0,0)", "radialaxis": {"nticks": 5, "angle": 90, "tickangle": 90, "tickfont": {"size": 12}, "range": [-1.05 * most, 1.05 * most]}},
    )  # fmt: skip
    return found


def over_years(
    averages: Averages, features: Sequence[str], *, standard: Mapping[str, tuple[float, float]]
) -> go.Figure:
    """Averages of features by year, one line per feature, in standard deviations from the mean over the years.

    ``standard`` maps a feature to that mean and deviation. Original units on hover; missing years are gaps.
    """
    years = _every_year(averages)
    found = go.Figure()
    for feature, color in zip(features, LINES * 4, strict=False):
        mean, deviation = standard[feature]
        own = [None if a is None else a.features.get(feature) for a in years.values()]
        y = [None if v is None else (v - mean) / deviation for v in own]
        found.add_scatter(
            x=list(years),
            y=y,
            mode="lines+markers",
            name=as_hover(words(feature)),
            line={"color": color, "width": 2},
            marker={"size": 4},
            connectgaps=False,
            hovertext=_of_years(years, feature),
            hoverinfo="text",
        )
    found.update_layout(
        height=420,
        margin={**_MARGIN, "t": 8},
        legend={"orientation": "h", "y": -0.18},
        yaxis={"title": "standardised mean"},
        hovermode="closest",
    )
    return found


def one_over_years(averages: Averages, feature: str) -> go.Figure:
    """Averages of one feature by year, in its unit; the number of rows on hover."""
    years = _every_year(averages)
    values = [None if a is None else a.features.get(feature) for a in years.values()]
    found = go.Figure(
        go.Scatter(
            x=list(years), y=values, mode="lines+markers", line={"color": BLUE, "width": 2}, connectgaps=False,
            hovertext=_of_years(years, feature), hoverinfo="text",
        )
    )  # fmt: skip
    found.update_layout(height=420, margin={**_MARGIN, "t": 8}, yaxis={"title": {"text": as_hover(words(feature))}})
    return found


def bubbles(values: Sequence[Average], x: str, y: str) -> go.Figure:
    """Groups or creators in two features: means in their units, the area is the number of rows. A name that would cover another
    is on hover only."""
    known = [a for a in values if np.isfinite(a.features.get(x, np.nan)) and np.isfinite(a.features.get(y, np.nan))]
    at = np.array([(a.features[x], a.features[y]) for a in known]).reshape(-1, 2)
    counts = np.array([a.count for a in known])
    hover = [
        f"<b>{as_hover(str(a.value))}</b><br>{as_hover(feature_word(x))}: {reading(x, a.features[x])}"
        f"<br>{as_hover(feature_word(y))}: {reading(y, a.features[y])}<br>{a.count:,} rows"
        for a in known
    ]
    named = _with_room(at, counts)
    sizes = {"size": counts, "sizemode": "area", "sizeref": counts.max(initial=1) / 30**2, "sizemin": 4}
    found = go.Figure([
        go.Scatter(
            x=at[:, 0], y=at[:, 1], mode="markers", hovertext=hover, hoverinfo="text",
            marker={**sizes, "color": BLUE, "opacity": 0.5, "line": {"width": 1, "color": BLUE}},
        ),
        go.Scatter(
            x=at[named, 0], y=at[named, 1], mode="markers+text", text=[as_hover(str(known[i].value), 20) for i in named],
            textposition="top center", hoverinfo="skip", marker={**sizes, "size": counts[named], "opacity": 0},
        ),
    ])  # fmt: skip
    titles = {f"{axis}axis": {"title": {"text": as_hover(words(name))}} for axis, name in (("x", x), ("y", y))}
    found.update_layout(height=460, margin={**_MARGIN, "t": 8}, showlegend=False, **titles)
    return found


def _with_room(at: np.ndarray, counts: np.ndarray) -> list[int]:
    """The points (n, 2) whose names do not cover each other, the largest first, at most `MAX_NAMED_BUBBLES`."""
    span = np.maximum(np.ptp(at, axis=0), 1e-12) if len(at) else np.ones(2)
    placed: list[int] = []
    for i in np.argsort(-counts, kind="stable").tolist():
        away = np.abs(at[placed] - at[i]) / span
        if len(placed) < MAX_NAMED_BUBBLES and not (away < (0.16, 0.07)).all(axis=1).any():
            placed.append(i)
    return placed


def share_bubbles(shares: Sequence[CategoryShare], color: str) -> go.Figure:
    """Values of a cluster, one in a line: how many times their share of all rows they have (a logarithmic axis); the area of a
    bubble, and the number beside it, is the share of the cluster."""
    known = sorted((s for s in shares if s.lift > 0 and np.isfinite(s.lift)), key=lambda s: (s.lift, s.fraction))
    areas = np.array([s.fraction for s in known])
    low, high = (min([s.lift for s in known], default=1.0), max([s.lift for s in known], default=1.0))
    found = go.Figure(
        go.Scatter(
            x=[s.lift for s in known], y=[as_hover(short(s.value, 24)) for s in known], mode="markers+text",
            text=[f"{s.fraction:.1%}" for s in known], textposition="middle right", cliponaxis=False,
            marker={"size": areas, "sizemode": "area", "sizeref": areas.max(initial=1e-9) / 26**2, "sizemin": 5, "color": color},
            hovertext=[f"<b>{as_hover(s.value)}</b><br>{s.fraction:.1%} of the cluster, {s.count:,} rows<br>{figure(s.lift)} × expected" for s in known],
            hoverinfo="text",
        )
    )  # fmt: skip
    found.add_vline(x=1, line={"color": "#808080", "dash": "dot", "width": 1.5})
    ticks = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 1.5, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
    ends = np.log10([min(low, 1.0) / 1.15, max(high, 1.0) * 1.3])
    found.update_layout(
        height=100 + 32 * len(known), margin={**_MARGIN, "t": 8, "r": 24}, yaxis={"automargin": True, "type": "category"},
        xaxis={"title": "× expected", "type": "log", "tickvals": ticks, "ticktext": [f"{t:g}" for t in ticks], "range": ends.tolist()},
    )  # fmt: skip
    return found


def contributions(shown: OpenExport, why: Why, values: Mapping[str, float | None]) -> go.Figure:
    """What features contribute to the label of a row, the largest first: to the right what speaks for its cluster, to the left for the
    next one. The value of the row, and the means of the two clusters, on hover."""
    ordered = sorted(why.contributions.items(), key=lambda pair: -abs(pair[1]))
    parts = [(feature_word(f), -value, f) for f, value in ordered[:MAX_REASONS]]
    if rest := ordered[MAX_REASONS:]:
        parts.append((f"{len(rest):,} other features", -sum(value for _, value in rest), ""))
    if why.constant:
        parts.append(("sizes and spreads", -why.constant, ""))
    found = go.Figure()
    for c, own in ((why.cluster, True), (why.next, False)):
        side = [part for part in parts if (part[1] >= 0) == own]
        found.add_bar(
            x=[value for _, value, _ in side], y=[as_hover(label) for label, _, _ in side], orientation="h",
            name=f"for {as_hover(fit(shown.name(c), 40))}", marker={"color": shown.colors.get(c, OTHERS)},
            text=[f"{value:+.2f}" for _, value, _ in side], textposition="outside", cliponaxis=False, hoverinfo="text",
            hovertext=[_compared(shown, why, f, values) if f else as_hover(label) for label, _, f in side],
        )  # fmt: skip
    most = max((abs(value) for _, value, _ in parts), default=1.0) or 1.0
    found.update_layout(
        height=110 + 30 * len(parts), margin={**_MARGIN, "t": 8}, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis={"title": "d(next) − d(own)", "range": [-1.25 * most, 1.25 * most]},
        yaxis={"automargin": True, "autorange": "reversed", "categoryorder": "array", "categoryarray": [as_hover(p[0]) for p in parts]},
    )  # fmt: skip
    return found


def _compared(shown: OpenExport, why: Why, feature: str, values: Mapping[str, float | None]) -> str:
    """The value of a row, and the means of its cluster and the next one; of an encoded column the category, and the most frequent ones."""
    encoded = feature not in values
    own = _category(feature, values) if encoded else reading(feature, values[feature])
    lines = [as_hover(feature_word(feature)) + (f": {as_hover(own)}" if own else "")]
    for c in (why.cluster, why.next):
        if c in shown.clusters:
            name, cluster = as_hover(fit(shown.name(c), 40)), shown.clusters[c]
            if not encoded:
                lines.append(f"mean of {name}: {reading(feature, cluster.features[feature].mean)}")
            elif said := cluster.column(feature):
                lines.append(f"{name}: {as_hover(said)}")
    return "<br>".join(lines)


def _category(column: str, values: Mapping[str, float | None]) -> str:
    """The category of a row; empty for a column that is not one-hot."""
    start = f"{column}="
    return next((name.removeprefix(start) for name, value in values.items() if value and name.startswith(start)), "")


def _every_year(averages: Averages) -> dict[int, Average | None]:
    """All years from the first to the last; None for a year without an average."""
    known = {int(a.value): a for a in averages.values}
    return {year: known.get(year) for year in range(min(known), max(known) + 1)}


def _of_years(years: Mapping[int, Average | None], feature: str) -> list[str]:
    return [
        "" if a is None else f"{year}: {as_hover(words(feature))} {figure(a.features.get(feature))} ({a.count:,} rows)"
        for year, a in years.items()
    ]


def contingency_heatmap(moves: ClusterTransitions, first: OpenExport, second: OpenExport) -> go.Figure:
    """Contingency table of two exports, as shares of the clusters of the first; the number of rows on hover."""
    rows, columns, share = moves.first, moves.second, moves.shares
    hover = [
        [
            f"{as_hover(first.name(a))}<br>→ {as_hover(second.name(b))}<br>{moves.counts[i, j]:,} rows, {share[i, j]:.1%}"
            for j, b in enumerate(columns)
        ]
        for i, a in enumerate(rows)
    ]
    found = go.Figure(
        go.Heatmap(
            z=share, x=[as_hover(fit(second.name(b), 30)) for b in columns], y=[as_hover(fit(first.name(a), 36)) for a in rows], zmin=0, zmax=1,
            colorscale="Blues", text=[[f"{v:.0%}" if v >= 0.005 else "" for v in row] for row in share], texttemplate="%{text}",
            hovertext=hover, hoverinfo="text", xgap=2, ygap=2, colorbar={"title": {"text": "share"}, "tickformat": ".0%", "thickness": 12},
        )
    )  # fmt: skip
    found.update_layout(
        height=190 + 38 * len(rows),
        margin={**_MARGIN, "t": 8},
        yaxis={"autorange": "reversed"},
        xaxis={"tickangle": -40},
    )
    return found


def sankey(moves: ClusterTransitions, first: OpenExport, second: OpenExport) -> go.Figure:
    """Sankey diagram from the clusters of the first export to those of the second; widths are numbers of rows."""
    n = len(moves.first)
    source, target = np.nonzero(moves.counts)
    colors = [first.colors[c] for c in moves.first] + [second.colors[c] for c in moves.second]
    labels = [as_hover(fit(first.name(c), 28)) for c in moves.first] + [
        as_hover(fit(second.name(c), 28)) for c in moves.second
    ]
    found = go.Figure(
        go.Sankey(
            node={"label": labels, "color": colors, "pad": 14, "thickness": 16},
            link={
                "source": source, "target": target + n, "value": moves.counts[source, target],
                "color": [_faint(first.colors[moves.first[i]]) for i in source],
            },
        )
    )  # fmt: skip
    found.update_layout(height=max(380, 60 * max(n, len(moves.second))), margin={"l": 8, "r": 8, "t": 8, "b": 16})
    return found


def _faint(color: str, opacity: float = 0.35) -> str:
    return f"rgba({int(color[1:3], 16)},{int(color[3:5], 16)},{int(color[5:7], 16)},{opacity})"


def listed_clusters(shown: OpenExport) -> list[int]:
    """The clusters by number, without the noise unless it is the only one."""
    proper = [c for c in shown.clusters if c != NOISE]
    return proper or list(shown.clusters)
