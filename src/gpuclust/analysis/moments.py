"""Means, standard deviations and medians of the rows of each cluster, in passes over blocks of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuclust.analysis.members import Members, members
from gpuclust.model.records import NOISE
from gpuclust.runtime.blocks import BLOCK_ROWS, MergeTree, RowBlocks, Run
from gpuclust.runtime.order_statistics import median_ranks, middle, order_statistics
from gpuclust.runtime.passes import PerRow, array_of, each_block, on_host, xp_of


@dataclass(frozen=True)
class Moments:
    """``count`` (n_groups,) int64 rows of each group, their ``mean`` (n_groups, n_columns), and ``squares`` (n_groups, n_columns), the
    sums of the squared differences from it. ``a + b`` are the moments of the rows of both (Chan, Golub and LeVeque 1983)."""

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    @property
    def std(self) -> np.ndarray:
        """Standard deviations (n_groups, n_columns) with n; 0 for a group without rows."""
        return np.asarray(np.sqrt(self.squares / np.maximum(self.count, 1)[:, None]))

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        share = (other.count / np.maximum(count, 1))[:, None]
        gap = other.mean - self.mean
        squares = self.squares + other.squares + gap**2 * (self.count[:, None] * share)
        return Moments(count, self.mean + gap * share, squares)


def moments(raw: RowBlocks, labels: np.ndarray | None = None, clusters: Sequence[int] = (0,)) -> Moments:
    """The moments of each of ``clusters`` of labels (n_rows,) int32, or of all rows, in one read of the rows."""
    found: Moments = raw.reduce(_of_blocks, None if labels is None else PerRow(labels), tuple(clusters))
    return found


def moments_and_medians(raw: RowBlocks, rows: Members) -> tuple[Moments, np.ndarray]:
    """The moments of each cluster, and its exact medians (n_clusters, n_columns).

    Both are the same to the last bit for rows in memory and on disk; on a GPU the medians are, and the moments agree in all but the last
    digits. Rows in memory are gathered by cluster and partitioned, which takes a third of the time of the reads that find the medians of rows
    on disk. Rows on a GPU are sorted there.
    """
    X = array_of(raw)
    if X is not None:
        return _of_rows_on_device(X, rows) if raw.on_device else _of_rows_in_memory(X, rows)
    groups = rows.labels - NOISE  # order_statistics ignores labels below 0
    mine = [c - NOISE for c in rows.clusters]
    sizes = np.zeros(max(mine, default=0) + 1, np.int64)
    sizes[mine] = list(rows.sizes.values())
    medians = middle(order_statistics(raw, median_ranks(sizes), groups))
    return moments(raw, rows.labels, rows.clusters), medians[mine]


def _of_rows_in_memory(X: np.ndarray, rows: Members) -> tuple[Moments, np.ndarray]:
    starts = range(0, len(X), BLOCK_ROWS)
    blocks = [_none(len(rows.sizes), X.shape[1]) for _ in starts]
    medians = np.empty((len(rows.sizes), X.shape[1]))
    for i, own in enumerate(rows.whole().values()):
        values = _columns(np.take(X, own, axis=0))
        ends = np.searchsorted(own, [*starts, len(X)]).tolist()
        for block, start, stop in zip(blocks, ends[:-1], ends[1:], strict=True):
            if stop > start:
                _put(block, i, values[:, start:stop])
        low, high = (len(own) - 1) // 2, len(own) // 2
        values.partition((low, high) if high > low else low, axis=1)
        medians[i] = (values[:, low] + values[:, high]) / 2
    tree = MergeTree(len(blocks))
    for number, block in enumerate(blocks):
        tree.put(0, number, block)
    return tree.value, medians


def _of_rows_on_device(X: Any, rows: Members) -> tuple[Moments, np.ndarray]:
    """The moments from two passes over X (n_rows, n_columns), and the medians. The labels are uploaded once."""
    from gpuclust.metrics import grouped_sums_cuda as kernels

    xp = xp_of(X)
    found = kernels.sort_rows(rows.labels, max(rows.clusters) + 1, xp)
    count = np.maximum(found.sizes, 1)[:, None]
    mean = kernels.column_sums(X, found, np.zeros((found.n_groups, X.shape[1])))[:, 0] / count
    gap, squares = kernels.column_sums(X, found, mean).transpose(
        1, 0, 2
    )  # the gaps from the mean add up to its rounding error
    mine = [c - NOISE for c in rows.clusters]
    moments = Moments(found.sizes[mine], (mean + gap / count)[mine], np.maximum(squares - gap**2 / count, 0.0)[mine])
    return moments, medians_by_sorting(X, found.labels, found.sizes, xp)[mine]


def medians_by_sorting(X: Any, labels: Any, sizes: np.ndarray, xp: Any) -> np.ndarray:
    """The medians (n_groups, n_columns) of the groups of X (n_rows, n_columns), which ``labels`` (n_rows,) number in ascending order.

    ``sizes`` (n_groups,) are the rows of each group, on the host as is the result; the median of an empty group has no meaning. ``xp`` is
    the module of the arrays: numpy or cupy.
    """
    first = np.cumsum(sizes) - sizes
    middle_rows = first + np.stack([np.maximum(sizes - 1, 0) // 2, np.minimum(sizes // 2, np.maximum(sizes - 1, 0))])
    places = xp.asarray(np.minimum(middle_rows, len(X) - 1))
    found = []
    for j in range(X.shape[1]):
        column = X[:, j]
        by_value = xp.argsort(column, kind="stable")
        by_group = by_value[xp.argsort(labels[by_value], kind="stable")]
        found.append(column[by_group[places]])
    low, high = on_host(xp.stack(found, axis=2))
    return (low + high) / 2


def _of_blocks(run: Run, labels: PerRow | None, clusters: Sequence[int]) -> list[Moments]:
    place = {c: i for i, c in enumerate(clusters)}

    def of_block(start: int, stop: int) -> Moments:
        block, found = run.X[start:stop], _none(len(clusters), run.X.shape[1])
        if labels is None:
            _put(found, 0, _columns(block))
            return found
        for cluster, rows in members(labels.of(run)[start:stop]).items():
            if cluster in place:
                _put(found, place[cluster], _columns(np.take(block, rows, axis=0)))
        return found

    return each_block(run, of_block)


def _none(n_groups: int, n_columns: int) -> Moments:
    return Moments(np.zeros(n_groups, np.int64), np.zeros((n_groups, n_columns)), np.zeros((n_groups, n_columns)))


def _put(found: Moments, group: int, values: np.ndarray) -> None:
    """Set the moments of a group from its values (n_columns, n_rows)."""
    mean = values.mean(axis=1)
    gaps = values - mean[:, None]
    gaps *= gaps
    found.count[group], found.mean[group], found.squares[group] = values.shape[1], mean, gaps.sum(axis=1)


def _columns(rows: np.ndarray) -> np.ndarray:
    """A copy (n_columns, n_rows) in which each column is contiguous, so that NumPy sums it pairwise."""
    return np.array(rows.T, order="C")
