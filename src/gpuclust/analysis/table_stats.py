"""Statistics of a table that all its profiles share: raw features, their spread, categories, and the columns that show a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gpuclust.analysis.members import CHUNK_ROWS
from gpuclust.analysis.moments import moments
from gpuclust.data.disk_frame import DiskFrame
from gpuclust.data.table import Frames, Table
from gpuclust.model.records import Example
from gpuclust.runtime.blocks import MemoryBlocks, RowBlocks
from gpuclust.runtime.vector_blocks import VectorBlocks, host_columns

SHOWN_ROLES = ("id", "title", "creator")
MAX_WORDS = 64
"""The number of words of a title that are used."""
STOP_WORDS = frozenset(
    [
        "about",
        "after",
        "all",
        "also",
        "and",
        "any",
        "are",
        "but",
        "can",
        "did",
        "does",
        "feat",
        "for",
        "from",
        "had",
        "has",
        "have",
        "her",
        "his",
        "how",
        "into",
        "its",
        "just",
        "like",
        "more",
        "most",
        "not",
        "off",
        "one",
        "only",
        "our",
        "out",
        "over",
        "own",
        "same",
        "she",
        "some",
        "such",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "those",
        "too",
        "under",
        "until",
        "very",
        "was",
        "were",
        "what",
        "when",
        "where",
        "which",
        "while",
        "who",
        "why",
        "will",
        "with",
        "you",
        "your",
        "version",
        "remix",
        "edit",
        "live",
        "remaster",
        "remastered",
        "mix",
        "radio",
        "original",
        "der",
        "die",
        "das",
        "und",
        "les",
        "des",
        "una",
        "las",
        "los",
        "con",
        "por",
        "para",
        "que",
    ]
)
"""Words that are ignored."""


@dataclass(frozen=True)
class Categories:
    """A flattened categorical column: ``codes`` (n_values,) int32 into ``values``, texts in ascending order. A row may have several values
    (a list) or none: ``parents`` (n_values,) int32 are the rows of the codes, None where value i is that of row i.
    ``totals`` (n_categories,) int64 counts each category in the whole table."""

    codes: np.ndarray
    parents: np.ndarray | None
    values: pa.Array
    totals: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """The row of each code (n_values,) int32."""
        return np.arange(len(self.codes), dtype=np.int32) if self.parents is None else self.parents


@dataclass(frozen=True)
class TableStats:
    """Statistics of a table, computed once for any number of profiles.

    ``raw``: the features that are columns (n_rows, n_features) float64 in original units, in memory or on disk; ``mean`` and ``std`` (n_features,) of all
    rows; ``popularity`` (n_rows,) float64, NaN where missing; ``shown`` the frame (pandas or `DiskFrame`) and ``roles`` its columns
    of the roles id, title and creator, if they exist. ``on_device`` copies the features to one array on the GPU if the table is there.
    ``vectors``: all features, where some are values of vectors; then ``words`` are those of the titles, if there are any.
    """

    raw: RowBlocks
    mean: np.ndarray
    std: np.ndarray
    groups: Categories | None
    creators: Categories | None
    popularity: np.ndarray | None
    shown: Any
    roles: Mapping[str, str]
    on_device: Callable[[], RowBlocks] | None = None
    vectors: RowBlocks | None = None
    words: Categories | None = None

    @property
    def summed(self) -> RowBlocks:
        """The features where sums of them are computed: on the GPU if the table is there."""
        return self.raw if self.on_device is None else self.on_device()

    @property
    def scale(self) -> np.ndarray:
        """(n_features,) float64: standard deviations, 1 for a constant feature."""
        return np.where(self.std > 0, self.std, 1.0)

    def rows(self, numbers: np.ndarray) -> tuple[Example, ...]:
        """Rows by their numbers (n,) int64 in the table."""
        taken = self.shown.iloc[numbers]
        columns = [map(_text, taken[self.roles[r]]) if r in self.roles else [""] * len(taken) for r in SHOWN_ROLES]
        if self.popularity is None:
            return tuple(Example(*texts) for texts in zip(*columns, strict=True))
        popularity = (None if np.isnan(p) else float(p) for p in self.popularity[numbers])
        return tuple(Example(*texts) for texts in zip(*columns, popularity, strict=True))


def compute_table_stats(table: Table, frames: Frames) -> TableStats:
    """Compute the statistics that every profile of a table needs. A table on disk is read in batches."""
    raw = column_blocks(table, frames)
    whole = moments(raw)
    roles = {
        role: column for role, column in table.roles.named().items() if role in (*SHOWN_ROLES, "group", "popularity")
    }
    frame: Any = table.frame[list(dict.fromkeys(roles.values()))]
    if isinstance(frame, DiskFrame):
        shown: Any = frame
        wanted = _columns(roles, "group", "creator", "popularity", *(["title"] if table.vectors else []))
        parts: Iterable[pd.DataFrame] = frame.batches(wanted, CHUNK_ROWS) if wanted else []
    else:
        shown = frames.to_pandas(frame)
        parts = [shown]
    n_rows = len(shown)
    categories_of = {roles[role]: CategoryEncoder(n_rows) for role in ("group", "creator") if role in roles}
    popularity = _Values(n_rows, np.float64) if "popularity" in roles else None
    words = CategoryEncoder(n_rows) if table.vectors and "title" in roles else None
    for part in parts:
        if words is not None:
            words.add(words_of(part[roles["title"]]))
        for column, encoder in categories_of.items():
            encoder.add(part[column])
        if popularity is not None:
            popularity.extend(_numbers(part[roles["popularity"]]))
    found = {column: encoder.close() for column, encoder in categories_of.items()}
    own = {role: roles[role] for role in SHOWN_ROLES if role in roles}
    return TableStats(
        raw=raw,
        mean=whole.mean[0],
        std=whole.std[0],
        groups=found.get(roles.get("group", "")),
        creators=found.get(roles.get("creator", "")),
        popularity=None if popularity is None else popularity.array,
        shown=shown[_columns(own, *own)],
        roles=own,
        on_device=_device_blocks(table, frames),
        vectors=feature_blocks(table, frames) if table.vectors else None,
        words=None if words is None else words.close(),
    )


def _device_blocks(table: Table, frames: Frames) -> Callable[[], RowBlocks] | None:
    """What copies the features of a table on a GPU (n_rows, n_features) float64 to one array there; None of another table."""
    if frames.name != "cudf" or isinstance(table.frame, DiskFrame) or not table.column_features:
        return None
    names = table.column_features
    frame: Any = table.frame[list(names)]
    return lambda: MemoryBlocks(frames.to_matrix(frame, names))


def feature_blocks(table: Table, frames: Frames) -> RowBlocks:
    """The features of a table (n_rows, n_features) float64 in original units, on the host or on disk."""
    columns = column_blocks(table, frames)
    if not table.vectors:
        return columns
    return VectorBlocks(columns.X if isinstance(columns, MemoryBlocks) else columns, table.vectors)


def column_blocks(table: Table, frames: Frames) -> RowBlocks:
    """The features of a table that are columns of its frame; see `feature_blocks`."""
    frame: Any = table.frame
    if isinstance(frame, DiskFrame):
        return frame.values_of(table.column_features)
    return MemoryBlocks(host_columns(table, frames))


def _columns(roles: Mapping[str, str], *wanted: str) -> list[str]:
    """The columns of roles, each once."""
    return list(dict.fromkeys(roles[role] for role in wanted if role in roles))


def words_of(texts: pd.Series) -> pd.Series:
    """The words of each text as a list: in lower case, of three letters or more, the first `MAX_WORDS`, without those that say nothing."""
    column = pa.array(texts.map(_text), pa.string())
    lists = pc.split_pattern_regex(pc.utf8_trim(pc.utf8_lower(column), " "), r"[^\p{L}\p{N}'’]+")
    lists = pc.list_slice(lists, 0, MAX_WORDS)
    flat, parents = pc.list_flatten(lists), pc.list_parent_indices(lists)
    stripped = pc.utf8_trim(flat, "'’")
    said = pc.and_(pc.greater_equal(pc.utf8_length(stripped), 3), pc.invert(pc.utf8_is_numeric(stripped)))
    said = pc.and_(said, pc.invert(pc.is_in(stripped, value_set=pa.array(sorted(STOP_WORDS)))))
    kept = parents.filter(said).to_numpy()
    offsets = np.searchsorted(kept, np.arange(len(column) + 1)).astype(np.int32)
    found = pa.ListArray.from_arrays(pa.array(offsets), stripped.filter(said))
    return pd.Series(pd.arrays.ArrowExtensionArray(pa.chunked_array([found])))


def _numbers(column: Any) -> np.ndarray:
    found: np.ndarray = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return found


def categories(column: pd.Series) -> Categories:
    """The categories of a column of texts, of numbers, or of lists of texts; each item of a list counts."""
    encoder = CategoryEncoder(len(column))
    encoder.add(column)
    return encoder.close()


class _Values:
    """An array that grows at its end; ``size`` values are expected, so that no second copy is in memory."""

    def __init__(self, size: int, dtype: Any) -> None:
        self._room, self._size = np.empty(size, dtype), 0

    def extend(self, part: np.ndarray) -> None:
        """The next values."""
        size = self._size + len(part)
        if size > len(self._room):
            self._room = np.concatenate(
                [self.array, np.empty(max(size, 2 * len(self._room)) - self._size, self._room.dtype)]
            )
        self._room[self._size : size] = part
        self._size = size

    @property
    def array(self) -> np.ndarray:
        """The values so far, a view."""
        return self._room[: self._size]


class CategoryEncoder:
    """Encodes a column that arrives in parts. Each part has codes into its own dictionary. The waiting dictionaries are merged when
    together they are as long as the merged one, so that a text is looked up only a few times; merged texts keep their codes.
    """

    def __init__(self, n_rows: int = 0) -> None:
        self._n_rows = 0
        self._codes = _Values(n_rows, np.int32)
        self._rows: list[np.ndarray | tuple[int, int]] = []  # a range where value i is that of row i
        self._merged: pa.Array | None = None
        self._waiting: list[tuple[slice, pa.Array]] = []  # the codes that have a dictionary of their own

    def add(self, column: pd.Series) -> None:
        """The next rows."""
        values = pa.array(column, from_pandas=True)
        values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        rows = None
        if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
            rows, values = pc.list_parent_indices(values).to_numpy(), pc.list_flatten(values)
        encoded = values.dictionary_encode()
        if encoded.null_count:
            present = encoded.indices.is_valid().to_numpy(zero_copy_only=False)
            rows = np.flatnonzero(present) if rows is None else rows[present]
        start, self._n_rows = self._n_rows, self._n_rows + len(column)
        self._rows.append((start, self._n_rows) if rows is None else (rows + start).astype(np.int32))
        first = len(self._codes.array)
        self._codes.extend(encoded.indices.drop_null().to_numpy())
        self._waiting.append((slice(first, len(self._codes.array)), encoded.dictionary))
        if self._merged is None or sum(len(d) for _, d in self._waiting) >= len(self._merged):
            self._merge()

    def _merge(self) -> None:
        if self._merged is None:
            self._merged = self._waiting.pop()[1]
            return
        dictionaries = _of_one_type([self._merged, *(dictionary for _, dictionary in self._waiting)])
        merged = pa.concat_arrays(dictionaries).dictionary_encode()
        new_codes, at = merged.indices.to_numpy(), len(self._merged)
        codes = self._codes.array
        for part, dictionary in self._waiting:
            codes[part] = new_codes[at : at + len(dictionary)][codes[part]]
            at += len(dictionary)
        self._merged, self._waiting = merged.dictionary, []

    def close(self) -> Categories:
        """The categories of all rows."""
        if self._waiting:
            self._merge()
        assert self._merged is not None, "a table has rows"
        order = pc.array_sort_indices(self._merged).to_numpy()
        place = np.empty(len(order), dtype=np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        totals, codes = np.zeros(len(order), np.int64), self._codes.array
        step = max(CHUNK_ROWS, len(order))
        for start in range(0, len(codes), step):
            part = codes[start : start + step]
            part[:] = place[part]
            totals += np.bincount(part, minlength=len(order))
        values = self._merged.take(pa.array(order))
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            values = pa.array([_text(v) for v in values.to_pylist()], pa.string())
        rows = None
        if not all(isinstance(part, tuple) for part in self._rows):
            parts = [np.arange(*part, dtype=np.int32) if isinstance(part, tuple) else part for part in self._rows]
            rows = np.concatenate(parts)
        return Categories(codes, rows, values, totals)


def _of_one_type(dictionaries: Sequence[pa.Array]) -> list[pa.Array]:
    """The arrays in the type of the first that is not empty; text cannot exceed 2 GB in the type ``string``."""
    kind = next((d.type for d in dictionaries if len(d)), dictionaries[0].type)
    kind = pa.large_string() if pa.types.is_string(kind) else kind
    return [d.cast(kind) if len(d) else pa.array([], kind) for d in dictionaries]


def _text(value: Any) -> str:
    """Convert a cell to text: the items of a list joined by commas, empty text for a missing value."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return ", ".join(str(item) for item in value if item is not None)
    return "" if value is None or value is pd.NA or value != value else str(value)
