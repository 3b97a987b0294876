"""scikit-learn estimators over gpuclust's CPU kernels: `KMeans`, `GaussianMixture` and `HDBSCAN`.

Parameters and attributes have scikit-learn's names and meanings, so the estimators work in a ``Pipeline``, in
``GridSearchCV`` and with ``clone``. They also describe the algorithm of `gpuclust.fit` and `gpuclust.sweep`, where a
parameter may be several values, as in ``KMeans(n_clusters=range(2, 11))``.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    DensityMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from gpuclust.model.kmeans import squared_distances
from gpuclust.model.prediction import assign

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

DTYPES = (np.float64, np.float32)


class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """K-Means by the fused Lloyd pass: many restarts at once, sums in float64, the same result from any number of threads.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    init : {"k-means++", "random"}, default="k-means++"
        How centres are initialised.
    n_init : int, default=10
        Number of restarts; the one of the lowest inertia is kept.
    max_iter : int, default=300
        Maximum number of iterations of a restart.
    tol : float, default=1e-4
        Tolerance on the squared shift of the centres, relative to the mean variance of the features.
    random_state : int, RandomState instance or None, default=None
        Seed of the initialisation.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, n_features), float64
    labels_ : ndarray of shape (n_samples,), int32
        Cluster 0 is the largest, then by size.
    inertia_ : float
        Weighted sum of squared distances to the nearest centre.
    n_iter_ : int
    n_features_in_ : int

    References
    ----------
    Lloyd 1982; Arthur and Vassilvitskii 2007.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "init": [StrOptions({"k-means++", "random"})],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    cluster_centers_: NDArray[np.float64]
    labels_: NDArray[np.int32]
    inertia_: float
    n_iter_: int

    def __init__(
        self,
        n_clusters: Any = 8,
        *,
        init: Any = "k-means++",
        n_init: Any = 10,
        max_iter: Any = 300,
        tol: Any = 1e-4,
        random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> KMeans:
        """Fit X (n_samples, n_features); a row of weight w counts as w equal rows. Returns the estimator."""
        from gpuclust.algorithms.kmeans.fit import KMeansRequest, fit_kmeans

        X = validate_data(self, X, dtype=DTYPES, order="C")
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        if len(X) < self.n_clusters:
            raise ValueError(f"n_samples={len(X)} should be >= n_clusters={self.n_clusters}.")
        request = KMeansRequest(
            self.n_clusters, _seed(self.random_state), self.n_init, self.init, self.max_iter, self.tol
        )
        (found,) = fit_kmeans(X, [request], sample_weight=weight)
        order = _by_size(found.labels, weight, found.centers)
        self.cluster_centers_ = found.centers[order]
        self.labels_ = np.argsort(order).astype(np.int32)[found.labels]
        self.inertia_, self.n_iter_ = found.inertia, found.n_iter
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int32]:
        """The nearest centre of each row, (n_samples,) int32."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=DTYPES, reset=False)
        return assign("kmeans", {"centers": self.cluster_centers_}, {}, X)

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """The distances of each row to the centres, (n_samples, n_clusters) float64."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=DTYPES, reset=False)
        return np.sqrt(squared_distances(X, self.cluster_centers_))

    def score(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Minus the inertia of X: the higher the better."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=DTYPES, reset=False)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        return -float(weight @ squared_distances(X, self.cluster_centers_).min(axis=1))

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


class GaussianMixture(DensityMixin, BaseEstimator):  # type: ignore[misc]
    """Gaussian mixture by expectation-maximisation in fused passes, without an (n_samples, n_components) array.

    Parameters
    ----------
    n_components : int, default=1
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
    tol : float, default=1e-3
        EM stops when the mean log-likelihood gains less than this.
    reg_covar : float, default=1e-6
        Added to the diagonal of the covariances.
    max_iter : int, default=200
    n_init : int, default=1
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}, default="kmeans"
        ``kmeans`` starts from the best of many short runs of EM on a sample (Biernacki, Celeux and Govaert 2003).
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
    covariances_, precisions_, precisions_cholesky_ : ndarrays, shaped as scikit-learn's
    labels_ : ndarray of shape (n_samples,), int32
    converged_ : bool
    n_iter_ : int
    lower_bound_ : float
    n_features_in_ : int

    References
    ----------
    Dempster, Laird and Rubin 1977.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions({"full", "tied", "diag", "spherical"})],
        "tol": [Interval(Real, 0, None, closed="left")],
        "reg_covar": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions({"kmeans", "k-means++", "random", "random_from_data"})],
        "random_state": ["random_state"],
    }

    weights_: NDArray[np.float64]
    means_: NDArray[np.float64]
    covariances_: NDArray[np.float64]
    precisions_: NDArray[np.float64]
    precisions_cholesky_: NDArray[np.float64]
    labels_: NDArray[np.int32]
    converged_: bool
    n_iter_: int
    lower_bound_: float

    def __init__(
        self,
        n_components: Any = 1,
        *,
        covariance_type: Any = "full",
        tol: Any = 1e-3,
        reg_covar: Any = 1e-6,
        max_iter: Any = 200,
        n_init: Any = 1,
        init_params: Any = "kmeans",
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> GaussianMixture:
        """Fit X (n_samples, n_features); a row of weight w counts as w equal rows. Returns the estimator."""
        from gpuclust.algorithms.mixture.fit import GaussianMixture as Mixture
        from gpuclust.algorithms.mixture.init import kmeans_labels
        from gpuclust.algorithms.mixture.short_em import short_em_init

        X = validate_data(self, X, dtype=DTYPES, order="C", ensure_min_samples=2)
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        if len(X) < self.n_components:
            raise ValueError(f"Expected n_samples >= n_components but got n_components={self.n_components}, "
                             f"n_samples={len(X)}")  # fmt: skip
        self._mixture = Mixture(
            self.n_components,
            covariance_type=self.covariance_type,
            tol=self.tol,
            reg_covar=self.reg_covar,
            max_iter=self.max_iter,
            n_init=self.n_init,
            init_params=self.init_params,
            random_state=_seed(self.random_state),
            kmeans=short_em_init(self.covariance_type, self.reg_covar),
        ).fit(X, weight)
        self._mixture.kmeans = kmeans_labels  # a function of a module, which can be pickled
        for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_", "converged_",
                     "n_iter_", "lower_bound_"):  # fmt: skip
            setattr(self, name, getattr(self._mixture, name))
        self.labels_ = self._mixture.predict(X)
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int32]:
        """The likeliest component of each row, (n_samples,) int32."""
        return self._mixture_of().predict(self._checked(X))

    def fit_predict(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> NDArray[np.int32]:
        """Fit, and the likeliest component of each row, (n_samples,) int32."""
        return self.fit(X, y, sample_weight).labels_

    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """The responsibilities, (n_samples, n_components), in X's dtype."""
        return self._mixture_of().predict_proba(self._checked(X))

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """The log-density of each row, (n_samples,) float64."""
        return self._mixture_of().score_samples(self._checked(X))

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """The mean log-density of the rows: the higher the better."""
        return float(self._mixture_of().score(self._checked(X)))

    def bic(self, X: ArrayLike) -> float:
        """The Bayesian information criterion: the lower the better."""
        return float(self._mixture_of().bic(self._checked(X)))

    def aic(self, X: ArrayLike) -> float:
        """Akaike's information criterion: the lower the better."""
        return float(self._mixture_of().aic(self._checked(X)))

    def _mixture_of(self) -> Any:
        check_is_fitted(self)
        return self._mixture

    def _checked(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        return validate_data(self, X, dtype=DTYPES, order="C", reset=False)


class HDBSCAN(ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """HDBSCAN* by an exact spanning tree of mutual reachability, in Euclidean distance.

    Parameters
    ----------
    min_cluster_size : int, default=5
        The smallest number of rows of a cluster.
    min_samples : int or None, default=None
        The number of rows in a neighbourhood, the row itself included, as in scikit-learn; None: ``min_cluster_size``.
    cluster_selection_epsilon : float, default=0.0
    max_cluster_size : int or None, default=None
    cluster_selection_method : {"eom", "leaf"}, default="eom"
    allow_single_cluster : bool, default=False

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,), int32
        Noise is -1.
    probabilities_ : ndarray of shape (n_samples,), float64
        The strength of membership, 0 for noise.
    relative_validity_ : float
        The density-based validity index on the spanning tree, in [-1, 1].
    n_features_in_ : int

    References
    ----------
    Campello, Moulavi and Sander 2013; McInnes and Healy 2017.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "min_cluster_size": [Interval(Integral, 2, None, closed="left")],
        "min_samples": [Interval(Integral, 2, None, closed="left"), None],
        "cluster_selection_epsilon": [Interval(Real, 0, None, closed="left")],
        "max_cluster_size": [Interval(Integral, 1, None, closed="left"), None],
        "cluster_selection_method": [StrOptions({"eom", "leaf"})],
        "allow_single_cluster": ["boolean"],
    }

    labels_: NDArray[np.int32]
    probabilities_: NDArray[np.float64]
    relative_validity_: float

    def __init__(
        self,
        min_cluster_size: Any = 5,
        *,
        min_samples: Any = None,
        cluster_selection_epsilon: Any = 0.0,
        max_cluster_size: Any = None,
        cluster_selection_method: Any = "eom",
        allow_single_cluster: Any = False,
    ) -> None:
        self.min_cluster_size = min_cluster_size
        self.min_samples = min_samples
        self.cluster_selection_epsilon = cluster_selection_epsilon
        self.max_cluster_size = max_cluster_size
        self.cluster_selection_method = cluster_selection_method
        self.allow_single_cluster = allow_single_cluster

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: Any = None) -> HDBSCAN:
        """Fit X (n_samples, n_features). Returns the estimator."""
        from gpuclust.algorithms.hdbscan.fit import cut, spanning_tree
        from gpuclust.algorithms.hdbscan.predict import prediction_data

        X = validate_data(self, X, dtype=DTYPES, order="C", ensure_min_samples=2)
        wanted = self.min_cluster_size if self.min_samples is None else self.min_samples
        if wanted > len(X):
            raise ValueError(f"min_samples ({wanted}) must be at most the number of samples in X ({len(X)})")
        tree = spanning_tree(X, min_samples=wanted - 1)
        found = cut(
            tree,
            min_cluster_size=min(self.min_cluster_size, len(X)),
            cluster_selection_method=self.cluster_selection_method,
            cluster_selection_epsilon=float(self.cluster_selection_epsilon),
            max_cluster_size=self.max_cluster_size or 0,
            allow_single_cluster=self.allow_single_cluster,
        )
        self.labels_, self.probabilities_ = found.labels, found.probabilities
        self.relative_validity_ = found.relative_validity
        self._prediction_data = prediction_data(X, tree, found)
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int32]:
        """Labels of new rows as by hdbscan's ``approximate_predict``, (n_samples,) int32, noise -1."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=DTYPES, reset=False)
        return assign("hdbscan", self._prediction_data, {}, X)


def _by_size(labels: NDArray[np.int32], weight: NDArray[np.float64] | None, centers: NDArray[np.float64]) -> Any:
    """The clusters by their total weight, the largest first, ties by centre in lexicographic order."""
    sizes = np.bincount(labels, weights=weight, minlength=len(centers))
    return np.lexsort((*centers.T[::-1], -sizes))


def _seed(random_state: Any) -> int:
    """A seed from an int, a RandomState or None."""
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))
