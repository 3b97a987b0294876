"""`HDBSCAN`: an exact spanning tree and its cut as a scikit-learn estimator."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import ClusterMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from gpuclust.errors import ConfigurationError
from gpuclust.estimators.base import Estimator, value_errors
from gpuclust.model.prediction import assign
from gpuclust.model.records import canonical_order, renumbered

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gpuclust.algorithms.hdbscan.fit import SpanningTree

AUTO = "auto"
MAX_MIN_SAMPLES = 1024
DEFAULT_MIN_SAMPLES = 11
"""``min_samples`` where neither it nor a number for ``min_cluster_size`` is given; the row itself included."""


@dataclass(eq=False, repr=False)
class HDBSCAN(ClusterMixin, Estimator):  # type: ignore[misc]
    """HDBSCAN* clustering by Euclidean distance, with an exact spanning tree.

    Parameters
    ----------
    min_cluster_size : int, "auto" or None, default=5
        The smallest number of rows of a cluster. "auto" ranks all sizes by the persistence of their clusters and takes the
        best; None is the square root of the number of rows, at least 5.
    min_samples : int, optional
        The number of rows in a neighbourhood, the row itself included, as in scikit-learn. By default
        ``min_cluster_size``, or 11 where that is no number.
    cluster_selection_epsilon : float, default=0.0
        Clusters closer than this distance are merged.
    max_cluster_size : int, optional
        With "eom", larger clusters are split where they can be.
    cluster_selection_method : {"eom", "leaf"}, default="eom"
        "eom": the most stable clusters of the tree (excess of mass); "leaf": its finest ones.
    allow_single_cluster : bool, default=False
        Whether all rows may be one cluster.
    metric : {"euclidean", "cosine"}, default="euclidean"
        "cosine" divides rows by their length; Euclidean distances then have the same order as cosine distances.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,), int32
        Noise is -1; cluster 0 is the largest, then by size, ties by mean.
    probabilities_ : ndarray of shape (n_samples,), float64
        The strength of each row's membership in [0, 1]; 0 for noise.
    cluster_persistence_ : ndarray of shape (n_clusters,), float64
        The stability of each cluster over its upper bound, in [0, 1].
    relative_validity_ : float
        The density-based validity index, estimated on the spanning tree, in [-1, 1]; higher is better.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only where X has feature names that are all strings.

    References
    ----------
    Campello, Moulavi and Sander, "Density-based clustering based on hierarchical density estimates", 2013; McInnes and Healy,
    "Accelerated hierarchical density based clustering", 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuclust as gc
    >>> X = np.array([[0.0], [0.1], [0.2], [0.3], [5.0], [5.1], [5.2], [20.0]])
    >>> gc.HDBSCAN(min_cluster_size=3, min_samples=2).fit(X).labels_
    array([ 0,  0,  0,  0,  1,  1,  1, -1], dtype=int32)
    """

    _algorithm: ClassVar[str] = "hdbscan"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "min_cluster_size": [Interval(Integral, 2, None, closed="left"), StrOptions({AUTO}), None],
        "min_samples": [Interval(Integral, 2, None, closed="left"), None],
        "cluster_selection_epsilon": [Interval(Real, 0, None, closed="left")],
        "max_cluster_size": [Interval(Integral, 1, None, closed="left"), None],
        "cluster_selection_method": [StrOptions({"eom", "leaf"})],
        "allow_single_cluster": ["boolean"],
        "metric": [StrOptions({"euclidean", "cosine"})],
    }

    min_cluster_size: Any = 5
    _: KW_ONLY
    min_samples: Any = None
    cluster_selection_epsilon: Any = 0.0
    max_cluster_size: Any = None
    cluster_selection_method: Any = "eom"
    allow_single_cluster: Any = False
    metric: Any = "euclidean"

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: Any = None) -> HDBSCAN:
        """Find the clusters of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Distances are computed in float32. Nothing is scaled.
        y : ignored

        Returns
        -------
        HDBSCAN
            The estimator.

        Raises
        ------
        ValueError
            For a parameter out of its range, more ``min_samples`` than rows, and values that are not finite.
        """
        from gpuclust.algorithms.hdbscan.fit import extract_clusters, spanning_tree
        from gpuclust.algorithms.hdbscan.predict import prediction_data

        rows = self._rows_to_fit(X, at_least=2)
        neighbours = self._neighbours()
        if neighbours >= len(rows):
            raise ValueError(f"min_samples ({neighbours + 1}) must be at most the number of samples in X ({len(rows)})")
        with value_errors(self):
            tree = spanning_tree(rows, min_samples=neighbours)
            found = extract_clusters(
                tree,
                min_cluster_size=min(self._size(tree), len(rows)),
                cluster_selection_method=self.cluster_selection_method,
                cluster_selection_epsilon=float(self.cluster_selection_epsilon),
                max_cluster_size=self.max_cluster_size or 0,
                allow_single_cluster=self.allow_single_cluster,
            )
        order = _order(found.labels, rows)
        self.labels_, self.probabilities_ = renumbered(found.labels, order), found.probabilities
        self.cluster_persistence_, self.relative_validity_ = found.persistence[order], found.relative_validity
        self._prediction_data = prediction_data(rows, tree, found) | {"canonical": np.argsort(order)}
        self._linkage = tree.linkage
        return self

    def _neighbours(self) -> int:
        """The number of other rows in a neighbourhood, which is how the kernel counts ``min_samples``."""
        if self.min_samples is not None:
            return int(self.min_samples) - 1
        given = isinstance(self.min_cluster_size, Integral)
        return int(self.min_cluster_size if given else DEFAULT_MIN_SAMPLES) - 1

    def _size(self, tree: SpanningTree) -> int:
        from gpuclust.algorithms.hdbscan import default_min_cluster_size
        from gpuclust.algorithms.hdbscan.quality import persistence_curve

        if self.min_cluster_size == AUTO:
            return int(persistence_curve(tree).chosen)
        return default_min_cluster_size(tree.n_rows) if self.min_cluster_size is None else int(self.min_cluster_size)

    def predict(self, X: ArrayLike) -> NDArray[np.int32]:
        """Assign new rows to the clusters, as hdbscan's ``approximate_predict`` does.

        A row that equals a fitted row gets that row's label. Raises ValueError for another number of features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,), int32
            Noise is -1.
        """
        rows = self._rows(X)
        return assign("hdbscan", self._prediction_data, {}, rows)

    def dbscan_clustering(self, cut_distance: float, min_cluster_size: int = 5) -> NDArray[np.int32]:
        """Cluster the fitted rows as DBSCAN* does, by a cut of the tree at one distance.

        Parameters
        ----------
        cut_distance : float
            The mutual reachability distance of the cut, DBSCAN's ``eps``.
        min_cluster_size : int, default=5
            Smaller clusters are noise.

        Returns
        -------
        ndarray of shape (n_samples,), int32
            Numbered by size; noise is -1.
        """
        from scipy.cluster.hierarchy import fcluster

        check_is_fitted(self)
        together = fcluster(self._linkage, cut_distance, criterion="distance")
        large = np.bincount(together) >= min_cluster_size
        labels = np.where(large, np.cumsum(large) - 1, -1).astype(np.int32)[together]
        return renumbered(labels, _order(labels, self._prediction_data["points"]))

    def _settings(self) -> dict[str, Any]:
        settings = super()._settings() | {"min_samples": self._neighbours()}
        if settings["min_samples"] >= MAX_MIN_SAMPLES:
            by_default = "" if self.min_samples is not None else " (by default it is min_cluster_size)"
            raise ConfigurationError(
                f"min_samples={settings['min_samples'] + 1} is more than {MAX_MIN_SAMPLES:,}; give a smaller one{by_default}"
            )
        return settings


def _order(labels: NDArray[np.int32], rows: NDArray[Any]) -> NDArray[np.intp]:
    """The clusters of labels (n_samples,) by size, ties by the mean of their rows (n_samples, n_features)."""
    n_clusters = int(labels.max(initial=-1)) + 1
    means = np.array([rows[labels == label].mean(axis=0, dtype=np.float64) for label in range(n_clusters)])
    return canonical_order(labels, means.reshape(n_clusters, rows.shape[1]))
