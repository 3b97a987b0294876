"""Clean a table: drop or fill rows by the rules of `clean.*`, and record what each rule did."""

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
from gpuclust.data.summary import dropped_rows_warnings
from gpuclust.data.table import ExcludedColumn, Frame, Frames, Step, Table, host_values
from gpuclust.errors import CleaningError, ConfigurationError

MAX_MAGNITUDE = 1e75
"""The largest absolute value of a feature: fourth powers of it are still finite."""


def clean(table: Table, config: CleanConfig, frames: Frames) -> Table:
    """Keep the rows that can be clustered.

    The rules in this order: text and infinities in features become missing; rows outside `clean.bounds` are dropped; rows
    without a group are dropped if `clean.require_group`; rows with a missing feature are dropped, or the value is filled
    with the median or the mean of the remaining rows; rows that repeat an earlier id or row are dropped; features with a
    single value are dropped. Every rule is a step of the audit.

    Returns a table with finite float64 features and a 0..n-1 index; the given table is not changed.

    Raises:
        ConfigurationError: a bound names no column, or a group is required and no column has that role.
        CleaningError: no row or no feature is left.
    """
    if table.n_rows < 2:
        raise CleaningError("the table has one row; clustering needs two at least")
    state = _CleaningState(table.frame.copy(deep=False), table, frames)
    _text(state)
    _infinities(state)
    for name, (low, high) in config.bounds.items():
        _bounds(state, name, low, high)
    if config.require_group:
        _group(state)
    _nulls(state, config.nulls)
    _duplicates(state, config.duplicates)
    state.apply()
    state.ends = state.extremes()
    _extremes(state)
    _constants(state)
    audit = replace(
        table.audit,
        steps=(*table.audit.steps, *state.steps),
        left_out=(*table.audit.left_out, *state.left_out),
        features=tuple(state.features),
        rows_kept=len(state.frame),
        fills={name: state.fills[name] for name in state.features if name in state.fills},
        notes=(*table.audit.notes, *_id_notes(state, unique=config.duplicates == "id")),
        distinct_feature_rows=frames.count_distinct(state.frame, state.features),
    )
    audit = replace(audit, warnings=(*audit.warnings, *dropped_rows_warnings(audit)))
    return replace(table, frame=state.frame, features=tuple(state.features), audit=audit, rows=state.rows)


@dataclass
class _CleaningState:
    """The frame, a mask of the rows to keep, and the steps so far. The mask is applied once, at the end."""

    frame: Frame
    table: Table
    frames: Frames
    mask: Any = None  # of the rows to keep; None for all
    steps: list[Step] = field(default_factory=list)
    left_out: list[ExcludedColumn] = field(default_factory=list)
    fills: dict[str, float] = field(default_factory=dict)
    ends: dict[str, tuple[float, float]] = field(default_factory=dict)  # minimum and maximum of each feature
    features: list[str] = field(init=False)
    rows: np.ndarray | None = field(init=False)  # the numbers of the frame's rows in the source

    def __post_init__(self) -> None:
        self.features, self.rows = list(self.table.features), self.table.rows

    @property
    def n_rows(self) -> int:
        """Number of rows to keep so far."""
        return len(self.frame) if self.mask is None else int(self.mask.sum())

    def count(self, marked: Any) -> int:
        """Number of marked rows among the rows to keep."""
        return int((marked if self.mask is None else marked & self.mask).sum())

    def filter(self, rule: str, detail: str, keep: Any, columns: Mapping[str, int] | None = None) -> None:
        """Drop the rows outside ``keep`` and record the step.

        Raises CleaningError if no row is left.
        """
        before, kept = self.n_rows, self.count(keep)
        self.steps.append(Step(rule, detail, before, before - kept, columns=dict(columns or {})))
        if not kept:
            taken = "; ".join(f"{s.rule} ({s.detail}) took {s.rows_removed:,}" for s in self.steps if s.rows_removed)
            raise CleaningError(
                f"cleaning left none of {self.table.n_rows:,} rows: {taken}; loosen clean.* or change data.features"
            )
        if kept < before:
            self.mask = keep if self.mask is None else self.mask & keep

    def extremes(self) -> dict[str, tuple[float, float]]:
        """The minimum and maximum of each feature in the frame."""
        numbers = self.frame[self.features]
        lows, highs = host_values(numbers.min()).tolist(), host_values(numbers.max()).tolist()
        return dict(zip(self.features, zip(lows, highs, strict=True), strict=True))

    def apply(self) -> None:
        """Remove the dropped rows from the frame; the index is 0..n-1."""
        if self.mask is not None:
            kept = np.flatnonzero(self.mask.to_numpy())
            self.rows = kept if self.rows is None else self.rows[kept]
            self.frame = self.frame[self.mask].reset_index(drop=True)
            self.mask = None


def _text(state: _CleaningState) -> None:
    """Convert features to float64; cells that are not numbers become missing."""
    cells = {}
    types = state.frame.dtypes
    for name in state.features:
        if str(types[name]) == "float64":
            continue
        column = state.frame[name]
        if is_text(column):
            state.frame[name], n = to_numbers(column, state.frames)
            if n:
                cells[name] = n
        else:
            state.frame[name] = column.astype("float64")
    if cells:
        state.steps.append(text_step(cells, len(state.frame)))


def _infinities(state: _CleaningState) -> None:
    cells = {}
    for name, (low, high) in state.extremes().items():
        if math.inf in (-low, high):
            infinite = state.frame[name].abs() == math.inf
            state.frame[name] = state.frame[name].where(~infinite)
            cells[name] = int(infinite.sum())
    if cells:
        detail = ", ".join(f"{name}: {n:,}" for name, n in cells.items())
        state.steps.append(
            Step("infinities", f"infinite cells made missing ({detail})", len(state.frame), 0, sum(cells.values()))
        )


def _bounds(state: _CleaningState, name: str, low: float | None, high: float | None) -> None:
    """Drop rows whose non-missing value is outside the bounds."""
    numeric = [n for n in state.frame.columns if state.frame[n].dtype.kind in "iuf"]
    if name not in numeric:
        raise ConfigurationError(
            f"clean.bounds.{name}: no numeric column of that name is in use{did_you_mean(name, numeric)}"
        )
    column = state.frame[name]
    inside = column.between(-math.inf if low is None else low, math.inf if high is None else high)
    if low is not None and high is not None:
        dropped = f"outside {low:g} to {high:g}"
    else:
        dropped = f"above {high:g}" if low is None else f"below {low:g}"
    state.filter("bounds", f"{name} {dropped}", column.isna() | inside.fillna(False))


def _group(state: _CleaningState) -> None:
    group = state.table.roles.group
    if group is None:
        raise ConfigurationError("clean.require_group needs a group column; name it in data.roles.group")
    state.filter("group", f"no {group}", state.frame[group].notna())


def _nulls(state: _CleaningState, method: str) -> None:
    """Drop rows with a missing feature, or fill the missing values."""
    if method != "drop":
        state.apply()  # fill from the remaining rows
    n_missing = host_values(state.frame[state.features].isna().sum())
    missing = {n: state.frame[n].isna() for n, count in zip(state.features, n_missing, strict=True) if count}
    counts = {name: n for name in missing if (n := state.count(missing[name]))}
    detail = ", ".join(f"{name}: {n:,}" for name, n in counts.items())
    if method != "drop":
        _fill(state, method, counts)
    if not counts:
        state.steps.append(Step("nulls", "no feature is missing", state.n_rows, 0))
    elif method == "drop":
        gap = reduce(operator.or_, (missing[name] for name in counts))
        state.filter("nulls", f"a feature is missing ({detail})", ~gap, counts)
    else:
        state.steps.append(
            Step("nulls", f"filled with the {method} ({detail})", len(state.frame), 0, sum(counts.values()))
        )


def _fill(state: _CleaningState, method: str, counts: dict[str, int]) -> None:
    """Fill missing values with the median or mean, which is kept for every feature: a row to predict may miss any."""
    fills = host_values(getattr(state.frame[state.features], method)())
    for name, fill in zip(state.features, fills.tolist(), strict=True):
        if counts.get(name) == len(state.frame):
            raise CleaningError(f"{name!r} has no value in any row, so no {method}; leave it out with data.exclude")
        state.fills[name] = fill
    for name in counts:
        state.frame[name] = state.frame[name].fillna(state.fills[name])


def _duplicates(state: _CleaningState, by: str) -> None:
    """Drop rows that repeat an earlier id or row; rows without an id are not repeats."""
    if by == "none":
        return
    name = state.table.roles.id
    if by == "id":
        ids = state.frame[name] if state.mask is None else state.frame[name].where(state.mask)
        state.filter("duplicates", f"{name} seen before", ~(ids.to_frame().duplicated(keep="first") & ids.notna()))
        return
    state.apply()
    made = state.table.audit.source.get("id_made")
    names = [column for column in state.frame.columns if not (made and column == name)]
    seen = _hashable(state.frame[names], state.frames).duplicated(keep="first")
    state.filter("duplicates", "all columns in use as in an earlier row", ~seen)


def _id_notes(state: _CleaningState, *, unique: bool) -> list[str]:
    """Notes on missing and repeated ids in the remaining rows."""
    name = state.table.roles.id
    if state.table.audit.source.get("id_made"):
        return []
    column = state.frame[name]
    n_missing = int(column.isna().sum())
    n_repeated = 0 if unique else len(column) - n_missing - int(column.nunique())
    notes = [f"{n_missing:,} rows have no {name}"] if n_missing else []
    if n_repeated:
        notes.append(f"{n_repeated:,} rows repeat the {name} of another; clean.duplicates=id keeps the first")
    return notes


def _hashable(frame: Frame, frames: Frames) -> Frame:
    """Convert columns of lists to text."""
    frame = frame.copy(deep=False)
    for name in frame.columns:
        if "list" in str(frame[name].dtype).lower():
            lists = pa.array(frames.to_pandas(frame[[name]])[name])
            text = pd.DataFrame({name: join_items(lists).to_pandas()})
            frame[name] = frames.from_pandas(text)[name]
    return frame


def _extremes(state: _CleaningState) -> None:
    """Raise CleaningError for values whose squares and products overflow."""
    for name, (low, high) in state.ends.items():
        if max(high, -low) > MAX_MAGNITUDE:
            raise CleaningError(
                f"{name!r} has values from {low:.3g} to {high:.3g}, and sums of squares overflow beyond ±{MAX_MAGNITUDE:g}; rescale it, "
                f"leave it out (data.exclude=[{name}]), or drop those rows (clean.bounds.{name}=[-{MAX_MAGNITUDE:g},{MAX_MAGNITUDE:g}])"
            )


def _constants(state: _CleaningState) -> None:
    """Drop features with a single value."""
    constant = [name for name, (low, high) in state.ends.items() if low == high]
    if not constant:
        return
    for name in constant:
        state.left_out.append(ExcludedColumn(name, f"constant ({state.ends[name][0]:g}) in the rows kept"))
    state.features = [name for name in state.features if name not in constant]
    state.steps.append(
        Step("constants", f"features with one value dropped: {', '.join(constant)}", len(state.frame), 0)
    )
    if not state.features:
        raise CleaningError(
            f"every feature has one value only in the {len(state.frame):,} rows kept ({', '.join(constant)}); "
            "choose other data.features or loosen clean.*"
        )
    roles = state.table.roles.columns
    state.frame = state.frame.drop(columns=[name for name in constant if name not in roles])
