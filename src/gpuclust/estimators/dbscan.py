"""`DBSCAN`: cuts of an exact spanning tree as a scikit-learn estimator."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import ClusterMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions

from gpuclust.estimators.base import CountsItself

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

AUTO = "auto"


@dataclass(eq=False, repr=False)
class DBSCAN(ClusterMixin, CountsItself):  # type: ignore[misc]
    """DBSCAN clustering by Euclidean distance, from the exact spanning tree that HDBSCAN has.

    Parameters
    ----------
    eps : float or "auto", default=0.5
        The radius of a neighbourhood. "auto": the one of 25 radii whose clusters of core rows have the highest relative validity.
    min_samples : int, default=5
        The number of rows within ``eps`` that make a row a core row, the row itself included, as in scikit-learn.
    border : bool, default=True
        Whether a row within ``eps`` of a core row joins the cluster of the nearest one; False: only core rows are in clusters (DBSCAN*).
    metric : {"euclidean", "cosine"}, default="euclidean"
        "cosine" scales rows to length 1; ``eps`` is a distance between them: eps² = 2 - 2 cosine.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,), int32
        Noise is -1; cluster 0 is the largest, then by size, ties by mean. Core rows have scikit-learn's clusters; a border row joins its
        nearest core row, where scikit-learn takes the cluster that it found first.
    core_sample_indices_ : ndarray of shape (n_core_samples,), int64
        The numbers of the core rows.
    components_ : ndarray of shape (n_core_samples, n_features)
        The core rows.
    eps_ : float
        The radius that was used.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only where X has feature names that are all strings.

    References
    ----------
    Ester, Kriegel, Sander and Xu, "A density-based algorithm for discovering clusters in large spatial databases with noise", 1996.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuclust as gc
    >>> X = np.array([[0.0], [0.1], [0.2], [0.3], [5.0], [5.1], [5.2], [20.0]])
    >>> gc.DBSCAN(eps=0.5, min_samples=3).fit(X).labels_
    array([ 0,  0,  0,  0,  1,  1,  1, -1], dtype=int32)
    """

    _algorithm: ClassVar[str] = "dbscan"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "eps": [Interval(Real, 0, None, closed="neither"), StrOptions({AUTO})],
        "min_samples": [Interval(Integral, 2, 1024, closed="both")],
        "border": ["boolean"],
        "metric": [StrOptions({"euclidean", "cosine"})],
    }

    eps: Any = 0.5
    _: KW_ONLY
    min_samples: Any = 5
    border: Any = True
    metric: Any = "euclidean"

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: Any = None) -> DBSCAN:
        """Find the clusters of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Distances are computed in float32. Nothing is scaled.
        y : ignored

        Returns
        -------
        DBSCAN
            The estimator.

        Raises
        ------
        ValueError
            For a parameter out of its range, more ``min_samples`` than rows, and values that are not finite.
        """
        found = self._cluster(X)
        self.eps_ = found.metrics["eps"]
        self.components_ = found.parameters["core_points"]
        self.core_sample_indices_ = np.flatnonzero(found.confidence == 1)
        return self
