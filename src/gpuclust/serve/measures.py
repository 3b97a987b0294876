"""Measurements of a server in the text format of Prometheus: requests by route and status, their times, and jobs by state."""

from __future__ import annotations

import os
from collections.abc import Mapping

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.responses import Response

PATH = "/metrics"
# With this variable the processes of a server add up what they measure, by files in the folder that it names.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
METHODS = frozenset(("GET", "HEAD", "POST", "DELETE", "OPTIONS"))
OTHER = "other"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Measures:
    """What one application has measured since it was made."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "gpuclust_requests", "Requests that were answered.", ("route", "method", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "gpuclust_request_seconds", "Time to answer a request.", ("route",), registry=self.registry, buckets=SECONDS
        )
        self._jobs: Gauge | None = None

    def observe(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """Count a request. Paths and methods that the server does not have (None) are counted as ``other``."""
        route = route or OTHER
        self._requests.labels(route, method if method in METHODS else OTHER, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def set_jobs(self, counts: Mapping[str, int]) -> None:
        """Set the number of jobs in each state."""
        if self._jobs is None:
            self._jobs = Gauge("gpuclust_jobs", "Jobs by state.", ("state",), registry=self.registry)
        for state, count in counts.items():
            self._jobs.labels(state).set(count)

    def text(self) -> bytes:
        """All measurements, those of the other processes of the server too."""
        if SHARED_FOLDER not in os.environ:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return generate_latest(registry)


router = APIRouter()


@router.get(
    PATH,
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    tags=["server"],
)
def metrics(request: Request) -> Response:
    """Requests by route, method and status, a histogram of their times, and for a job service the jobs by state, in Prometheus' text format."""
    state = request.app.state
    if hasattr(state, "count_jobs"):
        state.measures.set_jobs(state.count_jobs())
    return Response(state.measures.text(), media_type=CONTENT_TYPE_LATEST)
