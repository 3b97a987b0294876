"""K-Means on the CPU: our fused Lloyd pass, or scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.kmeans.fit import KMeansRequest, assign, fit_centers, sum_of_squares, use_fused
from gpuclust.algorithms.kmeans.sizes import limited
from gpuclust.algorithms.registry import FitInput, FitResult
from gpuclust.config import AUTO, COSINE
from gpuclust.errors import ConfigurationError
from gpuclust.runtime.blocks import RowBlocks
from gpuclust.runtime.jit import schedule_precompile


def fit(data: FitInput, configs: Sequence[KMeansConfig]) -> list[FitResult]:
    """Fit several configurations in shared passes. Engine ``fused`` is `fit_centers`, ``library`` scikit-learn."""
    X = data.X
    assert not isinstance(X, RowBlocks)
    if data.weight is not None and any(config.limited for config in configs):
        raise ConfigurationError(
            "cluster.min_size and cluster.max_size count each row once, so data.weight cannot be used; leave it out"
        )
    fused = [
        i
        for i, c in enumerate(configs)
        if c.engine == "fused"
        or (c.engine == AUTO and (c.metric == COSINE or use_fused(len(X), X.shape[1], c.n_clusters)))
    ]
    results: dict[int, FitResult] = {}
    if fused:
        schedule_precompile("kmeans", X)
        requests = requests_of([configs[i] for i in fused], data)
        share = len(fused) / len(configs)
        models = fit_centers(
            X,
            requests,
            distinct=data.distinct,
            sample_weight=data.weight,
            progress=lambda done: data.progress(share * done),
        )
        for i, model in zip(fused, models, strict=True):
            result = result_of(X, model.centers, model.n_iter, model.converged, "fused", data.weight)
            results[i] = result if data.distinct is None else with_note(result, data.distinct.note("fitted"))
    for i, config in enumerate(configs):
        if i not in results:
            results[i] = _fit_sklearn(X, config, data)
            data.progress(len(results) / len(configs))
    return [limited(X, results[i], config) if config.limited else results[i] for i, config in enumerate(configs)]


def requests_of(configs: Sequence[KMeansConfig], data: FitInput) -> list[KMeansRequest]:
    """The request to our own engine."""
    return [
        KMeansRequest(
            c.n_clusters,
            data.seed,
            c.n_init,
            c.init,
            c.max_iter,
            c.tol,
            spherical=c.metric == COSINE,
            start=start_centers(c, data),
        )
        for c in configs
    ]


def start_centers(config: KMeansConfig, data: FitInput) -> np.ndarray | None:
    """The centres (n_clusters, n_columns) of the run that a fit starts from; None without one."""
    start = data.start_of(config)
    if start is None:
        return None
    return unit_centers(start.centers) if config.metric == COSINE else start.centers


EUCLIDEAN_ON_SPHERE = (
    "Euclidean K-Means on rows of length 1, and the final centres are divided by their length; "
    "cluster.engine=fused on a CPU keeps them at length 1 throughout"
)


def unit_centers(centers: np.ndarray) -> np.ndarray:
    """Centres (n_clusters, n_columns) float64 divided by their length; one of length 0 is kept."""
    centers = np.asarray(centers, np.float64)
    length = np.sqrt((centers * centers).sum(axis=1, keepdims=True))
    return np.asarray(centers / np.where(length > 0, length, 1.0))


def with_note(result: FitResult, note: str) -> FitResult:
    """The result with one more note."""
    return replace(result, notes=(*result.notes, note))


def result_of(
    X: np.ndarray, centers: np.ndarray, n_iter: int, converged: bool, engine: str, weight: np.ndarray | None = None
) -> FitResult:
    """Labels, confidence and inertia of centres (n_clusters, n_columns), in float64, as a served model computes them; the inertia
    is weighted by ``weight`` (n_samples,).
    """
    labels, nearest, second = assign(X, centers)
    return packed(labels, nearest, second, centers, n_iter, converged, engine, weight)


def packed(
    labels: np.ndarray,
    nearest: np.ndarray,
    second: np.ndarray,
    centers: np.ndarray,
    n_iter: int,
    converged: bool,
    engine: str,
    weight: np.ndarray | None = None,
) -> FitResult:
    """A result from an assignment: ``nearest`` and ``second`` (n_samples,) float64 are distances to the two nearest centres."""
    confidence, distance = centroid_confidence(nearest, second), nearest.astype(np.float32)
    found = Assigned(labels, confidence, distance, sum_of_squares(nearest, weight))
    return found.result(centers, n_iter, converged, engine)


@dataclass(frozen=True)
class Assigned:
    """The rows assigned to centres: ``labels`` int32, ``confidence`` and ``distance`` float32, each (n_samples,)."""

    labels: np.ndarray
    confidence: np.ndarray
    distance: np.ndarray
    inertia: float

    def result(self, centers: np.ndarray, n_iter: int, converged: bool, engine: str) -> FitResult:
        """The result of a fit with these centres (n_clusters, n_columns)."""
        return FitResult(
            labels=self.labels,
            confidence=self.confidence,
            distance=self.distance,
            parameters={"centers": np.asarray(centers, dtype=np.float64)},
            per_cluster=("centers",),
            metrics={"inertia": self.inertia, "n_iter": n_iter},
            converged=converged,
            engine=engine,
            notes=() if converged else ("K-Means stopped at max_iter before it converged; raise cluster.max_iter",),
        )


def centroid_confidence(nearest: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Confidence of a hard assignment: 1 - d(own centre) / d(next centre), float32 in [0, 1]; 1 with no other centre.

    The simplified silhouette of Hruschka, de Castro and Campello (2004).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(second > 0, nearest / second, 1.0)
    return (1.0 - ratio).astype(np.float32)


def _fit_sklearn(X: np.ndarray, config: KMeansConfig, data: FitInput) -> FitResult:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    start, weight = start_centers(config, data), data.weight
    with warnings.catch_warnings():
        # The result has a note where there are fewer distinct rows than clusters.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(
            config.n_clusters,
            init=config.init if start is None else start,
            n_init=config.n_init if start is None else 1,
            max_iter=config.max_iter,
            tol=config.tol,
            random_state=data.seed,
        ).fit(X, sample_weight=weight)
    converged = model.n_iter_ < config.max_iter
    if config.metric != COSINE:
        return result_of(X, model.cluster_centers_, model.n_iter_, converged, "library", weight)
    found = result_of(X, unit_centers(model.cluster_centers_), model.n_iter_, converged, "library", weight)
    return with_note(found, EUCLIDEAN_ON_SPHERE)
