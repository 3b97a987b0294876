"""Drift: the population stability index against a computation by hand, its size by chance, and what `predict` prints, logs and exits with."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import gpuclust as gc
from gpuclust.cli import main
from gpuclust.config import MemoryConfig
from gpuclust.model.drift import bin_counts, bins_of, psi
from gpuclust.predict import predict
from gpuclust.tracking.mlflow import MlflowRecorder
from tests.exporting import FEATURES, made_export, tracks


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """An export of 3 clusters of the tracks, among whose features is one of two values."""
    frame = tracks().assign(mode=lambda t: (t["popularity"] < 28).astype(int))
    folder = tmp_path_factory.mktemp("drift")
    return made_export(frame, folder, store_template, features=[*FEATURES, "mode"])


def drifted(n: int = 400) -> pd.DataFrame:
    """The tracks, louder by half a standard deviation, and without those of mode 0."""
    rows = tracks(n).assign(mode=1)
    return rows.assign(energy=rows["energy"] + 0.5 * rows["energy"].std())


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    status = main(["predict", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


def by_hand(training: list[int], new: list[int]) -> float:
    """The sum over bins, in plain Python; a bin without rows counts as half a row."""
    e, a = ([max(c, 0.5) for c in counts] for counts in (training, new))
    shares = [(x / sum(e), y / sum(a)) for x, y in zip(e, a, strict=True)]
    return sum((y - x) * math.log(y / x) for x, y in shares)


def test_the_index_is_the_sum_by_hand() -> None:
    # (0.5 - 0.25) ln 2 + (0.5 - 0.75) ln(2 / 3) = 0.1733 + 0.1014
    found = psi(np.array([25, 75]), np.array([50, 50]))
    assert found is not None
    assert found.value == pytest.approx(0.25 * math.log(2) + 0.25 * math.log(1.5), abs=1e-12)
    assert found.chance == pytest.approx(10.828 * (1 / 100 + 1 / 100), rel=1e-3), (
        "chi-squared, 1 degree of freedom, 0.001"
    )
    for training, new in (([10, 20, 30], [30, 20, 10]), ([5, 0, 7], [0, 3, 9]), ([100, 1], [0, 50])):
        value = psi(np.array(training), np.array(new))
        assert value is not None
        assert value.value == pytest.approx(by_hand(training, new), abs=1e-12)
    assert psi(np.array([3, 4]), np.array([0, 0])) is None


def test_bins_are_deciles_and_a_frequent_value_has_its_own() -> None:
    values = np.arange(1000.0)
    bins = bins_of(values)
    assert bins is not None
    assert bins.counts == [100] * 10
    assert bins.edges == [99.0 + 100 * i for i in range(9)]
    binary = bins_of(np.array([0.0] * 70 + [1.0] * 30))
    assert binary is not None
    assert (binary.edges, binary.counts) == ([0.0], [70, 30])
    constant = bins_of(np.full(9, 4.0))
    assert constant is not None
    assert (constant.edges, constant.counts) == ([], [9])
    assert bins_of(np.array([np.nan])) is None
    assert bin_counts(np.array([-5.0, 99.0, 99.5, 2000.0]), np.array(bins.edges)).tolist() == [
        2,
        1,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        1,
    ]


def test_rows_of_the_training_distribution_exceed_the_size_by_chance_seldom() -> None:
    rng = np.random.default_rng(0)
    training = bins_of(rng.normal(size=2000))
    assert training is not None
    exceeded = 0
    for n in (50, 200, 1000):
        for _ in range(200):
            counts = bin_counts(rng.normal(size=n), np.array(training.edges))
            found = psi(np.array(training.counts), counts)
            assert found is not None
            exceeded += found.value > found.chance
    assert exceeded <= 6, "the size is that of one in a thousand; with few rows a bin may be empty"
    shifted = psi(np.array(training.counts), bin_counts(rng.normal(0.7, size=200), np.array(training.edges)))
    assert shifted is not None
    assert shifted.exceeds(0.25)


def test_predict_reports_the_indices_of_its_rows(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drifted().to_parquet(tmp_path / "rows.parquet")
    out = (tmp_path / "rows.parquet", "--out", tmp_path / "s.parquet", "--force", "--max-outside", 1)
    status, text, err = run(capsys, export, *out, "--report", tmp_path / "report.json")
    assert (status, err) == (0, ""), "without --max-psi nothing is refused"
    report = json.loads((tmp_path / "report.json").read_text())
    trained = pd.read_parquet(export / "assignments.parquet")
    scored = pd.read_parquet(tmp_path / "s.parquet")
    for feature in (*FEATURES, "mode"):
        values = np.sort(trained[feature].to_numpy(float))
        deciles = {values[int(np.floor(i * (len(values) - 1) / 10))] for i in range(1, 10)} - {values[-1]}
        edges = [-np.inf, *sorted(deciles), np.inf]
        counts = [pd.cut(rows[feature], edges).value_counts(sort=False).tolist() for rows in (trained, drifted())]
        assert report["psi"]["features"][feature]["value"] == pytest.approx(by_hand(*counts), abs=1e-12), feature
    assert report["psi"]["features"]["energy"]["value"] > 0.2
    assert report["psi"]["features"]["mode"]["value"] > 0.25, "a value that is missing has no bin in the ranges"
    assert report["psi"]["features"]["tempo"]["value"] == 0.0
    sizes = [rows["cluster"].value_counts().reindex(range(3), fill_value=0).tolist() for rows in (trained, scored)]
    assert report["psi"]["clusters"]["value"] == pytest.approx(by_hand(*sizes), abs=1e-12)
    far = (scored["distance"] > report["training_distance"]["q99"]).mean()
    assert report["psi"]["far"] == pytest.approx(far)
    assert report["psi"]["distance"]["value"] > 0
    lines = [line.strip() for line in text.splitlines()]
    assert any(line.startswith("PSI of features: mode ") for line in lines)
    assert any(line.startswith("PSI of the shares of the clusters 0.") for line in lines)
    assert f"farther from the own centre than 99% of the training rows: {far:.1%}" in lines
    status, _, err = run(capsys, export, *out, "--max-psi", 0.25)
    assert status == 3
    assert err.startswith("gpuclust: the rows have drifted from the training rows: the PSI of mode is ")
    assert err.count("\n") == 1
    assert run(capsys, export, *out, "--max-psi", 5)[0] == 0
    assert run(capsys, export, *out, "--max-psi", -1)[0] == 2


def test_the_training_rows_have_not_drifted(export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pd.read_parquet(export / "assignments.parquet")[["id", *FEATURES, "mode"]]
    rows.to_csv(tmp_path / "rows.csv", index=False)
    status, _, err = run(capsys, export, tmp_path / "rows.csv", "--out", tmp_path / "s.csv", "--max-psi", 0,
                         "--report", tmp_path / "report.json")  # fmt: skip
    assert (status, err) == (0, "")
    report = json.loads((tmp_path / "report.json").read_text())["psi"]
    assert {found["value"] for found in report["features"].values()} == {0.0}
    assert report["clusters"]["value"] == report["distance"]["value"] == 0.0
    assert report["far"] <= 0.01
    rows.sample(12, random_state=0).to_csv(tmp_path / "few.csv", index=False)
    status, text, _ = run(capsys, export, tmp_path / "few.csv", "--out", tmp_path / "f.csv", "--max-psi", 0.25)
    assert status == 0, "twelve rows are too few to tell"
    assert "with 12 rows a PSI up to 2." in text


def test_rows_on_disk_and_in_memory_have_the_same_indices(export: Path, tmp_path: Path) -> None:
    pd.concat([drifted()] * 20, ignore_index=True).to_parquet(tmp_path / "rows.parquet")
    found = [
        predict(
            export, tmp_path / "rows.parquet", tmp_path / f"{mode}.csv", memory=MemoryConfig(mode=mode)
        ).novelty.drift
        for mode in ("resident", "disk")
    ]
    assert found[0] == found[1]


def test_a_comparison_is_logged_as_a_run(
    export: Path, tmp_path: Path, store_template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(store_template, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    drifted().to_parquet(tmp_path / "rows.parquet")
    status, text, _ = run(capsys, export, tmp_path / "rows.parquet", "--out", tmp_path / "s.csv", "--max-psi", 0.25,
                          "--max-outside", 1, "--log", "--uri", uri, "--experiment", "watch")  # fmt: skip
    assert status == 3, "it is logged all the same"
    assert "of kind drift in the experiment watch" in text
    recorder = MlflowRecorder(uri, "watch")
    (logged,) = recorder.search("tags.`gpuclust.kind` = 'drift'")
    assert logged.info.status == "FINISHED"
    assert logged.data.params["model"] == str(export)
    document = recorder.document(logged.info.run_id, "drift.json")
    assert document is not None
    assert document["drifted"][0] == "mode"
    assert logged.data.metrics["psi/energy"] == pytest.approx(document["psi"]["features"]["energy"]["value"])
    assert logged.data.metrics["psi_clusters"] == pytest.approx(document["psi"]["clusters"]["value"])
    assert logged.data.metrics["share/0"] == pytest.approx(document["clusters"][0]["share"])
    assert list(recorder.jobs()) == [], "it is no job that `export best` could find"


def test_in_python_a_model_measures_the_drift_of_a_frame(export: Path) -> None:
    model = gc.load_model(export)
    found = model.drift(drifted())
    assert list(found.index[:6]) == [*FEATURES, "mode"]
    assert found.loc["energy", "psi"] > 0.2
    assert found.loc["tempo", "psi"] == 0.0
    assert set(found["kind"]) == {"feature", "clusters", "distance", "confidence"}


def test_vectors_have_the_indices_of_their_distances_only() -> None:
    rng = np.random.default_rng(0)

    def table(centres: list[int], n: int = 300) -> pd.DataFrame:
        values = np.eye(32)[rng.choice(centres, n)] + 0.1 * rng.normal(size=(n, 32))
        return pd.DataFrame({"id": range(n), "embedding": list(values.astype(np.float32))})

    run = gc.fit(
        table([0, 1, 2]), gc.KMeans(n_clusters=3), features=["embedding"], scale="unit", tracking=None, progress=False
    )
    alike = run.model.drift(table([0, 1, 2], 200))
    assert alike["kind"].tolist() == ["clusters", "distance", "confidence"], "and no index for each of 32 values"
    assert (alike["psi"] < alike["chance"]).all()
    moved = run.model.drift(table([0, 1, 2, 9], 200))
    assert moved.loc["the distance to the own centre", "psi"] > 0.25
