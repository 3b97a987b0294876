"""Everything that a sweep measures on one draw of a table, fitted once and kept on disk, so that rules are scored in seconds."""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpuclust.algorithms.cluster import Clustering, cluster
from gpuclust.algorithms.hdbscan import HdbscanConfig
from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.mixture import GmmConfig
from gpuclust.config import ClusterConfig, ScoreConfig
from gpuclust.metrics.gap import Gap, gap_statistic
from gpuclust.metrics.validity import score
from gpuclust.model.preparation import Preparation, Projection, Scaling
from gpuclust.pipeline.curves import CURVES
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.matrix import Matrix

from .tables import Table

CACHE = Path(os.environ.get("GPUCLUST_CALIBRATION_CACHE", Path(tempfile.gettempdir()) / "gpuclust-calibration"))
# Shares of the rows that the HDBSCAN sweep takes as min_cluster_size.
SHARES = (0.005, 0.01, 0.02, 0.04, 0.06)
GAP_REFERENCES, GAP_ROWS = 5, 500
# Fewer starts than the defaults, and scikit-learn's mixture: a draw then takes seconds, not a minute.
N_INIT, ENGINE = 3, "library"
# A full covariance of more columns than this has more parameters than the tables have rows: the mixture is swept with diag.
WIDE = 10
BACKEND = CpuBackend()
Lines = dict[str, dict[str, list[tuple[float, float, float]]]]


@dataclass(frozen=True)
class Evidence:
    """One draw's fits. ``curves``: by algorithm, metric -> line -> points. ``labels``: by algorithm and size.

    ``one``: BIC of a single Gaussian, which no sweep of the suite asks for.
    """

    curves: dict[str, Lines]
    labels: dict[str, dict[int, np.ndarray]]
    one: float
    gap: Gap


def evidence(table: Table, seed: int) -> Evidence:
    """The fits of a draw, from the cache where they are there."""
    path = path_of(table, seed)
    if path.exists():
        return pickle.loads(path.read_bytes())  # type: ignore[no-any-return]
    found = fit(table.matrix(seed), table.sizes, seed)
    CACHE.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(pickle.dumps(found))
    partial.replace(path)
    return found


def path_of(table: Table, seed: int) -> Path:
    """Where the fits of a draw are kept."""
    rows = hashlib.blake2b(table.matrix(seed).tobytes(), digest_size=12).hexdigest()
    name = hashlib.blake2b(repr((rows, table.sizes, N_INIT, ENGINE, WIDE, SHARES)).encode(), digest_size=12).hexdigest()
    return CACHE / f"{name}.pickle"


def fit(X: np.ndarray, sizes: Sequence[int], seed: int) -> Evidence:
    """Fit and score what ``gpuclust -m`` would with these sizes."""
    n, d = X.shape
    matrix = matrix_of(X, f"{seed}")
    kind = "full" if d <= WIDE else "diag"
    metric = "cosine" if np.allclose(np.linalg.norm(X, axis=1), 1.0, atol=1e-5) else "euclidean"
    smallest = sorted({max(5, round(share * n)) for share in SHARES})
    requests: dict[str, list[tuple[int, ClusterConfig]]] = {
        "kmeans": [(k, KMeansConfig(n_clusters=k, n_init=N_INIT, metric=metric)) for k in sizes],
        "gmm": [(k, GmmConfig(n_clusters=k, covariance_type=kind, engine=ENGINE)) for k in (1, *sizes)],
        "hdbscan": [(s, HdbscanConfig(min_cluster_size=s)) for s in smallest],
    }
    store = ResultCache()
    curves: dict[str, Lines] = {}
    labels: dict[str, dict[int, np.ndarray]] = {}
    for algorithm, wanted in requests.items():
        line = kind if algorithm == "gmm" else algorithm
        results = cluster(matrix, [r for _, r in wanted], seed=seed, backend=BACKEND, cache=store)
        fits = [(s, c) for (s, _), c in zip(wanted, results, strict=True) if isinstance(c, Clustering)]
        scores = score(matrix, [c for _, c in fits], ScoreConfig(), seed=seed, backend=BACKEND)
        curves[algorithm] = {}
        for (size, _), found in zip(fits, scores, strict=True):
            for metric in CURVES:
                if metric in found.metrics:
                    points = curves[algorithm].setdefault(metric, {}).setdefault(line, [])
                    points.append((size, found.metrics[metric], 0.0))
        labels[algorithm] = {s: c.labels.astype(np.int16) for s, c in fits}
    one = next(p[1] for p in curves["gmm"]["bic"][kind] if p[0] == 1)
    curves["gmm"] = {m: {line: [p for p in points if p[0] != 1] for line, points in lines.items()} for m, lines in curves["gmm"].items()}  # fmt: skip
    gap = gap_statistic(X, [max(sizes)], n_references=GAP_REFERENCES, seed=seed, backend=BACKEND, most_rows=GAP_ROWS)
    return Evidence(curves, labels, one, gap)


def matrix_of(X: np.ndarray, key: str = "calibration") -> Matrix:
    """A prepared matrix of rows that are scaled already."""
    d = X.shape[1]
    nothing = Projection(np.zeros(d), np.zeros((0, d)), np.zeros(0), np.zeros(0), np.zeros(0))
    features = tuple(f"f{j}" for j in range(d))
    preparation = Preparation(features, Scaling("none", np.zeros(d), np.ones(d)), None, nothing, str(X.dtype))
    return Matrix(X, np.zeros((len(X), 3), dtype=np.float32), preparation, key, 0.0)
