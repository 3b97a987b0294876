"""The compiled loops of the silhouette pass on the CPU: a block of rows against one cell after another.

A block is (n_features, width), of the dtype of the rows (float32 or float64), transposed so that the loops over its columns are
vectorised. With MANY features its memory holds (width, n_features) instead, and the loops over the features are vectorised.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import overload
from numba.np.unsafe.ndarray import to_fixed_tuple

from gpuclust.runtime.jit import compiled

RUN = 32  # rows summed in the input precision before they are added to a float64 sum
UNROLLED = 16  # up to this many features the distance loop is compiled for their exact number
LANES = 16  # float32 numbers in the widest vector; blocks are padded to a multiple
GROUP = 8  # above UNROLLED, features are processed in groups of this many
MANY = 48  # from this many features on, sixteen distances are computed together, and a block lies row by row

_jit = compiled(error_model="numpy", fastmath={"contract", "reassoc"})


class Sources(NamedTuple):
    """The clustered rows, sorted by cell."""

    rows: (
        np.ndarray
    )  # (n_clustered, n_features) float32 or float64, padded to a multiple of GROUP features above UNROLLED
    weight: np.ndarray  # (n_clustered,) of the same dtype
    dims: tuple[int, ...] | None  # of length n_features, for which the loops are compiled; None above UNROLLED


class CellTable(NamedTuple):
    """The cells; see `gpuclust.metrics.silhouette.joint_labels.Cells`."""

    starts: np.ndarray  # (n_cells + 1,) int64, bounds of the cells in the sorted rows
    sums: np.ndarray  # (n_cells, n_labelings) int32, the row of sums of each cell's cluster, -1 for noise
    first: np.ndarray  # (n_labelings + 1,) int64, bounds of the clusters of each labeling
    cluster_weight: np.ndarray  # (n_sums,) float64


class ScoreWorkspace(NamedTuple):
    """Arrays that one thread of `score_rows` writes to."""

    block: np.ndarray  # (n_features, width), of the dtype of the rows
    sums: np.ndarray  # (n_sums, width) float64
    cell_total: np.ndarray  # (width,) float64
    total: np.ndarray  # (width,), of the dtype of the rows
    squares: np.ndarray  # (RUN, width), of the dtype of the rows


class PairWorkspace(NamedTuple):
    """Arrays that one thread of `add_pairs` writes to."""

    block: np.ndarray  # (n_features, width), of the dtype of the rows, as are the other arrays but the last
    lanes: np.ndarray  # (width,), the weights of the block's columns, 0 for the padding
    run_total: np.ndarray  # (width,)
    squares: np.ndarray  # (RUN, width)
    back: np.ndarray  # (width,), sums of distances from the rows of the other block
    total: np.ndarray  # (width,) float64


# numba requires these functions and their overloads, which it chooses by type, to have no annotations.


def _point(rows, i, dims):  # type: ignore[no-untyped-def]
    """Row i as a tuple of its features, so that they stay in registers."""


@overload(_point)
def _point_overload(rows, i, dims):  # type: ignore[no-untyped-def]
    n_features = len(dims)
    return lambda rows, i, dims: to_fixed_tuple(rows[i], n_features)


def _square(block, j, point):  # type: ignore[no-untyped-def]
    """Squared distance of column j of `block` (n_features, width) to a point; its loops are unrolled completely."""


@overload(_square)
def _square_overload(block, j, point):  # type: ignore[no-untyped-def]
    # Four short loops: LLVM unrolls loops up to a certain size, and vectorises over j only what it has unrolled.
    a, b, c, d = (min(len(point), end) for end in (4, 8, 12, 16))

    def square(block, j, point):  # type: ignore[no-untyped-def]
        difference = block[0, j] - point[0]
        total = difference * difference
        for f in range(1, a):
            difference = block[f, j] - point[f]
            total += difference * difference
        for f in range(a, b):
            difference = block[f, j] - point[f]
            total += difference * difference
        for f in range(b, c):
            difference = block[f, j] - point[f]
            total += difference * difference
        for f in range(c, d):
            difference = block[f, j] - point[f]
            total += difference * difference
        return total

    return square


def _add_distances(block, sources, begin, end, total, squares):  # type: ignore[no-untyped-def]
    """Add to total[j] the weighted distances of column j of `block` to sources[begin:end]."""


@overload(_add_distances)
def _add_distances_overload(block, sources, begin, end, total, squares):  # type: ignore[no-untyped-def]
    def unrolled(block, sources, begin, end, total, squares):  # type: ignore[no-untyped-def]
        rows, weight, dims = sources
        for i in range(begin, end - 1, 2):  # two at a time share each load of the block
            p, weight_p = _point(rows, i, dims), weight[i]
            q, weight_q = _point(rows, i + 1, dims), weight[i + 1]
            for j in range(total.shape[0]):
                total[j] += weight_p * np.sqrt(_square(block, j, p)) + weight_q * np.sqrt(_square(block, j, q))
        if (end - begin) % 2:
            p, weight_p = _point(rows, end - 1, dims), weight[end - 1]
            for j in range(total.shape[0]):
                total[j] += weight_p * np.sqrt(_square(block, j, p))

    def wide(block, sources, begin, end, total, squares):  # type: ignore[no-untyped-def]
        rows, weight = sources.rows, sources.weight
        width = total.shape[0]
        many = rows.shape[1] >= MANY
        if many:
            points = block.reshape((block.shape[1], block.shape[0]))
            _squares_of_run(points, rows, begin, end, width, squares)
        for i in range(begin, end):
            own = squares[i - begin if many else 0][:width]
            if not many:
                _squares_by_groups(block, rows, i, own)
            weight_i = weight[i]
            for j in range(width):
                total[j] += weight_i * np.sqrt(own[j])

    return wide if isinstance(sources.types[-1], types.NoneType) else unrolled


def _add_both(block, lanes, sources, begin, end, total, back, squares):  # type: ignore[no-untyped-def]
    """`_add_distances`, and into back[i - begin] the distances of source i to all columns, weighted by `lanes`."""


@overload(_add_both)
def _add_both_overload(block, lanes, sources, begin, end, total, back, squares):  # type: ignore[no-untyped-def]
    def unrolled(block, lanes, sources, begin, end, total, back, squares):  # type: ignore[no-untyped-def]
        rows, weight, dims = sources
        for i in range(begin, end - 1, 2):
            p, weight_p, back_p = _point(rows, i, dims), weight[i], lanes[0] - lanes[0]
            q, weight_q, back_q = _point(rows, i + 1, dims), weight[i + 1], lanes[0] - lanes[0]
            for j in range(total.shape[0]):
                distance_p = np.sqrt(_square(block, j, p))
                distance_q = np.sqrt(_square(block, j, q))
                total[j] += weight_p * distance_p + weight_q * distance_q
                back_p += lanes[j] * distance_p
                back_q += lanes[j] * distance_q
            back[i - begin] = back_p
            back[i + 1 - begin] = back_q
        if (end - begin) % 2:
            p, weight_p, back_p = _point(rows, end - 1, dims), weight[end - 1], lanes[0] - lanes[0]
            for j in range(total.shape[0]):
                distance_p = np.sqrt(_square(block, j, p))
                total[j] += weight_p * distance_p
                back_p += lanes[j] * distance_p
            back[end - 1 - begin] = back_p

    def wide(block, lanes, sources, begin, end, total, back, squares):  # type: ignore[no-untyped-def]
        rows, weight = sources.rows, sources.weight
        width = total.shape[0]
        many = rows.shape[1] >= MANY
        if many:
            points = block.reshape((block.shape[1], block.shape[0]))
            _squares_of_run(points, rows, begin, end, width, squares)
        for i in range(begin, end):
            own = squares[i - begin if many else 0][:width]
            if not many:
                _squares_by_groups(block, rows, i, own)
            weight_i, back_i = weight[i], lanes[0] - lanes[0]
            for j in range(width):
                distance = np.sqrt(own[j])
                total[j] += weight_i * distance
                back_i += lanes[j] * distance
            back[i - begin] = back_i

    return wide if isinstance(sources.types[-1], types.NoneType) else unrolled


@_jit
def _squares_by_groups(block, rows, i, squares):  # type: ignore[no-untyped-def]
    """Squared distances, squares (width,), of the columns of `block` to row i, GROUP features at a time."""
    squares[:] = 0
    for f in range(0, rows.shape[1], GROUP):
        p = to_fixed_tuple(rows[i, f : f + GROUP], GROUP)
        group = block[f : f + GROUP]
        for j in range(squares.shape[0]):
            squares[j] += _square(group, j, p)


@_jit
def _squares_of_run(points, rows, begin, end, width, squares):  # type: ignore[no-untyped-def]
    """Squared distances, squares (RUN, width), of points (width, n_features) to rows begin to end, of at least MANY features.

    The sums of four rows and four points stay in registers.
    """
    last, zero = end - 1, rows.dtype.type(0)
    for i in range(begin, end, 4):
        p, q, s, t = rows[i], rows[min(i + 1, last)], rows[min(i + 2, last)], rows[min(i + 3, last)]
        to_p, to_q = squares[i - begin], squares[i - begin + 1]
        to_s, to_t = squares[i - begin + 2], squares[i - begin + 3]
        for j in range(0, width, 4):
            a, b, c, d = points[j], points[j + 1], points[j + 2], points[j + 3]
            pa = pb = pc = pd = qa = qb = qc = qd = zero
            sa = sb = sc = sd = ta = tb = tc = td = zero
            for f in range(rows.shape[1]):
                pa += (p[f] - a[f]) * (p[f] - a[f])
                pb += (p[f] - b[f]) * (p[f] - b[f])
                pc += (p[f] - c[f]) * (p[f] - c[f])
                pd += (p[f] - d[f]) * (p[f] - d[f])
                qa += (q[f] - a[f]) * (q[f] - a[f])
                qb += (q[f] - b[f]) * (q[f] - b[f])
                qc += (q[f] - c[f]) * (q[f] - c[f])
                qd += (q[f] - d[f]) * (q[f] - d[f])
                sa += (s[f] - a[f]) * (s[f] - a[f])
                sb += (s[f] - b[f]) * (s[f] - b[f])
                sc += (s[f] - c[f]) * (s[f] - c[f])
                sd += (s[f] - d[f]) * (s[f] - d[f])
                ta += (t[f] - a[f]) * (t[f] - a[f])
                tb += (t[f] - b[f]) * (t[f] - b[f])
                tc += (t[f] - c[f]) * (t[f] - c[f])
                td += (t[f] - d[f]) * (t[f] - d[f])
            to_p[j], to_p[j + 1], to_p[j + 2], to_p[j + 3] = pa, pb, pc, pd
            to_q[j], to_q[j + 1], to_q[j + 2], to_q[j + 3] = qa, qb, qc, qd
            to_s[j], to_s[j + 1], to_s[j + 2], to_s[j + 3] = sa, sb, sc, sd
            to_t[j], to_t[j + 1], to_t[j + 2], to_t[j + 3] = ta, tb, tc, td


@_jit
def _set_column(row, j, block):  # type: ignore[no-untyped-def]
    """Make the row (n_features,) column j of a block (n_features, width); with MANY features row j of the same memory."""
    if block.shape[0] >= MANY:
        _copy(row, block.reshape((block.shape[1], block.shape[0]))[j])
    else:
        _copy(row, block[:, j])


# Arrays are allocated outside the kernels: each `empty` takes 60 ms to compile. Loops replace assignments from array to array,
# which take two seconds because the message of their shape error is compiled too.


@_jit
def _copy(values, target):  # type: ignore[no-untyped-def]
    """target = values, (n,) each."""
    for i in range(values.shape[0]):
        target[i] = values[i]


@_jit
def _add(values, target):  # type: ignore[no-untyped-def]
    """target += values, (n,) each."""
    for i in range(values.shape[0]):
        target[i] += values[i]


@_jit
def _sum_cells(block, sources, starts, cell_sums, workspace):  # type: ignore[no-untyped-def]
    """The sums of the distances of the columns of `block` to each cluster's rows, into the workspace's sums."""
    sums, cell_total, total, squares = workspace.sums, workspace.cell_total, workspace.total, workspace.squares
    sums[:] = 0
    for cell in range(starts.shape[0] - 1):
        cell_total[:] = 0
        for run in range(starts[cell], starts[cell + 1], RUN):
            total[:] = 0
            run_end = min(run + RUN, starts[cell + 1])
            _add_distances(block, sources, run, run_end, total, squares)
            cell_total += total
        for labeling in range(cell_sums.shape[1]):
            if cell_sums[cell, labeling] >= 0:
                sums[cell_sums[cell, labeling]] += cell_total


@_jit
def score_rows(first_target, last_target, targets, own_sums, sources, cells, workspace, values):  # type: ignore[no-untyped-def]
    """Silhouettes of some targets under every labeling, into values (n_labelings, n_targets) float64.

    targets (n_targets,) int64 are positions in `sources`; own_sums (n_labelings, n_targets) int32 their rows of sums, -1 for noise.
    """
    block, sums = workspace.block, workspace.sums
    starts, cell_sums, first, cluster_weight = cells
    width = block.shape[1]
    for begin in range(first_target, last_target, width):
        n = min(width, last_target - begin)
        for j in range(width):
            _set_column(sources.rows[targets[begin + min(j, n - 1)]], j, block)
        _sum_cells(block, sources, starts, cell_sums, workspace)
        for labeling in range(cell_sums.shape[1]):
            for j in range(n):
                values[labeling, begin + j] = _coefficient(
                    sums[:, j],
                    cluster_weight,
                    first[labeling],
                    first[labeling + 1],
                    own_sums[labeling, begin + j],
                )


@_jit
def sum_distances(first_target, last_target, targets, sources, starts, cell_sums, workspace, found):  # type: ignore[no-untyped-def]
    """The sums of the distances from targets (n_targets, n_features) to each cluster's sources, into found (n_sums, n_targets) float64."""
    block, sums = workspace.block, workspace.sums
    width = block.shape[1]
    for begin in range(first_target, last_target, width):
        n = min(width, last_target - begin)
        for j in range(width):
            _set_column(targets[begin + min(j, n - 1)], j, block)
        _sum_cells(block, sources, starts, cell_sums, workspace)
        for s in range(found.shape[0]):
            _copy(sums[s, :n], found[s, begin : begin + n])


@_jit
def add_pairs(groups, starts, cell, cell_sums, sources, workspace, sums):  # type: ignore[no-untyped-def]
    """Add to sums (n_sums, n_clustered) float64 the distances between two groups of blocks, for the rows of both.

    `groups` is (a, b, c, d) for the blocks a..b and c..d, with a == c for the pairs within one group. Block x is the sources from
    starts[x] to starts[x + 1]; starts (n_blocks + 1,) int64, cell (n_blocks,) int64 the cell of each, cell_sums as in `CellTable`.
    """
    columns, lanes, run_total, squares, back, total = workspace
    rows, weight = sources.rows, sources.weight
    a, b, c, d = groups
    for x in range(a, b):
        first, n = starts[x], starts[x + 1] - starts[x]
        padded = (n + LANES - 1) // LANES * LANES
        for j in range(padded):
            _set_column(rows[first + min(j, n - 1)], j, columns)
            lanes[j] = weight[first + j] if j < n else 0
        for y in range(max(x, c), d):
            begin, end = starts[y], starts[y + 1]
            total[:padded] = 0
            for run in range(begin, end, RUN):
                run_total[:padded] = 0
                run_end = min(run + RUN, end)
                _add_both(
                    columns,
                    lanes,
                    sources,
                    run,
                    run_end,
                    run_total[:padded],
                    back[run - begin : run_end - begin],
                    squares,
                )
                _add(run_total[:padded], total)
            for labeling in range(cell_sums.shape[1]):
                s = cell_sums[cell[y], labeling]
                if s >= 0:
                    _add(total[:n], sums[s, first:])
                s = cell_sums[cell[x], labeling]
                if s >= 0 and x != y:
                    _add(back[: end - begin], sums[s, begin:])


@_jit
def coefficients(sums, own_sums, rank, first, cluster_weight, values):  # type: ignore[no-untyped-def]
    """Silhouettes from the finished sums (n_sums, n_clustered) of all sources; source i goes to values[:, rank[i]].

    own_sums (n_labelings, n_clustered) int32, rank (n_clustered,) int64; the others as in `CellTable` and `score_rows`.
    """
    for labeling in range(own_sums.shape[0]):
        for i in range(own_sums.shape[1]):
            values[labeling, rank[i]] = _coefficient(
                sums[:, i], cluster_weight, first[labeling], first[labeling + 1], own_sums[labeling, i]
            )


@_jit
def _coefficient(sums, cluster_weight, begin, end, own):  # type: ignore[no-untyped-def]
    """(b - a) / max(a, b) from the distance sums (n_sums,) of one row to the clusters begin to end; `own` is its own."""
    if own < 0 or cluster_weight[own] <= 1:
        return 0.0
    a = sums[own] / (cluster_weight[own] - 1)
    b = np.inf
    for cluster in range(begin, end):
        if cluster != own:
            b = min(b, sums[cluster] / cluster_weight[cluster])
    return (b - a) / max(a, b) if max(a, b) > 0 else 0.0
