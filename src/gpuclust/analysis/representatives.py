"""Rows that stand for a cluster: those nearest its centre, and the most popular ones."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import islice

import numpy as np

from gpuclust.analysis.members import Members
from gpuclust.analysis.members import members as rows_by_cluster
from gpuclust.analysis.table_stats import TableStats
from gpuclust.model.records import Example
from gpuclust.runtime.blocks import Run
from gpuclust.runtime.passes import PerRow
from gpuclust.tracks.presets import ISSUE

SHOWN = 5
_ISSUE = re.compile(ISSUE)
# So many more are looked at, because tables repeat a track under several ids.
LOOKED_AT = 6 * SHOWN
FIRST_LOOK = 8  # rows that are read first: each is one read of the disk
# Where a clustering has no distances (HDBSCAN), the rows nearest the mean among this most certain share.
MAX_CONFIDENCE_GAP = 0.1


def representatives(
    stats: TableStats,
    members: Members,
    means: Mapping[int, np.ndarray],
    distance: np.ndarray | None,
    confidence: np.ndarray | None,
) -> dict[int, tuple[Example, ...]]:
    """The rows of each cluster of ``means`` that are nearest its centre, nearest first.

    ``means``: cluster -> (n_features,) in original units, of `TableStats.vectors` where there are some. Nearest by ``distance`` (n_rows,) where there is one, else by the
    standardised distance to the mean among the most certain tenth of the members by ``confidence`` (n_rows,), else among all.
    """
    if distance is not None:
        by_distance = ({c: (r, distance[r]) for c, r in chunk.items() if c in means} for chunk in members.chunks())
        return _shown(stats, _first(by_distance))
    certain: dict[int, float] = {}
    if confidence is not None:
        for cluster, rows in members.whole().items():
            certain[cluster] = float(np.quantile(confidence[rows], 1 - MAX_CONFIDENCE_GAP))
    sure = None if confidence is None else PerRow(confidence)
    if stats.vectors is not None:
        ones = np.ones(stats.vectors.shape[1])
        return _shown(stats, _first(stats.vectors.collect(_near, PerRow(members.labels), sure, certain, means, ones)))
    return _shown(stats, _first(stats.raw.collect(_near, PerRow(members.labels), sure, certain, means, stats.scale)))


def popular(stats: TableStats, members: Members) -> dict[int, tuple[Example, ...]]:
    """The most popular rows of each cluster, most popular first; none where the table has no popularity."""
    if stats.popularity is None:
        return dict.fromkeys(members.clusters, ())
    popularity = stats.popularity

    def known(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = rows[~np.isnan(popularity[rows])]
        return rows, -popularity[rows]

    return _shown(stats, _first({c: known(rows) for c, rows in chunk.items()} for chunk in members.chunks()))


def _near(
    run: Run,
    labels: PerRow,
    confidence: PerRow | None,
    certain: Mapping[int, float],
    means: Mapping[int, np.ndarray],
    scale: np.ndarray,
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """The rows of a run that are nearest the mean of their cluster, and their squared standardised distances."""
    found = {}
    for cluster, rows in rows_by_cluster(labels.of(run)).items():
        if cluster not in means:
            continue
        if confidence is not None:
            rows = rows[confidence.of(run)[rows] >= certain[cluster]]
        gap = np.zeros(len(rows))
        for j, one in enumerate(scale):
            gap += ((run.X[rows, j] - means[cluster][j]) / one) ** 2
        found[cluster] = _smallest(rows + run.first_row, gap)
    return found


def _first(parts: Iterable[Mapping[int, tuple[np.ndarray, np.ndarray]]]) -> dict[int, np.ndarray]:
    """The rows of each cluster with the smallest values, from parts of the table: cluster -> rows and their values."""
    best: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for part in parts:
        for cluster, (rows, values) in part.items():
            if cluster in best:
                rows, values = np.append(best[cluster][0], rows), np.append(best[cluster][1], values)
            best[cluster] = _smallest(rows, values)
    return {c: rows for c, (rows, _) in best.items()}


def _smallest(rows: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows with the smallest values, smallest first (ties in the order of the table), and their values."""
    if len(rows) > LOOKED_AT:
        near = np.flatnonzero(values <= np.partition(values, LOOKED_AT - 1)[LOOKED_AT - 1])
        rows, values = rows[near], values[near]
    first = np.lexsort((rows, values))[:LOOKED_AT]
    return rows[first], values[first]


def _shown(stats: TableStats, picked: Mapping[int, np.ndarray]) -> dict[int, tuple[Example, ...]]:
    """The first rows of each, one of each recording: the same title and creators but for case, accents and issue."""
    found: dict[int, dict[tuple[str, ...], Example]] = {c: {} for c in picked}
    for look in (slice(0, FIRST_LOOK), slice(FIRST_LOOK, LOOKED_AT)):
        wanted = {c: rows[look] for c, rows in picked.items() if len(found[c]) < SHOWN and len(rows[look])}
        if not wanted:
            break
        examples = iter(stats.rows(np.concatenate(list(wanted.values())).astype(np.int64)))
        for cluster, rows in wanted.items():
            for example in islice(examples, len(rows)):
                if len(found[cluster]) < SHOWN:
                    found[cluster].setdefault(_recording(example), example)
    return {c: tuple(different.values()) for c, different in found.items()}


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
