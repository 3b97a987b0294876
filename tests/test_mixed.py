"""Mixed tables: categories as one-hot features or frequencies, circular columns, in the job, from disk, in the model and for new rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import gpuclust as gc
from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.analysis.naming import names, vocabulary
from gpuclust.compose import compose
from gpuclust.config import CleanConfig, Config, DataConfig, ReduceConfig, ScaleConfig, validate
from gpuclust.data.clean import clean
from gpuclust.data.frames import PandasFrames
from gpuclust.data.read import read
from gpuclust.data.stream import read_streamed
from gpuclust.errors import ConfigurationError, ModelError
from gpuclust.model.bundle import MODEL, Bundle
from gpuclust.model.encodings import Encoding
from gpuclust.model.rows import to_matrix
from gpuclust.predict import predict
from gpuclust.reducers.prepare import prepare
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.scratch import Scratch
from tests.conftest import Quiet, cpu_context
from tests.test_bundle import built

N = 600
FRAMES, BACKEND = PandasFrames(), CpuBackend()
WORDS = ("jazz", "rock", "folk", "pop")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    genre = np.array(WORDS, dtype=object)[rng.choice(4, N, p=[0.4, 0.3, 0.2, 0.1])]
    genre[:5] = None
    return pd.DataFrame(
        {
            "tempo": rng.normal(120, 20, N).round(3),
            "energy": rng.random(N).round(4),
            "genre": genre,
            "live": rng.random(N) < 0.3,
            "key": rng.integers(0, 12, N),
            "city": [f"c{i}" for i in np.minimum(rng.geometric(0.05, N), 90)],
        }
    )


@pytest.fixture(scope="module", params=["csv", "parquet"])
def file(request: pytest.FixtureRequest, frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mixed") / f"mixed.{request.param}"
    frame.to_csv(path, index=False) if request.param == "csv" else frame.to_parquet(path, index=False)
    return path


FEATURES = ["tempo", "energy"]


def data_of(path: Path, **options: Any) -> DataConfig:
    options = {"categorical": ["genre", "live"], "circular": {"key": 12.0}} | options
    return DataConfig(path=str(path), features=FEATURES, **options)


def table_of(path: Path, clean_by: CleanConfig | None = None, **options: Any) -> Any:
    return clean(read(data_of(path, **options), FRAMES), clean_by or CleanConfig(), FRAMES)


NAMES = ("tempo", "energy", "genre=jazz", "genre=rock", "genre=folk", "genre=pop", "live=false", "live=true",
         "sin(key)", "cos(key)")  # fmt: skip


def test_categories_and_circular_columns_are_features(file: Path, frame: pd.DataFrame) -> None:
    table = table_of(file)
    kept = frame[5:]
    assert set(table.features) == set(NAMES)
    assert table.features[:2] == ("tempo", "energy")
    expected = OneHotEncoder(categories=[list(WORDS)], sparse_output=False).fit_transform(kept[["genre"]])
    np.testing.assert_array_equal(table.frame[[f"genre={w}" for w in WORDS]], expected)
    np.testing.assert_array_equal(table.frame["live=true"], kept["live"].astype(float))
    np.testing.assert_allclose(table.frame["sin(key)"], np.sin(2 * np.pi * kept["key"] / 12), atol=1e-12)
    reasons = {out.column: out.reason for out in table.audit.left_out}
    assert (reasons["genre"], reasons["key"]) == ("encoded: one-hot", "encoded: sine and cosine")
    assert set(table.other_columns) == {"genre", "live", "key", "city"}
    (nulls,) = (step for step in table.audit.steps if step.rule == "nulls")
    assert (nulls.rows_removed, nulls.columns) == (5, {"genre": 5})


def test_a_streamed_table_is_equal(file: Path, tmp_path: Path) -> None:
    for options in ({}, {"encoding": "frequency"}, {"categorical": ["city", "genre"], "max_categories": 7}):
        resident = table_of(file, **options)
        with Scratch(tmp_path) as scratch:
            streamed = read_streamed(data_of(file, **options), CleanConfig(), FRAMES, scratch, batch_rows=100)
            assert streamed.features == resident.features
            assert streamed.encodings == resident.encodings
            pd.testing.assert_frame_equal(streamed.frame.to_pandas(), resident.frame)
            assert streamed.audit.notes == resident.audit.notes
            assert streamed.audit.left_out == resident.audit.left_out
            assert streamed.audit.steps == resident.audit.steps


def test_many_categories_share_a_feature_and_it_is_said(file: Path, frame: pd.DataFrame) -> None:
    table = table_of(file, categorical=["city"], circular={}, max_categories=10)
    counts = frame["city"].value_counts()
    assert len(table.features) == 2 + 10
    top = counts.index[:9]
    assert table.frame["city=(other)"].sum() == (~frame["city"].isin(top)).sum()
    (note,) = (n for n in table.audit.notes if n.startswith("city has"))
    share = frame["city"].isin(top).mean()
    assert f"city has {len(counts)} categories: the 9 most frequent ({share:.0%} of the rows)" in note
    assert "data.max_categories" in note


def test_frequencies_are_shares_of_the_rows(file: Path, frame: pd.DataFrame) -> None:
    table = table_of(file, categorical=["genre"], circular={}, encoding="frequency")
    shares = frame["genre"].value_counts(normalize=True)
    np.testing.assert_allclose(table.frame["frequency(genre)"], frame["genre"][5:].map(shares), rtol=1e-12)


@pytest.mark.parametrize("scale", ["standard", "minmax", "robust", "none"])
def test_an_encoded_column_counts_as_one_feature(scale: str, file: Path) -> None:
    table = table_of(file)
    prepared = prepare(table, ScaleConfig(scale), ReduceConfig(), dtype="float64", key="m", backend=BACKEND)
    X = pd.DataFrame(prepared.X, columns=list(table.features))
    for group, farthest in (([f"genre={w}" for w in WORDS], np.sqrt(2)), (["sin(key)", "cos(key)"], 2.0)):
        total = X[group].to_numpy().var(axis=0).sum()
        rows = X[group].drop_duplicates().to_numpy()
        largest = max(np.linalg.norm(a - b) for a in rows for b in rows)
        if scale == "standard":
            assert total == pytest.approx(1.0)
        elif scale == "robust":
            assert total == pytest.approx(1 / 1.349**2, rel=1e-3)
        else:
            assert largest == pytest.approx(1.0 if scale == "minmax" else farthest)
    doubled = prepare(
        table, ScaleConfig(scale, {}, {"genre": 2.0}), ReduceConfig(), dtype="float64", key="m", backend=BACKEND
    )
    places = [j for j, name in enumerate(table.features) if name.startswith("genre=")]
    factors = np.where(np.isin(np.arange(len(table.features)), places), 2.0, 1.0)
    np.testing.assert_allclose(doubled.X, prepared.X * factors)
    if scale == "standard":
        np.testing.assert_allclose(X[FEATURES], StandardScaler().fit_transform(table.frame[FEATURES]), atol=1e-9)


OVERRIDES = [
    "data.features=[tempo,energy]",
    "data.categorical=[genre,live]",
    "data.circular.key=12",
    "cluster.n_clusters=4",
]


@pytest.fixture(scope="module")
def bundle(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Any, np.ndarray]:
    path = tmp_path_factory.mktemp("bundle") / "mixed.parquet"
    frame.to_parquet(path, index=False)
    return built(cpu_context(Quiet()), [f"data.path={path}", "data.n_rows=null", *OVERRIDES])


def test_a_model_takes_the_columns_as_they_were(bundle: Any, frame: pd.DataFrame, tmp_path: Path) -> None:
    made, result, raw = bundle
    again = Bundle.load(made.save(tmp_path / "bundle"))
    assert again.encodings == made.encodings
    for rows in (frame, frame.to_dict("list"), frame.to_dict("records")):
        matrix, _ = to_matrix(rows, again.features, again.encodings)
        np.testing.assert_array_equal(matrix[5:], raw)
        assert np.isnan(matrix[:5]).any(axis=1).all()
    np.testing.assert_array_equal(again.assign(matrix[5:]).cluster, result.clustering.labels)
    unknown = frame[5:7].assign(genre=["polka", "rock"])
    matrix, _ = to_matrix(unknown, again.features, again.encodings)
    own = [again.features.index(f"genre={w}") for w in WORDS]
    assert matrix[:, own].sum(axis=1).tolist() == [0, 1]
    assert again.predict(matrix).placed.all()
    with pytest.raises(
        ModelError, match=r"the rows lack genre; the model needs the columns tempo, energy, genre, live, key"
    ):
        to_matrix(frame.drop(columns="genre"), again.features, again.encodings)


def test_a_damaged_encoding_is_refused(bundle: Any, tmp_path: Path) -> None:
    folder = bundle[0].save(tmp_path / "bundle")
    text = json.loads((folder / MODEL).read_text())
    for damage, message in (
        ({"period": 0}, "period"),
        ({"kind": "pickle"}, "kind"),
        ({"categories": ["a", "a"]}, "named twice"),
        ({"shares": [2]}, "shares"),
    ):
        broken = {**text, "encodings": [{**text["encodings"][0], **damage}]}
        (folder / MODEL).write_text(json.dumps(broken))
        with pytest.raises(ModelError, match=message):
            Bundle.load(folder)


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("resident", "csv"),
        ("disk", "parquet"),
        *(pytest.param(*case, marks=pytest.mark.campaign) for case in (("resident", "parquet"), ("disk", "csv"))),
    ],
)
def test_predict_places_new_rows_and_says_which_categories_are_new(
    mode: str, form: str, bundle: Any, frame: pd.DataFrame, tmp_path: Path
) -> None:
    from gpuclust.config import MemoryConfig

    made, result, _ = bundle
    folder = made.save(tmp_path / "bundle")
    file = tmp_path / f"same.{form}"
    frame.to_csv(file, index=False) if form == "csv" else frame.to_parquet(file, index=False)
    memory = MemoryConfig(mode=mode, folder=str(tmp_path))
    same = predict(folder, file, tmp_path / "out.parquet", memory=memory)
    out = pd.read_parquet(tmp_path / "out.parquet")
    assert same.n_unplaced == 5
    assert out["cluster"].dropna().tolist() == result.clustering.labels.tolist()
    assert set(out.columns[:6]) == {"id", "tempo", "energy", "genre", "live", "key"}
    assert not same.unknown
    assert same.novelty.categories[0].distance == pytest.approx(0, abs=0.01)
    new = frame.assign(genre=np.where(np.arange(N) % 2, "polka", "rock"))
    new.to_csv(tmp_path / "new.csv", index=False)
    found = predict(folder, tmp_path / "new.csv", tmp_path / "new.parquet", report=tmp_path / "r.json", memory=memory)
    (shift,) = found.unknown
    assert (shift.column, shift.other, shift.training_other) == ("genre", 0.5, 0.0)
    assert any(line.startswith("genre: 50.0% of the values are categories") for line in found.novelty.in_words())
    assert json.loads((tmp_path / "r.json").read_text())["exceeding"][0] == "genre"


def test_python_takes_a_mixed_frame(frame: pd.DataFrame) -> None:
    """Two numbers without structure, and a category that decides."""
    run = gc.fit(
        frame,
        gc.KMeans(n_clusters=4),
        features=FEATURES,
        categorical=["genre"],
        circular={"key": 12},
        weights={"genre": 4},
        tracking=None,
        progress=False,
    )
    labels = run.labels_[5:]
    assert adjusted_rand_score(labels, frame["genre"][5:]) > 0.95
    placed = run.model.predict(frame)
    assert placed["cluster"][5:].astype(int).tolist() == labels.tolist()
    assert placed["cluster"][:5].isna().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"categorical": ["gene"]}, "data.categorical: .* has no column 'gene'; did you mean genre"),
        ({"circular": {"city": 12.0}}, "data.circular.city: the column holds no numbers"),
        ({"categorical": ["tempo"]}, "'tempo' has .* different values in 600 rows, which identify rows"),
    ],
)
def test_what_cannot_be_encoded_is_refused(options: dict[str, Any], message: str, file: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        table_of(file, **options)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"circular": {"key": 0.0}}, "data.circular.key=0 is not a period above 0"),
        ({"circular": {"key": 12.0}, "categorical": ["key"]}, "'key' is in data.categorical and in data.circular"),
        ({"categorical": ["key"]}, "data.categorical and data.circular cannot be used"),
    ],
)
def test_keys_that_do_not_fit_are_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        validate(Config(data=DataConfig(**data), scale=ScaleConfig("unit"), cluster=KMeansConfig()))


def test_a_period_names_its_column() -> None:
    with pytest.raises(ConfigurationError, match=r"write one column at a time, as in data\.circular\.hour=24"):
        compose(["data.circular=12"])


def test_missing_categories_can_be_filled(file: Path) -> None:
    table = table_of(file, CleanConfig(nulls="mean"))
    assert table.n_rows == N
    genre = table.frame[[f"genre={w}" for w in WORDS]].to_numpy()
    np.testing.assert_allclose(genre[0], genre[5:].mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(genre.sum(axis=1), 1.0)


def test_categories_are_the_same_however_they_are_written() -> None:
    encoding = Encoding("x", "onehot", ("3", "true", "a b"), (0.5, 0.3, 0.2))
    for values, codes in (
        ([3, 3.0, "3", None, 4], [0, 0, 0, -1, 3]),
        ([True, "True", "FALSE", np.nan, " a b "], [1, 1, 3, -1, 2]),
    ):
        assert encoding.codes(list(values)).tolist() == codes
        assert encoding.codes(pd.Series(values, dtype=object)).tolist() == codes
    rest = replace(encoding, rest=0.1)
    assert rest.features[-1] == "x=(other)"
    assert rest.encode(["z"]).tolist() == [[0, 0, 0, 1]]


def test_a_profile_has_the_mean_of_a_circular_column_and_shares_of_categories() -> None:
    """Hours around midnight and around 10, with a category each."""
    rng = np.random.default_rng(1)
    night = np.arange(400) < 200
    hour = np.where(night, rng.normal(0, 1, 400), rng.normal(10, 1, 400)) % 24
    frame = pd.DataFrame({"hour": hour, "load": rng.normal(size=400), "shift": np.where(night, "night", "day")})
    run = gc.fit(
        frame, gc.KMeans(n_clusters=2), categorical=["shift"], circular={"hour": 24}, tracking=None, progress=False
    )
    assert adjusted_rand_score(run.labels_, night) > 0.95
    clusters = run._result.profile.clusters
    (at_night,) = (c for c in clusters if c.features["shift=night"].mean > 0.5)
    (mean,) = at_night.circular
    assert (mean.column, mean.period) == ("hour", 24)
    assert min(mean.mean, 24 - mean.mean) < 0.3
    # The resultant length of a normal distribution of 1 hour: exp(-(2 pi / 24)^2 / 2) = 0.966.
    assert mean.concentration == pytest.approx(0.966, abs=0.02)
    assert at_night.name == "Shift: night (100 %)"
    assert "hour around" in at_night.description
    assert "sin(hour)" not in at_night.name + at_night.description


def test_a_name_does_not_repeat_a_category_by_the_absence_of_the_others() -> None:
    encodings = (Encoding("shift", "onehot", ("day", "late", "night"), (0.4, 0.3, 0.3)),)
    spoken = vocabulary(("load", *encodings[0].features), encodings=encodings)
    z = np.array([[0.0, 1.5, -0.9, -0.9], [1.0, -0.8, -0.8, -0.1]])
    assert names(z, np.zeros_like(z), spoken) == (
        "Shift: day",
        "Shift: rarely day · high load · shift: rarely late",
    )
