"""K-Means over the fused Lloyd pass: many fits of one matrix advanced together, exact to float64.

scikit-learn's meanings throughout: `tol` is relative to the mean variance of the features and compared with the squared
move of the centres, empty clusters are moved to the rows farthest from their centres, and the labels returned are the
assignment to the centres returned. What differs is where restarts are spent on a large matrix: see `init`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuclust.algorithms.kmeans.init import KMeansRequest, choose_starts
from gpuclust.algorithms.kmeans.kernels_cpu import MAX_CLUSTERS
from gpuclust.algorithms.kmeans.lloyd import (
    BATCH_BYTES,
    LloydResult,
    exact_centers,
    rows_in_blocks,
    rows_in_memory,
    run_lloyd,
)
from gpuclust.algorithms.kmeans.passes import LloydRows, RowFrame
from gpuclust.errors import FitError
from gpuclust.runtime.blocks import BLOCK_ROWS, MemoryBlocks, MergeTree, RowBlocks
from gpuclust.runtime.deduplicate import Distinct
from gpuclust.runtime.products import nearest_centers

__all__ = ["FittedCenters", "KMeansFit", "KMeansRequest", "assign", "fit_centers", "fit_kmeans", "lloyd", "use_fused"]

Progress = Callable[[float], None]
"""Receives the fraction of the starts that have ended."""


@dataclass(frozen=True)
class FittedCenters:
    """The best of a request's restarts; `n_iter` counts its passes over all rows."""

    centers: np.ndarray  # (n_clusters, n_features) float64
    n_iter: int
    converged: bool


@dataclass(frozen=True)
class KMeansFit(FittedCenters):
    """Fitted centres, and the rows assigned to them."""

    labels: np.ndarray  # (n_samples,) int32
    inertia: float  # weighted sum of squared distances, recomputed in float64 from labels and centers


def use_fused(n_samples: int, n_features: int, n_clusters: int) -> bool:
    """Whether ``engine=auto`` is this engine, not scikit-learn.

    In the range of experiments/bench/kmeans.py and dimensions.py, up to 768 features and 256 clusters (300 above 128 features), it takes
    less than scikit-learn's time; beyond, that has not been measured. Tables of more than one block always take this engine, so that labels
    do not depend on whether they fit in memory.
    """
    if n_samples > BLOCK_ROWS:
        return n_clusters <= MAX_CLUSTERS
    return n_clusters <= min(256 if n_features <= 128 else 300, n_samples)


def fit_kmeans(
    X: np.ndarray,
    requests: Sequence[KMeansRequest],
    *,
    sample_weight: np.ndarray | None = None,
    progress: Progress = lambda _: None,
) -> list[KMeansFit]:
    """`fit_centers` to a matrix in memory with non-negative weights (n_samples,), and the rows assigned to the centres."""
    X, weight = _checked(X, sample_weight)
    for request in requests:
        check_request(request, len(X))
    found = _fit(_rows(X, weight, _spherical(requests)), requests, progress=progress)
    return [_assigned(X, weight, fit) for fit in found]


def fit_centers(
    X: np.ndarray | RowBlocks,
    requests: Sequence[KMeansRequest],
    *,
    distinct: Distinct | None = None,
    sample_weight: np.ndarray | None = None,
    batch_bytes: int = BATCH_BYTES,
    progress: Progress = lambda _: None,
) -> list[FittedCenters]:
    """Fit every request on one matrix, reading each block of rows once for all of them.

    X is (n_samples, n_features) float32 or float64, in memory or in blocks: the same result. A request's result depends
    on X and the request alone, not on the others, nor on the number of threads or workers. `distinct`, the distinct rows
    of an X in memory, takes X's place once the starts are chosen: the same fits, to rounding. Fits advance together as far as their
    labels, one or two bytes a row and fit, need no more than ``batch_bytes``. ``sample_weight`` (n_samples,), not negative, is of an X in memory without `distinct`. Raises FitError where a request cannot be fitted to X.
    """
    if len({request.spherical for request in requests}) > 1:
        options = {"distinct": distinct, "sample_weight": sample_weight, "batch_bytes": batch_bytes}
        return _fit_by_metric(X, requests, progress=progress, **options)
    weight = np.empty(0)
    if not isinstance(X, RowBlocks):
        X, weight = _checked(X, sample_weight)
    for request in requests:
        check_request(request, len(X))
    rows = _rows(X, weight, _spherical(requests))
    try:
        return _fit(rows, requests, distinct=distinct, batch_bytes=batch_bytes, progress=progress)
    finally:
        rows.blocks.release(0)


def _fit_by_metric(
    X: np.ndarray | RowBlocks, requests: Sequence[KMeansRequest], *, progress: Progress, **options: Any
) -> list[FittedCenters]:
    """The requests for Euclidean and for spherical K-Means, one kind after the other."""
    found: dict[int, FittedCenters] = {}
    for spherical in (False, True):
        own = [i for i, request in enumerate(requests) if request.spherical == spherical]
        done, share = len(found) / len(requests), len(own) / len(requests)

        def report(part: float, done: float = done, share: float = share) -> None:
            progress(done + share * part)

        fits = fit_centers(X, [requests[i] for i in own], progress=report, **options)
        found |= zip(own, fits, strict=True)
    return [found[i] for i in range(len(requests))]


def lloyd(
    X: np.ndarray,
    starts: Sequence[np.ndarray],
    *,
    sample_weight: np.ndarray | None = None,
    max_iter: int = 300,
    tol: float = 1e-4,
    spherical: bool = False,
) -> list[KMeansFit]:
    """Lloyd's iterations from given centres, each (n_clusters, n_features) in the coordinates of X; one fit for each."""
    X, weight = _checked(X, sample_weight)
    rows = _rows(X, weight, spherical)
    outcomes = run_lloyd(rows, [(rows.frame.to_tiled(start), max_iter, tol) for start in starts])
    return [_assigned(X, weight, fit) for fit in _settled(rows, outcomes)]


def _fit(
    rows: LloydRows,
    requests: Sequence[KMeansRequest],
    *,
    distinct: Distinct | None = None,
    batch_bytes: int = BATCH_BYTES,
    progress: Progress = lambda _: None,
) -> list[FittedCenters]:
    starts = choose_starts(rows, requests)
    if distinct is not None:  # in the coordinates of all rows, and with their variance, which tol is a share of
        seen = RowFrame(rows.frame, distinct.counts, keep_tiles=True)
        rows = LloydRows(MemoryBlocks(distinct.X), seen, rows.sum_sq_norm, rows.spherical)
    jobs = [(start, requests[i].max_iter, requests[i].tol) for i, start in starts]
    outcomes = run_lloyd(rows, jobs, batch_bytes=batch_bytes, progress=progress)
    best: dict[int, LloydResult] = {}
    for (i, _), outcome in zip(starts, outcomes, strict=True):
        if i not in best or outcome.inertia < best[i].inertia:
            best[i] = outcome
    return _settled(rows, [best[i] for i in range(len(requests))])


def _settled(rows: LloydRows, outcomes: Sequence[LloydResult]) -> list[FittedCenters]:
    """The centres of the rows themselves."""
    return [
        FittedCenters(rows.frame.from_tiled(centers), outcome.n_iter, outcome.converged)
        for outcome, centers in zip(outcomes, exact_centers(rows, outcomes), strict=True)
    ]


def _assigned(X: np.ndarray, weight: np.ndarray, fit: FittedCenters) -> KMeansFit:
    labels, distance, _ = nearest_centers(X, fit.centers)
    return KMeansFit(fit.centers, fit.n_iter, fit.converged, labels, sum_of_squares(distance, weight))


def sum_of_squares(distance: np.ndarray, weight: np.ndarray | None = None) -> float:
    """The weighted sum of the squares of distances (n_rows,) float64, merged as the blocks of the rows are."""
    tree = MergeTree(max(1, -(-len(distance) // BLOCK_ROWS)))
    for block, value in enumerate(block_squares(distance, weight)):
        tree.put(0, block, value)
    return float(tree.value)


def block_squares(distance: np.ndarray, weight: np.ndarray | None = None) -> list[float]:
    """The weighted sum of the squares of distances (n_rows,) float64 in each block of the rows, from the first row of a block on."""
    found = []
    for start in range(0, max(1, len(distance)), BLOCK_ROWS):
        squares = distance[start : start + BLOCK_ROWS] ** 2
        own = None if weight is None or not len(weight) else weight[start : start + BLOCK_ROWS]
        found.append(float(squares.sum() if own is None else squares @ own))
    return found


def assign(X: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (int32), and the distances (float64) to the nearest and the second nearest centre, of every row.

    X is (n_samples, n_features) float32 or float64. Computed in float64 and the same for a row whatever rows come with
    it; a tie goes to the lower label; with one centre the second distance is infinite.
    """
    X = _matrix(X)
    centers = np.ascontiguousarray(centers, np.float64)
    if centers.ndim != 2 or centers.shape[1] != X.shape[1] or not len(centers):
        raise FitError(f"centers of shape {centers.shape} do not fit rows of {X.shape[1]} features")
    return nearest_centers(X, centers)


def _matrix(X: np.ndarray) -> np.ndarray:
    X = np.asarray(X)
    if X.ndim != 2 or X.shape[1] == 0:
        raise FitError(f"X has shape {X.shape}; give rows × features, with at least one feature")
    return np.ascontiguousarray(X, np.float32 if X.dtype == np.float32 else np.float64)


def _checked(X: np.ndarray, sample_weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    X = _matrix(X)
    if len(X) == 0:
        raise FitError("X has no rows; there is nothing to cluster")
    if sample_weight is None:
        return X, np.empty(0)
    weight = np.ascontiguousarray(sample_weight, np.float64)
    if weight.shape != (len(X),):
        raise FitError(f"sample_weight has shape {weight.shape}; give one weight for each of the {len(X):,} rows")
    if not (np.isfinite(weight).all() and weight.min() >= 0 and weight.max() > 0):
        raise FitError("sample_weight must be finite and non-negative, and not zero everywhere")
    return X, weight


def check_request(request: KMeansRequest, n_rows: int) -> None:
    """Raise FitError for a request that cannot be fitted to n_rows rows."""
    k = request.n_clusters
    if not 1 <= k <= n_rows:
        raise FitError(f"n_clusters={k} for {n_rows:,} rows; choose 1 to {n_rows:,}")
    if k > MAX_CLUSTERS:
        raise FitError(f"n_clusters={k} is more than the {MAX_CLUSTERS:,} of the fused engine; use the library's")
    if request.init not in ("k-means++", "random"):
        raise FitError(f"init={request.init!r} is unknown; choose k-means++ or random")
    if request.n_init < 1 or request.max_iter < 1:
        raise FitError(f"n_init={request.n_init} and max_iter={request.max_iter} must both be 1 or more")


def _spherical(requests: Sequence[KMeansRequest]) -> bool:
    (found,) = {request.spherical for request in requests}
    return found


def _rows(X: np.ndarray | RowBlocks, weight: np.ndarray, spherical: bool = False) -> LloydRows:
    try:
        if isinstance(X, RowBlocks):
            return rows_in_blocks(X, spherical=spherical)
        return rows_in_memory(X, weight, spherical=spherical)
    except ValueError as error:
        raise FitError(f"{error}; clean or scale the features first") from None
