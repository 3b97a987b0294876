"""Frames in GPU memory, by cuDF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cudf
import cupy as cp
import numpy as np
import pyarrow as pa
import pyarrow.parquet

from gpuclust.data.files import TableFile
from gpuclust.data.frames import PandasFrames, arrow_to_pandas, read_arrow, unique_and_named, with_plain_types
from gpuclust.data.remote import RemoteFile
from gpuclust.data.table import CsvLayout, CsvRows
from gpuclust.errors import DataError, message_of
from gpuclust.runtime.plain_csv import NotPlain, count_records, exact_numbers

UNREADABLE = (RuntimeError, ValueError, OSError, EOFError, OverflowError, TypeError)
"""The errors that cuDF, pyarrow and gzip raise for a damaged file or one of another format."""


class CudfFrames:
    """cuDF frames; `gpuclust.data.table.Frames` documents the methods.

    Missing values are cuDF's nulls; cuDF's methods skip them, as those of pandas skip NaN.
    """

    name = "cudf"

    def read_csv(self, path: TableFile, layout: CsvLayout, *, numbers: Sequence[str], text: Sequence[str]) -> CsvRows:
        """The named columns of a delimited file: by cuDF where a check of the file shows that it parses it as the Arrow reader does,
        else by the Arrow reader on the host (`gpuclust.runtime.plain_csv`). Both give the same rows, to the bit."""
        try:
            frame = _parse(path, layout, count_records(path, layout), numbers, text)
        except NotPlain as why:
            rows = PandasFrames().read_csv(path, layout, numbers=numbers, text=text)
            return CsvRows(self.from_pandas(rows.frame), rows.n_more, f"the Arrow reader ({why})")
        except OSError as error:
            raise DataError(f"{path} cannot be read: {message_of(error)}") from error
        return CsvRows(frame, reader="cuDF")

    def read_parquet(self, path: TableFile, columns: Sequence[str]) -> cudf.DataFrame:
        """The named columns of a Parquet file."""
        try:
            if isinstance(path, RemoteFile) or not unique_and_named(pa.parquet.read_schema(path).names):
                return self.from_arrow(read_arrow(path, "parquet", columns))
            frame = cudf.read_parquet(path, columns=list(columns), use_pandas_metadata=False)
        except UNREADABLE as error:
            raise DataError(f"{path} is not a whole Parquet file: {message_of(error)}") from error
        return _plain(frame[list(columns)])

    def read_feather(self, path: TableFile, columns: Sequence[str]) -> cudf.DataFrame:
        """The named columns of a Feather or Arrow IPC file, which is decoded on the host: cuDF's own reader does the same."""
        try:
            table = read_arrow(path, "feather", columns)
        except (pa.ArrowException, *UNREADABLE) as error:
            raise DataError(f"{path} is not a whole Feather file: {message_of(error)}") from error
        return self.from_arrow(table)

    def concat(self, frames: Sequence[cudf.DataFrame]) -> cudf.DataFrame:
        """The rows of all frames, in order, with a new index 0..n-1."""
        return frames[0] if len(frames) == 1 else cudf.concat(list(frames), ignore_index=True)

    def to_numeric(self, column: cudf.Series) -> cudf.Series:
        """A column of text as float64; values that are not numbers become missing."""
        trimmed: cudf.Series = column.str.strip()
        return cudf.to_numeric(trimmed, errors="coerce").astype("float64")

    def count_distinct(self, frame: cudf.DataFrame, columns: Sequence[str]) -> int:
        """The number of distinct rows in these float64 columns."""
        chosen: cudf.DataFrame = frame[list(columns)]
        return len(chosen.drop_duplicates())

    def from_pandas(self, frame: Any) -> cudf.DataFrame:
        """A pandas frame on the GPU, through Arrow, which supports columns of lists; NaN becomes null."""
        return cudf.DataFrame.from_arrow(pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata())

    def from_arrow(self, table: pa.Table) -> cudf.DataFrame:
        """An Arrow table on the GPU, with the column types of `Frames`; NaN becomes null."""
        plain: pa.Table = with_plain_types(table)
        frame: cudf.DataFrame = cudf.DataFrame.from_arrow(plain.replace_schema_metadata())
        return frame.nans_to_nulls()

    def to_pandas(self, frame: cudf.DataFrame) -> Any:
        """The frame in pandas, with the column types of PandasFrames. It may be of a table on disk: on disk itself, or in pandas."""
        if not isinstance(frame, cudf.DataFrame):
            return PandasFrames().to_pandas(frame)
        return arrow_to_pandas(frame.to_arrow(preserve_index=False))

    def to_matrix(self, frame: cudf.DataFrame, columns: Sequence[str]) -> cp.ndarray:
        """float64 array (n_rows, n_columns), C order, on the GPU; also of the rows of a table on disk, which are in pandas."""
        if not isinstance(frame, cudf.DataFrame):
            return cp.asarray(PandasFrames().to_matrix(frame, columns))
        chosen: cudf.DataFrame = frame[list(columns)]
        return cp.ascontiguousarray(chosen.to_cupy(dtype=np.dtype(np.float64), na_value=np.nan))


def _parse(
    path: TableFile, layout: CsvLayout, n_records: int, numbers: Sequence[str], text: Sequence[str]
) -> cudf.DataFrame:
    """The named columns of a file that `count_records` found plain. Raises NotPlain where cuDF gives another number of rows, or a column of
    ``numbers`` must be read by the Arrow reader."""
    wanted = [*numbers, *text]
    frame: cudf.DataFrame = cudf.read_csv(
        path,
        sep=layout.separator,
        header=0 if layout.header else None,
        names=list(layout.columns),
        usecols=wanted,
        dtype="str",
        na_filter=False,
        index_col=False,
        compression=None,
    )
    if len(frame) != n_records:
        raise NotPlain(f"cuDF found {len(frame):,} of {n_records:,} records")
    for name in wanted:
        read: cudf.Series = frame[name]
        column: cudf.Series = read.fillna("")
        frame[name] = exact_numbers(column, layout.decimal, cp) if name in numbers else column
    return frame[wanted]


def _plain(frame: cudf.DataFrame) -> cudf.DataFrame:
    """The frame with the column types of `Frames`: categories as text, decimals as float64."""
    for name in list(frame.columns):
        column: cudf.Series = frame[name]
        if isinstance(column.dtype, cudf.CategoricalDtype):
            frame[name] = column.astype("str")
        elif isinstance(column.dtype, cudf.Decimal32Dtype | cudf.Decimal64Dtype | cudf.Decimal128Dtype):
            frame[name] = column.astype("float64")
    return frame.nans_to_nulls().reset_index(drop=True)
