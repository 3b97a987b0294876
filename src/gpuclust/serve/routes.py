"""The routes under /api/v1: each calls the library and returns JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import numpy as np
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from gpuclust.errors import InputError, ModelError
from gpuclust.model.bundle import UNPLACED, Bundle
from gpuclust.model.encodings import CIRCULAR, encoded_columns
from gpuclust.model.records import Cluster
from gpuclust.model.vectors import vector_columns, without_vectors
from gpuclust.serve import params as inputs
from gpuclust.serve import schemas
from gpuclust.serve.id_suggestions import near_names
from gpuclust.serve.library import Library
from gpuclust.serve.problems import Json, Problem
from gpuclust.serve.reasons import why_of
from gpuclust.serve.records import Average, Averages, By, Page, SearchResult
from gpuclust.serve.schemas import problems, schema_of
from gpuclust.tracks.playlist import Playlist, from_cluster, from_liked, from_taste
from gpuclust.tracks.playlist_files import render

router = APIRouter(default_response_class=Json)


def library_of(request: Request) -> Library:
    """The library of the served export."""
    library: Library = request.app.state.library
    return library


@router.get("/health", response_model=schema_of(schemas.Health), tags=["server"])
async def health(request: Request) -> Json:
    """The state of the server, and the export that it serves."""
    library = library_of(request)
    facts = library.facts
    return Json(
        schemas.Health("ok", request.app.version, facts.key, facts.n_rows, facts.n_clusters, changed=library.changed())
    )


@router.get("/export", response_model=schema_of(schemas.Export), tags=["server"])
def export(request: Request) -> Json:
    """The served export: the run, its scores, and why it was chosen."""
    facts = library_of(request).facts
    manifest = facts.manifest
    sweep = manifest.get("sweep") or {}
    return Json(
        schemas.Export(
            key=facts.key,
            run_id=str(manifest.get("run_id", "")),
            run_name=str(manifest.get("run_name", "")),
            algorithm=facts.algorithm,
            rows=facts.n_rows,
            clusters=facts.n_clusters,
            features=facts.features,
            roles=facts.roles,
            metrics=manifest.get("metrics") or {},
            curves=sweep.get("curves") or {},
            selection_reason=str(sweep.get("selection_reason", "")),
            selected=facts.selected,
            sweep_choice=facts.sweep_choice,
            verdict=str(sweep.get("verdict", "")),
            because=facts.because,
            warnings=facts.warnings,
        )
    )


@router.get("/clusters", response_model=schema_of(schemas.Clusters), tags=["clusters"])
def clusters(request: Request) -> Json:
    """A summary of all clusters, the largest first, noise last."""
    return Json(schemas.Clusters(tuple(summary(cluster) for cluster in library_of(request).clusters)))


@router.get("/clusters/{cluster}", response_model=schema_of(Cluster), responses=problems(404, 422), tags=["clusters"])
def cluster(request: Request, cluster: inputs.Number) -> Json:
    """A cluster: its profile, its rule, and its representative rows and values."""
    return Json(library_of(request).cluster(cluster).to_dict())


@router.get(
    "/clusters/{cluster}/items", response_model=schema_of(Page), responses=problems(404, 422), tags=["clusters"]
)
def cluster_items(request: Request, cluster: inputs.Number, params: Annotated[inputs.ItemsOfCluster, Query()]) -> Json:
    """The items of a cluster by popularity, by distance to its centre, or in a random order given by the seed."""
    page = library_of(request).cluster_items(
        cluster, pick=params.pick, seed=params.seed, offset=params.offset, limit=params.limit, distinct=params.distinct
    )
    return Json(vars(page) | {"next_offset": page.next_offset})


@router.get("/search", response_model=schema_of(SearchResult), responses=problems(422), tags=["items"])
def search(request: Request, params: Annotated[inputs.Search, Query()]) -> Json:
    """Search items by title, creator or both, best match first. Case, accents and punctuation are ignored."""
    return Json(library_of(request).search(params.q, title=params.title, creator=params.creator, limit=params.limit))


@router.get("/items/{id}", response_model=schema_of(schemas.ItemDetail), responses=problems(404, 422), tags=["items"])
def item(request: Request, id: inputs.Id) -> Json:
    """An item with its cluster and all creators of items with the same title."""
    library = library_of(request)
    found = library.item(id)
    return Json(schemas.ItemDetail(found, summary(library.cluster(found.cluster)), library.creators_of(id)))


@router.get(
    "/items/{id}/similar", response_model=schema_of(schemas.Neighbours), responses=problems(404, 422), tags=["items"]
)
def similar(request: Request, id: inputs.Id, params: Annotated[inputs.Similar, Query()]) -> Json:
    """The items nearest to an item in the prepared feature space, nearest first."""
    found = library_of(request).similar(id, params.limit, within_cluster=params.within == "cluster")
    return Json(schemas.Neighbours(id, params.within, found))


@router.get("/items/{id}/why", response_model=schema_of(schemas.Why), responses=problems(404, 422), tags=["items"])
def why(request: Request, id: inputs.Id) -> Json:
    """Why an item is in its cluster: what each feature contributes to the difference of the distances to its cluster and to the next one."""
    library = library_of(request)
    model: Bundle = request.app.state.model
    found = library.item(id)
    try:
        return Json(why_of(found, model, {c.cluster: c.name for c in library.clusters}))
    except ModelError as error:
        raise Problem(404, str(error)) from error


@router.get("/averages/{by}", response_model=schema_of(Averages), responses=problems(404, 422), tags=["averages"])
def averages(request: Request, by: By, params: Annotated[inputs.AveragesOf, Query()]) -> Json:
    """Means of the features by year (ascending), group or creator (most items first), with the number of rows of each."""
    return averaged(library_of(request), by, None, params)


@router.get(
    "/clusters/{cluster}/averages/{by}",
    response_model=schema_of(Averages),
    responses=problems(404, 422),
    tags=["averages"],
)
def cluster_averages(
    request: Request,
    cluster: inputs.Number,
    by: Literal["year", "group"],
    params: Annotated[inputs.AveragesOf, Query()],
) -> Json:
    """Means of the features by year or group over the items of one cluster, with the number of rows of each."""
    return averaged(library_of(request), by, cluster, params)


def averaged(library: Library, by: By, cluster: int | None, params: inputs.AveragesOf) -> Json:
    """A page of averages. Raises Problem if the export has no such column."""
    there = [role for role in get_args(By) if role in library.facts.roles]
    if by not in there:
        raise Problem(404, f"this export has no {by} column", suggestions=there)
    return Json(
        library.averages(by, cluster=cluster, min_count=params.min_count, offset=params.offset, limit=params.limit)
    )


@router.get("/creators/{name}", response_model=schema_of(Average), responses=problems(404, 422), tags=["averages"])
def creator(request: Request, name: inputs.Creator) -> Json:
    """The averages of one creator."""
    return Json(library_of(request).average_of_creator(name))


FILES = {
    "csv": ("text/csv; charset=utf-8", "utf-8-sig"),
    "m3u8": ("application/vnd.apple.mpegurl", "utf-8"),
    "uris": ("text/plain; charset=utf-8", "utf-8"),
}
IN_FILES: dict[int | str, dict[str, Any]] = {
    200: {"content": {media.partition(";")[0]: {"schema": {"type": "string"}} for media, _ in FILES.values()}}
}


@router.get(
    "/clusters/{cluster}/playlist",
    response_model=schema_of(schemas.Playlist),
    responses=IN_FILES | problems(404, 409, 422),
    tags=["playlists"],
)
def cluster_playlist(
    request: Request, cluster: inputs.Number, params: Annotated[inputs.PlaylistOfCluster, Query()]
) -> Response:
    """A playlist of a cluster, as JSON or as a file."""
    return written(from_cluster(library_of(request), cluster, params.options), params.format, params.url_template)


@router.get(
    "/items/{id}/playlist",
    response_model=schema_of(schemas.Playlist),
    responses=IN_FILES | problems(404, 409, 422),
    tags=["playlists"],
)
def item_playlist(request: Request, id: inputs.Id, params: Annotated[inputs.PlaylistOfItem, Query()]) -> Response:
    """A playlist of items similar to an item, as JSON or as a file."""
    library = library_of(request)
    known = library.item(id).id  # by id only: a path is not a search
    made = from_liked(library, [known], params.options, within_cluster=params.within_cluster)
    return written(made, params.format, params.url_template)


@router.post(
    "/playlist",
    response_model=schema_of(schemas.Playlist),
    responses=IN_FILES | problems(400, 404, 409, 413, 415, 422),
    tags=["playlists"],
)
def playlist(
    request: Request,
    params: inputs.PlaylistBody,
    form: Annotated[inputs.Format, Query(alias="format")] = "json",
    url_template: Annotated[inputs.UrlTemplate | None, Query(description=inputs.URL_TEMPLATE)] = None,
) -> Response:
    """A playlist from a cluster, from liked items, or from a taste, as JSON or as a file."""
    library = library_of(request)
    if isinstance(params, inputs.FromLiked):
        made = from_liked(library, params.like, params.options, within_cluster=params.within_cluster)
    elif isinstance(params, inputs.FromTaste):
        made = from_taste(library, params.taste, params.options, cluster=params.cluster)
    else:
        made = from_cluster(library, params.cluster, params.options)
    return written(made, form, url_template)


def written(made: Playlist, form: str, url_template: str | None) -> Response:
    """A playlist as JSON, or as a file to download."""
    if form == "json":
        entries = enumerate(made.entries, 1)
        items = tuple(schemas.PlaylistEntry(position, entry.distance, entry.item) for position, entry in entries)
        return Json(schemas.Playlist(made.name, made.notes, made.made_from, items))
    media_type, encoding = FILES[form]
    name = {"content-disposition": f'attachment; filename="playlist.{"txt" if form == "uris" else form}"'}
    try:
        text = render(made, form, url_template=url_template, option="url_template")
    except InputError as error:  # the export has no address that a player can open
        raise Problem(409, str(error)) from error
    return Response(text.encode(encoding, "replace"), headers=name, media_type=media_type)


@router.post(
    "/predict",
    response_model=schema_of(schemas.Predictions),
    responses=problems(400, 413, 415, 422),
    tags=["model"],
    response_class=Json,
)
def predict(request: Request, params: inputs.Rows, memberships: Annotated[int, Query(ge=0, le=20)] = 0) -> Json:
    """Predict the cluster of rows of features. A row that cannot be predicted has a `problem`; the other rows are predicted.

    `memberships=3` adds the three likeliest clusters of each row, and its outlier score.
    """
    model: Bundle = request.app.state.model
    raw = matrix(params.rows, model)
    placement = model.predict(raw)
    names = {c.cluster: c.name for c in library_of(request).clusters}
    columns = (placement.cluster, placement.confidence, placement.distance, placement.coordinates)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    unknown = unknown_categories(params.rows, model)
    predictions = []
    for i, (number, confidence, distance, (x, y, z)) in enumerate(rows):
        name, problem = names.get(number, "noise" if number == -1 else None), None
        if number == UNPLACED:
            number, problem = None, model.obstacle(raw[i])
        own = unknown.get(i, ())
        predictions.append(schemas.PredictedRow(number, name, confidence, distance, x, y, z, problem, own))
    if memberships:
        add_memberships(predictions, model, raw, memberships, names)
    return Json(schemas.Predictions(tuple(predictions)))


def add_memberships(
    rows: list[schemas.PredictedRow], model: Bundle, raw: np.ndarray, top: int, names: dict[int, str]
) -> None:
    """Add the likeliest clusters and the outlier score to predicted rows. Raises Problem for an algorithm without memberships."""
    try:
        found = model.memberships(raw, top)
    except ModelError as error:
        raise Problem(422, f"memberships: {error}") from error
    for row, clusters, shares, outlier in zip(
        rows, found.cluster.tolist(), found.probability.tolist(), found.outlier.tolist(), strict=True
    ):
        if row.problem is None:
            row.outlier = outlier
            pairs = zip(clusters, shares, strict=True)
            row.memberships = tuple(schemas.Membership(c, names.get(c, ""), share) for c, share in pairs)


def unknown_categories(rows: list[dict[str, inputs.Cell]], model: Bundle) -> dict[int, tuple[str, ...]]:
    """The columns in which a row has a category that the model does not know, by the place of the row."""
    found: dict[int, tuple[str, ...]] = {}
    for encoding in model.encodings:
        for i in np.flatnonzero(encoding.unknown([row.get(encoding.column) for row in rows])).tolist():
            found[i] = (*found.get(i, ()), encoding.column)
    return found


def matrix(rows: list[dict[str, inputs.Cell]], model: Bundle) -> np.ndarray:
    """Convert rows to (n, n_features) float64 in the order of the model, NaN for null or missing. Raises Problem for unknown
    names, for a vector of another length, and for a text or a boolean where the model takes numbers. A row has a column as it was, or its encoded
    features."""
    features, vectors = model.features, vector_columns(model.features)
    made = encoded_columns(model.encodings, features)
    own = without_vectors(features)
    columns = (*(name for name in own if name not in made), *dict.fromkeys(made.values()))
    categories = {e.column for e in model.encodings if e.kind != CIRCULAR}
    known = frozenset((*own, *columns, *vectors))
    for i, row in enumerate(rows):
        if other := [name for name in row if name not in known]:
            raise Problem(
                422,
                f"rows.{i}: the model has no feature {other[0][:100]!r}; its features are {', '.join((*columns, *vectors))}",
                suggestions=near_names(other[0], (*columns, *vectors)),
            )
        for name, value in row.items():
            size = vectors[name].stop - vectors[name].start if name in vectors else None
            text = isinstance(value, (str, bool)) and name not in categories
            if text or (value is not None and (len(value) if isinstance(value, list) else None) != size):
                kind = "a number, a text or a boolean" if name in categories else "a number"
                takes = kind if size is None else f"a list of {size} numbers"
                raise Problem(422, f"rows.{i}.{name}: the model takes {takes}")
    found = np.full((len(rows), len(features)), np.nan)
    place = {name: j for j, name in enumerate(features)}
    for i, row in enumerate(rows):
        for name in own:
            found[i, place[name]] = np.nan if row.get(name) is None else row[name]
        for name, inside in vectors.items():
            if isinstance(values := row.get(name), list):
                found[i, inside] = [np.nan if value is None else value for value in values]
    for encoding in model.encodings:
        given = [i for i, row in enumerate(rows) if encoding.column in row]
        marks = encoding.encode([rows[i][encoding.column] for i in given])
        for j, name in enumerate(encoding.features):
            if name in place:
                found[given, place[name]] = marks[:, j]
    return found


def summary(cluster: Cluster) -> schemas.ClusterSummary:
    """A summary of a cluster."""
    return schemas.ClusterSummary(
        cluster=cluster.cluster,
        name=cluster.name,
        size=cluster.size,
        fraction=cluster.fraction,
        description=cluster.description,
        top_groups=cluster.top_groups,
        features={feature: stats.mean for feature, stats in cluster.features.items()},
    )
