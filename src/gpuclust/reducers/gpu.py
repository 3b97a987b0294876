"""Scaling, principal components and UMAP by cuML, with scikit-learn's treatment of constant features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cupy as cp
import numpy as np

from gpuclust.model.preparation import Projection, Scaling, projection_of
from gpuclust.runtime.gpu import device_errors

if TYPE_CHECKING:
    from gpuclust.reducers.landmarks import EmbeddingSettings

EPSILON = float(np.finfo(np.float64).eps)


@device_errors("the scaling")
def fit_scaler(X: cp.ndarray, method: str) -> Scaling:
    """cuML's scaler fitted on X (n_samples, n_features) float64 on the device; ``none`` is the identity.

    cuML gives scale 1 to a feature only where its spread is exactly 0; scikit-learn also where it is rounding error
    (`sklearn.preprocessing._data._is_constant_feature`, `_handle_zeros_in_scale`). The second is done here.
    """
    from cuml.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

    if method == "standard":
        standard = StandardScaler().fit(X)
        mean, variance = cp.asnumpy(standard.mean_), cp.asnumpy(standard.var_)
        noise = len(X) * EPSILON * variance + (len(X) * mean * EPSILON) ** 2
        return Scaling(method, mean, np.where(variance <= noise, 1.0, np.sqrt(variance)))
    if method == "minmax":
        minmax = MinMaxScaler().fit(X)
        return Scaling(method, cp.asnumpy(minmax.data_min_), _without_constants(cp.asnumpy(minmax.data_range_)))
    if method == "robust":
        robust = RobustScaler().fit(X)
        return Scaling(method, cp.asnumpy(robust.center_), _without_constants(cp.asnumpy(robust.scale_)))
    return Scaling(method, np.zeros(X.shape[1]), np.ones(X.shape[1]))


def _without_constants(spread: np.ndarray) -> np.ndarray:
    return np.where(spread < 10 * EPSILON, 1.0, spread)


@device_errors("the principal components")
def fit_components(X: cp.ndarray) -> Projection:
    """All principal components of X (n_samples, n_features) float64 on the device.

    cuML takes a whole number of components and at least two features; signs and ratios are settled as on a CPU.
    """
    from cuml.decomposition import PCA

    n_rows, n_features = X.shape
    if n_features == 1:
        variance = float(X.var(ddof=1)) if n_rows > 1 else 0.0
        return projection_of(cp.asnumpy(X.mean(axis=0)), np.ones((1, 1)), np.array([variance]), n_rows)
    model = PCA(n_components=min(n_rows, n_features), svd_solver="full", output_type="cupy").fit(X)
    components: np.ndarray = cp.asnumpy(model.components_)
    return projection_of(cp.asnumpy(model.mean_), components, cp.asnumpy(model.explained_variance_), n_rows)


@device_errors("the UMAP embedding")
def umap_positions(points: cp.ndarray, settings: EmbeddingSettings, n_neighbors: int) -> np.ndarray:
    """The positions (n, n_components) float32 on the host of points (n, n_columns) float32, by cuML, which repeats them for a seed."""
    from cuml.manifold import UMAP

    fitted = UMAP(
        n_neighbors=n_neighbors,
        n_components=settings.n_components,
        min_dist=settings.min_dist,
        random_state=settings.seed,
        build_algo="brute_force_knn",  # nn_descent is not reproducible
        output_type="cupy",
    )
    return np.asarray(cp.asnumpy(fitted.fit_transform(points)))
