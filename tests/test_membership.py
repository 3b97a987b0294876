"""Memberships, outlier scores and the contributions of features, against scikit-learn, hdbscan's formulas and brute force."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.mixture import GaussianMixture as SkMixture

import gpuclust as gc
from gpuclust.algorithms.hdbscan.predict import soft_membership
from gpuclust.errors import ModelError
from gpuclust.results import Model


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    clouds = [rng.normal(at, spread, (120, 3)) for at, spread in ((0.0, 1.0), (6.0, 0.5), (12.0, 1.5))]
    frame = pd.DataFrame(np.concatenate([*clouds, rng.uniform(-5, 20, (40, 3))]), columns=["a", "b", "c"])
    return frame.assign(b=frame["b"] * 50 + 7)


@pytest.fixture(scope="module")
def models(rows: pd.DataFrame) -> Mapping[str, Model]:
    """Models of each algorithm, with and without a reduction, and unit rows."""
    fits = {
        "kmeans": (gc.KMeans(n_clusters=4), {}),
        "kmeans-pca": (gc.KMeans(n_clusters=4), {"reduce": 2}),
        "kmeans-cosine": (gc.KMeans(n_clusters=3, metric="cosine"), {}),
        **{
            f"gmm-{kind}": (gc.GaussianMixture(n_components=3, covariance_type=kind), {})
            for kind in ("full", "diag", "tied", "spherical")
        },
        "gmm-pca": (gc.GaussianMixture(n_components=3), {"reduce": 2}),
        "hdbscan": (gc.HDBSCAN(min_cluster_size=15), {}),
    }
    return {
        name: gc.fit(rows, algorithm, tracking=None, progress=False, **more).model
        for name, (algorithm, more) in fits.items()
    }


def test_memberships_of_kmeans_are_those_of_fuzzy_c_means(rows: pd.DataFrame, models: Mapping[str, Model]) -> None:
    model = models["kmeans"]
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
    assert found["cluster_1"].tolist() == model.predict(rows)["cluster"].tolist()


@pytest.mark.parametrize("kind", ["full", "diag", "tied", "spherical"])
def test_memberships_of_mixtures_are_those_of_scikit_learn(
    kind: str, rows: pd.DataFrame, models: Mapping[str, Model]
) -> None:
    bundle = models[f"gmm-{kind}"]._bundle
    found = models[f"gmm-{kind}"].memberships(rows)
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


def test_memberships_of_hdbscan_are_those_of_the_fitted_rows(rows: pd.DataFrame, models: Mapping[str, Model]) -> None:
    model = models["hdbscan"]
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


@pytest.mark.parametrize(
    "name", ["kmeans", "kmeans-pca", "kmeans-cosine", "gmm-full", "gmm-diag", "gmm-tied", "gmm-spherical", "gmm-pca"]
)
def test_contributions_add_up_to_the_difference_of_distances(
    name: str, rows: pd.DataFrame, models: Mapping[str, Model]
) -> None:
    model = models[name]
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


def test_what_is_not_defined_is_refused(rows: pd.DataFrame, models: Mapping[str, Model], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="hdbscan has no centres"):
        models["hdbscan"].explain(rows)
    one = gc.fit(rows, gc.GaussianMixture(n_components=1), tracking=None, progress=False).model
    with pytest.raises(ModelError, match="one cluster"):
        one.explain(rows)
    missing = rows.copy()
    missing.loc[0, "a"] = np.nan
    found: Any = models["kmeans"].memberships(missing, top=9)
    assert found.loc[0].isna().all()
    assert found.columns.tolist()[-3:] == ["cluster_4", "probability_4", "outlier"]
    assert models["kmeans"].explain(missing).loc[0].isna().all()
