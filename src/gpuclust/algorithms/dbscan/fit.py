"""DBSCAN on the CPU: one spanning tree for each matrix and ``min_samples``, shared with HDBSCAN, then one cut of it for each ``eps``.

The rows within ``eps`` of a core row's neighbours are those that edges of at most ``eps`` join in the minimum spanning tree of mutual
reachability (Campello, Moulavi and Sander 2013, section 3), so a cut gives DBSCAN's clusters of core rows exactly. A border row, whose
cluster DBSCAN leaves to the order of the rows, joins its nearest core row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gpuclust.algorithms.dbscan import DbscanConfig
from gpuclust.algorithms.registry import FitInput, FitResult, step
from gpuclust.model.dbscan import place
from gpuclust.model.prediction import place_rows
from gpuclust.model.records import NOISE

RADII = 25
"""The number of radii that ``eps=auto`` tries: evenly spaced quantiles of the core distances."""


def fit(data: FitInput, configs: Sequence[DbscanConfig]) -> list[FitResult]:
    """Cut the tree of ``data.X`` (n_samples, n_columns) for each configuration."""
    X, results = data.backend.to_host(data.X), []
    for i, config in enumerate(configs):
        tree = step("spanning_tree")(data, config.min_samples)
        eps = eps_of(config, tree)
        results.append(result_of(X, tree, core_labels(tree, eps), eps, border=config.border))
        data.progress((i + 1) / len(configs))
    return results


def eps_of(config: DbscanConfig, tree: Any) -> float:
    """The radius: as given, or of `RADII` radii the one whose cut of the tree has the highest relative validity."""
    if not isinstance(config.eps, str):
        return float(config.eps)
    radii = np.unique(np.quantile(tree.core_distances, np.linspace(0, 1, RADII + 1)[1:]))
    validity = [step("relative_validity")(tree.edges, core_labels(tree, eps)) for eps in radii]
    return float(radii[int(np.argmax(validity))]) or float(np.finfo(np.float32).tiny)


def core_labels(tree: Any, eps: float) -> np.ndarray:
    """The clusters of the core rows, (n,) int32; the other rows are noise. ``tree`` is a
    `gpuclust.algorithms.hdbscan.fit.SpanningTree`."""
    n, is_core = tree.n_rows, tree.core_distances <= eps
    short = tree.edges[tree.edges[:, 2] <= eps, :2].astype(np.int64)
    joined = coo_array((np.ones(len(short), dtype=np.int8), (short[:, 0], short[:, 1])), shape=(n, n))
    component = connected_components(joined, directed=False)[1]
    labels = np.full(n, NOISE, dtype=np.int32)
    labels[is_core] = np.unique(component[is_core], return_inverse=True)[1]
    return labels


def result_of(X: np.ndarray, tree: Any, cores: np.ndarray, eps: float, *, border: bool) -> FitResult:
    """The result for the clusters of the core rows (n,) int32; X (n_samples, n_columns) is on the host."""
    is_core = cores != NOISE
    parameters = {
        "core_points": np.ascontiguousarray(X[is_core]),
        "core_labels": cores[is_core],
        "radius": np.asarray(eps if border else 0.0),
    }
    labels, confidence = cores.copy(), is_core.astype(np.float32)
    if border:
        labels[~is_core], confidence[~is_core], _ = place_rows(place(parameters, {}), X[~is_core])
    none = f"every row is noise at eps={eps:.4g}; raise cluster.eps or lower cluster.min_samples"
    return FitResult(
        labels=labels,
        confidence=confidence,
        distance=None,
        parameters=parameters,
        metrics={
            "eps": eps,
            "core_fraction": float(is_core.mean()),
            "relative_validity": step("relative_validity")(tree.edges, labels),
        },
        notes=() if is_core.any() else (none,),
    )


def density_validity(data: FitInput, config: DbscanConfig, labelings: Sequence[np.ndarray]) -> list[float]:
    """The relative validity of each labeling (n_samples,) int32, noise -1, on the spanning tree of the matrix."""
    tree = step("spanning_tree")(data, config.min_samples)
    return [step("relative_validity")(tree.edges, labels) for labels in labelings]
