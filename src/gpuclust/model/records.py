"""What is known of each cluster, as a profile finds it, an export holds it, and a report and the API show it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

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
    lift: float
    fraction: float = 0.0


@dataclass(frozen=True)
class Example:
    """A row that stands for a cluster, as people know it: empty or None where the table has no such role."""

    id: str
    title: str = ""
    creator: str = ""
    popularity: float | None = None


@dataclass(frozen=True)
class Rule:
    """A conjunction such as ``energy > 0.63 and acousticness <= 0.2``, judged on all rows.

    ``fidelity``: share of all rows for which meeting the rule and being in the cluster are the same; ``precision``: of
    the rows that meet it, those in the cluster; ``recall``: of the cluster, the rows that meet it. All in [0, 1], or None
    where they are not known.
    """

    text: str
    fidelity: float | None = None
    precision: float | None = None
    recall: float | None = None


@dataclass(frozen=True)
class Cluster:
    """One cluster in words and numbers; -1 is the noise.

    ``fraction`` of all rows; ``features`` in the order of the model's; ``nearest`` is the cluster whose mean is nearest in
    standardised features, None for the only one; ``rule`` is None where none was found.
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
    rule: Rule | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON (no NaN), the parts of the rule beside the others: ``rule`` (its text, empty without one), ``rule_fidelity``
        and so on."""
        values: dict[str, Any] = plain(asdict(self))
        rule = values.pop("rule") or asdict(Rule(""))
        return {**values, "rule": rule.pop("text"), **{f"rule_{name}": value for name, value in rule.items()}}


def plain(value: Any) -> Any:
    """Mappings, sequences and numbers as JSON can hold them; NaN and infinities become None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
