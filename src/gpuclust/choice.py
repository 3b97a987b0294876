"""Find the recorded run that a command names: the choice of the latest sweep, the best by a metric or by conditions, or a run id."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpuclust.analysis.selection import COMPARISONS, Candidate, Unranked, select_across
from gpuclust.compose import from_yaml
from gpuclust.config import AUTO, Config, clusters_within, did_you_mean, require_choosing
from gpuclust.errors import ConfigurationError, ExportError, GpuclustError
from gpuclust.model.manifest import MANIFEST, merged_clusters, read_manifest
from gpuclust.runtime.cache import matrix_key, table_key
from gpuclust.tracking import recorder as tags
from gpuclust.tracking.mlflow import MlflowRecorder
from gpuclust.tracking.recorder import FINISHED, RecordedJob
from gpuclust.tracking.registry import Registry, is_registered

# The largest number of values that an error lists.
VALUES_LISTED = 20


@dataclass(frozen=True)
class Found:
    """A finished job, the sweep in which it was found (None: its own, if any), and notes on how it was found."""

    run: RecordedJob
    sweep: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Condition:
    """``KEY=VALUE`` or ``KEY<NUMBER`` of ``--where``: a configuration key, a swept key or a metric, and what it must be."""

    key: str
    value: str
    sign: str = "="

    def __str__(self) -> str:
        return f"{self.key}{self.sign}{self.value}"

    def values(self, job: RecordedJob) -> list[str]:
        """The values of the key in a job: the swept value, a parameter (``n_clusters`` finds ``cluster.n_clusters``, ``scale``
        finds ``scale.method``), or a metric; empty where there is none."""
        names = (f"swept.{self.key}", self.key, f"{self.key}.method", f"{self.key}.name", f"cluster.{self.key}")
        found = [job.params[name] for name in names if name in job.params]
        if not found and "." not in self.key:
            found = [value for name, value in job.params.items() if name.rpartition(".")[2] == self.key]
        if self.key in job.metrics:
            found.append(f"{job.metrics[self.key]:.10g}")
        return found

    def holds(self, job: RecordedJob) -> bool:
        """Whether the job has the value."""
        return any(_compares(value, self.sign, self.value) for value in self.values(job))


def _compares(value: str, sign: str, wanted: str) -> bool:
    if sign == "=":
        return _same(wanted, value)
    with suppress(ValueError):
        return COMPARISONS[sign](float(value), float(wanted))
    return False


def _same(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        plain = [re.sub(r"[\s'\"]", "", text).lower() for text in (one, other)]
        return plain[0] == plain[1]


def resolve_within(config: Config) -> None:
    """Write the id of the run into `data.within`, which may name it as ``best``, as a sweep, or as an export folder (whose merged clusters
    stand for those that they were made of). Raises ExportError where it does not exist."""
    if config.data.within is None:
        return
    run, clusters = clusters_within(config.data.within)
    if (Path(run) / MANIFEST).is_file():
        text = read_manifest(Path(run)).text
        merged = merged_clusters(text.get("edits") or ())
        clusters = tuple(sorted({*clusters, *(c for c, into in merged.items() if into in clusters)}))
        run = str(text.get("run_id", ""))
    elif not re.fullmatch(r"[0-9a-f]{32}", run):
        run = find(MlflowRecorder(config.tracking.uri, config.tracking.experiment, create=False), run).run.run_id
    config.data.within = f"{run}:{'+'.join(map(str, clusters))}"


def config_of(config: Config) -> Config:
    """The configuration of the run that `data.within` names by its id. Raises ExportError where the store has none."""
    run_id, _ = clusters_within(config.data.within or "")
    recorder = MlflowRecorder(config.tracking.uri, config.tracking.experiment, create=False)
    job = recorder.job(run_id)
    if job is None or job.tags.get(tags.KIND) == "sweep":
        raise ExportError(f"the tracking store has no job {run_id}; gpuclust ui lists the runs")
    with recorder.download(run_id, tags.CONFIG_FILE) as path:
        return from_yaml(path.read_text(encoding="utf-8"))


def resolve_init(configs: Iterable[Config]) -> None:
    """Write the id of the run into `cluster.init_from`, which may name it as ``best``, as a sweep, as ``models:/NAME@champion`` or as an export
    folder. Raises ExportError where it does not exist, and ConfigurationError where it has another number of clusters."""
    known: dict[str, RecordedJob] = {}
    for config in configs:
        named = getattr(config.cluster, "init_from", None)
        if named is None:
            continue
        if named not in known:
            recorder = MlflowRecorder(config.tracking.uri, config.tracking.experiment, create=False)
            is_export = (Path(named) / MANIFEST).is_file()
            known[named] = find(recorder, str(read_manifest(Path(named)).text["run_id"]) if is_export else named).run
        run = known[named]
        given, own = getattr(config.cluster, "n_clusters", None), round(run.metrics.get("n_clusters", 0))
        if given != own:
            raise ConfigurationError(
                f"cluster.init_from={named} has {own} clusters, and cluster.n_clusters={given}; give cluster.n_clusters={own}"
            )
        config.cluster.init_from = run.run_id  # type: ignore[attr-defined]


def conditions(texts: Iterable[str]) -> tuple[Condition, ...]:
    """The conditions of ``--where n_clusters=6 --where cluster=kmeans`` or ``--where n_clusters=6,cluster=kmeans``.

    A value may hold commas in brackets, as in ``data.features=[a,b]``. Raises ConfigurationError when a text is no KEY=VALUE.
    """
    found = []
    for text in texts:
        for part in re.split(r",(?![^\[]*\])(?=[^,]*[=<>])", text):
            parts = re.fullmatch(r"\s*([^=<>]+?)\s*(<=|>=|<|>|=)\s*(.*\S)\s*", part, re.DOTALL)
            if not parts:
                raise ConfigurationError(f"--where {text} is not KEY=VALUE, as in --where n_clusters=6")
            if parts[2] != "=" and not _is_number(parts[3]):
                raise ConfigurationError(
                    f"--where {text}: {parts[2]} needs a number, as in --where 'noise_fraction<0.3'"
                )
            found.append(Condition(parts[1], parts[3], parts[2]))
    return tuple(found)


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        float(text)
        return True
    return False


def find(recorder: MlflowRecorder, run: str, metric: str | None = None, where: Sequence[Condition] = ()) -> Found:
    """The finished job that ``run`` names: a run id (a sweep's stands for its chosen job), ``best``, or a registered model,
    ``models:/NAME@champion``.

    ``best`` is what the latest sweep chose; without a sweep, the latest finished job. ``metric`` and ``where`` look among the
    finished jobs of the experiment that have the same table and the same preparation as that job, whose scores can be compared:
    by the metric, or by hand (the best of several by the metric of the sweep). Raises ConfigurationError for a metric that
    cannot choose, and ExportError naming what there is.
    """
    if metric is not None:
        require_choosing(metric, "--metric ")
    sweep = None
    if run != "best":
        named = _by_id(recorder, run)
        if named.tags.get(tags.KIND) != "sweep":
            if metric is not None or where:
                raise ConfigurationError("--metric and --where choose among runs; give them with best, or with a sweep")
            return Found(_finished(named))
        sweep = named
    jobs = list(recorder.jobs())
    if not jobs:
        raise ExportError(f"the experiment {recorder.experiment} has no finished job; run one first")
    sweep = sweep or _latest_sweep(recorder)
    if metric is None and not where:
        return _chosen(recorder, sweep, jobs) if sweep else Found(jobs[0], None, _alone(jobs[0]))
    return _among(recorder, sweep, jobs, metric, where)


def _by_id(recorder: MlflowRecorder, run_id: str) -> RecordedJob:
    if is_registered(run_id):
        run_id = Registry(recorder.client, recorder.uri).find(run_id).run_id
    job = recorder.job(run_id)
    if job is None:
        raise ExportError(f"there is no run {run_id} in {recorder.uri}; `gpuclust ui` shows the runs")
    return job


def _finished(job: RecordedJob) -> RecordedJob:
    if job.tags.get(tags.KIND, "job") != "job":
        raise ExportError(f"run {job.run_id} ({job.name}) is of kind {job.tags[tags.KIND]}; name a job")
    if job.status != FINISHED:
        raise ExportError(
            f"run {job.run_id} ({job.name}) is {job.status}, so it has nothing to export; name a finished job"
        )
    return job


def _latest_sweep(recorder: MlflowRecorder) -> RecordedJob | None:
    """The sweep that ended last, of those that made a choice or recorded why not."""
    return next((sweep for sweep in recorder.sweeps() if tags.SELECTION_REASON in sweep.tags), None)


def _chosen(recorder: MlflowRecorder, sweep: RecordedJob, jobs: Sequence[RecordedJob]) -> Found:
    """The choice of a sweep."""
    run_id = sweep.tags.get(tags.SELECTED_RUN)
    if not run_id:
        reason = sweep.tags.get(tags.SELECTION_REASON) or "no job finished"
        raise ExportError(f"the sweep {sweep.name} ({sweep.run_id}) has no choice: {reason}")
    run = _finished(_by_id(recorder, run_id))
    notes = [f"{run.name} is the choice of the sweep {sweep.name}"]
    later = [job for job in jobs if job.started > sweep.started and job.parent is None]
    if later:
        notes.append(f"{later[0].name} ran after that sweep and is not part of it: `gpuclust export {later[0].run_id}`")
    return Found(run, sweep.run_id, tuple(notes))


def _alone(job: RecordedJob) -> tuple[str, ...]:
    return (f"{job.name} is the latest finished job; there is no sweep that chose one",)


def _among(
    recorder: MlflowRecorder,
    sweep: RecordedJob | None,
    jobs: Sequence[RecordedJob],
    metric: str | None,
    where: Sequence[Condition],
) -> Found:
    """The best of the jobs that can be compared with a sweep's choice (or with the latest job), or of those that match."""
    of_sweep = _jobs_of(recorder, sweep) if sweep else set()
    chosen = sweep.tags.get(tags.SELECTED_RUN) if sweep else jobs[0].run_id
    anchors = [job for job in jobs if job.run_id == chosen] or [job for job in jobs if job.run_id in of_sweep]
    anchors = anchors or [jobs[0]]
    tables = {job.tags.get(tags.FINGERPRINT) for job in anchors}
    same_table = [job for job in jobs if job.tags.get(tags.FINGERPRINT) in tables]
    spaces = {job.run_id: _space(recorder, job) for job in same_table}
    wanted = {spaces[job.run_id] for job in anchors}
    compared = [job for job in same_table if spaces[job.run_id] is not None and spaces[job.run_id] in wanted]
    out = Counter(
        {
            "of another table": len(jobs) - len(same_table),
            "prepared otherwise (features, cleaning, scale or reduction)": len(same_table) - len(compared),
        }
    )
    matching = _matching(compared, where, out)
    by = metric or _metric_of(sweep, matching)
    if metric is not None:
        measured = [job for job in matching if metric in job.metrics]
        out[f"without {metric}"] = len(matching) - len(measured)
        if not measured:
            known = sorted({m for job in matching for m in job.metrics})
            raise ExportError(
                f"none of the {len(matching)} runs that can be compared has the metric {metric}{did_you_mean(metric, known)}"
            )
        matching = measured
    run, by = _best(matching, spaces, by)
    asked = f" with {', '.join(map(str, where))}" if where else " of the same table and preparation"
    best = f"the best by {by} of {_count(len(matching), 'run')}" if len(matching) > 1 or metric else "the only run"
    notes = [f"{run.name} is {best}{asked}"]
    if left_out := _left_out(out):
        notes.append(f"not compared: {left_out}")
    return Found(run, sweep.run_id if sweep and run.run_id in of_sweep else None, tuple(notes))


def _left_out(out: Counter[str]) -> str:
    """``10 of another table; 3 prepared otherwise``."""
    return "; ".join(f"{n:,} {why}" for why, n in out.items() if n)


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _jobs_of(recorder: MlflowRecorder, sweep: RecordedJob) -> set[str]:
    """The run ids of a sweep's jobs, including jobs of earlier sweeps that it reused."""
    own = {job.run_id for job in recorder.children(sweep.run_id)}
    try:
        with recorder.download(sweep.run_id, tags.LEADERBOARD) as path, path.open(encoding="utf-8", newline="") as file:
            return own | {row["run_id"] for row in csv.DictReader(file)}
    except (GpuclustError, OSError, KeyError, csv.Error):
        return own


def _space(recorder: MlflowRecorder, job: RecordedJob) -> str | None:
    """The key of a job's matrix: its tag, else (version 0.1.0) computed from its configuration; None where that cannot be read."""
    if tags.MATRIX_KEY in job.tags:
        return job.tags[tags.MATRIX_KEY]
    try:
        with recorder.download(job.run_id, tags.CONFIG_FILE) as path:
            config = from_yaml(path.read_text(encoding="utf-8"))
    except (GpuclustError, OSError):
        return None
    return matrix_key(config, table_key(config, job.tags.get(tags.FINGERPRINT, "")))


def _matching(jobs: Sequence[RecordedJob], where: Sequence[Condition], out: Counter[str]) -> list[RecordedJob]:
    """The jobs that meet every condition. Raises ExportError listing the values that there are."""
    left = list(jobs)
    for condition in where:
        met = [job for job in left if condition.holds(job)]
        if not met:
            raise ExportError(_no_match(condition, left, out))
        left = met
    return left


def _no_match(condition: Condition, jobs: Sequence[RecordedJob], out: Counter[str]) -> str:
    found = {value: None for job in jobs for value in condition.values(job)}
    rest = f" (not compared: {left_out})" if (left_out := _left_out(out)) else ""
    if not found:
        keys = {name for job in jobs for name in (*job.params, *job.metrics)}
        short = keys | {name.rpartition(".")[2] for name in keys}
        return f"--where {condition}: no run has a parameter or a metric {condition.key}{did_you_mean(condition.key, short)}"
    values = sorted(found, key=_order)
    listed = ", ".join(values[:VALUES_LISTED]) + (" ..." if len(values) > VALUES_LISTED else "")
    return f"--where {condition} matches none of {_count(len(jobs), 'run')}; {condition.key} is {listed}{rest}"


def _order(value: str) -> tuple[int, float, str]:
    try:
        return 0, float(value), ""
    except ValueError:
        return 1, 0.0, value


def _metric_of(sweep: RecordedJob | None, jobs: Sequence[RecordedJob]) -> str:
    """The metric that ranked a sweep, where all the jobs have it; else ``auto``."""
    metric = sweep.tags.get(tags.SELECTION_METRIC, AUTO) if sweep else AUTO
    return metric if all(metric in job.metrics for job in jobs) else AUTO


def _best(jobs: Sequence[RecordedJob], spaces: dict[str, str | None], metric: str) -> tuple[RecordedJob, str]:
    """The best job and the metric that ranks it. Raises ExportError where the jobs are of several spaces that nothing ranks."""
    candidates = [
        Candidate(
            job.name,
            job.params.get("cluster.name", ""),
            job.metrics,
            str(spaces[job.run_id]),
            " ".join(f"{k.removeprefix('swept.')}={v}" for k, v in sorted(job.params.items()) if _of_space(k))
            or job.name,
        )
        for job in jobs
    ]
    found = select_across(candidates, metric)
    assert found is not None
    if isinstance(found, Unranked):
        raise ExportError(f"{_count(len(jobs), 'run')} of several spaces: {found.reason}")
    return jobs[found.index], found.metric


def _of_space(param: str) -> bool:
    return param.startswith("swept.") and param.split(".")[1] in ("data", "clean", "scale", "reduce", "dtype")
