"""HDBSCAN on the CPU: one spanning tree for each matrix and ``min_samples``, then one cut of it for each configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from gpuclust.algorithms.hdbscan import HdbscanConfig, default_min_cluster_size
from gpuclust.algorithms.hdbscan.fit import SpanningTree, extract_clusters, spanning_tree, tree_from_edges
from gpuclust.algorithms.hdbscan.kd_tree import build_kdtree
from gpuclust.algorithms.hdbscan.knn import nearest_rows
from gpuclust.algorithms.hdbscan.leaf_tiles import leaf_tiles
from gpuclust.algorithms.hdbscan.predict import prediction_data, soft_membership
from gpuclust.algorithms.hdbscan.quality import persistence_curve, relative_validity
from gpuclust.algorithms.hdbscan.sample import extend, rows_of, sample_of, settings_of
from gpuclust.algorithms.registry import FitInput, FitResult, SizeSearch, resolve
from gpuclust.errors import FitError
from gpuclust.runtime.backend import Array, Progress
from gpuclust.runtime.blocks import RowBlocks
from gpuclust.runtime.cache import key
from gpuclust.runtime.jit import schedule_precompile

EXACT_COLUMNS = 8
"""Up to this many columns a GPU takes the exact tree of the CPU by default: its KD-tree is fast there."""
TREE_COLUMNS = 16
"""Up to this many columns a KD-tree finds nearest rows faster than a comparison of all pairs."""
Grow = Callable[[Array, HdbscanConfig, Progress], SpanningTree]


def fit(data: FitInput, configs: Sequence[HdbscanConfig]) -> list[FitResult]:
    """Cut the tree of ``data.X`` (n_samples, n_columns), in memory or in blocks, for each configuration."""
    return fit_cuts(data, configs, build_tree)


def is_exact(data: FitInput, config: HdbscanConfig | None = None) -> bool:
    """Whether a configuration (none: the defaults) takes the exact tree, which the CPU builds: always, but for rows on a GPU that
    ``cluster.exact`` leaves to cuML."""
    config = config or HdbscanConfig()
    if data.backend.name != "gpu" or isinstance(data.X, RowBlocks):
        return True
    return data.X.shape[1] <= EXACT_COLUMNS if config.exact is None else config.exact


def fit_cuts(data: FitInput, configs: Sequence[HdbscanConfig], grow: Grow) -> list[FitResult]:
    """Cut the trees that ``grow`` builds; if a tree is built from a sample, assign the other rows to the clusters of its cuts, all in one
    read."""
    results: list[FitResult] = []
    points: dict[int, np.ndarray] = {}  # the rows of each tree, on the host, by their number
    sampled: dict[tuple[int, int, bool], list[int]] = {}  # rows, min_samples and exactness of a tree -> its cuts
    n_rows, samples = len(data.X), [sample_of(data, config) for config in configs]
    for i, (config, sample) in enumerate(zip(configs, samples, strict=True)):
        progress = partial(_report, data.progress, i, len(configs))
        built = tree(data, config, sample, grow, progress)
        if built.n_rows not in points:
            points[built.n_rows] = data.backend.to_host(_rows(data, sample))
        if sample is not None:
            sampled.setdefault((len(sample), config.min_samples, is_exact(data, config)), []).append(i)
            config = settings_of(config, n_rows, len(sample) / n_rows)
        results.append(fit_cut(points[built.n_rows], built, config))
        data.progress((i + 1) / len(configs))
    for cuts in sampled.values():
        sample = samples[cuts[0]]
        assert sample is not None
        extended = extend(data, sample, [results[i] for i in cuts], [configs[i] for i in cuts])
        for i, result in zip(cuts, extended, strict=True):
            results[i] = result
    return results


def _report(progress: Progress, i: int, count: int, done: float) -> None:
    """Report the share of all cuts that is done: the first ``i``, and a part of the tree of the next."""
    progress((i + 0.95 * done) / count)


def tree(
    data: FitInput, config: HdbscanConfig, sample: np.ndarray | None, grow: Grow, progress: Progress = lambda _: None
) -> SpanningTree:
    """The spanning tree of the matrix or of a sample of its rows, the expensive step: what ``grow`` builds, kept in the cache.

    Raises FitError if there are too few rows.
    """
    n_rows = len(data.X) if sample is None else len(sample)
    if config.min_samples >= n_rows:
        raise FitError(f"{n_rows:,} rows are too few for min_samples={config.min_samples}; lower cluster.min_samples")
    # Further cluster sizes, methods and epsilons are cuts of one tree.
    approximate = () if is_exact(data, config) else ("approximate",)
    name = key("tree", data.key, config.min_samples, *approximate, *_of_sample(data, sample))
    return data.cache.get_or_create(name, lambda: grow(_rows(data, sample), config, progress))


def shared_tree(data: FitInput, min_samples: int) -> SpanningTree:
    """The spanning tree of all rows of a matrix in memory, for algorithms that cut it in another way; in the cache it is HDBSCAN's own."""

    def grow(X: Array, config: HdbscanConfig, progress: Progress) -> SpanningTree:
        if is_exact(data, config):
            return build_tree(data.backend.to_host(X), config, progress)
        built: SpanningTree = resolve("gpuclust.algorithms.hdbscan.gpu:fit_tree")(X, config.min_samples)
        return built

    return tree(data, HdbscanConfig(min_samples=min_samples), None, grow, partial(_report, data.progress, 0, 1))


def nearest_neighbors(data: FitInput, k: int) -> np.ndarray:
    """The k nearest other rows of each row of a matrix in memory, (n, k) int32, for algorithms on their graph; kept in the cache.

    Exact on the CPU, but for rounding in many columns: a KD-tree in few columns, else scikit-learn's comparison of all pairs; on a GPU cuML's.
    """

    def search() -> np.ndarray:
        if data.backend.name == "gpu":
            found = data.backend.to_host(resolve("gpuclust.algorithms.hdbscan.gpu:nearest_rows")(data.X, k + 1))
        elif data.X.shape[1] <= TREE_COLUMNS:
            points = np.ascontiguousarray(data.X, dtype=np.float32)
            found = nearest_rows(leaf_tiles(build_kdtree(points)), k + 1, data.progress)[0]
        else:
            from sklearn.neighbors import NearestNeighbors

            found = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(data.X).kneighbors(return_distance=False)
        return _others(np.asarray(found, dtype=np.int32))

    found: np.ndarray = data.cache.get_or_create(key("neighbours", data.key, k), search)
    return found


def _others(near: np.ndarray) -> np.ndarray:
    """Nearest rows (n, k + 1) without the row itself, (n, k); where k others are identical to a row, it may be missing: then without the last."""
    if (near < 0).any():
        raise FitError("distances between rows overflow float32; scale the features")
    own = near == np.arange(len(near), dtype=near.dtype)[:, None]
    own[~own.any(axis=1), -1] = True
    return near[~own].reshape(len(near), -1)


def _rows(data: FitInput, sample: np.ndarray | None) -> Array:
    """The rows of a tree; those that have to be read or copied are kept in the cache."""
    if sample is None and not isinstance(data.X, RowBlocks):
        return data.X
    name = key("rows", data.key, *_of_sample(data, sample))
    return data.cache.get_or_create(name, lambda: rows_of(data, sample))


def _of_sample(data: FitInput, sample: np.ndarray | None) -> tuple[int, ...]:
    return () if sample is None else (len(sample), data.seed)


def build_tree(X: np.ndarray, config: HdbscanConfig, progress: Progress = lambda _: None) -> SpanningTree:
    """The exact tree of X (n_samples, n_columns) on the host."""
    schedule_precompile("hdbscan", X, ["gpuclust.algorithms.hdbscan.condense"])
    return spanning_tree(X, min_samples=config.min_samples, progress=progress)


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


def leaf_cut(X: np.ndarray, tree: SpanningTree, min_cluster_size: int) -> FitResult:
    """The clusters of a tree that never split into two of at least ``min_cluster_size`` rows; X (n_samples, n_features) is on the host."""
    return fit_cut(X, tree, HdbscanConfig(min_cluster_size=min_cluster_size, cluster_selection_method="leaf"))


def density_validity(data: FitInput, config: HdbscanConfig, labelings: Sequence[np.ndarray]) -> list[float]:
    """The relative validity of each labeling (n_samples,) int32, noise -1, on the spanning tree of the matrix or of its sample."""
    sample = sample_of(data, config)
    built = tree(data, config, sample, lambda X, config, done: build_tree(data.backend.to_host(X), config, done))
    return [relative_validity(built.edges, labels if sample is None else labels[sample]) for labels in labelings]


def after_fit(X: np.ndarray) -> None:
    """Compile what follows the tree: cut a chain of the rows with one long edge in the middle, and place its noise."""
    n = len(X)
    rows = np.arange(n)
    lengths = 1.0 + rows[1:] / n
    lengths[n // 2] = 9.0
    tree = tree_from_edges(np.column_stack([rows[:-1], rows[1:], lengths]), np.ones(n), 5)
    soft_membership(fit_cut(X, tree, HdbscanConfig(min_cluster_size=20)).parameters)
