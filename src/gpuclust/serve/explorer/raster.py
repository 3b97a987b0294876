"""Density images and voxels: all rows are counted by cell, without sampling."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np

from gpuclust.serve.explorer.points import Coding, Span

WIDTH, HEIGHT = 640, 320
VOXELS = 18  # per side of the cube; the browser draws one point per voxel
_FAINTEST = 0.30


def by_category(
    x: np.ndarray, y: np.ndarray, spans: tuple[Span, Span], coding: Coding, colors: Sequence[str]
) -> np.ndarray:
    """An RGBA image (HEIGHT, WIDTH, 4) uint8, top row first.

    Each cell has the colour of its most frequent category; the opacity grows with the logarithm of the number of rows.
    """
    cell = _cells(x, y, spans)
    inside = cell >= 0
    k = len(coding.names)
    counts = np.bincount(cell[inside] * k + coding.codes[inside], minlength=WIDTH * HEIGHT * k).reshape(-1, k)
    table = np.array([rgb(color) for color in colors], dtype=np.uint8)
    return _painted(table[counts.argmax(axis=1)], counts.sum(axis=1))


def by_value(
    x: np.ndarray, y: np.ndarray, spans: tuple[Span, Span], values: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """An image as in `by_category`, coloured by the mean of ``values`` in a cell.

    ``scale`` (256, 3) uint8 are the colours from the minimum to the maximum of ``span_of(values)``.
    """
    from gpuclust.serve.explorer.points import span_of

    cell = _cells(x, y, spans)
    inside = (cell >= 0) & np.isfinite(values)
    counts = np.bincount(cell[inside], minlength=WIDTH * HEIGHT)
    sums = np.bincount(cell[inside], weights=values[inside], minlength=WIDTH * HEIGHT)
    span = span_of(values, pad=0.0)
    means = np.divide(sums, counts, out=np.full(len(sums), span.low), where=counts > 0)
    place = np.clip((means - span.low) / (span.high - span.low) * 255, 0, 255).astype(np.int64)
    return _painted(scale[place], counts)


def _cells(x: np.ndarray, y: np.ndarray, spans: tuple[Span, Span]) -> np.ndarray:
    column, row = spans[0].cells(x, WIDTH), spans[1].cells(y, HEIGHT)
    return np.where((column >= 0) & (row >= 0), (HEIGHT - 1 - row) * WIDTH + column, -1)


def _painted(color: np.ndarray, counts: np.ndarray) -> np.ndarray:
    depth = np.log1p(counts) / max(float(np.log1p(counts.max(initial=0))), 1e-9)
    alpha = np.where(counts > 0, 255 * (_FAINTEST + (1 - _FAINTEST) * depth), 0)
    return np.dstack([color.reshape(HEIGHT, WIDTH, 3), alpha.astype(np.uint8).reshape(HEIGHT, WIDTH, 1)])


def voxels(
    points: Sequence[np.ndarray], spans: Sequence[Span], coding: Coding
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The non-empty cells of a cube: centres (n, 3) float64, number of rows (n,) int64, most frequent category (n,) int64."""
    cells = np.stack([span.cells(values, VOXELS) for values, span in zip(points, spans, strict=True)], axis=1)
    inside = (cells >= 0).all(axis=1)
    key = np.ravel_multi_index(tuple(cells[inside].T), (VOXELS,) * 3)
    k = len(coding.names)
    pairs, rows = np.unique(key * k + coding.codes[inside], return_counts=True)
    voxel, category = np.divmod(pairs, k)
    by_rows = np.lexsort((category, -rows, voxel))
    first = by_rows[np.flatnonzero(np.diff(voxel[by_rows], prepend=-1))]
    used, place = np.unique(voxel, return_inverse=True)
    counts = np.bincount(place, weights=rows).astype(np.int64)
    index = np.stack(np.unravel_index(used, (VOXELS,) * 3), axis=1)
    low, high = np.array([s.low for s in spans]), np.array([s.high for s in spans])
    return low + (index + 0.5) * (high - low) / VOXELS, counts, category[first]


def rgb(color: str) -> tuple[int, int, int]:
    """Red, green and blue of a ``#RRGGBB`` colour, 0..255."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def as_png(picture: np.ndarray) -> str:
    """Encode an RGBA image (height, width, 4) uint8 as a PNG data URL."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture, "RGBA").save(out, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")
