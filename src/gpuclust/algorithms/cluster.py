"""Matrix -> Clustering: run the algorithm on the backend, then number its clusters canonically."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpuclust.algorithms.registry import FitInput, FitResult, SizeSearch, Start, algorithm_of, fit
from gpuclust.config import ClusterConfig, constrained
from gpuclust.errors import ConfigurationError, FitError, GpuclustError
from gpuclust.model.records import NOISE, canonical_order, renumbered, sizes_of
from gpuclust.runtime.backend import Array, Backend, Progress
from gpuclust.runtime.blocks import RowBlocks, Run, together
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.matrix import Matrix
from gpuclust.runtime.passes import PerRow, as_blocks


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


@dataclass(frozen=True)
class StartLabels:
    """The clusters that a model gives the rows: ``labels`` (n_samples,) int32, -1 for rows of none; the model has ``n_clusters``."""

    labels: np.ndarray
    n_clusters: int


def cluster(
    matrix: Matrix,
    requests: Sequence[ClusterConfig],
    *,
    seed: int,
    backend: Backend,
    cache: ResultCache,
    progress: Progress = lambda _: None,
    memory: int | None = None,
    starts: Mapping[str, StartLabels] | None = None,
) -> list[Clustering | GpuclustError]:
    """Cluster one matrix in several ways; a request that fails gives its error in its place.

    K-Means requests are fitted together and HDBSCAN requests share their tree, so several cost less here than one
    by one; on a matrix in blocks all requests share each read of it. ``progress`` is called with the share done, in [0, 1]. ``memory``: see `FitInput`.
    ``starts``: run id -> the clusters that the model of that run gives the rows, for requests with that ``init_from``.
    """
    in_blocks = isinstance(matrix.X, RowBlocks)
    if matrix.weight is not None and (in_blocks or backend.name != "cpu"):
        raise ConfigurationError("data.weight is computed in memory on a CPU; use backend=cpu and memory.mode=resident")
    data = FitInput(
        matrix.X,
        seed,
        backend,
        cache,
        matrix.key,
        matrix.distinct_to_fit,
        memory=memory,
        weight=matrix.weight,
        starts={
            run: Start(found.labels, means(matrix.X, found.labels, found.n_clusters, backend))
            for run, found in (starts or {}).items()
        },
    )
    batches = _batches(requests, in_blocks)
    results: dict[int, Clustering | GpuclustError] = {}
    for group in [batches] if in_blocks and batches else [[batch] for batch in batches]:
        members = [i for batch in group for i in batch]
        share = _within(progress, min(members) / len(requests), (max(members) + 1) / len(requests))
        started = time.perf_counter()
        fits = _fit([[requests[i] for i in batch] for batch in group], replace(data, progress=share))
        seconds = (time.perf_counter() - started) / max(sum(isinstance(found, FitResult) for found in fits), 1)
        for i, found in zip(members, fits, strict=True):
            if isinstance(found, FitResult):
                results[i] = canonical(found, requests[i], matrix, backend, seconds, data.start_of(requests[i]))
            else:
                results[i] = found
    return [results[i] for i in range(len(requests))]


def _within(progress: Progress, start: float, end: float) -> Progress:
    return lambda done: progress(start + (end - start) * done)


def _batches(requests: Sequence[ClusterConfig], in_blocks: bool) -> list[list[int]]:
    """Neighbouring requests of an algorithm that fits several together, everything else alone.

    In blocks, all requests of an algorithm whose fits share passes or a step are one batch: as separate tasks, each would repeat the
    step and take memory of its own.
    """
    batches: list[list[int]] = []
    latest: dict[str, list[int]] = {}
    for i, request in enumerate(requests):
        algorithm = algorithm_of(request)
        shares = algorithm.fits_together or (in_blocks and bool(algorithm.shared_step))
        near = in_blocks or (i > 0 and request.name == requests[i - 1].name)
        if shares and near and request.name in latest:
            latest[request.name].append(i)
        else:
            batches.append([i])
            latest[request.name] = batches[-1]
    return batches


def _fit(batches: Sequence[Sequence[ClusterConfig]], data: FitInput) -> list[FitResult | GpuclustError]:
    """Fit one batch, or batches that share each read of the blocks; return the result of each request."""
    if len(batches) == 1 or not isinstance(data.X, RowBlocks):
        return [found for batch in batches for found in _fit_batch(batch, data)]
    progress = _mean_progress(data.progress, len(batches))

    def task(i: int) -> Callable[[RowBlocks], list[FitResult | GpuclustError]]:
        return lambda blocks: _fit_batch(batches[i], replace(data, X=blocks, progress=progress[i]))

    results = []
    for found in together(data.X, [task(i) for i in range(len(batches))]):
        if isinstance(found, Exception):
            raise found
        results.extend(found)
    return results


def _mean_progress(progress: Progress, n_tasks: int) -> list[Progress]:
    """Progress functions for tasks in threads; their mean is reported."""
    done, lock = [0.0] * n_tasks, threading.Lock()

    def report(i: int, share: float) -> None:
        with lock:
            done[i] = share
            progress(sum(done) / n_tasks)

    return [lambda share, i=i: report(i, share) for i in range(n_tasks)]  # type: ignore[misc]


def _fit_batch(batch: Sequence[ClusterConfig], data: FitInput) -> list[FitResult | GpuclustError]:
    errors = [_infeasible(request, data) for request in batch]
    feasible = [request for request, error in zip(batch, errors, strict=True) if error is None]
    results = iter(fit(data, feasible) if feasible else [])
    return [next(results) if error is None else error for error in errors]


def _infeasible(request: ClusterConfig, data: FitInput) -> FitError | None:
    """A size, or a start, that the rows do not allow, in words."""
    n_rows = data.X.shape[0]
    if (start := data.start_of(request)) is not None:
        run, n_clusters = getattr(request, "init_from", ""), getattr(request, "n_clusters", None)
        if n_clusters != len(start.centers):
            return FitError(
                f"cluster.n_clusters={n_clusters} differs from the {len(start.centers)} clusters of run {run}; give "
                f"cluster.n_clusters={len(start.centers)}, or leave cluster.init_from out"
            )
        if len(empty := np.flatnonzero(sizes_of(start.labels, len(start.centers)) == 0)):
            return FitError(
                f"cluster {empty[0]} of run {run} has none of these rows, so its number cannot be kept; leave cluster.init_from out"
            )
    for key, value, constraint in constrained(request, "cluster."):
        spare = getattr(constraint, "spare_rows", None)
        if spare is not None and isinstance(value, int) and value > n_rows - spare:
            return FitError(
                f"{key}={value:,} is more than the {n_rows - spare:,} that {n_rows:,} rows after cleaning allow; "
                f"lower {key} or loosen clean.*"
            )
    return None


def cluster_rows(X: np.ndarray, request: ClusterConfig, *, seed: int = 0) -> Clustering:
    """Cluster the rows X (n_samples, n_columns), float32 or float64, as they are, on the CPU. Raises FitError."""
    backend = CpuBackend()
    (found,) = _fit_batch([request], FitInput(X, seed, backend, ResultCache(), "rows"))
    if not isinstance(found, FitResult):
        raise found
    return _numbered(found, request, X, backend, 0.0)


def canonical(
    fit: FitResult,
    request: ClusterConfig,
    matrix: Matrix,
    backend: Backend,
    seconds: float,
    start: Start | None = None,
) -> Clustering:
    """The fit with its clusters numbered by size, the largest first, ties by centre in lexicographic order; or with the numbers of the clusters
    that it started from."""
    return _numbered(fit, request, matrix.X, backend, seconds, start)


def _numbered(
    fit: FitResult,
    request: ClusterConfig,
    X: Array | RowBlocks,
    backend: Backend,
    seconds: float,
    start: Start | None = None,
) -> Clustering:
    found = int(fit.labels.max(initial=NOISE)) + 1
    centers = fit.parameters.get("centers", fit.parameters.get("means"))
    n_clusters = found if centers is None else len(centers)
    if centers is None:
        centers = means(X, fit.labels, n_clusters, backend)
    order = canonical_order(fit.labels, centers) if start is None else np.arange(n_clusters)
    labels = renumbered(fit.labels, order)
    parameters = {name: value[order] if name in fit.per_cluster else value for name, value in fit.parameters.items()}
    metrics, notes = fit.metrics, fit.notes
    if start is not None:
        kept = float(np.mean(labels == start.labels))
        run = getattr(request, "init_from", "")
        notes = (*notes, f"{kept:.1%} of the rows are in the cluster that run {run} assigns them to")
        metrics = {**metrics, "kept_fraction": kept}
    further = algorithm_of(request).canonical
    if further is not None:
        parameters = dict(further(parameters, np.argsort(order).astype(np.int32), labels, fit.confidence))
    return Clustering(
        algorithm=request.name,
        labels=labels,
        sizes=sizes_of(labels, n_clusters),
        centers=centers[order],
        confidence=fit.confidence,
        distance=fit.distance,
        parameters=parameters,
        options=fit.options,
        metrics=metrics,
        converged=fit.converged,
        engine=fit.engine,
        notes=notes,
        size_search=fit.size_search,
        seconds=seconds,
    )


def means(X: Array | RowBlocks, labels: np.ndarray, n_clusters: int, backend: Backend) -> np.ndarray:
    """Mean of each cluster's rows, noise left out: (n_clusters, n_columns) float64 on the host."""
    if isinstance(X, (np.ndarray, RowBlocks)):
        sums = as_blocks(X).reduce(_sums, PerRow(labels), n_clusters)
        return np.asarray(sums[:, 1:] / np.maximum(sums[:, :1], 1.0))
    xp = backend.xp
    kept = backend.to_device(np.flatnonzero(labels != NOISE))
    own = backend.to_device(labels)[kept]
    counts = xp.bincount(own, minlength=n_clusters).astype(xp.float64)
    sums = [xp.bincount(own, weights=X[kept, j].astype(xp.float64), minlength=n_clusters) for j in range(X.shape[1])]
    return backend.to_host(xp.stack(sums, axis=1) / xp.maximum(counts, 1.0)[:, None])


def _sums(run: Run, labels: PerRow, n_clusters: int) -> list[np.ndarray]:
    """For each block the number of rows of each cluster and their sums: (n_clusters, 1 + n_columns) float64."""
    found = []
    for start, stop in run.edges:
        own = labels.of(run)[start:stop]
        kept = np.flatnonzero(own != NOISE)
        own, X = own[kept], run.X[start:stop]
        columns = (None, *(X[kept, j].astype(np.float64) for j in range(X.shape[1])))
        found.append(np.stack([np.bincount(own, weights, minlength=n_clusters) for weights in columns], axis=1))
    return found
