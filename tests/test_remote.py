"""Tables in an object store and on the web: the same table as from a local file, fingerprints, patterns, lists, and one-line errors."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

import gpuclust as gc
from gpuclust.cli import main
from gpuclust.compose import compose
from gpuclust.config import CleanConfig, DataConfig
from gpuclust.data import remote, remote_folders
from gpuclust.data.clean import clean
from gpuclust.data.files import find_files, short_name, split_paths
from gpuclust.data.frames import PandasFrames
from gpuclust.data.read import other_columns, read
from gpuclust.data.source import fingerprint
from gpuclust.data.stream import read_streamed
from gpuclust.errors import DataError, ExportError, GpuclustError
from gpuclust.runtime.scratch import Scratch
from gpuclust.tracks.catalogue import catalogue
from tests.remote_servers import google_server, moto_server, web_server

ROWS = 3000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,000 generated tracks: Parquet in one file and in three, CSV, gzip CSV and Feather."""
    folder = tmp_path_factory.mktemp("tracks")
    frame = catalogue(ROWS, seed=2)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, folder / "all.parquet", row_group_size=1000)
    (folder / "parts").mkdir()
    for i in range(3):
        pq.write_table(table.slice(i * 1000, 1000), folder / "parts" / f"part-{i}.parquet")
    frame.to_csv(folder / "all.csv", index=False)
    frame.to_csv(folder / "all.csv.gz", index=False)
    feather.write_feather(table, folder / "all.feather")
    return folder


@pytest.fixture(scope="module")
def s3(folder: Path) -> Iterator[str]:
    """The same files in a bucket of a moto server; the address of the bucket."""
    from pyarrow import fs

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with moto_server(port) as address, pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "testing-key")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret-0815")
        environment.setenv("AWS_ENDPOINT_URL", address)
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        store, _ = fs.FileSystem.from_uri(
            f"s3://x/?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
        )
        store.create_dir("music")
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            with store.open_output_stream(f"music/{path.relative_to(folder)}", compression=None) as out:
                out.write(path.read_bytes())
        yield "s3://music"


@pytest.fixture(scope="module")
def google(folder: Path) -> Iterator[tuple[str, str]]:
    """The same files in a bucket of a simulated Google Cloud Storage; what is before and after the name of a file in an address."""
    from pyarrow import fs

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with google_server(port) as address:
        made = urllib.request.Request(
            f"{address}/storage/v1/b?project=p", b'{"name": "music"}', {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(made).close()
        before, after = "gs://anonymous@music", f"?scheme=http&endpoint_override=127.0.0.1:{port}"
        store, _ = fs.FileSystem.from_uri(before + after)
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            with store.open_output_stream(f"music/{path.relative_to(folder)}", compression=None) as out:
                out.write(path.read_bytes())
        yield f"{before}/", after


@pytest.mark.parametrize("name", ["all.parquet", "all.csv.gz", "parts", "parts/part-*.parquet"])
def test_google_cloud_storage(folder: Path, google: tuple[str, str], name: str, tmp_path: Path) -> None:
    before, after = google
    path = f"{before}{name}{after}"
    pd.testing.assert_frame_equal(table_of(path), table_of(f"{folder}/{name}"))
    with Scratch(tmp_path) as scratch:
        data = DataConfig(path=path, preset="tracks")
        table = read_streamed(data, CleanConfig(), PandasFrames(), scratch, batch_rows=700)
        local = read(DataConfig(path=f"{folder}/{name}", preset="tracks"), PandasFrames())
        pd.testing.assert_frame_equal(table.frame.to_pandas(), clean(local, CleanConfig(), PandasFrames()).frame)


def table_of(path: str) -> pd.DataFrame:
    return read(DataConfig(path=path, preset="tracks"), PandasFrames()).frame


@pytest.mark.parametrize(
    "name", ["all.parquet", "all.csv", "all.csv.gz", "all.feather", "parts", "parts/part-*.parquet"]
)
def test_a_store_gives_the_table_of_the_local_file(folder: Path, s3: str, name: str) -> None:
    pd.testing.assert_frame_equal(table_of(f"{s3}/{name}"), table_of(f"{folder}/{name}"))


@pytest.mark.parametrize("name", ["all.parquet", "all.csv.gz", "all.feather", "parts"])
def test_a_store_is_read_in_batches(folder: Path, s3: str, name: str, tmp_path: Path) -> None:
    with Scratch(tmp_path) as scratch:
        data = DataConfig(path=f"{s3}/{name}", preset="tracks")
        table = read_streamed(data, CleanConfig(), PandasFrames(), scratch, batch_rows=700)
        local = read(DataConfig(path=f"{folder}/{name}", preset="tracks"), PandasFrames())
        pd.testing.assert_frame_equal(table.frame.to_pandas(), clean(local, CleanConfig(), PandasFrames()).frame)


@pytest.mark.parametrize("name", ["all.parquet", "all.csv", "parts/part-*.parquet"])
def test_a_query_of_a_store(folder: Path, s3: str, name: str) -> None:
    pytest.importorskip("duckdb", reason="needs gpuclust[duckdb]")
    data = DataConfig(query=f"select * from '{s3}/{name}'", preset="tracks")
    pd.testing.assert_frame_equal(read(data, PandasFrames()).frame, table_of(f"{folder}/all.parquet"))
    with pytest.raises(DataError, match=r"s3://music/none\.parquet does not exist; check the address"):
        fingerprint(DataConfig(query=f"select * from '{s3}/none.parquet'"))


def test_a_delta_table_of_a_store(s3: str) -> None:
    pytest.importorskip("duckdb", reason="needs gpuclust[duckdb]")
    lake = pytest.importorskip("deltalake", reason="needs gpuclust[lakehouse]")
    rows, address = pa.table({"id": ["a", "b", "c", "d"], "x": [1.0, 2.0, 3.0, 4.0]}), f"{s3}/delta"
    lake.write_deltalake(address, rows, storage_options={"allow_http": "true"})
    lake.DeltaTable(address, storage_options={"allow_http": "true"}).delete("id = 'b'")
    found = read(DataConfig(query=f"from delta_scan('{address}') where x < 4 order by id"), PandasFrames()).frame
    assert found["x"].tolist() == [1.0, 3.0]
    with pytest.raises(
        DataError, match=r"is a Delta table; read it with data\.query=\"from delta_scan\('s3://music/delta'\)"
    ):
        find_files(address)
    with pytest.raises(DataError) as caught:
        read(DataConfig(query=f"from delta_scan('{s3}/none')"), PandasFrames())
    assert "\n" not in str(caught.value)


def test_labels_are_those_of_the_local_file(folder: Path, s3: str) -> None:
    here, there = (
        gc.fit(f"{place}/all.parquet", gc.KMeans(n_clusters=4, n_init=1), tracking=None, progress=False)
        for place in (folder, s3)
    )
    np.testing.assert_array_equal(here.labels_, there.labels_)
    assert here.metrics["silhouette"] == there.metrics["silhouette"]


def test_lists_of_paths(folder: Path, s3: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A list keeps its order, may mix places, and is one text in the configuration."""
    paths = [f"{folder}/parts/part-2.parquet", f"{s3}/parts/part-0.parquet"]
    config = compose([f"data.path=[{','.join(paths)}]"])
    assert split_paths(config.data.path) == paths
    assert short_name(config.data.path) == "part-2.parquet and 1 more"
    whole = table_of(f"{folder}/all.parquet")
    expected = pd.concat([whole[2000:], whole[:1000]], ignore_index=True)
    pd.testing.assert_frame_equal(table_of(config.data.path), expected)
    run = gc.fit(paths, gc.KMeans(n_clusters=2, n_init=1), tracking=None, progress=False)
    assert len(run.labels_) == 2000
    assert main(["--cfg", f"data.path=[{','.join(paths)}]"]) == 0
    assert "part-2.parquet" in capsys.readouterr().out
    with pytest.raises(DataError, match="is not a list of paths"):
        find_files("[]")


def test_local_patterns(folder: Path, tmp_path: Path) -> None:
    assert len(find_files(f"{folder}/parts/part-[01].parquet").paths) == 2
    assert len(find_files(f"{folder}/**/part-*.parquet").paths) == 3
    with pytest.raises(DataError, match="matches no file; check the pattern"):
        find_files(f"{folder}/none-*.parquet")
    odd = tmp_path / "a[1].csv"
    odd.write_text("x,y\n1,2\n3,4\n")
    assert find_files(str(odd)).paths == (odd,)


def test_fingerprints(folder: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fingerprint is the same at each look, without reading the file, and another when the content is another."""
    config = DataConfig(path=f"{s3}/all.parquet")
    first = fingerprint(config)
    assert len(first) == 64
    remote._listings.clear()
    assert fingerprint(config) == first
    store, path = remote.open_store(config.path)
    other = pq.read_table(folder / "all.parquet").slice(0, ROWS - 1)
    with store.open_output_stream(path) as out:
        pq.write_table(other, out)
    remote._listings.clear()
    changed = fingerprint(config)
    with store.open_output_stream(path) as out:
        out.write((folder / "all.parquet").read_bytes())
    remote._listings.clear()
    assert changed != first
    assert fingerprint(DataConfig(path=f"{s3}/all.csv")) != fingerprint(DataConfig(path=f"{s3}/all.csv.gz"))
    assert fingerprint(DataConfig(path=f"{s3}/parts")) == fingerprint(DataConfig(path=f"{s3}/parts/*.parquet"))


def test_the_other_columns_are_read_again(s3: str, folder: Path) -> None:
    found = []
    for place in (s3, folder):
        data = DataConfig(path=f"{place}/all.parquet", features=["energy", "tempo"])
        found.append(other_columns(read(data, PandasFrames()), data, PandasFrames()))
    assert found[0].num_columns > 10
    assert found[0].equals(found[1])


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("name", ["all.parquet", "all.csv.gz"])
def test_web_addresses(folder: Path, ranges: bool, name: str) -> None:
    """A server with ranges is asked for parts; a file of one without ranges is downloaded once."""
    with web_server(folder, ranges=ranges) as (address, seen):
        pd.testing.assert_frame_equal(table_of(f"{address}/{name}"), table_of(f"{folder}/{name}"))
        assert short_name(f"{address}/{name}?sig=1") == name
        whole = [request for request in seen if request == f"GET /{name}"]
        assert len(whole) == (0 if ranges else 1)
        with pytest.raises(DataError, match=r"none-401.csv does not exist; check the address"):
            find_files(f"{address}/none-401.csv")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("s3://music/none.parquet", "does not exist; check the address"),
        ("s3://music/none-*.parquet", "matches no file; check the pattern"),
        ("s3://nowhere-at-all/a.parquet", r"does not exist|bucket that does not exist"),
        ("s3://music?endpoint_override=127.0.0.1:9&scheme=http&region=x", "cannot be reached; check the network"),
        ("http://127.0.0.1:9/a.csv", "cannot be reached; check the network"),
    ],
)
def test_what_cannot_be_read_is_one_line(s3: str, path: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        find_files(path)
    assert "\n" not in str(caught.value)
    assert path.partition("?")[0] in str(caught.value)


def test_secrets_of_an_address_are_hidden(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GpuclustError) as caught:
        find_files("http://user:pass-word-4711@127.0.0.1:9/a.csv?sig=abcdefghij")
    assert "pass-word-4711" not in str(caught.value)
    assert "abcdefghij" not in str(caught.value)


def test_the_command_line(s3: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """run, describe, export and predict with addresses."""
    monkeypatch.chdir(tmp_path)
    assert main(["describe", f"{s3}/all.csv"]) == 0
    assert "3,000 rows" in capsys.readouterr().out
    assert main([f"data.path={s3}/parts/part-*.parquet", "cluster.n_clusters=3", "report=none", "backend=cpu"]) == 0
    assert main(["export", "best", "--out", "out"]) == 0
    assert main(["predict", "out", f"{s3}/all.parquet", "--out", "rows.parquet", "--max-outside", "1"]) == 0
    labels = pq.read_table("rows.parquet")["cluster"].to_numpy()
    np.testing.assert_array_equal(labels, pq.read_table("out/assignments.parquet")["cluster"].to_numpy())
    _exports_in_a_store(s3, monkeypatch, tmp_path, capsys, labels)


@pytest.mark.parametrize(
    ("manifest", "left"),
    [
        (b'{"sha256": {"model/old.npz": "0", "gone": "0"}}', {"notes.txt", "model/mine.npz"}),
        (b'{"sha256": {"../../all.csv": "0", "notes.txt": "0"}}', {"notes.txt", "model/mine.npz", "model/old.npz"}),
        (b"no JSON", {"notes.txt", "model/mine.npz", "model/old.npz"}),
        (None, {"notes.txt", "model/mine.npz", "model/old.npz"}),
    ],
)
def test_an_export_replaces_the_files_of_an_earlier_export_and_no_others(
    s3: str, tmp_path: Path, manifest: bytes | None, left: set[str]
) -> None:
    there = f"{s3}/shared-{len(manifest or b'')}"
    store, root = remote.open_store(there)
    files = dict.fromkeys(("notes.txt", "model/mine.npz", "model/old.npz", "model/new.npz"), b"before")
    for name, content in (files | ({} if manifest is None else {"manifest.json": manifest})).items():
        with store.open_output_stream(f"{root}/{name}", compression=None) as out:
            out.write(content)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "new.npz").write_bytes(b"after")
    (tmp_path / "manifest.json").write_text('{"sha256": {"model/new.npz": "0"}}')
    with pytest.raises(ExportError, match=r"exists; name another --out, or replace it with --force"):
        remote_folders.refuse_existing(there, force=False)
    remote_folders.upload(tmp_path, there)
    assert set(remote_folders._names(there, "read")) == {"model/new.npz", "manifest.json"} | left
    with store.open_input_stream(f"{root}/model/new.npz") as file:
        assert file.read() == b"after"


def _exports_in_a_store(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: np.ndarray
) -> None:
    """The export of the last run is written into the store, refused where one is, replaced, read by predict and in Python."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    there = f"{s3}/exports/mine"
    store, root = remote.open_store(there)
    assert main(["export", "best", "--out", there]) == 0
    capsys.readouterr()
    assert main(["export", "best", "--out", there]) == 2
    assert f"{there} exists; name another --out, or replace it with --force" in capsys.readouterr().err
    assert main(["export", "best", "--out", there, "--force", "--html"]) == 0
    files = {p.relative_to("out").as_posix() for p in Path("out").rglob("*") if p.is_file()}
    assert set(remote_folders._names(there, "read")) == files | {"report.html"}
    assert main(["predict", there, f"{s3}/all.parquet", "--out", "again.parquet", "--max-outside", "1"]) == 0
    np.testing.assert_array_equal(labels, pq.read_table("again.parquet")["cluster"].to_numpy())
    assert len(gc.open_export(there)) == ROWS
    again = gc.load_model(there).predict(pq.read_table("again.parquet").to_pandas())
    np.testing.assert_array_equal(again["cluster"], labels)
    with pytest.raises(ExportError, match=r"is not an export: it has no manifest.json"):
        gc.open_export(f"{s3}/parts")
    with store.open_output_stream(f"{root}/manifest.json") as out:
        out.write(b'{"sha256": {"../../escaped": "0"}}')
    with pytest.raises(ExportError, match=r"names the file '../../escaped' outside the folder"):
        gc.open_export(there)
