"""Kills at chosen moments, for tests of what a kill leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

# Forked children, so that importing MLflow is paid once. Each does the work and is killed before its n-th SQL statement.
CODE = """
import os, signal, sys
import sqlalchemy
from sqlalchemy import event
from gpuclust.tracking.mlflow import MlflowRecorder
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

work, uri, *moments = sys.argv[1:]
for moment in map(int, moments):
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        print("killed" if os.WIFSIGNALED(status) else f"ended {os.waitstatus_to_exitcode(status)}", flush=True)
        continue
    count = 0
    def before(*_):
        global count
        count += 1
        if count == moment:
            os.kill(os.getpid(), signal.SIGKILL)
    event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", before)
    if work == "gpuclust":
        MlflowRecorder(uri, "e", report=lambda text: print(text, flush=True))
    else:
        SqlAlchemyStore(uri, "artifacts")
    os._exit(0)
"""


def killed_creations(work: str, uri: str, moments: Sequence[int]) -> list[str]:
    """Create a store (``work``: by ``gpuclust`` or ``mlflow``) once for each moment, killed before that many SQL statements.

    What the children said, and ``killed`` or ``ended STATUS`` for each.
    """
    command = [sys.executable, "-W", "ignore", "-c", CODE, work, uri, *map(str, moments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=os.environ | {"PYTHONFAULTHANDLER": ""}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def kill_after(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Kill a process after some seconds, if it has not ended by then."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
