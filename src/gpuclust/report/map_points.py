"""The rows of a map: an array in memory, or blocks of rows on disk that are read several times. Both give the same map of all rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuclust.pages.raster import (
    CellCounts,
    Frame,
    Raster,
    central_rows,
    count_cells,
    frame_of,
    rasterize,
    span_between,
    span_ranks,
)
from gpuclust.runtime.blocks import RowBlocks, Run
from gpuclust.runtime.order_statistics import order_statistics
from gpuclust.runtime.passes import PerRow


class HeldPoints:
    """``xy`` (n, 2) and ``labels`` (n,) in memory."""

    def __init__(self, xy: np.ndarray, labels: np.ndarray) -> None:
        self.xy, self.labels = xy, labels

    def __len__(self) -> int:
        return len(self.xy)

    def frame(self) -> Frame:
        """The rectangle of the map."""
        return frame_of(self.xy)

    def beyond(self, frame: Frame) -> int:
        """The number of rows outside the rectangle."""
        return frame.beyond(self.xy)

    def raster(self, frame: Frame, width: int, height: int) -> Raster:
        """All rows by cell and cluster."""
        return rasterize(self.xy, self.labels, frame, width, height)

    def central(self) -> tuple[np.ndarray, np.ndarray]:
        """Clusters (ascending, without noise), and for each the position (2,) of its row nearest its mean."""
        return central_rows(self.xy, self.labels)


class StreamedPoints:
    """``coordinates`` (n, 2 or more) float32 in blocks, ``labels`` (n,) in memory."""

    def __init__(self, coordinates: RowBlocks, labels: np.ndarray) -> None:
        self._blocks, self._labels = coordinates, labels
        self._n_labels = int(labels.max(initial=-1)) + 2

    def __len__(self) -> int:
        return len(self._blocks)

    def frame(self) -> Frame:
        """The rectangle of the map."""
        values = order_statistics(self._blocks, np.array(span_ranks(len(self))))
        (x0, x1), (y0, y1) = (span_between(*values[:, axis].tolist()) for axis in (0, 1))
        return Frame(x0, x1, y0, y1)

    def beyond(self, frame: Frame) -> int:
        """The number of rows outside the rectangle."""
        return sum(self._blocks.collect(_beyond, frame))

    def raster(self, frame: Frame, width: int, height: int) -> Raster:
        """All rows by cell and cluster."""
        found: CellCounts = self._blocks.reduce(_cells, PerRow(self._labels), frame, width, height, self._n_labels)
        return found.raster(frame)

    def central(self) -> tuple[np.ndarray, np.ndarray]:
        """Clusters (ascending, without noise), and for each the position (2,) of its row nearest its mean."""
        sums = self._blocks.reduce(_sums, PerRow(self._labels), self._n_labels)
        mean = sums[:, :2] / np.maximum(sums[:, 2:], 1)
        found = self._blocks.collect(_nearest, PerRow(self._labels), mean)
        clusters = np.concatenate([c for c, _, _ in found])
        gaps, places = np.concatenate([g for _, g, _ in found]), np.concatenate([p for _, _, p in found])
        order = np.lexsort((np.arange(len(gaps)), gaps, clusters))
        present, first = np.unique(clusters[order], return_index=True)
        return present, places[order[first]]


def points_of(xy: Any, labels: np.ndarray, held: int) -> HeldPoints | StreamedPoints:
    """The rows of a map on the first two columns of ``xy``. Blocks of at most ``held`` rows are taken into memory."""
    if isinstance(xy, RowBlocks):
        if len(xy) > held:
            return StreamedPoints(xy, labels)
        xy = xy.take(np.arange(len(xy)))
    return HeldPoints(np.asarray(xy)[:, :2], labels)


def _beyond(run: Run, frame: Frame) -> int:
    return frame.beyond(run.X[:, :2])


def _cells(run: Run, labels: PerRow, frame: Frame, width: int, height: int, n_labels: int) -> list[CellCounts]:
    own = labels.of(run)
    return [count_cells(run.X[a:b, :2], own[a:b], frame, width, height, n_labels) for a, b in run.edges]


def _sums(run: Run, labels: PerRow, n_labels: int) -> list[np.ndarray]:
    """For each block the sums of the two columns and the number of rows of each cluster: (n_clusters, 3)."""
    found = []
    for start, stop in run.edges:
        own = labels.of(run)[start:stop] + 1
        sums = [np.bincount(own, weights=run.X[start:stop, j], minlength=n_labels) for j in (0, 1)]
        found.append(np.stack([*sums, np.bincount(own, minlength=n_labels)], axis=1)[1:])
    return found


def _nearest(run: Run, labels: PerRow, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The clusters of a run, the squared distance of the row nearest the mean of each, and the row's position."""
    own = labels.of(run)
    rows = np.flatnonzero(own >= 0)
    points = run.X[rows, :2].astype(np.float64)
    gaps = ((points - mean[own[rows]]) ** 2).sum(axis=1)
    order = np.lexsort((gaps, own[rows]))
    clusters, first = np.unique(own[rows][order], return_index=True)
    return clusters, gaps[order[first]], points[order[first]]
