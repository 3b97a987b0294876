"""What is known of each cluster, as a profile finds it, an export holds it, and a report and the API show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# The label of rows that are in no cluster.
NOISE = -1


@dataclass(frozen=True)
class FeatureStats:
    """One feature in one cluster, in original units; ``z`` is the mean's distance from the mean of all rows in standard
    deviations of all rows, ``z_se`` its standard error."""

    mean: float
    median: float
    std: float
    z: float
    z_se: float


@dataclass(frozen=True)
class CategoryShare:
    """How often a value occurs in a cluster: ``count``, ``fraction`` of all the cluster's values, and ``lift``, that
    fraction over the value's fraction of the whole table's values."""

    value: str
    count: int
    lift: float | None
    fraction: float | None = 0.0


@dataclass(frozen=True)
class Example:
    """A row that stands for a cluster, as people know it: empty or None where the table has no such role."""

    id: str
    title: str = ""
    creator: str = ""
    popularity: float | None = None


@dataclass(frozen=True)
class Cluster:
    """One cluster in words and numbers; -1 is the noise.

    ``fraction`` of all rows; ``features`` in the order of the model's; ``nearest`` is the cluster whose mean is nearest in
    standardised features, None for the only one. ``rule`` reads like ``energy > 0.63 and acousticness <= 0.2`` (empty where
    none was found), its scores are in [0, 1].
    """

    cluster: int
    name: str
    size: int
    fraction: float
    features: Mapping[str, FeatureStats]
    description: str = ""
    nearest: int | None = None
    top_groups: tuple[CategoryShare, ...] = ()
    top_groups_by_lift: tuple[CategoryShare, ...] = ()
    top_creators: tuple[CategoryShare, ...] = ()
    top_creators_by_lift: tuple[CategoryShare, ...] = ()
    representatives: tuple[Example, ...] = ()
    popular: tuple[Example, ...] = ()
    rule: str = ""
    rule_fidelity: float | None = None
    rule_precision: float | None = None
    rule_recall: float | None = None
