"""`GaussianMixture`: expectation-maximisation in fused passes as a scikit-learn estimator."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import ClusterMixin, DensityMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight

from gpuclust.estimators.base import Estimator, seed_of, value_errors
from gpuclust.model.records import canonical_order, renumbered

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gpuclust.algorithms.mixture.fit import Evaluation
    from gpuclust.algorithms.mixture.fit import GaussianMixture as Mixture

PARAMETERS = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_", "n_features_in_")
"""The fitted attributes that the kernel needs to evaluate rows."""


@dataclass(eq=False, repr=False)
class GaussianMixture(DensityMixin, Estimator):  # type: ignore[misc]
    """Gaussian mixture fitted by expectation-maximisation.

    The steps are computed in passes over blocks of rows, without an array of shape (n_samples, n_components).

    Parameters
    ----------
    n_components : int, default=1
        Number of components.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        "full": each component has its own covariance matrix; "tied": all share one; "diag": each has its own diagonal
        matrix; "spherical": each has its own single variance.
    tol : float, default=1e-3
        EM stops when the mean log-likelihood of a row changes by less than this.
    reg_covar : float, default=1e-6
        Added to the diagonal of the covariances.
    max_iter : int, default=200
        Maximum number of EM iterations.
    n_init : int, default=1
        Number of initialisations; the one of the highest likelihood is kept.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}, default="kmeans"
        "kmeans" starts from the best of many short runs of EM on a sample (Biernacki, Celeux and Govaert 2003). The others
        are scikit-learn's.
    weights_init : array-like of shape (n_components,), optional
        Initial weights, which sum to 1.
    means_init : array-like of shape (n_components, n_features), optional
        Initial means.
    precisions_init : array-like, optional
        Initial precisions, shaped as ``precisions_``. These three are for the estimator's own ``fit`` only.
    random_state : int, RandomState instance or None, default=None
        Seed of the initialisation, and of `sample`.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,), float64
        In the order of the labels: component 0 is the likeliest of most rows.
    means_ : ndarray of shape (n_components, n_features), float64
    covariances_, precisions_, precisions_cholesky_ : ndarray, float64
        Of shape (n_components, n_features, n_features) for "full", (n_features, n_features) for "tied",
        (n_components, n_features) for "diag" and (n_components,) for "spherical".
    labels_ : ndarray of shape (n_samples,), int32
        The likeliest component of each row that was fitted.
    converged_ : bool
    n_iter_ : int
    lower_bound_ : float
        The mean log-likelihood of a row in the last iteration.
    lower_bounds_ : list of float
        That of each iteration.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only where X has feature names that are all strings.

    References
    ----------
    Dempster, Laird and Rubin, "Maximum likelihood from incomplete data via the EM algorithm", 1977.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuclust as gc
    >>> X = np.array([[1.0, 2.0], [1.0, 4.0], [1.0, 0.0], [10.0, 2.0], [10.0, 4.0]])
    >>> mixture = gc.GaussianMixture(n_components=2, random_state=0).fit(X)
    >>> mixture.means_.round(3)
    array([[ 1.,  2.],
           [10.,  3.]])
    >>> mixture.predict([[0.0, 0.0], [12.0, 3.0]])
    array([0, 1], dtype=int32)
    """

    _algorithm: ClassVar[str] = "gmm"
    _keys: ClassVar[dict[str, str]] = {"n_components": "n_clusters"}
    _of_fit_alone: ClassVar[tuple[str, ...]] = ("weights_init", "means_init", "precisions_init")
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions({"full", "tied", "diag", "spherical"})],
        "tol": [Interval(Real, 0, None, closed="left")],
        "reg_covar": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions({"kmeans", "k-means++", "random", "random_from_data"})],
        "weights_init": ["array-like", None],
        "means_init": ["array-like", None],
        "precisions_init": ["array-like", None],
        "random_state": ["random_state"],
    }

    n_components: Any = 1
    _: KW_ONLY
    covariance_type: Any = "full"
    tol: Any = 1e-3
    reg_covar: Any = 1e-6
    max_iter: Any = 200
    n_init: Any = 1
    init_params: Any = "kmeans"
    weights_init: Any = None
    means_init: Any = None
    precisions_init: Any = None
    random_state: Any = None

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> GaussianMixture:
        """Fit the mixture to X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), float32 or float64
            Other types are converted to float64. Nothing is scaled.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            Non-negative; a row of weight w counts as w equal rows.

        Returns
        -------
        GaussianMixture
            The estimator. A ``ConvergenceWarning`` says where EM stopped at ``max_iter``.

        Raises
        ------
        ValueError
            For a parameter out of its range, fewer rows than components, values that are not finite, and where a component
            becomes empty or ill-defined from every initialisation.
        """
        from gpuclust.algorithms.mixture.cpu import in_float64
        from gpuclust.algorithms.mixture.short_em import short_em_init

        rows = in_float64(self._rows_to_fit(X, at_least=2))
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, rows, dtype=np.float64)
        if len(rows) < self.n_components:
            raise ValueError(
                f"Expected n_samples >= n_components but got n_components={self.n_components}, n_samples={len(rows)}"
            )
        with value_errors(self):
            start = short_em_init(self.covariance_type, self.reg_covar)
            mixture = self._kernel(random_state=seed_of(self.random_state), kmeans=start).fit(rows, weight)
            labels = mixture.predict(rows)
        order = canonical_order(labels, mixture.means_, weight)
        own = slice(None) if self.covariance_type == "tied" else order
        self.weights_, self.means_, self.covariances_ = (
            mixture.weights_[order],
            mixture.means_[order],
            mixture.covariances_[own],
        )
        self.precisions_, self.precisions_cholesky_ = mixture.precisions_[own], mixture.precisions_cholesky_[own]
        self.labels_ = renumbered(labels, order)
        self.converged_, self.n_iter_ = mixture.converged_, mixture.n_iter_
        self.lower_bound_, self.lower_bounds_ = mixture.lower_bound_, mixture.lower_bounds_
        if not self.converged_:
            warnings.warn(
                "EM stopped at max_iter before it converged. Increase max_iter or tol, or check for degenerate data.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _kernel(self, **rest: Any) -> Mixture:
        """The kernel with these parameters."""
        from gpuclust.algorithms.mixture.fit import GaussianMixture as Mixture

        parameters = self.get_params(deep=False) | rest
        for name in self._of_fit_alone:
            if parameters[name] is not None:
                parameters[name] = np.asarray(parameters[name], dtype=np.float64)
        return Mixture(**parameters)

    def _evaluate(self, X: ArrayLike, *, responsibilities: bool = False) -> Evaluation:
        """The scores of rows, and the criteria, by the kernel with the fitted attributes."""
        from gpuclust.algorithms.mixture.cpu import in_float64

        rows = in_float64(self._rows(X))
        mixture = self._kernel(random_state=None)
        for name in PARAMETERS:
            setattr(mixture, name, getattr(self, name))
        return mixture.evaluate(rows, responsibilities=responsibilities)

    def predict(self, X: ArrayLike) -> NDArray[np.int32]:
        """Assign rows to their likeliest component.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,), int32
        """
        return self._evaluate(X).labels

    fit_predict = ClusterMixin.fit_predict

    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """Compute the probability of each component for each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_components)
            Each row sums to 1.
        """
        shares = self._evaluate(X, responsibilities=True).responsibilities
        assert shares is not None
        return shares

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """Compute the log-density of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,), float64
        """
        return self._evaluate(X).log_prob

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Compute the mean log-density of rows; higher is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        float
        """
        found = self._evaluate(X)
        return found.log_likelihood / len(found.labels)

    def bic(self, X: ArrayLike) -> float:
        """Compute the Bayesian information criterion; lower is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        float
        """
        return self._evaluate(X).bic

    def aic(self, X: ArrayLike) -> float:
        """Compute the Akaike information criterion; lower is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        float
        """
        return self._evaluate(X).aic

    def sample(self, n_samples: int = 1) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Draw random rows from the fitted mixture.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features), float64
            The rows, those of component 0 first.
        y : ndarray of shape (n_samples,), int32
            The component of each row.

        Raises
        ------
        ValueError
            For ``n_samples`` below 1.
        """
        from sklearn.mixture import GaussianMixture as Reference

        if n_samples < 1:
            raise ValueError(f"n_samples={n_samples} is too low; give 1 or more")
        X, components = Reference.sample(self, n_samples)
        return X, components.astype(np.int32)
