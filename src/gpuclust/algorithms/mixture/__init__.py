"""Gaussian mixtures: initialisation, EM, CPU and CUDA kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from gpuclust.algorithms.registry import Algorithm
from gpuclust.config import ClusterConfig, number, one_of


@dataclass
class GmmConfig(ClusterConfig):
    """Gaussian mixture by expectation-maximisation (Dempster, Laird and Rubin 1977).

    ``init_params=kmeans`` is one K-Means for engine ``library``; for ``fused`` it is the best of many short runs of EM on a
    sample, each from k-means++ seeds (`gpuclust.algorithms.mixture.short_em`), because one start seldom leads far.
    """

    takes_weight: ClassVar[bool] = True
    name: str = one_of("gmm", "gmm")
    n_clusters: int = number(8, low=1, spare_rows=0)
    """The number of components."""
    covariance_type: str = one_of("full", "full", "tied", "diag", "spherical")
    """The shape of the components."""
    init_params: str = one_of("kmeans", "kmeans", "k-means++", "random", "random_from_data")
    """How starting parameters are chosen."""
    n_init: int = number(1, low=1)
    """The number of starts; the one with the highest likelihood is kept."""
    max_iter: int = number(200, low=1)
    """The largest number of iterations of one start."""
    tol: float = number(1e-3, low=0)
    """Stop when an iteration raises the mean log-likelihood of a row by less."""
    reg_covar: float = number(1e-6, low=0)
    """Added to the diagonal of each covariance."""
    init_from: str | None = None
    """A run whose clusters the fit starts from and whose numbers it keeps: a run id, ``best``, ``models:/NAME@champion`` or an export folder. The run
    must have as many clusters and the same features; its model assigns the rows, and the fit starts from these clusters instead of ``n_init`` starts."""
    engine: str = one_of("auto", "auto", "library", "fused")
    """``fused`` and ``auto``: the kernels of gpuclust; ``library``: scikit-learn."""


ALGORITHM = Algorithm(
    name="gmm",
    config=GmmConfig,
    fit={
        "cpu": "gpuclust.algorithms.mixture.cpu:fit",
        "gpu": "gpuclust.algorithms.mixture.gpu:fit",
        "blocks": "gpuclust.algorithms.mixture.blocks:fit",
    },
    label="the mixture",
    default_metric="bic",
    variant_key="covariance_type",
    baseline=lambda config: replace(config, n_clusters=1, n_init=1, init_from=None),
)
