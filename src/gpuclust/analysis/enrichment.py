"""Which values of a category stand out in each cluster: by how often they occur, and by lift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gpuclust.analysis.table_stats import Categories
from gpuclust.model.records import NOISE, CategoryShare

TOP = 5
# Lifts are given for values with at least so many occurrences, and at least this share of the cluster's values: below,
# the largest lifts are due to chance (a value that occurs once has the largest lift there is).
MIN_COUNT, MIN_SHARE = 5, 0.002
CHUNK_VALUES = 1 << 21


@dataclass(frozen=True)
class Top:
    """The values of one cluster that occur most often, and those with the largest lift above 1."""

    by_count: tuple[CategoryShare, ...] = ()
    by_lift: tuple[CategoryShare, ...] = ()


def top_categories(column: Categories | None, labels: np.ndarray, clusters: Sequence[int]) -> dict[int, Top]:
    """The outstanding values of each cluster; ties go to the larger count, then to the earlier value in the alphabet.

    A value of which a row has several (a list of genres) counts each time. ``labels`` (n_rows,) int.
    """
    if column is None or not column.totals.sum():
        return dict.fromkeys(clusters, Top())
    own, codes, counts = pairs(column, labels)
    starts = np.searchsorted(own, [*clusters])
    stops = np.searchsorted(own, [*clusters], side="right")
    overall = column.totals / column.totals.sum()
    return {
        c: _top(column.values, codes[a:b], counts[a:b], overall)
        for c, a, b in zip(clusters, starts, stops, strict=True)
    }


def pairs(column: Categories, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each (cluster, code) that occurs, sorted, and how often."""
    n_codes, n_values = len(column.values), len(column.codes)
    n_keys = (int(labels.max(initial=NOISE)) - NOISE + 1) * n_codes

    def keys_of(values: slice) -> np.ndarray:
        own = labels[values if column.parents is None else column.parents[values]]
        keys: np.ndarray = (own.astype(np.int64) - NOISE) * n_codes + column.codes[values]
        return keys

    if n_keys <= 4 * n_values:
        counted = np.zeros(n_keys, np.int64)
        step = max(CHUNK_VALUES, n_keys)
        for start in range(0, n_values, step):
            counted += np.bincount(keys_of(slice(start, start + step)), minlength=n_keys)
        keys = np.flatnonzero(counted)
        counts = counted[keys]
    else:
        keys, counts = np.unique(keys_of(slice(None)), return_counts=True)
    return keys // n_codes + NOISE, keys % n_codes, counts


def _top(values: pa.Array, codes: np.ndarray, counts: np.ndarray, overall: np.ndarray) -> Top:
    total = counts.sum()
    if not total:
        return Top()
    rank = counts.astype(np.int64) * len(values) - codes  # larger counts first, then earlier values; all different
    often = np.argpartition(-rank, TOP)[:TOP] if len(rank) > TOP else np.arange(len(rank))
    often = often[np.argsort(-rank[often])]
    lifts = counts / total / overall[codes]
    enough = np.flatnonzero((counts >= max(MIN_COUNT, MIN_SHARE * total)) & (lifts > 1.0))
    lifted = enough[np.lexsort((-rank[enough], -lifts[enough]))][:TOP]

    def shares(chosen: np.ndarray) -> tuple[CategoryShare, ...]:
        return tuple(
            CategoryShare(values[codes[i]].as_py(), int(counts[i]), float(lifts[i]), float(counts[i] / total))
            for i in chosen
        )

    return Top(shares(often), shares(lifted))
