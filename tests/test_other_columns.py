"""The id that is found in a table, and the columns that a job does not use, row for row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpuclust.config import CleanConfig, DataConfig, JoinConfig, RolesConfig
from gpuclust.data.clean import clean
from gpuclust.data.frames import PandasFrames
from gpuclust.data.read import other_columns, read
from gpuclust.data.summary import summary
from gpuclust.errors import DataError

FRAMES = PandasFrames()


def documents(n: int = 60, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "text": [f"a document about {rng.integers(1000)}" for _ in range(n)],
            "doc_id": rng.permutation(10 * n)[:n],
            "x": rng.normal(size=n),
            "y": rng.normal(size=n),
            "topic": rng.choice(["a", "b", "c"], n),
            "checked": rng.random(n) < 0.5,
            "zip": [f"{z:05d}" for z in rng.integers(0, 99_999, n)],
        }
    )


def write(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_distinct_column_named_like_an_id_is_the_id(tmp_path: Path, name: str) -> None:
    frame = documents()
    table = read(DataConfig(path=str(write(frame, tmp_path / name))), FRAMES)
    assert table.roles.id == "doc_id"
    assert table.frame["doc_id"].tolist() == frame["doc_id"].tolist()
    assert table.frame["doc_id"].dtype == np.int64
    assert table.features == ("x", "y")
    assert any("doc_id is the id" in note for note in table.audit.notes)
    assert table.audit.source["id_found"]
    assert summary(table.audit).endswith("; id: doc_id")


@pytest.mark.parametrize("name", ["userId", "ORDER ID", "uuid", "sku", "user.key", "customerid"])
def test_names_of_ids(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({"x": [1.5, 2.5, 0.5, 4.5], name: ["k7", "k2", "k3", "k9"], "t": ["q", "r", "s", "u"]})
    assert read(DataConfig(path=str(write(frame, tmp_path / "t.csv"))), FRAMES).roles.id == name


def test_the_only_distinct_text_is_the_id(tmp_path: Path) -> None:
    frame = documents().drop(columns=["doc_id", "zip"]).assign(text=lambda f: [f"d{i}" for i in f.index[::-1]])
    table = read(DataConfig(path=str(write(frame, tmp_path / "t.csv"))), FRAMES)
    assert table.roles.id == "text"
    assert table.frame["text"].tolist() == frame["text"].tolist()


def test_what_is_no_id(tmp_path: Path) -> None:
    """Repeated or missing values, two texts of which neither is named like an id, a long text, a number with a fraction."""
    n = 40
    frame = pd.DataFrame(
        {
            "repeated_id": [i // 2 for i in range(n)],
            "missing_id": [None, *range(1, n)],
            "part_id": np.arange(n) + 0.5,
            "one": [f"a{i}" for i in range(n)],
            "other": [f"b{i}" for i in range(n)],
            "document_uri": ["word " * 100 + str(i) for i in range(n)],
        }
    )
    table = read(DataConfig(path=str(write(frame, tmp_path / "t.csv"))), FRAMES)
    assert table.roles.id == "id"
    assert table.frame["id"].tolist() == list(range(n))
    assert table.audit.source["id_made"]


def test_values_far_down_decide_too(tmp_path: Path) -> None:
    n = 5000
    frame = pd.DataFrame({"x": np.arange(n) % 97 * 1.5, "doc_id": [f"d{i}" for i in range(n - 1)] + ["d7"]})
    assert read(DataConfig(path=str(write(frame, tmp_path / "t.csv"))), FRAMES).roles.id == "id"


def test_a_named_role_or_feature_wins(tmp_path: Path) -> None:
    path = write(documents(), tmp_path / "t.csv")
    assert read(DataConfig(path=str(path), roles=RolesConfig(id="zip")), FRAMES).roles.id == "zip"
    table = read(DataConfig(path=str(path), features=["x", "doc_id"]), FRAMES)
    assert table.features == ("x", "doc_id")
    assert table.roles.id != "doc_id"


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_the_other_columns_of_the_rows_kept(tmp_path: Path, name: str) -> None:
    frame = documents(200)
    frame.loc[[3, 50, 51], "x"] = np.nan
    data = DataConfig(path=str(write(frame, tmp_path / name)), n_rows=150, seed=4)
    table = clean(read(data, FRAMES), CleanConfig(bounds={"y": [-1.0, None]}), FRAMES)
    others = other_columns(table, data, FRAMES)
    assert others.column_names == ["text", "topic", "checked", "zip"]
    kept = frame.set_index("doc_id").loc[table.frame["doc_id"]]
    assert 50 < len(kept) < 150
    for column in others.column_names:
        assert others[column].to_pylist() == kept[column].tolist(), column
    assert other_columns(table, data, FRAMES, ["zip", "nonsense"]).column_names == ["zip"]


def test_types_of_other_columns_of_csv(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id;x;whole;gaps;share;flag;code\n1;1,5;3;;0,25;True;007\n2;2,5;-4;7;1,5;False;12\n3;0,5;0;8;;;1\n")
    data = DataConfig(path=str(path), features=["x"])
    others = other_columns(read(data, FRAMES), data, FRAMES)
    assert {n: others[n].to_pylist() for n in others.column_names} == {
        "whole": [3, -4, 0],
        "gaps": [None, 7, 8],
        "share": [0.25, 1.5, None],
        "flag": [True, False, None],
        "code": ["007", "12", "1"],
    }


def test_parquet_types_are_kept_and_repeated_names_told_apart(tmp_path: Path) -> None:
    columns = [pa.array([1.5, 2.5]), pa.array([[1, 2], [3]]), pa.array([{"a": 1}, {"a": 2}]), pa.array([b"x", b"y"])]
    pq.write_table(pa.Table.from_arrays(columns, names=["x", "x", "s", ""]), tmp_path / "t.parquet")
    data = DataConfig(path=str(tmp_path / "t.parquet"))
    table = read(data, FRAMES)
    assert table.features == ("x",)
    others = other_columns(table, data, FRAMES)
    assert {n: others[n].to_pylist() for n in others.column_names} == {
        "x.1": [[1, 2], [3]],
        "s": [{"a": 1}, {"a": 2}],
        "Unnamed: 3": [b"x", b"y"],
    }


def test_columns_of_a_folder_and_of_a_join(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    whole = documents(40)
    write(whole.iloc[:25], tmp_path / "parts" / "a.csv")
    write(whole.iloc[25:], tmp_path / "parts" / "b.csv")
    write(pd.DataFrame({"topic": ["a", "b"], "label": ["first", "second"]}), tmp_path / "topics.csv")
    join = JoinConfig(path=str(tmp_path / "topics.csv"), left="topic")
    data = DataConfig(path=str(tmp_path / "parts"), join=join)
    table = read(data, FRAMES)
    others = other_columns(table, data, FRAMES)
    assert others["text"].to_pylist() == whole["text"].tolist()
    assert (
        others["label"].to_pylist()
        == whole["topic"].map({"a": "first", "b": "second"}).astype(object).where(lambda c: c.notna(), None).tolist()
    )


def test_the_catalogue_has_other_columns(tmp_path: Path) -> None:
    data = DataConfig(source="catalogue", preset="tracks", n_rows=50, features=["energy", "valence"])
    table = clean(read(data, FRAMES), CleanConfig(bounds={"energy": [0.5, None]}), FRAMES)
    others = other_columns(table, data, FRAMES)
    assert others.num_rows == table.n_rows < 50
    assert "tempo" in others.column_names


def test_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    data = DataConfig(path=str(write(documents(), tmp_path / "t.csv")))
    table = read(data, FRAMES)
    write(documents(seed=1), tmp_path / "t.csv")
    with pytest.raises(DataError, match="has changed"):
        other_columns(table, data, FRAMES)
