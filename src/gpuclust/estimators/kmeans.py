"""`KMeans`: the fused Lloyd pass as a scikit-learn estimator."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight

from gpuclust.errors import ConfigurationError
from gpuclust.estimators.base import Estimator, seed_of, value_errors
from gpuclust.model.kmeans import squared_distances
from gpuclust.model.prediction import assign
from gpuclust.model.records import canonical_order, renumbered

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gpuclust.algorithms.kmeans.fit import KMeansFit

RESTARTS = {"k-means++": 1, "random": 10}
"""The restarts of ``n_init="auto"``, as in scikit-learn."""


@dataclass(eq=False, repr=False)
class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, Estimator):  # type: ignore[misc]
    """K-Means clustering.

    All restarts advance together, so that each read of the data serves all of them. Sums are in float64, and the result is
    the same whatever the number of threads.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    init : {"k-means++", "random"}, callable or array-like of shape (n_clusters, n_features), default="k-means++"
        How centres are initialised. An array, or a callable ``init(X, n_clusters, random_state)`` that returns one, gives
        them; `gpuclust.fit` and `gpuclust.sweep` take the two names only.
    n_init : int or "auto", default=10
        Number of restarts; the one of the lowest inertia is kept. "auto" is 1 for k-means++ and for an array, 10 otherwise.
    max_iter : int, default=300
        Maximum number of iterations of a restart.
    tol : float, default=1e-4
        Tolerance on the squared shift of the centres, relative to the mean variance of the features.
    random_state : int, RandomState instance or None, default=None
        Seed of the initialisation.
    metric : {"euclidean", "cosine"}, default="euclidean"
        "cosine" is spherical K-Means: rows and centres are scaled to length 1, and distances are those between points of the unit sphere.
    min_size, max_size : int, optional
        Limits of the number of rows of each cluster. The rows are assigned with the least sum of squared distances that the limits allow, so
        ``labels_`` can differ from `predict`, which returns the nearest centre. ``n_samples * n_clusters`` is at most 100,000,000.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, n_features), float64
    labels_ : ndarray of shape (n_samples,), int32
        Cluster 0 is the largest, then by size (total weight), ties by centre.
    inertia_ : float
        Weighted sum of squared distances to the nearest centre.
    n_iter_ : int
        Number of iterations of the restart that was kept.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only where X has feature names that are all strings.

    References
    ----------
    Lloyd, "Least squares quantization in PCM", 1982; Arthur and Vassilvitskii, "k-means++", 2007;
    Dhillon and Modha, "Concept decompositions for large sparse text data using clustering", 2001 (cosine); Bradley, Bennett and Demiriz,
    "Constrained K-Means clustering", 2000 (min_size, max_size).

    Examples
    --------
    >>> import numpy as np
    >>> import gpuclust as gc
    >>> X = np.array([[1.0, 2.0], [1.0, 4.0], [1.0, 0.0], [10.0, 2.0], [10.0, 4.0]])
    >>> kmeans = gc.KMeans(n_clusters=2, random_state=0).fit(X)
    >>> kmeans.labels_
    array([0, 0, 0, 1, 1], dtype=int32)
    >>> kmeans.cluster_centers_
    array([[ 1.,  2.],
           [10.,  3.]])
    >>> kmeans.predict([[12.0, 3.0]])
    array([1], dtype=int32)
    """

    _algorithm: ClassVar[str] = "kmeans"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "init": [StrOptions({"k-means++", "random"}), callable, "array-like"],
        "n_init": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
        "metric": [StrOptions({"euclidean", "cosine"})],
        "min_size": [Interval(Integral, 1, None, closed="left"), None],
        "max_size": [Interval(Integral, 1, None, closed="left"), None],
    }

    n_clusters: Any = 8
    _: KW_ONLY
    init: Any = "k-means++"
    n_init: Any = 10
    max_iter: Any = 300
    tol: Any = 1e-4
    random_state: Any = None
    metric: Any = "euclidean"
    min_size: Any = None
    max_size: Any = None

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> KMeans:
        """Find the clusters of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), float32 or float64
            Other types are converted to float64. Nothing is scaled.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            Non-negative; a row of weight w counts as w equal rows.

        Returns
        -------
        KMeans
            The estimator.

        Raises
        ------
        ValueError
            For a parameter out of its range, fewer rows than clusters, and values that are not finite.
        """
        rows = self._rows_to_fit(X)
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, rows, dtype=np.float64)
        if len(rows) < self.n_clusters:
            raise ValueError(f"n_samples={len(rows)} should be >= n_clusters={self.n_clusters}.")
        with value_errors(self):
            found = self._within_sizes(rows, weight, self._best_of_restarts(rows, weight))
        order = canonical_order(found.labels, found.centers, weight)
        self.cluster_centers_ = found.centers[order]
        self.labels_ = renumbered(found.labels, order)
        self.inertia_, self.n_iter_ = found.inertia, found.n_iter
        distinct = len(np.unique(found.labels))
        if distinct < self.n_clusters:
            warnings.warn(
                f"Number of distinct clusters ({distinct}) found smaller than n_clusters ({self.n_clusters}). "
                "Possibly due to duplicate points in X.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _best_of_restarts(self, X: NDArray[Any], weight: NDArray[np.float64] | None) -> KMeansFit:
        from gpuclust.algorithms.kmeans.fit import KMeansRequest, fit_kmeans, lloyd

        if isinstance(self.init, str):
            n_init = RESTARTS[self.init] if self.n_init == "auto" else self.n_init
            request = KMeansRequest(
                self.n_clusters, seed_of(self.random_state), n_init, self.init, self.max_iter, self.tol,
                spherical=self.metric == "cosine",
            )  # fmt: skip
            return fit_kmeans(X, [request], sample_weight=weight)[0]
        starts = [self._checked_start(start, X) for start in self._starts(X)]
        spherical = self.metric == "cosine"
        fits = lloyd(X, starts, sample_weight=weight, max_iter=self.max_iter, tol=self.tol, spherical=spherical)
        return min(fits, key=lambda fit: fit.inertia)

    def _within_sizes(self, X: NDArray[Any], weight: NDArray[np.float64] | None, found: KMeansFit) -> KMeansFit:
        """The fit with clusters of a size within the limits."""
        if self.min_size is None and self.max_size is None:
            return found
        if weight is not None:
            raise ValueError("min_size and max_size count rows; fit without sample_weight, or without limits")
        from gpuclust.algorithms.kmeans.sizes import limit_sizes

        spherical = self.metric == "cosine"
        labels, centers, converged = limit_sizes(X, found.centers, self.min_size, self.max_size, spherical=spherical)
        inertia = float(((X - centers[labels]) ** 2).sum())
        return replace(found, labels=labels, centers=centers, inertia=inertia, converged=found.converged and converged)

    def _starts(self, X: NDArray[Any]) -> list[Any]:
        """The centres that ``init`` gives: one set, or one for each restart where it is a callable."""
        if not callable(self.init):
            return [self.init]
        random = check_random_state(self.random_state)
        n_init = RESTARTS["random"] if self.n_init == "auto" else self.n_init
        return [self.init(X, self.n_clusters, random_state=random) for _ in range(n_init)]

    def _checked_start(self, start: Any, X: NDArray[Any]) -> NDArray[np.float64]:
        centers: NDArray[np.float64] = check_array(start, dtype=np.float64, input_name="init")
        if centers.shape != (self.n_clusters, X.shape[1]):
            raise ValueError(
                f"The shape of the initial centers {centers.shape} does not match the number of clusters "
                f"{self.n_clusters} and of features {X.shape[1]}."
            )
        return centers

    def predict(self, X: ArrayLike) -> NDArray[np.int32]:
        """Assign rows to their nearest centre.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,), int32
        """
        rows = self._rows(X)
        return assign("kmeans", {"centers": self.cluster_centers_}, {}, rows)

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Compute the Euclidean distances of rows to the centres.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_clusters), float64
            A pandas or polars frame after ``set_output``.
        """
        distances: NDArray[np.float64] = np.sqrt(squared_distances(self._rows(X), self.cluster_centers_))
        return distances

    def score(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Compute minus the inertia of rows; higher is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        float
        """
        rows = self._rows(X)
        weight = _check_sample_weight(sample_weight, rows, dtype=np.float64)
        return -float(weight @ squared_distances(rows, self.cluster_centers_).min(axis=1))

    def _settings(self) -> dict[str, Any]:
        if not isinstance(self.init, str):
            raise ConfigurationError(
                "init as an array or a callable is for KMeans.fit; gpuclust.fit takes k-means++ or random"
            )
        settings = super()._settings()
        if settings["n_init"] == "auto":
            settings["n_init"] = RESTARTS[self.init]
        return settings

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags
