"""How many clusters a sweep found, in words: a clear number, several defensible ones, or none, from stated rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from gpuclust.analysis.gap import Gap
from gpuclust.analysis.selection import Curves
from gpuclust.analysis.witnesses import (
    STRENGTH,
    Witness,
    density,
    gap_says,
    indices,
    mixture,
    partitions,
    prediction_strength,
)

CLEAR, SEVERAL, NONE, OPEN = "clear", "several", "none", "open"


@dataclass(frozen=True)
class Preferred:
    """The HDBSCAN job that `gpuclust.analysis.selection.prefer_density` prefers, its clusters, and why."""

    name: str
    n_clusters: int
    reason: str


@dataclass(frozen=True)
class Verdict:
    """The answer in words, its kind (``clear``, ``several``, ``none``, or ``open`` where too little was tried), the numbers
    of clusters it names, the best supported first, and the figures that led to it."""

    text: str
    kind: str
    sizes: tuple[int, ...] = ()
    because: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        return asdict(self)


def verdict(curves: Curves, *, gap: Gap | None = None, preferred: Preferred | None = None) -> Verdict:
    """Judge a sweep by its curves (metric -> line -> [(size, value, standard error)]).

    Each of these is asked for a number of clusters, which it names strongly, weakly, or not at all
    (`gpuclust.analysis.witnesses` has the thresholds):

    1. A partition line (K-Means, and the covariance type of the lowest BIC): named where the silhouette and the split
       gain have their maximum at the same size and that is not the last one tried. Strong with two of these three: a
       silhouette of 0.5 (Kaufman and Rousseeuw 1990: a reasonable structure), a gain of 0.5 nats a row, and a
       silhouette that falls by 0.2 / k to both sides; for a mixture BIC must agree too. Not named at all below a
       silhouette of 0.25 (no substantial structure), nor below a gain of 0.05, as then one Gaussian, or a uniform
       cloud, describes the rows as well: that keeps the 0.6 of an elongated cloud cut in two from counting. Where the
       two maxima differ, both are named, weakly, from a silhouette of 0.5 on.
    2. The mixture line of the lowest BIC: named where BIC and ICL have their minimum at the same size, within the range,
       and the silhouette there is 0.25 or more; strong where its silhouette or gain is greatest there. A BIC that still falls at the largest size, or has its minimum
       elsewhere than ICL, describes the shape of a density, not groups.
    3. HDBSCAN: the number that at least three neighbouring sizes give, with at most a fifth of the rows as noise and at
       most nine tenths of them in one cluster.
    4. The gap statistic, where it was computed: the size of its rule; strong where that is also its maximum.
    5. Prediction strength, where it was computed: the largest size with at least 0.8; never strong, and not counted where
       others were asked and none names that size, as two halves of one cloud are cut alike too.

    *Clear*: exactly one number is named strongly. *Several*: more than one is, or some are named weakly only. *None*: no
    number is named. *Open*: fewer than three sizes were tried and nothing else was computed. Where HDBSCAN is
    preferred across algorithms, its number stands and the convex indices (1, 2, 4, 5) are set aside. The knee,
    Calinski-Harabasz and Davies-Bouldin always have a best size, also on noise: they are told and do not count.
    """
    asked: list[Witness] = [density(curves)]
    if preferred is None:
        asked += [*partitions(curves), mixture(curves), gap_says(gap), prediction_strength(curves)]
    heard = _supported([w for w in asked if w.heard])
    because = [w.says for w in heard] + indices(curves)
    if preferred is not None:
        return _preferred(preferred, heard, because)
    if not heard:
        text = "Too few sizes were tried to say how many clusters there are; sweep at least three, as in range(1,11)."
        return Verdict(text, OPEN, (), tuple(because))
    strong = _named([w for w in heard if w.strong])
    weak = [k for k in _named([w for w in heard if not w.strong]) if k not in strong]
    if len(strong) == 1:
        return Verdict(_clear(strong[0], heard), CLEAR, (strong[0],), tuple(because))
    if strong or weak:
        sizes = (*strong, *weak)
        return Verdict(_several(sizes, bool(strong)), SEVERAL, sizes, tuple(because))
    return Verdict(_none(heard), NONE, (), tuple(because))


def _preferred(preferred: Preferred, heard: Sequence[Witness], because: Sequence[str]) -> Verdict:
    named = _named(heard) or [preferred.n_clusters]
    sizes = tuple(dict.fromkeys([preferred.n_clusters, *named]))
    kind = CLEAR if len(sizes) == 1 else SEVERAL
    text = (
        f"{_count(sizes[0])}, of the shape that HDBSCAN finds: {preferred.name} is preferred to the other algorithms."
    )
    return Verdict(text, kind, sizes, (preferred.reason, *because))


def _supported(heard: Sequence[Witness]) -> list[Witness]:
    """The witnesses, a prediction strength that stands against all others no longer naming a size."""
    others = [w for w in heard if w.name != STRENGTH]
    named = set(_named(others))
    return [
        replace(w, sizes=tuple(k for k in w.sizes if k in named)) if w.name == STRENGTH and others else w for w in heard
    ]


def _named(witnesses: Sequence[Witness]) -> list[int]:
    """The sizes that are named, the most often named first."""
    votes: dict[int, int] = {}
    for witness in witnesses:
        for size in witness.sizes:
            votes[size] = votes.get(size, 0) + 1
    return sorted(votes, key=lambda k: (-votes[k], k))


def _clear(size: int, heard: Sequence[Witness]) -> str:
    agree = list(dict.fromkeys(w.name for w in heard if size in w.sizes))
    return f"{_count(size)}: {_listed(agree)} {'name' if len(agree) > 1 else 'names'} that number."


def _several(sizes: Sequence[int], strong: bool) -> str:
    if len(sizes) == 1:
        return f"{_count(sizes[0])} can be defended, but no figure is sure of it: the groups overlap or are few."
    how = "different figures name different ones" if strong else "none stands out"
    return f"Several numbers of clusters can be defended ({_listed([str(k) for k in sizes], 'or')}): {how}."


def _none(heard: Sequence[Witness]) -> str:
    reasons = _listed(list(dict.fromkeys(w.why_not for w in heard if w.why_not)))
    return f"No natural number of clusters: {reasons}. Any number divides a continuum: choose one by its use."


def _count(size: int) -> str:
    return f"{size} clusters" if size != 1 else "1 cluster"


def _listed(words: Sequence[str], last: str = "and") -> str:
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)
