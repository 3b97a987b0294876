"""JSON lines: one object in each line, also compressed with gzip."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.json

from gpuclust.data.arrow_types import as_json
from gpuclust.data.remote import RemoteFile
from gpuclust.errors import DataError, message_of

BLOCK_BYTES = 16 << 20
"""Bytes that are parsed at once, and in which the types of columns are inferred."""
MAX_LINE_BYTES = 1 << 30


def json_tables(file: Path | RemoteFile) -> Iterator[pa.Table]:
    """The rows of a file in order, in tables; a key that some rows lack is missing there.

    The types of each table follow from its own values. Raises DataError for a line that is not a JSON object.
    """
    first, n_rows = 1, 0
    for block in _blocks(file):
        if first == 1:
            block = block.removeprefix(b"\xef\xbb\xbf")
            if block.lstrip()[:1] == b"[":
                raise DataError(
                    f"{file} is one JSON array; write one object per line, or read it with data.query=\"select * from '{file.name}'\""
                )
        if block.strip():
            table = _parsed(file, block, first)
            n_rows += len(table)
            yield table
        first += block.count(b"\n")
    if not n_rows:
        raise DataError(f"{file} is empty; give a file with one JSON object per line")


@contextmanager
def _opened(file: Path | RemoteFile) -> Iterator[BinaryIO]:
    with file.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        yield gzip.GzipFile(fileobj=raw) if compressed else raw  # type: ignore[misc]


def _blocks(file: Path | RemoteFile) -> Iterator[bytes]:
    """The text in blocks of whole lines."""
    try:
        with _opened(file) as stream:
            rest = b""
            while piece := stream.read(BLOCK_BYTES):
                whole = rest + piece
                end = whole.rfind(b"\n") + 1
                if not end and len(whole) > MAX_LINE_BYTES:
                    raise DataError(
                        f"{file} has a line of more than {MAX_LINE_BYTES >> 20:,} MiB; it is not JSON lines"
                    )
                if end:
                    yield whole[:end]
                rest = whole[end:]
            if rest:
                yield rest
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read: {message_of(error)}") from error


def _parsed(file: Path | RemoteFile, block: bytes, first: int) -> pa.Table:
    """The rows of a block whose first line has the number ``first``."""
    options = pa.json.ReadOptions(block_size=max(len(block), 1))
    try:
        table = pa.json.read_json(io.BytesIO(block), read_options=options)
        table.validate(full=True)  # texts may be no UTF-8
    except pa.ArrowInvalid:  # a column of several types, NaN, or a line that is not JSON
        return _parsed_by_line(file, block, first)
    return table


def _parsed_by_line(file: Path | RemoteFile, block: bytes, first: int) -> pa.Table:
    """As `_parsed`; a column whose values have several types becomes text."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(block.split(b"\n"), first):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{file}: line {number:,} is not JSON ({message_of(error)}); correct or remove it"
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"{file}: line {number:,} is not a JSON object but {as_json(row)!r:.60}; write one object per line"
            )
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([as_json(value) for value in values], pa.string())
