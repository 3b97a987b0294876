"""Agglomerative clustering: the tree against SciPy's, its cuts against scikit-learn's, centres for many rows, and the whole path."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.cluster.hierarchy import linkage
from sklearn.cluster import AgglomerativeClustering
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import parametrize_with_checks

import gpuclust as gc
from gpuclust.algorithms.agglomerative import AgglomerativeConfig
from gpuclust.algorithms.agglomerative.linkage import LINKAGES, cut, merge_tree
from gpuclust.algorithms.registry import FitInput, fit
from gpuclust.cli import main
from gpuclust.compose import compose
from gpuclust.errors import FitError, ModelError
from gpuclust.model import agglomerative as model
from gpuclust.report import figures
from gpuclust.runtime.blocks import BLOCK_ROWS, MemoryBlocks
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.forecast import forecast
from tests.fitting import fit_one
from tests.journey import Journey, assert_predictions_are_the_labels, journey


@pytest.fixture(scope="module")
def cloud() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(400, 5))


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Five groups of different sizes in 6,600 rows, more than the leaves of ``auto``."""
    X, y = make_blobs([2200, 1700, 1300, 900, 500], n_features=4, cluster_std=0.5, random_state=3)
    return X.astype(np.float32), y


@pytest.mark.parametrize("name", LINKAGES)
def test_the_tree_is_scipys(cloud: np.ndarray, name: str) -> None:
    ours, reference = merge_tree(cloud, np.ones(len(cloud)), name), linkage(cloud, name)
    np.testing.assert_allclose(ours[:, 2], reference[:, 2], rtol=1e-12)  # sums of squares in another order
    np.testing.assert_array_equal(ours[:, [0, 1, 3]], reference[:, [0, 1, 3]])


@pytest.mark.parametrize("name", LINKAGES)
def test_a_weight_counts_as_equal_rows(cloud: np.ndarray, name: str) -> None:
    X, weight = cloud[:150], np.random.default_rng(1).integers(1, 5, 150)
    ours = merge_tree(X, weight, name)
    reference = linkage(np.repeat(X, weight, axis=0), name)[-len(ours) :]
    np.testing.assert_allclose(ours[:, 2], reference[:, 2], rtol=1e-12)


@pytest.mark.parametrize("name", LINKAGES)
def test_cuts_are_scikit_learns(cloud: np.ndarray, name: str) -> None:
    tree = merge_tree(cloud, np.ones(len(cloud)), name)
    for k in (2, 3, 7, 40, len(cloud)):
        reference = AgglomerativeClustering(k, linkage=name).fit(cloud)
        assert adjusted_rand_score(cut(tree, k), reference.labels_) == 1.0


def test_rows_that_are_repeated_are_one_leaf() -> None:
    X = np.random.default_rng(2).normal(size=(60, 3))
    rows = np.repeat(X, np.arange(60) % 4 + 1, axis=0)
    found = fit_one(rows, AgglomerativeConfig(n_clusters=5))
    assert found.metrics["n_leaves"] == 60
    assert found.parameters["leaf_sizes"].sum() == len(rows)
    assert adjusted_rand_score(found.labels, AgglomerativeClustering(5).fit_predict(rows)) == 1.0
    means = [rows[found.labels == c].mean(axis=0) for c in range(5)]
    np.testing.assert_allclose(found.parameters["centers"], means)
    own = ((rows - found.parameters["centers"][found.labels]) ** 2).sum()
    assert found.metrics["inertia"] == pytest.approx(own)


def test_many_rows_are_clustered_through_weighted_centres(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = blobs
    for name in ("ward", "average", "complete"):
        found = fit_one(X, AgglomerativeConfig(n_clusters=5, n_leaves=300, linkage=name))
        assert adjusted_rand_score(found.labels, y) == 1.0
        assert found.parameters["leaf_sizes"].sum() == len(X)
        assert len(found.parameters["leaves"]) == found.metrics["n_leaves"] <= 300


@pytest.mark.parametrize("n_columns", [4, 24])
def test_predictions_repeat_the_labels(n_columns: int) -> None:
    """By a KD-tree and by a matrix product; on a grid many rows are as near to one leaf as to another."""
    rng = np.random.default_rng(5)
    grid = rng.integers(0, 3, size=(1500, n_columns)).astype(np.float32)
    found = fit_one(grid, AgglomerativeConfig(n_clusters=6, n_leaves=100))
    labels, confidence, distance = model.place(found.parameters, {})(grid)
    np.testing.assert_array_equal(labels, found.labels)
    np.testing.assert_allclose(confidence, found.confidence, atol=1e-6)  # float32
    np.testing.assert_allclose(distance, found.distance, rtol=1e-6)
    squares = ((grid[:, None] - found.parameters["centers"]) ** 2).sum(axis=2)
    another_is_nearer = squares.argmin(axis=1) != labels
    assert another_is_nearer.any()
    assert (confidence[another_is_nearer] == 0).all()
    assert (confidence[~another_is_nearer] >= 0).all()


def test_all_sizes_are_cuts_of_one_tree(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    X, _ = blobs
    cache = ResultCache()
    data = FitInput(X, 0, CpuBackend(), cache, "matrix")
    found: list[Any] = fit(data, [AgglomerativeConfig(n_clusters=k, n_leaves=200) for k in (2, 3, 4, 5)])
    assert cache.n_created["dendrogram"] == 1
    for coarse, fine in itertools.pairwise(found):
        pairs = {tuple(p) for p in np.stack([coarse.labels, fine.labels], axis=1).tolist()}
        assert len(pairs) == fine.labels.max() + 1, "each cluster is inside one cluster of the cut before"
        assert coarse.metrics["inertia"] > fine.metrics["inertia"]
        assert coarse.metrics["merge_height"] > fine.metrics["merge_height"]


def test_rows_in_blocks_have_the_labels_of_rows_in_memory() -> None:
    rng = np.random.default_rng(0)
    X = (rng.integers(0, 3, BLOCK_ROWS + 500)[:, None] * 4 + rng.normal(size=(BLOCK_ROWS + 500, 3))).astype(np.float32)
    config = AgglomerativeConfig(n_clusters=3, n_leaves=30)
    memory = fit_one(X, config)
    data = FitInput(MemoryBlocks(X), 0, CpuBackend(), ResultCache(0), "test")
    (blocks,) = fit(data, [config])
    assert not isinstance(blocks, Exception)
    np.testing.assert_array_equal(blocks.labels, memory.labels)
    np.testing.assert_array_equal(blocks.confidence, memory.confidence)
    assert blocks.metrics["inertia"] == pytest.approx(memory.metrics["inertia"], rel=1e-12)


def test_what_cannot_be_clustered_is_refused() -> None:
    with pytest.raises(FitError, match="all rows are equal"):
        fit_one(np.ones((20, 2)), AgglomerativeConfig(n_clusters=2))
    with pytest.raises(FitError, match="n_clusters=3 is more than the 2 distinct rows"):
        fit_one(np.repeat([[0.0], [1.0]], 10, axis=0), AgglomerativeConfig(n_clusters=3))
    assert main(["data=catalogue", "cluster=agglomerative", "cluster.n_leaves=3", "cluster.n_clusters=4"]) == 2


def test_the_forecast_counts_the_distances_of_all_pairs_of_leaves() -> None:
    """In memory and on disk, and the centres that each row is compared with."""
    million = ["data=catalogue", "data.n_rows=1000000"]
    tree = [*million, "cluster=agglomerative"]
    auto, many = (forecast(compose([*tree, f"cluster.n_leaves={n}"])) for n in ("auto", 20_000))
    more = 8 * (20_000**2 - 2_000**2)
    assert many.resident_bytes - auto.resident_bytes == many.disk_bytes - auto.disk_bytes == more
    assert many.seconds > auto.seconds > forecast(compose([*million, "cluster=kmeans"])).seconds


def test_a_model_with_impossible_arrays_is_refused(cloud: np.ndarray) -> None:
    parameters = dict(fit_one(cloud, AgglomerativeConfig(n_clusters=3)).parameters)
    model.check(parameters, {})
    for name, value in (("leaf_labels", np.full(400, 3, np.int32)), ("merges", parameters["merges"][1:])):
        with pytest.raises(ModelError, match=name):
            model.check({**parameters, name: value}, {})


def test_the_dendrogram_shows_the_last_merges_and_all_rows(cloud: np.ndarray) -> None:
    tree = merge_tree(cloud, np.ones(len(cloud)), "ward")
    (axes,) = figures.dendrogram(tree, np.full(len(cloud), 10.0), cut(tree, 4)).axes[:1]
    (lines,) = axes.collections
    assert len(lines.get_segments()) == 39
    assert max(segment[:, 1].max() for segment in lines.get_segments()) == tree[-1, 2]
    assert sum(int(text.get_text().replace(",", "")) for text in axes.get_xticklabels()) == 10 * len(cloud)
    heights = [line.get_ydata()[0] for line in axes.lines]
    assert any(tree[-4, 2] < height < tree[-3, 2] for height in heights), "the cut is between two merges"


@pytest.fixture(scope="module")
def swept(
    tmp_path_factory: pytest.TempPathFactory, store_template: Path, blobs: tuple[np.ndarray, np.ndarray]
) -> Journey:
    rows = blobs[0][::22]
    overrides = ("cluster=agglomerative", "cluster.n_clusters=4,5,6")
    return journey(tmp_path_factory.mktemp("tree"), store_template, rows, *overrides)


def test_a_sweep_has_a_verdict_and_draws_the_tree(swept: Journey) -> None:
    assert swept.verdict()["kind"] == "clear"
    assert swept.manifest["algorithm"] == "agglomerative"
    assert swept.exported["cluster"].max() == 4
    figures = swept.recorder.client.list_artifacts(swept.manifest["run_id"], "figures")
    assert "figures/dendrogram.png" in {file.path for file in figures}


def test_exports_predict_and_serve_the_labels(swept: Journey) -> None:
    assert_predictions_are_the_labels(swept)


def test_python_draws_the_tree(cloud: np.ndarray) -> None:
    settings = {"score.silhouette": False, "report.figures": False}
    run = gc.fit(cloud, gc.AgglomerativeClustering(n_clusters=3), tracking=None, config=settings)
    assert run.plot_dendrogram().axes


@parametrize_with_checks([gc.AgglomerativeClustering()])
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    with warnings.catch_warnings():  # of the checks themselves
        warnings.simplefilter("ignore")
        check(estimator)


def test_the_estimator_has_scikit_learns_tree(cloud: np.ndarray) -> None:
    ours = gc.AgglomerativeClustering(n_clusters=4).fit(cloud)
    reference = AgglomerativeClustering(4, compute_distances=True).fit(cloud)
    np.testing.assert_allclose(ours.distances_, reference.distances_, rtol=1e-9)
    np.testing.assert_array_equal(np.sort(ours.children_, axis=1), np.sort(reference.children_, axis=1))
    assert adjusted_rand_score(ours.labels_, reference.labels_) == 1.0
    assert (ours.predict(cloud) == ours.labels_).all()
    assert ours.plot_dendrogram().axes
