"""What a sweep comes to: the best job of each algorithm, how they agree, the gap, the choice and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpuclust import job as jobs
from gpuclust.analysis.compare import Comparison, compare_all
from gpuclust.analysis.gap import MOST_ROWS, N_INIT, Gap, gap_statistic
from gpuclust.analysis.selection import Candidate, Curves, Selection, Unranked, prefer_density, select, select_across
from gpuclust.analysis.verdict import Preferred, Verdict, verdict
from gpuclust.compute.store import tree_key
from gpuclust.config import AUTO, AnalysisConfig, Config, HdbscanConfig, KMeansConfig, ScoreConfig
from gpuclust.desk import Desk, Job, Outcome, Result
from gpuclust.errors import GpuclustError, JobError
from gpuclust.record import labels_digest
from gpuclust.tracking.recorder import FINISHED

if TYPE_CHECKING:
    from gpuclust.cluster import Clustering

# The gap is looked at up to this size at least, where the sweep tried no numbers of clusters.
LEAST_GAP_SIZE = 10


@dataclass(frozen=True)
class Conclusion:
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
class Finalist:
    """The best job of one algorithm, and its clustering."""

    outcome: Outcome
    clustering: Clustering

    @property
    def candidate(self) -> Candidate:
        """What selection looks at."""
        return candidate(self.outcome)


def candidate(outcome: Outcome) -> Candidate:
    """What selection looks at of a finished job."""
    job = outcome.job
    return Candidate(job.name, job.config.cluster.name, outcome.metrics, job.key_of_matrix, job.space)


def leaders(finished: Sequence[Outcome], metric: str) -> list[Outcome]:
    """The finished job that is ahead, or the best of each space where they cannot be ranked."""
    ahead = select_across([candidate(o) for o in finished], metric)
    if ahead is None:
        return []
    return [finished[i] for i in (ahead.best if isinstance(ahead, Unranked) else (ahead.index,))]


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


def conclude(outcomes: Sequence[Outcome], curves: Curves, config: Config, desk: Desk) -> Conclusion:
    """Choose among the finished jobs of a sweep, compare the best of each algorithm, and say what the sweep found.

    Jobs of several spaces (other rows, features, scales or dimensions) are ranked by what can be compared between them, or not at
    all (`gpuclust.analysis.selection.select_across`). Across algorithms ``sweep.metric=auto`` chooses by silhouette, unless
    `gpuclust.analysis.selection.prefer_density` has reason to prefer the HDBSCAN job.
    """
    finished = [o for o in outcomes if o.status == FINISHED]
    choice = select_across([candidate(o) for o in finished], config.sweep.metric)
    unranked = choice if isinstance(choice, Unranked) else None
    selection = choice if isinstance(choice, Selection) else None
    spaces = {o.job.key_of_matrix for o in finished}
    space = finished[selection.index].job.key_of_matrix if selection else None
    finalists = _finalists([o for o in finished if o.job.key_of_matrix == space], config, desk)
    comparisons = tuple(compare_all({f.outcome.job.name: f.clustering.labels for f in finalists}))
    preferred, validity = None, None
    if config.sweep.metric == AUTO and len(finalists) > 1 and len(spaces) == 1:
        preferred, validity = _preferred(finalists, comparisons, desk)
    if preferred is not None:
        chosen = next(i for i, o in enumerate(finished) if o.job.name == preferred.name)
        selection = Selection(chosen, "relative_validity", preferred.reason)
    gap = None
    if selection is not None and config.analysis.gap:
        gap = _gap(finished, finished[selection.index], config.analysis.gap, desk)
    found = verdict(curves, gap=gap, preferred=preferred)
    return Conclusion(selection, found, unranked, gap, comparisons, validity)


def _finalists(finished: Sequence[Outcome], config: Config, desk: Desk) -> list[Finalist]:
    """The best job of each algorithm in one space with its clustering, computed again where its arrays are gone; none if there is
    only one algorithm."""
    best = best_of_each(finished, config.sweep.metric)
    if not config.analysis.compare or len(best) < 2:
        return []
    found = []
    for outcome in best:
        if outcome.clustering is not None:
            found.append(Finalist(outcome, outcome.clustering))
            continue
        desk.display.stage(f"computing {outcome.job.name} again, to compare")
        try:
            found.append(Finalist(outcome, rebuild(outcome.job, desk, expect=outcome.labels).clustering))
        except GpuclustError:  # recorded elsewhere, or by other versions: it cannot be compared
            continue
    return found


def _preferred(
    finalists: Sequence[Finalist], comparisons: Sequence[Comparison], desk: Desk
) -> tuple[Preferred | None, dict[str, float] | None]:
    """The HDBSCAN finalist if it is to be preferred, and the relative validity of all on its spanning tree."""
    dense = next((f for f in finalists if isinstance(f.outcome.job.config.cluster, HdbscanConfig)), None)
    if dense is None or len({f.outcome.job.key_of_matrix for f in finalists}) > 1:
        return None, None
    from gpuclust.compute.linkage_rank import relative_validity

    edges = _tree(dense.outcome.job, desk).edges
    validity = {f.outcome.job.name: relative_validity(edges, f.clustering.labels) for f in finalists}
    name = dense.outcome.job.name
    same = {
        (c.second if c.first == name else c.first): c.without_noise.ari
        for c in comparisons
        if name in (c.first, c.second)
    }
    others = [f.candidate for f in finalists if f is not dense]
    reason = prefer_density(dense.candidate, others, validity, same)
    return (Preferred(name, dense.clustering.n_clusters, reason) if reason else None), validity


def _tree(job: Job, desk: Desk) -> Any:
    """The spanning tree of an HDBSCAN job, from the store where it still is there."""
    matrix = jobs.prepared(job, jobs.load(job, desk), desk)
    request = job.config.cluster
    assert isinstance(request, HdbscanConfig)
    name = tree_key(matrix.key, request.min_samples)
    return desk.store.get(name, lambda: desk.backend.hdbscan_tree(matrix.X, request.min_samples))


def _gap(finished: Sequence[Outcome], chosen: Outcome, n_references: int, desk: Desk) -> Gap:
    """The gap statistic of the chosen job's matrix, at the numbers of clusters that the sweep tried."""
    job = chosen.job
    matrix = jobs.prepared(job, jobs.load(job, desk), desk)
    tried = [o.job.swept.get("cluster.n_clusters") for o in finished]
    sizes = [k for k in tried if isinstance(k, int)]
    largest = max(sizes, default=0)
    largest = largest if len(set(sizes)) >= 3 else max(largest, LEAST_GAP_SIZE)
    text = (
        f"gap statistic: {n_references} reference sets x {largest} sizes{_cost(finished, matrix.n_rows, n_references)}"
    )
    desk.display.stage(text)
    return gap_statistic(
        matrix.X,
        [largest],
        n_references=n_references,
        seed=job.config.seed,
        backend=desk.backend,
        progress=lambda done: desk.display.stage(text, done),
    )


def _cost(finished: Sequence[Outcome], n_rows: int, n_references: int) -> str:
    """``, about 12 s``, from what the K-Means jobs of the sweep took; nothing where it had none."""
    seconds = {
        o.job.config.cluster.n_clusters: o.metrics["fit_seconds"] * N_INIT / o.job.config.cluster.n_init
        for o in finished
        if isinstance(o.job.config.cluster, KMeansConfig) and "fit_seconds" in o.metrics
    }
    total = sum(seconds.values()) * (n_references + 1) * min(n_rows, MOST_ROWS) / n_rows
    return f", about {total:.0f} s" if total >= 1 else ""


def rebuild(job: Job, desk: Desk, *, expect: str | None) -> Result:
    """Compute a recorded job again without scores and without recording it.

    Raises JobError when its labels are not the recorded ones.
    """
    unscored = replace(job.config, score=ScoreConfig(silhouette=False), analysis=AnalysisConfig())
    (result,) = jobs.compute([replace(job, config=unscored)], desk)
    if isinstance(result, Exception):
        raise result
    if expect is not None and labels_digest(result.clustering) != expect:
        raise JobError(
            f"{job.name} does not give the recorded labels when computed again here (other versions or another "
            "device?); run it again with sweep.resume=false tracking.models=all"
        )
    return result
