"""Weights of rows: a row of weight w counts as w equal rows in a fit of K-Means or of a mixture; other algorithms refuse them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.kmeans.cpu import fit as fit_kmeans
from gpuclust.algorithms.mixture import GmmConfig
from gpuclust.algorithms.mixture.cpu import fit as fit_mixture
from gpuclust.algorithms.registry import FitInput
from gpuclust.compose import compose
from gpuclust.config import CleanConfig, DataConfig, ReduceConfig, RolesConfig, ScaleConfig
from gpuclust.data.clean import clean
from gpuclust.data.frames import PandasFrames
from gpuclust.data.read import read
from gpuclust.data.stream import read_streamed
from gpuclust.errors import ConfigurationError, FitError
from gpuclust.reducers.prepare import prepare
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.scratch import Scratch

FRAMES, BACKEND = PandasFrames(), CpuBackend()
N = 240


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    """Three clouds (n, 2), and whole weights (n,) from 1 to 4."""
    rng = np.random.default_rng(2)
    X = np.repeat([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]], N // 3, axis=0) + rng.normal(size=(N, 2))
    return X, rng.integers(1, 5, N).astype(np.float64)


def fitted(fit: Any, X: np.ndarray, config: Any, weight: np.ndarray | None = None) -> Any:
    return fit(FitInput(X, 0, BACKEND, ResultCache(0), "test", weight=weight), [config])[0]


@pytest.mark.parametrize("engine", ["fused", "library"])
def test_a_weight_counts_as_equal_rows_in_k_means(engine: str, rows: tuple[np.ndarray, np.ndarray]) -> None:
    X, weight = rows
    config = KMeansConfig(n_clusters=3, engine=engine, n_init=3)
    found = fitted(fit_kmeans, X, config, weight / weight.mean())
    repeated = fitted(fit_kmeans, np.repeat(X, weight.astype(int), axis=0), config)
    ours, theirs = (sorted(r.parameters["centers"].round(6).tolist()) for r in (found, repeated))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)  # clouds this far apart have one optimum
    assert found.metrics["inertia"] * weight.mean() == pytest.approx(repeated.metrics["inertia"], rel=1e-9)
    assert not np.allclose(ours, sorted(fitted(fit_kmeans, X, config).parameters["centers"].tolist()), atol=1e-3)


def test_a_weight_counts_as_equal_rows_in_a_mixture(rows: tuple[np.ndarray, np.ndarray]) -> None:
    X, weight = rows
    config = GmmConfig(n_clusters=3, tol=1e-8, max_iter=500)
    found = fitted(fit_mixture, X, config, weight / weight.mean())
    repeated = fitted(fit_mixture, np.repeat(X, weight.astype(int), axis=0), config)
    ours, theirs = (np.sort(r.parameters["weights"]) for r in (found, repeated))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)  # EM stops within its tolerance
    # The criteria are those of as many rows as there are.
    assert found.metrics["log_likelihood"] * weight.mean() == pytest.approx(
        repeated.metrics["log_likelihood"], rel=1e-5
    )
    free = 3 * 2 + 3 * 3 + 2
    assert found.metrics["bic"] == pytest.approx(-2 * found.metrics["log_likelihood"] + free * np.log(N))
    with pytest.raises(FitError, match=r"use cluster.engine=fused, or leave data.weight out"):
        fitted(fit_mixture, X, GmmConfig(n_clusters=3, engine="library"), weight)


@pytest.fixture(scope="module")
def file(rows: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    X, weight = rows
    path = tmp_path_factory.mktemp("weights") / "w.csv"
    frame = pd.DataFrame({"x": X[:, 0], "y": X[:, 1], "plays": weight, "zero": 0.0})
    frame.loc[0, "plays"], frame.loc[1, "plays"], frame.loc[2, "plays"] = np.nan, -1.0, 0.0
    frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    "data", [{"weight": "plays"}, {"weight": "popularity", "roles": RolesConfig(popularity="plays")}]
)
def test_a_column_or_a_role_has_the_weights(data: dict[str, Any], file: Path) -> None:
    table = clean(read(DataConfig(path=str(file), **data), FRAMES), CleanConfig(), FRAMES)
    assert table.features == ("x", "y")
    assert table.n_rows == N - 2
    (step,) = (s for s in table.audit.steps if s.rule == "weight")
    assert (step.rows_removed, step.detail) == (2, "no plays of at least 0")
    matrix = prepare(table, ScaleConfig(), ReduceConfig(), dtype="float32", key="m", backend=BACKEND)
    assert matrix.weight is not None
    assert matrix.weight.mean() == pytest.approx(1)
    assert matrix.weight[0] == 0
    expected = pd.read_csv(file)["plays"][2:].to_numpy()
    np.testing.assert_allclose(matrix.weight, expected / expected.mean())


def test_weights_that_cannot_be_used_are_refused_in_one_line(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.weight: .* has no column 'play'; did you mean plays"):
        read(DataConfig(path=str(file), weight="play"), FRAMES)
    table = clean(read(DataConfig(path=str(file), weight="zero"), FRAMES), CleanConfig(), FRAMES)
    with pytest.raises(ConfigurationError, match="every zero is 0 in the rows kept"):
        prepare(table, ScaleConfig(), ReduceConfig(), dtype="float32", key="m", backend=BACKEND)
    with (
        Scratch(tmp_path) as scratch,
        pytest.raises(ConfigurationError, match=r"data\.weight needs all rows in memory"),
    ):
        read_streamed(DataConfig(path=str(file), weight="plays"), CleanConfig(), FRAMES, scratch)
    with pytest.raises(
        ConfigurationError, match=r"cluster=hdbscan does not support weights of rows.* use cluster=kmeans or gmm"
    ):
        compose(["data.weight=popularity", "cluster=hdbscan"])
    assert compose(["data.weight=popularity", "cluster=gmm"]).data.weight == "popularity"
