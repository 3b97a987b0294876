"""Figures of what is in each cluster: profiles and sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from gpuclust.report.palette import INK, PAPER, cluster_color, ink_on
from gpuclust.report.style import (
    NAME_SIZE,
    QUIET,
    TICK_SIZE,
    bare_panel,
    blank,
    cluster_rows,
    cluster_tags,
    heading,
    inches,
)
from gpuclust.report.text import cluster_title, count, percent
from gpuclust.report.text_collection import fit, fit_two, width, write

DIVERGING = LinearSegmentedColormap.from_list(
    "below_above", ["#2B4C9B", "#6E9BD1", "#C9DCEE", "#FAFAF8", "#F8D5B8", "#E58A4E", "#A63A06"]
)
"""Blue below, orange above: the pair that every common form of colour blindness keeps apart."""
SEQUENTIAL = LinearSegmentedColormap.from_list("share", ["#FBFCFD", "#BFD7EA", "#5A9BC9", "#1D5F96", "#0B3358"])

_MAX_ROWS = 40
_MAX_COLUMNS = 40
_MAX_GROUPS = 30
_MAX_NUMBERS = 400
_NAMES, _HEAD = 3.0, 0.8


def profile_heatmap(
    z: Any,
    features: Sequence[str],
    sizes: Any,
    *,
    names: Mapping[int, str] | None = None,
    clusters: Sequence[int] | None = None,
) -> Figure:
    """How far each cluster's mean lies from the mean of all rows, in standard deviations.

    ``z`` (k, n_features), ``sizes`` (k,) rows or fractions, ``clusters`` the label of each row (0..k-1 when None; -1
    is noise). Up to forty clusters are drawn, the first ones of ``z``, and the note says when there are more.
    """
    z, sizes = np.atleast_2d(np.asarray(z, dtype=float)), np.asarray(sizes, dtype=float)
    labels = list(range(len(z))) if clusters is None else [int(c) for c in clusters]
    fractions = sizes / max(sizes.sum(), 1e-12) if sizes.sum() > 1.0001 else sizes
    k, d = min(len(z), _MAX_ROWS), min(z.shape[1], _MAX_COLUMNS)
    step = 0.42 if k <= 16 else 0.34
    column = float(np.clip(6.2 / max(d, 1), 0.3, 0.9))
    heads = [fit(f, TICK_SIZE, 1.6) for f in features[:d]]
    foot = 0.25 + 0.6 * max((width(head, TICK_SIZE) for head in heads), default=0.2)
    figure = blank(_NAMES + max(column * d, 3.2) + 0.45, _HEAD + max(step * k, 0.6) + foot)
    axes = bare_panel(figure, _NAMES, foot, 0.45, _HEAD)
    shown = z[:k, :d]
    limit = float(np.clip(np.nanmax(np.abs(shown), initial=0.0), 1.0, 3.0))
    heat(axes, shown, DIVERGING, -limit, limit, lambda v: f"{v:+.1f}", numbers=shown.size <= _MAX_NUMBERS)
    column_heads(axes, heads)
    y = foot + max(step * k, 0.6) / max(k, 1) * (k - 0.5 - np.arange(k))
    shares = dict(zip(labels[:k], fractions[:k].tolist(), strict=True))
    cluster_rows(figure, left=0.12, y=y, clusters=labels[:k], fractions=shares, names=names, width=_NAMES - 0.15)
    note = "mean of the cluster less the mean of all rows, in standard deviations (orange above, blue below)"
    if len(z) > k:
        note = f"the first {k} of {count(len(z))} clusters · " + note
    heading(figure, "Profile of each cluster", note)
    return figure


def column_heads(axes: Axes, heads: Sequence[str]) -> None:
    """The names of a heat map's columns, slanted below it."""
    n = axes.get_ylim()[0]
    drop = axes.transData + ScaledTranslation(0.04, -0.1, inches(axes))
    write(axes, drop, np.arange(len(heads)), n, heads, size=TICK_SIZE, ha="right", rotation=32)


def heat(
    axes: Axes,
    values: np.ndarray,
    colors: LinearSegmentedColormap,
    low: float,
    high: float,
    words: Any,
    *,
    numbers: bool = True,
    size: float = 8.0,
) -> None:
    """Cells (rows, columns) coloured from ``low`` to ``high``, each with its number where they fit."""
    x, y = (np.arange(n + 1) - 0.5 for n in values.shape[::-1])
    # Not imshow: it resamples the picture with its colours, which takes three times as long.
    axes.pcolormesh(x, y, values, cmap=colors, vmin=low, vmax=high, edgecolors=PAPER, linewidth=1)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[-1], y[0]))
    if numbers:
        scaled = colors(np.clip((values - low) / max(high - low, 1e-12), 0, 1))[..., :3] @ (0.299, 0.587, 0.114)
        i, j = np.nonzero(np.isfinite(values))
        ink = [INK if light > 0.55 else PAPER for light in scaled[i, j]]
        write(axes, axes.transData, j, i, [words(v) for v in values[i, j]], size=size, color=ink, ha="center")


def cluster_sizes(
    sizes: Any, *, names: Mapping[int, str] | None = None, clusters: Sequence[int] | None = None
) -> Figure:
    """A bar for each cluster with its rows and share; ``sizes`` (k,) rows, ``clusters`` as for the heat map."""
    sizes = np.asarray(sizes)
    labels = list(range(len(sizes))) if clusters is None else [int(c) for c in clusters]
    k, total = min(len(sizes), _MAX_ROWS), max(int(sizes.sum()), 1)
    step = 0.4 if k <= 16 else 0.34
    figure = blank(8.8, _HEAD + max(step * k, 0.5) + 0.2)
    axes = bare_panel(figure, _NAMES, 0.2, 1.3, _HEAD)
    axes.set(xlim=(0, max(int(sizes.max(initial=1)), 1)), ylim=(max(k, 1) - 0.5, -0.5))
    colors = [cluster_color(c) for c in labels[:k]]
    axes.barh(np.arange(k), sizes[:k], height=0.62, color=colors)
    words = [f"{count(n)}  ({percent(n / total)})" for n in sizes[:k]]
    beside = axes.transData + ScaledTranslation(0.07, 0, inches(axes))
    write(axes, beside, sizes[:k], np.arange(k), words, size=8)
    y = 0.2 + max(step * k, 0.5) / max(k, 1) * (k - 0.5 - np.arange(k))
    _names_beside(figure, y, labels[:k], names)
    note = f"{count(total)} rows" + (f" · the first {k} of {count(len(sizes))} clusters" if len(sizes) > k else "")
    heading(figure, "Size of each cluster", note)
    return figure


def group_bubbles(
    counts: Any, groups: Sequence[str], *, clusters: Sequence[int] | None = None, names: Mapping[int, str] | None = None
) -> Figure:
    """Where each group's (genre's) rows are: a bubble per group and cluster, its area the share of the group's rows.

    ``counts`` (n_groups, k) rows. The thirty groups with most rows are drawn, ordered by the cluster that holds most
    of each.
    """
    counts = np.asarray(counts, dtype=float)
    top = np.sort(np.argsort(-counts.sum(axis=1), kind="stable")[:_MAX_GROUPS])
    share = counts[top] / np.maximum(counts[top].sum(axis=1, keepdims=True), 1e-12)
    order = np.lexsort((-share.max(axis=1), share.argmax(axis=1))) if share.size else np.arange(len(top))
    share, shown = share[order][:, :_MAX_ROWS], [groups[i] for i in top[order]]
    labels = (list(range(share.shape[1])) if clusters is None else [int(c) for c in clusters])[: share.shape[1]]
    step, left = 0.27, 1.75
    column = float(np.clip(7.0 / max(len(labels), 1), 0.3, 0.95))
    figure = blank(left + max(column * len(labels), 2.6) + 0.5, 1.3 + max(step * len(shown), 0.5) + 0.25)
    axes = bare_panel(figure, left, 0.25, 0.5, 1.3)
    axes.set(xlim=(-0.5, max(len(labels), 1) - 0.5), ylim=(max(len(shown), 1) - 0.5, -0.5))
    axes.hlines(np.arange(len(shown)), -0.5, len(labels) - 0.5, color="#EEF0F2", linewidth=0.8, zorder=0)
    i, j = np.nonzero(share > 0)
    largest = (0.95 * min(step, column) * 1.5 * 72) ** 2
    axes.scatter(
        j, i, s=share[i, j] * largest, c=[cluster_color(labels[c]) for c in j], alpha=0.85, linewidths=0, clip_on=False
    )
    strong = share[i, j] >= 0.15
    texts = [f"{100 * v:.0f}" for v in share[i, j][strong]]
    ink = [ink_on(cluster_color(labels[c])) for c in j[strong]]
    write(axes, axes.transData, j[strong], i[strong], texts, size=7, color=ink, ha="center")
    write(
        axes, axes.transData, -0.65, np.arange(len(shown)), [fit(g, NAME_SIZE, left - 0.4) for g in shown], ha="right"
    )
    above = axes.transData + ScaledTranslation(0, 0.17, inches(axes))
    cluster_tags(axes, above, np.arange(len(labels)), -0.5, labels)
    note = "area and number: per cent of the group's rows in the cluster"
    if len(counts) > len(shown):
        note += f" · the {len(shown)} largest of {count(len(counts))} groups"
    heading(figure, "Groups by cluster", note)
    return figure


def stability_bars(
    jaccard: Any,
    *,
    errors: Any = None,
    names: Mapping[int, str] | None = None,
    clusters: Sequence[int] | None = None,
) -> Figure:
    """Mean bootstrap Jaccard similarity of each cluster, (k,), with its spread where ``errors`` (k,) are given.

    Below 0.5 a cluster is dissolved, above 0.75 stable (Hennig, "Cluster-wise assessment of cluster stability", 2007).
    """
    jaccard = np.asarray(jaccard, dtype=float)
    labels = list(range(len(jaccard))) if clusters is None else [int(c) for c in clusters]
    k = min(len(jaccard), _MAX_ROWS)
    step = 0.4 if k <= 16 else 0.34
    figure = blank(8.8, _HEAD + max(step * k, 0.5) + 0.5)
    axes = bare_panel(figure, _NAMES, 0.5, 1.3, _HEAD)
    axes.set(xlim=(0, 1), ylim=(max(k, 1) - 0.5, -0.5))
    axes.barh(np.arange(k), jaccard[:k], height=0.6, color=[cluster_color(c) for c in labels[:k]])
    if errors is not None:
        spread = np.asarray(errors, dtype=float)[:k]
        axes.errorbar(jaccard[:k], np.arange(k), xerr=spread, fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
    axes.vlines([0.5, 0.75], -0.5, k - 0.5, color=INK, linewidth=1, linestyles=(0, (4, 3)))
    words = [f"{v:.2f}  {'stable' if v > 0.75 else 'dissolved' if v < 0.5 else 'in between'}" for v in jaccard[:k]]
    write(axes, axes.transAxes, 1.02, (k - 0.5 - np.arange(k)) / max(k, 1), words, size=8)
    below = axes.transAxes + ScaledTranslation(0, -0.14, inches(axes))
    write(axes, below, [0, 0.5, 0.75, 1], 0.0, ["0", "0.5", "0.75", "1"], size=TICK_SIZE, ha="center")
    y = 0.5 + max(step * k, 0.5) / max(k, 1) * (k - 0.5 - np.arange(k))
    _names_beside(figure, y, labels[:k], names)
    n_stable, n_dissolved = int((jaccard > 0.75).sum()), int((jaccard < 0.5).sum())
    note = f"bootstrap Jaccard · {n_stable} of {len(jaccard)} stable (above 0.75), {n_dissolved} dissolved (below 0.5)"
    heading(figure, "Stability of each cluster", note)
    return figure


def _names_beside(figure: Figure, y: np.ndarray, labels: Sequence[int], names: Mapping[int, str] | None) -> None:
    """Tag and name of each cluster, on one line or two, at the left of a bar chart."""
    inch = figure.dpi_scale_trans
    cluster_tags(figure, inch, 0.21, y, labels)
    texts = [fit_two(cluster_title(c, names), NAME_SIZE, _NAMES - 0.5) for c in labels]
    lift = np.array([0.065 if rest else 0.0 for _, rest in texts])
    write(figure, inch, 0.37, y + lift, [first for first, _ in texts], size=NAME_SIZE)
    write(figure, inch, 0.37, y - 0.075, [rest for _, rest in texts], size=7, color=QUIET)
