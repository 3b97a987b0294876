"""Means and medians of columns on disk: those that pandas gives for the same columns in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gpuclust.runtime.blocks import DiskBlocks

READ_ROWS = 65_536
"""Rows that are read at a time; `gpuclust.data.clean` adds up a mean in the same parts."""
_BITS = 16
_SIGN = np.uint64(1 << 63)


def read_parts(values: DiskBlocks) -> Iterator[np.ndarray]:
    """All rows in order, in arrays (n, n_columns) of at most `READ_ROWS` rows."""
    for start in range(0, len(values), READ_ROWS):
        yield values.read(start, min(start + READ_ROWS, len(values)))


def means(values: DiskBlocks) -> np.ndarray:
    """The mean (n_columns,) of each column without its missing values (NaN), NaN where there is none."""
    totals, counts = np.zeros(values.shape[1]), np.zeros(values.shape[1], np.int64)
    for X in read_parts(values):
        present = ~np.isnan(X)
        counts += present.sum(axis=0)
        columns = np.where(present, X, 0.0).T.copy()
        totals += np.array([column.sum() for column in columns])
    with np.errstate(invalid="ignore"):
        return totals / counts


def medians(values: DiskBlocks) -> np.ndarray:
    """The exact median (n_columns,) of each column without its missing values (NaN), NaN where there is none.

    The bits of the order statistics are found from the highest to the lowest, `_BITS` in each read, by counting.
    """
    counts = sum((~np.isnan(X)).sum(axis=0) for X in read_parts(values))
    low = _order_statistics(values, (counts - 1) // 2, counts)
    high = _order_statistics(values, counts // 2, counts)
    return np.where(counts > 0, (low + high) / 2, np.nan)


def _order_statistics(values: DiskBlocks, ranks: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The value (n_columns,) of a rank, from 0, in each column."""
    ranks, n_columns = np.where(counts > 0, ranks, 0).astype(np.int64), values.shape[1]
    found = np.zeros(n_columns, np.uint64)  # the bits found so far, in the highest places
    for shift in range(64 - _BITS, -1, -_BITS):
        histogram = np.zeros((n_columns, 1 << _BITS), np.int64)
        for X in read_parts(values):
            for j in range(n_columns):
                keys = _ordered(X[:, j])
                if shift < 64 - _BITS:
                    keys = keys[keys >> np.uint64(shift + _BITS) == found[j] >> np.uint64(shift + _BITS)]
                digits = (keys >> np.uint64(shift)) & np.uint64((1 << _BITS) - 1)
                histogram[j] += np.bincount(digits.astype(np.int64), minlength=1 << _BITS)
        for j in range(n_columns):
            below = np.cumsum(histogram[j])
            digit = int(np.searchsorted(below, ranks[j], side="right"))
            digit = min(digit, (1 << _BITS) - 1)  # a column without values
            ranks[j] -= below[digit - 1] if digit else 0
            found[j] |= np.uint64(digit << shift)
    return np.where(found & _SIGN, found ^ _SIGN, ~found).view(np.float64)


def _ordered(column: np.ndarray) -> np.ndarray:
    """Unsigned integers in the order of the values that are not missing."""
    words = column[~np.isnan(column)].view(np.uint64)
    return np.where(words & _SIGN, ~words, words | _SIGN)
