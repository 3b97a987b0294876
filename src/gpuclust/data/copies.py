"""Arrow copies of tables that are not in files which can be read by columns: JSON lines, sheets of workbooks, results of queries.

A copy is in a temporary folder (`gpuclust.folders.default_folder`) that is removed when the process ends, or by a later process if this
one is killed.
"""

from __future__ import annotations

import atexit
import hashlib
import itertools
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from gpuclust.data.arrow_types import common_schema, with_schema
from gpuclust.errors import BackendError
from gpuclust.folders import default_folder, new_locked_folder

BATCH_ROWS = 65_536
"""Rows of a batch of a copy."""
MARK = "scratch"
"""The file by which `gpuclust.runtime.scratch` recognises a folder that a killed process left."""

_numbers = itertools.count()


def write_copy(tables: Iterable[pa.Table], name: str) -> Path:
    """Write tables, one after another, to an Arrow file; ``name`` is a part of its name.

    The tables may differ in their columns and types: see `common_schema`. The members of a struct become columns (``struct.member``),
    and categories become their values. Raises BackendError if the disk is full.
    """
    target = copies_folder() / f"{next(_numbers)}-{name}"
    parts: list[_Part] = []
    try:
        for table in tables:
            plain = _plain(table)
            if not parts or not parts[-1].takes(plain.schema):
                parts.append(_Part(target.with_name(f"{target.name}.part{len(parts)}"), plain.schema))
            parts[-1].write(plain)
        for part in parts:
            part.close()
        if len(parts) == 1:
            return parts[0].path.rename(target)
        whole = _Part(target, common_schema([part.schema for part in parts]))
        for part in parts:
            for batch in read_copy(part.path):
                whole.write(pa.Table.from_batches([batch]))
        whole.close()
        return target
    finally:
        for part in parts:
            part.remove()


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Errors of writing a file as a BackendError of one line."""
    try:
        yield
    except OSError as error:
        raise BackendError(
            f"{path.parent.parent} cannot hold the rows: {error.strerror or error}; set TMPDIR to a folder on a larger disk"
        ) from error


def copies_folder() -> Path:
    """The temporary folder of the copies of this process."""
    with _disk_errors(default_folder() / "copies" / "copy"):
        return _folder(os.getpid())


@lru_cache(maxsize=2)
def _folder(process: int) -> Path:
    """The folder of the copies of a process; a process that was forked has its own."""
    path, lock = new_locked_folder(default_folder(), f"gpuclust-{process}-")
    (path / MARK).touch()

    def remove() -> None:
        if os.getpid() == process:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)

    atexit.register(remove)
    return path


@dataclass
class _Part:
    """An Arrow file of tables of one schema."""

    path: Path
    schema: pa.Schema
    _writer: Any = field(init=False)

    def __post_init__(self) -> None:
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with _disk_errors(self.path):
            self._sink = pa.OSFile(str(self.path), "wb")
            self._writer = pa.ipc.new_file(self._sink, self.schema, options=options)

    def takes(self, schema: pa.Schema) -> bool:
        """Whether the types of the file hold the values of another schema."""
        return schema.equals(self.schema) or common_schema([self.schema, schema]).equals(self.schema)

    def write(self, table: pa.Table) -> None:
        """Append a table."""
        fitting = with_schema(table, self.schema)
        with _disk_errors(self.path):
            self._writer.write_table(fitting, max_chunksize=BATCH_ROWS)

    def close(self) -> None:
        """Complete the file."""
        with _disk_errors(self.path):
            self._writer.close()
            self._sink.close()

    def remove(self) -> None:
        """Remove the file, if it still has its own name."""
        if not self._sink.closed:
            self._sink.close()
        self.path.unlink(missing_ok=True)


def read_copy(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of a copy."""
    with pa.OSFile(str(path)) as file:
        reader = pa.ipc.open_file(file)
        yield from (reader.get_batch(i) for i in range(reader.num_record_batches))


def _plain(table: pa.Table) -> pa.Table:
    """A table without structs, categories and extension types."""
    table = table.replace_schema_metadata(None)
    while any(pa.types.is_struct(kind) for kind in table.schema.types):
        table = table.flatten()
    columns = [_plain_column(column) for column in table.columns]
    return pa.Table.from_arrays(columns, names=table.column_names)


def _plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if isinstance(column.type, pa.BaseExtensionType):
        kind = column.type.storage_type
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind)
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def content_of(path: Path) -> str:
    """SHA-256 of the names, types and values of a copy: 64 hexadecimal digits. It does not depend on the batches, nor on what an array
    holds in the place of a missing value."""
    whole: _ColumnHash | None = None
    for batch in read_copy(path):
        if whole is None:
            whole = _ColumnHash(str([(field.name, str(field.type)) for field in batch.schema]))
        for i, column in enumerate(batch.columns):
            whole.inside(str(i)).add(column)
    return whole.hexdigest() if whole is not None else hashlib.sha256().hexdigest()


class _ColumnHash:
    """A digest of a column that is added in parts: of which values are present, of their lengths and of the values, each apart."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._streams = [hashlib.sha256() for _ in range(3)]
        self._inside: dict[str, _ColumnHash] = {}

    def inside(self, name: str) -> _ColumnHash:
        """The digest of something in it."""
        return self._inside.setdefault(name, _ColumnHash(name))

    def add(self, array: pa.Array) -> None:
        """Add the next values."""
        kind, (present, lengths, values) = array.type, self._streams
        present.update(_bytes(array.is_valid()))
        if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
            values.update(_bytes(array.drop_null()))
        elif pa.types.is_temporal(kind) and kind.bit_width in (32, 64) and not pa.types.is_interval(kind):
            values.update(_bytes(array.view(pa.int64() if kind.bit_width == 64 else pa.int32()).drop_null()))
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            texts = array.drop_null()
            lengths.update(_bytes(pc.binary_length(texts).cast(pa.int64())))
            values.update("".join(texts.to_pylist()).encode())
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            lengths.update(_bytes(pc.list_value_length(array).drop_null().cast(pa.int64())))
            self.inside("items").add(array.flatten())
        else:
            values.update("".join(map(repr, array.to_pylist())).encode())

    def hexdigest(self) -> str:
        """The digest of all that was added."""
        inside = [self._inside[name].hexdigest() for name in sorted(self._inside)]
        return hashlib.sha256(
            " ".join([self._kind, *(s.hexdigest() for s in self._streams), *inside]).encode()
        ).hexdigest()


def _bytes(array: pa.Array) -> bytes:
    plain = array.cast(pa.uint8()) if pa.types.is_boolean(array.type) else array
    return bytes(plain.to_numpy(zero_copy_only=False).tobytes())
