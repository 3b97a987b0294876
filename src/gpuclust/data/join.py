"""`data.join`: columns of a second table, matched by a key that may be a list.

Genres are kept per artist and a track has several artists: a track then has the genres of all of them, each once,
in the order of its artists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gpuclust.config import JoinConfig, did_you_mean
from gpuclust.data.frames import TEXT_LIST, PandasFrames
from gpuclust.data.inspect import Look, load, look
from gpuclust.data.lists import list_style, parse_lists
from gpuclust.data.table import Frame, Frames
from gpuclust.errors import ConfigurationError


@dataclass(frozen=True)
class Join:
    """A second table that was looked at: ``kinds`` is the column -> kind that it adds."""

    left: str
    right: str
    table: Look
    kinds: dict[str, str]
    bad_rows: str = "few"


def open_join(config: JoinConfig, left_kinds: dict[str, str], where: str, *, bad_rows: str = "few") -> Join | None:
    """Look at the second table; None when no join is declared.

    With no ``columns`` named, every column that the first table does not have is added.

    Raises:
        ConfigurationError: the key or a column is not there, or the first table already has it.
        DataError: the second table cannot be read.
    """
    if config.path is None:
        return None
    table = look(config.path)
    left = config.left or config.right
    if left is None:
        raise ConfigurationError("data.join.left is missing: name the column that matches the two tables")
    right = config.right or left
    _require(left, left_kinds, "data.join.left", where)
    _require(right, table.kinds, "data.join.right", config.path)
    usable = {n: k for n, k in table.kinds.items() if n != right and k in ("number", "text", "list")}
    columns = config.columns or [name for name in usable if name not in left_kinds]
    for name in columns:
        _require(name, usable, "data.join.columns", config.path)
        if name in left_kinds:
            raise ConfigurationError(f"data.join.columns: {where} already has a column {name!r}; leave it out")
    return Join(left, right, table, {name: usable[name] for name in columns}, bad_rows)


def _require(name: str, known: dict[str, str], key: str, where: str) -> None:
    if name not in known:
        raise ConfigurationError(f"{key}: {where} has no column {name!r}{did_you_mean(name, known)}")


def attach(frame: Frame, join: Join, frames: Frames, columns: list[str]) -> tuple[Frame, int, str | None]:
    """The frame with columns of the second table, how many rows found a match, and what of the second was not read.

    Text is a list of all distinct values over a row's keys, in their order, and missing where there is none; a
    number is the mean over them. Text stays plain when neither the key nor the column has lists and no key is
    repeated in the second table. A second column never multiplies rows.
    """
    loaded = load(join.table, PandasFrames(), [join.right, *columns], text=[join.right])
    second, bad = loaded.frame, loaded.bad_rows(join.bad_rows)
    keys, key_lists = _as_lists(_text(frames.to_pandas(frame[[join.left]])[join.left]))
    pairs = pd.DataFrame({"row": keys.row, "key": keys.item})
    known = _text(second[join.right]).astype(object)
    pairs["key"] = pd.Index(known.unique()).get_indexer(pd.Index(keys.item))
    pairs = pairs[pairs["key"] >= 0]
    right_codes = pd.factorize(known)[0]
    plain = not key_lists and not known.dropna().duplicated().any()
    added = pd.DataFrame(index=range(len(frame)))
    for name in columns:
        added[name] = _gather(second[name], right_codes, pairs, len(frame), plain=plain)
    moved = frames.from_pandas(added)
    for name in columns:
        frame[name] = moved[name]
    return frame, int(pairs["row"].nunique()), bad


def _text(column: Any) -> Any:
    """Keys as text: a number is written as a whole number where it is one."""
    if column.dtype.kind == "f" and not (column % 1 != 0).where(column.notna(), False).any():
        column = column.astype("Int64")
    return column.astype("str").where(column.notna()) if column.dtype.kind in "iuf" else column


@dataclass(frozen=True)
class _Items:
    """A column of lists laid out flat: the row of each item, and the item."""

    row: np.ndarray
    item: Any


def _as_lists(column: Any) -> tuple[_Items, bool]:
    """A column of lists, of lists written as text, or of single values, laid out flat; and whether it had lists."""
    values = pa.array(column) if column.dtype == TEXT_LIST else pa.array(column.astype(object), from_pandas=True)
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    style = list_style(values.drop_null().slice(0, 1000).to_pylist()) if pa.types.is_string(values.type) else None
    if style:
        values = parse_lists(values, style)
    if pa.types.is_list(values.type):
        return _Items(pc.list_parent_indices(values).to_numpy(), pc.list_flatten(values).to_pandas()), True
    there = values.is_valid().to_numpy(zero_copy_only=False)
    return _Items(np.flatnonzero(there), values.drop_null().to_pandas()), False


def _gather(values: Any, codes: np.ndarray, pairs: pd.DataFrame, n_rows: int, *, plain: bool) -> Any:
    """One column of the second table, brought to the rows of the first."""
    if values.dtype.kind in "iuf":
        found = pairs.merge(pd.DataFrame({"key": codes, "value": values}), on="key")
        return found.groupby("row")["value"].mean().reindex(range(n_rows))
    items, lists = _as_lists(values)
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
