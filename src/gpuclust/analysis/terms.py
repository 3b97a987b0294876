"""The words that distinguish each cluster: class-based TF-IDF of a column of text (Grootendorst 2022, arXiv:2203.05794, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpuclust.analysis.enrichment import pairs
from gpuclust.analysis.table_stats import Categories
from gpuclust.model.records import Term

TOP = 8
MIN_COUNT = 2
"""A word must occur in at least this many rows of a cluster."""
MIN_LIFT = 1.5
"""A word must be at least this many times as frequent in a cluster as in all rows."""


def top_terms(words: Categories | None, labels: np.ndarray, clusters: Sequence[int]) -> dict[int, tuple[Term, ...]]:
    """The words of each cluster with the largest weight: their share of the cluster's words times log(1 + A / f), where f is how often
    the word occurs in all rows and A the mean number of words of a cluster. Ties go to the earlier word in the alphabet."""
    if words is None or not len(words.values) or not len(clusters):
        return dict.fromkeys(clusters, ())
    own, codes, counts = pairs(words, labels)
    mean = words.totals.sum() / len(clusters)
    found = {}
    for cluster in clusters:
        a, b = np.searchsorted(own, [cluster, cluster + 1])
        mine, n = codes[a:b], counts[a:b]
        weight = n / max(n.sum(), 1) * np.log1p(mean / words.totals[mine])
        lift = n / max(n.sum(), 1) / (words.totals[mine] / words.totals.sum())
        weight[(n < MIN_COUNT) | (lift < MIN_LIFT)] = 0.0
        first = np.lexsort((mine, -weight))[:TOP]
        found[cluster] = tuple(
            Term(words.values[int(mine[i])].as_py(), int(n[i]), float(weight[i])) for i in first if weight[i] > 0
        )
    return found
