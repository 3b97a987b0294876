"""The silhouette pass on the CPU: how its blocks are distributed over threads.

There are two ways. `pair_blocks` scores all rows and computes each distance once, for both of its rows. `score_targets` computes
the distances from some rows to all rows; it is for a sample of rows, and for labelings whose cells have few rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
from numba import get_num_threads

from gpuclust.metrics.silhouette.joint_labels import Array, Cells, positions, split_into_blocks
from gpuclust.metrics.silhouette.kernels_cpu import (
    GROUP,
    LANES,
    MANY,
    RUN,
    UNROLLED,
    CellTable,
    PairWorkspace,
    ScoreWorkspace,
    Sources,
    add_pairs,
    coefficients,
    score_rows,
    sum_distances,
)
from gpuclust.runtime.threads import in_threads

BLOCK = 256  # scored rows advanced together: with their features and sums they stay in the L1 and L2 caches
BLOCK_SUMS_BYTES = 32 << 20  # of one thread's sums in score_targets; many clusters make its block narrower
TASK_PAIRS = 2e8  # distances per task: some 50 ms, so progress is smooth and threads end together
PAIRED_SUMS_BYTES = 1 << 30  # of the sums of all rows in pair_blocks
PAIRED_CELL_ROWS = 256  # per cell on average; measured: below it, blocks are too short for both sides to pay
PAIRED_CELL_ROWS_MANY = 32  # the same with MANY features, where a distance costs more than what is done with it
GROUP_ROWS = 2000  # at least, in each group of blocks that one task of pair_blocks takes


def prefer_pair_blocks(cells: Cells, n_features: int) -> bool:
    """Whether `pair_blocks` is the faster way for all rows, and its sums (n_sums, n_clustered) fit in memory."""
    n_clustered = len(cells.order)
    fits = 8 * int(cells.first[-1]) * n_clustered <= PAIRED_SUMS_BYTES
    least = PAIRED_CELL_ROWS_MANY if n_features >= MANY else PAIRED_CELL_ROWS
    return fits and n_clustered >= least * len(cells.sums)


def score_targets(
    X: Array, weight: Array, cells: Cells, targets: Array, progress: Callable[[float], None] | None
) -> Array:
    """Coefficients (n_labelings, n_targets) of the targets, from their distances to all rows."""
    sources = _sources(X[cells.order], weight[cells.order])
    position = positions(cells, targets)
    values = np.empty((len(cells.sums_of), len(targets)))
    own = cells.sums_of[:, targets]
    table = CellTable(cells.starts, cells.sums, cells.first, cells.weights)
    _in_stretches(
        sources,
        len(targets),
        int(cells.first[-1]),
        lambda begin, end, scratch: score_rows(begin, end, position, own, sources, table, scratch, values),
        progress,
    )
    return values


def distance_sums(X: Array, starts: Array, sums: Array, targets: Array, n_sums: int) -> Array:
    """Sums of the distances from targets (n_targets, n_features) to the rows of each cluster: (n_sums, n_targets) float64.

    `X` (n_clustered, n_features) is sorted by cell; `starts` and `sums` are as in `Cells`.
    """
    found = np.zeros((n_sums, len(targets)))
    if len(X):
        sources, points = _sources(X, np.ones(len(X), X.dtype)), _padded(targets)
        _in_stretches(
            sources,
            len(targets),
            n_sums,
            lambda begin, end, scratch: sum_distances(begin, end, points, sources, starts, sums, scratch, found),
            None,
        )
    return found


def _in_stretches(
    sources: Sources,
    n_targets: int,
    n_sums: int,
    run: Callable[[int, int, ScoreWorkspace], None],
    progress: Callable[[float], None] | None,
) -> None:
    """Call ``run(begin, end, workspace)`` on stretches of the targets, in threads; each takes a whole number of blocks."""
    n_threads = get_num_threads()
    n_rows, dtype = len(sources.rows), sources.rows.dtype
    width = min(BLOCK, BLOCK_SUMS_BYTES // (8 * n_sums), -(-n_targets // n_threads))
    width = max(LANES, width // LANES * LANES)
    blocks = min(TASK_PAIRS / (width * n_rows), n_targets / (width * n_threads))
    step = width * max(1, int(blocks))
    n_tasks = -(-n_targets // step)

    def task(first: int, last: int) -> None:
        scratch = ScoreWorkspace(
            np.empty((sources.rows.shape[1], width), dtype), np.empty((n_sums, width)), np.empty(width),
            np.empty(width, dtype), np.empty((RUN, width), dtype),
        )  # fmt: skip
        run(first * step, min(last * step, n_targets), scratch)

    in_threads(n_tasks, task, n_parts=n_tasks, progress=_scaled(progress, n_tasks))


def pair_blocks(
    X: Array, weight: Array, cells: Cells, targets: Array, progress: Callable[[float], None] | None
) -> Array:
    """Coefficients (n_labelings, n_targets) of all clustered rows, from each distance once.

    A task takes two groups of blocks and adds to the sums of both, so no two tasks of one round share a group: the
    rounds are those of a tournament in which each group meets each other once (the circle method).
    """
    sources = _sources(X[cells.order], weight[cells.order])
    n_rows, dtype = len(sources.rows), sources.rows.dtype
    starts, cell = split_into_blocks(cells, BLOCK)
    sums = np.zeros((int(cells.first[-1]), n_rows))
    n_groups = max(1, min(8 * get_num_threads(), n_rows // GROUP_ROWS, len(cell)) // 2 * 2)
    bounds = np.searchsorted(starts, np.linspace(0, n_rows, n_groups + 1))

    def add(pairs: list[tuple[int, int]], first: int, last: int) -> None:
        block = np.empty((sources.rows.shape[1], BLOCK), dtype)
        lanes, run_total, back = (np.empty(BLOCK, dtype) for _ in range(3))
        scratch = PairWorkspace(block, lanes, run_total, np.empty((RUN, BLOCK), dtype), back, np.empty(BLOCK))
        for a, b in pairs[first:last]:
            groups = (bounds[a], bounds[a + 1], bounds[b], bounds[b + 1])
            add_pairs(groups, starts, cell, cells.sums, sources, scratch, sums)

    done, work = 0, 1  # a group with itself is half the work of two groups
    for pairs in _tournament(n_groups):
        in_threads(
            len(pairs), partial(add, pairs), n_parts=len(pairs), progress=_scaled(progress, n_groups**2, done, work)
        )
        done, work = done + work * len(pairs), 2
    rank = np.empty(len(X), np.int64)
    rank[targets] = np.arange(len(targets))
    values = np.empty((len(cells.sums_of), len(targets)))
    own = cells.sums_of[:, cells.order]
    coefficients(sums, own, rank[cells.order], cells.first, cells.weights, values)
    return values


def _sources(rows: Array, weight: Array) -> Sources:
    n_features = rows.shape[1]
    return Sources(_padded(rows), weight, (0,) * n_features if n_features <= UNROLLED else None)


def _padded(rows: Array) -> Array:
    """Rows (n, n_features), with zeros up to a whole number of groups of features above UNROLLED."""
    n_features = rows.shape[1]
    return rows if n_features <= UNROLLED else np.pad(rows, ((0, 0), (0, -n_features % GROUP)))


def _tournament(n_groups: int) -> Iterable[list[tuple[int, int]]]:
    """Rounds of disjoint pairs a <= b of an even number of groups (or 1); first each group with itself."""
    yield [(group, group) for group in range(n_groups)]
    turning = n_groups - 1
    for turn in range(turning):
        games = [(turn, turning)]
        games += [((turn + k) % turning, (turn - k) % turning) for k in range(1, n_groups // 2)]
        yield [(min(game), max(game)) for game in games]


def _scaled(
    progress: Callable[[float], None] | None, total: int, done: int = 0, work: int = 1
) -> Callable[[int], None] | None:
    """`progress` from the number of items done, each ``work`` of the ``total``, after what was ``done`` before."""
    return None if progress is None else lambda n_items: progress((done + work * n_items) / total)
