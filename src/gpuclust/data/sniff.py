"""Detect how a delimited text file is written: compression, encoding, separator, header, decimal mark, index column.

Only a sample of the file is read: its beginning and pieces from further on. If the encoding does not fit the rest of the
file, `load.py` detects it again from the whole file.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from gpuclust.data.encoding import detect_encoding
from gpuclust.data.files import TableFile
from gpuclust.data.remote import RemoteFile
from gpuclust.data.table import NULL_SPELLINGS, CsvLayout, unique_names
from gpuclust.errors import DataError

HEAD_BYTES = 1 << 20
PIECE_BYTES = 1 << 18
MAX_CONTROL_CHARACTERS = 8
"""Control characters that are allowed in a text of any length."""
MAX_HEAD_BYTES = 1 << 26
SEPARATORS = (",", ";", "\t", "|")
MAX_KEY_LENGTH = 200
"""Characters; a longer text is not a key."""
GZIP_MAGIC = b"\x1f\x8b"
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_NULLS = frozenset(NULL_SPELLINGS)
_NUMBER = {
    mark: re.compile(rf"[+-]?(?:\d+{re.escape(mark)}?\d*|{re.escape(mark)}\d+)(?:[eE][+-]?\d+)?")
    for mark in ".,"
}  # fmt: skip
_VECTOR = re.compile(r"[\[(][-+\d.eE,\sNnaifIN]+[\])]")
_BOOLEANS = frozenset({"true", "false", "t", "f"})


@dataclass(frozen=True)
class Sniffed:
    """The layout of a delimited file and the kind of each column, estimated from a sample.

    A kind is ``number``, ``boolean``, ``text``, ``vector`` (lists of numbers of one length), ``index`` or ``empty`` (the sample has no value). ``keys`` are the columns
    that may identify the rows: see `may_be_key`.
    """

    layout: CsvLayout
    kinds: dict[str, str]
    keys: tuple[str, ...] = ()


def sniff(path: TableFile, *, whole: bool = False) -> Sniffed:
    """Detect the layout of a delimited text file. With ``whole`` the encoding is detected from all of its bytes.

    Raises:
        DataError: the file is empty, is binary, is a damaged gzip, or its first record cannot be split.
    """
    head, pieces, compressed = _sample(path)
    if not head.strip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n"):
        raise DataError(f"{path} is empty; give a file with a header and rows")
    evidence = _non_ascii_lines(path, compressed) if whole else b"".join([head, *pieces])
    encoding, damaged = detect_encoding(evidence)
    refuse_binary(path, head, encoding)
    texts = [piece.decode(encoding, "replace").lstrip("\ufeff") for piece in (head, *pieces)]
    layout = CsvLayout(separator=_separator(texts[0]), encoding=encoding, compressed=compressed, damaged=damaged)
    return _columns(path, layout, texts)


def utf8_stream(path: TableFile, layout: CsvLayout) -> BinaryIO:
    """Open a file as a stream of uncompressed UTF-8.

    Raises, while the stream is read:
        UnicodeError: the bytes do not fit the encoding, unless ``layout.damaged``.
        OSError, EOFError: the file, or its compression, is damaged.
    """
    packed = path.open("rb") if isinstance(path, RemoteFile) else path
    raw = cast(BinaryIO, gzip.open(packed) if layout.compressed else path.open("rb"))  # noqa: SIM115
    return raw if layout.plain else cast(BinaryIO, io.BufferedReader(_Transcoder(raw, layout), 1 << 20))


class _Transcoder(io.RawIOBase):
    """Convert a stream in any encoding to UTF-8."""

    def __init__(self, raw: BinaryIO, layout: CsvLayout) -> None:
        self._raw = raw
        errors = "replace" if layout.damaged else "strict"
        self._decoder = codecs.getincrementaldecoder(layout.encoding)(errors)
        self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        while not self._waiting:
            raw = self._raw.read(1 << 20)
            self._waiting = self._decoder.decode(raw, final=not raw).encode()
            if not raw:
                break
        taken = self._waiting[: len(view)]
        self._waiting = self._waiting[len(taken) :]
        view[: len(taken)] = taken
        return len(taken)

    def close(self) -> None:
        self._raw.close()
        super().close()


def refuse_binary(path: TableFile, head: bytes, encoding: str = "utf-8") -> None:
    """Raise DataError if the bytes are not text: more than one in 500 is a control character."""
    if head.startswith(b"PK\x03\x04"):
        raise DataError(f"{path} is a zip file or an Excel workbook; save the table as CSV or Parquet")
    if encoding.startswith("utf-16"):
        return
    controls = len(head) - len(head.translate(None, bytes([*range(9), *range(14, 32), 127])))
    if controls > MAX_CONTROL_CHARACTERS and controls * 500 > len(head):
        raise DataError(f"{path} holds binary data, not a table; give CSV, TSV, Parquet or Feather")


def _sample(path: TableFile) -> tuple[bytes, list[bytes], bool]:
    """The beginning of the file and pieces from further on, each of whole lines; and whether the file is gzip."""
    with path.open("rb", buffering=PIECE_BYTES) as file:
        compressed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        if compressed:
            try:
                return _whole_lines(_beginning(gzip.GzipFile(fileobj=file))), [], True
            except (OSError, EOFError, zlib.error) as error:
                raise DataError(f"{path} is a damaged gzip file ({error}); fetch it again") from error
        head = _whole_lines(_beginning(file))
        size = path.stat().st_size
        pieces = []
        for share in (0.25, 0.5, 0.75) if size > HEAD_BYTES + 4 * PIECE_BYTES else ():
            file.seek(max(HEAD_BYTES, int(size * share)))
            pieces.append(_whole_lines(file.read(PIECE_BYTES).partition(b"\n")[2]))
    return head, [] if head.startswith(UTF16_MARKS) else pieces, False


def _beginning(file: BinaryIO | gzip.GzipFile) -> bytes:
    """The first bytes of a file, at least two lines if the file has them."""
    head = file.read(HEAD_BYTES)
    while head.count(b"\n") < 2 and len(head) < MAX_HEAD_BYTES and (more := file.read(HEAD_BYTES)):
        head += more
    return head


def _whole_lines(piece: bytes) -> bytes:
    """Remove the incomplete last line of a piece that was cut from a longer text."""
    cut = len(piece) >= PIECE_BYTES // 2
    return piece[: piece.rfind(b"\n") + 1] or piece if cut else piece


def _non_ascii_lines(path: TableFile, compressed: bool) -> bytes:
    """The lines of the whole file that are not ASCII, which show its encoding."""
    with utf8_stream(path, CsvLayout(compressed=compressed)) as file:
        return b"".join(line for line in file if not line.isascii())


def _records(text: str, *, separator: str, limit: int = 10_000) -> list[list[str]]:
    """The first records of a text, without empty records."""
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            if row:
                rows.append(row)
            if len(rows) > limit:
                break
    except csv.Error:  # a field of more than 128 KiB: the end of the piece left a quote open
        pass
    return rows


def _separator(text: str) -> str:
    """The separator for which most records have as many fields as the header, or one more (row names written by R)."""

    def fit(separator: str) -> tuple[float, int]:
        rows = _records(text, separator=separator, limit=200)
        width = len(rows[0]) if rows else 0
        if width < 2:
            return 0.0, 0
        body = rows[1:] or rows
        return sum(len(row) in (width, width + 1) for row in body) / len(body), width

    best = max(SEPARATORS, key=fit)
    return best if fit(best)[0] > 0.5 else ","


def _columns(path: TableFile, layout: CsvLayout, texts: Sequence[str]) -> Sniffed:
    """Detect the names and kinds of the columns, the decimal mark and the index column."""
    blocks = [_records(text, separator=layout.separator) for text in texts]
    if not blocks[0]:
        raise DataError(
            f"{path} is not a table: its first record has a field of more than {csv.field_size_limit():,} characters"
        )
    first = [cell.strip() for cell in blocks[0][0]]
    header = not _is_data(first)
    body = blocks[0][1:] if header else blocks[0]
    if header and not body and "\n" not in texts[0]:
        raise DataError(f"{path} has a header but no rows; give a file with rows")
    widths = Counter(map(len, body))
    if header and body and widths.most_common(1)[0][0] == len(first) + 1:
        first = ["", *first]
    names = unique_names(first if header else [f"column_{i}" for i in range(len(first))])
    blocks = [_spread_sample([row for row in block if len(row) == len(names)]) for block in (body, *blocks[1:])]
    cells = [[[row[i].strip() for row in block] for block in blocks] for i in range(len(names))]
    decimal = _decimal(cells) if layout.separator != "," else "."
    index = header and first[0] in ("", "Unnamed: 0") and _numbers_rows(cells[0])
    kinds = {name: _kind(column, decimal) for name, column in zip(names, cells, strict=True)}
    if index:
        kinds[names[0]] = "index"
    empty_lines = next((i for i, line in enumerate(texts[0].splitlines()) if line), 0)
    layout = replace(
        layout, decimal=decimal, header=header, empty_lines=empty_lines, index_column=index, columns=tuple(names)
    )
    keys = [
        name
        for name, column in zip(names, cells, strict=True)
        if may_be_key([cell for block in column for cell in block]) and (kinds[name] == "text" or _all_whole(column))
    ]
    return Sniffed(layout, kinds, tuple(keys))


def may_be_key(values: Sequence[str | None]) -> bool:
    """Whether a column may be a key by a sample: no value is missing or repeated, and none is a long text."""
    if len(values) < 2 or len(set(values)) < len(values):
        return False
    return not any(value is None or value in _NULLS or len(value) > MAX_KEY_LENGTH for value in values)


def _spread_sample(rows: list[list[str]], size: int = 1000) -> list[list[str]]:
    """About ``size`` rows at equal distances."""
    return rows[:: max(1, len(rows) // size)]


def _is_data(cells: Sequence[str]) -> bool:
    """Whether a first record holds only numbers other than 0, 1, 2, ..., which pandas writes for unnamed columns."""
    if not all(_NUMBER["."].fullmatch(cell) for cell in cells):
        return False
    return list(cells) != [str(i) for i in range(len(cells))]


def _decimal(cells: Sequence[Sequence[Sequence[str]]]) -> str:
    """The decimal mark of most cells with a fraction."""
    fractions = Counter(
        "," if "," in cell else "."
        for column in cells
        for block in column
        for cell in block[:200]
        if re.fullmatch(r"[+-]?\d+[.,]\d+", cell)
    )
    return "," if fractions[","] > fractions["."] else "."


def _numbers_rows(blocks: Sequence[Sequence[str]]) -> bool:
    """Whether the cells are distinct whole numbers."""
    cells = [cell for block in blocks for cell in block]
    return _all_whole(blocks) and len(set(cells)) == len(cells)


def _all_whole(blocks: Sequence[Sequence[str]]) -> bool:
    return all(cell.isdecimal() for block in blocks for cell in block)


def _are_codes(cells: Sequence[str]) -> bool:
    """Whether all cells have the same number of digits, two or more, and some begin with 0."""
    length = len(cells[0])
    if length < 2 or not all(len(cell) == length and cell.isdecimal() for cell in cells):
        return False
    return any(cell[0] == "0" for cell in cells)


def _are_vectors(cells: Sequence[str]) -> bool:
    """Whether at least nine in ten cells are lists of two or more numbers, nine in ten of them of one length."""
    lengths = Counter(len(cell.strip("[]() ").replace(",", " ").split()) for cell in cells if _VECTOR.fullmatch(cell))
    return lengths.total() >= 0.9 * len(cells) and max(lengths.values()) >= 0.9 * lengths.total() and max(lengths) >= 2


def _kind(blocks: Sequence[Sequence[str]], decimal: str) -> str:
    """The kind of a column: ``number`` if at least half of the values in any block are numbers, unless they are codes.

    Digits of one length of which some begin with 0 are codes, such as postal codes, and stay text.
    """
    values = [[cell for cell in block if cell not in _NULLS] for block in blocks]
    seen = [cell for block in values for cell in block]
    if not seen:
        return "empty"
    if all(cell.lower() in _BOOLEANS for cell in seen):
        return "boolean"
    if _are_codes(seen):
        return "text"
    if seen[0][0] in "[(" and _are_vectors(seen):
        return "vector"
    matches = _NUMBER[decimal].fullmatch
    return "number" if any(2 * sum(map(bool, map(matches, b))) >= len(b) > 0 for b in values) else "text"
