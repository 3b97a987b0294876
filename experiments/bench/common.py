"""Functions of all benches: the data, interleaved timing, the description of the machine, and the results' files."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from gpuclust.runtime.backend import probe_gpu

RESULTS = Path(__file__).resolve().parent / "results"
TRACKS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tracks_114k.csv"
PACKAGES = (
    "gpuclust",
    "cuml-cu13",
    "cupy-cuda13x",
    "flash_kmeans",
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "numba",
    "fast_hdbscan",
    "fast-plscan",
    "igraph",
    "leidenalg",
    "mlflow",
    "pyarrow",
)
UNIT = ["acousticness", "danceability", "energy", "instrumentalness", "liveness", "speechiness", "valence"]
FEATURES = {  # by their number, as in the studies
    7: UNIT,
    10: [*UNIT, "loudness", "tempo", "duration_ms"],
    11: [*UNIT, "loudness", "tempo", "key", "mode"],
}


def environment() -> dict[str, Any]:
    """The machine, the versions of packages and the date, recorded with every result."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _cpu_model() -> str:
    """The processor's name; where a hypervisor hides it, also its family and its widest vector instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    vectors = "AVX-512" if "avx512f" in facts.get("flags", "") else "no AVX-512"
    return f"{facts.get('model name', platform.processor())} (family {facts.get('cpu family', '?')}, {vectors})"


def real_tracks(n_features: int = 11, *, distinct: bool = False, dtype: Any = np.float64) -> tuple[np.ndarray, str]:
    """Standardised audio features of the 114,000 tracks (89,741 distinct ones), and a line that describes them.

    `n_features` is 7, 10 or 11, or 5 for the standardised principal components of the seven after min-max scaling.
    Where the table is not in the folder beside the checkout, the same number of rows is generated, and the line says so.
    """
    if not TRACKS.exists():
        X = generated(89_741 if distinct else 114_000, n_features)
        return X.astype(dtype), f"GENERATED rows {X.shape} (the real tracks are not beside this checkout)"
    tracks = pd.read_csv(TRACKS, usecols=["track_id", *FEATURES[10], "key", "mode"])
    if distinct:
        tracks = tracks.drop_duplicates("track_id")
    X = tracks[FEATURES[7 if n_features == 5 else n_features]].to_numpy(np.float64)
    if n_features == 5:
        X = _components((X - X.min(axis=0)) / (X.max(axis=0) - X.min(axis=0)), 5)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    return np.ascontiguousarray(X, dtype), f"real tracks {X.shape}, standardised"


def _components(X: np.ndarray, n_components: int) -> np.ndarray:
    centred = X - X.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return centred @ vectors[:, : -n_components - 1 : -1]


def generated(n_samples: int, n_features: int, *, seed: int = 0) -> np.ndarray:
    """Rows of eight overlapping Gaussian clusters, standardised."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(8, n_features)) * 1.5
    X = centres[rng.integers(0, 8, n_samples)] + rng.normal(size=(n_samples, n_features))
    return (X - X.mean(axis=0)) / X.std(axis=0)


def enlarged(X: np.ndarray, n_samples: int, *, seed: int = 0) -> np.ndarray:
    """Rows drawn from X plus noise of 5 % of each feature's standard deviation: X's distribution with another number of rows and
    without duplicates."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n_samples, X.shape[1])).astype(X.dtype)
    return X[rng.integers(0, len(X), n_samples)] + noise * (0.05 * X.std(axis=0))


def interleaved(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each function, called in turn `repeats` times, so that a slow phase of the machine affects all of them.

    A function that compiles or fills a cache at its first call should be called once before.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def heading(title: str, *lines: str) -> dict[str, Any]:
    """Print the title, the machine and the versions; return the environment."""
    facts = environment()
    print(f"{title}\n{'=' * len(title)}")
    print(f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gb']} GB, Python {facts['python']}, {facts['date']}")
    print(", ".join(f"{name} {version}" for name, version in facts["versions"].items()))
    for line in lines:
        print(line)
    return facts


def only_gpu(description: str) -> bool:
    """Parse the command line of a script that has a part on the GPU; whether to run this part only."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--gpu", action="store_true", help="only the part that runs on a GPU")
    return bool(parser.parse_args().gpu)


def gpu_too(name: str, compare: Callable[[], dict[str, Any]]) -> None:
    """Write the result of `compare` on the GPU to results/NAME_gpu.json; print a line with the reason where there is no GPU."""
    why_not = probe_gpu()
    if why_not is not None:
        print(f"not compared on a GPU: {why_not}")
        return
    from gpuclust.runtime.gpu import GpuBackend

    device = GpuBackend().device
    print(f"\non the GPU: {device}")
    write(f"{name}_gpu", {"device": device, **compare()})


def whole_fits(X: np.ndarray, configs: dict[str, list[Any]], repeats: int = 3) -> dict[str, dict[str, Any]]:
    """Fits as in a job, from the choice of the start to the labels on the host: on the GPU for each name, and on the CPU under "cpu".

    ``configs`` are fits of one algorithm that are made together; those of the CPU are the first ones. The matrix is where the backend has it
    before the clock starts, kernels are compiled. Gives the median seconds of each, the ARI of each with the labels of the CPU, the engines, and
    whether a second fit on the GPU gives the same labels in every row.
    """
    import cupy as cp
    from sklearn.metrics import adjusted_rand_score

    from gpuclust.algorithms.registry import FitInput, FitResult, fit
    from gpuclust.runtime.backend import Backend
    from gpuclust.runtime.cache import ResultCache
    from gpuclust.runtime.cpu import CpuBackend
    from gpuclust.runtime.gpu import GpuBackend

    gpu, cpu = GpuBackend(), CpuBackend()
    there = cp.asarray(X)

    def fitted(rows: Any, backend: Backend, wanted: list[Any]) -> list[FitResult]:
        results = fit(FitInput(rows, 0, backend, ResultCache(0), "bench"), wanted)
        failed = [result for result in results if not isinstance(result, FitResult)]
        assert not failed, failed
        return [result for result in results if isinstance(result, FitResult)]

    runs: dict[str, Callable[[], list[FitResult]]] = {
        name: lambda wanted=wanted: fitted(there, gpu, wanted) for name, wanted in configs.items()
    }
    runs["cpu"] = lambda: fitted(X, cpu, next(iter(configs.values())))
    first = {name: run() for name, run in runs.items()}  # compiles
    again = {name: runs[name]() for name in configs}
    seconds = interleaved({name: synchronised(run) for name, run in runs.items()}, repeats)
    found = {}
    for name, results in first.items():
        pairs = list(zip(results, first["cpu"], strict=True))
        agreement = [float(adjusted_rand_score(one.labels, expected.labels)) for one, expected in pairs]
        found[name] = {"seconds": seconds[name], "adjusted_rand": agreement, "engines": [one.engine for one in results]}
        if name in again:
            same = zip(results, again[name], strict=True)
            found[name]["same_labels_again"] = all(np.array_equal(one.labels, other.labels) for one, other in same)
        print(f"whole fits, {name:>8}: {seconds[name]:7.3f} s, ARI with the CPU's {min(agreement):.4f} at least")
    return found


def synchronised(function: Callable[[], object]) -> Callable[[], object]:
    """The function, followed by waiting for the device, so that its time includes its work there."""
    import cupy

    def run() -> object:
        found = function()
        cupy.cuda.Device().synchronize()
        return found

    return run


def write(name: str, record: dict[str, Any]) -> Path:
    """Write a record to results/NAME.json, with the environment unless the record has one."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"environment": environment()} | record, indent=2) + "\n")
    print(f"written: results/{path.name}")
    return path
