"""`PLSCAN`: the most persistent leaf clusters of an exact spanning tree as a scikit-learn estimator."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar

from sklearn.base import ClusterMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions

from gpuclust.estimators.base import CountsItself

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(eq=False, repr=False)
class PLSCAN(ClusterMixin, CountsItself):  # type: ignore[misc]
    """PLSCAN clustering by Euclidean distance: HDBSCAN's tree, cut at the size whose leaf clusters last longest.

    Parameters
    ----------
    min_samples : int, default=5
        The number of rows in a neighbourhood, the row itself included, as in `HDBSCAN`. fast_plscan does not count it.
    min_cluster_size : int, optional
        The smallest size that is ranked; by default ``min_samples - 1``, at least 2.
    layer : int, default=1
        Which clustering: 1 is the most persistent one, 2 the next peak of the persistence, and so on.
    metric : {"euclidean", "cosine"}, default="euclidean"
        "cosine" divides rows by their length; Euclidean distances then have the same order as cosine distances.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,), int32
        Noise is -1; cluster 0 is the largest, then by size, ties by mean.
    probabilities_ : ndarray of shape (n_samples,), float32
        The strength of each row's membership in [0, 1]; 0 for noise.
    min_cluster_size_ : int
        The size of the cut: HDBSCAN with this size and ``cluster_selection_method="leaf"`` has the same clusters.
    n_layers_ : int
        The number of peaks of the persistence.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only where X has feature names that are all strings.

    References
    ----------
    Bot, McInnes and Aerts, "Persistent multiscale density-based clustering", 2025.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuclust as gc
    >>> X = np.concatenate([np.linspace(0, 1, 20), np.linspace(5, 6, 20)]).reshape(-1, 1)
    >>> gc.PLSCAN(min_samples=4).fit(X).labels_.max() + 1
    np.int32(2)
    """

    _algorithm: ClassVar[str] = "plscan"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "min_samples": [Interval(Integral, 2, 1024, closed="both")],
        "min_cluster_size": [Interval(Integral, 2, None, closed="left"), None],
        "layer": [Interval(Integral, 1, None, closed="left")],
        "metric": [StrOptions({"euclidean", "cosine"})],
    }

    min_samples: Any = 5
    _: KW_ONLY
    min_cluster_size: Any = None
    layer: Any = 1
    metric: Any = "euclidean"

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: Any = None) -> PLSCAN:
        """Find the clusters of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Distances are computed in float32. Nothing is scaled.
        y : ignored

        Returns
        -------
        PLSCAN
            The estimator.

        Raises
        ------
        ValueError
            For a parameter out of its range, more ``min_samples`` than rows, fewer layers than ``layer``, and values that are not finite.
        """
        found = self._cluster(X)
        self.probabilities_ = found.confidence
        self.min_cluster_size_, self.n_layers_ = int(found.metrics["min_cluster_size"]), int(found.metrics["n_layers"])
        return self
