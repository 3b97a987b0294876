"""The conclusion of a sweep: the best job of each algorithm, their agreement, the gap statistic, the choice and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuclust.algorithms.registry import FitInput, FitResult, algorithm_of, resolve
from gpuclust.algorithms.registry import fit as fit_configs
from gpuclust.analysis.comparison import Comparison, compare_all
from gpuclust.analysis.criteria import plateau_criteria
from gpuclust.analysis.selection import (
    Candidate,
    Curves,
    Selection,
    Unranked,
    prefer_hdbscan,
    requirements,
    select,
    select_across,
)
from gpuclust.analysis.structure import Structure, discrete_columns, find_structure, sampled_rows
from gpuclust.analysis.table_stats import feature_blocks
from gpuclust.analysis.verdict import NONE, OPEN, SAME_AS_COLUMN, FitToRows, Preferred, Verdict, verdict
from gpuclust.config import AUTO, AnalysisConfig, Config, ScoreConfig, SweepConfig
from gpuclust.errors import DeviceLost, GpuclustError, JobError
from gpuclust.metrics.agreement import agreement, contingency
from gpuclust.metrics.gap import Gap, expected_seconds, gap_statistic
from gpuclust.model.records import NOISE
from gpuclust.pipeline import job as jobs
from gpuclust.pipeline.context import Job, Outcome, Result, RunContext
from gpuclust.pipeline.run_log import labels_digest
from gpuclust.reducers.neighbours import distance_warnings
from gpuclust.tracking.recorder import FINISHED

if TYPE_CHECKING:
    from gpuclust.algorithms.cluster import Clustering

# The gap statistic is computed for at least this many clusters where the sweep tried fewer than three numbers.
MIN_GAP_SIZE = 10
# Reference sets of the gap statistic where no other criterion gives a number.
AUTOMATIC_REFERENCES = 5
# How much higher the relative validity of an HDBSCAN job must be than that of the other algorithms to be preferred.
VALIDITY_MARGIN = 0.1


@dataclass(frozen=True)
class SweepSummary:
    """The choice (None where no job finished, or where nothing ranks the spaces that were clustered: ``unranked``), the verdict,
    and what led to them."""

    selection: Selection | None
    verdict: Verdict
    unranked: Unranked | None = None
    gap: Gap | None = None
    comparisons: tuple[Comparison, ...] = ()
    validity: Mapping[str, float] | None = None

    @property
    def reason(self) -> str:
        """Why this job was chosen, or why none was."""
        made = self.selection or self.unranked
        return made.reason if made else "no job finished, so none was chosen"

    def with_coverage(self, text: str) -> SweepSummary:
        """The summary, whose verdict says which jobs were not run."""
        return replace(self, verdict=replace(self.verdict, text=f"{self.verdict.text} {text}".strip()))

    def documents(self) -> dict[str, Any]:
        """Name of a JSON file -> its content."""
        found: dict[str, Any] = {"verdict": self.verdict.to_dict()}
        if self.gap is not None:
            found["gap"] = self.gap.to_dict()
        if self.comparisons:
            found["comparison"] = {
                "pairs": [c.to_dict() for c in self.comparisons],
                "relative_validity": dict(self.validity or {}),
            }
        return found


@dataclass(frozen=True)
class BestOfAlgorithm:
    """The best job of one algorithm, and its clustering."""

    outcome: Outcome
    clustering: Clustering

    @property
    def candidate(self) -> Candidate:
        """The candidate for `gpuclust.analysis.selection`."""
        return candidate(self.outcome)


def candidate(outcome: Outcome) -> Candidate:
    """A finished job as a candidate for `gpuclust.analysis.selection`."""
    job = outcome.job
    return Candidate(job.name, job.config.cluster.name, outcome.metrics, job.key_of_matrix, job.space)


def choose(finished: Sequence[Outcome], sweep: SweepConfig) -> Selection | Unranked | None:
    """The choice among finished jobs by ``sweep.metric`` and ``sweep.require``; None where there is no job."""
    return select_across([candidate(o) for o in finished], sweep.metric, requirements(sweep.require))


def _satisfies(outcome: Outcome, sweep: SweepConfig) -> bool:
    return all(requirement.holds(outcome.metrics) for requirement in requirements(sweep.require))


def leaders(finished: Sequence[Outcome], sweep: SweepConfig) -> list[Outcome]:
    """The best finished job, or the best of each space where these cannot be ranked."""
    choice = choose(finished, sweep)
    if choice is None:
        return []
    return [finished[i] for i in (choice.best if isinstance(choice, Unranked) else (choice.index,))]


def best_of_each(outcomes: Sequence[Outcome], metric: str) -> list[Outcome]:
    """The best finished job of each algorithm, by the metric where it has it, else by the algorithm's own. All of one space."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.status == FINISHED:
            groups.setdefault(outcome.job.config.cluster.name, []).append(outcome)
    best = []
    for group in groups.values():
        has = any(metric in o.metrics for o in group)
        chosen = select([candidate(o) for o in group], metric if has else AUTO)
        assert chosen is not None
        best.append(group[chosen.index])
    return best


def conclude(outcomes: Sequence[Outcome], curves: Curves, config: Config, context: RunContext) -> SweepSummary:
    """Choose among the finished jobs of a sweep, compare the best of each algorithm, and judge the number of clusters.

    Jobs of several spaces (rows, features, scales or dimensions) are ranked by scores that compare between spaces, or not at
    all (`gpuclust.analysis.selection.select_across`). Across algorithms ``sweep.metric=auto`` chooses by silhouette, unless
    `gpuclust.analysis.selection.prefer_hdbscan` has reason to prefer the HDBSCAN job.
    """
    finished = [o for o in outcomes if o.status == FINISHED]
    choice = choose(finished, config.sweep)
    unranked = choice if isinstance(choice, Unranked) else None
    selection = choice if isinstance(choice, Selection) else None
    spaces = {o.job.key_of_matrix for o in finished}
    space = finished[selection.index].job.key_of_matrix if selection else None
    finalists = _finalists([o for o in finished if o.job.key_of_matrix == space], config, context)
    comparisons = tuple(compare_all({f.outcome.job.name: f.clustering.labels for f in finalists}))
    chosen = finished[selection.index] if selection else None
    structure = _structure(chosen.job, context) if chosen else None
    preferred, validity = None, None
    if config.sweep.metric == AUTO and len(finalists) > 1 and len(spaces) == 1:
        preferred, validity = _preferred(finalists, comparisons, context)
        if preferred is not None and not supported(preferred, validity, curves, structure):
            preferred = None
    index = next((i for i, o in enumerate(finished) if preferred and o.job.name == preferred.name), None)
    if preferred is not None and index is not None and _satisfies(finished[index], config.sweep):
        selection, chosen = Selection(index, "relative_validity", preferred.reason), finished[index]
    curves = _with_baselines(curves, finished, context)
    fit = _fit_to_rows(chosen, finalists, structure, context) if chosen else None
    gap = _gap(finished, chosen, config.analysis.gap, context) if chosen and config.analysis.gap else None
    found = verdict(curves, structure=structure, gap=gap, preferred=preferred, fit=fit)
    if chosen and gap is None and structure is None and found.kind in (NONE, OPEN):
        gap = _gap(finished, chosen, AUTOMATIC_REFERENCES, context)
        found = verdict(curves, gap=gap, preferred=preferred, fit=fit)
    if chosen and (warned := distance_warnings(chosen.job.config.reduce)):
        text = f"{found.text} This is of the positions after reduce={chosen.job.config.reduce.method}, not of the data."
        found = replace(found, text=text, because=(*warned, *found.because))
    return SweepSummary(selection, found, unranked, gap, comparisons, validity)


def supported(
    preferred: Preferred, validity: Mapping[str, float] | None, curves: Curves, structure: Structure | None
) -> bool:
    """Whether the preference for an HDBSCAN job holds: its relative validity leads by a margin, and its number of clusters is the one
    that the rows show, or, where these were not looked at, that of a plateau."""
    values = dict(validity or {})
    own = values.pop(preferred.name, 0.0)
    if own - max(values.values(), default=-1.0) < VALIDITY_MARGIN:
        return False
    if structure is not None:
        return structure.n_groups == preferred.n_clusters
    return any(preferred.n_clusters in criterion.sizes for criterion in plateau_criteria(curves))


def _structure(job: Job, context: RunContext) -> Structure | None:
    """The groups that a sample of the job's rows shows."""
    matrix = jobs.get_matrix(job, context)

    def find() -> Structure | None:
        context.display.stage("looking for groups in the rows")
        rows, raw = _sample(job, context)
        found = find_structure(raw, seed=job.config.seed, transform=lambda raw: matrix.preparation.transform(raw)[0])
        return None if found is None else replace(found, rows=rows[found.rows])

    return context.cache.get_or_create(f"structure-{matrix.key}-{job.config.seed}", find)


def _sample(job: Job, context: RunContext) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of a seeded sample of the job's rows, and their features in original units, float64 on the host."""
    table = jobs.get_table(job, context)
    rows = sampled_rows(table.n_rows, len(table.features), job.config.seed)
    if table.vectors:
        return rows, feature_blocks(table, context.backend.frames).take(rows)
    raw = context.backend.frames.to_matrix(table.frame.iloc[rows], table.features)
    return rows, context.backend.to_host(raw)


def _with_baselines(curves: Curves, finished: Sequence[Outcome], context: RunContext) -> Curves:
    """The curves, with a fit without clusters on each line of BIC that starts later: more clusters are worth nothing unless they
    beat it."""
    found = {metric: dict(lines) for metric, lines in curves.items()}
    for line, points in curves.get("bic", {}).items():
        size, bic = points[0][0], points[0][1]
        for outcome in finished:
            request = outcome.job.config.cluster
            algorithm = algorithm_of(request)
            if algorithm.baseline is None or outcome.metrics.get("bic") != bic:
                continue
            baseline = algorithm.baseline(request)
            smallest = getattr(baseline, str(algorithm.size_key))
            if getattr(request, str(algorithm.size_key)) != size or size <= smallest:
                continue
            context.display.stage("fitting one component, to compare")
            matrix, seed = jobs.get_matrix(outcome.job, context), outcome.job.config.seed
            data = FitInput(
                matrix.X,
                seed,
                context.backend,
                context.cache,
                matrix.key,
                distinct=matrix.distinct_to_fit,
                weight=matrix.weight,
            )
            (fit,) = fit_configs(data, [baseline])
            if isinstance(fit, FitResult):
                for metric in {"bic", "icl"} & found.keys():
                    if line in found[metric]:
                        found[metric][line] = [(smallest, fit.metrics[metric], 0.0), *found[metric][line]]
            break
    return found


def _fit_to_rows(
    chosen: Outcome, finalists: Sequence[BestOfAlgorithm], structure: Structure | None, context: RunContext
) -> FitToRows | None:
    """How the chosen clustering relates to the groups that the rows show, and to columns of few values; None where there is
    nothing to compare it with, or it cannot be computed again."""
    rows, raw = _sample(chosen.job, context)
    columns = discrete_columns(raw)
    if not columns and (structure is None or structure.n_groups < 2):
        return None
    clustering = chosen.clustering
    clustering = clustering or next((f.clustering for f in finalists if f.outcome is chosen), None)
    try:
        labels = (clustering or rebuild(chosen.job, context, expect=chosen.labels).clustering).labels
    except DeviceLost:
        raise
    except GpuclustError:
        return None
    features = jobs.get_table(chosen.job, context).features
    same = {features[j]: _ami(labels[rows], np.unique(raw[:, j], return_inverse=True)[1]) for j in columns}
    column = max(same, key=lambda name: same[name], default=None)
    groups = None if structure is None else _ami(labels[structure.rows], structure.labels)
    return FitToRows(
        chosen.job.name,
        column=column if column is not None and same[column] > SAME_AS_COLUMN else None,
        column_ami=same[column] if column is not None else 0.0,
        groups_ami=groups,
    )


def _ami(labels: np.ndarray, others: np.ndarray) -> float:
    """Adjusted mutual information of two labelings over the rows that the first does not call noise."""
    placed = labels != NOISE
    return agreement(contingency(labels[placed], others[placed]).table).ami if placed.any() else 0.0


def _finalists(finished: Sequence[Outcome], config: Config, context: RunContext) -> list[BestOfAlgorithm]:
    """The best job of each algorithm in one space with its clustering, computed again where its arrays are gone; none if there is
    only one algorithm."""
    best = best_of_each(finished, config.sweep.metric)
    if not config.analysis.compare or len(best) < 2:
        return []
    found = []
    for outcome in best:
        if outcome.clustering is not None:
            found.append(BestOfAlgorithm(outcome, outcome.clustering))
            continue
        context.display.stage(f"computing {outcome.job.name} again, to compare")
        try:
            found.append(BestOfAlgorithm(outcome, rebuild(outcome.job, context, expect=outcome.labels).clustering))
        except DeviceLost:
            raise
        except GpuclustError:  # recorded elsewhere, or by other versions: it cannot be compared
            continue
    return found


def _preferred(
    finalists: Sequence[BestOfAlgorithm], comparisons: Sequence[Comparison], context: RunContext
) -> tuple[Preferred | None, dict[str, float] | None]:
    """The finalist of the algorithms that follow the density (HDBSCAN, DBSCAN) if it is to be preferred to the others, and the relative
    validity of all on the spanning tree of the first of them."""
    by_density = [f for f in finalists if algorithm_of(f.outcome.job.config.cluster).density_validity]
    if not by_density or len({f.outcome.job.key_of_matrix for f in finalists}) > 1:
        return None, None
    job = by_density[0].outcome.job
    matrix = jobs.get_matrix(job, context)
    limit = context.memory_limit(job)
    data = FitInput(matrix.X, job.config.seed, context.backend, context.cache, matrix.key, memory=limit)
    measure = resolve(str(algorithm_of(job.config.cluster).density_validity))
    values = measure(data, job.config.cluster, [f.clustering.labels for f in finalists])
    validity = {f.outcome.job.name: value for f, value in zip(finalists, values, strict=True)}
    dense = max(by_density, key=lambda f: validity[f.outcome.job.name])
    name = dense.outcome.job.name
    same = {
        (c.second if c.first == name else c.first): c.without_noise.ari
        for c in comparisons
        if name in (c.first, c.second)
    }
    others = [f.candidate for f in finalists if f not in by_density]
    reason = prefer_hdbscan(dense.candidate, others, validity, same)
    label = algorithm_of(dense.outcome.job.config.cluster).label
    return (Preferred(name, dense.clustering.n_clusters, reason, label) if reason else None), validity


def _gap(finished: Sequence[Outcome], chosen: Outcome, n_references: int, context: RunContext) -> Gap:
    """The gap statistic of the chosen job's matrix, at the numbers of clusters that the sweep tried."""
    job = chosen.job
    matrix = jobs.get_matrix(job, context)
    counting = [(o.job.swept, algorithm_of(o.job.config.cluster)) for o in finished]
    sizes = [k for swept, a in counting if a.counts_clusters and isinstance(k := swept.get(str(a.size_axis)), int)]
    largest = max(sizes, default=0)
    largest = largest if len(set(sizes)) >= 3 else max(largest, MIN_GAP_SIZE)
    fits = [(o.job.config.cluster, o.metrics["fit_seconds"]) for o in finished if "fit_seconds" in o.metrics]
    seconds = expected_seconds(fits, n_rows=matrix.n_rows, n_references=n_references)
    cost = f", about {seconds:.0f} s" if seconds >= 1 else ""
    text = f"gap statistic: {n_references} reference sets x {largest} sizes{cost}"
    context.display.stage(text)
    return gap_statistic(
        matrix.X,
        [largest],
        n_references=n_references,
        seed=job.config.seed,
        backend=context.backend,
        progress=lambda done: context.display.stage(text, done),
    )


def rebuild(job: Job, context: RunContext, *, expect: str | None) -> Result:
    """Compute a recorded job again without scores and without recording it.

    Raises JobError when its labels are not the recorded ones.
    """
    unscored = replace(job.config, score=ScoreConfig(silhouette=False), analysis=AnalysisConfig())
    (result,) = jobs.compute([replace(job, config=unscored)], context)
    if isinstance(result, Exception):
        raise result
    if expect is not None and labels_digest(result.clustering) != expect:
        raise JobError(
            f"{job.name} does not give the recorded labels when computed again here (other versions or another "
            "device?); run it again with sweep.resume=false tracking.models=all"
        )
    return result
