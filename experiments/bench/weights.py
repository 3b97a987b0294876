"""Weights of rows: K-Means and mixtures against scikit-learn, and against the same fit without weights.

    python experiments/bench/weights.py            # less than a minute on two cores

K-Means of both sides starts from the same centres and makes the same number of iterations, with
geometric weights of mean 20. Both must reach the same centres and the same inertia. scikit-learn's mixtures have no weights; ours are compared with a fit of
the rows repeated by their weights, which must have the same means.
"""

from __future__ import annotations

import warnings

import numpy as np
from common import generated, heading, interleaved, real_tracks, write
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

import gpuclust as gc

ITERATIONS = 20
REPEATS = 5
MIXTURE_ROWS = 20_000


def tables() -> dict[str, tuple[np.ndarray, int]]:
    """Rows (n_samples, n_features) float64 and a number of clusters."""
    found = {f"generated {n:,} x {d}": (generated(n, d), k) for n, d, k in ((100_000, 10, 8), (100_000, 32, 50))}
    return {"tracks": (real_tracks(11)[0], 10)} | found


def k_means(X: np.ndarray, k: int, weight: np.ndarray) -> dict[str, float]:
    """Seconds of both sides, after checking that they agree."""
    start = X[np.random.default_rng(1).choice(len(X), k, replace=False)]
    options = {"n_clusters": k, "init": start, "n_init": 1, "max_iter": ITERATIONS, "tol": 0.0}

    def ours() -> gc.KMeans:
        return gc.KMeans(**options).fit(X, sample_weight=weight)

    def library() -> KMeans:
        return KMeans(**options, algorithm="lloyd").fit(X, sample_weight=weight)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        one, other = ours(), library()
        gap = max(np.abs(other.cluster_centers_ - center).max(axis=1).min() for center in one.cluster_centers_)
        np.testing.assert_array_less(gap, 1e-8)
        np.testing.assert_allclose(one.inertia_, other.inertia_, rtol=1e-9)
        seconds = interleaved(
            {"ours": ours, "library": library, "unweighted": lambda: gc.KMeans(**options).fit(X)}, REPEATS
        )
    return seconds | {"largest_gap_of_centers": float(gap), "iterations": one.n_iter_}


def mixture(X: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    """Seconds of a fit with whole weights and of one on repeated rows, after checking that they agree."""
    start = {
        "weights_init": np.full(5, 0.2),
        "means_init": X[:: len(X) // 5][:5],
        "precisions_init": np.repeat(np.eye(X.shape[1])[None], 5, axis=0),
    }
    options = {"n_components": 5, "max_iter": ITERATIONS, "tol": 0.0} | start
    repeated = np.repeat(X, weight.astype(int), axis=0)

    def weighted() -> gc.GaussianMixture:
        return gc.GaussianMixture(**options).fit(X, sample_weight=weight)

    def on_repeated() -> gc.GaussianMixture:
        return gc.GaussianMixture(**options).fit(repeated)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        one, other = weighted(), on_repeated()
        gap = max(np.abs(other.means_ - mean).max(axis=1).min() for mean in one.means_)
        np.testing.assert_array_less(gap, 1e-6)
        seconds = interleaved({"weighted": weighted, "repeated": on_repeated}, 3)
    return seconds | {"largest_gap_of_means": float(gap), "repeated_rows": len(repeated)}


def main() -> None:
    facts = heading("Weights of rows", f"K-Means: {ITERATIONS} iterations from the same centres; median seconds")
    record: dict[str, dict[str, float]] = {}
    for name, (X, k) in tables().items():
        weight = np.random.default_rng(0).geometric(0.05, len(X)).astype(np.float64)
        record[name] = found = k_means(X, k, weight)
        found |= {"n_rows": len(X), "n_features": X.shape[1], "n_clusters": k}
        found["ratio"], found["cost"] = found["library"] / found["ours"], found["ours"] / found["unweighted"]
        print(
            f"{name:24} k={k:3} ours {found['ours']:.3f} s  scikit-learn {found['library']:.3f} s  ratio {found['ratio']:.2f}  "
            f"against no weights {found['cost']:.2f}  centres differ by {found['largest_gap_of_centers']:.0e}"
        )
    X = generated(MIXTURE_ROWS, 8)
    record["mixture"] = found = mixture(X, np.random.default_rng(0).integers(1, 9, len(X)).astype(np.float64))
    found["ratio"] = found["repeated"] / found["weighted"]
    print(
        f"mixture: weights {found['weighted']:.3f} s, {found['repeated_rows']:,} repeated rows {found['repeated']:.3f} s, ratio "
        f"{found['ratio']:.2f}; means differ by {found['largest_gap_of_means']:.0e}"
    )
    write("weights", {"environment": facts, "tables": record})


if __name__ == "__main__":
    main()
