"""Preparing: scaling and PCA against scikit-learn, and the same rows whatever the block."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from gpuclust.compose import compose
from gpuclust.config import ReduceConfig, ScaleConfig
from gpuclust.data.disk_frame import DiskFrameWriter
from gpuclust.data.table import Audit, Roles, Table
from gpuclust.errors import ConfigurationError
from gpuclust.model.bundle import Bundle
from gpuclust.model.preparation import BLOCK_ROWS
from gpuclust.pipeline.context import Result, make_job
from gpuclust.pipeline.job import compute
from gpuclust.pipeline.run_log import bundle_of
from gpuclust.reducers.prepare import prepare
from gpuclust.reducers.scalers import METHODS
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.matrix import Matrix
from gpuclust.runtime.scratch import Scratch

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


def blobs(offset: float, spread: float = 1.0, n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Four separate groups in three features, moved and stretched, and the group of each row."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 4
    centres = np.array([[0, 0, 0], [9, 0, 3], [0, 9, 6], [9, 9, 9]], dtype=np.float64)
    return (rng.normal(size=(n, 3)) + centres[truth]) * spread + offset, truth


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reduce", [None, ReduceConfig("pca", 2)])
@pytest.mark.parametrize(
    ("offset", "spread"),
    [(1e9, 1.0), (-1e12, 1.0), (1e12, 1e3), (3.0, 1e-9), (1e-20, 1e-25), (0.0, 1e-25), (0.0, 1e25)],
)
def test_a_far_or_tiny_cloud_is_prepared_as_one_around_zero(
    dtype: str, method: str, reduce: ReduceConfig | None, offset: float, spread: float
) -> None:
    near, far = blobs(0.0)[0], blobs(offset, spread)[0]
    expected = prepared(near, method, reduce, "float64").X.astype(np.float64)
    matrix = prepared(far, method, reduce, dtype)
    got = matrix.X.astype(np.float64) / (spread if method == "none" else 1.0)
    assert np.isfinite(got).all()
    apart = np.linalg.norm(expected - expected[:1], axis=1)
    # What float64 keeps of the raw values themselves (1e-16 of the offset), and float32 of the prepared ones.
    lost = 4 * abs(offset) / spread * np.finfo(np.float64).eps + (1e-5 if dtype == "float32" else 1e-7)
    scale = np.abs(expected - expected.mean(axis=0)).max() / np.abs(near - near.mean(axis=0)).max()
    np.testing.assert_allclose(
        np.linalg.norm(got - got[:1], axis=1), apart, atol=10 * lost * max(scale, 1e-3) + 1e-6 * apart.max()
    )


def test_centring_keeps_the_units_and_whole_numbers_whole() -> None:
    values = np.arange(300, dtype=np.float64).reshape(-1, 3) * [1, 2, 0.25] + [1e9, 0, -1e6]
    matrix = prepared(values, "none", dtype="float32")
    scaling = matrix.preparation.scaling
    np.testing.assert_array_equal(scaling.scale, 1.0)
    np.testing.assert_array_equal(matrix.X.astype(np.float64) + scaling.offset, values)
    assert scaling.offset[1] == 0.0, "a feature near 0 stays as it is"


@pytest.mark.parametrize("method", METHODS)
def test_ordinary_features_are_scaled_as_before(values: np.ndarray, method: str) -> None:
    """Bit for bit scikit-learn's, so that labels of earlier versions stay."""
    standard, minmax, robust = (s.fit(values) for s in (StandardScaler(), MinMaxScaler(), RobustScaler()))
    offset, scale = {
        "standard": (standard.mean_, standard.scale_),
        "minmax": (minmax.data_min_, 1.0 / minmax.scale_),
        "robust": (robust.center_, robust.scale_),
        "none": (np.zeros(5), np.ones(5)),
    }[method]
    scaling = prepared(values, method).preparation.scaling
    np.testing.assert_array_equal(scaling.offset, offset)
    np.testing.assert_array_equal(scaling.scale, scale)


@pytest.mark.parametrize("factor", [1e20, 1e-20])
def test_float64_is_taken_where_float32_cannot_hold_squares(factor: float) -> None:
    matrix = prepared(blobs(0.0)[0] * factor, "none", dtype="float32")
    assert matrix.X.dtype == np.float64
    assert matrix.preparation.dtype == "float64"
    assert "float64" in matrix.notes[0]
    assert prepared(blobs(0.0)[0], "none", dtype="float32").notes == ()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("algorithm", ["kmeans", "gmm", "hdbscan"])
@pytest.mark.parametrize("offset", [1e9, 1e12])
def test_groups_far_from_zero_are_found_and_predicted(
    method: str, algorithm: str, offset: float, tmp_path: Path, context: Any
) -> None:
    """A whole job in float32: its labels, scores, profile, model and the server's predictions."""
    raw, truth = blobs(offset)
    pd.DataFrame(raw, columns=list("abc")).to_csv(tmp_path / "t.csv", index=False)
    size = "cluster.min_cluster_size=30" if algorithm == "hdbscan" else "cluster.n_clusters=4"
    config = compose(["data=table", f"data.path={tmp_path / 't.csv'}", f"scale={method}", f"cluster={algorithm}", size])
    (result,) = compute([make_job(config, "far", {}, "cpu")], context)
    assert isinstance(result, Result)
    labels = result.clustering.labels
    clustered = labels >= 0
    assert clustered.mean() > 0.95
    assert adjusted_rand_score(truth[clustered], labels[clustered]) == 1.0
    assert result.metrics["n_clusters"] == 4
    prepared_again = result.matrix.X.astype(np.float64)
    expected = silhouette_score(prepared_again[clustered], labels[clustered])
    assert result.metrics["silhouette"] == pytest.approx(expected, abs=1e-5)  # float32 distances
    for c in result.profile.proper:
        # In original units, as the raw rows have it.
        np.testing.assert_allclose(
            [c.features[f].mean for f in "abc"], raw[labels == c.cluster].mean(axis=0), rtol=1e-15, atol=1e-3
        )
    bundle = bundle_of(config, result.table, result.matrix, result.clustering, result.profile)
    bundle.save(tmp_path / "model")
    again = Bundle.load(tmp_path / "model").predict(raw)
    served = Bundle.load(tmp_path / "model").predict(raw)
    for found in (again.cluster, served.cluster):
        assert (
            (found[clustered] == labels[clustered]).mean() > 0.99 if algorithm == "hdbscan" else (found == labels).all()
        )
    if algorithm == "kmeans":
        assert result.metrics["inertia"] == pytest.approx(
            sum(
                ((prepared_again[labels == c] - prepared_again[labels == c].mean(axis=0)) ** 2).sum() for c in range(4)
            ),
            rel=1e-6,
        )
        scaling = result.matrix.preparation.scaling
        centres = result.clustering.centers * scaling.scale + scaling.offset
        np.testing.assert_allclose(centres, [raw[labels == c].mean(axis=0) for c in range(4)], rtol=1e-15, atol=1e-3)


@pytest.mark.parametrize("factor", [1e60, 1e-60])
def test_units_beyond_reach_are_refused_without_scaling_and_scaled_otherwise(factor: float) -> None:
    values = blobs(0.0)[0] * factor
    with pytest.raises(ConfigurationError, match=r"scale=none leaves 'f\d' with values up to .*; use scale=standard"):
        prepared(values, "none")
    np.testing.assert_allclose(
        prepared(values, "standard").X, prepared(blobs(0.0)[0], "standard").X, rtol=1e-9, atol=1e-12
    )


def test_rows_that_are_too_far_are_placed_by_neither(tmp_path: Path, context: Any) -> None:
    raw, _ = blobs(0.0)
    pd.DataFrame(raw, columns=list("abc")).to_csv(tmp_path / "t.csv", index=False)
    config = compose(["data=table", f"data.path={tmp_path / 't.csv'}", "cluster.n_clusters=3"])
    (result,) = compute([make_job(config, "far", {}, "cpu")], context)
    bundle = bundle_of(config, result.table, result.matrix, result.clustering, result.profile)
    bundle.save(tmp_path / "model")
    rows = np.vstack([raw[:3], raw[:3] * 1e30])
    assert Bundle.load(tmp_path / "model").predict(rows).placed.tolist() == [True] * 3 + [False] * 3
    assert (Bundle.load(tmp_path / "model").predict(rows).cluster == -2).tolist() == [False] * 3 + [True] * 3


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    with Scratch(tmp_path) as scratch:
        yield scratch


def on_disk(values: np.ndarray, scratch: Scratch) -> Table:
    """The table of `table`, its frame on disk."""
    held = table(values)
    writer = DiskFrameWriter(scratch, held.features)
    writer.append(held.frame)
    return replace(held, frame=writer.close())


def many(n: int, seed: int = 0) -> np.ndarray:
    """Rows of several blocks: far, skewed and discrete features, and one of ties."""
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [
            rng.normal(2000, 15, n).round(),
            np.exp(rng.normal(size=n)),
            rng.integers(0, 12, n).astype(np.float64),
            rng.normal(size=n) * 1e5 - 4e5,
            np.where(rng.random(n) < 0.7, 0.0, rng.random(n)),
        ]
    )


@pytest.mark.parametrize("n", [1000, 2 * BLOCK_ROWS + 77])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reduce", [ReduceConfig(), ReduceConfig("pca", 0.9, rescale=True)])
def test_a_table_on_disk_is_prepared_bit_for_bit_as_one_in_memory(
    n: int, method: str, reduce: ReduceConfig, scratch: Scratch
) -> None:
    values = many(n)
    resident = prepared(values, method, reduce, "float32")
    streamed = prepare(
        on_disk(values, scratch), ScaleConfig(method), reduce,
        dtype="float32", key="m", backend=BACKEND, scratch=scratch,
    )  # fmt: skip
    assert streamed.in_blocks
    assert streamed.distinct is None
    assert streamed.n_rows == n
    assert streamed.notes == resident.notes
    again = streamed.resident(BACKEND)
    np.testing.assert_array_equal(again.X, resident.X)
    np.testing.assert_array_equal(again.coordinates, resident.coordinates)
    assert again.X.dtype == again.coordinates.dtype == np.float32
    for part in ("scaling", "map_projection", *(["projection"] if reduce.method == "pca" else [])):
        one, other = (getattr(m.preparation, part).to_arrays() for m in (resident, streamed))
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize(
    ("method", "scaler"), [("standard", StandardScaler), ("minmax", MinMaxScaler), ("robust", RobustScaler)]
)
def test_many_blocks_are_scaled_and_reduced_as_by_scikit_learn(method: str, scaler: Any) -> None:
    values = many(2 * BLOCK_ROWS + 77)
    expected = scaler().fit_transform(values)
    matrix = prepared(values, method, ReduceConfig("pca", 5))
    scaling, projection = matrix.preparation.scaling, matrix.preparation.projection
    # A mean of 130,000 rows in another order of addition.
    np.testing.assert_allclose(scaling.transform(values), expected, rtol=1e-12, atol=1e-12)
    reference = PCA(svd_solver="full").fit(expected)
    assert projection is not None
    np.testing.assert_allclose(projection.explained_variance, reference.explained_variance_, rtol=1e-10)
    np.testing.assert_allclose(np.abs(projection.components), np.abs(reference.components_), atol=1e-9)


@pytest.mark.parametrize(("scale", "reduce"), [("winsor", ReduceConfig()), ("none", ReduceConfig("random"))])
def test_a_plug_in_that_needs_all_rows_is_refused_in_one_line(
    scale: str, reduce: ReduceConfig, scratch: Scratch
) -> None:
    rows = on_disk(many(100), scratch)
    with pytest.raises(
        ConfigurationError, match=r"=(winsor|random) needs all rows in memory; use memory.mode=resident"
    ):
        prepare(rows, ScaleConfig(scale), reduce, dtype="float64", key="m", backend=BACKEND, scratch=scratch)
