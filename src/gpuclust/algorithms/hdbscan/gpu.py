"""HDBSCAN on the GPU: cuML's spanning tree with exact lengths, or the CPU's exact tree; the tree is cut on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cupy as cp
import numpy as np

from gpuclust.algorithms.hdbscan import HdbscanConfig
from gpuclust.algorithms.hdbscan.cpu import build_tree, fit_cuts, is_exact
from gpuclust.algorithms.hdbscan.distances import core_distances, reachability
from gpuclust.algorithms.hdbscan.fit import SpanningTree, tree_from_edges
from gpuclust.algorithms.registry import FitInput, FitResult
from gpuclust.errors import FitError
from gpuclust.runtime.backend import Array, Progress
from gpuclust.runtime.gpu import device_errors

MAX_MIN_SAMPLES = 1023
"""The largest number of neighbours that cuML's HDBSCAN can search."""
SPARE_NEIGHBOURS = 8
"""Additional neighbours that are searched; the nearest of all candidates are then chosen by exact distances."""
SEARCH_ROWS = 1 << 16
"""Rows whose neighbours are held at once."""
APPROXIMATE = (
    "HDBSCAN's tree is cuML's tree of the graph of nearest neighbours, which is approximate: some rows may be in another cluster than with "
    "the exact tree (cluster.exact=true)"
)


def fit(data: FitInput, configs: Sequence[HdbscanConfig]) -> list[FitResult]:
    """Cut the tree of ``data.X`` (n_samples, n_columns), on the device, for each configuration."""

    def grow(X: Array, config: HdbscanConfig, progress: Progress) -> SpanningTree:
        if is_exact(data, config):
            return build_tree(data.backend.to_host(X), config, progress)
        return fit_tree(X, config.min_samples)

    with device_errors("HDBSCAN"):
        results = fit_cuts(data, configs, grow)
    return [
        result if is_exact(data, config) else replace(result, notes=(*result.notes, APPROXIMATE))
        for result, config in zip(results, configs, strict=True)
    ]


def fit_tree(X: cp.ndarray, min_samples: int) -> SpanningTree:
    """The minimum spanning tree of cuML's graph of nearest neighbours of X (n_samples, n_features) on the device.

    ``min_samples`` does not count the row itself, in cuML as in fast_hdbscan. cuML's graph joins each row to ``min_samples`` others, so its
    tree can be longer than that of all pairs. cuML computes distances in float32 from squares, so X is centred first, and core distances and
    lengths of edges are computed again in float64. The tree is read from the model's private field because the public one builds an object
    of the hdbscan package. Raises FitError when ``min_samples`` is not in 1..min(n_samples - 1, 1023).
    """
    from cuml.cluster import HDBSCAN

    limit = min(len(X) - 1, MAX_MIN_SAMPLES)
    if not 1 <= min_samples <= limit:
        raise FitError(
            f"min_samples={min_samples} needs 1 to {limit} for {len(X)} rows on the GPU; lower cluster.min_samples"
        )
    with device_errors(f"the HDBSCAN tree with min_samples={min_samples}"):
        mean: cp.ndarray = X.mean(axis=0, dtype=np.float64)
        points: cp.ndarray = cp.ascontiguousarray((X - mean).astype(np.float32))
        model = HDBSCAN(min_samples=min_samples, min_cluster_size=min_samples + 1, gen_min_span_tree=True)
        model.fit(points)
        edges: np.ndarray = model._min_spanning_tree
        core = _core_distances(X, points, min_samples)
        ends: cp.ndarray = cp.asarray(edges[:, :2].astype(np.int64))
        lengths = reachability(X, ends[:, 0], ends[:, 1], core)
        return tree_from_edges(np.column_stack([edges[:, :2], cp.asnumpy(lengths)]), cp.asnumpy(core), min_samples)


def _core_distances(X: cp.ndarray, points: cp.ndarray, min_samples: int) -> cp.ndarray:
    """The core distance of each row (n,) float64, from the neighbours that cuML finds among ``points``, X in float32 about its mean."""
    from cuml.neighbors import NearestNeighbors

    n = len(points)
    k = min(min_samples + 1 + SPARE_NEIGHBOURS, MAX_MIN_SAMPLES + 1, n)
    model = NearestNeighbors(n_neighbors=k, algorithm="brute", output_type="cupy").fit(points)
    core: cp.ndarray = cp.empty(n, dtype=np.float64)
    for start in range(0, n, SEARCH_ROWS):
        near: cp.ndarray = model.kneighbors(points[start : start + SEARCH_ROWS], return_distance=False)
        core[start : start + SEARCH_ROWS] = core_distances(X, near, min_samples, start)
    return core


def nearest_rows(X: cp.ndarray, k: int) -> cp.ndarray:
    """The k nearest rows of each row of X (n, n_features), the row itself among them, (n, k) int32 on the device, by cuML."""
    from cuml.neighbors import NearestNeighbors

    with device_errors(f"the search of {k} neighbours"):
        points: cp.ndarray = cp.ascontiguousarray(X.astype(np.float32))
        model = NearestNeighbors(n_neighbors=k, algorithm="brute", output_type="cupy").fit(points)
        found: cp.ndarray = cp.empty((len(X), k), dtype=np.int32)
        for start in range(0, len(X), SEARCH_ROWS):
            near: cp.ndarray = model.kneighbors(points[start : start + SEARCH_ROWS], return_distance=False)
            found[start : start + SEARCH_ROWS] = near.astype(np.int32)
        return found
