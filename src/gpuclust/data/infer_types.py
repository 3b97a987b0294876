"""Once all values are there: what the columns really are, and their final types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
import pyarrow as pa

from gpuclust.data.columns import Choice
from gpuclust.data.lists import list_style, parse_lists
from gpuclust.data.table import NULL_SPELLINGS, Column, ExcludedColumn, Frame, Frames, Step
from gpuclust.data.traits import Trait, traits, unfit
from gpuclust.errors import ConfigurationError, DataError


@dataclass
class TypedColumns:
    """The frame with its final columns, in order: id, other roles, features."""

    frame: Frame
    roles: dict[str, str]
    features: tuple[str, ...] = ()
    left_out: list[ExcludedColumn] = field(default_factory=list)
    text_cells: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unfit: dict[str, Trait] = field(default_factory=dict)
    """The columns that were left out by their values."""
    doubtful: dict[str, Trait] = field(default_factory=dict)
    """The features whose values speak against them."""


def settle(
    frame: Frame, choice: Choice, roles: dict[str, str], frames: Frames, *, decimal: str = ".", where: str = "the table"
) -> TypedColumns:
    """Give every column its type by all of its values, and leave out features that turn out not to be any.

    Raises:
        ConfigurationError: a feature that was named is text.
        DataError: no feature is left.
    """
    settled = TypedColumns(frame, dict(roles))
    types = dict(zip(frame.columns, frame.dtypes, strict=True))
    numeric = [
        name
        for name in choice.features
        if types[name].kind in "iuf" or _settle_feature(settled, name, choice.named, frames, decimal)
    ]
    _judge(settled, numeric, choice, frames)
    if not settled.features:
        seen = "; ".join(f"{out.column}: {out.why}" for out in settled.left_out[:8])
        raise DataError(f"{where} has no numeric column to cluster ({seen}); name columns in data.features")
    for role in ("title", "creator", "group", "preview"):
        if role in roles and roles[role] not in settled.features:
            _settle_text(settled, role, roles[role], frames)
    for role in ("popularity", "year"):
        if role in roles and roles[role] not in settled.features:
            _settle_number(settled, role, roles[role], frames, decimal)
    _settle_id(settled, roles["id"])
    settled.frame = settled.frame[list(dict.fromkeys([*settled.roles.values(), *settled.features]))]
    return settled


def is_text(column: Column) -> bool:
    """Whether a column holds neither numbers nor booleans nor dates."""
    return column.dtype.kind not in "iufbM"


def to_numbers(column: Column, frames: Frames, decimal: str = ".") -> tuple[Column, int]:
    """A text column as float64, and how many of its cells were neither a number nor a null spelling."""
    trimmed = column.str.strip()
    written = trimmed.str.replace(decimal, ".", regex=False) if decimal != "." else trimmed
    numbers = frames.to_numeric(written)
    text = numbers.isna() & column.notna() & ~trimmed.isin(list(NULL_SPELLINGS))
    return numbers, int(text.sum())


def _settle_feature(settled: TypedColumns, name: str, named: bool, frames: Frames, decimal: str) -> bool:
    """Make one feature numeric; False when it is left out."""
    frame = settled.frame
    if is_text(frame[name]):
        numbers, n_text = _booleans(frame[name]) or to_numbers(frame[name], frames, decimal)
        n_numbers = int(numbers.notna().sum())
        if n_text >= n_numbers and n_text:
            if named:
                raise ConfigurationError(
                    f"data.features: {name!r} is text ({n_numbers:,} of {len(frame):,} cells are numbers); leave it out"
                )
            settled.left_out.append(ExcludedColumn(name, "text"))
            return False
        frame[name] = numbers
        if n_text:
            settled.text_cells[name] = n_text
    elif frame[name].dtype.kind == "b":
        frame[name] = frame[name].astype("float64")
    return True


def _judge(settled: TypedColumns, numeric: Sequence[str], choice: Choice, frames: Frames) -> None:
    """Leave out the columns that are no measurements, unless the user named them or a preset did."""
    found = traits(settled.frame, numeric, frames)
    leave, doubt = unfit(found)
    if choice.named:
        leave, doubt = {}, {**leave, **doubt}
    elif choice.preset:
        doubt |= {name: t for name, t in leave.items() if t.kind in ("flag", "few", "label")}
        leave = {name: t for name, t in leave.items() if name not in doubt}
    settled.unfit, settled.doubtful = leave, {n: doubt[n] for n in numeric if n in doubt}
    settled.left_out += [ExcludedColumn(name, t.text) for name, t in leave.items()]
    settled.features = tuple(name for name in numeric if name not in leave)


def _booleans(column: Column) -> tuple[Column, int] | None:
    """Text that says true or false as 1.0 and 0.0; None when it says anything else."""
    words = column.str.lower()
    yes, no = words.isin(["true", "t"]), words.isin(["false", "f"])
    missing = column.isna() | words.isin([spelling.lower() for spelling in NULL_SPELLINGS])
    if not bool((yes | no | missing).all()) or not bool((yes | no).any()):
        return None
    return yes.astype("float64").where(~missing), 0


def _settle_text(settled: TypedColumns, role: str, name: str, frames: Frames) -> None:
    """Empty text is missing (for the group every null spelling is); lists written as text become lists."""
    frame = settled.frame
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
    frame[name] = _without(frame[name], NULL_SPELLINGS if role == "group" else ("",))


def _without(column: Column, words: Sequence[str]) -> Column:
    """A column of text whose cells that are one of some words are missing."""
    found = column.isin(list(words))
    return column.where(~found) if bool(found.any()) else column


def _lists(frame: Frame, name: str, style: str, frames: Frames) -> Column:
    texts = pa.array(frames.to_pandas(frame[[name]])[name], from_pandas=True)
    lists = pd.arrays.ArrowExtensionArray(pa.chunked_array([parse_lists(texts, style)]))
    return frames.from_pandas(pd.DataFrame({name: lists}))[name]


def _settle_number(settled: TypedColumns, role: str, name: str, frames: Frames, decimal: str) -> None:
    """Popularity as a number; the year as a number, out of a date where need be, in a column called year."""
    frame = settled.frame
    column = frame[name]
    if column.dtype.kind == "M":
        column = column.dt.year
    elif is_text(column) and role == "year":
        column = frames.to_numeric(column.str.extract(r"(\d{4})", expand=False))
    elif is_text(column):
        column = to_numbers(column, frames, decimal)[0]
    if role == "year" and (is_text(frame[name]) or frame[name].dtype.kind == "M"):
        free = (n for n in ("year", "release_year", "year_of_release") if n == name or n not in frame.columns)
        settled.roles["year"] = next(free, name)
        settled.notes.append(f"the year was taken from {name!r}")
    whole = column.dtype.kind == "f" and not bool(column.isna().any()) and not bool((column % 1 != 0).any())
    frame[settled.roles[role]] = column.astype("int64") if whole else column


def _settle_id(settled: TypedColumns, name: str) -> None:
    """Whole numbers written as text become int64; an empty text is missing."""
    frame = settled.frame
    column = frame[name]
    if is_text(column) and hasattr(column, "str"):
        column = _without(column, [""])
        if not bool(column.isna().any()) and _whole(column.head(100)) and _whole(column):
            column = column.astype("int64")
        frame[name] = column


def _whole(column: Column) -> bool:
    """Whether all texts are whole numbers as int64 writes them: no leading zeros, at most 18 digits."""
    return bool(column.str.match(r"^(0|-?[1-9][0-9]{0,17})$").all())


def text_step(cells: dict[str, int], n_rows: int) -> Step:
    """The step that made text in numeric columns missing."""
    detail = ", ".join(f"{name}: {n:,}" for name, n in cells.items())
    return Step("text", f"cells that are not numbers made missing ({detail})", n_rows, 0, sum(cells.values()))
