"""Infer the final type of each column from all of its values, and leave out columns that are not measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
import pyarrow as pa

from gpuclust.data.columns import ColumnSelection
from gpuclust.data.feature_checks import FeatureIssue, check_features, split_issues
from gpuclust.data.lists import list_style, parse_lists
from gpuclust.data.table import NULL_SPELLINGS, Column, ExcludedColumn, Frame, Frames, Step
from gpuclust.errors import ConfigurationError, DataError


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


def infer_types(
    frame: Frame,
    selection: ColumnSelection,
    roles: dict[str, str],
    frames: Frames,
    *,
    decimal: str = ".",
    where: str = "the table",
) -> TypedColumns:
    """Give every column its final type and leave out the features that are not measurements.

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
    _exclude_unsuitable(typed, numeric, selection, frames)
    if not typed.features:
        seen = "; ".join(f"{out.column}: {out.reason}" for out in typed.left_out[:8])
        raise DataError(f"{where} has no numeric column to cluster ({seen}); name columns in data.features")
    for role in ("title", "creator", "group", "preview"):
        if role in roles and roles[role] not in typed.features:
            _type_text_role(typed, role, roles[role], frames)
    for role in ("popularity", "year"):
        if role in roles and roles[role] not in typed.features:
            _type_number_role(typed, role, roles[role], frames, decimal)
    _type_id(typed, roles["id"])
    typed.frame = typed.frame[list(dict.fromkeys([*typed.roles.values(), *typed.features]))]
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
    frame = typed.frame
    if is_text(frame[name]):
        numbers, n_text = _booleans(frame[name]) or to_numbers(frame[name], frames, decimal)
        n_numbers = int(numbers.notna().sum())
        if n_text >= n_numbers and n_text:
            if explicit:
                raise ConfigurationError(
                    f"data.features: {name!r} is text ({n_numbers:,} of {len(frame):,} cells are numbers); leave it out"
                )
            typed.left_out.append(ExcludedColumn(name, "text"))
            return False
        frame[name] = numbers
        if n_text:
            typed.text_cells[name] = n_text
    elif frame[name].dtype.kind == "b":
        frame[name] = frame[name].astype("float64")
    return True


def _exclude_unsuitable(
    typed: TypedColumns, numeric: Sequence[str], selection: ColumnSelection, frames: Frames
) -> None:
    """Leave out the columns that are not measurements, except those named by the user or by a preset."""
    unsuitable, doubtful = split_issues(check_features(typed.frame, numeric, frames))
    if selection.explicit:
        unsuitable, doubtful = {}, {**unsuitable, **doubtful}
    elif selection.from_preset:
        doubtful |= {name: t for name, t in unsuitable.items() if t.kind in ("flag", "few", "label")}
        unsuitable = {name: t for name, t in unsuitable.items() if name not in doubtful}
    typed.unsuitable, typed.doubtful = unsuitable, {n: doubtful[n] for n in numeric if n in doubtful}
    typed.left_out += [ExcludedColumn(name, t.text) for name, t in unsuitable.items()]
    typed.features = tuple(name for name in numeric if name not in unsuitable)


def _booleans(column: Column) -> tuple[Column, int] | None:
    """Convert text with true and false to 1.0 and 0.0; None if it has any other value."""
    words = column.str.lower()
    yes, no = words.isin(["true", "t"]), words.isin(["false", "f"])
    missing = column.isna() | words.isin([spelling.lower() for spelling in NULL_SPELLINGS])
    if not bool((yes | no | missing).all()) or not bool((yes | no).any()):
        return None
    return yes.astype("float64").where(~missing), 0


def _type_text_role(typed: TypedColumns, role: str, name: str, frames: Frames) -> None:
    """Replace empty text (in the group, every null spelling) with missing values; lists written as text become lists."""
    frame = typed.frame
    if frame[name].dtype.kind != "O" or not hasattr(frame[name], "str"):
        return
    host = frames.to_pandas(frame[[name]].head(1000))[name]
    sample = host.dropna().tolist()
    if not all(isinstance(item, str) for item in sample):
        return
    style = list_style(sample) if role in ("creator", "group") else None
    if style:
        frame[name] = _lists(frame, name, style, frames)
        return
    frame[name] = _mask_values(frame[name], NULL_SPELLINGS if role == "group" else ("",))


def _mask_values(column: Column, words: Sequence[str]) -> Column:
    """Replace cells equal to any of ``words`` with missing values."""
    found = column.isin(list(words))
    return column.where(~found) if bool(found.any()) else column


def _lists(frame: Frame, name: str, style: str, frames: Frames) -> Column:
    texts = pa.array(frames.to_pandas(frame[[name]])[name], from_pandas=True)
    lists = pd.arrays.ArrowExtensionArray(pa.chunked_array([parse_lists(texts, style)]))
    return frames.from_pandas(pd.DataFrame({name: lists}))[name]


def _type_number_role(typed: TypedColumns, role: str, name: str, frames: Frames, decimal: str) -> None:
    """Convert the popularity or the year to numbers; a year from text or a date goes into a column called year."""
    frame = typed.frame
    column = frame[name]
    if column.dtype.kind == "M":
        column = column.dt.year
    elif is_text(column) and role == "year":
        column = frames.to_numeric(column.str.extract(r"(\d{4})", expand=False))
    elif is_text(column):
        column = to_numbers(column, frames, decimal)[0]
    if role == "year" and (is_text(frame[name]) or frame[name].dtype.kind == "M"):
        free = (n for n in ("year", "release_year", "year_of_release") if n == name or n not in frame.columns)
        typed.roles["year"] = next(free, name)
        typed.notes.append(f"the year was taken from {name!r}")
    whole = column.dtype.kind == "f" and not bool(column.isna().any()) and not bool((column % 1 != 0).any())
    frame[typed.roles[role]] = column.astype("int64") if whole else column


def _type_id(typed: TypedColumns, name: str) -> None:
    """Convert an id of whole numbers written as text to int64; empty text becomes missing."""
    frame = typed.frame
    column = frame[name]
    if is_text(column) and hasattr(column, "str"):
        column = _mask_values(column, [""])
        if not bool(column.isna().any()) and _are_integers(column.head(100)) and _are_integers(column):
            column = column.astype("int64")
        frame[name] = column


def _are_integers(column: Column) -> bool:
    """Whether all texts are whole numbers in the form of int64: no leading zeros, at most 18 digits."""
    return bool(column.str.match(r"^(0|-?[1-9][0-9]{0,17})$").all())


def text_step(cells: dict[str, int], n_rows: int) -> Step:
    """The audit step for cells of numeric columns that are not numbers."""
    detail = ", ".join(f"{name}: {n:,}" for name, n in cells.items())
    return Step("text", f"cells that are not numbers made missing ({detail})", n_rows, 0, sum(cells.values()))
