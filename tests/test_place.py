"""Addresses of stores: what each stands for, and which are refused in one line before anything waits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpuclust.errors import StoreUnavailable, TrackingError
from gpuclust.tracking.mlflow import MlflowRecorder
from gpuclust.tracking.store_location import resolve_uri, shown, store_file, translated

ODD = ["what?", "50%20off", "a#b", "it's", 'say "so"', "both ' and \"", "tab\there", "ünï çödé", "new\nline"]


@pytest.mark.parametrize("name", ODD)
def test_any_folder_name_stands_for_itself(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    here = tmp_path / name
    here.mkdir()
    uri, artifacts = resolve_uri(None, here)
    assert store_file(uri) == here / "gpuclust-runs" / "mlflow.db"
    assert artifacts is not None
    assert resolve_uri(uri, tmp_path) == (uri, artifacts), "the address that is shown can be given back"
    assert store_file(resolve_uri(f"sqlite:///{here}/x.db")[0]) == here / "x.db"
    assert shown(uri) == str(here / "gpuclust-runs" / "mlflow.db")


def test_escapes_and_options_are_those_of_an_address_where_no_such_folder_is(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    assert store_file(resolve_uri(f"sqlite:///{tmp_path}/a%20b/x.db")[0]) == tmp_path / "a b" / "x.db"
    uri, _ = resolve_uri(f"sqlite:///{tmp_path}/x.db?timeout=5")
    assert store_file(uri) == tmp_path / "x.db"
    assert uri.endswith("x.db?timeout=5")


def test_a_folder_that_mlflow_cannot_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="needs a path in UTF-8"):
        resolve_uri("sqlite:///x.db", tmp_path / os.fsdecode(b"caf\xe9"))


REFUSED = {
    "sqlite:///": "names no file",
    "sqlite://": "names no file",
    "sqlite:///:memory:": "names no file",
    "sqlite:///{here}": "is a folder; name a file in it",
    "{here}/mlruns": "no longer writes file stores; use sqlite:///{here}/mlruns/mlflow.db",
    "file://{here}/mlruns": "no longer writes file stores; use sqlite:///{here}/mlruns/mlflow.db",
    "mlruns": "no longer writes file stores; use sqlite:////",
    "http://127.0.0.1:99999": "is not an address",
    "http://127.0.0.1:x": "is not an address",
    "http://[::1": "is not an address",
    "http://": "names no host",
    "http://:5000": "names no host",
    "gopher://127.0.0.1": "has no scheme that MLflow supports",
    "postgres://u@h:port/db": "cannot be read",
    "postgresql://u@h:port/db": "cannot be read",
    "mysql://u:secret@127.0.0.1/db": "pip install mysqlclient, or PyMySQL",
    "postgresql+psycopg2://u:secret@127.0.0.1/db": "pip install psycopg2",
    "mssql://u:secret@127.0.0.1/db": "pip install pyodbc",
}


@pytest.mark.parametrize("uri", REFUSED)
def test_an_address_that_cannot_be_is_refused_at_once(uri: str, tmp_path: Path) -> None:
    with pytest.raises(TrackingError) as error:
        MlflowRecorder(uri.format(here=tmp_path), "e")
    assert REFUSED[uri].format(here=tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(28, "No space left on device", "/x"), TrackingError, "no space left"),
        (RuntimeError("(sqlite3.OperationalError) database or disk is full\n[SQL: INSERT]"), TrackingError, "no space left"),
        (ConnectionRefusedError(111, "Connection refused"), StoreUnavailable, "does not answer"),
        (RuntimeError("API request failed with exception HTTPConnectionPool: Max retries exceeded"), StoreUnavailable, "not answer"),
        (RuntimeError("API request to endpoint failed with error code 401 != 200"), TrackingError, "MLFLOW_TRACKING_USERNAME"),
        (RuntimeError("(sqlite3.OperationalError) database is locked"), StoreUnavailable, "locked"),
        (ValueError("something else"), TrackingError, "cannot be used: something else"),
    ],
)  # fmt: skip
def test_an_error_of_the_store_says_what_and_where_in_one_line(error: Exception, kind: type, words: str) -> None:
    found = translated(error, "sqlite:////somewhere/mlflow.db")
    assert type(found) is kind
    assert words in str(found)
    assert "/somewhere/mlflow.db" in str(found)
    assert "\n" not in str(found)


def test_a_sweep_and_its_export_work_in_a_folder_with_any_name(tmp_path: Path, store_template: Path) -> None:
    here = tmp_path / "what? 50%20 #1 'a' \"b\" café"
    (here / "gpuclust-runs").mkdir(parents=True)
    (here / "gpuclust-runs" / "mlflow.db").write_bytes(store_template.read_bytes())
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}

    def gpuclust(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gpuclust", *arguments]
        return subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=300)

    ran = gpuclust("-m", "data=catalogue", "data.n_rows=300", "cluster.n_clusters=2,3", "report=none")
    assert ran.returncode == 0, ran.stderr
    exported = gpuclust("export", "best", "--out", "out")
    assert exported.returncode == 0, exported.stderr
    assert (here / "out" / "assignments.parquet").is_file()
    assert sorted(p.name for p in here.iterdir()) == ["gpuclust-runs", "out"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [here.name]
    assert list((here / "gpuclust-runs" / "artifacts").rglob("config.yaml"))
