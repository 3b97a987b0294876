"""HDBSCAN with the tree of a sample, compared with the tree of all rows.

    python experiments/bench/hdbscan_sample.py       # about a minute on two cores

The real tracks (89,741 distinct ones, five principal components of seven features) and 200,000 made rows (12 clusters, a fifth of
noise). ``min_samples`` is the same, ``min_cluster_size`` shrinks with the sample. AMI is the adjusted mutual information with the
labels of the tree of all rows, over all rows, and over those that neither calls noise. Both fits are timed in turn.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from common import TRACKS, UNIT, generated, heading, write
from sklearn.metrics import adjusted_mutual_info_score

from gpuclust.algorithms.hdbscan import HdbscanConfig
from gpuclust.algorithms.registry import FitInput, FitResult, fit
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend

SHARES = (0.5, 0.25, 0.1)
SEEDS = (0, 1)
MIN_SAMPLES = 20
TARGETS = {"clusters": 1, "ami_without_noise": 0.98, "ami": 0.75}  # of the tracks at 25 %


def tracks() -> tuple[np.ndarray, int, str]:
    """Rows, ``min_cluster_size``, and a line that describes them."""
    if not TRACKS.exists():
        return (
            generated(89_741, 5).astype(np.float32),
            400,
            "GENERATED rows (the real tracks are not beside this checkout)",
        )
    import pandas as pd

    X = pd.read_csv(TRACKS).drop_duplicates("track_id")[UNIT].dropna().to_numpy(float)
    X = (X - X.min(axis=0)) / (X.max(axis=0) - X.min(axis=0))
    X -= X.mean(axis=0)
    _, _, axes = np.linalg.svd(X, full_matrices=False)
    return (X @ axes[:5].T).astype(np.float32), 400, f"{len(X):,} real tracks, 5 components"


def made() -> tuple[np.ndarray, int, str]:
    """The same of rows with known clusters."""
    rng, n = np.random.default_rng(3), 200_000
    centres, spread, group = rng.uniform(-10, 10, (12, 5)), rng.uniform(0.2, 0.9, 12), rng.integers(12, size=n)
    X = centres[group] + rng.normal(size=(n, 5)) * spread[group, None]
    X[: n // 5] = rng.uniform(-12, 12, (n // 5, 5))
    return rng.permutation(X).astype(np.float32), 500, "200,000 made rows, 12 clusters, 20 % noise"


def fitted(X: np.ndarray, seed: int, config: HdbscanConfig) -> tuple[FitResult, float]:
    """A fit as in a job, and its seconds."""
    start = time.perf_counter()
    (found,) = fit(FitInput(X, seed, CpuBackend(), ResultCache(0), "bench"), [config])
    assert isinstance(found, FitResult), found
    return found, time.perf_counter() - start


def measure(X: np.ndarray, size: int, source: str) -> dict[str, Any]:
    """Agreement and time of each share and seed."""
    config = HdbscanConfig(min_cluster_size=size, min_samples=MIN_SAMPLES)
    fitted(X[:5000], 0, config)  # compiles
    whole, seconds = fitted(X, 0, config)
    n_clusters = int(whole.labels.max()) + 1
    print(f"\n{source}: {n_clusters} clusters, noise {np.mean(whole.labels < 0):.3f}, {seconds:.1f} s")
    cases = []
    for share in SHARES:
        for seed in SEEDS:
            config.sample_rows = int(share * len(X))
            found, took = fitted(X, seed, config)
            inside = (whole.labels >= 0) & (found.labels >= 0)
            case = {
                "share": share,
                "seed": seed,
                "clusters": int(found.labels.max()) + 1,
                "noise": float(np.mean(found.labels < 0)),
                "ami": adjusted_mutual_info_score(whole.labels, found.labels),
                "ami_without_noise": adjusted_mutual_info_score(whole.labels[inside], found.labels[inside]),
                "seconds": took,
            }
            cases.append(case)
            print(
                f"  {share:4.0%} seed {seed}: {case['clusters']} clusters, noise {case['noise']:.3f}, AMI {case['ami']:.3f}, "
                f"without noise {case['ami_without_noise']:.3f}, {took:.1f} s"
            )
    return {"data": source, "n_rows": len(X), "clusters": n_clusters, "seconds": seconds, "cases": cases}


def main() -> None:
    """Print and write the figures."""
    heading(f"HDBSCAN on a sample, min_samples={MIN_SAMPLES}")
    real, known = measure(*tracks()), measure(*made())
    quarter = [case for case in real["cases"] if case["share"] == 0.25]
    met = all(
        abs(case["clusters"] - real["clusters"]) <= TARGETS["clusters"]
        and case["ami_without_noise"] >= TARGETS["ami_without_noise"]
        and case["ami"] >= TARGETS["ami"]
        for case in quarter
    )
    print(f"\ntargets of the tracks at 25 % {TARGETS}: {'met' if met else 'NOT met'}")
    write("hdbscan_sample", {"tables": [real, known], "targets": TARGETS, "met": met})


if __name__ == "__main__":
    main()
