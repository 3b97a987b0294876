"""Gaussian mixtures on the GPU: our own EM pass; engine ``library`` is scikit-learn, on a copy in host memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cupy as cp
import numpy as np

from gpuclust.algorithms.mixture import GmmConfig
from gpuclust.algorithms.mixture.cpu import fit as fit_on_host
from gpuclust.algorithms.mixture.cpu import result_of, settings_of
from gpuclust.algorithms.mixture.em import EMScores
from gpuclust.algorithms.mixture.fit import GaussianMixture, em_backend
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
    init = short_em_init(config.covariance_type, config.reg_covar)
    mixture = GaussianMixture(**settings_of(config, data.seed), kmeans=init, device="cuda")
    return result_of(data.X, mixture.fit(data.X, progress=data.progress), "fused", score_rows)


def score_rows(
    X: cp.ndarray, parameters: Mapping[str, np.ndarray], covariance_type: str
) -> tuple[EMScores, np.ndarray]:
    """As `mixture.cpu.score_rows`, with every row scored in float64 on the device."""
    rows: cp.ndarray = X.astype(np.float64, copy=False)
    means = parameters["means"]
    scores = em_backend("cuda").score_pass(
        rows, parameters["weights"], means, parameters["precisions_cholesky"], covariance_type
    )
    own: cp.ndarray = cp.asarray(means)[cp.asarray(scores.labels)]
    squares: cp.ndarray = ((rows - own) ** 2).sum(axis=1)
    return scores, cp.asnumpy(cp.sqrt(squares)).astype(np.float32)
