"""Figures of the table before any clustering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from gpuclust.pages.palette import SERIES_COLORS
from gpuclust.pages.raster import span_of
from gpuclust.pages.text import count, number
from gpuclust.report.figures_profile import DIVERGING, column_heads, heat
from gpuclust.report.style import NAME_SIZE, QUIET, TICK_SIZE, add_bare_axes, heading, new_figure
from gpuclust.report.text_collection import draw_texts, fit, width

_MAX_FEATURES = 40
_BINS = 48


def correlation_matrix(correlation: Any, features: Sequence[str]) -> Figure:
    """Pearson correlation of every pair of features; ``correlation`` (d, d)."""
    values = np.asarray(correlation, dtype=float)[:_MAX_FEATURES, :_MAX_FEATURES]
    d = len(values)
    heads = [fit(f, TICK_SIZE, 1.6) for f in features[:d]]
    longest = max((width(head, TICK_SIZE) for head in heads), default=0.2)
    cell = float(np.clip(5.6 / max(d, 1), 0.3, 0.62))
    side, left, foot = max(cell * d, 2.4), 0.35 + longest, 0.3 + 0.6 * longest
    figure = new_figure(max(left + side + 0.4, 5.2), 0.8 + side + foot)
    axes = add_bare_axes(figure, left, foot, figure.get_figwidth() - left - side, 0.8)
    heat(axes, values, DIVERGING, -1.0, 1.0, lambda v: f"{v:.2f}".replace("0.", ".", 1), size=7.5 if d <= 12 else 6.5)
    column_heads(axes, heads)
    y = foot + side / max(d, 1) * (d - 0.5 - np.arange(d))
    draw_texts(figure, figure.dpi_scale_trans, left - 0.1, y, heads, size=TICK_SIZE, ha="right")
    pairs = np.abs(np.where(np.tri(d, k=-1, dtype=bool), values, 0.0))
    i, j = np.unravel_index(int(np.nanargmax(pairs)), pairs.shape) if d > 1 else (0, 0)
    note = f"strongest: {heads[i]} with {heads[j]}, {values[i, j]:+.2f}" if d > 1 else ""
    heading(figure, "Correlation of the features", note)
    return figure


def feature_distributions(
    values: Any, features: Sequence[str], *, title: str = "Distribution of each feature"
) -> Figure:
    """A histogram of each feature over all rows; ``values`` (n, d). The last bar includes the few rows beyond it."""
    values = np.asarray(values)[:, :_MAX_FEATURES]
    n, d = values.shape
    columns = min(4, max(d, 1))
    rows = -(-d // columns)
    figure = new_figure(0.3 + 2.35 * columns, 0.75 + 1.75 * max(rows, 1))
    for i in range(d):
        left, top = 0.25 + 2.35 * (i % columns), 0.75 + 1.75 * (i // columns) + 0.3
        axes = add_bare_axes(
            figure, left, figure.get_figheight() - top - 1.05, figure.get_figwidth() - left - 2.05, top
        )
        column = values[:, i]
        low, high = span_of(column, pad=0.0)
        counts, edges = np.histogram(np.clip(column, low, high), bins=_BINS, range=(low, high))
        _bars(axes, counts, edges)
        draw_texts(
            axes, axes.transAxes, 0.0, 1.12, [fit(features[i], NAME_SIZE + 0.5, 2.0)], size=NAME_SIZE + 0.5, bold=True
        )
        ticks = np.linspace(low, high, 3)
        for at, ha in zip(ticks, ("left", "center", "right"), strict=True):
            short = number(float(f"{at:.3g}"))
            draw_texts(axes, axes.transData, at, -0.1 * max(counts.max(), 1), [short], size=7.5, color=QUIET, ha=ha)
    heading(figure, title, f"all {count(n)} rows · height: rows")
    return figure


def _bars(axes: Axes, counts: np.ndarray, edges: np.ndarray) -> None:
    """Histogram bars as one collection."""
    boxes = [_box(edges[i], edges[i + 1], 0, c) for i, c in enumerate(counts)]
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, max(int(counts.max(initial=0)), 1) * 1.02))
    axes.add_collection(PolyCollection(boxes, facecolors=SERIES_COLORS[0], linewidths=0), autolim=False)
    axes.axhline(0, color="#AEB4BB", linewidth=0.8)


def _box(x0: float, x1: float, y0: float, y1: float) -> list[tuple[float, float]]:
    """The corners of a rectangle."""
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
