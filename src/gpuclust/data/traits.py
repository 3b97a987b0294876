"""What a column of numbers is by its values, and which columns a job leaves out when the user has named no features."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from gpuclust.data.table import Column

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


def trait(column: Column, name: str) -> Trait | None:
    """What speaks against a numeric column as a feature by its values and its name; None for a measurement."""
    n_rows = len(column)
    n_missing = int(column.isna().sum())
    if n_missing == n_rows:
        return Trait("empty", "empty")
    if 2 * n_missing > n_rows:
        return Trait("missing", f"{n_missing / n_rows:.0%} missing")
    low, high = float(column.min()), float(column.max())
    if n_rows > 1 and low == high:
        return Trait("constant", f"constant ({low:g})")
    if n_missing == 0 and (found := _numbering(column, name, low, high)):
        return found
    return _few(column, name, n_rows - n_missing, f"a flag: {low:g} or {high:g}")


def _numbering(column: Column, name: str, low: float, high: float) -> Trait | None:
    """Whether a column without gaps counts the rows or names them: cheap tests first."""
    n_rows = len(column)
    named = bool(_COUNTER_NAME.search(name))
    if n_rows < 2 or high - low < n_rows - 1 or not (named or n_rows >= 2 * ROWS_PER_VALUE):
        return None
    head = column.head(_HEAD)
    if bool((head % 1 != 0).any()) or int(head.nunique()) < len(head):
        return None
    if low in (0.0, 1.0) and high - low == n_rows - 1 and bool(column.is_monotonic_increasing):
        return Trait("counter", "counts the rows")
    if not (named or n_rows >= MANY_ROWS) or bool((column % 1 != 0).any()) or int(column.nunique()) < n_rows:
        return None
    return Trait("id", "whole numbers that are all different: an id")


def _few(column: Column, name: str, n_known: int, flag: str) -> Trait | None:
    """What a column is whose values each stand for many rows."""
    label = bool(_LABEL_NAME.search(name))
    most = n_known // ROWS_PER_VALUE if label else min(n_known // ROWS_PER_VALUE, FEW_VALUES)
    if int(column.head(_HEAD).nunique()) > most:
        return None
    values = column.dropna().unique()
    if len(values) > most:
        return None
    whole = not bool((values % 1 != 0).any())
    if label and whole:
        return Trait("label", f"named like a label, {len(values):,} different whole numbers")
    if len(values) > FEW_VALUES:
        return None
    if not whole:
        return Trait("coarse", f"{len(values)} different values")
    return Trait("flag", flag) if len(values) == 2 else Trait("few", f"{len(values)} different whole numbers")


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
