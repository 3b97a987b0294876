"""Means and medians of columns on disk, equal to those of pandas for the same columns in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gpuclust.runtime.blocks import DiskBlocks

READ_ROWS = 65_536
"""Rows that are read at a time; `gpuclust.data.clean` adds up a mean in the same parts."""
MAX_SORTED = 1 << 22
"""Values that are sorted in memory to find the medians."""
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

    The first read counts the highest bits of the values; those of the middle values are few, and the second read sorts them. Where they
    are many, further reads count the next bits before.
    """
    n_columns = values.shape[1]
    found, done = np.zeros((n_columns, 2), np.uint64), 0  # the highest bits of the two middle values
    ranks = np.zeros((n_columns, 2), np.int64)  # among the values with these bits
    while True:
        histograms = [[np.zeros(1 << _BITS, np.int64) for _ in range(2)] for _ in range(n_columns)]
        for X in read_parts(values):
            for j in range(n_columns):
                keys = _ordered(X[:, j])
                for i in range(1 if found[j, 0] == found[j, 1] else 2):
                    digits = _with_bits(keys, found[j, i], done) >> np.uint64(64 - _BITS - done)
                    digits = (digits & np.uint64((1 << _BITS) - 1)).astype(np.int64)
                    histograms[j][i] += np.bincount(digits, minlength=1 << _BITS)
        n_near = 0
        for j in range(n_columns):
            counts = histograms[j][:1] * 2 if found[j, 0] == found[j, 1] else histograms[j]
            if done == 0:
                ranks[j] = max(counts[0].sum() - 1, 0) // 2, counts[0].sum() // 2
            for i in range(2):
                below = counts[i].cumsum()
                digit = min(int(np.searchsorted(below, ranks[j, i], side="right")), (1 << _BITS) - 1)
                ranks[j, i] -= below[digit - 1] if digit else 0
                found[j, i] |= np.uint64(digit << (64 - _BITS - done))
                n_near += int(counts[i][digit])
        done += _BITS
        if n_near <= MAX_SORTED or done == 64:
            return _middle(values, found, ranks, done)


def _middle(values: DiskBlocks, found: np.ndarray, ranks: np.ndarray, done: int) -> np.ndarray:
    """The mean of the two values (n_columns,) with the bits found that have these ranks among the values with these bits."""
    if done == 64:
        return (_values_of(found[:, 0]) + _values_of(found[:, 1])) / 2
    near: list[list[list[np.ndarray]]] = [[[], []] for _ in range(len(found))]
    for X in read_parts(values):
        for j, (first, second) in enumerate(near):
            keys = _ordered(X[:, j])
            first.append(_with_bits(keys, found[j, 0], done))
            second.append(_with_bits(keys, found[j, 1], done) if found[j, 0] != found[j, 1] else first[-1])
    middle = np.full((len(found), 2), np.nan)
    for j, columns in enumerate(near):
        for i, parts in enumerate(columns):
            keys = np.sort(np.concatenate(parts))
            if len(keys):  # else the column has no value
                middle[j, i] = _values_of(keys[ranks[j, i] : ranks[j, i] + 1])[0]
    return middle.mean(axis=1)


def _with_bits(keys: np.ndarray, bits: np.uint64, done: int) -> np.ndarray:
    """The keys whose first ``done`` bits are those of ``bits``."""
    if done == 0:
        return keys
    shift = np.uint64(64 - done)
    return keys[keys >> shift == bits >> shift]


def _values_of(keys: np.ndarray) -> np.ndarray:
    return np.where(keys & _SIGN, keys ^ _SIGN, ~keys).view(np.float64)


def _ordered(column: np.ndarray) -> np.ndarray:
    """Unsigned integers in the order of the values that are not missing."""
    words = column[~np.isnan(column)].view(np.uint64)
    return np.where(words & _SIGN, ~words, words | _SIGN)
