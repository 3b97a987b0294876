"""Density-based clustering validation (DBCV) without approximation, for clusters of any shape and with noise."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuclust.model.records import NOISE
from gpuclust.runtime.backend import Progress

# Rows of a pairwise distance block; with columns of the same number, 32 MB of float64.
BLOCK = 2048


def dbcv(X: Any, labels: np.ndarray, *, progress: Progress = lambda _: None) -> float:
    """DBCV of Moulavi, Jaskowiak, Campello, Zimek and Sander (2014), in [-1, 1]; higher is better.

    X (n_samples, n_columns) is on the host, and distances are Euclidean; ``labels`` (n_samples,) int32, noise -1. Computed for
    each cluster: the core distance of each row, from all rows of the cluster; the minimum spanning tree of mutual reachability;
    its longest edge between inner nodes (sparseness); and the smallest mutual reachability between inner nodes of this and of
    another cluster (separation). The index is the mean of the clusters' validities, weighted by their shares of all rows, so
    noise lowers it. Memory: one block of distances; time: proportional to sum n_c^2 + n_inner^2. nan with fewer than two
    clusters of two or more rows.

    The paper leaves some cases undefined. Here the distance to an identical row counts as the smallest distance above 0 in the
    cluster, and all nodes are inner nodes in a cluster of identical rows or of two rows. Of edges with the same reachability the
    shorter one is taken, so that the tree, and the index, do not depend on the order of the rows.
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
    """The all-points core distance of each row of one cluster (n, d), float64 (n,): the power mean of its distances with
    exponent -d."""
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
    """The logarithm of the sum of distance^-d over each line of squared distances (m, n), without overflow for any d."""
    with np.errstate(divide="ignore"):
        terms = -0.5 * d * np.log(squares)
    largest = terms.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        total = np.log(np.exp(terms - largest).sum(axis=1)) + largest[:, 0]
    return np.where(np.isposinf(largest[:, 0]), np.inf, total)


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances (len(a), len(b)) from differences, column by column: more exact than |a|^2 - 2ab + |b|^2."""
    squares = np.zeros((len(a), len(b)))
    for j in range(a.shape[1]):
        squares += (a[:, j, None] - b[None, :, j]) ** 2
    return squares


def _inner(points: np.ndarray, core: np.ndarray) -> tuple[np.ndarray, float]:
    """The nodes of the cluster's spanning tree that have more than one edge, and the longest edge between two of them.

    Prim's algorithm, with the distances of one row at a time; of edges with the same reachability the shorter one is taken.
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
    """The smallest mutual reachability from each cluster's inner nodes to those of another, (n_clusters,) float64."""
    least = np.full(len(rows), np.inf)
    for i in range(len(rows)):
        for j in range(i + 1, len(rows)):
            for start in range(0, len(rows[i]), BLOCK):
                part = slice(start, start + BLOCK)
                distance = np.sqrt(_squares(rows[i][part], rows[j]))
                reach = np.maximum(distance, np.maximum(cores[i][part, None], cores[j][None, :])).min()
                least[[i, j]] = np.minimum(least[[i, j]], reach)
    return least
