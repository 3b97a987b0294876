"""Matrix -> Clustering: run the algorithm on the backend, then number its clusters canonically."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuclust.algorithms.registry import FitInput, FitResult, SizeSearch, algorithm_of, fit
from gpuclust.config import ClusterConfig, constrained
from gpuclust.errors import FitError, GpuclustError
from gpuclust.model.records import NOISE, canonical_order, renumbered
from gpuclust.runtime.backend import Backend, Progress
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.matrix import Matrix


@dataclass(frozen=True)
class Clustering:
    """Labels and what was fitted, on the host.

    ``labels`` (n_samples,) int32: cluster 0 is the largest, then by size, ties by centre in lexicographic order;
    noise is -1. ``sizes`` (n_clusters,) int64, ``centers`` (n_clusters, n_columns) float64: the fitted centres, or
    for HDBSCAN the means of the members. ``confidence`` (n_samples,) float32 in [0, 1]: for K-Means
    1 - d(own centre) / d(next centre), for a mixture the largest responsibility, for HDBSCAN the membership
    probability. ``distance`` (n_samples,) float32: Euclidean distance to the own centre in the prepared space, None
    for HDBSCAN. ``parameters`` and ``options``: what a prediction needs.
    """

    algorithm: str
    labels: np.ndarray
    sizes: np.ndarray
    centers: np.ndarray
    confidence: np.ndarray
    distance: np.ndarray | None
    parameters: Mapping[str, np.ndarray]
    options: Mapping[str, Any]
    metrics: Mapping[str, float]
    converged: bool
    engine: str
    notes: tuple[str, ...]
    size_search: SizeSearch | None
    seconds: float

    @property
    def n_clusters(self) -> int:
        """How many clusters have rows, noise left out."""
        return int(np.count_nonzero(self.sizes))

    @property
    def noise_fraction(self) -> float:
        """Share of the rows that are in no cluster."""
        return float(np.mean(self.labels == NOISE))


def cluster(
    matrix: Matrix,
    requests: Sequence[ClusterConfig],
    *,
    seed: int,
    backend: Backend,
    cache: ResultCache,
    progress: Progress = lambda _: None,
) -> list[Clustering | GpuclustError]:
    """Cluster one matrix in several ways; a request that fails gives its error in its place.

    K-Means requests are fitted together and HDBSCAN requests share their tree, so several cost less here than one
    by one. ``progress`` is called with the share done, in [0, 1].
    """
    results: dict[int, Clustering | GpuclustError] = {}
    for batch in _batches(requests):
        first, last = batch[0], batch[-1] + 1
        share = _within(progress, first / len(requests), last / len(requests))
        data = FitInput(matrix.X, seed, backend, cache, matrix.key, matrix.distinct_to_fit, share)
        results |= zip(batch, _fit([requests[i] for i in batch], data, matrix), strict=True)
    return [results[i] for i in range(len(requests))]


def _within(progress: Progress, start: float, end: float) -> Progress:
    return lambda done: progress(start + (end - start) * done)


def _batches(requests: Sequence[ClusterConfig]) -> list[list[int]]:
    """Neighbouring requests of an algorithm that fits several together, everything else alone."""
    batches: list[list[int]] = []
    for i, request in enumerate(requests):
        together = i > 0 and request.name == requests[i - 1].name and algorithm_of(request).fits_together
        if together:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def _fit(batch: Sequence[ClusterConfig], data: FitInput, matrix: Matrix) -> list[Clustering | GpuclustError]:
    errors = [_infeasible(request, matrix.n_rows) for request in batch]
    feasible = [request for request, error in zip(batch, errors, strict=True) if error is None]
    started = time.perf_counter()
    results = iter(fit(data, feasible) if feasible else [])
    seconds = (time.perf_counter() - started) / max(len(feasible), 1)
    found: list[Clustering | GpuclustError] = []
    for request, error in zip(batch, errors, strict=True):
        result = next(results) if error is None else error
        if isinstance(result, FitResult):
            found.append(canonical(result, request, matrix, data.backend, seconds))
        else:
            found.append(result)
    return found


def _infeasible(request: ClusterConfig, n_rows: int) -> FitError | None:
    """A size that the rows do not allow, in words."""
    for key, value, constraint in constrained(request, "cluster."):
        spare = getattr(constraint, "spare_rows", None)
        if spare is not None and isinstance(value, int) and value > n_rows - spare:
            return FitError(
                f"{key}={value:,} is more than the {n_rows - spare:,} that {n_rows:,} rows after cleaning allow; "
                f"lower {key} or loosen clean.*"
            )
    return None


def canonical(fit: FitResult, request: ClusterConfig, matrix: Matrix, backend: Backend, seconds: float) -> Clustering:
    """The fit with its clusters numbered by size, the largest first, ties by centre in lexicographic order."""
    found = int(fit.labels.max(initial=NOISE)) + 1
    centers = fit.parameters.get("centers", fit.parameters.get("means"))
    n_clusters = found if centers is None else len(centers)
    if centers is None:
        centers = means(matrix.X, fit.labels, n_clusters, backend)
    order = canonical_order(fit.labels, centers)
    labels = renumbered(fit.labels, order)
    parameters = {name: value[order] if name in fit.per_cluster else value for name, value in fit.parameters.items()}
    further = algorithm_of(request).canonical
    if further is not None:
        parameters = dict(further(parameters, np.argsort(order).astype(np.int32), labels, fit.confidence))
    return Clustering(
        algorithm=request.name,
        labels=labels,
        sizes=np.bincount(labels[labels != NOISE], minlength=n_clusters),
        centers=centers[order],
        confidence=fit.confidence,
        distance=fit.distance,
        parameters=parameters,
        options=fit.options,
        metrics=fit.metrics,
        converged=fit.converged,
        engine=fit.engine,
        notes=fit.notes,
        size_search=fit.size_search,
        seconds=seconds,
    )


def means(X: Any, labels: np.ndarray, n_clusters: int, backend: Backend) -> np.ndarray:
    """Mean of each cluster's rows, noise left out: (n_clusters, n_columns) float64 on the host."""
    xp = backend.xp
    kept = backend.to_device(np.flatnonzero(labels != NOISE))
    own = backend.to_device(labels)[kept]
    counts = xp.bincount(own, minlength=n_clusters).astype(xp.float64)
    sums = [xp.bincount(own, weights=X[kept, j].astype(xp.float64), minlength=n_clusters) for j in range(X.shape[1])]
    return backend.to_host(xp.stack(sums, axis=1) / xp.maximum(counts, 1.0)[:, None])
