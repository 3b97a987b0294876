"""Figures of groups and creators: bubbles in two features, and counts by cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gpuclust.pages.palette import INK, PAPER, cluster_color
from gpuclust.pages.text import cluster_title, count
from gpuclust.report.style import LABEL_SIZE, NAME_SIZE, TICK_SIZE, add_axes, cluster_key, grid, heading, new_figure
from gpuclust.report.text_collection import draw_texts, fit, width

MAX_BUBBLES = 60
MAX_BARS = 20


def group_bubbles(
    x: Any,
    y: Any,
    sizes: Any,
    groups: Sequence[str],
    clusters: Any,
    *,
    axis_names: tuple[str, str],
    noun: str = "group",
    names: Mapping[int, str] | None = None,
    n_groups: int | None = None,
) -> Figure:
    """A bubble for each group at the means ``x`` and ``y`` (m,) of two features of its rows.

    Its area is the number of rows ``sizes`` (m,), its colour the cluster ``clusters`` (m,) that most of them are in. The `MAX_BUBBLES`
    largest groups are drawn; the names of small ones that would overlap are left out. ``n_groups`` is the number of all groups.
    """
    sizes = np.asarray(sizes, dtype=float)
    largest = np.argsort(-sizes, kind="stable")[:MAX_BUBBLES]
    x, y, sizes, own = (np.asarray(v)[largest] for v in (x, y, sizes, clusters))
    figure = new_figure(9.5, 6.0)
    axes = add_axes(figure, 0.85, 0.65, 3.05, 0.75)
    area = 900 * sizes / max(float(sizes.max(initial=0.0)), 1.0)
    axes.scatter(
        x,
        y,
        s=np.maximum(area, 12),
        c=[cluster_color(c) for c in own.tolist()],
        alpha=0.75,
        edgecolors=PAPER,
        linewidths=0.8,
    )
    axes.margins(0.09)
    axes.autoscale_view()
    axes.set_xlabel(axis_names[0], fontsize=LABEL_SIZE, color=INK)
    axes.set_ylabel(axis_names[1], fontsize=LABEL_SIZE, color=INK)
    grid(axes, "both")
    taken: list[tuple[float, float, float]] = []
    for i, group in enumerate(largest):
        text = fit(groups[group], NAME_SIZE, 1.4)
        px, py = axes.transData.transform((x[i], y[i]))
        half = 50 * width(text, NAME_SIZE)
        if all(abs(py - b) > 11 or abs(px - a) > half + c for a, b, c in taken):
            taken.append((px, py, half))
            draw_texts(axes, axes.transData, x[i], y[i], [text], size=NAME_SIZE, ha="center")
    total_groups = n_groups or len(groups)
    more = f"the {len(largest)} largest of {count(total_groups)} · " if total_groups > len(largest) else ""
    heading(
        figure,
        f"Where each {noun} lies",
        f"{more}mean of its rows · area: number of rows · colour: its largest cluster",
    )
    present = sorted({int(c) for c in own if c >= 0}) + ([-1] if (own < 0).any() else [])
    total = max(float(sizes.sum()), 1.0)
    cluster_key(
        figure,
        left=6.6,
        top=0.75,
        clusters=present,
        fractions={c: float(sizes[own == c].sum()) / total for c in present},
        names=names,
    )
    return figure


def group_counts(
    table: Any,
    groups: Sequence[str],
    clusters: Sequence[int],
    *,
    noun: str = "group",
    names: Mapping[int, str] | None = None,
    n_groups: int | None = None,
    title: str = "",
) -> Figure:
    """The most frequent groups (or creators), a bar each, divided by cluster.

    ``table`` (m, k) rows of each group in each of the ``clusters``, the most frequent groups first; ``n_groups`` is the number of all groups.
    """
    counts = np.asarray(table, dtype=float)[:MAX_BARS]
    m = len(counts)
    sides = [fit(g, NAME_SIZE, 2.0) for g in groups[:m]]
    left = 0.3 + max((width(s, NAME_SIZE) for s in sides), default=0.3)
    figure = new_figure(9.5, 1.45 + 0.28 * max(m, 3))
    axes = add_axes(figure, left, 0.6, 3.05, 0.75)
    start = np.zeros(m)
    for j, cluster in enumerate(clusters):
        axes.barh(np.arange(m), counts[:, j], left=start, height=0.72, color=cluster_color(cluster), linewidth=0)
        start += counts[:, j]
    axes.set(ylim=(m - 0.4, -0.6), xlim=(0, max(float(start.max(initial=0.0)), 1.0) * 1.1))
    axes.set_yticks([])
    axes.set_xlabel("rows", fontsize=LABEL_SIZE, color=INK)
    grid(axes, "x")
    draw_texts(axes, axes.get_yaxis_transform(), -0.015, np.arange(m), sides, size=NAME_SIZE, ha="right")
    draw_texts(
        axes,
        axes.transData,
        start + 0.01 * axes.get_xlim()[1],
        np.arange(m),
        [count(v) for v in start],
        size=TICK_SIZE - 1,
    )
    total = n_groups or len(groups)
    heading(figure, title or f"Most frequent: {noun}", f"{m} of {count(total)} · colour: cluster")
    sums = np.asarray(table, dtype=float).sum(axis=0)
    shares = sums / max(float(sums.sum()), 1.0)
    cluster_key(
        figure,
        left=6.6,
        top=0.75,
        clusters=list(clusters),
        fractions=dict(zip(clusters, shares.tolist(), strict=True)),
        names=names,
    )
    return figure


def cluster_sizes(
    sizes: Any, *, names: Mapping[int, str] | None = None, clusters: Sequence[int] | None = None
) -> Figure:
    """The number of rows of each cluster, a bar each; ``sizes`` (k,), ``clusters`` the label of each (0..k-1 if None)."""
    counts = np.asarray(sizes, dtype=float)
    labels = list(range(len(counts))) if clusters is None else [int(c) for c in clusters]
    table = np.diag(counts)[:MAX_BARS]
    titles = [cluster_title(c, names) for c in labels]
    return group_counts(table, titles, labels, title="Rows of each cluster", names=names)
