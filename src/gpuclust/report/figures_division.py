"""Figures of how clusters divide: the condensed tree of HDBSCAN, and a clustergram over the number of clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure

from gpuclust.pages.palette import INK, PAPER, SERIES_COLORS, cluster_color
from gpuclust.pages.text import count
from gpuclust.report.style import LABEL_SIZE, add_axes, cluster_key, cluster_tags, grid, heading, new_figure

_UNCHOSEN = "#C9CED4"


def condensed_tree(
    parents: Any,
    children: Any,
    lambdas: Any,
    sizes: Any,
    *,
    labels: Mapping[int, int] | None = None,
    fractions: Mapping[int, float] | None = None,
    names: Mapping[int, str] | None = None,
) -> Figure:
    """The condensed tree of HDBSCAN as icicles: each cluster from the density where it begins to that where it ends or divides.

    An edge is a node that leaves ``parents`` (m,) at the density ``lambdas`` (m,) with ``sizes`` (m,) rows; nodes below the smallest parent
    are rows. ``labels`` maps the nodes of chosen clusters to their labels. The width of an icicle is its number of rows (Campello et al. 2015).
    """
    parents, children, lambdas, sizes = (np.asarray(v) for v in (parents, children, lambdas, sizes))
    finite = lambdas[np.isfinite(lambdas)]
    top = float(finite.max(initial=0.0))
    densities = np.minimum(lambdas.astype(float), top)
    root = int(parents.min())
    inner = children >= root
    divides: dict[int, list[int]] = {}
    for parent, child in zip(parents[inner].tolist(), children[inner].tolist(), strict=True):
        divides.setdefault(parent, []).append(child)
    birth = {root: float(densities.min(initial=0.0))} | dict(
        zip(children[inner].tolist(), densities[inner].tolist(), strict=True)
    )
    by_parent = np.argsort(parents, kind="stable")
    edges = np.searchsorted(parents[by_parent], np.arange(root, int(parents.max()) + 2))
    total = max(float(sizes[~inner].sum()), 1.0)
    rows_of = {root: total} | dict(zip(children[inner].tolist(), sizes[inner].astype(float).tolist(), strict=True))
    place = _places(root, divides, {node: rows / total for node, rows in rows_of.items()})
    figure = new_figure(9.5, 5.6)
    axes = add_axes(figure, 0.85, 0.4, 3.05, 0.75)
    shapes, colors = [], []
    chosen = dict(labels or {})
    for node, x in place.items():
        rows = by_parent[edges[node - root] : edges[node - root + 1]]
        rows = rows[np.argsort(densities[rows], kind="stable")]
        leaves = np.concatenate([[birth[node]], densities[rows]])
        left = rows_of[node] - np.concatenate([[0], np.cumsum(sizes[rows])])
        keep = np.unique(np.linspace(0, len(leaves) - 1, 200).astype(int))
        half = np.maximum(left[keep] / total / 2, 0.001)
        shapes.append(np.column_stack((np.r_[x - half, (x + half)[::-1]], np.r_[leaves[keep], leaves[keep][::-1]])))
        colors.append(cluster_color(chosen[node]) if node in chosen else _UNCHOSEN)
    axes.add_collection(
        PolyCollection(shapes, facecolors=colors, edgecolors=PAPER, linewidths=0.4, gid="nodes"), autolim=False
    )
    joints = [[(place[child], birth[child]) for child in pair] for pair in divides.values() if len(pair) > 1]
    axes.add_collection(LineCollection(joints, colors=INK, linewidths=0.8), autolim=False)
    axes.set(xlim=(-0.02, 1.02), ylim=(top * 1.04 or 1.0, min(birth.values())))
    axes.set_xticks([])
    axes.set_ylabel("density λ = 1 / distance", fontsize=LABEL_SIZE, color=INK)
    tagged = [node for node in place if node in chosen]
    cluster_tags(
        axes,
        axes.transData,
        np.array([place[n] for n in tagged]),
        np.array([birth[n] for n in tagged]),
        [chosen[n] for n in tagged],
    )
    heading(
        figure,
        "Condensed tree",
        f"{count(total)} rows · {count(len(place))} nodes · width: rows · coloured: the chosen clusters",
    )
    present = sorted(set(chosen.values()))
    cluster_key(figure, left=6.6, top=0.75, clusters=present, fractions=dict(fractions or {}), names=names)
    return figure


def _places(root: int, divides: Mapping[int, Sequence[int]], widths: Mapping[int, float]) -> dict[int, float]:
    """The horizontal middle of each node: the children of a node side by side, in the middle of its width."""
    place = {root: 0.5}
    stack = [root]
    while stack:
        node = stack.pop()
        below = divides.get(node, ())
        gap = max(widths[node] - sum(widths[child] for child in below), 0.0) / (len(below) + 1)
        at = place[node] - widths[node] / 2
        for child in below:
            at += gap
            place[child] = at + widths[child] / 2
            at += widths[child]
        stack += below
    return place


def clustergram(
    sizes: Sequence[int], labels: Sequence[Any], positions: Any, *, label: str = "first principal component"
) -> Figure:
    """How the clusters divide as their number grows (Schonlau 2002): a dot for each cluster at the mean position of its rows.

    ``sizes`` (s,) numbers of clusters, ``labels`` a label array (n,) for each, noise -1, ``positions`` (n,) of the rows, usually their first
    principal component. The thickness of a line is the number of rows that two clusters of neighbouring sizes share, and the area of a dot
    the rows of a cluster.
    """
    order = np.argsort(np.asarray(sizes), kind="stable")
    at = np.asarray(sizes)[order]
    tables = [np.asarray(labels[i]) for i in order]
    positions = np.asarray(positions, dtype=float)
    n = max(len(positions), 1)
    figure = new_figure(9.0, 5.4)
    axes = add_axes(figure, 0.85, 0.65, 0.4, 0.75)
    means, counts = zip(*(_means(table, positions) for table in tables), strict=True)
    lines, widths = [], []
    for i in range(len(at) - 1):
        both = (tables[i] >= 0) & (tables[i + 1] >= 0)
        pairs, shared = np.unique(np.stack([tables[i][both], tables[i + 1][both]]), axis=1, return_counts=True)
        for (a, b), rows in zip(pairs.T.tolist(), shared.tolist(), strict=True):
            lines.append([(at[i], means[i][a]), (at[i + 1], means[i + 1][b])])
            widths.append(12 * rows / n)
    axes.add_collection(
        LineCollection(lines, linewidths=np.maximum(widths, 0.15), colors=SERIES_COLORS[0], alpha=0.45, gid="flows")
    )
    for size, mean, rows in zip(at, means, counts, strict=True):
        axes.scatter(
            [size] * len(mean),
            mean,
            s=np.maximum(420 * rows / n, 8),
            color=INK,
            edgecolors=PAPER,
            linewidths=0.8,
            zorder=3,
        )
    axes.autoscale_view()
    axes.margins(0.06)
    axes.set_xticks(at, [f"{size:g}" for size in at.tolist()])
    axes.set_xlabel("number of clusters", fontsize=LABEL_SIZE, color=INK)
    axes.set_ylabel(f"mean of the cluster on the {label}", fontsize=LABEL_SIZE, color=INK)
    grid(axes)
    heading(
        figure,
        "Clustergram",
        f"{count(len(positions))} rows · line: rows that two clusters share · dot: rows of a cluster",
    )
    return figure


def _means(labels: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean position and the rows of each cluster 0..k-1."""
    placed = labels >= 0
    counts = np.bincount(labels[placed])
    return np.bincount(labels[placed], weights=positions[placed]) / np.maximum(counts, 1), counts
