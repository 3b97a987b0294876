"""The schema of the files of a table: its columns, their kinds and, for delimited text, how the files are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from gpuclust.data.files import TableFile, TableFiles, file_version, find_files
from gpuclust.data.frames import iter_arrow, open_arrow, unique_and_named
from gpuclust.data.remote import RemoteFile, arrow_input
from gpuclust.data.sniff import may_be_key, sniff
from gpuclust.data.table import CsvLayout, unique_names
from gpuclust.errors import DataError, message_of

HEAD_ROWS = 2000
HEAD_BUFFER = 1 << 16
"""Bytes of a request for the first rows of a remote file."""
INDEX_NAMES = ("", "Unnamed: 0", "__index_level_0__")


@dataclass(frozen=True)
class FileSchema:
    """The schema of one table in one or more files, before its rows are read.

    ``kinds`` maps a column to ``number``, ``boolean``, ``text``, ``list`` (of texts), ``vector`` (a list of numbers), ``date``, ``empty``, ``index`` or ``other``.
    ``layouts`` has one entry per CSV file and is empty for binary formats. ``keys`` are the text and integer columns
    whose first values are all present and distinct. ``differing`` has the kinds, one per file, of the columns of binary
    files whose kind is not the same in all of them.
    """

    files: TableFiles
    kinds: dict[str, str]
    layouts: tuple[CsvLayout, ...] = ()
    keys: tuple[str, ...] = ()
    differing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def decimal(self) -> str:
        """The decimal mark of numbers written as text."""
        return self.layouts[0].decimal if self.layouts else "."


def read_schema(path: str) -> FileSchema:
    """Read the schema of a file, of the files in a folder, or of anything else that `find_files` takes.

    Raises:
        DataError: a file is missing, empty or damaged, or the files of a folder have different columns.
    """
    files = find_files(path)
    return _schema_of(files, tuple(file_version(file) for file in files.paths))


@lru_cache(maxsize=32)
def _schema_of(files: TableFiles, versions: tuple[tuple[int, int] | None, ...]) -> FileSchema:
    """The schema of files. A command asks for it several times: for the preset, the forecast and each table."""
    del versions  # parts of the cache's key
    layouts: tuple[CsvLayout, ...] = ()
    if files.format == "csv":
        sniffed = [sniff(file) for file in files.paths]
        kinds = [s.kinds for s in sniffed]
        layouts = tuple(s.layout for s in sniffed)
        keys = [s.keys for s in sniffed]
    else:
        schemas = [_arrow_schema(file, files.format) for file in files.paths]
        kinds = [_binary_kinds(schema) for schema in schemas]
        keys = [_binary_keys(files, schemas[0])]
    for file, other in zip(files.paths[1:], kinds[1:], strict=True):
        if different := set(kinds[0]) ^ set(other):
            raise DataError(
                f"{file} and {files.paths[0].name} differ in column {sorted(different)[0]!r}; "
                "keep files with the same columns in a folder"
            )
    of_files = {name: tuple(k[name] for k in kinds) for name in kinds[0]}
    merged = {name: _merge_kinds(found) for name, found in of_files.items()}
    differing = {name: found for name, found in of_files.items() if len(set(found)) > 1 and not layouts}
    shared = [n for n in keys[0] if merged[n] in ("number", "text") and all(n in other for other in keys[1:])]
    return FileSchema(files, merged, layouts, tuple(shared), differing)


def kind_of(type_: Any) -> str:
    """The kind of an Arrow column type."""
    types = pa.types
    if types.is_dictionary(type_):
        return kind_of(type_.value_type)
    if types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_):
        return "number"
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        return "text"
    if types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_):
        inside = type_.value_type
        if types.is_integer(inside) or types.is_floating(inside):
            return "vector"
        return "list" if kind_of(inside) == "text" and not types.is_fixed_size_list(type_) else "other"
    if types.is_date(type_) or types.is_timestamp(type_):
        return "date"
    if types.is_boolean(type_):
        return "boolean"
    return "empty" if types.is_null(type_) else "other"


def _arrow_schema(file: TableFile, format: str) -> Any:
    try:
        if format == "parquet":
            return pa.parquet.read_schema(arrow_input(file))
        with open_arrow(file) as reader:
            return reader.schema
    except (pa.ArrowException, OSError) as error:
        text = message_of(error)
        raise DataError(f"{file} is a damaged {format.title()} file ({text}); write or fetch it again") from error


def _binary_kinds(schema: Any) -> dict[str, str]:
    kinds = {name: kind_of(type_) for name, type_ in zip(unique_names(schema.names), schema.types, strict=True)}
    first = next(iter(kinds), None)
    for name in kinds:
        if name == "__index_level_0__" or (name == first and name in INDEX_NAMES and kinds[name] == "number"):
            kinds[name] = "index"
    return kinds


def _binary_keys(files: TableFiles, schema: Any) -> tuple[str, ...]:
    """The text and integer columns that may be a key, by their first values in the first file."""
    kinds, types = _binary_kinds(schema), zip(unique_names(schema.names), schema.types, strict=True)
    whole = {name for name, type_ in types if pa.types.is_integer(type_) or kind_of(type_) == "text"}
    names = [name for name in kinds if kinds[name] in ("number", "text") and name in whole]
    head = first_rows(files.paths[0], files.format, names) if names else pa.table({})
    found = {n: [None if v is None else str(v) for v in head.column(n).to_pylist()] for n in head.column_names}
    return tuple(name for name, values in found.items() if may_be_key(values))


def first_rows(file: TableFile, format: str, names: Sequence[str]) -> Any:
    """The first rows of some columns of a binary file, as an Arrow table; an empty table if the file cannot be read."""
    try:
        if format == "parquet":
            parquet = pa.parquet.ParquetFile(
                arrow_input(file), buffer_size=HEAD_BUFFER if isinstance(file, RemoteFile) else 0
            )
            columns = list(names) if unique_and_named(parquet.schema_arrow.names) else None
            groups = (i for i in range(parquet.num_row_groups) if parquet.metadata.row_group(i).num_rows)
            batch = next(parquet.iter_batches(HEAD_ROWS, row_groups=[next(groups)], columns=columns))
        else:
            with open_arrow(file) as reader:
                batch = next(iter_arrow(reader)).slice(0, HEAD_ROWS)
        table = pa.Table.from_batches([batch])
        return table.rename_columns(unique_names(table.column_names)).select(list(names))
    except (pa.ArrowException, OSError, StopIteration):
        return pa.table({})


def _merge_kinds(kinds: Sequence[str]) -> str:
    """One kind for a column whose kind differs between files."""
    known = {kind for kind in kinds if kind != "empty"}
    if len(known) <= 1:
        return known.pop() if known else "empty"
    return "number" if "number" in known else "text"
