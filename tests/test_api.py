"""The Python API: every kind of data, the results, the same labels and keys as the command line, errors, and the imports."""

from __future__ import annotations

import doctest
import importlib
import json
import subprocess
import sys
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar

import hydra
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.figure import Figure
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

import gpuclust as gc
from gpuclust.algorithms.hdbscan import HdbscanConfig
from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.registry import get_algorithm
from gpuclust.cli import main
from gpuclust.data.in_memory import to_arrow, write_once
from gpuclust.estimators.base import Estimator, in_python
from gpuclust.planning import Settings, plan_of, settings_of
from gpuclust.tracking.mlflow import MlflowRecorder
from tests.exporting import FEATURES, tracks
from tests.test_toy_algorithm import installed  # noqa: F401  a fixture

QUIET: dict[str, Any] = {"tracking": None, "progress": False}


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test runs in a folder of its own, where a default store would be made."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def cloud() -> np.ndarray:
    """The cloud of each row of `frame`."""
    return make_blobs([150, 100, 50], n_features=4, cluster_std=0.4, random_state=5)[1]


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Three clouds of different sizes, (300, 4), in shuffled rows."""
    X = make_blobs([150, 100, 50], n_features=4, cluster_std=0.4, random_state=5)[0]
    return pd.DataFrame(X, columns=list("abcd"))


@pytest.fixture(scope="module")
def run(frame: pd.DataFrame) -> gc.Run:
    return gc.fit(frame, gc.KMeans(n_clusters=3), **QUIET)


@pytest.fixture(scope="module")
def sweep(frame: pd.DataFrame) -> gc.Sweep:
    return gc.sweep(
        frame,
        gc.KMeans(n_clusters=range(2, 6)),
        gc.GaussianMixture(n_components=range(2, 4), covariance_type=["full", "diag"]),
        gc.HDBSCAN(min_cluster_size=[10, 20]),
        **QUIET,
    )


# Data


def test_every_kind_of_data_gives_the_same_labels(
    frame: pd.DataFrame, run: gc.Run, cloud: np.ndarray, tmp_path: Path
) -> None:
    frame.to_parquet("rows.parquet")
    frame.to_csv("rows.csv", index=False)
    values = frame.to_numpy()
    kinds: list[Any] = [
        frame.set_index(np.arange(300)[::-1]), frame.astype("float64[pyarrow]"), pa.Table.from_pandas(frame), values,
        np.asfortranarray(values), values.tolist(), "rows.csv", tmp_path / "rows.parquet",
        pa.table(frame).to_reader(),
    ]  # fmt: skip
    assert run.labels_.dtype == np.int32
    assert adjusted_rand_score(run.labels_, cloud) == 1.0
    assert list(np.bincount(run.labels_)) == [150, 100, 50]
    for data in kinds:
        found = gc.fit(data, gc.KMeans(n_clusters=3), **QUIET)
        assert (found.labels_ == run.labels_).all(), type(data)
        assert found.metrics["inertia"] == run.metrics["inertia"]


@pytest.mark.gpu
def test_a_cupy_array_on_the_gpu(frame: pd.DataFrame, run: gc.Run) -> None:
    cupy = pytest.importorskip("cupy")
    found = gc.fit(cupy.asarray(frame.to_numpy()), gc.KMeans(n_clusters=3), backend="gpu", **QUIET)
    assert (found.labels_ == run.labels_).all()
    assert (found.predict(cupy.asarray(frame.to_numpy())).cluster == run.labels_).all()


def test_labels_are_in_the_order_of_the_rows_whatever_cleaning_drops(frame: pd.DataFrame, run: gc.Run) -> None:
    data = pd.concat([frame, frame.iloc[:3]], ignore_index=True)
    data.loc[[0, 7], "b"] = np.nan
    found = gc.fit(data, gc.KMeans(n_clusters=3), clean={"duplicates": "row"}, **QUIET)
    assert len(found.labels_) == len(found.confidence_) == 303
    dropped = [0, 7, 301, 302]  # row 300 repeats row 0, which is dropped for its missing value
    assert list(np.flatnonzero(found.labels_ == -2)) == dropped
    assert np.isnan(found.confidence_[dropped]).all()
    kept = np.setdiff1d(np.arange(300), dropped)
    assert (found.labels_[kept] == run.labels_[kept]).all()
    assert found.metrics["n_rows"] == 299
    filled = gc.fit(data, gc.KMeans(n_clusters=3), clean={"nulls": "median"}, **QUIET)
    assert (filled.labels_ >= 0).all()
    sampled = gc.fit(frame, gc.KMeans(n_clusters=3), config={"data.n_rows": 100}, **QUIET)
    assert (sampled.labels_ >= 0).sum() == 100
    assert len(sampled.labels_) == 300


def test_columns_of_every_type(frame: pd.DataFrame, run: gc.Run) -> None:
    data = frame.assign(
        text=[f"row {i}" for i in range(300)],
        kind=pd.Categorical(["x", "y", "z"] * 100),
        when=pd.date_range("2020-01-01", periods=300),
        flag=frame.a > 0,
        nothing=None,
    )
    data["a"] = data["a"].astype("Float64")
    data["b"] = data["b"].astype("float32")
    data["whole"] = pd.array(np.arange(300) % 97, dtype="Int16")
    found = gc.fit(data, gc.KMeans(n_clusters=3), features=list("abcd"), **QUIET)
    assert (found.labels_ == run.labels_).all()
    assert found.features == ("a", "b", "c", "d")
    every = gc.fit(data, gc.KMeans(n_clusters=3), **QUIET)
    assert set(every.features) == {"a", "b", "c", "d", "whole"}
    assert len(every.labels_) == 300


def test_names_of_columns_and_of_the_index(frame: pd.DataFrame, run: gc.Run) -> None:
    numbered = frame.set_axis(range(4), axis=1)
    assert gc.fit(numbered, gc.KMeans(n_clusters=3), **QUIET).features == ("0", "1", "2", "3")
    keyed = frame.set_index(pd.Index([f"key{i}" for i in range(300)], name="key"))
    found = gc.fit(keyed, gc.KMeans(n_clusters=3), **QUIET)
    assert (found.labels_ == run.labels_).all()
    assert list(pd.read_parquet(found.export("keyed") / "assignments.parquet")["key"]) == list(keyed.index)
    years = frame.set_index(pd.Index(range(1700, 2000), name="year"))
    assert gc.fit(years, gc.KMeans(n_clusters=3), **QUIET).features == ("a", "b", "c", "d")
    shadowing = frame.rename(columns={"a": "size", "b": "name"})
    clusters = gc.fit(shadowing, gc.KMeans(n_clusters=3), **QUIET).clusters
    assert list(clusters["size"]) == [150, 100, 50]
    assert {"mean_size", "mean_name", "c", "d"} <= set(clusters.columns)


def test_tables_in_memory_are_kept_by_their_content(tmp_path: Path) -> None:
    table = pa.table({"a": np.arange(100.0), "b": np.arange(100.0) ** 2})
    first, second = (write_once(table.slice(start, 50), tmp_path / "kept") for start in (0, 50))
    assert first != second  # slices of one table share their buffers
    assert write_once(pa.table({"a": np.arange(50.0), "b": np.arange(50.0) ** 2}), tmp_path / "kept") == first
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == sorted([first.name, second.name])
    assert to_arrow(table).table is table


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "data of type NoneType is not a table; give a DataFrame"),
        ([1, 2, 3], "data of type list is not a table"),
        ([[1, 2], [3]], "data of type list is not a table"),
        ({"a": [1]}, "data of type dict is not a table"),
        (np.zeros(5), r"ndarray, shape \(5,\), float64 is not a table"),
        (np.zeros((2, 0)), "is not a table"),
        (np.array([["a"]]), "is not a table"),
        (np.zeros((3, 2), dtype=complex), "is not a table"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "several columns named a; rename them"),
        (pd.DataFrame({"a": [1, "x"]}), "cannot be converted to an Arrow table"),
        (pd.DataFrame({"a": ["x", "y"]}), "the data"),
        (pd.DataFrame({"a": []}), "the data"),
        ("absent.csv", r"absent\.csv does not exist; check the path"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_not_a_table_is_refused_in_one_line(data: Any, message: str) -> None:
    with pytest.raises(gc.GpuclustError, match=message) as raised:
        gc.fit(data, gc.KMeans(n_clusters=2), **QUIET)
    assert "\n" not in str(raised.value)
    assert ".arrow" not in str(raised.value)


# Results


def test_a_run(run: gc.Run, frame: pd.DataFrame) -> None:
    assert run.name == "kmeans k=3"
    assert run.metrics["n_clusters"] == 3
    assert run.metrics["silhouette"] > 0.7
    clusters = run.clusters
    assert list(clusters.columns) == ["name", "size", "fraction", "description", "a", "b", "c", "d"]
    assert clusters.index.name == "cluster"
    means = frame.groupby(run.labels_).mean()
    np.testing.assert_allclose(clusters[list("abcd")], means, rtol=1e-9)
    assert ((run.confidence_ > 0) & (run.confidence_ <= 1)).all()
    assert any("300 rows × 4 features" in line for line in run.messages)
    assert run.warnings == ()
    assert repr(run).startswith("<Run kmeans k=3: n_clusters 3, silhouette 0.")


def test_plots_are_figures_that_can_be_saved(run: gc.Run, sweep: gc.Sweep, tmp_path: Path) -> None:
    for name, figure in {"run": run.plot(), "sweep": sweep.plot(), "bic": sweep.plot("bic")}.items():
        assert isinstance(figure, Figure)
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000
    with pytest.raises(gc.GpuclustError, match=r"no curve of beauty; it has silhouette"):
        sweep.plot("beauty")


def test_a_table_with_one_feature_has_a_picture(frame: pd.DataFrame) -> None:
    assert "<img" in gc.fit(frame[["a"]], gc.KMeans(n_clusters=2), **QUIET)._repr_html_()


def test_a_sweep(sweep: gc.Sweep, run: gc.Run) -> None:
    board = sweep.leaderboard
    assert len(board) == 10
    assert {"job", "chosen", "silhouette", "cluster", "cluster.n_clusters", "cluster.covariance_type"} <= set(
        board.columns
    )
    assert sweep.verdict.sizes == (3,)
    assert sweep.verdict.kind == "clear"
    assert sweep.best is not None
    assert sweep.best.metrics["n_clusters"] == 3
    assert (sweep.best.labels_ == run.labels_).all()
    assert len(sweep.runs) == 10
    assert board.loc[board.chosen, "job"].tolist() == [sweep.best.name]
    again = next(r for r in sweep.runs if r.name == "kmeans k=5")
    assert len(np.unique(again.labels_)) == 5  # its arrays were released: it is computed again
    assert [r.name for r in sweep.runs][4:8] == ["gmm k=2 full", "gmm k=2 diag", "gmm k=3 full", "gmm k=3 diag"]


def test_export_model_and_search(tmp_path: Path) -> None:
    data = tracks(300)
    run = gc.fit(data, gc.KMeans(n_clusters=3), features=FEATURES, **QUIET)
    assert any("tracks" in line for line in run.messages)
    folder = run.export("out/")
    assert {p.name for p in folder.iterdir()} == {"assignments.parquet", "clusters.parquet", "manifest.json", "model"}
    with gc.open_export("out/") as library:
        found = library.search("fly me to the moon")
        assert found.hits[0].item.title.startswith("Fly Me to the Moon")
        assert "<td>Fly Me to the Moon</td><td>" in found._repr_html_()
        assert "<td>&lt;script&gt;" in library.search("script alert")._repr_html_()
    model = gc.load_model("out/model")
    assert model.features == run.features
    assert repr(model) == f"<Model kmeans: 3 clusters of {len(FEATURES)} features>"
    by_number = gc.load_model("out").predict(data[list(model.features)].to_numpy())
    kept = run.labels_ >= 0
    assert (by_number.cluster[kept] == run.labels_[kept]).all()
    shuffled = data.sample(frac=1, random_state=0)[list(reversed(data.columns))]
    by_name = model.predict(shuffled)
    assert (by_name.index == shuffled.index).all()
    assert (by_name.sort_index().cluster[kept] == run.labels_[kept]).all()
    np.testing.assert_allclose(by_name.sort_index().confidence[kept], run.confidence_[kept], rtol=1e-6)
    arrow = model.predict(pa.Table.from_pandas(shuffled, preserve_index=False))
    assert (arrow.cluster.to_numpy() == by_name.cluster.to_numpy()).all()
    assert (run.predict(shuffled).cluster == by_name.cluster).all()
    assert list(model.clusters["size"]) == list(run.clusters["size"])
    with pytest.raises(gc.GpuclustError, match="exists"):
        run.export("out/")
    assert run.export("out/", force=True) == Path("out")


def test_rows_that_a_model_cannot_place(run: gc.Run, frame: pd.DataFrame) -> None:
    rows = frame.head(4).copy().astype(object)
    rows.iloc[0, 0] = None
    rows.iloc[1, 1] = "no number"
    rows["c"] = pd.Categorical(rows["c"])
    found = run.predict(rows)
    assert list(found.cluster.isna()) == [True, True, False, False]
    assert str(found.cluster.dtype) == "Int32"
    assert found.confidence.isna().tolist() == [True, True, False, False]
    assert len(run.predict(frame.head(0))) == 0
    with pytest.raises(gc.GpuclustError, match="no column c, d, which the model needs"):
        run.predict(frame[["a", "b"]])
    with pytest.raises(gc.GpuclustError, match="3 values"):
        run.predict(frame.to_numpy()[:, :3])
    with pytest.raises(gc.GpuclustError, match="not numbers"):
        run.predict([["a", "b", "c", "d"]])


def test_html_shows_tables_and_pictures_and_escapes_names(frame: pd.DataFrame, sweep: gc.Sweep) -> None:
    data = frame.rename(columns={"a": "<script>alert(1)</script>"})
    run = gc.fit(data, gc.KMeans(n_clusters=3), **QUIET)
    for page in (run._repr_html_(), sweep._repr_html_(), run.model._repr_html_()):
        assert "<table" in page
        assert "<script" not in page
    assert "&lt;script&gt;" in run._repr_html_()
    assert 'src="data:image/png;base64,' in run._repr_html_()
    assert 'src="data:image/png;base64,' in sweep._repr_html_()
    assert sweep.verdict.because[0] in sweep._repr_html_()


# The same as the estimators and the command line


@pytest.mark.parametrize(
    "estimator",
    [
        gc.KMeans(n_clusters=5, random_state=3),
        gc.KMeans(n_clusters=4, init="random", n_init="auto", random_state=np.random.RandomState(1)),
        gc.GaussianMixture(n_components=3, covariance_type="diag", random_state=1),
        gc.HDBSCAN(min_cluster_size=12),
        gc.HDBSCAN(min_cluster_size="auto", min_samples=6, cluster_selection_method="leaf"),
    ],
    ids=lambda e: repr(e)[:40],
)
def test_an_estimator_and_a_run_have_the_same_labels(estimator: Any, frame: pd.DataFrame) -> None:
    rows = frame.astype(np.float32)
    run = gc.fit(rows, estimator, scale="none", **QUIET)
    assert (estimator.fit(rows.to_numpy()).labels_ == run.labels_).all()


def labels_by_key(uri: str) -> dict[str, tuple[str, str]]:
    """Key of each finished job of the store -> the digest of its labels, and the key of its matrix."""
    jobs = MlflowRecorder(uri, "gpuclust", create=False).finished_jobs()
    return {key: (job.tags["gpuclust.labels"], job.tags["gpuclust.matrix_key"]) for key, job in jobs.items()}


def test_the_command_line_finds_what_the_api_has_done(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    tracks(200).to_parquet("tracks.parquet")
    sweep = gc.sweep(
        "tracks.parquet",
        gc.KMeans(n_clusters=[2, 3]),
        gc.GaussianMixture(n_components=[2, 3]),
        scale="robust",
        config={"score": "quick", "report": "none"},
        tracking=uri,
        progress=False,
    )
    before = labels_by_key(uri)
    assert len(before) == 4
    job = ["data.path=tracks.parquet", "scale=robust", "score=quick", "report=none", f"tracking.uri={uri}"]
    assert main(["-m", *job, "cluster=kmeans,gmm", "cluster.n_clusters=2,3"]) == 0
    printed = capsys.readouterr().out
    assert "nothing to do: all 4 jobs were done before" in printed
    assert labels_by_key(uri) == before
    assert sweep.best is not None
    assert sweep.selection_reason in printed


def test_the_api_finds_what_the_command_line_has_done(uri: str) -> None:
    tracks(200).to_csv("tracks.csv", index=False)
    job = ["data.path=tracks.csv", "report=none", f"tracking.uri={uri}", "seed=4", "cluster=hdbscan"]
    assert main([*job, "cluster.min_cluster_size=8", "cluster.min_samples=5"]) == 0
    (key,) = before = labels_by_key(uri)
    run = gc.fit(
        "tracks.csv",
        gc.HDBSCAN(min_cluster_size=8, min_samples=6),
        seed=4,
        tracking=uri,
        config={"report": "none"},
        progress=False,
    )
    assert labels_by_key(uri) == before
    recorder = MlflowRecorder(uri, "gpuclust", create=False)
    assert run.run_id == recorder.finished_jobs()[key].run_id
    assert main(["export", "best", "--uri", uri, "--out", "cli"]) == 0
    folder = run.export("api")
    mine, theirs = (pd.read_parquet(f / "assignments.parquet") for f in (folder, Path("cli")))
    pd.testing.assert_frame_equal(mine, theirs)
    manifests = [json.loads((f / "manifest.json").read_text()) for f in (folder, Path("cli"))]
    assert manifests[0]["fingerprint"] == manifests[1]["fingerprint"]


def test_data_in_memory_is_kept_beside_the_store_and_found_again(frame: pd.DataFrame, uri: str, tmp_path: Path) -> None:
    first = gc.fit(frame, gc.KMeans(n_clusters=3), tracking=uri, config={"report": "none"}, progress=False)
    assert len(list((tmp_path / "data").glob("*.arrow"))) == 1
    second = gc.fit(frame.copy(), gc.KMeans(n_clusters=3), tracking=tmp_path, config={"report": "none"}, progress=False)
    assert second.run_id == first.run_id
    assert (second.labels_ == first.labels_).all()
    assert not (tmp_path / "gpuclust-runs").exists()
    assert main(["export", "best", "--uri", uri, "--out", "out"]) == 0


def test_without_tracking_nothing_is_left_behind(frame: pd.DataFrame, tmp_path: Path) -> None:
    gc.fit(frame, gc.KMeans(n_clusters=2), **QUIET)
    assert list(tmp_path.iterdir()) == []


# Options and plans


def jobs_of(*clusterers: Any, **options: Any) -> list[dict[str, Any]]:
    """What varies in each job of a plan."""
    config = options.pop("config", None)
    return [
        dict(job.swept) for job in plan_of(clusterers, Settings("x.csv", settings_of(config=config, **options))).jobs
    ]


def test_plans() -> None:
    assert jobs_of(gc.KMeans()) == [{}]
    assert jobs_of(gc.KMeans(n_clusters=np.arange(2, 4))) == [{"cluster.n_clusters": 2}, {"cluster.n_clusters": 3}]
    assert jobs_of(gc.KMeans(random_state=[1, 2])) == [{"seed": 1}, {"seed": 2}]
    assert jobs_of(gc.KMeans(), scale=["robust", "none"]) == [{"scale": "robust"}, {"scale": "none"}]
    assert jobs_of(gc.KMeans(), reduce=[2, 3]) == [{"reduce.n_components": 2}, {"reduce.n_components": 3}]
    assert jobs_of(gc.KMeans(), config={"score.stability": (0, 5)}) == [{"score.stability": 0}, {"score.stability": 5}]
    assert jobs_of(gc.KMeans(n_clusters=2), gc.KMeans(n_clusters=2, init="random")) == [
        {"cluster.init": "k-means++"},
        {"cluster.init": "random"},
    ]
    assert jobs_of(gc.KMeans(n_clusters=[2, 3]), gc.KMeans(n_clusters=[3, 4])) == [
        {"cluster.n_clusters": k} for k in (2, 3, 4)
    ]
    assert jobs_of(gc.KMeans(n_clusters=2), gc.HDBSCAN(min_cluster_size=[5, 9])) == [
        {"cluster": "kmeans"},
        {"cluster": "hdbscan", "cluster.min_cluster_size": 5},
        {"cluster": "hdbscan", "cluster.min_cluster_size": 9},
    ]


def test_options_reach_the_configuration() -> None:
    options = settings_of(
        config={"dtype": "float64", "data": {"roles": {"title": "it's a 'title'\\"}}, "cluster.engine": "library"},
        reduce=0.9,
        clean={"nulls": "median", "bounds": {"tempo": (1, None)}},
        scale=None,
    )
    columns = {"data.features": ["x", "y,z"], "scale.weights": {"y,z": 2.0}}
    settings = Settings("a,b='c'.csv", options, columns, "key", "sqlite:///s.db", "mine")
    (job,) = plan_of([gc.KMeans(n_clusters=np.int64(4), tol=0, random_state=9)], settings).jobs
    config = job.config
    assert repr(config.cluster.tol) == "0.0"  # type: ignore[attr-defined]
    assert (config.data.path, config.data.features, config.data.roles.id) == ("a,b='c'.csv", ["x", "y,z"], "key")
    assert config.data.roles.title == "it's a 'title'\\"
    assert config.scale.weights == {"y,z": 2.0}
    assert (config.reduce.method, config.reduce.n_components) == ("pca", 0.9)
    assert (config.clean.nulls, config.clean.bounds) == ("median", {"tempo": [1, None]})
    assert (config.tracking.uri, config.tracking.experiment) == ("sqlite:///s.db", "mine")
    assert (config.dtype, config.seed) == ("float64", 9)
    assert config.cluster == KMeansConfig(n_clusters=4, tol=0.0, engine="library")


def test_a_configuration_of_an_algorithm_is_accepted(frame: pd.DataFrame) -> None:
    run = gc.fit(frame, HdbscanConfig(min_cluster_size=15, min_samples=7), **QUIET)
    same = gc.fit(frame, gc.HDBSCAN(min_cluster_size=15, min_samples=8), **QUIET)
    assert (run.labels_ == same.labels_).all()
    assert jobs_of(KMeansConfig(n_clusters=[2, 3])) == [  # type: ignore[arg-type]
        {"cluster.n_clusters": 2},
        {"cluster.n_clusters": 3},
    ]


@pytest.mark.usefixtures("installed")
def test_a_plug_in_is_swept_by_its_configuration_and_by_an_estimator(frame: pd.DataFrame) -> None:
    class Toy(Estimator):
        _algorithm = "toy"
        _keys: ClassVar[dict[str, str]] = {"radius": "eps"}
        _parameter_constraints: ClassVar[dict[str, list[Any]]] = {"radius": [Real]}

        def __init__(self, radius: Any = 0.5) -> None:
            self.radius = radius

    sweep = gc.sweep(frame, get_algorithm("toy").config(eps=[0.3, 0.5, 0.7]), **QUIET)  # type: ignore[call-arg]
    assert list(sweep.leaderboard["cluster.eps"].sort_values()) == [0.3, 0.5, 0.7]
    assert isinstance(sweep.plot("n_clusters"), Figure)
    assert sweep.best is not None
    one = gc.fit(frame, Toy(radius=sweep.best._outcome.job.swept["cluster.eps"]), **QUIET)
    assert (one.labels_ == sweep.best.labels_).all()
    assert len(one.predict(frame)) == 300
    with pytest.raises(gc.GpuclustError, match="radius=-1"):
        gc.fit(frame, Toy(radius=-1), **QUIET)


def test_a_sweep_of_one_job_and_one_that_fails(frame: pd.DataFrame) -> None:
    one = gc.sweep(frame, gc.KMeans(n_clusters=3), **QUIET)
    assert len(one.leaderboard) == 1
    two = gc.sweep(frame, gc.KMeans(n_clusters=[3, 301]), **QUIET)
    assert list(two.leaderboard.status) == ["finished", "failed"]
    assert "301" in two.leaderboard.failure[1]
    assert two.best is not None
    assert "<img" in two._repr_html_()


@pytest.mark.parametrize(
    ("algorithm", "options", "message"),
    [
        (gc.KMeans(n_clusters=range(2, 5)), {}, "^n_clusters: several values are for gpuclust.sweep"),
        (gc.GaussianMixture(n_components=[1, 2]), {}, "^n_components: several values"),
        (gc.KMeans(), {"scale": ["none", "robust"]}, "scale: several values"),
        (gc.KMeans(n_clusters=1), {}, r"^n_clusters=1 is outside \[2, inf\)"),
        (gc.KMeans(n_clusters="x"), {}, "'n_clusters' parameter of KMeans must be an int"),
        (gc.KMeans(n_clusters=[]), {}, "n_clusters has no values"),
        (gc.KMeans(n_clusters=999), {}, "^kmeans k=999 failed: n_clusters=999 is more than .* lower n_clusters"),
        (gc.GaussianMixture(n_components=999), {}, "n_components=999 is more than .* lower n_components"),
        (gc.KMeans(init=np.zeros((8, 4))), {}, r"init as an array or a callable is for KMeans\.fit"),
        (
            gc.HDBSCAN(min_cluster_size=2000),
            {},
            r"min_samples=2000 is more than 1,024; .*by default it is min_cluster_size",
        ),
        (SklearnKMeans(), {}, r"KMeans of sklearn is not an estimator of gpuclust, .*; use gpuclust\.KMeans"),
        (gc.KMeans, {}, r"KMeans is a class; give an instance, KMeans\(\.\.\.\)"),
        ("kmeans", {}, "str of builtins is not an estimator"),
        (gc.KMeans(), {"scale": "foo"}, r"scale=foo is not one of .*robust, standard"),
        (gc.KMeans(), {"reduce": "foo"}, "reduce=foo is not one of"),
        (gc.KMeans(), {"reduce": 1.5}, "1.5 is neither a whole number"),
        (gc.KMeans(), {"clean": {"nulls": "mode"}}, r"clean\.nulls=mode is not one of"),
        (gc.KMeans(), {"backend": "tpu"}, "backend=tpu is not one of"),
        (gc.KMeans(), {"features": ["zz"]}, "features: the data has no column 'zz'; it has a, b, c, d"),
        (gc.KMeans(), {"features": "a"}, "features='a' is one text; give a list"),
        (gc.KMeans(), {"config": {"scor.x": 1}}, r"unknown key 'scor\.x'; did you mean score"),
        (gc.KMeans(), {"config": {"score.stability": "a"}}, "could not be converted to Integer"),
        (gc.KMeans(), {"config": {"experiments": "x"}}, "studies run from the command line"),
        (gc.KMeans(), {"tracking": True}, "tracking=True is not allowed"),
        (gc.KMeans(), {"tracking": "http://"}, "names no host"),
        (gc.KMeans(), {"seed": -1}, "seed=-1 is outside"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_errors_name_the_argument_of_python(
    algorithm: Any, options: dict[str, Any], message: str, frame: pd.DataFrame
) -> None:
    with pytest.raises(gc.GpuclustError, match=message):
        gc.fit(frame, algorithm, **QUIET | options)


def test_a_program_with_hydra_of_its_own_keeps_it(frame: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text("answer: 42\n")
    with hydra.initialize_config_dir(str(tmp_path / "mine"), version_base="1.3"):
        gc.fit(frame, gc.KMeans(n_clusters=2), **QUIET)
        assert hydra.compose("config").answer == 42


def test_an_unknown_metric_is_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(gc.GpuclustError, match=r"^metric=inertia cannot choose a job"):
        gc.sweep(frame, metric="inertia", **QUIET)
    with pytest.raises(gc.GpuclustError, match="holds no model"):
        gc.load_model("absent")
    with pytest.raises(gc.GpuclustError, match="absent"):
        gc.open_export("absent")


def test_words_of_python() -> None:
    assert in_python("cluster.tol=-1 is outside", {}) == "tol=-1 is outside"
    assert in_python("set sweep.metric or tracking.uri") == "set metric or tracking"


def test_the_progress_bar_counts_jobs(frame: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    gc.sweep(frame, gc.KMeans(n_clusters=[2, 3]), tracking=None, progress=True)
    assert "2/2" in capsys.readouterr().err
    gc.fit(frame, gc.KMeans(n_clusters=2), tracking=None)
    assert capsys.readouterr() == ("", "")  # no terminal, no bar


# The package


def test_the_public_names() -> None:
    assert set(gc.__all__) <= set(dir(gc))
    for name in gc.__all__:
        assert getattr(gc, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        gc.absent  # noqa: B018
    assert (Path(gc.__file__).parent / "py.typed").is_file()


IMPORTS = """
import os, sys
environment = dict(os.environ)
import gpuclust as gc
light = set(sys.modules)
assert not {"numpy", "pandas", "sklearn", "scipy", "pyarrow", "matplotlib", "mlflow", "hydra", "numba", "tqdm", "pydantic"} & light
gc.fit, gc.sweep, gc.load_model, gc.open_export, gc.Run, gc.Sweep, gc.Model, gc.GpuclustError
middle = set(sys.modules)
assert not {"pandas", "sklearn", "pyarrow", "matplotlib", "mlflow", "hydra", "numba"} & middle, middle
gc.KMeans(), gc.GaussianMixture(), gc.HDBSCAN()
assert not {"matplotlib", "mlflow", "hydra", "numba"} & set(sys.modules)
assert dict(os.environ) == environment
"""


def test_heavy_modules_are_imported_when_they_are_used() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, timeout=60)


def test_the_examples_of_the_docstrings() -> None:
    names = ("gpuclust", "gpuclust.api", "gpuclust.estimators.kmeans", "gpuclust.estimators.mixture", "gpuclust.estimators.hdbscan",
             "gpuclust.estimators.base")  # fmt: skip
    tried = 0
    for name in names:
        found = doctest.testmod(importlib.import_module(name))
        assert found.failed == 0, name
        tried += found.attempted
    assert tried > 20
