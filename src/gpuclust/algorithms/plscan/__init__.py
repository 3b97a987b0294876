"""PLSCAN: the most persistent leaf clusters of HDBSCAN's tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from gpuclust.algorithms.registry import Algorithm
from gpuclust.config import ClusterConfig, number, one_of

if TYPE_CHECKING:
    import numpy as np


@dataclass
class PlscanConfig(ClusterConfig):
    """PLSCAN (Bot, McInnes and Aerts 2025): HDBSCAN's tree, cut at the smallest cluster size whose leaf clusters last longest.

    A leaf cluster lasts for all sizes at which it does not split. The total of these ranges over all leaf clusters is the persistence of a
    size; its peaks are the layers.
    """

    forecast: ClassVar[str] = "hdbscan"

    name: str = one_of("plscan", "plscan")
    min_samples: int = number(10, low=1, high=1023, spare_rows=1)
    """The number of neighbours that define the density at a row; the row itself is not counted."""
    min_cluster_size: int | None = number(None, low=2, spare_rows=0)
    """The smallest size that is ranked; null: ``min_samples``."""
    layer: int = number(1, low=1)
    """Which clustering: 1 is the most persistent one, 2 the next peak of the persistence, and so on."""
    metric: str = one_of("euclidean", "euclidean", "cosine")
    """``cosine``: rows are divided by their length; Euclidean distances then have the same order as cosine distances."""


def for_subset(config: PlscanConfig, share: float) -> PlscanConfig:
    """The configuration for a share of the rows: the smallest size that is ranked shrinks with them."""
    if config.min_cluster_size is None:
        return config
    return replace(config, min_cluster_size=max(2, round(share * config.min_cluster_size)))


def keep_labels(
    parameters: Mapping[str, np.ndarray], renumber: np.ndarray, labels: np.ndarray, confidence: np.ndarray
) -> Mapping[str, np.ndarray]:
    """The labels and confidences of the fit, as in HDBSCAN's models."""
    return {**parameters, "canonical": renumber, "training_labels": labels, "training_confidence": confidence}


ALGORITHM = Algorithm(
    name="plscan",
    config=PlscanConfig,
    fit={"cpu": "gpuclust.algorithms.plscan.fit:fit", "gpu": "gpuclust.algorithms.plscan.fit:fit"},
    label="PLSCAN",
    has_noise=True,
    less_noise="lower cluster.min_samples or take another cluster.layer",
    seeded=False,
    size_key="min_samples",
    counts_clusters=False,
    shared_step="tree",
    for_subset=for_subset,
    canonical=keep_labels,
    density_validity="gpuclust.algorithms.plscan.fit:density_validity",
    soft_membership="gpuclust.algorithms.plscan.fit:soft_membership",
)
