"""Maps of the rows on two axes, coloured by cluster: every row is drawn, at any number of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gpuclust.analysis.members import Members
from gpuclust.model.preparation import Preparation, Projection
from gpuclust.pages.palette import cluster_color
from gpuclust.pages.raster import Frame, paint
from gpuclust.pages.text import count
from gpuclust.report.map_points import HeldPoints, StreamedPoints, points_of
from gpuclust.report.style import (
    add_bare_axes,
    cluster_key,
    cluster_tags,
    draw_axis_lines,
    heading,
    new_figure,
    pixels,
    repel,
)

RASTER_ABOVE = 50_000
"""Rows above which a map is a density raster of all rows rather than one mark per row."""
_CELL_PIXELS = 2
_MAX_TAGS = 40
_SHUFFLES, _GROUPS = 4, 32


def cluster_map(
    xy: Any,
    labels: Any,
    *,
    explained: Sequence[float] | None = None,
    names: Mapping[int, str] | None = None,
    axis_names: tuple[str, str] = ("first principal component", "second principal component"),
    quality: str = "",
) -> Figure:
    """Every row on two axes, usually the first two principal components, coloured by cluster.

    ``xy`` (n, 2 or more) as an array or as blocks of rows, ``labels`` (n,) with noise -1, ``explained`` the two axes' shares of variance, ``names`` of
    clusters; ``quality`` says how good the map is. Above 50,000 rows it is a density raster: each cell has its dominant cluster's colour, deeper where
    there are more rows.
    """
    labels = np.asarray(labels)
    points = points_of(xy, labels, RASTER_ABOVE)
    figure = new_figure(9.5, 5.4)
    axes = add_bare_axes(figure, 0.7, 0.6, 3.05, 0.75)
    frame = draw_rows(axes, points)
    x, y = axis_names if explained is None else with_share(axis_names, explained)
    draw_axis_lines(axes, x, y)
    tag_clusters(axes, points, frame)
    note = f"all {count(len(points))} rows{f' · {quality}' if quality else ''}"
    if len(points) > RASTER_ABOVE:
        note += " · colour: the cell's largest cluster, deeper where denser"
    if beyond := points.beyond(frame):
        note += f" · {count(beyond)} beyond the frame, at its edge"
    heading(figure, "Map of the clusters", note)
    clusters, shares = present_clusters(labels)
    cluster_key(figure, left=6.6, top=0.75, clusters=clusters, fractions=shares, names=names)
    return figure


def map_of(
    preparation: Preparation, coordinates: Any, labels: Any, metrics: Mapping[str, float], names: Mapping[int, str]
) -> Figure:
    """The map of a clustering, in the coordinates of its preparation; ``metrics`` are those of the run."""
    drawn = preparation.map_projection
    if isinstance(drawn, Projection):
        ratios = drawn.explained_variance_ratio
        explained = (float(ratios[0]), float(ratios[1]) if len(ratios) > 1 else 0.0)
        return cluster_map(coordinates, labels, explained=explained, names=names)
    axes, own = (f"{drawn.label} 1", f"{drawn.label} 2"), metrics.get("map_trustworthiness")
    quality = "" if own is None else f"trustworthiness {own:.3f}"
    if own is not None and (linear := metrics.get("map_trustworthiness_pca")) is not None:
        quality += f" (principal components {linear:.3f})"
    return cluster_map(coordinates, labels, axis_names=axes, names=names, quality=quality)


def present_clusters(labels: np.ndarray) -> tuple[list[int], dict[int, float]]:
    """The clusters that have rows, noise last, and each one's share of all rows."""
    sizes = Members(labels).sizes
    return list(sizes), {c: size / len(labels) for c, size in sizes.items()}


def draw_rows(axes: Axes, points: HeldPoints | StreamedPoints) -> Frame:
    """Draw every row into the axes: marks up to ``RASTER_ABOVE`` rows, a density raster beyond."""
    frame = points.frame()
    axes.set(xlim=(frame.x0, frame.x1), ylim=(frame.y0, frame.y1))
    if isinstance(points, StreamedPoints) or len(points) > RASTER_ABOVE:
        box = pixels(axes) / _CELL_PIXELS
        picture = paint(points.raster(frame, max(int(box[0]), 8), max(int(box[1]), 8)))
        axes.imshow(
            picture,
            origin="lower",
            extent=(frame.x0, frame.x1, frame.y0, frame.y1),
            aspect="auto",
            interpolation="nearest",
        )
    else:
        _draw_marks(axes, frame.clip(points.xy), points.labels)
    return frame


def with_share(axis_names: Sequence[str], explained: Sequence[float]) -> list[str]:
    """Axis names with their shares of variance."""
    return [f"{name} ({100 * share:.1f} %)" for name, share in zip(axis_names, explained[:2], strict=True)]


def _draw_marks(axes: Axes, xy: np.ndarray, labels: np.ndarray) -> None:
    """One mark per row. Rows are drawn in shuffled turns, so that no cluster always covers another.

    Each turn of each cluster is an artist, so where there are many clusters there are fewer turns.
    """
    n = len(xy)
    size = float(np.clip(220 / np.sqrt(max(n, 1)), 1.4, 6.0))
    n_turns = int(np.clip(_GROUPS // (labels.max(initial=0) + 1), 2, _SHUFFLES)) if n > 2000 else 1
    turns = np.random.default_rng(0).integers(0, n_turns, n)
    by = np.lexsort((labels, turns))
    turn_and_label = np.stack((turns[by], labels[by]))
    starts = np.flatnonzero(np.any(np.diff(turn_and_label, axis=1, prepend=-9) != 0, axis=0))
    for rows in np.split(by, starts[1:]) if n else []:
        marks = Line2D(
            xy[rows, 0],
            xy[rows, 1],
            linestyle="none",
            marker="o",
            markersize=size,
            markeredgewidth=0,
            color=cluster_color(int(labels[rows[0]])),
            alpha=0.75 if n > 500 else 0.9,
            gid="rows",
        )
        axes.add_artist(marks)  # not add_line, which looks at every row again for limits that are set


def tag_clusters(axes: Axes, points: HeldPoints | StreamedPoints, frame: Frame) -> None:
    """The number of each cluster (of the largest forty) at its row nearest its mean, moved apart where crowded."""
    clusters, at = points.central()
    clusters, at = clusters[:_MAX_TAGS], frame.clip(at[:_MAX_TAGS])
    if len(clusters) == 0:
        return
    box = pixels(axes)
    scale = box / (frame.x1 - frame.x0, frame.y1 - frame.y0)
    places = repel((at - (frame.x0, frame.y0)) * scale, 19.0, box)
    at = places / scale + (frame.x0, frame.y0)
    cluster_tags(axes, axes.transData, at[:, 0], at[:, 1], clusters.tolist())
