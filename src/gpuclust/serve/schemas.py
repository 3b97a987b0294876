"""Response models of the API for its OpenAPI document: `gpuclust.serve.records` in JSON, with descriptions."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class ResponseModel(BaseModel):
    """A response without fields outside its schema."""

    model_config = ConfigDict(extra="forbid")


class Item(ResponseModel):
    """A row of the export. Missing text is empty, a missing number is null."""

    rank: int = Field(
        description="Position by popularity among all rows, 0 for the most popular; file order without a popularity."
    )
    id: str = Field(description="The id, as in the table.")
    title: str
    creator: str = Field(description="The creators as written in the table.")
    creators: list[str] = Field(description="The names in `creator`.")
    groups: list[str] = Field(description="The groups (genres) of the row.")
    popularity: float | None
    year: int | None
    preview: str = Field(description="An address of a preview, as in the table: check it before opening it.")
    cluster: int = Field(description="The cluster's number; -1 is noise.")
    cluster_name: str
    confidence: float | None = Field(description="In [0, 1]; the definition depends on the algorithm (see the README).")
    distance: float | None = Field(
        description="Distance to the centre of the cluster in the prepared space; null without a centre."
    )
    x: float | None = Field(description="First principal component, for maps.")
    y: float | None
    z: float | None
    features: dict[str, float | None] = Field(description="The clustered features, in the units of the table.")
    album: str = Field(description="The album, if the export has a column with that name.")
    url: str = Field(description="A web address or a file, as in the table: check it before opening it.")
    duration_ms: float | None = Field(description="Length in milliseconds, if it is a column but not a feature.")


class Page(ResponseModel):
    """A page of a list."""

    items: list[Item]
    total: int = Field(description="Rows in the whole list.")
    offset: int
    next_offset: int | None = Field(description="The offset of the next page; null at the end.")


class Share(ResponseModel):
    """How often a value occurs in a cluster."""

    value: str
    count: int
    lift: float | None = Field(description="Its share in the cluster over its share in all rows.")
    fraction: float | None = Field(description="Its share in the cluster.")


class Example(ResponseModel):
    """A row that stands for a cluster."""

    id: str
    title: str | None
    creator: str | None
    popularity: float | None


class FeatureStats(ResponseModel):
    """One feature in one cluster, in the table's units."""

    mean: float | None
    median: float | None
    std: float | None
    z: float | None = Field(
        description="The mean's distance from the mean of all rows, in standard deviations of all rows."
    )
    z_se: float | None = Field(description="Standard error of `z`.")


class ClusterSummary(ResponseModel):
    """A cluster in short."""

    cluster: int = Field(description="Its number: 0 is the largest, -1 is noise.")
    name: str
    size: int
    fraction: float = Field(description="Share of all rows, in [0, 1].")
    description: str
    top_groups: list[Share]
    features: dict[str, float | None] = Field(description="Mean of each feature, in the table's units.")


class Cluster(ResponseModel):
    """A cluster with its profile."""

    cluster: int = Field(description="Its number: 0 is the largest, -1 is noise.")
    name: str
    size: int
    fraction: float = Field(description="Share of all rows, in [0, 1].")
    features: dict[str, FeatureStats]
    description: str
    nearest: int | None = Field(description="The cluster that is most like it.")
    top_groups: list[Share]
    top_groups_by_lift: list[Share]
    top_creators: list[Share]
    top_creators_by_lift: list[Share]
    representatives: list[Example] = Field(description="Rows close to its middle.")
    popular: list[Example]
    rule: str = Field(description="Bounds on features that nearly select it; empty where none were found.")
    rule_fidelity: float | None
    rule_precision: float | None
    rule_recall: float | None


class Clusters(ResponseModel):
    """All clusters, the largest first, noise last."""

    clusters: list[ClusterSummary]


class Hit(ResponseModel):
    """A search result."""

    item: Item
    score: float = Field(description="In [0, 1]; 1 for an exact match.")
    same_title: int = Field(description="How many items have this title.")
    other_creators: list[str] = Field(description="Who else has an item of this title, most popular first.")


class SearchResult(ResponseModel):
    """Search results, best first; of several rows with the same title and creator the best."""

    query: str
    hits: list[Hit]
    complete: bool = Field(description="Whether the first hit has every word as typed.")
    ambiguous: list[str] = Field(
        description="Where the whole query is a title (and no creator's name) that several creators have: these creators."
    )
    total: int | None = Field(
        description="How many different titles and creators match all words; null where the hits lack words."
    )
    total_is_minimum: bool = Field(description="Whether counting stopped at `total`, so that there may be more.")


class ItemDetail(ResponseModel):
    """An item, its cluster, and who else has an item of its title."""

    item: Item
    cluster: ClusterSummary
    same_title_creators: list[str] = Field(description="Who has an item of this title, most popular first, at most 20.")


class Neighbour(ResponseModel):
    """An item and its distance to the query."""

    item: Item
    distance: float | None = Field(description="Euclidean, in the prepared feature space.")


class Neighbours(ResponseModel):
    """The nearest items, nearest first, each title and creator once; the item itself is left out, in all its rows."""

    id: str
    within: Literal["cluster", "all"]
    neighbours: list[Neighbour]


class Average(ResponseModel):
    """Means over the items that share a value."""

    value: str | int
    count: int = Field(description="How many items.")
    features: dict[str, float | None] = Field(description="Mean of each feature, in the table's units.")


class Averages(ResponseModel):
    """Averages by year (ascending), group or creator (most items first)."""

    by: Literal["year", "group", "creator"]
    cluster: int | None = Field(description="The cluster that they are taken in; null for all rows.")
    values: list[Average]
    total: int = Field(description="Values in the whole list, without those left out.")
    offset: int
    min_count: int = Field(description="Rows that a value needs to be in the list.")
    left_out: int = Field(description="Values that have fewer rows than `min_count`.")
    left_out_rows: int = Field(description="The rows of these values.")
    without: int = Field(description="Rows of all without a usable year (missing, before 1860, or after next year).")


class PlaylistEntry(ResponseModel):
    """An item of a playlist."""

    position: int = Field(description="From 1, the nearest.")
    distance: float | None = Field(description="From what the list was made from.")
    item: Item


class Playlist(ResponseModel):
    """A named list, nearest first; the same request gives the same list."""

    name: str
    notes: list[str] = Field(description="What to know of how it was made, such as a title that several creators have.")
    made_from: dict[str, Any] = Field(description="The request, with titles as ids.")
    items: list[PlaylistEntry]


class PredictedRow(ResponseModel):
    """Where a row belongs."""

    cluster: int | None = Field(description="-1 is noise; null where the row could not be placed.")
    name: str | None
    confidence: float | None
    distance: float | None
    x: float | None
    y: float | None
    z: float | None
    problem: str | None = Field(description="Why the row could not be placed.")


class Predictions(ResponseModel):
    """One placement for each row sent, in their order."""

    predictions: list[PredictedRow]


class Export(ResponseModel):
    """The served export, from its manifest."""

    key: str = Field(description="Digest of the manifest: another export has another.")
    run_id: str
    run_name: str
    algorithm: str
    rows: int
    clusters: int
    features: list[str]
    roles: dict[str, str] = Field(description="Which column is what.")
    metrics: dict[str, float | None]
    curves: dict[str, dict[str, float | None]] = Field(description="Scores of the sweep by number of clusters.")
    selection_reason: str = Field(description="Why the sweep chose its run, which need not be this one.")
    selected: bool | None = Field(description="Whether this run is the sweep's choice; null where that is not known.")
    sweep_choice: str = Field(description="The name of the run that the sweep chose; empty without a sweep.")
    verdict: str = Field(description="The verdict of the sweep on the number of clusters.")
    because: list[str] = Field(description="The figures that led to the verdict.")
    warnings: list[str] = Field(description="What to know before using the clusters.")


class Health(ResponseModel):
    """The server is up and has its export open."""

    status: Literal["ok"]
    version: str
    key: str
    rows: int
    clusters: int
    changed: bool = Field(description="Whether the folder now holds another export; a restart serves it.")


class FieldError(BaseModel):
    """What is wrong with one value."""

    where: str
    message: str


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What is wrong and what to do.")
    suggestions: list[str] | None = Field(None, description="What may have been meant, best first.")
    errors: list[FieldError] | None = Field(None, description="Each value that was refused.")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of a route for these statuses."""
    said = {
        400: "The body is not readable JSON.",
        401: "The token is missing or wrong.",
        404: "There is no such thing; `suggestions` has what may have been meant.",
        409: "The export has no addresses that a player can open, which m3u8 needs; give `url_template`.",
        413: "The body is too long.",
        415: "The body is not application/json.",
        422: "A value is missing, unknown or outside its limits.",
    }
    schema = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": said[status], "content": schema} for status in statuses}
