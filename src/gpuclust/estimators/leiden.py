"""`Leiden`: communities of the graph of nearest neighbours as a scikit-learn estimator."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

from sklearn.base import ClusterMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _num_samples

from gpuclust.estimators.base import ByRegistry, seed_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(eq=False, repr=False)
class Leiden(ClusterMixin, ByRegistry):  # type: ignore[misc]
    """Leiden clustering of the graph that joins each row to its nearest rows, by igraph (``pip install 'gpuclust[leiden]'``).

    Parameters
    ----------
    resolution : float, default=1.0
        A higher resolution gives more and smaller clusters.
    n_neighbors : int, default=15
        The number of nearest rows that each row is joined to; all other rows where there are fewer.
    weights : {"jaccard", "none"}, default="jaccard"
        "jaccard": the weight of an edge is the share of neighbours that its two rows have in common; "none": all edges have the same weight.
    n_iterations : int or None, default=2
        Each iteration starts from the partition of the one before; None: until nothing changes.
    random_state : int, RandomState instance or None, default=None
        The seed of the order in which rows are visited.
    metric : {"euclidean", "cosine"}, default="euclidean"
        "cosine" divides rows by their length; Euclidean distances then have the same order as cosine distances.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,), int32
        Cluster 0 is the largest, then by size, ties by mean.
    modularity_ : float
        The modularity of the clusters at resolution 1.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only where X has feature names that are all strings.

    References
    ----------
    Traag, Waltman and van Eck, "From Louvain to Leiden: guaranteeing well-connected communities", 2019; Levine et al., "Data-driven
    phenotypic dissection of AML reveals progenitor-like cells that correlate with prognosis", 2015 (the weights).
    """

    _algorithm: ClassVar[str] = "leiden"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "resolution": [Interval(Real, 0, None, closed="neither")],
        "n_neighbors": [Interval(Integral, 2, 1000, closed="both")],
        "weights": [StrOptions({"jaccard", "none"})],
        "n_iterations": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
        "metric": [StrOptions({"euclidean", "cosine"})],
    }

    resolution: Any = 1.0
    _: KW_ONLY
    n_neighbors: Any = 15
    weights: Any = "jaccard"
    n_iterations: Any = 2
    random_state: Any = None
    metric: Any = "euclidean"

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: Any = None) -> Leiden:
        """Find the clusters of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Distances are computed in float32. Nothing is scaled.
        y : ignored

        Returns
        -------
        Leiden
            The estimator.

        Raises
        ------
        ValueError
            For a parameter out of its range, fewer than three rows, values that are not finite, and where igraph is not installed.
        """
        neighbors = max(2, min(int(self.n_neighbors), _num_samples(X) - 1))
        found = self._cluster(X, seed=seed_of(self.random_state), at_least=3, n_neighbors=neighbors)
        self.modularity_ = found.metrics["modularity"]
        return self
