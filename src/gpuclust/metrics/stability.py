"""How stable a clustering is: bootstrap Jaccard similarity, prediction strength, and agreement over seeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpuclust.algorithms.registry import FitInput, FitResult, algorithm_of, fit
from gpuclust.config import ClusterConfig
from gpuclust.data.table import sample_rows
from gpuclust.errors import GpuclustError
from gpuclust.metrics.agreement import agreement, contingency
from gpuclust.model.prediction import assign
from gpuclust.model.records import NOISE
from gpuclust.runtime.backend import Backend, Progress
from gpuclust.runtime.blocks import RowBlocks
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.passes import take_rows

# Hennig (2007): a cluster of a lower mean Jaccard similarity is dissolved, of a higher one stable.
DISSOLVED, STABLE = 0.5, 0.75
SPLITS = 5
SEEDS = 5
# Larger tables are sampled, because an analysis refits a clustering about twenty times.
MAX_ROWS = 200_000
# A bootstrap sample repeats rows, which HDBSCAN takes for dense regions: it gets this share of the rows instead, each once.
SUBSET = 0.8


@dataclass(frozen=True)
class Stability:
    """How stable a clustering is.

    ``jaccard``, ``jaccard_std`` (n_clusters,): mean and standard deviation over the resamples of each cluster's similarity
    to its partner there. ``dissolved``, ``recovered`` (n_clusters,): shares of the resamples with less than 0.5 and more
    than 0.75. ``prediction_strength``: mean over splits of the least over clusters, ``prediction_strength_se`` its
    standard error. ``ari_seeds``: agreement of refits from other seeds with the clustering (empty for HDBSCAN, which has
    none). ``n_rows``: how many rows that was measured on. ``refits``: how many fits that took.
    """

    jaccard: tuple[float, ...]
    jaccard_std: tuple[float, ...]
    dissolved: tuple[float, ...]
    recovered: tuple[float, ...]
    prediction_strength: float
    prediction_strength_se: float
    ari_seeds: tuple[float, ...]
    n_resamples: int
    n_rows: int
    refits: int
    seconds: float

    def word(self, cluster: int) -> str:
        """``stable``, ``dissolved`` or ``in between``, by the mean Jaccard similarity."""
        value = self.jaccard[cluster]
        return "stable" if value > STABLE else "dissolved" if value < DISSOLVED else "in between"

    def metrics(self) -> dict[str, float]:
        """What is logged on the job."""
        found = {
            "stability_jaccard_min": min(self.jaccard, default=0.0),
            "stability_jaccard_mean": float(np.mean(self.jaccard)) if self.jaccard else 0.0,
            "prediction_strength": self.prediction_strength,
        }
        if self.ari_seeds:
            found |= {"stability_ari_mean": float(np.mean(self.ari_seeds)), "stability_ari_min": min(self.ari_seeds)}
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        return asdict(self) | {"words": [self.word(c) for c in range(len(self.jaccard))]}


def refits(request: ClusterConfig, n_resamples: int) -> int:
    """How many fits a stability analysis takes, in fits of its rows (a split costs two of half of them)."""
    return n_resamples + SPLITS + (SEEDS if algorithm_of(request).seeded else 0)


def stability(
    X: Any,
    labels: np.ndarray,
    request: ClusterConfig,
    *,
    n_resamples: int,
    seed: int,
    backend: Backend,
    weight: np.ndarray | None = None,
    progress: Progress = lambda _: None,
) -> Stability:
    """Refit ``request`` on other rows and from other seeds, and compare with its ``labels`` (n_samples,), noise -1.

    X (n_samples, n_columns) is on the backend's device, or in blocks. If there are more than `MAX_ROWS` rows, a sample is drawn with
    ``seed`` and refitted. A refit that fails counts as one in which every cluster dissolved.
    Bootstrap and thresholds: Hennig (2007), with clusters matched one to one by the Hungarian method on their Jaccard
    similarity; HDBSCAN on 80 % of the rows, its ``min_cluster_size`` scaled. Prediction strength: Tibshirani and Walther
    (2005), over random halves, each tested by the other. Seeds: adjusted Rand index of refits with the next seeds.
    ``weight`` (n_samples,) are the weights of the rows in each fit. ``progress`` receives the fraction done, in [0, 1]; `refits` gives the number of fits in advance.
    """
    began = time.perf_counter()
    total = refits(request, n_resamples)
    report = _counting(progress, total)
    n_clusters = int(labels.max(initial=NOISE)) + 1
    sampled = sample_rows(len(X), MAX_ROWS, seed)
    if len(sampled) < len(X):
        request, labels = scaled(request, len(sampled) / len(X)), labels[sampled]
    if len(sampled) < len(X) or isinstance(X, RowBlocks):
        X = take_rows(X, sampled, backend)
    weight = None if weight is None else weight[sampled]
    rng = np.random.default_rng(seed)
    resamples = _resamples(X, labels, n_clusters, request, n_resamples, rng, seed, backend, weight)
    resampled = np.array([report(r) for r in resamples])
    strengths = np.array([report(s) for s in _strengths(X, request, rng, seed, backend, weight)])
    others = tuple(report(a) for a in _seeds(X, labels, request, seed, backend, weight))
    resampled = resampled.reshape(-1, n_clusters)
    present = np.isfinite(resampled)
    count = np.maximum(present.sum(axis=0), 1)
    filled = np.where(present, resampled, 0.0)
    mean = filled.sum(axis=0) / count
    variance = np.where(present, (filled - mean) ** 2, 0.0).sum(axis=0) / count
    return Stability(
        jaccard=tuple(mean.tolist()),
        jaccard_std=tuple(np.sqrt(variance).tolist()),
        dissolved=tuple(((filled < DISSOLVED) & present).sum(axis=0) / count),
        recovered=tuple(((filled > STABLE) & present).sum(axis=0) / count),
        prediction_strength=float(strengths.mean()),
        prediction_strength_se=float(strengths.std() / np.sqrt(len(strengths))),
        ari_seeds=others,
        n_resamples=n_resamples,
        n_rows=len(X),
        refits=total,
        seconds=time.perf_counter() - began,
    )


def _counting(progress: Progress, total: int) -> Callable[[Any], Any]:
    done = 0

    def report(result: Any) -> Any:
        nonlocal done
        done += 1
        progress(done / total)
        return result

    return report


def _resamples(
    X: Any,
    labels: np.ndarray,
    n_clusters: int,
    request: ClusterConfig,
    count: int,
    rng: np.random.Generator,
    seed: int,
    backend: Backend,
    weight: np.ndarray | None,
) -> Iterator[np.ndarray]:
    """Of each resample, the Jaccard similarity of each cluster with its partner; nan where it has no row in the sample."""
    n = len(labels)
    subset = algorithm_of(request).for_subset(request, SUBSET) is not None
    for _ in range(count):
        rows = np.sort(rng.choice(n, int(SUBSET * n), replace=False) if subset else rng.integers(0, n, n))
        fit = _fit(X, rows, scaled(request, SUBSET), seed, backend, weight)
        distinct, first = np.unique(rows, return_index=True)
        if fit is None:
            yield np.zeros(n_clusters)
        else:
            yield matched_jaccard(labels[distinct], fit.labels[first], n_clusters)


def scaled(request: ClusterConfig, share: float) -> ClusterConfig:
    """The request for a share of the rows, as its algorithm defines it."""
    return algorithm_of(request).for_subset(request, share) or request


def matched_jaccard(labels: np.ndarray, other: np.ndarray, n_clusters: int) -> np.ndarray:
    """Jaccard similarity of each cluster of ``labels`` with its partner in ``other``, (n_clusters,) float64.

    Partners are one to one, so that the similarities have the greatest sum; a cluster without a partner has 0, one
    without a row nan. Noise is no cluster, but its rows count as not shared.
    """
    from scipy.optimize import linear_sum_assignment

    counts = contingency(labels, other)
    of_row = counts.table.sum(axis=1)
    of_column = counts.table.sum(axis=0)
    union = of_row[:, None] + of_column[None, :] - counts.table
    similarity = counts.table / np.maximum(union, 1)
    rows = [i for i, c in enumerate(counts.first) if c != NOISE]
    columns = [j for j, c in enumerate(counts.second) if c != NOISE]
    found = np.full(n_clusters, np.nan)
    found[[counts.first[i] for i in rows]] = 0.0
    for i, j in zip(*linear_sum_assignment(-similarity[np.ix_(rows, columns)]), strict=True):
        found[counts.first[rows[i]]] = similarity[rows[i], columns[j]]
    return found


def _strengths(
    X: Any,
    request: ClusterConfig,
    rng: np.random.Generator,
    seed: int,
    backend: Backend,
    weight: np.ndarray | None,
) -> Iterator[float]:
    """Prediction strength of each split: the mean over its two directions."""
    n = len(X)
    for _ in range(SPLITS):
        order = rng.permutation(n)
        halves = [np.sort(order[: n // 2]), np.sort(order[n // 2 :])]
        fits = [_fit(X, rows, scaled(request, 0.5), seed, backend, weight) for rows in halves]
        values = []
        for test, train in ((0, 1), (1, 0)):
            model, tested = fits[train], fits[test]
            if model is None or tested is None:
                values.append(0.0)
                continue
            host = backend.to_host(X[backend.to_device(halves[test])])
            values.append(strength(tested.labels, assign(request.name, model.parameters, model.options, host)))
        yield float(np.mean(values))


def strength(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The least over clusters of the share of its pairs of rows that the prediction keeps together; noise is apart.

    Clusters of one row have no pairs and are left out; without any other the strength is 0.
    """
    counts = contingency(labels, predicted)
    columns = [j for j, c in enumerate(counts.second) if c != NOISE]
    shares = []
    for c, row in zip(counts.first, counts.table, strict=True):
        size = int(row.sum())
        if c != NOISE and size > 1:
            together = row[columns].astype(np.float64)
            shares.append(float((together * (together - 1)).sum()) / (size * (size - 1)))
    return min(shares, default=0.0)


def _seeds(
    X: Any, labels: np.ndarray, request: ClusterConfig, seed: int, backend: Backend, weight: np.ndarray | None
) -> Iterator[float]:
    if not algorithm_of(request).seeded:
        return
    for other in range(1, SEEDS + 1):
        fit = _fit(X, None, request, (seed + other) % 2**32, backend, weight)
        yield 0.0 if fit is None else agreement(contingency(labels, fit.labels).table).ari


def _fit(
    X: Any,
    rows: np.ndarray | None,
    request: ClusterConfig,
    seed: int,
    backend: Backend,
    weight: np.ndarray | None,
) -> FitResult | None:
    """A refit on some of the rows, None where the algorithm cannot fit them."""
    taken = X if rows is None else X[backend.to_device(rows)]
    own = weight if weight is None or rows is None else weight[rows]
    (result,) = fit(FitInput(taken, seed, backend, ResultCache(0), "refit", weight=own), [request])
    return None if isinstance(result, GpuclustError) else result
