"""The gap statistic: how much lower the inertia is than that of data without clusters, for each number of clusters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.registry import FitInput, algorithm_of
from gpuclust.config import ClusterConfig
from gpuclust.data.table import sample_rows
from gpuclust.runtime.backend import Backend, Progress
from gpuclust.runtime.blocks import RowBlocks
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.passes import take_rows

# Larger tables are sampled: the error of the statistic comes from the reference sets, not from the number of rows.
MAX_ROWS = 50_000
N_INIT = 3


@dataclass(frozen=True)
class Gap:
    """The gap statistic over sizes.

    One value for each of ``sizes``, where W is the inertia of K-Means: ``log_w``, log W of the data; ``reference_log_w``, the mean
    of log W over the ``n_references`` reference sets; ``gap``, their difference; ``error``, the standard deviation over the
    reference sets times sqrt(1 + 1 / n_references). ``chosen`` is the smallest size whose gap is at least the next size's
    gap minus its error, None where there is none; ``maximum`` is the size with the largest gap. A size of 1 means that there are
    no clusters.
    """

    sizes: tuple[int, ...]
    gap: tuple[float, ...]
    error: tuple[float, ...]
    log_w: tuple[float, ...]
    reference_log_w: tuple[float, ...]
    chosen: int | None
    maximum: int
    n_references: int
    n_rows: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        return asdict(self)


def gap_statistic(
    X: Any,
    sizes: Sequence[int],
    *,
    n_references: int,
    seed: int,
    backend: Backend,
    most_rows: int = MAX_ROWS,
    progress: Progress = lambda _: None,
) -> Gap:
    """Tibshirani, Walther and Hastie (2001), with reference sets uniform in the box of the principal components.

    X (n_samples, n_columns) is on the backend's device, or in blocks; if there are more than ``most_rows`` rows, a sample is drawn with
    ``seed``. All sizes from 1 to the largest of ``sizes`` are computed, because the rule compares neighbouring sizes. ``progress``
    receives the fraction done, in [0, 1]. The cost is ``n_references`` + 1 times that of K-Means for all sizes on the sampled rows.
    """
    rows = sample_rows(len(X), most_rows, seed)
    taken = X if len(rows) == len(X) and not isinstance(X, RowBlocks) else take_rows(X, rows, backend)
    host = np.asarray(backend.to_host(taken), dtype=np.float64)
    every = list(range(1, min(max(sizes), len(host) - 1) + 1))
    rng = np.random.default_rng(seed)
    observed = _log_w(taken, every, seed, backend)
    progress(1 / (n_references + 1))
    references = np.empty((n_references, len(every)))
    for b in range(n_references):
        reference = backend.to_device(reference_set(host, rng).astype(taken.dtype))
        references[b] = _log_w(reference, every, seed, backend)
        progress((b + 2) / (n_references + 1))
    gap = references.mean(axis=0) - observed
    error = references.std(axis=0) * np.sqrt(1 + 1 / n_references)
    return Gap(
        sizes=tuple(every),
        gap=tuple(gap.tolist()),
        error=tuple(error.tolist()),
        log_w=tuple(observed.tolist()),
        reference_log_w=tuple(references.mean(axis=0).tolist()),
        chosen=first_within_error(every, gap, error),
        maximum=every[int(np.argmax(gap))],
        n_references=n_references,
        n_rows=len(host),
    )


def expected_seconds(fits: Iterable[tuple[ClusterConfig, float]], *, n_rows: int, n_references: int) -> float:
    """Seconds that the statistic takes for a matrix of ``n_rows``, from those that fits of it took; 0 where none was by K-Means."""
    by_size = {c.n_clusters: took * N_INIT / c.n_init for c, took in fits if isinstance(c, KMeansConfig)}
    return sum(by_size.values()) * (n_references + 1) * min(n_rows, MAX_ROWS) / n_rows


def first_within_error(sizes: Sequence[int], gap: np.ndarray, error: np.ndarray) -> int | None:
    """The smallest size with gap(k) >= gap(k + 1) - error(k + 1), or None."""
    for i in range(len(sizes) - 1):
        if gap[i] >= gap[i + 1] - error[i + 1]:
            return sizes[i]
    return None


def reference_set(X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many rows as X (n_samples, n_columns), uniform in the bounding box of X along its principal axes; float64."""
    mean = X.mean(axis=0)
    centred = X - mean
    _, axes = np.linalg.eigh(centred.T @ centred)
    turned = centred @ axes
    return rng.uniform(turned.min(axis=0), turned.max(axis=0), X.shape) @ axes.T + mean


def _log_w(X: Any, sizes: Sequence[int], seed: int, backend: Backend) -> np.ndarray:
    """The logarithm of the inertia for each size; the inertia of one cluster is the sum of squares about the mean."""
    xp = backend.xp
    centred = X.astype(xp.float64) - X.astype(xp.float64).mean(axis=0)
    inertia = [float((centred**2).sum())]
    requests = [KMeansConfig(n_clusters=k, n_init=N_INIT) for k in sizes if k > 1]
    if requests:
        fit = algorithm_of(requests[0]).fitter(backend.name)
        inertia += [r.metrics["inertia"] for r in fit(FitInput(X, seed, backend, ResultCache(0), "gap"), requests)]
    return np.log(np.maximum(inertia, np.finfo(np.float64).tiny))
