"""K-Means: initialisation, Lloyd's iterations, CPU and CUDA kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from gpuclust.algorithms.registry import Algorithm
from gpuclust.config import ClusterConfig, number, one_of

if TYPE_CHECKING:
    import numpy as np


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
    init_from: str | None = None
    """A run whose clusters the fit starts from and whose numbers it keeps: a run id, ``best``, ``models:/NAME@champion`` or an export folder. The run
    must have as many clusters and the same features; its model assigns the rows, and the fit starts from these clusters instead of ``n_init`` starts."""
    metric: str = one_of("euclidean", "euclidean", "cosine")
    """``cosine``: spherical K-Means (Dhillon and Modha 2001): rows and centres have length 1. Distances are chords, sqrt(2 - 2 cosine).
    Engine ``library``, and every engine on a GPU, fits Euclidean K-Means to the rows of length 1 and divides the final centres by their length."""
    min_size: int | None = number(None, low=1, spare_rows=0)
    """The smallest number of fitted rows of a cluster; null: no limit."""
    max_size: int | None = number(None, low=1)
    """The largest number of fitted rows of a cluster; null: no limit. New rows join their nearest centre without limits."""
    engine: str = one_of("auto", "auto", "library", "fused")
    """``fused``: the kernels of gpuclust; ``library``: scikit-learn or cuML; ``auto``: on a CPU the faster of the two, always ``fused``
    above 65,536 rows; on a GPU ``library``."""

    @property
    def limited(self) -> bool:
        """Whether the sizes of clusters are limited."""
        return self.min_size is not None or self.max_size is not None

    def fit_bytes(self, n_rows: int, n_columns: int) -> int:
        """See ClusterConfig: the costs of all rows and clusters, where the sizes are limited."""
        return 8 * n_rows * self.n_clusters if self.limited else 0

    def complaint(self) -> str | None:
        """See ClusterConfig."""
        if self.min_size is None or self.max_size is None or self.min_size <= self.max_size:
            return None
        return f"cluster.min_size={self.min_size} is above cluster.max_size={self.max_size}; lower it or set null"


def for_subset(config: KMeansConfig, share: float) -> KMeansConfig | None:
    """The limits of the sizes for a share of the rows; None without limits."""
    if not config.limited:
        return None
    low = None if config.min_size is None else max(1, int(share * config.min_size))
    high = None if config.max_size is None else int(share * config.max_size) + 1
    return replace(config, min_size=low, max_size=high)


def keep_training(
    parameters: Mapping[str, np.ndarray], renumber: np.ndarray, labels: np.ndarray, confidence: np.ndarray
) -> Mapping[str, np.ndarray]:
    """The labels of the fitted rows in the canonical numbering, where the sizes are limited."""
    del renumber, confidence
    return {**parameters, "training_labels": labels} if "training_labels" in parameters else parameters


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
    for_subset=for_subset,
    canonical=keep_training,
)
