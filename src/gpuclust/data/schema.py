"""The schema of the files of a table: its columns, their kinds and, for delimited text, how the files are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from gpuclust.data.files import TableFile, TableFiles, find_files
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

    ``kinds`` maps a column to ``number``, ``boolean``, ``text``, ``list``, ``date``, ``empty``, ``index`` or ``other``.
    ``layouts`` has one entry per CSV file and is empty for binary formats. ``keys`` are the text and integer columns
    whose first values are all present and distinct.
    """

    files: TableFiles
    kinds: dict[str, str]
    layouts: tuple[CsvLayout, ...] = ()
    keys: tuple[str, ...] = ()

    @property
    def decimal(self) -> str:
        """The decimal mark of numbers written as text."""
        return self.layouts[0].decimal if self.layouts else "."


def read_schema(path: str) -> FileSchema:
    """Read the schema of a file, or of the files in a folder.

    Raises:
        DataError: a file is missing, empty or damaged, or the files of a folder have different columns.
    """
    files = find_files(path)
    layouts: tuple[CsvLayout, ...] = ()
    if files.format == "csv":
        sniffed = [sniff(file) for file in files.paths]
        kinds = [s.kinds for s in sniffed]
        layouts = tuple(s.layout for s in sniffed)
        keys = [s.keys for s in sniffed]
    else:
        kinds = [_binary_kinds(file, files.format) for file in files.paths]
        keys = [_binary_keys(files, kinds[0])]
    for file, other in zip(files.paths[1:], kinds[1:], strict=True):
        if different := set(kinds[0]) ^ set(other):
            raise DataError(
                f"{file} and {files.paths[0].name} differ in column {sorted(different)[0]!r}; "
                "keep files with the same columns in a folder"
            )
    merged = {name: _merge_kinds([k[name] for k in kinds]) for name in kinds[0]}
    shared = [n for n in keys[0] if merged[n] in ("number", "text") and all(n in other for other in keys[1:])]
    return FileSchema(files, merged, layouts, tuple(shared))


def kind_of(type_: Any) -> str:
    """The kind of an Arrow column type."""
    types = pa.types
    if types.is_dictionary(type_):
        return kind_of(type_.value_type)
    if types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_):
        return "number"
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        return "text"
    if types.is_list(type_) or types.is_large_list(type_):
        return "list" if kind_of(type_.value_type) == "text" else "other"
    if types.is_date(type_) or types.is_timestamp(type_):
        return "date"
    if types.is_boolean(type_):
        return "boolean"
    return "empty" if types.is_null(type_) else "other"


def _binary_kinds(file: TableFile, format: str) -> dict[str, str]:
    try:
        if format == "parquet":
            schema = pa.parquet.read_schema(arrow_input(file))
        else:
            with open_arrow(file) as reader:
                schema = reader.schema
    except (pa.ArrowException, OSError) as error:
        text = message_of(error)
        raise DataError(f"{file} is a damaged {format.title()} file ({text}); write or fetch it again") from error
    kinds = {name: kind_of(type_) for name, type_ in zip(unique_names(schema.names), schema.types, strict=True)}
    first = next(iter(kinds), None)
    for name in kinds:
        if name == "__index_level_0__" or (name == first and name in INDEX_NAMES and kinds[name] == "number"):
            kinds[name] = "index"
    return kinds


def _binary_keys(files: TableFiles, kinds: dict[str, str]) -> tuple[str, ...]:
    """The text and integer columns that may be a key, by their first values in the first file."""
    names = [name for name, kind in kinds.items() if kind in ("number", "text")]
    head = first_rows(files.paths[0], files.format, names)
    whole = [f.name for f in head.schema if pa.types.is_integer(f.type) or kind_of(f.type) == "text"]
    return tuple(n for n in whole if may_be_key([None if v is None else str(v) for v in head.column(n).to_pylist()]))


def first_rows(file: TableFile, format: str, names: Sequence[str]) -> Any:
    """The first rows of some columns of a binary file, as an Arrow table; an empty table if the file cannot be read."""
    try:
        if format == "parquet":
            parquet = pa.parquet.ParquetFile(
                arrow_input(file), buffer_size=HEAD_BUFFER if isinstance(file, RemoteFile) else 0
            )
            columns = list(names) if unique_and_named(parquet.schema_arrow.names) else None
            batch = next(parquet.iter_batches(HEAD_ROWS, columns=columns))
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
