"""Density-based clustering validation (DBCV), in full: for clusters of any shape, with noise."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuclust.model.records import NOISE
from gpuclust.runtime.backend import Progress

# Rows of a pairwise distance block; with columns of the same number, 32 MB of float64.
BLOCK = 2048


def dbcv(X: Any, labels: np.ndarray, *, progress: Progress = lambda _: None) -> float:
    """DBCV of Moulavi, Jaskowiak, Campello, Zimek and Sander (2014), in [-1, 1]; higher is better.

    X (n_samples, n_columns) on the host, Euclidean; ``labels`` (n_samples,) int32, noise -1. Per cluster: the core
    distance of each row from all rows of its cluster, the minimum spanning tree of mutual reachability, its longest edge
    between inner nodes (sparseness), and the least mutual reachability between inner nodes of two clusters (separation).
    Validity is weighted by the share of all rows, so noise costs its share. Needs memory for blocks only, and time of
    sum n_c^2 + n_inner^2. nan with fewer than two clusters of two or more rows.

    Differs from the paper where that is undefined: rows with an identical neighbour take it as at the smallest non-zero
    distance of the cluster, and a cluster of identical or of two rows has all its nodes as inner ones. Many edges have the
    same reachability: the shorter is taken, so that the tree, and the index, do not depend on the order of the rows.
    """
    X = np.asarray(X, dtype=np.float64)
    clusters = [np.flatnonzero(labels == c) for c in np.unique(labels[labels != NOISE])]
    clusters = [rows for rows in clusters if len(rows) >= 2]
    if len(clusters) < 2:
        return float("nan")
    work = float(sum(len(rows) ** 2 for rows in clusters))
    done = 0.0
    sparseness, inner_rows, inner_cores = [], [], []
    for rows in clusters:
        points = X[rows]
        core = core_distances(points)
        inner, longest = _inner(points, core)
        sparseness.append(longest)
        inner_rows.append(points[inner])
        inner_cores.append(core[inner])
        done += len(rows) ** 2
        progress(0.8 * done / work)
    separation = _separations(inner_rows, inner_cores)
    progress(1.0)
    scale = np.maximum(separation, sparseness)
    validity = np.divide(separation - np.array(sparseness), scale, out=np.zeros(len(scale)), where=scale > 0)
    return float(sum(len(rows) * v for rows, v in zip(clusters, validity, strict=True)) / len(labels))


def core_distances(points: np.ndarray) -> np.ndarray:
    """All-points core distance of each row of one cluster (n, d): the power mean of exponent -d of its distances."""
    n, d = points.shape
    log_sums = np.empty(n)
    smallest = np.inf
    for start in range(0, n, BLOCK):
        squares = _squares(points[start : start + BLOCK], points)
        squares[np.arange(len(squares)), np.arange(start, start + len(squares))] = np.inf
        positive = squares[squares > 0]
        smallest = min(smallest, float(positive.min(initial=np.inf)))
        log_sums[start : start + BLOCK] = _log_sum(squares, d)
    if not np.isfinite(smallest):  # all rows are the same
        return np.zeros(n)
    twins = np.isinf(log_sums)
    for row in np.flatnonzero(twins):
        squares = _squares(points[row : row + 1], points)
        squares[squares == 0] = smallest
        squares[0, row] = np.inf
        log_sums[row] = _log_sum(squares, d)[0]
    return np.exp(-(log_sums - np.log(n - 1)) / d)


def _log_sum(squares: np.ndarray, d: int) -> np.ndarray:
    """log of the sum over each line of distance^-d, safe for any d."""
    with np.errstate(divide="ignore"):
        terms = -0.5 * d * np.log(squares)
    largest = terms.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        total = np.log(np.exp(terms - largest).sum(axis=1)) + largest[:, 0]
    return np.where(np.isposinf(largest[:, 0]), np.inf, total)


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances (len(a), len(b)) from differences, column by column: no rounding from a square of a sum."""
    squares = np.zeros((len(a), len(b)))
    for j in range(a.shape[1]):
        squares += (a[:, j, None] - b[None, :, j]) ** 2
    return squares


def _inner(points: np.ndarray, core: np.ndarray) -> tuple[np.ndarray, float]:
    """Nodes of the cluster's spanning tree that have more than one edge, and the longest edge between two of them.

    Prim's algorithm, one line of distances at a time; of edges of the same reachability the shorter one is taken.
    """
    n = len(points)
    best, gap, source = np.full(n, np.inf), np.full(n, np.inf), np.zeros(n, dtype=np.int64)
    outside = np.ones(n, dtype=bool)
    degree = np.zeros(n, dtype=np.int64)
    ends, lengths = np.empty((n - 1, 2), dtype=np.int64), np.empty(n - 1)
    row = 0
    for i in range(n - 1):
        outside[row] = False
        distance = np.sqrt(_squares(points[row : row + 1], points)[0])
        reach = np.maximum(distance, np.maximum(core[row], core))
        closer = outside & ((reach < best) | ((reach == best) & (distance < gap)))
        best[closer], gap[closer], source[closer] = reach[closer], distance[closer], row
        nearest = np.where(outside, best, np.inf)
        row = int(np.where(nearest == nearest.min(), gap, np.inf).argmin())
        ends[i], lengths[i] = (source[row], row), best[row]
        degree[ends[i]] += 1
    inner = degree > 1
    if not inner.any():
        inner[:] = True
    between = inner[ends].all(axis=1)
    longest = lengths[between].max(initial=-np.inf)
    return np.flatnonzero(inner), float(longest if np.isfinite(longest) else lengths.max())


def _separations(rows: list[np.ndarray], cores: list[np.ndarray]) -> np.ndarray:
    """Of each cluster, the least mutual reachability from its inner nodes to another's."""
    least = np.full(len(rows), np.inf)
    for i in range(len(rows)):
        for j in range(i + 1, len(rows)):
            for start in range(0, len(rows[i]), BLOCK):
                part = slice(start, start + BLOCK)
                distance = np.sqrt(_squares(rows[i][part], rows[j]))
                reach = np.maximum(distance, np.maximum(cores[i][part, None], cores[j][None, :])).min()
                least[[i, j]] = np.minimum(least[[i, j]], reach)
    return least
