"""How every figure looks, and how it becomes a PNG: matplotlib's objects alone, no pyplot and no global state.

Figures are made and drawn in several threads at once, so nothing here is shared but the font tables, which are read
only.
"""

from __future__ import annotations

import struct
import zlib
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

from gpuclust.report.palette import INK, PAPER, cluster_color, ink_on
from gpuclust.report.text import cluster_label, cluster_title, one_line, percent
from gpuclust.report.text_collection import FONT, add, drawable, drawn_by, fit_two, wider_font, write

DPI = 100
"""Pixels per inch: a 9 x 5.4 inch figure is 900 x 540 pixels."""
QUIET = "#5F6770"
GRID = "#E4E7EB"
TITLE_SIZE, LABEL_SIZE, TICK_SIZE, NAME_SIZE = 11.5, 9.5, 8.5, 8.0

_TAG = Path.unit_rectangle().transformed(Affine2D().translate(-0.5, -0.5).scale(0.17))
KEY_STEP = 0.32
_LINE = "#AEB4BB"


def blank(width: float = 9.0, height: float = 5.4) -> Figure:
    """An empty white figure of ``width`` x ``height`` inches that draws with Agg."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def bare_panel(figure: Figure, left: float, bottom: float, right: float, top: float) -> Axes:
    """Axes without spines or ticks, with these margins in inches from the figure's four sides."""
    width, height = figure.get_size_inches()
    rect = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    axes = figure.add_axes(rect, facecolor=PAPER)
    axes.set_axis_off()
    return axes


def panel(figure: Figure, left: float, bottom: float, right: float, top: float) -> Axes:
    """Axes in the house style, with these margins in inches from the figure's four sides."""
    axes = bare_panel(figure, left, bottom, right, top)
    axes.set_axis_on()
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=_LINE, linewidth=0.8)
    axes.tick_params(labelsize=TICK_SIZE, labelcolor=INK, color=_LINE, length=3)
    axes.set_axisbelow(True)
    return axes


def pixels(axes: Axes) -> np.ndarray:
    """Width and height of the axes in pixels, (2,)."""
    return np.asarray(axes.bbox.size, dtype=float)


def inches(axes: Axes) -> Affine2D:
    """The transform from inches in the axes' figure."""
    figure = axes.get_figure()
    assert figure is not None
    return figure.dpi_scale_trans


def spread(points: np.ndarray, gap: float, box: np.ndarray, *, stretch: float = 1.0, rounds: int = 60) -> np.ndarray:
    """Points (k, 2) pushed apart until boxes of ``gap`` x ``gap * stretch`` (height, width) no longer overlap, in ``box``."""
    shape = np.array((stretch, 1.0))
    points = (points + np.arange(len(points))[:, None] * (1e-3, 1.7e-3)) / shape
    for _ in range(rounds):
        delta = points[:, None] - points[None]
        overlap = np.maximum(gap - np.abs(delta).max(axis=2), 0)
        np.fill_diagonal(overlap, 0)
        if not overlap.any():
            break
        length = np.maximum(np.linalg.norm(delta, axis=2), 1e-9)
        points = points + (delta / length[..., None] * overlap[..., None]).sum(axis=1) * 0.5
        points = np.clip(points, gap / 2, box / shape - gap / 2)
    return points * shape


def light_axes(
    axes: Axes, x: str = "", y: str = "", *, ticks: int = 9, horizontal: bool = True, vertical: bool = True
) -> None:
    """Axis lines, ticks and names for bare axes whose limits are set: matplotlib's own cost 40 ms a figure."""
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    inch, (wide, high) = inches(axes), pixels(axes) / DPI
    lines: list[list[tuple[float, float]]] = []
    if horizontal:
        at, drop = _ticks(x0, x1, ticks), 0.035 * (y1 - y0) / high
        lines += [[(x0, y0), (x1, y0)], *([(t, y0), (t, y0 - drop)] for t in at)]
        below = axes.transData + ScaledTranslation(0, -0.13, inch)
        write(axes, below, at, y0, _tick_texts(at), size=TICK_SIZE, ha="center")
    if vertical:
        at, reach = _ticks(y0, y1, ticks), 0.035 * (x1 - x0) / wide
        lines += [[(x0, y0), (x0, y1)], *([(x0, t), (x0 - reach, t)] for t in at)]
        beside = axes.transData + ScaledTranslation(-0.08, 0, inch)
        write(axes, beside, x0, at, _tick_texts(at), size=TICK_SIZE, ha="right")
    add(axes, LineCollection(lines, colors=_LINE, linewidths=0.8, zorder=3))
    if x:
        low = axes.transAxes + ScaledTranslation(0, -0.36, inch)
        write(axes, low, 0.5, 0.0, [x], size=LABEL_SIZE, ha="center")
    if y:
        left = axes.transAxes + ScaledTranslation(-0.56, 0, inch)
        write(axes, left, 0.0, 0.5, [y], size=LABEL_SIZE, ha="center", rotation=90)


def _ticks(low: float, high: float, n: int) -> np.ndarray:
    """At most about ``n`` round positions within ``low`` .. ``high``."""
    low, high = min(low, high), max(low, high)
    at = np.asarray(MaxNLocator(n, steps=[1, 2, 5, 10]).tick_values(low, high))
    return at[(at >= low) & (at <= high)]


def _tick_texts(at: np.ndarray) -> list[str]:
    """The positions as short numbers."""
    return [f"{0.0 if abs(t) < 1e-12 else t:,.6g}".replace("-", "−") for t in at]


def caption(axes: Axes, title: str = "", x: str = "", y: str = "", *, note: str = "") -> None:
    """Title at the left above the axes, a quiet note under it, and the names of both axes."""
    if x:
        axes.set_xlabel(plain(x, 90), fontsize=LABEL_SIZE, color=INK)
    if y:
        axes.set_ylabel(plain(y, 60), fontsize=LABEL_SIZE, color=INK)
    if title:
        lift = 20 if note else 8
        axes.annotate(
            plain(title, 110),
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
            plain(note, 150),
            (0, 1),
            (0, 6),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=TICK_SIZE,
            color=QUIET,
            annotation_clip=False,
        )


def heading(figure: Figure, title: str, note: str = "", *, left: float = 0.12) -> None:
    """Title and quiet note at the figure's top left corner."""
    top = figure.get_size_inches()[1]
    write(figure, figure.dpi_scale_trans, left, top - 0.28, [title], size=TITLE_SIZE, bold=True)
    if note:
        write(figure, figure.dpi_scale_trans, left, top - 0.52, [note], size=TICK_SIZE, color=QUIET)


def grid(axes: Axes, axis: str = "y") -> None:
    """Quiet grid lines across one axis (``x``, ``y`` or ``both``)."""
    axes.grid(visible=True, axis=axis, color=GRID, linewidth=0.8)  # type: ignore[arg-type]


def plain(text: object, limit: int | None = None) -> str:
    """Text from the data as a matplotlib ``Text`` may draw it: one line, no mathtext, no glyph that the fonts lack."""
    return drawable(one_line(text, limit)).replace("$", r"\$")


def to_png(figure: Figure) -> bytes:
    """The figure drawn as PNG bytes (RGB; lightly compressed, because speed matters more than a few kilobytes)."""
    canvas = figure.canvas
    if not isinstance(canvas, FigureCanvasAgg):
        canvas = FigureCanvasAgg(figure)
    _widen_fonts(figure)
    canvas.draw()
    return encode_png(np.asarray(canvas.buffer_rgba())[:, :, :3])


def encode_png(pixels: np.ndarray) -> bytes:
    """Pixels (height, width, 3) uint8 as a PNG of `DPI` dots an inch (ISO/IEC 15948).

    Rows are not filtered: charts are mostly flat, so that is smaller than what Pillow's filters give, in half the time.
    """
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row begins with its filter, 0: none
    rows[:, 1:] = pixels.reshape(height, -1)
    per_metre = round(DPI / 0.0254)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),  # 8 bits, RGB
        (b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1)),
        (b"IDAT", zlib.compress(rows.data, 1)),
        (b"IEND", b""),
    )
    parts = (struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def cluster_tags(parent: Axes | Figure, where: Transform, x: Any, y: Any, clusters: Sequence[int]) -> None:
    """Small squares in the clusters' colours with the clusters' numbers, centred at ``x``, ``y`` (each (m,))."""
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
    add(parent, squares)
    numbers = ["–" if c < 0 else cluster_label(c) for c in clusters]
    write(parent, where, x, y, numbers, size=7.5, color=[ink_on(c) for c in colors], ha="center")


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
    """Tag, name and share of each cluster, ``left`` inches from the figure's left edge at heights ``y`` (m,) inches."""
    inches, y = figure.dpi_scale_trans, np.asarray(y, dtype=float)
    cluster_tags(figure, inches, left + 0.09, y, clusters)
    shares = [percent(fractions.get(c, 0.0)) for c in clusters]
    above, below = [], []
    for cluster, share in zip(clusters, shares, strict=True):
        name, rest = fit_two(cluster_title(cluster, names), NAME_SIZE, width - 0.25, second_size=8.6)
        above.append(name)
        below.append(f"{rest} · {share}" if rest else share)
    write(figure, inches, left + 0.25, y + 0.065, above, size=NAME_SIZE)
    write(figure, inches, left + 0.25, y - 0.075, below, size=7, color=QUIET)


def cluster_key(
    figure: Figure,
    *,
    left: float,
    top: float,
    clusters: Sequence[int],
    fractions: Mapping[int, float],
    names: Mapping[int, str] | None,
) -> None:
    """A key of clusters (tag, name, share) as a column ``left`` and ``top`` inches from the figure's top left corner."""
    figure_width, height = figure.get_size_inches()
    room = int((height - top - 0.2) / KEY_STEP)
    shown = list(clusters[: room - 1] if len(clusters) > room else clusters)
    y = height - top - KEY_STEP * (np.arange(len(shown)) + 0.5)
    width = figure_width - left - 0.08
    cluster_rows(figure, left=left, y=y, clusters=shown, fractions=fractions, names=names, width=width)
    if len(shown) < len(clusters):
        rest = f"and {len(clusters) - len(shown):,} more clusters"
        write(figure, figure.dpi_scale_trans, left, height - top - KEY_STEP * (len(shown) + 0.5), [rest], color=QUIET)


def _widen_fonts(figure: Figure) -> None:
    """Let texts with characters that DejaVu lacks fall back on the wider font."""
    wider = wider_font()
    if wider is None:
        return
    narrow = drawn_by(FONT)
    for text in figure.findobj(Text):
        content = text.get_text()
        if not content.isascii() and any(ord(c) not in narrow for c in content):
            text.set_fontfamily([FONT, wider])
