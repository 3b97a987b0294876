"""Modes of the density of a sample: their number, the rows of each, and their prominence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

# Neighbours per density estimate: n^0.4, the order of the optimal rate in few dimensions, within these limits.
NEIGHBOURS = (10, 30)
# Smaller modes (share of rows, or one neighbourhood) are not counted.
MIN_SHARE = 0.01
# Threshold in units of sqrt(2 log(n / k) / k), the size of the largest of n / k Poisson fluctuations of a log count. Uniform,
# Gaussian, heavy-tailed, skewed and ring-shaped clouds of 200 to 4,000 rows stay below 1.2 of it in up to two dimensions,
# below 0.7 from three on (`tests/test_modes.py` repeats the simulation).
THRESHOLD = {2.0: 1.5, 3.0: 1.0}
# A mode of less than a tenth of the rows of the largest one is not counted (bounded columns have such bumps in their
# corners), unless it is well separated: its peak has 8 times as many rows around it as the saddle, or most of its rows.
BUMP_SHARE, BUMP_RATIO, BUMP_INSIDE = 0.1, 8.0, 0.8


@dataclass(frozen=True)
class Modes:
    """Modes of a density.

    ``labels`` (n_samples,) int64: the mode of each row, -1 for rows of modes that are too small to count. ``prominence``
    (n_modes,) float64: log of how many times more rows the mode's peak has around it than the highest saddle towards a denser
    mode has in a ball of the same radius; infinite for the densest mode and for modes without a saddle. ``radius`` (n_samples,)
    float64: distance to the k-th neighbour, k = ``n_neighbors``. ``dimension``: median local dimension of the rows.
    """

    labels: np.ndarray
    prominence: np.ndarray
    radius: np.ndarray
    n_neighbors: int
    dimension: float

    @property
    def n_modes(self) -> int:
        """Number of modes."""
        return len(self.prominence)


def n_neighbors(n_rows: int) -> int:
    """Neighbours per density estimate for a sample of that many rows."""
    return int(np.clip(round(n_rows**0.4), *NEIGHBOURS))


def threshold(n_rows: int, k: int, dimension: float) -> float:
    """The minimum prominence of a mode that is not a random fluctuation of a unimodal density."""
    factor = float(np.interp(dimension, list(THRESHOLD), list(THRESHOLD.values())))
    return factor * float(np.sqrt(2 * np.log(max(n_rows / k, 2.0)) / k))


def find_modes(X: np.ndarray, *, min_prominence: float | None = None, smallest: int | None = None) -> Modes:
    """Modes of the density of X (n_samples, n_columns) float64, by ToMATo (Chazal, Guibas, Oudot and Skraba 2013).

    Rows are visited in order of decreasing density (distance to the k-th neighbour); each joins the densest mode among its neighbours in
    the symmetric k-nearest-neighbour graph. If two modes meet, the smaller is merged unless it is prominent: its peak has e^t times
    as many rows within the radius of the saddle as the saddle, where t is ``min_prominence``, by default `threshold`. Modes
    of fewer than ``smallest`` rows are not counted. The test counts rows instead of using radii to the power of the
    dimension, so it is also valid on curves and surfaces. X must have more rows than two neighbourhoods.
    """
    n = len(X)
    k = n_neighbors(n)
    distance, neighbor = _neighbors(X, 2 * k)
    radius = distance[:, k - 1]
    positive = radius > 0
    spread = np.median(distance[positive, 2 * k - 1] / radius[positive]) if positive.any() else 2.0
    dimension = min(float(np.log(2) / np.log(max(spread, 1.0 + 1e-9))), float(X.shape[1]))
    limit = threshold(n, k, dimension) if min_prominence is None else min_prominence
    smallest = smallest or max(k, round(MIN_SHARE * n))
    merging = _Merging(X, radius, k, limit, smallest)
    adjacent: list[list[int]] = [[] for _ in range(n)]
    for i, near in enumerate(neighbor[:, :k].tolist()):
        for j in near:
            adjacent[i].append(j)
            adjacent[j].append(i)
    for row in np.argsort(radius, kind="stable").tolist():
        merging.visit(row, adjacent[row])
    merging.merge_bumps()
    roots = np.array([merging.root(i) for i in range(n)])
    found, sizes = np.unique(roots, return_counts=True)
    kept = [int(q) for q, size in zip(found, sizes, strict=True) if size >= smallest]
    place = {q: i for i, q in enumerate(kept)}
    labels = np.array([place.get(int(q), -1) for q in roots])
    prominence = np.array([merging.prominence.get(q, np.inf) for q in kept])
    return Modes(labels, prominence, radius, k, dimension)


class _Merging:
    """Union-find forest of modes; the root of a tree is its densest row."""

    def __init__(self, X: np.ndarray, radius: np.ndarray, k: int, limit: float, smallest: int) -> None:
        self._X, self._radius, self._k, self._limit, self._smallest = X, radius, k, limit, smallest
        self._parent = [-1] * len(X)
        self._size = [0] * len(X)
        self._from_peak: dict[int, np.ndarray] = {}
        self._met: dict[int, tuple[int, int]] = {}
        self.prominence: dict[int, float] = {}

    def root(self, row: int) -> int:
        """The peak of the mode of a visited row."""
        parent = self._parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    def visit(self, row: int, neighbors: list[int]) -> None:
        """Add a row, and merge the modes that meet at it."""
        peaks = {self.root(j) for j in neighbors if self._parent[j] >= 0}
        self._parent[row], self._size[row] = row, 1
        if not peaks:
            return
        top, *others = sorted(peaks, key=lambda q: (self._radius[q], q))
        self._parent[row] = top
        self._size[top] += 1
        for peak in others:
            self._meet(top, peak, row)

    def _meet(self, top: int, peak: int, saddle: int) -> None:
        if self._size[peak] >= self._smallest:
            prominence = self._prominence(peak, saddle)
            if prominence > self._limit:
                self.prominence.setdefault(peak, prominence)
                self._met.setdefault(peak, (top, saddle))
                return
        self._parent[peak] = top
        self._size[top] += self._size[peak]

    def merge_bumps(self) -> None:
        """Merge each mode that is small compared to the largest one and not well separated from the mode that it met first."""
        sizes = Counter(self.root(i) for i in range(len(self._parent)))
        largest = max(sizes.values())
        for peak in sorted(self._met, key=lambda q: (sizes[q], q)):
            top, saddle = self._met[peak]
            apart = self._within(peak, saddle) >= min(BUMP_RATIO * self._k, BUMP_INSIDE * sizes[peak])
            if sizes[peak] < BUMP_SHARE * largest and not apart:
                self._parent[peak] = self.root(top)
                del self.prominence[peak]

    def _prominence(self, peak: int, saddle: int) -> float:
        return float(np.log(max(self._within(peak, saddle), 1) / self._k))

    def _within(self, peak: int, saddle: int) -> int:
        """Rows as near to the peak as the saddle's k-th neighbour is to the saddle."""
        if peak not in self._from_peak:
            self._from_peak[peak] = np.sort(np.sqrt(((self._X - self._X[peak]) ** 2).sum(axis=1)))
        return int(np.searchsorted(self._from_peak[peak], self._radius[saddle], side="right")) - 1


def _neighbors(X: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances and numbers (n_samples, k) of the nearest other rows."""
    from sklearn.neighbors import NearestNeighbors

    distance, neighbor = NearestNeighbors(n_neighbors=k + 1).fit(X).kneighbors(X)
    return distance[:, 1:], neighbor[:, 1:]
