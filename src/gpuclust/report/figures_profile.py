"""Figures of the clusters: profiles, stability, and how two clusterings meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from gpuclust.pages.facts import telling_features
from gpuclust.pages.palette import INK, PAPER, cluster_color
from gpuclust.pages.text import count
from gpuclust.report.style import (
    NAME_SIZE,
    TICK_SIZE,
    add_bare_axes,
    cluster_names,
    cluster_rows,
    cluster_tags,
    heading,
    inches,
    new_figure,
)
from gpuclust.report.text_collection import draw_texts, fit, width

DIVERGING = LinearSegmentedColormap.from_list(
    "below_above", ["#2B4C9B", "#6E9BD1", "#C9DCEE", "#FAFAF8", "#F8D5B8", "#E58A4E", "#A63A06"]
)
"""Blue below, orange above: the pair that every common form of colour blindness keeps apart."""
SEQUENTIAL = LinearSegmentedColormap.from_list("share", ["#FBFCFD", "#BFD7EA", "#5A9BC9", "#1D5F96", "#0B3358"])

_MAX_ROWS = 40
MAX_FEATURES = 24
"""Columns of a profile's heat map; of more features the most different ones are drawn."""
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
    is noise). Up to forty clusters are drawn, the first ones of ``z``, and up to `MAX_FEATURES` features, the most different ones
    (`gpuclust.pages.facts.telling_features`); the note says when there are more.
    """
    z, sizes = np.atleast_2d(np.asarray(z, dtype=float)), np.asarray(sizes, dtype=float)
    labels = list(range(len(z))) if clusters is None else [int(c) for c in clusters]
    fractions = sizes / max(sizes.sum(), 1e-12) if sizes.sum() > 1.0001 else sizes
    telling = telling_features(z, fractions, MAX_FEATURES)
    k, d = min(len(z), _MAX_ROWS), len(telling)
    step = 0.42 if k <= 16 else 0.34
    column = float(np.clip(6.2 / max(d, 1), 0.3, 0.9))
    heads = [fit(features[f], TICK_SIZE, 1.6) for f in telling]
    foot = 0.25 + 0.6 * max((width(head, TICK_SIZE) for head in heads), default=0.2)
    figure = new_figure(_NAMES + max(column * d, 3.2) + 0.45, _HEAD + max(step * k, 0.6) + foot)
    axes = add_bare_axes(figure, _NAMES, foot, 0.45, _HEAD)
    shown = z[:k, telling]
    limit = float(np.clip(np.nanmax(np.abs(shown), initial=0.0), 1.0, 3.0))
    heat(axes, shown, DIVERGING, -limit, limit, lambda v: f"{v:+.1f}", numbers=shown.size <= _MAX_NUMBERS)
    column_heads(axes, heads)
    y = foot + max(step * k, 0.6) / max(k, 1) * (k - 0.5 - np.arange(k))
    shares = dict(zip(labels[:k], fractions[:k].tolist(), strict=True))
    cluster_rows(figure, left=0.12, y=y, clusters=labels[:k], fractions=shares, names=names, width=_NAMES - 0.15)
    note = "mean of the cluster less the mean of all rows, in standard deviations (orange above, blue below)"
    if z.shape[1] > d:
        note = f"the {d} most different of {count(z.shape[1])} features · " + note
    if len(z) > k:
        note = f"the first {k} of {count(len(z))} clusters · " + note
    heading(figure, "Profile of each cluster", note)
    return figure


def column_heads(axes: Axes, heads: Sequence[str]) -> None:
    """The names of a heat map's columns, slanted below it."""
    n = axes.get_ylim()[0]
    drop = axes.transData + ScaledTranslation(0.04, -0.1, inches(axes))
    draw_texts(axes, drop, np.arange(len(heads)), n, heads, size=TICK_SIZE, ha="right", rotation=32)


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
        draw_texts(axes, axes.transData, j, i, [words(v) for v in values[i, j]], size=size, color=ink, ha="center")


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
    counts = np.asarray(table, dtype=float)[:_MAX_ROWS, :_MAX_ROWS]
    share = counts / np.maximum(np.asarray(table, dtype=float).sum(axis=1)[:_MAX_ROWS, None], 1e-12)
    a, b = counts.shape
    heads, sides = [fit(n, TICK_SIZE, 1.8) for n in column_names[:b]], [fit(n, NAME_SIZE, 2.2) for n in row_names[:a]]
    left = 0.35 + max((width(s, NAME_SIZE) for s in sides), default=0.3)
    foot = 0.3 + 0.6 * max((width(h, TICK_SIZE) for h in heads), default=0.2)
    cell = float(np.clip(7.0 / max(b, 1), 0.34, 0.85))
    wide, high = max(cell * b, 2.4), max(0.36 * a, 0.7)
    figure = new_figure(max(left + wide + 0.4, 6.0), 0.8 + high + foot)
    axes = add_bare_axes(figure, left, foot, figure.get_figwidth() - left - wide, 0.8)
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
    draw_texts(
        figure,
        figure.dpi_scale_trans,
        left - 0.1,
        foot + high / max(a, 1) * (a - 0.5 - np.arange(a)),
        sides,
        ha="right",
    )
    cut = " · the first forty of each" if max(np.shape(table)) > _MAX_ROWS else ""
    heading(figure, f"{rows} by {columns}", f"{count(np.sum(table))} rows · per cent of each line{cut}")
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
    figure = new_figure(8.8, _HEAD + max(step * k, 0.5) + 0.5)
    axes = add_bare_axes(figure, _NAMES, 0.5, 1.3, _HEAD)
    axes.set(xlim=(0, 1), ylim=(max(k, 1) - 0.5, -0.5))
    axes.barh(np.arange(k), jaccard[:k], height=0.6, color=[cluster_color(c) for c in labels[:k]])
    if errors is not None:
        spread = np.asarray(errors, dtype=float)[:k]
        axes.errorbar(jaccard[:k], np.arange(k), xerr=spread, fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
    axes.vlines([0.5, 0.75], -0.5, k - 0.5, color=INK, linewidth=1, linestyles=(0, (4, 3)))
    words = [f"{v:.2f}  {'stable' if v > 0.75 else 'dissolved' if v < 0.5 else 'in between'}" for v in jaccard[:k]]
    draw_texts(axes, axes.transAxes, 1.02, (k - 0.5 - np.arange(k)) / max(k, 1), words, size=8)
    below = axes.transAxes + ScaledTranslation(0, -0.14, inches(axes))
    draw_texts(axes, below, [0, 0.5, 0.75, 1], 0.0, ["0", "0.5", "0.75", "1"], size=TICK_SIZE, ha="center")
    y = 0.5 + max(step * k, 0.5) / max(k, 1) * (k - 0.5 - np.arange(k))
    cluster_tags(figure, figure.dpi_scale_trans, 0.21, y, labels[:k])
    cluster_names(figure, left=0.37, y=y, clusters=labels[:k], names=names, width=_NAMES - 0.5)
    n_stable, n_dissolved = int((jaccard > 0.75).sum()), int((jaccard < 0.5).sum())
    note = f"bootstrap Jaccard · {n_stable} of {len(jaccard)} stable (above 0.75), {n_dissolved} dissolved (below 0.5)"
    heading(figure, "Stability of each cluster", note)
    return figure
