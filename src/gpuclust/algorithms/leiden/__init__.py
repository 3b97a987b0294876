"""Leiden: communities of the graph of nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gpuclust.algorithms.registry import Algorithm
from gpuclust.config import ClusterConfig, number, one_of

if TYPE_CHECKING:
    import numpy as np

BYTES_PER_EDGE = 140
"""Of memory for each neighbour of each row: experiments/bench/dbscan.py measured 135 with 90,000 rows and 15 neighbours."""


@dataclass
class LeidenConfig(ClusterConfig):
    """Leiden (Traag, Waltman and van Eck 2019) on the graph that joins each row to its nearest rows, by modularity."""

    forecast: ClassVar[str] = "hdbscan"

    name: str = one_of("leiden", "leiden")
    resolution: float = number(1.0, low=0, open_low=True)
    """A higher resolution gives more and smaller clusters."""
    n_neighbors: int = number(15, low=2, high=1000, spare_rows=1)
    """The number of nearest rows that each row is joined to."""
    weights: str = one_of("jaccard", "jaccard", "none")
    """``jaccard``: the weight of an edge is the share of neighbours that its two rows have in common; ``none``: all edges have the same weight."""
    n_iterations: int | None = number(2, low=1)
    """Each iteration starts from the partition of the one before; null: until nothing changes."""
    metric: str = one_of("euclidean", "euclidean", "cosine")
    """``cosine``: rows are divided by their length; Euclidean distances then have the same order as cosine distances."""

    def fit_bytes(self, n_rows: int, n_columns: int) -> int:
        """See ClusterConfig."""
        return BYTES_PER_EDGE * n_rows * self.n_neighbors


def keep_labels(
    parameters: Mapping[str, np.ndarray], renumber: np.ndarray, labels: np.ndarray, confidence: np.ndarray
) -> Mapping[str, np.ndarray]:
    """The labels and confidences of the fitted rows, by which new rows are placed."""
    return {**parameters, "training_labels": labels, "training_confidence": confidence}


ALGORITHM = Algorithm(
    name="leiden",
    config=LeidenConfig,
    fit={"cpu": "gpuclust.algorithms.leiden.fit:fit", "gpu": "gpuclust.algorithms.leiden.fit:fit"},
    label="Leiden",
    size_key="resolution",
    counts_clusters=False,
    shared_step="graph of nearest neighbours",
    canonical=keep_labels,
)
