"""Memberships, outlier scores and the contributions of features, against scikit-learn, hdbscan's formulas and brute force."""

import asyncio
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.mixture import GaussianMixture as SkMixture

import gpuclust as gc
from gpuclust import edits
from gpuclust.algorithms.hdbscan.predict import soft_membership
from gpuclust.cli import main
from gpuclust.errors import ModelError
from gpuclust.model.manifest import read_manifest, verify_all
from gpuclust.results import Model
from gpuclust.serve.api import create_app
from tests.exporting import FEATURES, made_export, tracks


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    clouds = [rng.normal(at, spread, (120, 3)) for at, spread in ((0.0, 1.0), (6.0, 0.5), (12.0, 1.5))]
    frame = pd.DataFrame(np.concatenate([*clouds, rng.uniform(-5, 20, (40, 3))]), columns=["a", "b", "c"])
    return frame.assign(b=frame["b"] * 50 + 7)


@pytest.fixture(scope="module")
def models(rows: pd.DataFrame) -> Callable[[str], Model]:
    """Models of each algorithm, with and without a reduction, and unit rows; each is fitted where a test first asks for it."""
    fits: dict[str, Any] = {
        "kmeans": (gc.KMeans(n_clusters=4), {}),
        "kmeans-pca": (gc.KMeans(n_clusters=4), {"reduce": 2}),
        "kmeans-cosine": (gc.KMeans(n_clusters=3, metric="cosine"), {}),
        **{
            f"gmm-{kind}": (gc.GaussianMixture(n_components=3, covariance_type=kind), {})
            for kind in ("full", "diag", "tied", "spherical")
        },
        "gmm-pca": (gc.GaussianMixture(n_components=3), {"reduce": 2}),
        "hdbscan": (gc.HDBSCAN(min_cluster_size=15), {}),
        "plscan": (gc.PLSCAN(), {}),
        "leiden": (gc.Leiden(n_neighbors=12), {}),
        "spectral": (gc.SpectralClustering(n_clusters=3), {}),
        "agglomerative": (gc.AgglomerativeClustering(n_clusters=4), {}),
        "bisecting": (gc.BisectingKMeans(n_clusters=4), {}),
    }

    @cache
    def fitted(name: str) -> Model:
        algorithm, more = fits[name]
        return gc.fit(rows, algorithm, tracking=None, progress=False, **more).model

    return fitted


@pytest.mark.parametrize("name", ["kmeans", "agglomerative", pytest.param("bisecting", marks=pytest.mark.campaign)])
def test_memberships_at_centres_are_those_of_fuzzy_c_means(
    name: str, rows: pd.DataFrame, models: Callable[[str], Model]
) -> None:
    model = models(name)
    found = model.memberships(rows, top=4)
    X = model._bundle.points(rows.to_numpy()).astype(float)
    squares = ((X[:, None] - model._bundle.parameters["centers"][None]) ** 2).sum(axis=2)
    u = 1.0 / (squares[:, :, None] / squares[:, None, :]).sum(axis=2)  # Bezdek's formula with m = 2
    order = np.argsort(-u, axis=1)
    for i in range(4):
        assert found[f"cluster_{i + 1}"].tolist() == order[:, i].tolist()
        # probabilities are float32
        np.testing.assert_allclose(
            found[f"probability_{i + 1}"], np.take_along_axis(u, order, 1)[:, i], rtol=1e-5, atol=1e-6
        )
    np.testing.assert_allclose(found["outlier"], np.sqrt(squares.min(axis=1)), rtol=1e-5)
    if name == "kmeans":  # the clusters of the others follow from a tree
        assert found["cluster_1"].tolist() == model.predict(rows)["cluster"].tolist()


@pytest.mark.parametrize(
    "kind", ["full", "diag", *(pytest.param(k, marks=pytest.mark.campaign) for k in ("tied", "spherical"))]
)
def test_memberships_of_mixtures_are_those_of_scikit_learn(
    kind: str, rows: pd.DataFrame, models: Callable[[str], Model]
) -> None:
    bundle = models(f"gmm-{kind}")._bundle
    found = models(f"gmm-{kind}").memberships(rows)
    known = SkMixture(3, covariance_type=kind)
    known.weights_, known.means_ = bundle.parameters["weights"], bundle.parameters["means"]
    known.precisions_cholesky_ = bundle.parameters["precisions_cholesky"]
    X = bundle.points(rows.to_numpy()).astype(float)
    expected = known.predict_proba(X)
    shares = np.zeros_like(expected)
    for i in range(3):
        shares[np.arange(len(rows)), found[f"cluster_{i + 1}"].to_numpy(int)] = found[f"probability_{i + 1}"]
    np.testing.assert_allclose(shares, expected, atol=1e-6)
    covariances = {"full": lambda c: bundle.parameters["covariances"][c], "tied": lambda c: bundle.parameters["covariances"],
                   "diag": lambda c: np.diag(bundle.parameters["covariances"][c]), "spherical": lambda c: np.eye(3) * bundle.parameters["covariances"][c]}  # fmt: skip
    own = expected.argmax(axis=1)
    for i in range(0, len(rows), 37):
        away = X[i] - known.means_[own[i]]
        assert found["outlier"][i] == pytest.approx(
            np.sqrt(away @ np.linalg.inv(covariances[kind](own[i])) @ away), rel=1e-4
        )


@pytest.mark.parametrize("name", ["hdbscan", "plscan"])
def test_memberships_of_a_density_tree_are_those_of_the_fitted_rows(
    name: str, rows: pd.DataFrame, models: Callable[[str], Model]
) -> None:
    model = models(name)
    parameters = model._bundle.parameters
    found = model.memberships(rows, top=2)
    labels, strengths = soft_membership(parameters)
    labels = parameters["canonical"][labels]
    assert found["cluster_1"].tolist() == labels.tolist()
    np.testing.assert_allclose(found["probability_1"], strengths, rtol=1e-4, atol=1e-6)
    # GLOSH by its definition, from the condensed tree: the greatest density in the row's node and all below it
    parent = parameters["node_parent"]
    below = {n: {n} for n in range(len(parent))}
    for n in range(len(parent) - 1, 0, -1):
        below[int(parent[n])] |= below[n]
    top = np.array([max(parameters["node_density"][list(below[int(n)])]) for n in parameters["row_node"]])
    np.testing.assert_allclose(found["outlier"], 1 - parameters["row_density"] / top, atol=1e-5)
    noise = parameters["training_labels"] == -1
    assert found["outlier"][noise].mean() > found["outlier"][~noise].mean() + 0.2


def test_memberships_of_leiden_are_votes_and_those_of_spectral_clustering_follow_its_centres(
    rows: pd.DataFrame, models: Callable[[str], Model]
) -> None:
    parameters = models("leiden")._bundle.parameters
    found = models("leiden").memberships(rows, top=2)
    X = models("leiden")._bundle.points(rows.to_numpy()).astype(float)
    distance = np.linalg.norm(X[:, None] - X[None], axis=2)
    near = np.argsort(distance, axis=1, kind="stable")[:, :12]
    # distances between float32 rows
    np.testing.assert_allclose(found["outlier"], np.take_along_axis(distance, near, 1)[:, -1], rtol=1e-5)
    training = parameters["training_labels"]
    votes = np.array([np.bincount(training[own], minlength=training.max() + 1) for own in near]) / 12
    np.testing.assert_allclose(found["probability_1"], votes.max(axis=1), atol=1e-7)
    spectral = models("spectral")
    assert spectral.memberships(rows)["cluster_1"].tolist() == spectral.predict(rows)["cluster"].tolist()
    shares = spectral.memberships(rows, top=3)[[f"probability_{i}" for i in (1, 2, 3)]].sum(axis=1)
    np.testing.assert_allclose(shares, 1.0, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["kmeans", "kmeans-pca", "gmm-full", "gmm-diag"]
    + [
        pytest.param(name, marks=pytest.mark.campaign)
        for name in ("kmeans-cosine", "gmm-tied", "gmm-spherical", "gmm-pca")
    ],
)
def test_contributions_add_up_to_the_difference_of_distances(
    name: str, rows: pd.DataFrame, models: Callable[[str], Model]
) -> None:
    model = models(name)
    bundle = model._bundle
    found = model.explain(rows)
    X = bundle.points(rows.to_numpy()).astype(float)
    if name.startswith("kmeans"):
        d = np.linalg.norm(X[:, None] - bundle.parameters["centers"][None], axis=2)
    else:
        known = SkMixture(3, covariance_type=bundle.options["covariance_type"])
        known.weights_, known.means_ = bundle.parameters["weights"], bundle.parameters["means"]
        known.precisions_cholesky_ = bundle.parameters["precisions_cholesky"]
        d = -known._estimate_weighted_log_prob(X)
    order = np.argsort(d, axis=1)
    assert found["cluster"].tolist() == order[:, 0].tolist()
    assert found["next"].tolist() == order[:, 1].tolist()
    two = np.take_along_axis(d, order[:, :2], axis=1)
    # the prepared rows are float32, the explanation is computed in float64
    np.testing.assert_allclose(found["difference"], two[:, 0] - two[:, 1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        found[["a", "b", "c", "constant"]].sum(axis=1), found["difference"], rtol=1e-9, atol=1e-9
    )


def test_a_feature_in_which_two_centres_agree_contributes_nothing() -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"a": np.repeat([0.0, 10.0], 50) + rng.normal(size=100), "b": np.tile(rng.normal(size=50), 2)})
    found = gc.fit(frame, gc.KMeans(n_clusters=2), tracking=None, progress=False).model.explain(frame)
    assert (found["a"] < -0.5).all()
    assert found["b"].abs().max() < 1e-9


def test_what_is_not_defined_is_refused(rows: pd.DataFrame, models: Callable[[str], Model], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="hdbscan has no centres"):
        models("hdbscan").explain(rows)
    one = gc.fit(rows, gc.GaussianMixture(n_components=1), tracking=None, progress=False).model
    with pytest.raises(ModelError, match="one cluster"):
        one.explain(rows)
    missing = rows.copy()
    missing.loc[0, "a"] = np.nan
    found: Any = models("kmeans").memberships(missing, top=9)
    assert found.loc[0].isna().all()
    assert found.columns.tolist()[-3:] == ["cluster_4", "probability_4", "outlier"]
    assert models("kmeans").explain(missing).loc[0].isna().all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """A folder with the store, and `out`, an export of 4 clusters of tracks with 3 memberships; the table has a column called outlier."""
    place = tmp_path_factory.mktemp("memberships")
    frame = tracks()
    frame["outlier"] = range(len(frame))
    made_export(frame, place, store_template, "cluster.n_clusters=4")
    where = ["--uri", f"sqlite:///{place / 'mlflow.db'}", "--experiment", "e"]
    assert main(["export", "best", *where, "--out", str(place / "out"), "--force", "--memberships", "3"]) == 0
    return place


def shares_of(frame: pd.DataFrame, n: int) -> np.ndarray:
    return np.stack([frame[f"probability_{i}"] for i in range(1, n + 1)], axis=1)


def test_an_export_has_memberships_and_a_merge_adds_them_up(folder: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(folder / "out", tmp_path / "out"))
    frame = pd.read_parquet(out / "assignments.parquet")
    assert frame["outlier_source"].tolist() == list(range(len(frame)))
    model = gc.load_model(out)
    expected = model.memberships(frame, top=3)
    for name in expected.columns:
        assert frame[name].tolist() == expected[name].tolist()
    assert frame["cluster_1"].tolist() == frame["cluster"].tolist()
    assert (np.diff(shares_of(frame, 3), axis=1) <= 0).all()
    every = model.memberships(frame, top=4)
    edits.merge_clusters(out, [0, 2])
    verify_all(read_manifest(out))
    merged = pd.read_parquet(out / "assignments.parquet")
    whole = np.zeros((len(frame), 4))
    for i in range(1, 5):
        whole[np.arange(len(frame)), every[f"cluster_{i}"].to_numpy(int)] = every[f"probability_{i}"]
    sums = np.stack([whole[:, 0] + whole[:, 2], whole[:, 1], whole[:, 3]], axis=1)
    # sums of float32 probabilities
    np.testing.assert_allclose(shares_of(merged, 3), -np.sort(-sums, axis=1), atol=1e-6)
    assert set(merged["cluster_1"]) <= {0, 1, 3}
    assert merged["cluster_1"].tolist() == [(0, 1, 3)[i] for i in sums.argmax(axis=1)]
    edits.undo(out)
    pd.testing.assert_frame_equal(pd.read_parquet(out / "assignments.parquet"), frame)


def test_new_rows_get_memberships_from_the_command_and_mlflow(folder: Path, tmp_path: Path) -> None:
    source = folder / "tracks.parquet"
    rows = pd.read_parquet(source)
    expected = gc.load_model(folder / "out").memberships(rows, top=2)
    assert (
        main(
            ["predict", str(folder / "out"), str(source), "--out", str(tmp_path / "new.parquet"), "--memberships", "2"]
        )
        == 0
    )
    found = pd.read_parquet(tmp_path / "new.parquet")
    for name in expected.columns:
        assert found[name].tolist() == expected[name].tolist()
    assert (
        main(["predict", str(folder / "out"), str(source), "--out", str(tmp_path / "no.parquet"), "--memberships", "0"])
        == 2
    )
    run_id = read_manifest(folder / "out").text["run_id"]
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model(f"runs:/{run_id}/model")
    assert model.predict(rows).columns.tolist() == ["cluster", "confidence", "distance"]
    logged = model.predict(rows, params={"memberships": 2})
    for name in expected.columns:
        # the column of MLflow is float64
        np.testing.assert_allclose(logged[name].to_numpy(float), expected[name].to_numpy(float), rtol=1e-6)


def test_the_api_gives_memberships_and_reasons(folder: Path) -> None:
    app = create_app(folder / "out")
    library = app.state.library

    async def answers() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/api/v1") as client:
            return [
                await client.post("/predict", json=body),
                await client.post("/predict?memberships=2", json=body),
                await client.get("/items/track00007/why"),
                await client.get("/items/none/why"),
            ]

    item = library.item("track00007")
    body = {"rows": [dict(item.features), {"energy": None}]}
    plain, soft, reason, missing = asyncio.run(answers())
    assert plain.json()["predictions"][0]["memberships"] == []
    first, second = soft.json()["predictions"]
    expected = gc.load_model(folder / "out").memberships(pd.DataFrame([item.features]), top=2)
    names = {c.cluster: c.name for c in library.clusters}
    assert [m["cluster"] for m in first["memberships"]] == [expected["cluster_1"][0], expected["cluster_2"][0]]
    assert [m["name"] for m in first["memberships"]] == [names[m["cluster"]] for m in first["memberships"]]
    assert first["memberships"][0]["probability"] == pytest.approx(expected["probability_1"][0])
    assert first["outlier"] == pytest.approx(first["distance"], rel=1e-5)
    assert (second["memberships"], second["outlier"]) == ([], None)
    why = reason.json()
    known = gc.load_model(folder / "out").explain(pd.DataFrame([item.features])).iloc[0]
    assert (why["cluster"], why["next"], why["name"]) == (item.cluster, known["next"], names[item.cluster])
    assert why["contributions"] == pytest.approx({f: known[f] for f in FEATURES})
    assert why["difference"] == pytest.approx(sum(why["contributions"].values()))
    assert why["difference"] < 0
    assert missing.status_code == 404
