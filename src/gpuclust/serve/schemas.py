"""The responses of the API that are not records of `gpuclust.serve.records`, and the JSON Schema of both for its OpenAPI document."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, reduce
from itertools import pairwise
from operator import or_
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

from gpuclust.model.records import CategoryShare, Cluster, Example, Fraction
from gpuclust.serve.records import Item, Neighbour, Page


@dataclass(frozen=True)
class ClusterSummary:
    """A cluster in short."""

    cluster: int
    """Its number: 0 is the largest, -1 is noise."""
    name: str
    size: int
    fraction: Fraction
    """Share of all rows, in [0, 1]."""
    description: str
    top_groups: tuple[CategoryShare, ...]
    features: Mapping[str, float]
    """Mean of each feature, in the table's units."""


@dataclass(frozen=True)
class Clusters:
    """All clusters, the largest first, noise last."""

    clusters: tuple[ClusterSummary, ...]


@dataclass(frozen=True)
class ItemDetail:
    """An item, its cluster, and who else has an item of its title."""

    item: Item
    cluster: ClusterSummary
    same_title_creators: tuple[str, ...]
    """Who has an item of this title, most popular first, at most 20."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest items, nearest first, each title and creator once; the item itself is left out, in all its rows."""

    id: str
    within: Literal["cluster", "all"]
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True)
class PlaylistEntry:
    """An item of a playlist."""

    position: int
    """From 1, the nearest."""
    distance: float
    """From what the list was made from."""
    item: Item


@dataclass(frozen=True)
class Playlist:
    """A named list, nearest first; the same request gives the same list."""

    name: str
    notes: tuple[str, ...]
    """What to know of how it was made, such as a title that several creators have."""
    made_from: Mapping[str, Any]
    """The request, with titles as ids."""
    items: tuple[PlaylistEntry, ...]


@dataclass(frozen=True)
class Membership:
    """A cluster that a row may belong to."""

    cluster: int
    name: str
    probability: float


@dataclass  # one for each row of a request: a frozen one takes three times as long to make
class PredictedRow:
    """Where a row belongs."""

    cluster: int | None
    """-1 is noise; null where the row could not be placed."""
    name: str | None
    confidence: float
    distance: float
    x: float
    y: float
    z: float
    problem: str | None
    """Why the row could not be placed."""
    unknown: tuple[str, ...] = ()
    """The columns that have a category that the model does not know."""
    memberships: tuple[Membership, ...] = ()
    """The likeliest clusters, as many as were asked for."""
    outlier: float | None = None
    """Where memberships were asked for: larger for a row that fits its cluster less; the definition depends on the algorithm."""


@dataclass(frozen=True)
class Predictions:
    """One placement for each row sent, in their order."""

    predictions: tuple[PredictedRow, ...]


@dataclass(frozen=True)
class Why:
    """Why an item is in its cluster: `difference` = d(own) - d(next) is the sum of the contributions and the constant."""

    id: str
    cluster: int
    name: str
    next: int
    """The second nearest cluster."""
    next_name: str
    difference: float
    contributions: Mapping[str, float]
    """What each feature contributes; a negative value speaks for the own cluster."""
    constant: float
    """What no feature contributes: the weights and sizes of the components of a mixture."""


@dataclass(frozen=True)
class Export:
    """The served export, from its manifest."""

    key: str
    """Digest of the manifest: another export has another."""
    run_id: str
    run_name: str
    algorithm: str
    rows: int
    clusters: int
    features: tuple[str, ...]
    roles: Mapping[str, str]
    """Which column is what."""
    metrics: Mapping[str, float]
    curves: Mapping[str, Mapping[str, float]]
    """Scores of the sweep by number of clusters."""
    selection_reason: str
    """Why the sweep chose its run, which need not be this one."""
    selected: bool | None
    """Whether this run is the sweep's choice; null where that is not known."""
    sweep_choice: str
    """The name of the run that the sweep chose; empty without a sweep."""
    verdict: str
    """The verdict of the sweep on the number of clusters."""
    because: tuple[str, ...]
    """The figures that led to the verdict."""
    warnings: tuple[str, ...]
    """What to know before using the clusters."""


@dataclass(frozen=True)
class Health:
    """The server is up and has its export open."""

    status: Literal["ok"]
    version: str
    key: str
    rows: int
    clusters: int
    changed: bool
    """Whether the folder now holds another export; a restart serves it."""


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


# Where the JSON of a record differs from its fields: name -> type and description.
CHANGES: Mapping[type, Mapping[str, tuple[Any, str | None]]] = {
    Cluster: {
        "rule": (str, "Bounds on features that nearly select it; empty where none were found."),
        **{f"rule_{part}": (float | None, None) for part in ("fidelity", "precision", "recall")},
    },
    Example: {"title": (str | None, None), "creator": (str | None, None)},
    Page: {"next_offset": (int | None, "The offset of the next page; null at the end.")},
}
NAMES: dict[type, str] = {CategoryShare: "Share"}


@cache
def schema_of(record: type) -> type[BaseModel]:
    """The pydantic model of a dataclass in JSON, without fields outside of it. The text below a field describes it."""
    hints, texts = get_type_hints(record, include_extras=True), field_texts(record.__module__)
    given = {f.name: (_in_json(hints[f.name]), texts.get((record.__name__, f.name))) for f in fields(record)}
    values: dict[str, Any] = {
        name: (kind, Field(description=text)) for name, (kind, text) in {**given, **CHANGES.get(record, {})}.items()
    }
    name = NAMES.get(record, record.__name__)
    return create_model(name, __config__=ConfigDict(extra="forbid"), __doc__=record.__doc__, **values)


def _in_json(hint: Any) -> Any:
    """The type of a value in JSON: NaN is null, a record an object, a tuple an array."""
    parts = get_args(hint)
    if hint is float:
        return float | None
    if get_origin(hint) is Annotated:  # a number of which more is known, such as that it is never NaN
        return parts[0]
    if is_dataclass(hint):
        return schema_of(hint)  # type: ignore[arg-type]
    if get_origin(hint) is Mapping:
        return dict[str, _in_json(parts[1])]  # type: ignore[misc]
    if get_origin(hint) is tuple:
        return list[_in_json(parts[0])]  # type: ignore[misc]
    if get_origin(hint) in (Union, UnionType):
        return reduce(or_, map(_in_json, parts))
    return hint


@cache
def field_texts(module: str) -> dict[tuple[str, str], str]:
    """(class, field) -> the text below the field, for all classes of a module."""
    found = {}
    body = ast.parse(inspect.getsource(sys.modules[module])).body
    for record in (node for node in body if isinstance(node, ast.ClassDef)):
        for pair in pairwise(record.body):
            match pair:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    found[record.name, name] = text
    return found


NO_ADDRESSES = "The export has no addresses that a player can open, which m3u8 needs; give `url_template`."


def problems(*statuses: int, conflict: str = NO_ADDRESSES) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of a route for these statuses; ``conflict`` says what a 409 means."""
    said = {
        400: "The body is not readable JSON.",
        401: "The token is missing or wrong.",
        404: "Not found; `suggestions` has similar names.",
        409: conflict,
        413: "The body is too long.",
        415: "The body is not application/json.",
        422: "A value is missing, unknown or outside its limits.",
        429: "Too many jobs wait.",
    }
    schema = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": said[status], "content": schema} for status in statuses}
