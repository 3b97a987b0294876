"""`AgglomerativeClustering`: a tree of merges and its cut as a scikit-learn estimator."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import ClusterMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from gpuclust.estimators.base import ByRegistry, seed_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike


@dataclass(eq=False, repr=False)
class AgglomerativeClustering(ClusterMixin, ByRegistry):  # type: ignore[misc]
    """Agglomerative clustering: the tree of merges of the distinct rows, or of weighted K-Means centres of many rows.

    Parameters
    ----------
    n_clusters : int, default=2
        Number of clusters.
    linkage : {"ward", "average", "complete", "single"}, default="ward"
        The distance between two clusters, as in scikit-learn.
    n_leaves : int or "auto", default="auto"
        The largest number of leaves of the tree. "auto": up to 5,000 distinct rows, or 2,000 K-Means centres of more rows. The memory is 8
        bytes for each pair of leaves.
    metric : {"euclidean", "cosine"}, default="euclidean"
        "cosine" divides rows by their length; Euclidean distances then have the same order as cosine distances.
    random_state : int, RandomState instance or None, default=None
        Seed of the K-Means that finds the leaves of a large table; not used for few rows.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,), int32
        Cluster 0 is the largest, then by size, ties by centre.
    cluster_centers_ : ndarray of shape (n_clusters, n_features), float64
        The mean of each cluster; where the leaves are K-Means centres, their weighted mean.
    children_ : ndarray of shape (n_leaves - 1, 2), int64
        The two nodes of each merge, as in scikit-learn: a node below ``n_leaves_`` is a leaf, node ``n_leaves_ + i`` is merge i.
    distances_ : ndarray of shape (n_leaves - 1,), float64
        The height of each merge, ascending.
    linkage_matrix_ : ndarray of shape (n_leaves - 1, 4), float64
        The tree for `scipy.cluster.hierarchy.dendrogram`.
    n_leaves_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only where X has feature names that are all strings.

    References
    ----------
    Ward, "Hierarchical grouping to optimize an objective function", 1963; Murtagh, "A survey of recent advances in hierarchical clustering
    algorithms", 1983.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuclust as gc
    >>> X = np.array([[1.0, 2.0], [1.0, 4.0], [1.0, 0.0], [10.0, 2.0], [10.0, 4.0]])
    >>> tree = gc.AgglomerativeClustering(n_clusters=2).fit(X)
    >>> tree.labels_
    array([0, 0, 0, 1, 1], dtype=int32)
    >>> tree.distances_.round(2)
    array([ 2.  ,  2.  ,  3.46, 13.99])
    """

    _algorithm: ClassVar[str] = "agglomerative"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "linkage": [StrOptions({"ward", "average", "complete", "single"})],
        "n_leaves": [Interval(Integral, 2, 20_000, closed="both"), StrOptions({"auto"})],
        "metric": [StrOptions({"euclidean", "cosine"})],
        "random_state": ["random_state"],
    }

    n_clusters: Any = 2
    _: KW_ONLY
    linkage: Any = "ward"
    n_leaves: Any = "auto"
    metric: Any = "euclidean"
    random_state: Any = None

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: Any = None) -> AgglomerativeClustering:
        """Find the clusters of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), float32 or float64
            Other types are converted to float64. Nothing is scaled.
        y : ignored

        Returns
        -------
        AgglomerativeClustering
            The estimator.

        Raises
        ------
        ValueError
            For a parameter out of its range, fewer distinct rows than clusters, and values that are not finite.
        """
        found = self._cluster(X, seed=seed_of(self.random_state), at_least=2)
        self.cluster_centers_ = found.centers
        self.linkage_matrix_ = found.parameters["merges"]
        self.children_ = self.linkage_matrix_[:, :2].astype(np.int64)
        self.distances_ = self.linkage_matrix_[:, 2]
        self.n_leaves_ = len(self.linkage_matrix_) + 1
        return self

    def plot_dendrogram(self) -> Figure:
        """Draw the last merges of the tree, with the rows of each branch.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from gpuclust.report.figures import dendrogram
        from gpuclust.report.notebook import shown_as_png

        check_is_fitted(self)
        sizes, labels = self._parameters["leaf_sizes"], self._parameters["leaf_labels"]
        return shown_as_png(dendrogram(self.linkage_matrix_, sizes, labels))
