"""Gaussian mixture: one EM iteration on 1.16 million rows, compared with scikit-learn's, for each covariance type.

    python experiments/bench/gmm.py            # about two minutes on two cores; --gpu runs only the part on a GPU

An iteration is the work of `fit` between two tests of convergence: scikit-learn's `_e_step` and `_m_step`, and our `em_pass`
and `m_step`, from the same parameters. Their results are compared first. On a GPU, our CUDA pass is compared with scikit-learn's
array API on CuPy, as cuML has no mixtures, and whole fits, with the search for their start, are compared with those of the CPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from typing import Any

os.environ["SCIPY_ARRAY_API"] = "1"  # scikit-learn requires it; SciPy reads it when it is imported

import numpy as np
from common import enlarged, gpu_too, heading, interleaved, only_gpu, real_tracks, synchronised, whole_fits, write
from sklearn import config_context
from sklearn.mixture import GaussianMixture as Reference

from gpuclust.algorithms.mixture.fit import GaussianMixture, em_backend
from gpuclust.algorithms.mixture.m_step import MixtureParameters, m_step

em_pass = em_backend("cpu").em_pass

ROWS = 1_160_000
COMPONENTS = 5
REPEATS = 7
CONSECUTIVE = 10  # of ours, as in a fit; the threads of scikit-learn's BLAS spin for a while into the first
CASES = [("full", "float64"), ("full", "float32"), ("tied", "float64"), ("diag", "float64"), ("spherical", "float64")]
TARGETS = {("full", "float64"): 25, ("full", "float32"): 30}
AGREEMENT = {"float64": 1e-9, "float32": 1e-5}  # with scikit-learn in float64, of log-likelihood and means

FIRST_USE = """
import time
import numpy as np
from gpuclust.algorithms.mixture.fit import GaussianMixture
X = np.random.default_rng(0).normal(size=(200, 5))
labels = np.arange(200) % 2
start, busy = time.perf_counter(), time.process_time()
GaussianMixture(2, kmeans=lambda *_: labels, max_iter=3).fit(X).evaluate(X)
print(time.perf_counter() - start, time.process_time() - busy)
"""


def reference(X: np.ndarray, p: MixtureParameters, covariance_type: str) -> Reference:
    """scikit-learn's mixture with these parameters, in X's dtype."""
    model = Reference(COMPONENTS, covariance_type=covariance_type)
    model.weights_, model.means_, model.covariances_, model.precisions_cholesky_ = (
        part.astype(X.dtype) for part in (p.weights, p.means, p.covariances, p.precisions_cholesky)
    )
    return model


def fitted(X: np.ndarray, covariance_type: str) -> MixtureParameters:
    """Parameters that have not converged: three iterations on every fiftieth row."""
    model = GaussianMixture(COMPONENTS, covariance_type=covariance_type, random_state=0, max_iter=3)
    model.fit(X[::50].astype(np.float64))
    return MixtureParameters(model.weights_, model.means_, model.covariances_, model.precisions_cholesky_)


def measure(X: np.ndarray, covariance_type: str, dtype: str) -> dict[str, Any]:
    """One iteration from the same parameters: agreement, then both times."""
    p = fitted(X, covariance_type)
    X = X.astype(dtype)

    def theirs() -> tuple[float, Reference]:
        model = reference(X, p, covariance_type)
        log_likelihood, log_resp = model._e_step(X)
        model._m_step(X, log_resp)
        return float(log_likelihood), model

    def ours() -> tuple[float, MixtureParameters]:
        found = em_pass(X, p.weights, p.means, p.precisions_cholesky, covariance_type)
        return found.log_likelihood / len(X), m_step(found, p.means, covariance_type, 1e-6, 1e-15)

    log_likelihood, after = ours()
    expected, model = theirs()
    single: dict[str, float] = {}
    if dtype == "float32":  # scikit-learn sums in float32: compare both with its float64
        exact = reference(X.astype(np.float64), p, covariance_type)
        expected, log_resp = exact._e_step(X.astype(np.float64))
        exact._m_step(X.astype(np.float64), log_resp)
        single = {"scikit_learn_means_off_by": float(np.abs(model.means_ - exact.means_).max())}
        model = exact
    difference = abs(log_likelihood / expected - 1)
    means = float(np.abs(after.means - model.means_).max())
    assert difference < AGREEMENT[dtype], f"log-likelihoods differ by {difference:.1e}"
    assert means < AGREEMENT[dtype], f"means differ by {means:.1e}"
    seconds = interleaved({"scikit-learn": theirs, "gpuclust": lambda: [ours() for _ in range(CONSECUTIVE)]}, REPEATS)
    seconds["gpuclust"] /= CONSECUTIVE
    ratio = seconds["scikit-learn"] / seconds["gpuclust"]
    target = TARGETS.get((covariance_type, dtype))
    print(
        f"{covariance_type:>9} {dtype}: scikit-learn {1e3 * seconds['scikit-learn']:7.1f} ms, gpuclust "
        f"{1e3 * seconds['gpuclust']:5.1f} ms, {ratio:5.1f} times as fast"
        + (f" (target {target})" if target else "")
        + f"; log-likelihoods differ by {difference:.0e}, means by {means:.0e}"
    )
    return {
        "covariance_type": covariance_type,
        "dtype": dtype,
        "seconds": seconds,
        "ratio": ratio,
        "target": target,
        "log_likelihood_difference": difference,
        "means_difference": means,
        **single,
    }


def first_use() -> dict[str, float]:
    """Seconds to compile the kernels of one dtype, which are those of all covariance types, and to load them again."""
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in ("compiled", "from_cache"):
            environment = os.environ | {"NUMBA_CACHE_DIR": cache}
            done = subprocess.run(
                [sys.executable, "-c", FIRST_USE], capture_output=True, text=True, check=True, env=environment
            )
            found[name], found[f"{name}_cpu"] = map(float, done.stdout.split())
    return found


def on_gpu() -> dict[str, Any]:
    """One iteration from the same parameters on the device, for every case; the reference is our pass on the CPU."""
    import cupy as cp

    small, source = real_tracks(5, distinct=True)
    rows = enlarged(small, ROWS)
    device = em_backend("cuda")
    found = []
    for covariance_type, dtype in CASES:
        p = fitted(rows, covariance_type)
        X = rows.astype(dtype)
        there = cp.asarray(X)
        model = reference(X, p, covariance_type)
        for name in ("weights_", "means_", "covariances_", "precisions_cholesky_"):
            setattr(model, name, cp.asarray(getattr(model, name)))

        def theirs(there: Any = there, model: Reference = model) -> float:
            with config_context(array_api_dispatch=True):  # SCIPY_ARRAY_API=1 is set at the top
                log_likelihood, log_resp = model._e_step(there)
                model._m_step(there, log_resp)
            return float(log_likelihood)

        def ours(there: Any = there, p: MixtureParameters = p, covariance_type: str = covariance_type) -> float:
            sums = device.em_pass(there, p.weights, p.means, p.precisions_cholesky, covariance_type)
            m_step(sums, p.means, covariance_type, 1e-6, 1e-15)
            return sums.log_likelihood / ROWS

        expected = em_pass(X, p.weights, p.means, p.precisions_cholesky, covariance_type).log_likelihood / ROWS
        difference = abs(ours() / expected - 1)  # compiles
        assert difference < AGREEMENT[dtype], f"log-likelihoods of both devices differ by {difference:.1e}"
        theirs_differs = abs(theirs() / expected - 1)  # moves its parameters on; the work stays the same
        seconds = interleaved({"array_api": synchronised(theirs), "gpuclust": synchronised(ours)}, REPEATS)
        ratio = seconds["array_api"] / seconds["gpuclust"]
        print(
            f"{covariance_type:>9} {dtype}: array API on CuPy {1e3 * seconds['array_api']:7.2f} ms, gpuclust "
            f"{1e3 * seconds['gpuclust']:6.2f} ms, {ratio:5.1f} times as fast; log-likelihoods differ from the CPU's by "
            f"{theirs_differs:.0e} and {difference:.0e}"
        )
        case = {"covariance_type": covariance_type, "dtype": dtype, "seconds": seconds, "ratio": ratio}
        found.append(case | {"log_likelihood_difference": difference, "array_api_difference": theirs_differs})
    from gpuclust.algorithms.mixture import GmmConfig

    engines = {name: [GmmConfig(n_clusters=COMPONENTS, engine=name)] for name in ("auto", "library")}
    fits = whole_fits(rows.astype(np.float32), engines)
    return {"n_rows": ROWS, "n_components": COMPONENTS, "data": source, "cases": found, "whole_fits": fits}


def main() -> None:
    """Print and write the figures."""
    if not only_gpu(__doc__ or ""):
        on_cpu()
    gpu_too("gmm", on_gpu)


def on_cpu() -> None:
    small, source = real_tracks(5, distinct=True)
    X = enlarged(small, ROWS)
    facts = heading(
        f"One EM iteration, {ROWS:,} x {X.shape[1]}, {COMPONENTS} components",
        f"rows drawn from {source}; medians of {REPEATS} interleaved repeats",
    )
    start = time.perf_counter()
    cases = [measure(X, *case) for case in CASES]
    compiling = first_use()
    print(f"first use: {compiling['compiled']:.1f} s, from the cache {compiling['from_cache']:.2f} s")
    print(f"all in {time.perf_counter() - start:.0f} s")
    record = {"n_rows": ROWS, "n_features": X.shape[1], "n_components": COMPONENTS, "repeats": REPEATS, "data": source}
    write("gmm", {"environment": facts, **record, "cases": cases, "first_use_seconds": compiling})


if __name__ == "__main__":
    main()
