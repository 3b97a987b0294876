"""Principal components: by a pass over the rows, or by cuML for rows in the memory of a GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gpuclust.config import ReduceConfig
from gpuclust.errors import ConfigurationError
from gpuclust.model.preparation import Projection, Scaling, projection_of
from gpuclust.runtime.backend import Array, Backend
from gpuclust.runtime.blocks import RowBlocks, Run
from gpuclust.runtime.passes import as_blocks, each_block


@dataclass(frozen=True)
class Products:
    """The sum (n_features,) of some rows, and the sum of the products of their features (n_features, n_features)."""

    total: np.ndarray
    products: np.ndarray

    def __add__(self, other: Products) -> Products:
        return Products(self.total + other.total, self.products + other.products)


def fit_components(raw: Array | RowBlocks, backend: Backend, scaling: Scaling | None = None) -> Projection:
    """All ``min(n_samples, n_features)`` principal components of the scaled rows; without ``scaling``, of the rows as they are.

    ``raw`` (n_samples, n_features) float64 is on the backend's device, or in blocks. On a CPU they are the eigenvectors of the covariance,
    computed in one read, as with scikit-learn's ``svd_solver="covariance_eigh"``; if there are no more rows than features, the singular
    value decomposition is used.
    """
    if backend.name == "gpu" and not isinstance(raw, RowBlocks):
        from gpuclust.reducers.gpu import fit_components as fit_on_gpu

        return fit_on_gpu(raw if scaling is None else scaling.transform(raw, backend.xp))
    rows = as_blocks(raw)
    n, n_features = rows.shape
    if n <= n_features:
        taken = rows.take(np.arange(n))
        return _of_few_rows(taken if scaling is None else scaling.transform(taken))
    found: Products = rows.reduce(_products, scaling)
    mean = found.total / n
    covariance = found.products - n * mean[:, None] * mean
    covariance /= n - 1
    variance, vectors = np.linalg.eigh(covariance)
    return projection_of(mean, vectors[:, ::-1].T, variance[::-1], n)


def _products(run: Run, scaling: Scaling | None) -> list[Products]:
    def of(start: int, stop: int) -> Products:
        X = run.X[start:stop]
        scaled = X if scaling is None else scaling.transform(X)
        return Products(scaled.sum(axis=0), scaled.T @ scaled)

    return each_block(run, of)


def _of_few_rows(scaled: np.ndarray) -> Projection:
    """By the singular value decomposition of the centred rows (n_samples, n_features)."""
    from scipy.linalg import svd

    mean = scaled.mean(axis=0)
    _, values, vectors = svd(scaled - mean, full_matrices=False)
    return projection_of(mean, vectors, values**2 / max(len(scaled) - 1, 1), len(scaled))


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
