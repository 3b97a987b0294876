"""A search: a sampler chooses the jobs of a large grid to run, and trials with low scores on a share of the rows are stopped.

The sampler is Optuna's TPE (Bergstra, Bardenet, Bengio and Kegl 2011). Trials are asked for in rounds of a fixed size, and a round
ends before the next begins, so the trials depend only on the seed and the scores, not on how many jobs run at once. The
pruner follows successive halving (Jamieson and Talwalkar 2016): it compares fits on an equal share of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import Trial as OptunaTrial
from optuna.trial import TrialState

from gpuclust.algorithms.registry import algorithm_of
from gpuclust.analysis.selection import SPACE_FREE, better
from gpuclust.data.table import Table
from gpuclust.errors import ConfigurationError
from gpuclust.metrics.validity import HIGHER_IS_BETTER
from gpuclust.model.encodings import encoded_columns
from gpuclust.model.vectors import source_columns
from gpuclust.pipeline.context import Job, Outcome, make_job
from gpuclust.pipeline.curves import sizes_in_words
from gpuclust.pipeline.schedule import Outcomes, is_worse, objective, value_of
from gpuclust.tracking.recorder import FINISHED

# The first trials are random; the sampler needs this many before it can model the scores.
FIRST_ROUND = 10
ROUND = 5
# Shares of the rows that a trial is fitted on before all rows, and the fewest rows that a share must have.
SHARES = {1 / 16: "1/16", 1 / 4: "1/4"}
MIN_SAMPLE_ROWS = 10_000


@dataclass
class Trial:
    """A job of the grid that is tried: Optuna's trial, its stages (fits on a share of the rows, then the job itself), and its score
    on all rows, None where it has none."""

    asked: OptunaTrial
    job: Job
    stages: Sequence[Job]
    value: float | None = None


class Search:
    """Up to ``n_trials`` jobs of a grid (a `gpuclust.pipeline.schedule.Schedule`). ``on_share(job, share)`` is the job on a share of
    the rows, and ``shares`` are those to fit first."""

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        n_trials: int,
        metric: str,
        seed: int,
        patience: int = 0,
        shares: Sequence[float] = (),
        on_share: Callable[[Job, float], Job] | None = None,
    ) -> None:
        jobs = list({job.key: job for job in reversed(jobs)}.values())[::-1]  # files of equal content give equal jobs
        self._jobs, self._n_trials, self._patience = jobs, min(n_trials, len(jobs)), patience
        self._metric = objective(jobs, metric)
        self._shares, self._on_share = shares, on_share
        self._keys = sorted({key for job in jobs for key in job.swept}, key=lambda key: (key != "cluster", key))
        self._trials: list[Trial] = []
        self._open: list[Trial] = []
        self._stage = 0
        self._scores: list[list[float]] = [[] for _ in shares]  # on each share
        with _quiet():
            direction: Any = "maximize" if HIGHER_IS_BETTER[self._metric] else "minimize"
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(FIRST_ROUND, self._n_trials))
            self._study = optuna.create_study(direction=direction, sampler=sampler)

    def next(self, outcomes: Outcomes) -> Sequence[Job]:
        while True:
            stages = [trial.stages[self._stage] for trial in self._open]
            if ready := [job for job in stages if job.key not in outcomes]:
                return ready
            if self._open:
                self._judge(outcomes)
            elif self._is_complete():
                return []
            else:
                self._ask(ROUND if self._trials else FIRST_ROUND)

    def ended(self, outcomes: Outcomes) -> Sequence[Outcome]:
        return [outcomes[trial.job.key] for trial in self._trials if trial.job.key in outcomes]

    def coverage(self, outcomes: Outcomes) -> str:
        tried = sum(trial.stages[0].key in outcomes for trial in self._trials)
        whole = len(self.ended(outcomes))
        found = f"{sizes_in_words(self._jobs)} searched by {tried} trials"
        found += f", {whole} of them on all rows" if whole < tried else ""
        if tried < self._n_trials and not self.next(outcomes):
            trials = "one trial was" if self._patience == 1 else f"{self._patience} trials in a row were"
            found += f", until {trials} no better (sweep.patience={self._patience})"
        return f"{found}; a job that was not tried may be better."

    def _is_complete(self) -> bool:
        values = [trial.value for trial in self._trials]
        worse = self._patience > 0 and is_worse(values, self._metric, self._patience)
        return worse or len(self._trials) >= self._n_trials

    def _ask(self, n: int) -> None:
        """Start the next trials, each with a job that has not been tried."""
        self._stage = 0
        for _ in range(min(n, self._n_trials - len(self._trials))):
            asked = self._study.ask()
            job = self._narrowed(partial(_suggested, asked))
            tried = {trial.job.key for trial in self._trials}
            if job.key in tried:  # its nearest neighbour in the grid instead
                self._study.tell(asked, state=TrialState.FAIL)
                at = self._jobs.index(job)
                left = (i for i, other in enumerate(self._jobs) if other.key not in tried)
                job = self._jobs[min(left, key=lambda i: (abs(i - at), i))]
                fixed: dict[str, Any] = {}
                self._narrowed(partial(_recorded, fixed, job))
                self._study.enqueue_trial(fixed)
                asked = self._study.ask()
                self._narrowed(partial(_suggested, asked))
            stages = [*(self._on_share(job, share) for share in self._shares), job] if self._on_share else [job]
            self._trials.append(Trial(asked, job, stages))
            self._open.append(self._trials[-1])

    def _narrowed(self, choose: Callable[[Axis], int]) -> Job:
        """The job of the grid that remains when ``choose`` has given the index of a value for one key after another."""
        left = self._jobs
        for key in self._keys:
            axis = Axis.of(key, left)
            if len(axis.values) > 1:
                value = axis.values[choose(axis)]
                left = [job for job in left if repr(job.swept.get(key)) == repr(value)]
        return left[0]

    def _judge(self, outcomes: Outcomes) -> None:
        """Finish the trials whose job has ended, and stop those that are worse than the median on their share of the rows."""
        scores = [self._score(outcomes[trial.stages[self._stage].key]) for trial in self._open]
        is_last = self._stage == len(self._open[0].stages) - 1
        known = [] if is_last else self._scores[self._stage]
        known += [score for score in scores if score is not None]
        kept = []
        for trial, score in zip(self._open, scores, strict=True):
            if is_last:
                trial.value = score
                self._study.tell(trial.asked, score, state=TrialState.PRUNED if score is None else TrialState.COMPLETE)
                continue
            if score is not None:
                trial.asked.report(score, self._stage)
            if score is not None and better(self._metric, median(known), score):
                self._study.tell(trial.asked, state=TrialState.PRUNED)
            else:  # a fit that failed on few rows may succeed on all rows
                kept.append(trial)
        self._open, self._stage = kept, self._stage + 1

    def _score(self, outcome: Outcome) -> float | None:
        return value_of(outcome, self._metric) if outcome.status == FINISHED else None


@dataclass(frozen=True)
class Axis:
    """A swept key and its values among some jobs, in order where they are numbers; None where a job has none."""

    key: str
    values: Sequence[Any]

    @classmethod
    def of(cls, key: str, jobs: Sequence[Job]) -> Axis:
        values = list({repr(value): value for value in (job.swept.get(key) for job in jobs)}.values())
        return cls(key, sorted(values) if all(map(_is_number, values)) else values)

    @property
    def name(self) -> str:
        """The name of the parameter; it differs if the key has other values, for example for another algorithm."""
        return f"{self.key} ({len(self.values)}: {self.values[0]}..{self.values[-1]})"

    @property
    def distribution(self) -> BaseDistribution:
        """The distribution over the indices of the values: numbers are ordered, words are not."""
        places = range(len(self.values))
        return IntDistribution(0, places[-1]) if all(map(_is_number, self.values)) else CategoricalDistribution(places)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _suggested(trial: OptunaTrial, axis: Axis) -> int:
    """The index of the value that the sampler chooses."""
    return int(trial._suggest(axis.name, axis.distribution))


def _recorded(fixed: dict[str, Any], job: Job, axis: Axis) -> int:
    """The index of the value of a job, which is also stored in ``fixed``."""
    fixed[axis.name] = [repr(value) for value in axis.values].index(repr(job.swept.get(axis.key)))
    return int(fixed[axis.name])


def search(jobs: Sequence[Job], table: Table, backend: str) -> Search:
    """The search that the configuration of the jobs asks for. ``table`` is their table, of which shares are fitted first.

    Raises ConfigurationError if the jobs have several spaces, and the metric cannot compare scores between these.
    """
    c = jobs[0].config.sweep
    metric = objective(jobs, c.metric)
    spaces = {job.key_of_matrix: job.space for job in jobs}
    if len(spaces) > 1 and metric not in SPACE_FREE:
        raise ConfigurationError(
            f"sweep.search=optuna cannot rank jobs of several spaces ({', '.join(list(spaces.values())[:4])}) by {metric}; sweep keys "
            f"of cluster alone, or set sweep.metric to one of {', '.join(SPACE_FREE)}"
        )
    one_table = len({job.key_of_table for job in jobs}) == 1
    shares = [share for share in SHARES if c.prune and one_table and share * table.n_rows >= MIN_SAMPLE_ROWS]
    return Search(
        jobs,
        n_trials=c.n_trials,
        metric=c.metric,
        seed=jobs[0].config.seed,
        patience=c.patience,
        shares=shares,
        on_share=partial(on_share, table=table, backend=backend),
    )


def on_share(job: Job, share: float, *, table: Table, backend: str) -> Job:
    """The job on a seeded sample of the rows of its table, without figures and model."""
    config = deepcopy(job.config)
    config.data.n_rows = round(share * table.audit.rows_read)
    made = encoded_columns(table.encodings, table.features)
    own = source_columns([name for name in table.features if name not in made])
    config.data.features = config.data.features or list(own)
    config.cluster = algorithm_of(config.cluster).for_subset(config.cluster, share) or config.cluster
    config.report.figures, config.tracking.models = False, "none"
    found = make_job(config, f"{job.name} ({SHARES[share]} of the rows)", job.swept, backend)
    return replace(found, share=share)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's messages."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
