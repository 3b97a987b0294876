"""`BatchedFrames`: the readers of `Frames` for files that do not fit in memory. They return `BatchedColumns`, which yield batches of
rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq

from gpuclust.data.files import TableFile
from gpuclust.data.frames import (
    CsvOptions,
    LineCounter,
    PandasFrames,
    ParsedCsv,
    arrow_to_pandas,
    iter_arrow,
    numbers_if_all,
    open_arrow,
    parse_csv,
    unique_and_named,
)
from gpuclust.data.remote import RemoteFile, arrow_input
from gpuclust.data.sniff import utf8_stream
from gpuclust.data.table import CsvLayout, CsvRows, unique_names
from gpuclust.errors import DataError, message_of

if TYPE_CHECKING:
    from gpuclust.runtime.scratch import Scratch

BATCH_ROWS = 131_072
"""Rows of a batch; the last may be shorter."""


class _Columns(Protocol):
    """Columns of a file: their number of rows, their types in pandas, and their rows."""

    n_rows: int
    dtypes: dict[str, Any]

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
        """Columns in order, in batches of ``rows`` rows."""


class BatchedColumns:
    """Columns of one or more files, read batch by batch; they take the place of a frame in memory.

    Every batch has the types of the whole column: a column of whole numbers is float64 if any of them is missing.
    """

    def __init__(self, files: Sequence[_Columns]) -> None:
        self._files = files
        names = list(files[0].dtypes)
        self.dtypes = pd.Series({name: _common([file.dtypes[name] for file in files]) for name in names}, dtype=object)

    def __len__(self) -> int:
        return sum(file.n_rows for file in self._files)

    @property
    def columns(self) -> pd.Index:
        """The names of the columns."""
        return self.dtypes.index

    def batches(self, names: Sequence[str], rows: int = BATCH_ROWS) -> Iterator[pd.DataFrame]:
        """Columns of all rows in order, in batches of at most ``rows`` rows, each with an index 0..n-1."""
        for file in self._files:
            for frame in file.batches(names, rows):
                other = {name: self.dtypes[name] for name in names if frame[name].dtype != self.dtypes[name]}
                yield frame.astype(other) if other else frame

    def convert(self, name: str, how: Callable[[Any], Any]) -> None:
        """Convert a column, a part at a time, because its type in another table is not the same."""
        for file in self._files:
            assert isinstance(file, _ArrowColumns)
            file.convert(name, how)
        self.dtypes[name] = _common([file.dtypes[name] for file in self._files])


def _common(dtypes: Sequence[Any]) -> Any:
    """The type of a pandas column that is put together from parts of these types."""
    if all(dtype == dtypes[0] for dtype in dtypes):
        return dtypes[0]
    parts = [pd.Series([None if dtype.kind in "OM" else 0]).astype(dtype) for dtype in dtypes]
    return pd.concat(parts, ignore_index=True).dtype


class _PandasColumns:
    """The columns of a frame in memory."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.n_rows, self.dtypes = len(frame), dict(zip(frame.columns, frame.dtypes, strict=True))
        self._frame = frame

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
        for start in range(0, self.n_rows, rows):
            yield self._frame[list(names)].iloc[start : start + rows].reset_index(drop=True)


class _ArrowColumns:
    """Columns of a file that Arrow reads. ``tables`` gives some of them in order, in tables of any size.

    The columns ``numbers`` hold text and are converted to float64. ``decimal`` is their decimal mark.
    """

    def __init__(
        self,
        schema: Any,
        n_rows: int,
        with_nulls: set[str],
        tables: Callable[[Sequence[str]], Iterator[Any]],
        numbers: set[str] | None = None,
        decimal: str = ".",
    ) -> None:
        self.n_rows, self._tables, self._numbers, self._decimal = n_rows, tables, numbers or set(), decimal
        self._conversions: dict[str, Callable[[Any], Any]] = {}
        types = {name: pa.float64() if name in self._numbers else schema.field(name).type for name in schema.names}
        empty = [pa.nulls(int(name in with_nulls), kind) for name, kind in types.items()]
        self.dtypes = {
            name: arrow_to_pandas(pa.table([e], names=["x"]))["x"].dtype for name, e in zip(types, empty, strict=True)
        }

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
        names = list(names)
        for table in regroup(self._tables(names), rows):
            for i, name in enumerate(names):
                if name in self._numbers:
                    table = table.set_column(i, name, numbers_if_all(table[name], self._decimal))
            frame = arrow_to_pandas(table)
            for name, convert in self._conversions.items():
                if name in names:
                    frame[name] = convert(frame[name])
            yield frame

    def convert(self, name: str, how: Callable[[Any], Any]) -> None:
        self._conversions[name] = how
        self.dtypes[name] = how(pd.Series([], dtype=self.dtypes[name])).dtype


def as_text(column: Any) -> Any:
    """A column of numbers, booleans or text as text, a whole number without a decimal point; a missing value is a missing text."""
    text = column.astype("str")
    if column.dtype.kind == "f":
        text = text.str.replace(r"\.0$", "", regex=True)
    return text.where(column.notna())


def as_float64(column: Any) -> Any:
    """Numbers or booleans as float64."""
    return column.astype("float64")


def regroup(tables: Iterator[Any], rows: int) -> Iterator[Any]:
    """Tables of ``rows`` rows (the last may be shorter) from tables of any size; none is empty."""
    waiting: list[Any] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= rows:
            whole = pa.concat_tables(waiting)
            stop = len(whole) // rows * rows
            yield from (whole.slice(start, rows) for start in range(0, stop, rows))
            waiting = [whole.slice(stop)]
    if waiting and sum(map(len, waiting)):
        yield pa.concat_tables(waiting)


class BatchedFrames(PandasFrames):
    """Readers whose result stays on disk. A CSV file or a remote file is read once and copied to an Arrow file in the scratch folder."""

    def __init__(self, scratch: Scratch, block_bytes: int = 1 << 20) -> None:
        super().__init__(block_bytes)
        self._scratch = scratch
        self._parsed: list[Path] = []

    def read_csv(self, path: TableFile, layout: CsvLayout, *, numbers: Sequence[str], text: Sequence[str]) -> CsvRows:
        numeric: set[str] = set()

        def parse(how: CsvOptions) -> ParsedCsv:
            nonlocal numeric
            numeric = set(numbers) if how.as_text else set()
            out = self._scratch.file("csv")
            n_rows = 0
            try:
                with utf8_stream(path, layout) as stream:
                    counted = LineCounter(stream)
                    reader = pa.csv.open_csv(counted, **how.arguments(layout))
                    with pa.OSFile(str(out), "wb") as file, self._writer(file, reader.schema) as writer:
                        for batch in reader:
                            numeric = {name for name in numeric if _is_number(batch.column(name), layout.decimal)}
                            n_rows += batch.num_rows
                            self._write(writer, batch)
            except BaseException:
                out.unlink(missing_ok=True)
                raise
            self._parsed.append(out)
            return ParsedCsv(out, n_rows, counted.n_lines)

        parsed, _ = parse_csv(path, layout, CsvOptions.of(numbers, text, self.block_bytes), parse)
        with open_arrow(parsed.rows) as reader:
            schema = pa.schema([reader.schema.field(name) for name in [*numbers, *text]])
        file = parsed.rows
        columns = _ArrowColumns(
            schema, parsed.n_rows, set(), lambda names: _parsed_tables(file, names), numeric, layout.decimal
        )
        return CsvRows(BatchedColumns([columns]), parsed.n_more)

    @staticmethod
    def _writer(file: Any, schema: Any) -> Any:
        return pa.ipc.new_file(file, schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))

    def _write(self, writer: Any, batch: Any) -> None:
        try:
            writer.write_batch(batch)
        except OSError as error:
            raise self._scratch.full(error) from error

    def remove_parsed(self) -> None:
        """Remove the Arrow copies of CSV and remote files; their columns cannot be read afterwards."""
        for path in self._parsed:
            path.unlink(missing_ok=True)

    def read_parquet(self, path: TableFile, columns: Sequence[str]) -> Any:
        return self._read(path, "Parquet", columns, parquet_tables, _parquet_facts)

    def read_feather(self, path: TableFile, columns: Sequence[str]) -> Any:
        return self._read(path, "Feather", columns, feather_tables, _feather_facts)

    def _read(self, path: TableFile, form: str, columns: Sequence[str], tables: Any, facts: Any) -> BatchedColumns:
        def read(names: Sequence[str]) -> Iterator[Any]:
            try:
                yield from tables(path, names)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path} is not a whole {form} file: {message_of(error)}") from error

        try:
            if isinstance(path, RemoteFile):  # every pass but this one reads the copy
                return self._copied(file_schema(path, form.lower(), columns), read(columns))
            schema, n_rows, with_nulls = facts(path, columns)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is not a whole {form} file: {message_of(error)}") from error
        return BatchedColumns([_ArrowColumns(schema, n_rows, with_nulls, read)])

    def _copied(self, schema: Any, tables: Iterator[Any]) -> BatchedColumns:
        """The columns of a remote file, copied to an Arrow file in the scratch folder. Categories become their values."""
        kinds = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in schema.types]
        schema = pa.schema(list(zip(schema.names, kinds, strict=True)))
        out, n_rows, with_nulls = self._scratch.file("copy"), 0, set()
        self._parsed.append(out)
        with pa.OSFile(str(out), "wb") as file, self._writer(file, schema) as writer:
            for table in tables:
                n_rows += len(table)
                with_nulls |= _with_nulls(iter([table]))
                for batch in table.cast(schema).to_batches():
                    self._write(writer, batch)
        return BatchedColumns([_ArrowColumns(schema, n_rows, with_nulls, lambda names: _parsed_tables(out, names))])

    def concat(self, frames: Sequence[Any]) -> Any:
        return BatchedColumns([file for columns in frames for file in columns._files])

    def from_pandas(self, frame: pd.DataFrame) -> Any:
        return BatchedColumns([_PandasColumns(frame)])


def _is_number(column: Any, decimal: str) -> bool:
    return bool(pa.types.is_floating(numbers_if_all(column, decimal).type))


def parquet_tables(path: TableFile, names: Sequence[str]) -> Iterator[Any]:
    """Columns of a Parquet file in tables of at most `BATCH_ROWS` rows; `unique_names` renames repeated columns."""
    remote = isinstance(path, RemoteFile)
    file = pq.ParquetFile(arrow_input(path), pre_buffer=remote)
    plain = unique_and_named(file.schema_arrow.names)
    every = range(file.num_row_groups)
    for groups in (
        [[group] for group in every] if remote else [list(every)]
    ):  # all that is asked for at once is buffered
        for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=list(names) if plain else None):
            table = pa.Table.from_batches([batch])
            yield (table if plain else table.rename_columns(unique_names(table.column_names))).select(list(names))


def feather_tables(path: TableFile, names: Sequence[str]) -> Iterator[Any]:
    """Columns of a Feather or Arrow IPC file, in tables as they were written; `unique_names` renames repeated columns."""
    with open_arrow(path) as reader:
        every = unique_names(reader.schema.names)
    at = [every.index(name) for name in names]
    kept = sorted(set(at))
    with open_arrow(path, kept) as reader:
        for batch in iter_arrow(reader):
            yield pa.table([batch.column(kept.index(i)) for i in at], names=list(names))


def _parsed_tables(path: Path, names: Sequence[str]) -> Iterator[Any]:
    """Columns of a file that `BatchedFrames` wrote. The file is not memory-mapped, because the address space may be limited."""
    with pa.OSFile(str(path)) as file:
        every = pa.ipc.open_file(file).schema.names
        options = pa.ipc.IpcReadOptions(included_fields=[every.index(name) for name in names])
        reader = pa.ipc.open_file(file, options=options)
        for i in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(i)]).select(list(names))


def file_schema(path: TableFile, format: str, columns: Sequence[str]) -> Any:
    """The schema of columns of a file."""
    if format == "parquet":
        schema = pq.read_schema(arrow_input(path))
    else:
        with open_arrow(path) as reader:
            schema = reader.schema
    names = unique_names(schema.names)
    return pa.schema([(name, schema.field(names.index(name)).type) for name in columns])


def _parquet_facts(path: TableFile, columns: Sequence[str]) -> tuple[Any, int, set[str]]:
    """The schema of columns, the number of rows, and the columns of whole numbers or booleans with a missing value."""
    file, schema = pq.ParquetFile(path), file_schema(path, "parquet", columns)
    unknown, with_nulls = set(_may_change(schema)), set()
    if unique_and_named(file.schema_arrow.names):
        for i in range(file.metadata.num_columns):
            name = file.metadata.schema.column(i).path
            if name not in unknown:
                continue
            counts = [_null_count(file.metadata.row_group(g).column(i)) for g in range(file.metadata.num_row_groups)]
            if None not in counts:
                unknown.discard(name)
                with_nulls |= {name} if any(counts) else set()
    with_nulls |= _with_nulls(parquet_tables(path, sorted(unknown)) if unknown else iter(()))
    return schema, file.metadata.num_rows, with_nulls


def _null_count(chunk: Any) -> int | None:
    found = chunk.statistics
    return found.null_count if found is not None and found.has_null_count else None


def _feather_facts(path: TableFile, columns: Sequence[str]) -> tuple[Any, int, set[str]]:
    """As `_parquet_facts`."""
    schema = file_schema(path, "feather", columns)
    n_rows, with_nulls = 0, set()
    wanted = list(_may_change(schema)) or list(columns)[:1]
    for table in feather_tables(path, wanted):
        n_rows += len(table)
        with_nulls |= _with_nulls(iter([table]))
    return schema, n_rows, with_nulls


def _may_change(schema: Any) -> Iterator[str]:
    """The columns whose type in pandas depends on whether a value is missing."""
    for name, kind in zip(schema.names, schema.types, strict=True):
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        if pa.types.is_integer(plain) or pa.types.is_boolean(plain):
            yield name


def _with_nulls(tables: Iterator[Any]) -> set[str]:
    return {name for table in tables for name in table.column_names if table[name].null_count}
