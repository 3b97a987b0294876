"""K-Means with limits on the sizes of clusters: the rows are assigned at the least cost that the limits allow.

Bradley, Bennett and Demiriz (2000), "Constrained K-Means Clustering": each assignment is a transportation problem. It starts from the nearest
centres, which are optimal without limits, and moves one row after another along the cheapest path of clusters, from one that is too large to one that has
room (successive shortest paths; Ahuja, Magnanti and Orlin 1993, section 9.7), so each assignment is optimal.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.registry import FitResult
from gpuclust.config import COSINE
from gpuclust.errors import FitError
from gpuclust.model.kmeans import membership, squared_distances
from gpuclust.model.prediction import in_threads, row_blocks
from gpuclust.runtime.jit import compiled

MAX_COSTS = 100_000_000
"""The largest number of rows times clusters: their costs are held in memory, 8 bytes each."""
MAX_ROUNDS = 100
"""The largest number of assignments. The sum of squares falls with each, and a few dozen are usual."""
NOTE = "cluster.min_size and cluster.max_size limit the fitted rows only; new rows join their nearest centre"


def limited(X: np.ndarray, found: FitResult, config: KMeansConfig) -> FitResult:
    """The clusters of a fit of X (n_samples, n_columns), on the host, with sizes within the limits of the configuration.

    Assignments and means alternate from the centres of the fit until no row moves. Raises FitError where no assignment has such sizes, and
    for more than `MAX_COSTS` costs.
    """
    sizes = (config.min_size, config.max_size)
    labels, centers, converged = limit_sizes(X, found.parameters["centers"], *sizes, spherical=config.metric == COSINE)
    confidence, distance = np.empty(len(X), np.float32), np.empty(len(X))

    def block(rows: slice) -> None:
        confidence[rows], distance[rows] = membership(X[rows], labels[rows], centers)

    in_threads(block, row_blocks(len(X)))
    notes = () if converged else (f"the assignment still changed after {MAX_ROUNDS} rounds",)
    own: dict[str, Any] = {"labels": labels, "confidence": confidence, "distance": distance.astype(np.float32)}
    return replace(
        found,
        **own,
        parameters={"centers": centers, **{f"training_{name}": value for name, value in own.items()}},
        options={"limited": True},
        metrics={**found.metrics, "inertia": float(distance @ distance)},
        converged=found.converged and converged,
        notes=(*found.notes, NOTE, *notes),
    )


def limit_sizes(
    X: np.ndarray, centers: np.ndarray, min_size: int | None, max_size: int | None, *, spherical: bool = False
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Labels (n_samples,) int32 within the limits, their centres (n_clusters, n_columns) float64, and whether the last assignment changed nothing.

    Raises FitError as `limited` does.
    """
    centers = np.asarray(centers, np.float64)
    low, high = _limits(min_size, max_size, len(X), len(centers))
    labels = np.full(len(X), -1, dtype=np.int32)
    for _ in range(MAX_ROUNDS):
        before, labels = labels, assign_within(_costs(X, centers), low, high)
        if np.array_equal(before, labels):
            return labels, centers, True
        centers = _means(X, labels, centers, spherical)
    return labels, centers, False


def _limits(min_size: int | None, max_size: int | None, n_rows: int, n_clusters: int) -> tuple[int, int]:
    """The smallest and the largest size of a cluster. Raises FitError where no clustering of n_rows rows has them."""
    low, high = min_size or 0, max_size or n_rows
    if n_clusters * high < n_rows:
        raise FitError(
            f"{n_clusters} clusters of at most {high:,} rows cannot hold the {n_rows:,} rows; raise cluster.max_size or cluster.n_clusters"
        )
    if n_clusters * low > n_rows:
        raise FitError(
            f"{n_clusters} clusters of at least {low:,} rows need more than the {n_rows:,} rows; lower cluster.min_size or cluster.n_clusters"
        )
    if n_rows * n_clusters > MAX_COSTS:
        raise FitError(
            f"limits on sizes need {n_rows:,} × {n_clusters:,} costs in memory, more than {MAX_COSTS:,}; lower data.n_rows or cluster.n_clusters"
        )
    return low, high


def _costs(X: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """The squared distances (n_samples, n_clusters) float64."""
    costs = np.empty((len(X), len(centers)))

    def block(rows: slice) -> None:
        costs[rows] = squared_distances(X[rows], centers)

    in_threads(block, row_blocks(len(X)))
    return costs


def _means(X: np.ndarray, labels: np.ndarray, centers: np.ndarray, spherical: bool) -> np.ndarray:
    """The mean of each cluster, of length 1 if ``spherical``; an empty cluster keeps its centre."""
    k = len(centers)
    sums = np.stack([np.bincount(labels, weights=column, minlength=k) for column in X.T], axis=1)
    divisor = np.sqrt((sums * sums).sum(axis=1)) if spherical else np.bincount(labels, minlength=k).astype(float)
    filled = divisor > 0
    return np.where(filled[:, None], sums / np.where(filled, divisor, 1.0)[:, None], centers)


def assign_within(costs: np.ndarray, low: int, high: int) -> np.ndarray:
    """The labels (n_rows,) int32 of the least sum of costs (n_rows, n_clusters) float64 with between ``low`` and ``high`` rows in each cluster."""
    labels = costs.argmin(axis=1).astype(np.int32)
    sizes = np.bincount(labels, minlength=costs.shape[1])
    if sizes.max() > high or sizes.min() < low:
        tolerance = 1e-12 * float(costs.max())
        if not _move_rows(costs, labels, low, high, tolerance):
            raise FitError("the assignment within the size limits did not end; the distances are not finite")
    return labels


@compiled(inner=True)
def _cheapest_from(costs, labels, first, following, a, b):  # type: ignore[no-untyped-def]
    """The row of cluster ``a`` that costs least to move to ``b``, and that cost; -1 if ``a`` is empty."""
    least, row = np.inf, -1
    r = first[a]
    while r >= 0:
        cost = costs[r, b] - costs[r, a]
        if cost < least:
            least, row = cost, r
        r = following[r]
    return least, row


@compiled(fastmath=False)
def _move_rows(costs, labels, low, high, tolerance):  # type: ignore[no-untyped-def]
    """Move rows until each cluster has between low and high of them; whether that was possible. ``labels`` are changed.

    ``cost[a, b]`` and ``row[a, b]``: the cheapest move from cluster a to b. A cluster's rows are a list: ``first`` of the cluster, then ``following``
    and ``previous`` of each row.
    """
    n, k = costs.shape
    first, following, previous = np.full(k, -1, np.int64), np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    sizes = np.zeros(k, np.int64)
    for r in range(n - 1, -1, -1):
        a = labels[r]
        following[r] = first[a]
        if first[a] >= 0:
            previous[first[a]] = r
        first[a] = r
        sizes[a] += 1
    cost, row = np.full((k, k), np.inf), np.full((k, k), -1, np.int64)
    for r in range(n):
        a = labels[r]
        for b in range(k):
            if b != a and costs[r, b] - costs[r, a] < cost[a, b]:
                cost[a, b], row[a, b] = costs[r, b] - costs[r, a], r
    far, via = np.empty(k), np.empty(k, np.int64)
    for phase in range(2):  # first no cluster is too large, then none is too small
        while True:
            wanted = False
            for a in range(k):
                via[a], far[a] = -1, np.inf
                if phase == 0:
                    if sizes[a] > high:
                        far[a], wanted = 0.0, True
                else:
                    if sizes[a] > low:
                        far[a] = 0.0
                    wanted = wanted or sizes[a] < low
            if not wanted:
                break
            for _ in range(k):  # Bellman and Ford
                changed = False
                for a in range(k):
                    if far[a] < np.inf:
                        for b in range(k):
                            if far[a] + cost[a, b] < far[b] - tolerance:
                                far[b], via[b], changed = far[a] + cost[a, b], a, True
                if not changed:
                    break
            end = -1
            for b in range(k):
                takes = sizes[b] < high if phase == 0 else sizes[b] < low
                if takes and far[b] < np.inf and (end < 0 or far[b] < far[end]):
                    end = b
            if end < 0:
                return False
            steps = 0
            b = end
            while via[b] >= 0:
                steps += 1
                if steps > k:
                    return False
                a = via[b]
                r = row[a, b]
                if previous[r] >= 0:
                    following[previous[r]] = following[r]
                else:
                    first[a] = following[r]
                if following[r] >= 0:
                    previous[following[r]] = previous[r]
                labels[r] = b
                previous[r], following[r] = -1, first[b]
                if first[b] >= 0:
                    previous[first[b]] = r
                first[b] = r
                sizes[a] -= 1
                sizes[b] += 1
                for c in range(k):  # the cheapest moves: without the row from a, with it from b
                    if c != a and row[a, c] == r:
                        cost[a, c], row[a, c] = _cheapest_from(costs, labels, first, following, a, c)
                    if c != b and costs[r, c] - costs[r, b] < cost[b, c]:
                        cost[b, c], row[b, c] = costs[r, c] - costs[r, b], r
                b = a
    return True
