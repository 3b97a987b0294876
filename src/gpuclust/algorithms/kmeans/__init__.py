"""K-Means: initialisation, Lloyd's iterations, CPU and CUDA kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gpuclust.algorithms.registry import Algorithm
from gpuclust.config import ClusterConfig, number, one_of


@dataclass
class KMeansConfig(ClusterConfig):
    """K-Means (Lloyd 1982; k-means++ of Arthur and Vassilvitskii 2007)."""

    takes_weight: ClassVar[bool] = True
    name: str = one_of("kmeans", "kmeans")
    n_clusters: int = number(8, low=2, spare_rows=0)
    """The number of clusters."""
    init: str = one_of("k-means++", "k-means++", "random")
    """How starting centres are chosen."""
    n_init: int = number(10, low=1)
    """The number of starts; the one with the lowest inertia is kept."""
    max_iter: int = number(300, low=1)
    """The largest number of iterations of one start."""
    tol: float = number(1e-4, low=0)
    """Stop when the squared move of the centres is below this share of the mean variance, as in scikit-learn."""
    metric: str = one_of("euclidean", "euclidean", "cosine")
    """``cosine``: spherical K-Means (Dhillon and Modha 2001): rows and centres have length 1. Distances are chords, sqrt(2 - 2 cosine).
    Engine ``library``, and every engine on a GPU, fits Euclidean K-Means to the rows of length 1 and divides the final centres by their length."""
    engine: str = one_of("auto", "auto", "library", "fused")
    """``fused``: the kernels of gpuclust; ``library``: scikit-learn or cuML; ``auto``: on a CPU the faster of the two, always ``fused``
    above 65,536 rows; on a GPU ``library``."""


ALGORITHM = Algorithm(
    name="kmeans",
    config=KMeansConfig,
    fit={
        "cpu": "gpuclust.algorithms.kmeans.cpu:fit",
        "gpu": "gpuclust.algorithms.kmeans.gpu:fit",
        "blocks": "gpuclust.algorithms.kmeans.blocks:fit",
    },
    label="K-Means",
    fits_together=True,
)
