"""The Lloyd pass by matrix products, for rows of many features: the labels and statistics of `kernels_cpu`, to the bit.

Rows lie one after the other, and products of float32 matrices (`gpuclust.runtime.products`) give the scores. Where the best two are closer
than the rounding error could be, the centres that may be the nearest are compared in float64.

A row is compared only with the centres that may have come closer than its own, by the triangle inequality (Elkan, C. (2003), "Using the
triangle inequality to accelerate k-means", ICML): few after the first passes. Bounds are on the distances of
the rows themselves: they include the rounding of all that they are computed from.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gpuclust.algorithms.kmeans.kernels_cpu import Centers, ChunkStatistics, list_flagged
from gpuclust.algorithms.kmeans.tiled_matrix import Frame
from gpuclust.runtime.jit import compiled
from gpuclust.runtime.nearest import FAR, GROUP, ROWS, workspace
from gpuclust.runtime.products import UNIT, dot, dot_four, fill_products, merge_products, square_norm
from gpuclust.runtime.threads import in_threads

MIN_FEATURES = 192  # measured by experiments/bench/dimensions.py: with fewer, `lloyd_chunks` is as fast
DENSE_SHARE = 0.25  # of the pairs of a row and a centre: above it, all pairs are compared in groups


def use_products(n_features: int, n_clusters: int) -> bool:
    """Whether products and bounds pay for the largest fit of a batch, and its bounds take no more memory than the rows."""
    return n_features >= MIN_FEATURES and n_clusters <= n_features


class GridRows(NamedTuple):
    """Rows in the coordinates of a frame, as `Tiles` has them, but row by row."""

    values: np.ndarray  # (n_rows, n_features) float32
    squares: np.ndarray  # (n_rows,) float64, squared norms


class Bounds(NamedTuple):
    """Bounds on the distances of the rows of a run to the centres of its fits, for a pass that comes later.

    ``cum`` in the comments is how far a centre has moved in all passes before the bound was found. A bound now follows from ``cum`` now.
    """

    lower: np.ndarray  # (n_tiles, n_centers, ROWS) float32, a lower bound on the distance, plus cum
    upper: (
        np.ndarray
    )  # (n_fits, n_tiles * ROWS) float32, an upper bound on the distance to the row's own centre, minus cum


def make_bounds(n_rows: int, centers: Centers) -> Bounds:
    """Bounds that a first pass fills."""
    n_tiles = -(-n_rows // ROWS)
    lower = np.empty((n_tiles, len(centers.float64), ROWS), np.float32)
    return Bounds(lower, np.empty((len(centers.n_clusters), n_tiles * ROWS), np.float32))


def bound_bytes(n_clusters: int) -> int:
    """Bytes a row of the bounds of one fit."""
    return 4 * (-(-n_clusters // GROUP) * GROUP + 1)


@compiled()
def _fill_rows(X, origin, scale, rounding, start, stop, values, squares):  # type: ignore[no-untyped-def]
    for r in range(start, stop):
        for f in range(X.shape[1]):
            to_grid = rounding[f]
            values[r, f] = np.float32((np.float32((X[r, f] - origin[f]) * scale) + to_grid) - to_grid)
        squares[r] = square_norm(values[r])


def grid_rows(X: np.ndarray, frame: Frame) -> GridRows:
    """All rows of a C-contiguous matrix (n_samples, n_features) in the coordinates of a frame."""
    found = GridRows(np.empty(X.shape, np.float32), np.empty(len(X)))
    in_threads(
        len(X),
        lambda first, last: _fill_rows(X, frame.origin, frame.scale, frame.rounding, first, last, *found),
    )
    return found


class ProductScratch(NamedTuple):
    """Arrays that one thread of `product_chunks` writes to, for one tile and one fit."""

    squares: np.ndarray  # (ROWS,) float32, squared norms of the rows of the tile
    products: np.ndarray  # (n_padded, ROWS) float32, -FAR for pairs that are not compared
    rows: np.ndarray  # (ROWS,) int64, the rows that are compared with more centres than their own
    pairs: np.ndarray  # (ROWS,) int64, the rows that are compared with one centre
    counts: np.ndarray  # (n_padded,) int64, the number of rows that are compared with each centre
    flags: np.ndarray  # (ROWS,) uint8
    words: np.ndarray  # (ROWS // 8,) uint64, the same memory
    busy: np.ndarray  # (ROWS // 8,) int64, words that are not 0
    own: np.ndarray  # (ROWS,) int32, the centre of each row's label
    nearest: np.ndarray  # (ROWS,) int32, the centre of the least score
    lows: np.ndarray  # (ROWS,) float32, the least score
    highs: np.ndarray  # (ROWS,) float32, the second least
    slack: np.ndarray  # (ROWS,) float32, how far a squared distance from a score may be off
    others: np.ndarray  # (ROWS,) float32, the least lower bound on the distance to another centre
    product: np.ndarray  # (ROWS,) float32, the product with the own centre
    limit: np.ndarray  # (ROWS,) float32, a bound on the distance to it, or -FAR for rows that are not listed


def _scratch(n_padded: int) -> ProductScratch:
    integers, floats = (tuple(workspace(ROWS, t) for _ in range(6)) for t in (np.int32, np.float32))
    flags = workspace(ROWS, np.uint8)
    return ProductScratch(
        workspace(ROWS, np.float32), np.zeros((n_padded, ROWS), np.float32),
        np.zeros(ROWS, np.int64), np.zeros(ROWS, np.int64), np.zeros(n_padded, np.int64),
        flags, flags.view(np.uint64), np.zeros(ROWS // 8, np.int64), *integers[:2], *floats,
    )  # fmt: skip


@compiled(inner=True)
def _nearest_exactly(X, row, origin, scale, centers, products, half_norms, column, limit):  # type: ignore[no-untyped-def]
    """As `kernels_cpu._assign_exactly`, among the centres whose score is at most `limit`."""
    nearest, least = 0, math.inf
    for c in range(len(centers)):
        if half_norms[c] - products[c, column] <= limit:
            square = 0.0
            for f in range(X.shape[1]):
                difference = (X[row, f] - origin[f]) * scale - centers[c, f]
                square += difference * difference
            if square < least:
                nearest, least = c, square
    return nearest


@compiled(inner=True)
def _transfer(values, mass, old, new, sums, masses, sizes):  # type: ignore[no-untyped-def]
    """Move a row of weight `mass` from cluster `old` to cluster `new` in the statistics of one chunk."""
    leave, enter = old * len(values), new * len(values)
    masses[old] -= mass
    masses[new] += mass
    sizes[old] -= 1
    sizes[new] += 1
    for f in range(len(values)):
        value = mass * values[f]
        sums[leave + f] -= value
        sums[enter + f] += value


@compiled(inner=True)
def _fill_slack(squares, bound, grid, slack):  # type: ignore[no-untyped-def]
    """How far |z|² + 2 score may be from the squared distance of the row itself, where z is the row on the grid."""
    for r in range(ROWS):
        norm = np.sqrt(squares[r])
        slack[r] = bound[0] * norm + bound[1] + 2 * norm * grid + 8 * UNIT * squares[r]


@compiled(inner=True)
def _lower_bound(square, score, slack, moved):  # type: ignore[no-untyped-def]
    below = max(np.float32(0), square + np.float32(2) * score - slack)
    return (np.sqrt(below) + moved) * np.float32(1 - 8 * UNIT)


@compiled(inner=True)
def _upper_bound(square, score, slack):  # type: ignore[no-untyped-def]
    above = max(np.float32(0), square + np.float32(2) * score + slack)
    return np.sqrt(above) * np.float32(1 + 8 * UNIT)


@compiled(inner=True)
def _compare_all(values, n_rows, centers, half_norms, moved, lower, scratch):  # type: ignore[no-untyped-def]
    """Compare all rows of a tile with all centres."""
    products, squares, slack = scratch.products, scratch.squares, scratch.slack
    n = -(-n_rows // GROUP) * GROUP
    for r in range(n):
        scratch.rows[r] = min(r, n_rows - 1)
    fill_products(values, scratch.rows, n, centers, products)
    merge_products(products[: len(centers)], half_norms, n_rows, scratch.lows, scratch.highs, scratch.nearest)
    for c in range(len(centers)):
        of_center, distances, norm, by = products[c], lower[c], half_norms[c], moved[c]
        for r in range(ROWS):
            distances[r] = _lower_bound(squares[r], norm - of_center[r], slack[r], by)


@compiled(inner=True)
def _list_open(values, n_rows, n_clusters, centers, half_norms, moved, lower, upper, scratch):  # type: ignore[no-untyped-def]
    """List the rows of a tile that another centre may be nearer to than their own, compared with their own; their number.

    First by the bounds alone, then with the distance to the own centre computed.
    """
    others, limit, own = scratch.others, scratch.limit, scratch.own
    for r in range(ROWS):
        others[r], limit[r] = FAR, -FAR
    for c in range(n_clusters):
        distances, by = lower[c], moved[c]
        for r in range(ROWS):
            others[r] = min(others[r], np.float32(FAR) if own[r] == c else distances[r] - by)
    count = 0
    for r in range(n_rows):
        c = own[r]
        by = moved[c]
        if (upper[r] + by) + np.float32(4 * UNIT) * (abs(upper[r]) + by) < others[r]:
            continue
        product = dot(values[r], centers[c])
        distance = _upper_bound(scratch.squares[r], half_norms[c] - product, scratch.slack[r])
        upper[r] = distance - by
        if distance * np.float32(1 + 4 * UNIT) < others[r]:
            continue
        limit[r], scratch.rows[count] = distance * np.float32(1 + 4 * UNIT), r
        count += 1
        scratch.product[r] = product
        scratch.lows[r], scratch.highs[r], scratch.nearest[r] = half_norms[c] - product, FAR, c
    return count


@compiled(inner=True)
def _n_pairs(n_clusters, moved, lower, scratch):  # type: ignore[no-untyped-def]
    """The number of pairs of a listed row and another centre that may be nearer than the row's own."""
    own, limit, total = scratch.own, scratch.limit, 0
    for c in range(n_clusters):
        distances, by, count = lower[c], moved[c], np.int32(0)
        for r in range(ROWS):
            count += np.int32(1) if (distances[r] - by <= limit[r]) & (own[r] != c) else np.int32(0)
        scratch.counts[c] = count
        total += count
    return total


@compiled(inner=True)
def _compare_pairs(values, n_clusters, centers, half_norms, moved, lower, scratch):  # type: ignore[no-untyped-def]
    """Compare the listed rows with the other centres that may be nearer than their own."""
    products, pairs, limit, own = scratch.products, scratch.pairs, scratch.limit, scratch.own
    lows, highs, nearest, flags = scratch.lows, scratch.highs, scratch.nearest, scratch.flags
    for c in range(n_clusters):
        of_center, product = products[c], scratch.product
        for r in range(ROWS):
            of_center[r] = product[r] if own[r] == c else np.float32(-FAR)
        if not scratch.counts[c]:
            continue
        distances, by = lower[c], moved[c]
        for r in range(ROWS):
            flags[r] = (distances[r] - by <= limit[r]) & (own[r] != c)
        count = list_flagged(flags, scratch.words, scratch.busy, pairs)
        for i in range(count, -(-count // GROUP) * GROUP):
            pairs[i] = pairs[count - 1]
        for i in range(0, count, GROUP):
            a, b, e, g = pairs[i], pairs[i + 1], pairs[i + 2], pairs[i + 3]
            of_center[a], of_center[b], of_center[e], of_center[g] = dot_four(values, a, b, e, g, centers[c])
        for i in range(count):
            r = pairs[i]
            product = of_center[r]
            value = half_norms[c] - product
            distances[r] = _lower_bound(scratch.squares[r], value, scratch.slack[r], by)
            if value < lows[r]:
                nearest[r], lows[r], highs[r] = c, value, lows[r]
            elif value < highs[r]:
                highs[r] = value


@compiled()
def product_chunks(  # type: ignore[no-untyped-def]
    X, weight, frame, kept, first, n_clusters, centers64, centers32, all_norms, error_bound, all_moved,
    all_sums, all_masses, all_sizes, scratch, fits, all_labels, bounds, unset, first_chunk, last_chunk,
):  # fmt: skip
    """As `lloyd_chunks`. frame is (origin, scale, grid), kept are `GridRows`, bounds are `Bounds`; centers32 is (n_centers,
    n_features); all_moved (n_centers,) float32 is how far the centres have moved in all passes, rounded up."""
    origin, scale, grid = frame
    n_rows, n_chunks, n_features = len(X), len(all_masses), X.shape[1]
    n_tiles = -(-n_rows // ROWS)
    rows, products, squares, slack = scratch.rows, scratch.products, scratch.squares, scratch.slack
    lows, highs, nearest = scratch.lows, scratch.highs, scratch.nearest
    for chunk in range(first_chunk, last_chunk):
        sums, masses, sizes = all_sums[chunk], all_masses[chunk], all_sizes[chunk]
        for fit in fits:
            for c in range(first[fit], first[fit] + n_clusters[fit]):
                masses[c], sizes[c] = 0, 0
                for f in range(n_features):
                    sums[c * n_features + f] = 0
        for t in range(chunk * n_tiles // n_chunks, (chunk + 1) * n_tiles // n_chunks):
            start = t * ROWS
            n = min(ROWS, n_rows - start)
            values = kept.values[start : start + n]
            for r in range(n):
                squares[r] = kept.squares[start + r]
            for fit in fits:
                c0, c1, k = first[fit], first[fit + 1], n_clusters[fit]
                centers, norms, moved = centers32[c0:c1], all_norms[c0:c1], all_moved[c0:c1]
                labels = all_labels[fit, start : start + n]
                lower, upper = bounds.lower[t, c0:c1], bounds.upper[fit, start : start + n]
                _fill_slack(squares, error_bound[fit], grid, slack)
                count = n
                dense = labels[0] == unset
                if not dense:
                    for r in range(n):
                        scratch.own[r] = labels[r]
                    count = _list_open(values, n, k, centers, norms, moved, lower, upper, scratch)
                    if count == 0:
                        continue
                    dense = _n_pairs(k, moved, lower, scratch) > DENSE_SHARE * k * n
                if dense:
                    _compare_all(values, n, centers, norms, moved, lower, scratch)
                    count = n
                else:
                    _compare_pairs(values, k, centers, norms, moved, lower, scratch)
                for i in range(count):
                    r = rows[i]
                    low, high, new, old = lows[r], highs[r], np.int64(nearest[r]), np.int64(labels[r])
                    margin = np.float32(error_bound[fit, 0] * math.sqrt(squares[r]) + error_bound[fit, 1])
                    if high - low <= margin:
                        exact = centers64[c0 : c0 + k]
                        new = _nearest_exactly(X, start + r, origin, scale, exact, products, norms, r, low + margin)
                    upper[r] = _upper_bound(squares[r], norms[new] - products[new, r], slack[r]) - moved[new]
                    if new == old:
                        continue
                    labels[r] = new
                    mass = weight[start + r] if len(weight) else 1.0
                    if mass > 0:
                        old = c0 + old if old != unset else first[-1]
                        _transfer(values[r], mass, old, c0 + new, sums, masses, sizes)


class ProductPass(NamedTuple):
    """What a pass labels: the rows of a run, the labels of its fits, and bounds for the next pass."""

    X: np.ndarray  # (n_rows, n_features)
    weight: np.ndarray  # (n_rows,) float64, or empty
    frame: Frame
    kept: GridRows
    centers: Centers
    moved: np.ndarray  # (n_centers,) float64, how far the centres have moved in all passes
    labels: np.ndarray  # (n_fits, n_tiles * ROWS)
    bounds: Bounds
    unset: int

    def run(self, fits: np.ndarray, chunks: ChunkStatistics) -> None:
        """Label the rows by the centres of `fits` (n_running,) int64; the changes of the statistics, by chunk of the rows."""
        frame, centers = self.frame, self.centers
        coordinates = (frame.origin, frame.scale, frame.grid)
        centers32 = centers.float32.reshape(centers.float64.shape)
        moved = np.nextafter(self.moved.astype(np.float32), np.float32(np.inf))
        widest = int(np.diff(centers.first)[fits].max())

        def work(first: int, last: int) -> None:
            product_chunks(
                self.X, self.weight, coordinates, self.kept, *centers[:3], centers32, *centers[4:6], moved, *chunks,
                _scratch(widest), fits, self.labels, self.bounds, self.unset, first, last,
            )  # fmt: skip

        in_threads(len(chunks.masses), work)
