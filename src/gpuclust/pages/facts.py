"""What a page says of a clustering in plain words: a headline, three sentences, and the features that tell the clusters apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpuclust.model.records import NOISE, Cluster
from gpuclust.pages.text import count, percent, unit_of
from gpuclust.tracks.presets import PRESETS

# Silhouettes from which clusters are called well and partly separated (Kaufman and Rousseeuw, "Finding Groups in Data", 1990).
SEPARATED, PARTLY = 0.5, 0.25
# A larger share of noise is named in the headline.
MAX_QUIET_NOISE = 0.3
CLEAR, NONE = "clear", "none"
_SAID_FEATURES = 3


def rows_word(preset: str) -> str:
    """What the rows are called: ``tracks``, or ``rows`` where no preset says it."""
    return preset if preset in PRESETS else "rows"


def unit(feature: str, preset: str) -> str:
    """The unit of a feature, as `gpuclust.pages.text.measure` takes it: from its name, else from a preset."""
    known = PRESETS.get(preset)
    terms = known.terms_of(feature) if known else None
    return unit_of(feature) or (terms.unit if terms else "")


def telling_features(z: np.ndarray, fractions: np.ndarray, most: int) -> list[int]:
    """The numbers of the at most ``most`` features in which the clusters differ most.

    ``z`` (n_clusters, n_features) standardised means, ``fractions`` (n_clusters,) shares of the rows. If there are at most ``most``
    features, all of them in their order; else those with the largest variance between clusters, the largest first.
    """
    if z.shape[1] <= most:
        return list(range(z.shape[1]))
    return _by_variance(z, fractions)[:most]


def _by_variance(z: np.ndarray, fractions: np.ndarray) -> list[int]:
    between: np.ndarray = (fractions[:, None] * np.nan_to_num(z) ** 2).sum(axis=0)
    return [int(f) for f in np.argsort(-between, kind="stable")]


def z_matrix(clusters: Sequence[Cluster], features: Sequence[str]) -> np.ndarray:
    """(n_clusters, n_features) float64: the z-scores of clusters."""
    return np.array([[c.features[f].z for f in features] for c in clusters]).reshape(-1, len(features))


def headline(clusters: Sequence[Cluster], *, verdict: str = "", kind: str = "", rows: str = "rows") -> str:
    """The result in one sentence. ``verdict`` and ``kind`` are those of the sweep, empty for a single job."""
    proper = [c for c in clusters if c.cluster != NOISE]
    n_rows, k = sum(c.size for c in clusters), len(proper)
    placed = sum(c.size for c in proper)
    if not k:
        return f"No clusters were found in {count(n_rows)} {rows}"
    if placed < (1 - MAX_QUIET_NOISE) * n_rows:
        return f"Only {count(placed)} of {count(n_rows)} {rows} are in {f'one of the {_clusters(k)}' if k > 1 else 'the only cluster'}"
    found = f"{count(n_rows)} {rows} in {_clusters(k)}"
    if kind == NONE:
        return f"{found}, but no natural number of clusters"
    if kind == CLEAR and verdict.startswith(f"{k} "):
        return f"{found}, a number that the data support"
    if kind and kind != CLEAR:
        return f"{found}; other numbers of clusters are plausible too"
    return found


def _clusters(k: int) -> str:
    return f"{count(k)} clusters" if k != 1 else "1 cluster"


def sentences(
    clusters: Sequence[Cluster], metrics: Mapping[str, Any], words: Mapping[str, str], *, rows: str = "rows"
) -> tuple[str, ...]:
    """Three sentences: how large the clusters are, which features tell them apart, and how well they are separated.

    ``words`` are the features as people read them.
    """
    proper = [c for c in clusters if c.cluster != NOISE]
    if not proper:
        return ()
    said = [_sizes(proper, clusters, rows), _differences(proper, words), _separation(metrics)]
    return tuple(text for text in said if text)


def _sizes(proper: Sequence[Cluster], clusters: Sequence[Cluster], rows: str) -> str:
    largest, smallest = max(proper, key=lambda c: c.size), min(proper, key=lambda c: c.size)
    said = f"The largest cluster, “{largest.name}”, has {percent(largest.fraction)} of the {rows}"
    if smallest is not largest:
        said += f"; the smallest, “{smallest.name}”, has {percent(smallest.fraction)}"
    noise = sum(c.fraction for c in clusters if c.cluster == NOISE)
    return f"{said}; {percent(noise)} are in no cluster (noise)." if noise else f"{said}."


def _differences(proper: Sequence[Cluster], words: Mapping[str, str]) -> str:
    features = list(proper[0].features)
    if len(proper) < 2 or not features:
        return ""
    ranked = _by_variance(z_matrix(proper, features), np.array([c.fraction for c in proper]))
    said = [words.get(features[f], features[f]) for f in ranked[:_SAID_FEATURES]]
    listed = f"{', '.join(said[:-1])} and {said[-1]}" if len(said) > 1 else said[0]
    return f"The clusters differ most in {listed}."


def _separation(metrics: Mapping[str, Any]) -> str:
    value = metrics.get("silhouette_with_noise", metrics.get("silhouette"))
    if not isinstance(value, (int, float)) or value != value:
        return ""
    if value >= SEPARATED:
        said = "The clusters are well separated"
    elif value >= PARTLY:
        said = "The clusters are partly separated"
    else:
        said = "The clusters overlap, and rows near a border could belong to either side"
    return f"{said}: the silhouette is {value:.2f} (1: well separated; 0: overlapping)."
