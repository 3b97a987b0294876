"""Results of a library: frozen records of plain values, and the error for missing items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

from gpuclust.errors import ExportError, did_you_mean
from gpuclust.model.records import plain


class NotFound(ExportError):
    """An item, title, cluster or creator does not exist; ``suggestions`` are similar ones, best first."""

    def __init__(self, message: str, suggestions: Sequence[str] = ()) -> None:
        self.suggestions = tuple(suggestions)
        super().__init__(message + did_you_mean(self.suggestions[:3]))


@dataclass(frozen=True)
class Item:
    """A row of the export. A value is empty text, an empty tuple or None if the table has no such role or value.

    ``rank`` is its position by popularity among all rows, 0 for the most popular (file order without a popularity);
    ``creator`` is the text as written, ``creators`` the names in it. ``features`` are in original units; ``distance`` to
    the centre of its cluster is None if the algorithm has no centres; ``x, y, z`` are the coordinates of the map. ``album``,
    ``url`` (a web address or a file, as in the table) and ``duration_ms`` are set if the export has columns with such names.
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
    album: str = ""
    url: str = ""
    duration_ms: float | None = None

    @property
    def label(self) -> str:
        """ "Title by Creator", or the id without a title."""
        return f"{self.title or self.id} by {self.creator}" if self.creator else self.title or self.id

    def to_dict(self) -> dict[str, Any]:
        """Convert to a dictionary for JSON (without NaN)."""
        values: dict[str, Any] = plain(asdict(self))
        return values


@dataclass(frozen=True)
class Neighbour:
    """An item and its Euclidean distance to the query in the prepared feature space."""

    item: Item
    distance: float


@dataclass(frozen=True)
class Hit:
    """A hit of a search.

    ``score`` is in [0, 1], 1 for an exact match; ``other_creators`` are other creators of items with the same title, most
    popular first (at most 20); ``same_title`` is the number of items with this title.
    """

    item: Item
    score: float
    same_title: int = 1
    other_creators: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchResult:
    """The results of one search, best first, each recording (title and creator) once. ``complete``: every word typed was
    found, as typed, in the first.

    ``ambiguous``: where the whole query is the title of items of several creators (and no creator's name), these creators,
    most popular first. ``total`` recordings match all words, at least so many where ``total_is_minimum``; None where
    nothing has all words, so that the hits are only the nearest.
    """

    query: str
    hits: tuple[Hit, ...]
    complete: bool
    ambiguous: tuple[str, ...] = ()
    total: int | None = None
    total_is_minimum: bool = False

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
    """A page of a list with ``total`` rows, starting at ``offset``; ``next_offset`` is None at the end."""

    items: tuple[Item, ...]
    total: int
    offset: int

    @property
    def next_offset(self) -> int | None:
        """The offset of the next page."""
        after = self.offset + len(self.items)
        return after if after < self.total and self.items else None


@dataclass(frozen=True)
class Average:
    """The mean of each feature, in original units, over the ``count`` items with a year, group or creator."""

    value: str | int
    count: int
    features: Mapping[str, float]


@dataclass(frozen=True)
class Averages:
    """Averages by ``by`` ("year", "group" or "creator"): years ascending, the others by count; ``total`` values in all.

    Values with fewer than ``min_count`` rows are left out: ``left_out`` values with ``left_out_rows`` rows.
    ``without`` rows of all have no usable value (for years: none, or one outside 1860 to next year).
    """

    by: str
    values: tuple[Average, ...]
    total: int
    offset: int = 0
    cluster: int | None = None
    min_count: int = 1
    left_out: int = 0
    left_out_rows: int = 0
    without: int = 0


@dataclass(frozen=True)
class ExportInfo:
    """Information about an export, from its manifest.

    ``selected``: whether the run is its sweep's choice, None where the manifest does not say; ``sweep_choice`` the name of
    the run that the sweep chose; ``because`` the figures that led to the sweep's verdict; ``warnings`` what to know before
    using the clusters.
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
