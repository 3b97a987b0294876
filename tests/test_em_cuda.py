"""The CUDA EM pass against the CPU one: under numba's CUDA simulator anywhere, and on the device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from gpuclust.algorithms.mixture import short_em
from gpuclust.algorithms.mixture.em import COVARIANCE_TYPES
from gpuclust.algorithms.mixture.fit import GaussianMixture, em_backend
from gpuclust.errors import FitError

# The same terms in another order, of sums of a few hundred terms up to 100: float64 to 1e-12, float32 to 1e-7 a term.
TOLERANCE = {"float64": 1e-11, "float32": 1e-4}

SIMULATED = """
import sys
import numpy as np
from numba import cuda
from tests.gpu_fakes import simulator
from gpuclust.algorithms.mixture import em_cuda, kernels_cuda
from gpuclust.algorithms.mixture.fit import GaussianMixture, em_backend

simulator.install()
em_cuda.TOTAL_WARPS, em_cuda.ROWS_IN_REGISTERS = 2, 2  # so that blocks take several tiles, and add to their lines more than once
em_cuda.MERGERS, kernels_cuda.M_STEP_THREADS = 2, 4
names = ("weights", "means", "covariances", "precisions_cholesky", "lower_bounds")
for number in range(int(sys.argv[2])):
    given = np.load(f"{sys.argv[1]}/given{number}.npz")
    em_cuda.WARPS = int(given["warps"])
    kernels_cuda.WHOLE, kernels_cuda.BLOCK = (dict.fromkeys(("float32", "float64"), n) for n in given["features"].tolist())
    for function in (em_cuda.em_launch, em_cuda.score_launch, kernels_cuda.em_tiles, kernels_cuda.score_rows):
        function.cache_clear()
    device = em_backend("cuda")
    X, labels = cuda.to_device(given["X"]), given["labels"]
    weight = given["weight"] if given["weight"].size else None
    parameters = (given["weights"], given["means"], given["cholesky"], str(given["covariance_type"]))
    em = device.em_pass(X, *parameters, weight)
    by_label = device.label_pass(X, labels, given["means"], parameters[3], weight)
    scores = device.score_pass(X, *parameters, weight, True)
    model = GaussianMixture(
        len(given["means"]), covariance_type=parameters[3], max_iter=2, device=device, kmeans=lambda *_: np.abs(labels)
    ).fit(X, weight)
    out = {f"em_{name}": value for name, value in vars(em).items()}
    out |= {f"label_{name}": value for name, value in vars(by_label).items()}
    out |= {f"score_{name}": value for name, value in vars(scores).items()}
    out |= {f"fitted_{name}": getattr(model, f"{name}_") for name in names}
    np.savez(f"{sys.argv[1]}/found{number}.npz", **out)
"""


def example(n: int, d: int, k: int, covariance_type: str, dtype: str, weighted: bool) -> dict[str, Any]:
    """A small matrix, parameters, labels (-1 for rows to leave out) and weights."""
    random = np.random.default_rng(n)
    X = (random.normal(size=(n, d)) + 2 * random.integers(0, k, (n, 1))).astype(dtype)
    roots = np.triu(0.3 * random.normal(size=(k, d, d)), 1) + np.eye(d) * random.uniform(0.5, 2, (k, 1, d))
    diagonal = np.diagonal(roots, axis1=1, axis2=2)
    by_type = {"full": roots, "tied": roots[0], "diag": diagonal, "spherical": diagonal[:, 0]}
    labels = random.integers(-1, k, n).astype(np.int32)
    labels[: 2 * k] = np.repeat(np.arange(k), 2)
    return {
        "X": X,
        "weights": random.dirichlet(np.full(k, 5.0)),
        "means": X[:k].astype(np.float64) + 0.01,
        "cholesky": by_type[covariance_type],
        "covariance_type": covariance_type,
        "labels": labels,
        "weight": random.uniform(0.1, 3, n) if weighted else np.empty(0),
    }


def on_the_cpu(given: dict[str, Any]) -> dict[str, np.ndarray]:
    """What the CPU finds, under the names that the simulated run writes."""
    weight = given["weight"] if given["weight"].size else None
    kind = given["covariance_type"]
    parameters = (given["weights"], given["means"], given["cholesky"], kind)
    cpu = em_backend("cpu")
    found = {
        "em": cpu.em_pass(given["X"], *parameters, weight),
        "label": cpu.label_pass(given["X"], given["labels"], given["means"], kind, weight),
        "score": cpu.score_pass(given["X"], *parameters, weight, True),
    }
    model = GaussianMixture(
        len(given["means"]), covariance_type=kind, max_iter=2, kmeans=lambda *_: np.abs(given["labels"])
    ).fit(given["X"], weight)
    named = {f"{part}_{name}": np.asarray(v) for part, result in found.items() for name, v in vars(result).items()}
    names = ("weights", "means", "covariances", "precisions_cholesky", "lower_bounds")
    return named | {f"fitted_{name}": np.asarray(getattr(model, f"{name}_")) for name in names}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, Any], Any]]:
    """Small examples, and the results of all of them from one process with the simulator."""
    folder = tmp_path_factory.mktemp("em")
    cases = []
    for n, d, k, dtype, weighted, warps, features in (
        (70, 3, 2, "float64", True, 1, (8, 8)),  # a warp for each component, tiles of all rows
        (70, 3, 2, "float32", False, 4, (8, 8)),  # two warps for each component
        (66, 3, 2, "float64", False, 1, (1, 2)),  # the triangle in squares, more parts than warps
        (33, 1, 3, "float64", False, 1, (8, 8)),
    ):
        for covariance_type in COVARIANCE_TYPES:
            given = example(n, d, k, covariance_type, dtype, weighted)
            np.savez(folder / f"given{len(cases)}.npz", **given, warps=warps, features=features)
            cases.append(given)
    done = subprocess.run(
        [sys.executable, "-c", SIMULATED, folder, str(len(cases))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [(given, np.load(folder / f"found{number}.npz")) for number, given in enumerate(cases)]


@pytest.mark.parametrize("number", range(16))
def test_simulated_device_agrees(number: int, simulated: list[tuple[dict[str, Any], Any]]) -> None:
    given, found = simulated[number]
    tolerance = TOLERANCE[given["X"].dtype.name]
    for name, expected in on_the_cpu(given).items():
        np.testing.assert_allclose(found[name], expected, rtol=tolerance, atol=tolerance, err_msg=name)


RUNS = """
import json
import numpy as np
from numba import cuda
from tests.gpu_fakes import simulator
from tests.gpu_fakes.device import DEVICE, DOWN, LAUNCH, UP
from gpuclust.algorithms.mixture import em_cuda, kernels_cuda, short_em
from gpuclust.algorithms.mixture.fit import GaussianMixture, em_backend
from gpuclust.errors import FitError
from tests.test_em_cuda import BOTH, given_start

simulator.install()
em_cuda.WARPS, em_cuda.TOTAL_WARPS, em_cuda.ITERATIONS_PER_CHECK = 1, 2, 2
em_cuda.MERGERS, kernels_cuda.M_STEP_THREADS = 2, 4
short_em.ROUNDS = BOTH["rounds"]
X = BOTH["X"]
out = {}
passes = em_backend("cuda")
there = cuda.to_device(X)
with DEVICE.measure() as counts:
    model = GaussianMixture(2, device=passes, **given_start(X), tol=BOTH["tol"]).fit(there)
out["converged"] = [model.n_iter_, model.converged_, model.lower_bounds_, model.means_.tolist()]
out["up"], out["down"] = ([event.n_bytes for event in counts.of(kind)] for kind in (UP, DOWN))
out["launches"] = dict(counts.launches())
for name, rows in BOTH["failing"].items():
    try:
        GaussianMixture(2, device=passes, reg_covar=0, **given_start(rows, name)).fit(cuda.to_device(rows))
    except FitError as error:
        out[name] = str(error)
start = short_em.short_em_init("full", 1e-6, passes)
searched = GaussianMixture(2, kmeans=start, random_state=0, max_iter=2, device=passes).fit(there)
out["searched"] = [searched.lower_bounds_, searched.means_.tolist()]
print(json.dumps(out))
"""


def given_start(X: np.ndarray, name: str = "") -> dict[str, Any]:
    """A start that needs no pass: two components at the first and the last row, or far from it."""
    means = X[[0, -1]] + ([[0.0], [1e6]] if name == "empty" else 0.0)
    return {"weights_init": [0.5, 0.5], "means_init": means, "precisions_init": np.stack([np.eye(X.shape[1])] * 2)}


def _both() -> dict[str, Any]:
    """What the simulated run and this process fit: rows in two groups, and rows on which a fit fails."""
    X = np.random.default_rng(0).normal(size=(50, 2)) + np.repeat([[0.0], [5.0]], 25, axis=0)
    ill_defined, missing = np.round(X), X.copy()
    ill_defined[:, 1] = 3  # a column without variance, in numbers that give no rounding errors
    missing[3, 1] = np.nan
    failing = {"ill_defined": ill_defined, "empty": X, "missing": missing}
    return {"X": X, "tol": 0.02, "rounds": ((30, 3, 2), (40, 2, 1)), "failing": failing}


BOTH = _both()


@pytest.fixture(scope="module")
def runs() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", RUNS],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_run_on_the_device_ends_as_on_the_host(runs: dict[str, Any]) -> None:
    host = GaussianMixture(2, **given_start(BOTH["X"]), tol=BOTH["tol"]).fit(BOTH["X"])
    n_iter, converged, bounds, means = runs["converged"]
    assert (n_iter, converged) == (host.n_iter_, True)
    assert n_iter % 2, "it ends between two checks by the host, and later launches leave the result as it is"
    np.testing.assert_allclose(bounds, host.lower_bounds_, rtol=1e-11)
    np.testing.assert_allclose(means, host.means_, rtol=1e-11)


def test_an_iteration_copies_nothing(runs: dict[str, Any]) -> None:
    n_iter = runs["converged"][0]
    iterations = n_iter + 1  # until the next check
    assert runs["launches"] == {
        f"algorithms.mixture.kernels_cuda.{name}": iterations for name in ("em_tiles_kernel", "merge", "m_step_kernel")
    }
    # The parameters and the cells that say that nothing has failed, once; a check by the host; the state at the end.
    k, d = 2, 2
    assert runs["up"] == [8 * k * (2 + 2 * d + d * d), 8 * (4 + 2 * k)]
    assert runs["down"] == [8 * 4] * (iterations // 2) + [8 * (4 + 2 * k + 200 + k * (1 + d + 2 * d * d))]


def test_the_device_names_the_component_that_fails(runs: dict[str, Any]) -> None:
    for name in ("ill_defined", "empty"):
        rows = BOTH["failing"][name]
        with pytest.raises(FitError) as host:
            GaussianMixture(2, reg_covar=0, **given_start(rows, name)).fit(rows)
        assert runs[name] == str(host.value)
    assert "not finite" in runs["missing"]


def test_the_search_for_a_start_runs_on_the_device(runs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of the sample are taken by a kernel: numba's arrays take no index arrays."""
    monkeypatch.setattr(short_em, "ROUNDS", BOTH["rounds"])
    start = short_em.short_em_init("full", 1e-6)
    host = GaussianMixture(2, kmeans=start, random_state=0, max_iter=2).fit(BOTH["X"])
    bounds, means = runs["searched"]
    np.testing.assert_allclose(bounds, host.lower_bounds_, rtol=1e-9)
    np.testing.assert_allclose(means, host.means_, rtol=1e-9, atol=1e-9)


def test_the_memory_of_fits_with_other_numbers_of_components_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpuclust.algorithms.mixture import em_cuda

    class Space:
        def __init__(self, X: np.ndarray, k: int, *_: object) -> None:
            self.k = k

    monkeypatch.setattr(em_cuda, "Workspace", Space)
    passes, X = em_cuda.CudaPasses(), np.zeros((9, 2))
    for k in range(2, 30):
        first, short = passes._workspace(X, k, "full", 100), passes._workspace(X[:3], k, "full", 30)
        assert passes._workspace(X, k, "full", 100) is first
        assert list(passes._workspaces.values()) == [first, short]


def test_a_mixture_that_is_too_wide_for_the_device_is_not_told_to_use_float32() -> None:
    """Rows are scored in float64 whatever the matrix is."""
    from gpuclust.algorithms.mixture.em_cuda import em_launch, score_launch

    assert em_launch(1000, 300, 5, "float32", False).blocks
    with pytest.raises(
        FitError, match=r"5 components of 300 features are too many .*; use backend=cpu, fewer features"
    ) as found:
        score_launch(1000, 300, 5, "float64", False)
    assert "float32" not in str(found.value)


def device() -> Any:
    """numba.cuda where it finds a device; skips, saying why, where it does not."""
    cuda = pytest.importorskip("numba.cuda", reason="numba has no CUDA target here")
    if not cuda.is_available():
        pytest.skip("numba.cuda finds no GPU")
    return cuda


@pytest.mark.gpu
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize(
    ("n", "d", "k", "dtype"), [(100_003, 5, 5, "float64"), (100_003, 12, 9, "float32"), (64, 1, 1, "float64")]
)
def test_device_agrees(n: int, d: int, k: int, dtype: str, covariance_type: str) -> None:
    cuda = device()
    passes = em_backend("cuda")
    given = example(n, d, k, covariance_type, dtype, weighted=True)
    X, weight = cuda.to_device(given["X"]), cuda.to_device(given["weight"])
    parameters = (given["weights"], given["means"], given["cholesky"], covariance_type)
    expected = on_the_cpu(given)
    found = {
        "em": passes.em_pass(X, *parameters, weight),
        "label": passes.label_pass(X, given["labels"], given["means"], covariance_type, weight),
        "score": passes.score_pass(X, *parameters, weight, True),
    }
    tolerance = 10 * TOLERANCE[dtype]
    for part, result in found.items():
        for name, value in vars(result).items():
            wanted = expected[f"{part}_{name}"]
            if name == "labels":  # rows on a border may fall on either side
                assert (value != wanted).mean() <= tolerance
                continue
            scale = np.abs(np.nan_to_num(wanted)).max() + 1
            np.testing.assert_allclose(value, wanted, rtol=0, atol=tolerance * scale, err_msg=f"{part}_{name}")


@pytest.mark.gpu
@pytest.mark.parametrize("init_params", ["kmeans", "random"])
def test_mixture_on_the_device_is_the_mixture_on_the_host(init_params: str) -> None:
    cuda = device()
    X = example(50_000, 5, 4, "full", "float64", weighted=False)["X"]
    host = GaussianMixture(4, random_state=0, init_params=init_params).fit(X)
    there = GaussianMixture(4, random_state=0, init_params=init_params, device="cuda").fit(cuda.to_device(X))
    assert there.n_iter_ == host.n_iter_
    np.testing.assert_allclose(there.lower_bounds_, host.lower_bounds_, rtol=1e-9)
    np.testing.assert_allclose(there.covariances_, host.covariances_, rtol=1e-6, atol=1e-6)
