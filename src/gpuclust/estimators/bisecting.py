"""`BisectingKMeans`: clusters divided in two, one after another, as a scikit-learn estimator."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

from sklearn.base import ClusterMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions

from gpuclust.estimators.base import ByRegistry, seed_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(eq=False, repr=False)
class BisectingKMeans(ClusterMixin, ByRegistry):  # type: ignore[misc]
    """Bisecting K-Means clustering: each step divides one cluster in two by K-Means.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    bisecting_strategy : {"biggest_inertia", "largest_cluster"}, default="biggest_inertia"
        The cluster that is divided next: the one with the largest sum of squares, or the one with the most rows.
    init : {"k-means++", "random"}, default="k-means++"
        How the two starting centres of a division are chosen.
    n_init : int, default=3
        Number of starts of a division.
    max_iter : int, default=300
        Maximum number of iterations of a start.
    tol : float, default=1e-4
        Tolerance on the squared shift of the centres, relative to the mean variance of the features.
    metric : {"euclidean", "cosine"}, default="euclidean"
        "cosine": each division is by spherical K-Means.
    random_state : int, RandomState instance or None, default=None
        Seed of the initialisation.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,), int32
        Cluster 0 is the largest, then by size, ties by centre. A row can be nearer to the centre of a cluster on the other side of an earlier
        division.
    cluster_centers_ : ndarray of shape (n_clusters, n_features), float64
    inertia_ : float
        Sum of squared distances to the centre of the own cluster.
    n_iter_ : int
        The iterations of all divisions together.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only where X has feature names that are all strings.

    References
    ----------
    Steinbach, Karypis and Kumar, "A comparison of document clustering techniques", 2000.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuclust as gc
    >>> X = np.array([[1.0, 2.0], [1.0, 4.0], [1.0, 0.0], [10.0, 2.0], [10.0, 4.0]])
    >>> gc.BisectingKMeans(n_clusters=2, random_state=0).fit(X).labels_
    array([0, 0, 0, 1, 1], dtype=int32)
    """

    _algorithm: ClassVar[str] = "bisecting"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "bisecting_strategy": [StrOptions({"biggest_inertia", "largest_cluster"})],
        "init": [StrOptions({"k-means++", "random"})],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "metric": [StrOptions({"euclidean", "cosine"})],
        "random_state": ["random_state"],
    }

    n_clusters: Any = 8
    _: KW_ONLY
    bisecting_strategy: Any = "biggest_inertia"
    init: Any = "k-means++"
    n_init: Any = 3
    max_iter: Any = 300
    tol: Any = 1e-4
    metric: Any = "euclidean"
    random_state: Any = None

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: Any = None) -> BisectingKMeans:
        """Find the clusters of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), float32 or float64
            Other types are converted to float64. Nothing is scaled.
        y : ignored

        Returns
        -------
        BisectingKMeans
            The estimator.

        Raises
        ------
        ValueError
            For a parameter out of its range, fewer distinct rows than clusters, and values that are not finite.
        """
        found = self._cluster(X, seed=seed_of(self.random_state))
        self.cluster_centers_, self.inertia_ = found.centers, found.metrics["inertia"]
        self.n_iter_ = int(found.metrics["n_iter"])
        return self
