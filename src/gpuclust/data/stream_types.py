"""The types of the columns of a table that is read in batches: `infer_types` by passes over the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gpuclust.data.distinct import DistinctRows, row_keys
from gpuclust.data.encode import Encoder, with_encoded
from gpuclust.data.feature_checks import FeatureIssue, FeatureSummary, check_summary
from gpuclust.data.infer_types import (
    HEAD_ROWS,
    NumberCells,
    TypedColumns,
    are_integers,
    boolean_marks,
    is_text,
    is_text_id,
    mask_empty,
    number_role,
    text_role_style,
    to_numbers,
    type_text_role,
)
from gpuclust.data.row_stream import RowStream
from gpuclust.data.table import Frames

if TYPE_CHECKING:
    from gpuclust.runtime.scratch import Scratch


@dataclass
class _TextCells:
    """The cells of a column of text, read as numbers and as true and false."""

    only_booleans: bool = True
    any_boolean: bool = False
    n_cells: int = 0
    n_numbers: int = 0
    n_text: int = 0

    def add(self, column: Any, frames: Frames, decimal: str) -> None:
        marks = boolean_marks(column)
        numbers, n_text = to_numbers(column, frames, decimal)
        self.only_booleans, self.any_boolean = self.only_booleans and marks.only, self.any_boolean or marks.any
        self.n_cells += len(column)
        self.n_numbers += int(numbers.notna().sum())
        self.n_text += n_text

    @property
    def booleans(self) -> bool:
        return self.only_booleans and self.any_boolean


@dataclass
class _Numbers:
    """A column of numbers: whether any is missing, or has a fraction, or is floating point."""

    missing: bool = False
    fraction: bool = False
    floating: bool = False
    always_floating: bool = True

    def add(self, column: Any) -> None:
        self.missing |= bool(column.isna().any())
        floating = column.dtype.kind == "f"
        self.floating |= floating
        self.always_floating &= floating
        self.fraction |= floating and bool((column % 1 != 0).where(column.notna(), False).any())

    def typed(self, column: Any) -> Any:
        """A part of the column with the type of the whole."""
        if self.always_floating and not self.missing and not self.fraction:
            return column.astype("int64")
        return column.astype("float64") if self.floating else column


@dataclass
class StreamedTypes:
    """The final columns of a table, and how each batch of rows is converted to them."""

    typed: TypedColumns
    sources: list[str]
    """The columns to read."""
    frames: Frames
    decimal: str
    converted: dict[str, str] = field(default_factory=dict)
    """Feature -> how its cells become numbers: ``booleans``, ``text`` or ``cast``."""
    styles: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Role, column and style of each column of text."""
    numbers: list[tuple[str, str, str, _Numbers]] = field(default_factory=list)
    """Role, column, new column and kind of each role that holds numbers."""
    whole_id: bool = False

    @classmethod
    def infer(cls, stream: RowStream, frames: Frames, scratch: Scratch, encoder: Encoder) -> StreamedTypes:
        """Decide the types by passes over the rows. Raises the errors of `infer_types`."""
        opened, source = stream.opened, stream.opened.source
        selection = opened.selection
        typed = TypedColumns(None, dict(stream.roles))
        types = cls(typed, [], frames, source.decimal)
        first = next(iter(stream.batches(stream.columns))).frame
        numeric = types._numeric(stream, first, selection.features, selection.explicit)
        issues = types._issues(stream, numeric, scratch) if numeric else {}
        typed.exclude_unsuitable(issues, selection, source.where)
        types._roles(stream, first)
        if selection.encoded:
            if encoder.columns:
                for batch in stream.batches(encoder.columns):
                    encoder.add(batch.frame)
            types.sources = list(dict.fromkeys([*types.sources, *selection.encoded]))
            typed.encode(encoder, stream.columns)
        return types

    def _numeric(self, stream: RowStream, first: pd.DataFrame, features: Sequence[str], explicit: bool) -> list[str]:
        """The features that are numbers, or text that is read as numbers."""
        texts = {name: _TextCells() for name in features if is_text(first[name])}
        if texts:
            for batch in stream.batches(list(texts)):
                for name, cells in texts.items():
                    cells.add(batch.frame[name], self.frames, self.decimal)
        numeric = []
        for name in features:
            if name in texts:
                cells = texts[name]
                n_text = 0 if cells.booleans else cells.n_text
                if not self.typed.accept_text(name, NumberCells(cells.n_cells, cells.n_numbers, n_text), explicit):
                    continue
                self.converted[name] = "booleans" if cells.booleans else "text"
            elif first[name].dtype.kind == "b":
                self.converted[name] = "cast"
            numeric.append(name)
        return numeric

    def _convert(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame with its features as numbers."""
        for name, how in self.converted.items():
            if name not in frame:
                continue
            if how == "booleans":
                frame[name] = boolean_marks(frame[name]).numbers
            elif how == "text":
                frame[name] = to_numbers(frame[name], self.frames, self.decimal)[0]
            else:
                frame[name] = frame[name].astype("float64")
        return frame

    def _issues(self, stream: RowStream, numeric: list[str], scratch: Scratch) -> dict[str, FeatureIssue | None]:
        summary = None
        for batch in stream.batches(numeric):
            part = FeatureSummary.of(self._convert(batch.frame)[numeric], self.frames)
            summary = part if summary is None else summary + part
        assert summary is not None

        def column(name: str) -> _StreamedColumn:
            return _StreamedColumn(self, stream, name, scratch)

        return check_summary(summary, numeric, column)

    def parts(self, stream: RowStream, name: str) -> Iterator[pd.Series]:
        """A feature as numbers, in batches."""
        return (self._convert(batch.frame)[name] for batch in stream.batches([name]))

    def _roles(self, stream: RowStream, first: pd.DataFrame) -> None:
        """Decide the types of the columns of the roles."""
        typed = self.typed
        self.sources = typed.columns
        head = _head(stream, self.sources)
        for role, name in typed.text_roles:
            style = text_role_style(role, head[name])
            head[name] = type_text_role(head[name], style, role, self.frames)
            self.styles.append((role, name, style))
        roles = [(role, name, _Numbers()) for role, name in typed.number_roles]
        id_name = typed.roles["id"]
        text_id = is_text_id(first[id_name])
        self.whole_id = text_id
        if roles or text_id:
            for batch in stream.batches([*(name for _, name, _ in roles), *([id_name] if text_id else [])]):
                frame = self._type_texts(batch.frame)
                for role, name, numbers in roles:
                    numbers.add(number_role(frame[name], role, self.frames, self.decimal))
                if self.whole_id:
                    ids = mask_empty(frame[id_name])
                    self.whole_id = not bool(ids.isna().any()) and are_integers(ids)
        taken = list(stream.columns)
        for role, name, numbers in roles:
            new = typed.name_number_role(role, name, first[name], taken)
            taken.append(new)
            self.numbers.append((role, name, new, numbers))

    def _type_texts(self, frame: pd.DataFrame) -> pd.DataFrame:
        for role, name, style in self.styles:
            if name in frame:
                frame[name] = type_text_role(frame[name], style, role, self.frames)
        return frame

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A batch of the columns ``sources`` with the final columns and types."""
        frame = self._type_texts(self._convert(with_encoded(frame, self.typed.encodings, self.frames)))
        for role, name, new, numbers in self.numbers:
            frame[new] = numbers.typed(number_role(frame[name], role, self.frames, self.decimal))
        name = self.typed.roles["id"]
        if is_text_id(frame[name]):
            ids = mask_empty(frame[name])
            frame[name] = ids.astype("int64") if self.whole_id else ids
        return frame[self.typed.columns]


def _head(stream: RowStream, names: Sequence[str]) -> pd.DataFrame:
    """The first rows of columns."""
    parts, n = [], 0
    for batch in stream.batches(names):
        parts.append(batch.frame)
        n += len(batch.frame)
        if n >= HEAD_ROWS:
            break
    return pd.concat(parts, ignore_index=True).head(HEAD_ROWS)


class _StreamedColumn:
    """A `WholeColumn` that is read in batches, only as far as needed for the answer."""

    def __init__(self, types: StreamedTypes, stream: RowStream, name: str, scratch: Scratch) -> None:
        self._types, self._stream, self._name, self._scratch = types, stream, name, scratch

    def _parts(self) -> Iterator[pd.Series]:
        return self._types.parts(self._stream, self._name)

    def increases(self) -> bool:
        last = None
        for part in self._parts():
            if not part.is_monotonic_increasing or (last is not None and part.iloc[0] < last):
                return False
            last = part.iloc[-1]
        return True

    def is_whole(self) -> bool:
        return not any(bool((part % 1 != 0).any()) for part in self._parts())

    def n_distinct(self) -> int:
        with DistinctRows(self._scratch, width=2) as distinct:
            for part in self._parts():
                present = part.dropna()
                distinct.add(row_keys([present], len(present)))
            return distinct.n_distinct()

    def distinct(self, most: int) -> np.ndarray | None:
        found: np.ndarray | None = None
        for part in self._parts():
            values = part.dropna().unique()
            found = values if found is None else np.union1d(found, values)
            if len(found) > most:
                return None
        return found
