"""The command line as a user meets it: each kind of wrong input is one line and exit status 2, and nothing is left."""

import gzip
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gpuclust.cli import COMMANDS, main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_template: Path) -> Path:
    """An empty folder to work in, with a store beside it."""
    monkeypatch.delenv("GPUCLUST_DEBUG", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    (tmp_path / "mlflow.db").write_bytes(store_template.read_bytes())
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def table(path: Path, n: int = 60) -> Path:
    rng = np.random.default_rng(0)
    pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n), "t": "text"}).to_csv(path, index=False)
    return path


def test_a_job_from_a_file_ends_in_a_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(here / "t.csv")
    assert main(["data=table", "data.path=t.csv", "cluster.n_clusters=3"]) == 0
    out = capsys.readouterr().out
    assert "gpuclust export" in out
    assert "gpuclust ui" in out


WRONG = {
    "missing file": (["data=table", "data.path=none.csv"], "does not exist"),
    "a near name": (["data=table", "data.path=tabel.csv"], "table.csv"),
    "empty file": (["data=table", "data.path=empty.csv"], "empty"),
    "binary junk": (["data=table", "data.path=junk.csv"], "junk.csv"),
    "corrupt Parquet": (["data=table", "data.path=bad.parquet"], "bad.parquet"),
    "corrupt gzip": (["data=table", "data.path=bad.csv.gz"], "bad.csv.gz"),
    "no numeric column": (["data=table", "data.path=text.csv"], "no numeric"),
    "unknown column": (["data=table", "data.path=table.csv", "data.features=[aa,b]"], "aa"),
    "all rows cleaned away": (["data=table", "data.path=table.csv", "clean.bounds.a=[100,null]"], "cleaning left none"),
    "a mistyped key": (["cluster.n_cluster=3"], "did you mean cluster.n_clusters"),
    "a mistyped choice": (["cluster=kmean"], "did you mean kmeans"),
    "a mistyped command": (["exprt", "best"], "did you mean export"),
    "a range": (["cluster.n_clusters=1"], "outside [2, inf)"),
    "no path": (["data=table"], "data.path is missing"),
    "a GPU that is not there": (["backend=gpu"], "backend=gpu cannot run here"),
    "an unreachable server": (["data.n_rows=100", "tracking.uri=http://127.0.0.1:9"], "cannot be used"),
    "a folder": (["data=table", "data.path=folder"], "folder"),
    "too many components": (["data.n_rows=100", "reduce=pca", "reduce.n_components=11"], "reduce.n_components=11"),
    "no store": (["export", "best", "--out", "o", "--uri", "sqlite:///none.db"], "no tracking store"),
    "no run": (["export", "best", "--out", "o"], "no experiment gpuclust"),
    "no metric": (["export", "best", "--out", "o", "--metric", "silhouete"], "did you mean silhouette"),
    "no model": (["predict", "folder", "table.csv", "--out", "o.parquet"], "holds no model"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_and_leaves_nothing(case: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(here / "table.csv")
    (here / "folder").mkdir()
    (here / "empty.csv").touch()
    (here / "junk.csv").write_bytes(np.random.default_rng(0).bytes(5000))
    (here / "bad.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    (here / "bad.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n" * 1000)[:25])
    (here / "text.csv").write_text("x,y\nred,blue\ngreen,white\n")
    before = sorted(p.name for p in here.iterdir())
    arguments, said = WRONG[case]
    assert main(arguments) == 2
    err = capsys.readouterr().err
    (line,) = [text for text in err.splitlines() if text.startswith("gpuclust: ")]
    assert said in line
    assert "Traceback" not in err
    assert sorted(p.name for p in here.iterdir()) == before


def test_more_clusters_than_rows_is_a_failed_job(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(here / "t.csv")
    assert main(["-m", "data=table", "data.path=t.csv", "cluster.n_clusters=2,61,3"]) == 1
    captured = capsys.readouterr()
    assert "61 is more than the 60" in captured.err
    assert "1 of 3 jobs failed" in captured.out


def test_debug_shows_the_traceback(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUCLUST_DEBUG", "1")
    assert main(["data=table", "data.path=none.csv"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpuclust import artifacts

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "leaderboard.csv")

    monkeypatch.setattr(artifacts, "leaderboard_csv", full)
    assert main(["-m", "data.n_rows=300", "cluster.n_clusters=2,3", "report=none"]) == 2
    assert (
        "No space left on device leaderboard.csv; check that it exists, is writable, and has space"
        in capsys.readouterr().err
    )


def test_cfg_prints_what_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    from gpuclust.compose import compose, from_yaml

    assert main(["--cfg", "cluster=gmm", "seed=4"]) == 0
    assert from_yaml(capsys.readouterr().out) == compose(["cluster=gmm", "seed=4"])


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main([command, "--help"])
    assert leave.value.code == 0
    assert f"gpuclust {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("gpuclust exp", ["experiments=", "export"]),
        ("gpuclust run cluster=", ["cluster=gmm", "cluster=hdbscan", "cluster=kmeans"]),
        ("gpuclust cluster=gmm cluster.cov", ["cluster.covariance_type="]),
        ("gpuclust scale=m", ["scale=minmax"]),
    ],
)
def test_tab_completion(line: str, expected: list[str]) -> None:
    environment = os.environ | {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    command = [sys.executable, "-m", "gpuclust", "-sc", "query=bash"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert [word for word in expected if word not in done.stdout.split()] == [], done.stdout + done.stderr
    assert "schema" not in done.stdout


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)])
def test_an_interrupted_sweep_goes_on_where_it_was(here: Path, sent: int, status: int) -> None:
    command = [sys.executable, "-m", "gpuclust", "-m", "data.n_rows=10000", "cluster.n_clusters=range(2,9)",
               "cluster.engine=library", "score=none", "report=none"]  # fmt: skip
    store = sqlite3.connect(here.parent / "mlflow.db")

    def states() -> dict[str, int]:
        query = "select status, count(*) from runs where name like 'kmeans k%' group by status"
        return dict(store.execute(query).fetchall())

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 300
        while states().get("FINISHED", 0) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(sent)
        process.communicate(timeout=300)
    assert process.returncode == status
    finished = states()["FINISHED"]
    assert finished < 7
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("kept") == finished
    assert again.stderr.count("done") == 7 - finished
    assert dict(store.execute("select status, count(*) from runs group by status").fetchall()).keys() <= {
        "FINISHED",
        "KILLED",
    }
    (parents,) = store.execute("select count(*) from runs where name like '%sweep%'").fetchone()
    assert parents == 1
    store.close()
