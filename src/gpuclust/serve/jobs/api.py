"""The routes of the job service, and its application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, FastAPI, Path, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field

from gpuclust import __version__
from gpuclust.serve import api_docs, measures, problems
from gpuclust.serve.access import Access
from gpuclust.serve.jobs.records import ENDED, STATES, Health, Job, Jobs, State
from gpuclust.serve.jobs.runner import QueueFull, Runner
from gpuclust.serve.middleware import API, GuardMiddleware
from gpuclust.serve.problems import Json, Problem
from gpuclust.serve.schemas import problems as problems_of
from gpuclust.serve.schemas import schema_of

MAX_BODY = 2**20  # bytes
MAX_OVERRIDES = 200
MAX_LENGTH = 4_000  # characters of an override
MAX_LINES = 1_000
MAX_JOBS = 1_000  # of one page
MAX_OFFSET = 2**31 - 1
ABOUT = """\
Submit jobs of gpuclust, follow them, and cancel them. They run one after another; a job that was running when the service ended runs again.

Errors are [problem documents](https://www.rfc-editor.org/rfc/rfc9457). Every request needs the token.
"""
INDEX = f"""{api_docs.HEAD}</head>
<body>
<h1>gpuclust jobs</h1>
<ul>
<li><a href="docs">Documentation</a>: every route; requests can be tried</li>
<li><a href="{API[1:]}/openapi.json">OpenAPI document</a></li>
</ul>
</body>
</html>
"""


class Accepted(Protocol):
    """What `check` returns for overrides that are valid: the number of jobs, and what was decided for the user."""

    @property
    def n_jobs(self) -> int:
        """The number of jobs of the command."""

    @property
    def notes(self) -> Sequence[str]:
        """Decisions, a line each."""


Check = Callable[[Sequence[str], bool], Accepted]
"""Overrides, and whether they are a sweep -> the jobs. Raises GpuclustError with the line of the command."""


class NewJob(BaseModel):
    """A job to run: what follows `gpuclust` on the command line."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "example": {
                "overrides": ["data.path=tracks.csv", "cluster=kmeans", "cluster.n_clusters=range(2,7)"],
                "multirun": True,
            }
        },
    )

    overrides: list[Annotated[str, Field(min_length=1, max_length=MAX_LENGTH)]] = Field(
        min_length=1,
        max_length=MAX_OVERRIDES,
        description="KEY=VALUE, as on the command line, without a shell's quotes.",
    )
    multirun: bool = Field(False, description="Run one job for each combination of the values, as -m does.")


Id = Annotated[str, Path(description="The id of a job.", max_length=100)]
router = APIRouter(default_response_class=Json)


def runner_of(request: Request) -> Runner:
    """The queue of the service."""
    runner: Runner = request.app.state.runner
    return runner


@router.get("/health", response_model=schema_of(Health), tags=["server"])
def health(request: Request) -> Json:
    """The state of the service, and the number of jobs in each state."""
    return Json(Health("ok", __version__, runner_of(request).store.counts()))


@router.post(
    "/jobs",
    response_model=schema_of(Job),
    responses=problems_of(400, 413, 415, 422, 429),
    status_code=202,
    tags=["jobs"],
)
def submit(request: Request, job: NewJob) -> Json:
    """Validate a job and put it into the queue. The overrides are checked first: a 422 has the line that the command prints."""
    planned = request.app.state.check(job.overrides, job.multirun)
    try:
        made = runner_of(request).submit(
            job.overrides, multirun=job.multirun, n_jobs=planned.n_jobs, notes=planned.notes
        )
    except QueueFull as error:
        raise Problem(429, "the queue is full; wait until a job has finished, or cancel one") from error
    return Json(made, 202, {"location": f"{API}/jobs/{made.id}"})


@router.get("/jobs", response_model=schema_of(Jobs), responses=problems_of(422), tags=["jobs"])
def jobs(
    request: Request,
    state: Annotated[State | None, Query(description="Only jobs in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_JOBS)] = 100,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
) -> Json:
    """The jobs, the newest first."""
    store, wanted = runner_of(request).store, STATES if state is None else (state,)
    counts = store.counts()
    return Json(Jobs(tuple(store.page(wanted, offset, limit)), sum(counts[name] for name in wanted), counts))


@router.get("/jobs/{id}", response_model=schema_of(Job), responses=problems_of(404, 422), tags=["jobs"])
def job(
    request: Request, id: Id, lines: Annotated[int, Query(ge=0, le=MAX_LINES, description="Lines of the output.")] = 20
) -> Json:
    """A job: its state, the last lines that it printed, and when it has finished the run, the choice and the verdict."""
    return Json(runner_of(request).shown(found(runner_of(request).store.get(id)), lines))


@router.delete(
    "/jobs/{id}",
    response_model=schema_of(Job),
    responses=problems_of(404, 409, 422, conflict="The job has ended."),
    status_code=202,
    tags=["jobs"],
)
def cancel(request: Request, id: Id) -> Json:
    """Cancel a job. One that runs gets SIGTERM and is `cancelled` soon after; finished jobs of a sweep are kept."""
    before = found(runner_of(request).store.get(id))
    if before.state in ENDED:
        raise Problem(409, f"the job is {before.state} already; there is nothing to cancel")
    return Json(found(runner_of(request).cancel(id)), 202)


def found(job: Job | None) -> Job:
    """A job that exists. Raises Problem."""
    if job is None:
        raise Problem(404, f"there is no such job; {API}/jobs lists them")
    return job


async def index() -> HTMLResponse:
    """The page with links."""
    return HTMLResponse(INDEX)


def create_app(runner: Runner, *, check: Check, access: Access, max_body: int = MAX_BODY) -> FastAPI:
    """Make the application of the job service; it starts the runner, and stops it at the end.

    Raises ValueError if ``access`` has no token.
    """
    if not access.token:
        raise ValueError("the job service needs a token")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(runner.start)
        yield
        await asyncio.to_thread(runner.stop)

    app = FastAPI(
        title="gpuclust jobs", version=__version__, description=ABOUT, openapi_url=f"{API}/openapi.json", docs_url=None,
        redoc_url=None, lifespan=lifespan, redirect_slashes=False,
    )  # fmt: skip
    app.state.runner, app.state.check, app.state.measures = runner, check, measures.Measures()
    app.state.count_jobs = runner.store.counts
    app.add_api_route("/", index, include_in_schema=False)
    app.include_router(api_docs.pages)
    app.include_router(measures.router)
    app.include_router(router, prefix=API)
    problems.install(app)
    app.add_middleware(
        GuardMiddleware, version=None, access=access, max_body=max_body, open=api_docs.OPEN, measures=app.state.measures
    )
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            api_docs.add_problems(generate(), access)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]
    return app
