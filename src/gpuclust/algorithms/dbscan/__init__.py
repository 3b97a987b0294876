"""DBSCAN: cuts of HDBSCAN's spanning tree at a distance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from gpuclust.algorithms.registry import Algorithm
from gpuclust.config import AUTO, ClusterConfig, number, one_of

if TYPE_CHECKING:
    import numpy as np


@dataclass
class DbscanConfig(ClusterConfig):
    """DBSCAN (Ester, Kriegel, Sander and Xu 1996).

    A row with at least ``min_samples`` other rows within ``eps`` is a core row. Core rows within ``eps`` of each other are in one cluster.
    """

    forecast: ClassVar[str] = "hdbscan"

    name: str = one_of("dbscan", "dbscan")
    eps: float | str = number(AUTO, low=0, open_low=True, or_text=(AUTO,))
    """The radius of a neighbourhood, in the prepared space; ``auto``: the one of 25 radii whose clusters of core rows have the highest relative validity."""
    min_samples: int = number(10, low=1, high=1023, spare_rows=1)
    """The number of neighbours within ``eps`` that make a row a core row; the row itself is not counted."""
    border: bool = True
    """Whether a row within ``eps`` of a core row joins the cluster of the nearest one; false: only core rows are in clusters (DBSCAN*)."""
    metric: str = one_of("euclidean", "euclidean", "cosine")
    """``cosine``: rows have length 1, and ``eps`` is a distance between them: eps² = 2 - 2 cosine."""


def for_subset(config: DbscanConfig, share: float) -> DbscanConfig:
    """The configuration for a share of the rows: a neighbourhood of the same radius holds fewer of them."""
    return replace(config, min_samples=max(1, round(share * config.min_samples)))


def number_core_rows(
    parameters: Mapping[str, np.ndarray], renumber: np.ndarray, labels: np.ndarray, confidence: np.ndarray
) -> Mapping[str, np.ndarray]:
    """The labels of the core rows in the final numbering of the clusters."""
    return {**parameters, "core_labels": renumber[parameters["core_labels"]]}


ALGORITHM = Algorithm(
    name="dbscan",
    config=DbscanConfig,
    fit={"cpu": "gpuclust.algorithms.dbscan.fit:fit", "gpu": "gpuclust.algorithms.dbscan.gpu:fit"},
    label="DBSCAN",
    has_noise=True,
    less_noise="raise cluster.eps or lower cluster.min_samples",
    seeded=False,
    default_metric="relative_validity",
    size_key="eps",
    counts_clusters=False,
    shared_step="tree",
    for_subset=for_subset,
    canonical=number_core_rows,
    density_validity="gpuclust.algorithms.dbscan.fit:density_validity",
)
