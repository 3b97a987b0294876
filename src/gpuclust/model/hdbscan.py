"""Prediction with HDBSCAN, from the condensed tree of the fit.

The arrays of a model:

    points            (n, d) float32   the fitted rows, as the tree saw them
    core_distances    (n,) float64     distance to the min_samples-th other row
    min_samples       () int64
    row_node          (n,) int32       node of the condensed tree that the row falls out of; node 0 is the root
    row_density       (n,) float32     density (lambda) at which it does; infinity becomes the greatest finite one
    node_parent       (m,) int32       -1 for the root
    node_birth        (m,) float32     density at which the node split off
    node_density      (m,) float32     greatest density at which anything leaves the node
    cluster_node      (k,) int32       node of each label
    cluster_density   (k,) float32     greatest finite density at which a row leaves that node itself
    root_density      () float64       from which density rows belong to the root, where the root is the one cluster
    canonical         (k,) int32       the cluster's final number, of each label
    training_labels   (n,) int32       labels and confidences of the fit: `place` may put rows that are noise in the tree
    training_confidence (n,) float32   into a cluster

Where the tree is of a sample, also:

    sample            (n,) int64       the numbers of the fitted rows in their table, ascending
    table_labels      (t,) int32       labels and confidences of all rows of the table
    table_confidence  (t,) float32
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np

from gpuclust.errors import ModelError
from gpuclust.model.prediction import ArraySpec, Options, Parameters, Place, Placed, PredictionRule, Soft, register_rule
from gpuclust.model.records import NOISE

ARRAYS = {
    "points": ArraySpec("f", ("rows", "columns")),
    "core_distances": ArraySpec("f", ("rows",)),
    "min_samples": ArraySpec("i", ()),
    "row_node": ArraySpec("i", ("rows",)),
    "row_density": ArraySpec("f", ("rows",), finite=False),
    "node_parent": ArraySpec("i", ("nodes",)),
    "node_birth": ArraySpec("f", ("nodes",), finite=False),
    "node_density": ArraySpec("f", ("nodes",), finite=False),
    "cluster_node": ArraySpec("i", ("clusters",)),
    "cluster_density": ArraySpec("f", ("clusters",), finite=False),
    "root_density": ArraySpec("f", (), finite=False),
    "canonical": ArraySpec("i", ("clusters",)),
    "training_labels": ArraySpec("i", ("rows",)),
    "training_confidence": ArraySpec("f", ("rows",), finite=False),
}

SAMPLED = ARRAYS | {
    "sample": ArraySpec("i", ("rows",)),
    "table_labels": ArraySpec("i", ("table",)),
    "table_confidence": ArraySpec("f", ("table",), finite=False),
}

# Points (n, n_columns) -> the fitted row (n,) int64 that each joins, and the density (n,) float64 at which it does.
Nearest = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def arrays(options: Options) -> Mapping[str, ArraySpec]:
    """The arrays of a model; ``sampled``: its tree is built from a sample."""
    return SAMPLED if options.get("sampled") else ARRAYS


def check(parameters: Parameters, options: Options) -> None:
    """Numbers of rows, nodes and clusters are those of the other arrays, and each node's parent comes before it."""
    n_rows, n_nodes, n_clusters = (len(parameters[name]) for name in ("points", "node_parent", "cluster_node"))
    limits = {
        "row_node": (0, n_nodes - 1),
        "cluster_node": (0, n_nodes - 1),
        "canonical": (0, n_clusters - 1),
        "training_labels": (NOISE, n_clusters - 1),
        "min_samples": (1, max(n_rows - 1, 1)),
    }
    if (sample := parameters.get("sample")) is not None:
        limits["table_labels"] = limits["training_labels"]
        if sample[0] < 0 or (np.diff(sample) <= 0).any() or sample[-1] >= len(parameters["table_labels"]):
            raise ModelError("the array parameters/sample does not hold ascending numbers of the table's rows")
    for name, (low, high) in limits.items():
        values = parameters[name]
        if values.size and not (low <= values.min() and values.max() <= high):
            raise ModelError(f"the array parameters/{name} has values outside {low} to {high}")
    parents = parameters["node_parent"]
    if parents[0] != -1 or (parents[1:] < 0).any() or (parents[1:] >= np.arange(1, n_nodes)).any():
        raise ModelError("the array parameters/node_parent is not a tree")


def labels_of_nodes(parameters: Parameters) -> np.ndarray:
    """The label (n_nodes,) int64 of each node: its own, else that of its nearest selected ancestor, else noise."""
    parent, cluster_node = parameters["node_parent"].tolist(), parameters["cluster_node"]
    label_of = np.full(len(parent), NOISE, dtype=np.int64)
    label_of[cluster_node] = np.arange(len(cluster_node))
    for node in range(1, len(parent)):  # parents have lower numbers
        if label_of[node] == NOISE:
            label_of[node] = label_of[parent[node]]
    return label_of


def place(parameters: Parameters, options: Options) -> Place:
    """As hdbscan's ``approximate_predict``.

    Each row joins its nearest fitted row by mutual reachability, among its ``2 * min_samples`` nearest, and falls out of
    the tree with it, or before it where the row itself is less dense. The fitted core distances are used (hdbscan takes
    them one neighbour short), and a row's density is at most its neighbour's. So a row that equals a fitted row gets that
    row's label and probability; of several identical fitted rows one stands for all, so that only rows that tie between two
    clusters can differ from the fit.
    """
    nearest, within = nearest_fitted(parameters), fall(parameters)
    return lambda points: within(*nearest(points))


def nearest_fitted(parameters: Parameters) -> Nearest:
    """The part of `place` that all cuts of a tree share: the fitted row that a row joins, and its density."""
    from scipy.spatial import KDTree

    rows, core = KDTree(parameters["points"]), parameters["core_distances"]
    min_samples = int(parameters["min_samples"])
    wanted = min(2 * min_samples, len(core))

    def run(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points = np.ascontiguousarray(points, dtype=np.float32)
        far, near = rows.query(points, k=np.arange(1, wanted + 1))
        own_core = far[:, min(min_samples, wanted - 1), None]
        reach = np.maximum(np.maximum(far, core[near]), own_core)
        reach[far[:, 0] == 0.0, 0] = 0.0  # an identical fitted row: fall out with it
        best = reach.argmin(axis=1)[:, None]
        with np.errstate(divide="ignore"):
            density = 1.0 / np.take_along_axis(reach, best, 1)[:, 0]
        return np.take_along_axis(near, best, 1)[:, 0], density

    return run


def climbing(parameters: Parameters) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """From fitted rows (n,) and densities (n,) to the node (n,) int64 that a row falls out of, and the density (n,) float64 at which it does: those of
    the fitted row, or above it in the tree where the density is lower."""
    node_of, density_of = parameters["row_node"].astype(np.int64), parameters["row_density"].astype(np.float64)
    parent, birth = parameters["node_parent"], parameters["node_birth"]

    def run(row: np.ndarray, density: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        node = node_of[row]
        upward = np.flatnonzero(density < density_of[row])
        while len(upward):
            upward = upward[(node[upward] > 0) & (birth[node[upward]] >= density[upward])]
            node[upward] = parent[node[upward]]
        return node, np.minimum(density, density_of[row])

    return run


def soft(parameters: Parameters, options: Options) -> Soft:
    """The membership vectors of hdbscan (``membership_vector``), and GLOSH (Campello et al. 2015) as the outlier score.

    A membership is the closeness to the cluster's exemplars x the height at which row and cluster meet in the tree, normalised, x the chance of
    being in some cluster; so the memberships of a row of noise add up to less than 1. GLOSH is 1 - density at which the row falls out of its node /
    greatest density in that node and below: 0 for the densest rows, near 1 for outliers.
    """
    from scipy.spatial import KDTree

    nearest, climb = nearest_fitted(parameters), climbing(parameters)
    cluster_node = parameters["cluster_node"]
    node_density = parameters["node_density"].astype(np.float64)
    deepest = node_density.copy()
    parent = parameters["node_parent"]
    for node in range(len(parent) - 1, 0, -1):  # parents have lower numbers
        deepest[parent[node]] = max(deepest[parent[node]], deepest[node])
    exemplars, starts = exemplars_of(parameters)
    trees = [KDTree(exemplars[a:b]) for a, b in pairwise(starts)]
    order = np.argsort(parameters.get("canonical", np.arange(len(cluster_node))))

    def run(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        node, density = climb(*nearest(points))
        top = deepest[node]
        outlier = 1.0 - np.divide(density, top, out=np.ones(len(node)), where=top > 0)
        if not len(cluster_node):
            return np.zeros((len(points), 0)), outlier
        present, place_of = np.unique(node, return_inverse=True)
        meet = np.stack([_meetings(int(n), parameters)[cluster_node] for n in present])[place_of]
        height = np.where(meet < 0, density[:, None], meet)
        far = np.column_stack([tree.query(points)[0] for tree in trees])
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            close = np.where(far > 0, 1.0 / far, 1e300)
            score = np.where(height > 0, close * np.exp(np.exp(-(node_density[node][:, None] + 1e-8) / height)), close)
        highest = height.argmax(axis=1)
        most = height[np.arange(len(node)), highest]
        reached = np.maximum(node_density[cluster_node[highest]], density)
        inside = np.divide(most, reached, out=np.zeros(len(node)), where=reached > 0)
        score /= score.max(
            axis=1, keepdims=True
        )  # before they are added, as that of a row at an exemplar is near the largest float
        return (score / score.sum(axis=1, keepdims=True) * inside[:, None])[:, order], np.clip(outlier, 0.0, 1.0)

    return run


def _meetings(node: int, parameters: Parameters) -> np.ndarray:
    """The density (n_nodes,) float64 at which a node and each other node split; -1 where one lies above the other."""
    parent, birth = parameters["node_parent"], parameters["node_birth"]
    meeting = np.zeros(len(parent))
    at = node
    while at >= 0:
        meeting[at] = -1.0
        at = int(parent[at])
    for other in range(1, len(parent)):  # parents have lower numbers
        if meeting[other] == -1.0:
            continue
        above = int(parent[other])
        meeting[other] = birth[other] if meeting[above] == -1.0 and above < node else meeting[above]
    return meeting


def exemplars_of(parameters: Parameters) -> tuple[np.ndarray, np.ndarray]:
    """The densest rows of every leaf under each cluster, grouped by label, and where each group starts, (k + 1,) int64."""
    parent = parameters["node_parent"]
    is_leaf = np.ones(len(parent), dtype=bool)
    is_leaf[parent[1:]] = False
    node = parameters["row_node"]
    label = labels_of_nodes(parameters)[node]
    rows = np.flatnonzero(
        is_leaf[node] & (label >= 0) & (parameters["row_density"] == parameters["node_density"][node])
    )
    rows = rows[np.argsort(label[rows], kind="stable")]
    starts = np.searchsorted(label[rows], np.arange(len(parameters["cluster_node"]) + 1))
    return np.ascontiguousarray(parameters["points"][rows]), starts.astype(np.int64)


def fall(parameters: Parameters) -> Callable[[np.ndarray, np.ndarray], Placed]:
    """The part of `place` that depends on the cut: labels and confidences from the fitted rows and the densities."""
    climb = climbing(parameters)
    cluster_node, greatest = parameters["cluster_node"], parameters["cluster_density"]
    label_of = labels_of_nodes(parameters)
    # A fit that is not yet numbered canonically has no such array.
    canonical = np.append(parameters.get("canonical", np.arange(len(cluster_node))), NOISE)
    root_alone = len(cluster_node) > 0 and cluster_node[0] == 0

    def run(row: np.ndarray, density: np.ndarray) -> Placed:
        node, density = climb(row, density)
        labels = label_of[node]
        if root_alone:
            labels = np.where(density >= float(parameters["root_density"]), labels, NOISE)
        confidence = np.zeros(len(row))
        inside = labels >= 0
        most = greatest[labels[inside]]
        confidence[inside] = np.divide(density[inside], most, out=np.ones(inside.sum()), where=most > 0)
        return canonical[labels], np.minimum(confidence, 1.0), np.nan

    return run


register_rule(
    PredictionRule(
        "hdbscan",
        arrays,
        place,
        options={"sampled": (None, True)},
        check=check,
        may_be_empty=("clusters",),
        soft=soft,
        outlier="GLOSH, from 0 to 1",
    )
)
