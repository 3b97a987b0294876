"""The EM pass on the CPU against the formulas as a textbook writes them, in NumPy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuclust.algorithms.mixture import kernels_cpu as em_blocks
from gpuclust.algorithms.mixture import vector_math
from gpuclust.algorithms.mixture.em import COVARIANCE_TYPES, EMStatistics
from gpuclust.algorithms.mixture.fit import em_backend
from gpuclust.algorithms.mixture.m_step import precisions, precisions_cholesky
from gpuclust.runtime.jit import compiled

# One pass sums n terms of order 1 in another order than NumPy: n * 1e-16, with room for the condition of a precision.
# In float32 each term has an error of 1e-7 times the condition; sums are float64, so the errors average out.
PASS = {"float64": 1e-11, "float32": 2e-5}

CPU = em_backend("cpu")

types = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)


def blobs(n: int, d: int, k: int, seed: int, spread: float = 3.0) -> np.ndarray:
    """Rows of k clusters with correlated features."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(d, d)) / np.sqrt(d) + np.eye(d)
    return random.normal(size=(n, d)) @ mixing + spread * random.normal(size=(k, d))[random.integers(0, k, n)]


def parameters(X: np.ndarray, k: int, covariance_type: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and precision factors that could be a mixture of X."""
    random = np.random.default_rng(seed)
    d = X.shape[1]
    means = X[random.choice(len(X), k, replace=False)].astype(np.float64)
    roots = random.normal(size=(k, d, d)) / np.sqrt(d) + 2 * np.eye(d)
    full = roots @ roots.transpose(0, 2, 1)
    variances = np.diagonal(full, axis1=1, axis2=2)
    by_type = {"full": full, "tied": full[0], "diag": variances, "spherical": variances[:, 0]}
    return random.dirichlet(np.full(k, 5.0)), means, precisions_cholesky(by_type[covariance_type], covariance_type)


def plainly(
    X: np.ndarray,
    weights: np.ndarray,
    means: np.ndarray,
    cholesky: np.ndarray,
    covariance_type: str,
    sample_weight: np.ndarray | None = None,
) -> tuple[EMStatistics, np.ndarray, np.ndarray]:
    """The pass as the textbook writes it, in float64: statistics, log p of each row, responsibilities."""
    X = X.astype(np.float64)
    n, d = X.shape
    precision = precisions(cholesky, covariance_type)
    full = {
        "full": lambda: precision,
        "tied": lambda: np.broadcast_to(precision, (len(means), d, d)),
        "diag": lambda: np.stack([np.diag(p) for p in precision]),
        "spherical": lambda: np.stack([p * np.eye(d) for p in precision]),
    }[covariance_type]()
    diff = X[:, None, :] - means
    joint = (
        np.log(weights)
        + 0.5 * np.linalg.slogdet(full)[1]
        - 0.5 * d * np.log(2 * np.pi)
        - 0.5 * np.einsum("nki,kij,nkj->nk", diff, full, diff)
    )
    log_prob = np.logaddexp.reduce(joint, axis=1)
    shares = np.exp(joint - log_prob[:, None])
    w = np.ones(n) if sample_weight is None else sample_weight
    weighted = shares * w[:, None]
    pattern = "nk,nki,nkj->kij" if covariance_type in ("full", "tied") else "nk,nki,nki->ki"
    statistics = EMStatistics(
        float(w @ log_prob),
        weighted.sum(axis=0),
        np.einsum("nk,nki->ki", weighted, diff),
        np.einsum(pattern, weighted, diff, diff),
    )
    return statistics, log_prob, shares


def assert_same(found: EMStatistics, expected: EMStatistics, tolerance: float) -> None:
    """Equal to `tolerance` times the largest entry: entries that cancel to nearly 0 keep the error of their terms."""
    for name in ("log_likelihood", "counts", "sums", "scatter"):
        wanted = np.asarray(getattr(expected, name))
        scale = np.abs(expected.scatter).max() + np.abs(expected.sums).max() if name == "sums" else np.abs(wanted).max()
        np.testing.assert_allclose(getattr(found, name), wanted, rtol=0, atol=tolerance * (scale + 1), err_msg=name)


@types
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("n", "d", "k"), [(1, 1, 1), (4, 2, 4), (300, 1, 2), (em_blocks.ROWS + 1, 5, 5), (700, 40, 3), (20_000, 7, 4)]
)
def test_pass_equals_the_textbook(n: int, d: int, k: int, dtype: str, covariance_type: str, seed: int) -> None:
    X = blobs(n, d, k, seed).astype(dtype)
    given_parameters = parameters(X, k, covariance_type, seed)
    expected, log_prob, shares = plainly(X, *given_parameters, covariance_type)
    assert_same(CPU.em_pass(X, *given_parameters, covariance_type), expected, PASS[dtype])
    scores = CPU.score_pass(X, *given_parameters, covariance_type, responsibilities=True)
    np.testing.assert_allclose(scores.log_prob, log_prob, rtol=PASS[dtype], atol=PASS[dtype])
    np.testing.assert_allclose(scores.responsibilities, shares, rtol=0, atol=10 * PASS[dtype])
    np.testing.assert_allclose(scores.confidence, shares.max(axis=1), rtol=0, atol=1e-4 if dtype == "float32" else 1e-7)
    clear = _margin(shares) > 1e-4
    assert (scores.labels == shares.argmax(axis=1))[clear].all()
    assert scores.log_likelihood == pytest.approx(expected.log_likelihood, rel=PASS[dtype], abs=PASS[dtype])
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(np.where(shares > 0, shares * np.log(shares), 0.0))
    assert scores.entropy == pytest.approx(entropy, rel=20 * PASS[dtype], abs=n * PASS[dtype])


def _margin(shares: np.ndarray) -> np.ndarray:
    """How far the largest share is above the second."""
    if shares.shape[1] == 1:
        return np.ones(len(shares))
    ordered = np.sort(shares, axis=1)
    return ordered[:, -1] - ordered[:, -2]


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 1200),
    d=st.integers(1, 12),
    k=st.integers(1, 9),
    seed=st.integers(0, 2**31),
    covariance_type=st.sampled_from(COVARIANCE_TYPES),
    far=st.sampled_from([0.0, 1e6]),
    repeat=st.booleans(),
)
def test_pass_equals_the_textbook_anywhere(
    n: int, d: int, k: int, seed: int, covariance_type: str, far: float, repeat: bool
) -> None:
    k = min(k, n)
    X = np.round(blobs(n, d, k, seed), 3) + far  # repeated rows and, far away, few digits behind the point
    if repeat:
        X[n // 2 :] = X[: n - n // 2]
    given_parameters = parameters(X, k, covariance_type, seed)
    weight = np.random.default_rng(seed).uniform(0, 3, n)
    expected, _, _ = plainly(X, *given_parameters, covariance_type, weight)
    assert_same(CPU.em_pass(X, *given_parameters, covariance_type, weight), expected, PASS["float64"])


@types
def test_float32_far_from_the_origin(covariance_type: str, seed: int) -> None:
    """Near 1e6 a float32 has steps of 1/16, so a mean that is rounded to one would shift every density."""
    X = np.round(16 * blobs(4000, 3, 3, seed, spread=30)).astype(np.float64) / 16 + 1e6
    given_parameters = parameters(X, 3, covariance_type, seed)
    weights, means, cholesky = given_parameters
    means = means + 0.02
    expected, _, _ = plainly(X, weights, means, cholesky, covariance_type)
    found = CPU.em_pass(X.astype(np.float32), weights, means, cholesky, covariance_type)
    assert_same(found, expected, PASS["float32"])


def test_order_and_read_only_memory_change_nothing() -> None:
    X = blobs(3000, 5, 3, seed=0)
    read_only = X.copy()
    read_only.flags.writeable = False
    given_parameters = parameters(X, 3, "full", seed=0)
    plain = CPU.em_pass(X, *given_parameters, "full")
    n_versions = len(em_blocks.em_chunk.signatures)
    for same in (np.asfortranarray(X), read_only, np.repeat(X, 2, axis=1)[:, ::2], pd.DataFrame(X).to_numpy()):
        other = CPU.em_pass(same, *given_parameters, "full")
        np.testing.assert_array_equal(other.scatter, plain.scatter)
        assert other.log_likelihood == plain.log_likelihood
    assert len(em_blocks.em_chunk.signatures) == n_versions


def test_result_has_the_same_bits_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    X = blobs(40_000, 3, 3, seed=0)
    given_parameters = parameters(X, 3, "full", seed=0)
    found = []
    for n_threads in (1, 2, 5):
        monkeypatch.setattr("gpuclust.runtime.threads.get_num_threads", lambda n=n_threads: n)
        found.append(CPU.em_pass(X, *given_parameters, "full"))
    for other in found[1:]:
        assert other.log_likelihood == found[0].log_likelihood
        np.testing.assert_array_equal(other.scatter, found[0].scatter)


def test_statistics_of_parts_add_up() -> None:
    X = blobs(5000, 3, 2, seed=0)
    given_parameters = parameters(X, 2, "full", seed=0)
    parts = CPU.em_pass(X[:1700], *given_parameters, "full") + CPU.em_pass(X[1700:], *given_parameters, "full")
    assert_same(parts, CPU.em_pass(X, *given_parameters, "full"), 1e-13)


def test_exp_and_log_are_exact_to_a_few_last_bits() -> None:
    random = np.random.default_rng(0)
    for dtype, low, exp, log in (
        (np.float64, -599, vector_math._exp64, vector_math._log64),
        (np.float32, -59, vector_math._exp32, vector_math._log32),
    ):
        x = np.concatenate([random.uniform(low, 0, 3000), -(10.0 ** random.uniform(-12, 0, 1000)), [0]]).astype(dtype)
        y = np.concatenate([np.exp(random.uniform(0, 60, 3000)), 1 + 10.0 ** random.uniform(-6, 0, 1000), [1]]).astype(
            dtype
        )
        exact = np.longdouble
        bits = np.finfo(dtype).eps
        np.testing.assert_allclose(np.array([exp(v) for v in x], dtype=exact), np.exp(x.astype(exact)), rtol=2 * bits)
        np.testing.assert_allclose(np.array([log(v) for v in y], dtype=exact), np.log(y.astype(exact)), rtol=2 * bits)
        assert exp(dtype(2 * low)) == 0
        assert exp(dtype(-np.inf)) == 0
        assert np.isnan(exp(dtype(np.nan)))


def test_kernels_work_where_no_cache_can_be_written() -> None:
    """numba finds no place for a function without a file, as for one whose folders are all read-only."""
    namespace: dict[str, Any] = {}
    exec("def double(x):\n    return 2 * x\n", namespace)
    assert compiled(fastmath={"contract"})(namespace["double"])(21) == 42


BITS = """
import numpy as np
from gpuclust.algorithms.mixture.fit import em_backend
X = np.random.default_rng(0).normal(size=(3000, 7))
precisions = np.stack([1.2 * np.eye(7)] * 4)
found = em_backend("cpu").em_pass(X, np.full(4, 0.25), X[:4], precisions, "full")
print(found.log_likelihood.hex(), found.counts.tobytes().hex(), found.sums.tobytes().hex(), found.scatter.tobytes().hex())
"""


def test_compiled_and_cached_kernels_give_the_same_bits(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    compiling, loading = (
        subprocess.run([sys.executable, "-c", BITS], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert list(tmp_path.rglob("*.nbc")), "the first process has filled the cache"
    assert compiling == loading
