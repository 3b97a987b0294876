"""Detect numeric columns that are not measurements: ids, counters, labels, flags, constants and mostly missing columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gpuclust.data.table import Column, Frame, Frames, host_values

FEW_VALUES = 10
"""A column with at most this many distinct values is a category, a flag or a label rather than a measurement."""
ROWS_PER_VALUE = 10
"""A column has few values if each value occurs in at least this many rows on average."""
MIN_BLOCK = 16
"""At least this many columns whose names differ only in their numbers are one block, such as the pixels of an image."""
MIN_ID_ROWS = 1000
"""With at least this many rows, distinct whole numbers are an id whatever the name of the column."""

_COUNTER_NAME = re.compile(r"(^|[_\s.])(id|idx|index|row|nr|number|uuid)$", re.IGNORECASE)
_LABEL_NAME = re.compile(r"(^|[_\s.])(label|class|target|cluster|category)(_?id)?$", re.IGNORECASE)
_HEAD = 1000


@dataclass(frozen=True)
class FeatureIssue:
    """The reason why a numeric column is probably not a measurement. ``text`` completes "COLUMN: ".

    ``kind`` is ``empty``, ``missing``, ``constant``, ``id``, ``counter``, ``label``, ``flag`` (two whole numbers), ``few``
    (at most `FEW_VALUES` whole numbers) or ``coarse`` (at most as many values that are not whole).
    """

    kind: str
    text: str


class WholeColumn(Protocol):
    """A numeric column that is read completely, because it may have an issue."""

    def increases(self) -> bool:
        """Whether no value is less than the one before."""

    def is_whole(self) -> bool:
        """Whether all values are whole numbers; there are no missing ones."""

    def n_distinct(self) -> int:
        """The number of distinct values."""

    def distinct(self, most: int) -> np.ndarray | None:
        """The distinct values without the missing ones; None if there are more than ``most``."""


@dataclass(frozen=True)
class FeatureSummary:
    """A summary of numeric columns from one read: (n_columns,) arrays, and the first rows (at most 1,000, n_columns)."""

    n_rows: int
    missing: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    head: np.ndarray

    @classmethod
    def of(cls, numbers: Frame, frames: Frames) -> FeatureSummary:
        """Summarise a frame of numbers."""
        missing, lows, highs = (host_values(each) for each in (numbers.isna().sum(), numbers.min(), numbers.max()))
        return cls(len(numbers), missing, lows, highs, frames.to_pandas(numbers.head(_HEAD)).to_numpy(np.float64))

    def __add__(self, later: FeatureSummary) -> FeatureSummary:
        """The summary of these rows and later ones."""
        return FeatureSummary(
            self.n_rows + later.n_rows,
            self.missing + later.missing,
            np.fmin(self.lows, later.lows),
            np.fmax(self.highs, later.highs),
            np.concatenate([self.head, later.head])[:_HEAD],
        )


def check_features(frame: Frame, names: Sequence[str], frames: Frames) -> dict[str, FeatureIssue | None]:
    """Check numeric columns by their values and names: column -> issue, or None for a measurement.

    Missing values, minima, maxima and the first rows are computed for all columns together, which is fast for thousands of
    columns; only columns that may have an issue are read completely.
    """
    if not names:
        return {}
    summary = FeatureSummary.of(frame[list(names)], frames)
    return check_summary(summary, names, lambda name: _FrameColumn(frame[name]))


def check_summary(
    summary: FeatureSummary, names: Sequence[str], column: Callable[[str], WholeColumn]
) -> dict[str, FeatureIssue | None]:
    """Check numeric columns by their summary; ``column`` gives one to read completely."""
    head = np.sort(summary.head, axis=0)
    distinct = (head[:1] == head[:1]).sum(axis=0) + (head[1:] > head[:-1]).sum(axis=0)
    with np.errstate(invalid="ignore"):  # an infinity is not whole
        whole = ~((head % 1 != 0) & ~np.isnan(head)).any(axis=0)
    found: dict[str, FeatureIssue | None] = {}
    for j, name in enumerate(names):
        facts = _Facts(
            summary.n_rows,
            int(summary.missing[j]),
            float(summary.lows[j]),
            float(summary.highs[j]),
            _Head(int(distinct[j]), bool(whole[j]), len(head)),
        )
        found[name] = _check(name, facts, column)
    return found


@dataclass(frozen=True)
class _Head:
    """The first rows of a column: the number of distinct values, whether all are whole, and the number of rows."""

    distinct: int
    whole: bool
    n_rows: int


@dataclass(frozen=True)
class _Facts:
    """The summary of one column from one read."""

    n_rows: int
    n_missing: int
    low: float
    high: float
    head: _Head


def _check(name: str, facts: _Facts, column: Callable[[str], WholeColumn]) -> FeatureIssue | None:
    n_rows, n_missing, low, high, head = facts.n_rows, facts.n_missing, facts.low, facts.high, facts.head
    if n_missing == n_rows:
        return FeatureIssue("empty", "empty")
    if 2 * n_missing > n_rows:
        return FeatureIssue("missing", f"{n_missing / n_rows:.0%} missing")
    if n_rows > 1 and low == high:
        return FeatureIssue("constant", f"constant ({low:g})")
    if n_missing == 0 and head.whole and head.distinct == head.n_rows and high - low >= n_rows - 1 >= 1:
        return _check_ids(name, facts, column(name))
    label = bool(_LABEL_NAME.search(name))
    most = (n_rows - n_missing) // ROWS_PER_VALUE
    if head.distinct > (most if label else min(most, FEW_VALUES)):
        return None
    return _check_few_values(facts, column(name), most, label=label)


def _check_ids(name: str, facts: _Facts, column: WholeColumn) -> FeatureIssue | None:
    """Detect whole numbers that count the rows or identify them."""
    n_rows, low, high = facts.n_rows, facts.low, facts.high
    named = bool(_COUNTER_NAME.search(name))
    if not named and n_rows < 2 * ROWS_PER_VALUE:
        return None
    if low in (0.0, 1.0) and high - low == n_rows - 1 and column.increases():
        return FeatureIssue("counter", "counts the rows")
    if not (named or n_rows >= MIN_ID_ROWS) or not column.is_whole() or column.n_distinct() < n_rows:
        return None
    return FeatureIssue("id", "whole numbers that are all different: an id")


def _check_few_values(facts: _Facts, column: WholeColumn, most: int, *, label: bool) -> FeatureIssue | None:
    """Detect a column of few values: at most ``most``, each in many rows."""
    values = column.distinct(most if label else min(most, FEW_VALUES))
    if values is None:
        return None
    n = len(values)
    with np.errstate(invalid="ignore"):  # an infinity is not whole
        whole = not bool((values % 1 != 0).any())
    if label and whole:
        return FeatureIssue("label", f"named like a label, {n:,} different whole numbers")
    if n > FEW_VALUES:
        return None
    if not whole:
        return FeatureIssue("coarse", f"{n} different values")
    return (
        FeatureIssue("flag", f"a flag: {facts.low:g} or {facts.high:g}")
        if n == 2
        else FeatureIssue("few", f"{n} different whole numbers")
    )


class _FrameColumn:
    """A column of a frame in memory, as a `WholeColumn`."""

    def __init__(self, column: Column) -> None:
        self._column = column

    def increases(self) -> bool:
        return bool(self._column.is_monotonic_increasing)

    def is_whole(self) -> bool:
        return not bool((self._column % 1 != 0).any())

    def n_distinct(self) -> int:
        return int(self._column.nunique())

    def distinct(self, most: int) -> np.ndarray | None:
        values: np.ndarray = self._column.dropna().unique()
        return values if len(values) <= most else None


def split_issues(issues: Mapping[str, FeatureIssue | None]) -> tuple[dict[str, FeatureIssue], dict[str, FeatureIssue]]:
    """Split the columns with an issue into those to leave out and those to use with a warning.

    Flags and columns of few whole numbers are used if they are part of a block of measurements (pixels at the edge of an
    image), if they are the majority of the columns (a questionnaire), or if fewer than two features would be left.
    """
    flagged = {name: t for name, t in issues.items() if t is not None}
    weak = [name for name, t in flagged.items() if t.kind in ("flag", "few")]
    every, measured = Counter(map(_stem, issues)), Counter(_stem(name) for name in issues if name not in flagged)
    blocks = {stem for stem, n in every.items() if n >= MIN_BLOCK and 2 * measured[stem] >= n}
    loose = {name for name in weak if _stem(name) not in blocks}
    coarse = {name for name, t in flagged.items() if t.kind == "coarse"}
    fit = len(issues) - len(flagged) + len(coarse) + len(weak) - len(loose)
    used = {*coarse, *weak} if fit < 2 or len(loose) > fit else {*coarse, *weak} - loose
    return {n: t for n, t in flagged.items() if n not in used}, {n: t for n, t in flagged.items() if n in used}


def _stem(name: str) -> str:
    return re.sub(r"\d+", "#", name)
