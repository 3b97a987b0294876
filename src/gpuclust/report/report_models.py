"""The plain values that a page is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """The decision in words, and the figures that led to it."""

    text: str
    because: Sequence[str] = ()


@dataclass(frozen=True)
class Picture:
    """A figure: its title (also its text for those who cannot see it), its PNG bytes, and a note under it."""

    title: str
    png: bytes
    note: str = ""


@dataclass(frozen=True)
class FeatureLine:
    """A feature in a cluster: mean (and median) in original units, ``z`` the mean's distance from the mean of all rows
    in standard deviations, ``z_se`` its standard error."""

    feature: str
    mean: float
    z: float
    median: float | None = None
    z_se: float | None = None


@dataclass(frozen=True)
class ShareLine:
    """How often a group or creator occurs in a cluster; ``lift`` is its share there over its share in all rows."""

    value: str
    count: int
    lift: float | None = None


@dataclass(frozen=True)
class Item:
    """A row of the data as people know it."""

    title: str
    creator: str = ""
    note: str = ""


@dataclass(frozen=True)
class ClusterCard:
    """What is in one cluster (-1: the noise). ``fraction`` of all rows, 0..1; ``rule`` a shallow decision rule."""

    cluster: int
    name: str
    size: int
    fraction: float
    description: str = ""
    features: Sequence[FeatureLine] = ()
    top_groups: Sequence[ShareLine] = ()
    top_creators: Sequence[ShareLine] = ()
    representative: Sequence[Item] = ()
    popular: Sequence[Item] = ()
    rule: str = ""
