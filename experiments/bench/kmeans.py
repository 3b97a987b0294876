"""K-Means: an iteration, a sweep with restarts, and the shapes for which the fused engine is faster than scikit-learn.

    python experiments/bench/kmeans.py          # about three minutes on two cores; --gpu runs only the part on a GPU

First checks that both reach the same inertia and the same labels from the same starting centres. The time of an iteration is the
difference between a long and a short run from the same centres, divided by the difference of their iterations, so that it does not
include any preparation; the sweep is timed as a whole. An iteration is also timed in processor seconds of one thread, which other
work on the machine affects least; the grid of shapes is timed in this way only. On a GPU, an iteration of our CUDA pass is
compared with cuML's K-Means called directly, and with flash-kmeans where it is installed; then whole fits, with their starts, for k = 2 to
10 with ten restarts each, by each engine and on the CPU.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numba
import numpy as np
from common import (
    enlarged,
    generated,
    gpu_too,
    heading,
    interleaved,
    only_gpu,
    real_tracks,
    synchronised,
    whole_fits,
    write,
)
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, pairwise_distances_argmin_min
from threadpoolctl import threadpool_limits

from gpuclust.algorithms.kmeans.fit import KMeansRequest, fit_kmeans, lloyd, use_fused

ROWS = 1_160_000
SIZES = range(2, 11)
RESTARTS = 10
SEEDS = (0, 42)
WORSE = 1.0005  # the largest inertia allowed, as a multiple of scikit-learn's
SHORT, LONG = 1, 11  # iterations
REPEATS = 5
ITERATION_REPEATS = 15  # more than elsewhere, as the difference of two short runs is noisy
GPU_ITERATIONS = (8, 88)  # iterations; the host reads the state of a fit on the device every eight
GRID_ROWS = 40_000
GRID = [(d, k) for d in (2, 8, 32, 128) for k in (4, 16, 64, 256)]


def library(X: np.ndarray, start: np.ndarray, max_iter: int, tol: float = 0.0) -> KMeans:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(len(start), init=start.astype(X.dtype), n_init=1, max_iter=max_iter, tol=tol).fit(X)


def agreement(X: np.ndarray, n_clusters: int) -> dict[str, float]:
    """Check that both converge to the same result from the same centres."""
    start = X[np.random.default_rng(0).choice(len(X), n_clusters, replace=False)].astype(np.float64)
    (ours,), theirs = lloyd(X, [start]), library(X, start, 300, 1e-4)
    found = {
        "inertia_difference": abs(ours.inertia / float(theirs.inertia_) - 1),
        "adjusted_rand": float(adjusted_rand_score(ours.labels, theirs.labels_)),
        "iterations": ours.n_iter,
        "scikit_learn_iterations": int(theirs.n_iter_),
    }
    limit = 1e-9 if X.dtype == np.float64 else 1e-4  # scikit-learn sums float32 in float32
    assert found["inertia_difference"] < limit, found
    assert found["adjusted_rand"] > (0.9999 if X.dtype == np.float64 else 0.99), found
    return found


def processor_seconds(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """As `interleaved`, but processor seconds on one thread."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        with threadpool_limits(1):
            for _ in range(repeats):
                for name, function in functions.items():
                    start = time.process_time()
                    function()
                    seconds[name].append(time.process_time() - start)
    finally:
        numba.set_num_threads(threads)
    return {name: statistics.median(values) for name, values in seconds.items()}


Timer = Callable[[dict[str, Callable[[], object]], int], dict[str, float]]


def iteration(X: np.ndarray, n_clusters: int, repeats: int, timer: Timer = interleaved) -> dict[str, float]:
    """Seconds of one iteration of each, from the same centres, and the ratio of scikit-learn's to ours."""
    start = X[np.random.default_rng(1).choice(len(X), n_clusters, replace=False)].astype(np.float64)
    functions: dict[str, Callable[[], object]] = {
        f"{name}_{length}": lambda run=run, length=length: run(length)
        for name, run in {
            "scikit_learn": lambda length: library(X, start, length),
            "ours": lambda length: lloyd(X, [start], max_iter=length, tol=0),
        }.items()
        for length in (SHORT, LONG)
    }
    functions[f"ours_{SHORT}"]()  # compiles
    seconds = timer(functions, repeats)
    found = {
        name: (seconds[f"{name}_{LONG}"] - seconds[f"{name}_{SHORT}"]) / (LONG - SHORT)
        for name in ("scikit_learn", "ours")
    }
    return found | {"ratio": found["scikit_learn"] / found["ours"]}


def sweep(X: np.ndarray, seed: int) -> dict[str, object]:
    """k = 2 to 10 with ten restarts each: total times, and the inertia of each k as a multiple of scikit-learn's."""
    kept: dict[str, list[float]] = {}

    def theirs() -> None:
        models = [KMeans(k, n_init=RESTARTS, random_state=seed).fit(X) for k in SIZES]
        kept["scikit_learn"] = [float(model.inertia_) for model in models]

    def ours() -> None:
        fits = fit_kmeans(X, [KMeansRequest(k, seed, n_init=RESTARTS) for k in SIZES])
        kept["ours"] = [fit.inertia for fit in fits]

    ours()
    seconds = interleaved({"scikit_learn": theirs, "ours": ours}, 1)
    inertias = {k: a / b for k, a, b in zip(SIZES, kept["ours"], kept["scikit_learn"], strict=True)}
    assert max(inertias.values()) <= WORSE, f"seed {seed}: {inertias}"
    return {"seed": seed, **seconds, "ratio": seconds["scikit_learn"] / seconds["ours"], "inertia_ratios": inertias}


Runs = dict[str, Callable[[int], tuple[np.ndarray, int]]]
"""From a number of iterations to the centres (n_clusters, n_features) that they end at, and how many were made."""


def gpu_runs(X: np.ndarray, start: np.ndarray) -> Runs:
    """Iterations on the device from the same centres: ours, cuML's, and flash-kmeans' where it is installed."""
    import cupy as cp
    from cuml.cluster import KMeans as CumlKMeans

    from gpuclust.algorithms.kmeans.lloyd_cuda import DeviceJob, rows_on_device, run_lloyd

    there, centers = cp.asarray(X), cp.asarray(start.astype(X.dtype))
    on_device = rows_on_device(there, cp)
    first_centers = on_device.to_tiled(cp.asarray(start))

    def ours(length: int) -> tuple[np.ndarray, int]:
        (found,) = run_lloyd(on_device, [DeviceJob(0, first_centers, length, -1.0)])
        return cp.asnumpy(on_device.from_tiled(found.centers)), found.n_iter

    def cuml(length: int) -> tuple[np.ndarray, int]:
        tol = float(np.finfo(np.float64).tiny)  # cuML does not accept 0
        model = CumlKMeans(n_clusters=len(start), init=centers, n_init=1, max_iter=length, tol=tol, output_type="cupy")
        model.fit(there)
        return cp.asnumpy(model.cluster_centers_), int(model.n_iter_)

    runs: Runs = {"ours": ours, "cuml": cuml}
    if X.dtype == np.float32 and find_spec("flash_kmeans") is not None:
        import torch
        from flash_kmeans import batch_kmeans_Euclid

        rows, first = torch.as_tensor(X, device="cuda")[None], torch.as_tensor(start, device="cuda").float()[None]

        def flash(length: int) -> tuple[np.ndarray, int]:
            _, found, made = batch_kmeans_Euclid(rows, len(start), max_iters=length, tol=-1.0, init_centroids=first)
            torch.cuda.synchronize()
            return found[0].cpu().numpy(), made

        runs["flash_kmeans"] = flash
    return runs


def on_gpu() -> dict[str, Any]:
    """An iteration on the device, after a check that all reach the same inertia, and whole fits."""
    from gpuclust.algorithms.kmeans import KMeansConfig

    short, long = GPU_ITERATIONS
    configs: dict[str, list[KMeansConfig]] = {}
    narrow, what = real_tracks(5)
    record: dict[str, Any] = {"data": what, "rows": ROWS}
    for dtype in (np.float64, np.float32):
        name, X = np.dtype(dtype).name, enlarged(narrow, ROWS).astype(dtype)
        start = X[np.random.default_rng(1).choice(len(X), 10, replace=False)].astype(np.float64)
        runs = gpu_runs(X, start)
        inertia, made = {}, {}
        for who, run in runs.items():
            centers, made[who] = run(long)
            made[who] -= run(short)[1]
            distances = pairwise_distances_argmin_min(X, centers.astype(dtype))[1].astype(np.float64)
            inertia[who] = float((distances**2).sum())
            assert abs(inertia[who] / inertia["ours"] - 1) < 1e-3, f"{who} and ours end apart: {inertia}"
        functions = {
            f"{who}_{length}": synchronised(lambda run=run, length=length: run(length))
            for who, run in runs.items()
            for length in GPU_ITERATIONS
        }
        seconds = interleaved(functions, REPEATS)
        each = {who: (seconds[f"{who}_{long}"] - seconds[f"{who}_{short}"]) / made[who] for who in runs}
        print(f"{name}: an iteration " + ", ".join(f"{who} {1e3 * value:.3f} ms" for who, value in each.items()))
        record[name] = {"seconds": each, "inertia": inertia, "iterations": made}
    rows = enlarged(narrow, ROWS).astype(np.float32)
    for engine in ("auto", "library", "fused"):
        configs[engine] = [KMeansConfig(n_clusters=k, n_init=RESTARTS, engine=engine) for k in SIZES]
    record["whole_fits"] = whole_fits(rows, configs, 1)
    return record


def main() -> None:
    if not only_gpu(__doc__ or ""):
        on_cpu()
    gpu_too("kmeans", on_gpu)


def on_cpu() -> None:
    X, what = real_tracks(11)
    narrow, _ = real_tracks(5)
    facts = heading("K-Means", what, f"iterations on {ROWS:,} rows drawn from five components of them")
    record: dict[str, object] = {"environment": facts, "data": what, "repeats": REPEATS}
    for dtype in (np.float64, np.float32):
        name = np.dtype(dtype).name
        large = enlarged(narrow, ROWS).astype(dtype)
        agreed = agreement(X.astype(dtype), 7)
        found = iteration(large, 10, ITERATION_REPEATS)
        alone = iteration(large, 10, ITERATION_REPEATS, processor_seconds)
        record[name] = {"agreement": agreed, "iteration_1160k_5_k10": found, "processor_seconds_of_one_thread": alone}
        print(
            f"{name}: inertia differs by {agreed['inertia_difference']:.1e}, ARI {agreed['adjusted_rand']:.5f}; an iteration "
            f"{1e3 * found['scikit_learn']:.1f} ms and {1e3 * found['ours']:.2f} ms: {found['ratio']:.1f} times; on one thread "
            f"{1e3 * alone['scikit_learn']:.1f} ms and {1e3 * alone['ours']:.2f} ms of processor: {alone['ratio']:.1f} times"
        )
        del large
    record["sweep"] = sweeps = [sweep(X, seed) for seed in SEEDS]
    for one in sweeps:
        worst = max(one["inertia_ratios"].values()) - 1
        print(
            f"sweep, seed {one['seed']}: {one['scikit_learn']:.2f} s and {one['ours']:.2f} s: {one['ratio']:.1f} times; "
            f"inertia {100 * worst:+.3f} % at worst"
        )
    record["grid"] = grid = []
    for n_features, n_clusters in GRID:
        found = iteration(generated(GRID_ROWS, n_features), n_clusters, 3, processor_seconds)
        pays = use_fused(GRID_ROWS, n_features, n_clusters)
        grid.append({"n_features": n_features, "n_clusters": n_clusters, **found, "use_fused": pays})
        print(f"{n_features:4d} features, {n_clusters:4d} clusters: {found['ratio']:5.1f} times" + " (fused)" * pays)
    print(
        f"median over the grid where fused: {statistics.median(g['ratio'] for g in grid if g['use_fused']):.1f} times"
    )
    write("kmeans", record)


if __name__ == "__main__":
    main()
