"""Run a plan: jobs that are finished already, jobs of other processes, batches of jobs, the choice among them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from gpuclust.analysis.diagnostics import reference_column
from gpuclust.analysis.selection import ACROSS, Selection, Unranked, select, select_across
from gpuclust.analysis.verdict import Verdict
from gpuclust.compose import Plan
from gpuclust.errors import InputError, RecordingError, why
from gpuclust.pipeline.batches import connect_workers, runner, with_workers
from gpuclust.pipeline.context import Job, Outcome, RunContext, make_job, with_size
from gpuclust.pipeline.curves import curves, job_name
from gpuclust.pipeline.job import get_matrix, get_table, say_table
from gpuclust.pipeline.run_log import start as job_start
from gpuclust.pipeline.summary import SweepSummary, best_of_each, candidate, conclude, leaders
from gpuclust.pipeline.sweep_log import CurveLog, keep_model, log_sweep, sweep_start
from gpuclust.pipeline.sweep_result import SweepResult, finished_outcomes
from gpuclust.runtime.backend import Backend
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
    is raised again. Raises RecordingError when some results were recorded and the others could not be.
    """
    began, since = time.perf_counter(), int(time.time() * 1000)
    context.recorder.close_stale()
    done = _resumed(jobs, context) if jobs[0].config.sweep.resume else {}
    _say_tables(done.values(), context)
    repeated = all(job.key in done for job in jobs)
    try:
        result = _sweep(plan, jobs, done, since, context) if plan.is_sweep else _single(jobs[0], done, since, context)
    except BaseException as error:
        context.recorder.abandon(KILLED if isinstance(error, KeyboardInterrupt) else FAILED)
        lost = isinstance(error, RecordingError)
        if lost or (done and isinstance(error, (InputError, OSError))):
            kept = f"{len(done)} of {len(jobs)} jobs are recorded and kept; the same command goes on from there"
            raise RecordingError(f"{why(error)}; {kept}") from error
        raise
    return replace(result, seconds=time.perf_counter() - began, repeated=repeated)


def _preload(job: Job, context: RunContext) -> int:
    """Read and prepare the table of the first job, which stay in the cache. Returns the number of rows."""
    connect_workers(job, context)
    table = get_table(job, context)
    if job.config.analysis.reference is not None:
        reference_column(table, job.config.analysis.reference)
    get_matrix(job, context)
    return table.n_rows


def _resumed(jobs: Sequence[Job], context: RunContext) -> dict[str, Outcome]:
    """The jobs that are finished already, by key."""
    finished = context.recorder.finished_jobs()
    found = (_found(job, finished.get(job.key)) for job in jobs)
    return {outcome.job.key: outcome for outcome in found if outcome is not None}


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
    for outcome in {outcome.job.key_of_table: outcome for outcome in resumed}.values():
        if outcome.table is None:
            get_table(outcome.job, context)
        else:
            say_table(outcome.job, outcome.table, context)


def _single(job: Job, done: dict[str, Outcome], since: int, context: RunContext) -> SweepResult:
    if job.key in done:
        context.display.finished(done[job.key])
    else:
        n_rows = _preload(job, context)
        context = with_workers([job], 1, n_rows, context)
        for (outcome,) in _outcomes([job], n_rows, None, since, context):
            done[job.key] = outcome
    outcome = done[job.key]
    if outcome.status == FINISHED and job.config.tracking.models == "chosen":
        keep_model(outcome, context)
    chosen = select([candidate(outcome)]) if outcome.status == FINISHED else None
    return SweepResult((outcome,), chosen, None, 0.0)


def _sweep(plan: Plan, jobs: Sequence[Job], done: dict[str, Outcome], since: int, context: RunContext) -> SweepResult:
    pending = [job for job in jobs if job.key not in done]
    n_rows = _preload(pending[0], context) if pending else 0
    if pending:
        context = with_workers(pending, len(list(batches(pending, n_rows))), n_rows, context)
    first = jobs[0].config
    start = sweep_start(plan, jobs, context)
    if first.sweep.resume:
        while (claim := context.recorder.claim_sweep(start, since, again=bool(pending))) == Claim():
            time.sleep(POLL_SECONDS)
    else:
        claim = Claim(context.recorder.start_job(start, None))
    parent = claim.run_id or (claim.run.run_id if claim.run else None)
    if not pending and claim.run is not None and claim.run.status == FINISHED:
        return _reported(claim.run, plan, jobs, done, context)
    with context.recorder.watch(claim.run_id) if claim.run_id else nullcontext():
        with CurveLog(plan, claim.run_id, context) as curve_log:
            for outcome in done.values():
                context.display.finished(outcome)
                curve_log.add(outcome)
            for outcomes in _outcomes(pending, n_rows, parent, since, context):
                for outcome in outcomes:
                    done[outcome.job.key] = outcome
                    curve_log.add(outcome)
                _release_arrays(done, first.sweep.metric, first.analysis.compare)
        taken_over = claim.run_id is None
        while claim.run_id is None:  # another process runs this sweep: it chooses when its jobs are done
            claim = context.recorder.claim_sweep(start, since)
            if claim.run is not None and claim.run.status != RUNNING:
                return _reported(claim.run, plan, jobs, done, context)
            if claim.run_id is None:
                context.display.stage("waiting for the process that runs the same sweep to choose")
                time.sleep(POLL_SECONDS)
        if taken_over:  # that process has ended without the points of the jobs that were run here
            with CurveLog(plan, claim.run_id, context) as curve_log:
                for outcome in done.values():
                    curve_log.add(outcome)
        outcomes = tuple(done[job.key] for job in jobs)
        context.display.stage("choosing")
        conclusion = conclude(outcomes, curves(outcomes, plan), first, context)
        result = SweepResult(outcomes, conclusion.selection, claim.run_id, 0.0, conclusion)
        log_sweep(result, conclusion, plan, context)
    context.recorder.end(claim.run_id, FAILED if result.failed else FINISHED)
    return result


def _outcomes(
    pending: Sequence[Job], n_rows: int, parent: str | None, since: int, context: RunContext
) -> Iterator[Sequence[Outcome]]:
    """The outcomes of jobs, in batches as they end: jobs are run here, or by another process that runs the same job at this time.

    Jobs of other processes are awaited; a job whose process ended is run here.
    """
    announced, on = False, runner(context, parent, pending)
    while pending:
        ended: set[str] = set()
        for batch in batches(pending, n_rows):
            claims = [_claim(job, parent, since, context) for job in batch]
            found = [o for job, claim in zip(batch, claims, strict=True) if (o := _found(job, claim.run)) is not None]
            mine = [(job, claim.run_id) for job, claim in zip(batch, claims, strict=True) if claim.run_id is not None]
            for outcome in found:
                context.display.finished(outcome)
            if mine:
                found += on.run([job for job, _ in mine], [run_id for _, run_id in mine])
            ended |= {outcome.job.key for outcome in found}
            if found:
                yield found
        for found in on.rest():
            ended |= {outcome.job.key for outcome in found}
            yield found
        pending = [job for job in pending if job.key not in ended]
        if pending and not ended:
            waited = "1 job" if len(pending) == 1 else f"{len(pending)} jobs"
            if not announced:
                announced = True
                context.say(f"waiting for {waited} that another process runs (Ctrl-C ends the wait)")
            context.display.stage(f"waiting for {waited} of another process")
            time.sleep(POLL_SECONDS)


def _claim(job: Job, parent: str | None, since: int, context: RunContext) -> Claim:
    if not job.config.sweep.resume:
        return Claim(context.recorder.start_job(job_start(job, context), parent))
    return context.recorder.claim(job_start(job, context), parent, since)


def _reported(
    run: RecordedJob, plan: Plan, jobs: Sequence[Job], done: Mapping[str, Outcome], context: RunContext
) -> SweepResult:
    """A sweep that is recorded already, with its choice and its verdict. Only a missing model is added."""
    outcomes = tuple(done[job.key] for job in jobs)
    finished = finished_outcomes(outcomes)
    choice = select_across([candidate(o) for o in finished], jobs[0].config.sweep.metric)
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
        if result.chosen is not None and jobs[0].config.tracking.models == "chosen":
            keep_model(result.chosen, context)
        context.recorder.end(run.run_id, FINISHED)  # now the latest sweep, because it is the latest that was run
    return result


def batches(jobs: Sequence[Job], n_rows: int) -> Iterator[list[Job]]:
    """Batches of jobs that share a matrix: of up to `MAX_BATCH` jobs where their silhouettes are expensive, else of one job.

    A kill loses the results of one batch, so batches are larger only where that saves time.
    """
    groups: dict[Any, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.batch_key, []).append(job)
    for group in groups.values():
        size = MAX_BATCH if _is_expensive(group[0], n_rows) else 1
        for at in range(0, len(group), size):
            yield group[at : at + size]


def _is_expensive(job: Job, n_rows: int) -> bool:
    score = job.config.score
    exact = float(n_rows) ** 2
    pairs = exact if exact <= score.exact_limit else float(n_rows) * score.sample_size
    return score.silhouette and pairs >= SHARED_FROM_PAIRS


def _release_arrays(done: dict[str, Outcome], metric: str, compare: bool) -> None:
    """Keep only the arrays of the best job, and of the best job of each algorithm where these will be compared."""
    finished = finished_outcomes(list(done.values()))
    best = leaders(finished, metric)
    kept = {o.job.key for o in best}
    if compare and len(best) == 1:
        space = best[0].job.key_of_matrix
        kept |= {o.job.key for o in best_of_each([o for o in finished if o.job.key_of_matrix == space], metric)}
    for outcome in finished:
        if outcome.job.key not in kept:
            done[outcome.job.key] = outcome.without_arrays()
