"""The jobs of a sweep that run next, given the outcomes so far: all jobs of a grid, or size by size until the scores stop improving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gpuclust.algorithms.registry import algorithm_of
from gpuclust.analysis.selection import ACROSS, ACROSS_WITH_NOISE, better, default_metric
from gpuclust.config import AUTO
from gpuclust.pipeline.context import Job, Outcome
from gpuclust.pipeline.curves import sizes_in_words

Outcomes = Mapping[str, Outcome]
"""Outcomes by the key of their job."""


class Schedule(Protocol):
    """A source of jobs, asked again as jobs end.

    The same outcomes give the same jobs in the same order, however many run at once. A repeated command therefore finds its finished jobs,
    and processes that run the same sweep share them.
    """

    def next(self, outcomes: Outcomes) -> Sequence[Job]:
        """The jobs that can run now, in any order and at once: those without an outcome. Empty when the sweep is complete.

        Outcomes are added between calls, and none is removed.
        """

    def ended(self, outcomes: Outcomes) -> Sequence[Outcome]:
        """The outcomes that the sweep chooses from, in the order of the jobs."""

    def coverage(self, outcomes: Outcomes) -> str:
        """A sentence for the verdict: the jobs that were not run, and why; empty if all were run."""


class Grid:
    """Every job. With ``patience``, jobs that differ only in their size (a line) run in the order of their sizes, ``patience`` at a time,
    until that many sizes in a row have not improved the metric."""

    def __init__(self, jobs: Sequence[Job], *, metric: str = AUTO, patience: int = 0) -> None:
        self._jobs, self._metric, self._patience = jobs, metric, patience
        self._lines = _lines(jobs)

    def next(self, outcomes: Outcomes) -> Sequence[Job]:
        open_keys = {job.key for line in self._lines for job in self._released(line, outcomes)} - outcomes.keys()
        return [job for job in self._jobs if job.key in open_keys]

    def ended(self, outcomes: Outcomes) -> Sequence[Outcome]:
        return [outcomes[job.key] for job in self._jobs if job.key in outcomes]

    def coverage(self, outcomes: Outcomes) -> str:
        left = [job for job in self._jobs if job.key not in outcomes]
        if not left:
            return ""
        jobs = f"{len(left)} of {len(self._jobs)} jobs were left out ({sizes_in_words(left)})"
        if self.next(outcomes):
            return f"{jobs}."
        sizes = "one size was" if self._patience == 1 else f"{self._patience} sizes in a row were"
        return f"{jobs}, because {sizes} no better than a smaller one (sweep.patience={self._patience})."

    def _released(self, line: Sequence[Job], outcomes: Outcomes) -> Sequence[Job]:
        """The jobs of a line that may run now."""
        if not self._patience:
            return line
        metric = objective(line, self._metric)
        for end in range(self._patience, len(line), self._patience):
            values = [value_of(outcomes[job.key], metric) if job.key in outcomes else None for job in line[:end]]
            if any(job.key not in outcomes for job in line[:end]) or is_worse(values, metric, self._patience):
                return line[:end]
        return line


def objective(jobs: Sequence[Job], metric: str) -> str:
    """The metric that ranks jobs of one space; ``auto`` is that of their algorithms."""
    names = list(dict.fromkeys(job.config.cluster.name for job in jobs))
    if metric == AUTO:
        return default_metric(names)
    noisy = any(algorithm_of(job.config.cluster).has_noise for job in jobs)
    return ACROSS_WITH_NOISE if metric == ACROSS and noisy else metric


def value_of(outcome: Outcome, metric: str) -> float | None:
    """The score of a job; None if it failed or has no score. Without noise the silhouette with noise is the silhouette."""
    value = outcome.metrics.get(metric)
    return outcome.metrics.get(ACROSS) if value is None and metric == ACROSS_WITH_NOISE else value


def is_worse(values: Sequence[float | None], metric: str, patience: int) -> bool:
    """Whether the last ``patience`` values are no better than the best of those before them."""
    best: tuple[int, float] | None = None
    for i, value in enumerate(values):
        if value is not None and (best is None or better(metric, value, best[1])):
            best = i, value
    return best is not None and len(values) - 1 - best[0] >= patience


def _lines(jobs: Sequence[Job]) -> list[list[Job]]:
    """Lists of jobs that differ only in their size, in ascending order; sizes that are words, such as ``auto``, come first."""
    lines: dict[Any, list[Job]] = {}
    for job in jobs:
        axis = algorithm_of(job.config.cluster).size_axis
        rest = sorted((key, repr(value)) for key, value in job.swept.items() if key != axis)
        lines.setdefault((job.config.cluster.name, *rest), []).append(job)
    return [sorted(line, key=_size) for line in lines.values()]


def _size(job: Job) -> float:
    algorithm = algorithm_of(job.config.cluster)
    size = getattr(job.config.cluster, algorithm.size_key) if algorithm.size_key else None
    return float(size) if isinstance(size, (int, float)) else float("-inf")
