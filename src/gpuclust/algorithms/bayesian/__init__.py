"""Bayesian Gaussian mixtures: the data decide how many of the components are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gpuclust.algorithms.registry import Algorithm
from gpuclust.config import ClusterConfig, number, one_of


@dataclass
class BayesianGmmConfig(ClusterConfig):
    """Gaussian mixture by variational inference (Blei and Jordan 2006; Bishop 2006, chapter 10), as scikit-learn's BayesianGaussianMixture.

    ``max_components`` is the largest number of clusters: components that the rows do not support get a weight near 0. A component that is the
    likeliest of no row is left out of the result.
    """

    forecast: ClassVar[str] = "gmm"

    name: str = one_of("bayesian_gmm", "bayesian_gmm")
    max_components: int = number(20, low=1, spare_rows=0)
    """The largest number of components."""
    covariance_type: str = one_of("full", "full", "tied", "diag", "spherical")
    """The shape of the components."""
    weight_concentration_prior_type: str = one_of("dirichlet_process", "dirichlet_process", "dirichlet_distribution")
    """``dirichlet_process``: stick-breaking, which uses few components; ``dirichlet_distribution``: symmetric weights."""
    weight_concentration_prior: float | None = number(None, low=0, open_low=True)
    """The lower, the fewer components are used; null: 1 / max_components."""
    mean_precision_prior: float | None = number(None, low=0, open_low=True)
    """How strongly means are drawn to the mean of all rows; null: 1."""
    degrees_of_freedom_prior: float | None = number(None, low=0, open_low=True)
    """The degrees of freedom of the Wishart prior of the covariances, above n_features - 1; null: n_features."""
    init_params: str = one_of("kmeans", "kmeans", "k-means++", "random", "random_from_data")
    """How starting parameters are chosen."""
    n_init: int = number(1, low=1)
    """The number of starts; the one with the highest lower bound is kept."""
    max_iter: int = number(500, low=1)
    """The largest number of iterations of one start."""
    tol: float = number(1e-3, low=0)
    """Stop when an iteration raises the lower bound of the mean log-likelihood of a row by less."""
    reg_covar: float = number(1e-6, low=0)
    """Added to the diagonal of each covariance."""

    def fit_clusters(self, n_rows: int) -> int:
        """See ClusterConfig."""
        return self.max_components

    def fit_bytes(self, n_rows: int, n_columns: int) -> int:
        """See ClusterConfig: the rows in float64, and three arrays of the probabilities of all components."""
        return 8 * n_rows * (n_columns + 3 * self.max_components)


FIT = "gpuclust.algorithms.bayesian.fit:fit"

ALGORITHM = Algorithm(
    name="bayesian_gmm",
    config=BayesianGmmConfig,
    fit={"cpu": FIT, "gpu": FIT},
    label="the Bayesian mixture",
    size_key="max_components",
    counts_clusters=False,
    variant_key="covariance_type",
)
