"""K-Means on the GPU.

Engine ``library`` is cuML, settled in float64 by scikit-learn's criterion. Engine ``fused`` seeds and iterates the
restarts on a sample on the host, as the CPU's does, and takes the best to all rows by our own Lloyd pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cupy as cp
import numpy as np

from gpuclust.algorithms.kmeans.assign_cuda import LloydState, descend, nearest_two, refine_float64
from gpuclust.algorithms.kmeans.fit import fit_kmeans as fit_on_host
from gpuclust.algorithms.kmeans.init import KMeansRequest
from gpuclust.algorithms.results import margin
from gpuclust.config import KMeansConfig
from gpuclust.data.table import sample_rows
from gpuclust.runtime.backend import Fit

SAMPLE_ROWS = 32_768
GROUPS = 3
"""How many of a request's restarts go on from the sample to all rows."""

QUIET_TOLERANCE = 2.0**-40
"""A tolerance too small for cuML's test on the cost, which is made in the precision of the matrix."""


def fit_library(X: cp.ndarray, request: KMeansConfig, seed: int) -> Fit:
    """cuML's K-Means with scikit-learn's meanings of ``init``, ``n_init``, ``max_iter`` and ``tol``.

    X is (n_samples, n_features) on the device. cuML sums in the precision of X: the centres it returns are settled by
    float64 iterations, and labels, distances and inertia come from the settled centres in float64.
    """
    mean: cp.ndarray = X.mean(axis=0, dtype=np.float64)
    variance: cp.ndarray = X.var(axis=0, dtype=np.float64)
    least_move = request.tol * float(variance.mean())
    start, n_iter = _cuml_centers(X, mean, request, seed, least_move)
    remaining = max(1, request.max_iter - n_iter)
    centers, finishing, settled = refine_float64(X, start, least_move=least_move, max_iter=remaining, xp=cp)
    return assigned(X, centers, n_iter + finishing, settled, "library")


def _cuml_centers(
    X: cp.ndarray, mean: cp.ndarray, request: KMeansConfig, seed: int, least_move: float
) -> tuple[cp.ndarray, int]:
    """cuML's centres (n_clusters, n_features) float64 in the coordinates of X, and its iterations.

    cuML stops when the squared move of the centres is below ``tol``, as scikit-learn does with tol * mean variance;
    but it also stops when the cost falls by a share less than ``tol``, and refuses 0 (cuVS, kmeans.cuh). The matrix is
    therefore scaled by a power of two, which changes no digit, until the first test needs a ``tol`` so small that
    the second can no longer be met by a real improvement.
    """
    from cuml.cluster import KMeans

    zoom = 2.0 ** round(math.log2(QUIET_TOLERANCE / least_move) / 2) if least_move > 0 else 1.0
    centred: cp.ndarray = ((X - mean) * zoom).astype(X.dtype)
    model = KMeans(
        n_clusters=request.n_clusters,
        init=request.init,
        n_init=request.n_init,
        max_iter=request.max_iter,
        tol=least_move * zoom**2 or np.finfo(np.float64).tiny,
        random_state=seed,
        output_type="cupy",
    ).fit(centred)
    centers: cp.ndarray = model.cluster_centers_.astype(np.float64) / zoom + mean
    return centers, int(model.n_iter_)


def fit_fused(X: cp.ndarray, requests: Sequence[KMeansConfig], seed: int) -> list[Fit]:
    """Several K-Means of one matrix, which share every pass over it; the same result in every run."""
    variance: cp.ndarray = X.var(axis=0, dtype=np.float64)
    spread = float(variance.mean())
    descents = [
        [LloydState(start, request.tol * spread, request.max_iter) for start in starts]
        for request, starts in zip(requests, _starts(X, requests, seed), strict=True)
    ]
    descend(X, [descent for group in descents for descent in group])
    best = [min(group, key=lambda descent: descent.inertia) for group in descents]
    return [assigned(X, cp.asarray(d.centers), d.n_iter, d.settled, "fused") for d in best]


def _starts(X: cp.ndarray, requests: Sequence[KMeansConfig], seed: int) -> list[list[np.ndarray]]:
    """For each request the best centres of each of up to GROUPS groups of its restarts, found on a sample."""
    most = max(request.n_clusters for request in requests)
    size = SAMPLE_ROWS if most <= SAMPLE_ROWS // 128 else len(X)
    sample: np.ndarray = cp.asnumpy(X[cp.asarray(sample_rows(len(X), size, seed))])
    wanted = []
    for request in requests:
        groups = np.array_split(np.arange(request.n_init), min(GROUPS, request.n_init))
        for group in groups:
            own = KMeansRequest(request.n_clusters, seed + int(group[0]), len(group), request.init)
            wanted.append(own)
    found = iter(fit_on_host(sample, wanted))
    return [[next(found).centers for _ in range(min(GROUPS, r.n_init))] for r in requests]


def assigned(X: cp.ndarray, centers: cp.ndarray, n_iter: int, settled: bool, engine: str) -> Fit:
    """Labels, confidence, distances and inertia of given centres, in float64 on the device, as `fits.kmeans_fit`."""
    centers = cp.ascontiguousarray(centers)
    labels, nearest, second = nearest_two(X, centers, cp)
    distance: np.ndarray = cp.asnumpy(nearest)
    return Fit(
        labels=cp.asnumpy(labels),
        confidence=margin(distance, cp.asnumpy(second)),
        distance=distance.astype(np.float32),
        parameters={"centers": cp.asnumpy(centers)},
        per_cluster=("centers",),
        metrics={"inertia": float(np.square(distance).sum()), "n_iter": n_iter},
        converged=settled,
        engine=engine,
        notes=() if settled else ("K-Means stopped at max_iter before it converged; raise cluster.max_iter",),
    )
