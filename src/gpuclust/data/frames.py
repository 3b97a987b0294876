"""`PandasFrames`: the operations for which pandas and cuDF differ, for pandas. Files are read by pyarrow, in parallel."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from gpuclust.data.files import TableFile
from gpuclust.data.remote import RemoteFile, arrow_input
from gpuclust.data.sniff import utf8_stream
from gpuclust.data.table import NULL_SPELLINGS, CsvLayout, CsvRows, Frames, unique_names
from gpuclust.errors import DataError, message_of

MAX_BLOCK_BYTES = 1 << 28
MAX_SEPARATE_COLUMNS = 64
TEXT_LIST = pd.ArrowDtype(pa.list_(pa.string()))


def hash_rows(columns: Iterable[Any], n_rows: int, zeros: Callable[..., Any] = np.zeros) -> Any:
    """A 64-bit hash of each row, (n_rows,) uint64, from columns (n_rows,) of float32 or float64; 0.0 and -0.0 are the same.

    Each column is mixed in by the finalizer of MurmurHash3. ``zeros`` is that of the module of the columns, numpy or cupy.
    """
    hashed = zeros(n_rows, np.uint64)
    for column in columns:
        hashed += (column + column.dtype.type(0)).view(np.uint32 if column.dtype == np.float32 else np.uint64)
        hashed ^= hashed >> np.uint64(33)
        hashed *= np.uint64(0xFF51AFD7ED558CCD)
        hashed ^= hashed >> np.uint64(33)
        hashed *= np.uint64(0xC4CEB9FE1A85EC53)
        hashed ^= hashed >> np.uint64(33)
    return hashed


@dataclass(frozen=True)
class CsvOptions:
    """How a CSV file is parsed: the types of its columns, whether fields may contain line breaks, and the size of the part that
    one thread parses. With ``as_text`` the columns of numbers are read as text, because one of them has a cell that is not a number."""

    types: dict[str, Any]
    block_bytes: int
    multiline: bool = False
    as_text: bool = False

    @classmethod
    def of(cls, numbers: Sequence[str], text: Sequence[str], block_bytes: int) -> CsvOptions:
        """The options to begin with."""
        return cls(dict.fromkeys(text, pa.string()) | dict.fromkeys(numbers, pa.float64()), block_bytes)

    def arguments(self, layout: CsvLayout) -> dict[str, Any]:
        """The arguments of pyarrow's readers."""
        return {
            "read_options": pa.csv.ReadOptions(
                column_names=list(layout.columns),
                skip_rows_after_names=layout.empty_lines + 1 if layout.header else 0,
                block_size=self.block_bytes,
            ),
            "parse_options": pa.csv.ParseOptions(
                delimiter=layout.separator,
                newlines_in_values=self.multiline,
                invalid_row_handler=lambda _: "skip",
            ),
            "convert_options": pa.csv.ConvertOptions(
                column_types=self.types,
                include_columns=list(self.types),
                null_values=list(NULL_SPELLINGS),
                decimal_point=layout.decimal,
            ),
        }

    def after(self, error: pa.ArrowInvalid) -> CsvOptions | None:
        """The options to try next; None if none can help."""
        text = str(error)
        if "newlines_in_values" in text and not self.multiline:
            return replace(self, multiline=True)
        if "conversion error" in text and pa.float64() in self.types.values():
            return replace(self, types=dict.fromkeys(self.types, pa.string()), as_text=True)
        if "block boundaries" in text and self.block_bytes < MAX_BLOCK_BYTES:
            return replace(self, block_bytes=self.block_bytes * 16)
        return None


@dataclass(frozen=True)
class ParsedCsv:
    """The rows of a CSV file, their number, and the number of its lines with the header."""

    rows: Any
    n_rows: int
    n_lines: int
    n_more: int = 0
    """How many more lines than rows the file has, without the header."""


def parse_csv(
    path: TableFile, layout: CsvLayout, how: CsvOptions, parse: Callable[[CsvOptions], ParsedCsv]
) -> tuple[ParsedCsv, CsvOptions]:
    """Parse a CSV file by ``parse``, with other options until it succeeds; also return those that did.

    Raises DataError, or UnicodeError where the bytes do not fit the encoding.
    """
    while True:
        try:
            parsed = parse(how)
        except pa.ArrowInvalid as error:
            if "invalid UTF8" in str(error):
                raise UnicodeError(str(error)) from error
            following = how.after(error)
            if following is None:
                raise DataError(f"{path} cannot be read as delimited text: {message_of(error)}") from error
            how = following
        except (OSError, EOFError) as error:
            raise DataError(f"{path} cannot be read: {message_of(error)}") from error
        else:
            n_more = parsed.n_lines - int(layout.header) - parsed.n_rows
            if how.multiline or n_more <= 0:
                return replace(parsed, n_more=n_more), how
            how = replace(how, multiline=True)  # the parts begin at line breaks, which may be inside of quotes


class PandasFrames(Frames):
    """Frames on the host: pandas, with numbers in NumPy arrays, text and lists in Arrow arrays."""

    name = "pandas"

    def __init__(self, block_bytes: int = 1 << 20) -> None:
        """``block_bytes`` is the size of the part of a CSV file that one thread parses; a record may be longer."""
        self.block_bytes = block_bytes

    def read_csv(self, path: TableFile, layout: CsvLayout, *, numbers: Sequence[str], text: Sequence[str]) -> CsvRows:
        def parse(how: CsvOptions) -> ParsedCsv:
            with utf8_stream(path, layout) as stream:
                counted = LineCounter(stream)
                table = pa.csv.read_csv(counted, **how.arguments(layout))
            return ParsedCsv(table, table.num_rows, counted.n_lines)

        parsed, how = parse_csv(path, layout, CsvOptions.of(numbers, text, self.block_bytes), parse)
        table = parsed.rows
        if how.as_text:
            columns = [numbers_if_all(table[name], layout.decimal) for name in numbers]
            table = pa.table([*columns, *(table[name] for name in text)], names=[*numbers, *text])
        return CsvRows(arrow_to_pandas(table.select([*numbers, *text])), parsed.n_more)

    def read_parquet(self, path: TableFile, columns: Sequence[str]) -> pd.DataFrame:
        try:
            return arrow_to_pandas(read_arrow(path, "parquet", columns))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is not a whole Parquet file: {message_of(error)}") from error

    def read_feather(self, path: TableFile, columns: Sequence[str]) -> pd.DataFrame:
        try:
            return arrow_to_pandas(read_arrow(path, "feather", columns))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is not a whole Feather file: {message_of(error)}") from error

    def concat(self, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
        return frames[0] if len(frames) == 1 else pd.concat(list(frames), ignore_index=True)

    def to_numeric(self, column: Any) -> Any:
        return pd.to_numeric(column.astype(object), errors="coerce").astype("float64")

    def count_distinct(self, frame: pd.DataFrame, columns: Sequence[str]) -> int:
        """Count the distinct rows by a 64-bit hash of each row.

        Two of n distinct rows have the same hash with probability about n²/2^65: 4e-8 at a million rows.
        """
        hashed = hash_rows((frame[name].to_numpy(np.float64) for name in columns), len(frame))
        hashed.sort()
        return int(np.count_nonzero(hashed[1:] != hashed[:-1])) + min(len(hashed), 1)

    def from_pandas(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame

    def to_pandas(self, frame: Any) -> pd.DataFrame:
        return frame if isinstance(frame, pd.DataFrame) else frame.to_pandas()

    def to_matrix(self, frame: Any, columns: Sequence[str]) -> np.ndarray:
        whole = self.to_pandas(frame[list(columns)])
        return np.ascontiguousarray(whole.to_numpy(np.float64))


class LineCounter(io.RawIOBase):
    """A stream of bytes that counts the lines read from it, without empty lines."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lines = 0
        self._open = 0  # bytes since the last line break
        self._last = 0

    @property
    def n_lines(self) -> int:
        """Number of lines read."""
        return self._lines + (self._open > 1 or (self._open == 1 and self._last != ord("\r")))

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        piece = self._stream.read(size)
        if not piece:
            return piece
        data = np.frombuffer(piece, np.uint8)
        ends = np.flatnonzero(data == ord("\n"))
        if len(ends):
            lengths = np.diff(ends, prepend=-1 - self._open) - 1
            before = data[ends - 1]
            before[0] = data[ends[0] - 1] if ends[0] else self._last
            empty = (lengths == 0) | ((lengths == 1) & (before == ord("\r")))
            self._lines += len(ends) - int(np.count_nonzero(empty))
            self._open = len(piece) - 1 - int(ends[-1])
        else:
            self._open += len(piece)
        self._last = piece[-1]
        return piece


def read_arrow(path: TableFile, format: str, columns: Sequence[str]) -> Any:
    """Read columns of a Parquet, Feather or Arrow IPC file as an Arrow table; `unique_names` renames repeated columns.

    Raises pyarrow.ArrowException or OSError if the file is damaged.
    """
    if format == "parquet":
        file = pa.parquet.ParquetFile(arrow_input(path), pre_buffer=isinstance(path, RemoteFile))
        if unique_and_named(file.schema_arrow.names):
            return file.read(columns=list(columns)).select(list(columns))
        table = file.read()
    else:
        with open_arrow(path) as reader:
            table = reader.read_all()
    return table.rename_columns(unique_names(table.column_names)).select(list(columns))


def unique_and_named(names: Sequence[str]) -> bool:
    """Whether every column has a name and no name is repeated."""
    return len(set(names)) == len(names) and "" not in names


def open_arrow(path: TableFile, columns: Sequence[int] | None = None) -> Any:
    """Open an Arrow IPC file (Feather version 2) or stream for reading; ``columns`` are the numbers of those to read."""
    with path.open("rb") as file:
        is_file = file.read(6) == b"ARROW1"
    mapped = path.arrow() if isinstance(path, RemoteFile) else pa.memory_map(str(path))
    options = None if columns is None else pa.ipc.IpcReadOptions(included_fields=list(columns))
    return pa.ipc.open_file(mapped, options=options) if is_file else pa.ipc.open_stream(mapped, options=options)


def iter_arrow(reader: Any) -> Iterator[Any]:
    """Iterate over the record batches of a reader from `open_arrow`."""
    if hasattr(reader, "num_record_batches"):
        return (reader.get_batch(i) for i in range(reader.num_record_batches))
    return iter(reader)


def numbers_if_all(column: Any, decimal: str) -> Any:
    """Convert text to float64 if every cell is a number or a null spelling; otherwise return the text."""
    trimmed = pa.compute.utf8_trim_whitespace(column)
    known = pa.compute.is_in(trimmed, value_set=pa.array(NULL_SPELLINGS))
    digits = pa.compute.if_else(known, pa.scalar(None, pa.string()), trimmed)
    if decimal != ".":
        digits = pa.compute.replace_substring(digits, decimal, ".")
    try:
        return digits.cast(pa.float64())
    except pa.ArrowInvalid:
        return column


def arrow_to_pandas(table: Any) -> pd.DataFrame:
    """Convert an Arrow table to pandas with the column types of `Frames`."""
    table = with_plain_types(table)
    # A separate block per column needs no second copy, but thousands of blocks are slow.
    alone = table.num_columns <= MAX_SEPARATE_COLUMNS
    return table.to_pandas(types_mapper=_mapper, ignore_metadata=True, split_blocks=alone)


def with_plain_types(table: Any) -> Any:
    """An Arrow table whose columns have the types that those of `Frames` are made of."""
    wanted = [_plain_type(kind) or kind for kind in table.schema.types]
    if wanted == table.schema.types:
        return table
    columns = [column.cast(kind) for column, kind in zip(table.columns, wanted, strict=True)]
    return pa.Table.from_arrays(columns, names=table.column_names)


def _plain_type(kind: Any) -> Any:
    """The type to cast a column to before the conversion to pandas, or None to keep its type."""
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type) or kind.value_type
    if pa.types.is_decimal(kind) or pa.types.is_null(kind) or pa.types.is_float16(kind):
        return pa.float64()
    if pa.types.is_date(kind):
        return pa.timestamp("ms")
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(pa.string())
    return None


def _mapper(kind: Any) -> Any:
    if pa.types.is_list(kind):
        return TEXT_LIST
    if pa.types.is_string(kind) and pd.__version__ < "3":
        return pd.StringDtype("pyarrow")
    return None
