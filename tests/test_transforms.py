"""Transforms of skewed features and weights: against scikit-learn, in the model, from disk, and what `describe` suggests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri
from scipy.stats import rankdata, skew
from sklearn.cluster import KMeans
from sklearn.preprocessing import PowerTransformer, QuantileTransformer, StandardScaler

import gpuclust as gc
from gpuclust.compose import compose, from_yaml, to_yaml
from gpuclust.config import ReduceConfig, ScaleConfig
from gpuclust.data.disk_frame import DiskFrameWriter
from gpuclust.data.table import Audit, Roles, Table
from gpuclust.describe import advice, describe, described_data
from gpuclust.errors import ConfigurationError, ModelError
from gpuclust.model.bundle import MODEL, Bundle
from gpuclust.reducers.prepare import prepare
from gpuclust.reducers.transforms import fit_transform, skewness, suggest_transform
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.scratch import Scratch
from tests.conftest import Quiet, cpu_context
from tests.test_bundle import built

N = 900
BACKEND = CpuBackend()
MIXED = {"wide": "log", "zeros": "log", "signed": "yeo-johnson", "odd": "quantile"}


@pytest.fixture(scope="module")
def values() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    signed = rng.standard_normal(N)
    return {
        "wide": 1000 * np.exp(rng.standard_normal(N)),
        "zeros": np.where(rng.random(N) < 0.2, 0.0, np.exp(rng.standard_normal(N))),
        "signed": np.where(signed > 0, signed**3, signed),
        "odd": np.round(rng.standard_cauchy(N), 1),
        "plain": rng.standard_normal(N),
    }


@pytest.fixture(scope="module")
def file(values: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("skewed") / "skewed.csv"
    pd.DataFrame(values).to_csv(path, index=False)
    return path


def table_of(values: dict[str, np.ndarray]) -> Table:
    frame = pd.DataFrame(values).assign(id=range(N))
    return Table(frame, Roles(), tuple(values), "f", Audit())


def prepared(table: Table, scale: ScaleConfig, scratch: Scratch | None = None, **options: Any) -> Any:
    reduce = ReduceConfig(**options)
    return prepare(table, scale, reduce, dtype="float64", key="m", backend=BACKEND, scratch=scratch)


def test_yeo_johnson_and_quantile_are_those_of_scikit_learn(values: dict[str, np.ndarray]) -> None:
    for name in ("wide", "signed"):
        column = values[name]
        found = fit_transform(column, "yeo-johnson", lowest=column.min())
        expected = PowerTransformer(standardize=False).fit_transform(column[:, None])[:, 0]
        # Two searches for one power, each to about 1e-7.
        np.testing.assert_allclose(found.forward(column), expected, atol=1e-5, rtol=1e-5)
    new = np.array([-1e9, -3.05, 0.0, 0.1, 2.22, 1e9])
    column = values["signed"]
    found = fit_transform(column, "quantile", lowest=column.min())
    theirs = QuantileTransformer(n_quantiles=N, output_distribution="normal").fit(column[:, None])
    np.testing.assert_allclose(found.forward(column), theirs.transform(column[:, None])[:, 0], atol=1e-7)
    # The score of a rank between two of the 900 is interpolated, and scikit-learn computes it.
    np.testing.assert_allclose(found.forward(new), theirs.transform(new[:, None])[:, 0], atol=0.02)


def scores_of(column: np.ndarray) -> np.ndarray:
    """Normal scores of ranks, equal values with the mean of their ranks."""
    return ndtri(np.clip((rankdata(column) - 1) / (len(column) - 1), 1e-7, 1 - 1e-7))


def test_equal_values_get_the_score_of_their_mean_rank(values: dict[str, np.ndarray]) -> None:
    found = fit_transform(values["odd"], "quantile", lowest=values["odd"].min())
    np.testing.assert_allclose(found.forward(values["odd"]), scores_of(values["odd"]), atol=1e-3)  # of half ranks


@pytest.mark.parametrize("method", ["log", "yeo-johnson", "quantile"])
def test_a_transform_is_increasing_and_has_an_inverse(method: str, values: dict[str, np.ndarray]) -> None:
    column = values["zeros"] if method == "log" else values["signed"]
    found = fit_transform(column, method, lowest=column.min())
    ordered = found.forward(np.sort(column))
    assert (np.diff(ordered) >= 0).all()
    for x in np.quantile(column, [0.3, 0.5, 0.9]).tolist():
        assert found.inverse(float(found.forward(np.array(x)))) == pytest.approx(x, rel=1e-6, abs=1e-6)
    assert np.isnan(found.forward(np.array([np.nan]))).all()


def test_a_logarithm_does_not_depend_on_the_unit(values: dict[str, np.ndarray]) -> None:
    column = values["zeros"]
    small, large = (fit_transform(x, "log", lowest=0.0).forward(x) for x in (column, 1000 * column))
    np.testing.assert_allclose(large - small, np.log(1000), rtol=1e-9)


def test_the_matrix_is_that_of_transformed_and_weighted_features(values: dict[str, np.ndarray]) -> None:
    matrix = prepared(table_of(values), ScaleConfig("standard", MIXED, {"plain": 3.0, "wide": 0.5}))
    expected = StandardScaler().fit_transform(
        np.column_stack([
            np.log(values["wide"]),
            np.log(values["zeros"] + np.median(values["zeros"][values["zeros"] > 0])),
            PowerTransformer(standardize=False).fit_transform(values["signed"][:, None]),
            scores_of(values["odd"]),
            values["plain"],
        ])
    )  # fmt: skip
    np.testing.assert_allclose(matrix.X, expected * [0.5, 1, 1, 1, 3], atol=1e-3)  # that of repeated quantiles


def test_from_disk_the_matrix_has_the_same_bits(values: dict[str, np.ndarray], tmp_path: Path) -> None:
    table, scale = table_of(values), ScaleConfig("robust", MIXED, {"odd": 2.0})
    resident = prepared(table, scale, method="pca", n_components=3)
    with Scratch(tmp_path) as scratch:
        with DiskFrameWriter(scratch, table.features) as writer:
            writer.append(table.frame)
            frame = writer.close()
        on_disk = prepared(replace(table, frame=frame), scale, scratch, method="pca", n_components=3)
        np.testing.assert_array_equal(on_disk.X.take(np.arange(N)), resident.X)
        np.testing.assert_array_equal(on_disk.coordinates.take(np.arange(N)), resident.coordinates)


def test_nothing_changes_without_them(values: dict[str, np.ndarray]) -> None:
    plain = prepared(table_of(values), ScaleConfig())
    assert plain.preparation.transforms == {}
    np.testing.assert_allclose(
        plain.X, StandardScaler().fit_transform(np.column_stack(list(values.values()))), atol=1e-9
    )


OVERRIDES = ["cluster.n_clusters=4", *(f"scale.transform.{n}={m}" for n, m in MIXED.items()), "scale.weights.plain=2"]


@pytest.fixture(scope="module")
def model(file: Path) -> tuple[Bundle, Any, np.ndarray]:
    return built(cpu_context(Quiet()), [f"data.path={file}", "data.n_rows=null", *OVERRIDES])


def test_a_model_repeats_the_labels_and_refuses_what_has_no_logarithm(model: Any, tmp_path: Path) -> None:
    bundle, result, raw = model
    again = Bundle.load(bundle.save(tmp_path / "bundle"))
    np.testing.assert_array_equal(again.predict(raw).cluster, result.clustering.labels)
    np.testing.assert_array_equal(again.coordinates(raw), result.matrix.coordinates)
    preparation = Bundle.load_preparation(tmp_path / "bundle").preparation
    np.testing.assert_array_equal(preparation.points(raw), result.matrix.X)
    rows = np.repeat(raw[:1], 3, axis=0)
    rows[1, 0], rows[2, 1] = 0.0, -5.0
    assert again.predict(rows).placed.tolist() == [True, False, False]
    assert again.obstacle(rows[1]) == "wide=0 is too far out to be placed"
    missing = np.full((1, 5), np.nan)
    np.testing.assert_allclose(
        again.points(missing), 0, atol=0.05
    )  # the middle of each feature, or a value of `odd` next to it


def test_a_damaged_transform_is_refused(model: Any, tmp_path: Path) -> None:
    bundle, _, _ = model
    odd = bundle.features.index("odd")
    transform = bundle.preparation.transforms[odd]
    falling = {**bundle.preparation.transforms, odd: replace(transform, quantiles=transform.quantiles[::-1])}  # type: ignore[index]
    replace(bundle, preparation=replace(bundle.preparation, transforms=falling)).save(tmp_path / "a")
    with pytest.raises(ModelError, match="transforms/quantiles has values that decrease"):
        Bundle.load(tmp_path / "a")
    folder = bundle.save(tmp_path / "b")
    text = (folder / MODEL).read_text()
    (folder / MODEL).write_text(text.replace('"yeo-johnson"', '"exp"'))
    with pytest.raises(ModelError, match=r"transforms\.signed\.method"):
        Bundle.load(folder)


def test_python_and_the_command_line_agree(values: dict[str, np.ndarray], model: Any) -> None:
    run = gc.fit(
        pd.DataFrame(values),
        gc.KMeans(n_clusters=4),
        transform=MIXED,
        weights={"plain": 2},
        tracking=None,
        progress=False,
    )
    _, result, _ = model
    np.testing.assert_array_equal(run.labels_, result.clustering.labels)


def test_a_weight_moves_the_clusters() -> None:
    """Two features with two groups each: the one with the larger weight is split."""
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 2, N), rng.integers(0, 2, N)
    X = np.column_stack([first, second]) * 4 + rng.standard_normal((N, 2))
    frame = pd.DataFrame(X, columns=["one", "two"])
    for name, truth in (("one", first), ("two", second)):
        run = gc.fit(frame, gc.KMeans(n_clusters=2), weights={name: 3.0}, tracking=None, progress=False)
        assert max((run.labels_ == truth).mean(), (run.labels_ != truth).mean()) > 0.95
        factors = [3.0 if column == name else 1.0 for column in frame]
        reference = KMeans(2, n_init=5, random_state=0).fit(StandardScaler().fit_transform(X) * factors)
        assert run.metrics["inertia"] == pytest.approx(reference.inertia_, rel=1e-3)  # a local optimum each


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transform": {"wid": "log"}}, r"scale.transform.wid: no feature has this name; did you mean wide\?"),
        ({"transform": {"signed": "log"}}, "scale.transform.signed=log: the logarithm needs values of at least 0"),
        ({"transform": {"wide": "sqrt"}}, "scale.transform.wide=sqrt is not one of log, yeo-johnson, quantile"),
        ({"weights": {"wide": 0}}, r"scale.weights.wide=0 is not a number above 0; data.exclude=\[wide\]"),
        ({"weights": {"wide": 2}, "scale": "unit"}, "scale.transform and scale.weights cannot be used"),
        ({"weights": ["wide"]}, "weights=.*is not a mapping"),
    ],
)
def test_what_cannot_be_applied_is_refused_in_one_line(
    options: dict[str, Any], message: str, values: dict[str, np.ndarray]
) -> None:
    with pytest.raises(gc.errors.GpuclustError, match=message):
        gc.fit(pd.DataFrame(values), tracking=None, progress=False, **options)


def test_keys_of_the_command_line() -> None:
    config = compose(["scale.transform.tempo=log", "scale.weights={tempo: 2}"])
    assert (config.scale.transform, config.scale.weights) == ({"tempo": "log"}, {"tempo": 2.0})
    assert from_yaml(to_yaml(config)).scale == config.scale
    for override, message in (
        ("scale.transform=log", "write one column at a time, as in scale.transform.tempo=log"),
        ("scale.weights.tempo=much", "is not a number above 0"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            compose([override])


def test_describe_suggests_a_transform_for_each_skewed_feature(values: dict[str, np.ndarray], file: Path) -> None:
    lines = [line for line in advice(*describe(described_data(file))) if "is skewed" in line]
    assert [line.split()[0] for line in lines][-1] != "plain"
    assert not any(line.startswith("plain") for line in lines)
    before = skew(values["wide"])
    after = skew(np.log(values["wide"]))
    assert any(
        line.startswith(f"wide is skewed (skewness {before:+.1f}, {after:+.1f} with log)")
        and line.endswith("scale.transform.wide=log")
        for line in lines
    )


def test_skewness_and_suggestions(values: dict[str, np.ndarray]) -> None:
    for column in values.values():
        assert skewness(column) == pytest.approx(skew(column), abs=1e-9)
    assert skewness(np.ones(5)) == skewness(np.array([])) == 0
    assert suggest_transform(values["plain"]) is None
    assert suggest_transform(np.repeat([0.0, 1.0], [990, 10])) is None  # a flag
    negative = suggest_transform(-values["wide"])
    assert negative is not None
    assert negative.method == "yeo-johnson"
