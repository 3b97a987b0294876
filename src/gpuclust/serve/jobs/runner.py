"""Run the jobs of a service as processes, in the order in which they were submitted.

A process that outlived a killed service is ended when the service starts again, and its job is queued: finished jobs of its sweep are kept in
the tracking store, so it continues.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from gpuclust.sanitize import mask, printable
from gpuclust.serve.jobs.records import ENDED, Job, Result
from gpuclust.serve.jobs.store import JobStore, Process, result_of

MAX_QUEUED = 1_000
MAX_ATTEMPTS = 5
"""A job that was running this often when the service ended is not started again."""
GRACE_SECONDS = 30.0
"""After SIGTERM; then SIGKILL."""
RETRY_SECONDS = 5.0
TAIL_BYTES = 256 * 1024


@dataclass(frozen=True)
class Place:
    """Where jobs run: ``folder`` holds their outputs, ``data`` is their current folder, and ``environment`` names the tracking store."""

    folder: Path
    data: Path
    environment: Mapping[str, str] = field(repr=False)

    def output(self, job: Job) -> Path:
        """The file with what a job printed."""
        return self.folder / f"{job.id}.log"

    def result(self, job: Job) -> Path:
        """The file with the result of a job."""
        return self.folder / f"{job.id}.json"


class QueueFull(Exception):
    """Too many jobs wait."""


class Runner:
    """A queue of jobs, with ``parallel`` threads that run them."""

    def __init__(self, store: JobStore, place: Place, *, parallel: int = 1) -> None:
        self.store, self.place = store, place
        self._changed = threading.Condition()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._cancelled: set[str] = set()
        self._stopping = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(parallel)]

    def start(self) -> None:
        """Queue the jobs that were running when the service ended, and begin to run."""
        for job, process in self.store.running():
            if process is not None:
                end(process)
            if job.attempts >= MAX_ATTEMPTS:
                error = (
                    f"the service ended {job.attempts} times while the job ran; submit it again with fewer rows or jobs"
                )
                self.store.update(replace(job, state="failed", ended=now(), error=error))
            else:
                self.store.update(replace(job, state="queued", started=None))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the processes and queue their jobs, for the next start of the service."""
        with self._changed:
            self._stopping = True
            for process in self._processes.values():
                _terminate(process)
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(GRACE_SECONDS + 5)
        self.store.close()

    def submit(self, overrides: Sequence[str], *, multirun: bool, n_jobs: int, notes: Sequence[str]) -> Job:
        """Queue a job. Raises QueueFull."""
        job = Job(secrets.token_hex(8), "queued", tuple(overrides), multirun, n_jobs, tuple(notes), now())
        with self._changed:
            if self.store.counts()["queued"] >= MAX_QUEUED:
                raise QueueFull
            self.store.add(job)
            self._changed.notify()
        return job

    def cancel(self, id: str) -> Job | None:
        """Cancel a job: at once if it is queued; if it runs, its process gets SIGTERM. One that has ended stays as it is; None: there is none."""
        with self._changed:
            job = self.store.get(id)
            if job is None or job.state in ENDED:
                return job
            if job.state == "queued":
                return self.store.update(replace(job, state="cancelled", ended=now()))
            self._cancelled.add(id)
            if id in self._processes:
                _terminate(self._processes[id])
            return job

    def shown(self, job: Job, lines: int) -> Job:
        """A job with the last lines of its output."""
        return replace(job, output=tail(self.place.output(job), lines))

    def _work(self) -> None:
        while not self._stopping:
            try:
                self._run_next()
            except sqlite3.Error as error:  # no space, or the file is gone
                logging.getLogger("gpuclust.serve").error("the state of a job cannot be written", exc_info=error)
                time.sleep(RETRY_SECONDS)

    def _run_next(self) -> None:
        """Wait for a queued job and run it."""
        with self._changed:
            while not self._stopping and (job := self.store.first("queued")) is None:
                self._changed.wait()
            if self._stopping:
                return
            assert job is not None
            job = self.store.update(replace(job, state="running", started=now(), attempts=job.attempts + 1))
            try:
                process = self._started(job)
            except (OSError, ValueError) as error:
                self.store.update(replace(job, state="failed", ended=now(), error=f"cannot be started: {error}"))
                return
            self._processes[job.id] = process
            self.store.update(job, _identity(process.pid))
        status = process.wait()
        with self._changed:
            del self._processes[job.id]
            self.store.update(self._ended(job, status))
            self._cancelled.discard(job.id)

    def _started(self, job: Job) -> subprocess.Popen[bytes]:
        """Start the command of a job. Python ignores modules in the data folder (-P)."""
        options = ["--result", str(self.place.result(job)), *(["-m"] if job.multirun else [])]
        command = [sys.executable, "-P", "-m", "gpuclust", "run", *options, *job.overrides]
        self.place.result(job).unlink(missing_ok=True)
        with self.place.output(job).open("ab") as output:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=self.place.data,
                env={**self.place.environment, "PYTHONUNBUFFERED": "1"}, start_new_session=True,
            )  # fmt: skip

    def _ended(self, job: Job, status: int) -> Job:
        """The record of a job whose process ended."""
        if status != 0 and self._stopping and job.id not in self._cancelled:
            return replace(job, state="queued", started=None)
        job = replace(job, ended=now(), exit_status=status, result=self._result(job))
        if status == 0:
            return replace(job, state="finished")
        if job.id in self._cancelled:
            return replace(job, state="cancelled")
        return replace(job, state="failed", error=_reason(status, tail(self.place.output(job), 20)))

    def _result(self, job: Job) -> Result | None:
        try:
            return result_of(json.loads(self.place.result(job).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):  # it ended before there was one
            return None


def now() -> str:
    """The time in UTC, to a second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def tail(path: Path, lines: int) -> tuple[str, ...]:
    """The last lines of a text file, without secrets and control characters."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ()
    last = deque((line for line in text.splitlines() if line.strip()), maxlen=lines)
    return tuple(printable(mask(line)).rstrip() for line in last)


def end(process: Process) -> None:
    """End a process that an earlier service started, with all processes of its session: by SIGTERM, then by SIGKILL."""
    with suppress(psutil.Error):
        found = psutil.Process(process.pid)
        if abs(found.create_time() - process.began) > 1:  # another process has its id
            return
        found.terminate()
        try:
            found.wait(GRACE_SECONDS)
        except psutil.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _identity(pid: int) -> Process | None:
    with suppress(psutil.Error):
        return Process(pid, psutil.Process(pid).create_time())
    return None


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and after the grace SIGKILL for its whole session."""

    def kill() -> None:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    with suppress(ProcessLookupError):
        process.terminate()
    timer = threading.Timer(GRACE_SECONDS, kill)
    timer.daemon = True
    timer.start()


def _reason(status: int, lines: Sequence[str]) -> str:
    """Why a command failed: the line of its error, else its last line."""
    if status < 0:
        return f"the process was ended by signal {-status}" + (
            "; memory may be short" if status == -signal.SIGKILL else ""
        )
    said = [line.removeprefix("gpuclust: ") for line in lines if line.startswith("gpuclust: ")]
    return (said or list(lines) or [f"exit status {status}"])[-1]
