"""The choice of a job of a sweep and its reason in words; and the best point of each curve of a sweep."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gpuclust.algorithms import registry
from gpuclust.config import AUTO, COMPARISON, did_you_mean
from gpuclust.metrics.validity import HIGHER_IS_BETTER

ACROSS = "silhouette"
# The silhouette without the noise would reward HDBSCAN for leaving out whatever is hard to place.
ACROSS_WITH_NOISE = "silhouette_with_noise"
# Taken, in this order, when no job has the metric that was meant.
FALLBACKS = ("silhouette", "calinski_harabasz", "bic", "relative_validity")
# Scores that do not depend on the space that was clustered (its rows, features, scale and dimensions), so that the best jobs
# of several spaces can be ranked by them; the first that all of them have decides.
SPACE_FREE = ("reference_ami", "prediction_strength", "stability_jaccard_min")
# Metrics of the rows in clusters alone; above this share of noise they are no reason to choose a job.
OF_ROWS_IN_CLUSTERS = ("relative_validity",)
MAX_NOISE_BY_VALIDITY = 0.3
# So many spaces are named in a reason.
SPACES_NAMED = 6

# Metric -> line -> (size, value, standard error) by size: what a sweep's jobs measured.
Points = Sequence[tuple[float, float, float]]
Curves = Mapping[str, Mapping[str, Points]]

# HDBSCAN's clusters must leave no more than this share of the rows out to stand for all of them.
MAX_SHARE_IN_ONE_CLUSTER = 0.9
MAX_NOISE = 0.2
# Two clusterings whose rows in clusters agree at least this well (ARI) found the same groups.
SAME_GROUPS = 0.9


# How a condition compares a metric with a number.
COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "=": operator.eq,
}  # fmt: skip


@dataclass(frozen=True)
class Requirement:
    """``METRIC<NUMBER`` of ``sweep.require``: what a metric of a job must satisfy so that the job can be chosen."""

    metric: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric}{self.sign}{self.bound:g}"

    def holds(self, metrics: Mapping[str, float]) -> bool:
        """Whether the metric was measured and satisfies the requirement."""
        return self.metric in metrics and COMPARISONS[self.sign](metrics[self.metric], self.bound)


def requirements(texts: Iterable[str]) -> tuple[Requirement, ...]:
    """The requirements of ``sweep.require``, as in ``[noise_fraction<0.3, n_clusters>=4]``, which `gpuclust.config.Comparisons` allows."""
    parts = [COMPARISON.fullmatch(text) for text in texts]
    return tuple(Requirement(p["metric"], p["sign"], float(p["number"])) for p in parts if p is not None)


@dataclass(frozen=True)
class Candidate:
    """A finished job: its name, its algorithm, its metrics, the key of the space that it was clustered in and what sets that
    space apart, in words."""

    name: str
    algorithm: str
    metrics: Mapping[str, float]
    space: str = ""
    space_name: str = ""


@dataclass(frozen=True)
class Selection:
    """The chosen candidate's place in the list, by which metric, and the reason in words. ``within``: the metric that ranks the
    candidates of one space, where ``metric`` ranked the best of several."""

    index: int
    metric: str
    reason: str
    within: str | None = None


@dataclass(frozen=True)
class Unranked:
    """No choice: the candidates are of several spaces that nothing can rank (``best``: the best of each by its place in the list), or none
    satisfies the requirements (``best`` is empty). ``metric`` ranks within a space; ``reason`` is in words."""

    best: tuple[int, ...]
    metric: str
    reason: str


@dataclass(frozen=True)
class Optimum:
    """The best point of a curve. ``at_edge``: it is the largest size tried, so a larger one may be better still."""

    size: float
    value: float
    at_edge: bool


def default_metric(algorithms: Sequence[str]) -> str:
    """That of the algorithm; across algorithms, and for one that is not installed here, the silhouette, with the noise as a
    cluster of its own where one of them has noise."""
    known = [registered[name] for name in {*algorithms} if name in (registered := registry.algorithms())]
    if len(known) == len({*algorithms}) == 1:
        return known[0].default_metric
    return ACROSS_WITH_NOISE if any(algorithm.has_noise for algorithm in known) else ACROSS


def better(metric: str, one: float, other: float) -> bool:
    """Whether ``one`` is better than ``other`` by the metric."""
    return one > other if HIGHER_IS_BETTER[metric] else one < other


def select(candidates: Sequence[Candidate], metric: str = AUTO) -> Selection | None:
    """The best candidate of one space, or None when there is none; ties go to fewer clusters, then to the earlier job.

    ``silhouette`` counts noise as a cluster of its own where a candidate has noise, and HDBSCAN's relative validity gives way
    to that silhouette where it would choose a job with more than 30 % noise.
    """
    if not candidates:
        return None
    wanted = default_metric([c.algorithm for c in candidates]) if metric == AUTO else metric
    if wanted == ACROSS and any(c.metrics.get("noise_fraction", 0.0) > 0 for c in candidates):
        wanted = ACROSS_WITH_NOISE
    measured = next((m for m in (wanted, *FALLBACKS) if any(m in c.metrics for c in candidates)), None)
    if measured is None:
        return Selection(0, wanted, f"{candidates[0].name}: no job has {_words(wanted)}, so the first was taken")
    ranked = _ranked(candidates, measured)
    why = "" if measured == wanted else f"{_words(wanted)} was not measured"
    if metric == AUTO and measured in OF_ROWS_IN_CLUSTERS:
        first = candidates[ranked[0]]
        by_silhouette = _ranked(candidates, ACROSS_WITH_NOISE)
        if first.metrics.get("noise_fraction", 0.0) > MAX_NOISE_BY_VALIDITY and by_silhouette:
            why = f"by {_words(measured)} it would be {first.name}, with {first.metrics['noise_fraction']:.0%} noise"
            if by_silhouette[0] == ranked[0]:
                why = ""
            ranked, measured = by_silhouette, ACROSS_WITH_NOISE
    return Selection(ranked[0], measured, _reason(candidates, ranked, measured, why))


def _ranked(candidates: Sequence[Candidate], metric: str) -> list[int]:
    """The places of the candidates that have the metric, the best first."""
    sign = -1 if HIGHER_IS_BETTER[metric] else 1
    return sorted(
        (i for i, c in enumerate(candidates) if metric in c.metrics),
        key=lambda i: (sign * candidates[i].metrics[metric], candidates[i].metrics.get("n_clusters", 0), i),
    )


def select_across(
    candidates: Sequence[Candidate], metric: str = AUTO, require: Sequence[Requirement] = ()
) -> Selection | Unranked | None:
    """The best of the candidates that satisfy the requirements, of one or several spaces; `Unranked` where none satisfies them, or where
    several spaces have no score that compares them.

    Silhouette, BIC and most other scores depend on the space: one feature in its raw unit, or fewer components, raises
    them without any better groups. So the metric ranks within each space, and the best of each are then ranked by the first
    of `SPACE_FREE` that all of them have.
    """
    left = [i for i, c in enumerate(candidates) if all(r.holds(c.metrics) for r in require)]
    if not require or not candidates:
        return _select_across(candidates, metric)
    if not left:
        return Unranked((), ACROSS if metric == AUTO else metric, _unsatisfied_reason(candidates, require))
    found = _select_across([candidates[i] for i in left], metric)
    if isinstance(found, Unranked):
        return replace(found, best=tuple(left[i] for i in found.best))
    assert found is not None
    n_out = len(candidates) - len(left)
    which = (
        f"; {n_out} job{'s do' if n_out > 1 else ' does'} not satisfy {', '.join(map(str, require))}" if n_out else ""
    )
    return replace(found, index=left[found.index], reason=found.reason + which)


def _unsatisfied_reason(candidates: Sequence[Candidate], require: Sequence[Requirement]) -> str:
    """For each requirement, how near the candidates come."""
    near = []
    for r in require:
        values = [c.metrics[r.metric] for c in candidates if r.metric in c.metrics]
        known = sorted({m for c in candidates for m in c.metrics})
        if values:
            near.append(f"{_words(r.metric)} is {min(values):.4g} to {max(values):.4g}")
        else:
            near.append(f"no job has the metric {r.metric}{did_you_mean(r.metric, known)}")
    return f"no job is chosen, because none satisfies {', '.join(map(str, require))} ({'; '.join(near)}); change sweep.require"


def _select_across(candidates: Sequence[Candidate], metric: str) -> Selection | Unranked | None:
    """The best candidate of one or several spaces."""
    spaces: dict[str, list[int]] = {}
    for i, c in enumerate(candidates):
        spaces.setdefault(c.space, []).append(i)
    if len(spaces) < 2 or metric in SPACE_FREE:
        return select(candidates, metric)
    best: list[int] = []
    by = metric
    for places in spaces.values():
        found = select([candidates[i] for i in places], metric)
        assert found is not None
        best.append(places[found.index])
        by = found.metric
    finalists = [candidates[i] for i in best]
    common = next((m for m in SPACE_FREE if all(m in c.metrics for c in finalists)), None)
    if common is None:
        return Unranked(tuple(best), by, _unranked_reason(finalists, by))
    ranked = _ranked(finalists, common)
    why = f"{len(best)} spaces, whose {_words(by)} cannot be compared, each with its best job by it"
    return Selection(best[ranked[0]], common, _reason(finalists, ranked, common, why), within=by)


def _unranked_reason(finalists: Sequence[Candidate], metric: str) -> str:
    """What cannot be ranked, the best of each space, and how to take one or to make them comparable."""
    shown = [
        f"{c.name} ({_words(metric)} {c.metrics[metric]:,.4f})" if metric in c.metrics else c.name for c in finalists
    ]
    more = f", and {len(shown) - SPACES_NAMED} more" if len(shown) > SPACES_NAMED else ""
    spaces = ", ".join(c.space_name for c in finalists[:SPACES_NAMED])
    key, varies, _ = finalists[0].space_name.partition("=")
    where = f"`gpuclust export best --where {key}=VALUE`" if varies else "`gpuclust export RUN_ID`"
    return (
        f"no job is chosen, because {_words(metric)} cannot be compared between different rows, features or scales "
        f"({spaces}{more}); the best of each: {', '.join(shown[:SPACES_NAMED])}{more}. Take one with {where}, or rank them by what "
        "can be compared: score=stability, or analysis.reference=COLUMN"
    )


def _words(metric: str) -> str:
    """A metric's name as people write it."""
    return metric.upper() if metric in ("bic", "aic", "icl", "dbcv") else metric.replace("_", " ")


def _number(value: float) -> str:
    """Four decimals, none where they say nothing: ``0.1554``, ``1,441,122``."""
    return f"{value:,.0f}" if abs(value) >= 100_000 else f"{value:,.4f}"


def _reason(candidates: Sequence[Candidate], ranked: Sequence[int], metric: str, why: str) -> str:
    best = candidates[ranked[0]]
    word = "highest" if HIGHER_IS_BETTER[metric] else "lowest"
    label = _words(metric)
    value = best.metrics[metric]
    error = best.metrics.get("silhouette_se", 0.0) if metric == "silhouette" else 0.0
    text = f"{best.name} has the {word} {label} ({_number(value)}{f' ± {error:.4f}' if error > 0 else ''})"
    if len(ranked) > 1:
        second = candidates[ranked[1]]
        text += f" of {len(ranked)} jobs; next is {second.name} ({_number(second.metrics[metric])})"
    without = [c for i, c in enumerate(candidates) if i not in ranked]
    if without and all(c.metrics.get("n_clusters", 2) < 2 for c in without):
        names = (
            ", ".join(c.name for c in without[:SPACES_NAMED])
            if len(without) <= SPACES_NAMED
            else f"{len(without)} jobs"
        )
        text += f"; {names} found fewer than two clusters and {'is' if len(without) == 1 else 'are'} not ranked"
    elif without:
        many = len(without) > 1
        text += f"; {len(without)} job{'s' if many else ''} without {label} {'were' if many else 'was'} not compared"
    return f"{text} ({why})" if why else text


def prefer_hdbscan(
    density: Candidate, others: Sequence[Candidate], validity: Mapping[str, float], same: Mapping[str, float]
) -> str | None:
    """Why an HDBSCAN job is to be preferred to the best jobs of the other algorithms, in words, or None.

    Silhouette takes clusters to be convex, so across algorithms it cannot see that K-Means cut a bent one in two. What
    can be held against one another is ``validity``: by job name, the relative validity (DBCV approximated on one
    spanning tree, that of the HDBSCAN job) of each finalist's labels. HDBSCAN is preferred to the others where

    - its validity is 0 or more and that of every other is below: theirs cut through dense regions, its own do not;
    - none of its clusters holds nearly everything (nine rows in ten): cutting a corner off is no structure;
    - it leaves at most a fifth of the rows as noise; and
    - no other found the same groups: ``same`` is the ARI of each with it over the rows that it clusters, all < 0.9.
    """
    own = validity.get(density.name, 0.0)
    noise = density.metrics.get("noise_fraction", 0.0)
    found = int(density.metrics.get("n_clusters", 0))
    lopsided = density.metrics.get("largest_fraction", 0.0) > MAX_SHARE_IN_ONE_CLUSTER
    if found < 2 or own < 0 or noise > MAX_NOISE or lopsided or not others:
        return None
    if any(validity.get(o.name, 0.0) >= 0 or same.get(o.name, 1.0) >= SAME_GROUPS for o in others):
        return None
    rest = ", ".join(f"{o.name} {validity[o.name]:.2f}" for o in others)
    return (
        f"{density.name} follows the density: on one spanning tree its relative validity is {own:.2f}, that of {rest}, "
        f"whose borders cross dense regions; {noise:.0%} of the rows are noise"
    )


def optimum(metric: str, points: Points) -> Optimum | None:
    """The best point of a curve by the metric, ties to the smaller size; None without a point."""
    ordered = sorted(points)
    if not ordered:
        return None
    best = ordered[0]
    for point in ordered[1:]:
        if better(metric, point[1], best[1]):
            best = point
    return Optimum(best[0], best[1], best[0] == ordered[-1][0])


def knee(points: Points) -> int | None:
    """The knee of a falling convex curve such as inertia, or None where it has none.

    Kneedle (Satopaa, Albrecht, Irwin and Raghavan 2011), by kneed; every size must be there once.
    """
    import warnings

    from kneed import KneeLocator

    ordered = sorted(points)
    if len(ordered) < 3 or ordered[0][1] <= ordered[-1][1]:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the result is None where there is no knee
        found = KneeLocator(
            [p[0] for p in ordered], [p[1] for p in ordered], curve="convex", direction="decreasing"
        ).knee
    return None if found is None else int(found)
