"""`DiskFrame`: a table's frame on disk. Features are in a flat file of float64, the other columns in an Arrow file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.ipc

from gpuclust.data.frames import arrow_to_pandas
from gpuclust.errors import BackendError, DataError, message_of

if TYPE_CHECKING:
    from gpuclust.runtime.blocks import DiskBlocks, DiskWriter
    from gpuclust.runtime.scratch import Scratch

GROUP_ROWS = 65_536
"""Rows of a record batch of the Arrow file, and of a batch unless another number is wanted."""
NO_VALUE_YET = pa.string() if pd.__version__ < "3" else pa.bool_()
"""The Arrow type of a column of objects without a value so far: pandas has booleans with missing values as objects, and before version 3
also text."""


class _Storage:
    """The files of a frame: ``values`` (n_rows, n_features) and ``others``, an Arrow file of the columns that are not features."""

    def __init__(
        self, scratch: Scratch, features: Sequence[str], values: DiskBlocks, others: Path | None, dtypes: pd.Series
    ) -> None:
        self.scratch, self.features, self.values, self.others, self.dtypes = scratch, features, values, others, dtypes
        self.copies: dict[tuple[str, ...], DiskBlocks] = {}

    def remove(self) -> None:
        """Remove the files."""
        for path in (self.values.path, self.others):
            if path is not None:
                path.unlink(missing_ok=True)


class DiskFrame:
    """The frame of a `Table` that is not held in memory: its columns on disk, row after row.

    It has the columns and types of the pandas frame that it stands for, and only the operations that need little memory: `batches`,
    `iloc`, ``frame[[columns]]`` (which copies nothing) and `values_of`. Its files are in a scratch folder and are removed when that is
    closed.
    """

    def __init__(self, storage: _Storage, columns: Sequence[str]) -> None:
        self._storage = storage
        self.columns = pd.Index(columns)

    def __len__(self) -> int:
        return len(self._storage.values)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_rows, n_columns)."""
        return len(self), len(self.columns)

    @property
    def dtypes(self) -> pd.Series:
        """The type of each column, as in the pandas frame."""
        return self._storage.dtypes[self.columns]

    @property
    def nbytes(self) -> int:
        """Bytes in memory, for the cache of results."""
        return 0

    @property
    def scratch(self) -> Scratch:
        """The scratch folder of the files."""
        return self._storage.scratch

    @property
    def iloc(self) -> _Rows:
        """``frame.iloc[rows]``: rows by their numbers (n,), in any order, or a slice, as a pandas frame with an index 0..n-1."""
        return _Rows(self)

    def __getitem__(self, columns: Sequence[str]) -> DiskFrame:
        """A frame of some columns, in this order. Raises KeyError for a column that it does not have."""
        if isinstance(columns, str):
            raise TypeError("a frame on disk returns frames of columns; use frame[[name]]")
        if missing := [name for name in columns if name not in self.columns]:
            raise KeyError(f"{missing} not in the columns")
        return DiskFrame(self._storage, list(columns))

    def values_of(self, features: Sequence[str]) -> DiskBlocks:
        """Features as blocks (n_rows, n_features) of float64. Some of the features are copied to a file of their own, once."""
        wanted, storage = tuple(features), self._storage
        if wanted == tuple(storage.features):
            return storage.values
        if wanted not in storage.copies:
            at = [list(storage.features).index(name) for name in wanted]
            writer = storage.scratch.writer("columns", len(at), np.float64)
            for start in range(0, len(self), GROUP_ROWS):
                writer.append(storage.values.read(start, min(start + GROUP_ROWS, len(self)))[:, at])
            storage.copies[wanted] = writer.close()
        return storage.copies[wanted]

    def batches(self, columns: Sequence[str] | None = None, rows: int = GROUP_ROWS) -> Iterator[pd.DataFrame]:
        """All rows in order, in pandas frames of ``rows`` rows (the last may be shorter), each with an index 0..n-1.

        ``rows`` is rounded up to a multiple of `GROUP_ROWS`.
        """
        names = list(self.columns if columns is None else self[columns].columns)
        step = -(-rows // GROUP_ROWS)
        with _OtherColumns(self._storage, names) as others:
            for start in range(0, len(self), step * GROUP_ROWS):
                stop = min(start + step * GROUP_ROWS, len(self))
                groups = range(start // GROUP_ROWS, -(-stop // GROUP_ROWS))
                yield self._assemble(names, self._values(names, start, stop), others.read(groups))

    def rewrite(self, keep: np.ndarray | None, fills: Mapping[str, float]) -> DiskFrame:
        """Write the rows that ``keep`` (n,) marks (None: all) to new files, with the missing values of features filled; the files of
        this frame are removed."""
        storage, names = self._storage, list(self.columns)
        fill = np.array([fills.get(name, np.nan) for name in storage.features])
        with DiskFrameWriter(storage.scratch, storage.features) as writer, _OtherColumns(storage, names) as others:
            writer.begin(storage.dtypes, others.schema)
            for start in range(0, len(self), GROUP_ROWS):
                stop = min(start + GROUP_ROWS, len(self))
                X, columns = storage.values.read(start, stop), others.read([start // GROUP_ROWS])
                X = np.where(np.isnan(X), fill, X) if fills else X
                if keep is not None:
                    marks = keep[start:stop]
                    X, columns = X[marks], None if columns is None else columns.filter(pa.array(marks))
                writer.write(X, columns)
            written = writer.close()
        self.remove()
        return written

    def to_pandas(self) -> pd.DataFrame:
        """The whole frame in memory."""
        return pd.concat(self.batches(), ignore_index=True)

    def remove(self) -> None:
        """Remove the files of the frame. Frames of its columns use the same files."""
        self._storage.remove()

    def _values(self, names: Sequence[str], start: int, stop: int) -> np.ndarray | None:
        storage = self._storage
        return storage.values.read(start, stop) if set(names) & set(storage.features) else None

    def _assemble(self, names: Sequence[str], values: np.ndarray | None, others: Any) -> pd.DataFrame:
        """A frame of the columns from rows of the flat file and of the Arrow file."""
        columns: dict[str, Any] = {}
        host = None if others is None else arrow_to_pandas(others)
        place = {name: j for j, name in enumerate(self._storage.features)}
        for name in names:
            if name in place:
                assert values is not None
                columns[name] = np.ascontiguousarray(values[:, place[name]])
            else:
                assert host is not None
                column = host[name]
                wanted = self._storage.dtypes[name]
                columns[name] = column if column.dtype == wanted else column.astype(wanted)
        return pd.DataFrame(columns, columns=pd.Index(list(names)))


class _Rows:
    """``frame.iloc``."""

    def __init__(self, frame: DiskFrame) -> None:
        self._frame = frame

    def __getitem__(self, rows: Any) -> pd.DataFrame:
        frame, storage = self._frame, self._frame._storage
        numbers = np.arange(len(frame))[rows] if isinstance(rows, slice) else np.asarray(rows)
        numbers = np.flatnonzero(numbers) if numbers.dtype == bool else numbers.astype(np.int64)
        numbers = np.where(numbers < 0, numbers + len(frame), numbers)
        names = list(frame.columns)
        values = storage.values.take(numbers) if set(names) & set(storage.features) else None
        return frame._assemble(names, values, self._taken(names, numbers))

    def _taken(self, names: Sequence[str], numbers: np.ndarray) -> Any:
        """Rows of the Arrow file, one record batch in memory at a time."""
        order = np.argsort(numbers, kind="stable")
        ordered = numbers[order]
        parts = []
        with _OtherColumns(self._frame._storage, names) as others:
            if others.schema is None:
                return None
            for group in np.unique(ordered // GROUP_ROWS).tolist() or [0]:
                first, last = np.searchsorted(ordered, (group * GROUP_ROWS, (group + 1) * GROUP_ROWS))
                parts.append(others.read([group]).take(pa.array(ordered[first:last] - group * GROUP_ROWS)))
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        return pa.concat_tables(parts).take(pa.array(place))


class _OtherColumns:
    """Some of the columns in the Arrow file. ``schema`` is None where there are none of them."""

    def __init__(self, storage: _Storage, names: Sequence[str]) -> None:
        self._path, self.schema = storage.others, None
        wanted = [name for name in dict.fromkeys(names) if name not in storage.features]
        if self._path is None or not wanted:
            return
        self._file = pa.OSFile(str(self._path))
        with pa.ipc.open_file(self._file) as reader:
            every = reader.schema.names
        options = pa.ipc.IpcReadOptions(included_fields=[every.index(name) for name in wanted])
        self._reader = pa.ipc.open_file(self._file, options=options)
        self.schema = self._reader.schema

    def read(self, groups: Sequence[int]) -> Any:
        """Record batches as an Arrow table; None where there is no column."""
        if self.schema is None:
            return None
        try:
            return pa.Table.from_batches([self._reader.get_batch(group) for group in groups])
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self._path} cannot be read: {message_of(error)}") from error

    def __enter__(self) -> _OtherColumns:
        return self

    def __exit__(self, *error: object) -> None:
        if self.schema is not None:
            self._file.close()


class DiskFrameWriter:
    """Writes pandas frames, from the first row to the last, and opens them as a `DiskFrame`.

    All frames have the same columns and types; ``features`` are float64.
    """

    def __init__(self, scratch: Scratch, features: Sequence[str]) -> None:
        self._scratch, self._features = scratch, tuple(features)
        self._values: DiskWriter = scratch.writer("features", len(self._features), np.float64)
        self._path: Path | None = None
        self._file: Any = None
        self._writer: Any = None
        self._schema: Any = None
        self._waiting: list[Any] = []
        self._dtypes: pd.Series | None = None

    def append(self, frame: pd.DataFrame) -> None:
        """Write rows. Raises BackendError where the disk is full."""
        if self._dtypes is None:
            others = [name for name in frame.columns if name not in self._features]
            self.begin(
                frame.dtypes, pa.schema([(name, _arrow_type(frame[name])) for name in others]) if others else None
            )
        table = None
        if self._schema is not None:
            kinds = zip(self._schema.names, self._schema.types, strict=True)
            columns = [_to_arrow(frame[name], name, kind) for name, kind in kinds]
            table = pa.Table.from_arrays(columns, schema=self._schema)
        self.write(frame[list(self._features)].to_numpy(np.float64), table)

    def begin(self, dtypes: pd.Series, schema: Any) -> None:
        """Set the columns: their types in pandas, and the Arrow schema of those that are not features, if there are any."""
        self._dtypes, self._schema = dtypes, schema
        if schema is not None:
            self._path = self._scratch.file("columns")
            self._file = pa.OSFile(str(self._path), "wb")
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self._writer = pa.ipc.new_file(self._file, schema, options=options)

    def write(self, X: np.ndarray, others: Any) -> None:
        """Write rows: features (n, n_features), and the other columns as an Arrow table."""
        self._values.append(X)
        if self._writer is None:
            return
        self._waiting.append(others)
        if sum(map(len, self._waiting)) >= GROUP_ROWS:
            self._flush(whole_groups=True)

    def _flush(self, *, whole_groups: bool) -> None:
        table = pa.concat_tables(self._waiting)
        stop = len(table) // GROUP_ROWS * GROUP_ROWS if whole_groups else len(table)
        try:
            self._writer.write_table(table.slice(0, stop).combine_chunks(), GROUP_ROWS)
        except OSError as error:
            raise self._scratch.full(error) from error
        self._waiting = [table.slice(stop)] if stop < len(table) else []

    def __enter__(self) -> DiskFrameWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:  # the files are removed with the scratch folder
            with suppress(BackendError, OSError):  # the disk may be full
                self._values.close()
            with suppress(OSError):
                if self._file is not None:
                    self._file.close()

    def close(self) -> DiskFrame:
        """End the files; the frame."""
        assert self._dtypes is not None, "a frame has columns"
        if self._writer is not None:
            if self._waiting:
                self._flush(whole_groups=False)
            try:
                self._writer.close()
                self._file.close()
            except OSError as error:
                raise self._scratch.full(error) from error
        storage = _Storage(self._scratch, self._features, self._values.close(), self._path, self._dtypes)
        return DiskFrame(storage, list(self._dtypes.index))


def _to_arrow(column: pd.Series, name: str, kind: Any = None) -> Any:
    """A column as an Arrow array. Raises DataError for values of several types."""
    try:
        found = pa.array(column, kind, from_pandas=True)
    except (pa.ArrowException, TypeError) as error:
        raise DataError(
            f"{name!r} has values of several types and cannot be read in batches; make them one type, or use memory.mode=resident"
        ) from error
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _arrow_type(column: pd.Series) -> Any:
    """The Arrow type that holds a column of a frame."""
    dtype: Any = column.dtype
    if isinstance(dtype, pd.ArrowDtype):
        return dtype.pyarrow_dtype
    if isinstance(dtype, pd.StringDtype):
        return pa.string()
    if isinstance(dtype, pd.DatetimeTZDtype):
        return pa.timestamp(dtype.unit, str(dtype.tz))
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        return pa.from_numpy_dtype(dtype)
    found = _to_arrow(column, str(column.name)).type
    return NO_VALUE_YET if pa.types.is_null(found) else found
