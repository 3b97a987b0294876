"""What a column of numbers is by its values, and which columns a job leaves out when the user has named no features."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpuclust.data.table import Column, Frame, Frames, host_values

FEW_VALUES = 10
"""A column of at most this many different values is a category, a flag or a label rather than a measurement."""
ROWS_PER_VALUE = 10
"""A column has few values when each of them stands for at least this many rows on average."""
BLOCK = 16
"""Columns whose names differ in their numbers alone are one block, such as the pixels of an image, from this many on."""
MANY_ROWS = 1000
"""From this many rows on, whole numbers that are all different are an id whatever their name."""

_COUNTER_NAME = re.compile(r"(^|[_\s.])(id|idx|index|row|nr|number|uuid)$", re.IGNORECASE)
_LABEL_NAME = re.compile(r"(^|[_\s.])(label|class|target|cluster|category)(_?id)?$", re.IGNORECASE)
_HEAD = 1000


@dataclass(frozen=True)
class Trait:
    """What speaks against a column as a feature. ``text`` completes "COLUMN: ".

    ``kind`` is ``empty``, ``missing``, ``constant``, ``id``, ``counter``, ``label``, ``flag`` (two whole numbers), ``few``
    (at most `FEW_VALUES` whole numbers) or ``coarse`` (as few values that are not whole).
    """

    kind: str
    text: str


def traits(frame: Frame, names: Sequence[str], frames: Frames) -> dict[str, Trait | None]:
    """What speaks against numeric columns as features by their values and names: column -> None for a measurement.

    All columns are looked at together by their missing values, ends and first rows, so that thousands of them take no time;
    only those that may be one of the kinds are read to the end.
    """
    if not names:
        return {}
    numbers = frame[list(names)]
    n_rows = len(frame)
    missing, lows, highs = (host_values(each) for each in (numbers.isna().sum(), numbers.min(), numbers.max()))
    head = np.sort(frames.to_pandas(numbers.head(_HEAD)).to_numpy(np.float64), axis=0)
    distinct = (head[:1] == head[:1]).sum(axis=0) + (head[1:] > head[:-1]).sum(axis=0)
    with np.errstate(invalid="ignore"):  # an infinity is not whole
        whole = ~((head % 1 != 0) & ~np.isnan(head)).any(axis=0)
    found: dict[str, Trait | None] = {}
    for j, name in enumerate(names):
        first = _Head(int(distinct[j]), bool(whole[j]), min(_HEAD, n_rows))
        found[name] = _trait(frame, name, int(missing[j]), float(lows[j]), float(highs[j]), first)
    return found


@dataclass(frozen=True)
class _Head:
    """The first rows of a column: how many values are different, whether all are whole, how many rows these are."""

    distinct: int
    whole: bool
    n_rows: int


def _trait(frame: Frame, name: str, n_missing: int, low: float, high: float, head: _Head) -> Trait | None:
    n_rows = len(frame)
    if n_missing == n_rows:
        return Trait("empty", "empty")
    if 2 * n_missing > n_rows:
        return Trait("missing", f"{n_missing / n_rows:.0%} missing")
    if n_rows > 1 and low == high:
        return Trait("constant", f"constant ({low:g})")
    if n_missing == 0 and head.whole and head.distinct == head.n_rows and high - low >= n_rows - 1 >= 1:
        return _numbering(frame[name], name, low, high)
    label = bool(_LABEL_NAME.search(name))
    most = (n_rows - n_missing) // ROWS_PER_VALUE
    if head.distinct > (most if label else min(most, FEW_VALUES)):
        return None
    return _few(frame[name], low, high, most, label=label)


def _numbering(column: Column, name: str, low: float, high: float) -> Trait | None:
    """Whether whole numbers count the rows or name them."""
    n_rows = len(column)
    named = bool(_COUNTER_NAME.search(name))
    if not named and n_rows < 2 * ROWS_PER_VALUE:
        return None
    if low in (0.0, 1.0) and high - low == n_rows - 1 and bool(column.is_monotonic_increasing):
        return Trait("counter", "counts the rows")
    if not (named or n_rows >= MANY_ROWS) or bool((column % 1 != 0).any()) or int(column.nunique()) < n_rows:
        return None
    return Trait("id", "whole numbers that are all different: an id")


def _few(column: Column, low: float, high: float, most: int, *, label: bool) -> Trait | None:
    """What a column is whose values, at most ``most``, each stand for many rows."""
    values = column.dropna().unique()
    n = len(values)
    if n > (most if label else min(most, FEW_VALUES)):
        return None
    with np.errstate(invalid="ignore"):  # an infinity is not whole
        whole = not bool((values % 1 != 0).any())
    if label and whole:
        return Trait("label", f"named like a label, {n:,} different whole numbers")
    if n > FEW_VALUES:
        return None
    if not whole:
        return Trait("coarse", f"{n} different values")
    return Trait("flag", f"a flag: {low:g} or {high:g}") if n == 2 else Trait("few", f"{n} different whole numbers")


def unfit(found: Mapping[str, Trait | None]) -> tuple[dict[str, Trait], dict[str, Trait]]:
    """Of numeric columns and what speaks against each: those to leave out, and those to use with a warning.

    Flags and columns of few whole numbers are used where they are part of a block of measurements (pixels at the edge of an
    image), where they are the greater part of the columns (a questionnaire), or where fewer than two features would be left.
    """
    against = {name: t for name, t in found.items() if t is not None}
    weak = [name for name, t in against.items() if t.kind in ("flag", "few")]
    every, measured = Counter(map(_stem, found)), Counter(_stem(name) for name in found if name not in against)
    blocks = {stem for stem, n in every.items() if n >= BLOCK and 2 * measured[stem] >= n}
    loose = {name for name in weak if _stem(name) not in blocks}
    coarse = {name for name, t in against.items() if t.kind == "coarse"}
    fit = len(found) - len(against) + len(coarse) + len(weak) - len(loose)
    used = {*coarse, *weak} if fit < 2 or len(loose) > fit else {*coarse, *weak} - loose
    return {n: t for n, t in against.items() if n not in used}, {n: t for n, t in against.items() if n in used}


def _stem(name: str) -> str:
    return re.sub(r"\d+", "#", name)
