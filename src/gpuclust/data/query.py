"""The result of a query as an Arrow file: by DuckDB over files and DuckDB databases, by SQLAlchemy in any other database."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from gpuclust.config import is_query
from gpuclust.data.arrow_types import as_json
from gpuclust.data.copies import BATCH_ROWS, content_of, write_copy
from gpuclust.errors import DataError, GpuclustError
from gpuclust.resources import available_memory
from gpuclust.sanitize import HIDDEN, mask, remember

DUCKDB_SUFFIXES = (".duckdb", ".ddb")
MAX_SHOWN, MAX_REASON = 80, 200
"""Characters of a query and of an error in a message."""
_TABLE = re.compile(r"\bfrom\s+(?:'([^']+)'|\"([^\"]+)\"|([\w.]+))", re.IGNORECASE)
_PARAMETER = re.compile(r"(?<![:\w\\]):(?=\w)")
_EXTENSION = re.compile(
    r"(?:exists? in|required extension|requires|extension) (?:the )?[\"']?(\w+)[\"']?(?: extension)?", re.IGNORECASE
)


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
        raise DataError(f"{query} is not a query that reads: it must begin with SELECT, WITH or FROM")
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
        if database.in_duckdb:
            path, engine = write_copy(_by_duckdb(query, database), "query"), "DuckDB"
        else:
            path, engine = write_copy(_by_sqlalchemy(query, database), "query"), "SQLAlchemy"
    return QueryResult(path, content_of(path), engine)


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
        if scheme == "duckdb" or (scheme.partition("+")[0] != "sqlite" and not _is_sqlite(file)):
            return cls(path=file)
        return cls(address=f"sqlite:///file:{file.absolute()}?mode=ro&uri=true")


def _is_sqlite(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(16) == b"SQLite format 3\0"


def _by_duckdb(query: Query, database: _Database) -> Iterator[pa.Table]:
    try:
        import duckdb
    except ImportError as error:
        raise DataError("data.query over files needs the package duckdb: pip install 'gpuclust[duckdb]'") from error
    settings: dict[str, Any] = {
        "autoinstall_known_extensions": False,  # nothing is downloaded that was not asked for
        "memory_limit": f"{max(available_memory() // 2, 1 << 28)}B",
    }
    with duckdb.connect(
        str(database.path or ":memory:"), read_only=database.path is not None, config=settings
    ) as connection:
        connection.execute("SET file_search_path = ?", [query.folder or str(Path.cwd())])
        statements = connection.extract_statements(query.text)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise DataError(f"{query} must be one SELECT statement")
        result = connection.execute(statements[0])
        read = getattr(result, "to_arrow_reader", None) or result.fetch_record_batch  # from DuckDB 1.5, and before
        reader = read(BATCH_ROWS)
        _check_columns(query, reader.schema.names)
        n_rows = 0
        for batch in reader:
            n_rows += batch.num_rows
            yield pa.Table.from_batches([batch])
        _check_rows(query, n_rows)


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
        n_rows = 0
        for rows in result.partitions():
            n_rows += len(rows)
            columns = zip(*rows, strict=True)
            yield pa.table({name: _column(list(values)) for name, values in zip(names, columns, strict=True)})
        _check_rows(query, n_rows)


def _column(values: list[Any]) -> pa.Array:
    """Values from a database; a column of several types becomes text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([as_json(value) for value in values], pa.string())


def _check_columns(query: Query, names: Sequence[str]) -> None:
    if repeated := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise DataError(f"{query} has two columns called {repeated!r}; name one of them with AS, or leave it out")


def _check_rows(query: Query, n_rows: int) -> None:
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
        extra = "'gpuclust[postgres]'" if error.name == "psycopg" else f"the package with the module {error.name}"
        raise DataError(f"data.database needs a driver (no module {error.name}): pip install {extra}") from error
    except Exception as error:  # each driver has its own exception classes
        text = " ".join(str(getattr(error, "orig", None) or error).split())
        raise DataError(f"{query}: {mask(_reason(text))}") from error


def _reason(text: str) -> str:
    """What is wrong, in one line, from the message of DuckDB or of a driver."""
    if "extension" in text and (found := _EXTENSION.search(text)):
        name = found[1]
        return f"DuckDB needs its extension {name} for it, which is not installed; run once: python -c \"import duckdb; duckdb.sql('INSTALL {name}')\""
    text = re.split(r"\s*(?:LINE \d+:|\[SQL:|\(Background on this error)", text)[0]
    return re.sub(r"^(?:\w+ )?Error: ", "", text).rstrip(".")[:MAX_REASON]
