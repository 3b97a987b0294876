"""What is known of each cluster, as a profile finds it, an export holds it, and a report and the API show it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Annotated, Any

import numpy as np

# The label of rows that are in no cluster.
NOISE = -1
# Rows whose labels are counted at once; the copy for counting takes 8 bytes per row.
STEP = 1 << 20
# Above this share of noise a clustering is shown with a warning.
MAX_QUIET_NOISE = 0.3
Fraction = Annotated[float, "in [0, 1], never NaN"]
# A group that is so many times as frequent in a cluster as in the whole table is typical of it.
MIN_TYPICAL_LIFT = 1.2


def sizes_of(labels: np.ndarray, n_clusters: int | None = None) -> np.ndarray:
    """Rows of each cluster, (n_clusters,) int64, of labels (n_samples,) int32; noise is left out.

    ``n_clusters`` is by default the highest label plus 1.
    """
    n_clusters = int(labels.max(initial=NOISE)) + 1 if n_clusters is None else n_clusters
    counts = np.zeros(n_clusters + 1, dtype=np.int64)
    for start in range(0, len(labels), STEP):  # bincount copies its argument as int64
        counts += np.bincount(labels[start : start + STEP] + 1, minlength=n_clusters + 1)
    return counts[1:]


def _first_rows(labels: np.ndarray, n_clusters: int) -> np.ndarray:
    """The first row of each cluster, (n_clusters,) int64; ``len(labels)`` for a cluster without rows."""
    first = np.full(n_clusters + 1, len(labels))
    for start in reversed(range(0, len(labels), STEP)):
        found, rows = np.unique(labels[start : start + STEP], return_index=True)
        first[found + 1] = start + rows
    return first[1:]


def canonical_order(labels: np.ndarray, centers: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """The clusters in canonical order: by total weight, the largest first, ties by centre in lexicographic order.

    ``labels`` (n_samples,) int32, noise -1; ``centers`` (n_clusters, n_features) float64; ``weight`` (n_samples,), by
    default 1 for each row. Returns (n_clusters,) int64 cluster numbers. Of clusters of one weight and one centre the one
    whose row comes first is first.
    """
    if weight is None:
        sizes = sizes_of(labels, len(centers))
    else:
        member = labels != NOISE
        sizes = np.bincount(labels[member], weight[member], minlength=len(centers))
    return np.lexsort((_first_rows(labels, len(centers)), *centers.T[::-1], -sizes))


def renumbered(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Labels (n_samples,) int32 whose cluster ``order[i]`` is called ``i``; noise stays -1."""
    return np.append(np.argsort(order), NOISE).astype(np.int32)[labels]


@dataclass(frozen=True)
class FeatureStats:
    """One feature in one cluster, in the table's units."""

    mean: float
    median: float
    std: float
    z: float
    """The mean's distance from the mean of all rows, in standard deviations of all rows."""
    z_se: float
    """Standard error of `z`."""


@dataclass(frozen=True)
class CategoryShare:
    """How often a value occurs in a cluster."""

    value: str
    count: int
    lift: float
    """Its share in the cluster over its share in all rows."""
    fraction: float = 0.0
    """Its share in the cluster."""


@dataclass(frozen=True)
class Term:
    """A word of the titles in a cluster, how often it occurs there, and its weight (class-based TF-IDF)."""

    value: str
    count: int
    weight: float


@dataclass(frozen=True)
class CategoryColumn:
    """A column of categories that is clustered, in a cluster: its most frequent categories and their shares of the rows."""

    column: str
    values: tuple[CategoryShare, ...]


@dataclass(frozen=True)
class CircularMean:
    """The mean direction of a circular column, in its own units from 0 to ``period``, and how concentrated its values are: 0 if they are spread
    evenly, 1 if they are equal (the mean resultant length of Mardia and Jupp, Directional Statistics, 2000)."""

    column: str
    mean: float
    period: float
    concentration: float


@dataclass(frozen=True)
class Example:
    """A row that stands for a cluster. A text is empty where the table has no such role."""

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
    """A cluster with its profile."""

    cluster: int
    """Its number: 0 is the largest, -1 is noise."""
    name: str
    size: int
    fraction: Fraction
    """Share of all rows, in [0, 1]."""
    features: Mapping[str, FeatureStats]
    """In the order of the model's features."""
    description: str = ""
    nearest: int | None = None
    """The cluster whose mean is nearest in standardised features; null for the only one."""
    top_groups: tuple[CategoryShare, ...] = ()
    top_groups_by_lift: tuple[CategoryShare, ...] = ()
    top_creators: tuple[CategoryShare, ...] = ()
    top_creators_by_lift: tuple[CategoryShare, ...] = ()
    top_terms: tuple[Term, ...] = ()
    """The words that distinguish it, for a table with vectors; the largest weight first."""
    categories: tuple[CategoryColumn, ...] = ()
    """The columns of categories of which each category is a feature."""
    circular: tuple[CircularMean, ...] = ()
    """The means of circular columns, whose features are their sine and cosine."""
    representatives: tuple[Example, ...] = ()
    """Rows close to its middle."""
    popular: tuple[Example, ...] = ()
    rule: Rule | None = None
    """Bounds on features that nearly select it; None where none were found."""
    generated_name: str = ""
    """The name that follows from its profile, where a person has given it another; else empty."""
    proposed_name: str = ""
    """A name that a language model has proposed; empty without one."""

    @property
    def numbers(self) -> dict[str, FeatureStats]:
        """The features without those that `categories` and `circular` describe."""
        marks = tuple(f"{c.column}=" for c in self.categories)
        angles = {f"{function}({c.column})" for c in self.circular for function in ("sin", "cos")}
        return {f: s for f, s in self.features.items() if not f.startswith(marks) and f not in angles}

    def column(self, name: str) -> str:
        """What is known of an encoded column: ``rock (60%)`` or ``around 23.5``; empty if it is none."""
        for c in self.categories:
            if c.column == name and c.values:
                return f"{c.values[0].value} ({c.values[0].fraction:.0%})"
        return next((f"around {c.mean:.3g}" for c in self.circular if c.column == name), "")

    @property
    def subtitle(self) -> str:
        """The groups that are typical of the cluster: ``like classical, ambient``; empty where no group occurs more often than in
        the whole table by a fifth."""
        shares = {s.value: s for s in (*self.top_groups, *self.top_groups_by_lift) if s.lift >= MIN_TYPICAL_LIFT}
        ranked = sorted(shares.values(), key=lambda s: (-s.fraction * math.log(s.lift), s.value))
        return f"like {', '.join(s.value for s in ranked[:2])}" if ranked else ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON (no NaN), the parts of the rule beside the others: ``rule`` (its text, empty without one), ``rule_fidelity``
        and so on."""
        values: dict[str, Any] = plain(self)
        rule = values.pop("rule") or asdict(Rule(""))
        return {**values, "rule": rule.pop("text"), **{f"rule_{name}": value for name, value in rule.items()}}


def plain(value: Any) -> Any:
    """Records, mappings, sequences and numbers as JSON can hold them; NaN and infinities become None."""
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def noise_warning(n_noise: int, n_rows: int, less_noise: str = "") -> str | None:
    """A warning if more than 30 % of the rows are noise: ``11,961 of 114,000 rows are in a cluster; ...``; else None.

    ``less_noise`` is the algorithm's (`gpuclust.algorithms.registry.Algorithm`).
    """
    if n_rows == 0 or n_noise <= MAX_QUIET_NOISE * n_rows:
        return None
    inside = f"{n_rows - n_noise:,} of {n_rows:,} rows are in a cluster"
    if n_noise == n_rows:
        return f"{inside}: every row is noise{less_noise and f'; {less_noise}'}"
    return f"{inside}; the other {n_noise / n_rows:.0%} are noise, which the scores without noise do not show"
