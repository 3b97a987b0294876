"""Spectral clustering on landmarks."""

from __future__ import annotations

from dataclasses import dataclass

from gpuclust.algorithms.registry import Algorithm
from gpuclust.config import ClusterConfig, number, one_of


@dataclass
class SpectralConfig(ClusterConfig):
    """Landmark-based spectral clustering (Chen and Cai 2011): rows are described by their similarity to the nearest of a few landmarks, and
    the leading singular vectors of these similarities are clustered by K-Means."""

    name: str = one_of("spectral", "spectral")
    n_clusters: int = number(8, low=1, spare_rows=0)
    """The number of clusters."""
    n_landmarks: int = number(500, low=2, high=5_000)
    """The number of landmarks, which are centres of K-Means on a sample of the rows; at most the number of rows."""
    n_nearest: int = number(5, low=2)
    """The number of landmarks that a row is described by; at most ``n_landmarks``."""
    n_init: int = number(10, low=1)
    """The number of starts of K-Means on the singular vectors."""
    metric: str = one_of("euclidean", "euclidean", "cosine")
    """``cosine``: rows are divided by their length; Euclidean distances then have the same order as cosine distances."""

    def complaint(self) -> str | None:
        """See ClusterConfig."""
        if self.n_clusters > self.n_landmarks:
            return f"cluster.n_clusters={self.n_clusters} is more than cluster.n_landmarks={self.n_landmarks}; raise cluster.n_landmarks"
        return None

    def fit_bytes(self, n_rows: int, n_columns: int) -> int:
        """See ClusterConfig: the similarities, the singular vectors twice, and the matrix of the landmarks."""
        return n_rows * (24 * self.n_nearest + 16 * self.n_clusters) + 24 * self.n_landmarks**2


ALGORITHM = Algorithm(
    name="spectral",
    config=SpectralConfig,
    fit={"cpu": "gpuclust.algorithms.spectral.fit:fit", "gpu": "gpuclust.algorithms.spectral.fit:fit"},
    label="spectral clustering",
    shared_step="landmarks",
)
