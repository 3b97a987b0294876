"""Infer the final type of each column from all of its values, and leave out columns that are not measurements."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa

from gpuclust.data.columns import ColumnSelection
from gpuclust.data.encode import Encoder, encoded_exclusions, encoded_names, with_encoded
from gpuclust.data.feature_checks import FeatureIssue, check_features, split_issues
from gpuclust.data.lists import list_style, parse_lists
from gpuclust.data.table import NULL_SPELLINGS, Column, ExcludedColumn, Frame, Frames, Step
from gpuclust.errors import ConfigurationError, DataError
from gpuclust.model.encodings import Encoding

HEAD_ROWS = 1000
"""The first rows, by which lists written as text are recognised."""


@dataclass
class TypedColumns:
    """A frame with its final columns in this order: id, other roles, features."""

    frame: Frame
    roles: dict[str, str]
    features: tuple[str, ...] = ()
    left_out: list[ExcludedColumn] = field(default_factory=list)
    text_cells: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unsuitable: dict[str, FeatureIssue] = field(default_factory=dict)
    """The columns that are left out because of their values."""
    doubtful: dict[str, FeatureIssue] = field(default_factory=dict)
    """The features that are used although their values suggest that they are not measurements."""
    encodings: tuple[Encoding, ...] = ()
    kept: tuple[str, ...] = ()
    """Columns that are encoded and stay in the frame."""

    @property
    def columns(self) -> list[str]:
        """The final columns: id, other roles, features, encoded columns that stay."""
        return list(dict.fromkeys([*self.roles.values(), *self.features, *self.kept]))

    @property
    def text_roles(self) -> list[tuple[str, str]]:
        """The roles that hold text, and their columns."""
        return [(role, name) for role, name in self._free_roles() if role in ("title", "creator", "group", "preview")]

    @property
    def number_roles(self) -> list[tuple[str, str]]:
        """The roles that hold numbers, and their columns: popularity, weight, then year."""
        return sorted((role, name) for role, name in self._free_roles() if role in ("popularity", "weight", "year"))

    def _free_roles(self) -> list[tuple[str, str]]:
        return [(role, name) for role, name in self.roles.items() if name not in self.features]

    def accept_text(self, name: str, cells: NumberCells, explicit: bool) -> bool:
        """Whether a feature that is written as text is used as numbers; if not, it is left out.

        Raises ConfigurationError for a column of text that the user named.
        """
        if cells.n_text >= cells.n_numbers and cells.n_text:
            if explicit:
                raise ConfigurationError(
                    f"data.features: {name!r} is text ({cells.n_numbers:,} of {cells.n_cells:,} cells are numbers); leave it out"
                )
            self.left_out.append(ExcludedColumn(name, "text"))
            return False
        if cells.n_text:
            self.text_cells[name] = cells.n_text
        return True

    def exclude_unsuitable(
        self, issues: Mapping[str, FeatureIssue | None], selection: ColumnSelection, where: str
    ) -> None:
        """Leave out the columns that are not measurements, except those named by the user or by a preset.

        Raises DataError if no feature is left.
        """
        unsuitable, doubtful = split_issues(issues)
        if selection.explicit:
            unsuitable, doubtful = {}, {**unsuitable, **doubtful}
        elif selection.from_preset:
            doubtful |= {name: t for name, t in unsuitable.items() if t.kind in ("flag", "few", "label")}
            unsuitable = {name: t for name, t in unsuitable.items() if name not in doubtful}
        self.unsuitable, self.doubtful = unsuitable, {n: doubtful[n] for n in issues if n in doubtful}
        self.left_out += [ExcludedColumn(name, t.text) for name, t in unsuitable.items()]
        self.features = tuple(name for name in issues if name not in unsuitable)
        if not self.features and not selection.vectors and not selection.encoded:
            seen = "; ".join(f"{out.column}: {out.reason}" for out in self.left_out[:8])
            raise DataError(f"{where} has no numeric column to cluster ({seen}); name columns in data.features")

    def encode(self, encoder: Encoder, columns: Collection[str]) -> None:
        """Add the features of encoded columns; ``columns`` are those of the table. Raises ConfigurationError."""
        self.encodings, notes = encoder.encodings()
        self.features = (*self.features, *encoded_names(self.encodings, columns))
        self.notes += notes
        self.kept = encoder.kept
        self.left_out += [out for out in encoded_exclusions(self.encodings) if out.column not in self.roles.values()]

    def name_number_role(self, role: str, name: str, column: Column, taken: Collection[str]) -> str:
        """The column that the numbers of a role go to: a year from text or a date goes into one called year."""
        if role == "year" and (is_text(column) or column.dtype.kind == "M"):
            free = (n for n in ("year", "release_year", "year_of_release") if n == name or n not in taken)
            self.roles["year"] = next(free, name)
            self.notes.append(f"the year was taken from {name!r}")
        return self.roles[role]


@dataclass(frozen=True)
class NumberCells:
    """The cells of a column of text: how many there are, how many are numbers, and how many are neither numbers nor missing."""

    n_cells: int
    n_numbers: int
    n_text: int


def infer_types(
    frame: Frame,
    selection: ColumnSelection,
    roles: dict[str, str],
    frames: Frames,
    *,
    decimal: str = ".",
    where: str = "the table",
    encoder: Encoder | None = None,
) -> TypedColumns:
    """Give every column its final type and leave out the features that are not measurements. ``encoder`` makes features of the columns that
    are encoded.

    Raises:
        ConfigurationError: a feature that the user named is text.
        DataError: no feature is left.
    """
    typed = TypedColumns(frame, dict(roles))
    types = dict(zip(frame.columns, frame.dtypes, strict=True))
    numeric = [
        name
        for name in selection.features
        if types[name].kind in "iuf" or _make_numeric(typed, name, selection.explicit, frames, decimal)
    ]
    typed.exclude_unsuitable(check_features(frame, numeric, frames), selection, where)
    if encoder is not None and selection.encoded:
        encoder.add(frames.to_pandas(frame[encoder.columns]))
        typed.encode(encoder, frame.columns)
        frame = with_encoded(frame, typed.encodings, frames)
    for role, name in typed.text_roles:
        head = frames.to_pandas(frame[[name]].head(HEAD_ROWS))[name]
        frame[name] = type_text_role(frame[name], text_role_style(role, head), role, frames)
    for role, name in typed.number_roles:
        column = number_role(frame[name], role, frames, decimal)
        new = typed.name_number_role(role, name, frame[name], frame.columns)
        whole = column.dtype.kind == "f" and not bool(column.isna().any()) and not bool((column % 1 != 0).any())
        frame[new] = column.astype("int64") if whole else column
    frame[roles["id"]] = _type_id(frame[roles["id"]])
    typed.frame = frame[typed.columns]
    return typed


def is_text(column: Column) -> bool:
    """Whether a column holds neither numbers nor booleans nor dates."""
    return column.dtype.kind not in "iufbM"


def to_numbers(column: Column, frames: Frames, decimal: str = ".") -> tuple[Column, int]:
    """Convert a text column to float64; also count the cells that are neither a number nor a null spelling."""
    trimmed = column.str.strip()
    written = trimmed.str.replace(decimal, ".", regex=False) if decimal != "." else trimmed
    numbers = frames.to_numeric(written)
    text = numbers.isna() & column.notna() & ~trimmed.isin(list(NULL_SPELLINGS))
    return numbers, int(text.sum())


def _make_numeric(typed: TypedColumns, name: str, explicit: bool, frames: Frames, decimal: str) -> bool:
    """Convert one feature to numbers; return False if it is text and left out."""
    column = typed.frame[name]
    if is_text(column):
        marks = boolean_marks(column)
        booleans = marks.only and marks.any
        numbers, n_text = (marks.numbers, 0) if booleans else to_numbers(column, frames, decimal)
        if not typed.accept_text(name, NumberCells(len(column), int(numbers.notna().sum()), n_text), explicit):
            return False
        typed.frame[name] = numbers
    elif column.dtype.kind == "b":
        typed.frame[name] = column.astype("float64")
    return True


@dataclass(frozen=True)
class BooleanMarks:
    """A column of text read as true and false: whether it has nothing else but missing values, whether it has any, and
    1.0, 0.0 or missing for each cell."""

    only: bool
    any: bool
    numbers: Column


def boolean_marks(column: Column) -> BooleanMarks:
    """Read a column of text as true and false."""
    words = column.str.lower()
    yes, no = words.isin(["true", "t"]), words.isin(["false", "f"])
    missing = column.isna() | words.isin([spelling.lower() for spelling in NULL_SPELLINGS])
    return BooleanMarks(bool((yes | no | missing).all()), bool((yes | no).any()), yes.astype("float64").where(~missing))


def text_role_style(role: str, head: Any) -> str | None:
    """How a column of text is typed, from its first rows as a pandas column: ``quoted`` or ``bare`` lists, ``text``, or None to
    leave it as it is."""
    sample = head.dropna().tolist()
    if head.dtype.kind != "O" or not hasattr(head, "str") or not all(isinstance(item, str) for item in sample):
        return None
    return (list_style(sample) if role in ("creator", "group") else None) or "text"


def type_text_role(column: Column, style: str | None, role: str, frames: Frames) -> Column:
    """Replace empty text (in the group, every null spelling) with missing values; lists written as text become lists."""
    if style is None:
        return column
    if style != "text":
        return _lists(column, style, frames)
    return _mask_values(column, NULL_SPELLINGS if role == "group" else ("",))


def _mask_values(column: Column, words: Sequence[str]) -> Column:
    """Replace cells equal to any of ``words`` with missing values."""
    found = column.isin(list(words))
    return column.where(~found) if bool(found.any()) else column


def _lists(column: Column, style: str, frames: Frames) -> Column:
    texts = pa.array(frames.to_pandas(column.to_frame("texts"))["texts"], from_pandas=True)
    lists = pd.arrays.ArrowExtensionArray(pa.chunked_array([parse_lists(texts, style)]))
    return frames.from_pandas(pd.DataFrame({"texts": lists}))["texts"]


def number_role(column: Column, role: str, frames: Frames, decimal: str) -> Column:
    """The popularity or the year as numbers; the year of a text is its first four digits."""
    if column.dtype.kind == "M":
        return column.dt.year
    if is_text(column) and role == "year":
        return frames.to_numeric(column.str.extract(r"(\d{4})", expand=False))
    return to_numbers(column, frames, decimal)[0] if is_text(column) else column


def _type_id(column: Column) -> Column:
    """Convert an id of whole numbers written as text to int64; empty text becomes missing."""
    if not is_text_id(column):
        return column
    column = mask_empty(column)
    whole = not bool(column.isna().any()) and are_integers(column.head(100)) and are_integers(column)
    return column.astype("int64") if whole else column


def is_text_id(column: Column) -> bool:
    """Whether an id is text."""
    return is_text(column) and hasattr(column, "str")


def mask_empty(column: Column) -> Column:
    """Replace empty text with missing values."""
    return _mask_values(column, [""])


def are_integers(column: Column) -> bool:
    """Whether all texts are whole numbers in the form of int64: no leading zeros, at most 18 digits."""
    return bool(column.str.match(r"^(0|-?[1-9][0-9]{0,17})$").all())


def text_step(cells: dict[str, int], n_rows: int) -> Step:
    """The audit step for cells of numeric columns that are not numbers."""
    detail = ", ".join(f"{name}: {n:,}" for name, n in cells.items())
    return Step("text", f"cells that are not numbers made missing ({detail})", n_rows, 0, sum(cells.values()))
