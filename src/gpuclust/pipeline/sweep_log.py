"""What is recorded of a sweep: its parent run, its curves as jobs finish, its choice, verdict and files, and the chosen model."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gpuclust.analysis.profile import Profile, read_profile
from gpuclust.compose import Plan
from gpuclust.config import flatten
from gpuclust.errors import StoreUnavailable, TrackingError
from gpuclust.pipeline.context import Job, Outcome, RunContext, about
from gpuclust.pipeline.curves import (
    CURVES,
    axis_name,
    curve_point,
    curves_by_axis,
    curves_by_key,
    line_by_axis,
    short,
    size_axis_of,
    sweep_name,
)
from gpuclust.pipeline.full_figures import clustergrams
from gpuclust.pipeline.job import get_matrix, get_table, with_rules
from gpuclust.pipeline.run_files import PICTURES, SweepReportInput, sweep_files
from gpuclust.pipeline.run_log import as_params, dataset, features_used, log_model
from gpuclust.pipeline.summary import SweepSummary, rebuild
from gpuclust.pipeline.sweep_result import SweepResult, leaderboard
from gpuclust.runtime.cache import key
from gpuclust.tracking import recorder as tags
from gpuclust.tracking.recorder import FINISHED, RunStart

CURVE_SECONDS = 2.0


def sweep_start(plan: Plan, jobs: Sequence[Job], context: RunContext) -> RunStart:
    """What is recorded before a sweep's work starts. Its key is that of its jobs together."""
    config = jobs[0].config
    fixed = {k: v for k, v in flatten(config).items() if k not in plan.swept and k.split(".")[0] not in plan.swept}
    values = {k: ", ".join(dict.fromkeys(str(job.swept.get(k, "")) for job in jobs)) for k in plan.swept}
    c = config.sweep
    what_concludes: list[Any] = [c.metric, c.name, config.analysis.gap, config.analysis.compare]
    if plan.is_search:
        what_concludes += [c.search, c.n_trials, c.prune]
    if c.require:
        what_concludes.append(sorted(c.require))
    if c.patience:
        what_concludes.append(c.patience)
    return RunStart(
        name=sweep_name(jobs),
        tags={
            tags.KIND: "sweep",
            tags.KEY: key("sweep", [job.key for job in jobs], *what_concludes),
            **about(context),
        },
        params=as_params(fixed | {f"swept.{k}": v for k, v in values.items()} | {"n_jobs": plan.n_jobs}),
    )


class CurveLog:
    """The curves of a sweep, which grow as jobs finish: ``curve/silhouette``, ``curve/bic/full``, and
    ``curve/min_samples/silhouette`` over a key that is not the size of an algorithm. The same values are logged by the swept key,
    so that a chart has one kind of size on its axis: ``k/silhouette``, ``min_cluster_size/silhouette``.

    Points are collected and logged every `CURVE_SECONDS` seconds, because a request costs as much as a job's metrics. As a
    context manager it logs the rest at its end; after an interrupt too, but not where the store does not respond. Without a run of the
    sweep (``run_id`` None: another process has it) nothing is logged.
    """

    def __init__(self, plan: Plan, run_id: str | None, context: RunContext) -> None:
        self._plan, self._run_id, self._context = plan, run_id, context
        self._points: dict[int, dict[str, float]] = {}
        self._logged = time.monotonic()

    def __enter__(self) -> CurveLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is not None and StoreUnavailable in (type(error), type(error.__cause__)):
            return  # it was waited for already
        with suppress(TrackingError) if kind is not None else nullcontext():
            self._flush()

    def add(self, outcome: Outcome) -> None:
        """Add the points of a job that just ended."""
        self._collect(outcome)
        if time.monotonic() - self._logged >= CURVE_SECONDS:
            self._flush()

    def add_recorded(self, outcomes: Iterable[Outcome]) -> None:
        """Add the points of jobs that ended before, without those that the run of the sweep has already."""
        for outcome in outcomes:
            self._collect(outcome)
        if self._points and self._run_id:
            self._points = self._context.recorder.missing_points(self._run_id, self._points)

    def _collect(self, outcome: Outcome) -> None:
        counts = outcome.status == FINISHED and outcome.job.share == 1
        point = curve_point(outcome, self._plan) if counts else None
        if point is None:
            return
        axis = "" if point.axis == size_axis_of(outcome.job) else f"{short(point.axis)}/"
        line = f"/{point.line}" if point.line else ""
        step = int(point.size)
        tried = sorted(
            {float(v) for job in self._plan.jobs if isinstance(v := job.swept.get(point.axis), (int, float))}
        )
        if point.size in tried and any(value % 1 for value in tried):
            step = tried.index(point.size)  # MLflow's steps are whole numbers: the place among the values
        own = line_by_axis(point, outcome.job.config.cluster.name, self._plan)
        points = {f"curve/{axis}{m}{line}": outcome.metrics[m] for m in CURVES if m in outcome.metrics}
        named = {m: f"{axis_name(point.axis)}/{m}{f'/{own}' if own else ''}" for m in curves_by_key(outcome)}
        points |= {name: outcome.metrics[m] for m, name in named.items()}
        self._points.setdefault(step, {}).update(points)

    def _flush(self) -> None:
        if self._points and self._run_id:
            self._context.recorder.log_points(self._run_id, self._points)
        self._points, self._logged = {}, time.monotonic()


def log_sweep(result: SweepResult, conclusion: SweepSummary, plan: Plan, context: RunContext) -> None:
    """Keep the chosen job's model, and record the choice, the verdict and the files of a sweep on its parent."""
    assert result.parent is not None
    parent, chosen = result.parent, result.chosen
    first = result.outcomes[0].job
    shown = chosen.job if chosen else first
    table = get_table(shown, context)
    reason = conclusion.reason
    if chosen is not None:
        keep_chosen(chosen, context)
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
        points = {
            k: {f"{prefix}/{m}": v for prefix in ("curve", "k") for m, v in (("gap", gap), ("gap_error", error))}
            for k, gap, error in zip(conclusion.gap.sizes, conclusion.gap.gap, conclusion.gap.error, strict=True)
        }
        context.recorder.log_points(parent, points)
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
        data=shown.config.data,
        metrics=chosen.metrics if chosen else {},
        pictures=_pictures(chosen, context) if first.config.report.figures else {},
        chosen=_chosen_profile(chosen, context),
        audit=get_table(chosen.job, context).audit if chosen else None,
        warnings=result.warnings,
        further=clustergrams(result.outcomes, lambda o: get_matrix(o.job, context)) if first.config.report.full else {},
    )
    with TemporaryDirectory() as folder:
        context.recorder.log_files(parent, sweep_files(Path(folder), facts, figures=first.config.report.figures))


def _mark(chosen: Outcome | None, parent: str, context: RunContext) -> None:
    """Tag the chosen job, and untag a job that was chosen before in this sweep or in the sweep that the chosen job was first run in:
    at most one job of a sweep is tagged."""
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
        lines += ["", f"`gpuclust export {chosen.run_id} --out {chosen.short_name}/`"]
    return "\n".join(lines)


def _chosen_profile(chosen: Outcome | None, context: RunContext) -> Profile | None:
    """The profile of the chosen job, with rules; without rules, and as it was recorded, where the job was resumed, not run."""
    if chosen is None:
        return None
    if chosen.profile is None or chosen.clustering is None:
        return read_profile(context.recorder.document(chosen.run_id, "profile.json") or {})
    table = get_table(chosen.job, context)
    return with_rules(chosen.job, table, chosen.profile, chosen.clustering.labels, context)


def _pictures(chosen: Outcome | None, context: RunContext) -> dict[str, bytes]:
    """The map and the heat map that the chosen job recorded, where it has them."""
    found: dict[str, bytes] = {}
    if chosen is None:
        return found
    for name in PICTURES:
        with (
            suppress(TrackingError, OSError, KeyError),
            context.recorder.download(chosen.run_id, f"figures/{name}.png") as path,
        ):
            found[name] = path.read_bytes()
    return found


def keep_chosen(outcome: Outcome, context: RunContext) -> None:
    """Keep the model of a chosen job, and register it, as its configuration says."""
    tracking = outcome.job.config.tracking
    if tracking.models == "chosen" or tracking.register is not None:
        keep_model(outcome, context)
    if tracking.register is not None:
        address = context.recorder.register(outcome.run_id, tracking.register)
        context.say(
            f"registered {outcome.job.name} as {address} (gpuclust promote {tracking.register} compares it with the champion)"
        )


def keep_model(outcome: Outcome, context: RunContext) -> None:
    """Keep the model of a job, once, computing it again when its arrays are gone (it was resumed).

    Raises TrackingError where the store does not have it afterwards.
    """
    if context.recorder.has_model(outcome.run_id):
        return
    job = outcome.job
    table = get_table(job, context)
    matrix = get_matrix(job, context)
    if outcome.clustering is not None and outcome.profile is not None:
        clustering, described = outcome.clustering, outcome.profile
    else:
        again = rebuild(job, context, expect=outcome.labels)
        clustering, described = again.clustering, again.profile
    with context.backend.errors("the model"):
        log_model(job, outcome.run_id, table, matrix, clustering, described, context)
    if not context.recorder.has_model(outcome.run_id):
        raise TrackingError(
            f"the model of run {outcome.run_id} was not stored completely; check the store and its free space, and run again"
        )
