"""Delta and Iceberg tables, read by the packages deltalake and pyiceberg, as data sets of Arrow that DuckDB queries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from gpuclust.data.copies import write_copy
from gpuclust.data.remote import is_remote, open_store, without_query
from gpuclust.errors import DataError

# A text, a quoted name or a comment, in which a call does not count; or a call.
_CALL = re.compile(
    r"'(?:[^']|'')*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/|\b(?P<function>delta_scan|iceberg_scan)\s*\(\s*'(?P<path>(?:[^']|'')*)'\s*\)",
    re.IGNORECASE | re.DOTALL,
)
_VERSION = re.compile(r"v?(\d+)")


def scan_of(folder: Path) -> str | None:
    """The function of a query that reads the table in a folder; None if the folder is neither a Delta nor an Iceberg table."""
    if (folder / "_delta_log").is_dir():
        return "delta_scan"
    return "iceberg_scan" if _metadata_files(folder) else None


def query_of(folder: Path) -> str | None:
    """The query of all rows of a Delta or Iceberg table; None for another folder."""
    function, path = scan_of(folder), str(folder.absolute()).replace("'", "''")
    return f"from {function}('{path}')" if function else None


def open_tables(text: str, folder: Path) -> tuple[str, dict[str, Any]]:
    """The text of a query with a name in place of each ``delta_scan('PATH')`` and ``iceberg_scan('PATH')``, and the data sets by name.

    A relative path begins in ``folder``. A call stays as it is, for the extension of DuckDB, if its package is not installed, or if it
    names a remote Iceberg table. Raises DataError for a folder that is not such a table.
    """
    found: dict[str, Any] = {}

    def named(call: re.Match[str]) -> str:
        function, path = (call["function"] or "").lower(), (call["path"] or "").replace("''", "'")
        if not function or (is_remote(path) and function != "delta_scan"):
            return call[0]
        try:
            data = _delta(path, folder) if function == "delta_scan" else _iceberg(_folder(path, folder, function))
        except ImportError:
            return call[0]
        name = f"gpuclust_table_{len(found)}"
        found[name] = data
        return name

    return _CALL.sub(named, text), found


def _folder(path: str, folder: Path, function: str) -> Path:
    """The local folder of a table. Raises DataError if it is not a table that the function reads."""
    place = folder / Path(path).expanduser()
    if scan_of(place) != function:
        kind = "a Delta" if function == "delta_scan" else "an Iceberg"
        raise DataError(f"{place} is not {kind} table; give the folder of one")
    return place


def _delta(path: str, folder: Path) -> Any:
    """The current version of a Delta table."""
    from deltalake import DeltaTable

    if not is_remote(path):
        return DeltaTable(str(_folder(path, folder, "delta_scan"))).to_pyarrow_dataset()
    from pyarrow.fs import SubTreeFileSystem

    table = DeltaTable(without_query(path)[0], storage_options={"allow_http": "true"})
    store, root = open_store(path)
    return table.to_pyarrow_dataset(filesystem=SubTreeFileSystem(root, store))


def _iceberg(folder: Path) -> Any:
    """The current snapshot of an Iceberg table. It is a copy, because DuckDB may read it more than once."""
    from pyarrow.dataset import dataset
    from pyiceberg.table import StaticTable

    def tables() -> Iterator[pa.Table]:
        reader = StaticTable.from_metadata(str(_metadata_files(folder)[-1])).scan().to_arrow_batch_reader()
        yield reader.schema.empty_table()
        yield from (pa.Table.from_batches([batch]) for batch in reader)

    return dataset(write_copy(tables(), "iceberg"), format="ipc")


def _metadata_files(folder: Path) -> list[Path]:
    """The files of metadata of an Iceberg table, the newest last: ``00002-….metadata.json``, or ``v2.metadata.json``."""
    found = [(_VERSION.match(file.name), file) for file in (folder / "metadata").glob("*.metadata.json")]
    return [file for _, file in sorted((int(number[1]), file) for number, file in found if number)]
