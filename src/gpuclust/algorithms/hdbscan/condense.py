"""Numba kernels that extract clusters from a single-linkage tree: condensation, cluster selection, labelling, membership.

They reimplement fast_hdbscan 0.3.4 `cluster_trees.py` (BSD-2, McInnes and contributors), row order and float32 sums included,
so that labels are equal in every row. Lists, sets and dicts are flat arrays here, which makes the kernels linear in the number of
rows for every option (fast_hdbscan is quadratic when one cluster is selected) and quick to compile. The functions around
the kernels allocate the arrays.

One behaviour differs: rows at distance zero are never split from one another. Their order in a spanning tree is arbitrary, and
their stability would be infinity minus infinity.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gpuclust.algorithms.hdbscan.boruvka import find_root
from gpuclust.model.records import NOISE
from gpuclust.runtime.jit import compiled


class CondensedRows(NamedTuple):
    """A condensed tree of n rows: one entry per row that leaves a cluster and per cluster that splits off. The root is n."""

    parents: np.ndarray  # (m,) int64, the cluster that is left
    children: np.ndarray  # (m,) int64, a row below n, or a cluster
    lambdas: np.ndarray  # (m,) float32, the density at which it leaves
    sizes: np.ndarray  # (m,) int64, its number of rows


class ClusterNodes(NamedTuple):
    """The clusters of a condensed tree, the root first; node i is cluster n + i."""

    parent: np.ndarray  # (n_nodes,) int64, the parent's node, -1 for the root
    birth: np.ndarray  # (n_nodes,) float32, the density at which the cluster splits off
    rows: np.ndarray  # (n_nodes,) int64, its number of rows
    stability: np.ndarray  # (n_nodes,) float32, summed in float32


class MembershipTree(NamedTuple):
    """The nodes of a condensed tree as `top_membership` reads them."""

    parent: np.ndarray  # (n_nodes,) int32, -1 for the root
    birth: np.ndarray  # (n_nodes,) float32, the density at which the node splits off
    density: np.ndarray  # (n_nodes,) float32, the greatest density at which anything leaves the node
    cluster_node: np.ndarray  # (n_clusters,) int32, the node of each label


class Exemplars(NamedTuple):
    """The densest rows of each cluster; those of cluster c are ``points[starts[c]:starts[c + 1]]``."""

    points: np.ndarray  # (n_exemplars, d) float32
    starts: np.ndarray  # (n_clusters + 1,) int64


def linkage_from_sorted_edges(left: np.ndarray, right: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Single linkage (n-1, 4) float64 in SciPy's layout, the larger id first, from edges (n-1,) sorted by weight; empty if the
    edges are not a tree."""
    n = len(weight) + 1
    linkage = np.empty((n - 1, 4))
    is_tree = _link(left, right, weight, np.arange(2 * n - 1), np.ones(2 * n - 1, dtype=np.int64), linkage)
    return linkage if is_tree else linkage[:0]


@compiled(fastmath=False)
def _link(left, right, weight, parent, size, linkage):  # type: ignore[no-untyped-def]
    """Fill linkage (n-1, 4); parent (2n-1,) int64 and size (2n-1,) int64 are those of single sets. False if there is a cycle."""
    n = len(weight) + 1
    for row in range(n - 1):
        a, b = find_root(parent, left[row]), find_root(parent, right[row])
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
def _drop_branch(branch, node, lam, linkage, queue, out, count):  # type: ignore[no-untyped-def]
    """Add an entry to `out` for every row under `branch`, breadth first: it leaves `node` at density `lam`. The new count."""
    n = linkage.shape[0] + 1
    parents, children, lambdas, _ = out
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


def condense(linkage: np.ndarray, densities: np.ndarray, min_cluster_size: int) -> CondensedRows:
    """The condensed tree of a linkage (n-1, 4) float64.

    `densities` (n-1,) float32 is the lambda of each merge, infinite where the distance is zero.
    """
    root = 2 * len(linkage)
    parents, children, sizes = np.ones((3, root), dtype=np.int64)
    out = CondensedRows(parents, children, np.empty(root, dtype=np.float32), sizes)
    waiting, cluster_of, branch_queue = np.empty((3, root + 1), dtype=np.int64)
    count = _condense(linkage, densities, min_cluster_size, waiting, cluster_of, branch_queue, out)
    return CondensedRows(*(column[:count] for column in out))


@compiled(fastmath=False)
def _condense(linkage, densities, min_cluster_size, waiting, cluster_of, branch_queue, out):  # type: ignore[no-untyped-def]
    """Fill `out` and return its number of entries.

    Scratch, (2n-1,) int64 each: `waiting`, the linkage nodes still to visit, breadth first; `cluster_of` each node; `branch_queue`.
    """
    parents, children, lambdas, sizes = out
    n = linkage.shape[0] + 1
    root = 2 * n - 2
    waiting[0], cluster_of[root] = root, n
    head, tail, count, next_cluster = 0, 1, 0, n + 1
    while head < tail:
        node = waiting[head]
        head += 1
        cluster, lam = cluster_of[node], densities[node - n]
        if np.isinf(lam):
            count = _drop_branch(node, cluster, lam, linkage, branch_queue, out, count)
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
                count = _drop_branch(side, cluster, lam, linkage, branch_queue, out, count)
                continue
            waiting[tail] = side
            tail += 1
    return count


def cluster_nodes(tree: CondensedRows, n: int) -> ClusterNodes:
    """The clusters of a condensed tree of n rows."""
    n_nodes = max(1, int(tree.children.max(initial=0)) - n + 1)
    parent, rows = np.full(n_nodes, -1, dtype=np.int64), np.full(n_nodes, n, dtype=np.int64)
    birth, stability = np.zeros((2, n_nodes), dtype=np.float32)
    nodes = ClusterNodes(parent, birth, rows, stability)
    _describe_nodes(tree, n, nodes)
    return nodes


@compiled(fastmath=False)
def _describe_nodes(tree, n, nodes):  # type: ignore[no-untyped-def]
    """Fill `nodes`, whose stability is zero."""
    parents, children, lambdas, sizes = tree
    parent, birth, rows, stability = nodes
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


def select_eom(nodes: ClusterNodes, max_cluster_size: int, allow_single_cluster: bool) -> np.ndarray:
    """Excess of mass (Campello, Moulavi and Sander 2013): the disjoint clusters of the largest total stability.

    A mask (n_nodes,) bool.
    """
    selected, covered = np.zeros((2, len(nodes.parent)), dtype=np.bool_)
    if len(nodes.parent) > 1:
        below = np.zeros(len(nodes.parent))  # best total among the descendants; children have larger numbers
        _select_eom(nodes, max_cluster_size, allow_single_cluster, below, covered, selected)
    return selected


@compiled(fastmath=False)
def _select_eom(nodes, max_cluster_size, allow_single_cluster, below, covered, selected):  # type: ignore[no-untyped-def]
    """Fill selected (n_nodes,); below (n_nodes,) float64 zeros and covered (n_nodes,) bool are scratch."""
    parent, _, rows, stability = nodes
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


def merge_within_epsilon(selected: np.ndarray, nodes: ClusterNodes, epsilon: float) -> np.ndarray:
    """Replace clusters born nearer than epsilon by their first ancestor born beyond it (Malzer and Baum 2020); a mask."""
    result = np.zeros_like(selected)
    _merge_within_epsilon(selected, nodes.parent, nodes.birth, epsilon, result)
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
    tree: CondensedRows, selected: np.ndarray, parent: np.ndarray, root_density: float, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) int32 and membership strengths (n,) float64 of the rows.

    ``selected`` (n_nodes,) bool and ``parent`` (n_nodes,) int64 are of the nodes. If the root is the only selected cluster, a row
    belongs to it from density `root_density` on.
    """
    node_label, labels = np.full(len(parent), NOISE, dtype=np.int32), np.full(n, NOISE, dtype=np.int32)
    top, strengths = np.zeros(len(parent)), np.zeros(n)
    _label_rows(tree, selected, parent, root_density, node_label, top, labels, strengths)
    return labels, strengths


@compiled(fastmath=False)
def _label_rows(tree, selected, parent, root_density, node_label, top, labels, strengths):  # type: ignore[no-untyped-def]
    """Fill labels and strengths; scratch: node_label (n_nodes,) int32, all noise, and top (n_nodes,) float64 zeros, the greatest
    finite density at which a row leaves each cluster itself."""
    parents, children, lambdas, _ = tree
    n, n_nodes = labels.shape[0], parent.shape[0]
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
    """The density, meeting (n_nodes,) float64, at which `node` and each other node split; -1 where one lies above the other."""
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
def top_membership(points, node, density, exemplars, tree, meeting, labels, strengths):  # type: ignore[no-untyped-def]
    """The greatest entry of each row's membership vector (hdbscan `all_points_membership_vectors`).

    ``points`` (m, d) float32, ``node`` (m,) int32 and ``density`` (m,) float32 where each row leaves the tree, `Exemplars` and
    `MembershipTree` give ``labels`` (m,) int32 and ``strengths`` (m,) float32; ``meeting`` (n_nodes,) float64 is scratch.
    Fastest for rows sorted by node: how a node meets the clusters is computed once per run of equal nodes.
    """
    node_parent, node_birth, node_density, cluster_node = tree
    exemplar_points, starts = exemplars
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
                    difference = np.float64(points[i, j]) - np.float64(exemplar_points[e, j])
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
