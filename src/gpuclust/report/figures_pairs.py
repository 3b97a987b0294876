"""Maps with more than two axes: the biplot with the loadings, and every pair of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from gpuclust.report.figures_maps import draw_rows, present_clusters, with_share
from gpuclust.report.palette import INK, PAPER, cluster_color
from gpuclust.report.raster import span_of
from gpuclust.report.style import (
    KEY_STEP,
    NAME_SIZE,
    TICK_SIZE,
    bare_panel,
    blank,
    cluster_key,
    heading,
    light_axes,
    pixels,
    spread,
)
from gpuclust.report.text import count
from gpuclust.report.text_collection import fit, write

_MAX_ARROWS = 20
_MAX_PAIRED = 8
_BINS = 40


def biplot(
    xy: Any,
    labels: Any,
    loadings: Any,
    features: Sequence[str],
    *,
    explained: Sequence[float] | None = None,
    names: Mapping[int, str] | None = None,
) -> Figure:
    """The map of every row with an arrow for each feature: its loadings on the two components.

    ``xy`` (n, 2) component scores, ``loadings`` (n_features, 2). The arrows share one scale, chosen to fill the map;
    the twenty longest are drawn. Gabriel, "The biplot graphic display of matrices" (1971).
    """
    xy, labels, loadings = np.asarray(xy), np.asarray(labels), np.asarray(loadings, dtype=float)
    figure = blank(9.2, 5.8)
    axes = bare_panel(figure, 0.75, 0.6, 2.75, 0.75)
    frame = draw_rows(axes, xy, labels)
    names_of_axes = ("first principal component", "second principal component")
    x, y = names_of_axes if explained is None else with_share(names_of_axes, explained)
    light_axes(axes, x, y)
    longest = np.argsort(-np.hypot(loadings[:, 0], loadings[:, 1]), kind="stable")[:_MAX_ARROWS]
    centre = np.clip(np.zeros(2), (frame.x0, frame.y0), (frame.x1, frame.y1))
    _arrows(axes, centre, loadings[longest], [features[i] for i in longest])
    clusters, shares = present_clusters(labels)
    cluster_key(figure, left=6.6, top=0.75, clusters=clusters, fractions=shares, names=names)
    heading(
        figure, "Biplot: rows and features", f"all {count(len(xy))} rows · arrows: loadings of the features, one scale"
    )
    return figure


def pairplot(values: Any, labels: Any, features: Sequence[str], *, names: Mapping[int, str] | None = None) -> Figure:
    """Every pair of up to eight features, every row of it coloured by cluster; on the diagonal each cluster's histogram.

    ``values`` (n, d), ``labels`` (n,).
    """
    values, labels = np.asarray(values)[:, :_MAX_PAIRED], np.asarray(labels)
    d = values.shape[1]
    side, left, foot, key = 1.5 if d <= 5 else 1.25, 0.75, 0.55, 2.7
    roomy = d >= 4  # The key fits above the diagonal.
    figure = blank(left + side * d + (0.15 if roomy else key), 0.75 + side * d + foot)
    inch = figure.dpi_scale_trans
    clusters, shares = present_clusters(labels)
    for row in range(d):
        for column in range(row + 1):
            x, y = left + side * column, foot + side * (d - 1 - row)
            axes = bare_panel(
                figure, x, y, figure.get_figwidth() - x - side + 0.08, figure.get_figheight() - y - side + 0.08
            )
            if row == column:
                _histograms(axes, values[:, row], labels, clusters)
            else:
                draw_rows(axes, values[:, [column, row]], labels, raster_above=2000)
            light_axes(axes, ticks=3, horizontal=row == d - 1, vertical=column == 0 and row > 0)
    texts = [fit(f, NAME_SIZE, side - 0.1) for f in features[:d]]
    middle = side * (np.arange(d) + 0.46)
    write(figure, inch, left + middle, 0.22, texts, size=NAME_SIZE, bold=True, ha="center")
    write(figure, inch, 0.2, foot + middle[::-1], texts, size=NAME_SIZE, bold=True, ha="center", rotation=90)
    key_left = figure.get_figwidth() - key + 0.05
    most = int(side * (d - 2) / KEY_STEP) if roomy else None
    cluster_key(figure, left=key_left, top=0.6, clusters=clusters, fractions=shares, names=names, most=most)
    note = f"all {count(len(values))} rows" + (
        f" · the first {d} of {len(features)} features" if len(features) > d else ""
    )
    heading(figure, "Pairs of features", note)
    return figure


def _arrows(axes: Axes, centre: np.ndarray, loadings: np.ndarray, features: Sequence[str]) -> None:
    """Arrows from ``centre``, and the features' names beyond their tips, moved apart where crowded."""
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    room = np.where(loadings > 0, (x1 - centre[0], y1 - centre[1]), (centre[0] - x0, centre[1] - y0))
    reach = np.abs(loadings) / np.maximum(room, 1e-12)
    tips = loadings * 0.8 / max(float(reach.max(initial=0.0)), 1e-12)
    for tip in tips:
        arrow = axes.annotate(
            "",
            tuple(centre + tip),
            tuple(centre),
            arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0},
        )
        if arrow.arrow_patch is not None:
            arrow.arrow_patch.set_path_effects([withStroke(linewidth=3, foreground=PAPER)])
    box = pixels(axes)
    scale = box / (x1 - x0, y1 - y0)
    ends = (centre + tips - (x0, y0)) * scale
    length = np.maximum(np.linalg.norm(tips * scale, axis=1, keepdims=True), 1e-9)
    places = spread(ends + tips * scale / length * 16, 15.0, box, stretch=4.5)
    at = places / scale + (x0, y0)
    texts = [fit(f, TICK_SIZE, 1.5) for f in features]
    letters = write(axes, axes.transData, at[:, 0], at[:, 1], texts, size=TICK_SIZE, ha="center", bold=True)
    letters.set_path_effects([withStroke(linewidth=2.6, foreground=PAPER)])


def _histograms(axes: Axes, values: np.ndarray, labels: np.ndarray, clusters: Sequence[int]) -> None:
    """One outline per cluster, each scaled to its own rows."""
    low, high = span_of(values)
    tallest = 0.0
    for cluster in clusters:
        mine = values[labels == cluster]
        counts, edges = np.histogram(np.clip(mine, low, high), bins=_BINS, range=(low, high))
        height = counts / max(counts.sum(), 1)
        tallest = max(tallest, float(height.max()))
        axes.stairs(height, edges, color=cluster_color(cluster), linewidth=1.2)
    axes.set(xlim=(low, high), ylim=(0, tallest * 1.08 or 1.0))
