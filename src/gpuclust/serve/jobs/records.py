"""The records of the job service, as its API returns them. The text below a field describes it in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

State = Literal["queued", "running", "finished", "failed", "cancelled"]
STATES: tuple[State, ...] = get_args(State)
ENDED: tuple[State, ...] = ("finished", "failed", "cancelled")


@dataclass(frozen=True)
class Chosen:
    """The job that a sweep chose, or the only one."""

    run_id: str
    """Its MLflow run."""
    name: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Result:
    """What the command of a job wrote with --result."""

    run_id: str
    """The MLflow run: of the sweep, or of the only job."""
    is_sweep: bool
    n_jobs: int
    n_failed: int
    n_resumed: int
    """Of these jobs, how many had finished before."""
    seconds: float
    chosen: Chosen | None
    reason: str
    """Why this job was chosen, or why none was."""
    verdict: str
    verdict_kind: str
    """clear, several, none, or open; empty without a verdict."""
    because: tuple[str, ...]
    failures: tuple[str, ...]
    """The jobs that failed, and why."""


@dataclass(frozen=True)
class Job:
    """A job of the service: one command of gpuclust, which may be a sweep."""

    id: str
    state: State
    overrides: tuple[str, ...]
    multirun: bool
    n_jobs: int
    """How many jobs the command runs: more than one for a sweep."""
    notes: tuple[str, ...]
    """What was decided for you when the job was accepted."""
    submitted: str
    """Times are in UTC, as in 2026-01-31T12:00:00Z."""
    started: str | None = None
    """When the last attempt began."""
    ended: str | None = None
    attempts: int = 0
    """How often it was started: more than once if the service was stopped while it ran."""
    exit_status: int | None = None
    """That of the command; negative: the number of the signal that ended it."""
    error: str | None = None
    """Why it failed, in one line."""
    result: Result | None = None
    output: tuple[str, ...] = ()
    """The last lines that it printed; empty in lists."""


@dataclass(frozen=True)
class Jobs:
    """A page of jobs, the newest first."""

    jobs: tuple[Job, ...]
    total: int
    """The number of jobs in these states, on all pages."""
    counts: Mapping[str, int]
    """The number of jobs in each state."""


@dataclass(frozen=True)
class Health:
    """The state of the service."""

    status: str
    version: str
    counts: Mapping[str, int]
    """The number of jobs in each state."""
