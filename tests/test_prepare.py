"""Preparing: scaling and PCA against scikit-learn, and the same rows whatever the block."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from gpuclust.compute.cpu import CpuBackend
from gpuclust.config import ReduceConfig, ScaleConfig
from gpuclust.data.table import Audit, Roles, Table
from gpuclust.errors import ConfigurationError
from gpuclust.prepare import BLOCK_ROWS, Matrix, prepare

BACKEND = CpuBackend()


def table(values: np.ndarray) -> Table:
    names = [f"f{i}" for i in range(values.shape[1])]
    frame = pd.DataFrame(values, columns=names).assign(id=range(len(values)))
    return Table(frame, Roles(), tuple(names), "f", Audit())


def prepared(
    values: np.ndarray, scale: str = "standard", reduce: ReduceConfig | None = None, dtype: str = "float64"
) -> Matrix:
    return prepare(table(values), ScaleConfig(scale), reduce or ReduceConfig(), dtype=dtype, key="m", backend=BACKEND)


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(500, 5)) @ rng.normal(size=(5, 5)) * [1, 10, 1e5, 1e-3, 1] + [0, 5, 1e6, 0, -3]


@pytest.mark.parametrize(
    ("method", "scaler"), [("standard", StandardScaler()), ("minmax", MinMaxScaler()), ("robust", RobustScaler())]
)
def test_scaling_is_that_of_scikit_learn(values: np.ndarray, method: str, scaler: StandardScaler) -> None:
    # Offset and scale are the same numbers; the order of two operations may move the last bits.
    np.testing.assert_allclose(prepared(values, method).X, scaler.fit_transform(values), rtol=1e-9, atol=1e-12)


def test_no_scaling_changes_nothing(values: np.ndarray) -> None:
    np.testing.assert_array_equal(prepared(values, "none").X, values)


@pytest.mark.parametrize("wanted", [1, 3, 5, 0.5, 0.9, 1.0])
def test_components_are_those_of_scikit_learn_up_to_sign(values: np.ndarray, wanted: float) -> None:
    scaled = StandardScaler().fit_transform(values)
    matrix = prepared(values, reduce=ReduceConfig("pca", wanted))
    # scikit-learn takes a share below 1 only; all of the variance is all of the components.
    everything = isinstance(wanted, float) and wanted == 1.0
    reference = PCA(None if everything else wanted, svd_solver="full").fit(scaled)
    projection = matrix.preparation.projection
    assert projection is not None
    assert len(projection.components) == reference.n_components_
    kept = len(projection.components)
    expected = reference.transform(scaled)[:, :kept]
    signs = np.sign((expected * matrix.X).sum(axis=0))
    # Two algorithms for the same eigenvectors: 1e-8 of a unit-variance component.
    np.testing.assert_allclose(matrix.X * signs, expected, atol=1e-8)
    np.testing.assert_allclose(
        projection.explained_variance_ratio, reference.explained_variance_ratio_[:kept], rtol=1e-9
    )
    assert matrix.preparation.explained_variance == pytest.approx(reference.explained_variance_ratio_[:kept].sum())


def test_the_largest_loading_of_each_component_is_positive(values: np.ndarray) -> None:
    projection = prepared(values, reduce=ReduceConfig("pca", 5)).preparation.projection
    assert projection is not None
    largest = np.abs(projection.components).argmax(axis=1)
    assert (projection.components[np.arange(5), largest] > 0).all()


def test_whiten_is_that_of_scikit_learn_and_rescale_that_of_a_standard_scaler(values: np.ndarray) -> None:
    scaled = StandardScaler().fit_transform(values)
    white = prepared(values, reduce=ReduceConfig("pca", 3, whiten=True)).X
    np.testing.assert_allclose(np.abs(white), np.abs(PCA(3, whiten=True).fit_transform(scaled)), atol=1e-8)
    rescaled = prepared(values, reduce=ReduceConfig("pca", 3, rescale=True)).X
    np.testing.assert_allclose(rescaled.std(axis=0), 1.0, rtol=1e-9)


def test_more_components_than_features_is_refused(values: np.ndarray) -> None:
    with pytest.raises(ConfigurationError, match=r"reduce.n_components=6 is more than the 5"):
        prepared(values, reduce=ReduceConfig("pca", 6))


def test_coordinates_are_the_first_components_whatever_is_reduced(values: np.ndarray) -> None:
    plain, reduced = prepared(values), prepared(values, reduce=ReduceConfig("pca", 2, rescale=True))
    np.testing.assert_array_equal(plain.coordinates, reduced.coordinates)
    assert plain.coordinates.shape == (500, 3)
    assert plain.coordinates.dtype == np.float32


@pytest.mark.parametrize("width", [1, 2])
def test_coordinates_that_do_not_exist_are_zero(width: int) -> None:
    matrix = prepared(np.random.default_rng(1).normal(size=(50, width)))
    assert (matrix.coordinates[:, width:] == 0).all()
    assert matrix.coordinates[:, 0].std() > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_the_one_asked_for_and_float32_rounds_once(values: np.ndarray, dtype: str) -> None:
    matrix = prepared(values, dtype=dtype)
    assert matrix.X.dtype == dtype
    np.testing.assert_array_equal(matrix.X, prepared(values).X.astype(dtype))


def test_fewer_rows_than_features() -> None:
    matrix = prepared(np.random.default_rng(2).normal(size=(4, 9)), reduce=ReduceConfig("pca", 0.99))
    assert matrix.X.shape[1] <= 4


@settings(max_examples=20, deadline=None)
@given(st.floats(0.001, 1e6), st.floats(-1e6, 1e6), st.integers(0, 4))
def test_units_of_a_feature_do_not_matter_after_scaling(factor: float, shift: float, column: int) -> None:
    raw = np.random.default_rng(3).normal(size=(200, 5))
    other = raw.copy()
    other[:, column] = other[:, column] * factor + shift
    # Adding up to 1e6 to values of size factor >= 0.001 leaves 1e-7 of them at worst.
    np.testing.assert_allclose(prepared(raw).X, prepared(other).X, atol=2e-6)


def test_transform_of_a_part_is_the_part_of_the_transform() -> None:
    raw = np.random.default_rng(4).normal(size=(BLOCK_ROWS + 1000, 6))
    matrix = prepared(raw, reduce=ReduceConfig("pca", 4), dtype="float32")
    again, _ = matrix.preparation.transform(raw)
    np.testing.assert_array_equal(again, matrix.X)
    part, _ = matrix.preparation.transform(raw[:BLOCK_ROWS])
    np.testing.assert_array_equal(part, matrix.X[:BLOCK_ROWS])


@pytest.mark.real
def test_seven_features_of_real_tracks_keep_93_49_percent_in_five_components(real_data) -> None:  # type: ignore[no-untyped-def]
    frame = pd.read_csv(real_data / "tracks_114k.csv").drop_duplicates("track_id")
    seven = ["danceability", "energy", "speechiness", "acousticness", "instrumentalness", "liveness", "valence"]
    matrix = prepared(frame[seven].to_numpy(), "minmax", ReduceConfig("pca", 5))
    assert round(matrix.preparation.explained_variance, 4) == 0.9349
