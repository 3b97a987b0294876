"""DBSCAN: scikit-learn's clusters from HDBSCAN's tree, several radii from one tree, and the way from a sweep to the API."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import DBSCAN
from sklearn.datasets import make_moons
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

import gpuclust as gc
from gpuclust.algorithms.dbscan import DbscanConfig
from gpuclust.algorithms.hdbscan import HdbscanConfig
from gpuclust.algorithms.registry import FitInput, FitResult, fit
from gpuclust.cli import main
from gpuclust.errors import ModelError
from gpuclust.model import dbscan as rule
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from tests.journey import Journey, assert_predictions_are_the_labels, journey

RADII = (0.3, 0.5, 0.8, 1.2)
SWEPT = (0.1, 0.12, 0.14, 0.16, 0.18)
SHAPES = {"blobs": 3, "moons": 2, "one cloud": 1}


def rows(shape: str) -> np.ndarray:
    """Clusters among 15 % of uniform noise, float32."""
    rng = np.random.default_rng(0)
    if shape == "moons":
        X = np.concatenate([make_moons(1000, noise=0.06, random_state=0)[0], rng.uniform(-2, 3, size=(150, 2))])
    else:
        centers = np.array([[0, 0, 0], [7, 0, 3], [0, 7, 6]]) * (shape == "blobs")
        groups = [rng.normal(size=(300, 3)) + center for center in centers]
        X = np.concatenate([*groups, rng.uniform(-6, 12, size=(150, 3))])
    return X.astype(np.float32)


def data_of(X: np.ndarray) -> FitInput:
    return FitInput(X, 0, CpuBackend(), ResultCache(), "rows")


def one(data: FitInput, config: DbscanConfig) -> FitResult:
    (found,) = fit(data, [config])
    assert isinstance(found, FitResult), found
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_clusters_of_core_rows_are_scikit_learns(shape: str) -> None:
    X = rows(shape)
    data = data_of(X)
    for eps in RADII:
        found, reference = one(data, DbscanConfig(eps=eps, min_samples=9)), DBSCAN(eps=eps, min_samples=10).fit(X)
        core = reference.core_sample_indices_
        np.testing.assert_array_equal(np.flatnonzero(found.confidence == 1), core)
        assert adjusted_rand_score(found.labels[core], reference.labels_[core]) == 1.0
        np.testing.assert_array_equal(found.labels == -1, reference.labels_ == -1)
        assert found.metrics["core_fraction"] == len(core) / len(X)
    assert data.cache.n_created["tree"] == 1, "all radii are cuts of one tree"


def test_a_border_row_joins_its_nearest_core_row() -> None:
    X = rows("blobs")
    found = one(data_of(X), DbscanConfig(eps=0.8, min_samples=9))
    core, border = found.confidence == 1, (found.labels >= 0) & (found.confidence < 1)
    assert border.any()
    distance, nearest = NearestNeighbors(n_neighbors=1).fit(X[core]).kneighbors(X[border])
    np.testing.assert_array_equal(found.labels[border], found.labels[core][nearest[:, 0]])
    np.testing.assert_allclose(found.confidence[border], 1 - distance[:, 0] / 0.8, atol=1e-6)


def test_unit_rows_have_the_clusters_of_scikit_learns_cosine_distance() -> None:
    """Directions with lengths from 0.1 to 10: eps² = 2 - 2 cosine, where scikit-learn's radius is 1 - cosine."""
    rng = np.random.default_rng(0)
    directions = np.repeat(np.eye(3, 16), (120, 80, 60), axis=0) + rng.normal(scale=0.08, size=(260, 16))
    X = np.concatenate([directions, rng.normal(size=(20, 16))]) * rng.uniform(0.1, 10, size=(280, 1))
    for radius in (0.05, 0.08, 0.12):
        ours = gc.DBSCAN(eps=np.sqrt(2 * radius), min_samples=8, metric="cosine").fit(X)
        reference = DBSCAN(eps=radius, min_samples=8, metric="cosine").fit(X)
        core = reference.core_sample_indices_
        np.testing.assert_array_equal(ours.core_sample_indices_, core)
        np.testing.assert_array_equal(ours.labels_ == -1, reference.labels_ == -1)
        assert adjusted_rand_score(ours.labels_[core], reference.labels_[core]) == 1.0
    np.testing.assert_array_equal(ours.predict(3 * X), ours.labels_)
    # A job divides the rows by their length, and so does its model.
    table = pd.DataFrame(X).add_prefix("f")
    request = DbscanConfig(eps=float(np.sqrt(2 * radius)), min_samples=7, metric="cosine")
    run = gc.fit(table, request, config={"scale": "none"}, tracking=None, progress=False)
    np.testing.assert_array_equal(run.labels_, ours.labels_)
    np.testing.assert_array_equal(run.predict(3 * table)["cluster"], ours.labels_)


def test_without_border_rows_the_clusters_are_those_of_a_cut_of_hdbscans_tree() -> None:
    X = rows("moons")
    ours = gc.DBSCAN(eps=0.15, min_samples=8, border=False).fit(X)
    cut = gc.HDBSCAN(min_samples=8).fit(X).dbscan_clustering(0.15, min_cluster_size=2)
    core = np.isin(np.arange(len(X)), ours.core_sample_indices_)
    np.testing.assert_array_equal(ours.labels_ == -1, ~core)
    assert adjusted_rand_score(ours.labels_[core], cut[core]) == pytest.approx(1.0, abs=0.01)  # clusters of one row


@pytest.mark.parametrize("shape", SHAPES)
def test_auto_finds_a_radius_of_the_clusters(shape: str) -> None:
    found = one(data_of(rows(shape)), DbscanConfig())
    assert found.labels.max() + 1 == SHAPES[shape]
    if shape != "one cloud":  # whose validity has no other cluster to compare with
        assert 0.05 < (found.labels == -1).mean() < 0.25


def test_the_tree_is_hdbscans() -> None:
    data = data_of(rows("blobs"))
    fit(data, [HdbscanConfig(min_samples=9)])
    one(data, DbscanConfig(min_samples=9))
    assert data.cache.n_created["tree"] == 1


def test_no_core_row_at_all() -> None:
    X = rows("blobs")
    found = one(data_of(X), DbscanConfig(eps=1e-6))
    assert (found.labels == -1).all()
    assert found.notes == ("every row is noise at eps=1e-06; raise cluster.eps or lower cluster.min_samples",)
    labels, confidence, _ = rule.place(found.parameters, {})(X)
    assert (labels == -1).all()
    assert not confidence.any()


def test_impossible_models_are_refused() -> None:
    found = one(data_of(rows("blobs")), DbscanConfig(eps=0.8))
    for change in ({"core_labels": found.parameters["core_labels"] * 2}, {"radius": np.asarray(-1.0)}):
        with pytest.raises(ModelError, match="the array parameters/"):
            rule.check({**found.parameters, **change}, {})


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Journey:
    options = (
        "cluster=dbscan,kmeans",
        f"cluster.eps={','.join(map(str, SWEPT))}",
        "cluster.n_clusters=2",
        "scale=none",
    )
    return journey(tmp_path_factory.mktemp("dbscan"), store_template, rows("moons"), *options, "report=none")


def test_a_sweep_has_curves_and_a_verdict(swept: Journey) -> None:
    (sweep,) = swept.recorder.sweeps()
    assert sweep.metrics["eps/relative_validity"]
    verdict = swept.verdict()
    assert any(line.startswith("DBSCAN: 2 clusters at ") for line in verdict["because"]), verdict
    assert verdict["kind"] == "clear"
    assert verdict["sizes"] == [2]
    assert swept.manifest["config"]["cluster"]["name"] == "dbscan", "K-Means cuts the moons"
    jobs = [job for job in swept.recorder.jobs() if job.name.startswith("dbscan")]
    assert {job.metrics["eps"] for job in jobs} == {*SWEPT}
    assert all({"relative_validity", "eps", "noise_fraction"} <= job.metrics.keys() for job in jobs)


def test_every_way_to_predict_gives_the_labels(swept: Journey) -> None:
    assert_predictions_are_the_labels(swept)


def test_rows_that_are_not_in_memory_are_refused_in_one_line(
    swept: Journey, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [f"data.path={swept.folder / 'rows.csv'}", "cluster=dbscan", "memory.mode=disk", "tracking=none"]
    assert main([*command, "backend=cpu"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("gpuclust: cluster=dbscan needs all rows in memory, but the forecast is: ")
    assert said.endswith("; use data.n_rows for a sample, or memory.mode=resident")
