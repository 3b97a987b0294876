"""Passwords and tokens of tracking stores: in no byte that a command leaves or prints, and commands work with them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from gpuclust import sanitize
from gpuclust.cli import main
from gpuclust.errors import TrackingError
from gpuclust.sanitize import mask, remember, without_credentials
from gpuclust.tracking.mlflow import MlflowRecorder
from tests.browser import free_port
from tests.leaks import leaks

PASSWORD = "s3cretPW"
ENCODED = "p%40ss%2Fw0rd"  # p@ss/w0rd


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitize, "_remembered", set())


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("http://alice:s3cretPW@127.0.0.1:5077", "http://***@127.0.0.1:5077"),
        ("https://ghp_token@tracking.example/x", "https://***@tracking.example/x"),
        ("https://token:@tracking.example", "https://***@tracking.example"),
        ("https://:token@tracking.example", "https://***@tracking.example"),
        ("postgresql://bob:pgSecret@db/runs", "postgresql://bob:***@db/runs"),
        ("postgresql+psycopg://bob:p%40ss%2Fw@db/runs", "postgresql+psycopg://bob:***@db/runs"),
        ("postgresql://bob:p/w@ss@db/runs", "postgresql://bob:***@db/runs"),
        ("postgresql://bob@db/runs", "postgresql://bob@db/runs"),
        ("mysql://db/runs?user=bob&password=x&ssl=1", "mysql://db/runs?user=bob&password=***&ssl=1"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dx%3B", "mssql+pyodbc:///?odbc_connect=***"),
        ("data.path=https://u:p@host/t.csv?X-Amz-Signature=ab", "data.path=https://***@host/t.csv?X-Amz-Signature=***"),
        ("/home/me/https:/u:p@host/t.csv", "/home/me/https:/***@host/t.csv"),
        ("s3://AKIA:secret@bucket/t.parquet", "s3://***@bucket/t.parquet"),
        ("Authorization: Bearer abc.def.ghi", "Authorization: Bearer ***"),
        ("two: 'http://a:b@h', 'http://c:d@i'", "two: 'http://***@h', 'http://***@i'"),
    ],
)
def test_what_mask_hides(written: str, shown: str) -> None:
    assert mask(written) == shown
    assert mask(shown) == shown, "masking twice changes nothing"


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/me@work/mlflow.db", "sqlite:///runs@x/mlflow.db", "http://127.0.0.1:5000/a@b", "me@example.org",
        "https://npm.example/package/@scope/name", "http://[::1]:80/@", "a/b@c", "x = 3; key = 4", "kmeans k=3", "mlflow",
    ],
)  # fmt: skip
def test_what_mask_leaves(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "mlflow")  # a common word cannot be hidden everywhere
    assert mask(text) == text


def test_mask_goes_through_lists_and_mappings() -> None:
    assert mask({"a": ["http://u:p@h", 3, None], "b": ("x", 0.5)}) == {"a": ["http://***@h", 3, None], "b": ("x", 0.5)}


def test_a_secret_is_hidden_apart_from_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(f"postgresql://bob:{ENCODED}@db/runs")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok-12345")
    for text in ("p@ss/w0rd", ENCODED, "tok-12345"):
        assert mask(f"no host {text} is known") == "no host *** is known"


def test_an_address_for_a_browser_has_no_credentials() -> None:
    assert without_credentials("http://alice:s3cretPW@127.0.0.1:5077/#/x") == "http://127.0.0.1:5077/#/x"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Iterator[int]:
    """A tracking server, whose folder is searched with the rest."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(store_template, folder / "server.db")
    number = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}",
        "--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(number), "--workers", "1",
    ]  # fmt: skip
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                urlopen(f"http://127.0.0.1:{number}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        yield number
        assert leaks(folder, [PASSWORD, ENCODED]) == []
    finally:
        process.terminate()
        process.wait(30)


def typed(folder: Path, *arguments: str, status: int = 0, **environment: str) -> str:
    """What a command printed. Its temporary files are kept in the folder, and its output beside them."""
    (folder / "tmp").mkdir(exist_ok=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_TRACKING")}
    done = subprocess.run(
        [sys.executable, "-m", "gpuclust", *arguments], cwd=folder, capture_output=True, text=True, timeout=600,
        env=clean | {"TMPDIR": str(folder / "tmp"), "GPUCLUST_DEBUG": "1" if status else ""} | environment,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    with (folder / "said.txt").open("a") as file:
        file.write(said)
    return said


def test_an_address_with_a_password(port: int, tmp_path: Path) -> None:
    uri = f"http://alice:{PASSWORD}@127.0.0.1:{port}"
    said = typed(
        tmp_path, "-m", "data=catalogue", "data.n_rows=300", "cluster.n_clusters=2,3,400", f"tracking.uri='{uri}'",
        "tracking.models=all", status=1,
    )  # fmt: skip
    assert f"export MLFLOW_TRACKING_URI='http://***@127.0.0.1:{port}'" in said
    assert f"http://127.0.0.1:{port}/#/experiments/" in said, "a page that a browser can open"
    assert "  gpuclust ui\n" in said, "the lines to type next need no address then"
    typed(tmp_path, "export", "best", "--uri", uri, "--out", "out")
    typed(tmp_path, "export", "0123", "--uri", uri, "--out", "other", status=2)
    typed(tmp_path, "ui", "--uri", uri)
    typed(tmp_path, "ui", "--urii", uri, status=2)
    typed(tmp_path, f"data.path={uri}/tracks.csv", "data=table", status=2)
    assert leaks(tmp_path, [PASSWORD]) == []


@pytest.mark.campaign
def test_an_address_from_the_environment(port: int, tmp_path: Path) -> None:
    uri = f"http://alice:{ENCODED}@127.0.0.1:{port}"
    said = typed(tmp_path, "data=catalogue", "data.n_rows=310", "cluster.n_clusters=2", MLFLOW_TRACKING_URI=uri)
    assert "  gpuclust ui\n" in said
    typed(tmp_path, "export", "best", "--out", "out", MLFLOW_TRACKING_URI=uri)
    typed(tmp_path, "doctor", MLFLOW_TRACKING_URI=uri)
    nobody = uri.replace(str(port), str(free_port()))
    assert "the tracking store http://***@" in typed(
        tmp_path, "export", "best", "--out", "x", status=2, MLFLOW_TRACKING_URI=nobody
    )
    assert leaks(tmp_path, [ENCODED]) == []


def test_a_password_apart_from_the_address(port: int, tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{port}"
    job = ["data=catalogue", "cluster.n_clusters=2", "report=none", "score=none"]
    typed(
        tmp_path,
        *job,
        "data.n_rows=320",
        f"tracking.uri={uri}",
        MLFLOW_TRACKING_USERNAME="alice",
        MLFLOW_TRACKING_PASSWORD=PASSWORD,
    )
    typed(tmp_path, *job, "data.n_rows=330", f"tracking.uri={uri}", MLFLOW_TRACKING_TOKEN=PASSWORD)
    (tmp_path.parent / "netrc").write_text(f"machine 127.0.0.1 login alice password {PASSWORD}\n")
    typed(tmp_path, *job, "data.n_rows=340", f"tracking.uri={uri}", NETRC=str(tmp_path.parent / "netrc"))
    assert leaks(tmp_path, [PASSWORD]) == []


@pytest.mark.parametrize(
    "uri",
    [
        f"postgresql://bob:{PASSWORD}@127.0.0.1:1/runs", f"postgresql://bob:{ENCODED}@127.0.0.1:1/runs",
        f"mysql://127.0.0.1:1/runs?password={PASSWORD}", f"http://bob:{PASSWORD}@127.0.0.1:1",
        f"http://bob:{PASSWORD}@127.0.0.1:99999", f"nosuchscheme://bob:{PASSWORD}@127.0.0.1",
    ],
)  # fmt: skip
def test_errors_of_stores_that_are_not_there(uri: str) -> None:
    with pytest.raises(TrackingError) as raised:
        MlflowRecorder(uri)
    assert uri.partition(":")[0] in str(raised.value), "it names the store"
    for secret in (PASSWORD, ENCODED, "p@ss/w0rd"):
        assert secret not in str(raised.value)


def test_the_configuration_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", f"tracking.uri='http://alice:{PASSWORD}@127.0.0.1'"]) == 0
    assert "uri: http://***@127.0.0.1" in capsys.readouterr().out


def test_the_command_line_of_the_ui_does_not_name_the_store(uri: str, tmp_path: Path) -> None:
    """`ps` shows every user the command lines of a machine."""
    MlflowRecorder(uri, "shown")
    process = subprocess.Popen(
        [sys.executable, "-m", "gpuclust", "ui", "--uri", uri, "--experiment", "shown", "--port", str(free_port())],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert "#/experiments/" in address
        found = urlopen(f"{address.partition('#')[0]}api/2.0/mlflow/experiments/get-by-name?experiment_name=shown")
        assert found.status == 200, "the store that was named is served"
        below = commands_below(process.pid)
        assert any("mlflow" in command for command in below)
        assert not [command for command in below if uri in command]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def commands_below(pid: int) -> list[str]:
    """The command lines of the processes that a process has started, and of those that these have."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [
            Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(),
            *commands_below(int(child)),
        ]
    return found
