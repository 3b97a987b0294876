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
from gpuclust.data.frames import PandasFrames, arrow_to_pandas, read_arrow, unique_and_named
from gpuclust.data.remote import RemoteFile
from gpuclust.data.table import CsvLayout
from gpuclust.errors import DataError, message_of

UNREADABLE = (RuntimeError, ValueError, OSError, EOFError, OverflowError, TypeError)
"""The errors that cuDF, pyarrow and gzip raise for a damaged file or one of another format."""


class CudfFrames:
    """cuDF frames; `gpuclust.data.table.Frames` documents the methods.

    Missing values are cuDF's nulls; cuDF's methods skip them, as those of pandas skip NaN.
    """

    name = "cudf"

    def read_csv(
        self, path: TableFile, layout: CsvLayout, *, numbers: Sequence[str], text: Sequence[str]
    ) -> tuple[cudf.DataFrame, int]:
        """The named columns of a delimited file, and the number of lines beyond its rows. The file is read with pandas, as cuDF
        does not report records whose number of fields differs from the header's."""
        frame, n_more = PandasFrames().read_csv(path, layout, numbers=numbers, text=text)
        return self.from_pandas(frame), n_more

    def read_parquet(self, path: TableFile, columns: Sequence[str]) -> cudf.DataFrame:
        """The named columns of a Parquet file."""
        try:
            if isinstance(path, RemoteFile) or not unique_and_named(pa.parquet.read_schema(path).names):
                return self.from_pandas(arrow_to_pandas(read_arrow(path, "parquet", columns)))
            frame = cudf.read_parquet(path, columns=list(columns), use_pandas_metadata=False)
        except UNREADABLE as error:
            raise DataError(f"{path} is not a whole Parquet file: {message_of(error)}") from error
        return _plain(frame[list(columns)])

    def read_feather(self, path: TableFile, columns: Sequence[str]) -> cudf.DataFrame:
        """The named columns of a Feather or Arrow IPC file; it is decoded on the host, as cuDF has no reader on the GPU."""
        try:
            table = read_arrow(path, "feather", columns)
        except (pa.ArrowException, *UNREADABLE) as error:
            raise DataError(f"{path} is not a whole Feather file: {message_of(error)}") from error
        return self.from_pandas(arrow_to_pandas(table))

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

    def to_pandas(self, frame: cudf.DataFrame) -> Any:
        """The frame, which may be on disk, in pandas, with the column types of PandasFrames."""
        if not isinstance(frame, cudf.DataFrame):
            return frame.to_pandas()
        return arrow_to_pandas(frame.to_arrow(preserve_index=False))

    def to_matrix(self, frame: cudf.DataFrame, columns: Sequence[str]) -> cp.ndarray:
        """float64 array (n_rows, n_columns), C order, on the GPU."""
        chosen: cudf.DataFrame = frame[list(columns)]
        return cp.ascontiguousarray(chosen.to_cupy(dtype=np.dtype(np.float64), na_value=np.nan))


def _plain(frame: cudf.DataFrame) -> cudf.DataFrame:
    """The frame with the column types of `Frames`: categories as text, decimals as float64."""
    for name in list(frame.columns):
        column: cudf.Series = frame[name]
        if isinstance(column.dtype, cudf.CategoricalDtype):
            frame[name] = column.astype("str")
        elif isinstance(column.dtype, cudf.Decimal32Dtype | cudf.Decimal64Dtype | cudf.Decimal128Dtype):
            frame[name] = column.astype("float64")
    return frame.reset_index(drop=True)
