"""Rows as people and programs give them (a DataFrame, dictionaries, arrays), as the matrix that a model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gpuclust.errors import ModelError
from gpuclust.model.encodings import MISSING, Encoding, encoded, encoded_columns
from gpuclust.model.vectors import listed, source_columns, stack, vector_columns


def to_matrix(data: Any, features: Sequence[str], encodings: Sequence[Encoding] = ()) -> tuple[np.ndarray, pd.Index]:
    """Rows as (n_samples, n_features) float64 with missing values as NaN, and their index.

    ``data`` is a DataFrame, a list of dictionaries, a dictionary of columns, all by name in any order and with any other
    columns (a vector in one column, as a list), or a 2-D array or list of lists (n_samples, n_features) in the order of ``features``; one row may be given as
    a dictionary, a Series or a list of numbers. ``encodings`` are of columns that are given as they were before they were encoded; an array has their features. As for a job, booleans count as 0 and 1 and text among numbers as missing.

    Raises ModelError when a feature is missing, when columns are not numeric, or when the shape does not fit.
    """
    frame = encoded(_frame(data, features), encodings, features)
    vectors = {n: p for n, p in vector_columns(features).items() if features[p.start] not in frame.columns}
    wanted = source_columns(features) if vectors else features
    if missing := [name for name in wanted if name not in frame.columns]:
        sources = encoded_columns(encodings, features)
        missing, wanted = (
            list(dict.fromkeys(sources.get(name, name) for name in names)) for names in (missing, wanted)
        )
        raise ModelError(f"the rows lack {_named(missing)}; the model needs the columns {_named(wanted)}")
    if repeated := [name for name in wanted if list(frame.columns).count(name) > 1]:
        raise ModelError(f"the rows have several columns named {repeated[0]!r}; keep one")
    raw = np.empty((len(frame), len(features)), dtype=np.float64)
    inside = {j for place in vectors.values() for j in range(place.start, place.stop)}
    for j, name in enumerate(features):
        if j not in inside:
            raw[:, j] = _numbers(frame[name], name)
    for name, place in vectors.items():
        raw[:, place] = stack(frame[name].tolist(), place.stop - place.start, name)
    return raw, frame.index


def _named(names: Sequence[str]) -> str:
    """The first names of a list, with ranges, and how many more there are."""
    names = listed(names)
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more


def _frame(data: Any, features: Sequence[str]) -> pd.DataFrame:
    """The rows as a DataFrame whose columns have names."""
    if hasattr(data, "to_pandas"):  # Arrow, Polars, cuDF
        data = data.to_pandas()
    if isinstance(data, pd.Series):
        data = [data.to_dict()]
    if isinstance(data, Mapping):
        columns = {name: _column(values) for name, values in data.items()}
        return _made(columns, "columns of different lengths")
    if isinstance(data, np.ndarray) and data.dtype.names is not None:
        return pd.DataFrame(data)
    if isinstance(data, pd.DataFrame):
        by_position = not any(name in data.columns for name in features) and list(data.columns) == [
            *range(data.shape[1])
        ]
        return _by_position(data.to_numpy(), features, data.index) if by_position else data
    if isinstance(data, Sequence) and not isinstance(data, str) and data and isinstance(data[0], Mapping):
        if not all(isinstance(row, Mapping) for row in data):
            raise ModelError("some rows are dictionaries and some are not; give all rows in one form")
        return _made([{name: _plain(value) for name, value in row.items()} for row in data], "rows that do not fit")
    if isinstance(data, (Sequence, np.ndarray)) and not isinstance(data, (str, bytes)):
        return _by_position(data, features)
    raise ModelError(
        f"rows of type {type(data).__name__} cannot be placed; give a DataFrame, a list of dictionaries, or an array"
    )


def _plain(value: Any) -> Any:
    """The value of an array without dimensions, which a scoring server makes of a number."""
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _column(values: Any) -> Any:
    """The values of a column: one-dimensional, or a list of vectors."""
    try:
        found = np.atleast_1d(_plain(values))
    except ValueError:  # vectors of several lengths
        return list(values)
    return list(found) if found.ndim > 1 else found


def _made(content: Any, problem: str) -> pd.DataFrame:
    try:
        return pd.DataFrame(content)
    except (ValueError, TypeError) as error:
        raise ModelError(f"{problem}: {' '.join(str(error).split())[:200]}") from error


def _by_position(data: Any, features: Sequence[str], index: pd.Index | None = None) -> pd.DataFrame:
    try:
        values = np.asarray(data)
        if values.dtype.kind not in "iufb":
            values = np.asarray(data, dtype=object)
    except ValueError as error:
        raise ModelError("the rows have different numbers of values; give a value for each feature") from error
    if values.ndim == 1 and len(values) == len(features) and len(features) != 1:
        values = values[None]
    if values.ndim == 1 and (len(features) == 1 or not len(values)):
        values = values.reshape(-1, len(features))
    if values.ndim != 2 or values.shape[1] != len(features):
        raise ModelError(
            f"rows of shape {values.shape} do not fit the model, which takes {len(features)} values a row: "
            f"{_named(features)}"
        )
    return pd.DataFrame(values, columns=list(features), index=index)


def _numbers(column: pd.Series, name: str) -> np.ndarray:
    """A column as float64 (n_rows,), NaN where it is missing. Raises ModelError when it is not numeric."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    if column.dtype.kind in "iufb" and not (isinstance(column.dtype, pd.SparseDtype)):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    if column.dtype.kind in "mMc":
        raise ModelError(f"the column {name!r} is of type {column.dtype}; the model needs numbers")
    column = column.map(_plain).astype(object)
    words = column.map(lambda value: value.strip().lower() if isinstance(value, str) else value)
    said = words.isin(["true", "false", "t", "f"])
    if said.any() and (said | words.isna() | words.isin(MISSING)).all():
        return words.map({"true": 1.0, "t": 1.0, "false": 0.0, "f": 0.0}).to_numpy(dtype=np.float64, na_value=np.nan)
    numbers = pd.to_numeric(words, errors="coerce").astype("float64")
    other = numbers.isna() & words.notna() & ~words.isin(MISSING)
    if other.any() and other.sum() >= numbers.notna().sum():
        example = repr(column[other].iloc[0])[:40]
        raise ModelError(f"the column {name!r} holds {example}, which is not a number; the model needs numbers")
    return numbers.to_numpy()
