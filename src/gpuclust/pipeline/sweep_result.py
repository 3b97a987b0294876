"""The result of a sweep: the outcome of every job, the choice among them, and the leaderboard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpuclust.analysis.selection import ACROSS, Selection
from gpuclust.metrics.validity import HIGHER_IS_BETTER
from gpuclust.pipeline.context import Outcome
from gpuclust.pipeline.summary import SweepSummary
from gpuclust.tracking.recorder import FAILED, FINISHED

# Scores that a leaderboard shows first, after the one that chose.
SCORES = ("silhouette", "silhouette_with_noise", "silhouette_se", "calinski_harabasz", "davies_bouldin", "inertia", "bic", "relative_validity",
          "noise_fraction")  # fmt: skip


@dataclass(frozen=True)
class SweepResult:
    """Every job's outcome in the order of the plan, the choice among them, and the parent run."""

    outcomes: tuple[Outcome, ...]
    selection: Selection | None
    parent: str | None
    seconds: float
    conclusion: SweepSummary | None = None
    repeated: bool = False
    """Every job had finished before the command started."""

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The jobs that failed."""
        return tuple(o for o in self.outcomes if o.status == FAILED)

    @property
    def chosen(self) -> Outcome | None:
        """The job that was chosen."""
        return None if self.selection is None else finished_outcomes(self.outcomes)[self.selection.index]

    @property
    def best(self) -> tuple[Outcome, ...]:
        """The chosen job, or the best job of each space where nothing ranks the spaces."""
        if self.chosen is not None:
            return (self.chosen,)
        unranked = self.conclusion.unranked if self.conclusion else None
        return tuple(finished_outcomes(self.outcomes)[i] for i in unranked.best) if unranked else ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know before using the choice."""
        return self.chosen.warnings if self.chosen else ()

    @property
    def spaces(self) -> tuple[str, ...]:
        """The keys of the matrices that were clustered, that of the chosen job first. Scores of different ones do not compare."""
        ordered = [self.chosen, *self.outcomes] if self.chosen else self.outcomes
        return tuple(dict.fromkeys(o.job.key_of_matrix for o in ordered if o is not None))

    @property
    def metric(self) -> str:
        """The metric that ranks the jobs of one space."""
        if self.selection is not None:
            return self.selection.within or self.selection.metric
        unranked = self.conclusion.unranked if self.conclusion else None
        return unranked.metric if unranked else ACROSS


def finished_outcomes(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes that can be chosen: those that finished."""
    return [o for o in outcomes if o.status == FINISHED]


def leaderboard(result: SweepResult) -> list[dict[str, Any]]:
    """A row for each job, the best by the ranking metric first, jobs without it last. Jobs of several spaces are grouped by space
    and ranked within it."""
    metric, spaces = result.metric, result.spaces
    sign = -1.0 if HIGHER_IS_BETTER[metric] else 1.0
    chosen = result.chosen
    rows: list[dict[str, Any]] = []
    for space in spaces:
        alike = [o for o in result.outcomes if o.job.key_of_matrix == space]
        ranked = sorted(alike, key=lambda o: (metric not in o.metrics, sign * o.metrics.get(metric, 0.0)))
        for i, o in enumerate(ranked):
            row = {
                "rank": i + 1,
                "chosen": chosen is not None and o.job.key == chosen.job.key,
                "job": o.job.name,
                "status": "resumed" if o.resumed else o.status.lower(),
                "run_id": o.run_id,
                **({"space": o.job.space} if len(spaces) > 1 else {}),
                **o.job.swept,
                **{k: o.metrics[k] for k in (metric, "n_clusters", *SCORES) if k in o.metrics},
                **o.metrics,
                "failure": o.error or "",
            }
            rows.append(row)
    return rows
