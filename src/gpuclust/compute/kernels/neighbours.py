"""The k nearest rows of every row, exactly, a leaf of the KD-tree at a time.

Distances are fast_hdbscan's own `rdist`, bit for bit. Rows at the same distance are taken in their order, so the result
depends on neither the tree nor the threads. Where fast_hdbscan's choice among such rows matters, its search is made again, for
that row alone (`first_no_sparser`).
"""

from __future__ import annotations

import numpy as np

from gpuclust.compute.kernels.kd_tree import point_to_node_lower_bound_rdist, rdist, siftdown, simple_heap_push
from gpuclust.compute.kernels.leaves import Leaves, count_within, open_node, to_box, to_rows
from gpuclust.compute.kernels.nearest import compiled, in_threads


def nearest_rows(leaves: Leaves, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of the n > k rows for each of them, itself among them: rows, int32 (n, k), and squared distances,
    float32 (n, k), in order of distance, then row. A row with k others at distance 0 before it is not among its own.
    """
    n_rows = len(leaves.tree.data)
    neighbors = np.full((n_rows, k), -1, dtype=np.int32)
    squared = np.full((n_rows, k), np.inf, dtype=np.float32)

    def run(first: int, last: int) -> None:
        _search(*leaves.shape, *leaves.scratch(), neighbors, squared, first, last)

    in_threads(len(leaves.nodes), run)
    return neighbors, squared


def first_no_sparser(
    leaves: Leaves, neighbors: np.ndarray, squared: np.ndarray, core: np.ndarray, k: int
) -> np.ndarray:
    """For each row the first of its k nearest whose core distance is at most its own, int32 (n,); -1: there is none.

    `neighbors` and `squared` as `nearest_rows` gives them, with one more than k where there are more rows. Among rows at
    the same distance, itself too where others are at distance 0, it is the one that fast_hdbscan's search puts first.
    """
    picks = np.full(len(core), -1, dtype=np.int32)

    def run(first: int, last: int) -> None:
        heap = np.empty(k, np.float32), np.empty(k, np.int32)
        _pick(*leaves.shape, *leaves.scratch(), *heap, neighbors, squared, core, picks, first, last)

    in_threads(len(leaves.nodes), run)
    return picks


@compiled(fastmath=False)
def _clear_pick(i, neighbors, squared, core, k):  # type: ignore[no-untyped-def]
    """The pick for row i; -2 where rows at the same distance leave it open."""
    if k > 1 and squared[i, 1] == 0:  # rows like this one: which of them comes first?
        return -2
    tied = len(squared[i]) > k and squared[i, k] == squared[i, k - 1]  # with a row that is not among the k
    for j in range(k):
        other = neighbors[i, j]
        if other == i or other < 0 or core[other] > core[i]:
            continue
        for after in range(j + 1, k):
            if squared[i, after] != squared[i, j]:
                return other
            if neighbors[i, after] != i and core[neighbors[i, after]] <= core[i]:
                return -2
        return -2 if tied else other
    return -2 if tied else -1


@compiled(fastmath=False)
def _search_alone(  # type: ignore[no-untyped-def]
    point, data, rows, starts, ends, lower, upper, place, tiles, features, slack, out, nodes, bounds, distances, found
):  # fmt: skip
    """fast_hdbscan's search: what it takes in which order, and with that the order in which its heap ends."""
    for j in range(len(found)):
        distances[j], found[j] = np.inf, -1
    nodes[0], bounds[0] = 0, point_to_node_lower_bound_rdist(lower[0], upper[0], point)
    waiting = 1
    while waiting > 0:
        waiting -= 1
        node = nodes[waiting]
        if bounds[waiting] > distances[0]:
            continue
        if place[node] >= 0:
            to_rows(tiles[place[node]], point, features, out)
            for at in range(starts[node], ends[node]):
                if out[at - starts[node]] <= distances[0] * slack:
                    distance = rdist(point, data[rows[at]])
                    if distance < distances[0]:
                        simple_heap_push(distances, found, distance, np.int32(rows[at]))
            continue
        left, right = 2 * node + 1, 2 * node + 2
        to_left = point_to_node_lower_bound_rdist(lower[left], upper[left], point)
        to_right = point_to_node_lower_bound_rdist(lower[right], upper[right], point)
        near, far = (left, right) if to_left <= to_right else (right, left)
        nodes[waiting], bounds[waiting] = far, max(to_left, to_right)
        nodes[waiting + 1], bounds[waiting + 1] = near, min(to_left, to_right)
        waiting += 2
    for j in range(len(found) - 1, 0, -1):  # the heap's top to the end
        distances[0], distances[j] = distances[j], distances[0]
        found[0], found[j] = found[j], found[0]
        siftdown(distances[:j], found[:j], 0)


@compiled(fastmath=False)
def _pick(  # type: ignore[no-untyped-def]
    data, rows, starts, ends, lower, upper, leaves, place, tiles, features, slack, out, reach, tops, nodes, bounds, distances,
    found, neighbors, squared, core, picks, first, last,
):  # fmt: skip
    for leaf in range(first, last):
        for at in range(starts[leaves[leaf]], ends[leaves[leaf]]):
            i = rows[at]
            picks[i] = _clear_pick(i, neighbors, squared, core, len(found))
            if picks[i] != -2:
                continue
            picks[i] = -1
            _search_alone(
                data[i], data, rows, starts, ends, lower, upper, place, tiles, features, slack, out, nodes, bounds,
                distances, found,
            )  # fmt: skip
            for j in range(1, len(found)):
                if core[found[j]] <= core[i]:
                    picks[i] = found[j]
                    break


@compiled(fastmath=False)
def _sift_down(distances, rows, size):  # type: ignore[no-untyped-def]
    """Put the root of a heap, whose top is the farthest, then highest, row, in its place."""
    distance, row = distances[0], rows[0]
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        right = child + 1
        if right < size and (
            distances[right] > distances[child] or (distances[right] == distances[child] and rows[right] > rows[child])
        ):
            child = right
        if not (distances[child] > distance or (distances[child] == distance and rows[child] > row)):
            break
        distances[at], rows[at] = distances[child], rows[child]
        at = child
    distances[at], rows[at] = distance, row


@compiled(fastmath=False)
def _offer(point, data, rows, start, size, out, limit, slack, distances, found):  # type: ignore[no-untyped-def]
    """Take those of a leaf's rows that are nearer than the farthest in the heap; the farthest then."""
    for c in range(size):
        if out[c] <= limit:
            other = rows[start + c]
            distance = rdist(point, data[other])
            if distance < distances[0] or (distance == distances[0] and other < found[0]):
                distances[0], found[0] = distance, other
                _sift_down(distances, found, len(found))
                limit = distances[0] * slack
    return distances[0]


@compiled(fastmath=False)
def _search(  # type: ignore[no-untyped-def]
    data, rows, starts, ends, lower, upper, leaves, place, tiles, features, slack, out, reach, tops, nodes, bounds, neighbors,
    squared, first, last,
):  # fmt: skip
    for leaf in range(first, last):
        home = leaves[leaf]
        start, n_own = starts[home], ends[home] - starts[home]
        for r in range(n_own):
            tops[r] = np.inf
        worst = np.float32(np.inf)
        nodes[0], bounds[0] = 0, np.float32(0)
        nodes[1], bounds[1] = home, np.float32(0)  # first, and not again
        waiting, met_home = 2, False
        while waiting > 0:
            waiting -= 1
            node = nodes[waiting]
            if bounds[waiting] > worst * slack or (met_home and node == home):
                continue
            if place[node] < 0:
                waiting = open_node(lower, upper, home, node, nodes, bounds, waiting)
                continue
            met_home = True
            to_box(tiles[leaf], lower[node], upper[node], features, reach)
            worst = np.float32(0)
            for r in range(n_own):
                limit = tops[r] * slack
                if reach[r] <= limit:
                    row = rows[start + r]
                    to_rows(tiles[place[node]], data[row], features, out)
                    if count_within(out, limit):
                        tops[r] = _offer(
                            data[row], data, rows, starts[node], ends[node] - starts[node], out, limit, slack,
                            squared[row], neighbors[row],
                        )  # fmt: skip
                worst = max(worst, tops[r])
        for r in range(n_own):
            distances, found = squared[rows[start + r]], neighbors[rows[start + r]]
            for j in range(len(found) - 1, 0, -1):  # the heap's top to the end
                distances[0], distances[j] = distances[j], distances[0]
                found[0], found[j] = found[j], found[0]
                _sift_down(distances, found, j)
