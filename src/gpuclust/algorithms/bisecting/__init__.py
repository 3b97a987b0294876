"""Bisecting K-Means: clusters are divided in two, one after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuclust.algorithms.registry import Algorithm
from gpuclust.config import ClusterConfig, number, one_of

if TYPE_CHECKING:
    import numpy as np


@dataclass
class BisectingConfig(ClusterConfig):
    """Bisecting K-Means (Steinbach, Karypis and Kumar 2000): each step divides one cluster in two by K-Means.

    The first divisions do not depend on the number of clusters, so the sizes of a sweep are stages of one fit.
    """

    name: str = one_of("bisecting", "bisecting")
    n_clusters: int = number(8, low=2, spare_rows=0)
    """The number of clusters."""
    bisecting_strategy: str = one_of("biggest_inertia", "biggest_inertia", "largest_cluster")
    """The cluster that is divided next: the one with the largest sum of squares, or the one with the most rows."""
    init: str = one_of("k-means++", "k-means++", "random")
    """How the two starting centres of a division are chosen."""
    n_init: int = number(3, low=1)
    """The number of starts of a division; the one with the lowest inertia is kept."""
    max_iter: int = number(300, low=1)
    """The largest number of iterations of one start."""
    tol: float = number(1e-4, low=0)
    """Stop when the squared move of the centres is below this share of the mean variance, as in scikit-learn."""
    metric: str = one_of("euclidean", "euclidean", "cosine")
    """``cosine``: each division is by spherical K-Means."""


def label_nodes(
    parameters: Mapping[str, np.ndarray], renumber: np.ndarray, labels: np.ndarray, confidence: np.ndarray
) -> Mapping[str, np.ndarray]:
    """The labels of the nodes in the canonical numbering; a node that was divided keeps -1."""
    del labels, confidence
    nodes = parameters["node_labels"].copy()
    ends = nodes >= 0
    nodes[ends] = renumber[nodes[ends]]
    return {**parameters, "node_labels": nodes}


FIT = "gpuclust.algorithms.bisecting.fit:fit"

ALGORITHM = Algorithm(
    name="bisecting",
    config=BisectingConfig,
    fit={"cpu": FIT, "gpu": FIT},
    label="bisecting K-Means",
    fits_together=True,
    canonical=label_nodes,
)
