"""A matrix made ready for passes over it: centred, scaled and cut into tiles of transposed float32 rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gpuclust.runtime.jit import compiled
from gpuclust.runtime.nearest import ROWS, workspace
from gpuclust.runtime.threads import in_threads


@compiled(fastmath=False)  # NaN must come through, to be refused
def _survey(X, start, stop, total, low, high):  # type: ignore[no-untyped-def]
    for r in range(start, stop):
        for f in range(X.shape[1]):
            value = X[r, f]
            total[f] += value
            low[f] = min(low[f], value)
            high[f] = max(high[f], value)


@compiled()
def _fill_tiles(X, weight, shift, scale, first, last, tiles, reach, squares):  # type: ignore[no-untyped-def]
    """Tiles first to last; returns the weighted sum of their squared norms."""
    n_rows, n_features = X.shape
    energy = 0.0
    for t in range(first, last):
        start = t * ROWS
        n = min(ROWS, n_rows - start)
        farthest = 0.0
        for r in range(n):
            norm = 0.0
            for f in range(n_features):
                z = (X[start + r, f] - shift[f]) * scale
                tiles[(t * n_features + f) * ROWS + r] = z
                squares[f] += z * z
                norm += z * z
            farthest = max(farthest, norm)
            energy += norm * weight[start + r] if len(weight) else norm
        reach[t] = math.sqrt(farthest)
    return energy


@dataclass(frozen=True)
class TiledMatrix:
    """A matrix made ready for Lloyd passes; `origin_scale` is the (shift, scale) of its coordinates z = (x - shift) * scale."""

    X: np.ndarray  # (n_samples, n_features) float32 or float64, C-contiguous
    weight: np.ndarray  # (n_samples,) float64, or empty where every row counts once
    origin_scale: tuple[np.ndarray, float]
    tiles: np.ndarray  # float32, (n_tiles, n_features, ROWS) flattened, rows missing from the last tile at zero
    max_norm: np.ndarray  # (n_tiles,) the largest norm in a tile
    variance: float  # mean over the features, unweighted as in scikit-learn
    sum_sq_norm: float  # weighted sum of the squared norms

    @property
    def n_chunks(self) -> int:
        """Parts of the matrix whose statistics are gathered apart; a matter of the number of rows alone."""
        return max(1, min(32, len(self.max_norm) // 8))


def tile_matrix(X: np.ndarray, weight: np.ndarray, frame: tuple[np.ndarray, float] | None = None) -> TiledMatrix:
    """Centre, scale and tile a matrix. Raises ValueError where it holds NaN or infinity."""
    n_rows, n_features = X.shape
    n_tiles = -(-n_rows // ROWS)
    n_chunks = max(1, min(64, n_tiles))
    row_edges = [chunk * n_rows // n_chunks for chunk in range(n_chunks + 1)]
    tile_edges = [chunk * n_tiles // n_chunks for chunk in range(n_chunks + 1)]
    if frame is None:
        total, low, high = np.zeros((n_chunks, n_features)), X[row_edges[:-1]], X[row_edges[:-1]]

        def survey(first: int, last: int) -> None:
            for chunk in range(first, last):
                start, stop = row_edges[chunk : chunk + 2]
                _survey(X, start, stop, total[chunk], low[chunk], high[chunk])

        in_threads(n_chunks, survey)
        if not np.isfinite(total).all():
            raise ValueError("X holds NaN, infinity or values too large to add up")
        widest = float(np.max(high.max(axis=0).astype(np.float64) - low.min(axis=0)))
        frame = (total.sum(axis=0) / n_rows, 2.0 ** -math.frexp(widest)[1])
    shift, scale = frame
    tiles, reach = workspace(n_tiles * n_features * ROWS, np.float32), np.empty(n_tiles)
    squares, energy = np.zeros((n_chunks, n_features)), np.zeros(n_chunks)

    def fill(first: int, last: int) -> None:
        for chunk in range(first, last):
            t0, t1 = tile_edges[chunk : chunk + 2]
            energy[chunk] = _fill_tiles(X, weight, shift, scale, t0, t1, tiles, reach, squares[chunk])

    in_threads(n_chunks, fill)
    return TiledMatrix(X, weight, frame, tiles, reach, float(squares.sum() / n_features / n_rows), float(energy.sum()))
