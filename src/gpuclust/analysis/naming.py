"""Names and descriptions of clusters, from the distances of their means to the overall mean and to the nearest cluster."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from gpuclust.model.encodings import CIRCULAR, ONEHOT, Encoding, groups_of
from gpuclust.pages.text import SECONDS, measure, percent, unit_of, without_unit
from gpuclust.tracks.presets import PRESETS

if TYPE_CHECKING:
    from gpuclust.model.records import CategoryShare, Cluster, Term

MAX_WORDS = 3
MAX_GROUPS = 2  # in the name of a cluster of vectors
MIN_GROUP_LIFT, MIN_GROUP_SHARE = 2.0, 0.1  # of such a group
MAX_TERMS = 6  # words in a description
MIN_Z = 0.5  # minimum distance of a mean from the overall mean in standard deviations
MIN_STANDARD_ERRORS = 3.0  # and in standard errors
MIN_CONTRAST = 0.5  # minimum difference to the nearest cluster in standard deviations
MIN_SPLIT = 0.05  # clusters with equal names and smaller differences are numbered
MAX_SPLITS = 2  # features that distinguish clusters with equal names; further clusters are numbered
MAX_VALUES = 1 << 22  # differences of means that are held at once
MIN_CONCENTRATION = 0.5  # of a circular column whose mean is in a description
MIXED = "Mixed"  # the name of a cluster that differs from the nearest one in no feature
HIGH, LOW, HIGHER, LOWER = "high", "low", "higher", "lower"  # of all rows, and of the nearest cluster
MORE = {HIGHER: "more", LOWER: "less"}
Part = tuple[int, str]  # a feature and one of these levels


@dataclass(frozen=True)
class Vocabulary:
    """How the features are written in names and descriptions: their ``words`` (duration for ``duration_ms``), what their
    high and low values are called where that is no "high duration", and their ``units`` as `gpuclust.pages.text.measure` takes them."""

    words: tuple[str, ...]
    high: tuple[str, ...]
    low: tuple[str, ...]
    units: tuple[str, ...]
    without_words: frozenset[int] = frozenset()
    """Places of features that are in no name: the sine and the cosine of a circular column."""
    groups: tuple[tuple[int, ...], ...] = ()
    """Places of the one-hot features of each column."""
    categories: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    """The column and the category of each one-hot feature, by its place."""

    def worth_saying(self, z: np.ndarray) -> np.ndarray:
        """The z-scores (n_clusters, n_features) that names are made of: 0 for features without words, and for categories that are rare because
        another one of the column is frequent."""
        if not self.without_words and not self.groups:
            return z
        z = z.copy()
        z[:, list(self.without_words)] = 0.0
        for group in map(list, self.groups):
            own = z[:, group]
            has = own.max(axis=1, keepdims=True) >= MIN_Z
            z[:, group] = np.where(has, np.maximum(own, 0.0), own)
        return z

    def telling(self, parts: list[Part]) -> list[Part]:
        """The parts of a name without the categories that are rarer because another one of the column is frequent."""
        said = {j for group in self.groups if any((f, HIGH) in parts for f in group) for j in group}
        return [(f, level) for f, level in parts if level in (HIGH, HIGHER) or f not in said]

    def phrase(self, part: Part, mean: float | None = None) -> str:
        """A part of a name: ``high tempo``, ``acoustic``, ``lower energy``; with its mean where it is a time or a share: ``long (14 min)``,
        ``genre: rock (60 %)``."""
        feature, level = part
        if feature in self.categories:
            column, category = self.categories[feature]
            share = "" if mean is None else f" ({100 * mean:.0f} %)"
            said = {HIGH: f"{category}{share}", LOW: f"rarely {category}"}
            return f"{column}: {said.get(level) or f'{MORE[level]} often {category}'}"
        if level in (HIGHER, LOWER):
            return f"{level} {self.words[feature]}"
        text = (self.high if level == HIGH else self.low)[feature]
        unit = self.units[feature]
        return f"{text} ({measure(mean, unit)})" if mean is not None and unit in SECONDS else text


def vocabulary(features: Sequence[str], preset: str = "none", encodings: Sequence[Encoding] = ()) -> Vocabulary:
    """The words for features: those of a preset (`gpuclust.tracks.presets`) for the features that it knows, else from the names. A one-hot
    feature is its column and its category, as in ``genre: rock (60 %)``.
    """
    found = list(groups_of(encodings, features).values())
    onehot = [(encoding, places) for encoding, places in found if encoding.kind == ONEHOT]
    return replace(
        _of_columns(features, preset),
        without_words=frozenset(j for encoding, places in found if encoding.kind == CIRCULAR for j in places),
        groups=tuple(tuple(places) for _, places in onehot),
        categories={j: (e.column, features[j].removeprefix(f"{e.column}=")) for e, places in onehot for j in places},
    )


def _of_columns(features: Sequence[str], preset: str) -> Vocabulary:
    known = PRESETS.get(preset)
    terms = [known.terms_of(feature) if known else None for feature in features]
    words = readable(features)
    return Vocabulary(
        words,
        tuple(t.high if t else f"high {word}" for t, word in zip(terms, words, strict=True)),
        tuple(t.low if t else f"low {word}" for t, word in zip(terms, words, strict=True)),
        tuple(unit_of(f) or (t.unit if t else "") for t, f in zip(terms, features, strict=True)),
    )


def readable(features: Sequence[str]) -> tuple[str, ...]:
    """Convert column names to distinct words: ``duration_ms`` to duration, ``track_popularity`` to track popularity."""
    short = [" ".join(without_unit(feature).replace("_", " ").split()) or feature for feature in features]
    short = [word[0].lower() + word[1:] if word[1:].islower() else word for word in short]
    full = [" ".join(feature.split()) or feature for feature in features]
    counts: dict[str, int] = {}
    for word in short:
        counts[word] = counts.get(word, 0) + 1
    return tuple(s if counts[s] == 1 else f for s, f in zip(short, full, strict=True))


def nearest(z: np.ndarray) -> np.ndarray:
    """(n_clusters,) int64: for each cluster the one with the nearest mean, by z-scores (n_clusters, n_features); -1 for a
    single cluster."""
    if len(z) < 2:
        return np.full(len(z), -1)
    found = np.empty(len(z), np.int64)
    block = max(MAX_VALUES // max(z.size, 1), 1)
    for start in range(0, len(z), block):
        gaps = ((z[start : start + block, None] - z[None]) ** 2).sum(axis=2)
        own = np.arange(len(gaps))
        gaps[own, start + own] = np.inf
        found[start : start + block] = gaps.argmin(axis=1)
    return found


def names(
    z: np.ndarray, z_se: np.ndarray, spoken: Vocabulary, means: np.ndarray | None = None, near: np.ndarray | None = None
) -> tuple[str, ...]:
    """A distinct name for each cluster, such as ``High energy · high tempo · lower acousticness``.

    A name has at most `MAX_WORDS` parts. First come the features whose mean is far from that of all rows (`MIN_Z`,
    `MIN_STANDARD_ERRORS`), those first that also set the cluster apart from the nearest one. Where none of them is the feature
    in which the two differ most, that feature is the last part (``lower`` or ``higher`` than in the nearest cluster, if it is
    near the overall mean). A cluster that is near the overall mean in all features has only such parts. Clusters with equal
    parts are distinguished by the feature in which they differ most.

    ``z`` and ``z_se`` (n_clusters, n_features) float64; ``means`` likewise in original units, where times are to be shown;
    ``near`` as `nearest` returns it, if it is known.
    """
    near = nearest(z) if near is None else near
    z = spoken.worth_saying(z)
    parts = [spoken.telling(_parts(z, z_se, i, int(near[i]))) for i in range(len(z))]
    alike: dict[frozenset[Part], list[int]] = {}
    for i, part in enumerate(parts):
        alike.setdefault(frozenset(part), []).append(i)
    numbers: dict[int, int] = {}
    for members in alike.values():
        for i, (more, number) in _split(members, z).items():
            parts[i] = parts[i] + more
            numbers[i] = number
    found: list[str] = []
    taken: set[frozenset[str]] = set()
    for i, part in enumerate(parts):
        phrases = [spoken.phrase(p, None if means is None else float(means[i, p[0]])) for p in part] or [MIXED]
        phrases[0] = phrases[0][:1].upper() + phrases[0][1:]
        plain, number = phrases[-1], numbers[i]
        while True:
            phrases[-1] = plain if number == 1 else f"{plain} ({number})"
            if (key := frozenset(p.lower() for p in phrases)) not in taken:
                break
            number += 1
        taken.add(key)
        found.append(" · ".join(phrases))
    return tuple(found)


def names_of_words(
    terms: Sequence[Sequence[Term]], groups: Sequence[Sequence[CategoryShare]], others: Sequence[str] = ()
) -> tuple[str, ...]:
    """A distinct name for each cluster of vectors: the groups that are typical of it, else its first words, else its name by features,
    else ``Cluster N``. Clusters with equal groups also have their first word; names that are still equal are numbered."""
    typical = [[s.value for s in _typical(shares)[:MAX_GROUPS]] for shares in groups]
    taken = Counter(map(tuple, typical))
    found: list[str] = []
    seen: dict[str, int] = {}
    for i, (words, parts) in enumerate(zip(terms, typical, strict=True)):
        if not parts:
            parts = [word.value for word in words[:MAX_WORDS]]
        elif taken[tuple(parts)] > 1:
            parts = [*parts, *(word.value for word in words[:1])]
        name = " · ".join(parts) or (others[i] if others else f"Cluster {i}")
        name = name[:1].upper() + name[1:]
        seen[name] = number = seen.get(name, 0) + 1
        found.append(name if number == 1 else f"{name} ({number})")
    return tuple(found)


def _typical(shares: Sequence[CategoryShare]) -> list[CategoryShare]:
    """The groups with a large share of a cluster and a large lift, the most telling first."""
    found = [s for s in dict.fromkeys(shares) if s.lift >= MIN_GROUP_LIFT and s.fraction >= MIN_GROUP_SHARE]
    return sorted(found, key=lambda s: (-s.fraction * math.log(s.lift), s.value))


def _parts(z: np.ndarray, z_se: np.ndarray, cluster: int, near: int) -> list[Part]:
    """The features in the name of a cluster, and the level of each."""
    own, error = z[cluster], z_se[cluster]
    apart = own - z[near] if near >= 0 else np.zeros_like(own)
    apart_error = np.hypot(error, z_se[near]) if near >= 0 else error
    # A difference to the nearest cluster counts for a feature only on the side on which the cluster's mean is.
    ranked = np.argsort(-(np.abs(own) + np.maximum(np.sign(own) * apart, 0.0)), kind="stable").tolist()
    certain = np.abs(own) >= np.maximum(MIN_Z, MIN_STANDARD_ERRORS * error)
    traits = [f for f in ranked if certain[f]]
    differs = np.abs(apart) >= np.maximum(MIN_CONTRAST if traits else MIN_SPLIT, MIN_STANDARD_ERRORS * apart_error)
    contrasts = [f for f in np.argsort(-np.abs(apart), kind="stable").tolist() if differs[f]]
    chosen = traits[: MAX_WORDS - 1]
    if chosen and (not contrasts or contrasts[0] in chosen):
        chosen = traits[:MAX_WORDS]
    elif chosen:
        chosen = [*chosen, contrasts[0]]
    else:
        chosen = contrasts[: MAX_WORDS - 1]
    return [(f, _level(float(own[f]), float(apart[f]), bool(certain[f]))) for f in chosen]


def _level(z: float, apart: float, certain: bool) -> str:
    if certain:
        return HIGH if z > 0 else LOW
    return HIGHER if apart > 0 else LOWER


def _split(members: Sequence[int], z: np.ndarray, used: tuple[int, ...] = ()) -> dict[int, tuple[list[Part], int]]:
    """Tell clusters with equal parts apart: further parts, and a number from 1 for those that remain equal. They are split at the
    widest gap of a feature, recursively."""
    if len(members) == 1:
        return {members[0]: ([], 1)}
    values = np.sort(z[list(members)], axis=0)
    gaps = np.diff(values, axis=0)
    widest = gaps.max(axis=0)
    widest[list(used)] = -1.0
    feature = int(widest.argmax()) if len(widest) else -1
    if feature < 0 or widest[feature] < MIN_SPLIT or len(used) == MAX_SPLITS:
        return {i: ([], n) for n, i in enumerate(members, start=1)}
    middle = values[int(gaps[:, feature].argmax()), feature]
    found: dict[int, tuple[list[Part], int]] = {}
    for level, side in ((HIGHER, [i for i in members if z[i, feature] > middle]),
                        (LOWER, [i for i in members if z[i, feature] <= middle])):  # fmt: skip
        for i, (more, number) in _split(side, z, (*used, feature)).items():
            found[i] = ([(feature, level), *more], number)
    return found


def sentence(cluster: Cluster, overall: Mapping[str, float], neighbour: Cluster | None, spoken: Vocabulary) -> str:
    """Describe a cluster: its size, high and low features in original units, the nearest cluster, and the most frequent group.

    ``overall`` are the means of all rows.
    """
    start = f"{cluster.size:,} rows ({percent(cluster.fraction)}){' in no cluster' if cluster.cluster < 0 else ''}"
    what = _extreme_features(cluster, overall, spoken) if cluster.features else ""
    if cluster.top_terms:
        words = ", ".join(term.value for term in cluster.top_terms[:MAX_TERMS])
        what = f"{what}; words: {words}" if what else f"words: {words}"
    said = [f"{start}: {what}" if what else start, _vs_nearest(cluster, neighbour, spoken)]
    return " ".join(f"{text}." for text in (*said, _top_groups(cluster)) if text)


def _top_groups(cluster: Cluster) -> str:
    if not cluster.top_groups:
        return ""
    often = cluster.top_groups[0]
    said = f"Most frequent: {often.value} ({percent(often.fraction)}"
    for lifted in cluster.top_groups_by_lift[:1]:
        what = ", " if lifted.value == often.value else f"); most over-represented: {lifted.value} ("
        said += f"{what}{lifted.lift:.1f} × expected"
    return f"{said})"


def _extreme_features(cluster: Cluster, overall: Mapping[str, float], spoken: Vocabulary) -> str:
    features = list(cluster.features.items())
    worth = np.abs(spoken.worth_saying(np.array([[stats.z for _, stats in features]]))[0])
    shown = [i for i in range(len(features)) if worth[i] > 0 or not features[i][1].z]
    ranked = sorted(shown, key=lambda i: -abs(features[i][1].z))[:MAX_WORDS]
    said = []
    for i in ranked:
        name, stats = features[i]
        if abs(stats.z) >= max(MIN_Z, MIN_STANDARD_ERRORS * stats.z_se):
            if i in spoken.categories:
                what = ": ".join(spoken.categories[i])
                said.append(f"{what} in {percent(stats.mean)} ({percent(overall[name])} in all rows)")
                continue
            own, mean = measure(stats.mean, spoken.units[i]), measure(overall[name], spoken.units[i])
            said.append(f"{HIGH if stats.z > 0 else LOW} {spoken.words[i]} ({own}; {mean} in all rows)")
    said += [
        f"{c.column} around {c.mean:.3g} of {c.period:g}"
        for c in cluster.circular
        if c.concentration >= MIN_CONCENTRATION
    ]
    return _join(said) or "close to the average of all rows in every feature"


def _vs_nearest(cluster: Cluster, neighbour: Cluster | None, spoken: Vocabulary) -> str:
    if neighbour is None:
        return ""
    if not cluster.features:
        return f"Closest cluster: {neighbour.cluster}"
    pairs = list(zip(cluster.features.values(), neighbour.features.values(), strict=True))
    shown = [i for i in range(len(pairs)) if i not in spoken.without_words]
    if not shown:
        return f"Closest cluster: {neighbour.cluster}"
    i = max(shown, key=lambda i: abs(pairs[i][0].z - pairs[i][1].z))
    own, other = pairs[i]
    if i in spoken.categories:
        what = ": ".join(spoken.categories[i])
        return f"Closest cluster: {neighbour.cluster}, with {what} in {percent(other.mean)} (here {percent(own.mean)})"
    side = HIGHER if other.z > own.z else LOWER
    values = f"{measure(other.mean, spoken.units[i])} vs {measure(own.mean, spoken.units[i])}"
    return f"Closest cluster: {neighbour.cluster}, which has {side} {spoken.words[i]} ({values})"


def _join(texts: Sequence[str]) -> str:
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
