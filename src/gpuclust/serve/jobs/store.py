"""The jobs of a service in a SQLite file, which survives the service."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpuclust.errors import ConfigurationError
from gpuclust.serve.jobs.records import STATES, Chosen, Job, Result, State

SCHEMA = """
create table if not exists jobs (
    number integer primary key autoincrement, id text not null unique, state text not null, record text not null, process text
)
"""


@dataclass(frozen=True)
class Process:
    """A process of this machine: its id, and the second since 1970 at which it began, because ids are used again."""

    pid: int
    began: float


class JobStore:
    """Jobs by id, in the order in which they were submitted. Threads may share it.

    Raises ConfigurationError if the file is not a store of jobs.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._connection.execute("pragma journal_mode=wal")
            self._connection.execute(SCHEMA)
        except sqlite3.Error as error:
            raise ConfigurationError(f"{path} cannot be used for jobs ({error}); name another --folder") from error
        path.chmod(0o600)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def add(self, job: Job) -> None:
        """Add a job as the last one."""
        self._execute("insert into jobs (id, state, record) values (?, ?, ?)", (job.id, job.state, _text(job)))

    def update(self, job: Job, process: Process | None = None) -> Job:
        """Replace the record of a job, and its process."""
        own = None if process is None else json.dumps(vars(process))
        self._execute(
            "update jobs set state = ?, record = ?, process = ? where id = ?", (job.state, _text(job), own, job.id)
        )
        return job

    def get(self, id: str) -> Job | None:
        """A job, or None."""
        return next(iter(self._jobs("where id = ?", (id,))), None)

    def first(self, state: State) -> Job | None:
        """The job that was submitted first, of those in a state."""
        return next(iter(self._jobs("where state = ? order by number limit 1", (state,))), None)

    def running(self) -> list[tuple[Job, Process | None]]:
        """The jobs that are recorded as running, with their processes."""
        rows = self._execute("select record, process from jobs where state = 'running' order by number")
        return [(_job(record), Process(**json.loads(own)) if own else None) for record, own in rows]

    def page(self, states: Sequence[str], offset: int, limit: int) -> list[Job]:
        """Jobs in some states, the newest first."""
        marks = ",".join("?" * len(states))
        return self._jobs(f"where state in ({marks}) order by number desc limit ? offset ?", (*states, limit, offset))

    def counts(self) -> Mapping[str, int]:
        """The number of jobs in each state."""
        counts: dict[str, int] = dict.fromkeys(STATES, 0)
        return counts | dict(self._execute("select state, count(*) from jobs group by state"))

    def _jobs(self, condition: str, values: Sequence[Any]) -> list[Job]:
        return [_job(record) for (record,) in self._execute(f"select record from jobs {condition}", values)]

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            return self._connection.execute(statement, values).fetchall()


def result_of(values: Mapping[str, Any]) -> Result:
    """The record of what ``--result`` wrote."""
    chosen = values["chosen"]
    texts = {name: tuple(values[name]) for name in ("because", "failures")}
    return Result(**{**values, **texts, "chosen": None if chosen is None else Chosen(**chosen)})


def _text(job: Job) -> str:
    return json.dumps(vars(replace(job, output=())), default=vars)


def _job(text: str) -> Job:
    values = json.loads(text)
    result = values["result"]
    texts = {name: tuple(values[name]) for name in ("overrides", "notes", "output")}
    return Job(**{**values, **texts, "result": None if result is None else result_of(result)})
