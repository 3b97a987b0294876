"""The rows of an export as arrays for maps; row i is the item of rank i."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuclust.pages import raster
from gpuclust.serve.library import Library

AXES = ("x", "y", "z")
_FAR = 1.5


@dataclass(frozen=True)
class Span:
    """The range of an axis."""

    low: float
    high: float


@dataclass(frozen=True)
class Coding:
    """A category of each row: ``codes`` (n_rows,) int32 into ``names``."""

    codes: np.ndarray
    names: tuple[str, ...]


def values_of(library: Library, axis: str) -> np.ndarray:
    """The values (n_rows,) of a map coordinate or a feature."""
    return library.rows[f"f/{axis}"].to_numpy() if axis in library.features else library.column(axis)


def span_of(values: np.ndarray, *, pad: float = 0.03) -> Span:
    """The range of all values or, if a few outliers would compress the others, the central 99.9 % extended by a quarter."""
    finite = values[np.isfinite(values)].astype(np.float64)
    return Span(*raster.span_of(finite if len(finite) else np.array([0.0, 1.0]), pad, far=_FAR))


def groups_of(library: Library, most: int) -> Coding:
    """The first group of each row: the ``most`` frequent groups, "other" for the rest, "none" for rows without a group."""
    lists = _chunk(library.rows["groups"])
    lengths = np.diff(lists.offsets.to_numpy())
    first = np.full(len(lists), -1, dtype=np.int64)
    has = lengths > 0
    encoded = _chunk(lists.values).dictionary_encode()
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    first[has] = codes[lists.offsets.to_numpy()[:-1][has]]
    counts = np.bincount(first[first >= 0], minlength=len(encoded.dictionary))
    by_count = np.argsort(-counts, kind="stable")
    kept = by_count[:most]
    place = np.full(len(counts) + 1, len(kept), dtype=np.int32)  # the last position is for rows without a group
    place[kept] = np.arange(len(kept))
    place[-1] = len(kept) + 1
    names = [str(encoded.dictionary[int(i)].as_py()) for i in kept]
    return _compact(Coding(place[first], (*names, "other", "none")))


def _compact(coding: Coding) -> Coding:
    """Remove categories without rows."""
    present = np.unique(coding.codes)
    places = np.zeros(len(coding.names), dtype=np.int32)
    places[present] = np.arange(len(present))
    return Coding(places[coding.codes], tuple(coding.names[i] for i in present))


def _chunk(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    return column
