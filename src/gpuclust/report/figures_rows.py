"""Figures of a sample of the rows: biplot, pair plot, silhouettes of rows, and parallel coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

from gpuclust.analysis.members import Members
from gpuclust.pages.palette import INK, cluster_color
from gpuclust.pages.raster import span_of
from gpuclust.pages.text import count
from gpuclust.report.figures_maps import draw_rows, present_clusters, tag_clusters, with_share
from gpuclust.report.map_points import points_of
from gpuclust.report.style import (
    LABEL_SIZE,
    NAME_SIZE,
    TICK_SIZE,
    add_axes,
    add_bare_axes,
    cluster_key,
    cluster_tags,
    draw_axis_lines,
    heading,
    new_figure,
)
from gpuclust.report.text_collection import draw_texts, fit

MAX_ARROWS = 12
"""Arrows of a biplot: the longest ones are drawn."""
MAX_PAIRS = 6
"""Features of a pair plot."""
MAX_ROWS = 10_000
"""Rows that a pair plot or a silhouette plot draws, a random sample of more."""
MAX_LINES = 24
"""Features of parallel coordinates."""
_DOT = Path.circle(radius=0.5)


def biplot(
    xy: Any,
    labels: Any,
    loadings: Any,
    features: Sequence[str],
    *,
    explained: Sequence[float] | None = None,
    names: Mapping[int, str] | None = None,
) -> Figure:
    """Every row on the first two principal components, and an arrow for each feature: how it enters the components (Gabriel 1971).

    ``xy`` (n, 2) scores, ``labels`` (n,) with noise -1, ``loadings`` (d, 2) the correlations or the coefficients of the d features,
    ``explained`` the two shares of variance. The longest arrow takes three quarters of the picture, and the other arrows keep their
    proportion to it; of more than `MAX_ARROWS` features the longest arrows are drawn.
    """
    labels, loadings = np.asarray(labels), np.asarray(loadings, dtype=float)
    points = points_of(xy, labels, len(labels))
    figure = new_figure(9.5, 5.4)
    axes = add_bare_axes(figure, 0.7, 0.6, 3.05, 0.75)
    frame = draw_rows(axes, points)
    axis_names = ("first principal component", "second principal component")
    draw_axis_lines(axes, *(axis_names if explained is None else with_share(axis_names, explained)))
    length = np.hypot(loadings[:, 0], loadings[:, 1])
    longest = np.argsort(-length, kind="stable")[:MAX_ARROWS]
    room = (
        0.75 * min(abs(frame.x0), frame.x1, abs(frame.y0), frame.y1)
        if _holds_zero(frame)
        else 0.35 * min(frame.x1 - frame.x0, frame.y1 - frame.y0)
    )
    ends = loadings[longest] * room / max(float(length.max(initial=0.0)), 1e-12)
    for feature, (x, y) in zip(longest, ends, strict=True):
        axes.annotate(
            "", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0},
            gid="arrow", zorder=6,
        )  # fmt: skip
        side = "left" if x >= 0 else "right"
        draw_texts(
            axes,
            axes.transData,
            x * 1.06,
            y * 1.06,
            [fit(features[feature], NAME_SIZE, 1.3)],
            size=NAME_SIZE,
            ha=side,
            bold=True,
        )
    tag_clusters(axes, points, frame)
    more = f" · the {len(longest)} longest of {count(len(loadings))} arrows" if len(loadings) > len(longest) else ""
    heading(figure, "Biplot", f"{count(len(points))} rows · an arrow points to where its feature is high{more}")
    clusters, shares = present_clusters(labels)
    cluster_key(figure, left=6.6, top=0.75, clusters=clusters, fractions=shares, names=names)
    return figure


def _holds_zero(frame: Any) -> bool:
    return bool(frame.x0 < 0 < frame.x1 and frame.y0 < 0 < frame.y1)


def pair_plot(
    values: Any,
    labels: Any,
    features: Sequence[str],
    *,
    names: Mapping[int, str] | None = None,
    title: str = "Pairs of features",
    n_rows: int | None = None,
) -> Figure:
    """Every pair of up to `MAX_PAIRS` features: rows coloured by cluster, and on the diagonal the histogram of each cluster.

    ``values`` (n, d) in the units of the table, ``labels`` (n,) with noise -1; ``n_rows`` is the number of all rows if these are a sample.
    """
    values, labels = np.asarray(values, dtype=float)[:, :MAX_PAIRS], np.asarray(labels)
    n, d = values.shape
    side, left, top = 1.45, 0.75, 0.8
    figure = new_figure(left + side * d + 3.1, top + side * d + 0.55)
    spans = [span_of(values[:, i], pad=0.02) for i in range(d)]
    clusters, shares = present_clusters(labels)
    for i in range(d):
        for j in range(d):
            right = figure.get_figwidth() - left - side * (j + 1) + 0.1
            axes = add_axes(figure, left + side * j, 0.55 + side * (d - 1 - i), right, top + side * i + 0.1)
            axes.set_xlim(spans[j])
            if i == j:
                _histograms(axes, values[:, i], labels, clusters, spans[i])
            else:
                axes.set_ylim(spans[i])
                _dots(axes, values[:, j], values[:, i], labels)
            _outer_ticks(axes, bottom=i == d - 1, left=j == 0 and i != j)
            if i == d - 1:
                axes.set_xlabel(fit(features[j], TICK_SIZE, side), fontsize=TICK_SIZE, color=INK)
            if j == 0:
                axes.set_ylabel(fit(features[i], TICK_SIZE, side), fontsize=TICK_SIZE, color=INK)
    shown = f"{count(n)} of {count(n_rows)} rows" if n_rows and n_rows > n else f"all {count(n)} rows"
    heading(figure, title, f"{shown} · diagonal: the distribution in each cluster")
    cluster_key(figure, left=left + side * d + 0.15, top=top, clusters=clusters, fractions=shares, names=names)
    return figure


def _dots(axes: Axes, x: np.ndarray, y: np.ndarray, labels: np.ndarray) -> None:
    """Rows as dots in a random order, so that no cluster always covers another."""
    order = np.random.default_rng(0).permutation(len(x))
    size = float(np.clip(120 / np.sqrt(max(len(x), 1)), 1.2, 4.0))
    dots = PathCollection(
        [_DOT],
        sizes=[size**2],
        offsets=np.column_stack((x, y))[order],
        offset_transform=axes.transData,
        facecolors=[cluster_color(c) for c in labels[order].tolist()],
        linewidths=0,
        alpha=0.7,
        gid="rows",
    )
    dots.set_transform(Affine2D())
    axes.add_collection(dots, autolim=False)


def _histograms(
    axes: Axes, values: np.ndarray, labels: np.ndarray, clusters: Sequence[int], span: tuple[float, float]
) -> None:
    """The density of each cluster, each drawn to the same area."""
    for cluster in clusters:
        own = values[labels == cluster]
        heights, edges = np.histogram(np.clip(own, *span), bins=30, range=span)
        axes.stairs(heights / max(len(own), 1), edges, color=cluster_color(cluster), linewidth=1.1)
    axes.set_ylim(bottom=0)


def _outer_ticks(axes: Axes, *, bottom: bool, left: bool) -> None:
    """Tick labels at the outer sides of a grid of axes only."""
    axes.tick_params(labelbottom=bottom, labelleft=left, labelsize=6.5)
    axes.locator_params(nbins=3)


def silhouette_plot(
    values: Any,
    labels: Any,
    *,
    names: Mapping[int, str] | None = None,
    mean: float | None = None,
    n_rows: int | None = None,
) -> Figure:
    """The silhouette of each row, sorted within its cluster (Rousseeuw 1987): rows below 0 are nearer to another cluster.

    ``values`` (n,) silhouettes in -1 .. 1, ``labels`` (n,) without noise, ``mean`` the silhouette of the run; ``n_rows`` is the number of
    all rows if these are a sample.
    """
    values, labels = np.asarray(values, dtype=float), np.asarray(labels)
    sizes = Members(labels).sizes
    clusters = [c for c in sizes if c >= 0]
    figure = new_figure(9.5, float(np.clip(1.4 + 0.45 * len(clusters), 4.0, 12.0)))
    axes = add_axes(figure, 0.6, 0.6, 3.05, 0.75)
    gap = 0.02 * len(values) / max(len(clusters), 1)
    ticks, at = [], 0.0
    for cluster in clusters:
        own = np.sort(values[labels == cluster])
        rows = at + np.arange(len(own))
        axes.fill_betweenx(rows, 0, own, color=cluster_color(cluster), linewidth=0, step="mid")
        ticks.append(at + len(own) / 2)
        at += len(own) + gap
    low = float(min(values.min(initial=0.0), 0.0))
    axes.set(xlim=(low - 0.02, max(float(values.max(initial=0.0)), 0.1) + 0.02), ylim=(max(at, 1.0), -gap))
    axes.set_yticks([])
    axes.axvline(0, color=INK, linewidth=0.8)
    if mean is not None:
        axes.axvline(mean, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.set_xlabel("silhouette of the row", fontsize=LABEL_SIZE, color=INK)
    cluster_tags(axes, axes.get_yaxis_transform(), -0.035, np.array(ticks), clusters)
    below = float((values < 0).mean()) if len(values) else 0.0
    shown = (
        f"{count(len(values))} of {count(n_rows)} rows"
        if n_rows and n_rows > len(values)
        else f"all {count(len(values))} rows"
    )
    dashed = "" if mean is None else f" · dashed: mean {mean:.3f}"
    heading(
        figure,
        "Silhouette of each row",
        f"{shown} · {100 * below:.0f} % are nearer to another cluster (below 0){dashed}",
    )
    shares = {c: sizes[c] / max(len(labels), 1) for c in clusters}
    cluster_key(figure, left=6.6, top=0.75, clusters=clusters, fractions=shares, names=names)
    return figure


def parallel_coordinates(
    z: Any,
    features: Sequence[str],
    sizes: Any,
    *,
    low: Any = None,
    high: Any = None,
    names: Mapping[int, str] | None = None,
    clusters: Sequence[int] | None = None,
) -> Figure:
    """A line for each cluster through its mean in every feature, in standard deviations from the mean of all rows.

    ``z`` (k, d); ``low`` and ``high`` (k, d), the quartiles of each cluster on the same scale, are drawn as a band; ``sizes`` (k,) rows or
    fractions; ``clusters`` the label of each row. Of more than `MAX_LINES` features those that differ most are drawn.
    """
    from gpuclust.pages.facts import telling_features

    z, sizes = np.atleast_2d(np.asarray(z, dtype=float)), np.asarray(sizes, dtype=float)
    labels = list(range(len(z))) if clusters is None else [int(c) for c in clusters]
    fractions = sizes / max(float(sizes.sum()), 1e-12)
    shown = sorted(telling_features(z, fractions, MAX_LINES))
    d = len(shown)
    figure = new_figure(9.5, 5.4)
    axes = add_axes(figure, 0.7, 1.35, 3.05, 0.75)
    x = np.arange(d)
    for i, cluster in enumerate(labels):
        color = cluster_color(cluster)
        if low is not None and high is not None:
            quartiles = np.asarray(low, dtype=float)[i, shown], np.asarray(high, dtype=float)[i, shown]
            axes.fill_between(x, *quartiles, color=color, alpha=0.10, linewidth=0)
        axes.plot(
            x, z[i, shown], color=color, linewidth=1.2 + 2.2 * fractions[i], marker="o", markersize=3.5, gid="cluster"
        )
    axes.add_collection(
        LineCollection([[(float(i), -99.0), (float(i), 99.0)] for i in x], colors="#E4E7EB", linewidths=0.8, zorder=0),
        autolim=False,
    )
    axes.axhline(0, color="#AEB4BB", linewidth=0.8, zorder=0)
    axes.set_xlim(-0.3, max(d - 0.7, 0.3))
    axes.set_xticks(x, [fit(features[f], TICK_SIZE, 1.3) for f in shown], rotation=32, ha="right")
    axes.set_ylabel("standard deviations from the mean", fontsize=LABEL_SIZE, color=INK)
    band = " · band: the middle half of the rows" if low is not None and high is not None else ""
    more = f"the {d} most different of {count(z.shape[1])} features · " if z.shape[1] > d else ""
    heading(figure, "Parallel coordinates", f"{more}line: mean of the cluster{band}")
    cluster_key(
        figure,
        left=6.6,
        top=0.75,
        clusters=labels,
        fractions=dict(zip(labels, fractions.tolist(), strict=True)),
        names=names,
    )
    return figure
