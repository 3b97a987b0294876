"""K-Means over the fused Lloyd pass: many fits of one matrix advanced together, exact to float64.

scikit-learn's meanings throughout: `tol` is relative to the mean variance of the features and compared with the squared
move of the centres, empty clusters are moved to the rows farthest from their centres, and the labels returned are the
assignment to the centres returned. What differs is where restarts are spent on a large matrix: see `init`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gpuclust.algorithms.kmeans.init import KMeansRequest, choose_starts
from gpuclust.algorithms.kmeans.kernels_cpu import MAX_CLUSTERS
from gpuclust.algorithms.kmeans.lloyd import LloydResult, run_lloyd
from gpuclust.algorithms.kmeans.tiled_matrix import TiledMatrix, tile_matrix
from gpuclust.errors import FitError
from gpuclust.runtime.deduplicate import Distinct
from gpuclust.runtime.nearest import nearest_two

__all__ = ["KMeansFit", "KMeansRequest", "assign", "fit_kmeans", "lloyd", "use_fused"]


@dataclass(frozen=True)
class KMeansFit:
    """The best of a request's restarts; `n_iter` counts its passes over all rows."""

    centers: np.ndarray  # (n_clusters, n_features) float64
    labels: np.ndarray  # (n_samples,) int32
    inertia: float  # weighted sum of squared distances, recomputed in float64 from labels and centers
    n_iter: int
    converged: bool


def use_fused(n_samples: int, n_features: int, n_clusters: int) -> bool:
    """Whether this engine is faster than scikit-learn at equal or lower inertia.

    Up to 128 features and 256 clusters, which is as far as experiments/bench/kmeans.py looks, an iteration takes less than
    half of scikit-learn's time everywhere; beyond, matrix products may win.
    """
    return n_features <= 128 and n_clusters <= min(256, n_samples)


def fit_kmeans(
    X: np.ndarray,
    requests: Sequence[KMeansRequest],
    *,
    sample_weight: np.ndarray | None = None,
    distinct: Distinct | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[KMeansFit]:
    """Fit every request on one matrix, reading each block of rows once for all of them.

    X is (n_samples, n_features) float32 or float64, sample_weight (n_samples,) non-negative. A request's result depends
    on X, the weights and the request alone, not on the others nor on the number of threads. `distinct`, the distinct rows
    of an X without weights, takes X's place once the starts are chosen: the same fits, to rounding. `progress` is called
    with the number of requests finished and of all. Raises FitError where a request cannot be fitted to X.
    """
    X, weight = _checked(X, sample_weight)
    for request in requests:
        _check_request(request, len(X))
    rows = _rows(X, weight)
    starts = choose_starts(rows, requests)
    if distinct is not None and sample_weight is None:
        # The variance, which tol is a share of, is that of all rows.
        rows = tile_matrix(distinct.X, distinct.counts, rows)._replace(variance=rows.variance)
    outcomes = run_lloyd(rows, [(start, requests[i].max_iter, requests[i].tol) for i, start in starts], exact=True)
    fits: list[KMeansFit] = []
    for i in range(len(requests)):
        mine = [outcome for (owner, _), outcome in zip(starts, outcomes, strict=True) if owner == i]
        fit = _finish(rows, min(mine, key=lambda outcome: outcome.inertia))
        fits.append(fit if rows.X is X or distinct is None else replace(fit, labels=fit.labels[distinct.inverse]))
        if progress is not None:
            progress(len(fits), len(requests))
    return fits


def lloyd(
    X: np.ndarray,
    starts: Sequence[np.ndarray],
    *,
    sample_weight: np.ndarray | None = None,
    max_iter: int = 300,
    tol: float = 1e-4,
) -> list[KMeansFit]:
    """Lloyd's iterations from given centres, each (n_clusters, n_features) in the coordinates of X; one fit for each."""
    X, weight = _checked(X, sample_weight)
    rows = _rows(X, weight)
    outcomes = run_lloyd(rows, [(rows.to_tiled(start), max_iter, tol) for start in starts], exact=True)
    return [_finish(rows, outcome) for outcome in outcomes]


def assign(X: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (int32), and the distances (float64) to the nearest and the second nearest centre, of every row.

    X is (n_samples, n_features) float32 or float64. Computed in float64 and the same for a row whatever rows come with
    it; a tie goes to the lower label; with one centre the second distance is infinite.
    """
    X = _matrix(X)
    centers = np.ascontiguousarray(centers, np.float64)
    if centers.ndim != 2 or centers.shape[1] != X.shape[1] or not len(centers):
        raise FitError(f"centers of shape {centers.shape} do not fit rows of {X.shape[1]} features")
    return nearest_two(X, centers)


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


def _check_request(request: KMeansRequest, n_rows: int) -> None:
    k = request.n_clusters
    if not 1 <= k <= n_rows:
        raise FitError(f"n_clusters={k} for {n_rows:,} rows; choose 1 to {n_rows:,}")
    if k > MAX_CLUSTERS:
        raise FitError(f"n_clusters={k} is more than the {MAX_CLUSTERS:,} of the fused engine; use the library's")
    if request.init not in ("k-means++", "random"):
        raise FitError(f"init={request.init!r} is unknown; choose k-means++ or random")
    if request.n_init < 1 or request.max_iter < 1:
        raise FitError(f"n_init={request.n_init} and max_iter={request.max_iter} must both be 1 or more")


def _rows(X: np.ndarray, weight: np.ndarray) -> TiledMatrix:
    try:
        return tile_matrix(X, weight)
    except ValueError as error:
        raise FitError(f"{error}; clean or scale the features first") from None


def _finish(rows: TiledMatrix, outcome: LloydResult) -> KMeansFit:
    centers = rows.from_tiled(outcome.centers)
    labels, distance, _ = nearest_two(rows.X, centers)
    squares = distance**2
    inertia = float(squares @ rows.weight if len(rows.weight) else squares.sum())
    return KMeansFit(centers, labels, inertia, outcome.n_iter, outcome.converged)
