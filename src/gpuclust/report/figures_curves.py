"""Figures of a sweep: a score against the swept size, one line for each combination of the other swept values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from gpuclust.pages.palette import INK, PAPER, SERIES_COLORS
from gpuclust.pages.text import number
from gpuclust.report.style import LABEL_SIZE, QUIET, TICK_SIZE, add_axes, caption, grid, new_figure, safe_text

_MARKERS = "osD^vPX*"
_MAX_INTEGER_TICKS = 16
_LOG_RATIO = 12.0


@dataclass(frozen=True)
class Curve:
    """A score at each swept size: ``sizes``, ``values`` and, where known, standard ``errors``, all (m,)."""

    sizes: Any
    values: Any
    errors: Any = None

    def ordered(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Sizes ascending with their finite values and errors, float64."""
        sizes, values = np.asarray(self.sizes, dtype=float), np.asarray(self.values, dtype=float)
        errors = None if self.errors is None else np.asarray(self.errors, dtype=float)
        keep = np.flatnonzero(np.isfinite(values) & np.isfinite(sizes))
        keep = keep[np.argsort(sizes[keep], kind="stable")]
        return sizes[keep], values[keep], None if errors is None else np.nan_to_num(errors[keep])


def elbow(
    sizes: Any,
    inertia: Any,
    *,
    knee: float | None = None,
    name: str = "",
    x_label: str = "number of clusters",
) -> Figure:
    """Inertia (within-cluster sum of squares) against the number of clusters, with its knee marked."""
    figure, axes = _chart({name: Curve(sizes, inertia)}, x_label, "inertia (within-cluster sum of squares)")
    note = "no knee was found" if knee is None else f"the knee is at {number(knee)}"
    caption(axes, "Elbow: inertia by number of clusters", note=note)
    if knee is not None:
        axes.axvline(knee, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
        _beside(axes, knee, f"knee at {number(knee)}")
    return figure


def silhouette_curve(
    curves: Mapping[str, Curve], *, x_label: str = "number of clusters", with_noise: bool = False
) -> Figure:
    """Mean silhouette against size with its standard error, one line per key; the maximum is ringed."""
    figure, axes = _chart(curves, x_label, f"mean silhouette{', noise as a cluster' if with_noise else ''}")
    best = _ring_best(axes, curves, largest=True)
    note = f"highest: {best}" if best else ""
    caption(axes, "Silhouette by size", note=note + (" · bars: standard error" if _has_errors(curves) else ""))
    return figure


def bic_curve(curves: Mapping[str, Curve], *, x_label: str = "number of components", criterion: str = "BIC") -> Figure:
    """BIC (lower is better) against the number of components, one line per covariance type."""
    figure, axes = _chart(curves, x_label, f"{criterion} (lower is better)")
    best = _ring_best(axes, curves, largest=False)
    at_the_end = [key for key, curve in curves.items() if _still_falling(curve)]
    note = f"lowest: {best}" if best else ""
    if at_the_end and best:
        note += " · still falling at the largest size" + (
            f": {', '.join(filter(None, at_the_end))}" if any(at_the_end) else ""
        )
    caption(axes, f"{criterion} by covariance type" if len(curves) > 1 else f"{criterion} by size", note=note)
    return figure


def score_curve(
    curves: Mapping[str, Curve],
    *,
    label: str,
    higher_is_better: bool | None = True,
    x_label: str = "number of clusters",
) -> Figure:
    """Any other score against size (Davies-Bouldin, relative validity ...); ``higher_is_better=None``: it has no best."""
    figure, axes = _chart(curves, x_label, label)
    if higher_is_better is None:
        caption(axes, f"{label} by {x_label}".capitalize())
        return figure
    best = _ring_best(axes, curves, largest=higher_is_better)
    caption(axes, f"{label} by size", note=f"{'highest' if higher_is_better else 'lowest'}: {best}" if best else "")
    return figure


def gap_curve(sizes: Any, gap: Any, errors: Any, *, chosen: float | None = None) -> Figure:
    """Gap statistic with one standard error (Tibshirani, Walther and Hastie, 2001); ``chosen`` is marked."""
    curve = Curve(sizes, gap, errors)
    figure, axes = _chart({"": curve}, "number of clusters", "gap")
    note = "no size is within one standard error of the next one's gap" if chosen is None else ""
    if chosen is not None:
        note = f"{number(chosen)} is the smallest size whose gap is within one standard error of the next one's"
        axes.axvline(chosen, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    caption(axes, "Gap statistic", note=note)
    return figure


def persistence_curve(
    min_cluster_sizes: Any, persistence: Any, *, chosen: float | None = None, n_clusters: Any = None
) -> Figure:
    """Total persistence of the leaf clusters against the minimum cluster size, as steps; peaks are good cuts.

    Bot, Aerts and Aerts, "Persistent leaf selection clustering" (PLSCAN).
    """
    sizes, values = np.asarray(min_cluster_sizes, dtype=float), np.asarray(persistence, dtype=float)
    figure = new_figure(8.6, 4.8)
    axes = add_axes(figure, 0.9, 0.65, 0.3, 0.75)
    axes.step(sizes, values, where="post", color=SERIES_COLORS[0], linewidth=1.6)
    axes.fill_between(sizes, values, step="post", color=SERIES_COLORS[0], alpha=0.12, linewidth=0)
    _scale_x(axes, sizes)
    axes.set_ylim(bottom=0)
    grid(axes)
    note = ""
    if chosen is not None:
        axes.axvline(chosen, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
        note = f"cut at a minimum cluster size of {number(chosen)}"
        if n_clusters is not None:
            note += f": {number(n_clusters)} clusters"
    caption(axes, "Persistence by minimum cluster size", "minimum cluster size", "total persistence", note=note)
    return figure


def _chart(curves: Mapping[str, Curve], x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """Axes with one marked line per curve, labelled at its right end or in a legend."""
    named = [key for key in curves if key]
    figure = new_figure(8.6, 4.8)
    longest = max((len(key) for key in named), default=0)
    axes = add_axes(figure, 0.95, 0.65, min(0.35 + 0.075 * longest, 2.4) if len(named) > 1 else 0.35, 0.75)
    for i, (key, curve) in enumerate(curves.items()):
        sizes, values, errors = curve.ordered()
        style: dict[str, Any] = {"color": SERIES_COLORS[i % len(SERIES_COLORS)], "marker": _MARKERS[i % len(_MARKERS)]}
        axes.errorbar(
            sizes,
            values,
            yerr=errors,
            label=safe_text(key, 40) or None,
            linewidth=1.7,
            markersize=5,
            capsize=3,
            elinewidth=1.1,
            **style,
        )
    _scale_x(axes, np.concatenate([c.ordered()[0] for c in curves.values()] or [np.empty(0)]))
    axes.margins(y=0.12)
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)
    axes.yaxis.set_major_formatter(FuncFormatter(_compact))
    if len(named) > 1:
        _name_the_ends(axes, curves)
    grid(axes)
    caption(axes, "", x_label, y_label)
    if not any(len(curve.ordered()[0]) for curve in curves.values()):
        axes.text(0.5, 0.5, "no finished job to draw", transform=axes.transAxes, ha="center", color=QUIET)
    return figure, axes


def _scale_x(axes: Axes, sizes: np.ndarray) -> None:
    """A tick at each whole size where they fit; a logarithmic axis where sizes span more than a decade."""
    at = np.unique(sizes)
    if len(at) > 2 and at[0] > 0 and at[-1] / at[0] > _LOG_RATIO and len(at) <= at[-1] / 4:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(_compact))
        if len(at) <= 10:
            axes.set_xticks(at)
        else:
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    elif 0 < len(at) <= _MAX_INTEGER_TICKS:
        axes.set_xticks(at, [number(size) for size in at.tolist()])
    if len(at) == 1:
        axes.set_xlim(at[0] - 1, at[0] + 1)


def _name_the_ends(axes: Axes, curves: Mapping[str, Curve]) -> None:
    """The key of each curve at its right end, moved apart where ends lie closer than a line of text."""
    ends = []
    for i, (key, curve) in enumerate(curves.items()):
        sizes, values, _ = curve.ordered()
        if len(sizes):
            ends.append((values[-1], sizes[-1], key, SERIES_COLORS[i % len(SERIES_COLORS)]))
    if not ends:
        return
    low, high = axes.get_ylim()
    gap = (high - low) * 0.055
    heights = _apart(np.array([end[0] for end in ends]), gap)
    right = axes.get_xlim()[1]
    for height, (_, _, key, color) in zip(heights, ends, strict=True):
        axes.annotate(
            safe_text(key, 26), (right, height), (5, 0), textcoords="offset points", color=color, fontsize=LABEL_SIZE, va="center",
            fontweight="bold", annotation_clip=False,
        )  # fmt: skip


def _apart(values: np.ndarray, gap: float) -> np.ndarray:
    """The values moved so that neighbours are at least ``gap`` apart, keeping their order and about their place."""
    order = np.argsort(values, kind="stable")
    moved = values[order].astype(float)
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    moved -= (moved - values[order]).mean()
    out = np.empty_like(moved)
    out[order] = moved
    return out


def _ring_best(axes: Axes, curves: Mapping[str, Curve], *, largest: bool) -> str:
    """Ring the best point over all curves; returns it in words, empty where there is none."""
    best: tuple[float, float, str] | None = None
    for key, curve in curves.items():
        sizes, values, _ = curve.ordered()
        if len(values):
            i = int(np.argmax(values) if largest else np.argmin(values))
            if best is None or (values[i] > best[0] if largest else values[i] < best[0]):
                best = (float(values[i]), float(sizes[i]), key)
    if best is None:
        return ""
    value, size, key = best
    axes.plot(
        size, value, "o", markersize=14, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.4, zorder=5
    )
    shown = number(round(value, 4) if abs(value) < 100 else round(value))
    return f"{shown} at {number(size)}" + (f" ({key})" if key and len(curves) > 1 else "")


def _beside(axes: Axes, x: float, text: str) -> None:
    """A short text at the top of the vertical line ``x``."""
    axes.annotate(
        text, (x, 1), (6, -4), xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=TICK_SIZE + 0.5, color=INK,
        va="top", bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip


def _has_errors(curves: Mapping[str, Curve]) -> bool:
    """Whether any curve carries a standard error above zero."""
    return any(c.errors is not None and np.any(np.nan_to_num(np.asarray(c.errors, float)) > 0) for c in curves.values())


def _still_falling(curve: Curve) -> bool:
    """Whether the lowest value is at the largest size."""
    values = curve.ordered()[1]
    return len(values) > 2 and int(np.argmin(values)) == len(values) - 1


def _compact(value: float, _position: object = None) -> str:
    """Tick labels such as ``0.15``, ``12,500`` or ``3.2M``."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:,.4g}M"
    if size >= 1e4:
        return f"{value:,.0f}"
    return f"{value:,.4g}"
