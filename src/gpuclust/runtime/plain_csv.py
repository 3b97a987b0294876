"""Which delimited files cuDF parses as the Arrow reader does, and the numbers in them with the Arrow reader's bits.

cuDF treats every quote as the start or the end of a quoted part (NVIDIA/cudf issues 11948 and 2398), keeps records with too many or too few
fields, and rounds numbers differently. A file whose quotes are only at the ends of fields, whose lines are all complete records and whose
numbers have at most 15 digits is parsed in the same way by both. The check reads the file once, in threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuclust.data.files import TableFile
from gpuclust.data.remote import RemoteFile
from gpuclust.data.table import NULL_SPELLINGS, Column, CsvLayout, Frame
from gpuclust.runtime.jit import compiled
from gpuclust.runtime.threads import in_threads

PART_BYTES = 1 << 22
"""The size of a part that one thread checks."""
MAX_DIGITS = 15
"""Whole numbers of this many digits, and powers of ten up to `MAX_POWER`, are exact in float64, so that one product or quotient of two is the
nearest float64 (Clinger 1990)."""
MAX_POWER = 22
PLAIN, QUOTE, AFTER_QUOTE, OPEN_QUOTE, FIELDS, RETURN, NUL = range(7)
REASONS = {
    QUOTE: "a quote inside an unquoted field",
    AFTER_QUOTE: "text after a quoted field",
    OPEN_QUOTE: "a line break inside quotes",
    FIELDS: "a line that is not a complete record",
    RETURN: "a carriage return inside a line",
    NUL: "a zero byte",
}


class NotPlain(Exception):
    """cuDF must not read the file; the message says why."""


def count_records(path: TableFile, layout: CsvLayout) -> int:
    """The number of records of a file, without its header. Raises NotPlain where cuDF might parse it in another way."""
    if isinstance(path, RemoteFile):
        raise NotPlain("a remote file")
    if layout.compressed or layout.encoding != "utf-8" or layout.damaged:
        raise NotPlain("compressed" if layout.compressed else f"written in {layout.encoding}")
    if layout.empty_lines or len(layout.columns) < 2:
        raise NotPlain("empty lines" if layout.empty_lines else "a single column")
    return _count(np.memmap(path, np.uint8, "r"), layout) - int(layout.header)


def _count(data: np.ndarray, layout: CsvLayout) -> int:
    if data[-1] != ord("\n"):
        raise NotPlain("no line break at the end")
    if data[:3].tobytes() == b"\xef\xbb\xbf":
        raise NotPlain("a byte-order mark")
    edges = _line_edges(data)
    found = np.zeros((len(edges) - 1, 3), np.int64)  # records, what is not plain, whether there is a byte above 127

    def check(first: int, last: int) -> None:
        for i in range(first, last):
            part = data[edges[i] : edges[i + 1]]
            check_lines(part, ord(layout.separator), len(layout.columns), found[i])
            if found[i, 2]:
                part.tobytes().decode()

    try:
        in_threads(len(found), check, n_parts=len(found))
    except UnicodeDecodeError as error:
        raise NotPlain("bytes that are not UTF-8") from error
    worst = found[found[:, 1] != PLAIN, 1]
    if len(worst):
        raise NotPlain(REASONS[int(worst[0])])
    return int(found[:, 0].sum())


def _line_edges(data: np.ndarray) -> list[int]:
    """Positions that divide the bytes into parts of whole lines."""
    edges = [0]
    while edges[-1] < len(data):
        at = min(edges[-1] + PART_BYTES, len(data)) - 1
        step = 1 << 12
        while not len(ends := np.flatnonzero(data[at : at + step] == ord("\n"))):
            step *= 16
        edges.append(at + int(ends[0]) + 1)
    return edges


@compiled()
def check_lines(data, separator, n_columns, found):  # type: ignore[no-untyped-def]
    """Check bytes (n,) uint8 that end with a line break; ``found`` (3,) int64 receives the number of records, the first thing that is not
    plain, and whether a byte is above 127."""
    n, records, fields, above = len(data), 0, 1, 0
    begins, quoted, closed = True, False, False  # the field has no byte yet, is inside quotes, has ended its quotes
    i = 0
    while i < n:
        c = data[i]
        if c > 127:
            above = 1
        if quoted:
            if c == 34:
                if i + 1 < n and data[i + 1] == 34:
                    i += 1
                else:
                    quoted, closed = False, True
            elif c == 10 or (c == 13 and i + 1 < n and data[i + 1] == 10):
                found[1] = OPEN_QUOTE
                return
            elif c == 13:
                found[1] = RETURN
                return
        elif c == separator or c == 10:
            if c == 10:
                if fields != n_columns:
                    found[1] = FIELDS
                    return
                records += 1
                fields = 1
            else:
                fields += 1
            begins, closed = True, False
        elif c == 13:
            if i + 1 == n or data[i + 1] != 10:
                found[1] = RETURN
                return
        elif closed:
            found[1] = AFTER_QUOTE
            return
        elif c == 34:
            if not begins:
                found[1] = QUOTE
                return
            quoted, begins = True, False
        else:
            begins = False
        if c == 0:
            found[1] = NUL
            return
        i += 1
    if quoted:
        found[1] = OPEN_QUOTE
        return
    found[0], found[2] = records, above


NUMBER = r"^(-?)([0-9]*)\.?([0-9]*)([eE]([+-]?[0-9]+))?$"


def exact_numbers(column: Column, decimal: str, xp: Any) -> Column:
    """A column of text, pandas or cuDF, as float64 with the bits of the Arrow reader, null where a cell is a spelling of null.

    Raises NotPlain where a cell is something else, or has more digits or a larger exponent than can be converted exactly.
    """
    text = column.str.strip()
    missing = text.isin(list(NULL_SPELLINGS))
    written = text.str.replace(decimal, ".", regex=False) if decimal != "." else text
    parts: Frame = written.str.extract(NUMBER)
    sign, whole, fraction, power = (_filled(parts[i]) for i in (0, 1, 2, 4))
    digits = whole + fraction
    power = power.str.lstrip("+")
    significant = digits.str.lstrip("0")
    known = written.str.match(NUMBER) & (digits.str.len() > 0)
    if decimal != ".":
        known = known & ~text.str.contains(".", regex=False)
    if not bool((known | missing).all()):
        raise NotPlain(f"{column.name!r} has cells that are not numbers")
    if bool((significant.str.len() > MAX_DIGITS).any()) or bool((power.str.len() > 4).any()):
        raise NotPlain(f"{column.name!r} has numbers of more than {MAX_DIGITS} digits")
    tens = _whole(power) - fraction.str.len().astype("int64")
    if bool(((tens.abs() > MAX_POWER) & ~missing).any()):
        raise NotPlain(f"{column.name!r} has numbers with large exponents")
    exact = xp.asarray([float(f"1e{i}") for i in range(MAX_POWER + 1)])
    exponent = xp.clip(xp.asarray(tens.values), -MAX_POWER, MAX_POWER)
    value = xp.asarray(_whole(significant).values).astype("float64")
    value = value * exact[xp.maximum(exponent, 0)] / exact[xp.maximum(-exponent, 0)]
    value = xp.where(xp.asarray((sign == "-").values), -value, value)
    return type(column)(value, name=column.name).where(~missing)


def _filled(text: Column) -> Column:
    """A column of text with nothing in place of null."""
    return text.fillna("")


def _whole(text: Column) -> Column:
    """A column of digits as int64; 0 where there is none."""
    return text.where(text.str.len() > 0, "0").astype("int64")
