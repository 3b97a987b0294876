"""Creation, migration and first use of a store, by one process at a time.

MLflow creates the tables of a SQLite file in some seventy steps, in place; if it is killed or the disk is full in between,
MLflow can neither use nor repair the database. So a file is created under another name and renamed. MLflow fails if two
processes create the same database at once, so a lock lets one process in at a time.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gpuclust.errors import StoreUnavailable, TrackingError
from gpuclust.tracking.store_location import FULL, check_reachable, shown, silence_logger, sqlite_uri, store_file

try:
    import fcntl
except ImportError as error:
    raise TrackingError("gpuclust runs on Linux and macOS; on Windows use WSL") from error

# Suffixes of the files that SQLite keeps beside a database.
COMPANIONS = ("-journal", "-wal", "-shm")
# Tables that have rows in a new store; `experiments` then has the row Default only.
ALWAYS_FILLED = ("alembic_version", "workspaces", "experiments")
MAX_WAIT_SECONDS = 60.0
# Statements that take a database's lock if it is free; they return 1 or true if they took it.
LOCK_STATEMENTS = {
    "postgresql": "SELECT pg_try_advisory_lock(7476101)",
    "mysql": "SELECT GET_LOCK('gpuclust', 0)",
}


@dataclass(frozen=True)
class State:
    """The content of a SQLite file: its tables, the revision of its schema, and the number of rows recorded in it."""

    tables: frozenset[str] = frozenset()
    revision: str | None = None
    n_rows: int = 0

    @property
    def ready(self) -> bool:
        """Whether MLflow can use the file as it is."""
        from mlflow.store.db.utils import Base, _get_latest_schema_revision

        leftover = any(name.startswith("_alembic_tmp_") for name in self.tables)
        return not leftover and Base.metadata.tables.keys() <= self.tables and (
            self.revision == _get_latest_schema_revision()
        )  # fmt: skip


@contextmanager
def file_lock(file: Path) -> Iterator[None]:
    """Hold the exclusive lock of a file among the processes of this machine; it ends with the process, even if that is killed.

    filelock polls for a lock that another process holds, which doubles the time that waiting processes take.
    """
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def complete_store(uri: str, artifacts: str | None, create: bool, report: Callable[[str], None]) -> Iterator[None]:
    """Hold the store's lock and make the store complete, so that MLflow can open it within the context.

    A SQLite file that was left incomplete and has no runs is created again. A copy of a file of an older MLflow is migrated,
    and the old file is kept beside it. Raises TrackingError if there is no store and ``create`` is false, or if it
    cannot be written, and OSError if a server does not respond.
    """
    path = store_file(uri)
    with silence_logger("alembic"), silence_logger("mlflow.store.db.utils"):
        if path is None:
            check_reachable(uri)
            with store_lock(uri):
                yield
            return
        if not create and not path.exists():
            raise TrackingError(f"there is no tracking store at {path}; run a job first, or set tracking.uri")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not all(os.access(p, os.W_OK, effective_ids=True) for p in (path, path.parent) if p.exists()):
            raise TrackingError(f"the tracking store {path} is read-only here; set tracking.uri to a writable place")
        with file_lock(path.parent / ".mlflow.lock"):
            _make_ready(path, artifacts or "", create, report)
            yield


def has_store_lock(uri: str) -> bool:
    """Whether `store_lock` excludes other processes: not over HTTP, and not in databases without advisory locks."""
    return store_file(uri) is not None or _database(uri) in LOCK_STATEMENTS


@contextmanager
def store_lock(uri: str) -> Iterator[None]:
    """Hold the store's lock: that of a file beside a SQLite store, or the database's own. Without one, do nothing."""
    import sqlalchemy

    path = store_file(uri)
    if path is not None:
        with file_lock(path.parent / ".mlflow.lock"):
            yield
        return
    statement = LOCK_STATEMENTS.get(_database(uri))
    if statement is None:
        yield
        return
    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool, connect_args={"connect_timeout": 5})
    connection = engine.connect()
    try:
        deadline = time.monotonic() + MAX_WAIT_SECONDS
        while not connection.execute(sqlalchemy.text(statement)).scalar():
            if time.monotonic() > deadline:
                raise StoreUnavailable(f"the tracking store {shown(uri)} is locked by another process; try again later")
            time.sleep(0.05)
        yield
    finally:
        with suppress(sqlalchemy.exc.SQLAlchemyError):  # the server is gone, and its lock too
            connection.close()


def _database(uri: str) -> str:
    return uri.partition(":")[0].partition("+")[0]


def _make_ready(path: Path, artifacts: str, create: bool, report: Callable[[str], None]) -> None:
    state = inspect(path)
    if state.ready:
        return
    if state.tables:
        state = _not_in_use(path)
        if state.ready:
            return
    if state.n_rows:
        _migrate(path, artifacts, state, report)
    elif create:
        if state.tables:
            report(f"the tracking store {path} was left incomplete and holds no runs: it is created again")
        _replace(path, lambda temporary: _make(temporary, artifacts))
    else:
        raise TrackingError(f"the tracking store {path} was left incomplete and holds no runs; run a job first")


def inspect(path: Path) -> State:
    """Read the state of a file. SQLite rolls back a transaction that a killed process left open. Raises sqlite3.Error."""
    if not path.exists() or not path.stat().st_size:
        return State()
    with closing(sqlite3.connect(os.fspath(path), timeout=20)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        row = db.execute("SELECT version_num FROM alembic_version").fetchone() if "alembic_version" in tables else None
        n_rows = sum(
            db.execute(f'SELECT EXISTS (SELECT 1 FROM "{name}")').fetchone()[0]
            for name in tables
            if name not in ALWAYS_FILLED and not name.startswith("sqlite_")
        )
        if "experiments" in tables:
            n_rows += max(0, db.execute("SELECT count(*) FROM experiments").fetchone()[0] - 1)
        return State(frozenset(tables), row[0] if row else None, n_rows)


def _replace(path: Path, make: Callable[[Path], None]) -> None:
    """Create a database under another name and rename it, so that the path always has the old file or the new one."""
    temporary = path.with_name(f".{path.name}.new")
    _remove(temporary)
    try:
        make(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        for companion in COMPANIONS:  # of the old file: SQLite would roll them back into the new one
            path.with_name(path.name + companion).unlink(missing_ok=True)
        temporary.replace(path)
        _forget(sqlite_uri(path))
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    for name in (path.name, *(path.name + companion for companion in COMPANIONS)):
        path.with_name(name).unlink(missing_ok=True)


def _make(path: Path, artifacts: str) -> None:
    """Create MLflow's tables in a new file."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    uri = sqlite_uri(path)
    try:
        SqlAlchemyStore(uri, artifacts)
    finally:
        _forget(uri)


def _forget(uri: str) -> None:
    """Close MLflow's connections to a file that is renamed."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    engine = SqlAlchemyStore._engine_map.pop(uri, None)
    if engine is not None:
        engine.dispose()


def _migrate(path: Path, artifacts: str, state: State, report: Callable[[str], None]) -> None:
    """Migrate a copy to the schema of this MLflow and let it replace the old file, which is kept under another name.

    If the migration fails for another reason than disk space, the old file is renamed and a new store is created.
    """
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from mlflow.store.db import utils
    from sqlalchemy.exc import SQLAlchemyError

    if _is_newer(state.revision):
        raise TrackingError(
            f"the tracking store {path} was written by a newer MLflow (schema {state.revision}); upgrade mlflow, or set "
            "another tracking.uri"
        )

    def migrated_copy(temporary: Path) -> None:
        _copy(path, temporary)
        engine = utils.create_sqlalchemy_engine(sqlite_uri(temporary))
        try:
            if state.revision is None:
                utils._initialize_tables(engine)
            else:
                utils._upgrade_db(engine)
        finally:
            engine.dispose()
        if not inspect(temporary).ready:
            raise sqlite3.DatabaseError("its migration leaves it incomplete")
        kept = _free_name(path, "before-migration")
        try:
            os.link(path, kept)
        except OSError:  # a file system without hard links
            shutil.copy2(path, kept)
        report(f"the tracking store {path} was migrated to this MLflow's tables; the old file is kept as {kept.name}")

    try:
        _replace(path, migrated_copy)
    except (SQLAlchemyError, MlflowException, CommandError, sqlite3.Error, KeyError, ValueError) as error:
        if FULL.search(str(error)) or "locked" in str(error) or "I/O" in str(error):
            raise
        kept = _free_name(path, "damaged")
        path.rename(kept)
        reason = str(error).splitlines()[0][:200]
        report(f"the tracking store {path} is damaged ({reason}); it is kept as {kept.name}, and a new store is made")
        _replace(path, lambda temporary: _make(temporary, artifacts))


def _copy(path: Path, to: Path) -> None:
    """Copy a database consistently, without the temporary tables of an interrupted migration."""
    with closing(sqlite3.connect(os.fspath(path), timeout=20)) as old, closing(sqlite3.connect(os.fspath(to))) as new:
        old.backup(new)
        tables = {name for (name,) in new.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for name in tables:
            if name.startswith("_alembic_tmp_") and name.removeprefix("_alembic_tmp_") in tables:
                new.execute(f'DROP TABLE "{name}"')
        new.commit()


def _is_newer(revision: str | None) -> bool:
    """Whether this MLflow does not know the revision of a schema."""
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from mlflow.store.db.utils import _get_alembic_config

    if revision is None:
        return False
    try:
        return ScriptDirectory.from_config(_get_alembic_config("")).get_revision(revision) is None
    except CommandError:
        return True


def _free_name(path: Path, why: str) -> Path:
    """An unused name beside the file."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = (path.with_name(f"{path.name}.{why}-{stamp}{n}") for n in ("", *(f"-{i}" for i in range(2, 1000))))
    return next(name for name in names if not name.exists())


def _not_in_use(path: Path) -> State:
    """Wait until no other process, which may be creating or migrating the file, has it open; return its state."""
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    while user := _user_of(path):
        state = inspect(path)
        if state.ready:
            return state
        if time.monotonic() > deadline:
            raise TrackingError(
                f"the tracking store {path} is incomplete and open in process {user}; stop that process and repeat"
            )
        time.sleep(0.5)
    return inspect(path)


def _user_of(path: Path) -> str | None:
    """Another process that has the file open, as ``PID (NAME)``, or None."""
    import psutil

    wanted = os.path.realpath(path)
    for process in psutil.process_iter(["pid", "name"]):
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and any(f.path == wanted for f in process.open_files()):
                return f"{process.pid} ({process.info['name']})"
    return None
