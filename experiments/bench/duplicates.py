"""Exact duplicates: the time saved by working on the distinct rows, by the share of distinct rows.

    python experiments/bench/duplicates.py            # about a minute on two cores

The tables are 60,000 rows drawn from given numbers of distinct real tracks, and the 114,000 real rows. Both ways must give the same
results; the time to find the distinct rows is included where they are used. The limits in `gpuclust.runtime.deduplicate` come from
this bench.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from common import heading, interleaved, real_tracks, write

from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.mixture import GmmConfig
from gpuclust.algorithms.registry import FitInput, FitResult, algorithm_of
from gpuclust.config import ClusterConfig
from gpuclust.metrics.silhouette import silhouettes
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.deduplicate import Distinct, distinct_rows

ROWS = 60_000
SHARES = (1.0, 0.95, 0.9, 0.75, 0.5, 0.1)
REPEATS = 3
CPU = CpuBackend()
KMEANS = KMeansConfig(n_clusters=8, n_init=10)
GMM = GmmConfig(n_clusters=5, covariance_type="full", max_iter=30, tol=0.0)


def fit(X: np.ndarray, config: ClusterConfig, distinct: Distinct | None = None) -> FitResult:
    """One fit as in a job, on the distinct rows where they are given."""
    data = FitInput(X, 0, CPU, ResultCache(0), "bench", distinct)
    return algorithm_of(config).fitter("cpu")(data, [config])[0]


def tables() -> dict[str, np.ndarray]:
    """The real rows, and tables of ROWS rows by their share of distinct rows, float32 as in a job."""
    X, _ = real_tracks(11, dtype=np.float32)
    rows, rng = distinct_rows(X).X, np.random.default_rng(0)
    found = {"real": X}
    for share in SHARES:
        once = rows[rng.choice(len(rows), int(share * ROWS), replace=False)]
        again = once[rng.integers(0, len(once), ROWS - len(once))]
        found[f"{share:g}"] = np.ascontiguousarray(rng.permutation(np.concatenate([once, again])))
    return found


def measure(X: np.ndarray) -> dict[str, float]:
    """Seconds of each pass on all rows and on the distinct ones, after checking that they agree."""
    known = distinct_rows(X)
    labels = fit(X, KMEANS).labels
    passes: dict[str, Callable[..., float]] = {
        "silhouette": lambda **k: silhouettes(X, [labels], backend=CPU, **k)[0].score,
        "gmm": lambda **k: fit(X, GMM, **k).metrics["log_likelihood"],
        "kmeans": lambda **k: fit(X, KMEANS, **k).metrics["inertia"],
    }
    for name, work in passes.items():
        np.testing.assert_allclose(work(distinct=known), work(), rtol=1e-5, err_msg=name)
    functions: dict[str, Callable[[], object]] = {"distinct": lambda: distinct_rows(X)}
    for name, work in passes.items():
        functions[name] = work
        functions[f"{name}_distinct"] = lambda work=work: work(distinct=known)
    seconds = interleaved(functions, REPEATS)
    return {"n_rows": len(X), "share": len(known.X) / len(X)} | seconds


def main() -> None:
    facts = heading("Exact duplicates", "all rows against the distinct ones, weighted; seconds, and times faster")
    record = {}
    for name, X in tables().items():
        record[name] = found = measure(X)
        gains = {}
        for what in ("silhouette", "gmm", "kmeans"):
            gains[what] = found[what] / (found[f"{what}_distinct"] + found["distinct"])
        record[name] |= {f"ratio_{what}": gain for what, gain in gains.items()}
        print(
            f"{found['n_rows']:>8,} rows, {found['share']:.0%} distinct (found in {1e3 * found['distinct']:.0f} ms): "
            + ", ".join(f"{what} {found[what]:.2f} s, {gain:.2f} times" for what, gain in gains.items()),
            flush=True,
        )
    write("duplicates", {"environment": facts, "repeats": REPEATS, "load": os.getloadavg()[0], "tables": record})


if __name__ == "__main__":
    main()
