"""`gpuclust predict`: the rows placed as the job did, and new rows compared with the training rows."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from gpuclust import assignments
from gpuclust import predict as predict_module
from gpuclust.cli import main
from gpuclust.config import MemoryConfig
from gpuclust.errors import ModelError
from gpuclust.export import export, find_run
from gpuclust.model.novelty import MIN_ROWS_FOR_TAILS, compare, count_outside, training_summary
from gpuclust.model.schema import Details
from gpuclust.pipeline.context import RunContext
from gpuclust.predict import predict
from gpuclust.runtime.backend import BackendChoice
from gpuclust.runtime.blocks import BLOCK_ROWS
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.tracking.mlflow import MlflowRecorder
from tests.conftest import Quiet
from tests.exporting import FEATURES, made_export, tracks

OLD = Path(__file__).parent / "data" / "models_0_1_0"
ALGORITHMS = {
    "kmeans": ("cluster.n_clusters=3",),
    "gmm": ("cluster=gmm", "cluster.n_clusters=3", "reduce=pca", "reduce.n_components=3"),
    "hdbscan": ("cluster=hdbscan", "cluster.min_cluster_size=25", "reduce=pca", "reduce.n_components=2"),
    "filled": ("cluster.n_clusters=3", "clean.nulls=median", "clean.bounds.tempo=[0,400]"),
}


def gaps(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with missing tempos, in rows whose other values are unremarkable: cleaning may drop them."""
    others = [name for name in FEATURES if name != "tempo"]
    frame.loc[frame.index[:30], others] = frame[others].median().to_numpy()
    frame.loc[frame.index[:30], "tempo"] = np.nan
    return frame


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> dict[str, Path]:
    """An export for each of `ALGORITHMS`."""
    return {
        name: made_export(gaps(tracks()), tmp_path_factory.mktemp(name), store_template, *overrides)
        for name, overrides in ALGORITHMS.items()
    }


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    status = main(["predict", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_training_rows_are_within_their_ranges(
    name: str, exports: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gaps(tracks()).to_csv(tmp_path / "rows.csv", index=False)
    status, out, err = run(capsys, exports[name], tmp_path / "rows.csv", "--out", tmp_path / "scored.parquet",
                           "--report", tmp_path / "report.json", "--max-outside", "0")  # fmt: skip
    assert (status, err) == (0, "")
    assert "every value is within the training range of its feature" in out
    report = json.loads((tmp_path / "report.json").read_text())
    scored = pd.read_parquet(tmp_path / "scored.parquet")
    assert report["rows"] == len(scored) == 400
    assert report["unplaced"] == scored["cluster"].isna().sum() == (0 if name == "filled" else 30)
    assert report["exceeding"] == []
    assert report["rows_outside"] == 0.0
    assert report["features"]["tempo"]["missing"] == pytest.approx(30 / 400)
    assert "missing: tempo 7.5%" in out
    assert list(report["features"]) == FEATURES
    for feature, shift in report["features"].items():
        kept = gaps(tracks())
        values = kept[feature].fillna(kept[feature].median()) if name == "filled" else kept.dropna()[feature]
        assert shift["outside"] == 0.0
        assert shift["in_tails"] <= 0.02
        assert shift["training"]["min"] == pytest.approx(values.min(), rel=1e-12)
        assert shift["training"]["max"] == pytest.approx(values.max(), rel=1e-12)
        assert shift["training"]["low"] == pytest.approx(values.quantile(0.01, interpolation="lower"), rel=1e-12)
    trained = pd.read_parquet(exports[name] / "assignments.parquet")["cluster"].value_counts(normalize=True)
    now = scored["cluster"].dropna().value_counts(normalize=True)
    for shift in report["clusters"]:
        assert shift["training_share"] == pytest.approx(trained.get(shift["cluster"], 0.0))
        assert shift["share"] == pytest.approx(now.get(shift["cluster"], 0.0))
    if name == "hdbscan":
        assert report["distance"] is report["training_distance"] is None
        assert "confidence: median" in out
    else:
        assert report["distance"] == pytest.approx(report["training_distance"], rel=1e-6)
        assert report["distance"]["q50"] == pytest.approx(scored["distance"].median(), rel=0.02)
        assert "distance to the own centre: median" in out


@pytest.mark.parametrize("factor", [100, 0.01])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_column_in_another_unit_is_reported_and_exits_3(
    name: str, factor: float, exports: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gaps(tracks()).assign(energy=lambda t: t["energy"] * factor).to_parquet(tmp_path / "rows.parquet")
    arguments = (exports[name], tmp_path / "rows.parquet", "--out", tmp_path / "scored.csv")
    status, out, err = run(capsys, *arguments, "--report", tmp_path / "report.json")
    assert status == 3
    assert err.startswith("gpuclust: the rows are unlike the training rows: energy: ")
    assert err.count("\n") == 1
    assert "  energy: " in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["exceeding"] == ["energy"]
    assert report["features"]["energy"]["outside"] > 0.9
    assert report["features"]["valence"]["outside"] == 0.0
    assert report["rows_outside"] >= report["features"]["energy"]["outside"]
    if report["distance"] and factor > 1:
        assert report["distance"]["q50"] > 3 * report["training_distance"]["q99"]
    assert len(pd.read_csv(tmp_path / "scored.csv")) == 400, "the file is written all the same"
    assert run(capsys, *arguments, "--force", "--max-outside", "1")[0] == 0


def test_ordinary_new_rows_pass(exports: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, n in ((1, 400), (2, 60), (3, 2_000)):
        # New rows of the same clouds: `tracks` draws their centres first, so the rows are resampled with noise.
        rng = np.random.default_rng(seed)
        rows = tracks().sample(n, replace=True, random_state=seed).reset_index(drop=True)
        rows[FEATURES] = (
            rows[FEATURES] + rng.normal(size=(n, len(FEATURES))) * 0.2 * tracks()[FEATURES].std().to_numpy()
        )
        rows.to_parquet(tmp_path / f"rows{seed}.parquet")
        for name in ALGORITHMS:
            status, _, err = run(capsys, exports[name], tmp_path / f"rows{seed}.parquet", "--force",
                                 "--out", tmp_path / "scored.parquet")  # fmt: skip
            assert (status, err) == (0, ""), (name, seed)


@pytest.mark.parametrize(("form", "name"), [("csv", "filled"), ("parquet", "gmm"), ("parquet", "hdbscan")])
def test_rows_that_do_not_fit_in_memory_are_placed_as_those_that_do(
    form: str, name: str, exports: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.concat([gaps(tracks(1000, seed)) for seed in range(70)], ignore_index=True)
    frame["duration_ms"] = frame["duration_ms"].fillna(0).astype(int)
    if name == "gmm":  # a boolean column without a value in the first batch
        frame["genre"] = pd.array([None] * 66_000 + [True, None] * 2000, dtype="boolean")
    rows = tmp_path / f"rows.{form}"
    frame.to_csv(rows, index=False) if form == "csv" else frame.to_parquet(rows)
    for module in (assignments, predict_module):
        monkeypatch.setattr(module, "BATCH_ROWS", BLOCK_ROWS)
    for mode in ("resident", "disk"):
        memory = MemoryConfig(mode=mode, folder=str(tmp_path / "scratch"))
        out = tmp_path / f"{mode}.{form}"
        predict(exports[name], rows, out, report=tmp_path / f"{mode}.json", memory=memory)
    reports = [json.loads((tmp_path / f"{mode}.json").read_text()) | {"out": ""} for mode in ("resident", "disk")]
    assert reports[0] == reports[1]
    assert reports[0]["rows"] == 70_000
    assert reports[0]["unplaced"] == (0 if name == "filled" else 70 * 30)
    assert not list((tmp_path / "scratch").iterdir())
    if form == "csv":
        assert (tmp_path / "resident.csv").read_bytes() == (tmp_path / "disk.csv").read_bytes()
        return
    resident, disk = (pq.ParquetFile(tmp_path / f"{mode}.parquet") for mode in ("resident", "disk"))
    assert disk.num_row_groups == 2
    assert resident.read().equals(disk.read())


def test_the_report_hides_secrets(exports: dict[str, Path], tmp_path: Path) -> None:
    rows = tmp_path / "rows.parquet?token=hidden-0815"
    tracks(100, 1).to_parquet(rows)
    predict(exports["kmeans"], rows, tmp_path / "out.csv", report=tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["rows_of"] == f"{tmp_path}/rows.parquet?token=***"


def test_a_heavy_tailed_column_in_another_unit_is_seen_in_its_tails() -> None:
    rng = np.random.default_rng(0)
    training = np.exp(2 * rng.normal(size=10_000))
    ranges = {"plays": np.quantile(training, (0, 0.01, 0.99, 1))}
    summary = training_summary(ranges, len(training), None, np.ones(len(training)))
    details = Details.model_validate({"clusters": {}, "training": summary})

    def compared(values: np.ndarray) -> Any:
        n = len(values)
        parts = [count_outside(details, ["plays"], part[:, None]) for part in np.array_split(values, 3)]
        return compare(details, parts[0] + parts[1] + parts[2], np.zeros(n, int), np.ones(n), np.ones(n))

    assert not compared(np.exp(2 * rng.normal(size=10_000))).exceeding(0.05)
    larger = compared(100 * np.exp(2 * rng.normal(size=10_000)))
    assert larger.features[0].outside < 0.2 < larger.features[0].in_tails
    assert larger.in_words()[0].startswith("plays: ")
    rare = compared(np.append(training, 10 * training.max()))
    assert rare.in_words()[0] == "less than 0.1% of the values are outside the training range of plays"
    assert [f.feature for f in larger.exceeding(0.2)] == ["plays"]
    few = compared(np.full(MIN_ROWS_FOR_TAILS - 1, ranges["plays"][2] * 1.01))
    assert not few.exceeding(0.2), "a few rows in the tails say too little"
    assert compared(np.full(1, 1e9)).exceeding(0.2), "but a value outside the range is outside"
    assert compared(np.empty(0)).in_words()


def test_a_model_of_version_0_1_0_says_that_it_has_no_ranges(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = json.loads((OLD / "kmeans" / "expected.json").read_text())
    pd.DataFrame(expected["rows"], columns=["danceability", "energy", "tempo"]).to_csv(tmp_path / "r.csv", index=False)
    shutil.copytree(OLD / "kmeans", tmp_path / "out" / "model")
    status, out, err = run(capsys, tmp_path / "out", tmp_path / "r.csv", "--out", tmp_path / "s.parquet",
                           "--report", tmp_path / "report.json")  # fmt: skip
    assert (status, err) == (0, "")
    assert "keeps no ranges of its training rows (gpuclust 0.1.0 made it)" in out
    assert "clusters, share now (in training): 0 " in out
    assert pd.read_parquet(tmp_path / "s.parquet")["cluster"].tolist() == expected["cluster"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["features"] == {}
    assert report["rows_outside"] is None


def test_options_are_checked_before_anything_is_read(
    exports: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracks(50).to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "there.json").write_text("{}")
    for extra, said in (
        (("--max-outside", "20"), "--max-outside 20 is outside 0 to 1"),
        (("--max-outside", "nan"), "--max-outside nan is outside 0 to 1"),
        (("--report", tmp_path / "there.json"), "there.json exists"),
        (("--report", tmp_path / "s.parquet"), "name two files"),
    ):
        status, _, err = run(
            capsys, exports["kmeans"], tmp_path / "rows.parquet", "--out", tmp_path / "s.parquet", *extra
        )
        assert status == 2
        assert said in err
        assert not (tmp_path / "s.parquet").exists()


def test_a_changed_model_is_not_used(exports: dict[str, Path], tmp_path: Path) -> None:
    tracks(50).to_parquet(tmp_path / "rows.parquet")
    for file in ("model.json", "arrays.npz"):
        shutil.copytree(exports["kmeans"], tmp_path / file)
        path = tmp_path / file / "model" / file
        text = path.read_bytes()
        path.write_bytes(text.replace(b'"size"', b'"size" ') if file == "model.json" else text + b"\0")
        for folder in (tmp_path / file, tmp_path / file / "model"):
            with pytest.raises(ModelError, match=f"{file} is damaged or was changed since its export"):
                predict(folder, tmp_path / "rows.parquet", tmp_path / "s.parquet")
    shutil.copytree(exports["kmeans"] / "model", tmp_path / "alone")
    assert predict(tmp_path / "alone", tmp_path / "rows.parquet", tmp_path / "s.parquet").novelty.n_rows == 50


def test_an_export_of_a_model_without_ranges_adds_them(tmp_path: Path, store_template: Path) -> None:
    first = made_export(tracks(), tmp_path, store_template)
    kept = next((tmp_path / "artifacts").rglob("bundle")) / "model.json"
    model = json.loads(kept.read_text())
    ranges = model["details"].pop("training")
    kept.write_text(json.dumps(model))
    recorder = MlflowRecorder(f"sqlite:///{tmp_path / 'mlflow.db'}", "e")
    context: Any = RunContext(
        CpuBackend(), BackendChoice("cpu", "a test"), ResultCache(), recorder, Quiet(), "gpuclust test"
    )
    again = export(find_run(recorder, "best"), tmp_path / "again", recorder=recorder, context=context).folder
    assert json.loads((again / "model" / "model.json").read_text())["details"]["training"] == ranges
    assert (again / "model" / "arrays.npz").read_bytes() == (first / "model" / "arrays.npz").read_bytes()
