"""Parameters of the API and their limits. Unknown names are rejected, so that typing errors are noticed."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import unquote

from fastapi import Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, StrictBool, Tag

from gpuclust.model.preparation import REACH
from gpuclust.tracks.playlist import DIVERSITY, PER_CREATOR, SIZE, PlaylistOptions
from gpuclust.tracks.playlist import MAX_PLAYLIST_ITEMS as MAX_LISTED

MAX_ITEMS = 1_000  # of one page
MAX_HITS = 100
MAX_ROWS = 10_000  # of one POST /predict
MAX_BODY = 8 * 2**20  # bytes
MAX_INT = 2**31 - 1
MAX_QUERY_LENGTH = 500  # characters of a search
MAX_NAME_LENGTH = 1_500  # characters of an id or of a creator's name


def _text(sent: str) -> str:
    """Decode a percent-encoded path segment (see `gpuclust.serve.middleware`)."""
    return unquote(sent, errors="replace")


Number = Annotated[int, Path(description="A cluster's number; -1 is the noise.", ge=-1, le=MAX_INT)]
# The limit applies to the decoded text: a character may take twelve when it is percent-encoded.
Id = Annotated[
    str, Path(description="An item's id, percent-encoded.", max_length=MAX_NAME_LENGTH), BeforeValidator(_text)
]
Creator = Annotated[
    str, Path(description="A creator's name, percent-encoded; case and accents do not matter.", max_length=MAX_NAME_LENGTH),
    BeforeValidator(_text),
]  # fmt: skip


class QueryParams(BaseModel):
    """A model of parameters that rejects unknown names."""

    model_config = ConfigDict(extra="forbid")


class ItemsOfCluster(QueryParams):
    """The items of a cluster to return."""

    pick: Literal["popular", "central", "random"] = Field(
        "popular", description="Most popular first, nearest to the centre first, or a random order given by `seed`."
    )
    seed: int = Field(0, ge=0, le=MAX_INT, description="The same seed gives the same order, page after page.")
    distinct: bool = Field(False, description="Only the most popular row of each title and creator.")
    limit: int = Field(10, ge=1, le=MAX_ITEMS)
    offset: int = Field(0, ge=0, le=MAX_INT)


class Search(QueryParams):
    """A search in title and creator together (`q`) or separately; an empty search has no results."""

    q: str = Field(
        "", max_length=MAX_QUERY_LENGTH, description="Title and creator in any order; may be misspelt or shortened."
    )
    title: str = Field("", max_length=MAX_QUERY_LENGTH)
    creator: str = Field("", max_length=MAX_QUERY_LENGTH)
    limit: int = Field(10, ge=1, le=MAX_HITS)


class Similar(QueryParams):
    """The neighbours to return."""

    within: Literal["cluster", "all"] = Field("all", description="In the item's cluster, or among all rows.")
    limit: int = Field(10, ge=1, le=MAX_ITEMS)


class AveragesOf(QueryParams):
    """The averages to return."""

    min_count: int | None = Field(
        None,
        ge=1,
        le=MAX_INT,
        description="Leave out values with fewer rows; by default a year or a group needs 1 % of the averaged rows, "
        "at most 30, and a creator one row.",
    )
    limit: int = Field(100, ge=1, le=MAX_ITEMS)
    offset: int = Field(0, ge=0, le=MAX_INT)


def _whole(sent: Any) -> Any:
    """Convert 3.0 to an integer, as in JSON Schema."""
    return int(sent) if isinstance(sent, float) and sent.is_integer() else sent


Whole = Annotated[int, BeforeValidator(_whole)]
SomeCluster = Annotated[int, Field(ge=-1, le=MAX_INT), BeforeValidator(_whole)]
Format = Literal["json", "csv", "m3u8", "uris"]
URL_TEMPLATE = (
    "URL template of the items in m3u8 and uris, e.g. https://open.spotify.com/track/{id}; by default the addresses in the export. "
    "A playlist without any address is an error."
)


_FIELD = r"\{(?:id|title|creator|query)\}"
UrlTemplate = Annotated[
    str,
    Field(
        max_length=MAX_QUERY_LENGTH,
        pattern=rf"^https?://[A-Za-z0-9.-]+(?::[0-9]+)?/[!-z|~]*{_FIELD}(?:[!-z|~]|{_FIELD})*$",
    ),
]


class PlaylistParams(QueryParams):
    """Options of the selection of a playlist."""

    size: Whole = Field(SIZE, ge=1, le=MAX_LISTED)
    per_creator: Whole = Field(
        PER_CREATOR, ge=0, le=MAX_LISTED, description="Maximum number of items of a creator; 0: no limit."
    )
    diversity: float = Field(
        DIVERSITY, ge=0, le=1, description="0 selects the nearest items, larger values avoid similar items."
    )

    @property
    def options(self) -> PlaylistOptions:
        """Convert to the options of `gpuclust.tracks.playlist`."""
        return PlaylistOptions(self.size, self.per_creator or None, self.diversity)


class PlaylistOfCluster(PlaylistParams):
    """A playlist of the cluster in the path."""

    format: Format = Field("json", description="csv for spreadsheets, m3u8 for players, uris for a line each.")
    url_template: UrlTemplate | None = Field(None, description=URL_TEMPLATE)


class PlaylistOfItem(PlaylistOfCluster):
    """A playlist of items similar to the item in the path."""

    within_cluster: bool = Field(False, description="Only from the item's cluster.")


class StrictBody(PlaylistParams):
    """A request body; JSON has types, so values are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class FromCluster(StrictBody):
    """A cluster, nearest to its centre first."""

    cluster: SomeCluster


class FromLiked(StrictBody):
    """The items nearest to any of the liked items, without these."""

    like: list[Annotated[str, Field(min_length=1, max_length=MAX_QUERY_LENGTH)]] = Field(
        min_length=1, max_length=50, description="Each by id, or by words of its title and creator."
    )
    within_cluster: bool = Field(False, description="Only from the clusters of the liked items.")


class FromTaste(StrictBody):
    """A taste: the items nearest to target values of some features; other features are ignored."""

    taste: dict[str, Annotated[float, Field(ge=-REACH["float32"], le=REACH["float32"])]] = Field(
        min_length=1, description="Target values, in the units of the table and within the range of each feature."
    )
    cluster: SomeCluster | None = Field(None, description="Only from this cluster.")


def _kind(sent: Any) -> str | None:
    """The kind of a playlist body, by its keys."""
    return next((name for name in ("like", "taste", "cluster") if isinstance(sent, dict) and name in sent), None)


PlaylistBody = Annotated[
    Annotated[FromCluster, Tag("cluster")] | Annotated[FromLiked, Tag("like")] | Annotated[FromTaste, Tag("taste")],
    Discriminator(_kind, custom_error_type="kind", custom_error_message="give an object with cluster, like or taste"),
]


Value = Annotated[float, Field(strict=True, allow_inf_nan=False)]


Category = Annotated[str, Field(max_length=1000)]


Cell = Value | StrictBool | Category | list[Value | None] | None


class Rows(QueryParams):
    """Rows of features, in the units of the table."""

    rows: list[dict[str, Cell]] = Field(
        min_length=1,
        max_length=MAX_ROWS,
        description="A number for each feature of the model, a list of numbers for each column of vectors, a text, a number or a boolean for each column of categories; null where unknown.",
    )


def parameter_examples(examples: dict[str, Any], operation: dict[str, Any]) -> None:
    """Add examples to the parameters of an OpenAPI operation, by name."""
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in examples:
            parameter["example"] = examples[parameter["name"]]
