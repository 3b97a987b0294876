"""HDBSCAN on the GPU: cuML's spanning tree, cut on the host as any other."""

from __future__ import annotations

from collections.abc import Sequence

import cupy as cp
import numpy as np

from gpuclust.algorithms.hdbscan import HdbscanConfig
from gpuclust.algorithms.hdbscan.cpu import fit_cuts
from gpuclust.algorithms.hdbscan.fit import SpanningTree, tree_from_edges
from gpuclust.algorithms.registry import FitInput, FitResult
from gpuclust.errors import FitError
from gpuclust.runtime.gpu import device_errors

MAX_MIN_SAMPLES = 1023
"""The most neighbours that cuML's HDBSCAN can search."""


def fit(data: FitInput, configs: Sequence[HdbscanConfig]) -> list[FitResult]:
    """Cut the tree of ``data.X`` (n_samples, n_columns), on the device, for each configuration."""
    return fit_cuts(data, configs, lambda X, min_samples, _: fit_tree(X, min_samples))


def fit_tree(X: cp.ndarray, min_samples: int) -> SpanningTree:
    """The minimum spanning tree of mutual reachability of X (n_samples, n_features) on the device.

    ``min_samples`` does not count the row itself, in cuML as in fast_hdbscan. cuML computes distances in float32 from
    squares, so X is centred first. The tree is read from the model's private fields because the public ones build
    objects of the hdbscan package. Raises FitError when ``min_samples`` is not in 1..min(n_samples - 1, 1023).
    """
    from cuml.cluster import HDBSCAN
    from cuml.cluster.hdbscan.hdbscan import _HDBSCANState

    limit = min(len(X) - 1, MAX_MIN_SAMPLES)
    if not 1 <= min_samples <= limit:
        raise FitError(
            f"min_samples={min_samples} needs 1 to {limit} for {len(X)} rows on the GPU; lower cluster.min_samples"
        )
    with device_errors(f"the HDBSCAN tree with min_samples={min_samples}"):
        centred: cp.ndarray = X - X.mean(axis=0, dtype=np.float64)
        model = HDBSCAN(min_samples=min_samples, min_cluster_size=min_samples + 1, gen_min_span_tree=True)
        model.fit(cp.ascontiguousarray(centred.astype(np.float32)))
        edges: np.ndarray = model._min_spanning_tree
        state: _HDBSCANState = model._state
        fitted: dict[str, cp.ndarray] = state.to_dict()
        return tree_from_edges(edges, cp.asnumpy(fitted["core_dists"]), min_samples)
