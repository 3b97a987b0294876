"""The result of a query as an Arrow file: by DuckDB over files and DuckDB databases, by SQLAlchemy in any other database."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from gpuclust.config import is_query
from gpuclust.data.arrow_types import as_json
from gpuclust.data.copies import BATCH_ROWS, content_of, copies_folder, write_copy
from gpuclust.data.lake_tables import open_tables
from gpuclust.data.remote import STORES, WEB
from gpuclust.errors import DataError, GpuclustError
from gpuclust.resources import available_memory
from gpuclust.sanitize import HIDDEN, mask, remember

MAX_SHOWN, MAX_REASON = 80, 200
"""Characters of a query and of an error in a message."""
_TABLE = re.compile(r"\bfrom\s+(?:'([^']+)'|\"([^\"]+)\"|([\w.]+))", re.IGNORECASE)
_REMOTE = re.compile(rf"['\"]({'|'.join((*STORES, *WEB))})://", re.IGNORECASE)
_PARAMETER = re.compile(r"(?<![:\w\\]):(?=\w)")
_EXTENSION = re.compile(r"exists in the (\w+) extension|requires the extension (\w+)|required extension '(\w+)'")


@dataclass(frozen=True)
class Query:
    """A SELECT statement; the database, None for files; and the folder that relative names of files begin in, None for the current one."""

    text: str
    database: str | None = None
    folder: str | None = None

    def __str__(self) -> str:
        shown = " ".join(mask(self.text).split())
        return f"the query {shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 1] + '…'}"

    @property
    def name(self) -> str:
        """What it reads, in a few letters."""
        found = _TABLE.search(self.text)
        first = next(filter(None, found.groups()), "") if found else ""
        return f"query of {first.rstrip('/').rpartition('/')[2]}" if first else "query"


@dataclass(frozen=True)
class QueryResult:
    """The rows of a query in an Arrow file, the digest of their values, and what computed them."""

    path: Path
    digest: str
    engine: str


def run_query(query: Query) -> QueryResult:
    """Run a query once in this process (see `forget_results`). Raises DataError in one line, or BackendError if the disk is full."""
    if not is_query(query.text):
        raise DataError(f"{query} is not a query: it must begin with SELECT, WITH or FROM")
    if HIDDEN in query.text:
        raise DataError(f"{query} was recorded without its password; give the query again")
    return _run(query)


def forget_results() -> None:
    """Run the queries again when they are needed next: what they read may have changed."""
    _run.cache_clear()


@lru_cache(maxsize=64)
def _run(query: Query) -> QueryResult:
    remember(query.database)
    database = _Database.of(query)
    with _one_line_errors(query):
        rows = _by_duckdb(query, database) if database.in_duckdb else _by_sqlalchemy(query, database)
        path = write_copy(_with_rows(query, rows), "query")
    return QueryResult(path, content_of(path), "DuckDB" if database.in_duckdb else "SQLAlchemy")


@dataclass(frozen=True)
class _Database:
    """Where a query runs: the path of a DuckDB database, None for files; or the address of another database."""

    path: Path | None = None
    address: str | None = None

    @property
    def in_duckdb(self) -> bool:
        """Whether DuckDB runs the query."""
        return self.address is None

    @classmethod
    def of(cls, query: Query) -> _Database:
        """The database of a query. Raises DataError for a file that does not exist."""
        named = query.database
        if named is None:
            return cls()
        scheme, separator, rest = named.partition("://")
        if separator and scheme.partition("+")[0] not in ("sqlite", "duckdb", "file"):
            return cls(address=named.replace(f":{HIDDEN}@", "@"))  # then PGPASSWORD or ~/.pgpass has the password
        file = Path(rest.removeprefix("/") if separator and scheme != "file" else rest or named).expanduser()
        file = Path(query.folder or "") / file
        if not file.is_file():
            raise DataError(
                f"data.database: {file} does not exist; give a database file, or an address such as postgresql://USER@HOST/NAME"
            )
        with file.open("rb") as stream:
            head = stream.read(16)
        if head[8:12] == b"DUCK":
            return cls(path=file)
        if head == b"SQLite format 3\0":
            return cls(address=f"sqlite:///file:{quote(str(file.absolute()))}?mode=ro&uri=true")
        raise DataError(
            f"data.database: {file} is neither an SQLite nor a DuckDB database; a query of files needs no data.database"
        )


def _by_duckdb(query: Query, database: _Database) -> Iterator[pa.Table]:
    try:
        import duckdb
    except ImportError as error:
        raise DataError("data.query over files needs the package duckdb: pip install 'gpuclust[duckdb]'") from error
    settings: dict[str, Any] = {
        "autoinstall_known_extensions": False,  # nothing is downloaded that was not asked for
        "memory_limit": f"{max(available_memory() // 2, 1 << 28)}B",
        "temp_directory": str(copies_folder()),
    }
    with duckdb.connect(
        str(database.path or ":memory:"), read_only=database.path is not None, config=settings
    ) as connection:
        connection.execute("SET file_search_path = ?", [query.folder or str(Path.cwd())])
        stores = _register_stores(query, connection)
        text, tables = open_tables(query.text, Path(query.folder or ""))
        for name, table in tables.items():
            connection.register(name, table)
        statements = connection.extract_statements(text)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise DataError(f"{query} must be one SELECT statement")
        try:
            result = connection.sql(statements[0])
            read = getattr(result, "to_arrow_reader", None) or result.fetch_arrow_reader  # from DuckDB 1.5, and before
            reader = read(BATCH_ROWS)
            _check_columns(query, reader.schema.names)
            yield from (pa.Table.from_batches([batch]) for batch in reader)
        except Exception:
            if stores is not None and stores.error is not None:
                raise stores.error from None
            raise


def _register_stores(query: Query, connection: Any) -> Any:
    """Let DuckDB read the addresses of a query as `gpuclust.data.remote` reads them; None where it names none."""
    if not _REMOTE.search(query.text):
        return None
    try:
        from gpuclust.data.query_stores import RemoteFiles
    except ImportError as error:
        raise DataError(
            f"a query of remote files needs the package fsspec (no module {error.name}): pip install 'gpuclust[remote]'"
        ) from error
    stores = RemoteFiles()
    connection.register_filesystem(stores)
    return stores


def _by_sqlalchemy(query: Query, database: _Database) -> Iterator[pa.Table]:
    import sqlalchemy as sa

    assert database.address is not None
    address = sa.make_url(database.address)
    if address.drivername in ("postgres", "postgresql"):
        address = address.set(drivername="postgresql+psycopg")
    options: dict[str, Any] = {"stream_results": True, "yield_per": BATCH_ROWS}
    if address.get_backend_name() == "postgresql":
        options["postgresql_readonly"] = True
    engine = sa.create_engine(address, poolclass=sa.pool.NullPool)
    with engine.connect() as connection:  # the transaction is rolled back at the end
        result = connection.execution_options(**options).execute(sa.text(_PARAMETER.sub(r"\\:", query.text)))
        names = list(result.keys())
        _check_columns(query, names)
        for rows in result.partitions():
            columns = zip(*rows, strict=True)
            yield pa.table({name: _column(list(values)) for name, values in zip(names, columns, strict=True)})


def _column(values: list[Any]) -> pa.Array:
    """Values from a database; a column of several types becomes text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([as_json(value) for value in values], pa.string())


def _check_columns(query: Query, names: Sequence[str]) -> None:
    if repeated := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise DataError(f"{query} has two columns called {repeated!r}; name one of them with AS, or leave it out")


def _with_rows(query: Query, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The tables that have rows. Raises DataError if there is none."""
    n_rows = 0
    for table in tables:
        n_rows += len(table)
        if len(table):
            yield table
    if not n_rows:
        raise DataError(f"{query} returns no rows; correct its conditions")


@contextmanager
def _one_line_errors(query: Query) -> Iterator[None]:
    """Errors of DuckDB, SQLAlchemy and the drivers as a DataError of one line."""
    try:
        yield
    except GpuclustError:
        raise
    except ModuleNotFoundError as error:
        extra = "'gpuclust[postgres]'" if error.name == "psycopg" else "a package that has it"
        raise DataError(f"data.database needs a driver (no module {error.name}): pip install {extra}") from error
    except Exception as error:  # each driver has its own exception classes
        text = " ".join(str(getattr(error, "orig", None) or error).split())
        raise DataError(f"{query}: {mask(_reason(text))}") from error


def _reason(text: str) -> str:
    """What is wrong, in one line, from the message of DuckDB or of a driver."""
    if found := _EXTENSION.search(text):
        name = next(filter(None, found.groups()))
        install = f"python -c \"import duckdb; duckdb.sql('INSTALL {name}')\""
        if name in ("delta", "iceberg"):
            return (
                f"pip install 'gpuclust[lakehouse]' for it (a remote Iceberg table needs DuckDB's extension: {install})"
            )
        return f"DuckDB needs its extension {name} for it, which is not installed; run once: {install}"
    text = re.split(r"\s*(?:LINE \d+:|\[SQL:|\(Background on this error)", text)[0]
    return re.sub(r"^(?:\w+ )?Error: ", "", text).rstrip(".")[:MAX_REASON]
