"""A table that is read in batches is the table that is read into memory: every row, column, type and word of the audit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from gpuclust.config import CleanConfig, DataConfig, JoinConfig, RolesConfig
from gpuclust.data import medians as medians_module
from gpuclust.data.clean import clean
from gpuclust.data.column_batches import other_columns_batches
from gpuclust.data.disk_frame import DiskFrameWriter
from gpuclust.data.distinct import DistinctRows
from gpuclust.data.frames import PandasFrames
from gpuclust.data.medians import means, medians
from gpuclust.data.read import other_columns, read
from gpuclust.data.stream import read_streamed
from gpuclust.errors import DataError, GpuclustError
from gpuclust.runtime.scratch import Scratch

FRAMES = PandasFrames()


@pytest.fixture
def scratch(tmp_path):
    with Scratch(tmp_path / "scratch") as scratch:
        yield scratch


def assert_same(data: DataConfig, config: CleanConfig, scratch: Scratch, batch_rows: int = 97):
    """The streamed table, when it is the resident one."""
    expected = clean(read(data, FRAMES), config, FRAMES)
    got = read_streamed(data, config, FRAMES, scratch, batch_rows=batch_rows)
    for name in (f.name for f in dataclasses.fields(expected.audit)):
        assert getattr(got.audit, name) == getattr(expected.audit, name), name
    assert (got.roles, got.features, got.fingerprint) == (expected.roles, expected.features, expected.fingerprint)
    pd.testing.assert_frame_equal(got.frame.to_pandas(), expected.frame)
    others = list(other_columns_batches(got, data, FRAMES, rows=61))
    assert all(len(part) == 61 for part in others[:-1])
    if expected.other_columns:
        assert pa.concat_tables(others).equals(other_columns(expected, data, FRAMES).combine_chunks())
    else:
        assert others == []
    if expected.rows is None:
        assert got.rows is None
    else:
        assert np.array_equal(got.rows, expected.rows)
    return got


def messy(n: int = 1000, seed: int = 0) -> pd.DataFrame:
    """A table with something of everything that cleaning changes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    x[rng.random(n) < 0.03] = np.nan
    x[rng.random(n) < 0.01] = np.inf
    words = rng.choice(["3.5", "-1e3", " 7", "oops", ""], n, p=[0.4, 0.3, 0.2, 0.05, 0.05])
    words[:20] = "2.5"
    counts = rng.integers(0, 1000, n).astype(object)
    counts[n // 2] = None
    return pd.DataFrame(
        {
            "track_id": rng.integers(0, n, n).astype(str),
            "name": rng.choice(["", "été", "a, b", "c"], n),
            "artists": rng.choice(["['x', 'y']", "['z']", "[]"], n),
            "genre": rng.choice(["rock", "", "nan", "folk"], n),
            "x": x,
            "tempo": words,
            "loud": rng.normal(size=n).round(2),
            "same": 4.0,
            "mostly": np.where(rng.random(n) < 0.8, np.nan, rng.random(n)),
            "flag": rng.integers(0, 2, n),
            "counts": counts,
            "counter": np.arange(n),
            "late": np.where(np.arange(n) < n - 3, 1.5, [*[2.5] * (n - 1), 9.0]),
            "popularity": rng.integers(0, 100, n),
            "release": [f"{y}-05-01" for y in rng.integers(1950, 2020, n)],
        }
    )


ROLES = RolesConfig(
    id="track_id", title="name", creator="artists", group="genre", popularity="popularity", year="release"
)
CLEANINGS = {
    "drop": CleanConfig(),
    "median": CleanConfig(nulls="median", bounds={"loud": [-1.0, None]}),
    "mean": CleanConfig(nulls="mean", duplicates="id", require_group=True),
    "rows": CleanConfig(nulls="median", duplicates="row", bounds={"x": [-1.5, 1.5], "popularity": [None, 90]}),
    "ids": CleanConfig(duplicates="id", bounds={"late": [None, 2.0]}),
}


def write(frame: pd.DataFrame, folder: Path, form: str) -> Path:
    if form == "parts":
        (folder / "parts").mkdir()
        for i, start in enumerate((0, 400, 650)):
            part = frame[start : (400, 650, len(frame))[i]]
            part.to_csv(folder / "parts" / f"{i}.csv", index=False)
        return folder / "parts"
    path = folder / f"table.{form}"
    if form == "parquet":
        table = pa.Table.from_pandas(frame, preserve_index=False)
        pq.write_table(table, path, row_group_size=150)
    elif form == "feather":
        pyarrow.feather.write_feather(frame, path, chunksize=130)
    else:
        frame.to_csv(
            path, index=False, sep=";" if form == "csv.gz" else ",", encoding="latin-1" if form == "csv" else "utf-8"
        )
    return path


@pytest.mark.parametrize(
    ("form", "cleaning"),
    [("csv", c) for c in CLEANINGS]
    + [(f, c) for f in ("csv.gz", "parquet", "feather", "parts") for c in ("mean", "rows")],
)
def test_a_messy_table(tmp_path, scratch, form, cleaning):
    frame = messy()
    if form in ("parquet", "feather"):
        frame["counts"] = frame["counts"].astype("Int64")
    data = DataConfig(path=str(write(frame, tmp_path, form)), roles=ROLES)
    got = assert_same(data, CLEANINGS[cleaning], scratch)
    assert got.audit.steps


@pytest.mark.parametrize(
    ("name", "preset"),
    [("tracks_114k.csv", "none"), ("tracks_114k.csv", "tracks"), ("tracks_12k_lists.csv", "tracks"),
     ("artist_genres_29k.csv", "none"), ("data_by_year.csv", "none")],
)  # fmt: skip
def test_real_tables(real_data, scratch, name, preset):
    data = DataConfig(path=str(real_data / name), preset=preset)
    config = CleanConfig(duplicates="id", nulls="median") if name.startswith("tracks") else CleanConfig()
    assert_same(data, config, scratch, batch_rows=20_000)


def test_the_catalogue_and_a_sample(tmp_path, scratch):
    assert_same(DataConfig(source="catalogue", n_rows=3000, preset="tracks"), CleanConfig(), scratch)
    path = write(messy(), tmp_path, "csv")
    got = assert_same(DataConfig(path=str(path), n_rows=300, seed=3), CleanConfig(nulls="mean"), scratch)
    assert len(got.frame) == 300


@pytest.mark.parametrize("key", ["names", "numbers", "lists"])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_joined_table(tmp_path, scratch, form, key):
    rng = np.random.default_rng(0)
    n = 500
    keys = {
        "names": rng.choice(["a", "b", "c", None], n),
        "numbers": np.where(rng.random(n) < 0.1, np.nan, rng.integers(0, 3, n)),
        "lists": rng.choice(["['a', 'b']", "['c']", "[]"], n),
    }[key]
    first = pd.DataFrame({"x": rng.normal(size=n), "y": rng.normal(size=n), "key": keys})
    right = [0, 1, 2, 2] if key == "numbers" else ["a", "b", "c", "c"]
    second = pd.DataFrame({"key": right, "kind": ["p", "q", None, "r"], "weight": [1.0, 2.0, 4.5, 8.0]})
    second.to_csv(tmp_path / "second.csv", index=False)
    join = JoinConfig(path=str(tmp_path / "second.csv"), left="key")
    data = DataConfig(path=str(write(first, tmp_path, form)), join=join, roles=RolesConfig(group="kind"))
    got = assert_same(data, CleanConfig(nulls="mean"), scratch)
    assert got.audit.source["join"]["rows_matched"] > 0


@pytest.mark.parametrize(
    "text",
    [
        "id,x,y\n" + "".join(f'{i},{i * 1.5},"{i % 7},5"\n' for i in range(300)),
        "id;x;y\n" + "".join(f"{i};{i * 7 % 13},5;{i}\n" for i in range(300)),
        "id,x,note\n" + "".join(f'{i},{i * 7 % 13 + 0.25},"a\nb"\n' for i in range(300)),
        "id,x\n" + "".join(f"{i},{i * 7 % 13 + 0.25}\n" if i % 120 else f"{i},1,2\n" for i in range(1, 400)),
        "".join(f"{i * 7 % 13 + 0.25},{i / 3}\n" for i in range(300)),
        "x,y,z\n" + "".join(f"{i * 7 % 13 + 0.25},{'true' if i % 3 else 'F'},{i}\n" for i in range(300)),
    ],
    ids=["quoted", "semicolons", "line breaks", "bad records", "no header", "booleans"],
)
def test_texts(tmp_path, scratch, text):
    (tmp_path / "t.csv").write_text(text)
    assert_same(DataConfig(path=str(tmp_path / "t.csv")), CleanConfig(), scratch, 41)
    if "true" in text:
        assert_same(DataConfig(path=str(tmp_path / "t.csv"), features=["x", "y"]), CleanConfig(), scratch, 41)


def test_types_of_binary_files(tmp_path, scratch):
    n = 400
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "key": [f"k{i}" for i in range(n)],
            "small": pd.array(np.where(rng.random(n) < 0.1, None, rng.integers(0, 99, n).astype(object)), dtype="Int8"),
            "when": pd.to_datetime(np.where(rng.random(n) < 0.1, "NaT", "2019-03-04")),
            "x": rng.normal(size=n).astype("float32"),
            "kind": pd.Categorical(rng.choice(["a", "b"], n)),
            "tags": [["p", "q"][: i % 3] or None for i in range(n)],
            "n": rng.integers(0, 2**62, n),
        }
    )
    frame.loc[:150, "when"] = pd.Timestamp("2019-03-04")
    for form in ("parquet", "feather"):
        path = write(frame, tmp_path, form)
        roles = RolesConfig(group="tags", title="kind", year="when", popularity="small")
        got = assert_same(DataConfig(path=str(path), roles=roles), CleanConfig(), scratch)
        assert got.roles.id == "key"
    parts = tmp_path / "parts"
    parts.mkdir()
    frame[["key", "x", "n"]][:200].to_parquet(parts / "a.parquet")
    other = frame[["key", "x", "n"]][200:].assign(
        n=lambda f: f["n"].astype("Int64").where(f["x"] > 0), x=lambda f: f["x"].astype("float64")
    )
    other.to_parquet(parts / "b.parquet")
    assert_same(DataConfig(path=str(parts)), CleanConfig(nulls="median"), scratch)


@pytest.mark.parametrize(
    ("data", "config"),
    [
        ({"features": ["genre"]}, {}),
        ({"features": ["nothing"]}, {}),
        ({}, {"bounds": {"nothing": [0, 1]}}),
        ({}, {"bounds": {"loud": [100, None]}}),
        ({"features": ["x", "mostly"]}, {"bounds": {"mostly": [0, 0.1], "x": [5, 6]}}),
        ({"features": ["same"]}, {}),
        ({"features": ["huge", "x"]}, {}),
        ({"features": ["empty", "x"]}, {"nulls": "median"}),
        ({"roles": RolesConfig(id="track_id")}, {"require_group": True}),
    ],
)
def test_errors_are_those_of_a_table_in_memory(tmp_path, scratch, data, config):
    frame = messy(200).assign(huge=1e80 + np.arange(200) * 1e78, empty=np.nan)
    path = write(frame, tmp_path, "csv")
    data, config = DataConfig(path=str(path), **data), CleanConfig(**config)
    with pytest.raises(GpuclustError) as expected:
        clean(read(data, FRAMES), config, FRAMES)
    with pytest.raises(type(expected.value)) as got:
        read_streamed(data, config, FRAMES, scratch, batch_rows=31)
    assert str(got.value) == str(expected.value)


def test_distinct_rows_in_files(scratch, seed):
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 3000, (20_000, 2)).astype(np.uint64)
    keys[:, 0] %= 50  # many keys have an equal first word
    rows = np.arange(len(keys)) * 2
    expected = pd.DataFrame(keys).duplicated(keep="first").to_numpy()
    for memory_bytes in (1 << 30, 5000):
        with DistinctRows(scratch, width=2, numbered=True, memory_bytes=memory_bytes) as distinct:
            for start in range(0, len(keys), 333):
                distinct.add(keys[start : start + 333], rows[start : start + 333])
            assert distinct.n_distinct() == (~expected).sum()
            assert np.array_equal(distinct.repeats(), rows[expected])
    assert list(scratch.path.glob("keys*")) == []


@pytest.mark.parametrize("numbered", [False, True])
def test_a_frequent_key_takes_little_disk_and_memory(scratch, numbered):
    n = 100_000
    keys = np.zeros((n, 2), np.uint64)
    keys[::1000, 1] = np.arange(n // 1000)
    with DistinctRows(scratch, width=2, numbered=numbered, memory_bytes=50_000) as distinct:
        for start in range(0, n, 1000):
            distinct.add(keys[start : start + 1000], np.arange(start, start + 1000) if numbered else None)
        assert distinct.n_distinct() == n // 1000
        assert sum(path.stat().st_size for path in scratch.path.glob("keys*")) < 10_000
        if numbered:
            expected = pd.DataFrame(keys).duplicated(keep="first").to_numpy()
            assert np.array_equal(distinct.repeats(), np.flatnonzero(expected))


@pytest.mark.parametrize("n", [1, 2, 5, 70_001])
@pytest.mark.parametrize("most_near", [0, 50, 10**7])
def test_medians_and_means_are_those_of_pandas(scratch, n, most_near, monkeypatch):
    monkeypatch.setattr(medians_module, "MAX_SORTED", most_near)
    rng = np.random.default_rng(n)
    X = np.stack(
        [rng.normal(size=n) * 1e-300, rng.integers(-3, 3, n).astype(float), np.exp(20 * rng.normal(size=n))], axis=1
    )
    X[rng.random((n, 3)) < 0.3] = np.nan
    X[0] = [-0.0, 2.0, 1.5]
    writer = scratch.writer("x", 3, np.float64)
    writer.append(X)
    blocks, frame = writer.close(), pd.DataFrame(X)
    assert medians(blocks).tolist() == frame.median().tolist()
    if n <= 65_536:
        assert means(blocks).tolist() == frame.mean().tolist()
    else:
        np.testing.assert_allclose(means(blocks), frame.mean(), rtol=1e-13)


@pytest.mark.parametrize("form", ["csv", "parquet", "feather"])
def test_files_without_rows(tmp_path, scratch, form):
    folder = tmp_path / "folder"
    folder.mkdir()
    frame = pd.DataFrame(
        {"x": np.arange(50) * 0.5, "y": np.arange(50) % 7 * 1.5, "z": ["a", "b"] * 25, "t": np.arange(50) + 0.5}
    )
    for i, part in enumerate((frame[:0], frame[:30], frame[30:30], frame[30:])):
        (folder / f"{i}").mkdir()
        write(part.astype(frame.dtypes), folder / f"{i}", form)
    data = DataConfig(path=str(folder), features=["x", "y"])
    assert_same(data, CleanConfig(), scratch, 7)
    for path in (folder / "0").iterdir():
        data = DataConfig(path=str(path), features=["x", "y"])
        with pytest.raises(GpuclustError) as expected:
            clean(read(data, FRAMES), CleanConfig(), FRAMES)
        with pytest.raises(type(expected.value)) as got:
            read_streamed(data, CleanConfig(), FRAMES, scratch)
        assert str(got.value) == str(expected.value)


@pytest.mark.parametrize("batch_rows", [17, 100])
def test_list_keys_of_a_join_that_are_missing_in_a_whole_batch(tmp_path, scratch, batch_rows):
    n = 200
    keys = [None] * 100 + ["['a', 'b']", "['c']"] * 50
    frame = pd.DataFrame({"x": np.random.default_rng(0).normal(size=n), "y": np.arange(n) % 7 + 0.5, "key": keys})
    frame.to_parquet(tmp_path / "first.parquet")
    pd.DataFrame({"key": ["a", "b", "c"], "kind": ["p", "q", "r"]}).to_csv(tmp_path / "second.csv", index=False)
    join = JoinConfig(path=str(tmp_path / "second.csv"), left="key")
    data = DataConfig(path=str(tmp_path / "first.parquet"), join=join, roles=RolesConfig(group="kind"))
    expected = clean(read(data, FRAMES), CleanConfig(), FRAMES)
    got = read_streamed(data, CleanConfig(), FRAMES, scratch, batch_rows=batch_rows)
    assert got.frame.to_pandas().equals(expected.frame)


def test_objects(tmp_path, scratch):
    """Booleans with missing values are objects in pandas."""
    n = 300
    frame = pd.DataFrame({"x": np.random.default_rng(0).normal(size=n), "y": np.arange(n) % 7 + 0.5})
    frame["g"] = pd.array([None] * 200 + [True, None] * 50, dtype="boolean")
    folder = tmp_path / "folder"
    folder.mkdir()
    frame.to_parquet(folder / "a.parquet")
    data = DataConfig(path=str(folder), roles=RolesConfig(group="g"))
    assert_same(data, CleanConfig(), scratch)


def test_values_of_several_types_are_one_line(scratch):
    text, lists = ([value] for value in ("text", ["a list"]))
    message = r"'g' has values of several types .* memory\.mode=resident"
    with DiskFrameWriter(scratch, ["x"]) as writer:
        writer.append(pd.DataFrame({"x": [0.5], "g": text}))
        with pytest.raises(DataError, match=message):
            writer.append(pd.DataFrame({"x": [0.5], "g": lists}))
        writer.close()


KINDS = {
    "number": pd.array([1, None], dtype="Int64"),
    "whole": pd.array([1, 2], dtype="int64"),
    "text": pd.array(["1", "rock"], dtype="str"),
    "digits": pd.array(["1", "2"], dtype="str"),
    "boolean": pd.array([True, None], dtype="boolean"),
    "empty": [None, None],
    "date": pd.to_datetime(["2020-01-01", "2021-01-01"]),
    "list": [["a"], ["b"]],
}


@pytest.mark.parametrize("format", ["parquet", "feather"])
def test_columns_whose_type_differs_between_files(format, tmp_path, scratch):
    """Numbers, booleans and text become text, numbers and booleans numbers, the same in memory and in batches."""
    random = np.random.default_rng(0)
    expected = {
        ("number", "text"): ["1", None, "1", "rock"],
        ("whole", "text"): ["1", "2", "1", "rock"],
        ("text", "number"): ["1", "rock", "1", None],
        ("boolean", "text"): ["True", None, "1", "rock"],
        ("empty", "text"): [None, None, "1", "rock"],
        ("boolean", "whole"): [1.0, None, 1.0, 2.0],
        ("whole", "boolean"): [1.0, 2.0, 1.0, None],
        ("empty", "whole"): [None, None, 1.0, 2.0],
    }
    for (first, second), values in expected.items():
        folder = tmp_path / f"{first}-{second}"
        folder.mkdir()
        for name, kind in (("a", first), ("b", second)):
            frame = pd.DataFrame({"x": random.normal(size=2), "y": random.normal(size=2), "g": KINDS[kind]})
            getattr(frame, f"to_{format}")(folder / f"{name}.{format}")
        data = DataConfig(path=str(folder), roles=RolesConfig(group="g"))
        found = assert_same(data, CleanConfig(), scratch)
        column = found.frame.to_pandas()["g"]
        assert [None if pd.isna(value) else value for value in column] == values


def test_other_columns_of_several_types_are_exported_as_one(tmp_path, scratch):
    """Each column by itself: numbers stay numbers, and lists beside text become JSON."""
    random = np.random.default_rng(0)
    for name, whole, several in (("a", [1, 2**60 + 1], "list"), ("b", [0.5, 2.0], "text")):
        frame = pd.DataFrame({"x": random.normal(size=2), "y": random.normal(size=2), "same": [7, 8]})
        frame.assign(number=whole, several=KINDS[several]).to_parquet(tmp_path / f"{name}.parquet")
    data = DataConfig(path=str(tmp_path), features=("x", "y"))
    assert_same(data, CleanConfig(), scratch)
    found = other_columns(read(data, FRAMES), data, FRAMES)
    assert found.select(["same", "number", "several"]).to_pydict() == {
        "same": [7, 8, 7, 8],
        "number": [1.0, 2.0**60, 0.5, 2.0],
        "several": ['["a"]', '["b"]', "1", "rock"],
    }


def test_digits_in_one_file_and_numbers_in_another_are_a_feature(tmp_path, scratch):
    random = np.random.default_rng(0)
    for name, n in (("a", "digits"), ("b", "whole")):
        pd.DataFrame({"x": random.normal(size=2), "n": KINDS[n]}).to_parquet(tmp_path / f"{name}.parquet")
    found = assert_same(DataConfig(path=str(tmp_path), features=("x", "n")), CleanConfig(), scratch)
    np.testing.assert_array_equal(found.frame.to_pandas()["n"], [1.0, 2.0, 1.0, 2.0])


@pytest.mark.parametrize(("first", "second"), [("date", "text"), ("list", "whole"), ("list", "text")])
def test_types_that_have_nothing_in_common_are_one_line(first, second, tmp_path, scratch):
    for name, kind in (("a", first), ("b", second)):
        pd.DataFrame({"x": [0.5, 1.5], "g": KINDS[kind]}).to_parquet(tmp_path / f"{name}.parquet")
    data = DataConfig(path=str(tmp_path), roles=RolesConfig(group="g"))
    message = rf"'g' is {first} in .*a\.parquet and \w+ in b\.parquet; write the files of a folder with the same types"
    with pytest.raises(DataError, match=message):
        read(data, FRAMES)
    with pytest.raises(DataError, match=message):
        read_streamed(data, CleanConfig(), FRAMES, scratch)
