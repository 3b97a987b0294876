"""Internal validity indices of a clustering; noise is left out of them and reported as a metric of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gpuclust.algorithms.cluster import Clustering
from gpuclust.config import ScoreConfig
from gpuclust.data.table import sample_rows
from gpuclust.metrics.grouped_sums import (
    ClusterProducts,
    cluster_products,
    column_sums_of_run,
    spreads_of_run,
)
from gpuclust.metrics.icl_gain import adds_products, gain_of_products, split_gain
from gpuclust.metrics.silhouette import silhouettes
from gpuclust.model.records import NOISE
from gpuclust.runtime.backend import Array, Backend, Progress
from gpuclust.runtime.blocks import MemoryBlocks, RowBlocks, Run, together
from gpuclust.runtime.matrix import Matrix
from gpuclust.runtime.passes import PerRow, add_some, each_block

GPU_PAIRS = 100  # on a GPU the limit of pairs of rows for an exact silhouette is this many times that of a CPU: 1.4 million rows by default

# Whether a higher value is better, for every metric by which a sweep can choose its best job.
HIGHER_IS_BETTER: dict[str, bool] = {
    "silhouette": True,
    "silhouette_with_noise": True,
    "calinski_harabasz": True,
    "davies_bouldin": False,
    "inertia": False,
    "bic": False,
    "aic": False,
    "icl": False,
    "log_likelihood": True,
    "relative_validity": True,
    "split_gain": True,
    "dbcv": True,
    "prediction_strength": True,
    "stability_jaccard_min": True,
    "reference_ami": True,
}


@dataclass(frozen=True)
class Scores:
    """The metrics of a clustering, by the names of the public contract; a metric that is not defined has no entry."""

    metrics: Mapping[str, float]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


def score(
    matrix: Matrix,
    clusterings: Sequence[Clustering],
    config: ScoreConfig,
    *,
    seed: int,
    backend: Backend,
    progress: Progress = lambda _: None,
) -> list[Scores]:
    """Score several clusterings of one matrix; their silhouettes share one pass over the distances.

    The silhouette (Rousseeuw 1987) is exact up to ``exact_limit`` pairs of rows, of a matrix on a GPU up to `GPU_PAIRS` times as many. Above, it is
    the mean over ``sample_size`` rows, which are drawn with ``seed`` and are the same for every clustering; their distances to all rows are computed.
    """
    started = time.perf_counter()
    silhouettes: dict[int, dict[str, float]] = {}
    on_distinct: tuple[str, ...] = ()
    if config.silhouette:
        silhouettes, on_distinct = _silhouettes(matrix, clusterings, config, seed, backend, progress)
    shared = (time.perf_counter() - started) / max(len(clusterings), 1)
    results = []
    for i, (clustering, (validity, seconds)) in enumerate(
        zip(clusterings, _validities(matrix.X, clusterings), strict=True)
    ):
        metrics = {**_shape(matrix, clustering), **clustering.metrics, **validity, **silhouettes.get(i, {})}
        none = ("fewer than two clusters: no silhouette, no dispersion index",)
        notes = on_distinct if scorable(clustering) else none
        results.append(Scores(metrics, notes, shared + seconds))
    return results


def scorable(clustering: Clustering) -> bool:
    """Whether indices that compare clusters are defined: 2 <= n_clusters < number of rows that are not noise."""
    return 2 <= clustering.n_clusters < int(clustering.sizes.sum())


def silhouette_rows(n_rows: int, config: ScoreConfig, seed: int, backend: str = "cpu") -> np.ndarray | None:
    """The rows whose silhouette is computed on the named backend, (sample_size,) int64, or None for all of them."""
    limit = config.exact_limit * (GPU_PAIRS if backend == "gpu" else 1)
    if float(n_rows) ** 2 <= limit or n_rows <= config.sample_size:
        return None
    return sample_rows(n_rows, config.sample_size, seed)


def _silhouettes(
    matrix: Matrix,
    clusterings: Sequence[Clustering],
    config: ScoreConfig,
    seed: int,
    backend: Backend,
    progress: Progress,
) -> tuple[dict[int, dict[str, float]], tuple[str, ...]]:
    """The metrics of each clustering, by its position, and notes on how they were computed."""
    labelings: list[np.ndarray] = []
    owners: list[tuple[int, str]] = []
    for i, clustering in enumerate(clusterings):
        if scorable(clustering):
            labelings.append(clustering.labels)
            owners.append((i, "silhouette"))
            if clustering.noise_fraction > 0:
                noise_as_cluster = np.where(clustering.labels == NOISE, len(clustering.sizes), clustering.labels)
                labelings.append(noise_as_cluster.astype(np.int32))
                owners.append((i, "silhouette_with_noise"))
    if not labelings:
        return {}, ()
    rows = silhouette_rows(matrix.n_rows, config, seed, "cpu" if matrix.in_blocks else backend.name)
    if rows is None:  # few enough rows for every pair of them
        matrix = matrix.resident(backend)
    results: dict[int, dict[str, float]] = {i: {} for i, _ in owners}
    distinct = matrix.distinct if rows is None else None
    if distinct is not None and not all(map(distinct.repeats, labelings)):
        distinct = None  # equal rows in two clusters
    found = silhouettes(matrix.X, labelings, backend=backend, rows=rows, distinct=distinct, progress=progress)
    for (i, name), result in zip(owners, found, strict=True):
        results[i][name] = result.score
        if name == "silhouette":
            results[i]["silhouette_se"] = result.standard_error
            results[i].setdefault("silhouette_with_noise", result.score)
    return results, () if distinct is None else (distinct.note("silhouette"),)


def _shape(matrix: Matrix, clustering: Clustering) -> dict[str, float]:
    occupied = clustering.sizes[clustering.sizes > 0] / max(matrix.n_rows, 1)
    return {
        "n_clusters": clustering.n_clusters,
        "n_rows": matrix.n_rows,
        "n_features": len(matrix.preparation.features),
        "noise_fraction": clustering.noise_fraction,
        "largest_fraction": float(occupied.max(initial=0.0)),
        "smallest_fraction": float(occupied.min(initial=1.0)) if len(occupied) else 0.0,
        **({"explained_variance": kept} if np.isfinite(kept := matrix.preparation.explained_variance) else {}),
    }


def _validities(X: Array | RowBlocks, clusterings: Sequence[Clustering]) -> list[tuple[dict[str, float], float]]:
    """The results of passes over all rows for each clustering, and the seconds that they took; all clusterings share each read of
    blocks."""
    tasks = [partial(_validity, clustering=clustering) for clustering in clusterings]
    began = time.perf_counter()
    if isinstance(X, RowBlocks):
        found = together(X, tasks)
        for result in found:
            if isinstance(result, Exception):
                raise result
        seconds = (time.perf_counter() - began) / max(len(tasks), 1)
        return [(result, seconds) for result in found if not isinstance(result, Exception)]
    results, blocks = [], MemoryBlocks(X)
    for task in tasks:
        began = time.perf_counter()
        results.append((task(blocks), time.perf_counter() - began))
    return results


def _validity(X: RowBlocks, clustering: Clustering) -> dict[str, float]:
    """The indices that passes over all rows give; none where clusters cannot be compared."""
    if not scorable(clustering):
        return {}
    labels, products = PerRow(clustering.labels), None
    if adds_products(X, int(clustering.sizes.sum())):
        products = cluster_products(X, labels, len(clustering.sizes))
        gain = gain_of_products(products)
    else:
        gain = split_gain(X, clustering.labels)
    return {**_dispersion(X, clustering, labels, products), **({"split_gain": gain} if np.isfinite(gain) else {})}


def _dispersion(
    X: RowBlocks, clustering: Clustering, labels: PerRow, products: ClusterProducts | None
) -> dict[str, float]:
    """Calinski and Harabasz (1974) and Davies and Bouldin (1979), as scikit-learn defines them, in float64."""
    counts, means, spread, within = _moments(X, clustering, labels, products)
    overall = counts @ means / counts.sum()
    between = float(counts @ ((means - overall) ** 2).sum(axis=1))
    n, k = int(counts.sum()), len(counts)
    separation = np.sqrt(((means[:, None] - means[None]) ** 2).sum(axis=2))
    np.fill_diagonal(separation, np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        similarity = (spread[:, None] + spread[None]) / separation
    similarity = np.where(separation > 0, similarity, 0.0)
    return {
        "calinski_harabasz": between * (n - k) / (within * (k - 1)) if within > 0 else 1.0,
        "davies_bouldin": float(similarity.max(axis=1).mean()),
    }


def _moments(
    X: RowBlocks, clustering: Clustering, labels: PerRow, products: ClusterProducts | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """For the clusters that have rows: counts (k,), means (k, d), mean distances to the mean (k,), and the total sum of squares
    within clusters; all float64. Two reads, or one where the products are known."""
    k = len(clustering.sizes)
    counts = clustering.sizes.astype(np.float64)
    # The mean of the noise, in the last row, is not used.
    if products is None:
        sums = X.reduce(_cluster_sums, labels, k, add=add_some)
        means = sums / np.maximum(np.append(counts, len(X) - counts.sum()), 1.0)[:, None]
    else:
        means = np.zeros((k + 1, X.shape[1]))
        means[:k] = products.origin + products.sums / np.maximum(counts, 1.0)[:, None]
    distance, squared = X.reduce(_cluster_spreads, labels, means, add=add_some)[:, :k]
    used = counts > 0
    return counts[used], means[:k][used], distance[used] / counts[used], float(squared[used].sum())


def _own(labels: np.ndarray, k: int) -> np.ndarray:
    """Labels (n,) int64, noise as k."""
    return np.where(labels == NOISE, k, labels).astype(np.int64)


def _cluster_sums(run: Run, labels: PerRow, k: int) -> Sequence[np.ndarray | None]:
    """Of each block, the sums of the rows of each cluster and of the noise: (k + 1, d) float64; on a device of all blocks together."""
    if not isinstance(run.X, np.ndarray):
        first, *none = column_sums_of_run(run, labels, k, np.zeros((k + 1, run.X.shape[1])))
        return [_noise_last(first)[:, 0], *none]
    own = labels.of(run)

    def of(start: int, stop: int) -> np.ndarray:
        X, cluster = run.X[start:stop].astype(np.float64), _own(own[start:stop], k)
        columns = [np.bincount(cluster, weights=X[:, j], minlength=k + 1) for j in range(X.shape[1])]
        return np.stack(columns, axis=1)

    return each_block(run, of)


def _cluster_spreads(run: Run, labels: PerRow, means: np.ndarray) -> Sequence[np.ndarray | None]:
    """Of each block, the sums for each cluster of the distances from its mean, and of their squares: (2, k + 1) float64; on a device of
    all blocks together."""
    own, k = labels.of(run), len(means) - 1
    if not isinstance(run.X, np.ndarray):
        first, *none = spreads_of_run(run, labels, k, np.roll(means, 1, axis=0))
        return [_noise_last(first).T, *none]

    def of(start: int, stop: int) -> np.ndarray:
        cluster = _own(own[start:stop], k)
        squares = ((run.X[start:stop].astype(np.float64) - means[cluster]) ** 2).sum(axis=1)
        sums = [np.bincount(cluster, weights=w, minlength=k + 1) for w in (np.sqrt(squares), squares)]
        return np.stack(sums)

    return each_block(run, of)


def _noise_last(sums: np.ndarray | None) -> np.ndarray:
    """The sums (k + 1, ...) of groups of which the noise is the first, with the noise last."""
    assert sums is not None, "the first block has the sums of the run"
    return np.roll(sums, -1, axis=0)
