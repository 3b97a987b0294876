"""DBSCAN on the GPU: cuML's clusters of core rows, or cuts of the exact tree where the CPU builds it fast."""

from __future__ import annotations

from collections.abc import Sequence

import cupy as cp
import numpy as np

from gpuclust.algorithms.dbscan import DbscanConfig
from gpuclust.algorithms.dbscan import fit as cpu
from gpuclust.algorithms.registry import FitInput, FitResult, step
from gpuclust.model.records import NOISE
from gpuclust.runtime.gpu import device_errors


def fit(data: FitInput, configs: Sequence[DbscanConfig]) -> list[FitResult]:
    """Cluster ``data.X`` (n_samples, n_columns), on the device, for each configuration.

    Where HDBSCAN's tree is the exact one (few columns), each configuration is a cut of it. Elsewhere cuML finds the core rows and their
    clusters by comparing all pairs of rows, and cuML's approximate tree gives only ``eps=auto`` and the relative validity.
    """
    if step("tree_is_exact")(data):
        return cpu.fit(data, configs)
    X, results = data.backend.to_host(data.X), []
    for i, config in enumerate(configs):
        tree = step("spanning_tree")(data, config.min_samples)
        eps = cpu.eps_of(config, tree)
        cores = core_labels(data.X, eps, config.min_samples)
        results.append(cpu.result_of(X, tree, cores, eps, border=config.border))
        data.progress((i + 1) / len(configs))
    return results


def core_labels(X: cp.ndarray, eps: float, min_samples: int) -> np.ndarray:
    """cuML's clusters of the core rows of X (n, d), (n,) int32; the other rows are noise. cuML counts the row itself."""
    from cuml.cluster import DBSCAN

    with device_errors(f"DBSCAN with eps={eps:g}"):
        model = DBSCAN(eps=eps, min_samples=min_samples + 1, output_type="numpy", calc_core_sample_indices=True)
        model.fit(X)
        found: np.ndarray = model.labels_
        core: np.ndarray = model.core_sample_indices_
    labels = np.full(len(X), NOISE, dtype=np.int32)
    labels[core] = np.unique(found[core], return_inverse=True)[1]
    return labels
