"""Where runs are kept: the store's address, its creation by one process at a time, and its troubles in one line."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from gpuclust.errors import TrackingError
from gpuclust.sanitize import remember


def resolve_uri(uri: str | None, folder: Path | None = None) -> tuple[str, str | None]:
    """The tracking URI and, for the local default, the artifact folder.

    ``uri``, else MLFLOW_TRACKING_URI, else ``gpuclust-runs/mlflow.db`` under ``folder`` (the current one), all
    made absolute, so that a run is found again whatever the current folder is. The secrets of the URI are masked from
    here on (see `gpuclust.sanitize`).
    """
    remember(uri)
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        home = (folder or Path.cwd()) / "gpuclust-runs"
        return f"sqlite:///{home / 'mlflow.db'}", str(home / "artifacts")
    if uri.startswith("sqlite:///") and uri != "sqlite:///:memory:":
        path = (folder or Path.cwd()) / uri.removeprefix("sqlite:///")
        return f"sqlite:///{path}", str(path.parent / "artifacts")
    return uri, None


class Interrupts:
    """Ctrl-C and SIGTERM, held back while the store is being written: an interrupted transaction would be an error."""

    def __init__(self) -> None:
        self._writing = 0
        self._waiting: KeyboardInterrupt | None = None

    def interrupt(self, error: KeyboardInterrupt) -> None:
        """Raise now, or when what is being written is written."""
        if self._writing:
            self._waiting = error
        else:
            raise error

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """No interrupt within; one that came is raised at the end."""
        self._writing += 1
        try:
            yield
        finally:
            self._writing -= 1
            if not self._writing and self._waiting is not None:
                waiting, self._waiting = self._waiting, None
                raise waiting


INTERRUPTS = Interrupts()


@contextmanager
def one_line_errors(where: str) -> Iterator[None]:
    """MLflow's and the file system's errors as one TrackingError."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with INTERRUPTS.held_back():
            yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = next((line for line in lines if "rror" in line), lines[0])[:300]
        raise TrackingError(
            f"the tracking store {where} cannot be used: {reason}; check tracking.uri and that it is up and writable"
        ) from error


@contextmanager
def creation_lock(uri: str, create: bool) -> Iterator[None]:
    """Make or open a store alone: MLflow's migration does not survive several processes at a time.

    Raises TrackingError when there is none and none is to be made, when it is read-only, and OSError when a server
    does not answer.
    """
    if not uri.startswith("sqlite:///"):
        _reachable(uri)
        yield
        return
    path = Path(uri.removeprefix("sqlite:///"))
    if not create and not path.exists():
        raise TrackingError(f"there is no tracking store at {path}; run a job first, or set tracking.uri")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not all(os.access(p, os.W_OK, effective_ids=True) for p in (path, path.parent) if p.exists()):
        raise TrackingError(f"the tracking store {path} is read-only here; set tracking.uri to a writable place")
    with (path.parent / ".mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Creating a store prints two dozen migration lines that say nothing to its user.
        with quiet("alembic"), quiet("mlflow.store.db.utils"):
            yield


def _reachable(uri: str) -> None:
    """A dead server is told at once, not after MLflow's patience."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "localhost", port), timeout=5).close()


def page(experiment_id: str, run_id: str | None = None) -> str:
    """The part of an MLflow UI address that opens a run, or the chart view of an experiment."""
    if run_id is not None:
        return f"#/experiments/{experiment_id}/runs/{run_id}"
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&compareRunsMode=CHART"


@contextmanager
def quiet(name: str) -> Iterator[None]:
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
