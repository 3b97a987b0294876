"""The dendrogram: the last merges of a tree of clusters, and where they are cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from gpuclust.pages.palette import INK, cluster_color
from gpuclust.pages.text import count
from gpuclust.report.style import TICK_SIZE, add_axes, caption, cluster_key, grid, new_figure

MAX_BRANCHES = 40
"""Branches that are drawn: the nodes below the last 39 merges."""
_ABOVE = "#8A929B"


def dendrogram(merges: Any, sizes: Any, labels: Any, *, names: Mapping[int, str] | None = None) -> Figure:
    """The last merges of a tree, with the branches of each cluster in its colour and the cut as a dashed line.

    ``merges`` (m-1, 4) is a linkage matrix in SciPy's layout; ``sizes`` (m,) the number of rows of each leaf; ``labels`` (m,) int the cluster of each
    leaf in one cut of the tree. Below each branch is its number of rows.
    """
    from scipy.cluster.hierarchy import dendrogram as layout

    merges, labels = np.asarray(merges, dtype=float), np.asarray(labels)
    n_leaves, n_clusters = len(merges) + 1, len(np.unique(labels))
    rows, cluster = _of_nodes(merges, np.asarray(sizes, dtype=float), labels)
    colors = [cluster_color(c) if c >= 0 else _ABOVE for c in cluster.tolist()]
    drawn = layout(
        merges,
        p=min(MAX_BRANCHES, n_leaves),
        truncate_mode="lastp",
        no_plot=True,
        link_color_func=lambda node: colors[node],
    )
    figure = new_figure(11.0, 5.4)
    axes = add_axes(figure, 0.95, 1.15, 3.1, 0.75)
    totals = np.bincount(labels, weights=rows[:n_leaves])
    shares = dict(enumerate((totals / totals.sum()).tolist()))
    cluster_key(figure, left=8.1, top=0.75, clusters=np.unique(labels).tolist(), fractions=shares, names=names)
    lines = [np.column_stack(ends) for ends in zip(drawn["icoord"], drawn["dcoord"], strict=True)]
    axes.add_collection(LineCollection(lines, colors=drawn["color_list"], linewidths=1.5))
    branches = np.asarray(drawn["leaves"])
    at = 5.0 + 10.0 * np.arange(len(branches))
    axes.set(xlim=(0, at[-1] + 5), ylim=(0, merges[-1, 2] * 1.05 or 1.0))
    axes.set_xticks(at, [count(n) for n in rows[branches]], rotation=90, fontsize=TICK_SIZE)
    for text, branch in zip(axes.get_xticklabels(), branches, strict=True):
        text.set_color(INK if cluster[branch] < 0 else colors[branch])
    heights = np.concatenate([[0.0], merges[:, 2]])
    cut = (heights[n_leaves - n_clusters] + heights[n_leaves - n_clusters + 1]) / 2 if n_clusters > 1 else heights[-1]
    axes.axhline(cut, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    grid(axes)
    shown = f"the last {len(branches) - 1:,} of {n_leaves - 1:,} merges" if len(branches) < n_leaves else "all merges"
    caption(
        axes,
        "Dendrogram",
        "rows of each branch",
        "distance of the merge",
        note=f"{shown} · the dashed line cuts the tree into {n_clusters:,} clusters",
    )
    return figure


def _of_nodes(merges: np.ndarray, sizes: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of rows of each node (2m-1,), and its cluster, -1 where its leaves are in several."""
    rows, cluster = np.concatenate([sizes, np.zeros(len(merges))]), np.full(2 * len(sizes) - 1, -1, dtype=np.int64)
    cluster[: len(labels)] = labels
    for i, (first, second) in enumerate(merges[:, :2].astype(np.int64).tolist(), start=len(sizes)):
        rows[i] = rows[first] + rows[second]
        if cluster[first] == cluster[second]:
            cluster[i] = cluster[first]
    return rows, cluster
