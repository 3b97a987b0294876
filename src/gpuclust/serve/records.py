"""What a library answers with: frozen records of plain values, and the error for what is not there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gpuclust.errors import ExportError

NOISE = -1


class NotFound(ExportError):
    """There is no such item, title, cluster or creator; ``suggestions`` are what it may have meant, best first."""

    def __init__(self, message: str, suggestions: Sequence[str] = ()) -> None:
        self.suggestions = tuple(suggestions)
        near = f"; did you mean {' or '.join(self.suggestions[:3])}?" if self.suggestions else ""
        super().__init__(message + near)


@dataclass(frozen=True)
class Item:
    """A row of the export. Empty text, an empty tuple or None where the table has no such role or value.

    ``rank`` is its place by popularity among all rows, 0 the most popular (file order where there is no popularity);
    ``creator`` is the text as written, ``creators`` the names in it. ``features`` are in original units; ``distance`` to
    the own centre is None where the algorithm has none; ``x, y, z`` are the map's coordinates.
    """

    rank: int
    id: str
    title: str
    creator: str
    creators: tuple[str, ...]
    groups: tuple[str, ...]
    popularity: float | None
    year: int | None
    preview: str
    cluster: int
    cluster_name: str
    confidence: float | None
    distance: float | None
    x: float
    y: float
    z: float
    features: Mapping[str, float | None]

    @property
    def label(self) -> str:
        """ "Title by Creator", or the id where there is no title."""
        return f"{self.title or self.id} by {self.creator}" if self.creator else self.title or self.id

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON (no NaN)."""
        return plain(asdict(self))


@dataclass(frozen=True)
class Neighbour:
    """An item and its Euclidean distance from what was asked for, in the prepared feature space."""

    item: Item
    distance: float


@dataclass(frozen=True)
class Hit:
    """A search result. ``score`` in [0, 1], 1 for what was typed exactly; ``other_creators``: who else has an item of the
    same title, most popular first (at most 20), and ``same_title`` how many items have it."""

    item: Item
    score: float
    same_title: int = 1
    other_creators: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """The results of one search, best first. ``complete``: every word typed was found, as typed, in each of them.

    ``ambiguous`` are all creators of the best hit's title when there are several, most popular first.
    """

    query: str
    hits: tuple[Hit, ...]
    complete: bool
    ambiguous: tuple[str, ...] = ()


@dataclass(frozen=True)
class Share:
    """How often a value occurs in a cluster; ``lift`` is its share there over its share in all rows."""

    value: str
    count: int
    lift: float
    fraction: float = 0.0


@dataclass(frozen=True)
class Example:
    """A row that stands for a cluster."""

    id: str
    title: str = ""
    creator: str = ""
    popularity: float | None = None


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
class Cluster:
    """A cluster as the export describes it; -1 is the noise. ``fraction`` of all rows; ``features`` in the export's order.

    ``representatives`` and ``popular`` are never empty for a cluster with items. ``rule`` reads like
    ``energy > 0.63 and acousticness <= 0.2`` (empty where none was found), its scores are in [0, 1].
    """

    cluster: int
    name: str
    size: int
    fraction: float
    features: Mapping[str, FeatureStats]
    description: str = ""
    nearest: int | None = None
    top_groups: tuple[Share, ...] = ()
    top_groups_by_lift: tuple[Share, ...] = ()
    top_creators: tuple[Share, ...] = ()
    top_creators_by_lift: tuple[Share, ...] = ()
    representatives: tuple[Example, ...] = ()
    popular: tuple[Example, ...] = ()
    rule: str = ""
    rule_fidelity: float | None = None
    rule_precision: float | None = None
    rule_recall: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON (no NaN)."""
        return plain(asdict(self))


@dataclass(frozen=True)
class Page:
    """Part of an ordered list: ``total`` rows in all, these from ``offset`` on; ``next_offset`` None at the end."""

    items: tuple[Item, ...]
    total: int
    offset: int

    @property
    def next_offset(self) -> int | None:
        """Where the next page starts."""
        after = self.offset + len(self.items)
        return after if after < self.total and self.items else None


@dataclass(frozen=True)
class Average:
    """The mean of each feature, in original units, over the ``count`` items that have a year, group or creator."""

    value: str | int
    count: int
    features: Mapping[str, float]


@dataclass(frozen=True)
class Averages:
    """Averages by ``by`` ("year", "group" or "creator"): years ascending, the others by count; ``total`` values in all."""

    by: str
    values: tuple[Average, ...]
    total: int
    offset: int = 0
    cluster: int | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of an export: the manifest's own account, for people and for ``/health``."""

    folder: str
    key: str
    n_rows: int
    n_clusters: int
    algorithm: str
    features: tuple[str, ...]
    roles: Mapping[str, str]
    manifest: Mapping[str, Any] = field(repr=False)


def plain(value: Any) -> Any:
    """Mappings, sequences and numbers as JSON can hold them; NaN and infinities become None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
