"""K-Means on the GPU.

Engine ``library`` is cuML, followed by iterations in float64 until scikit-learn's criterion is met. Engine ``fused`` runs the
restarts on a sample on the host, as on the CPU, and continues from the best centres on all rows with our own Lloyd pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cupy as cp
import numpy as np

from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.kmeans.assign_cuda import LloydState, nearest_two, refine_float64, run_lloyd_gpu
from gpuclust.algorithms.kmeans.cpu import packed
from gpuclust.algorithms.kmeans.fit import fit_centers as fit_on_host
from gpuclust.algorithms.kmeans.init import KMeansRequest
from gpuclust.algorithms.registry import FitInput, FitResult
from gpuclust.data.table import sample_rows
from gpuclust.runtime.gpu import device_errors

SAMPLE_ROWS = 32_768
GROUPS = 3
"""The number of restarts of a request that continue from the sample to all rows."""

QUIET_TOLERANCE = 2.0**-40
"""A tolerance so small that cuML's test of the cost, in the precision of the matrix, does not stop it."""


def fit(data: FitInput, configs: Sequence[KMeansConfig]) -> list[FitResult]:
    """Fit several configurations; engine ``fused`` is our own Lloyd pass, any other cuML."""
    results: dict[int, FitResult] = {}
    fused = [i for i, config in enumerate(configs) if config.engine == "fused"]
    if fused:
        with device_errors("K-Means"):
            results |= zip(fused, fit_fused(data.X, [configs[i] for i in fused], data.seed), strict=True)
        data.progress(len(results) / len(configs))
    for i in sorted(set(range(len(configs))) - set(fused)):
        with device_errors(f"K-Means with {configs[i].n_clusters} clusters"):
            results[i] = fit_library(data.X, configs[i], data.seed)
        data.progress(len(results) / len(configs))
    return [results[i] for i in range(len(configs))]


def fit_library(X: cp.ndarray, request: KMeansConfig, seed: int) -> FitResult:
    """cuML's K-Means with scikit-learn's meanings of ``init``, ``n_init``, ``max_iter`` and ``tol``.

    X is (n_samples, n_features) on the device. cuML sums in the precision of X, so float64 iterations from its centres follow;
    labels, distances and inertia come from the final centres, in float64.
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
    """cuML's centres (n_clusters, n_features) float64 in the coordinates of X, and its number of iterations.

    cuML stops when the squared shift of the centres is below ``tol``, as scikit-learn does with tol * mean variance. It also stops
    when the cost falls by a fraction below ``tol``, and does not accept 0 (cuVS, kmeans.cuh). The matrix is therefore
    multiplied by a power of two, which changes no digit, such that the first test needs a ``tol`` that is too small for the
    second test to stop it.
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


def fit_fused(X: cp.ndarray, requests: Sequence[KMeansConfig], seed: int) -> list[FitResult]:
    """Fit several K-Means to one matrix with shared passes over it; the result is the same in every run."""
    variance: cp.ndarray = X.var(axis=0, dtype=np.float64)
    spread = float(variance.mean())
    descents = [
        [LloydState(start, request.tol * spread, request.max_iter) for start in starts]
        for request, starts in zip(requests, _starts(X, requests, seed), strict=True)
    ]
    run_lloyd_gpu(X, [descent for group in descents for descent in group])
    best = [min(group, key=lambda descent: descent.inertia) for group in descents]
    return [assigned(X, cp.asarray(d.centers), d.n_iter, d.settled, "fused") for d in best]


def _starts(X: cp.ndarray, requests: Sequence[KMeansConfig], seed: int) -> list[list[np.ndarray]]:
    """For each request the best centres of up to GROUPS groups of its restarts, found on a sample."""
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


def assigned(X: cp.ndarray, centers: cp.ndarray, n_iter: int, settled: bool, engine: str) -> FitResult:
    """The result for given centres (n_clusters, n_features): labels, confidence, distances and inertia, in float64 on the device."""
    centers = cp.ascontiguousarray(centers)
    labels, nearest, second = nearest_two(X, centers, cp)
    host: list[np.ndarray] = [cp.asnumpy(array) for array in (labels, nearest, second, centers)]
    return packed(host[0], host[1], host[2], host[3], n_iter, settled, engine)
