"""Many jobs: one table, one parent run, resume by key, the choice and its reason."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gpuclust.algorithms.registry import size_axes
from gpuclust.analysis.diagnostics import reference_column
from gpuclust.analysis.profile import Profile
from gpuclust.analysis.selection import ACROSS, Selection, Unranked, select, select_across
from gpuclust.analysis.verdict import Verdict
from gpuclust.compose import Plan
from gpuclust.config import flatten
from gpuclust.errors import InputError, RecordingError, TrackingError, why
from gpuclust.metrics.validity import HIGHER_IS_BETTER
from gpuclust.pipeline import job as jobs_module
from gpuclust.pipeline.context import Job, Outcome, RunContext, about, make_job, with_size
from gpuclust.pipeline.curves import CURVES, curve_point, curves, curves_by_axis, job_name, short, sweep_name
from gpuclust.pipeline.run_files import SweepReportInput, sweep_files
from gpuclust.pipeline.run_log import as_params, dataset, features_used, log_model
from gpuclust.pipeline.run_log import start as start_of
from gpuclust.pipeline.summary import SweepSummary, best_of_each, candidate, conclude, leaders, rebuild
from gpuclust.runtime.backend import Backend
from gpuclust.runtime.cache import key
from gpuclust.tracking import recorder as tags
from gpuclust.tracking.recorder import FAILED, FINISHED, KILLED, RUNNING, Claim, RecordedJob, RunStart

# Scores that a leaderboard shows first, after the one that chose.
SCORES = ("silhouette", "silhouette_with_noise", "silhouette_se", "calinski_harabasz", "davies_bouldin", "inertia", "bic", "relative_validity",
          "noise_fraction")  # fmt: skip
# Jobs run together when a silhouette takes long enough that sharing its pass pays: from this many pairs of rows.
SHARED_FROM_PAIRS = 5e8
MAX_BATCH = 16
# How often other processes' jobs are looked at while there is nothing else to do.
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class SweepResult:
    """What a command came to: every job's outcome in the order planned, the choice among them, and the parent run."""

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


def jobs_of(plan: Plan, backend: Backend) -> tuple[Job, ...]:
    """The named jobs of a plan. Raises DataError when a file cannot be read."""
    return tuple(make_job(p.config, job_name(p.config, p.swept, plan.swept), p.swept, backend.name) for p in plan.jobs)


def run(plan: Plan, jobs: Sequence[Job], context: RunContext) -> SweepResult:
    """Run every job of a plan that is not finished yet and that no other process runs, choose one, and record both.

    The first table is read and prepared before anything is recorded, so that wrong input leaves no run behind. A sweep that is
    finished is reported, not recorded again. On an interrupt the runs end as KILLED with what finished kept, and the interrupt
    goes on. Raises RecordingError when something was computed or recorded and the rest could not be.
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
    """Read and prepare the table of the first job, which it will find in the store; how many rows there are."""
    table = jobs_module.get_table(job, context)
    if job.config.analysis.reference is not None:
        reference_column(table, job.config.analysis.reference)
    jobs_module.get_matrix(job, context)
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
    """Print the summary of each table of jobs that are not run again; a run that does not hold it has its table read."""
    for outcome in {outcome.job.key_of_table: outcome for outcome in resumed}.values():
        if outcome.table is None:
            jobs_module.get_table(outcome.job, context)
        else:
            jobs_module.say_table(outcome.job, outcome.table, context)


def _single(job: Job, done: dict[str, Outcome], since: int, context: RunContext) -> SweepResult:
    if job.key in done:
        context.display.finished(done[job.key])
    else:
        n_rows = _preload(job, context)
        for (outcome,) in _outcomes([job], n_rows, None, since, context):
            done[job.key] = outcome
    outcome = done[job.key]
    if outcome.status == FINISHED and job.config.tracking.models == "chosen":
        _log_model(outcome, context)
    chosen = select([candidate(outcome)]) if outcome.status == FINISHED else None
    return SweepResult((outcome,), chosen, None, 0.0)


def _sweep(plan: Plan, jobs: Sequence[Job], done: dict[str, Outcome], since: int, context: RunContext) -> SweepResult:
    pending = [job for job in jobs if job.key not in done]
    n_rows = _preload(pending[0], context) if pending else 0
    first = jobs[0].config
    start = _start(plan, jobs, context)
    if first.sweep.resume:
        while (claim := context.recorder.claim_sweep(start, since, again=bool(pending))) == Claim():
            time.sleep(POLL_SECONDS)
    else:
        claim = Claim(context.recorder.start_job(start, None))
    parent = claim.run_id or (claim.run.run_id if claim.run else None)
    if not pending and claim.run is not None and claim.run.status == FINISHED:
        return _reported(claim.run, plan, jobs, done, context)
    with context.recorder.watch(claim.run_id) if claim.run_id else nullcontext():
        for outcome in done.values():
            context.display.finished(outcome)
            if claim.run_id:
                _log_curves(outcome, plan, claim.run_id, context)
        for outcomes in _outcomes(pending, n_rows, parent, since, context):
            for outcome in outcomes:
                done[outcome.job.key] = outcome
                if claim.run_id:
                    _log_curves(outcome, plan, claim.run_id, context)
            _release_arrays(done, first.sweep.metric, first.analysis.compare)
        while claim.run_id is None:  # the sweep of another process, which chooses when its own jobs are done, or ends
            claim = context.recorder.claim_sweep(start, since)
            if claim.run is not None and claim.run.status != RUNNING:
                return _reported(claim.run, plan, jobs, done, context)
            if claim.run_id is None:
                context.display.stage("waiting for the process that runs the same sweep to choose")
                time.sleep(POLL_SECONDS)
        outcomes = tuple(done[job.key] for job in jobs)
        context.display.stage("choosing")
        conclusion = conclude(outcomes, curves(outcomes, plan), first, context)
        result = SweepResult(outcomes, conclusion.selection, claim.run_id, 0.0, conclusion)
        _conclude(result, conclusion, plan, context)
    context.recorder.end(claim.run_id, FAILED if result.failed else FINISHED)
    return result


def _outcomes(
    pending: Sequence[Job], n_rows: int, parent: str | None, since: int, context: RunContext
) -> Iterator[Sequence[Outcome]]:
    """What becomes of jobs, in batches as they end: run here, or by another process that runs the same job at this time.

    Other processes' jobs are waited for while they live; a job whose process ended is taken over.
    """
    said = False
    while pending:
        ended: set[str] = set()
        for batch in batches(pending, n_rows):
            claims = [_claim(job, parent, since, context) for job in batch]
            found = [o for job, claim in zip(batch, claims, strict=True) if (o := _found(job, claim.run)) is not None]
            mine = [(job, claim.run_id) for job, claim in zip(batch, claims, strict=True) if claim.run_id is not None]
            for outcome in found:
                context.display.finished(outcome)
            if mine:
                found += jobs_module.run([job for job, _ in mine], [run_id for _, run_id in mine], context, parent)
            ended |= {outcome.job.key for outcome in found}
            if found:
                yield found
        pending = [job for job in pending if job.key not in ended]
        if pending and not ended:
            waited = "1 job" if len(pending) == 1 else f"{len(pending)} jobs"
            if not said:
                said = True
                context.say(f"waiting for {waited} that another process runs (Ctrl-C ends the wait)")
            context.display.stage(f"waiting for {waited} of another process")
            time.sleep(POLL_SECONDS)


def _claim(job: Job, parent: str | None, since: int, context: RunContext) -> Claim:
    if not job.config.sweep.resume:
        return Claim(context.recorder.start_job(start_of(job, context), parent))
    return context.recorder.claim(start_of(job, context), parent, since)


def _reported(
    run: RecordedJob, plan: Plan, jobs: Sequence[Job], done: Mapping[str, Outcome], context: RunContext
) -> SweepResult:
    """A sweep that is recorded already: its choice and its verdict as they were, nothing but a missing model added."""
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
            _log_model(result.chosen, context)
        context.recorder.end(run.run_id, FINISHED)  # the latest sweep, as it is the latest that was asked for
    return result


def batches(jobs: Sequence[Job], n_rows: int) -> Iterator[list[Job]]:
    """Jobs that share a matrix together: all in one batch where their silhouettes are dear, else one by one.

    A batch is what a kill can cost, so it is no larger than pays.
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


def finished_outcomes(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes that can be chosen: those that finished."""
    return [o for o in outcomes if o.status == FINISHED]


def _release_arrays(done: dict[str, Outcome], metric: str, compare: bool) -> None:
    """Keep the arrays of the job that is ahead, and where they will be compared of the best of each algorithm."""
    finished = finished_outcomes(list(done.values()))
    ahead = leaders(finished, metric)
    kept = {o.job.key for o in ahead}
    if compare and len(ahead) == 1:
        space = ahead[0].job.key_of_matrix
        kept |= {o.job.key for o in best_of_each([o for o in finished if o.job.key_of_matrix == space], metric)}
    for outcome in finished:
        if outcome.job.key not in kept:
            done[outcome.job.key] = outcome.light()


def _start(plan: Plan, jobs: Sequence[Job], context: RunContext) -> RunStart:
    """What is recorded before a sweep's work starts. Its key is that of its jobs together."""
    config = jobs[0].config
    fixed = {k: v for k, v in flatten(config).items() if k not in plan.swept and k.split(".")[0] not in plan.swept}
    values = {k: ", ".join(dict.fromkeys(str(job.swept.get(k, "")) for job in jobs)) for k in plan.swept}
    what_concludes = (config.sweep.metric, config.sweep.name, config.analysis.gap, config.analysis.compare)
    return RunStart(
        name=sweep_name(jobs),
        tags={
            tags.KIND: "sweep",
            tags.KEY: key("sweep", [job.key for job in jobs], *what_concludes),
            **about(context),
        },
        params=as_params(fixed | {f"swept.{k}": v for k, v in values.items()} | {"n_jobs": len(jobs)}),
    )


def _log_curves(outcome: Outcome, plan: Plan, parent: str, context: RunContext) -> None:
    """Add the job to the curves of its sweep, so that they grow as jobs finish: ``curve/silhouette``, ``curve/bic/full``, and
    ``curve/min_samples/silhouette`` over what is no size of a clustering."""
    point = curve_point(outcome, plan) if outcome.status == FINISHED else None
    if point is None:
        return
    axis = "" if point.axis in size_axes() else f"{short(point.axis)}/"
    line = f"/{point.line}" if point.line else ""
    points = {f"curve/{axis}{m}{line}": outcome.metrics[m] for m in CURVES if m in outcome.metrics}
    step = int(point.size)
    tried = sorted({float(v) for job in plan.jobs if isinstance(v := job.swept.get(point.axis), (int, float))})
    if point.size in tried and any(
        value % 1 for value in tried
    ):  # MLflow's steps are whole numbers: the place among the values
        step = tried.index(point.size)
    context.recorder.log_points(parent, points, step=step)


def leaderboard(result: SweepResult) -> list[dict[str, Any]]:
    """A row for each job, the best by the metric that ranks first, jobs without it last; where jobs are of several spaces, those
    of one space together and ranked among themselves."""
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


def _conclude(result: SweepResult, conclusion: SweepSummary, plan: Plan, context: RunContext) -> None:
    """Keep the chosen job's model, and record the choice, the verdict and the files of a sweep on its parent."""
    assert result.parent is not None
    parent, chosen = result.parent, result.chosen
    first = result.outcomes[0].job
    shown = chosen.job if chosen else first
    table = jobs_module.get_table(shown, context)
    reason = conclusion.reason
    if chosen is not None and first.config.tracking.models == "chosen":
        _log_model(chosen, context)
    _mark(chosen, parent, context)
    context.recorder.log(
        parent,
        tags={
            tags.SELECTION_REASON: reason,
            tags.SELECTION_METRIC: result.metric,
            tags.SELECTED_RUN: chosen.run_id if chosen else "",
            tags.VERDICT: conclusion.verdict.text,
            tags.VERDICT_KIND: conclusion.verdict.kind,
            "mlflow.note.content": _note(conclusion, reason, chosen),
        },
        metrics={
            **(_without_seconds(chosen.metrics) if chosen else {}),
            "n_jobs": len(result.outcomes),
            "n_failed": len(result.failed),
        },
        params=features_used(table) if len({o.job.key_of_table for o in result.outcomes}) == 1 else {},
        dataset=dataset(shown, table),
    )
    if conclusion.gap is not None:
        for size, gap, error in zip(conclusion.gap.sizes, conclusion.gap.gap, conclusion.gap.error, strict=True):
            context.recorder.log_points(parent, {"curve/gap": gap, "curve/gap_error": error}, step=size)
    facts = SweepReportInput(
        name=sweep_name([o.job for o in result.outcomes]),
        run_id=parent,
        rows=leaderboard(result),
        curves=curves_by_axis(result.outcomes, plan),
        reason=reason,
        verdict=conclusion.verdict,
        gap=conclusion.gap,
        comparisons=conclusion.comparisons,
        documents=conclusion.documents(),
        about=about(context),
        chosen=_chosen_profile(chosen, context),
        audit=jobs_module.get_table(chosen.job, context).audit if chosen else None,
        warnings=result.warnings,
    )
    with TemporaryDirectory() as folder:
        context.recorder.log_files(parent, sweep_files(Path(folder), facts, figures=first.config.report.figures))


def _mark(chosen: Outcome | None, parent: str, context: RunContext) -> None:
    """Tag the chosen job, after taking back what was chosen before among the jobs of this sweep, or of the sweep that the
    chosen job was first run in: no two jobs of one sweep are ever marked."""
    families = {parent, *([chosen.parent] if chosen and chosen.parent else [])}
    for job in (job for family in families for job in context.recorder.children(family)):
        if job.tags.get(tags.SELECTED) == "true" and (chosen is None or job.run_id != chosen.run_id):
            context.recorder.log(job.run_id, tags={tags.SELECTED: "false"})
    if chosen is not None:
        context.recorder.log(chosen.run_id, tags={tags.SELECTED: "true"})


def _without_seconds(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a clustering, without those of the time that it took."""
    return {k: v for k, v in metrics.items() if not k.endswith("_seconds")}


def _note(conclusion: SweepSummary, reason: str, chosen: Outcome | None) -> str:
    """The parent's description: the verdict and what led to it, the choice, and how to export it."""
    lines = [
        f"**{conclusion.verdict.text}**",
        "",
        *(f"- {line}" for line in conclusion.verdict.because),
        "",
        f"Chosen: {reason}",
    ]
    if chosen is not None:
        lines += ["", *(f"**Warning:** {text}" for text in chosen.warnings)]
        lines += ["", f"`gpuclust export {chosen.run_id} --out out/`"]
    return "\n".join(lines)


def _chosen_profile(chosen: Outcome | None, context: RunContext) -> Profile | None:
    """What is in the clusters of the chosen job, with their rules; None where it was resumed, not run."""
    if chosen is None or chosen.profile is None or chosen.clustering is None:
        return None
    table = jobs_module.get_table(chosen.job, context)
    return jobs_module.with_rules(chosen.job, table, chosen.profile, chosen.clustering.labels, context)


def _log_model(outcome: Outcome, context: RunContext) -> None:
    """Keep the model of a job, once, computing it again when its arrays are gone (it was resumed).

    Raises TrackingError where the store does not have it afterwards.
    """
    if context.recorder.has_model(outcome.run_id):
        return
    job = outcome.job
    table = jobs_module.get_table(job, context)
    matrix = jobs_module.get_matrix(job, context)
    if outcome.clustering is not None and outcome.profile is not None:
        clustering, described = outcome.clustering, outcome.profile
    else:
        again = rebuild(job, context, expect=outcome.labels)
        clustering, described = again.clustering, again.profile
    log_model(job, outcome.run_id, table, matrix, clustering, described, context)
    if not context.recorder.has_model(outcome.run_id):
        raise TrackingError(
            f"the model of run {outcome.run_id} was not kept whole; check the store and its space, and run again"
        )
