"""Names and descriptions of clusters, from the distances of their means to the overall mean and to the nearest cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gpuclust.model.records import Cluster, FeatureStats

MAX_WORDS = 3
MIN_Z = 0.5  # minimum distance of a mean from the overall mean in standard deviations
MIN_STANDARD_ERRORS = 3.0  # and in standard errors
MIN_CONTRAST = 0.5  # minimum difference to the nearest cluster in standard deviations
MIN_SPLIT = 0.05  # clusters with equal names and smaller differences are numbered
AVERAGE = "Near the average"
_UNIT = re.compile(r"(?<=[^_\s])[_\s]+(ms|msec|s|sec|secs|seconds|min|minutes|hours?|db|hz|khz|bpm|pct|percent|km|kg|cm|mm|usd|eur)$", re.I)  # fmt: skip


def readable(features: Sequence[str]) -> tuple[str, ...]:
    """Convert column names to distinct words: ``duration_ms`` to duration, ``track_popularity`` to track popularity."""
    short = [" ".join(_UNIT.sub("", feature).replace("_", " ").split()) or feature for feature in features]
    short = [word[0].lower() + word[1:] if word[1:].islower() else word for word in short]
    full = [" ".join(feature.split()) or feature for feature in features]
    return tuple(s if short.count(s) == 1 else f for s, f in zip(short, full, strict=True))


def nearest(z: np.ndarray) -> np.ndarray:
    """(n_clusters,) int64: for each cluster the one with the nearest mean, by z-scores (n_clusters, n_features); -1 for a
    single cluster."""
    if len(z) < 2:
        return np.full(len(z), -1)
    gaps = ((z[:, None] - z[None]) ** 2).sum(axis=2)
    np.fill_diagonal(gaps, np.inf)
    return gaps.argmin(axis=1)


def names(z: np.ndarray, z_se: np.ndarray, words: Sequence[str]) -> tuple[str, ...]:
    """A distinct name for each cluster, such as ``High energy · High tempo · Low acousticness``.

    At most two words are the largest relevant z-scores (`MIN_Z`, `MIN_STANDARD_ERRORS`); the third is the largest difference
    to the nearest cluster, else the next z-score. Clusters with equal words are distinguished by the feature in which they
    differ most (``· lower valence``).

    ``z`` and ``z_se`` (n_clusters, n_features) float64; ``words`` the features as `readable` gives them.
    """
    near = nearest(z)
    parts = [_parts(z[i], z_se[i], z[i] - z[near[i]] if near[i] >= 0 else np.zeros_like(z[i])) for i in range(len(z))]
    found = [" · ".join(f"{level} {words[f]}" for f, level in p) or AVERAGE for p in parts]
    alike: dict[frozenset[tuple[int, str]], list[int]] = {}
    for i, part in enumerate(parts):
        alike.setdefault(frozenset(part), []).append(i)
    for members in alike.values():
        for i, more in _disambiguate(members, z, words).items():
            found[i] += more
    return tuple(found)


def level(z: float) -> str:
    """High, Low, or Average for less than `MIN_Z` from the overall mean."""
    return "Average" if abs(z) < MIN_Z else "High" if z > 0 else "Low"


def _parts(z: np.ndarray, z_se: np.ndarray, contrast: np.ndarray) -> list[tuple[int, str]]:
    """The features in the name of a cluster, and the level of each."""
    ranked = [int(f) for f in np.argsort(-np.abs(z), kind="stable")]
    matter = [f for f in ranked if abs(z[f]) >= max(MIN_Z, MIN_STANDARD_ERRORS * z_se[f])]
    chosen = matter[: MAX_WORDS - 1]
    if chosen:
        # A difference to the nearest cluster: a relevant z-score, or an average value if the nearest cluster is far from it.
        apart = [f for f in np.argsort(-np.abs(contrast), kind="stable") if f not in chosen]
        relevant = [int(f) for f in apart if abs(contrast[f]) >= (MIN_CONTRAST if f in matter else 2 * MIN_CONTRAST)]
        chosen += (relevant or matter[MAX_WORDS - 1 :])[:1]
    return [(f, level(float(z[f]))) for f in chosen]


def _disambiguate(
    members: Sequence[int], z: np.ndarray, words: Sequence[str], used: tuple[int, ...] = ()
) -> dict[int, str]:
    """Suffixes for clusters with equal names: split them at the widest gap of a feature, recursively."""
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
        further = _disambiguate(side, z, words, (*used, feature))
        found |= {i: f" · {word} {words[feature]}{more}" for i, more in further.items()}
    return found


def sentence(
    cluster: Cluster, overall: Mapping[str, float], neighbour: Cluster | None, words: Mapping[str, str]
) -> str:
    """Describe a cluster in one sentence: its size, high and low features in original units, nearest cluster, top groups.

    ``overall`` are the means of all rows; ``words`` the features as `readable` gives them.
    """
    clauses = [
        _extreme_features(cluster.features, overall, words),
        _vs_nearest(cluster, neighbour, words),
        _top_groups(cluster),
    ]
    start = f"{cluster.size:,} rows ({percent(cluster.fraction)}){' in no cluster' if cluster.cluster < 0 else ''}"
    return f"{start}: {'; '.join(filter(None, clauses))}."


def _top_groups(cluster: Cluster) -> str:
    said = [f"most often {often.value} ({percent(often.fraction)})" for often in cluster.top_groups[:1]]
    for lifted in cluster.top_groups_by_lift[:1]:
        what = "which" if cluster.top_groups[0].value == lifted.value else f"and {lifted.value}, which"
        said.append(f"{what} is {lifted.lift:.1f} times as frequent as in the whole")
    return ", ".join(said)


def _extreme_features(
    features: Mapping[str, FeatureStats], overall: Mapping[str, float], words: Mapping[str, str]
) -> str:
    ranked = sorted(features, key=lambda f: -abs(features[f].z))[:MAX_WORDS]
    relevant = [f for f in ranked if abs(features[f].z) >= max(MIN_Z, MIN_STANDARD_ERRORS * features[f].z_se)]
    said = [
        f"{level(features[f].z).lower()} {words[f]} ({figure(features[f].mean)} on average, {figure(overall[f])} in all)"
        for f in relevant
    ]
    return _join(said) or "every feature is near the average of all rows"


def _vs_nearest(cluster: Cluster, neighbour: Cluster | None, words: Mapping[str, str]) -> str:
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


def _join(texts: Sequence[str]) -> str:
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def figure(value: float) -> str:
    """Format a number with three significant digits and thousands separators."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def percent(fraction: float) -> str:
    """Format a share: ``23.1 %``, or ``<0.1 %`` if it would round to zero."""
    if 0 < fraction < 0.0005:
        return "<0.1 %"
    return f"{100 * fraction:.1f} %" if fraction else "0 %"
