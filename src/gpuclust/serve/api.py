"""JSON API of an export: `create_app` makes the application, `gpuclust.serve.server` runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from gpuclust import __version__
from gpuclust.model.bundle import Bundle
from gpuclust.model.encodings import CIRCULAR
from gpuclust.model.manifest import MODEL
from gpuclust.serve import api_docs, measures, problems
from gpuclust.serve.access import Access
from gpuclust.serve.index.build import Progress
from gpuclust.serve.library import Library
from gpuclust.serve.middleware import API, GuardMiddleware
from gpuclust.serve.params import MAX_BODY, parameter_examples
from gpuclust.serve.routes import router
from gpuclust.tracks.playlist import taste_range

MIN_GZIP_BYTES = 1_000  # compression of smaller responses costs more than it saves
ABOUT = """\
Search and browse an exported clustering, and predict the clusters of new rows. All data is read from the export folder.

Errors are [problem documents](https://www.rfc-editor.org/rfc/rfc9457). A GET response has an `ETag`; with `If-None-Match`, an
unchanged response is a 304. Unknown parameters are rejected.
"""


def create_app(
    folder: str | Path,
    *,
    cors: Sequence[str] = (),
    access: Access | None = None,
    max_body: int = MAX_BODY,
    progress: Progress | None = None,
) -> FastAPI:
    """Make the application that serves an export folder. The folder is opened, and the first time indexed, by this call.

    Args:
        folder: an export folder.
        cors: allowed CORS origins, none by default.
        access: allowed host names and the required token; by default any name and no token.
        max_body: maximum length of a request body in bytes.
        progress: as in `Library.open`.

    Raises:
        ExportError, ModelError: the folder is not an export or is damaged.
    """
    rules = access or Access()
    library = Library.open(folder, progress)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        library.close()

    app = FastAPI(
        title="gpuclust",
        version=__version__,
        summary=f"{library.facts.n_rows:,} rows in {library.facts.n_clusters} clusters",
        description=ABOUT,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # its page loads scripts from another site; `api_docs` has its own
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.library = library
    app.state.model = Bundle.load(library.folder / MODEL)
    app.state.measures = measures.Measures()
    app.include_router(api_docs.router)
    app.include_router(api_docs.pages)
    app.include_router(measures.router)
    app.include_router(router, prefix=API)
    problems.install(app)
    app.add_middleware(GZipMiddleware, minimum_size=MIN_GZIP_BYTES, compresslevel=4)
    if cors:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(cors), allow_methods=["GET", "POST"], expose_headers=["ETag"],
            allow_headers=["Authorization", "Content-Type", "If-None-Match"],
        )  # fmt: skip
    app.add_middleware(
        GuardMiddleware, version=f"{__version__} {library.facts.key}", access=rules, max_body=max_body,
        raw=(f"{API}/items/", f"{API}/creators/"), fresh=(f"{API}/health", measures.PATH), open=api_docs.OPEN,
        measures=app.state.measures,
    )  # fmt: skip
    describe(app, library, rules)
    return app


def describe(app: FastAPI, library: Library, rules: Access) -> None:
    """Add the features of the export, example items and the token to the OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            api_docs.add_problems(document, rules)
            schemas = document["components"]["schemas"]
            number, missing = {"type": "number"}, {"type": "null"}
            value = {"anyOf": [number, missing]}
            lists = {
                name: {"type": "array", "items": value, "minItems": size, "maxItems": size}
                for name, size in library.vectors.items()
            }
            category = {"anyOf": [number, {"type": "string"}, {"type": "boolean"}, missing]}
            columns = {e.column: value if e.kind == CIRCULAR else category for e in library.model.encodings}
            schemas["Rows"]["properties"]["rows"]["items"] = features_schema(
                dict.fromkeys(library.features, value) | columns | lists
            )
            taste = schemas["FromTaste"]["properties"]["taste"]
            ranges = {feature: taste_range(library, feature) for feature in library.features}
            taste |= features_schema(
                {f: number | ({"minimum": a, "maximum": b} if a <= b else {}) for f, (a, b) in ranges.items()}
            )
            schemas["Rows"]["example"] = {
                "rows": [dict(item.features) for item in library.at(range(min(2, len(library))))]
            }
            for path in document["paths"].values():
                for operation in path.values():
                    parameter_examples(examples_of(library), operation)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


def features_schema(values: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of an object with the features of the export only; ``values`` maps a feature to the schema of its value."""
    return {"type": "object", "properties": values, "additionalProperties": False}


def examples_of(library: Library) -> dict[str, Any]:
    """Example values of parameters, by name, from the most popular item."""
    if not len(library):
        return {}
    (item,) = library.at([0])
    first = item.creators[0] if item.creators else ""
    examples = {"id": item.id, "cluster": item.cluster, "q": f"{item.title} {first}".strip(), "name": first}
    return {name: value for name, value in examples.items() if value != ""}
