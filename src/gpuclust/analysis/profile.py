"""What is in each cluster: size, centre and spread in original units, what sets it apart, who is in it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpuclust.analysis import naming
from gpuclust.analysis.enrichment import top_categories
from gpuclust.analysis.members import Members
from gpuclust.analysis.moments import moments_and_medians
from gpuclust.analysis.representatives import popular, representatives
from gpuclust.analysis.rules import rules
from gpuclust.analysis.table_stats import TableStats
from gpuclust.analysis.terms import top_terms
from gpuclust.model.encodings import CIRCULAR, ONEHOT, OTHER, Encoding
from gpuclust.model.preparation import unit_rows
from gpuclust.model.records import NOISE, CategoryColumn, CategoryShare, CircularMean, Cluster, FeatureStats
from gpuclust.runtime.blocks import RowBlocks, Run
from gpuclust.runtime.passes import PerRow
from gpuclust.sanitize import safe_row

MAX_CATEGORIES = 5
"""The categories of a column that a cluster is described by."""


@dataclass(frozen=True)
class Profile:
    """All clusters of a clustering, in the order of their numbers, noise last where there is some."""

    features: tuple[str, ...]
    clusters: tuple[Cluster, ...]

    @property
    def proper(self) -> tuple[Cluster, ...]:
        """The clusters without the noise."""
        return tuple(c for c in self.clusters if c.cluster != NOISE)

    def z(self) -> np.ndarray:
        """(n_clusters, n_features) float64: the z-scores of `proper`."""
        return np.array([[c.features[f].z for f in self.features] for c in self.proper]).reshape(
            len(self.proper), len(self.features)
        )

    def to_json(self) -> str:
        """The records as JSON."""
        return json.dumps(self, default=vars, ensure_ascii=False)

    def to_csv(self) -> str:
        """A line for each cluster and feature."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["cluster", "name", "size", "fraction", "feature", "mean", "median", "std", "z", "z_se"])
        for c in self.clusters:
            for feature, p in c.features.items():
                numbers = (p.mean, p.median, p.std, p.z, p.z_se)
                writer.writerow(safe_row([c.cluster, c.name, c.size, c.fraction, feature, *numbers]))
        return out.getvalue()


def read_profile(document: Mapping[str, Any]) -> Profile | None:
    """The profile of a document that `Profile.to_json` wrote; None where it is not one."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Profile).validate_python(document)
    except ValidationError:
        return None


def profile(
    stats: TableStats,
    features: Sequence[str],
    labels: np.ndarray,
    *,
    distance: np.ndarray | None = None,
    confidence: np.ndarray | None = None,
    preset: str = "none",
    encodings: Sequence[Encoding] = (),
) -> Profile:
    """Describe each cluster of ``labels`` (n_rows,) int, and the noise (-1) where there is some.

    ``distance`` (n_rows,) to the own centre and ``confidence`` (n_rows,) choose the representative rows; everything
    else follows from the labels and the table alone, so that a rebuilt clustering has the same names. ``preset``: whose words
    the names use (`gpuclust.analysis.naming.vocabulary`). ``encodings``: of the columns that some features come from.
    """
    members = Members(labels)
    described = _describe(stats, members, features)
    proper = [c for c in members.clusters if c != NOISE]
    z, z_se = (_matrix([described[c] for c in proper], which, len(features)) for which in ("z", "z_se"))
    means = {c: np.array([p.mean for p in described[c].values()]) for c in proper}
    if stats.vectors is not None:
        means = _vector_means(stats.vectors, labels, proper)
    spoken = naming.vocabulary(features, preset, encodings)
    nearest = naming.nearest(z if stats.vectors is None else _directions(list(means.values())))
    groups = top_categories(stats.groups, labels, members.clusters)
    creators = top_categories(stats.creators, labels, members.clusters)
    terms = top_terms(stats.words, labels, members.clusters)
    own_means = _matrix([described[c] for c in proper], "mean", len(features))
    if stats.vectors is None:
        named = naming.names(z, z_se, spoken, own_means, nearest)
    else:
        by_features = naming.names(z, z_se, spoken, own_means, nearest) if features else ()
        named = naming.names_of_words(
            [terms[c] for c in proper], [(*groups[c].by_count, *groups[c].by_lift) for c in proper], by_features
        )
    names = {NOISE: "Noise"} | dict(zip(proper, named, strict=True))
    near = {c: proper[i] if i >= 0 else None for c, i in zip(proper, nearest, strict=True)}
    overall = dict(zip(features, stats.mean.tolist(), strict=True))
    usable = distance if distance is not None and not np.isnan(distance).any() else None
    central = representatives(stats, members, means, usable, confidence)
    liked = popular(stats, members)
    clusters = {
        c: Cluster(
            cluster=c,
            name=names[c],
            size=size,
            fraction=size / len(labels),
            features=described[c],
            nearest=near.get(c),
            top_groups=groups[c].by_count,
            top_groups_by_lift=groups[c].by_lift,
            top_creators=creators[c].by_count,
            top_creators_by_lift=creators[c].by_lift,
            top_terms=terms[c],
            categories=_categories(described[c], size, overall, encodings),
            circular=_circular_means(described[c], encodings),
            representatives=central.get(c, ()),
            popular=liked[c],
        )
        for c, size in members.sizes.items()
    }
    return Profile(tuple(features), _with_sentences(clusters, overall, spoken))


def _categories(
    described: Mapping[str, FeatureStats], size: int, overall: Mapping[str, float], encodings: Sequence[Encoding]
) -> tuple[CategoryColumn, ...]:
    """The most frequent categories of each one-hot column in a cluster of ``size`` rows, from the means of its features; ``overall`` are
    those of all rows."""
    found = []
    for encoding in encodings:
        if encoding.kind != ONEHOT:
            continue
        names = [*encoding.categories, *([OTHER] if encoding.other_feature else [])]
        shares = [
            CategoryShare(name, round(share * size), share / overall[feature], share)
            for name, feature in zip(names, encoding.features, strict=True)
            if feature in described and (share := described[feature].mean) > 0
        ]
        shares.sort(key=lambda s: -s.fraction)
        found.append(CategoryColumn(encoding.column, tuple(shares[:MAX_CATEGORIES])))
    return tuple(found)


def _circular_means(described: Mapping[str, FeatureStats], encodings: Sequence[Encoding]) -> tuple[CircularMean, ...]:
    """The means of circular columns in a cluster, from those of their sines and cosines."""
    found = []
    for encoding in encodings:
        if encoding.kind == CIRCULAR and all(name in described for name in encoding.features):
            sine, cosine = (described[name].mean for name in encoding.features)
            turn = np.arctan2(sine, cosine) / (2 * np.pi) % 1.0
            length = min(float(np.hypot(sine, cosine)), 1.0)
            found.append(CircularMean(encoding.column, float(turn * encoding.period), encoding.period, length))
    return tuple(found)


def _directions(means: Sequence[np.ndarray]) -> np.ndarray:
    """Means of vectors (n_clusters, n_features), divided by their length."""
    return unit_rows(np.array(means)) if means else np.empty((0, 0))


def _vector_means(vectors: RowBlocks, labels: np.ndarray, clusters: Sequence[int]) -> dict[int, np.ndarray]:
    """The mean of all features in each cluster (n_features,), in one read of the rows."""
    if not clusters:
        return {}
    found = vectors.reduce(_label_sums, PerRow(labels), max(clusters) + 1)
    return {c: found[c, 1:] / max(found[c, 0], 1.0) for c in clusters}


def _label_sums(run: Run, labels: PerRow, n_clusters: int) -> list[np.ndarray]:
    """For each block the number of rows of each cluster and their sums: (n_clusters, 1 + n_features)."""
    from scipy.sparse import csr_array

    found = []
    for start, stop in run.edges:
        own, X = labels.of(run)[start:stop], run.X[start:stop]
        kept = np.flatnonzero(own != NOISE)
        marks = csr_array((np.ones(len(kept)), (own[kept], kept)), shape=(n_clusters, len(own)))
        found.append(np.column_stack([np.bincount(own[kept], minlength=n_clusters), marks @ X]))
    return found


def with_rules(described: Profile, stats: TableStats, labels: np.ndarray, *, seed: int = 0) -> Profile:
    """The profile with a decision rule for each of its larger clusters (see `rules`): a tree each, so not for every
    job of a sweep."""
    if not described.features:
        return described
    found = rules(stats, described.features, labels, seed=seed)
    return replace(described, clusters=tuple(replace(c, rule=found.get(c.cluster)) for c in described.clusters))


def _describe(stats: TableStats, members: Members, features: Sequence[str]) -> dict[int, dict[str, FeatureStats]]:
    """Cluster -> feature -> its figures."""
    if not features:
        return {c: {} for c in members.clusters}
    found, medians = moments_and_medians(stats.summed, members)
    std = found.std
    z, z_se = (found.mean - stats.mean) / stats.scale, std / np.sqrt(found.count)[:, None] / stats.scale
    figures = np.stack([found.mean, medians, std, z, z_se], axis=2).tolist()
    return {
        c: {f: FeatureStats(*numbers) for f, numbers in zip(features, own, strict=True)}
        for c, own in zip(members.clusters, figures, strict=True)
    }


def _matrix(described: Sequence[Mapping[str, FeatureStats]], which: str, n_features: int) -> np.ndarray:
    return np.array([[getattr(p, which) for p in d.values()] for d in described]).reshape(len(described), n_features)


def _with_sentences(
    clusters: Mapping[int, Cluster], overall: Mapping[str, float], spoken: naming.Vocabulary
) -> tuple[Cluster, ...]:
    return tuple(
        replace(c, description=naming.sentence(c, overall, None if c.nearest is None else clusters[c.nearest], spoken))
        for c in clusters.values()
    )
