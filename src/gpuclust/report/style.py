"""The common style of all figures, and their export as PNG: matplotlib's objects alone, no pyplot and no global state.

Figures are drawn in several threads at once. The threads share only the font tables, which nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D, ScaledTranslation, Transform

from gpuclust.analysis.naming import percent
from gpuclust.pages.palette import INK, PAPER, cluster_color, ink_on
from gpuclust.pages.raster import encode_png
from gpuclust.pages.text import cluster_title, one_line
from gpuclust.report.text_collection import (
    FONT,
    add_unclipped,
    characters_of,
    draw_texts,
    fit_two,
    wider_font,
    with_known_glyphs,
)

DPI = 100
"""Pixels per inch: a 9 x 5.4 inch figure is 900 x 540 pixels."""
QUIET = "#5F6770"
GRID = "#E4E7EB"
TITLE_SIZE, LABEL_SIZE, TICK_SIZE, NAME_SIZE = 11.5, 9.5, 8.5, 8.0

_TAG = Path.unit_rectangle().transformed(Affine2D().translate(-0.5, -0.5).scale(0.17))
_KEY_STEP = 0.32
_SHARE = 0.48  # inches of the column of shares beside the names
_LINE = "#AEB4BB"


def new_figure(width: float = 9.0, height: float = 5.4) -> Figure:
    """An empty white figure of ``width`` x ``height`` inches that draws with Agg."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def add_bare_axes(figure: Figure, left: float, bottom: float, right: float, top: float) -> Axes:
    """Add axes without spines or ticks; the margins to the figure's four sides are in inches."""
    width, height = figure.get_size_inches()
    rect = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    axes = figure.add_axes(rect, facecolor=PAPER)
    axes.set_axis_off()
    return axes


def add_axes(figure: Figure, left: float, bottom: float, right: float, top: float) -> Axes:
    """Add axes with a left and a bottom spine and ticks; the margins to the figure's four sides are in inches."""
    axes = add_bare_axes(figure, left, bottom, right, top)
    axes.set_axis_on()
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=_LINE, linewidth=0.8)
    axes.tick_params(labelsize=TICK_SIZE, labelcolor=INK, color=_LINE, length=3)
    axes.set_axisbelow(True)
    return axes


def pixels(axes: Axes) -> np.ndarray:
    """Width and height of the axes in pixels, (2,) float64."""
    return np.asarray(axes.bbox.size, dtype=float)


def inches(axes: Axes) -> Affine2D:
    """The transform from inches to the pixels of the axes' figure."""
    figure = axes.get_figure()
    assert figure is not None
    return figure.dpi_scale_trans


def repel(points: np.ndarray, size: float, box: np.ndarray, *, max_rounds: int = 60) -> np.ndarray:
    """Move points (k, 2) apart until squares of ``size`` around them no longer overlap; they stay within ``box`` (2,)."""
    points = points + np.arange(len(points))[:, None] * (1e-3, 1.7e-3)
    for _ in range(max_rounds):
        delta = points[:, None] - points[None]
        overlap = np.maximum(size - np.abs(delta).max(axis=2), 0)
        np.fill_diagonal(overlap, 0)
        if not overlap.any():
            break
        length = np.maximum(np.linalg.norm(delta, axis=2), 1e-9)
        points = points + (delta / length[..., None] * overlap[..., None]).sum(axis=1) * 0.5
        points = np.clip(points, size / 2, box - size / 2)
    return points


def draw_axis_lines(axes: Axes, x: str, y: str) -> None:
    """Draw axis lines, ticks and axis names on bare axes whose limits are set.

    matplotlib's own axes would double the time that a map takes to draw (66 ms in place of 33 ms).
    """
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    inch, (wide, high) = inches(axes), pixels(axes) / DPI
    x_ticks, y_ticks = _ticks(x0, x1), _ticks(y0, y1)
    x_length, y_length = 0.035 * (x1 - x0) / wide, 0.035 * (y1 - y0) / high
    lines = [[(x0, y0), (x1, y0)], *([(t, y0), (t, y0 - y_length)] for t in x_ticks)]
    lines += [[(x0, y0), (x0, y1)], *([(x0, t), (x0 - x_length, t)] for t in y_ticks)]
    add_unclipped(axes, LineCollection(lines, colors=_LINE, linewidths=0.8, zorder=3))
    below = axes.transData + ScaledTranslation(0, -0.13, inch)
    draw_texts(axes, below, x_ticks, y0, _tick_texts(x_ticks), size=TICK_SIZE, ha="center")
    beside = axes.transData + ScaledTranslation(-0.08, 0, inch)
    draw_texts(axes, beside, x0, y_ticks, _tick_texts(y_ticks), size=TICK_SIZE, ha="right")
    low = axes.transAxes + ScaledTranslation(0, -0.36, inch)
    draw_texts(axes, low, 0.5, 0.0, [x], size=LABEL_SIZE, ha="center")
    left = axes.transAxes + ScaledTranslation(-0.56, 0, inch)
    draw_texts(axes, left, 0.0, 0.5, [y], size=LABEL_SIZE, ha="center", rotation=90)


def _ticks(low: float, high: float) -> np.ndarray:
    """Up to ten round positions within ``low`` .. ``high``."""
    at = np.asarray(MaxNLocator(9, steps=[1, 2, 5, 10]).tick_values(low, high))
    return at[(at >= low) & (at <= high)]


def _tick_texts(at: np.ndarray) -> list[str]:
    """The tick positions as text with at most six significant digits."""
    return [f"{0.0 if abs(t) < 1e-12 else t:,.6g}".replace("-", "−") for t in at]


def caption(axes: Axes, title: str = "", x: str = "", y: str = "", *, note: str = "") -> None:
    """Draw a bold title at the left above the axes, a grey note under it, and the names of both axes."""
    if x:
        axes.set_xlabel(safe_text(x, 90), fontsize=LABEL_SIZE, color=INK)
    if y:
        axes.set_ylabel(safe_text(y, 60), fontsize=LABEL_SIZE, color=INK)
    if title:
        lift = 20 if note else 8
        axes.annotate(
            safe_text(title, 110),
            (0, 1),
            (0, lift),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=TITLE_SIZE,
            fontweight="bold",
            color=INK,
            annotation_clip=False,
        )
    if note:
        axes.annotate(
            safe_text(note, 150),
            (0, 1),
            (0, 6),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=TICK_SIZE,
            color=QUIET,
            annotation_clip=False,
        )


def heading(figure: Figure, title: str, note: str = "", *, left: float = 0.12) -> None:
    """Draw a bold title and a grey note in the figure's top left corner."""
    top = figure.get_size_inches()[1]
    draw_texts(figure, figure.dpi_scale_trans, left, top - 0.28, [title], size=TITLE_SIZE, bold=True)
    if note:
        draw_texts(figure, figure.dpi_scale_trans, left, top - 0.52, [note], size=TICK_SIZE, color=QUIET)


def grid(axes: Axes, axis: str = "y") -> None:
    """Draw light grid lines across an axis (``x``, ``y`` or ``both``)."""
    axes.grid(visible=True, axis=axis, color=GRID, linewidth=0.8)  # type: ignore[arg-type]


def safe_text(text: object, limit: int | None = None) -> str:
    """Text from the data made safe for a matplotlib ``Text``: one line, no mathtext, no glyph that the fonts lack."""
    return with_known_glyphs(one_line(text, limit)).replace("$", r"\$")


def to_png(figure: Figure) -> bytes:
    """Draw the figure and return it as PNG bytes (RGB, compression level 1: fast, and a few kilobytes larger)."""
    canvas = figure.canvas
    if not isinstance(canvas, FigureCanvasAgg):
        canvas = FigureCanvasAgg(figure)
    _widen_fonts(figure)
    canvas.draw()
    return encode_png(np.asarray(canvas.buffer_rgba())[:, :, :3], dpi=DPI)


def cluster_tags(parent: Axes | Figure, where: Transform, x: Any, y: Any, clusters: Sequence[int]) -> None:
    """Draw small squares in the clusters' colours with the clusters' numbers, centred at ``x``, ``y`` (each (m,))."""
    colors = [cluster_color(c) for c in clusters]
    offsets = np.column_stack((np.broadcast_to(x, len(colors)), np.broadcast_to(y, len(colors)))).astype(float)
    squares = PathCollection(
        [_TAG],
        offsets=offsets,
        offset_transform=where,
        facecolors=colors,
        edgecolors=PAPER,
        linewidths=1.0,
        zorder=8,
    )
    squares.set_transform(parent.get_figure().dpi_scale_trans)  # type: ignore[union-attr]
    add_unclipped(parent, squares)
    numbers = ["–" if c < 0 else str(c) for c in clusters]
    draw_texts(parent, where, x, y, numbers, size=7.5, color=[ink_on(c) for c in colors], ha="center")


def cluster_rows(
    figure: Figure,
    *,
    left: float,
    y: Any,
    clusters: Sequence[int],
    fractions: Mapping[int, float],
    names: Mapping[int, str] | None,
    width: float,
) -> None:
    """Draw tag, name (on two lines where it is long) and share of each cluster, ``left`` inches from the figure's left edge, in
    ``width`` inches, at heights ``y`` (m,) inches."""
    inches, y = figure.dpi_scale_trans, np.asarray(y, dtype=float)
    cluster_tags(figure, inches, left + 0.09, y, clusters)
    cluster_names(figure, left=left + 0.25, y=y, clusters=clusters, names=names, width=width - 0.25 - _SHARE)
    shares = [percent(fractions.get(c, 0.0)) for c in clusters]
    draw_texts(figure, inches, left + width, y, shares, size=7, color=QUIET, ha="right")


def cluster_names(
    figure: Figure, *, left: float, y: Any, clusters: Sequence[int], names: Mapping[int, str] | None, width: float
) -> None:
    """Draw the names of clusters in at most ``width`` inches, on one line or two, at heights ``y`` (m,) inches."""
    texts = [fit_two(cluster_title(c, names), NAME_SIZE, width) for c in clusters]
    lift = np.array([0.07 if second else 0.0 for _, second in texts])
    for line, shift in ((0, lift), (1, np.full(len(texts), -0.07))):
        draw_texts(figure, figure.dpi_scale_trans, left, y + shift, [text[line] for text in texts], size=NAME_SIZE)


def cluster_key(
    figure: Figure,
    *,
    left: float,
    top: float,
    clusters: Sequence[int],
    fractions: Mapping[int, float],
    names: Mapping[int, str] | None,
) -> None:
    """Draw a legend of the clusters (tag, name, share), ``left`` and ``top`` inches from the figure's top left corner."""
    figure_width, height = figure.get_size_inches()
    room = int((height - top - 0.2) / _KEY_STEP)
    shown = list(clusters[: room - 1] if len(clusters) > room else clusters)
    y = height - top - _KEY_STEP * (np.arange(len(shown)) + 0.5)
    width = figure_width - left - 0.08
    cluster_rows(figure, left=left, y=y, clusters=shown, fractions=fractions, names=names, width=width)
    if len(shown) < len(clusters):
        rest = f"and {len(clusters) - len(shown):,} more clusters"
        draw_texts(
            figure, figure.dpi_scale_trans, left, height - top - _KEY_STEP * (len(shown) + 0.5), [rest], color=QUIET
        )


def _widen_fonts(figure: Figure) -> None:
    """Set a wider fallback font for texts with characters that DejaVu lacks."""
    wider = wider_font()
    if wider is None:
        return
    narrow = characters_of(FONT)
    for text in figure.findobj(Text):
        content = text.get_text()
        if not content.isascii() and any(ord(c) not in narrow for c in content):
            text.set_fontfamily([FONT, wider])
