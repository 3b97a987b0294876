"""The dear step of HDBSCAN on the GPU: cuML's spanning tree, cut afterwards on the host as any other."""

from __future__ import annotations

import cupy as cp
import numpy as np

from gpuclust.algorithms.hdbscan.fit import SpanningTree, tree_from_edges
from gpuclust.errors import FitError

MOST_MIN_SAMPLES = 1023
"""The neighbours that cuML's HDBSCAN can look for."""


def fit_tree(X: cp.ndarray, min_samples: int) -> SpanningTree:
    """The minimum spanning tree of mutual reachability of X (n_samples, n_features) on the device.

    ``min_samples`` does not count the row itself, in cuML as in fast_hdbscan. cuML computes distances in float32 from
    squares, so X is centred first. The tree is read from the model's private fields because the public ones build
    objects of the hdbscan package. Raises FitError when ``min_samples`` is not in 1..min(n_samples - 1, 1023).
    """
    from cuml.cluster import HDBSCAN
    from cuml.cluster.hdbscan.hdbscan import _HDBSCANState

    limit = min(len(X) - 1, MOST_MIN_SAMPLES)
    if not 1 <= min_samples <= limit:
        raise FitError(
            f"min_samples={min_samples} needs 1 to {limit} for {len(X)} rows on the GPU; lower cluster.min_samples"
        )
    centred: cp.ndarray = X - X.mean(axis=0, dtype=np.float64)
    model = HDBSCAN(min_samples=min_samples, min_cluster_size=min_samples + 1, gen_min_span_tree=True)
    model.fit(cp.ascontiguousarray(centred.astype(np.float32)))
    edges: np.ndarray = model._min_spanning_tree
    state: _HDBSCANState = model._state
    fitted: dict[str, cp.ndarray] = state.to_dict()
    return tree_from_edges(edges, cp.asnumpy(fitted["core_dists"]), min_samples)
