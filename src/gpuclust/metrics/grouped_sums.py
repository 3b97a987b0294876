"""Sums over the rows of each cluster for blocks of rows on a GPU; `grouped_sums_cuda` has the kernels.

The parts of the passes give one result for a whole run. The labels of a run are uploaded and sorted once for all passes with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuclust.runtime.blocks import RowBlocks, Run
from gpuclust.runtime.passes import PerRow, add_some, for_whole_run, on_host, xp_of

SORTED = "rows sorted by cluster"  # key of a run's cache
ORIGIN_ROWS = 16  # whose mean is the origin of products, so that columns far from 0 lose no digits
MAX_COLUMNS = 64  # for more columns the kernel of the products is not used


@dataclass(frozen=True)
class ClusterProducts:
    """Of each cluster, in float64: ``counts`` (n_clusters,), ``sums`` (n_clusters, n_columns) and ``products``
    (n_clusters, n_columns, n_columns) of its rows less ``origin`` (n_columns,)."""

    origin: np.ndarray
    counts: np.ndarray
    sums: np.ndarray
    products: np.ndarray


def cluster_products(X: RowBlocks, labels: PerRow, n_clusters: int) -> ClusterProducts:
    """The products of the rows of each cluster of X, blocks on a device of at most `MAX_COLUMNS` columns; noise is left out. One read."""
    some = np.unique(np.linspace(0, len(X) - 1, ORIGIN_ROWS).astype(np.int64))
    origin = on_host(X.take(some)).astype(np.float64).mean(axis=0)
    found = X.reduce(_products, labels, n_clusters, origin, add=add_some)[1:]
    return ClusterProducts(origin, found[:, -1, -1], found[:, -1, :-1], found[:, :-1, :-1])


def _products(run: Run, labels: PerRow, n_clusters: int, origin: np.ndarray) -> list[np.ndarray | None]:
    from gpuclust.metrics import grouped_sums_cuda as kernels

    return for_whole_run(run, kernels.products(run.X, sorted_rows(run, labels, n_clusters), origin))


def column_sums_of_run(run: Run, labels: PerRow, n_clusters: int, centers: np.ndarray) -> list[np.ndarray | None]:
    """The sums of the rows of each cluster less its centre, and of the squares, of a run on a device: (n_clusters + 1, 2, n_columns)
    float64, the noise first, as are the centres (n_clusters + 1, n_columns) float64."""
    from gpuclust.metrics import grouped_sums_cuda as kernels

    return for_whole_run(run, kernels.column_sums(run.X, sorted_rows(run, labels, n_clusters), centers))


def spreads_of_run(run: Run, labels: PerRow, n_clusters: int, centers: np.ndarray) -> list[np.ndarray | None]:
    """The sums of the distances of the rows of each cluster from its centre, and of the squares, of a run on a device:
    (n_clusters + 1, 2) float64, the noise first, as are the centres (n_clusters + 1, n_columns) float64."""
    from gpuclust.metrics import grouped_sums_cuda as kernels

    return for_whole_run(run, kernels.spreads(run.X, sorted_rows(run, labels, n_clusters), centers))


def sorted_rows(run: Run, labels: PerRow, n_clusters: int) -> Any:
    """The rows of a run on a device sorted by cluster (`grouped_sums_cuda.SortedRows`), kept until the labels change."""
    from gpuclust.metrics import grouped_sums_cuda as kernels

    values, rows = run.cache.get(SORTED, (None, None))
    if values is not labels.values:
        rows = kernels.sort_rows(labels.of(run), n_clusters, xp_of(run.X))
        run.cache[SORTED] = (labels.values, rows)
    return rows
