"""`SpectralClustering`: spectral clustering on landmarks as a scikit-learn estimator."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar

from sklearn.base import ClusterMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions

from gpuclust.estimators.base import ByRegistry, seed_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(eq=False, repr=False)
class SpectralClustering(ClusterMixin, ByRegistry):  # type: ignore[misc]
    """Spectral clustering on landmarks, for many rows: time and memory grow linearly with their number.

    Parameters
    ----------
    n_clusters : int, default=8
        The number of clusters.
    n_landmarks : int, default=500
        The number of landmarks, which are centres of K-Means on a sample of the rows; the distinct rows where there are fewer.
    n_nearest : int, default=5
        The number of landmarks that a row is described by.
    n_init : int, default=10
        The number of starts of K-Means on the singular vectors.
    random_state : int, RandomState instance or None, default=None
        The seed of the sample and of K-Means.
    metric : {"euclidean", "cosine"}, default="euclidean"
        "cosine" divides rows by their length; Euclidean distances then have the same order as cosine distances.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,), int32
        Cluster 0 is the largest, then by size, ties by centre.
    landmarks_ : ndarray of shape (n_landmarks, n_features)
        The landmarks.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only where X has feature names that are all strings.

    References
    ----------
    Chen and Cai, "Large scale spectral clustering with landmark-based representation", 2011.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuclust as gc
    >>> angles = np.linspace(0, 6.28, 100)
    >>> ring = np.column_stack([np.cos(angles), np.sin(angles)])
    >>> labels = gc.SpectralClustering(n_clusters=2, random_state=0).fit_predict(np.concatenate([ring, 4 * ring]))
    >>> len(set(labels[:100])), len(set(labels[100:]))
    (1, 1)
    """

    _algorithm: ClassVar[str] = "spectral"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "n_landmarks": [Interval(Integral, 2, 5000, closed="both")],
        "n_nearest": [Interval(Integral, 2, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "metric": [StrOptions({"euclidean", "cosine"})],
    }

    n_clusters: Any = 8
    _: KW_ONLY
    n_landmarks: Any = 500
    n_nearest: Any = 5
    n_init: Any = 10
    random_state: Any = None
    metric: Any = "euclidean"

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: Any = None) -> SpectralClustering:
        """Find the clusters of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Nothing is scaled.
        y : ignored

        Returns
        -------
        SpectralClustering
            The estimator.

        Raises
        ------
        ValueError
            For a parameter out of its range, fewer distinct rows than clusters, and values that are not finite.
        """
        found = self._cluster(X, seed=seed_of(self.random_state), at_least=2)
        self.landmarks_ = found.parameters["landmarks"]
        return self
