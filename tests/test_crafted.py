"""Exports from anybody: each ends in one clear line on the terminal, and in an answer of the API; nothing hangs, none runs away."""

import asyncio
import json
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from gpuclust.cli import main
from gpuclust.errors import ExportError, GpuclustError
from gpuclust.serve.api import create_app
from gpuclust.serve.library import Library
from tests.crafted import CASES, FILES
from tests.exporting import made_export, sealed, tracks

SECONDS = 60  # for each case
MEMORY = 1 << 30  # bytes that all of them together may add
SAMPLE = sorted(CASES)[::17]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """An export with its index."""
    folder = made_export(tracks(200), tmp_path_factory.mktemp("crafted"), store_template)
    Library.open(folder).close()
    return folder


@pytest.fixture
def folder(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(honest, tmp_path / "out"))


@contextmanager
def in_time() -> Iterator[None]:
    """Raises TimeoutError when the block hangs."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it took longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def damaged(folder: Path, case: str) -> None:
    if not case.startswith("index"):  # whoever unpacks an export has no index yet
        shutil.rmtree(folder / ".index")
    CASES[case](folder)


def typed(capsys: pytest.CaptureFixture[str], *arguments: Any) -> int:
    """The exit status of a command, after looking at what it printed: one line where it did not work."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert status in (0, 1, 2, 3), arguments
    if status in (1, 2):
        (line,) = said.err.splitlines()
        assert line.startswith("gpuclust: ")
        assert line.isprintable(), repr(line)
        assert "Traceback" not in line
    return status


class Client:
    """Asks an application in this process; an exception in it is a 500."""

    def __init__(self, app: Any) -> None:
        self.app, self.runner = app, asyncio.Runner()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.runner.run(self.client.aclose())
        self.runner.close()
        self.app.state.library.close()

    def get(self, path: str) -> httpx.Response:
        return self.runner.run(self.client.get(path))

    def post(self, path: str, json: Any) -> httpx.Response:
        return self.runner.run(self.client.post(path, json=json))


def walk(client: Client) -> None:
    """Ask for everything there is: nothing is a 500."""
    api = "/api/v1"
    asked = ["/health", "/export", "/clusters", "/search?q=hello", "/search?q=love%20x&limit=3", "/openapi.json"]
    asked += [f"/averages/{by}" for by in ("year", "group", "creator")]
    clusters = client.get(f"{api}/clusters").json().get("clusters", [])
    for cluster in [c["cluster"] for c in clusters[:4]]:
        asked += [f"/clusters/{cluster}", f"/clusters/{cluster}/items?pick=central", f"/clusters/{cluster}/averages/year",
                  f"/clusters/{cluster}/playlist?format=csv"]  # fmt: skip
        for item in client.get(f"{api}/clusters/{cluster}/items?limit=2").json().get("items", []):
            at = f"/items/{quote(item['id'], safe='')}"
            asked += [at, f"{at}/similar", f"{at}/playlist?format=json"]
    for path in asked:
        answer = client.get(api + path)
        assert answer.status_code < 500, (path, answer.text[:500])
        assert answer.headers["content-type"]
    rows = client.get(f"{api}/openapi.json").json()["components"]["schemas"]["Rows"].get("example")
    assert client.post(f"{api}/predict", json=rows).status_code < 500


def check(folder: Path, case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged(folder, case)
    scored = tmp_path / "scored.parquet"
    with in_time():
        status = typed(capsys, "playlist", folder, "--cluster", "0", "--size", "3")
        typed(capsys, "predict", folder, tmp_path / "rows.csv", "--out", scored)
        try:
            app = create_app(folder)
        except GpuclustError as refusal:
            refused = refusal
        else:
            refused = None
        if refused is not None:
            assert status == 2
            assert len(str(refused).splitlines()) == 1
            return
        with Client(app) as client:
            walk(client)


@pytest.fixture(autouse=True)
def rows(tmp_path: Path) -> None:
    tracks(5).to_csv(tmp_path / "rows.csv", index=False)


def test_there_are_many_cases_of_every_kind() -> None:
    assert len(CASES) >= 700
    for part in (*FILES, "index", "roles", "features", "fifo", "link", "bytes changed", "one long text"):
        assert any(part in case for case in CASES), part


@pytest.mark.parametrize("case", SAMPLE)
def test_a_sample_of_crafted_exports(
    case: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(folder, case, tmp_path, capsys)


@pytest.mark.campaign
@pytest.mark.parametrize("case", sorted(set(CASES) - set(SAMPLE)))
def test_all_crafted_exports(case: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(folder, case, tmp_path, capsys)


REFUSED = [
    "manifest roles list", "manifest roles.id list of lists", "manifest features text", "manifest features twice", "manifest format is 2",
    "manifest text deep", "manifest text large", "manifest digests of another file", "manifest without sha256", "manifest.json fifo",
    "manifest.json link outside", "assignments.parquet fifo", "assignments.parquet link to a device", "assignments.parquet link outside",
    "clusters.parquet link to itself", "model link outside", "assignments.parquet without cluster", "assignments.parquet energy of texts",
    "assignments.parquet energy twice", "assignments.parquet cluster of vast numbers", "assignments.parquet cluster unknown",
    "assignments.parquet title of structs", "assignments.parquet title of bad utf-8", "assignments.parquet fewer rows",
    "clusters.parquet name of structs", "clusters.parquet size is '-1'", "clusters.parquet the same row twice",
    "clusters.parquet shares of numbers", "clusters.parquet cluster of texts",
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged(folder, case)
    with in_time():
        assert typed(capsys, "playlist", folder, "--cluster", "0") == 2
        assert typed(capsys, "serve", folder, "--port", "0") == 2
        assert typed(capsys, "explore", folder, "--port", "0", "--no-browser") == 2


@pytest.mark.parametrize("file", ["assignments.parquet", "clusters.parquet"])
@pytest.mark.parametrize("size", ["millions of equal rows", "one long text"])
def test_small_files_that_unpack_to_much_are_refused_before_they_are_read(size: str, file: str, folder: Path) -> None:
    damaged(folder, f"{file} {size}")
    assert (folder / file).stat().st_size < 4 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with in_time(), pytest.raises(ExportError, match="export it again"):
        Library.open(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY >> 10


def test_a_link_in_place_of_the_index_is_not_followed(folder: Path) -> None:
    damaged(folder, "index link to a folder of others")
    Library.open(folder).close()
    others = folder.parent / "others"
    assert [str(path.relative_to(others)) for path in sorted(others.rglob("*"))] == ["work", "work/thesis.txt"]


def test_a_changed_file_is_noticed_though_an_index_is_there(folder: Path) -> None:
    path = folder / "assignments.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"was changed since its export \(assignments.parquet\)"):
        Library.open(folder)


def test_the_digest_of_the_rows_is_computed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy has other times: its digest is computed, and remembered."""
    hashed: list[str] = []
    from gpuclust.model import manifest
    from gpuclust.serve.index import locate

    monkeypatch.setattr(locate, "verify", lambda file, of, name: (hashed.append(name), manifest.verify(file, of, name)))
    os.utime(folder / "assignments.parquet")
    for _ in range(3):
        Library.open(folder).close()
    assert hashed == ["assignments.parquet"]


def test_an_honest_export_passes_every_check(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sealed(folder)
    for case in ("manifest algorithm text", "manifest without warnings"):  # what need not be there
        CASES[case](folder)
    with Client(create_app(folder)) as client:
        walk(client)
        assert client.get("/api/v1/clusters").status_code == 200
    assert typed(capsys, "predict", folder, tmp_path / "rows.csv", "--out", tmp_path / "s.parquet") in (0, 3)
    assert json.loads((folder / "manifest.json").read_text())["format"] == 1
    assert np.isfinite(Library.open(folder).column("x")).all()
