"""K-Means with limits on the sizes of clusters: optimal assignments against a linear program, what is refused, and the whole path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linprog
from scipy.sparse import kron, vstack
from sklearn.datasets import make_blobs

import gpuclust as gc
from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.kmeans.sizes import assign_within, limit_sizes
from gpuclust.algorithms.registry import FitInput, fit
from gpuclust.cli import main
from gpuclust.errors import ConfigurationError, FitError
from gpuclust.metrics.stability import scaled
from gpuclust.runtime.blocks import BLOCK_ROWS, MemoryBlocks
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from tests.fitting import fit_one
from tests.journey import Journey, journey


def least_cost(costs: np.ndarray, low: int, high: int) -> float:
    """The optimum of the transportation problem, by HiGHS."""
    n, k = costs.shape
    sizes = kron(np.ones(n), np.eye(k), format="csr")
    found = linprog(
        costs.ravel(),
        A_ub=vstack([sizes, -sizes]),
        b_ub=np.concatenate([np.full(k, high), np.full(k, -low)]),
        A_eq=kron(np.eye(n), np.ones(k), format="csr"),
        b_eq=np.ones(n),
    )
    assert found.success
    return float(found.fun)


@pytest.mark.parametrize(("low", "high"), [(0, 14), (9, 30), (8, 13), (10, 10)], ids=lambda value: str(value))
def test_assignments_are_optimal(low: int, high: int) -> None:
    """Of clusters far from equal, of rows on a grid with many ties, and of random costs."""
    rng = np.random.default_rng(low + high)
    rows = np.concatenate([rng.normal(size=(70, 2)), 3 + rng.normal(size=(30, 2))])
    grid = rng.integers(0, 3, size=(100, 2)).astype(float)
    for points in (rows, grid):
        centers = points[rng.choice(100, 10, replace=False)]
        costs = ((points[:, None] - centers) ** 2).sum(axis=2)
        labels = assign_within(costs, low, high)
        sizes = np.bincount(labels, minlength=10)
        assert sizes.min() >= low
        assert sizes.max() <= high
        assert costs[np.arange(100), labels].sum() == pytest.approx(least_cost(costs, low, high), rel=1e-9)


def test_without_need_the_limits_change_nothing() -> None:
    X, _ = make_blobs([100, 100, 100], n_features=3, cluster_std=0.5, random_state=0)
    free, wide = (fit_one(X, KMeansConfig(n_clusters=3, **sizes)) for sizes in ({}, {"min_size": 50, "max_size": 200}))
    np.testing.assert_array_equal(free.labels, wide.labels)
    assert wide.metrics["inertia"] == pytest.approx(free.metrics["inertia"])
    assert free.options == {}
    assert free.parameters.keys() == {"centers"}


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_sizes_are_within_the_limits(metric: str) -> None:
    """Playlists of 30 to 200 tracks."""
    X = np.random.default_rng(0).standard_t(3, size=(1500, 6))
    if metric == "cosine":
        X /= np.linalg.norm(X, axis=1, keepdims=True)
    free, found = (
        fit_one(X, KMeansConfig(n_clusters=15, metric=metric, n_init=2, **sizes))
        for sizes in ({}, {"min_size": 90, "max_size": 110})
    )
    sizes = np.bincount(found.labels, minlength=15)
    assert sizes.min() >= 90
    assert sizes.max() <= 110
    assert np.bincount(free.labels).max() > 110, "without limits they differ"
    centers = found.parameters["centers"]
    sums = np.stack([X[found.labels == c].sum(axis=0) for c in range(15)])
    divisor = np.linalg.norm(sums, axis=1) if metric == "cosine" else sizes
    np.testing.assert_allclose(centers, sums / divisor[:, None], atol=1e-12)
    assert found.metrics["inertia"] == pytest.approx(((X - centers[found.labels]) ** 2).sum())
    assert free.metrics["inertia"] < found.metrics["inertia"] < 1.2 * free.metrics["inertia"]
    assert any("new rows join their nearest centre" in note for note in found.notes)


def test_each_round_lowers_the_sum_of_squares() -> None:
    """From poor centres: the result is better than the best assignment to them."""
    X = np.random.default_rng(1).normal(size=(400, 3))
    start = X[:8]
    costs = ((X[:, None] - start) ** 2).sum(axis=2)
    first = costs[np.arange(400), assign_within(costs, 40, 60)].sum()
    labels, centers, converged = limit_sizes(X, start, 40, 60)
    assert converged
    assert ((X - centers[labels]) ** 2).sum() < 0.9 * first


def test_sizes_that_are_impossible_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    X = np.random.default_rng(0).normal(size=(100, 2))
    refused: list[tuple[dict[str, Any], str]] = [
        ({"max_size": 20}, "4 clusters of at most 20 rows cannot hold the 100 rows; raise cluster.max_size"),
        ({"min_size": 30}, "4 clusters of at least 30 rows need more than the 100 rows; lower cluster.min_size"),
    ]
    for sizes, message in refused:
        with pytest.raises(FitError, match=message):
            fit_one(X, KMeansConfig(n_clusters=4, **sizes))
    with pytest.raises(FitError, match="more than 100,000,000"):
        limit_sizes(np.zeros((2_000_000, 1)), np.zeros((51, 1)), 1, None)
    assert main(["data=catalogue", "cluster=kmeans", "cluster.min_size=9", "cluster.max_size=8"]) == 2
    assert "cluster.min_size=9 is above cluster.max_size=8" in capsys.readouterr().err
    weighted = FitInput(np.eye(9), 0, CpuBackend(), ResultCache(0), "test", weight=np.ones(9))
    with pytest.raises(ConfigurationError, match=r"count each row once, so data\.weight cannot be used"):
        raise fit(weighted, [KMeansConfig(max_size=5, n_clusters=3)])[0]
    blocks = MemoryBlocks(np.zeros((BLOCK_ROWS + 1, 2), np.float32))
    with pytest.raises(ConfigurationError, match=r"need all rows in memory; use memory\.mode=resident"):
        raise fit(FitInput(blocks, 0, CpuBackend(), ResultCache(0), "test"), [KMeansConfig(max_size=50_000)])[0]


def test_a_refit_of_some_rows_has_the_limits_of_its_share() -> None:
    found = scaled(KMeansConfig(n_clusters=5, min_size=30, max_size=200), 0.5)
    assert (found.min_size, found.max_size) == (15, 101)
    free = KMeansConfig(n_clusters=5)
    assert scaled(free, 0.5) is free


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Journey:
    X, _ = make_blobs([150, 100, 50], n_features=3, centers=[[0, 0, 0], [5, 0, 3], [0, 5, 4]], random_state=0)
    sizes = ("cluster.n_clusters=3,4", "cluster.min_size=30", "cluster.max_size=105", "report.figures=false")
    return journey(tmp_path_factory.mktemp("sizes"), store_template, X, "cluster=kmeans", *sizes)


def test_an_export_has_the_limited_labels_and_predict_the_nearest_centre(swept: Journey) -> None:
    exported, out = swept.exported, swept.folder / "new.parquet"
    sizes = np.bincount(exported["cluster"])
    assert sizes.min() >= 30
    assert sizes.max() <= 105
    assert exported["distance"].notna().all()
    assert exported["confidence"].between(0, 1).all()
    assert main(["predict", str(swept.folder / "out"), str(swept.folder / "rows.csv"), "--out", str(out)]) == 0
    moved = pd.read_parquet(out)["cluster"].to_numpy() != exported["cluster"].to_numpy()
    assert 0 < moved.sum() < 100
    assert (exported["confidence"][moved] == 0).all(), "another centre is nearer to the rows that were moved"


def test_the_estimator_limits_sizes() -> None:
    X, _ = make_blobs([300, 60, 40], n_features=4, random_state=1)
    found = gc.KMeans(n_clusters=4, min_size=80, max_size=120, random_state=0).fit(X)
    sizes = np.bincount(found.labels_)
    assert sizes.min() >= 80
    assert sizes.max() <= 120
    assert found.inertia_ == pytest.approx(((X - found.cluster_centers_[found.labels_]) ** 2).sum())
    with pytest.raises(ValueError, match="fit without sample_weight"):
        gc.KMeans(n_clusters=4, max_size=120).fit(X, sample_weight=np.ones(400))
    with pytest.raises(ValueError, match="raise max_size or n_clusters"):
        gc.KMeans(n_clusters=2, max_size=120).fit(X)
