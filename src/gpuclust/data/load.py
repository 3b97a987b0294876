"""Load the selected columns of the files of a table into one frame, and count the records that cannot be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpuclust.data.batches import BatchedColumns, as_float64, as_text
from gpuclust.data.files import TableFile
from gpuclust.data.schema import FileSchema
from gpuclust.data.sniff import sniff, utf8_stream
from gpuclust.data.table import NULL_SPELLINGS, CsvLayout, CsvRows, Frame, Frames
from gpuclust.errors import DataError

MAX_BAD_SHARE = 0.01
"""Share of the rows that may be unreadable under ``data.bad_rows=few``."""
_QUOTE = b'"'
_NUMBER = re.compile(rb"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")
_NULLS = frozenset(spelling.encode() for spelling in NULL_SPELLINGS)


@dataclass(frozen=True)
class LoadedColumns:
    """Columns of a table, with the corrected layout of each CSV file and the records that could not be read."""

    frame: Frame
    layouts: tuple[CsvLayout, ...] = ()
    bad: tuple[tuple[TableFile, BadRecords], ...] = ()
    readers: tuple[str, ...] = ()
    """Which reader read the CSV files, and why, without repetitions: see `gpuclust.data.table.CsvRows`."""

    @property
    def n_bad(self) -> int:
        """Number of lines that could not be read as rows."""
        return sum(records.n_lines for _, records in self.bad)

    def bad_rows_warning(self, policy: str) -> str | None:
        """A warning about unreadable rows, or None.

        Raises DataError if the policy of `data.bad_rows` does not allow that many.
        """
        if not self.bad:
            return None
        file, records = self.bad[0]
        n_rows = len(self.frame) + self.n_bad
        line = f"{self.n_bad:,} of {n_rows:,} rows could not be read; the first is line {records.first:,} of {file.name} ({records.reason})"
        if policy == "error" or (policy == "few" and self.n_bad > MAX_BAD_SHARE * n_rows):
            raise DataError(f"{file}: {line}; correct the file, or set data.bad_rows=skip to leave these rows out")
        return line


def load_columns(
    schema: FileSchema, frames: Frames, columns: Sequence[str], *, text: Collection[str] = ()
) -> LoadedColumns:
    """Load columns of the files.

    A CSV column of kind ``number`` or ``empty`` is float64 if all of its cells can be; the columns ``text`` stay as they
    are written. A Parquet or Feather column that is text in one file and numbers or booleans in another is text, one of numbers
    and booleans is float64. Raises DataError for other columns whose types differ between the files.
    """
    files = schema.files
    if files.format != "csv":
        reader = frames.read_parquet if files.format == "parquet" else frames.read_feather
        conversions = {name: _to_one_type(schema, name) for name in schema.differing if name in columns}
        parts = [reader(file, columns) for file in files.paths]
        for name, how in conversions.items():
            if how is not None:
                _convert(parts, name, how)
        return LoadedColumns(frames.concat(parts))
    numbers = [name for name in columns if schema.kinds[name] in ("number", "empty") and name not in text]
    as_numbers = set(numbers)
    texts = [name for name in columns if name not in as_numbers]
    parts, layouts, bad, readers = [], [], [], []
    numeric = frozenset(name for name, kind in schema.kinds.items() if kind == "number")
    for file, layout in zip(files.paths, schema.layouts, strict=True):
        rows, layout, records = _load_csv(file, layout, frames, numbers, texts, numeric)
        parts.append(rows.frame)
        readers.append(rows.reader)
        layouts.append(layout)
        if records.n_lines:
            bad.append((file, records))
    named = tuple(dict.fromkeys(filter(None, readers)))
    return LoadedColumns(frames.concat(_same_types(parts, numbers)), tuple(layouts), tuple(bad), named)


def _load_csv(
    file: TableFile,
    layout: CsvLayout,
    frames: Frames,
    numbers: Sequence[str],
    text: Sequence[str],
    numeric: frozenset[str],
) -> tuple[CsvRows, CsvLayout, BadRecords]:
    """Load one file. If its bytes do not fit the encoding found in the sample, detect it again from the whole file."""
    try:
        rows = frames.read_csv(file, layout, numbers=numbers, text=text)
    except UnicodeError:
        whole = sniff(file, whole=True).layout
        layout = replace(layout, encoding=whole.encoding, damaged=whole.damaged)
        try:
            rows = frames.read_csv(file, layout, numbers=numbers, text=text)
        except UnicodeError:
            layout = replace(layout, damaged=True)
            rows = frames.read_csv(file, layout, numbers=numbers, text=text)
    records = find_bad_records(file, layout, numeric) if rows.n_more > 0 else BadRecords()
    if records.n_broken > max(10, len(rows.frame)):
        raise DataError(
            f"{file} is not a table: {records.n_broken:,} records do not have the {len(layout.columns)} fields of its header"
        )
    return rows, layout, records


def _same_types(parts: list[Frame], numbers: Sequence[str]) -> list[Frame]:
    """Convert a column to text in all files if it is text in one of them."""
    for name in numbers if len(parts) > 1 else ():
        if len({part.dtypes[name].kind for part in parts}) > 1:
            _convert(parts, name, as_text)
    return parts


def _to_one_type(schema: FileSchema, name: str) -> Callable[[Any], Any] | None:
    """The conversion of a column of binary files whose kind differs between them, if it needs one.

    Raises DataError where no type holds the values of all files.
    """
    files = dict(zip(schema.differing[name], schema.files.paths, strict=True))
    files.pop("empty", None)
    if files.keys() <= {"text", "number", "boolean"} and (len(files) > 1 or "text" in files):
        return as_text if "text" in files else as_float64
    if len(files) > 1:
        (kind, file), (other_kind, other_file) = sorted(files.items())[:2]
        raise DataError(
            f"{name!r} is {kind} in {file} and {other_kind} in {other_file.name}; write the files of a folder with the same types"
        )
    return None


def _convert(parts: list[Frame], name: str, how: Callable[[Any], Any]) -> None:
    """Convert a column in all files."""
    for part in parts:
        if isinstance(part, BatchedColumns):
            part.convert(name, how)
        else:
            part[name] = how(part[name])


@dataclass(frozen=True)
class BadRecords:
    """The lines of a file that could not be read as rows.

    ``n_lines`` is their number, ``first`` the number of the first one (from 1) and ``reason`` what is wrong with it;
    ``n_broken`` records have another number of fields than the header.
    """

    n_lines: int = 0
    first: int = 0
    reason: str = ""
    n_broken: int = 0


def find_bad_records(path: TableFile, layout: CsvLayout, numbers: frozenset[str]) -> BadRecords:
    """Check every record of a delimited file.

    A record is broken if its number of fields differs from the header's. A quote that is not closed makes the following
    lines part of one field: a line inside a record of several lines counts as lost if it would be a complete record, with
    numbers in the columns ``numbers``.
    """
    separator, n_columns = layout.separator.encode(), len(layout.columns)
    is_record = _CompleteRecord(layout, numbers)
    n_lines, first, reason, n_broken = 0, 0, "", 0
    records = _records(path, layout, separator)
    if layout.header:
        next(records, None)
    for start, lines, n_fields in records:
        if n_fields != n_columns:
            n_broken += 1
            lost, text = len(lines), f"{n_fields} field{'s' if n_fields != 1 else ''} instead of {n_columns}"
            if len(lines) > 1:
                text = "a quote that is not closed"
        else:
            lost, text = sum(map(is_record, lines[1:])), "a quote that is not closed"
        if lost and not n_lines:
            first, reason = start, text
        n_lines += lost
    return BadRecords(n_lines, first, reason, n_broken)


def _records(path: TableFile, layout: CsvLayout, separator: bytes) -> Iterator[tuple[int, list[bytes], int]]:
    """Yield each record, split as Arrow's parser does: the number of its first line, its lines, its number of fields."""
    lines: list[bytes] = []
    start, n_fields, inside = 1, 1, False
    with utf8_stream(path, layout) as stream:
        for number, line in enumerate(stream, 1):
            line = line.rstrip(b"\r\n")
            if not lines:
                if not line.strip(b"\xef\xbb\xbf"):
                    continue
                start, n_fields = number, 1
            elif not line:
                continue
            lines.append(line)
            if not inside and _QUOTE not in line:
                n_fields += line.count(separator)
            else:
                more, inside = _fields(line, separator, inside)
                n_fields += more
            if not inside:
                yield start, lines, n_fields
                lines = []
    if lines:
        yield start, lines, n_fields


def _fields(line: bytes, separator: bytes, inside: bool) -> tuple[int, bool]:
    """Count the separators outside quotes in a line; also return whether the line ends inside quotes.

    A quote opens a field only at the beginning of the field.
    """
    found, at = 0, 0
    while True:
        if not inside and line.startswith(_QUOTE, at):
            inside, at = True, at + 1
        if inside:
            end = line.find(_QUOTE, at)
            while end >= 0 and line.startswith(_QUOTE, end + 1):
                end = line.find(_QUOTE, end + 2)
            if end < 0:
                return found, True
            inside, at = False, end + 1
        at = line.find(separator, at)
        if at < 0:
            return found, False
        found, at = found + 1, at + 1


class _CompleteRecord:
    """Test whether a line is a complete record: each cell unquoted or fully quoted, and numbers in the numeric columns."""

    def __init__(self, layout: CsvLayout, numbers: frozenset[str]) -> None:
        separator = re.escape(layout.separator.encode())
        self._cell = re.compile(rb'(?:"((?:[^"]|"")*)"|([^"%b]*))(?:%b|$)' % (separator, separator))
        self._numeric = [name in numbers for name in layout.columns]

    def __call__(self, line: bytes) -> bool:
        at, found = 0, 0
        for i, numeric in enumerate(self._numeric):
            cell = self._cell.match(line, at)
            if cell is None or (cell.end() == len(line)) != (i == len(self._numeric) - 1):
                return False
            at = cell.end()
            value = (cell[1] or cell[2] or b"").strip()
            if numeric and _NUMBER.fullmatch(value):
                found += 1
            elif numeric and value not in _NULLS:
                return False
        return found > 0
