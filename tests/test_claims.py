"""The same command started twice does each job once, whatever happens to one of the processes."""

from __future__ import annotations

import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpuclust.tracking import claims
from gpuclust.tracking.claims import HOST, LEASE, PROCESS, is_abandoned, is_live, is_mine, owner
from gpuclust.tracking.mlflow import MlflowRecorder
from gpuclust.tracking.recorder import FAILED, FINISHED, KEY, KILLED, KIND, RUNNING, RunStart

SWEEP = ["-m", "data=catalogue", "data.n_rows=4000", "cluster.n_clusters=range(2,8)", "cluster.n_init=3", "report=none"]


def job(key: str) -> RunStart:
    return RunStart(f"job {key}", {KIND: "job", KEY: key})


def sweep(key: str) -> RunStart:
    return RunStart(f"sweep {key}", {KIND: "sweep", KEY: key})


@pytest.fixture
def here(tmp_path: Path, store_template: Path) -> Path:
    (tmp_path / "gpuclust-runs").mkdir()
    (tmp_path / "gpuclust-runs" / "mlflow.db").write_bytes(store_template.read_bytes())
    return tmp_path


def started(here: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-m", "gpuclust", *arguments]
    return subprocess.Popen(
        command, cwd=here, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def runs(here: Path) -> list[tuple[str, str]]:
    """Kind and status of every run, deleted ones too."""
    query = "SELECT t.value, r.status FROM runs r JOIN tags t USING (run_uuid) WHERE t.key = 'gpuclust.kind'"
    with closing(sqlite3.connect(here / "gpuclust-runs" / "mlflow.db", timeout=60)) as db:
        return db.execute(query).fetchall()


def wait_for(here: Path, n_jobs: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while runs(here).count(("job", FINISHED)) < n_jobs:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    while text not in (line := process.stderr.readline()):
        assert line, "it ended without saying so"


def result(out: str) -> str:
    """What a sweep printed, without the seconds that the command took, and that nothing was to do."""
    return "\n".join(line for line in out.splitlines() if not line.startswith(("run ", "nothing to do")))


def test_the_same_sweep_twice_at_once_does_each_job_once(here: Path) -> None:
    both = [started(here, *SWEEP) for _ in range(2)]
    (out, err), (out2, err2) = (process.communicate(timeout=300) for process in both)
    assert [process.returncode for process in both] == [0, 0], err + err2
    assert sorted(runs(here)) == [("job", FINISHED)] * 6 + [("sweep", FINISHED)]
    assert result(out) == result(out2)
    assert "chosen: " in out
    assert err.count("done") + err2.count("done") == 6


def test_a_sweep_goes_on_when_the_process_that_started_it_is_killed(here: Path) -> None:
    first = started(here, *SWEEP, "cluster.max_iter=299", "score=quick")
    wait_for(here, 1, first)
    second = started(here, *SWEEP, "cluster.max_iter=299", "score=quick")
    wait_for(here, 2, first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    _, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    found = runs(here)
    assert found.count(("job", FINISHED)) == 6
    assert found.count(("sweep", FINISHED)) == 1
    assert RUNNING not in {status for _, status in found}


def test_a_finished_sweep_that_is_repeated_adds_nothing(here: Path) -> None:
    out, err = started(here, *SWEEP).communicate(timeout=300)
    before = runs(here)
    again = started(here, *SWEEP)
    out2, err2 = again.communicate(timeout=300)
    assert again.returncode == 0, err + err2
    assert "nothing to do: all 6 jobs were done before (sweep.resume=false repeats them)" in out2
    assert "nothing to do" not in out
    assert result(out2) == result(out)
    assert runs(here) == before
    repeated = started(here, *SWEEP, "sweep.resume=false")
    _, err3 = repeated.communicate(timeout=300)
    assert repeated.returncode == 0, err3
    assert len(runs(here)) == 2 * len(before)


def test_one_job_twice_at_once_is_done_once_and_a_wait_can_be_interrupted(here: Path) -> None:
    recorder = MlflowRecorder(f"sqlite:///{here / 'gpuclust-runs' / 'mlflow.db'}")
    one = ["data=catalogue", "data.n_rows=500", "cluster.n_clusters=3", "report=none"]
    first = started(here, *one)
    first.communicate(timeout=300)
    (run,) = recorder.jobs()
    held = recorder.start_job(RunStart("held", {KIND: "job", KEY: run.tags[KEY]}), None)
    recorder.client.delete_run(run.run_id)
    waiting = started(here, *one)
    wait_for_line(waiting, "waiting for 1 job that another process runs")
    waiting.send_signal(signal.SIGINT)
    waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    waiting = started(here, *one)
    wait_for_line(waiting, "waiting for 1 job that another process runs")
    recorder.log(held, metrics={"silhouette": 0.25})
    recorder.end(held, FINISHED)
    out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err
    assert f"run {held} in" in out


def test_a_claim_is_refused_while_its_owner_lives_and_free_after(uri: str) -> None:
    one, two = MlflowRecorder(uri, "e"), MlflowRecorder(uri, "e")
    first = one.claim(job("k"), None, 0)
    assert first.run_id is not None
    other = two.claim(job("k"), None, 0)
    assert other.run_id is None
    assert other.run is not None
    assert other.run.run_id == first.run_id
    one.log(first.run_id, tags={PROCESS: "999999999@1.00"})
    taken = two.claim(job("k"), None, 0)
    assert taken.run_id is not None
    two.end(taken.run_id, FINISHED)
    done = one.claim(job("k"), None, 0)
    assert done.run is not None
    assert (done.run.run_id, done.run.status) == (taken.run_id, FINISHED)
    assert one.claim(job("another"), None, 0).run_id


def test_a_job_that_failed_elsewhere_meanwhile_is_not_run_again(uri: str) -> None:
    recorder = MlflowRecorder(uri, "e")
    began = int(time.time() * 1000)
    run_id = recorder.start_job(job("k"), None)
    recorder.log(run_id, tags={PROCESS: "1@1.00"})
    recorder.end(run_id, FAILED)
    claim = recorder.claim(job("k"), None, began)
    assert claim.run is not None
    assert claim.run.status == FAILED
    assert recorder.claim(job("k"), None, int(time.time() * 1000) + 1).run_id, "a job that failed before runs again"


def test_the_sweep_of_a_live_process_is_shared_and_that_of_a_dead_one_opened_again(uri: str) -> None:
    one, two = MlflowRecorder(uri, "e"), MlflowRecorder(uri, "e")
    parent = one.claim_sweep(sweep("s"), 0).run_id
    assert parent is not None
    shared = two.claim_sweep(sweep("s"), 0)
    assert shared.run is not None
    assert shared.run.run_id == parent
    assert two.claim_sweep(sweep("t"), 0).run_id not in (parent, None)
    one.abandon(KILLED)
    assert two.claim_sweep(sweep("s"), 0).run_id == parent


def test_who_is_alive() -> None:
    mine = owner()
    now = time.time()
    assert is_mine(mine)
    assert is_live(mine)
    assert not is_abandoned(mine)
    assert is_live({**mine, LEASE: str(now - 100)}), "an overloaded machine may renew late"
    assert not is_live({**mine, LEASE: str(now - 2 * claims.GRACE_SECONDS)}), "but not for ever"
    gone = {**mine, PROCESS: f"999999999@1.00@{mine[PROCESS].rpartition('@')[2]}"}
    assert not is_live(gone)
    assert is_abandoned(gone)
    elsewhere = {**mine, HOST: "another"}
    assert is_live(elsewhere)
    assert not is_mine(elsewhere)
    assert not is_live({**elsewhere, LEASE: str(now - 1)})
    assert not is_abandoned({**elsewhere, LEASE: str(now - 1)})
    assert is_abandoned({**elsewhere, LEASE: str(now - 2 * claims.GRACE_SECONDS)})
    container = {**mine, PROCESS: f"{mine[PROCESS].rpartition('@')[0]}@1"}
    assert not is_mine(container), "the same host name and process id in another container"
    assert not is_abandoned({**container, PROCESS: "999999999@1.00@1"}), "it cannot be seen from here"
    old = {k: v for k, v in mine.items() if k != LEASE}
    assert is_live(old), "a run of version 0.1.0"


def test_a_stopped_process_loses_its_claim_when_its_lease_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        import psutil

        tags = {
            **owner(),
            PROCESS: f"{other.pid}@{psutil.Process(other.pid).create_time():.2f}",
            LEASE: str(time.time() - 1),
        }
        assert is_live(tags)
        other.send_signal(signal.SIGSTOP)
        while psutil.Process(other.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        assert not is_live(tags)
        other.kill()


def test_leases_are_renewed_in_the_background(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.1)
    recorder = MlflowRecorder(uri, "e")
    run_id = recorder.start_job(job("k"), None)
    recorder.log(run_id, tags={LEASE: "1"})
    deadline = time.monotonic() + 30
    while float(recorder.client.get_run(run_id).data.tags[LEASE]) < time.time():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    recorder.end(run_id, FINISHED)


@pytest.mark.parametrize("n_jobs", [12])
def test_over_http_two_processes_never_win_the_same_job(n_jobs: int, uri: str, tmp_path: Path, free_port: int) -> None:
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(free_port), "--host", "127.0.0.1", "--workers", "2",
               "--default-artifact-root", str(tmp_path / "artifacts")]  # fmt: skip
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{free_port}"
        recorders: list[Any] = []
        deadline = time.monotonic() + 120
        while len(recorders) < 2:
            try:
                recorders.append(MlflowRecorder(address, "e"))
            except Exception:
                assert time.monotonic() < deadline
                time.sleep(0.5)
        won: list[list[str]] = [[], []]
        together = threading.Barrier(2)

        def claim_all(which: int) -> None:
            for i in range(n_jobs):
                together.wait()
                if recorders[which].claim(job(f"k{i}"), None, 0).run_id:
                    won[which].append(f"k{i}")

        threads = [threading.Thread(target=claim_all, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won[0] + won[1]) == sorted(f"k{i}" for i in range(n_jobs))
        active = [run.info.status for run in recorders[0].search("")]
        assert active == [RUNNING] * n_jobs, "claims that lost are deleted"
    finally:
        server.terminate()
        server.wait()


def test_leases_are_renewed_until_their_owner_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorder that was dropped with an open run keeps neither a thread nor the claim."""
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.01)
    renewed = threading.Event()
    leases = claims.Leases(lambda run_id, until: renewed.set())
    leases.add("run")
    thread = leases._thread
    assert thread is not None
    assert renewed.wait(10)
    del leases
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
