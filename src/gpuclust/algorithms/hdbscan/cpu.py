"""HDBSCAN on the CPU: one spanning tree for each matrix and ``min_samples``, then one cut of it for each configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gpuclust.algorithms.hdbscan import HdbscanConfig, default_min_cluster_size
from gpuclust.algorithms.hdbscan.fit import SpanningTree, extract_clusters, spanning_tree, tree_from_edges
from gpuclust.algorithms.hdbscan.predict import prediction_data, soft_membership
from gpuclust.algorithms.hdbscan.quality import persistence_curve, relative_validity
from gpuclust.algorithms.registry import FitInput, FitResult, SizeSearch
from gpuclust.errors import FitError
from gpuclust.runtime.backend import Progress
from gpuclust.runtime.cache import key
from gpuclust.runtime.jit import schedule_precompile


def fit(data: FitInput, configs: Sequence[HdbscanConfig]) -> list[FitResult]:
    """Cut the tree of ``data.X`` (n_samples, n_columns) for each configuration."""
    results: list[FitResult] = []
    for config in configs:
        built = tree(data, config.min_samples, lambda done: data.progress((len(results) + 0.95 * done) / len(configs)))
        results.append(fit_cut(data.X, built, config))
        data.progress(len(results) / len(configs))
    return results


def tree(data: FitInput, min_samples: int, progress: Progress = lambda _: None) -> SpanningTree:
    """The spanning tree of the matrix, built on the CPU or from the cache: the expensive step."""
    return cached_tree(data, min_samples, lambda X, m: _build_tree(data.backend.to_host(X), m, progress))


def cached_tree(data: FitInput, min_samples: int, grow: Callable[[np.ndarray, int], SpanningTree]) -> SpanningTree:
    """The result of ``grow(X, min_samples)``, kept in the cache. Raises FitError where there are too few rows."""
    if min_samples >= len(data.X):
        raise FitError(f"{len(data.X):,} rows are too few for min_samples={min_samples}; lower cluster.min_samples")
    name = key("tree", data.key, min_samples)  # further cluster sizes, methods and epsilons are cuts of it
    return data.cache.get_or_create(name, lambda: grow(data.X, min_samples))


def _build_tree(X: np.ndarray, min_samples: int, progress: Progress = lambda _: None) -> SpanningTree:
    schedule_precompile("hdbscan", X, ["gpuclust.algorithms.hdbscan.condense"])
    return spanning_tree(X, min_samples=min_samples, progress=progress)


def fit_cut(X: np.ndarray, tree: SpanningTree, config: HdbscanConfig) -> FitResult:
    """Cut a spanning tree, which may have been built on any device; X (n_samples, n_features) is on the host."""
    size = config.min_cluster_size
    curve = None
    if isinstance(size, str):
        curve = persistence_curve(tree)
        size = int(curve.chosen)
    elif size is None:
        size = default_min_cluster_size(tree.n_rows)
    found = extract_clusters(
        tree,
        min_cluster_size=size,
        cluster_selection_method=config.cluster_selection_method,
        cluster_selection_epsilon=float(config.cluster_selection_epsilon),
        max_cluster_size=config.max_cluster_size or 0,
        allow_single_cluster=config.allow_single_cluster,
    )
    none = f"every row is noise at min_cluster_size={size}; lower it, or cluster.min_samples"
    return FitResult(
        labels=found.labels,
        confidence=found.probabilities.astype(np.float32),
        distance=None,
        parameters=prediction_data(X, tree, found),
        metrics={"relative_validity": found.relative_validity, "min_cluster_size": size},
        notes=() if found.n_clusters else (none,),
        size_search=None if curve is None else SizeSearch(curve.sizes, curve.total_persistence, curve.chosen),
    )


def density_validity(data: FitInput, config: HdbscanConfig, labelings: Sequence[np.ndarray]) -> list[float]:
    """The relative validity of each labeling (n_samples,) int32, noise -1, on the spanning tree of the matrix."""
    edges = tree(data, config.min_samples).edges
    return [relative_validity(edges, labels) for labels in labelings]


def after_fit(X: np.ndarray) -> None:
    """Compile what follows the tree: cut a chain of the rows with one long edge in the middle, and place its noise."""
    n = len(X)
    rows = np.arange(n)
    lengths = 1.0 + rows[1:] / n
    lengths[n // 2] = 9.0
    tree = tree_from_edges(np.column_stack([rows[:-1], rows[1:], lengths]), np.ones(n), 5)
    soft_membership(fit_cut(X, tree, HdbscanConfig(min_cluster_size=20)).parameters)
