"""How new rows differ from the rows that a model was fitted on: ranges of features, distances, shares of clusters.

`training_summary` gives the training data's summary in the details of ``model.json``; `count_outside` and `compare` compare new rows
with it, for the report of `gpuclust predict`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpuclust.model.drift import Drift, bin_counts, bins_of, psi, psi_of_values
from gpuclust.model.encodings import CIRCULAR, FREQUENCY, Encoding, groups_of
from gpuclust.model.records import NOISE
from gpuclust.model.schema import Bins, Details, FeatureRange, Quantiles, Training

# The quantiles of a feature's training values that are kept: `FeatureRange`.
RANGE = (0.0, 0.01, 0.99, 1.0)
# By definition this share of the training rows lies outside the 1 % to 99 % quantiles.
EXPECTED_IN_TAILS = 0.02
# With fewer rows, shares of 2 % cannot be estimated.
MIN_ROWS_FOR_TAILS = 50
MAX_OUTSIDE = 0.2
# The terminal shows at most SHOWN lines or names, and features with at least the share SHOWN_FROM outside their range.
SHOWN, SHOWN_FROM = 8, 0.001


def training_summary(
    ranges: Mapping[str, Sequence[float]],
    n_rows: int,
    distance: np.ndarray | None,
    confidence: np.ndarray,
    bins: Mapping[str, Bins] | None = None,
) -> dict[str, Any]:
    """The fields of `gpuclust.model.schema.Training`. ``ranges`` are each feature's quantiles at `RANGE`; ``distance`` and
    ``confidence`` (n_rows,) float32 are those of the fitted rows, ``distance`` None where the algorithm has no centres.
    ``bins`` are those of the features, for their drift."""
    summary: dict[str, Any] = {
        "n_rows": n_rows,
        "features": {
            name: dict(zip(("min", "low", "high", "max"), (float(v) for v in values), strict=True))
            for name, values in ranges.items()
        },
    }
    for name, values in (("distance", distance), ("confidence", confidence)):
        found = None if values is None else quantiles(values)
        if found is not None:
            summary[name] = found.model_dump()
        if values is not None and (found_bins := bins_of(values)) is not None:
            summary[f"{name}_bins"] = found_bins.model_dump()
    if bins:
        summary["bins"] = {name: found.model_dump() for name, found in bins.items()}
    return summary


def quantiles(values: np.ndarray) -> Quantiles | None:
    """The 1 %, 50 % and 99 % quantiles of the finite values; None where there are none."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    low, middle, high = np.quantile(finite, (0.01, 0.5, 0.99), method="nearest")
    return Quantiles(q01=float(low), q50=float(middle), q99=float(high))


@dataclass(frozen=True)
class FeatureShift:
    """A feature in the new rows. ``outside`` is the share of its values outside the training range, ``in_tails`` the share
    outside the training rows' 1 % to 99 % quantiles, ``missing`` the share of rows without a value. ``min`` and ``max`` are of
    the new values, None where there are none."""

    feature: str
    outside: float
    in_tails: float
    missing: float
    min: float | None
    max: float | None
    training: FeatureRange

    @property
    def shifted(self) -> bool:
        """Whether more values than chance explains are outside the feature's training range or quantiles."""
        return self.outside >= SHOWN_FROM or self.in_tails >= 3 * EXPECTED_IN_TAILS

    def in_words(self) -> str:
        """``energy: 97.0% of the values are outside the training range (0.1 to 99 now, 0 to 1 in training)``."""
        return (
            f"{self.feature}: {self.outside:.1%} of the values are outside the training range, {self.in_tails:.1%} outside "
            f"its 1% to 99% quantiles ({self.min:.4g} to {self.max:.4g} now, {self.training.min:.4g} to "
            f"{self.training.max:.4g} in training)"
        )


@dataclass(frozen=True)
class CategoryShift:
    """An encoded column of categories in the new rows: ``other``, the share of its values whose category has no feature or frequency of its own,
    that share among the training rows, and the total variation ``distance`` of the shares of all categories, in [0, 1] (None for
    frequencies, which do not distinguish categories)."""

    column: str
    other: float
    training_other: float
    distance: float | None

    def in_words(self) -> str:
        """``genre: 12.0% of the values are categories that the model does not know or distinguish (0.0% in training)``."""
        return (
            f"{self.column}: {self.other:.1%} of the values are categories that the model does not know or distinguish "
            f"({self.training_other:.1%} in training)"
        )

    @property
    def excess(self) -> float:
        """By how much the share of other categories has grown."""
        return self.other - self.training_other


@dataclass(frozen=True)
class ClusterShift:
    """A cluster's share of the new rows that were placed, and of the training rows; noise is -1."""

    cluster: int
    share: float
    training_share: float | None


@dataclass(frozen=True)
class Novelty:
    """The differences between new rows and training rows. ``features`` is empty where the model has no ranges (version 0.1.0);
    distances are None where the algorithm has no centres or no row was placed."""

    n_rows: int
    n_unplaced: int
    rows_outside: float | None
    features: tuple[FeatureShift, ...]
    clusters: tuple[ClusterShift, ...]
    distance: Quantiles | None
    training_distance: Quantiles | None
    confidence: Quantiles | None
    training_confidence: Quantiles | None
    drift: Drift
    categories: tuple[CategoryShift, ...] = ()

    @property
    def has_ranges(self) -> bool:
        """Whether the model has the ranges of its training rows; those of vectors are not kept, only the distances and confidences."""
        return bool(self.features) or self.training_confidence is not None

    def exceeding(self, max_outside: float) -> tuple[FeatureShift, ...]:
        """The features with more than this share of their values outside the training range, or with more than this share plus
        the expected 2 % outside its 1 % to 99 % quantiles (from `MIN_ROWS_FOR_TAILS` rows on); the largest shares first."""
        tails = max_outside + EXPECTED_IN_TAILS if self.n_rows >= MIN_ROWS_FOR_TAILS else np.inf
        found = [f for f in self.features if f.outside > max_outside or f.in_tails > tails]
        return tuple(sorted(found, key=lambda f: (-f.outside, -f.in_tails)))

    def unknown(self, max_outside: float) -> tuple[CategoryShift, ...]:
        """The columns of categories of whose values more than this share, beyond that in training, are of other categories."""
        found = [c for c in self.categories if c.excess > max_outside]
        return tuple(sorted(found, key=lambda c: -c.excess))

    def in_words(self) -> list[str]:
        """The differences as lines of text."""
        if not self.has_ranges:
            return [
                "the model keeps no ranges of its training rows (gpuclust 0.1.0 made it); export its run again to compare",
                *self._shares(),
            ]
        shifted = sorted((f for f in self.features if f.shifted), key=lambda f: (-f.outside, -f.in_tails))
        lines = [f.in_words() for f in shifted[:SHOWN]]
        if len(shifted) > SHOWN:
            lines.append(f"{len(shifted) - SHOWN} more features differ as much from their training range")
        if few := [f.feature for f in self.features if f.outside > 0 and not f.shifted]:
            lines.append(f"less than {SHOWN_FROM:.1%} of the values are outside the training range of {_listed(few)}")
        lines += [c.in_words() for c in self.unknown(SHOWN_FROM)]
        if self.features and not any(f.outside for f in self.features):
            lines.append("every value is within the training range of its feature")
        gaps = [
            f"{f.feature} {f.missing:.1%}" for f in sorted(self.features, key=lambda f: -f.missing) if f.missing > 0
        ]
        if gaps:
            lines.append(f"missing: {_listed(gaps)}")
        for name, now, then in (
            ("distance to the own centre", self.distance, self.training_distance),
            ("confidence", self.confidence, self.training_confidence),
        ):
            if now is not None and then is not None:
                lines.append(
                    f"{name}: median {now.q50:.4g}, 1% to 99% {now.q01:.4g} to {now.q99:.4g} "
                    f"(training: {then.q50:.4g}, {then.q01:.4g} to {then.q99:.4g})"
                )
        return lines + self._shares() + self.drift.in_words()

    def _shares(self) -> list[str]:
        """The clusters whose shares changed most, in one line."""
        known = [c for c in self.clusters if c.training_share is not None]
        if not known or self.n_unplaced == self.n_rows:
            return []
        most = sorted(known, key=lambda c: -abs(c.share - (c.training_share or 0.0)))[:SHOWN]
        shown = sorted(most, key=lambda c: (c.cluster == NOISE, c.cluster))
        texts = [
            f"{'noise' if c.cluster == NOISE else c.cluster} {c.share:.1%} ({c.training_share:.1%})" for c in shown
        ]
        return [f"clusters, share now (in training): {_listed(texts, len(known))}"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        ranges = ("distance", "training_distance", "confidence", "training_confidence")
        found: dict[str, Any] = {"rows": self.n_rows, "unplaced": self.n_unplaced, "rows_outside": self.rows_outside}
        found["features"] = {
            f.feature: {k: v for k, v in vars(f).items() if k not in ("feature", "training")}
            | {"training": f.training.model_dump()}
            for f in self.features
        }
        found["clusters"] = [asdict(c) for c in self.clusters]
        if self.categories:
            found["categories"] = [asdict(c) for c in self.categories]
        found["psi"] = self.drift.to_dict()
        values = {name: getattr(self, name) for name in ranges}
        return found | {name: None if q is None else q.model_dump() for name, q in values.items()}


@dataclass(frozen=True)
class RangeCounts:
    """Values of features outside the ranges of the training rows, for a comparison in parts: ``a + b`` are the counts of the rows of both.

    ``features`` are those whose training range is known. Arrays (n_features,): ``known`` values, how many of them are ``outside`` the range
    or ``in_tails``, their ``min`` and ``max`` (NaN where there are none); ``bins`` (n_features, MAX_BINS): how many are in each bin of the training
    rows. ``rows_outside`` is the number of rows with a value outside.
    """

    features: tuple[str, ...]
    n_rows: int
    rows_outside: int
    known: np.ndarray
    outside: np.ndarray
    in_tails: np.ndarray
    min: np.ndarray
    max: np.ndarray
    bins: np.ndarray

    def __add__(self, other: RangeCounts) -> RangeCounts:
        return RangeCounts(
            self.features,
            self.n_rows + other.n_rows,
            self.rows_outside + other.rows_outside,
            self.known + other.known,
            self.outside + other.outside,
            self.in_tails + other.in_tails,
            np.fmin(self.min, other.min),
            np.fmax(self.max, other.max),
            self.bins + other.bins,
        )


def count_outside(details: Details, features: Sequence[str], raw: np.ndarray) -> RangeCounts:
    """Count the values of rows (n, n_features) float64, missing ones NaN, that are outside the training ranges of a model."""
    training = {} if details.training is None else details.training.features
    bins = {} if details.training is None else details.training.bins
    named = tuple(name for name in features if name in training)
    counts, ends = np.zeros((3, len(named)), np.int64), np.full((2, len(named)), np.nan)
    in_bins = np.zeros((len(named), max((len(b.counts) for b in bins.values()), default=0)), np.int64)
    outside_any = np.zeros(len(raw), dtype=bool)
    for i, name in enumerate(named):
        values, span = raw[:, list(features).index(name)], training[name]
        known = np.isfinite(values)
        outside = known & ((values < span.min) | (values > span.max))
        tails = known & ((values < span.low) | (values > span.high))
        counts[:, i] = known.sum(), outside.sum(), tails.sum()
        if counts[0, i]:
            ends[:, i] = values[known].min(), values[known].max()
        if name in bins:
            in_bins[i, : len(bins[name].counts)] = bin_counts(values[known], np.array(bins[name].edges))
        outside_any |= outside
    return RangeCounts(
        named, len(raw), int(outside_any.sum()), counts[0], counts[1], counts[2], ends[0], ends[1], in_bins
    )


def count_categories(encodings: Sequence[Encoding], features: Sequence[str], raw: np.ndarray) -> list[np.ndarray]:
    """For each encoded column of categories, of rows (n, n_features) float64: the number of values, of values of other categories, and (one-hot)
    of each category. The counts of the rows of two parts are added."""
    found = []
    for encoding, places in groups_of(encodings, features).values():
        if encoding.kind == CIRCULAR:
            continue
        own = raw[:, places]
        own = own[~np.isnan(own).any(axis=1)]
        if encoding.kind == FREQUENCY:
            found.append(np.array([len(own), (own[:, 0] == encoding.rest).sum()]))
            continue
        known = [i for i, j in enumerate(places) if features[j] != encoding.other_feature]
        counts = own[:, known].sum(axis=0)
        found.append(np.concatenate([[len(own), len(own) - counts.sum()], counts]))
    return found


def category_shifts(
    encodings: Sequence[Encoding], features: Sequence[str], counts: Sequence[np.ndarray]
) -> tuple[CategoryShift, ...]:
    """The shift of each encoded column of categories, from the counts of `count_categories` of all rows."""
    found = []
    groups = (g for g in groups_of(encodings, features).values() if g[0].kind != CIRCULAR)
    for (encoding, places), (n, others, *each) in zip(groups, counts, strict=True):
        n, other = max(n, 1), 1.0 - sum(encoding.shares)
        distance = None
        if encoding.kind != FREQUENCY:
            then = dict(zip(encoding.features, encoding.shares, strict=False))
            names = [features[j] for j in places if features[j] != encoding.other_feature]
            gaps = [abs(count / n - then[name]) for name, count in zip(names, each, strict=True)]
            distance = float(0.5 * (sum(gaps) + abs(others / n - other)))
        found.append(CategoryShift(encoding.column, float(others / n), max(other, 0.0), distance))
    return tuple(found)


def compare(
    details: Details,
    counts: RangeCounts,
    cluster: np.ndarray,
    confidence: np.ndarray,
    distance: np.ndarray,
    *,
    categories: tuple[CategoryShift, ...] = (),
) -> Novelty:
    """Compare rows with the training rows of a model.

    ``counts`` are of all rows (`count_outside`), and so are ``categories`` (`category_shifts`); of the rows that were placed, (n,) each: ``cluster`` int32, ``confidence`` and
    ``distance`` float32.
    """
    training = details.training
    return Novelty(
        n_rows=counts.n_rows,
        n_unplaced=counts.n_rows - len(cluster),
        rows_outside=counts.rows_outside / counts.n_rows if counts.features and counts.n_rows else None,
        features=() if training is None else tuple(_shifts(counts, training.features)),
        clusters=_cluster_shifts(details, cluster),
        distance=quantiles(distance),
        training_distance=None if training is None else training.distance,
        confidence=quantiles(confidence),
        training_confidence=None if training is None else training.confidence,
        drift=_drift(details, counts, cluster, confidence, distance),
        categories=categories,
    )


def _drift(
    details: Details, counts: RangeCounts, cluster: np.ndarray, confidence: np.ndarray, distance: np.ndarray
) -> Drift:
    """The indices of rows, of what the model knows of its training rows."""
    training = details.training or Training(n_rows=1, features={})
    features = {}
    for i, name in enumerate(counts.features):
        if name in training.bins:
            then = np.array(training.bins[name].counts)
            if (found := psi(then, counts.bins[i, : len(then)])) is not None:
                features[name] = found
    sizes = {int(c): note.size for c, note in details.clusters.items()}
    numbers = sorted({*sizes, *np.unique(cluster).tolist()})
    then = np.array([sizes.get(c, 0) for c in numbers], np.int64)
    now = np.array([np.count_nonzero(cluster == c) for c in numbers], np.int64)
    has_distance = training.distance is not None and len(distance) > 0
    return Drift(
        n_rows=len(cluster),
        features=features,
        clusters=psi(then, now),
        distance=psi_of_values(training.distance_bins, distance),
        confidence=psi_of_values(training.confidence_bins, confidence),
        far=float(np.mean(distance > training.distance.q99)) if has_distance and training.distance else None,
    )


def _shifts(counts: RangeCounts, training: Mapping[str, FeatureRange]) -> Iterator[FeatureShift]:
    """The shift of each feature."""
    for i, name in enumerate(counts.features):
        known, n = int(counts.known[i]), max(int(counts.known[i]), 1)
        yield FeatureShift(
            feature=name,
            outside=float(counts.outside[i] / n),
            in_tails=float(counts.in_tails[i] / n),
            missing=(counts.n_rows - known) / counts.n_rows if counts.n_rows else 0.0,
            min=float(counts.min[i]) if known else None,
            max=float(counts.max[i]) if known else None,
            training=training[name],
        )


def _listed(texts: Sequence[str], n: int | None = None) -> str:
    """The first SHOWN texts, followed by an ellipsis where there are more."""
    return ", ".join(texts[:SHOWN]) + (", ..." if (n or len(texts)) > SHOWN else "")


def _cluster_shifts(details: Details, placed: np.ndarray) -> tuple[ClusterShift, ...]:
    numbers, counts = np.unique(placed, return_counts=True)
    now = dict(zip(numbers.tolist(), (counts / max(len(placed), 1)).tolist(), strict=True))
    sizes = {int(c): note.size for c, note in details.clusters.items()}
    total = sum(sizes.values())
    every = sorted({*now, *sizes}, key=lambda c: (c == NOISE, c))
    return tuple(ClusterShift(c, now.get(c, 0.0), sizes.get(c, 0) / total if total else None) for c in every)
