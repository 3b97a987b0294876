"""Cleaning: which rows are kept, and what every rule took."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from gpuclust.config import CleanConfig, did_you_mean
from gpuclust.data.infer_types import is_text, text_step, to_numbers
from gpuclust.data.lists import join_items
from gpuclust.data.summary import dropped
from gpuclust.data.table import ExcludedColumn, Frame, Frames, Step, Table, host_values
from gpuclust.errors import CleaningError, ConfigurationError

MAX_MAGNITUDE = 1e75
"""The largest absolute value of a feature: fourth powers of it are still finite."""


def clean(table: Table, config: CleanConfig, frames: Frames) -> Table:
    """Keep the rows that can be clustered.

    In this order: text and infinities in features become missing; rows outside `clean.bounds` go; rows without a
    group go, if `clean.require_group`; rows with a missing feature go (or the value is filled by the median or the
    mean of the rows still there); repeated ids or rows go, the first staying; features with one value only are
    dropped. Every rule is a step of the audit.

    Returns the table with float64, finite features and a 0..n-1 index; the given table is not changed.

    Raises:
        ConfigurationError: a bound names no column, or a group is required and none is known.
        CleaningError: no row or no feature is left.
    """
    if table.n_rows < 2:
        raise CleaningError("the table has one row; clustering needs two at least")
    work = _Work(table.frame.copy(deep=False), table, frames)
    _text(work)
    _infinities(work)
    for name, (low, high) in config.bounds.items():
        _bounds(work, name, low, high)
    if config.require_group:
        _group(work)
    _nulls(work, config.nulls)
    _duplicates(work, config.duplicates)
    work.take()
    work.ends = work.extremes()
    _extremes(work)
    _constants(work)
    audit = replace(
        table.audit,
        steps=(*table.audit.steps, *work.steps),
        left_out=(*table.audit.left_out, *work.left_out),
        features=tuple(work.features),
        rows_kept=len(work.frame),
        fills={name: work.fills[name] for name in work.features if name in work.fills},
        notes=(*table.audit.notes, *_id_notes(work, unique=config.duplicates == "id")),
        distinct_feature_rows=frames.count_distinct(work.frame, work.features),
    )
    audit = replace(audit, warnings=(*audit.warnings, *dropped(audit)))
    return replace(table, frame=work.frame, features=tuple(work.features), audit=audit, rows=work.rows)


@dataclass
class _Work:
    """The frame, which of its rows are still wanted, and the steps so far. Rows are taken once, at the end."""

    frame: Frame
    table: Table
    frames: Frames
    wanted: Any = None  # a mask over the frame's rows; None for all
    steps: list[Step] = field(default_factory=list)
    left_out: list[ExcludedColumn] = field(default_factory=list)
    fills: dict[str, float] = field(default_factory=dict)
    ends: dict[str, tuple[float, float]] = field(default_factory=dict)  # lowest and highest value of each feature
    features: list[str] = field(init=False)
    rows: np.ndarray | None = field(init=False)  # the numbers of the frame's rows in the source

    def __post_init__(self) -> None:
        self.features, self.rows = list(self.table.features), self.table.rows

    @property
    def n_rows(self) -> int:
        """How many rows are still wanted."""
        return len(self.frame) if self.wanted is None else int(self.wanted.sum())

    def count(self, marked: Any) -> int:
        """How many of the marked rows are still wanted."""
        return int((marked if self.wanted is None else marked & self.wanted).sum())

    def keep(self, rule: str, detail: str, wanted: Any, columns: Mapping[str, int] | None = None) -> None:
        """Keep, of the rows still wanted, these, and note the step.

        Raises CleaningError when none is left.
        """
        before, kept = self.n_rows, self.count(wanted)
        self.steps.append(Step(rule, detail, before, before - kept, columns=dict(columns or {})))
        if not kept:
            taken = "; ".join(f"{s.rule} ({s.detail}) took {s.rows_removed:,}" for s in self.steps if s.rows_removed)
            raise CleaningError(
                f"cleaning left none of {self.table.n_rows:,} rows: {taken}; loosen clean.* or change data.features"
            )
        if kept < before:
            self.wanted = wanted if self.wanted is None else self.wanted & wanted

    def extremes(self) -> dict[str, tuple[float, float]]:
        """The lowest and the highest value of each feature in the frame."""
        numbers = self.frame[self.features]
        lows, highs = host_values(numbers.min()).tolist(), host_values(numbers.max()).tolist()
        return dict(zip(self.features, zip(lows, highs, strict=True), strict=True))

    def take(self) -> None:
        """Make the frame the rows still wanted, with a 0..n-1 index."""
        if self.wanted is not None:
            kept = np.flatnonzero(self.wanted.to_numpy())
            self.rows = kept if self.rows is None else self.rows[kept]
            self.frame = self.frame[self.wanted].reset_index(drop=True)
            self.wanted = None


def _text(work: _Work) -> None:
    """Features as float64; cells that are no numbers become missing."""
    cells = {}
    types = work.frame.dtypes
    for name in work.features:
        if str(types[name]) == "float64":
            continue
        column = work.frame[name]
        if is_text(column):
            work.frame[name], n = to_numbers(column, work.frames)
            if n:
                cells[name] = n
        else:
            work.frame[name] = column.astype("float64")
    if cells:
        work.steps.append(text_step(cells, len(work.frame)))


def _infinities(work: _Work) -> None:
    cells = {}
    for name, (low, high) in work.extremes().items():
        if math.inf in (-low, high):
            infinite = work.frame[name].abs() == math.inf
            work.frame[name] = work.frame[name].where(~infinite)
            cells[name] = int(infinite.sum())
    if cells:
        detail = ", ".join(f"{name}: {n:,}" for name, n in cells.items())
        work.steps.append(
            Step("infinities", f"infinite cells made missing ({detail})", len(work.frame), 0, sum(cells.values()))
        )


def _bounds(work: _Work, name: str, low: float | None, high: float | None) -> None:
    """Drop the rows whose value is known and outside."""
    numeric = [n for n in work.frame.columns if work.frame[n].dtype.kind in "iuf"]
    if name not in numeric:
        raise ConfigurationError(
            f"clean.bounds.{name}: no numeric column of that name is in use{did_you_mean(name, numeric)}"
        )
    column = work.frame[name]
    inside = column.between(-math.inf if low is None else low, math.inf if high is None else high)
    ends = f"{'-inf' if low is None else f'{low:g}'} to {'inf' if high is None else f'{high:g}'}"
    work.keep("bounds", f"{name} outside {ends}", column.isna() | inside.fillna(False))


def _group(work: _Work) -> None:
    group = work.table.roles.group
    if group is None:
        raise ConfigurationError("clean.require_group needs a group column; name it in data.roles.group")
    work.keep("group", f"no {group}", work.frame[group].notna())


def _nulls(work: _Work, method: str) -> None:
    """Drop the rows where a feature is missing, or fill the gaps."""
    if method != "drop":
        work.take()  # gaps are filled from the rows still there
    n_missing = host_values(work.frame[work.features].isna().sum())
    missing = {n: work.frame[n].isna() for n, count in zip(work.features, n_missing, strict=True) if count}
    counts = {name: n for name in missing if (n := work.count(missing[name]))}
    detail = ", ".join(f"{name}: {n:,}" for name, n in counts.items())
    if method != "drop":
        _fill(work, method, counts)
    if not counts:
        work.steps.append(Step("nulls", "no feature is missing", work.n_rows, 0))
    elif method == "drop":
        gap = reduce(operator.or_, (missing[name] for name in counts))
        work.keep("nulls", f"a feature is missing ({detail})", ~gap, counts)
    else:
        work.steps.append(
            Step("nulls", f"filled with the {method} ({detail})", len(work.frame), 0, sum(counts.values()))
        )


def _fill(work: _Work, method: str, counts: dict[str, int]) -> None:
    """Fill gaps by the median or mean, which is kept for every feature: a row to predict may miss any."""
    fills = host_values(getattr(work.frame[work.features], method)())
    for name, fill in zip(work.features, fills.tolist(), strict=True):
        if counts.get(name) == len(work.frame):
            raise CleaningError(f"{name!r} has no value in any row, so no {method}; leave it out with data.exclude")
        work.fills[name] = fill
    for name in counts:
        work.frame[name] = work.frame[name].fillna(work.fills[name])


def _duplicates(work: _Work, by: str) -> None:
    """Drop rows that repeat an earlier one; rows without an id repeat nothing."""
    if by == "none":
        return
    name = work.table.roles.id
    if by == "id":
        ids = work.frame[name] if work.wanted is None else work.frame[name].where(work.wanted)
        work.keep("duplicates", f"{name} seen before", ~(ids.to_frame().duplicated(keep="first") & ids.notna()))
        return
    work.take()
    made = work.table.audit.source.get("id_made")
    names = [column for column in work.frame.columns if not (made and column == name)]
    seen = _hashable(work.frame[names], work.frames).duplicated(keep="first")
    work.keep("duplicates", "all columns in use as in an earlier row", ~seen)


def _id_notes(work: _Work, *, unique: bool) -> list[str]:
    """What to know of the ids in the rows kept: some may be missing or repeated."""
    name = work.table.roles.id
    if work.table.audit.source.get("id_made"):
        return []
    column = work.frame[name]
    n_missing = int(column.isna().sum())
    n_repeated = 0 if unique else len(column) - n_missing - int(column.nunique())
    notes = [f"{n_missing:,} rows have no {name}"] if n_missing else []
    if n_repeated:
        notes.append(f"{n_repeated:,} rows repeat the {name} of another; clean.duplicates=id keeps the first")
    return notes


def _hashable(frame: Frame, frames: Frames) -> Frame:
    """The frame with columns of lists as text."""
    frame = frame.copy(deep=False)
    for name in frame.columns:
        if "list" in str(frame[name].dtype).lower():
            lists = pa.array(frames.to_pandas(frame[[name]])[name])
            text = pd.DataFrame({name: join_items(lists).to_pandas()})
            frame[name] = frames.from_pandas(text)[name]
    return frame


def _extremes(work: _Work) -> None:
    """Refuse values whose squares and products overflow."""
    for name, (low, high) in work.ends.items():
        if max(high, -low) > MAX_MAGNITUDE:
            raise CleaningError(
                f"{name!r} has values from {low:.3g} to {high:.3g}, and sums of squares overflow beyond ±{MAX_MAGNITUDE:g}; rescale it, "
                f"leave it out (data.exclude=[{name}]), or drop those rows (clean.bounds.{name}=[-{MAX_MAGNITUDE:g},{MAX_MAGNITUDE:g}])"
            )


def _constants(work: _Work) -> None:
    """Drop features that have one value only."""
    constant = [name for name, (low, high) in work.ends.items() if low == high]
    if not constant:
        return
    for name in constant:
        work.left_out.append(ExcludedColumn(name, f"constant ({work.ends[name][0]:g}) in the rows kept"))
    work.features = [name for name in work.features if name not in constant]
    work.steps.append(Step("constants", f"features with one value dropped: {', '.join(constant)}", len(work.frame), 0))
    if not work.features:
        raise CleaningError(
            f"every feature has one value only in the {len(work.frame):,} rows kept ({', '.join(constant)}); "
            "choose other data.features or loosen clean.*"
        )
    roles = work.table.roles.columns
    work.frame = work.frame.drop(columns=[name for name in constant if name not in roles])
