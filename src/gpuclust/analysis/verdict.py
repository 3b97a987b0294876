"""How many clusters a sweep found, in words: a clear number, several plausible ones, or none, from stated rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from gpuclust.analysis.criteria import (
    BIC,
    MIN_SIZES,
    PLATEAU,
    SILHOUETTE,
    STRENGTH,
    Criterion,
    gap_criterion,
    index_notes,
    mixture,
    partition_criteria,
    plateau_criteria,
    plateau_lines,
    prediction_strength,
    sizes_tried,
)
from gpuclust.analysis.selection import Curves
from gpuclust.analysis.structure import Structure
from gpuclust.metrics.gap import Gap

CLEAR, SEVERAL, NONE, OPEN = "clear", "several", "none", "open"
# Adjusted mutual information from which a clustering is a column of few values, and below which it has other groups than the rows.
SAME_AS_COLUMN, MIN_AGREEMENT = 0.9, 0.7


@dataclass(frozen=True)
class Preferred:
    """The job that `gpuclust.analysis.selection.prefer_hdbscan` prefers, its clusters, why, and its algorithm in words."""

    name: str
    n_clusters: int
    reason: str
    label: str = "HDBSCAN"


@dataclass(frozen=True)
class FitToRows:
    """How the chosen clustering of a sweep relates to its rows. ``column``: a discrete column that it reproduces, with an adjusted
    mutual information of ``column_ami``; ``groups_ami``: the same with the groups that the rows show, None where unknown."""

    name: str
    column: str | None = None
    column_ami: float = 0.0
    groups_ami: float | None = None


@dataclass(frozen=True)
class Verdict:
    """The answer in words, its kind (``clear``, ``several``, ``none``, or ``open`` where the sizes tried do not settle it), the
    numbers of clusters it names, the best supported first, and the figures that led to it."""

    text: str
    kind: str
    sizes: tuple[int, ...] = ()
    because: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        return asdict(self)


def verdict(
    curves: Curves,
    *,
    structure: Structure | None = None,
    gap: Gap | None = None,
    preferred: Preferred | None = None,
    fit: FitToRows | None = None,
) -> Verdict:
    """Judge a sweep by the groups that its rows show, and by its curves (metric -> line -> [(size, value, standard error)]).

    **With the structure of the rows** (`gpuclust.analysis.structure.find_structure`) its number of groups m decides, as it does
    not depend on what an algorithm was asked for:

    - *none*: m = 1, there is no valley of density.
    - *clear*: m was tried by K-Means or a mixture, inside of the range, or the sweep is of HDBSCAN.
    - *open*: m is the largest or the smallest number tried, or was not tried: the text says how to extend the range.
    - *several*: another criterion names strongly at most half as many clusters, a coarser view of the same groups; or both
      BIC with ICL and the K-Means silhouette with split gain name more strongly: groups that overlap.

    **Without it** each criterion (`gpuclust.analysis.criteria` has the thresholds) names a number strongly, weakly, or not at all:

    1. A partition line (K-Means, and the covariance type of the lowest BIC): silhouette and split gain peak at the same size.
    2. The mixture line of the lowest BIC: BIC and ICL have their minimum at the same size, with separated components.
    3. HDBSCAN: at least three neighbouring sizes give the number, with at most a fifth of the rows as noise.
    4. The gap statistic, where it was computed: the size of its rule; strong where that is also its maximum.
    5. Prediction strength, where it was computed: the largest size with at least 0.8; never strong.

    *Clear*: exactly one number is named strongly. *Several*: more than one is, or some are named weakly only. *Open*: an
    optimum is at an end of the range, or fewer than three sizes were tried. *None*: no number is named.

    A chosen clustering that reproduces a column of few values (``fit``) is named as that column, not as structure. The elbow,
    Calinski-Harabasz and Davies-Bouldin have a best size on noise too: they are reported and do not count.
    """
    criteria = [
        c
        for c in (
            *partition_criteria(curves),
            mixture(curves),
            *plateau_criteria(curves),
            gap_criterion(gap),
            prediction_strength(curves),
        )
        if c.measured
    ]
    because = [*_notes_on_rows(structure), *_notes_on_fit(fit), *([preferred.reason] if preferred else [])]
    because += [*(c.summary for c in criteria), *_notes_on_missing(curves), *index_notes(curves)]
    if structure is not None:
        found = _by_structure(structure, criteria, curves, preferred)
    else:
        found = _by_criteria(_corroborated(criteria), curves, preferred)
    if fit is not None:
        found = _with_fit(found, fit, structure)
    return replace(found, because=tuple(because))


def _with_fit(found: Verdict, fit: FitToRows, structure: Structure | None) -> Verdict:
    """The verdict, with what the chosen clustering is: a column, or other groups than those that the rows show."""
    if fit.column is not None and (structure is None or structure.n_groups == 1):
        text = (
            f"No natural number of clusters: {fit.name}, the chosen clustering, is the column `{fit.column}`, not structure. "
            f"Leave the column out to see what the other features show: data.exclude=[{fit.column}]."
        )
        return Verdict(text, NONE)
    if found.kind == CLEAR and fit.groups_ami is not None and fit.groups_ami < MIN_AGREEMENT:
        text = (
            f"{found.text} But {fit.name}, the chosen clustering, does not follow these groups "
            f"(AMI {fit.groups_ami:.2f}): try another algorithm, such as cluster=hdbscan."
        )
        return replace(found, text=text)
    return found


def _notes_on_fit(fit: FitToRows | None) -> list[str]:
    if fit is None:
        return []
    notes = []
    if fit.column is not None:
        notes.append(f"{fit.name}: its clusters are the values of the column `{fit.column}` (AMI {fit.column_ami:.2f})")
    if fit.groups_ami is not None and fit.column is None:
        notes.append(f"{fit.name}: its clusters agree with the regions of density with an AMI of {fit.groups_ami:.2f}")
    return notes


def _notes_on_missing(curves: Curves) -> list[str]:
    missing = len(sizes_tried(curves)) >= MIN_SIZES and not curves.get("silhouette")
    return ["The silhouette was not measured (score=none)"] if missing else []


def _notes_on_rows(structure: Structure | None) -> list[str]:
    if structure is None:
        return []
    where = f"{len(structure.rows):,} rows{f', in {structure.space}' if structure.space else ''}"
    if structure.n_groups == 1:
        return [f"density: one region without a valley ({where})"]
    return [f"density: {structure.n_groups} regions with valleys between them ({where})"]


def _by_structure(
    structure: Structure, criteria: Sequence[Criterion], curves: Curves, preferred: Preferred | None
) -> Verdict:
    groups, tried = structure.n_groups, sizes_tried(curves)
    if groups == 1:
        overlapping = _overlapping(criteria)
        if overlapping:
            return Verdict(_several([overlapping], strong=False), SEVERAL, (overlapping,))
        return Verdict(_none(criteria, "the rows form one region of density"), NONE)
    if not tried and not plateau_lines(curves):
        return Verdict(_extend(groups, tried), OPEN, (groups,))
    confirmed = any(c.kind == PLATEAU and groups in c.sizes for c in criteria)
    finer = _overlapping(criteria)
    if finer is not None and finer > groups:
        return Verdict(_several((groups, finer), strong=True), SEVERAL, (groups, finer))
    coarser = [k for c in criteria if c.strong for k in c.sizes if k <= groups / 2]
    if coarser:
        sizes = tuple(dict.fromkeys([groups, *coarser]))
        return Verdict(_several(sizes, strong=True), SEVERAL, sizes)
    if not confirmed and tried and not (tried[0] < groups < tried[-1] or groups == tried[0] == 2):
        return Verdict(_extend(groups, tried), OPEN, (groups,))
    if not confirmed and tried and groups not in tried:
        return Verdict(_extend(groups, tried), OPEN, (groups,))
    if preferred is not None and preferred.n_clusters == groups:
        return Verdict(_dense(preferred), CLEAR, (groups,))
    names = [c.name for c in criteria if groups in c.sizes]
    return Verdict(_clear(groups, ["the density of the rows", *names]), CLEAR, (groups,))


def _overlapping(criteria: Sequence[Criterion]) -> int | None:
    """A number that two algorithms name strongly, a mixture by BIC and K-Means by its silhouette: groups that overlap too far for
    a valley."""
    by_bic = {k for c in criteria if c.strong and c.kind == BIC for k in c.sizes}
    by_silhouette = {k for c in criteria if c.strong and c.kind == SILHOUETTE and not c.with_bic for k in c.sizes}
    return min(by_bic & by_silhouette, default=None)


def _by_criteria(criteria: Sequence[Criterion], curves: Curves, preferred: Preferred | None) -> Verdict:
    if not criteria:
        return Verdict(_too_little(curves), OPEN)
    strong = _votes([c for c in criteria if c.strong])
    weak = [k for k in _votes([c for c in criteria if not c.strong]) if k not in strong]
    if preferred is not None:
        sizes = tuple(dict.fromkeys([preferred.n_clusters, *strong]))
        if len(sizes) == 1 and preferred.n_clusters in strong:
            return Verdict(_dense(preferred), CLEAR, sizes)
        return Verdict(_several(sizes, bool(strong)), SEVERAL, sizes)
    if len(strong) == 1:
        names = list(dict.fromkeys(c.name for c in criteria if strong[0] in c.sizes))
        return Verdict(_clear(strong[0], names), CLEAR, (strong[0],))
    tried = sizes_tried(curves)
    beyond = {c.beyond for c in criteria if c.beyond}
    if not strong and beyond and tried:
        end = tried[-1] if "more" in beyond else tried[0]
        return Verdict(_widen(end, tried, "more" in beyond), OPEN)
    if strong or weak:
        sizes = (*strong, *weak)
        return Verdict(_several(sizes, bool(strong)), SEVERAL, sizes)
    return Verdict(_none(criteria), NONE)


def _corroborated(criteria: Sequence[Criterion]) -> list[Criterion]:
    """The criteria, a prediction strength that no other criterion agrees with no longer naming a size."""
    others = [c for c in criteria if c.kind != STRENGTH]
    named = set(_votes(others))
    return [
        replace(c, sizes=tuple(k for k in c.sizes if k in named)) if c.kind == STRENGTH and others else c
        for c in criteria
    ]


def _votes(criteria: Sequence[Criterion]) -> list[int]:
    """The sizes that are named, the most often named first."""
    votes: dict[int, int] = {}
    for criterion in criteria:
        for size in criterion.sizes:
            votes[size] = votes.get(size, 0) + 1
    return sorted(votes, key=lambda k: (-votes[k], k))


def _too_little(curves: Curves) -> str:
    if len(sizes_tried(curves)) >= MIN_SIZES and not curves.get("silhouette"):
        return (
            "The silhouette was not measured (score=none), so the number of clusters was not judged; "
            "run the sweep again with score=default or score=quick."
        )
    return "Too few sizes were tried to say how many clusters there are; sweep at least three, as in range(2,11)."


def _dense(preferred: Preferred) -> str:
    return (
        f"{preferred.n_clusters} density-based clusters ({preferred.label}): {preferred.name} fits them better than the "
        "other algorithms."
    )


def _clear(size: int, names: Sequence[str]) -> str:
    verb = "supports" if len(names) == 1 else "support"
    return f"{_count(size)}: {_listed(names)} {verb} k={size}."


def _several(sizes: Sequence[int], strong: bool) -> str:
    if len(sizes) == 1:
        return f"{_count(sizes[0])}: plausible, but no metric is conclusive, as the groups overlap or are few."
    how = "different criteria favour different ones" if strong else "none stands out"
    return f"Several numbers of clusters are plausible ({_listed([str(k) for k in sizes], 'or')}): {how}."


def _none(criteria: Sequence[Criterion], first: str = "") -> str:
    advice = "The data look like a continuum, so any k is a convenience: choose one that suits your use."
    scores = "; ".join(dict.fromkeys(c.reason_against for c in criteria if c.reason_against))
    if first and scores:
        return f"No natural number of clusters: {first}. {advice} Scores: {scores}."
    return f"No natural number of clusters: {first or scores}. {advice}"


def _extend(groups: int, tried: Sequence[int]) -> str:
    """Advice where the rows show a number of groups at an end of the range, or outside of it."""
    if not tried:
        return f"The rows show {groups} groups: sweep the number of clusters, as in cluster.n_clusters=range(2,{groups + 3})."
    low, high = min(tried[0], max(2, groups - 2)), max(tried[-1], groups + 2)
    if tried[0] < groups < tried[-1]:
        where = f"{groups} was not among the sizes tried"
    elif groups in tried:
        where = f"{groups} is the {'largest' if groups == tried[-1] else 'smallest'} size tried"
    else:
        where = f"only {tried[0]} to {tried[-1]} were tried"
    return (
        f"The rows show {groups} groups and {where}: extend the range to {low}..{high}, as in "
        f"cluster.n_clusters=range({low},{high + 1})."
    )


def _widen(end: int, tried: Sequence[int], more: bool) -> str:
    low, high = (tried[0], 2 * end) if more else (2, tried[-1])
    return (
        f"The best size is the {'largest' if more else 'smallest'} that was tried, k={end}: extend the range to {low}..{high}, as in "
        f"cluster.n_clusters=range({low},{high + 1})."
    )


def _count(size: int) -> str:
    return f"{size} clusters" if size != 1 else "1 cluster"


def _listed(words: Sequence[str], last: str = "and") -> str:
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)
