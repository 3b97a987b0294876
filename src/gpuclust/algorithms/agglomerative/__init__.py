"""Agglomerative clustering: one tree of merges, and one cut of it for each number of clusters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuclust.algorithms.registry import Algorithm
from gpuclust.config import AUTO, ClusterConfig, number, one_of

if TYPE_CHECKING:
    import numpy as np


MAX_ROWS, MAX_CENTERS = 5_000, 2_000
"""``n_leaves=auto``: the tree of up to so many distinct rows is exact; of more rows it has so many K-Means centres."""


@dataclass
class AgglomerativeConfig(ClusterConfig):
    """Agglomerative clustering (Ward 1963; nearest-neighbour chains of Murtagh 1983).

    Each leaf of the tree is a distinct row. If there are more than ``n_leaves``, the leaves are K-Means centres, weighted by the numbers of
    their rows. All numbers of clusters of a sweep are cuts of one tree.
    """

    name: str = one_of("agglomerative", "agglomerative")
    n_clusters: int = number(8, low=2, spare_rows=0)
    """The number of clusters."""
    linkage: str = one_of("ward", "ward", "average", "complete", "single")
    """The distance between two clusters. ``ward``: the increase of the sum of squares by their union; ``average``, ``complete``, ``single``:
    the mean, the largest, the smallest distance between their rows (on K-Means centres: between the centres)."""
    n_leaves: int | str = number(AUTO, low=2, high=20_000, or_text=(AUTO,))
    """The largest number of leaves of the tree; ``auto``: 5,000 distinct rows, or 2,000 K-Means centres of more rows. The memory is 8 bytes for
    each pair of leaves."""
    metric: str = one_of("euclidean", "euclidean", "cosine")
    """``cosine``: rows are divided by their length; Euclidean distances then have the same order as cosine distances."""

    def leaf_limits(self) -> tuple[int, int]:
        """The largest number of distinct rows that are leaves themselves, and the number of K-Means centres of more rows."""
        n_leaves = self.n_leaves
        return (n_leaves, n_leaves) if isinstance(n_leaves, int) else (MAX_ROWS, MAX_CENTERS)

    def fit_clusters(self, n_rows: int) -> int:
        """See ClusterConfig."""
        n_exact, n_centers = self.leaf_limits()
        return self.n_clusters if n_rows <= n_exact else n_centers

    def fit_bytes(self, n_rows: int, n_columns: int) -> int:
        """See ClusterConfig: the distances of all pairs of leaves."""
        n_exact, n_centers = self.leaf_limits()
        return 8 * (n_rows if n_rows <= n_exact else n_centers) ** 2

    def complaint(self) -> str | None:
        """See ClusterConfig."""
        if isinstance(self.n_leaves, int) and self.n_leaves < self.n_clusters:
            return f"cluster.n_leaves={self.n_leaves} is below cluster.n_clusters={self.n_clusters}; raise cluster.n_leaves"
        return None


def leaves_note(metrics: Mapping[str, float]) -> tuple[str, ...]:
    """A note for the user about a tree whose leaves are K-Means centres, from the metrics of its fit."""
    if not metrics.get("leaves_are_centers"):
        return ()
    return (
        f"tree of {metrics['n_leaves']:,.0f} K-Means centres weighted by their numbers of rows, not of all rows; "
        "rows at the border of two clusters may differ from the exact tree",
    )


def label_leaves(
    parameters: Mapping[str, np.ndarray], renumber: np.ndarray, labels: np.ndarray, confidence: np.ndarray
) -> Mapping[str, np.ndarray]:
    """The labels of the leaves in the canonical numbering."""
    del labels, confidence
    return {**parameters, "leaf_labels": renumber[parameters["leaf_labels"]]}


FIT = "gpuclust.algorithms.agglomerative.fit:fit"

ALGORITHM = Algorithm(
    name="agglomerative",
    config=AgglomerativeConfig,
    fit={"cpu": FIT, "gpu": FIT, "blocks": FIT},
    label="agglomerative clustering",
    shared_step="dendrogram",
    canonical=label_leaves,
    warnings=leaves_note,
)
