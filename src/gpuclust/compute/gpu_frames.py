"""CudfFrames: what cuDF does differently from pandas."""

from __future__ import annotations

import codecs
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cudf
import cupy as cp
import numpy as np
import pyarrow as pa
import pyarrow.feather

from gpuclust.data.frames import arrow_to_pandas as arrow_to_pandas
from gpuclust.data.sniff import utf8_stream
from gpuclust.data.table import NULL_SPELLINGS, CsvLayout
from gpuclust.errors import DataError

PIECE = 1 << 24
"""Bytes of a text file that are checked at once."""

UNREADABLE = (RuntimeError, ValueError, OSError, EOFError, OverflowError, TypeError)
"""What cuDF, pyarrow and gzip raise on a file that is not what it should be."""


class CudfFrames:
    """Frames in GPU memory; see `gpuclust.data.table.Frames` for what each method means.

    Missing values are cuDF's nulls, which its methods skip as pandas' skip NaN. Text is turned into numbers on the
    GPU, by an algorithm that may differ from the CPU's in the last bit of a number.
    """

    name = "cudf"

    def read_csv(
        self, path: Path, layout: CsvLayout, *, numbers: Sequence[str], text: Sequence[str]
    ) -> tuple[cudf.DataFrame, int]:
        """The named columns of a delimited file. cuDF does not tell which records had other than the header's fields:
        what is missing is null, what is over is dropped, and none is left out."""
        columns = [*numbers, *text]
        try:
            frame: cudf.DataFrame = cudf.read_csv(
                io.BytesIO(utf8_bytes(path, layout)),
                sep=layout.separator,
                names=list(layout.columns),
                header=0 if layout.header else None,
                usecols=columns,
                dtype=dict.fromkeys(columns, "str"),
                na_filter=False,
                compression=None,
            )
        except UnicodeError:
            raise
        except UNREADABLE as error:
            raise DataError(f"{path} cannot be read as delimited text: {_one_line(error)}") from error
        frame = frame[columns]
        for name in numbers:
            frame[name] = _numbers_if_all(frame[name], layout.decimal)
        return frame, 0

    def read_parquet(self, path: Path, columns: Sequence[str]) -> cudf.DataFrame:
        """The named columns of a Parquet file."""
        try:
            frame = cudf.read_parquet(path, columns=list(columns), use_pandas_metadata=False)
        except UNREADABLE as error:
            raise DataError(f"{path} is not a whole Parquet file: {_one_line(error)}") from error
        return _plain(frame[list(columns)])

    def read_feather(self, path: Path, columns: Sequence[str]) -> cudf.DataFrame:
        """The named columns of a Feather or Arrow IPC file, which the host unpacks: cuDF has no reader of its own."""
        try:
            table = pa.feather.read_table(path, columns=list(columns))
        except (pa.ArrowException, *UNREADABLE) as error:
            raise DataError(f"{path} is not a whole Feather file: {_one_line(error)}") from error
        return self.from_pandas(arrow_to_pandas(table))

    def concat(self, frames: Sequence[cudf.DataFrame]) -> cudf.DataFrame:
        """The frames one below the other, with a new 0..n-1 index."""
        return frames[0] if len(frames) == 1 else cudf.concat(list(frames), ignore_index=True)

    def to_numeric(self, column: cudf.Series) -> cudf.Series:
        """A column of text as float64; what is not a number becomes missing."""
        trimmed: cudf.Series = column.str.strip()
        return cudf.to_numeric(trimmed, errors="coerce").astype("float64")

    def count_distinct(self, frame: cudf.DataFrame, columns: Sequence[str]) -> int:
        """How many different rows there are in these float64 columns."""
        chosen: cudf.DataFrame = frame[list(columns)]
        return len(chosen.drop_duplicates())

    def from_pandas(self, frame: Any) -> cudf.DataFrame:
        """A pandas frame on the GPU, by way of Arrow, which knows its lists; NaN becomes null."""
        return cudf.DataFrame.from_arrow(pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata())

    def to_pandas(self, frame: cudf.DataFrame) -> Any:
        """The frame as pandas, with the column types that PandasFrames gives."""
        return arrow_to_pandas(frame.to_arrow(preserve_index=False))

    def to_matrix(self, frame: cudf.DataFrame, columns: Sequence[str]) -> cp.ndarray:
        """float64 array (n_rows, n_columns), C order, on the GPU."""
        chosen: cudf.DataFrame = frame[list(columns)]
        return cp.ascontiguousarray(chosen.to_cupy(dtype=np.dtype(np.float64), na_value=np.nan))


def utf8_bytes(path: Path, layout: CsvLayout) -> bytes:
    """The whole file, unpacked, as UTF-8 without a byte-order mark.

    Raises UnicodeError where the bytes do not fit the layout's encoding: cuDF would take them as they are.
    """
    check = codecs.getincrementaldecoder("utf-8")()
    with utf8_stream(path, layout) as stream:
        pieces = list(iter(lambda: stream.read(PIECE), b""))
    for piece in pieces:
        check.decode(piece)
    check.decode(b"", final=True)
    return b"".join(pieces).removeprefix(codecs.BOM_UTF8)


def _numbers_if_all(column: cudf.Series, decimal: str) -> cudf.Series:
    """Text as float64 when every cell is a number or a null spelling; otherwise the text itself."""
    trimmed: cudf.Series = column.str.strip()
    digits: cudf.Series = trimmed.where(~trimmed.isin(list(NULL_SPELLINGS)))
    if decimal != ".":
        digits = digits.str.replace(decimal, ".", regex=False)
    cells: cudf.Series = digits.dropna()
    are_numbers: cudf.Series = cells.str.isfloat()
    return digits.astype("float64") if bool(are_numbers.all()) else column


def _plain(frame: cudf.DataFrame) -> cudf.DataFrame:
    """The column types that `Frames` promises: categories as text, decimals as float64."""
    for name in list(frame.columns):
        column: cudf.Series = frame[name]
        if isinstance(column.dtype, cudf.CategoricalDtype):
            frame[name] = column.astype("str")
        elif isinstance(column.dtype, cudf.Decimal32Dtype | cudf.Decimal64Dtype | cudf.Decimal128Dtype):
            frame[name] = column.astype("float64")
    return frame.reset_index(drop=True)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
