"""Gaussian mixtures on the GPU: EM on the device (`em_cuda`); engine ``library`` is scikit-learn, on a copy in host memory."""

from __future__ import annotations

from collections.abc import Sequence

import cupy as cp

from gpuclust.algorithms.mixture import GmmConfig
from gpuclust.algorithms.mixture.cpu import fit as fit_on_host
from gpuclust.algorithms.mixture.cpu import result_of, settings_of
from gpuclust.algorithms.mixture.em_cuda import CudaPasses
from gpuclust.algorithms.mixture.fit import GaussianMixture
from gpuclust.algorithms.mixture.short_em import short_em_init
from gpuclust.algorithms.registry import FitInput, FitResult
from gpuclust.runtime.gpu import device_errors


def fit(data: FitInput, configs: Sequence[GmmConfig]) -> list[FitResult]:
    """Fit each configuration to ``data.X`` (n_samples, n_columns) on the device."""
    results = []
    for config in configs:
        with device_errors(f"the mixture of {config.n_clusters} components"):
            results.append(_fit(data, config))
    return results


def _fit(data: FitInput, config: GmmConfig) -> FitResult:
    if config.engine == "library":
        host = FitInput(cp.asnumpy(data.X), data.seed, data.backend, data.cache, data.key, progress=data.progress)
        return fit_on_host(host, [config])[0]
    passes = CudaPasses()  # its memory serves the search for a start and the fit
    X = passes.matrix(data.X)
    init = short_em_init(config.covariance_type, config.reg_covar, passes)
    mixture = GaussianMixture(**settings_of(config, data.seed), kmeans=init, device=passes)
    return result_of(X, mixture.fit(X, progress=data.progress), "fused", passes.score_rows)
