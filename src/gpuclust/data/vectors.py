"""Columns of vectors: lists of numbers of one length, held as one array beside the frame, not as a column for each value."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from gpuclust.data.files import TableFile
from gpuclust.data.frames import PandasFrames, hash_rows, iter_arrow, open_arrow
from gpuclust.data.load import load_columns
from gpuclust.data.remote import arrow_input
from gpuclust.data.schema import FileSchema
from gpuclust.data.table import unique_names
from gpuclust.errors import DataError, message_of
from gpuclust.model.vectors import element_names

BATCH_ROWS = 65_536
HASH_ROWS = 4096
HEAD_ROWS = 2000
"""The number of first rows whose most frequent length is the length of the vectors."""
MAX_SIZE = 20_000
GOOD, MISSING, LENGTH, NOT_FINITE, ZERO = range(5)
REASONS = {MISSING: "missing", LENGTH: "of another length", NOT_FINITE: "with NaN or infinity", ZERO: "all zero"}
"""Why a vector cannot be clustered. A zero vector is dropped only if rows are scaled to length 1."""


@dataclass(frozen=True)
class VectorColumn:
    """A column of vectors: ``values`` (n, size) float16 or float32, in memory or mapped from a file, and the ``state`` (n,) int8 of each
    vector, `GOOD` or one of `REASONS`. ``rows`` (n_rows,) are the places of the table's rows in ``values``; None: all of them in order."""

    name: str
    values: np.ndarray
    state: np.ndarray
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values) if self.rows is None else len(self.rows)

    @property
    def size(self) -> int:
        """The number of values of a vector."""
        return int(self.values.shape[1])

    @property
    def names(self) -> tuple[str, ...]:
        """The features."""
        return element_names(self.name, self.size)

    @property
    def states(self) -> np.ndarray:
        """The state of the vector of each row (n_rows,) int8."""
        return self.state if self.rows is None else self.state[self.rows]

    @property
    def nbytes(self) -> int:
        """Bytes in memory; none of what is mapped from a file."""
        return 0 if isinstance(self.values, np.memmap) else int(self.values.nbytes)

    def at(self, rows: np.ndarray | None) -> VectorColumn:
        """The vectors of some rows (m,), by their numbers in the table; None: of all."""
        if rows is None:
            return self
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    def read(self, start: int, stop: int) -> np.ndarray:
        """The vectors of the rows ``start`` to ``stop``: (stop - start, size), NaN where a vector is missing."""
        return self.values[start:stop] if self.rows is None else self.values[self.rows[start:stop]]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The vectors of rows by their numbers (m,): (m, size)."""
        return self.values[rows if self.rows is None else self.rows[rows]]

    def bad(self, *, unit: bool) -> np.ndarray:
        """Which rows have no vector that can be clustered, (n_rows,) bool; with ``unit``, those of length 0 too."""
        return is_bad(self.states, unit=unit)

    def reasons(self, *, unit: bool) -> dict[str, int]:
        """Why vectors cannot be clustered -> the number of rows."""
        counts = np.bincount(self.states, minlength=len(REASONS) + 1)
        return {text: int(counts[code]) for code, text in REASONS.items() if counts[code] and (unit or code != ZERO)}


def is_bad(states: Any, *, unit: bool) -> Any:
    """Which states of vectors are those of rows to drop."""
    return (states != GOOD) if unit else (states != GOOD) & (states != ZERO)


def hash_vectors(column: VectorColumn) -> np.ndarray:
    """A 64-bit hash of the vector of each row, (n_rows,) uint64; see `hash_rows`."""
    hashed = np.empty(len(column), np.uint64)
    for start in range(0, len(column), HASH_ROWS):
        stop = min(start + HASH_ROWS, len(column))
        hashed[start:stop] = hash_rows(np.ascontiguousarray(column.read(start, stop).T, np.float32), stop - start)
    return hashed


def read_vectors(schema: FileSchema, names: Sequence[str]) -> tuple[VectorColumn, ...]:
    """Read columns of vectors of all files, one after another: float16 where the file holds float16, else float32.

    Raises DataError if a file is damaged, or a column has no vector.
    """
    return tuple(_read(schema, name) for name in names)


def _read(schema: FileSchema, name: str) -> VectorColumn:
    arrays = (part for file in schema.files.paths for part in _arrays(schema, file, name))
    if schema.files.format != "parquet":
        parts = list(arrays)
        return _filled(iter(parts), sum(map(len, parts)), parts[:1], schema, name)
    n_rows = sum(int(pa.parquet.read_metadata(arrow_input(file)).num_rows) for file in schema.files.paths)
    first = next(arrays)
    return _filled(itertools.chain([first], arrays), n_rows, [first], schema, name)


def _filled(arrays: Iterator[Any], n_rows: int, head: Sequence[Any], schema: FileSchema, name: str) -> VectorColumn:
    """The column from its arrays, copied one after another; ``head`` are the first, which tell the length of the vectors."""
    half = pa.types.is_float16(head[0].type.value_type)
    values = np.empty((n_rows, size_of(head, name, schema)), np.float16 if half else np.float32)
    state = np.empty(n_rows, np.int8)
    start = 0
    for part in arrays:
        stop = start + len(part)
        fill(part, values[start:stop], state[start:stop])
        start = stop
    return VectorColumn(name, values, state)


def size_of(parts: Sequence[Any], name: str, schema: FileSchema) -> int:
    """The length of most of the first vectors. Raises DataError if there is none, or if it is too large."""
    lengths: Counter[int] = Counter()
    for part in parts:
        if pa.types.is_fixed_size_list(part.type):
            lengths[int(part.type.list_size)] += 1
        else:
            lengths.update(n for n in pc.list_value_length(part[:HEAD_ROWS]).to_pylist() if n)
    if not lengths:
        raise DataError(
            f"{schema.files.paths[0]}: {name!r} holds no vector in its first rows; leave it out of data.features"
        )
    size = lengths.most_common(1)[0][0]
    if size > MAX_SIZE:
        raise DataError(f"{name!r} has vectors of {size:,} values, more than {MAX_SIZE:,}; reduce them first")
    return size


def head_size(schema: FileSchema, name: str) -> int:
    """The length of the vectors of a column, from the first rows of the first file. Raises DataError if there is none."""
    return size_of(list(itertools.islice(_arrays(schema, schema.files.paths[0], name), 1)), name, schema)


def _arrays(schema: FileSchema, file: TableFile, name: str) -> Iterator[Any]:
    """A column of one file as Arrow arrays of lists of numbers."""
    format = schema.files.format
    if format == "csv":
        (own,) = (layout for path, layout in zip(schema.files.paths, schema.layouts, strict=True) if path == file)
        alone = replace(schema, files=replace(schema.files, paths=(file,)), layouts=(own,))
        frame = load_columns(alone, PandasFrames(), [name], text=[name]).frame
        for start in range(0, len(frame), BATCH_ROWS):
            yield parse(pa.array(frame[name].iloc[start : start + BATCH_ROWS], pa.string(), from_pandas=True))
        return
    try:
        if format == "parquet":
            parquet = pa.parquet.ParquetFile(arrow_input(file))
            own_name = parquet.schema_arrow.names[unique_names(parquet.schema_arrow.names).index(name)]
            for batch in parquet.iter_batches(BATCH_ROWS, columns=[own_name]):
                yield batch.column(0)
        else:
            with open_arrow(file) as reader:
                at = unique_names(reader.schema.names).index(name)
            with open_arrow(file, [at]) as reader:
                for batch in iter_arrow(reader):
                    column = batch.column(0)
                    yield from (column[start : start + BATCH_ROWS] for start in range(0, len(column), BATCH_ROWS))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} is not a whole {format.title()} file: {message_of(error)}") from error


def parse(texts: Any) -> Any:
    """Lists of numbers written as text, as in ``[0.1, 0.2]`` or NumPy's ``[0.1 0.2]``: an Arrow array of lists of float32.

    A cell that holds anything else is a missing vector.
    """
    inside = pc.utf8_trim(texts, " \t\r\n[]()")
    separated = pc.replace_substring_regex(inside, r"\s*,\s*|\s+", ",")
    filled = pc.if_else(pc.equal(separated, ""), pa.scalar(None, pa.string()), separated)
    lists = pc.split_pattern(filled, ",")
    try:
        return lists.cast(pa.list_(pa.float32()))
    except pa.ArrowInvalid:
        return pa.array([_floats(cell) for cell in lists.to_pylist()], pa.list_(pa.float32()))


def _floats(items: Sequence[str] | None) -> list[float] | None:
    try:
        return None if items is None else [float(item) for item in items]
    except ValueError:
        return None


def fill(lists: Any, values: np.ndarray, state: np.ndarray) -> None:
    """Write an Arrow array of lists to ``values`` (n, size), NaN where a list has another length, and ``state`` (n,)."""
    size = values.shape[1]
    lengths = pc.fill_null(pc.list_value_length(lists), -1).to_numpy(zero_copy_only=False)
    fits = lengths == size
    state[:] = np.where(fits, GOOD, np.where(lengths <= 0, MISSING, LENGTH))
    whole = bool(fits.all())
    flat = (lists if whole else lists.filter(pa.array(fits))).flatten()
    if flat.null_count and pa.types.is_float16(flat.type):
        flat = flat.cast(pa.float32())
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is counted
        numbers = flat.to_numpy(zero_copy_only=False).reshape(-1, size).astype(values.dtype, copy=False)
    if whole:
        values[:] = numbers
    else:
        values[~fits] = np.nan
        values[fits] = numbers
    # A sum of squares is not finite where a value is not; those that overflow are looked at again.
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", values, values, dtype=np.float64 if values.dtype == np.float32 else np.float32)
    doubtful = np.flatnonzero(fits & ~np.isfinite(squares))
    state[doubtful[~np.isfinite(values[doubtful]).all(axis=1)]] = NOT_FINITE
    zero = np.flatnonzero(fits & (squares == 0))
    state[zero[~values[zero].any(axis=1)]] = ZERO
