"""Run a plan: jobs that are finished already, jobs of other processes, batches of jobs, the choice among them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from gpuclust.analysis.diagnostics import reference_column
from gpuclust.analysis.selection import ACROSS, Selection, Unranked, select
from gpuclust.analysis.verdict import Verdict
from gpuclust.compose import Plan
from gpuclust.config import Config, seconds_of
from gpuclust.errors import DeviceLost, InputError, RecordingError, why
from gpuclust.pipeline.batches import connect_workers, runner, with_workers
from gpuclust.pipeline.context import Job, Outcome, RunContext, make_job, with_size
from gpuclust.pipeline.curves import curves, job_name
from gpuclust.pipeline.job import get_matrix, get_table, say_table
from gpuclust.pipeline.run_log import start as job_start
from gpuclust.pipeline.schedule import Grid, Outcomes, Schedule
from gpuclust.pipeline.summary import SweepSummary, best_of_each, candidate, choose, conclude, leaders
from gpuclust.pipeline.sweep_log import CurveLog, keep_chosen, log_sweep, sweep_start
from gpuclust.pipeline.sweep_result import SweepResult, finished_outcomes
from gpuclust.runtime.backend import Backend
from gpuclust.runtime.forecast import PINNED, RESIDENT, RESULT_BYTES, MemoryPlan
from gpuclust.tracking import recorder as tags
from gpuclust.tracking.recorder import FAILED, FINISHED, KILLED, RUNNING, Claim, RecordedJob

# Jobs run together when a silhouette takes long enough that sharing its pass pays: from this many pairs of rows.
SHARED_FROM_PAIRS = 5e8
MAX_BATCH = 16
# The interval at which jobs of other processes are checked.
POLL_SECONDS = 1.0


def jobs_of(plan: Plan, backend: Backend) -> tuple[Job, ...]:
    """The named jobs of a plan. Raises DataError when a file cannot be read."""
    return tuple(make_job(p.config, job_name(p.config, p.swept, plan.swept), p.swept, backend.name) for p in plan.jobs)


def run(plan: Plan, jobs: Sequence[Job], context: RunContext) -> SweepResult:
    """Run every job of a plan that is not finished yet and that no other process runs, choose one, and record both.

    The first table is read and prepared before anything is recorded, so that wrong input leaves no run behind. A sweep that is
    finished is reported, not recorded again. On an interrupt the runs end as KILLED, finished jobs are kept, and the interrupt
    is raised again. Raises RecordingError when some results were recorded and the others could not be, and DeviceLost when the
    GPU failed during a job, whose run ends as FAILED, and cannot run the others.
    """
    budget, since = Budget.of(jobs[0]), int(time.time() * 1000)
    context.recorder.close_stale()
    schedule = schedule_of(plan, jobs, context)
    done = _resumed(schedule, {}, context) if jobs[0].config.sweep.resume else {}
    _say_tables(done.values(), context)
    repeated = not schedule.next(done)
    try:
        if plan.is_sweep:
            result = _sweep(plan, jobs, schedule, done, budget, since, context)
        else:
            result = _single(jobs[0], schedule, done, since, context)
    except BaseException as error:
        context.recorder.abandon(KILLED if isinstance(error, KeyboardInterrupt) else FAILED)
        lost = isinstance(error, (RecordingError, DeviceLost))
        if lost or (done and isinstance(error, (InputError, OSError))):
            kept = f"{len(done)} of {plan.n_jobs} jobs are recorded and kept; the same command continues from there"
            kind = DeviceLost if isinstance(error, DeviceLost) else RecordingError
            raise kind(f"{why(error)}; {kept}") from error
        raise
    return replace(result, seconds=time.perf_counter() - budget.began, repeated=repeated)


@dataclass(frozen=True)
class Budget:
    """The time of a command: when it began, and after how many seconds no new job starts."""

    began: float
    seconds: float = math.inf

    @classmethod
    def of(cls, job: Job) -> Budget:
        """The budget of a command that begins now."""
        text = job.config.sweep.budget
        return cls(time.perf_counter(), seconds_of(text) if text else math.inf)

    @property
    def is_over(self) -> bool:
        """Whether no new job may start."""
        return time.perf_counter() - self.began >= self.seconds


def schedule_of(plan: Plan, jobs: Sequence[Job], context: RunContext) -> Schedule:
    """The jobs of a plan that run, and their order. A search that may try all jobs is run as a grid."""
    c = jobs[0].config.sweep
    if plan.is_search and plan.n_jobs < len(jobs):
        from gpuclust.pipeline.search import search

        connect_workers(jobs[0], context)
        return search(jobs, get_table(jobs[0], context), context.backend.name)
    return Grid(jobs, metric=c.metric, patience=c.patience if plan.is_sweep else 0)


def _preload(job: Job, context: RunContext) -> int:
    """Read and prepare the table of the first job, which stay in the cache. Returns the number of rows."""
    connect_workers(job, context)
    table = get_table(job, context)
    if job.config.analysis.reference is not None:
        reference_column(table, job.config.analysis.reference)
    get_matrix(job, context)
    return table.n_rows


def _resumed(schedule: Schedule, known: Outcomes, context: RunContext) -> dict[str, Outcome]:
    """The known outcomes, and those of further jobs that are finished in the store, by key."""
    finished = context.recorder.finished_jobs()
    done = dict(known)
    while ready := schedule.next(done):
        found = {job.key: o for job in ready if (o := _found(job, finished.get(job.key))) is not None}
        done |= found
        if len(found) < len(ready):
            break
    return done


def _found(job: Job, run: RecordedJob | None) -> Outcome | None:
    """The outcome of a job that was finished before, or that another process ended; None where it still runs."""
    if run is None or run.status == RUNNING:
        return None
    return Outcome(
        with_size(job, run.metrics),
        run.run_id,
        run.status,
        run.metrics,
        error=run.tags.get(tags.FAILURE, "it failed in another process") if run.status == FAILED else None,
        resumed=True,
        labels=run.tags.get(tags.LABELS),
        parent=run.parent,
        table=run.tags.get(tags.TABLE),
    )


def _say_tables(resumed: Iterable[Outcome], context: RunContext) -> None:
    """Print the summary of each table of the jobs that are not run again. The table of a run that lacks its summary is read."""
    for outcome in {outcome.job.key_of_table: outcome for outcome in resumed if outcome.job.share == 1}.values():
        if outcome.table is None:
            get_table(outcome.job, context)
        else:
            say_table(outcome.job, outcome.table, context)


def _single(job: Job, schedule: Schedule, done: dict[str, Outcome], since: int, context: RunContext) -> SweepResult:
    if job.key in done:
        context.display.finished(done[job.key])
    else:
        n_rows = _preload(job, context)
        context = with_workers([job], 1, n_rows, context)
        for _ in _outcomes(schedule, done, n_rows, None, Budget(0.0), since, context):
            pass
    outcome = done[job.key]
    if outcome.status == FINISHED:
        keep_chosen(outcome, context)
    chosen = select([candidate(outcome)]) if outcome.status == FINISHED else None
    return SweepResult((outcome,), chosen, None, 0.0)


def _sweep(
    plan: Plan,
    jobs: Sequence[Job],
    schedule: Schedule,
    done: dict[str, Outcome],
    budget: Budget,
    since: int,
    context: RunContext,
) -> SweepResult:
    pending = schedule.next(done)
    if pending:
        n_rows = _preload(pending[0] if pending[0].share == 1 else jobs[0], context)
        context = with_workers(pending, len(list(batches(pending, n_rows))), n_rows, context)
    else:
        n_rows = 0
    first = jobs[0].config
    start = sweep_start(plan, jobs, context)
    if first.sweep.resume:
        while (claim := context.recorder.claim_sweep(start, since, again=bool(pending))) == Claim():
            time.sleep(POLL_SECONDS)
    else:
        claim = Claim(context.recorder.start_job(start, None))
    parent = claim.run_id or (claim.run.run_id if claim.run else None)
    if not pending and claim.run is not None and claim.run.status == FINISHED:
        return _reported(claim.run, plan, schedule, done, context)
    with context.recorder.watch(claim.run_id) if claim.run_id else nullcontext():
        with CurveLog(plan, claim.run_id, context) as curve_log:
            for outcome in schedule.ended(done):
                context.display.finished(outcome)
            curve_log.add_recorded(schedule.ended(done))
            for outcomes in _outcomes(schedule, done, n_rows, parent, budget, since, context):
                for outcome in outcomes:
                    curve_log.add(outcome)
                _release_arrays(schedule, done, first)
        taken_over = claim.run_id is None
        while claim.run_id is None:  # another process runs this sweep: it chooses when its jobs are done
            claim = context.recorder.claim_sweep(start, since)
            if claim.run is not None and claim.run.status != RUNNING:
                return _reported(claim.run, plan, schedule, done, context)
            if claim.run_id is None:
                context.display.stage("waiting for the process that runs the same sweep to choose")
                time.sleep(POLL_SECONDS)
        if taken_over:  # that process has ended without the points of the jobs that were run here
            with CurveLog(plan, claim.run_id, context) as curve_log:
                curve_log.add_recorded(schedule.ended(done))
        outcomes = tuple(schedule.ended(done))
        context.display.stage("choosing")
        with context.backend.errors("the choice"):
            conclusion = conclude(outcomes, curves(outcomes, plan), first, context)
        conclusion = conclusion.with_coverage(_coverage(schedule, done, first.sweep.budget))
        result = SweepResult(outcomes, conclusion.selection, claim.run_id, 0.0, conclusion)
        log_sweep(result, conclusion, plan, context)
    context.recorder.end(claim.run_id, FAILED if result.failed else FINISHED)
    return result


def _coverage(schedule: Schedule, done: Outcomes, budget: str | None) -> str:
    """Sentences that say what was not run, and why; empty if everything was run."""
    text = schedule.coverage(done)
    if not schedule.next(done):
        return text
    return f"{text} The budget of {budget} ended; the same command continues from here."


def _outcomes(
    schedule: Schedule,
    done: dict[str, Outcome],
    n_rows: int,
    parent: str | None,
    budget: Budget,
    since: int,
    context: RunContext,
) -> Iterator[Sequence[Outcome]]:
    """Run the jobs of a schedule in batches, unless another process is running the same job. The outcomes are added to ``done`` and
    yielded as jobs end.

    Jobs of other processes are awaited; a job whose process ended is run here. After the budget no job starts, except that at least one
    job always runs.
    """
    announced, on = False, runner(context, parent, schedule.next(done))
    while ready := schedule.next(done):
        ended, waiting = False, 0
        for batch in batches(ready, n_rows, context.memory):
            if budget.is_over and schedule.ended(done):
                claims = [_seen(job, since, context) for job in batch]
            else:
                claims = [_claim(job, parent, since, context) for job in batch]
            found = [o for job, claim in zip(batch, claims, strict=True) if (o := _found(job, claim.run)) is not None]
            mine = [(job, claim.run_id) for job, claim in zip(batch, claims, strict=True) if claim.run_id is not None]
            waiting += sum(claim.run is not None and claim.run.status == RUNNING for claim in claims)
            for outcome in found:
                context.display.finished(outcome)
            if mine:
                found += on.run([job for job, _ in mine], [run_id for _, run_id in mine])
            if found:
                ended = True
                done |= {outcome.job.key: outcome for outcome in found}
                yield found
        for found in on.rest():
            ended = True
            done |= {outcome.job.key: outcome for outcome in found}
            yield found
        if ended:
            continue
        if budget.is_over and not waiting and schedule.ended(done):
            return
        waited = f"{n} jobs" if (n := max(waiting, 1)) > 1 else "1 job"
        if not announced:
            announced = True
            context.say(f"waiting for {waited} that another process runs (Ctrl-C ends the wait)")
        context.display.stage(f"waiting for {waited} of another process")
        time.sleep(POLL_SECONDS)


def _seen(job: Job, since: int, context: RunContext) -> Claim:
    """The state of the job in another process, if any; the job is not started."""
    if not job.config.sweep.resume:
        return Claim()
    return Claim(run=context.recorder.taken(job_start(job, context), since))


def _claim(job: Job, parent: str | None, since: int, context: RunContext) -> Claim:
    if not job.config.sweep.resume:
        return Claim(context.recorder.start_job(job_start(job, context), parent))
    return context.recorder.claim(job_start(job, context), parent, since)


def _reported(run: RecordedJob, plan: Plan, schedule: Schedule, done: Outcomes, context: RunContext) -> SweepResult:
    """A sweep that is recorded already, with its choice and its verdict. Only a missing model is added."""
    first = plan.jobs[0].config
    outcomes = tuple(schedule.ended(_resumed(schedule, done, context)))
    finished = finished_outcomes(outcomes)
    choice = choose(finished, first.sweep)
    index = next((i for i, o in enumerate(finished) if o.run_id == run.tags.get(tags.SELECTED_RUN)), None)
    selection = None
    if index is not None:
        metric = run.tags.get(tags.SELECTION_METRIC, ACROSS)
        selection = Selection(index, metric, run.tags.get(tags.SELECTION_REASON, ""))
    found = context.recorder.document(run.run_id, tags.VERDICT_FILE) or {}
    words = (run.tags.get(tags.VERDICT, ""), run.tags.get(tags.VERDICT_KIND, ""))
    verdict = Verdict(*words, tuple(found.get("sizes", ())), tuple(found.get("because", ())))
    unranked = choice if isinstance(choice, Unranked) and selection is None else None
    result = SweepResult(outcomes, selection, run.run_id, 0.0, SweepSummary(selection, verdict, unranked))
    if run.status == FINISHED:
        if result.chosen is not None:
            keep_chosen(result.chosen, context)
        context.recorder.end(run.run_id, FINISHED)  # now the latest sweep, because it is the latest that was run
    return result


def batches(jobs: Sequence[Job], n_rows: int, memory: MemoryPlan | None = None) -> Iterator[list[Job]]:
    """Batches of jobs that share a matrix: of up to `MAX_BATCH` jobs where their silhouettes are expensive, else of one job.

    A kill loses the results of one batch, so batches are larger only where that saves time, and no larger than their results fit in
    memory.
    """
    groups: dict[Any, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.batch_key, []).append(job)
    for group in groups.values():
        size = min(MAX_BATCH, _most_results(n_rows, memory)) if _is_expensive(group[0], n_rows) else 1
        for at in range(0, len(group), size):
            yield group[at : at + size]


def _most_results(n_rows: int, memory: MemoryPlan | None) -> int:
    """How many jobs' results the memory holds at once. The forecast counts those of one."""
    if memory is None or not n_rows:
        return MAX_BATCH
    found = memory.forecast
    used = {RESIDENT: found.resident_bytes, PINNED: found.pinned_bytes}.get(memory.mode, found.disk_bytes)
    return max(1, 1 + (memory.limit - used) // (RESULT_BYTES * n_rows))


def _is_expensive(job: Job, n_rows: int) -> bool:
    score = job.config.score
    exact = float(n_rows) ** 2
    pairs = exact if exact <= score.exact_limit else float(n_rows) * score.sample_size
    return score.silhouette and pairs >= SHARED_FROM_PAIRS


def _release_arrays(schedule: Schedule, done: dict[str, Outcome], config: Config) -> None:
    """Keep only the arrays of the best job, and of the best job of each algorithm where these will be compared."""
    finished = finished_outcomes(schedule.ended(done))
    best = leaders(finished, config.sweep)
    kept = {o.job.key for o in best}
    if config.analysis.compare and len(best) == 1:
        space = best[0].job.key_of_matrix
        kept |= {
            o.job.key for o in best_of_each([o for o in finished if o.job.key_of_matrix == space], config.sweep.metric)
        }
    for key, outcome in done.items():
        if key not in kept:
            done[key] = outcome.without_arrays()
