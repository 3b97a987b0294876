"""Figures of how well the clusters hold together: silhouettes, the condensed tree, agreement of two clusterings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from gpuclust.report.figures_profile import SEQUENTIAL, column_heads, heat
from gpuclust.report.palette import INK, cluster_color
from gpuclust.report.style import (
    NAME_SIZE,
    TICK_SIZE,
    bare_panel,
    blank,
    cluster_key,
    cluster_tags,
    heading,
    inches,
    light_axes,
)
from gpuclust.report.text import count
from gpuclust.report.text_collection import fit, width, write
from gpuclust.report.tree import Tree

_QUANTILES = 256
_MAX_CLUSTERS = 40
_MAX_LABELS = 30
_UNSELECTED = "#C9CED4"


def silhouette_by_cluster(
    values: Any, labels: Any, *, mean: float | None = None, names: Mapping[int, str] | None = None
) -> Figure:
    """The silhouettes of the rows of each cluster, sorted; a cluster's height is its share of the rows.

    ``values`` (n,) silhouettes and ``labels`` (n,) of the same rows, noise left out; ``mean`` is theirs unless given.
    """
    values, labels = np.asarray(values, dtype=float), np.asarray(labels)
    keep = (labels >= 0) & np.isfinite(values)
    values, labels = values[keep], labels[keep]
    present, sizes = np.unique(labels, return_counts=True)
    present, sizes = present[:_MAX_CLUSTERS], sizes[:_MAX_CLUSTERS]
    mean = float(values.mean()) if mean is None and len(values) else mean
    figure = blank(9.2, 5.6)
    axes = bare_panel(figure, 0.6, 0.6, 2.9, 0.75)
    heights = np.maximum(sizes / max(sizes.sum(), 1), 0.012)
    gap, top = 0.02, 0.0
    shapes, middles, means = [], [], []
    for cluster, height in zip(present, heights, strict=True):
        mine = np.sort(values[labels == cluster])
        curve = np.quantile(mine, np.linspace(1, 0, min(_QUANTILES, max(len(mine), 2))))
        y = top + height * np.linspace(0, 1, len(curve))
        shapes.append(np.column_stack((np.r_[curve, 0.0, 0.0], np.r_[y, y[-1], y[0]])))
        middles.append(top + height / 2)
        means.append(float(mine.mean()))
        top += height + gap
    low = min(float(values.min(initial=0.0)), -0.02)
    axes.set(xlim=(low, max(float(values.max(initial=0.1)) * 1.04, 0.1)), ylim=(max(top, 0.1), -gap))
    colors = [cluster_color(int(c)) for c in present]
    axes.add_collection(PolyCollection(shapes, facecolors=colors, linewidths=0), autolim=False)
    light_axes(axes, "silhouette", vertical=False)
    axes.axvline(0, color=INK, linewidth=0.8)
    if mean is not None:
        axes.axvline(mean, color=INK, linewidth=1.1, linestyle=(0, (4, 3)))
    beside = axes.transData + ScaledTranslation(-0.14, 0, inches(axes))
    if len(present) <= _MAX_LABELS:
        cluster_tags(axes, beside, low, np.array(middles), present.tolist())
    titled = {
        int(c): f"{(names or {}).get(int(c), f'cluster {c}')} · mean {m:.2f}"
        for c, m in zip(present, means, strict=True)
    }
    shares = dict(zip(present.tolist(), (sizes / max(sizes.sum(), 1)).tolist(), strict=True))
    cluster_key(figure, left=6.45, top=0.75, clusters=present.tolist(), fractions=shares, names=titled)
    note = (
        f"{count(len(values))} rows"
        + ("" if mean is None else f" · mean {mean:.3f} (dashed)")
        + " · below 0: nearer to another cluster"
    )
    heading(figure, "Silhouette of each cluster", note)
    return figure


def condensed_tree(
    parent: Any, child: Any, lambda_val: Any, child_size: Any, *, selected: Sequence[int] = ()
) -> Figure:
    """The condensed tree of HDBSCAN: how wide each cluster is at each density lambda, the chosen ones coloured.

    The four arrays are those of the condensed tree (one entry for each row or cluster that leaves ``parent`` at
    ``lambda_val`` = 1/distance); ``selected`` are the node numbers of clusters 0, 1, ... in that order. A width is the
    cluster's rows, or their square root where the smallest branch would be too thin to see. Campello, Moulavi and
    Sander (2013); McInnes and Healy (2017).
    """
    tree = Tree.of(np.asarray(parent), np.asarray(child), np.asarray(lambda_val, float), np.asarray(child_size, float))
    colors = {int(node): cluster_color(i) for i, node in enumerate(selected)}
    figure = blank(9.2, 5.8)
    axes = bare_panel(figure, 0.8, 0.35, 0.3, 0.9)
    shapes = [branch.shape(tree.cut) for branch in tree.branches.values()]
    paints = [colors.get(node, _UNSELECTED) for node in tree.branches]
    x = np.concatenate([shape[:, 0] for shape in shapes])
    pad = 0.03 * max(float(np.ptp(x)), 1e-9)
    axes.set(xlim=(float(x.min()) - pad, float(x.max()) + pad), ylim=(tree.cut, tree.start))
    axes.add_collection(LineCollection(tree.links(), colors="#8A929B", linewidths=0.8), autolim=False)
    axes.add_collection(PolyCollection(shapes, facecolors=paints, edgecolors=paints, linewidths=0.6), autolim=False)
    light_axes(axes, y="density (lambda = 1 / distance)", horizontal=False)
    tagged = [(i, tree.branches[int(n)]) for i, n in enumerate(selected[:_MAX_LABELS]) if int(n) in tree.branches]
    above = axes.transData + ScaledTranslation(0, 0.11, inches(axes))
    births = np.array([max(branch.birth, tree.start) for _, branch in tagged])
    cluster_tags(axes, above, [branch.centre for _, branch in tagged], births, [i for i, _ in tagged])
    width_is = "square root of the rows" if tree.square_root else "rows"
    note = f"{count(len(tree.branches))} branches, {count(len(selected))} selected (coloured) · width: {width_is}"
    heading(figure, "Condensed tree", note)
    return figure


def contingency(
    table: Any,
    row_names: Sequence[str],
    column_names: Sequence[str],
    *,
    rows: str = "first clustering",
    columns: str = "second clustering",
) -> Figure:
    """Rows shared by each pair of clusters of two clusterings (or of clusters and groups), ``table`` (a, b) counts.

    The colour is the share of the row's total, so that every line adds up to one.
    """
    counts = np.asarray(table, dtype=float)[:_MAX_CLUSTERS, :_MAX_CLUSTERS]
    share = counts / np.maximum(np.asarray(table, dtype=float).sum(axis=1)[:_MAX_CLUSTERS, None], 1e-12)
    a, b = counts.shape
    heads, sides = [fit(n, TICK_SIZE, 1.8) for n in column_names[:b]], [fit(n, NAME_SIZE, 2.2) for n in row_names[:a]]
    left = 0.35 + max((width(s, NAME_SIZE) for s in sides), default=0.3)
    foot = 0.3 + 0.6 * max((width(h, TICK_SIZE) for h in heads), default=0.2)
    cell = float(np.clip(7.0 / max(b, 1), 0.34, 0.85))
    wide, high = max(cell * b, 2.4), max(0.36 * a, 0.7)
    figure = blank(max(left + wide + 0.4, 6.0), 0.8 + high + foot)
    axes = bare_panel(figure, left, foot, figure.get_figwidth() - left - wide, 0.8)
    heat(
        axes,
        share,
        SEQUENTIAL,
        0.0,
        1.0,
        lambda v: "" if v == 0 else f"{100 * v:.0f} %" if v >= 0.005 else "<1 %",
        size=7.5,
        numbers=cell >= 0.45,
    )
    column_heads(axes, heads)
    write(
        figure,
        figure.dpi_scale_trans,
        left - 0.1,
        foot + high / max(a, 1) * (a - 0.5 - np.arange(a)),
        sides,
        ha="right",
    )
    cut = " · the first forty of each" if max(np.shape(table)) > _MAX_CLUSTERS else ""
    heading(figure, f"{rows} by {columns}", f"{count(np.sum(table))} rows · per cent of each line{cut}")
    return figure
