"""HDBSCAN: spanning tree, condensed tree, cuts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpuclust.algorithms.registry import Algorithm
from gpuclust.config import AUTO, ClusterConfig, number, one_of

if TYPE_CHECKING:
    import numpy as np


@dataclass
class HdbscanConfig(ClusterConfig):
    """HDBSCAN* (Campello, Moulavi and Sander 2013).

    ``min_cluster_size`` without a value is the square root of the number of rows, at least 5 (`default_min_cluster_size`);
    ``auto`` ranks all sizes and takes the best. With ``sample_rows`` the tree is built from a sample of the rows, drawn with the seed; the
    other rows are assigned as new rows are (`gpuclust.model.hdbscan`).
    """

    name: str = one_of("hdbscan", "hdbscan")
    min_cluster_size: int | str | None = number(None, low=2, or_text=(AUTO,), spare_rows=0)
    """The smallest number of rows of a cluster."""
    min_samples: int = number(10, low=1, high=1023, spare_rows=1)
    """The number of neighbours that define the density at a row; the row itself is not counted."""
    cluster_selection_method: str = one_of("eom", "eom", "leaf")
    """``eom``: the most persistent clusters; ``leaf``: the smallest."""
    cluster_selection_epsilon: float = number(0.0, low=0)
    """Clusters closer than this distance are joined."""
    max_cluster_size: int | None = number(None, low=2)
    """Larger clusters are not selected; null: no limit."""
    allow_single_cluster: bool = False
    """Allow one cluster of all rows."""
    sample_rows: int | str = number(AUTO, low=2, or_text=(AUTO,))
    """The number of rows that the tree is built from; ``auto``: all rows, or 250,000 if the tree of all rows does not fit in memory."""
    exact: bool | None = None
    """On a GPU, whether the CPU builds the exact spanning tree, or cuML an approximate one; null: exact for at most 8 columns. The CPU's tree
    is always exact."""
    metric: str = one_of("euclidean", "euclidean", "cosine")
    """``cosine``: rows have length 1, so that Euclidean distances give the same order as cosine distances."""

    def complaint(self) -> str | None:
        """See ClusterConfig."""
        if isinstance(self.sample_rows, int) and self.sample_rows <= self.min_samples:
            return f"cluster.sample_rows={self.sample_rows} must be above cluster.min_samples={self.min_samples}; raise cluster.sample_rows"
        largest, smallest = self.max_cluster_size, self.min_cluster_size
        if largest is None or not isinstance(smallest, int) or largest >= smallest:
            return None
        return f"cluster.max_cluster_size={largest} is below cluster.min_cluster_size={smallest}; raise it or set null"


def default_min_cluster_size(n_rows: int) -> int:
    """The ``min_cluster_size`` where none is given: the square root of the number of rows, at least 5 (13 of 178, 100 of 10,000)."""
    return max(5, round(math.sqrt(n_rows)))


def for_subset(config: HdbscanConfig, share: float) -> HdbscanConfig:
    """The configuration for a share of the rows: the smallest cluster shrinks with them."""
    if isinstance(config.min_cluster_size, int):
        return replace(config, min_cluster_size=max(2, round(share * config.min_cluster_size)))
    return config


def sampling_note(metrics: Mapping[str, float]) -> tuple[str, ...]:
    """A note for the user about a fit whose tree is built from a sample, from the fit's metrics."""
    if "tree_rows" not in metrics:
        return ()
    return (
        f"tree of {metrics['tree_rows']:,.0f} of {metrics['n_rows']:,.0f} rows; labels of the others by approximate prediction; "
        "the border of the noise is less exact",
    )


def keep_labels(
    parameters: Mapping[str, np.ndarray], renumber: np.ndarray, labels: np.ndarray, confidence: np.ndarray
) -> Mapping[str, np.ndarray]:
    """The labels and confidences of the rows in the tree are kept, because a prediction may assign rows to a cluster that are noise in the
    tree."""
    if "sample" in parameters:
        parameters = {**parameters, "table_labels": labels, "table_confidence": confidence}
        labels, confidence = labels[parameters["sample"]], confidence[parameters["sample"]]
    return {**parameters, "canonical": renumber, "training_labels": labels, "training_confidence": confidence}


ALGORITHM = Algorithm(
    name="hdbscan",
    config=HdbscanConfig,
    fit={
        "cpu": "gpuclust.algorithms.hdbscan.cpu:fit",
        "gpu": "gpuclust.algorithms.hdbscan.gpu:fit",
        "blocks": "gpuclust.algorithms.hdbscan.cpu:fit",
    },
    label="HDBSCAN",
    has_noise=True,
    less_noise="lower cluster.min_cluster_size or cluster.min_samples",
    seeded=False,
    default_metric="relative_validity",
    size_key="min_cluster_size",
    counts_clusters=False,
    shared_step="tree",
    for_subset=for_subset,
    canonical=keep_labels,
    warnings=sampling_note,
    after_fit="gpuclust.algorithms.hdbscan.cpu:after_fit",
    density_validity="gpuclust.algorithms.hdbscan.cpu:density_validity",
    soft_membership="gpuclust.algorithms.hdbscan.predict:soft_membership",
    steps={
        "nearest_neighbors": "gpuclust.algorithms.hdbscan.cpu:nearest_neighbors",
        "spanning_tree": "gpuclust.algorithms.hdbscan.cpu:shared_tree",
        "tree_is_exact": "gpuclust.algorithms.hdbscan.cpu:is_exact",
        "relative_validity": "gpuclust.algorithms.hdbscan.quality:relative_validity",
        "persistence_curve": "gpuclust.algorithms.hdbscan.quality:persistence_curve",
        "layer_sizes": "gpuclust.algorithms.hdbscan.quality:layer_sizes",
        "leaf_cut": "gpuclust.algorithms.hdbscan.cpu:leaf_cut",
        "soft_membership": "gpuclust.algorithms.hdbscan.predict:soft_membership",
    },
)
