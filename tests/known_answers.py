"""Data whose number of clusters is known, and the curves of a sweep over it: for the tests of the verdict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpuclust.algorithms.hdbscan import HdbscanConfig
from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.mixture import GmmConfig
from gpuclust.metrics.icl_gain import split_gain
from gpuclust.metrics.silhouette import silhouettes
from gpuclust.runtime.cpu import CpuBackend
from tests.fitting import fit_all, fit_cut, fit_one, spanning_tree

BACKEND = CpuBackend()
Curves = dict[str, dict[str, list[tuple[float, float, float]]]]


def groups(k: int, *, n_columns: int, n_rows: int, seed: int, apart: float = 9.0) -> np.ndarray:
    """k round groups of unit variance, centres at least ``apart`` from one another, sizes within a factor of two."""
    rng = np.random.default_rng(seed)
    centers: list[np.ndarray] = []
    side = apart * k ** (1 / min(n_columns, 3))
    while len(centers) < k:
        candidate = rng.uniform(0, side, n_columns)
        if all(np.linalg.norm(candidate - c) >= apart for c in centers):
            centers.append(candidate)
        side *= 1.002
    shares = rng.uniform(1, 2, k)
    labels = rng.choice(k, n_rows, p=shares / shares.sum())
    return standardised(np.array(centers)[labels] + rng.normal(size=(n_rows, n_columns)))


def standardised(X: np.ndarray) -> np.ndarray:
    return ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32)


def moons(seed: int) -> np.ndarray:
    """Two moons of 600 rows each and 120 rows of uniform noise."""
    from sklearn.datasets import make_moons

    rng = np.random.default_rng(seed)
    X, _ = make_moons(1200, noise=0.06, random_state=seed)
    return standardised(np.concatenate([X, rng.uniform(X.min(axis=0) - 0.3, X.max(axis=0) + 0.3, (120, 2))]))


def kmeans_curves(X: np.ndarray, sizes: Sequence[int]) -> Curves:
    """The curves of ``gpuclust -m cluster=kmeans cluster.n_clusters=...`` that the verdict reads."""
    from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score

    wanted = [k for k in sizes if k > 1]
    fits = fit_all(X, [KMeansConfig(n_clusters=k) for k in wanted], seed=0)
    labels = [f.labels for f in fits]
    found = {"inertia": {"kmeans": [(k, f.metrics["inertia"], 0.0) for k, f in zip(wanted, fits, strict=True)]}}
    found["calinski_harabasz"] = {
        "kmeans": [(k, calinski_harabasz_score(X, l), 0.0) for k, l in zip(wanted, labels, strict=True)]
    }
    found["davies_bouldin"] = {
        "kmeans": [(k, davies_bouldin_score(X, l), 0.0) for k, l in zip(wanted, labels, strict=True)]
    }
    return found | shape_curves(X, "kmeans", wanted, labels)


def gmm_curves(X: np.ndarray, sizes: Sequence[int], kind: str = "full") -> Curves:
    """The curves of ``gpuclust -m cluster=gmm cluster.n_clusters=...`` that the verdict reads."""
    fits = [fit_one(X, GmmConfig(n_clusters=k, covariance_type=kind, n_init=2), seed=0) for k in sizes]
    found = {m: {kind: [(k, f.metrics[m], 0.0) for k, f in zip(sizes, fits, strict=True)]} for m in ("bic", "icl")}
    several = [(k, f.labels) for k, f in zip(sizes, fits, strict=True) if len(np.unique(f.labels)) > 1]
    return found | shape_curves(X, kind, [k for k, _ in several], [labels for _, labels in several])


def hdbscan_curves(X: np.ndarray, sizes: Sequence[int]) -> Curves:
    """The curves of ``gpuclust -m cluster=hdbscan cluster.min_cluster_size=...`` that the verdict reads."""
    tree = spanning_tree(X, min_samples=10)
    fits = [fit_cut(X, tree, HdbscanConfig(min_cluster_size=s)) for s in sizes]
    rows = {
        "relative_validity": [f.metrics["relative_validity"] for f in fits],
        "n_clusters": [float(f.labels.max() + 1) for f in fits],
        "noise_fraction": [float((f.labels == -1).mean()) for f in fits],
    }
    return {m: {"hdbscan": [(s, v, 0.0) for s, v in zip(sizes, values, strict=True)]} for m, values in rows.items()}


def shape_curves(X: np.ndarray, line: str, sizes: Sequence[int], labels: Sequence[np.ndarray]) -> Curves:
    scores = silhouettes(X, labels, backend=BACKEND) if labels else []
    return {
        "silhouette": {line: [(k, s.score, 0.0) for k, s in zip(sizes, scores, strict=True)]},
        "split_gain": {line: [(k, split_gain(X, l), 0.0) for k, l in zip(sizes, labels, strict=True)]},
    }


def merged(*curves: Curves) -> Curves:
    """The curves of a sweep over several algorithms."""
    found: Curves = {}
    for one in curves:
        for metric, lines in one.items():
            found.setdefault(metric, {}).update(lines)
    return found
