"""Passes from 1 to 768 features: K-Means, mixtures and silhouettes compared with scikit-learn, and K-Means with FAISS.

    python experiments/bench/dimensions.py           # about two minutes on two cores; needs faiss-cpu

The rows are around 100 centres that overlap, float32 unless said otherwise. K-Means is a whole fit of 20 iterations from equal starting
centres, with the labels of all rows; a mixture is one iteration of EM from equal parameters; a silhouette is exact or of every sixth row.
Each result is compared before it is timed. ``--memory SIDE`` is what the script starts for the peak memory of one side, at 100,000 rows of
384 features and 100 clusters.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil
from common import heading, interleaved, write
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, silhouette_samples
from sklearn.mixture import GaussianMixture as Reference

from gpuclust.algorithms.kmeans.fit import KMeansFit, lloyd
from gpuclust.algorithms.mixture.fit import em_backend
from gpuclust.algorithms.mixture.m_step import MixtureParameters, m_step, precisions_cholesky
from gpuclust.metrics.silhouette.score import silhouette

DIMENSIONS = (1, 2, 8, 32, 64, 128, 384, 768)
ROWS, LARGE_ROWS, SILHOUETTE_ROWS = 20_000, 100_000, 5_000
CLUSTERS, ITERATIONS = 100, 20
SIDES = ("gpuclust", "scikit-learn", "FAISS")


def rows_of(n_rows: int, n_features: int, dtype: Any = np.float32) -> np.ndarray:
    random = np.random.default_rng(0)
    centers = 0.5 * random.normal(size=(CLUSTERS, n_features))
    return (centers[random.integers(0, CLUSTERS, n_rows)] + random.normal(size=(n_rows, n_features))).astype(dtype)


def start_of(X: np.ndarray) -> np.ndarray:
    return X[np.random.default_rng(1).choice(len(X), CLUSTERS, replace=False)]


def ours(X: np.ndarray, start: np.ndarray, *, spherical: bool = False) -> KMeansFit:
    return lloyd(X, [start], max_iter=ITERATIONS, tol=0, spherical=spherical)[0]


def theirs(X: np.ndarray, start: np.ndarray) -> KMeans:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(len(start), init=start, n_init=1, max_iter=ITERATIONS, tol=0).fit(X)


def by_faiss(X: np.ndarray, start: np.ndarray, *, spherical: bool = False) -> np.ndarray:
    """The labels; FAISS by default trains on a sample, here on all rows."""
    model = faiss.Kmeans(
        X.shape[1],
        len(start),
        niter=ITERATIONS,
        spherical=spherical,
        max_points_per_centroid=len(X),
        min_points_per_centroid=1,
    )
    model.train(X, init_centroids=start)
    return model.index.search(X, 1)[1][:, 0]


def kmeans(n_rows: int, n_features: int, *, faiss_too: bool) -> dict[str, Any]:
    X = rows_of(n_rows, n_features)
    start = start_of(X)
    one, other = ours(X, start), theirs(X, start)
    assert abs(one.inertia / float(other.inertia_) - 1) < 1e-4, (one.inertia, other.inertia_)
    runs: dict[str, Callable[[], object]] = {
        "gpuclust": lambda: ours(X, start),
        "scikit-learn": lambda: theirs(X, start),
    }
    if faiss_too:
        runs["FAISS"] = lambda: by_faiss(X, start)
    seconds = interleaved(runs, 2 if faiss_too else 3)
    same = float((one.labels == other.labels_).mean())
    record = {"rows": n_rows, "features": n_features, "iterations": one.n_iter, "same_labels": same, "seconds": seconds}
    return report("K-Means", record)


def spherical(n_rows: int, n_features: int) -> dict[str, Any]:
    X = rows_of(n_rows, n_features)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    start = start_of(X)
    one, labels = ours(X, start, spherical=True), by_faiss(X, start, spherical=True)
    centers = np.stack([X[labels == c].sum(axis=0) for c in range(CLUSTERS)])
    cosine = {"gpuclust": 1 - one.inertia / 2 / n_rows, "FAISS": float(np.linalg.norm(centers, axis=1).sum() / n_rows)}
    assert abs(cosine["gpuclust"] / cosine["FAISS"] - 1) < 5e-3, cosine
    seconds = interleaved(
        {"gpuclust": lambda: ours(X, start, spherical=True), "FAISS": lambda: by_faiss(X, start, spherical=True)}, 2
    )
    agreement = float(adjusted_rand_score(one.labels, labels))
    record = {
        "rows": n_rows,
        "features": n_features,
        "mean_cosine": cosine,
        "adjusted_rand": agreement,
        "seconds": seconds,
    }
    return report("spherical K-Means", record)


def mixture(n_features: int, n_components: int, kind: str, dtype: str) -> dict[str, Any]:
    X = rows_of(min(200_000, max(8_000, 4_000_000 // n_features)), n_features, dtype)
    k, random = n_components, np.random.default_rng(2)
    means = X[random.choice(len(X), k, replace=False)].astype(np.float64)
    covariances = np.full((k, n_features) if kind == "diag" else k, 2.0)
    p = MixtureParameters(np.full(k, 1 / k), means, covariances, precisions_cholesky(covariances, kind))
    em_pass = em_backend("cpu").em_pass

    def one() -> tuple[float, MixtureParameters]:
        found = em_pass(X, p.weights, p.means, p.precisions_cholesky, kind)
        return found.log_likelihood / len(X), m_step(found, p.means, kind, 1e-6, 1e-15)

    def other() -> tuple[float, Reference]:
        model = Reference(k, covariance_type=kind)
        model.weights_, model.means_, model.covariances_, model.precisions_cholesky_ = (
            part.astype(dtype) for part in (p.weights, p.means, p.covariances, p.precisions_cholesky)
        )
        log_likelihood, log_resp = model._e_step(X)
        model._m_step(X, log_resp)
        return float(log_likelihood), model

    (found, after), (expected, model) = one(), other()
    assert abs(found / expected - 1) < (1e-9 if dtype == "float64" else 1e-5), (found, expected)
    assert np.abs(after.means - model.means_).max() < (1e-9 if dtype == "float64" else 0.02)
    seconds = interleaved({"gpuclust": one, "scikit-learn": other}, 3)
    record = {
        "rows": len(X),
        "features": n_features,
        "components": k,
        "covariance_type": kind,
        "dtype": dtype,
        "seconds": seconds,
    }
    return report("EM iteration", record)


def silhouettes(n_features: int, dtype: str) -> dict[str, Any]:
    X = rows_of(SILHOUETTE_ROWS, n_features, dtype)
    labels = np.random.default_rng(3).integers(0, 10, len(X))
    few = np.arange(0, len(X), 6)
    found = silhouette(X, [labels], return_samples=True)[0].samples
    difference = float(np.abs(found - silhouette_samples(X, labels)).max())
    assert difference < (1e-9 if dtype == "float64" else 1e-5), difference
    seconds = interleaved(
        {
            "gpuclust": lambda: silhouette(X, [labels]),
            "scikit-learn": lambda: silhouette_samples(X, labels),
            "gpuclust, sampled": lambda: silhouette(X, [labels], rows=few),
        },
        3,
    )
    record = {"rows": len(X), "features": n_features, "dtype": dtype, "difference": difference, "seconds": seconds}
    record["ratio_sampled"] = seconds["scikit-learn"] * len(few) / len(X) / seconds["gpuclust, sampled"]
    return report("silhouette", record)


def report(what: str, record: dict[str, Any]) -> dict[str, Any]:
    """Add the ratios to our time, and print the record in one line."""
    seconds = record["seconds"]
    record["ratios"] = {name: value / seconds["gpuclust"] for name, value in seconds.items() if name in SIDES[1:]}
    facts = ", ".join(f"{key} {value}" for key, value in record.items() if isinstance(value, str | int))
    times = ", ".join(f"{name} {1e3 * value:.1f} ms" for name, value in seconds.items())
    ratios = ", ".join(f"{value:.2f} times {name}" for name, value in record["ratios"].items())
    sampled = f", sampled {record['ratio_sampled']:.2f} times" if "ratio_sampled" in record else ""
    print(f"{what}: {facts}: {times}: {ratios}{sampled}", flush=True)
    return record


def memory(side: str) -> None:
    """Print how far the peak of the resident memory rises above that with the rows, in MB."""
    X = rows_of(LARGE_ROWS, 384)
    start = start_of(X)
    {"gpuclust": ours, "scikit-learn": theirs, "FAISS": by_faiss}[side](
        X[:1000], start[:10]
    )  # compiles, starts threads
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, of making the rows, is forgotten
    before = psutil.Process().memory_info().rss
    {"gpuclust": ours, "scikit-learn": theirs, "FAISS": by_faiss}[side](X, start)
    print(json.dumps({"mb_above_rows": (peak() - before) / 1e6, "mb_of_rows": X.nbytes / 1e6}))


def peak() -> int:
    """The peak of the resident memory of this process, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def peaks() -> dict[str, Any]:
    found = {}
    for side in SIDES:
        done = subprocess.run([sys.executable, __file__, "--memory", side], capture_output=True, text=True, check=True)
        found[side] = json.loads(done.stdout)
        print(
            f"peak memory, {side}: {found[side]['mb_above_rows']:.0f} MB above the rows ({found[side]['mb_of_rows']:.0f} MB)"
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--memory", choices=SIDES)
    side = parser.parse_args().memory
    if side:
        memory(side)
        return
    facts = heading(
        "Passes from 1 to 768 features", f"FAISS {faiss.__version__}; {ITERATIONS} iterations of {CLUSTERS} clusters"
    )
    record: dict[str, Any] = {"environment": facts | {"faiss": faiss.__version__}}
    record["kmeans_384"] = kmeans(LARGE_ROWS, 384, faiss_too=True)
    record["spherical_384"] = spherical(LARGE_ROWS, 384)
    record["kmeans"] = [kmeans(ROWS, d, faiss_too=False) for d in DIMENSIONS]
    record["mixtures"] = [
        mixture(d, k, kind, dtype)
        for d in DIMENSIONS
        for kind, k, dtype in (("diag", 8, "float32"), ("diag", 50, "float32"), ("spherical", 8, "float64"))
    ]
    record["silhouettes"] = [silhouettes(d, dtype) for d in DIMENSIONS for dtype in ("float32", "float64")]
    record["peak_memory"] = peaks()
    write("dimensions", record)


if __name__ == "__main__":
    main()
