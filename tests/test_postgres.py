"""A real PostgreSQL as the store: first uses at once, identical sweeps at once, and a server that stops in between."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

from gpuclust.tracking.claims import HOST, LEASE
from gpuclust.tracking.mlflow import MlflowRecorder, resolve_uri
from gpuclust.tracking.recorder import FINISHED, KEY, KIND, RUNNING, RunStart
from tests.postgres import Postgres, running

SWEEP = ["-m", "data=catalogue", "data.n_rows=2000", "cluster.n_clusters=range(2,8)", "cluster.n_init=3", "report=none"]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with running(port) as server:
        yield server


def started(uri: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gpuclust", *arguments]
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@contextmanager
def serving(uri: str, port: int, folder: Path) -> Iterator[str]:
    """An MLflow server on a database, which passes files on."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "2",
               "--backend-store-uri", uri, "--artifacts-destination", str(folder / "artifacts")]  # fmt: skip
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 180
        while True:
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            assert server.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def statuses(uri: str) -> list[tuple[str, str]]:
    recorder = MlflowRecorder(uri)
    return sorted((run.data.tags["gpuclust.kind"], run.info.status) for run in recorder.search(""))


def test_first_uses_of_an_empty_database_at_once_do_not_collide(postgres: Postgres) -> None:
    uri = postgres.database()
    code = f"from gpuclust.tracking.mlflow import MlflowRecorder as R; print(R('{uri}', 'e').experiment_id)"
    several = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    ends = [process.communicate(timeout=300) for process in several]
    assert [process.returncode for process in several] == [0, 0, 0], ends
    assert len({out for out, _ in ends}) == 1


def test_a_first_use_that_is_killed_can_be_repeated(postgres: Postgres) -> None:
    uri = postgres.database()
    code = f"from gpuclust.tracking.mlflow import MlflowRecorder as R; R('{uri}', 'e')"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        import psycopg

        # Killed while the tables are made: after the first ones can be seen, before the last.
        with psycopg.connect(uri.replace("+psycopg", ""), autocommit=True) as connection:
            deadline = time.monotonic() + 120
            while not connection.execute("SELECT 1 FROM pg_tables WHERE tablename = 'runs'").fetchone():
                assert time.monotonic() < deadline
                time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert MlflowRecorder(uri, "e").experiment_id


def test_the_same_sweep_twice_at_once_does_each_job_once(postgres: Postgres) -> None:
    uri = postgres.database()
    both = [started(uri, *SWEEP) for _ in range(2)]
    ends = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert statuses(uri) == [("job", FINISHED)] * 6 + [("sweep", FINISHED)]


def test_a_killed_coordinator_is_taken_over_and_nothing_is_lost_or_doubled(postgres: Postgres) -> None:
    uri = postgres.database()
    MlflowRecorder(uri)
    first, second = (started(uri, *SWEEP, "data.n_rows=20000") for _ in range(2))
    assert first.stderr is not None
    while "done" not in first.stderr.readline():
        assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.communicate()
    _, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    found = statuses(uri)
    assert found.count(("job", FINISHED)) == 6
    assert found.count(("sweep", FINISHED)) == 1
    assert RUNNING not in {status for _, status in found}
    again = started(uri, *SWEEP, "data.n_rows=20000")
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert "nothing to do: all 6 jobs were done before" in out
    assert statuses(uri) == found


def test_through_a_server_on_the_database_two_coordinators_share_a_first_sweep(
    postgres: Postgres, free_port: int, tmp_path: Path
) -> None:
    uri = postgres.database()
    with serving(uri, free_port, tmp_path) as address:
        both = [started(address, *SWEEP) for _ in range(2)]
        ends = [process.communicate(timeout=300) for process in both]
        assert [process.returncode for process in both] == [0, 0], ends
        found = statuses(address)
        assert found == [("job", FINISHED)] * 6 + [("sweep", FINISHED)]
        assert sum(err.count("  done  ") for _, err in ends) == 6
        again = started(address, *SWEEP)
        assert "nothing to do: all 6 jobs were done before" in again.communicate(timeout=300)[0]
        assert statuses(address) == found


def test_a_claim_of_another_host_is_taken_over_when_its_lease_ends(postgres: Postgres) -> None:
    recorder, start = MlflowRecorder(postgres.database()), RunStart("job", {KIND: "job", KEY: "k"})
    held = recorder.claim(start, None, 0).run_id
    assert held is not None
    recorder._leases.drop(held)
    recorder.log(held, tags={HOST: "another", LEASE: f"{time.time() + 2:.2f}"})
    waiting = recorder.claim(start, None, 0)
    assert waiting.run is not None
    assert (waiting.run_id, waiting.run.run_id) == (None, held)
    deadline = time.monotonic() + 30
    while (taken := recorder.claim(start, None, 0)).run_id is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert taken.run_id != held
    recorder.end(taken.run_id, FINISHED)


def test_an_address_without_a_driver_uses_psycopg(postgres: Postgres) -> None:
    uri = postgres.database()
    plain = uri.replace("postgresql+psycopg", "postgresql")
    assert resolve_uri(plain) == resolve_uri(plain.replace("postgresql", "postgres")) == (uri, None)
    one, two = MlflowRecorder(plain, "e"), MlflowRecorder(uri, "e")
    assert one.experiment_id == two.experiment_id


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_database_that_stops_during_a_sweep(comes_back: bool, postgres: Postgres) -> None:
    uri = postgres.database()
    MlflowRecorder(uri)
    retry = 60 if comes_back else 1
    process = started(uri, *SWEEP, f"tracking.retry_seconds={retry}")
    assert process.stderr is not None
    lines = []
    while "done" not in (line := process.stderr.readline()):
        lines.append(line)
        assert process.poll() is None, lines
    postgres.stop()
    try:
        while "trying again" not in (line := process.stderr.readline()):
            assert process.poll() is None, lines
        if comes_back:
            postgres.start()
        _, err = process.communicate(timeout=300)
    finally:
        if not comes_back:
            postgres.start()
    assert "hidden" not in err + line
    assert "Traceback" not in err
    if comes_back:
        assert process.returncode == 0, err
    else:
        assert process.returncode == 1, err
        complaints = [text for text in err.splitlines() if text.startswith("gpuclust: ")]
        assert len(complaints) == 1
        assert "jobs are recorded and kept; the same command continues from there" in complaints[0]
        lines = [
            text for text in err.splitlines() if not text.startswith("  ... ")
        ]  # a slow machine prints that it is at work
        assert len(lines) <= 4, err
        again = started(uri, *SWEEP, "tracking.retry_seconds=1")
        _, err = again.communicate(timeout=300)
        assert again.returncode == 0, err
    found = statuses(uri)
    assert found.count(("job", FINISHED)) == 6
    assert RUNNING not in {status for _, status in found}
