"""`data.join`: add columns of a second table, matched by a key that may be a list.

Example: genres are known per artist, and a track has several artists. The track then has the genres of all its artists,
each once, in the order of the artists.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gpuclust.config import JoinConfig
from gpuclust.data.columns import require_columns
from gpuclust.data.frames import TEXT_LIST, PandasFrames
from gpuclust.data.lists import list_style, parse_lists
from gpuclust.data.load import load_columns
from gpuclust.data.schema import FileSchema, read_schema
from gpuclust.data.table import Frame, Frames
from gpuclust.errors import ConfigurationError

_HEAD = 1000
"""The first keys, by which lists written as text are recognised."""


@dataclass(frozen=True)
class Join:
    """The schema of a second table, the key columns ``left`` and ``right``, and the columns to add with their kinds."""

    path: str
    left: str
    right: str
    schema: FileSchema
    kinds: dict[str, str]


@dataclass(frozen=True)
class JoinResult:
    """A frame with added columns, the number of its rows that found a match, and a warning about unreadable rows."""

    frame: Frame
    rows_matched: int
    warning: str | None


def open_join(config: JoinConfig, left_kinds: dict[str, str], where: str) -> Join | None:
    """Read the schema of the second table; None if no join is configured.

    If ``columns`` is empty, every column that the first table does not have is added.

    Raises:
        ConfigurationError: the key or a column does not exist, or the first table already has it.
        DataError: the second table cannot be read.
    """
    if config.path is None:
        return None
    schema = read_schema(config.path)
    left = config.left or config.right
    if left is None:
        raise ConfigurationError("data.join.left is missing: name the column that matches the two tables")
    right = config.right or left
    require_columns([left], left_kinds, "data.join.left", where)
    require_columns([right], schema.kinds, "data.join.right", config.path)
    usable = {n: k for n, k in schema.kinds.items() if n != right and k in ("number", "text", "list")}
    columns = config.columns or [name for name in usable if name not in left_kinds]
    for name in columns:
        require_columns([name], usable, "data.join.columns", config.path)
        if name in left_kinds:
            raise ConfigurationError(f"data.join.columns: {where} already has a column {name!r}; leave it out")
    return Join(config.path, left, right, schema, {name: usable[name] for name in columns})


def join_columns(frame: Frame, join: Join, frames: Frames, columns: list[str], *, bad_rows: str) -> JoinResult:
    """Add columns of the second table to a frame.

    A text column becomes the list of the distinct values of all keys of a row, in the order of the keys, or missing if
    there are none; a number is the mean over the keys. Text stays plain if neither the key nor the column has lists and no
    key is repeated in the second table. The number of rows never changes. ``bad_rows`` is the policy of `data.bad_rows`;
    raises DataError if it does not allow the rows that cannot be read.
    """
    loaded = LoadedJoin(join, columns, bad_rows=bad_rows)
    return loaded.add(frame, key_format([frames.to_pandas(frame[[join.left]])[join.left]]), frames)


@dataclass(frozen=True)
class KeyFormat:
    """How the keys of the first table are written: whether numbers are whole, and the style of lists that are written as text."""

    whole: bool
    style: str | None


def key_format(parts: Iterable[Any]) -> KeyFormat:
    """The format of a column of keys, in pandas columns from the first row to the last."""
    whole = True
    head: list[Any] = []
    for column in parts:
        whole = whole and column.dtype.kind == "f" and _is_whole(column)
        if len(head) < _HEAD and column.dtype.kind == "O" and column.dtype != TEXT_LIST:
            head += column.dropna().head(_HEAD - len(head)).tolist()
    return KeyFormat(whole, list_style(head) if all(isinstance(item, str) for item in head) else None)


class LoadedJoin:
    """Columns of the second table in memory, to add to any number of frames of the first."""

    def __init__(self, join: Join, columns: Sequence[str], *, bad_rows: str) -> None:
        loaded = load_columns(join.schema, PandasFrames(), [join.right, *columns], text=[join.right])
        self._second, self.warning = loaded.frame, loaded.bad_rows_warning(bad_rows)
        self.left, self._columns = join.left, list(columns)
        keys = self._second[join.right]
        known = _text(keys, whole=keys.dtype.kind == "f" and _is_whole(keys)).astype(object)
        self._known = pd.Index(known.unique())
        self._codes = pd.factorize(known)[0]
        self._repeated = bool(known.dropna().duplicated().any())

    def add(self, frame: Frame, form: KeyFormat, frames: Frames) -> JoinResult:
        """Add the columns to a frame; see `join_columns`."""
        left = _text(frames.to_pandas(frame[[self.left]])[self.left], whole=form.whole)
        keys, key_lists = _as_lists(left, form.style)
        pairs = pd.DataFrame({"row": keys.row, "key": self._known.get_indexer(pd.Index(keys.item))})
        pairs = pairs[pairs["key"] >= 0]
        plain = not key_lists and not self._repeated
        added = pd.DataFrame(index=range(len(frame)))
        for name in self._columns:
            added[name] = _gather(self._second[name], self._codes, pairs, len(frame), plain=plain)
        moved = frames.from_pandas(added)
        for name in self._columns:
            frame[name] = moved[name]
        return JoinResult(frame, int(pairs["row"].nunique()), self.warning)

    def result(self, rows_matched: int) -> JoinResult:
        """The result for a table whose rows were added in parts."""
        return JoinResult(None, rows_matched, self.warning)


def _is_whole(column: Any) -> bool:
    return not bool((column % 1 != 0).where(column.notna(), False).any())


def _text(column: Any, *, whole: bool) -> Any:
    """Keys as text; a float column of whole numbers is written without decimals."""
    if column.dtype.kind == "f" and whole:
        column = column.astype("Int64")
    return column.astype("str").where(column.notna()) if column.dtype.kind in "iuf" else column


@dataclass(frozen=True)
class _Items:
    """A flattened column of lists: the row of each item, and the item."""

    row: np.ndarray
    item: Any


def _as_lists(column: Any, style: str | None) -> tuple[_Items, bool]:
    """Flatten a column of lists, of lists written as text in a style, or of single values; also return whether it had lists."""
    values = pa.array(column) if column.dtype == TEXT_LIST else pa.array(column.astype(object), from_pandas=True)
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_null(values.type):  # all are missing
        values = values.cast(pa.string())
    if style and pa.types.is_string(values.type):
        values = parse_lists(values, style)
    if pa.types.is_list(values.type):
        return _Items(pc.list_parent_indices(values).to_numpy(), pc.list_flatten(values).to_pandas()), True
    present = values.is_valid().to_numpy(zero_copy_only=False)
    return _Items(np.flatnonzero(present), values.drop_null().to_pandas()), False


def _gather(values: Any, codes: np.ndarray, pairs: pd.DataFrame, n_rows: int, *, plain: bool) -> Any:
    """Map one column of the second table to the rows of the first."""
    if values.dtype.kind in "iuf":
        found = pairs.merge(pd.DataFrame({"key": codes, "value": values}), on="key")
        return found.groupby("row")["value"].mean().reindex(range(n_rows))
    items, lists = _as_lists(values, key_format([values]).style)
    second = pd.DataFrame({"key": codes[items.row], "item": items.item})
    found = pairs.merge(second, on="key").drop_duplicates(["row", "item"])
    if plain and not lists:
        return found.set_index("row")["item"].reindex(range(n_rows))
    found = found.sort_values("row", kind="stable")
    counts = np.bincount(found["row"], minlength=n_rows)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    items_ = pa.array(found["item"].astype(object), pa.string())
    gathered = pa.ListArray.from_arrays(pa.array(offsets), items_, mask=pa.array(counts == 0))
    return pd.Series(pd.arrays.ArrowExtensionArray(pa.chunked_array([gathered])), dtype=TEXT_LIST)
