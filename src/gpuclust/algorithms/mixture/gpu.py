"""Gaussian mixtures on the GPU: EM on the device (`em_cuda`); engine ``library`` is scikit-learn, on a copy in host memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cupy as cp

from gpuclust.algorithms.mixture import GmmConfig
from gpuclust.algorithms.mixture.cpu import FROM_START, result_of, settings_of, start_labels
from gpuclust.algorithms.mixture.cpu import fit as fit_on_host
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
        host = replace(data, X=cp.asnumpy(data.X), distinct=None)
        return fit_on_host(host, [config])[0]
    passes = CudaPasses()  # its memory serves the search for a start and the fit
    X = passes.matrix(data.X)
    settings, start = settings_of(config, data.seed), data.start_of(config)
    if start is None:
        init = short_em_init(config.covariance_type, config.reg_covar, passes)
        mixture = GaussianMixture(**settings, kmeans=init, device=passes)
    else:
        labels = start_labels(cp.asnumpy(data.X), start)
        mixture = GaussianMixture(**settings | FROM_START, kmeans=lambda *_: labels, device=passes)
    return result_of(X, mixture.fit(X, progress=data.progress), "fused", passes.score_rows)
