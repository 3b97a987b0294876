"""Pages about the API: ``/`` with links, ``/docs`` with Swagger UI, which is part of the package, and ``/api/v1`` as links in JSON.

They show nothing of the export, so they need no token. ``pages`` has Swagger UI, which any API can use, ``router`` the links of that of an export. Swagger UI reads ``openapi.json``, with the token that its user gives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse
from pydantic import BaseModel

from gpuclust.serve import schemas
from gpuclust.serve.access import Access
from gpuclust.serve.middleware import API
from gpuclust.serve.problems import Json, Problem

FOLDER = Path(__file__).parent / "swagger"
MEDIA = {"start.js": "text/javascript", "swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
# Paths without data of the export.
OPEN = ("/", "/docs", *(f"/docs/{name}" for name in MEDIA))
# Swagger UI sets styles and shows images that it carries; scripts and requests are those of this server.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>gpuclust API</title>
"""
DOCS = f"""{HEAD}<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="data:,">
</head>
<body>
<main id="docs"></main>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

router = APIRouter()
pages = APIRouter()


class Links(BaseModel):
    """Where the parts of the API are: paths below this server."""

    documentation: str
    openapi: str
    health: str
    export: str
    clusters: str
    search: str
    metrics: str


LINKS = Links(
    documentation="/docs",
    openapi=f"{API}/openapi.json",
    health=f"{API}/health",
    export=f"{API}/export",
    clusters=f"{API}/clusters",
    search=f"{API}/search?q=",
    metrics="/metrics",
)
INDEX = f"""{HEAD}<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; color-scheme: light dark; }}
</style>
</head>
<body>
<h1>gpuclust API</h1>
<p>This server answers questions about an exported clustering, in JSON.</p>
<ul>
<li><a href="docs">Documentation</a>: every route, with its parameters; requests can be tried</li>
<li><a href="{API[1:]}/export">The export</a>: its run, scores and verdict</li>
<li><a href="{API[1:]}/clusters">Clusters</a></li>
<li><a href="{API[1:]}/health">State of the server</a></li>
<li><a href="metrics">Measurements for Prometheus</a></li>
<li><a href="{API[1:]}/openapi.json">OpenAPI document</a></li>
</ul>
</body>
</html>
"""


@router.get("/", include_in_schema=False)
async def index() -> HTMLResponse:
    """The page with links."""
    return HTMLResponse(INDEX)


@pages.get("/docs", include_in_schema=False)
async def docs() -> HTMLResponse:
    """The page with Swagger UI."""
    return HTMLResponse(DOCS, headers={"content-security-policy": POLICY})


@pages.get("/docs/{name}", include_in_schema=False)
async def docs_file(name: str) -> FileResponse:
    """A file of Swagger UI. Raises Problem for any other name."""
    if name not in MEDIA:
        raise Problem(404, "there is no such page", suggestions=["/docs"])
    return FileResponse(FOLDER / name, media_type=MEDIA[name])


@router.get(API, response_model=Links, tags=["server"])
async def links() -> Json:
    """Where the parts of the API are."""
    return Json(LINKS.model_dump())


def add_problems(document: dict[str, Any], rules: Access) -> None:
    """Add the schema of a problem document to an OpenAPI document, and the token with the status 401 if one is required."""
    problem = schemas.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    document["components"]["schemas"] |= problem.pop("$defs") | {"Problem": problem}
    if not rules.token:
        return
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"] |= {str(status): said for status, said in schemas.problems(401).items()}
