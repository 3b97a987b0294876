"""`GaussianMixture`: expectation-maximisation in fused passes as a scikit-learn estimator."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import DensityMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from gpuclust.estimators.base import Estimator, canonical_order, renumbered, seed_of, value_errors

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gpuclust.algorithms.mixture.fit import GaussianMixture as Mixture

PER_COMPONENT = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")


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

    weights_: NDArray[np.float64]
    means_: NDArray[np.float64]
    covariances_: NDArray[np.float64]
    precisions_: NDArray[np.float64]
    precisions_cholesky_: NDArray[np.float64]
    labels_: NDArray[np.int32]
    converged_: bool
    n_iter_: int
    lower_bound_: float
    lower_bounds_: list[float]
    n_features_in_: int

    def __init__(
        self,
        n_components: Any = 1,
        *,
        covariance_type: Any = "full",
        tol: Any = 1e-3,
        reg_covar: Any = 1e-6,
        max_iter: Any = 200,
        n_init: Any = 1,
        init_params: Any = "kmeans",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state

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
        from gpuclust.algorithms.mixture.short_em import short_em_init

        rows = _fitted_type(self._rows_to_fit(X, at_least=2))
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, rows, dtype=np.float64)
        if len(rows) < self.n_components:
            raise ValueError(
                f"Expected n_samples >= n_components but got n_components={self.n_components}, n_samples={len(rows)}"
            )
        with value_errors(self):
            start = short_em_init(self.covariance_type, self.reg_covar)
            mixture = self._kernel(seed=seed_of(self.random_state), kmeans=start).fit(rows, weight)
            labels = mixture.predict(rows)
        order = canonical_order(labels, mixture.means_, weight)
        for name in PER_COMPONENT:
            value = getattr(mixture, name)
            shared = self.covariance_type == "tied" and name not in ("weights_", "means_")
            setattr(self, name, value if shared else value[order])
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

    def _kernel(self, *, seed: int = 0, **rest: Any) -> Mixture:
        """The kernel with these parameters."""
        from gpuclust.algorithms.mixture.fit import GaussianMixture as Mixture

        parameters = self.get_params(deep=False) | {"random_state": seed}
        for name in self._of_fit_alone:
            if parameters[name] is not None:
                parameters[name] = np.asarray(parameters[name], dtype=np.float64)
        return Mixture(**parameters, **rest)

    def _fitted(self) -> Mixture:
        """The kernel with the fitted attributes."""
        mixture = self._kernel()
        for name in (*PER_COMPONENT, "n_features_in_"):
            setattr(mixture, name, getattr(self, name))
        return mixture

    def _apply(self, method: str, X: ArrayLike) -> Any:
        """What a method of the kernel gives for rows."""
        rows = _fitted_type(self._rows(X))
        return getattr(self._fitted(), method)(rows)

    def predict(self, X: ArrayLike) -> NDArray[np.int32]:
        """Assign rows to their likeliest component.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,), int32
        """
        labels: NDArray[np.int32] = self._apply("predict", X)
        return labels

    def fit_predict(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> NDArray[np.int32]:
        """Fit the mixture, and assign the rows to their likeliest component: ``fit(X).labels_``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        ndarray of shape (n_samples,), int32
        """
        self.fit(X, y, sample_weight=sample_weight)
        return self.labels_

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
        shares: NDArray[np.floating[Any]] = self._apply("predict_proba", X)
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
        densities: NDArray[np.float64] = self._apply("score_samples", X)
        return densities

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
        return float(self._apply("score", X))

    def bic(self, X: ArrayLike) -> float:
        """Compute the Bayesian information criterion; lower is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        float
        """
        return float(self._apply("bic", X))

    def aic(self, X: ArrayLike) -> float:
        """Compute the Akaike information criterion; lower is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        float
        """
        return float(self._apply("aic", X))

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
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"Invalid value for 'n_samples': {n_samples}. The sampling requires at least one sample.")
        random = check_random_state(self.random_state)
        components = np.repeat(np.arange(len(self.means_)), random.multinomial(n_samples, self.weights_))
        noise = random.standard_normal((n_samples, self.n_features_in_))
        if self.covariance_type in ("diag", "spherical"):
            spread = np.sqrt(self.covariances_)
            scaled = noise * (spread[components] if spread.ndim == 2 else spread[components, None])
        else:
            factors = np.linalg.cholesky(np.broadcast_to(self.covariances_, (len(self.means_), *[noise.shape[1]] * 2)))
            scaled = np.einsum("nij,nj->ni", factors[components], noise)
        return self.means_[components] + scaled, components.astype(np.int32)


def _fitted_type(X: NDArray[Any]) -> NDArray[Any]:
    """X in float64, which is as fast as float32 for few rows; X itself for many."""
    from gpuclust.algorithms.mixture.cpu import MAX_VALUES_FLOAT64

    return X.astype(np.float64, copy=False) if X.size <= MAX_VALUES_FLOAT64 else X
