"""Numba kernels that cut a single-linkage tree: condensation, cluster selection, labelling, membership.

They restate fast_hdbscan 0.3.4 `cluster_trees.py` (BSD-2, McInnes and contributors), row order and float32 sums
included, so that labels are the same to the last row. Lists, sets and dicts are flat arrays here, which makes them
linear in the rows for every option (fast_hdbscan is quadratic when one cluster is selected) and quick to compile; for
that the arrays are made by the functions around the kernels.

One meaning differs: rows at distance zero are never split from one another. Their order in a spanning tree is
arbitrary, and stability there is infinity minus infinity.
"""

from __future__ import annotations

import numpy as np

from gpuclust.model.records import NOISE
from gpuclust.runtime.jit import compiled


def linkage_from_sorted_edges(left: np.ndarray, right: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Single linkage by union-find over edges sorted by weight: (n-1, 4) float64 as SciPy's, larger id first; empty
    where the edges are no tree."""
    n = len(weight) + 1
    linkage = np.empty((n - 1, 4))
    is_tree = _link(left, right, weight, np.arange(2 * n - 1), np.ones(2 * n - 1, dtype=np.int64), linkage)
    return linkage if is_tree else linkage[:0]


@compiled(fastmath=False)
def _link(left, right, weight, parent, size, linkage):  # type: ignore[no-untyped-def]
    n = len(weight) + 1
    for row in range(n - 1):
        a, b = left[row], right[row]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a == b:
            return False
        merged = n + row
        parent[a] = merged
        parent[b] = merged
        size[merged] = size[a] + size[b]
        linkage[row, 0] = max(a, b)
        linkage[row, 1] = min(a, b)
        linkage[row, 2] = weight[row]
        linkage[row, 3] = size[merged]
    return True


@compiled(inner=True, fastmath=False)
def _drop_branch(branch, node, lam, linkage, n, queue, parents, children, lambdas, count):  # type: ignore[no-untyped-def]
    """Let every row under `branch` fall out of `node` at density `lam`, in breadth-first order."""
    queue[0] = branch
    head, tail = 0, 1
    while head < tail:
        current = queue[head]
        head += 1
        if current < n:
            parents[count] = node
            children[count] = current
            lambdas[count] = lam
            count += 1
        else:
            queue[tail] = np.int64(linkage[current - n, 0])
            queue[tail + 1] = np.int64(linkage[current - n, 1])
            tail += 2
    return count


def condense(linkage: np.ndarray, densities: np.ndarray, min_cluster_size: int) -> tuple[np.ndarray, ...]:
    """Condensed tree: parents, children (int64), lambdas (float32), sizes (int64); the root cluster is number n.

    `densities` is the lambda of each linkage row, float32; infinite where the distance is zero.
    """
    root = 2 * len(linkage)
    parents, children, sizes = np.ones((3, root), dtype=np.int64)
    lambdas = np.empty(root, dtype=np.float32)
    waiting, cluster_of, branch_queue = np.empty((3, root + 1), dtype=np.int64)
    count = _condense(
        linkage, densities, min_cluster_size, waiting, cluster_of, branch_queue, parents, children, lambdas, sizes
    )
    return parents[:count], children[:count], lambdas[:count], sizes[:count]


@compiled(fastmath=False)
def _condense(  # type: ignore[no-untyped-def]
    linkage, densities, min_cluster_size, waiting, cluster_of, branch_queue, parents, children, lambdas, sizes
):  # fmt: skip
    """`waiting` are the linkage nodes that still hold a cluster, breadth first; how many rows the tree has."""
    n = linkage.shape[0] + 1
    root = 2 * n - 2
    waiting[0], cluster_of[root] = root, n
    head, tail, count, next_cluster = 0, 1, 0, n + 1
    while head < tail:
        node = waiting[head]
        head += 1
        cluster, lam = cluster_of[node], densities[node - n]
        if np.isinf(lam):
            count = _drop_branch(node, cluster, lam, linkage, n, branch_queue, parents, children, lambdas, count)
            continue
        sides = (np.int64(linkage[node - n, 0]), np.int64(linkage[node - n, 1]))
        left_size = np.int64(linkage[sides[0] - n, 3]) if sides[0] >= n else 1
        right_size = np.int64(linkage[sides[1] - n, 3]) if sides[1] >= n else 1
        splits = left_size >= min_cluster_size and right_size >= min_cluster_size
        for side, size in ((sides[0], left_size), (sides[1], right_size)):
            if splits:
                parents[count] = cluster
                children[count] = next_cluster
                lambdas[count] = lam
                sizes[count] = size
                cluster_of[side] = next_cluster
                count += 1
                next_cluster += 1
            elif size >= min_cluster_size:
                cluster_of[side] = cluster
            else:
                count = _drop_branch(side, cluster, lam, linkage, n, branch_queue, parents, children, lambdas, count)
                continue
            waiting[tail] = side
            tail += 1
    return count


def cluster_nodes(
    parents: np.ndarray, children: np.ndarray, lambdas: np.ndarray, sizes: np.ndarray, n: int
) -> tuple[np.ndarray, ...]:
    """Per cluster, root first: parent's index or -1, birth density, rows, stability (summed in float32)."""
    n_nodes = max(1, int(children.max(initial=0)) - n + 1)
    parent, rows = np.full(n_nodes, -1, dtype=np.int64), np.full(n_nodes, n, dtype=np.int64)
    birth, stability = np.zeros((2, n_nodes), dtype=np.float32)
    _describe_nodes(parents, children, lambdas, sizes, n, parent, birth, rows, stability)
    return parent, birth, rows, stability


@compiled(fastmath=False)
def _describe_nodes(parents, children, lambdas, sizes, n, parent, birth, rows, stability):  # type: ignore[no-untyped-def]
    for row in range(parents.shape[0]):
        node = parents[row] - n
        weight = np.float32(lambdas[row] * np.float32(sizes[row]))
        if children[row] >= n:
            child = children[row] - n
            parent[child] = node
            birth[child] = lambdas[row]
            rows[child] = sizes[row]
            stability[child] = -weight
        stability[node] += weight


def select_eom(
    parent: np.ndarray, rows: np.ndarray, stability: np.ndarray, max_cluster_size: int, allow_single_cluster: bool
) -> np.ndarray:
    """Excess of mass (Campello, Moulavi and Sander 2013): the disjoint clusters of the largest total stability, as a mask."""
    selected, covered = np.zeros((2, len(parent)), dtype=np.bool_)
    if len(parent) > 1:
        below = np.zeros(len(parent))  # best total among the descendants; children have larger numbers
        _select_eom(parent, rows, stability, max_cluster_size, allow_single_cluster, below, covered, selected)
    return selected


@compiled(fastmath=False)
def _select_eom(  # type: ignore[no-untyped-def]
    parent, rows, stability, max_cluster_size, allow_single_cluster, below, covered, selected
):  # fmt: skip
    n_nodes = parent.shape[0]
    for node in range(n_nodes - 1, -1, -1):
        own = max(np.float64(stability[node]), 0.0)
        size = rows[node] if node > 0 else rows[0] - 1  # as fast_hdbscan counts the root
        keep = not (below[node] > own or size > max_cluster_size)
        selected[node] = keep and (node > 0 or allow_single_cluster)
        if node > 0:
            below[parent[node]] += own if keep else below[node]
    for node in range(n_nodes):
        covered[node] = node > 0 and (covered[parent[node]] or selected[parent[node]])
        if covered[node]:
            selected[node] = False


def merge_within_epsilon(selected: np.ndarray, parent: np.ndarray, birth: np.ndarray, epsilon: float) -> np.ndarray:
    """Replace clusters born nearer than epsilon by their first ancestor born beyond it (Malzer and Baum 2020)."""
    result = np.zeros_like(selected)
    _merge_within_epsilon(selected, parent, birth, epsilon, result)
    return result


@compiled(fastmath=False)
def _merge_within_epsilon(selected, parent, birth, epsilon, result):  # type: ignore[no-untyped-def]
    for node in range(parent.shape[0]):
        if not selected[node]:
            continue
        target = node
        while target > 0 and birth[target] > 0.0 and 1.0 / np.float64(birth[target]) < epsilon:
            target = parent[target]
        result[target] = True


def label_rows(
    parents: np.ndarray,
    children: np.ndarray,
    lambdas: np.ndarray,
    selected: np.ndarray,
    parent: np.ndarray,
    root_density: float,
    n: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (int32) and membership strengths (float64) of the rows.

    Where the root is the one selected cluster, a row belongs to it from density `root_density` on.
    """
    node_label, labels = np.full(len(parent), NOISE, dtype=np.int32), np.full(n, NOISE, dtype=np.int32)
    top, strengths = np.zeros(len(parent)), np.zeros(n)
    _label_rows(parents, children, lambdas, selected, parent, root_density, n, node_label, top, labels, strengths)
    return labels, strengths


@compiled(fastmath=False)
def _label_rows(  # type: ignore[no-untyped-def]
    parents, children, lambdas, selected, parent, root_density, n, node_label, top, labels, strengths
):  # fmt: skip
    """`top` is the densest finite density at which a row leaves each cluster itself."""
    n_nodes = parent.shape[0]
    n_clusters = 0
    for node in range(n_nodes):
        if selected[node]:
            node_label[node] = n_clusters
            n_clusters += 1
        elif node > 0:
            node_label[node] = node_label[parent[node]]
    for row in range(parents.shape[0]):
        node, point, lam = parents[row] - n, children[row], lambdas[row]
        if point >= n or lam == 0.0 or node_label[node] == NOISE:
            continue
        if selected[node] and np.isfinite(lam):
            top[node_label[node]] = max(top[node_label[node]], np.float64(lam))
        if not (selected[0] and lam < root_density):
            labels[point] = node_label[node]
    for row in range(parents.shape[0]):
        point, lam = children[row], np.float64(lambdas[row])
        if point >= n or labels[point] == NOISE:
            continue
        highest = top[labels[point]]
        strengths[point] = lam / highest if lam < highest else 1.0


@compiled(inner=True, fastmath=False)
def _meetings(node, node_parent, node_birth, meeting):  # type: ignore[no-untyped-def]
    """Density at which `node` and each other node part; -1 where one lies above the other."""
    for other in range(len(meeting)):
        meeting[other] = 0.0
    at = node
    while at >= 0:
        meeting[at] = -1.0
        at = node_parent[at]
    for other in range(1, node_parent.shape[0]):  # parents have lower numbers
        above = node_parent[other]
        if meeting[other] == -1.0:
            continue
        if meeting[above] == -1.0 and above < node:  # `above` lies on the way from `node` to the root
            meeting[other] = node_birth[other]
        else:
            meeting[other] = meeting[above]


@compiled(fastmath=False)
def top_membership(  # type: ignore[no-untyped-def]
    points,
    node,
    density,
    exemplars,
    starts,
    node_parent,
    node_birth,
    node_density,
    cluster_node,
    meeting,
    labels,
    strengths,
):
    """The greatest entry of each row's membership vector (hdbscan `all_points_membership_vectors`), in place.

    Rows are quickest in the order of their nodes: how a node meets the clusters is computed once per run of rows.
    """
    n_clusters = cluster_node.shape[0]
    known = -1
    for i in range(points.shape[0]):
        if node[i] != known:
            known = node[i]
            _meetings(known, node_parent, node_birth, meeting)
        row_density = np.float64(density[i])
        ceiling = np.float64(node_density[known]) + 1e-8
        total, best, best_label = 0.0, -1.0, 0
        highest, highest_label = -1.0, 0
        for label in range(n_clusters):
            height = meeting[cluster_node[label]]
            if height == -1.0:
                height = row_density
            if height > highest:
                highest, highest_label = height, label
            nearest = np.inf
            for e in range(starts[label], starts[label + 1]):
                squared = 0.0
                for j in range(points.shape[1]):
                    difference = np.float64(points[i, j]) - np.float64(exemplars[e, j])
                    squared += difference * difference
                nearest = min(nearest, squared)
            closeness = 1.0 / np.sqrt(nearest) if nearest > 0.0 else 1e300
            score = closeness * np.exp(np.exp(-ceiling / height)) if height > 0.0 else closeness
            total += score
            if score > best:
                best, best_label = score, label
        reached = max(np.float64(node_density[cluster_node[highest_label]]), row_density)
        labels[i] = best_label
        strengths[i] = best / total * (highest / reached) if reached > 0.0 else 0.0
