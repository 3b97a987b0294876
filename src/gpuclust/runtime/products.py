"""The nearest two of many centres in many dimensions, by matrix products: the results of `gpuclust.runtime.nearest`, to the bit.

Products of float32 matrices give scores with a known rounding error. Only the centres that may be among the nearest two by their scores are
compared by the distances of `nearest_two`, which are sums of squared differences in float64, feature after feature.

`fill_products` is as fast as a BLAS on 64 features or more, takes any rows of a matrix without a copy, and runs in the threads of
`gpuclust.runtime.threads`, so that no second pool of threads competes for the cores.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gpuclust.runtime.jit import compiled
from gpuclust.runtime.nearest import FAR, GROUP, ROWS, Assignment, nearest_two, padded, workspace
from gpuclust.runtime.threads import in_threads

UNIT = 2.0**-24  # the unit roundoff of float32
STRIP = 64  # columns of products whose two least scores are found together
PAIRS = 8  # distances that are summed at once
BUFFER = 4096  # pairs of a row and a centre whose distances are summed together
MAX_SQUARE = 1e60  # of a row's squared norm: products do not overflow


def products_pay(n_features: int, n_centers: int) -> bool:
    """Whether `nearest_centers` is faster by products (experiments/bench/dimensions.py)."""
    return n_features >= (64 if n_centers >= 64 else 128)


@compiled(inner=True, fastmath={"contract", "nnan", "nsz", "reassoc"})
def fill_products(values, rows, n, centers, products):  # type: ignore[no-untyped-def]
    """products[c, i] = the product of centre c and row rows[i] of values, for i < n, a multiple of GROUP; float32.

    ``values`` (n_rows, n_features) and ``centers`` (n_padded, n_features) are float32. Sixteen sums at once stay in registers.
    """
    for i in range(0, n, GROUP):
        x0, x1, x2, x3 = values[rows[i]], values[rows[i + 1]], values[rows[i + 2]], values[rows[i + 3]]
        for c in range(0, len(centers), GROUP):
            c0, c1, c2, c3 = centers[c], centers[c + 1], centers[c + 2], centers[c + 3]
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = np.float32(0)
            d0 = d1 = d2 = d3 = e0 = e1 = e2 = e3 = np.float32(0)
            for f in range(len(x0)):
                a0 += x0[f] * c0[f]
                a1 += x0[f] * c1[f]
                a2 += x0[f] * c2[f]
                a3 += x0[f] * c3[f]
                b0 += x1[f] * c0[f]
                b1 += x1[f] * c1[f]
                b2 += x1[f] * c2[f]
                b3 += x1[f] * c3[f]
                d0 += x2[f] * c0[f]
                d1 += x2[f] * c1[f]
                d2 += x2[f] * c2[f]
                d3 += x2[f] * c3[f]
                e0 += x3[f] * c0[f]
                e1 += x3[f] * c1[f]
                e2 += x3[f] * c2[f]
                e3 += x3[f] * c3[f]
            p0, p1, p2, p3 = products[c], products[c + 1], products[c + 2], products[c + 3]
            p0[i], p1[i], p2[i], p3[i] = a0, a1, a2, a3
            p0[i + 1], p1[i + 1], p2[i + 1], p3[i + 1] = b0, b1, b2, b3
            p0[i + 2], p1[i + 2], p2[i + 2], p3[i + 2] = d0, d1, d2, d3
            p0[i + 3], p1[i + 3], p2[i + 3], p3[i + 3] = e0, e1, e2, e3


@compiled(inner=True, fastmath={"contract", "nnan", "nsz", "reassoc"})
def dot(row, center):  # type: ignore[no-untyped-def]
    """The product of two float32 vectors, in float32."""
    total = np.float32(0)
    for f in range(len(row)):
        total += row[f] * center[f]
    return total


@compiled(inner=True, fastmath={"contract", "nnan", "nsz", "reassoc"})
def dot_four(values, i, j, k, m, center):  # type: ignore[no-untyped-def]
    """The products of four rows of values (n_rows, n_features) float32 with a vector, in float32."""
    a, b, c, d = values[i], values[j], values[k], values[m]
    p = q = r = s = np.float32(0)
    for f in range(len(center)):
        p += a[f] * center[f]
        q += b[f] * center[f]
        r += c[f] * center[f]
        s += d[f] * center[f]
    return p, q, r, s


@compiled(inner=True)
def merge_products(products, half_norms, n, lows, highs, nearest):  # type: ignore[no-untyped-def]
    """The two least scores |c|²/2 - x·c of n rows, and the centre of the least, from products x·c (n_padded, ROWS).

    They order centres as their distances do. lows, highs (ROWS,) float32 and nearest (ROWS,) int32; the lower index wins a tie.
    """
    for at in range(0, n, STRIP):
        low, high, index = lows[at : at + STRIP], highs[at : at + STRIP], nearest[at : at + STRIP]
        for r in range(STRIP):
            low[r], high[r], index[r] = FAR, FAR, 0
        for c in range(0, len(products), GROUP):
            n0, n1, n2, n3 = half_norms[c], half_norms[c + 1], half_norms[c + 2], half_norms[c + 3]
            p0, p1 = products[c, at : at + STRIP], products[c + 1, at : at + STRIP]
            p2, p3 = products[c + 2, at : at + STRIP], products[c + 3, at : at + STRIP]
            i0, i1, i2, i3 = np.int32(c), np.int32(c + 1), np.int32(c + 2), np.int32(c + 3)
            for r in range(STRIP):
                least, second, best = low[r], high[r], index[r]
                value = n0 - p0[r]
                best = i0 if value < least else best
                second = min(second, max(least, value))
                least = min(least, value)
                value = n1 - p1[r]
                best = i1 if value < least else best
                second = min(second, max(least, value))
                least = min(least, value)
                value = n2 - p2[r]
                best = i2 if value < least else best
                second = min(second, max(least, value))
                least = min(least, value)
                value = n3 - p3[r]
                best = i3 if value < least else best
                second = min(second, max(least, value))
                least = min(least, value)
                low[r], high[r], index[r] = least, second, best


def score_error(n_features: int, largest: float) -> tuple[float, float]:
    """(a, b) so that two scores of a row z differ from their exact difference by at most half of a |z| + b, whatever the order of the sums.

    ``largest`` is the largest norm of the centres. Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1: each score is wrong
    by at most (n_features + 6) units of |z||c| + |c|²/2, rounding of z and c to float32 included.
    """
    unit = 4 * (n_features + 6) * UNIT
    return unit * largest, unit * largest * largest / 2 + 1e-36


@compiled(inner=True, fastmath={"contract", "nnan", "nsz", "reassoc"})
def square_norm(row):  # type: ignore[no-untyped-def]
    """The squared norm of a float32 row, in float64."""
    total = 0.0
    for f in range(len(row)):
        total += np.float64(row[f]) * np.float64(row[f])
    return total


@compiled(inner=True)
def _sum_pairs(X, centers, rows, columns, n, found):  # type: ignore[no-untyped-def]
    """found[:n] = the squared distances of pairs of a row and a centre, each summed feature after feature, as `fill_squares` does."""
    for p in range(n, -(-n // PAIRS) * PAIRS):
        rows[p], columns[p] = rows[n - 1], columns[n - 1]
    for p in range(0, n, PAIRS):
        x0, x1, x2, x3 = X[rows[p]], X[rows[p + 1]], X[rows[p + 2]], X[rows[p + 3]]
        x4, x5, x6, x7 = X[rows[p + 4]], X[rows[p + 5]], X[rows[p + 6]], X[rows[p + 7]]
        c0, c1, c2, c3 = centers[columns[p]], centers[columns[p + 1]], centers[columns[p + 2]], centers[columns[p + 3]]
        c4, c5, c6, c7 = (centers[columns[p + 4]], centers[columns[p + 5]], centers[columns[p + 6]],
                          centers[columns[p + 7]])  # fmt: skip
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
        for f in range(X.shape[1]):
            s0 += (x0[f] - c0[f]) * (x0[f] - c0[f])
            s1 += (x1[f] - c1[f]) * (x1[f] - c1[f])
            s2 += (x2[f] - c2[f]) * (x2[f] - c2[f])
            s3 += (x3[f] - c3[f]) * (x3[f] - c3[f])
            s4 += (x4[f] - c4[f]) * (x4[f] - c4[f])
            s5 += (x5[f] - c5[f]) * (x5[f] - c5[f])
            s6 += (x6[f] - c6[f]) * (x6[f] - c6[f])
            s7 += (x7[f] - c7[f]) * (x7[f] - c7[f])
        found[p], found[p + 1], found[p + 2], found[p + 3] = s0, s1, s2, s3
        found[p + 4], found[p + 5], found[p + 6], found[p + 7] = s4, s5, s6, s7


@compiled(inner=True)
def _keep_best(rows, columns, found, n, out):  # type: ignore[no-untyped-def]
    """Merge the squared distances of pairs, ordered by row and centre, into the two least of their rows."""
    labels, first, second = out
    for p in range(n):
        row, value = rows[p], found[p]
        if p == 0 or rows[p - 1] != row:
            labels[row], first[row], second[row] = 0, FAR, FAR
        if value < first[row]:
            labels[row], first[row], second[row] = columns[p], value, first[row]
        elif value < second[row]:
            second[row] = value
        if p == n - 1 or rows[p + 1] != row:
            first[row], second[row] = math.sqrt(first[row]), math.sqrt(second[row])


class ProductWorkspace(NamedTuple):
    """Arrays that one thread of `_assign_candidates` writes to."""

    values: np.ndarray  # (ROWS, n_features) float32
    numbers: np.ndarray  # (ROWS,) int64, 0 to ROWS - 1
    squares: np.ndarray  # (ROWS,) float64
    products: np.ndarray  # (n_padded, ROWS) float32
    lows: np.ndarray  # (ROWS,) float32
    highs: np.ndarray  # (ROWS,) float32
    nearest: np.ndarray  # (ROWS,) int32
    rows: np.ndarray  # (n_pairs,) int64, of pairs of a row and a centre
    columns: np.ndarray  # (n_pairs,) int64, the centres
    found: np.ndarray  # (n_pairs,) float64, their squared distances


def _workspace(n_features: int, n_centers: int) -> ProductWorkspace:
    n_pairs = max(BUFFER, n_centers) + PAIRS
    return ProductWorkspace(
        np.zeros((ROWS, n_features), np.float32), np.arange(ROWS), np.empty(ROWS),
        np.zeros((-(-n_centers // GROUP) * GROUP, ROWS), np.float32),
        workspace(ROWS, np.float32), workspace(ROWS, np.float32), workspace(ROWS, np.int32),
        np.empty(n_pairs, np.int64), np.empty(n_pairs, np.int64), np.empty(n_pairs),
    )  # fmt: skip


class ScaledCenters(NamedTuple):
    """Centres about their mean, scaled by a power of two to at most 1, for products."""

    exact: np.ndarray  # (n_centers, n_features) float64, as they were given
    origin: np.ndarray  # (n_features,) float64
    scale: float
    float32: np.ndarray  # (n_padded, n_features)
    half_norms: np.ndarray  # (n_padded,) float32, |c|²/2, or FAR for the padding
    error: tuple[float, float]  # see `score_error`


def scaled_centers(centers: np.ndarray) -> ScaledCenters:
    """Centres (n_centers, n_features) float64 made ready for products."""
    origin = centers.mean(axis=0)
    scale = 2.0 ** -int(np.frexp(np.abs(centers - origin).max())[1])
    scaled = padded((centers - origin) * scale)
    norms = (scaled * scaled).sum(axis=1)
    half_norms = np.where(np.arange(len(scaled)) < len(centers), norms / 2, FAR).astype(np.float32)
    error = score_error(centers.shape[1], math.sqrt(norms.max()))
    return ScaledCenters(centers, origin, scale, scaled.astype(np.float32), half_norms, error)


@compiled()
def _assign_candidates(X, start, stop, prepared, scratch, out):  # type: ignore[no-untyped-def]
    """Fill `out` for at most ROWS rows; False, and nothing is filled, where products could overflow."""
    centers, origin, scale, centers32, half_norms, error = prepared
    values, numbers, squares, products, lows, highs, nearest, rows, columns, found = scratch
    n, n_pairs, n_centers = stop - start, 0, len(centers)
    for i in range(n):
        for f in range(X.shape[1]):
            values[i, f] = (X[start + i, f] - origin[f]) * scale
        squares[i] = square_norm(values[i])
        if not squares[i] < MAX_SQUARE:
            return False
    fill_products(values, numbers, -(-n // GROUP) * GROUP, centers32, products)
    merge_products(products, half_norms, n, lows, highs, nearest)
    for i in range(n):
        limit = highs[i] + np.float32(error[0] * math.sqrt(squares[i]) + error[1])
        if n_pairs + n_centers > len(rows) - PAIRS:
            _sum_pairs(X, centers, rows, columns, n_pairs, found)
            _keep_best(rows, columns, found, n_pairs, out)
            n_pairs = 0
        for c in range(n_centers):
            rows[n_pairs], columns[n_pairs] = start + i, c
            n_pairs += half_norms[c] - products[c, i] <= limit
    _sum_pairs(X, centers, rows, columns, n_pairs, found)
    _keep_best(rows, columns, found, n_pairs, out)
    return True


def nearest_centers(X: np.ndarray, centers: np.ndarray) -> Assignment:
    """As `nearest_two`, by matrix products where that is faster."""
    if not products_pay(X.shape[1], len(centers)):
        return nearest_two(X, centers)
    prepared = scaled_centers(centers)
    out = Assignment(np.empty(len(X), np.int32), np.empty(len(X)), np.empty(len(X)))

    def run(first: int, last: int) -> None:
        scratch = _workspace(X.shape[1], len(centers))
        for start in range(first * ROWS, min(last * ROWS, len(X)), ROWS):
            stop = min(start + ROWS, len(X))
            if not _assign_candidates(X, start, stop, prepared, scratch, out):
                for part, own in zip(out, nearest_two(X[start:stop], centers), strict=True):
                    part[start:stop] = own

    in_threads(-(-len(X) // ROWS), run)
    return out
