"""Names and sentences for clusters, out of how far their means lie from the whole and from their neighbour."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gpuclust.model.records import Cluster, FeatureStats

MAX_WORDS = 3
MIN_Z = 0.5  # a mean this many standard deviations from the mean of all rows is worth a word
MIN_STANDARD_ERRORS = 3.0  # and this many of its own standard errors
MIN_CONTRAST = 0.5  # what sets a cluster apart from its nearest one, in standard deviations
MIN_SPLIT = 0.05  # clusters of one name that differ less than this in every feature are told apart by a number
AVERAGE = "Near the average"
_UNIT = re.compile(r"(?<=[^_\s])[_\s]+(ms|msec|s|sec|secs|seconds|min|minutes|hours?|db|hz|khz|bpm|pct|percent|km|kg|cm|mm|usd|eur)$", re.I)  # fmt: skip


def readable(features: Sequence[str]) -> tuple[str, ...]:
    """Columns as words: ``duration_ms`` is duration, ``track_popularity`` track popularity; no two alike."""
    short = [" ".join(_UNIT.sub("", feature).replace("_", " ").split()) or feature for feature in features]
    short = [word[0].lower() + word[1:] if word[1:].islower() else word for word in short]
    full = [" ".join(feature.split()) or feature for feature in features]
    return tuple(s if short.count(s) == 1 else f for s, f in zip(short, full, strict=True))


def nearest(z: np.ndarray) -> np.ndarray:
    """(n_clusters,) int64: the cluster whose mean is nearest to each one's, by z-scores (n_clusters, n_features); -1
    where there is only one cluster."""
    if len(z) < 2:
        return np.full(len(z), -1)
    gaps = ((z[:, None] - z[None]) ** 2).sum(axis=2)
    np.fill_diagonal(gaps, np.inf)
    return gaps.argmin(axis=1)


def names(z: np.ndarray, z_se: np.ndarray, words: Sequence[str]) -> tuple[str, ...]:
    """A distinct name for each cluster, such as ``High energy · High tempo · Low acousticness``.

    At most two words come from the z-scores that matter (`MIN_Z`, `MIN_STANDARD_ERRORS`), the largest first; the third is
    what sets the cluster most apart from its nearest one, else the next z-score. Clusters whose words are the same are
    told apart by the feature in which they differ most (``· lower valence``).

    ``z`` and ``z_se`` (n_clusters, n_features) float64; ``words`` the features as `readable` gives them.
    """
    near = nearest(z)
    parts = [_parts(z[i], z_se[i], z[i] - z[near[i]] if near[i] >= 0 else np.zeros_like(z[i])) for i in range(len(z))]
    found = [" · ".join(f"{level} {words[f]}" for f, level in p) or AVERAGE for p in parts]
    alike: dict[frozenset[tuple[int, str]], list[int]] = {}
    for i, part in enumerate(parts):
        alike.setdefault(frozenset(part), []).append(i)
    for members in alike.values():
        for i, more in _told_apart(members, z, words).items():
            found[i] += more
    return tuple(found)


def level(z: float) -> str:
    """High, Low, or Average where less than `MIN_Z` from the whole."""
    return "Average" if abs(z) < MIN_Z else "High" if z > 0 else "Low"


def _parts(z: np.ndarray, z_se: np.ndarray, contrast: np.ndarray) -> list[tuple[int, str]]:
    """The features of a name, and the level of each."""
    ranked = [int(f) for f in np.argsort(-np.abs(z), kind="stable")]
    matter = [f for f in ranked if abs(z[f]) >= max(MIN_Z, MIN_STANDARD_ERRORS * z_se[f])]
    chosen = matter[: MAX_WORDS - 1]
    if chosen:
        # A word about the neighbour: one that the whole confirms, or an average where the neighbour is far from it.
        apart = [f for f in np.argsort(-np.abs(contrast), kind="stable") if f not in chosen]
        telling = [int(f) for f in apart if abs(contrast[f]) >= (MIN_CONTRAST if f in matter else 2 * MIN_CONTRAST)]
        chosen += (telling or matter[MAX_WORDS - 1 :])[:1]
    return [(f, level(float(z[f]))) for f in chosen]


def _told_apart(
    members: Sequence[int], z: np.ndarray, words: Sequence[str], used: tuple[int, ...] = ()
) -> dict[int, str]:
    """What to add to the names of clusters that would have the same: split where one feature has its widest gap."""
    if len(members) == 1:
        return {members[0]: ""}
    free = [f for f in range(z.shape[1]) if f not in used]
    gaps = {f: float(np.diff(np.sort(z[members, f])).max()) for f in free}
    feature = max(gaps, key=lambda f: gaps[f], default=-1)
    if feature < 0 or gaps[feature] < MIN_SPLIT:
        return {i: f" ({n})" if n > 1 else "" for n, i in enumerate(members, start=1)}
    values = np.sort(z[members, feature])
    middle = values[int(np.diff(values).argmax())]
    found: dict[int, str] = {}
    for word, side in (("higher", [i for i in members if z[i, feature] > middle]),
                       ("lower", [i for i in members if z[i, feature] <= middle])):  # fmt: skip
        further = _told_apart(side, z, words, (*used, feature))
        found |= {i: f" · {word} {words[feature]}{more}" for i, more in further.items()}
    return found


def sentence(
    cluster: Cluster, overall: Mapping[str, float], neighbour: Cluster | None, words: Mapping[str, str]
) -> str:
    """One sentence: how many rows, what is high and low in original units, the nearest cluster, who is in it.

    ``overall`` are the means of all rows; ``words`` the features as `readable` gives them.
    """
    clauses = [_far(cluster.features, overall, words), _beside(cluster, neighbour, words), _who(cluster)]
    start = f"{cluster.size:,} rows ({percent(cluster.fraction)}){' in no cluster' if cluster.cluster < 0 else ''}"
    return f"{start}: {'; '.join(filter(None, clauses))}."


def _who(cluster: Cluster) -> str:
    said = [f"most often {often.value} ({percent(often.fraction)})" for often in cluster.top_groups[:1]]
    for lifted in cluster.top_groups_by_lift[:1]:
        what = "which" if cluster.top_groups[0].value == lifted.value else f"and {lifted.value}, which"
        said.append(f"{what} is {lifted.lift:.1f} times as frequent as in the whole")
    return ", ".join(said)


def _far(features: Mapping[str, FeatureStats], overall: Mapping[str, float], words: Mapping[str, str]) -> str:
    ranked = sorted(features, key=lambda f: -abs(features[f].z))[:MAX_WORDS]
    telling = [f for f in ranked if abs(features[f].z) >= max(MIN_Z, MIN_STANDARD_ERRORS * features[f].z_se)]
    said = [
        f"{level(features[f].z).lower()} {words[f]} ({figure(features[f].mean)} on average, {figure(overall[f])} in all)"
        for f in telling
    ]
    return _and(said) or "every feature is near the average of all rows"


def _beside(cluster: Cluster, neighbour: Cluster | None, words: Mapping[str, str]) -> str:
    if neighbour is None:
        return ""
    gaps = {f: p.z - neighbour.features[f].z for f, p in cluster.features.items()}
    feature = max(gaps, key=lambda f: abs(gaps[f]))
    own, other = cluster.features[feature].mean, neighbour.features[feature].mean
    side = "higher" if gaps[feature] > 0 else "lower"
    return (
        f"from its nearest, cluster {neighbour.cluster}, it differs most by {side} {words[feature]} "
        f"({figure(own)}, {figure(other)} there)"
    )


def _and(texts: Sequence[str]) -> str:
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def figure(value: float) -> str:
    """A number in a sentence: three significant digits, thousands separated."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def percent(fraction: float) -> str:
    """``23.1 %``; ``<0.1 %`` for a share that would round to nothing."""
    if 0 < fraction < 0.0005:
        return "<0.1 %"
    return f"{100 * fraction:.1f} %" if fraction else "0 %"
