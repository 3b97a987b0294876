"""The creation of a store: a kill, a full disk or another process never leaves one that cannot be used."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy

from gpuclust.errors import TrackingError
from gpuclust.tracking.mlflow import MlflowRecorder
from gpuclust.tracking.opening import inspect
from gpuclust.tracking.recorder import FINISHED, KEY, KIND, RunStart
from tests.killing import killed_creations

# The tables of MLflow 2.9, whose runs a later MLflow must migrate.
OLD_REVISION = "acf3f17fdcc7"


def with_a_run(path: Path, template: Path) -> str:
    """A copy of a store with one finished run; the run's id."""
    shutil.copy(template, path)
    recorder = MlflowRecorder(f"sqlite:///{path}", "e")
    run_id = recorder.start_job(RunStart("a job", {KIND: "job", KEY: "k"}), None)
    recorder.end(run_id, FINISHED)
    recorder.client._tracking_client.store._dispose_engine()
    return run_id


def old_store(path: Path) -> None:
    """A store with the tables of an older MLflow, and one run in it."""
    from alembic import command
    from mlflow.store.db.utils import InitialBase, _get_alembic_config

    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    InitialBase.metadata.create_all(engine)
    config = _get_alembic_config(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, OLD_REVISION)
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) "
                "VALUES (0, 'Default', '/a/0', 'active'), (1, 'e', '/a/1', 'active')"
            )
        )
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO runs (run_uuid, name, status, start_time, lifecycle_stage, artifact_uri, user_id, experiment_id) "
                "VALUES ('r1', 'an old run', 'FINISHED', 1, 'active', '/a/1/r1', 'me', 1)"
            )
        )
    engine.dispose()


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def test_a_kill_at_any_moment_of_the_creation_leaves_no_store_or_a_whole_one(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    said = killed_creations("gpuclust", uri, [3, 200, 600, 1000])
    assert said == ["killed"] * 4
    assert not (tmp_path / "mlflow.db").exists()
    assert killed_creations("gpuclust", uri, [10**9]) == ["ended 0"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".mlflow.lock", "mlflow.db"]
    assert inspect(tmp_path / "mlflow.db").ready


@pytest.mark.parametrize("moment", [200, 700])
def test_a_store_that_mlflow_left_incomplete_is_made_anew(moment: int, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    assert killed_creations("mlflow", f"sqlite:///{path}", [moment]) == ["killed"]
    assert not inspect(path).ready
    said: list[str] = []
    with pytest.raises(TrackingError, match="left incomplete and holds no runs; run a job first"):
        MlflowRecorder(f"sqlite:///{path}", "e", create=False)
    recorder = MlflowRecorder(f"sqlite:///{path}", "e", report=said.append)
    assert said == [f"the tracking store {path} was left incomplete and holds no runs: it is created again"]
    recorder.end(recorder.start_job(RunStart("a job", {KIND: "job", KEY: "k"}), None), FINISHED)
    assert inspect(path).ready


def test_an_old_store_is_migrated_as_a_copy_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    old_store(path)
    before = path.read_bytes()
    assert killed_creations("gpuclust", f"sqlite:///{path}", [60]) == ["killed"]
    assert path.read_bytes() == before, "a kill during the migration leaves the old store as it was"
    said: list[str] = []
    recorder = MlflowRecorder(f"sqlite:///{path}", "e", report=said.append)
    assert [run.info.run_name for run in recorder.search("")] == ["an old run"]
    (kept,) = tmp_path.glob("mlflow.db.before-migration-*")
    assert kept.read_bytes() == before
    assert [f"kept as {kept.name}" in line for line in said] == [True]


def test_a_damaged_store_with_runs_is_kept_under_another_name(tmp_path: Path, store_template: Path) -> None:
    path = tmp_path / "mlflow.db"
    run_id = with_a_run(path, store_template)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE alembic_version SET version_num = ?", (OLD_REVISION,))
        db.commit()
    said: list[str] = []
    recorder = MlflowRecorder(f"sqlite:///{path}", "e", report=said.append)
    assert not list(recorder.search(""))
    (kept,) = tmp_path.glob("mlflow.db.damaged-*")
    assert rows(kept, "SELECT run_uuid FROM runs") == [(run_id,)]
    assert "is damaged" in said[0]
    assert kept.name in said[0]


def test_a_store_of_a_newer_mlflow_is_refused_and_not_touched(tmp_path: Path, store_template: Path) -> None:
    path = tmp_path / "mlflow.db"
    with_a_run(path, store_template)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
        db.commit()
    before = path.read_bytes()
    with pytest.raises(TrackingError, match="written by a newer MLflow"):
        MlflowRecorder(f"sqlite:///{path}", "e")
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("what I must not forget\n" * 100)
    with pytest.raises(TrackingError, match="cannot be used"):
        MlflowRecorder(f"sqlite:///{path}", "e")
    assert path.read_text() == "what I must not forget\n" * 100


def test_a_store_that_another_process_is_creating_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    code = (
        f"from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as S; S('sqlite:///{path}', 'artifacts')"
    )
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", code]) as other:
        while not (path.exists() and path.stat().st_size > 100_000):
            assert other.poll() is None
        said: list[str] = []
        MlflowRecorder(f"sqlite:///{path}", "e", report=said.append)
        assert said == []
    assert other.returncode == 0


def test_a_full_disk_during_the_creation_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gpuclust", "data.n_rows=300", "cluster.n_clusters=2", "report=none",
               f"tracking.uri=sqlite:///{tmp_path / 'mlflow.db'}"]  # fmt: skip
    limit = "import resource, os, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000,) * 2); os.execv(sys.argv[1], sys.argv[1:])"
    full = subprocess.run([sys.executable, "-c", limit, *command], capture_output=True, text=True, timeout=300)
    assert full.returncode == 2
    lines = [line for line in full.stderr.splitlines() if line.startswith("gpuclust: ")]
    assert len(lines) == 1
    assert str(tmp_path / "mlflow.db") in lines[0]
    assert "Traceback" not in full.stderr
    assert [p.name for p in tmp_path.iterdir()] == [".mlflow.lock"]
