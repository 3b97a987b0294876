"""Gaussian mixtures on the GPU: our own EM pass from a searched start, or scikit-learn's array API on CuPy from cuML's K-Means."""

from __future__ import annotations

from collections.abc import Mapping

import cupy as cp
import numpy as np

from gpuclust.algorithms.kmeans.gpu import fit_library
from gpuclust.algorithms.mixture.array_api import fit_mixture
from gpuclust.algorithms.mixture.em import EMScores, passes
from gpuclust.algorithms.mixture.fit import GaussianMixture
from gpuclust.algorithms.mixture.short_em import short_em_init
from gpuclust.algorithms.results import mixture_fit
from gpuclust.config import GmmConfig, KMeansConfig
from gpuclust.runtime.backend import Array, Fit, Progress


def fit_gmm(X: cp.ndarray, request: GmmConfig, seed: int, progress: Progress) -> Fit:
    """The mixture of X (n_samples, n_features) on the device; engine ``library`` is scikit-learn's array API."""
    if request.engine == "library":
        k = request.n_clusters
        model = fit_mixture(X, request, seed, lambda start: kmeans_labels(X, k, np.random.RandomState(start), None), cp)
        return mixture_fit(X, model, "library", assign)
    mixture = GaussianMixture(
        request.n_clusters,
        covariance_type=request.covariance_type,
        tol=request.tol,
        reg_covar=request.reg_covar,
        max_iter=request.max_iter,
        n_init=request.n_init,
        init_params=request.init_params,
        random_state=seed,
        kmeans=short_em_init(request.covariance_type, request.reg_covar),
        device="cuda",
    )
    return mixture_fit(X, mixture.fit(X, progress=progress), "fused", assign)


def kmeans_labels(
    X: Array, n_components: int, random_state: np.random.RandomState, sample_weight: Array | None
) -> cp.ndarray:
    """Labels (n_samples,) int32 on the device that a mixture starts from: cuML's K-Means, one start, no weights."""
    rows: cp.ndarray = cp.asarray(X)
    if n_components == 1:
        return cp.zeros(len(rows), dtype=np.int32)
    seed = int(random_state.randint(2**31))
    return cp.asarray(fit_library(rows, KMeansConfig(n_clusters=n_components, n_init=1), seed).labels)


def assign(X: cp.ndarray, parameters: Mapping[str, np.ndarray], covariance_type: str) -> tuple[EMScores, np.ndarray]:
    """As `fits.mixture_assign`, with every row scored in float64 on the device."""
    rows: cp.ndarray = X.astype(np.float64, copy=False)
    means = parameters["means"]
    scores = passes("cuda").score_pass(
        rows, parameters["weights"], means, parameters["precisions_cholesky"], covariance_type
    )
    own: cp.ndarray = cp.asarray(means)[cp.asarray(scores.labels)]
    squares: cp.ndarray = ((rows - own) ** 2).sum(axis=1)
    return scores, cp.asnumpy(cp.sqrt(squares)).astype(np.float32)
