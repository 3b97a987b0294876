"""K-Means on the GPU.

Engine ``library`` is cuML, whose float32 sums depend on the order of its threads. Lloyd iterations with exact sums (`lloyd_cuda`) continue
from its rounded centres until no label changes. Engine ``fused`` does not use cuML: it runs the search of `init` on samples, then the
iterations on all rows. Both keep the rows, the centres and the stopping rule on the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cupy as cp
import numpy as np

from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.kmeans.assign_cuda import assign
from gpuclust.algorithms.kmeans.cpu import (
    EUCLIDEAN_ON_SPHERE,
    Assigned,
    requests_of,
    start_centers,
    unit_centers,
    with_note,
)
from gpuclust.algorithms.kmeans.fit import check_request
from gpuclust.algorithms.kmeans.lloyd_cuda import (
    DeviceJob,
    DeviceResult,
    DeviceRows,
    exact_centers,
    round_centers,
    rows_on_device,
    run_lloyd,
)
from gpuclust.algorithms.kmeans.search_cuda import choose_starts
from gpuclust.algorithms.kmeans.sizes import limited
from gpuclust.algorithms.registry import FitInput, FitResult
from gpuclust.config import COSINE
from gpuclust.runtime.gpu import device_errors

QUIET_TOLERANCE = 2.0**-40
"""A tolerance so small that cuML's test of the cost, in the precision of the matrix, does not stop it."""

FINISH_ITER = 1000
"""The largest number of iterations that finish cuML's, which are not counted in ``max_iter``."""


def fit(data: FitInput, configs: Sequence[KMeansConfig]) -> list[FitResult]:
    """Fit several configurations, each with engine ``fused`` or with cuML and the iterations after it."""
    with device_errors("K-Means"):
        rows = rows_on_device(data.X, cp)
    results: dict[int, FitResult] = {}
    fused = [i for i, config in enumerate(configs) if config.engine == "fused"]
    if fused:
        with device_errors("K-Means"):
            results |= zip(fused, fit_fused(rows, [configs[i] for i in fused], data), strict=True)
        data.progress(len(results) / len(configs))
    for i in sorted(set(range(len(configs))) - set(fused)):
        with device_errors(f"K-Means with {configs[i].n_clusters} clusters"):
            results[i] = fit_library(rows, configs[i], data)
        data.progress(len(results) / len(configs))
    X = data.backend.to_host(data.X) if any(config.limited for config in configs) else None
    return [results[i] if X is None or not c.limited else limited(X, results[i], c) for i, c in enumerate(configs)]


def fit_library(rows: DeviceRows, config: KMeansConfig, data: FitInput) -> FitResult:
    """cuML's K-Means with scikit-learn's meanings of ``init``, ``n_init``, ``max_iter`` and ``tol``, finished until no label changes.

    Where cuML stops at ``max_iter``, one iteration follows.
    """
    start, n_iter = _cuml_centers(rows, config, data)
    max_iter = FINISH_ITER if n_iter < config.max_iter else 1
    (result,) = run_lloyd(rows, [DeviceJob(0, round_centers(rows, start), max_iter, 0.0)])
    return _result(rows, result, n_iter + result.n_iter, "library", spherical=config.metric == COSINE)


def _cuml_centers(rows: DeviceRows, config: KMeansConfig, data: FitInput) -> tuple[cp.ndarray, int]:
    """cuML's centres (n_clusters, n_features) float64 in the coordinates of the frame, and its number of iterations.

    cuML stops when the squared shift of the centres is below ``tol``, as scikit-learn does with tol * mean variance. It also stops
    when the cost falls by a fraction below ``tol``, and does not accept 0 (cuVS, kmeans.cuh). The matrix is therefore
    multiplied by a power of two, which changes no digit, such that the first test needs a ``tol`` that is too small for the
    second test to stop it.
    """
    from cuml.cluster import KMeans

    least_move = config.tol * rows.frame.variance / rows.frame.scale**2
    zoom = 2.0 ** round(math.log2(QUIET_TOLERANCE / least_move) / 2) if least_move > 0 else 1.0
    centred: cp.ndarray = ((rows.X - rows.origin) * zoom).astype(rows.X.dtype)
    start = start_centers(config, data)
    model = KMeans(
        n_clusters=config.n_clusters,
        init=config.init if start is None else ((cp.asarray(start) - rows.origin) * zoom).astype(rows.X.dtype),
        n_init=config.n_init if start is None else 1,
        max_iter=config.max_iter,
        tol=least_move * zoom**2 or np.finfo(np.float64).tiny,
        random_state=data.seed,
        output_type="cupy",
    ).fit(centred)
    centers: cp.ndarray = model.cluster_centers_.astype(np.float64) * (rows.frame.scale / zoom)
    return centers, int(model.n_iter_)


def fit_fused(rows: DeviceRows, configs: Sequence[KMeansConfig], data: FitInput) -> list[FitResult]:
    """Fit several K-Means to one matrix with shared passes over it; the result is the same in every run."""
    requests = requests_of(configs, data)
    for request in requests:
        check_request(request, len(rows.X))
    own = [i for i, request in enumerate(requests) if request.start is None]
    starts = [(own[i], start) for i, start in choose_starts(rows, [requests[i] for i in own])] if own else []
    starts += [(i, rows.to_tiled(cp.asarray(r.start))) for i, r in enumerate(requests) if r.start is not None]
    jobs = [DeviceJob(0, start, configs[i].max_iter, configs[i].tol * rows.frame.variance) for i, start in starts]
    best: dict[int, DeviceResult] = {}
    for (i, _), result in zip(starts, run_lloyd(rows, jobs), strict=True):
        if i not in best or result.inertia < best[i].inertia:
            best[i] = result
    return [
        _result(rows, best[i], best[i].n_iter, "fused", spherical=config.metric == COSINE)
        for i, config in enumerate(configs)
    ]


def _result(rows: DeviceRows, result: DeviceResult, n_iter: int, engine: str, *, spherical: bool) -> FitResult:
    """The rows assigned to the centres of a result, which are divided by their length for ``spherical`` K-Means: labels, confidence,
    distances and inertia, in float64 on the device."""
    centers = exact_centers(rows, result)
    if spherical:
        centers = cp.asarray(unit_centers(cp.asnumpy(centers)))
    found = assign(rows.X, centers, cp)
    host: list[np.ndarray] = [cp.asnumpy(array) for array in (found.labels, found.confidence, found.distance, centers)]
    assigned = Assigned(host[0], host[1], host[2], float(found.squares.sum()))
    fitted = assigned.result(host[3], n_iter, result.converged, engine)
    return with_note(fitted, EUCLIDEAN_ON_SPHERE) if spherical else fitted
