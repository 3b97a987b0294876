"""A matrix made ready for passes over it: centred, scaled and cut into tiles of transposed float32 rows."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gpuclust.runtime.jit import compiled
from gpuclust.runtime.nearest import ROWS, workspace
from gpuclust.runtime.threads import in_threads


class TiledMatrix(NamedTuple):
    """A matrix made ready for Lloyd passes, in the coordinates z = (x - origin) * scale."""

    X: np.ndarray  # (n_samples, n_features) float32 or float64, C-contiguous
    weight: np.ndarray  # (n_samples,) float64, or empty where every row counts once
    origin: np.ndarray  # (n_features,) float64
    scale: float  # a power of two
    tiles: np.ndarray  # float32, (n_tiles, n_features, ROWS) flattened; rows missing from the last tile are at zero
    max_norm: np.ndarray  # (n_tiles,) float64, the largest norm in a tile
    variance: float  # mean over the features, unweighted as in scikit-learn
    sum_sq_norm: float  # weighted sum of the squared norms

    @property
    def n_chunks(self) -> int:
        """Parts of the matrix whose statistics are collected separately; depends on the number of rows alone."""
        return max(1, min(32, len(self.max_norm) // 8))

    def to_tiled(self, centers: np.ndarray) -> np.ndarray:
        """Centres (n_clusters, n_features) float64 in these coordinates, from those of X."""
        return (np.asarray(centers, np.float64) - self.origin) * self.scale

    def from_tiled(self, centers: np.ndarray) -> np.ndarray:
        """Centres in the coordinates of X."""
        return centers / self.scale + self.origin


@compiled(fastmath=False)  # NaN must be propagated, so that it can be refused
def _survey(X, start, stop, total, low, high):  # type: ignore[no-untyped-def]
    """Add rows start to stop to total (n_features,) float64 and include them in low and high (n_features,), of X's dtype."""
    for r in range(start, stop):
        for f in range(X.shape[1]):
            value = X[r, f]
            total[f] += value
            low[f] = min(low[f], value)
            high[f] = max(high[f], value)


@compiled()
def _fill_tiles(matrix, first, last, squares):  # type: ignore[no-untyped-def]
    """Fill tiles first to last and their norms; add the squares of each feature to squares (n_features,) float64.

    Returns the weighted sum of the squared norms.
    """
    X, weight, origin, scale, tiles, max_norm, _, _ = matrix
    n_rows, n_features = X.shape
    sum_sq_norm = 0.0
    for t in range(first, last):
        start = t * ROWS
        n = min(ROWS, n_rows - start)
        largest = 0.0
        for r in range(n):
            norm = 0.0
            for f in range(n_features):
                z = (X[start + r, f] - origin[f]) * scale
                tiles[(t * n_features + f) * ROWS + r] = z
                squares[f] += z * z
                norm += z * z
            largest = max(largest, norm)
            sum_sq_norm += norm * weight[start + r] if len(weight) else norm
        max_norm[t] = math.sqrt(largest)
    return sum_sq_norm


def tile_matrix(X: np.ndarray, weight: np.ndarray, like: TiledMatrix | None = None) -> TiledMatrix:
    """Centre, scale and tile a matrix (n_samples, n_features), in the coordinates of ``like`` if it is given.

    Raises ValueError where it holds NaN or infinity.
    """
    n_rows, n_features = X.shape
    n_tiles = -(-n_rows // ROWS)
    n_chunks = max(1, min(64, n_tiles))
    row_edges = [chunk * n_rows // n_chunks for chunk in range(n_chunks + 1)]
    tile_edges = [chunk * n_tiles // n_chunks for chunk in range(n_chunks + 1)]
    if like is None:
        total, low, high = np.zeros((n_chunks, n_features)), X[row_edges[:-1]], X[row_edges[:-1]]

        def survey(first: int, last: int) -> None:
            for chunk in range(first, last):
                start, stop = row_edges[chunk : chunk + 2]
                _survey(X, start, stop, total[chunk], low[chunk], high[chunk])

        in_threads(n_chunks, survey)
        if not np.isfinite(total).all():
            raise ValueError("X holds NaN, infinity or values too large to add up")
        widest = float(np.max(high.max(axis=0).astype(np.float64) - low.min(axis=0)))
        origin, scale = total.sum(axis=0) / n_rows, 2.0 ** -math.frexp(widest)[1]
    else:
        origin, scale = like.origin, like.scale
    tiles, max_norm = workspace(n_tiles * n_features * ROWS, np.float32), np.empty(n_tiles)
    matrix = TiledMatrix(X, weight, origin, scale, tiles, max_norm, 0.0, 0.0)
    squares, sum_sq_norm = np.zeros((n_chunks, n_features)), np.zeros(n_chunks)

    def fill(first: int, last: int) -> None:
        for chunk in range(first, last):
            sum_sq_norm[chunk] = _fill_tiles(matrix, *tile_edges[chunk : chunk + 2], squares[chunk])

    in_threads(n_chunks, fill)
    variance = float(squares.sum() / n_features / n_rows)
    return matrix._replace(variance=variance, sum_sq_norm=float(sum_sq_norm.sum()))
