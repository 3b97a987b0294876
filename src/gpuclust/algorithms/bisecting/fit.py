"""Bisecting K-Means of a matrix in memory or on a device: the tree of divisions, and its stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np

from gpuclust.algorithms.bisecting import BisectingConfig
from gpuclust.algorithms.registry import FitInput, FitResult, get_algorithm
from gpuclust.algorithms.registry import fit as fit_algorithm
from gpuclust.errors import FitError, GpuclustError
from gpuclust.model.kmeans import membership
from gpuclust.model.prediction import in_threads, row_blocks
from gpuclust.runtime.backend import Array, Progress


@dataclass(frozen=True)
class Divisions:
    """The tree of divisions. Division i of node ``divided[i]`` makes the nodes 2i + 1 and 2i + 2; node 0 has all rows.

    ``divided`` (m-1,) int32; ``node_centers`` (2m-1, n_columns) float64; ``node_of`` (n_samples,) int32: the undivided node of each row; ``converged`` (m-1,)
    bool and ``n_iter`` (m-1,) int64: whether each division converged, and its iterations.
    """

    divided: np.ndarray
    node_centers: np.ndarray
    node_of: np.ndarray
    converged: np.ndarray
    n_iter: np.ndarray

    def nodes_at(self, n_clusters: int) -> np.ndarray:
        """The node (n_samples,) of each row when there are ``n_clusters`` clusters."""
        ancestor = np.arange(len(self.node_centers), dtype=np.int32)
        n_nodes = 2 * n_clusters - 1
        for i in range(n_clusters - 1, len(self.divided)):  # parents have lower numbers
            ancestor[2 * i + 1 : 2 * i + 3] = ancestor[self.divided[i]]
        assert ancestor.max() < n_nodes
        return ancestor[self.node_of]


def fit(data: FitInput, configs: Sequence[BisectingConfig]) -> list[FitResult]:
    """Fit each configuration to ``data.X`` (n_samples, n_columns); those that differ only in their size are stages of one tree."""
    trees: dict[str, list[int]] = {}
    for i, config in enumerate(configs):
        trees.setdefault(repr(asdict(config) | {"n_clusters": None}), []).append(i)
    X = data.backend.to_host(data.X)
    results: dict[int, FitResult] = {}
    for members in trees.values():
        largest = max((configs[i] for i in members), key=lambda config: config.n_clusters)
        done, own = len(results) / len(configs), len(members) / len(configs)
        tree = divide(replace(data, progress=partial(_report, data.progress, done, own)), largest)
        for i in members:
            results[i] = _stage(X, tree, configs[i])
    return [results[i] for i in range(len(configs))]


def _report(progress: Progress, done: float, own: float, part: float) -> None:
    """Report the share of all fits that is done: that of the trees before, and a part of this one."""
    progress(done + own * part)


def divide(data: FitInput, config: BisectingConfig) -> Divisions:
    """Divide clusters until there are ``n_clusters``. Raises FitError if none of them can be divided: its rows are equal."""
    n_rows, k = data.X.shape[0], config.n_clusters
    of_all = {name: getattr(config, name) for name in ("init", "n_init", "max_iter", "tol", "metric")}
    kmeans = get_algorithm("kmeans").config(**of_all | {"n_clusters": 2})
    matrix: Array = data.X
    rows_of: dict[int, np.ndarray] = {0: np.arange(n_rows)}
    priority = {0: np.inf}  # of the undivided nodes
    divided, node_centers = np.empty(k - 1, np.int32), np.empty((2 * k - 1, data.X.shape[1]))
    node_centers[0] = data.backend.to_host(matrix.mean(axis=0, dtype=np.float64))
    converged, n_iter = np.empty(k - 1, dtype=bool), np.empty(k - 1, dtype=np.int64)
    for i in range(k - 1):
        node = max(priority, key=lambda node: priority[node])
        if priority[node] <= 0:
            raise _too_few(k, i + 1)
        rows = rows_of.pop(node)
        del priority[node]
        X = matrix if len(rows) == n_rows else matrix[data.backend.to_device(rows)]
        part = replace(data, X=X, key=f"{data.key} node {node}", distinct=None, progress=lambda _: None)
        (found,) = fit_algorithm(part, [kmeans])
        if isinstance(found, GpuclustError):
            raise found
        if found.labels.min() == found.labels.max():
            raise _too_few(k, i + 1)
        assert found.distance is not None
        divided[i], converged[i], n_iter[i] = node, found.converged, found.metrics["n_iter"]
        for side in range(2):
            child, own = 2 * i + 1 + side, found.labels == side
            node_centers[child] = found.parameters["centers"][side]
            rows_of[child] = rows[own]
            distance = found.distance[own].astype(np.float64)
            inertia = float(distance @ distance)
            by_size = config.bisecting_strategy == "largest_cluster"
            priority[child] = float(own.sum()) if by_size and inertia > 0 else inertia
        data.progress((i + 1) / (k - 1))
    node_of = np.empty(n_rows, np.int32)
    for node, rows in rows_of.items():
        node_of[rows] = node
    return Divisions(divided, node_centers, node_of, converged, n_iter)


def _too_few(n_clusters: int, n_distinct: int) -> FitError:
    return FitError(f"n_clusters={n_clusters} is more than the {n_distinct} distinct rows; lower cluster.n_clusters")


def _stage(X: np.ndarray, tree: Divisions, config: BisectingConfig) -> FitResult:
    """The clusters after the first ``n_clusters - 1`` divisions."""
    k = config.n_clusters
    n_nodes = 2 * k - 1
    divided, node_centers = tree.divided[: k - 1], tree.node_centers[:n_nodes]
    node_labels = np.full(n_nodes, -1, dtype=np.int32)
    ends = np.setdiff1d(np.arange(n_nodes), divided)
    node_labels[ends] = np.arange(k)
    converged = bool(tree.converged[: k - 1].all())
    labels, centers = node_labels[tree.nodes_at(k)], node_centers[ends]
    confidence, distance = np.empty(len(X), np.float32), np.empty(len(X))

    def block(rows: slice) -> None:
        confidence[rows], distance[rows] = membership(X[rows], labels[rows], centers)

    in_threads(block, row_blocks(len(X)))
    return FitResult(
        labels=labels,
        confidence=confidence,
        distance=distance.astype(np.float32),
        parameters={"centers": centers, "node_centers": node_centers, "divided": divided, "node_labels": node_labels},
        per_cluster=("centers",),
        metrics={"inertia": float(distance @ distance), "n_iter": int(tree.n_iter[: k - 1].sum())},
        converged=converged,
        engine="fused",
        notes=() if converged else ("a division stopped at max_iter before it converged; raise cluster.max_iter",),
    )
