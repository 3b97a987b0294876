"""Find rows that repeat an earlier row, for any number of rows in bounded memory.

A row is a key of one or two 64-bit words. Keys that do not fit in memory are written to files by their hash, so that equal keys are in one
file, and each file is processed alone. Numbers are their own keys; a text, or a row of several columns, has a 128-bit hash: two
of n different texts have the same hash with probability n²/2^129, 1e-21 at a billion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from gpuclust.data.lists import join_items

if TYPE_CHECKING:
    from gpuclust.runtime.scratch import Scratch

MEMORY_BYTES = 1 << 25
"""Bytes of keys in memory; more are written to files."""
N_FILES = 256
_HASH_KEYS = ("gpuclust 1st half", "gpuclust 2nd half")
_MISSING = np.uint64(0x9E3779B97F4A7C15)


class DistinctRows:
    """Counts distinct keys and finds repeated ones.

    ``width`` is the number of 64-bit words of a key. With ``numbered`` the number of each row is kept, so that `repeats` can be asked.
    """

    def __init__(
        self, scratch: Scratch, *, width: int = 1, numbered: bool = False, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self._scratch, self._width, self._numbered, self._memory_bytes = scratch, width, numbered, memory_bytes
        self._waiting: list[np.ndarray] = []
        self._files: list[Path] = []
        self._found: list[np.ndarray] = []
        self.n_rows = 0

    def add(self, keys: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Add keys (n, width) or (n,) uint64 of rows; with ``numbered``, with the numbers of the rows (n,), which increase."""
        n = len(keys)
        columns = [keys.reshape(n, self._width)]
        if rows is not None:
            columns.append(rows.astype(np.uint64)[:, None])
        self._waiting.append(np.concatenate(columns, axis=1))
        self.n_rows += n
        if sum(part.nbytes for part in self._waiting) > self._memory_bytes:
            self._spill()

    def _spill(self) -> None:
        """Write the waiting keys to files, equal keys to the same file."""
        records = np.concatenate(self._waiting)
        self._waiting = []
        repeated = self._repeated(records)
        if self._numbered:
            self._found.append(records[repeated, -1].astype(np.int64))
        records = records[~repeated]  # else the file of a frequent key would have a record for each of its rows
        if not self._files:
            self._files = [self._scratch.file("keys") for _ in range(N_FILES)]
        place = (mix(len(records), [records[:, 0]], 0) % np.uint64(N_FILES)).astype(np.int64)
        order = np.argsort(place, kind="stable")
        records, edges = records[order], np.searchsorted(place[order], np.arange(N_FILES + 1))
        try:
            for path, start, stop in zip(self._files, edges[:-1], edges[1:], strict=True):
                with path.open("ab") as file:
                    records[start:stop].tofile(file)
        except OSError as error:
            raise self._scratch.full(error) from error

    def _parts(self) -> Iterator[np.ndarray]:
        """All records (n, width [+ 1]); those with equal keys are in one part."""
        if not self._files:
            yield (
                np.concatenate(self._waiting)
                if self._waiting
                else np.empty((0, self._width + self._numbered), np.uint64)
            )
            return
        if self._waiting:
            self._spill()
        for path in self._files:
            yield np.fromfile(path, np.uint64).reshape(-1, self._width + self._numbered)

    def n_distinct(self) -> int:
        """The number of distinct keys."""
        return sum(len(part) - int(self._repeated(part).sum()) for part in self._parts())

    def repeats(self) -> np.ndarray:
        """The numbers (n,) int64 of the rows whose key is that of an earlier row, in order."""
        assert self._numbered
        found = [part[self._repeated(part), -1].astype(np.int64) for part in self._parts()]
        return np.sort(np.concatenate([*self._found, *found]))

    def _repeated(self, records: np.ndarray) -> np.ndarray:
        """A mask (n,) of the records that have the key of an earlier record."""
        marks = np.zeros(len(records), bool)
        order = np.argsort(records[:, 0], kind="stable")
        words = records[order, 0]
        equal = words[1:] == words[:-1]
        if self._width == 1:
            marks[order[1:][equal]] = True
            return marks
        near = np.zeros(len(records), bool)  # records that share their first word with another record
        near[1:] |= equal
        near[:-1] |= equal
        few = order[near]
        few = few[np.lexsort((few, records[few, 1], records[few, 0]))]
        same = (records[few[1:], :2] == records[few[:-1], :2]).all(axis=1)
        marks[few[1:][same]] = True
        return marks

    def close(self) -> None:
        """Remove the files."""
        for path in self._files:
            path.unlink(missing_ok=True)
        self._files, self._waiting = [], []

    def __enter__(self) -> DistinctRows:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def column_keys(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Two words (n,) uint64 for each value of a column; equal values, and missing ones, have equal words."""
    kind = column.dtype.kind
    if kind == "f":
        values = column.to_numpy(np.float64) + 0.0  # -0.0 is 0.0
        words = np.where(np.isnan(values), np.nan, values).view(np.uint64)
        return words, words
    if isinstance(column.dtype, np.dtype) and kind in "iubmM":
        words = column.to_numpy().astype(np.int64).view(np.uint64)
        return words, words
    texts = column
    if "list" in str(column.dtype).lower():
        texts = join_items(pa.array(column)).to_pandas()
    missing = texts.isna().to_numpy(bool)
    values = texts.where(~missing, "").to_numpy(object)
    first, second = (pd.util.hash_array(values, hash_key=key[:16], categorize=False) for key in _HASH_KEYS)
    return np.where(missing, _MISSING, first), np.where(missing, _MISSING, second)


def row_keys(columns: Iterable[pd.Series], n_rows: int) -> np.ndarray:
    """A 128-bit hash of each row: (n_rows, 2) uint64. A single column of numbers is its own key."""
    pairs = [column_keys(column) for column in columns]
    if len(pairs) == 1:
        return np.stack(pairs[0], axis=1)
    halves = [mix(n_rows, (pair[half] for pair in pairs), seed) for half, seed in ((0, 0), (1, 0x9E3779B97F4A7C15))]
    return np.stack(halves, axis=1)


def mix(n_rows: int, words: Iterable[np.ndarray], seed: int) -> np.ndarray:
    """A 64-bit hash of the words of each row, by the finalizer of MurmurHash3."""
    hashed = np.full(n_rows, seed, np.uint64)
    for word in words:
        hashed += word
        for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            hashed ^= hashed >> np.uint64(33)
            hashed *= np.uint64(factor)
        hashed ^= hashed >> np.uint64(33)
    return hashed
