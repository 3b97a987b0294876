"""JSON lines, Excel sheets and queries: the same table as from a Parquet file, fingerprints, whole commands, and one-line errors."""

from __future__ import annotations

import gzip
import json
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

import gpuclust as gc
from gpuclust.cli import main
from gpuclust.compose import compose
from gpuclust.config import CleanConfig, Config, DataConfig, validate
from gpuclust.data.copies import content_of, write_copy
from gpuclust.data.files import find_files, short_name
from gpuclust.data.frames import PandasFrames
from gpuclust.data.query import forget_results
from gpuclust.data.read import other_columns, read
from gpuclust.data.source import detect_preset, fingerprint
from gpuclust.data.stream import read_streamed
from gpuclust.errors import BackendError, ConfigurationError, DataError
from gpuclust.runtime.scratch import Scratch
from gpuclust.sanitize import mask
from tests.leaks import leaks
from tests.postgres import running
from tests.workbook import write_workbook

duckdb = pytest.importorskip("duckdb", reason="needs gpuclust[duckdb]")
pytest.importorskip("python_calamine", reason="needs gpuclust[excel]")
deltalake = pytest.importorskip("deltalake", reason="needs gpuclust[lakehouse]")
pytest.importorskip("pyiceberg", reason="needs gpuclust[lakehouse]")

ROWS = 600
SECRET = "pw-8c1f-Kz"


def rows() -> pd.DataFrame:
    """Three groups in two columns, with an id, whole numbers, texts that are not ASCII, and a missing value."""
    rng = np.random.default_rng(3)
    group = rng.integers(0, 3, ROWS)
    frame = pd.DataFrame(
        {
            "id": [f"r{i}" for i in range(ROWS)],
            "a": group * 6 + rng.normal(size=ROWS),
            "b": group * -4 + rng.normal(size=ROWS),
            "n": rng.integers(0, 10_000, ROWS),
            "label": np.array(["x", "é", "z'q"])[group],
        }
    )
    frame.loc[7, "a"] = np.nan
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows in every format, each in a file of its own."""
    folder, frame = tmp_path_factory.mktemp("rows"), rows()
    frame.to_parquet(folder / "rows.parquet")
    frame.to_csv(folder / "rows.csv", index=False)
    lines = frame.to_json(orient="records", lines=True, double_precision=15)
    (folder / "rows.jsonl").write_text(lines)
    (folder / "rows.ndjson.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "array.json").write_text(frame.to_json(orient="records", double_precision=15))
    write_workbook(folder / "rows.xlsx", {"about": pd.DataFrame({"note": ["nothing here"]}), "all rows": frame})
    with sqlite3.connect(folder / "rows.db") as connection:
        frame.to_sql("t", connection, index=False)
    with duckdb.connect(str(folder / "rows.duckdb")) as connection:
        connection.execute(f"create table t as from '{folder}/rows.parquet'")
    write_delta(folder / "delta", frame)
    write_iceberg(folder, frame)
    return folder


def write_delta(folder: Path, frame: pd.DataFrame) -> None:
    """A Delta table of the rows, of which a part was added later; rows that were deleted are still in its files."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    wrong = table.slice(0, 9).set_column(0, "id", pa.array(["wrong"] * 9, table.schema.field("id").type))
    deltalake.write_deltalake(str(folder), pa.concat_tables([table.slice(0, 400), wrong]))
    deltalake.DeltaTable(str(folder)).delete("id = 'wrong'")
    deltalake.write_deltalake(str(folder), table.slice(400), mode="append")


def write_iceberg(folder: Path, frame: pd.DataFrame) -> None:
    """As `write_delta`, an Iceberg table in the folder ``rows/iceberg``."""
    from pyiceberg.catalog.memory import InMemoryCatalog

    table = pa.Table.from_pandas(frame, preserve_index=False)
    wrong = table.slice(0, 9).set_column(0, "id", pa.array(["wrong"] * 9, table.schema.field("id").type))
    catalog = InMemoryCatalog("c", warehouse=f"file://{folder}")
    catalog.create_namespace("rows")
    made = catalog.create_table("rows.iceberg", schema=table.schema)
    made.append(pa.concat_tables([table.slice(0, 400), wrong]))
    made.delete("id == 'wrong'")
    made.append(table.slice(400))


SOURCES: dict[str, dict[str, Any]] = {
    "json lines": {"path": "rows.jsonl"},
    "gzip": {"path": "rows.ndjson.gz"},
    "sheet by name": {"path": "rows.xlsx", "sheet": "all rows"},
    "sheet by number": {"path": "rows.xlsx", "sheet": "2"},
    "query of Parquet": {"query": "select * from 'rows.parquet'"},
    "query of CSV": {"query": "from 'rows.csv'"},
    "query of JSON": {"query": "from 'array.json'"},
    "query of JSON lines": {"query": "with t as (from 'rows.jsonl') select * from t"},
    "SQLite": {"query": "select * from t", "database": "rows.db"},
    "SQLite by address": {"query": "select * from t", "database": "sqlite:///rows.db"},
    "DuckDB": {"query": "select * from t", "database": "rows.duckdb"},
    "Delta": {
        "query": "with d as (from delta_scan('delta')) select a.* from d a join d b using (id) order by id[2:]::int"
    },
    "Iceberg": {
        "query": "with i as (from ICEBERG_SCAN('rows/iceberg')) select a.* from i a join i b using (id) order by id[2:]::int"
    },
}


def config(folder: Path, given: dict[str, Any]) -> DataConfig:
    """The configuration of a source in the folder."""
    if "query" in given:
        return DataConfig(**given, folder=str(folder))
    return DataConfig(**given | {"path": str(folder / given["path"])})


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_table_of_a_parquet_file(name: str, folder: Path) -> None:
    frames = PandasFrames()
    data, expected = config(folder, SOURCES[name]), read(DataConfig(path=str(folder / "rows.parquet")), frames)
    found = read(data, frames)
    assert (found.features, found.roles) == (expected.features, expected.roles)
    # 15 decimal digits of JSON and the parsers of sheets and databases keep the numbers within a unit in the last place.
    pd.testing.assert_frame_equal(found.frame, expected.frame, rtol=1e-14, atol=1e-14)
    assert other_columns(found, data, frames).to_pydict() == {"label": rows()["label"].tolist()}
    assert found.audit.source["rows"] == ROWS


@pytest.mark.parametrize("name", ["json lines", "sheet by name", "query of Parquet", "SQLite"])
def test_a_source_is_read_in_batches(name: str, folder: Path, tmp_path: Path) -> None:
    frames, data = PandasFrames(), config(folder, SOURCES[name])
    with Scratch(tmp_path) as scratch:
        streamed = read_streamed(data, CleanConfig(), frames, scratch, batch_rows=100)
        parts: Any = streamed.frame
        found = pd.concat(list(parts.batches(["id", "a", "b", "n"])), ignore_index=True)
    expected = rows().dropna()[["id", "a", "b", "n"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-14)


@pytest.mark.parametrize(("path", "scan"), [("delta", "delta_scan"), ("rows/iceberg", "iceberg_scan")])
def test_a_folder_that_is_a_delta_or_iceberg_table(path: str, scan: str, folder: Path) -> None:
    data = config(folder, {"path": path})
    found = read(data, PandasFrames()).frame.sort_values(
        "id", ignore_index=True
    )  # the rows that were added last come first
    expected = rows()[["id", "a", "b", "n"]].sort_values("id", ignore_index=True)
    pd.testing.assert_frame_equal(found[["id", "a", "b", "n"]], expected)
    assert fingerprint(data) == fingerprint(config(folder, {"query": f"from {scan}('{path}') -- {scan}('no')"}))
    with pytest.raises(DataError, match=f'is no part of a list; read it with data.query="from {scan}'):
        find_files(json.dumps([str(folder / path), str(folder / "rows.parquet")]))


def test_fingerprints_follow_the_rows(folder: Path, tmp_path: Path) -> None:
    of_files = fingerprint(config(folder, {"query": "from 'rows.parquet'"}))
    in_duckdb = fingerprint(config(folder, {"query": "select * from t", "database": "rows.duckdb"}))
    in_sqlite = fingerprint(config(folder, {"query": "select * from t", "database": "rows.db"}))
    assert of_files == in_duckdb == in_sqlite, "the same rows, by three engines"
    assert fingerprint(config(folder, {"query": "from 'rows.parquet' order by n"})) != of_files
    assert fingerprint(config(folder, {"query": "select id, a, b, n + 1 as n, label from 'rows.parquet'"})) != of_files
    sheets = {
        sheet: fingerprint(config(folder, {"path": "rows.xlsx", "sheet": sheet})) for sheet in ("about", "all rows")
    }
    assert sheets["about"] != sheets["all rows"]

    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    first, data = fingerprint(DataConfig(path=str(path))), DataConfig(query=f"from '{path}'")
    asked = fingerprint(data)
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": 3}\n')
    assert fingerprint(DataConfig(path=str(path))) != first, "a changed file is read again"
    assert fingerprint(data) == asked, "a query is run once"
    forget_results()
    assert fingerprint(data) != asked


def test_the_digest_of_a_result_does_not_depend_on_its_batches() -> None:
    table = pa.table(
        {
            "x": pa.array([1.5, None, -0.25, 4.0, None]),
            "t": ["a", None, "", "bc", "d"],
            "v": pa.array([[1, 2], None, [], [3], [4, None]], pa.list_(pa.int32())),
            "d": pa.array([0, 1, None, 3, 4], pa.timestamp("us")),
            "f": [True, None, False, True, True],
        }
    )
    whole = content_of(write_copy([table], "t"))
    assert content_of(write_copy([table.slice(0, 2), table.slice(2)], "t")) == whole
    garbage = pa.Array.from_buffers(
        pa.float64(), 5, [table["x"].chunk(0).buffers()[0], pa.array([1.5, 9, -0.25, 4, 8]).buffers()[1]]
    )
    assert content_of(write_copy([table.set_column(0, "x", garbage)], "t")) == whole, (
        "values behind missing cells do not count"
    )
    moved = table.set_column(1, "t", pa.array(["a", None, "b", "c", "d"]))
    assert content_of(write_copy([moved], "t")) != whole, "texts of other lengths with the same letters"


def test_json_lines_of_several_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuclust.data.json_lines.BLOCK_BYTES", 64)  # each line or two in a block of its own
    lines = [
        {"id": "a", "x": 1, "mixed": 1, "deep": {"u": 1, "w": {"z": 5}}, "tags": ["p", "q"]},
        {"id": "b", "x": 2.5, "mixed": "two", "deep": {"u": None, "w": {"z": 6}}, "tags": []},
        {"id": "c", "x": None, "deep": {"u": 3}, "late": 7},
        {"id": "d", "x": float("nan"), "mixed": True, "tags": ["é"], "late": 8},
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("\ufeff" + "".join(json.dumps(line) + "\n\n" for line in lines), encoding="utf-8")
    copy = find_files(str(path)).paths[0]
    with pa.OSFile(str(copy)) as file:
        found = pa.ipc.open_file(file).read_all().to_pydict()
    assert np.isnan(found["x"].pop())
    assert found == {
        "id": ["a", "b", "c", "d"], "x": [1.0, 2.5, None], "mixed": ["1", "two", None, "true"], "tags": [["p", "q"], [], None, ["é"]],
        "deep.u": [1, None, 3, None], "deep.w.z": [5, 6, None, None], "late": [None, None, 7, 8],
    }  # fmt: skip
    assert json.loads(json.dumps(found["mixed"])) == ["1", "two", None, "true"]


def test_vectors_in_json_lines_and_queries(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    pq.write_table(pa.table({"id": [f"i{i}" for i in range(50)], "v": list(vectors)}), tmp_path / "v.parquet")
    (tmp_path / "v.jsonl").write_text(
        "".join(json.dumps({"id": f"i{i}", "v": [float(x) for x in v]}) + "\n" for i, v in enumerate(vectors))
    )
    for data in (
        DataConfig(path=str(tmp_path / "v.jsonl")),
        DataConfig(query=f"select id, v::float[4] as v from '{tmp_path}/v.parquet'"),
    ):
        (column,) = read(data, PandasFrames()).vectors
        np.testing.assert_array_equal(column.values, vectors)


def test_lists_and_patterns_of_json_lines_and_sheets(folder: Path, tmp_path: Path) -> None:
    frame = rows()
    for i, part in enumerate((frame[:200], frame[200:])):
        part.to_json(tmp_path / f"part{i}.jsonl", orient="records", lines=True)
        write_workbook(tmp_path / f"part{i}.xlsx", {"rows": part})
    for path in (
        f"{tmp_path}/part*.jsonl",
        f"{tmp_path}/*.xlsx",
        json.dumps([f"{tmp_path}/part0.jsonl", f"{tmp_path}/part1.jsonl"]),
    ):
        assert read(DataConfig(path=path), PandasFrames()).frame["id"].tolist() == frame["id"].tolist()
    with pytest.raises(DataError, match="mixes excel and json files"):
        find_files(f"{tmp_path}/part*")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    assert [file.name for file in find_files(str(tmp_path)).paths] == ["rows.csv"], "notes beside the files of a folder"


def test_a_sweep_an_export_and_predictions_of_a_query(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    store = f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"
    query = "select id, a, b, label from 'rows.parquet' where n >= 100 and label <> 'it''s, (none)' order by id"
    command = ["-m", f"data.query={query}", "cluster.n_clusters=2,3", "report=none", "backend=cpu", store]
    assert main(command) == 0
    monkeypatch.chdir(tmp_path)  # the query is run in the folder where it was given
    uri = ["--uri", f"sqlite:///{tmp_path}/mlflow.db"]
    assert main(["export", "best", "--out", "out", *uri]) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    kept = rows().query("n >= 100").dropna().sort_values("id")
    assert manifest["source"] == query
    assert manifest["config"]["data"]["folder"] == str(folder)
    assigned = pq.read_table("out/assignments.parquet")
    assert assigned["id"].to_pylist() == kept["id"].tolist()
    assert assigned.column_names[:4] == ["id", "a", "b", "label"]

    assert (
        main(["predict", "out", f"select * from '{folder}/rows.jsonl' order by id", "--out", "of_query.parquet"]) == 0
    )
    assert main(["predict", "out", str(folder / "rows.xlsx"), "--sheet", "all rows", "--out", "of_sheet.parquet"]) == 0
    assert (
        main(["predict", "out", "select * from t", "--database", str(folder / "rows.db"), "--out", "of_db.parquet"])
        == 0
    )
    labels = dict(zip(assigned["id"].to_pylist(), assigned["cluster"].to_pylist(), strict=True))
    for name in ("of_query", "of_sheet", "of_db"):
        found = pq.read_table(f"{name}.parquet", columns=["id", "cluster"]).to_pandas().set_index("id")["cluster"]
        assert found.loc[list(labels)].astype(int).to_dict() == labels
    capsys.readouterr()
    assert main(["describe", "select * from t", f"data.database={folder}/rows.duckdb"]) == 0
    said = capsys.readouterr().out
    assert "select * from t: 600 rows" in said
    assert f"data.query='select * from t' data.database={folder}/rows.duckdb" in said


@contextmanager
def rows_in_postgresql() -> Iterator[str]:
    """The address, with a password, of a database of a server that runs; its table t has the rows and a date."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with running(port) as server:
        import psycopg

        address = server.database().replace("postgresql+psycopg:", "postgresql:").replace(":hidden@", f":{SECRET}@")
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute("create table t (id text, a float8, b float8, n int, label text, made date)")
            with connection.cursor() as cursor:
                given = rows().astype(object).where(rows().notna(), None).itertuples(index=False, name=None)
                cursor.executemany("insert into t values (%s, %s, %s, %s, %s, '2020-01-01')", list(given))
        yield address


def test_postgresql(folder: Path) -> None:
    with rows_in_postgresql() as address:
        data = DataConfig(
            query="select * from t where label not like '%:x' and n::text <> '%' order by id", database=address
        )
        found, expected = (
            read(data, PandasFrames()),
            read(DataConfig(path=str(folder / "rows.parquet")), PandasFrames()),
        )
        pd.testing.assert_frame_equal(
            found.frame, expected.frame.sort_values("id", ignore_index=True), rtol=0, check_dtype=False
        )
        assert {out.column: out.reason for out in found.audit.left_out}["made"] == "date"
        for query in ("with x as (delete from t returning id) select * from x", "select * into other from t"):
            with pytest.raises(DataError, match=r"DECLARE CURSOR|read-only transaction|not allowed"):
                read(DataConfig(query=query, database=address), PandasFrames())


@pytest.mark.campaign
def test_a_job_and_an_export_of_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rows_in_postgresql() as address:
        monkeypatch.chdir(tmp_path)
        job = [
            "data=table",
            "data.query=select * from t order by id",
            f"data.database={address}",
            "cluster.n_clusters=3",
        ]
        assert main([*job, "report=none", "backend=cpu"]) == 0
        assert leaks(tmp_path, [SECRET]) == []
        forget_results()  # as in another process; the server trusts every password, and takes none
        assert main(["export", "best", "--out", "out"]) == 0
        manifest = json.loads(Path("out/manifest.json").read_text())
        assert manifest["config"]["data"]["database"] == address.replace(SECRET, "***")
        assert pq.read_table("out/assignments.parquet").num_rows == ROWS - 1
        assert leaks(tmp_path, [SECRET]) == []


def test_python(folder: Path) -> None:
    from_file = gc.fit(str(folder / "rows.parquet"), gc.KMeans(n_clusters=3), tracking=None, progress=False)
    query = "select * from t where 1 = 1"
    run = gc.fit(
        query, gc.KMeans(n_clusters=3), config={"data.database": str(folder / "rows.db")}, tracking=None, progress=False
    )
    np.testing.assert_array_equal(run.labels_, from_file.labels_)
    sheet = gc.fit(
        folder / "rows.xlsx", gc.KMeans(n_clusters=3), config={"data.sheet": 2}, tracking=None, progress=False
    )
    np.testing.assert_array_equal(sheet.labels_, from_file.labels_)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"query": "select nope from 'rows.parquet'"}, 'Referenced column "nope" not found'),
        ({"query": "select * from 'no.parquet'"}, 'No files found that match the pattern "no.parquet"'),
        ({"query": "select * from t where x = 1; drop table t"}, "must be one SELECT statement"),
        ({"query": "copy (select 1) to 'x.csv'"}, "must begin with SELECT, WITH or FROM"),
        ({"query": "select a, a from 'rows.parquet'"}, "two columns called 'a'; name one of them with AS"),
        ({"query": "select * from 'rows.parquet' where n < 0"}, "returns no rows"),
        ({"query": "select * from delta_scan('rows')"}, "rows is not a Delta table"),
        ({"query": "select * from iceberg_scan('delta')"}, "delta is not an Iceberg table"),
        ({"query": "select * from iceberg_scan('s3://music/t')"}, "INSTALL iceberg"),
        ({"query": "select * from 'x.parquet' where p = 'u:***@h'"}, "recorded without its password"),
        ({"query": "select * from t", "database": "no.db"}, "no.db does not exist; give a database file"),
        ({"query": "select * from t", "database": "rows.csv"}, "neither an SQLite nor a DuckDB database"),
        ({"query": "select * from missing", "database": "rows.db"}, "no such table: missing"),
        ({"query": "select * from t", "database": "nosuch://host/x"}, "sqlalchemy.dialects:nosuch"),
        ({"path": "array.json"}, "is one JSON array; write one object per line"),
        ({"path": "rows.xlsx", "sheet": "al rows"}, "has no sheet 'al rows'; did you mean all rows"),
        ({"path": "rows.xlsx", "sheet": "3"}, "it has about, all rows"),
        ({"path": "rows.csv", "sheet": "1"}, "rows.csv is csv; leave it out"),
    ],
)  # fmt: skip
def test_errors_are_one_line(given: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(config(folder, given), PandasFrames())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a": 2\n', "line 2 is not JSON"),
        ('{"a": 1}\n[1, 2]\n', "line 2 is not a JSON object but '[1, 2]'"),
        ("a,b\n1,2\n", "line 1 is not JSON"),
        ("\n\n", "is empty"),
    ],
)
def test_lines_that_are_no_rows(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(DataError, match=message.replace("[", r"\[")):
        find_files(str(tmp_path / "t.jsonl"))


def test_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match="is not a complete Excel workbook"):
        find_files(str(tmp_path / "t.xlsx"))
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n' * 1000)[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        find_files(str(tmp_path / "t.jsonl.gz"))
    (tmp_path / "u.jsonl").write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(DataError, match="line 1 is not JSON"):
        find_files(str(tmp_path / "u.jsonl"))


def test_a_full_disk(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full ends in one line; an error of the source is not taken for it."""
    copy = tmp_path / "rows.jsonl"
    copy.write_bytes((folder / "rows.jsonl").read_bytes())

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pa.ipc.RecordBatchFileWriter, "write_table", full)
        with pytest.raises(BackendError, match="No space left on device; set TMPDIR"):
            find_files(str(copy))
    with pytest.raises(ConnectionError, match="of the source"):
        write_copy(_failing(), "t")
    assert len(find_files(str(copy)).paths) == 1


def _failing() -> Iterator[pa.Table]:
    yield pa.table({"x": [1]})
    raise ConnectionError("of the source")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"path": "x.csv", "query": "select 1"}, "data.path and data.query are two sources"),
        ({"path": "x.csv", "database": "x.db"}, "data.database needs data.query"),
        ({"query": "select 1", "sheet": "2"}, "a query has no sheets"),
    ],
)
def test_keys_that_exclude_each_other(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        validate(Config(data=DataConfig(**given)))


@pytest.mark.parametrize(
    "query",
    [
        "select a, b from 't.csv' where x = 'it''s' and y like '%\\' limit 3",
        "select \"a b\", [1, 2] from read_csv('t.csv', delim=';') where c = 1 and d in (1, 2)",
        "select\n  a,\tb\nfrom 't.csv'",
        '"select a, x, 7 from t.csv"',
    ],
)
def test_a_query_is_one_value_on_the_command_line(query: str) -> None:
    assert compose(["data=table", f"data.query={query}"]).data.query == query.replace("\n", " ").strip('"')


def test_a_query_has_a_name_and_a_preset(folder: Path) -> None:
    assert short_name(DataConfig(query="select * from 'a/b/*.parquet' where x").location or "") == "query of *.parquet"
    assert short_name("with t as (select 1) select * from t") == "query of t"
    named = "select 'x' as track_id, 'y' as track_name, 'z' as artists, 0.1 as danceability, 0.2 as energy, 0.3 as loudness, 0.4 as speechiness, 0.5 as valence, 0.6 as tempo"
    assert detect_preset(named) == "tracks"


def test_passwords_of_databases_are_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    address = f"postgresql://bob:{SECRET}@127.0.0.1:1/x"
    store = f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"
    assert main(["data=table", "data.query=select * from t", f"data.database={address}", store]) == 2
    out, error = capfd.readouterr()
    assert SECRET not in out + error
    assert "connection" in error
    assert len(error.strip().splitlines()) == 1
    shown = mask(compose(["data=table", "data.query=select 1", f"data.database={address}"]).data.database)
    assert shown == "postgresql://bob:***@127.0.0.1:1/x"
    assert (
        mask(f"select * from postgres_scan('host=h password={SECRET} user=u', 't')")
        == "select * from postgres_scan('host=h password=*** user=u', 't')"
    )


@pytest.mark.campaign
def test_passwords_in_queries_are_not_recorded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"
    recorded = f"select a, b, label like '%password={SECRET}%' as odd from '{folder}/rows.parquet'"
    assert (
        main(["data=table", f"data.query={recorded}", "cluster.n_clusters=3", "report=none", "backend=cpu", store]) == 0
    )
    assert leaks(tmp_path, [SECRET]) == []
