"""Features that are the values of a column of vectors: their names, and how many of them are written for people.

A column ``embedding`` of 384 values a row is 384 features, ``embedding[0]`` to ``embedding[383]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from gpuclust.errors import ModelError

MIN_RANGE = 4
"""At least this many consecutive numbers are written as a range."""
_ELEMENT = re.compile(r"(.+)\[(0|[1-9]\d*)\]")
_NUMBERED = re.compile(r"(.*?)(\d{1,9})(\]?)")


def element_names(column: str, size: int) -> tuple[str, ...]:
    """The features of a column of vectors of ``size`` values."""
    return tuple(f"{column}[{i}]" for i in range(size))


def vector_columns(features: Sequence[str]) -> dict[str, slice]:
    """The columns of vectors among features: column -> the places of its values. All values of a column are in order."""
    found: dict[str, slice] = {}
    start = 0
    while start < len(features):
        name = _ELEMENT.fullmatch(features[start])
        stop = start + 1
        if name and name[2] == "0":
            while stop < len(features) and features[stop] == f"{name[1]}[{stop - start}]":
                stop += 1
            found[name[1]] = slice(start, stop)
        start = stop
    return found


def without_vectors(features: Sequence[str]) -> tuple[str, ...]:
    """The features that are columns of their own."""
    inside = {i for place in vector_columns(features).values() for i in range(place.start, place.stop)}
    return tuple(name for i, name in enumerate(features) if i not in inside)


def source_columns(features: Sequence[str]) -> tuple[str, ...]:
    """The columns of a source that hold the features: a column of vectors once."""
    return (*without_vectors(features), *vector_columns(features))


def listed(features: Iterable[str]) -> list[str]:
    """Features for people: consecutive numbers as a range, as in ``tempo``, ``embedding[0..383]``, ``e0..e127``."""
    names: list[str] = []
    run: list[str] = []
    last: tuple[str, int, str] | None = None

    def close() -> None:
        if len(run) < MIN_RANGE:
            names.extend(run)
        elif (element := _ELEMENT.fullmatch(run[0])) and last is not None:
            names.append(f"{element[1]}[{element[2]}..{last[1]}]")
        else:
            names.append(f"{run[0]}..{run[-1]}")
        run.clear()

    for feature in features:
        parts = _parts(feature)
        if parts is None or last is None or parts != (last[0], last[1] + 1, last[2]):
            close()
        run.append(feature)
        last = parts
    close()
    return names


def _parts(feature: str) -> tuple[str, int, str] | None:
    """The text before the last number of a name, the number, and the text after it."""
    found = _NUMBERED.fullmatch(feature)
    return (found[1], int(found[2]), found[3]) if found else None


def stack(cells: Sequence[object], size: int, column: str) -> np.ndarray:
    """Cells of a column of vectors as (n_rows, size) float64; a cell that is missing or has another length is a row of NaN.

    Raises ModelError where no cell has this length.
    """
    rows = np.full((len(cells), size), np.nan)
    other: set[int] = set()
    for i, cell in enumerate(cells):
        values = _numbers(cell)
        if values is not None and values.shape == (size,):
            rows[i] = values
        elif values is not None:
            other.add(values.size)
    if other and np.isnan(rows).all():
        raise ModelError(f"the vectors of {column!r} have {min(other):,} values, and the model takes {size:,}")
    return rows


def _numbers(cell: object) -> np.ndarray | None:
    """One cell as an array; text is read as a list in brackets. None where it is no list of numbers."""
    if isinstance(cell, str):
        cell = cell.strip().strip("[]").replace(",", " ").split()
    if cell is None or isinstance(cell, (bytes, Mapping)) or not hasattr(cell, "__len__"):
        return None
    try:
        return np.asarray(cell, dtype=np.float64)
    except (TypeError, ValueError):
        return None
