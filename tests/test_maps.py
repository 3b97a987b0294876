"""Maps: placement among landmarks, trustworthiness, and a job whose map is not that of principal components."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors

import gpuclust as gc
from gpuclust.config import MapConfig
from gpuclust.errors import ConfigurationError, ModelError
from gpuclust.metrics.trustworthiness import sampled_trustworthiness
from gpuclust.model.bundle import Bundle
from gpuclust.model.landmarks import N_NEIGHBORS, Landmarks
from gpuclust.reducers.landmarks import EmbeddingSettings, fit_landmarks
from gpuclust.runtime.cpu import CpuBackend
from tests.test_figures import written

SETTINGS = EmbeddingSettings(n_components=2, n_neighbors=None, min_dist=0.1, seed=0)


def identity(points: np.ndarray, settings: EmbeddingSettings, backend: object) -> np.ndarray:
    """A method whose positions are the first columns."""
    return points[:, : settings.n_components]


@pytest.fixture
def by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuclust.reducers.landmarks._method", lambda method, key: identity)


def landmarks(rows: np.ndarray) -> Landmarks:
    return fit_landmarks(rows, "umap", SETTINGS, CpuBackend(), "map=umap")


class TestPlacement:
    """`Landmarks.transform`."""

    def test_a_landmark_has_its_own_position(self, by_columns: None) -> None:
        X = np.random.default_rng(0).normal(size=(3000, 10)).astype(np.float32)
        found = landmarks(X).transform(X)
        np.testing.assert_allclose(found, X[:, :2], atol=1e-6)

    @pytest.mark.parametrize("n_columns", [3, 100])
    def test_another_row_is_the_mean_of_its_nearest_landmarks(self, by_columns: None, n_columns: int) -> None:
        rng = np.random.default_rng(1)
        low = rng.normal(size=(4500, 3))
        X = (low @ rng.normal(size=(3, n_columns))).astype(np.float32)  # of rank 3, so that 64 components lose nothing
        model = landmarks(X[:4000])
        found = model.transform(X[4000:])
        distances, rows = NearestNeighbors(n_neighbors=N_NEIGHBORS).fit(X[:4000]).kneighbors(X[4000:])
        weights = 1 / distances.astype(np.float64) ** 2
        expected = (weights[..., None] * model.positions[rows]).sum(axis=1) / weights.sum(axis=1, keepdims=True)
        near = np.abs(found - expected).max(axis=1) < 1e-3 * np.ptp(model.positions)
        assert near.mean() > 0.95  # a neighbour of a few rows is in a cell that is not searched

    def test_equal_rows_are_one_landmark(self, by_columns: None) -> None:
        X = np.repeat(np.random.default_rng(2).normal(size=(40, 3)), 25, axis=0)
        assert len(landmarks(X).landmarks) == 40

    def test_too_few_different_rows_are_refused(self, by_columns: None) -> None:
        with pytest.raises(
            ConfigurationError, match=r"^map=umap needs at least 10 different rows, and there are 3; use map=pca$"
        ):
            landmarks(np.repeat(np.eye(3), 9, axis=0))


class TestTrustworthiness:
    """`sampled_trustworthiness`."""

    @pytest.mark.parametrize(("n", "n_neighbors"), [(400, 15), (400, 5), (12, 15)])
    def test_it_is_that_of_scikit_learn(self, n: int, n_neighbors: int) -> None:
        rng = np.random.default_rng(0)
        X = rng.normal(size=(n, 6))
        maps = [X[:, :2], X[:, 2:4] + 1e3, rng.normal(size=(n, 3))]
        found = sampled_trustworthiness(X, maps, n_neighbors=n_neighbors)
        used = min(n_neighbors, (n - 1) // 2)
        np.testing.assert_allclose(found, [trustworthiness(X, m, n_neighbors=used) for m in maps], rtol=1e-12)

    def test_a_sample_of_the_rows_estimates_it(self) -> None:
        rng = np.random.default_rng(0)
        X = rng.normal(size=(2000, 6))
        (found,) = sampled_trustworthiness(X, [X[:, :3]], max_rows=500)
        assert found == pytest.approx(trustworthiness(X, X[:, :3], n_neighbors=15), abs=0.01)  # 4 standard errors

    def test_of_the_rows_themselves_it_is_1(self) -> None:
        X = np.random.default_rng(0).normal(size=(300, 4))
        assert sampled_trustworthiness(X, [X]) == [1.0]

    def test_of_two_rows_it_is_not_defined(self) -> None:
        assert np.isnan(sampled_trustworthiness(np.eye(2), [np.eye(2)])[0])


def table(n: int = 240) -> pd.DataFrame:
    """Rows around four centres in five columns."""
    rng = np.random.default_rng(0)
    centres = rng.normal(scale=4, size=(4, 5))
    return pd.DataFrame(centres[np.arange(n) % 4] + rng.normal(size=(n, 5)), columns=list("abcde"))


CONFIG = {"map": "tsne", "map.n_neighbors": 10}


@pytest.fixture(scope="module")
def run() -> gc.Run:
    return gc.fit(table(), gc.KMeans(n_clusters=4), config=CONFIG, tracking=None, backend="cpu", progress=False)


@pytest.fixture(scope="module")
def folder(run: gc.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run.export(tmp_path_factory.mktemp("map") / "out")


class TestJob:
    """A job with ``map=tsne``."""

    def test_its_coordinates_are_exported_and_those_of_new_rows_are_the_same(self, run: gc.Run, folder: Path) -> None:
        exported = pd.read_parquet(folder / "assignments.parquet")
        coordinates = run._result.matrix.coordinates
        np.testing.assert_array_equal(exported[["x", "y", "z"]].to_numpy(), coordinates)
        assert (exported["z"] == 0).all()
        assert np.ptp(coordinates[:, :2], axis=0).min() > 10  # t-SNE spreads what principal components put within 8
        again = Bundle.load(folder / "model").predict(table().to_numpy())
        np.testing.assert_array_equal(again.coordinates, coordinates)
        np.testing.assert_array_equal(again.cluster, run.labels_)

    def test_a_row_between_landmarks_is_placed_among_them(self, folder: Path) -> None:
        rows = table().to_numpy()
        bundle = Bundle.load(folder / "model")
        (found,) = bundle.coordinates((rows[:1] + rows[4:5]) / 2)
        positions = bundle.preparation.map_projection.positions
        assert (positions.min(axis=0) <= found[:2]).all()
        assert (found[:2] <= positions.max(axis=0)).all()

    def test_its_trustworthiness_is_a_metric_beside_that_of_principal_components(self, run: gc.Run) -> None:
        X, coordinates = run._result.matrix.X, run._result.matrix.coordinates
        assert run.metrics["map_trustworthiness"] == pytest.approx(
            trustworthiness(X, coordinates[:, :2], n_neighbors=15), abs=1e-9
        )
        scaled = X - X.mean(axis=0)
        components = scaled @ np.linalg.svd(scaled, full_matrices=False)[2][:2].T
        linear = trustworthiness(X, components, n_neighbors=15)
        assert run.metrics["map_trustworthiness_pca"] == pytest.approx(linear, abs=1e-3)  # float32 against float64

    def test_the_clusters_are_those_without_the_map(self, run: gc.Run) -> None:
        without = gc.fit(table(), gc.KMeans(n_clusters=4), tracking=None, backend="cpu", progress=False)
        np.testing.assert_array_equal(without.labels_, run.labels_)
        assert not [name for name in without.metrics if name.startswith("map_")]

    def test_its_figure_names_the_axes_and_the_trustworthiness(self, run: gc.Run) -> None:
        figure = run.plot()
        texts = written(figure)
        assert {"t-SNE 1", "t-SNE 2"} <= set(texts)
        assert any(f"trustworthiness {run.metrics['map_trustworthiness']:.3f}" in text for text in texts)

    def test_the_explorer_and_the_page_name_the_axes(self, folder: Path) -> None:
        pytest.importorskip("streamlit")
        from gpuclust.serve.explorer.map_data import MapData
        from gpuclust.serve.explorer.session import OpenExport
        from gpuclust.serve.library import Library
        from gpuclust.serve.share import page_of_folder

        library = Library.open(folder)
        columns = MapData(OpenExport(folder, "v", library, {}, {})).columns
        trusted = f"(trustworthiness {library.facts.map.trustworthiness:.2f})"
        assert columns["x"] == {"kind": "number", "label": f"t-SNE 1 {trusted}"}
        assert "z" not in columns
        page = page_of_folder(folder)
        assert f"by its nearest rows in what was clustered {trusted}" in page
        assert "largest variance" not in page

    def test_a_damaged_map_is_refused(self, folder: Path, tmp_path: Path) -> None:
        arrays = dict(np.load(folder / "model" / "arrays.npz"))
        arrays["map/positions"] = arrays["map/positions"][:-1]
        np.savez_compressed(tmp_path / "arrays.npz", **arrays)
        text = (folder / "model" / "model.json").read_text()
        (tmp_path / "model.json").write_text(text)
        with pytest.raises(ModelError, match="map/positions"):
            Bundle.load(tmp_path)

    def test_a_sweep_over_maps_ranks_its_jobs(self) -> None:
        config = {"map": ["pca", "tsne"], "map.sample_rows": 100, "map.n_neighbors": 10}
        found = gc.sweep(table(), gc.KMeans(n_clusters=4), config=config, tracking=None, backend="cpu", progress=False)
        assert found.best is not None
        assert [("map_trustworthiness" in run.metrics) for run in found.runs] == [False, True]
        assert len(found.runs[1]._result.matrix.preparation.map_projection.landmarks) == 100

    def test_rows_on_disk_have_the_same_map(self, run: gc.Run) -> None:
        config = CONFIG | {"memory.mode": "disk"}
        found = gc.fit(table(), gc.KMeans(n_clusters=4), config=config, tracking=None, backend="cpu", progress=False)
        blocks = found._result.matrix.coordinates
        np.testing.assert_allclose(blocks.take(np.arange(240)), run._result.matrix.coordinates, rtol=1e-5)


@pytest.mark.parametrize(("method", "package"), [("umap", "umap"), ("pacmap", "pacmap")])
def test_a_missing_package_is_one_line(method: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(
        ConfigurationError,
        match=rf"^map={method} needs a package that is not installed .*pip install 'gpuclust\[maps\]'$",
    ):
        gc.fit(table(60), gc.KMeans(n_clusters=2), config={"map": method}, tracking=None, backend="cpu", progress=False)


@pytest.mark.campaign  # numba compiles for half a minute
@pytest.mark.parametrize("method", ["umap", "pacmap"])
def test_the_library_keeps_neighbours_and_repeats_its_positions(method: str) -> None:
    X = table(120).to_numpy(np.float32)
    first = fit_landmarks(X, method, SETTINGS, CpuBackend(), f"map={method}")
    assert trustworthiness(X, first.transform(X), n_neighbors=15) > 0.9
    again = fit_landmarks(X, method, SETTINGS, CpuBackend(), f"map={method}")
    np.testing.assert_array_equal(again.positions, first.positions)


def test_keys_of_another_map_have_no_effect_with_principal_components() -> None:
    from gpuclust.config import Config
    from gpuclust.overrides import without_effect

    assert set(without_effect(Config(map=MapConfig(sample_rows=200)))) >= {"map.sample_rows", "map.min_dist"}
