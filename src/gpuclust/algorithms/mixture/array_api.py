"""scikit-learn's Gaussian mixture through its array API: the same code on NumPy and on CuPy arrays.

scikit-learn starts such a fit only at random; here it starts from labels, by K-Means as elsewhere. `xp` is the module
of the arrays, `numpy` or `cupy`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuclust.config import GmmConfig
from gpuclust.errors import FitError
from gpuclust.runtime.backend import Array


@dataclass(frozen=True)
class Mixture:
    """What was fitted, under scikit-learn's names, with float64 arrays on the host."""

    covariance_type: str
    weights_: np.ndarray
    means_: np.ndarray
    covariances_: np.ndarray
    precisions_cholesky_: np.ndarray
    lower_bound_: float
    n_iter_: int
    converged_: bool


def fit_mixture(X: Array, request: GmmConfig, seed: int, labels_of: Callable[[int], Array], xp: Any) -> Mixture:
    """The best of ``request.n_init`` fits of X (n_samples, n_features) float32 or float64.

    ``labels_of(seed)`` gives a K-Means labeling (n_samples,) for ``init_params`` kmeans; k-means++ seeds are drawn by
    scikit-learn on the host. Raises FitError when a covariance is singular or the rows are too few.
    """
    X = X.astype(np.float64, copy=False)
    settings: dict[str, Any] = {
        "n_components": request.n_clusters,
        "covariance_type": request.covariance_type,
        "max_iter": request.max_iter,
        "tol": request.tol,
        "reg_covar": request.reg_covar,
    }
    try:
        if request.init_params in ("random", "random_from_data"):
            settings |= {"init_params": request.init_params, "n_init": request.n_init, "random_state": seed}
            return _fit(X, settings, xp)
        starts = (_start(X, request, seed + i, labels_of, xp) for i in range(request.n_init))
        # With all three given nothing is drawn: "random" only passes scikit-learn's check of names.
        return max(
            (_fit(X, settings | start | {"init_params": "random"}, xp) for start in starts),
            key=lambda m: m.lower_bound_,
        )
    except (ValueError, np.linalg.LinAlgError) as error:
        raise FitError(
            f"the mixture of {request.n_clusters} components cannot be fitted: {str(error).splitlines()[0]}"
        ) from error


def _fit(X: Array, settings: dict[str, Any], xp: Any) -> Mixture:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    with array_api(), warnings.catch_warnings():
        # Not converged is told by the fit's own note.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianMixture(**settings).fit(X)
    return Mixture(
        covariance_type=model.covariance_type,
        weights_=to_host(model.weights_),
        means_=to_host(model.means_),
        covariances_=to_host(model.covariances_),
        precisions_cholesky_=to_host(model.precisions_cholesky_),
        lower_bound_=float(model.lower_bound_),
        n_iter_=int(model.n_iter_),
        converged_=bool(model.converged_),
    )


@contextmanager
def array_api() -> Iterator[None]:
    """scikit-learn's array API dispatch.

    It asks for SCIPY_ARRAY_API=1, which SciPy reads when it is imported; the mixture calls no SciPy function on
    arrays that are not NumPy's, so it is enough that scikit-learn finds it.
    """
    from sklearn import config_context

    before = os.environ.get("SCIPY_ARRAY_API")
    os.environ["SCIPY_ARRAY_API"] = "1"
    try:
        with config_context(array_api_dispatch=True):
            yield
    finally:
        if before is None:
            del os.environ["SCIPY_ARRAY_API"]
        else:
            os.environ["SCIPY_ARRAY_API"] = before


def to_host(array: Array) -> np.ndarray:
    """A float64 copy in host memory of a NumPy or a CuPy array."""
    return np.asarray(array.get() if hasattr(array, "get") else array, dtype=np.float64)


def _start(X: Array, request: GmmConfig, seed: int, labels_of: Callable[[int], Array], xp: Any) -> dict[str, Any]:
    """The parameters that scikit-learn's first M-step would give from the labels, or from k-means++ seeds alone."""
    if request.init_params == "kmeans":
        return m_step(X, labels_of(seed), request, xp)
    from sklearn.cluster import kmeans_plusplus

    _, rows = kmeans_plusplus(to_host(X), request.n_clusters, random_state=seed)
    labels = xp.full(X.shape[0], -1, dtype=np.int32)
    labels[xp.asarray(rows)] = xp.arange(request.n_clusters, dtype=np.int32)
    return m_step(X, labels, request, xp)


def m_step(X: Array, labels: Array, request: GmmConfig, xp: Any) -> dict[str, Any]:
    """scikit-learn's ``weights_init``, ``means_init`` and ``precisions_init`` from hard labels; -1 is left out.

    X is float64. As in `sklearn.mixture`, an empty component has weight near 0 and covariance ``reg_covar``.
    """
    n_features, k = X.shape[1], request.n_clusters
    tiny = 10 * np.finfo(np.float64).eps
    counts, means = xp.empty(k), xp.empty((k, n_features))
    scatter = xp.empty((k, n_features, n_features))
    for c in range(k):
        rows = X[labels == c]
        counts[c] = rows.shape[0] + tiny
        means[c] = rows.sum(axis=0) / counts[c]
        centred = rows - means[c]
        scatter[c] = centred.T @ centred
    ridge = request.reg_covar * xp.eye(n_features)
    if request.covariance_type == "full":
        precisions = symmetric(xp.linalg.inv(scatter / counts[:, None, None] + ridge))
    elif request.covariance_type == "tied":
        precisions = symmetric(xp.linalg.inv(scatter.sum(axis=0) / counts.sum() + ridge))
    else:
        variances = xp.diagonal(scatter, axis1=1, axis2=2) / counts[:, None] + request.reg_covar
        precisions = 1.0 / (variances if request.covariance_type == "diag" else variances.mean(axis=1))
    return {"weights_init": counts / counts.sum(), "means_init": means, "precisions_init": precisions}


def symmetric(matrices: Array) -> Array:
    """The matrices without the asymmetry that inverting left."""
    return (matrices + matrices.swapaxes(-1, -2)) / 2
