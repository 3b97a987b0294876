"""Which records of a delimited file cannot be read: those of another number of fields, and those that a quote swallowed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpuclust.data.sniff import utf8_stream
from gpuclust.data.table import NULL_SPELLINGS, CsvLayout

_QUOTE = b'"'
_NUMBER = re.compile(rb"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")
_NULLS = frozenset(spelling.encode() for spelling in NULL_SPELLINGS)


@dataclass(frozen=True)
class Unreadable:
    """Lines that are no row of the table: how many, the number of the first (from 1), what is wrong with it, and how many
    records have another number of fields than the header."""

    n_lines: int = 0
    first: int = 0
    why: str = ""
    n_broken: int = 0


def unreadable(path: Path, layout: CsvLayout, numbers: frozenset[str]) -> Unreadable:
    """Look at every record of a file.

    A record is broken when it has not the header's number of fields. Inside a record over several lines, a line that would
    be a record by itself, with numbers in the columns of ``numbers``, was swallowed: a quote above it is not closed.
    """
    separator, n_columns = layout.separator.encode(), len(layout.columns)
    is_row = _Row(layout, numbers)
    n_lines, first, why, n_broken = 0, 0, "", 0
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
            lost, text = sum(map(is_row, lines[1:])), "a quote that is not closed"
        if lost and not n_lines:
            first, why = start, text
        n_lines += lost
    return Unreadable(n_lines, first, why, n_broken)


def _records(path: Path, layout: CsvLayout, separator: bytes) -> Iterator[tuple[int, list[bytes], int]]:
    """The records of a file as Arrow's parser takes them: the first line's number, the lines, the number of fields."""
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
    """How many separators outside of quotes a line has, and whether it ends inside of quotes. A quote opens a field only at
    its beginning."""
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


class _Row:
    """Whether a line is a record by itself: cells without quotes or wholly in quotes, and numbers where they belong."""

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
