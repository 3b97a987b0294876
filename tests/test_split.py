"""Clustering the rows of one cluster again, and of those that meet a condition: against the rows of the first run by pandas."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import gpuclust as gc
from gpuclust import edits
from gpuclust.choice import resolve_within
from gpuclust.cli import main
from gpuclust.compose import compose
from gpuclust.config import CleanConfig, Config, DataConfig, clusters_within
from gpuclust.data.clean import clean
from gpuclust.data.frames import PandasFrames
from gpuclust.data.read import read
from gpuclust.data.stream import read_streamed
from gpuclust.errors import ConfigurationError, GpuclustError
from gpuclust.runtime.scratch import Scratch
from tests.exporting import FEATURES, tracks


@pytest.fixture
def place(tmp_path: Path, store_template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a table of tracks, some of whose rows cleaning drops, and a store."""
    frame = tracks()
    frame.loc[::50, "energy"] = np.nan
    frame.to_csv(tmp_path / "tracks.csv", index=False)
    (tmp_path / "store.db").write_bytes(store_template.read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'store.db'}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


JOB = ["data.path=tracks.csv", f"data.features=[{','.join(FEATURES)}]", "report=none"]


def exported(folder: str) -> pd.DataFrame:
    assert main(["export", "best", "--out", folder]) == 0
    return pd.read_parquet(Path(folder) / "assignments.parquet")


def test_a_cluster_is_divided_again(place: Path, capsys: Any) -> None:
    assert main([*JOB, "cluster.n_clusters=3"]) == 0
    first = exported("out")
    assert main(["split", "best:1", "cluster.n_clusters=2", "report=none"]) == 0
    shown = capsys.readouterr()
    assert "with another cluster than 1 of kmeans k=3" in shown.out + shown.err
    second = exported("sub")
    assert second["id"].tolist() == first["id"][first["cluster"] == 1].tolist()
    assert second["cluster_path"].tolist() == [f"1.{c}" for c in second["cluster"]]
    # a run within a run, of another algorithm
    assert main(["split", "sub:0", "cluster=gmm", "cluster.n_clusters=2", "report=none"]) == 0
    third = exported("third")
    assert third["id"].tolist() == second["id"][second["cluster"] == 0].tolist()
    assert set(third["cluster_path"]) == {"1.0.0", "1.0.1"}
    # clusters that were merged in an export
    edits.merge_clusters(place / "out", [0, 2])
    run = gc.fit(
        "tracks.csv",
        gc.KMeans(n_clusters=2),
        features=FEATURES,
        config={"data.within": "out:0", "data.preset": "tracks"},
    )
    inside = set(first["id"][first["cluster"].isin([0, 2])])
    rows = pd.read_csv("tracks.csv")
    assert set(rows["id"][run.labels_ >= 0]) == inside
    capsys.readouterr()
    for arguments, said in (
        (["split", "best:9", "cluster.n_clusters=2"], "has no cluster 9"),
        (["split", "best:0", "data.n_rows=9"], "split takes data and clean from the run"),
        (["split", "best", "cluster.n_clusters=2"], "is not RUN:CLUSTER"),
        ([*JOB, "data.within=best:0", "memory.mode=disk"], "use memory.mode=resident"),
    ):
        assert main(arguments) in (1, 2)
        shown = capsys.readouterr()
        assert said in shown.err + shown.out
    tracks(seed=1).to_csv("tracks.csv", index=False)
    assert main([*JOB, "data.within=out:0"]) in (1, 2)
    assert "is of another table" in "".join(capsys.readouterr())


@pytest.mark.campaign
def test_rows_of_a_density_cluster(place: Path) -> None:
    assert main([*JOB, "cluster=hdbscan", "cluster.min_cluster_size=20"]) == 0
    first = exported("out")
    assert set(first["cluster"]) >= {-1, 0, 1}
    assert main(["split", "out:0", "cluster.n_clusters=2", "report=none"]) == 0
    assert exported("sub")["id"].tolist() == first["id"][first["cluster"] == 0].tolist()


@pytest.mark.parametrize(
    "where", ["year >= 2000 and energy > .5", "genre == 'rock' or not (popularity < 20)", "year != 1999"]
)
def test_a_condition_keeps_the_rows_of_pandas(where: str, tmp_path: Path) -> None:
    frame = tracks()
    frame.loc[::9, "year"] = np.nan
    frame.to_csv(tmp_path / "t.csv", index=False)
    data = DataConfig(path=str(tmp_path / "t.csv"), preset="tracks", features=FEATURES)
    table = clean(read(data, PandasFrames()), CleanConfig(where=where), PandasFrames())
    known = frame if "year" not in where else frame[frame["year"].notna()]
    expected = known.query(where)["id"].tolist()
    assert table.frame["id"].tolist() == expected
    assert table.rows is not None
    assert frame["id"][table.rows].tolist() == expected
    (step,) = [step for step in table.audit.steps if step.rule == "where"]
    assert step.rows_removed == len(frame) - len(expected)
    with Scratch(tmp_path) as scratch:
        streamed = read_streamed(data, CleanConfig(where=where), PandasFrames(), scratch, batch_rows=64)
        assert [i for part in streamed.frame.batches(["id"]) for i in part["id"]] == expected


def test_what_cannot_be_is_refused_in_one_line(tmp_path: Path) -> None:
    tracks(50).to_csv(tmp_path / "t.csv", index=False)
    table = read(DataConfig(path=str(tmp_path / "t.csv"), preset="tracks"), PandasFrames())
    for where, said in (
        ("yaer > 1", "neither a feature nor a column with a role; did you mean year"),
        ("year >", "cannot read the condition"),
        ("genre > 1", "has texts"),
    ):
        with pytest.raises(GpuclustError, match=said):
            clean(table, CleanConfig(where=where), PandasFrames())
    with pytest.raises(ConfigurationError, match="is not RUN:CLUSTER"):
        compose(["data=catalogue", "data.within=best"])
    assert clusters_within("a:b:3+1") == ("a:b", (1, 3))
    config = Config(data=DataConfig(within="f" * 32 + ":2"))
    resolve_within(config)  # an id needs no store
    assert config.data.within == "f" * 32 + ":2"
    assert dataclasses.asdict(config)["data"]["within"] == config.data.within
