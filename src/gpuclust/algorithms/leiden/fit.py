"""Leiden by igraph, on a graph that all configurations with the same neighbours and weights share."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from gpuclust.algorithms.leiden import LeidenConfig
from gpuclust.algorithms.registry import FitInput, FitResult, step
from gpuclust.errors import ConfigurationError
from gpuclust.runtime.cache import key
from gpuclust.runtime.jit import compiled
from gpuclust.runtime.threads import in_threads

_GENERATOR = Lock()
"""igraph has one generator of random numbers for the process."""


@dataclass(frozen=True)
class Graph:
    """An undirected graph of n rows: ``edges`` (m, 2) int32, each once, the smaller row first, and their ``weights`` (m,) float64."""

    edges: np.ndarray
    weights: np.ndarray
    n_rows: int


def fit(data: FitInput, configs: Sequence[LeidenConfig]) -> list[FitResult]:
    """Find the communities of the rows of ``data.X`` (n_samples, n_columns) for each configuration.

    Raises ConfigurationError where igraph is not installed.
    """
    X, results, networks = data.backend.to_host(data.X), [], {}
    for i, config in enumerate(configs):
        graph = graph_of(data, config)
        name = (config.n_neighbors, config.weights)
        if name not in networks:
            networks = {name: network_of(graph)}
        labels, modularity = communities(networks[name], graph.weights, config, data.seed)
        results.append(
            FitResult(
                labels=labels,
                confidence=membership(graph, labels),
                distance=None,
                parameters={
                    "points": np.ascontiguousarray(X, dtype=np.float32),
                    "n_neighbors": np.asarray(config.n_neighbors, dtype=np.int64),
                },
                metrics={"modularity": modularity},
                engine="igraph",
            )
        )
        data.progress((i + 1) / len(configs))
    return results


def graph_of(data: FitInput, config: LeidenConfig) -> Graph:
    """The graph of nearest neighbours, kept in the cache."""
    name = key("graph", data.key, config.n_neighbors, config.weights)
    return data.cache.get_or_create(
        name, lambda: joined(step("nearest_neighbors")(data, config.n_neighbors), jaccard=config.weights == "jaccard")
    )


def joined(neighbors: np.ndarray, *, jaccard: bool) -> Graph:
    """The graph that joins each row to its ``neighbors`` (n, k) int32, without the row itself.

    An edge between a and b is in it if b is a neighbour of a or a one of b. With ``jaccard`` it weighs the share of rows in both
    neighbourhoods among those in either, the rows themselves included (Levine et al. 2015, PhenoGraph).
    """
    n, k = neighbors.shape
    neighbors = np.sort(neighbors, axis=1)
    weights = np.ones((n, k))
    if jaccard:
        in_threads(n, lambda first, last: _jaccard(neighbors, weights, first, last))
    low = np.minimum(np.arange(n)[:, None], neighbors).ravel().astype(np.int64)
    high = np.maximum(np.arange(n)[:, None], neighbors).ravel().astype(np.int64)
    _, first = np.unique(low * n + high, return_index=True)
    edges = np.column_stack([low[first], high[first]]).astype(np.int32)
    return Graph(edges, weights.ravel()[first], n)


@compiled()
def _jaccard(neighbors, weights, start, stop):  # type: ignore[no-untyped-def]
    """Fill weights (n, k) from row start to row stop; neighbors (n, k) int32, each row sorted, without the row itself."""
    k = neighbors.shape[1]
    for a in range(start, stop):
        for j in range(k):
            b = neighbors[a, j]
            shared, p, q, mutual = 0, 0, 0, 0
            for r in range(k):
                mutual += neighbors[b, r] == a
            while p < k and q < k:
                left, right = neighbors[a, p], neighbors[b, q]
                shared += left == right
                p += left <= right
                q += right <= left
            both = shared + 1 + mutual  # b is in both; a is, where the edge is mutual
            weights[a, j] = both / (2 * (k + 1) - both)


def network_of(graph: Graph) -> Any:
    """The graph as igraph's. Raises ConfigurationError where igraph is not installed."""
    try:
        import igraph
    except ImportError as error:
        raise ConfigurationError(
            f"cluster=leiden needs igraph (no module {error.name}): pip install 'gpuclust[leiden]'"
        ) from error
    return igraph.Graph(n=graph.n_rows, edges=graph.edges)


def communities(network: Any, weights: np.ndarray, config: LeidenConfig, seed: int) -> tuple[np.ndarray, float]:
    """The community of each row, (n,) int32, and the modularity of the partition at resolution 1; ``weights`` (m,) are those of the edges."""
    from igraph import set_random_number_generator

    with _GENERATOR:
        set_random_number_generator(random.Random(seed))
        try:
            found = network.community_leiden(
                objective_function="modularity",
                weights=weights,
                resolution=config.resolution,
                n_iterations=-1 if config.n_iterations is None else config.n_iterations,
            )
        finally:
            set_random_number_generator(random)
    labels = np.asarray(found.membership, dtype=np.int32)
    return labels, float(network.modularity(labels, weights=weights))


def membership(graph: Graph, labels: np.ndarray) -> np.ndarray:
    """For each row the share of the weight of its edges that leads to its own cluster, (n,) float32 in [0, 1]."""
    a, b = graph.edges.T
    inside = graph.weights * (labels[a] == labels[b])
    total, own = (
        np.bincount(a, values, graph.n_rows) + np.bincount(b, values, graph.n_rows)
        for values in (graph.weights, inside)
    )
    return np.clip(own / total, 0.0, 1.0).astype(np.float32)
