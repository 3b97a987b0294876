"""Results of a library: frozen records of plain values, and the error for missing items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal

from gpuclust.errors import ExportError, did_you_mean
from gpuclust.model.records import Fraction, plain

By = Literal["year", "group", "creator"]


class NotFound(ExportError):
    """An item, title, cluster or creator does not exist; ``suggestions`` are similar ones, best first."""

    def __init__(self, message: str, suggestions: Sequence[str] = ()) -> None:
        self.suggestions = tuple(suggestions)
        super().__init__(message + did_you_mean(self.suggestions[:3]))


@dataclass(frozen=True)
class Item:
    """A row of the export. Missing text is empty, a missing number is null."""

    rank: int
    """Position by popularity among all rows, 0 for the most popular; file order without a popularity."""
    id: str
    """The id, as in the table."""
    title: str
    creator: str
    """The creators as written in the table."""
    creators: tuple[str, ...]
    """The names in `creator`."""
    groups: tuple[str, ...]
    """The groups (genres) of the row."""
    popularity: float | None
    year: int | None
    preview: str
    """An address of a preview, as in the table: check it before opening it."""
    cluster: int
    """The cluster's number; -1 is noise."""
    cluster_name: str
    confidence: float | None
    """In [0, 1]; the definition depends on the algorithm (see the README)."""
    distance: float | None
    """Distance to the centre of the cluster in the prepared space; null without a centre."""
    x: float
    """The first coordinate on the map: by default the first principal component."""
    y: float
    z: float
    features: Mapping[str, float | None]
    """The clustered features, in the units of the table."""
    album: str = ""
    """The album, if the export has a column with that name."""
    url: str = ""
    """A web address or a file, as in the table: check it before opening it."""
    duration_ms: float | None = None
    """Length in milliseconds, if it is a column but not a feature."""
    track: str = ""
    """The id of the track at Spotify, where the id or the web address has the form of one; empty for other rows."""

    @property
    def label(self) -> str:
        """ "Title by Creator", or the id without a title."""
        return f"{self.title or self.id} by {self.creator}" if self.creator else self.title or self.id

    def to_dict(self) -> dict[str, Any]:
        """Convert to a dictionary for JSON (without NaN)."""
        values: dict[str, Any] = plain(self)
        return values


@dataclass(frozen=True)
class Neighbour:
    """An item and its distance to the query."""

    item: Item
    distance: float
    """Euclidean, in the prepared feature space."""


@dataclass(frozen=True)
class Hit:
    """A search result."""

    item: Item
    score: Fraction
    """In [0, 1]; 1 for an exact match."""
    same_title: int = 1
    """How many items have this title."""
    other_creators: tuple[str, ...] = ()
    """Who else has an item of this title, most popular first, at most 20."""


@dataclass(frozen=True)
class SearchResult:
    """Search results, best first; of several rows with the same title and creator the best."""

    query: str
    hits: tuple[Hit, ...]
    complete: bool
    """Whether the first hit has every word as typed."""
    ambiguous: tuple[str, ...] = ()
    """Where the whole query is a title (and no creator's name) that several creators have: these creators, most popular first."""
    total: int | None = None
    """How many different titles and creators match all words; null where the hits lack words."""
    total_is_minimum: bool = False
    """Whether counting stopped at `total`, so that there may be more."""

    def _repr_html_(self) -> str:
        """The results as a table, for notebooks."""
        cells = (
            (hit.item.title or hit.item.id, hit.item.creator, hit.item.cluster_name, f"{hit.score:.2f}", hit.item.id)
            for hit in self.hits
        )
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in cells)
        head = "".join(f"<th>{name}</th>" for name in ("title", "creator", "cluster", "score", "id"))
        return f"<p>{len(self.hits)} results for <b>{escape(self.query)}</b></p><table><tr>{head}</tr>{rows}</table>"


@dataclass(frozen=True)
class Page:
    """A page of a list."""

    items: tuple[Item, ...]
    total: int
    """Rows in the whole list."""
    offset: int

    @property
    def next_offset(self) -> int | None:
        """The offset of the next page; None at the end."""
        after = self.offset + len(self.items)
        return after if after < self.total and self.items else None


@dataclass(frozen=True)
class Average:
    """Means over the items that share a value."""

    value: str | int
    count: int
    """How many items."""
    features: Mapping[str, float]
    """Mean of each feature, in the table's units."""


@dataclass(frozen=True)
class Averages:
    """Averages by year (ascending), group or creator (most items first)."""

    by: By
    values: tuple[Average, ...]
    total: int
    """Values in the whole list, without those left out."""
    offset: int = 0
    cluster: int | None = None
    """The cluster that they are taken in; null for all rows."""
    min_count: int = 1
    """Rows that a value needs to be in the list."""
    left_out: int = 0
    """Values that have fewer rows than `min_count`."""
    left_out_rows: int = 0
    """The rows of these values."""
    without: int = 0
    """Rows of all without a usable year (missing, before 1860, or after next year)."""


@dataclass(frozen=True)
class MapInfo:
    """The map of an export: ``label`` is the name of its method on an axis, ``n_axes`` the number of its axes. ``trustworthiness`` and that of
    principal components are in [0, 1], or None where they were not measured, as for maps of principal components, which are ``linear``."""

    label: str = "PC"
    n_axes: int = 3
    trustworthiness: float | None = None
    of_components: float | None = None

    @property
    def linear(self) -> bool:
        """Whether the axes are principal components."""
        return self.label == "PC"

    def axis(self, number: int) -> str:
        """The name of an axis, from 1: ``PC1``, ``UMAP 1``."""
        return f"{self.label}{number}" if self.linear else f"{self.label} {number}"

    @property
    def quality(self) -> str:
        """Its trustworthiness in brackets, as ``(trustworthiness 0.97)``; empty where it was not measured."""
        return "" if self.trustworthiness is None else f"(trustworthiness {self.trustworthiness:.2f})"


@dataclass(frozen=True)
class ExportInfo:
    """Information about an export, from its manifest.

    ``selected``: whether the run is its sweep's choice, None where the manifest does not say; ``sweep_choice`` the name of
    the run that the sweep chose; ``because`` the figures that led to the sweep's verdict; ``warnings`` what to know before
    using the clusters; ``map`` the map that x, y and z are on.
    """

    folder: str
    key: str
    n_rows: int
    n_clusters: int
    algorithm: str
    features: tuple[str, ...]
    roles: Mapping[str, str]
    manifest: Mapping[str, Any] = field(repr=False)
    selected: bool | None = None
    sweep_choice: str = ""
    because: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    map: MapInfo = MapInfo()
