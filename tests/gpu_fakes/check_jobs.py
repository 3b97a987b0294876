"""Whole jobs on the stand-ins: every algorithm, initialisation, engine and type of number, from a frame to an export and its predictions.

Run by `tests.test_gpu_fakes` in a process of its own.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score

import gpuclust as gc
from gpuclust.algorithms.agglomerative import AgglomerativeConfig
from gpuclust.algorithms.bayesian import BayesianGmmConfig
from gpuclust.algorithms.bisecting import BisectingConfig
from gpuclust.algorithms.dbscan import DbscanConfig
from gpuclust.algorithms.hdbscan import HdbscanConfig
from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.mixture import GmmConfig
from gpuclust.config import ClusterConfig

FEATURES = ("a", "b", "c")


def blobs(n: int = 150) -> pd.DataFrame:
    """Rows in three groups that hardly overlap, with an id and a text column."""
    rng = np.random.default_rng(0)
    group = np.arange(n) % 3
    centres = np.array([[0, 0, 0], [8, 1, 0], [0, 7, 5]])[group]
    frame = pd.DataFrame(centres + rng.normal(size=(n, 3)), columns=list(FEATURES))
    frame.insert(0, "id", [f"t{i}" for i in range(n)])
    return frame.assign(genre=np.array(["jazz", "pop", "rock"])[group])


def scaled(frame: pd.DataFrame) -> np.ndarray:
    values = frame[list(FEATURES)].to_numpy()
    return (values - values.mean(axis=0)) / values.std(axis=0)


KMEANS = [KMeansConfig(n_clusters=3, n_init=2, max_iter=5, engine=engine, init=init)
          for engine, init in product(("auto", "library", "fused"), ("k-means++", "random"))]  # fmt: skip
MIXTURES = [GmmConfig(n_clusters=3, max_iter=2, engine=engine, init_params=init)
            for engine, init in product(("auto", "library", "fused"), ("kmeans", "k-means++", "random", "random_from_data"))]  # fmt: skip
SHAPES = [GmmConfig(n_clusters=3, max_iter=2, covariance_type=shape, engine=engine)
          for engine, shape in product(("auto", "library"), ("tied", "diag", "spherical"))]  # fmt: skip
TREES = [HdbscanConfig(min_cluster_size=size, min_samples=5, cluster_selection_method=method, exact=exact)
         for size, method, exact in product((15, "auto"), ("eom", "leaf"), (False, True))]  # fmt: skip

STAGES = [AgglomerativeConfig(n_clusters=3, n_leaves=6), BisectingConfig(n_clusters=3, max_iter=3, n_init=1), BayesianGmmConfig(max_components=3)]  # fmt: skip
RADII = [DbscanConfig(eps=eps, min_samples=5) for eps in (0.6, 0.9, "auto")]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "configs",
    [KMEANS, MIXTURES, SHAPES, TREES, RADII, STAGES],
    ids=["kmeans", "mixture", "shapes", "hdbscan", "dbscan", "stages"],
)
def test_every_job_of_a_sweep_ends_with_a_model_that_serves(
    configs: list[ClusterConfig], dtype: str, tmp_path: Path
) -> None:
    table = blobs(150 if configs is TREES else 60)  # every thread of a kernel runs in Python
    found = gc.sweep(table, *configs, config={"dtype": dtype}, backend="gpu", tracking=None, progress=False)
    assert list(found.leaderboard["failure"]) == [""] * len(configs)
    exported = set()
    for config, run in zip(configs, found.runs, strict=True):
        labels = run.labels_
        assert_metrics_of(run, labels, scaled(table), dtype)
        np.testing.assert_array_equal(run.predict(table)["cluster"], labels)
        kind = f"{config.name} {getattr(config, 'engine', getattr(config, 'exact', None))}"
        if kind in exported:
            continue
        exported.add(kind)
        folder = run.export(tmp_path / kind)
        np.testing.assert_array_equal(gc.load_model(folder).predict(table)["cluster"], labels)


@pytest.mark.parametrize("eps", [1.0, 1.2])
def test_dbscan_of_many_columns_has_the_clusters_of_the_cpu(eps: float) -> None:
    """Above eight columns cuML finds the core rows; border rows join their nearest core row on both."""
    rng = np.random.default_rng(1)
    table = pd.DataFrame(rng.normal(size=(150, 10)) * 0.3 + 5 * (np.arange(150) % 3)[:, None]).add_prefix("f")
    gpu, cpu = (
        gc.fit(
            table,
            DbscanConfig(eps=eps, min_samples=5),
            config={"scale": "none"},
            backend=name,
            tracking=None,
            progress=False,
        )
        for name in ("gpu", "cpu")
    )
    assert 0 < cpu.metrics["core_fraction"] < 1, "some rows are border rows or noise"
    np.testing.assert_array_equal(gpu.labels_, cpu.labels_)
    assert gpu.metrics["core_fraction"] == cpu.metrics["core_fraction"]
    np.testing.assert_array_equal(gpu.predict(table)["cluster"], gpu.labels_)


def assert_metrics_of(run: gc.Run, labels: np.ndarray, X: np.ndarray, dtype: str) -> None:
    """The scores are scikit-learn's; the clusters are the groups of the table, if the algorithm is to find them."""
    tolerance = 1e-5 if dtype == "float32" else 1e-10  # of sums of 150 terms and of the scaled features
    assert labels.dtype == np.int32
    if run.metrics["n_clusters"] > 1 and (labels >= 0).all():
        assert run.metrics["silhouette"] == pytest.approx(silhouette_score(X, labels), abs=tolerance)
        assert run.metrics["davies_bouldin"] == pytest.approx(davies_bouldin_score(X, labels), rel=tolerance)
        assert run.metrics["calinski_harabasz"] == pytest.approx(calinski_harabasz_score(X, labels), rel=tolerance)


def test_a_umap_of_cuml_is_the_map_of_a_job_and_of_new_rows(tmp_path: Path) -> None:
    table = blobs(60)
    config = {"map": "umap", "map.n_neighbors": 5, "map.sample_rows": 100, "map.n_components": 3}
    algorithm = KMeansConfig(n_clusters=3, n_init=1, max_iter=3)
    run = gc.fit(table, algorithm, config=config, backend="gpu", tracking=None, progress=False)
    folder = run.export(tmp_path / "out")
    exported = pd.read_parquet(folder / "assignments.parquet")[["x", "y", "z"]].to_numpy()
    values = scaled(table)
    components = PCA(3).fit_transform(values)  # the positions of the stand-in
    np.testing.assert_allclose(np.abs(exported), np.abs(components), atol=1e-4)
    assert run.metrics["map_trustworthiness"] == pytest.approx(1.0, abs=0.01)
