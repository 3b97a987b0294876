"""The address of the tracking store: resolve and check it, and translate the errors of the store."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from gpuclust.errors import GpuclustError, StoreUnavailable, TrackingError
from gpuclust.sanitize import mask, remember

SQLITE = "sqlite:///"
# SQLAlchemy decodes escapes in this form; for sqlite:/// MLflow would create a folder with the escapes in its name.
ESCAPED_SQLITE = "sqlite+pysqlite:///"
# A path of these characters needs no escapes in a URI.
PLAIN_PATH = re.compile(r"[^?%#'\"\x00-\x1f\x7f-\x9f]*")
# Database scheme -> (module of the default driver, package to install).
DRIVERS = {
    "postgresql": ("psycopg", "'gpuclust[postgres]'"),
    "mysql": ("MySQLdb", "mysqlclient, or PyMySQL with mysql+pymysql://"),
    "mssql": ("pyodbc", "pyodbc, or pymssql with mssql+pymssql://"),
}
DATABRICKS = ("databricks", "databricks-uc", "uc")
NOISY = ("mlflow", "alembic", "sqlalchemy", "urllib3")


def resolve_uri(uri: str | None, folder: Path | None = None) -> tuple[str, str | None]:
    """The tracking URI and, for a SQLite file, the artifact folder as a path or a ``file:`` URI.

    The URI is ``uri``, else MLFLOW_TRACKING_URI, else ``gpuclust-runs/mlflow.db`` in ``folder`` (by default the current one).
    Paths are made absolute, so that runs are found from any folder. From now on the secrets of the URI are masked (see
    `gpuclust.sanitize`). Raises TrackingError for an invalid address.
    """
    remember(uri)
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        path, query = (folder or Path.cwd()) / "gpuclust-runs" / "mlflow.db", ""
    elif uri.startswith("sqlite:") or uri.startswith("sqlite+pysqlite:"):
        path, query = _sqlite_path(uri, folder)
    else:
        uri = _with_driver(uri)
        _check_address(uri)
        return uri, None
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise TrackingError(
            f"the tracking store {os.fsencode(path)!r} cannot be used: MLflow needs a path in UTF-8; set tracking.uri"
        ) from error
    return sqlite_uri(path, query), location(path.parent / "artifacts")


def sqlite_uri(path: Path, query: str = "") -> str:
    """The URI of a SQLite file, with escapes only if necessary."""
    if PLAIN_PATH.fullmatch(str(path)):
        return f"{SQLITE}{path}" + (f"?{query}" if query else "")
    return f"{ESCAPED_SQLITE}{quote(str(path))}" + (f"?{query}" if query else "")


def location(path: Path) -> str:
    """The artifact location of a local folder: its path, or a ``file:`` URI if the path needs escapes."""
    return str(path) if PLAIN_PATH.fullmatch(str(path)) else path.as_uri()


def store_file(uri: str) -> Path | None:
    """The file of a SQLite store, from a URI of `resolve_uri`; None for other stores."""
    if uri.startswith(ESCAPED_SQLITE):
        return Path(unquote(uri.removeprefix(ESCAPED_SQLITE).partition("?")[0]))
    if uri.startswith(SQLITE):
        return Path(uri.removeprefix(SQLITE).partition("?")[0])
    return None


def shown(uri: str) -> str:
    """The store in messages: its path, or its address without the password."""
    return str(store_file(uri) or mask(uri))


def _sqlite_path(uri: str, folder: Path | None) -> tuple[Path, str]:
    """Parse a SQLite URI written by a user, with a relative or absolute path and optional escapes: the file and the options.

    ``%`` and ``?`` are literal if they are part of an existing folder.
    """
    text = re.sub(r"^sqlite(\+pysqlite)?:(///|//)?", "", uri)
    here = folder or Path.cwd()
    name, _, query = text.partition("?")
    if name in ("", ":memory:") or name.startswith("file:"):
        raise TrackingError(
            f"tracking.uri={shown(uri)} names no file, so nothing would be kept; write sqlite:///FILE, or use tracking=none"
        )
    if "/" in query and (here / text).parent.is_dir():  # the question mark is part of the name of a folder
        name, query = text, ""
    path = here / name
    if "%" in name and (uri.startswith(ESCAPED_SQLITE) or not path.parent.is_dir()):
        path = here / unquote(name)
    if path.is_dir():
        raise TrackingError(f"the tracking store {path} is a folder; name a file in it, as in {path / 'mlflow.db'}")
    return path, query


def _check_address(uri: str) -> None:
    """Raise TrackingError for an address that cannot be a store, which MLflow would retry for minutes."""
    if uri in DATABRICKS:
        return
    scheme = uri.partition(":")[0].partition("+")[0].lower() if ":" in uri else ""
    if scheme in ("http", "https"):
        try:
            parts = urlsplit(uri)
            nowhere = not parts.hostname or parts.port == 0
        except ValueError as error:
            raise TrackingError(
                f"tracking.uri={shown(uri)} is not an address ({error}); write it as http://HOST:PORT"
            ) from error
        if nowhere:
            raise TrackingError(f"tracking.uri={shown(uri)} names no host to connect to; write it as http://HOST:PORT")
    elif scheme in ("", "file"):
        folder = Path(unquote(re.sub(r"^file:(//)?", "", uri))).expanduser().absolute()
        raise TrackingError(
            f"tracking.uri={uri} is a folder, and MLflow 3 no longer writes file stores; use sqlite:///{folder}/mlflow.db"
        )
    elif scheme in DRIVERS:
        _check_driver(uri)
    elif scheme not in DATABRICKS and scheme not in _plugin_schemes():
        known = ("sqlite:///FILE", "http://", "https://", *(f"{name}://" for name in DRIVERS))
        raise TrackingError(
            f"tracking.uri={shown(uri)} has no scheme that MLflow supports; use one of {', '.join(known)}"
        )


def _with_driver(uri: str) -> str:
    """Add psycopg 3 to the address of a PostgreSQL database without a driver: SQLAlchemy 2.0 would import psycopg2, and does not accept
    ``postgres://``."""
    scheme, separator, rest = uri.partition("://")
    return f"postgresql+psycopg://{rest}" if separator and scheme.lower() in ("postgresql", "postgres") else uri


def _check_driver(uri: str) -> None:
    """Raise TrackingError with the package to install if the driver of a database is missing."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        url = make_url(uri)
        url.get_dialect().import_dbapi()
    except (SQLAlchemyError, ValueError) as error:
        raise TrackingError(f"tracking.uri={shown(uri)} cannot be read: {str(error).splitlines()[0]}") from error
    except ImportError as error:
        name = url.get_backend_name()
        default, package = DRIVERS.get(name, ("", ""))
        missing = error.name or default
        install = package if missing == default else missing
        raise TrackingError(
            f"tracking.uri={name}://… needs the database driver {missing}; pip install {install}"
        ) from error


def _plugin_schemes() -> set[str]:
    from importlib.metadata import entry_points

    return {entry.name for entry in entry_points(group="mlflow.tracking_store")}


class DeferredInterrupts:
    """Defers Ctrl-C, SIGTERM and SIGHUP while the store is written, because an interrupted transaction is an error."""

    def __init__(self) -> None:
        self._writing = 0
        self._waiting: KeyboardInterrupt | None = None

    def interrupt(self, error: KeyboardInterrupt) -> None:
        """Raise now, or after the current write. A second interrupt is raised immediately."""
        if self._writing and self._waiting is None:
            self._waiting = error
        else:
            raise error

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer interrupts to the end of the context."""
        self._writing += 1
        try:
            yield
        finally:
            self._writing -= 1
            if not self._writing and self._waiting is not None:
                waiting, self._waiting = self._waiting, None
                raise waiting


INTERRUPTS = DeferredInterrupts()


@contextmanager
def one_line_errors(where: str) -> Iterator[None]:
    """Convert any error of MLflow, a database or the file system to a TrackingError, or StoreUnavailable if a retry may help."""
    try:
        with INTERRUPTS.deferred():
            yield
    except (GpuclustError, MemoryError):
        raise
    except Exception as error:
        raise translated(error, where) from error


# Messages of a store that is temporarily unavailable; a retry may succeed.
AWAY = re.compile(
    r"max retries exceeded|failed with exception|connection (refused|reset|aborted|failed|timed out|broken)|timed? ?out"
    r"|error code 50[234]|too many 5\d\d error|too many 429|database is locked|could not connect|server closed the connection"
    r"|name or service not known|temporary failure in name|no route to host"
    r"|terminating connection|connection is closed|the database system is|lost connection|gone away|remote end closed",
    re.IGNORECASE,
)
# The relevant part of such a message.
WHY_AWAY = re.compile(
    r"connection refused|timed out|connection reset|remote end closed|name or service not known|no route to host"
    r"|too many \d+ error responses|database is locked|server closed the connection|the database system is [a-z ]+",
    re.IGNORECASE,
)
FULL = re.compile(r"database or disk is full|no space left|errno 28|disk quota|file too large|errno 27", re.IGNORECASE)
REFUSED = re.compile(r"error code (401|403)|status code (401|403)|unauthorized|authentication failed", re.IGNORECASE)


def translated(error: Exception, where: str) -> TrackingError:
    """Convert an error of the store to one line: the reason, the store, and what to do."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    reason = next((line for line in lines if "rror" in line), lines[0])[:300]
    text = f"{type(error).__name__} {error}"
    kind, advice = TrackingError, "check tracking.uri and that it is up and writable"
    if FULL.search(text):
        reason, advice = f"no space left ({reason})", "free some space and repeat"
    elif REFUSED.search(text):
        reason = f"it refuses access ({reason})"
        advice = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    elif isinstance(error, (ConnectionError, TimeoutError)) or AWAY.search(text):
        short = WHY_AWAY.search(text)
        kind, reason = StoreUnavailable, f"it does not answer ({short[0].lower() if short else reason})"
    return kind(f"the tracking store {shown(where)} cannot be used: {reason}; {advice}")


def check_reachable(uri: str) -> None:
    """Raise OSError within seconds if a server does not respond, instead of after MLflow's retries."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "localhost", port), timeout=5).close()


# Width of the columns of the table of runs, in pixels, in their order.
RUN_COLUMNS = {
    "attributes.`Run Name`": 300, "runDateAndNestInfo": 130, "attributes.`Dataset`": 150, "metrics.`n_clusters`": 100,
    "metrics.`silhouette`": 110, "metrics.`bic`": 110, "metrics.`relative_validity`": 130, "metrics.`noise_fraction`": 120,
    "tags.`gpuclust.verdict_kind`": 130, "tags.`gpuclust.selected`": 120,
}  # fmt: skip
VIEWS = {
    "gpuclust-runs": {
        "selectedColumns": [name for name in RUN_COLUMNS if "`" in name],
        "columnOrder": list(RUN_COLUMNS),
        "columnWidths": RUN_COLUMNS,
    },
    # The curves by the swept key, of sweeps: single jobs have none.
    "gpuclust-charts": {
        "searchFilter": "tags.gpuclust.kind = 'sweep'",
        "chartsSearchFilter": "^(?!curve/|system/).+/",
    },
}
# Tags of an experiment, in which MLflow's UI keeps views that are shared by an address.
SHARED_VIEWS = {f"mlflow.sharedViewState.{name}": json.dumps(state) for name, state in VIEWS.items()}
# The digests of the views as they were written: a view with another digest was changed by a person.
VIEW_DIGESTS = "gpuclust.views"


def view_digest(view: str) -> str:
    """A short digest of a view."""
    return hashlib.blake2b(view.encode(), digest_size=8).hexdigest()


def view_tags() -> dict[str, str]:
    """The tags of a new experiment: its views and their digests."""
    return {**SHARED_VIEWS, VIEW_DIGESTS: " ".join(map(view_digest, SHARED_VIEWS.values()))}


# Without it MLflow shows its pages for language models.
WORKFLOW = "workflowType=machine_learning"


def pages(server: str, experiment_id: str, run_id: str | None = None, *, sweeps: bool = True) -> dict[str, str]:
    """Addresses in the MLflow UI of a server by what they show: the charts (of the sweeps, if there are ``sweeps``), the table of
    runs with the columns of `RUN_COLUMNS`, and a run."""
    runs = f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs"
    view = "&viewStateShareKey=gpuclust-charts" if sweeps else ""
    return {
        "charts": f"{runs}?{WORKFLOW}&compareRunsMode=CHART{view}",
        "table of runs": f"{runs}?{WORKFLOW}&viewStateShareKey=gpuclust-runs",
        **({"this run": f"{runs}/{run_id}?{WORKFLOW}"} if run_id else {}),
    }


@contextmanager
def silence_logger(name: str) -> Iterator[None]:
    """Suppress the messages of a logger below ERROR."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def configure_client() -> None:
    """Configure MLflow's client by environment variables, which its threads read too; variables set by the user are kept.

    Requests fail after seconds instead of silent retries for minutes. Progress bars are off, and "View run NAME at: ADDRESS"
    is not printed, because it would show the password in the address.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """The default hook, except for MLflow's system monitor, which fails if the store is unavailable."""
    if failure.thread is None or failure.thread.name != "SystemMetricsMonitor":
        threading.__excepthook__(failure)


def keep_logs_off_the_terminal() -> None:
    """Silence the loggers of MLflow, SQLAlchemy and urllib3, which log a traceback for each error that gpuclust reports."""
    threading.excepthook = _thread_failed
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    for name in NOISY:
        log = logging.getLogger(name)
        with suppress(ValueError):
            log.handlers[:] = [logging.NullHandler()]
        log.propagate = False
