"""Tables that are given in memory: frames, Arrow tables and arrays, as a file that jobs can read."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.feather

from gpuclust.errors import DataError

ACCEPTED = "a DataFrame, an Arrow table, a path, or an array of numbers of shape (n_samples, n_features)"


class InMemory(NamedTuple):
    """A table in memory. ``id`` is the column that holds the index of a DataFrame, if its index has a name."""

    table: pa.Table
    id: str | None = None


def to_arrow(data: Any) -> InMemory:
    """Convert a DataFrame (pandas, Polars, cuDF), an Arrow table or an array (NumPy, CuPy) to an Arrow table.

    The columns of an array of shape (n_samples, n_features) are called ``x0``, ``x1`` and so on. The named index of a
    pandas DataFrame becomes a column.

    Raises
    ------
    DataError
        Where the data is none of these, has two columns of one name, or has a column whose values are of several types.
    """
    try:
        return _to_arrow(data)
    except pa.ArrowException as error:
        raise DataError(f"{_described(data)} cannot be converted to an Arrow table: {error.args[0]}") from error


def _to_arrow(data: Any) -> InMemory:
    if isinstance(data, pa.Table):
        return InMemory(_with_unique_names(data))
    if hasattr(data, "to_arrow") and hasattr(data, "columns"):  # cuDF, Polars
        return InMemory(_with_unique_names(pa.table(data.to_arrow())))
    if hasattr(data, "iloc") and hasattr(data, "columns"):
        return _of_pandas(data)
    if hasattr(data, "__arrow_c_stream__"):
        return InMemory(_with_unique_names(pa.table(data)))
    if hasattr(data, "__cuda_array_interface__"):  # CuPy
        data = data.get()
    return InMemory(_of_array(data))


def _of_pandas(frame: Any) -> InMemory:
    import pandas as pd

    names = [_name(column) for column in frame.columns]
    _check_unique(names)
    frame = frame.set_axis(names, axis=1)
    index = None if frame.index.name is None else _name(frame.index.name)
    if index in names:
        index = None
    if index is not None:
        frame = pd.concat([pd.Series(frame.index, index=frame.index, name=index), frame], axis=1)
    return InMemory(pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None), index)


def _name(column: Hashable) -> str:
    return column if isinstance(column, str) else str(column)


def _with_unique_names(table: pa.Table) -> pa.Table:
    _check_unique(table.column_names)
    return table


def _check_unique(names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise DataError(f"the table has several columns named {', '.join(repeated)}; rename them")


def _of_array(data: Any) -> pa.Table:
    try:
        array = np.asarray(data)
    except (ValueError, TypeError) as error:
        raise DataError(f"{_described(data)} is not a table; give {ACCEPTED}") from error
    if array.ndim != 2 or array.dtype.kind not in "fiub" or not array.shape[1]:
        raise DataError(f"{_described(data)} is not a table; give {ACCEPTED}")
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    return pa.table({f"x{j}": np.ascontiguousarray(array[:, j]) for j in range(array.shape[1])})


def _described(data: Any) -> str:
    shape = getattr(data, "shape", None)
    dtype = getattr(data, "dtype", None)
    return (
        f"data of type {type(data).__name__}" + (f", shape {shape}" if shape else "") + (f", {dtype}" if dtype else "")
    )


def write_once(table: pa.Table, folder: Path) -> Path:
    """Write a table into a folder, as an Arrow file that is named by the digest of its bytes.

    A file of the same content is not written again, so the same table has the same path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(".partial", dir=folder)
    os.close(handle)
    partial = Path(name)
    try:
        pyarrow.feather.write_feather(table.combine_chunks(), partial, compression="uncompressed")
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=12)).hexdigest()
        path = folder / f"{digest}.arrow"
        if not path.exists():
            partial.rename(path)
        return path
    finally:
        partial.unlink(missing_ok=True)
