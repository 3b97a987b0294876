"""Factor analysis by scikit-learn, fitted from the covariance of the rows alone."""

from __future__ import annotations

import warnings

import numpy as np

from gpuclust.config import ReduceConfig
from gpuclust.errors import ConfigurationError, FitError
from gpuclust.model.preparation import Factors, Projection

MAX_ITERATIONS = 1000
TOLERANCE = 0.01
"""The fit stops where an iteration adds less to the log-likelihood of all rows, as scikit-learn's default."""
DEPENDENT = 1e-10
"""Features are dependent where the smallest variance of a principal component is at most this share of the largest: the likelihood has no maximum then,
and the scores repeat the features that depend on each other."""


def factors(components: Projection, reduce: ReduceConfig) -> Factors:
    """The factor scores of a maximum-likelihood factor analysis (Barber 2012, 21.2.1), as `sklearn.decomposition.FactorAnalysis`.

    ``components`` are all principal components of the rows. The likelihood depends on the rows by their mean and covariance only, so scikit-learn is
    given 2 n_features rows that have these; the fit is that of all rows, wherever they are. Scores are divided by their standard deviation with
    ``whiten`` or ``rescale``.

    Raises ConfigurationError unless ``reduce.n_components`` is a number of factors below that of the features, or
    where features are dependent, and FitError where the fit does not converge.
    """
    n_features, wanted = components.components.shape[1], reduce.n_components
    if not isinstance(wanted, int):
        raise ConfigurationError(
            f"reduce.n_components={wanted} is a share of the variance; reduce=fa takes a number of factors, as in reduce.n_components=3"
        )
    if wanted >= n_features:
        raise ConfigurationError(
            f"reduce.n_components={wanted} is not below the {n_features} features; lower it or name more data.features"
        )
    variance = components.explained_variance * components.population_factor**2
    if len(variance) == n_features and variance.min() <= DEPENDENT * variance.max():
        raise ConfigurationError(
            "reduce=fa needs features of which none is a sum of others, as the columns of one category are (data.categorical); use reduce=pca, or "
            "data.encoding=frequency"
        )
    from sklearn.decomposition import FactorAnalysis
    from sklearn.exceptions import ConvergenceWarning

    root = np.zeros((n_features, n_features))
    root[: len(variance)] = np.sqrt(n_features * variance)[:, None] * components.components
    n_rows = 1 / (1 - components.population_factor**2) if components.population_factor < 1 else np.inf
    tolerance = max(
        TOLERANCE * 2 * n_features / n_rows, 1e-12
    )  # the log-likelihood is proportional to the number of rows
    fitted = FactorAnalysis(wanted, svd_method="lapack", max_iter=MAX_ITERATIONS, tol=tolerance)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            fitted.fit(np.vstack([root, -root]))
        except ConvergenceWarning as error:
            raise FitError(
                f"the factor analysis did not converge in {MAX_ITERATIONS} iterations; lower reduce.n_components or use reduce=pca"
            ) from error
    loadings = fitted.components_
    weighted = loadings / fitted.noise_variance_
    precision = np.linalg.inv(np.eye(wanted) + weighted @ loadings.T)
    of_factors = (loadings * loadings).sum(axis=1)
    directions, scale = precision @ weighted, np.ones(wanted)
    signs = np.where(loadings[np.arange(wanted), np.abs(loadings).argmax(axis=1)] < 0, -1.0, 1.0)
    directions *= signs[:, None]
    if reduce.whiten or reduce.rescale:
        spread = np.sqrt(((directions @ root[: len(variance)].T) ** 2).sum(axis=1) / n_features)
        spread = spread if reduce.rescale else spread / components.population_factor
        scale = np.where(spread > 0, spread, 1.0)
    total = float(variance.sum())
    shares = of_factors / total if total > 0 else np.zeros(wanted)
    return Factors(components.mean, directions, of_factors, shares, scale, components.population_factor)
