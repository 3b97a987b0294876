"""The coordinates of Lloyd passes, and rows in them as tiles of transposed float32 values.

Coordinates are centred and scaled by a power of two: z = (x - origin) * scale, so that |z| <= 1. The origin and the ranges come from
one pass over all rows, merged in the fixed tree of their blocks (`gpuclust.runtime.blocks`), so a row has the same tile values wherever
it is, and in a sample of the rows too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from gpuclust.runtime.blocks import RowBlocks, Run
from gpuclust.runtime.jit import compiled
from gpuclust.runtime.nearest import ROWS, workspace
from gpuclust.runtime.threads import in_threads

MAX_CHUNKS = 64  # parts of a block whose moments are summed separately


class Frame(NamedTuple):
    """The coordinates z = (x - origin) * scale of a table, and the values that determine them."""

    origin: np.ndarray  # (n_features,) float64, the mean
    scale: float  # a power of two
    rounding: (
        np.ndarray
    )  # (n_features,) float64: (z + rounding) - rounding is z on a grid on which sums of all rows are exact
    variance: float  # mean over the features, unweighted as in scikit-learn
    sum_sq_norm: float  # unweighted sum of the squared norms

    @property
    def grid(self) -> float:
        """The norm of a row in which every value is one step of the grid; rounding to the grid moves a row by at most half of it."""
        return float(np.sqrt((np.spacing(self.rounding) ** 2).sum()))

    def to_tiled(self, centers: np.ndarray) -> np.ndarray:
        """Centres (n_clusters, n_features) float64 in these coordinates, from those of X."""
        return (np.asarray(centers, np.float64) - self.origin) * self.scale

    def from_tiled(self, centers: np.ndarray) -> np.ndarray:
        """Centres in the coordinates of X."""
        return centers / self.scale + self.origin


class Tiles(NamedTuple):
    """Rows in the coordinates of a frame, rounded to float32 and then to the grid of the frame."""

    values: np.ndarray  # float32, (n_tiles, n_features, ROWS) flattened; rows missing from the last tile are at zero
    max_norm: np.ndarray  # (n_tiles,) float64, the largest norm in a tile


@dataclass(frozen=True)
class BlockMoments:
    """Number, means, squared deviations and ranges of some rows. Two of them add up as in Chan, Golub and LeVeque (1983)."""

    n_rows: int
    mean: np.ndarray  # (n_features,) float64
    squares: np.ndarray  # (n_features,) float64, of the deviations from the mean, times scale²
    low: np.ndarray  # (n_features,) float64
    high: np.ndarray  # (n_features,) float64

    @property
    def scale(self) -> float:
        """The power of two that brings the widest range to at most 1, and its square within the range of float64."""
        return float(2.0 ** -math.frexp(float(np.max(self.high - self.low)))[1])

    def __add__(self, other: BlockMoments) -> BlockMoments:
        n_rows, low, high = (
            self.n_rows + other.n_rows,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )
        with np.errstate(over="ignore", invalid="ignore"):  # of values that `frame_of` refuses
            both = BlockMoments(n_rows, self.mean, self.squares, low, high)
            to_other, share = other.mean - self.mean, other.n_rows / n_rows
            squares = (to_other * both.scale) ** 2 * (self.n_rows * share)
            for part in (self, other):
                ratio = min(1.0, both.scale / part.scale)  # above 1 where the part is constant, without deviations
                squares = squares + part.squares * ratio * ratio
            return BlockMoments(n_rows, self.mean + to_other * share, squares, low, high)


@compiled(fastmath=False)  # NaN must be propagated, so that it can be refused
def _total(X, start, stop, total, low, high):  # type: ignore[no-untyped-def]
    """Add rows start to stop to total (n_chunks, n_features) float64, by chunks of them, and include them in low and high, of X's dtype."""
    n_chunks = len(total)
    for chunk in range(n_chunks):
        first, last = start + chunk * (stop - start) // n_chunks, start + (chunk + 1) * (stop - start) // n_chunks
        for r in range(first, last):
            for f in range(X.shape[1]):
                value = X[r, f]
                total[chunk, f] += value
                low[f] = min(low[f], value)
                high[f] = max(high[f], value)


@compiled()
def _add_squares(X, start, stop, origin, scale, squares):  # type: ignore[no-untyped-def]
    """Add ((x - origin) * scale)² of rows start to stop to squares (n_chunks, n_features), by chunks of whole tiles."""
    n_chunks, n_tiles = len(squares), -(-(stop - start) // ROWS)
    for chunk in range(n_chunks):
        first, last = start + chunk * n_tiles // n_chunks * ROWS, start + (chunk + 1) * n_tiles // n_chunks * ROWS
        for r in range(first, min(last, stop)):
            for f in range(X.shape[1]):
                z = (X[r, f] - origin[f]) * scale
                squares[chunk, f] += z * z


def block_moments(run: Run) -> list[BlockMoments]:
    """The moments of each block of a run. Where a block holds NaN or infinity, its mean is not finite."""
    X, edges = run.X, run.edges
    found: dict[int, BlockMoments] = {}

    def work(first: int, last: int) -> None:
        for i in range(first, last):
            with np.errstate(over="ignore", invalid="ignore"):
                found[i] = _moments(X, *edges[i])

    in_threads(len(edges), work)
    return [found[i] for i in range(len(edges))]


def _moments(X: np.ndarray, start: int, stop: int) -> BlockMoments:
    shape = (max(1, min(MAX_CHUNKS, -(-(stop - start) // ROWS))), X.shape[1])
    total, squares, low, high = np.zeros(shape), np.zeros(shape), X[start].copy(), X[start].copy()
    _total(X, start, stop, total, low, high)
    mean = total.sum(axis=0) / (stop - start)
    moments = BlockMoments(stop - start, mean, squares[0], low.astype(np.float64), high.astype(np.float64))
    if np.isfinite(mean).all():
        _add_squares(X, start, stop, mean, moments.scale, squares)
    return replace(moments, squares=squares.sum(axis=0))


def frame_of(blocks: RowBlocks) -> Frame:
    """The coordinates for a matrix, by one pass over it. Raises ValueError where it holds NaN or infinity."""
    moments: BlockMoments = blocks.reduce(block_moments)
    return frame_from(moments)


def frame_from(moments: BlockMoments) -> Frame:
    """The coordinates for rows with these moments. Raises ValueError where they hold NaN or infinity."""
    if not np.isfinite(moments.mean).all():
        raise ValueError("X holds NaN, infinity or values too large to add up")
    # Sums of n_rows multiples of 2^e / 2^(52 - log2(n_rows)), none above 2^e, are exact in float64, and have a bit to spare.
    widest = np.maximum(moments.high - moments.mean, moments.mean - moments.low) * moments.scale
    bits = max(2, math.ceil(math.log2(moments.n_rows)))
    rounding = np.ldexp(1.5, np.frexp(widest)[1] + bits)
    sum_sq_norm = float(moments.squares.sum())
    variance = sum_sq_norm / len(widest) / moments.n_rows
    return Frame(moments.mean, moments.scale, rounding, variance, sum_sq_norm)


@compiled(inner=True)
def fill_tile(X, start, n, origin, scale, rounding, norms, tile):  # type: ignore[no-untyped-def]
    """Fill a tile with n rows from row start on, and with zeros; their largest norm. ``norms`` (ROWS,) float32 is overwritten."""
    rows = X[start : start + n]
    for r in range(ROWS):
        norms[r] = 0
    for f in range(X.shape[1]):
        column, center, to_grid = tile[f * ROWS : (f + 1) * ROWS], origin[f], rounding[f]
        for r in range(n):
            value = np.float32((np.float32((rows[r, f] - center) * scale) + to_grid) - to_grid)
            column[r] = value
            norms[r] += value * value
        for r in range(n, ROWS):
            column[r] = 0
    largest = np.float32(0)
    for r in range(ROWS):
        largest = max(largest, norms[r])
    return math.sqrt(largest)


@compiled()
def _fill_tiles(X, origin, scale, rounding, norms, first, last, values, max_norm):  # type: ignore[no-untyped-def]
    size = X.shape[1] * ROWS
    for t in range(first, last):
        n = min(ROWS, len(X) - t * ROWS)
        max_norm[t] = fill_tile(X, t * ROWS, n, origin, scale, rounding, norms, values[t * size : (t + 1) * size])


def tile_rows(X: np.ndarray, frame: Frame) -> Tiles:
    """Tiles of a C-contiguous matrix (n_samples, n_features) in the coordinates of a frame."""
    n_tiles = -(-len(X) // ROWS)
    tiles = Tiles(workspace(n_tiles * X.shape[1] * ROWS, np.float32), np.empty(n_tiles))

    def fill(first: int, last: int) -> None:
        norms = workspace(ROWS, np.float32)
        _fill_tiles(X, frame.origin, frame.scale, frame.rounding, norms, first, last, *tiles)

    in_threads(n_tiles, fill)
    return tiles
