"""The rows of an export as arrays for maps; row i is the item of rank i."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuclust.serve.library import Library

AXES = ("x", "y", "z")
MAX_POINTS = 50_000  # with more rows a map shows a density and a sample of points
SAMPLE = 2_000
MIN_POINTS_PER_CLUSTER = 40
GROUPS = 9
_TRIM = 0.0005
_FAR = 1.5


@dataclass(frozen=True)
class Span:
    """The range of an axis, and the number of rows outside it."""

    low: float
    high: float
    beyond: int = 0

    def cells(self, values: np.ndarray, n: int) -> np.ndarray:
        """The cell 0..n-1 of each value (int64); -1 if it is outside the range or not finite."""
        with np.errstate(invalid="ignore"):
            scaled = (values.astype(np.float64) - self.low) * (n / (self.high - self.low))
            inside = (scaled >= 0) & (scaled <= n)
        return np.where(inside, np.minimum(np.where(inside, scaled, 0), n - 1), -1).astype(np.int64)


@dataclass(frozen=True)
class Coding:
    """A category of each row: ``codes`` (n_rows,) int32 into ``names``."""

    codes: np.ndarray
    names: tuple[str, ...]


def values_of(library: Library, axis: str) -> np.ndarray:
    """The values (n_rows,) of a map coordinate or a feature."""
    return library.rows[f"f/{axis}"].to_numpy() if axis in library.features else library.column(axis)


def span_of(values: np.ndarray, *, everything: bool = False, pad: float = 0.03) -> Span:
    """The range of all values or, if a few outliers would compress the others, the central 99.9 % extended by a quarter."""
    finite = values[np.isfinite(values)].astype(np.float64)
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if len(finite) > 1_000 and not everything:
        cut = int(len(finite) * _TRIM)
        inner = np.partition(finite, (cut, len(finite) - 1 - cut))
        middle_low, middle_high = float(inner[cut]), float(inner[-1 - cut])
        middle = middle_high - middle_low
        if middle > 0 and high - low > _FAR * middle:
            low, high = max(low, middle_low - 0.25 * middle), min(high, middle_high + 0.25 * middle)
    beyond = int(np.count_nonzero((finite < low) | (finite > high)))
    margin = pad * (high - low) if high > low else 1.0
    return Span(low - margin, high + margin, beyond)


def sample_of(clusters: np.ndarray, size: int = SAMPLE, *, seed: int = 0) -> np.ndarray:
    """Ranks of a stratified sample, ascending: proportional to cluster size, but at least 40 rows per cluster, or all its rows.

    The sample depends only on the labels and the seed. Returns all rows if there are at most ``size``.
    """
    if len(clusters) <= size:
        return np.arange(len(clusters))
    rng = np.random.default_rng(seed)
    order = np.argsort(clusters, kind="stable")
    present, starts = np.unique(clusters[order], return_index=True)
    chosen = []
    for members in np.split(order, starts[1:]):
        share = round(size * len(members) / len(clusters))
        chosen.append(rng.choice(members, min(len(members), max(share, MIN_POINTS_PER_CLUSTER)), replace=False))
    assert len(present) == len(chosen)
    return np.sort(np.concatenate(chosen))


def groups_of(library: Library, most: int = GROUPS) -> Coding:
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


def in_box(x: np.ndarray, y: np.ndarray, xs: Sequence[float], ys: Sequence[float]) -> np.ndarray:
    """Whether each point is in a rectangle given by two corners: (n,) bool."""
    return (x >= min(xs)) & (x <= max(xs)) & (y >= min(ys)) & (y <= max(ys))


def in_lasso(x: np.ndarray, y: np.ndarray, xs: Sequence[float], ys: Sequence[float]) -> np.ndarray:
    """Whether each point is in a polygon: (n,) bool, by the crossing number (Shimrat, CACM 5(8), 1962)."""
    inside = np.zeros(len(x), dtype=bool)
    near = np.flatnonzero(in_box(x, y, xs, ys))
    px, py, odd = x[near].astype(np.float64), y[near].astype(np.float64), np.zeros(len(near), dtype=bool)
    for (x0, y0), (x1, y1) in zip(
        zip(xs, ys, strict=True), zip([*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True), strict=True
    ):
        if y0 == y1:
            continue
        crosses = np.flatnonzero((y0 > py) != (y1 > py))
        odd[crosses] ^= px[crosses] < x0 + (x1 - x0) * ((py[crosses] - y0) / (y1 - y0))
    inside[near] = odd
    return inside
