"""`gpuclust jobs` as a process: what it takes and refuses, how a sweep runs and is cancelled, and what a kill leaves."""

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from gpuclust.cli import main
from gpuclust.errors import InputError
from gpuclust.submissions import Limits, checked
from tests.serving import started, stop

TOKEN = "correct-horse-battery"
SWEEP = ["data.path=t.csv", "cluster=kmeans", "cluster.n_clusters=range(2,5)", "report=none"]
# Jobs that take long enough to be stopped.
LONG = ["data=catalogue", "data.n_rows=1500", "cluster=kmeans", "cluster.n_clusters=range(2,200)", "report=none"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """A folder with a table in data/, a store of runs, and a table outside."""
    folder = tmp_path_factory.mktemp("jobs")
    rng = np.random.default_rng(0)
    cloud = rng.integers(0, 3, 240)
    table = pd.DataFrame({"a": 5 * cloud + rng.normal(size=240), "b": 9.0 * (cloud == 1) + rng.normal(size=240)})
    (folder / "data").mkdir()
    for path in (folder / "data" / "t.csv", folder / "outside.csv"):
        table.to_csv(path, index=False)
    (folder / "data" / "link.csv").symlink_to(folder / "outside.csv")
    (folder / "mlflow.db").write_bytes(store_template.read_bytes())
    return folder


class Service:
    """A running service, which can be killed and started again."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.start()

    def start(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GPUCLUST_TOKEN", TOKEN)
            options = ["--data", "data", "--folder", "state", "--uri", f"sqlite:///{self.place / 'mlflow.db'}"]
            self.process, self.address = started("jobs", *options, cwd=self.place)
        self.client = httpx.Client(base_url=self.address, headers={"authorization": f"Bearer {TOKEN}"}, timeout=60)

    def kill(self, id: str) -> int:
        """Kill the service alone; the process of a job that it ran."""
        own = None
        with sqlite3.connect(self.place / "state" / "jobs.db") as store:
            while own is None:  # a job is running a moment before its process is noted
                (own,) = store.execute("select process from jobs where id = ?", (id,)).fetchone()
                time.sleep(0.02)
        self.client.close()
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        return int(json.loads(own)["pid"])

    def submit(self, overrides: list[str], status: int = 202) -> dict[str, Any]:
        answer = self.client.post("/jobs", json={"overrides": overrides, "multirun": True})
        assert answer.status_code == status, answer.text
        return dict(answer.json())

    def job(self, id: str) -> dict[str, Any]:
        return dict(self.client.get(f"/jobs/{id}", params={"lines": 1000}).json())

    def until(self, id: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The job as soon as it is as it should be."""
        latest = time.monotonic() + 400
        while time.monotonic() < latest:
            if holds(job := self.job(id)):
                return job
            time.sleep(0.1)
        raise AssertionError(job)


@pytest.fixture(scope="module")
def service(place: Path) -> Iterator[Service]:
    running = Service(place)
    yield running
    running.client.close()
    assert stop(running.process)[0] == 0


def test_a_sweep_is_queued_runs_and_ends_with_its_verdict_although_the_service_is_killed(service: Service) -> None:
    made = service.submit(SWEEP)
    assert (made["state"], made["n_jobs"], made["result"]) == ("queued", 3, None)
    service.until(made["id"], lambda job: job["state"] == "running")
    first = service.kill(made["id"])
    service.start()
    job = service.until(made["id"], lambda job: job["ended"] is not None)
    assert not _alive(first)
    assert (job["state"], job["exit_status"], job["attempts"]) == ("finished", 0, 2), job
    result = job["result"]
    assert (result["is_sweep"], result["n_jobs"], result["n_failed"]) == (True, 3, 0)
    assert result["chosen"]["metrics"]["n_clusters"] == 3
    assert result["verdict_kind"] == "clear"
    with sqlite3.connect(service.place / "mlflow.db") as store:
        tags = dict(store.execute("select key, value from tags where run_uuid = ?", (result["run_id"],)))
        runs = {run for (run,) in store.execute("select run_uuid from runs")}
    assert (tags["gpuclust.kind"], tags["gpuclust.verdict"]) == ("sweep", result["verdict"])
    assert result["chosen"]["run_id"] in runs
    assert any("kmeans k=3" in line or "3/3" in line for line in job["output"]), job["output"]
    assert any(line.startswith("verdict: ") for line in job["output"])
    listed = service.client.get("/jobs", params={"state": "finished"}).json()
    assert listed["total"] == 1
    assert listed["jobs"][0] == job | {"output": []}
    assert listed["counts"]["finished"] == 1


def test_a_wrong_job_is_refused_with_the_line_of_the_command(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(service.place / "data")
    before = service.client.get("/jobs").json()["total"]
    for wrong in (
        ["data.path=t.csv", "cluster.n_cluster=3"],
        ["data.path=none.csv"],
        ["data.path=t.csv", "hydra.verbose=1"],
    ):
        problem = service.submit(wrong, 422)
        assert main(["-m", *wrong]) == 2
        assert capsys.readouterr().err == f"gpuclust: {problem['detail']}\n"
    answer = service.client.post("/jobs", json={"overrides": []})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert service.client.post("/jobs", content=b"x" * 2**21).status_code in (413, 415)
    assert service.submit(["data.path=../outside.csv"], 422)["detail"].startswith("data.path=../outside.csv is outside")
    assert service.client.get("/jobs").json()["total"] == before
    assert service.client.get("/jobs/none").status_code == 404


@pytest.mark.parametrize(
    ("override", "because"),
    [
        ("data.path=/etc/passwd", "outside the data folder"),
        ("data.path=link.csv", "outside the data folder"),
        ("data.path=[t.csv,/etc/passwd]", "outside the data folder"),
        ("data.path=*.csv", "outside the data folder"),  # it matches the link
        ("data.path=file:///etc/passwd", "outside the data folder"),
        ("data.join.path=../outside.csv", "outside the data folder"),
        ('data.path=\'{"query": "select 1"}\'', "could read any file"),
        ("data.path=https://example.org/t.csv", "may not read"),
        ("data.path=s3://open-evil/t.csv", "may not read"),
        ("data.path=s3://open/../t.csv", "may not read"),
        ("data.path=s3://open/t.csv?endpoint_override=http://localhost:1", "may not read"),
        ("data.query=select 1", "could read any file"),
        ("data.database=postgresql://h/n", "no databases"),
        ("data.within=/tmp/out:3", "not a run of this service"),
        ("tracking.uri=sqlite:////tmp/x.db", "its own store"),
        ("+tracking.uri=sqlite:////tmp/x.db", "its own store"),
        ("tracking=none", "its own store"),
        ("memory.folder=/tmp", "temporary files"),
        ("workers=dask", "its own machine"),
        ("workers.address=tcp://h:1", "its own machine"),
        ("data.where=${oc.env:HOME}", "interpolation"),
        ("--config-dir=/tmp", "not an override"),
        ("-m", "not an override"),
        ("data.where=a\0b", "not an override"),
        ("experiments=../../x", "not a choice"),
        ("cluster=/tmp/x", "not a choice"),
        ("data.path=https://user:password@example.org/t.csv", "password"),
    ],
)
def test_what_would_leave_the_limits_is_refused(
    override: str, because: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place / "data")
    limits = Limits((place / "data").resolve(), ("s3://open",))
    own = [] if override.startswith("data.path") else ["data.path=t.csv"]
    with pytest.raises(InputError, match=because):
        checked(["data=table", *own, override], multirun=False, limits=limits)


def test_what_is_allowed_is_planned(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place / "data")
    limits = Limits((place / "data").resolve(), ("s3://open",))
    for path in ("t.csv", "./t.csv", "t*.csv", str(place / "data" / "t.csv"), "s3://open/t.csv"):
        assert (
            checked([f"data.path={path}", "data=table", "tracking.register=a"], multirun=False, limits=limits).n_jobs
            == 1
        )


def test_every_request_needs_the_token(service: Service) -> None:
    for method, path in (
        ("GET", "/jobs"),
        ("POST", "/jobs"),
        ("DELETE", "/jobs/x"),
        ("GET", "/openapi.json"),
        ("GET", "/health"),
    ):
        assert httpx.request(method, service.address + path).status_code == 401, path
    root = service.address.removesuffix("/api/v1")
    assert httpx.get(f"{root}/metrics").status_code == 401
    assert httpx.get(f"{root}/docs").status_code == 200
    document = service.client.get("/openapi.json").json()
    assert {"/api/v1/jobs", "/api/v1/jobs/{id}", "/metrics"} <= set(document["paths"])
    assert document["security"] == [{"token": []}]


def test_jobs_are_cancelled(service: Service) -> None:
    running, waiting = service.submit(LONG), service.submit([*SWEEP, "seed=1"])
    service.until(running["id"], lambda job: job["state"] == "running")
    assert service.client.delete(f"/jobs/{waiting['id']}").json()["state"] == "cancelled"
    assert service.client.delete(f"/jobs/{running['id']}").status_code == 202
    job = service.until(running["id"], lambda job: job["ended"] is not None)
    assert (job["state"], job["result"]) == ("cancelled", None)
    assert job["exit_status"] in (143, -signal.SIGTERM)  # the second before the command has begun
    assert service.client.delete(f"/jobs/{running['id']}").status_code == 409
    counts = service.client.get("/health").json()["counts"]
    assert (counts["cancelled"], counts["queued"], counts["running"]) == (2, 0, 0)


def test_what_was_done_is_measured(service: Service) -> None:
    service.client.get("/jobs/none")
    httpx.get(service.address + "/jobs")
    httpx.request("BREW", service.address + "/coffee", headers=dict(service.client.headers))
    text = service.client.get(f"{service.address.removesuffix('/api/v1')}/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(lines['gpuclust_requests_total{method="GET",route="/api/v1/jobs/{id}",status="404"}']) >= 1
    assert float(lines['gpuclust_requests_total{method="GET",route="other",status="401"}']) >= 1
    assert float(lines['gpuclust_requests_total{method="other",route="other",status="404"}']) == 1
    assert float(lines['gpuclust_request_seconds_count{route="/api/v1/jobs/{id}"}']) >= 1
    assert float(lines['gpuclust_jobs{state="cancelled"}']) == 2
    assert "none" not in text


@pytest.mark.campaign
def test_a_killed_service_continues_in_the_middle_of_a_sweep(service: Service) -> None:
    running = service.submit(LONG)
    service.until(running["id"], lambda job: any("/198" in line for line in job["output"]))
    first = service.kill(running["id"])
    service.start()
    job = service.until(running["id"], lambda job: any("reused" in line for line in job["output"]))
    assert (job["state"], job["attempts"]) == ("running", 2)
    assert not _alive(first)
    service.client.delete(f"/jobs/{running['id']}")
    job = service.until(running["id"], lambda job: job["ended"] is not None)
    assert (job["state"], job["exit_status"]) == ("cancelled", 143)
    assert "finished jobs are kept" in job["output"][-1]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
