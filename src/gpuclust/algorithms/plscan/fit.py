"""PLSCAN's cuts: the spanning tree that HDBSCAN has, the persistence of all sizes, and the leaf clusters at one of its peaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gpuclust.algorithms.plscan import PlscanConfig
from gpuclust.algorithms.registry import FitInput, FitResult, SizeSearch, step
from gpuclust.errors import FitError


def fit(data: FitInput, configs: Sequence[PlscanConfig]) -> list[FitResult]:
    """Cut the tree of ``data.X`` (n_samples, n_columns) at a layer for each configuration.

    Raises FitError where the persistence has fewer peaks than ``layer``.
    """
    X, results = data.backend.to_host(data.X), []
    for i, config in enumerate(configs):
        tree = step("spanning_tree")(data, config.min_samples)
        least = max(2, config.min_samples) if config.min_cluster_size is None else config.min_cluster_size
        curve = step("persistence_curve")(tree, base_min_cluster_size=min(least, tree.n_rows), weighted=False)
        sizes = step("layer_sizes")(curve)
        if config.layer > max(len(sizes), 1):
            raise FitError(
                f"cluster.layer={config.layer} is above the number of layers of the tree, {len(sizes)}; lower it"
            )
        size = int(sizes[config.layer - 1]) if len(sizes) else curve.chosen
        found: FitResult = step("leaf_cut")(X, tree, min(size, tree.n_rows))
        results.append(
            replace(
                found,
                metrics={**found.metrics, "n_layers": len(sizes)},
                notes=() if found.labels.max(initial=-1) >= 0 else ("every row is noise; lower cluster.min_samples",),
                size_search=SizeSearch(curve.sizes, curve.total_persistence, size),
            )
        )
        data.progress((i + 1) / len(configs))
    return results


def density_validity(data: FitInput, config: PlscanConfig, labelings: Sequence[np.ndarray]) -> list[float]:
    """The relative validity of each labeling (n_samples,) int32, noise -1, on the spanning tree of the matrix."""
    tree = step("spanning_tree")(data, config.min_samples)
    return [step("relative_validity")(tree.edges, labels) for labels in labelings]


def soft_membership(
    parameters: Mapping[str, np.ndarray], rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest cluster of fitted rows and the membership, as HDBSCAN's."""
    found: tuple[np.ndarray, np.ndarray] = step("soft_membership")(parameters, rows)
    return found
