"""The compiled loops of the silhouette pass on the CPU: a block of rows against one cell after another."""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload
from numba.np.unsafe.ndarray import to_fixed_tuple

from gpuclust.runtime.jit import compiled

RUN = 32  # rows added in the input precision before the sum goes on in float64
UNROLLED = 16  # up to this many features the distance loop is compiled for their exact number
LANES = 16  # float32 numbers in the widest vector: blocks are padded to full ones
GROUP = 8  # beyond it, features are taken by groups of this many

_jit = compiled(error_model="numpy", fastmath={"contract", "reassoc"})


# The functions that numba replaces by type; numba wants them and their replacements without annotations.


def _point(sources, i, dims):  # type: ignore[no-untyped-def]
    """Row i as a tuple of its features, so that they live in registers."""


@overload(_point)
def _point_overload(sources, i, dims):  # type: ignore[no-untyped-def]
    n_features = len(dims)
    return lambda sources, i, dims: to_fixed_tuple(sources[i], n_features)


def _square(block, j, point):  # type: ignore[no-untyped-def]
    """Squared distance of column j of `block` (n_features, width) to a point; its loops are unrolled whole."""


@overload(_square)
def _square_overload(block, j, point):  # type: ignore[no-untyped-def]
    # Four short loops: LLVM unrolls loops up to a size, and vectorises over j only what it has unrolled.
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


def _add_distances(block, sources, weight, begin, end, total, squares, dims):  # type: ignore[no-untyped-def]
    """Add to total[j] the weighted distances of column j of `block` to sources[begin:end]."""


@overload(_add_distances)
def _add_distances_overload(block, sources, weight, begin, end, total, squares, dims):  # type: ignore[no-untyped-def]
    def unrolled(block, sources, weight, begin, end, total, squares, dims):  # type: ignore[no-untyped-def]
        for i in range(begin, end - 1, 2):  # two at a time share each load of the block
            p, weight_p = _point(sources, i, dims), weight[i]
            q, weight_q = _point(sources, i + 1, dims), weight[i + 1]
            for j in range(total.shape[0]):
                total[j] += weight_p * np.sqrt(_square(block, j, p)) + weight_q * np.sqrt(_square(block, j, q))
        if (end - begin) % 2:
            p, weight_p = _point(sources, end - 1, dims), weight[end - 1]
            for j in range(total.shape[0]):
                total[j] += weight_p * np.sqrt(_square(block, j, p))

    def wide(block, sources, weight, begin, end, total, squares, dims):  # type: ignore[no-untyped-def]
        for i in range(begin, end):
            _squares_by_groups(block, sources, i, squares)
            weight_i = weight[i]
            for j in range(total.shape[0]):
                total[j] += weight_i * np.sqrt(squares[j])

    return wide if isinstance(dims, types.NoneType) else unrolled


def _add_both(block, lanes, sources, weight, begin, end, total, back, squares, dims):  # type: ignore[no-untyped-def]
    """`_add_distances`, and into back[i - begin] the distances of source i to all columns, weighted by `lanes`."""


@overload(_add_both)
def _add_both_overload(block, lanes, sources, weight, begin, end, total, back, squares, dims):  # type: ignore[no-untyped-def]
    def unrolled(block, lanes, sources, weight, begin, end, total, back, squares, dims):  # type: ignore[no-untyped-def]
        for i in range(begin, end - 1, 2):
            p, weight_p, back_p = _point(sources, i, dims), weight[i], lanes[0] - lanes[0]
            q, weight_q, back_q = _point(sources, i + 1, dims), weight[i + 1], lanes[0] - lanes[0]
            for j in range(total.shape[0]):
                distance_p = np.sqrt(_square(block, j, p))
                distance_q = np.sqrt(_square(block, j, q))
                total[j] += weight_p * distance_p + weight_q * distance_q
                back_p += lanes[j] * distance_p
                back_q += lanes[j] * distance_q
            back[i - begin] = back_p
            back[i + 1 - begin] = back_q
        if (end - begin) % 2:
            p, weight_p, back_p = _point(sources, end - 1, dims), weight[end - 1], lanes[0] - lanes[0]
            for j in range(total.shape[0]):
                distance_p = np.sqrt(_square(block, j, p))
                total[j] += weight_p * distance_p
                back_p += lanes[j] * distance_p
            back[end - 1 - begin] = back_p

    def wide(block, lanes, sources, weight, begin, end, total, back, squares, dims):  # type: ignore[no-untyped-def]
        for i in range(begin, end):
            _squares_by_groups(block, sources, i, squares)
            weight_i, back_i = weight[i], lanes[0] - lanes[0]
            for j in range(total.shape[0]):
                distance = np.sqrt(squares[j])
                total[j] += weight_i * distance
                back_i += lanes[j] * distance
            back[i - begin] = back_i

    return wide if isinstance(dims, types.NoneType) else unrolled


@_jit
def _squares_by_groups(block, sources, i, squares):  # type: ignore[no-untyped-def]
    """Squared distances of the columns of `block` to source i, some features at a time."""
    squares[:] = 0
    for f in range(0, sources.shape[1], GROUP):
        p = to_fixed_tuple(sources[i, f : f + GROUP], GROUP)
        group = block[f : f + GROUP]
        for j in range(squares.shape[0]):
            squares[j] += _square(group, j, p)


# Arrays are made around the kernels: each `empty` takes 60 ms to compile, and an assignment from array to array, which also
# compiles the message of its shape error, two seconds.


@_jit
def _copy(values, target):  # type: ignore[no-untyped-def]
    for i in range(values.shape[0]):
        target[i] = values[i]


@_jit
def _add(values, target):  # type: ignore[no-untyped-def]
    for i in range(values.shape[0]):
        target[i] += values[i]


@_jit
def score_rows(  # type: ignore[no-untyped-def]
    first_target,
    last_target,
    width,
    targets,
    target_sums,
    sources,
    weight,
    starts,
    cell_sums,
    first,
    cluster_weight,
    values,
    dims,
    block,
    sums,
    cell_total,
    total,
    squares,
):
    """Silhouettes of some targets, rows of `sources`, under every labeling, into values (n_labelings, n_targets).

    `block` (n_features, width) and `sums` (n_clusters, width) are scratch, as are the three vectors (width,) at the end.
    """
    for begin in range(first_target, last_target, width):
        n = min(width, last_target - begin)
        for j in range(width):
            _copy(sources[targets[begin + min(j, n - 1)]], block[:, j])
        sums[:] = 0
        for cell in range(starts.shape[0] - 1):
            cell_total[:] = 0
            for run in range(starts[cell], starts[cell + 1], RUN):
                total[:] = 0
                run_end = min(run + RUN, starts[cell + 1])
                _add_distances(block, sources, weight, run, run_end, total, squares, dims)
                cell_total += total
            for labeling in range(cell_sums.shape[1]):
                if cell_sums[cell, labeling] >= 0:
                    sums[cell_sums[cell, labeling]] += cell_total
        for labeling in range(cell_sums.shape[1]):
            for j in range(n):
                values[labeling, begin + j] = _coefficient(
                    sums[:, j],
                    cluster_weight,
                    first[labeling],
                    first[labeling + 1],
                    target_sums[labeling, begin + j],
                )


@_jit
def add_pairs(  # type: ignore[no-untyped-def]
    blocks, sources, weight, starts, cell, cell_sums, sums, dims, columns, lanes, run_total, squares, back, total
):  # fmt: skip
    """Add to sums (n_sums, n_sources) the distances between the blocks a..b and c..d, for the rows of both.

    `blocks` is (a, b, c, d), with a == c for the pairs within one group; block x is sources[starts[x]:starts[x + 1]].
    `columns` (n_features, width) and the five vectors (width,) at the end are scratch.
    """
    a, b, c, d = blocks
    for x in range(a, b):
        first, n = starts[x], starts[x + 1] - starts[x]
        padded = (n + LANES - 1) // LANES * LANES
        for j in range(padded):
            _copy(sources[first + min(j, n - 1)], columns[:, j])
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
                    weight,
                    run,
                    run_end,
                    run_total[:padded],
                    back[run - begin : run_end - begin],
                    squares[:padded],
                    dims,
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
    """Silhouettes from the finished sums of all sources; source i goes to values[:, rank[i]]."""
    for labeling in range(own_sums.shape[0]):
        for i in range(own_sums.shape[1]):
            values[labeling, rank[i]] = _coefficient(
                sums[:, i], cluster_weight, first[labeling], first[labeling + 1], own_sums[labeling, i]
            )


@_jit
def _coefficient(sums, cluster_weight, begin, end, own):  # type: ignore[no-untyped-def]
    """(b - a) / max(a, b) from one row's distance sums to the clusters begin..end, its own being `own`."""
    if own < 0 or cluster_weight[own] <= 1:
        return 0.0
    a = sums[own] / (cluster_weight[own] - 1)
    b = np.inf
    for cluster in range(begin, end):
        if cluster != own:
            b = min(b, sums[cluster] / cluster_weight[cluster])
    return (b - a) / max(a, b) if max(a, b) > 0 else 0.0
