"""The Model Registry: what `tracking.register` registers, what `promote` compares and changes, and who reads the champion. The store is a real one."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import gpuclust as gc
from gpuclust.cli import main
from gpuclust.errors import ConfigurationError, TrackingError
from gpuclust.promotion import compared
from gpuclust.sanitize import mask
from gpuclust.tracking.registry import Registry
from tests.exporting import FEATURES, tracks


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """A folder with a store, in which a sweep of 2 and 3 clusters over the rows registered its choice as ``tracks``, and was promoted; then a
    job with 2 clusters registered another version."""
    folder = tmp_path_factory.mktemp("registry")
    shutil.copy(store_template, folder / "mlflow.db")
    tracks().to_csv(folder / "tracks.csv", index=False)
    common = [f"data.path={folder / 'tracks.csv'}", f"data.features=[{','.join(FEATURES)}]", "report=none",
              f"tracking.uri=sqlite:///{folder / 'mlflow.db'}", "tracking.experiment=e", "tracking.register=tracks"]  # fmt: skip
    assert main(["-m", *common, "cluster.n_clusters=2,3", "cluster.n_init=1"]) == 0
    assert main(["promote", "tracks", "--uri", f"sqlite:///{folder / 'mlflow.db'}"]) == 0
    assert main([*common, "cluster.n_clusters=2"]) == 0
    return folder


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Registry:
    """The registry of a copy of the store, which a test may change."""
    shutil.copy(store / "mlflow.db", tmp_path / "mlflow.db")
    return Registry.open(f"sqlite:///{tmp_path / 'mlflow.db'}")


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    status = main([*map(str, arguments)])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


def test_the_chosen_job_is_registered_once_as_the_challenger(store: Path, copy: Registry) -> None:
    first, second = copy.version("tracks", 1), copy.version("tracks", 2)
    assert first.aliases == ("champion",)
    assert second.aliases == ("challenger",)
    tags = copy.client.get_run(first.run_id).data.tags
    assert tags["gpuclust.registered"] == "models:/tracks/1"
    assert tags["gpuclust.selected"] == "true", "in a sweep the chosen job is registered"
    assert first.source == tags["gpuclust.model"]
    again = copy.register("tracks", first.run_id, first.source)
    assert again.number == 1
    assert again.aliases == ("champion",), "the same run is no new version, and the champion no challenger"
    assert len(copy.client.search_model_versions("name='tracks'")) == 2


def test_promotion_compares_on_the_same_rows_and_moves_the_aliases(
    store: Path, copy: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, "promote", "tracks", "--uri", copy.uri)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "tracks: version 2 compared with the champion, version 1"
    assert lines[1] == f"  400 rows of {store / 'tracks.csv'}"
    assert lines[-1] == "version 2 of tracks is the champion; version 1 has the alias previous"
    assert copy.version("tracks", 2).aliases == ("champion",)
    assert copy.version("tracks", 1).aliases == ("previous",)
    labels = [gc.load_model(f"models:/tracks/{i}", tracking=copy.uri).predict(tracks())["cluster"].to_numpy(np.int32)
              for i in (1, 2)]  # fmt: skip
    from sklearn.metrics import adjusted_mutual_info_score

    with copy.run_file(copy.version("tracks", 2), "promotion.json") as path:
        found = json.loads(path.read_text())
    assert found["with_noise"]["ami"] == pytest.approx(adjusted_mutual_info_score(*labels), abs=1e-9)
    assert (found["champion"], found["replaced"]) == ("models:/tracks/2", "models:/tracks/1")
    for pair in found["shares"]:
        for side, own in (("champion", labels[0]), ("challenger", labels[1])):
            assert pair[f"{side}_share"] == pytest.approx((own == pair[side]).mean() if pair[side] is not None else 0.0)
    assert run(capsys, "promote", "tracks", "--uri", copy.uri)[0] == 2, "no challenger is left"
    assert run(capsys, "promote", "tracks", "--version", 1, "--uri", copy.uri)[0] == 0, "back to the version before"
    assert copy.version("tracks", 1).aliases == ("champion",)
    assert copy.version("tracks", 2).aliases == ("previous",)


def test_a_challenger_below_a_limit_is_not_promoted(copy: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "promote", "tracks", "--min-ami", 0.99, "--uri", copy.uri)
    assert status == 3
    assert "agreement: AMI " in out
    assert err.startswith("gpuclust: version 2 of tracks was not promoted: its AMI with the champion, 0.")
    assert err.rstrip().endswith("is below --min-ami 0.99")
    assert run(capsys, "promote", "tracks", "--dry-run", "--uri", copy.uri)[0] == 0
    done = gc.promote("tracks", min_ami=0.99, tracking=copy.uri)
    assert not done.promoted
    assert done.comparison is not None
    assert done.comparison.ami < 0.99
    assert copy.version("tracks", 1).aliases == ("champion",)
    assert gc.promote("tracks", max_noise=0.0, tracking=copy.uri).promoted, "K-Means has no noise"
    with pytest.raises(ConfigurationError, match="--min-ami 2 is outside 0 to 1"):
        gc.promote("tracks", min_ami=2, tracking=copy.uri)


def test_noise_is_compared_and_rows_that_one_model_cannot_place_are_left_out() -> None:
    champion = np.array([0, 0, 1, 1, -1, -2], np.int32)
    challenger = np.array([1, 1, 0, -1, -1, 0], np.int32)
    found = compared(champion, challenger, names=["a", "b"], rows_of="rows")
    assert (found.n_rows, found.n_compared) == (6, 5)
    assert (found.champion_noise, found.challenger_noise) == (0.2, 0.4)
    assert [(s.champion, s.challenger, s.champion_share, s.challenger_share, s.jaccard) for s in found.shares] == [
        (0, 1, 0.4, 0.4, 1.0),
        (1, 0, 0.4, 0.2, 0.5),
    ]
    assert found.in_words()[0] == "5 rows of rows (1 more that one of them cannot place)"


def test_the_champion_predicts_is_exported_and_compared_by_its_address(
    store: Path, copy: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracks().to_parquet(tmp_path / "rows.parquet")
    status, _, err = run(capsys, "predict", "models:/tracks@champion", tmp_path / "rows.parquet", "--uri", copy.uri,
                         "--out", tmp_path / "scored.parquet", "--report", tmp_path / "report.json")  # fmt: skip
    assert (status, err) == (0, "")
    assert json.loads((tmp_path / "report.json").read_text())["model"] == "models:/tracks/1"
    found = gc.load_model("models:/tracks@champion", tracking=copy.uri).predict(tracks())
    assert pd.read_parquet(tmp_path / "scored.parquet")["cluster"].tolist() == found["cluster"].tolist()
    where = ("--uri", copy.uri, "--experiment", "e")
    assert run(capsys, "export", "models:/tracks@champion", *where, "--out", tmp_path / "out")[0] == 0
    assert pd.read_parquet(tmp_path / "out" / "assignments.parquet")["cluster"].tolist() == found["cluster"].tolist()
    assert run(capsys, "compare", "models:/tracks@champion", "models:/tracks@challenger", *where)[0] == 0


def test_what_is_not_registered_is_one_line(copy: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracks(20).to_parquet(tmp_path / "rows.parquet")
    for address, said in (
        ("models:/tracks@best", "no version of the registered model tracks in"),
        ("models:/tracks@best", "it has challenger (version 2), champion (version 1)"),
        ("models:/tracks/9", "there is no registered model tracks with version 9"),
        ("models:/trakcs@champion", "it has tracks"),
        ("models:/tracks", "is not models:/NAME@ALIAS"),
    ):
        arguments = ("predict", address, tmp_path / "rows.parquet", "--uri", copy.uri, "--out", tmp_path / "s.csv")
        status, _, err = run(capsys, *arguments)
        assert status == 2
        assert said in err
        assert err.count("\n") == 1
    assert mask("models:/tracks@champion of https://me:hidden-1@host") == "models:/tracks@champion of https://***@host"
    with pytest.raises(TrackingError, match="the registered model other has no version with the alias challenger"):
        gc.promote("other", tracking=copy.uri)
    for override, said in (
        ("tracking=none", "tracking.register=tracks has no model to register with tracking=none"),
        ("tracking.models=none", "with tracking.models=none"),
        ("tracking.register=a/b", "tracking.register=a/b is not a name of letters"),
    ):
        status, _, err = run(capsys, f"data.path={tmp_path / 'rows.parquet'}", "tracking.register=tracks", override)
        assert (status, said in err) == (2, True), err
