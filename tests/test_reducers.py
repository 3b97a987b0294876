"""Factor analysis against scikit-learn's, and reductions that keep neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import FactorAnalysis
from threadpoolctl import threadpool_limits

import gpuclust as gc
from gpuclust.config import ReduceConfig
from gpuclust.errors import ConfigurationError
from gpuclust.model.bundle import Bundle
from gpuclust.reducers.fa import factors
from gpuclust.reducers.neighbours import fit_reduction
from gpuclust.reducers.pca import fit_components
from gpuclust.reducers.scalers import fit_scaling
from gpuclust.runtime.blocks import MemoryBlocks
from gpuclust.runtime.cpu import CpuBackend

BACKEND = CpuBackend()


def of_factors(n: int = 400, n_features: int = 8) -> np.ndarray:
    """Rows of two factors and noise of a different size in each feature."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(2, n_features))
    return rng.normal(size=(n, 2)) @ loadings + rng.normal(size=(n, n_features)) * rng.uniform(0.2, 1.5, n_features) + 3


def fa(n_components: Any = 2, **options: Any) -> ReduceConfig:
    return ReduceConfig("fa", n_components, **options)


@pytest.fixture(scope="module")
def reference() -> FactorAnalysis:
    """scikit-learn's, of all rows; in one thread, which is much faster where other processes use the cores."""
    with threadpool_limits(1):
        return FactorAnalysis(2, svd_method="lapack").fit(of_factors())


class TestFactorAnalysis:
    """`reduce=fa`."""

    @pytest.mark.parametrize("in_blocks", [False, True])
    def test_scores_are_those_of_scikit_learn(self, in_blocks: bool, reference: FactorAnalysis) -> None:
        X = of_factors()
        found = factors(fit_components(MemoryBlocks(X) if in_blocks else X, BACKEND), fa())
        expected = reference.transform(X)
        scores = found.transform(X)
        signs = np.sign((scores * expected).sum(axis=0))
        # Both take the same steps, from moments that are summed in another order.
        np.testing.assert_allclose(scores * signs, expected, atol=1e-6)

    def test_the_share_of_the_variance_is_that_of_the_loadings(self, reference: FactorAnalysis) -> None:
        X = of_factors()
        found = factors(fit_components(X, BACKEND), fa())
        assert found.explained_share == pytest.approx((reference.components_**2).sum() / X.var(axis=0).sum(), abs=1e-3)

    def test_fewer_rows_than_features(self) -> None:
        X = of_factors(7)
        found = factors(fit_components(X, BACKEND), fa(1))
        assert np.isfinite(found.transform(X)).all()

    @pytest.mark.parametrize(("option", "ddof"), [("whiten", 1), ("rescale", 0)])
    def test_scores_can_be_divided_by_their_deviation(self, option: str, ddof: int) -> None:
        X = of_factors()
        found = factors(fit_components(X, BACKEND), fa(**{option: True}))
        np.testing.assert_allclose(found.transform(X).std(axis=0, ddof=ddof), 1.0, rtol=1e-9)

    @pytest.mark.parametrize(
        ("wanted", "message"),
        [(0.9, r"is a share of the variance; reduce=fa takes a number"), (8, r"is not below the 8 features")],
    )
    def test_a_number_that_is_not_possible_is_refused(self, wanted: Any, message: str) -> None:
        with pytest.raises(ConfigurationError, match=rf"^reduce.n_components={wanted} {message}"):
            factors(fit_components(of_factors(50), BACKEND), fa(wanted))

    def test_features_that_depend_on_each_other_are_refused(self) -> None:
        rows = of_factors(50)
        rows[:, 7] = 1 - rows[:, :2].sum(axis=1)  # as the columns of one category
        with pytest.raises(ConfigurationError, match="none is a sum of others"):
            factors(fit_components(rows, BACKEND), fa(2))

    def test_a_job_predicts_what_it_fitted(self, tmp_path: Any) -> None:
        table = pd.DataFrame(of_factors(300), columns=list("abcdefgh"))
        config = {"reduce": "fa", "reduce.n_components": 2}
        run = gc.fit(table, gc.KMeans(n_clusters=3), config=config, tracking=None, backend="cpu", progress=False)
        model = Bundle.load(run.export(tmp_path / "out") / "model")
        assert model.preparation.n_columns == 2
        np.testing.assert_array_equal(model.predict(table.to_numpy()).cluster, run.labels_)
        assert 0 < run.metrics["explained_variance"] < 1


@pytest.fixture
def by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without numba's compilation: the first columns of the rows instead of UMAP's positions."""
    monkeypatch.setattr(
        "gpuclust.reducers.landmarks._method", lambda method, key: lambda points, settings, backend: points[:, :2]
    )


def test_a_sweep_after_umap_says_that_its_distances_are_not_those_of_the_data(by_columns: None, tmp_path: Any) -> None:
    table = pd.DataFrame(of_factors(150), columns=list("abcdefgh"))
    config = {"reduce": "umap", "reduce.n_components": 2}
    found = gc.sweep(table, gc.KMeans(n_clusters=[2, 3]), config=config, tracking=None, backend="cpu", progress=False)
    assert found.verdict.text.endswith("This is of the positions after reduce=umap, not of the data.")
    assert any(text.startswith("distances after reduce=umap are not those of the data") for text in found.warnings)
    run = found.best
    assert run is not None
    assert "explained_variance" not in run.metrics
    folder = run.export(tmp_path / "out")
    model = Bundle.load(folder / "model")
    np.testing.assert_array_equal(model.predict(table.to_numpy()).cluster, run.labels_)
    assert "distances after reduce=umap" in (folder / "manifest.json").read_text()


@pytest.mark.parametrize(
    ("reduce", "message"),
    [
        (ReduceConfig("umap", 0.95), "reduce.n_components=0.95: reduce=umap takes a whole number of dimensions from 2"),
        (ReduceConfig("umap", 9), "reduce.n_components=9: reduce=umap takes a whole number of dimensions from 2"),
        (ReduceConfig("umap", 2, whiten=True), "reduce=umap has no reduce.whiten"),
        (ReduceConfig("umap", 2, options={"n_neighbours": 5}), "reduce.options.n_neighbours is not an option"),
        (ReduceConfig("umap", 2, options={"min_dist": 2}), r"reduce.options.min_dist=2 is outside \[0, 1\]"),
        (
            ReduceConfig("pacmap", 2, options={"min_dist": 0.1}),
            "reduce.options.min_dist is not an option of reduce=pacmap",
        ),
    ],
)
def test_settings_that_are_not_possible_are_refused(reduce: ReduceConfig, message: str, by_columns: None) -> None:
    X = of_factors(50)
    with pytest.raises(ConfigurationError, match=message):
        fit_reduction(X, fit_scaling(X, "none", BACKEND), reduce, BACKEND)
