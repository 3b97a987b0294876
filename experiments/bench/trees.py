"""Clusterings that are stages of one tree: agglomerative clustering and bisecting K-Means against scikit-learn, and BIRCH, over a sweep.

    python experiments/bench/trees.py                     # 20,000 rows, about a minute on two cores
    python experiments/bench/trees.py --rows 114000       # all real tracks
    python experiments/bench/trees.py --large 1000000     # a sweep of Ward over a million rows: seconds and peak memory

Quality is the inertia of a clustering over that of K-Means with ten starts at the same size: 1 is equal, larger is worse. BIRCH is scikit-learn's, with
its threshold at a fifth of the mean distance of two rows, followed by Ward of its subclusters; its time is that of one fit and of a cut for each size.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
import warnings
from collections.abc import Callable

import numpy as np
import psutil
from common import enlarged, heading, interleaved, real_tracks, write
from sklearn.cluster import AgglomerativeClustering, Birch, BisectingKMeans
from sklearn.metrics import adjusted_rand_score

from gpuclust.algorithms.registry import FitInput, FitResult, fit, get_algorithm
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend

SIZES = (2, 4, 8, 12, 16, 20)
EXACT_ROWS = 4_000
REPEATS = 3


def fitted(name: str, X: np.ndarray, sizes: tuple[int, ...] = SIZES, **settings: object) -> list[np.ndarray]:
    """The labels of each size, fitted as a sweep does."""
    configs = [get_algorithm(name).config(n_clusters=k, **settings) for k in sizes]
    results = fit(FitInput(X, 0, CpuBackend(), ResultCache(), "bench"), configs)
    assert all(isinstance(result, FitResult) for result in results), results
    return [result.labels for result in results]


def birch(X: np.ndarray) -> list[np.ndarray]:
    """BIRCH's labels of each size, from one tree of features."""
    rng = np.random.default_rng(0)
    first, second = (X[rng.integers(0, len(X), 10_000)] for _ in range(2))
    model = Birch(threshold=float(np.linalg.norm(first - second, axis=1).mean() / 5), n_clusters=None).fit(X)
    labels = []
    for k in SIZES:
        model.set_params(n_clusters=k)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fewer subclusters than clusters
            labels.append(model.partial_fit().predict(X))
    return labels


def inertia(X: np.ndarray, labels: np.ndarray) -> float:
    """The sum of squared distances to the means, in float64."""
    total = 0.0
    for label in np.unique(labels):
        rows = X[labels == label].astype(np.float64)
        total += float(((rows - rows.mean(axis=0)) ** 2).sum())
    return total


def large(n_rows: int) -> None:
    """A sweep of agglomerative clustering over many rows: its seconds, what the process held before it, and its peak."""
    X, source = real_tracks(10, dtype=np.float32)
    X = enlarged(X, n_rows)
    title = "Agglomerative clustering of many rows"
    facts = heading(title, f"{source}, enlarged to {n_rows:,} rows", f"a sweep over the sizes {SIZES}")
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    labels = fitted("agglomerative", X)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = [inertia(X, of_size) for of_size in labels]
    best = [inertia(X, of_size) for of_size in fitted("kmeans", X, n_init=1)]
    ratio = [a / b for a, b in zip(found, best, strict=True)]
    print(f"{seconds:.1f} s, peak {peak / 1e9:.2f} GB, {(peak - before) / 1e9:.2f} GB above the rows and the libraries")
    print("inertia over K-Means' with one start: " + " ".join(f"{r:.3f}" for r in ratio))
    record = {"seconds": seconds, "peak_bytes": peak, "before_bytes": before, "inertia_over_kmeans": ratio}
    write(
        "trees_large",
        {
            "environment": facts,
            "load": os.getloadavg()[0],
            "source": source,
            "n_rows": n_rows,
            "sizes": SIZES,
            **record,
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--large", type=int, default=0)
    asked = parser.parse_args()
    if asked.large:
        large(asked.large)
        return
    n_rows = asked.rows
    X, source = real_tracks(10, dtype=np.float32)
    X = np.ascontiguousarray(X[np.random.default_rng(0).permutation(len(X))[:n_rows]])
    facts = heading("Trees of clusters", f"{source}: {len(X):,} rows", f"a sweep over the sizes {SIZES}")

    few = X[:EXACT_ROWS]
    ours = fitted("agglomerative", few)
    theirs = [AgglomerativeClustering(k).fit_predict(few) for k in SIZES]
    agreement = [float(adjusted_rand_score(a, b)) for a, b in zip(ours, theirs, strict=True)]
    assert min(agreement) > 0.999, agreement
    small: dict[str, Callable[[], object]] = {
        "agglomerative": lambda: fitted("agglomerative", few),
        "scikit-learn, one fit a size": lambda: [AgglomerativeClustering(k).fit_predict(few) for k in SIZES],
    }
    of_few = interleaved(small, REPEATS)
    print(f"Ward on {len(few):,} rows, labels equal: " + ", ".join(f"{n} {s:.2f} s" for n, s in of_few.items()))

    runs: dict[str, Callable[[], list[np.ndarray]]] = {
        "K-Means": lambda: fitted("kmeans", X),
        "agglomerative": lambda: fitted("agglomerative", X),
        "bisecting": lambda: fitted("bisecting", X),
        "scikit-learn's bisecting, one fit a size": lambda: [
            BisectingKMeans(k, n_init=3, random_state=0).fit_predict(X) for k in SIZES
        ],
        "BIRCH": lambda: birch(X),
    }
    found = {name: run() for name, run in runs.items()}  # compiles
    best = [inertia(X, labels) for labels in found["K-Means"]]
    quality = {
        name: [inertia(X, labels) / least for labels, least in zip(of_sizes, best, strict=True)]
        for name, of_sizes in found.items()
    }
    seconds = interleaved(dict(runs), 1 if len(X) > 50_000 else REPEATS)
    for name in runs:
        shown = " ".join(f"{ratio:.3f}" for ratio in quality[name])
        print(f"{name:>42}: {seconds[name]:7.2f} s, inertia over K-Means' {shown}", flush=True)
    write(
        "trees",
        {
            "environment": facts, "load": os.getloadavg()[0], "source": source, "n_rows": len(X), "sizes": SIZES, "repeats": REPEATS,
            "exact": {"n_rows": len(few), "adjusted_rand": agreement, "seconds": of_few},
            "seconds": seconds, "inertia_over_kmeans": quality,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
