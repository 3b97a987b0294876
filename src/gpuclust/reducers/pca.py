"""Principal components, by scikit-learn or cuML."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from gpuclust.config import ReduceConfig
from gpuclust.errors import ConfigurationError
from gpuclust.model.preparation import Projection, projection_of
from gpuclust.runtime.backend import Array, Backend


class PrincipalComponents(Projection):
    """Principal component analysis as a reducer."""

    @staticmethod
    def fit(X: Array, config: ReduceConfig, *, backend: Backend, components: Projection) -> Projection:
        """The components of X (n_samples, n_features) float64 that a configuration keeps of all its ``components``."""
        return reduced(components, config)


def fit_components(X: Array, backend: Backend) -> Projection:
    """All ``min(n_samples, n_features)`` principal components of X (n_samples, n_features) float64 on the device."""
    if backend.name == "gpu":
        from gpuclust.reducers.gpu import fit_components as fit_on_gpu

        return fit_on_gpu(X)
    return _fit_sklearn(X)


def _fit_sklearn(X: np.ndarray) -> Projection:
    """By the eigenvectors of the covariance, exact, in one read of a tall matrix."""
    from sklearn.decomposition import PCA

    tall = X.shape[0] > X.shape[1]
    with warnings.catch_warnings():
        # A matrix without variance has no ratios; they are 0 below.
        warnings.simplefilter("ignore", RuntimeWarning)
        pca = PCA(svd_solver="covariance_eigh" if tall else "full").fit(X)
    return projection_of(pca.mean_, pca.components_, pca.explained_variance_, len(X))


def reduced(components: Projection, reduce: ReduceConfig) -> Projection:
    """The components that are kept: a number of them, or the fewest that explain a share of the variance.

    ``whiten`` divides each component by its standard deviation with n - 1 (as PCA does), ``rescale`` by that with n
    (as a standard scaler would). Raises ConfigurationError when more components are asked for than there are.
    """
    wanted = reduce.n_components
    available = len(components.components)
    if isinstance(wanted, int):
        if wanted > available:
            raise ConfigurationError(
                f"reduce.n_components={wanted} is more than the {available} that {components.components.shape[1]} "
                "features allow; lower it or name more data.features"
            )
        kept = wanted
    else:
        share = np.cumsum(components.explained_variance_ratio)
        # A share of 1.0 keeps all, whatever the last bit of the sum says.
        kept = min(int(np.searchsorted(share, wanted - 1e-12)) + 1, available)
    projection = first(components, kept)
    if not (reduce.whiten or reduce.rescale):
        return projection
    deviation = np.sqrt(projection.explained_variance)
    if reduce.rescale:
        deviation = deviation * projection.population_factor
    return replace(projection, scale=np.where(deviation > 0, deviation, 1.0))


def first(components: Projection, count: int) -> Projection:
    """The first ``count`` components."""
    return replace(
        components,
        components=components.components[:count],
        explained_variance=components.explained_variance[:count],
        explained_variance_ratio=components.explained_variance_ratio[:count],
        scale=components.scale[:count],
    )
