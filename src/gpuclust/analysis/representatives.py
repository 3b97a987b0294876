"""Rows that stand for a cluster: those nearest its centre, and the most popular ones."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from gpuclust.analysis.table_stats import TableStats
from gpuclust.model.records import Example
from gpuclust.tracks.presets import ISSUE

SHOWN = 5
_ISSUE = re.compile(ISSUE)
# So many more are looked at, because tables repeat a track under several ids.
LOOKED_AT = 6 * SHOWN
# Where a clustering has no distances (HDBSCAN), the rows nearest the mean among this most certain share.
MAX_CONFIDENCE_GAP = 0.1


def representatives(
    stats: TableStats,
    members: Mapping[int, np.ndarray],
    means: Mapping[int, np.ndarray],
    distance: np.ndarray | None,
    confidence: np.ndarray | None,
) -> dict[int, tuple[Example, ...]]:
    """The rows of each cluster that are nearest its centre, nearest first.

    ``members``: cluster -> row numbers; ``means``: cluster -> (n_features,) in original units. Nearest by
    ``distance`` (n_rows,) where there is one, else by the standardised distance to the mean among the most certain
    tenth of the members by ``confidence`` (n_rows,), else among all.
    """
    picked = {}
    for cluster, rows in members.items():
        if distance is None and confidence is not None:
            rows = rows[confidence[rows] >= np.quantile(confidence[rows], 1 - MAX_CONFIDENCE_GAP)]
        far = distance[rows] if distance is not None else _gap(stats, rows, means[cluster])
        picked[cluster] = _first(rows, far)
    return _shown(stats, picked)


def popular(stats: TableStats, members: Mapping[int, np.ndarray]) -> dict[int, tuple[Example, ...]]:
    """The most popular rows of each cluster, most popular first; none where the table has no popularity."""
    if stats.popularity is None:
        return dict.fromkeys(members, ())
    picked = {}
    for cluster, rows in members.items():
        rows = rows[~np.isnan(stats.popularity[rows])]
        picked[cluster] = _first(rows, -stats.popularity[rows])
    return _shown(stats, picked)


def _gap(stats: TableStats, rows: np.ndarray, mean: np.ndarray) -> np.ndarray:
    gap = np.zeros(len(rows))
    for j, scale in enumerate(stats.scale):
        gap += ((stats.raw[rows, j] - mean[j]) / scale) ** 2
    return gap


def _first(rows: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The rows with the smallest values, smallest first, ties in the order of the table."""
    if len(rows) > LOOKED_AT:
        near = np.flatnonzero(order <= np.partition(order, LOOKED_AT - 1)[LOOKED_AT - 1])
        rows, order = rows[near], order[near]
    return rows[np.lexsort((rows, order))][:LOOKED_AT]


def _shown(stats: TableStats, picked: Mapping[int, np.ndarray]) -> dict[int, tuple[Example, ...]]:
    """The first rows of each, one of each recording: the same title and creators but for case, accents and issue."""
    every = stats.rows(np.concatenate([np.empty(0, np.int64), *picked.values()]).astype(np.int64))
    found, at = {}, 0
    for cluster, rows in picked.items():
        different: dict[tuple[str, ...], Example] = {}
        for row in every[at : at + len(rows)]:
            different.setdefault(_recording(row), row)
            if len(different) == SHOWN:
                break
        found[cluster] = tuple(different.values())
        at += len(rows)
    return found


@lru_cache(maxsize=10_000)  # the jobs of a sweep look at many of the same rows
def _recording(row: Example) -> tuple[str, ...]:
    """What a row's recording is known by; its id where it has no title or no creator."""
    title = _folded(_ISSUE.sub("", row.title)) or _folded(row.title)
    creators = sorted(filter(None, map(_folded, re.split("[;,]", row.creator))))
    return (title, *creators) if title and creators else (row.id,)


def _folded(text: str) -> str:
    """Letters and digits without case and accents."""
    folded = text.casefold()
    plain = folded if folded.isascii() else unicodedata.normalize("NFKD", folded)
    return "".join(filter(str.isalnum, plain)) or text.strip()
