"""`BayesianGaussianMixture`: scikit-learn's variational inference with gpuclust's order of components, metrics and predictions."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.special import softmax
from sklearn.base import ClusterMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions

from gpuclust.estimators.base import ByRegistry, seed_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

POSITIVE = Interval(Real, 0, None, closed="neither")


@dataclass(eq=False, repr=False)
class BayesianGaussianMixture(ClusterMixin, ByRegistry):  # type: ignore[misc]
    """Gaussian mixture fitted by variational inference: the data decide how many of the components are used.

    Parameters
    ----------
    n_components : int, default=20
        The largest number of components.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        The shape of the components, as in `GaussianMixture`.
    weight_concentration_prior_type : {"dirichlet_process", "dirichlet_distribution"}, default="dirichlet_process"
        The prior of the weights; "dirichlet_process" uses few components.
    weight_concentration_prior : float, optional
        The lower, the fewer components are used; 1 / n_components by default.
    mean_precision_prior, degrees_of_freedom_prior : float, optional
        The priors of the means and of the covariances, as in scikit-learn.
    tol : float, default=1e-3
        Stop when an iteration raises the lower bound of the mean log-likelihood of a row by less.
    reg_covar : float, default=1e-6
        Added to the diagonal of the covariances.
    max_iter : int, default=500
        Maximum number of iterations of a start.
    n_init : int, default=1
        Number of starts; the one of the highest lower bound is kept.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}, default="kmeans"
        How starting parameters are chosen.
    random_state : int, RandomState instance or None, default=None
        Seed of the initialisation.

    Attributes
    ----------
    weights_ : ndarray of shape (n_used,), float64
        Of the components that are the likeliest of at least one row, in the order of the labels.
    means_ : ndarray of shape (n_used, n_features), float64
    covariances_, precisions_cholesky_ : ndarray, float64
        Shaped as in `GaussianMixture`.
    effective_components_ : float
        The exponential of the entropy of the weights of all components.
    labels_ : ndarray of shape (n_samples,), int32
        The likeliest component of each row: cluster 0 is the largest, then by size, ties by mean.
    converged_ : bool
    n_iter_ : int
    lower_bound_ : float
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only where X has feature names that are all strings.

    References
    ----------
    Blei and Jordan, "Variational inference for Dirichlet process mixtures", 2006; Bishop, "Pattern recognition and machine learning", 2006,
    chapter 10.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuclust as gc
    >>> X = np.random.default_rng(0).normal(size=(300, 2)) + np.repeat([[0.0], [9.0], [18.0]], 100, axis=0)
    >>> mixture = gc.BayesianGaussianMixture(n_components=8, random_state=0).fit(X)
    >>> len(mixture.weights_)
    3
    """

    _algorithm: ClassVar[str] = "bayesian_gmm"
    _keys: ClassVar[dict[str, str]] = {"n_components": "max_components"}
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions({"full", "tied", "diag", "spherical"})],
        "weight_concentration_prior_type": [StrOptions({"dirichlet_process", "dirichlet_distribution"})],
        "weight_concentration_prior": [POSITIVE, None],
        "mean_precision_prior": [POSITIVE, None],
        "degrees_of_freedom_prior": [POSITIVE, None],
        "tol": [Interval(Real, 0, None, closed="left")],
        "reg_covar": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions({"kmeans", "k-means++", "random", "random_from_data"})],
        "random_state": ["random_state"],
    }

    n_components: Any = 20
    _: KW_ONLY
    covariance_type: Any = "full"
    weight_concentration_prior_type: Any = "dirichlet_process"
    weight_concentration_prior: Any = None
    mean_precision_prior: Any = None
    degrees_of_freedom_prior: Any = None
    tol: Any = 1e-3
    reg_covar: Any = 1e-6
    max_iter: Any = 500
    n_init: Any = 1
    init_params: Any = "kmeans"
    random_state: Any = None

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: Any = None) -> BayesianGaussianMixture:
        """Fit the mixture to X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Converted to float64. Nothing is scaled.
        y : ignored

        Returns
        -------
        BayesianGaussianMixture
            The estimator. A ``ConvergenceWarning`` says where the inference stopped at ``max_iter``.

        Raises
        ------
        ValueError
            For a parameter out of its range, fewer rows than components, and values that are not finite.
        """
        found = self._cluster(X, seed=seed_of(self.random_state), at_least=2)
        for name in ("weights", "means", "covariances", "precisions_cholesky"):
            setattr(self, f"{name}_", found.parameters[name])
        self.effective_components_, self.lower_bound_ = (
            found.metrics[m] for m in ("effective_components", "lower_bound")
        )
        self.converged_, self.n_iter_ = found.converged, int(found.metrics["n_iter"])
        if not self.converged_:
            warnings.warn(
                "The inference stopped at max_iter before it converged. Increase max_iter or tol.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Compute the probability of each component that is used, for each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_used)
            Each row sums to 1.
        """
        from gpuclust.algorithms.mixture.fit import GaussianMixture

        rows = self._rows(X).astype(np.float64)
        mixture = GaussianMixture(len(self.weights_), covariance_type=self.covariance_type)
        mixture.weights_, mixture.means_ = softmax(self._parameters["log_offsets"]), self.means_
        mixture.precisions_cholesky_, mixture.n_features_in_ = self.precisions_cholesky_, self.n_features_in_
        shares = mixture.evaluate(rows, responsibilities=True).responsibilities
        assert shares is not None
        return np.asarray(shares)
