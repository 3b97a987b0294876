"""Clean a table: drop or fill rows by the rules of `clean.*`, and record what each rule did."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
from gpuclust.data.table import Column, ExcludedColumn, Frame, Frames, Step, Table, host_values
from gpuclust.data.vectors import VectorColumn, hash_vectors, is_bad
from gpuclust.errors import CleaningError, ConfigurationError, InputError
from gpuclust.model.encodings import encoded_columns
from gpuclust.model.expressions import Condition, parse_condition

MEAN_ROWS = 65_536
"""A mean is computed from partial sums over this many rows, so that it has the same bits for rows in memory and on disk."""
MAX_MAGNITUDE = 1e75
"""The largest absolute value of a feature: fourth powers of it are still finite."""


def clean(table: Table, config: CleanConfig, frames: Frames, *, unit: bool = False) -> Table:
    """Keep the rows that can be clustered.

    The rules in this order: rows whose vector is missing, has another length or is not finite are dropped, with ``unit`` (rows are
    scaled to length 1) also those that are zero; text and infinities in features become missing; rows outside `clean.bounds` are dropped; rows
    without a group are dropped if `clean.require_group`; rows that do not meet `clean.where` are dropped; rows without a weight (``data.weight``) are dropped; rows with a missing feature are dropped, or the value is filled
    with the median or the mean of the remaining rows; rows that repeat an earlier id or row are dropped; features with a
    single value are dropped. Every rule is a step of the audit.

    Returns a table with finite float64 features and a 0..n-1 index; the given table is not changed.

    Raises:
        ConfigurationError: a bound names no column, or a group is required and no column has that role.
        CleaningError: no row or no feature is left.
    """
    require_two_rows(table.n_rows)
    rules = RowRules(table, config, frames, unit=unit)
    frame, mask, effects = rules.apply(rules.with_states(table.frame, table.vectors))
    log = rules.log(effects)
    rows, fills = table.rows, {}
    if config.nulls != "drop":
        frame, rows = _apply(frame, mask, rows)
        mask, features = None, list(table.column_features)
        values = _means(frame, features) if config.nulls == "mean" else host_values(frame[features].median())
        fills = rules.fills(values, effects)
        for name in effects.missing:
            frame[name] = frame[name].fillna(fills[name])
    if config.duplicates != "none":
        if config.duplicates == "row":
            frame, rows = _apply(frame, mask, rows)
            mask = None
        keep = _distinct_rows(table, frame, mask, config.duplicates, frames, _places(table, rows))
        before, kept = log.n_rows, int(keep.sum())
        log.filter("duplicates", rules.repeats, kept)
        mask = keep if kept < before else mask
    frame, rows = _apply(frame, mask, rows)
    if table.vectors:
        frame = frame[[name for name in frame.columns if name in table.frame.columns]]
    return finish(
        replace(table, frame=frame, rows=rows, vectors=_vectors_at(table, rows)),
        config,
        log,
        extremes=_extremes(frame, table.column_features),
        fills=fills,
        ids=_id_counts(table, frame, unique=config.duplicates == "id"),
        count_distinct=lambda features: frames.count_distinct(frame, features),
    )


def keep_rows(table: Table, places: np.ndarray, config: CleanConfig, frames: Frames, *, detail: str) -> Table:
    """Some rows of a cleaned table in memory, by their ascending numbers in it (n,) int64; ``detail`` says for the audit which are dropped.

    Raises CleaningError if fewer than two rows, or no feature, are left.
    """
    log = StepLog(table.n_rows)
    log.filter("within", detail, len(places))
    require_two_rows(len(places))
    frame = table.frame.iloc[places].reset_index(drop=True)
    rows = places if table.rows is None else table.rows[places]
    vectors = tuple(column.at(places) for column in table.vectors)
    kept = finish(
        replace(table, frame=frame, rows=rows, vectors=vectors),
        config,
        log,
        extremes=_extremes(frame, table.column_features),
        fills=table.audit.fills,
        ids=IdCounts(),
        count_distinct=lambda features: frames.count_distinct(frame, features),
    )
    return replace(kept, audit=replace(kept.audit, warnings=tuple(dict.fromkeys(kept.audit.warnings))))


def require_two_rows(n_rows: int) -> None:
    """Raise CleaningError if the table has only one row."""
    if n_rows < 2:
        raise CleaningError("the table has one row, and clustering needs at least two; use a larger file")


@dataclass
class Effects:
    """The effects of the rules for single rows on some rows; the effects on a table are the sum of those on its parts."""

    n_rows: int = 0
    text: Counter[str] = field(default_factory=Counter)
    """Feature -> number of cells that are text."""
    infinite: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    """Feature -> number of missing cells in the rows that all filters keep."""
    kept: list[int] = field(default_factory=list)
    """The number of rows that are left after each filter."""
    n_complete: int = 0
    """The number of rows that are left after all filters and have no missing feature."""

    def __add__(self, other: Effects) -> Effects:
        kept = [a + b for a, b in zip(self.kept, other.kept, strict=True)] if self.kept else other.kept
        return Effects(
            self.n_rows + other.n_rows,
            self.text + other.text,
            self.infinite + other.infinite,
            self.missing + other.missing,
            kept,
            self.n_complete + other.n_complete,
        )


class StepLog:
    """The steps so far, and the number of rows that are left."""

    def __init__(self, n_rows: int) -> None:
        self.n_source = self.n_rows = n_rows
        self.steps: list[Step] = []

    def cells(self, rule: str, detail: str, n_cells: int) -> None:
        """Record a step that changed cells."""
        self.steps.append(Step(rule, detail, self.n_rows, 0, n_cells))

    def filter(self, rule: str, detail: str, kept: int, columns: Mapping[str, int] | None = None) -> None:
        """Record a step that dropped rows. Raises CleaningError if no row is left."""
        self.steps.append(Step(rule, detail, self.n_rows, self.n_rows - kept, columns=dict(columns or {})))
        self.n_rows = kept
        if not kept:
            taken = "; ".join(f"{s.rule} ({s.detail}) took {s.rows_removed:,}" for s in self.steps if s.rows_removed)
            raise CleaningError(
                f"cleaning left none of {self.n_source:,} rows: {taken}; loosen clean.* or change data.features"
            )


@dataclass(frozen=True)
class _Filter:
    """A rule that drops rows; ``keep`` marks the rows of a frame to keep."""

    rule: str
    detail: str
    keep: Callable[[Frame], Column]


class RowRules:
    """The rules for single rows, so that a table can be cleaned part by part.

    Raises, in the constructor:
        ConfigurationError: a bound names no column, or a group is required and no column has that role.
    """

    def __init__(self, table: Table, config: CleanConfig, frames: Frames, *, unit: bool = False) -> None:
        self._features, self._id = list(table.column_features), table.roles.id
        self._encoded = encoded_columns(table.encodings, table.features)
        self._nulls, self._frames = config.nulls, frames
        types = dict(zip(table.frame.columns, table.frame.dtypes, strict=True))
        numeric = [n for n in table.frame.columns if n in self._features or types[n].kind in "iuf"]
        self._filters = [_with_vector(column, unit) for column in table.vectors]
        if unit and not table.vectors:
            self._filters.append(_with_length(self._features))
        self._filters += [_within(name, low, high, numeric) for name, (low, high) in config.bounds.items()]
        if config.require_group:
            self._filters.append(_with_group(table.roles.group))
        if config.where is not None:
            self._filters.append(_where(config.where, list(table.frame.columns), frames))
        if table.roles.weight is not None:
            self._filters.append(_with_weight(table.roles.weight))
        self.repeats = (
            f"{self._id} seen before" if config.duplicates == "id" else "all columns in use as in an earlier row"
        )

    def with_states(self, frame: Frame, vectors: Sequence[VectorColumn], start: int = 0) -> Frame:
        """Rows of a table from ``start`` on with the state of each vector, in the name of its column."""
        if not vectors:
            return frame
        frame = frame.copy(deep=False)
        for column in vectors:
            states = pd.DataFrame({column.name: column.states[start : start + len(frame)]})
            frame[column.name] = self._frames.from_pandas(states)[column.name]
        return frame

    def apply(self, frame: Frame) -> tuple[Frame, Any, Effects]:
        """A frame with float64 features without text and infinities, a mask of its rows to keep (None: all), and the effects.

        The given frame is not changed.
        """
        frame = frame.copy(deep=False)
        effects = Effects(len(frame))
        self._to_float(frame, effects)
        self._mask_infinities(frame, effects)
        mask = None
        for rule in self._filters:
            keep = rule.keep(frame)
            kept = int((keep if mask is None else keep & mask).sum())
            if kept < (effects.kept[-1] if effects.kept else len(frame)):
                mask = keep if mask is None else mask & keep
            effects.kept.append(kept)
        return frame, self._mark_missing(frame, mask, effects), effects

    def _to_float(self, frame: Frame, effects: Effects) -> None:
        """Convert features to float64; cells that are not numbers become missing."""
        types = frame.dtypes
        for name in self._features:
            if str(types[name]) == "float64":
                continue
            column = frame[name]
            if is_text(column):
                frame[name], n = to_numbers(column, self._frames)
                effects.text[name] += n
            else:
                frame[name] = column.astype("float64")

    def _mask_infinities(self, frame: Frame, effects: Effects) -> None:
        """Make infinite cells missing."""
        if not self._features:
            return
        for name, (low, high) in _extremes(frame, self._features).items():
            if math.inf in (-low, high):
                infinite = frame[name].abs() == math.inf
                frame[name] = frame[name].where(~infinite)
                effects.infinite[name] += int(infinite.sum())

    def _mark_missing(self, frame: Frame, mask: Any, effects: Effects) -> Any:
        """Count the missing cells of the rows to keep; drop their rows unless they are to be filled."""
        n_missing = host_values(frame[self._features].isna().sum()) if self._features else np.zeros(0)
        missing = {n: frame[n].isna() for n, count in zip(self._features, n_missing, strict=True) if count}
        for name, cells in missing.items():
            if n := int((cells if mask is None else cells & mask).sum()):
                effects.missing[name] = n
        n_kept = effects.kept[-1] if effects.kept else len(frame)
        if not effects.missing:
            effects.n_complete = n_kept
            return mask
        whole = ~reduce(operator.or_, (missing[name] for name in effects.missing))
        whole = whole if mask is None else whole & mask
        effects.n_complete = int(whole.sum())
        return whole if self._nulls == "drop" else mask

    def log(self, effects: Effects) -> StepLog:
        """The steps of the rules. Raises CleaningError if no row is left."""
        log = StepLog(effects.n_rows)
        if text := self._ordered(effects.text):
            log.steps.append(text_step(text, effects.n_rows))
        if infinite := self._ordered(effects.infinite):
            log.cells("infinities", f"infinite cells made missing ({_listed(infinite)})", sum(infinite.values()))
        for rule, kept in zip(self._filters, effects.kept, strict=True):
            log.filter(rule.rule, rule.detail, kept)
        missing = self._ordered(effects.missing)
        if not missing:
            log.cells("nulls", "no feature is missing", 0)
        elif self._nulls == "drop":
            log.filter("nulls", f"a feature is missing ({_listed(missing)})", effects.n_complete, missing)
        else:
            log.cells("nulls", f"filled with the {self._nulls} ({_listed(missing)})", sum(missing.values()))
        return log

    def _ordered(self, counts: Counter[str]) -> dict[str, int]:
        """The counts that are not 0, in the order of the features; all features of an encoded column have one count."""
        return {self._encoded.get(name, name): counts[name] for name in self._features if counts[name]}

    def fills(self, values: np.ndarray, effects: Effects) -> dict[str, float]:
        """The fill value of every feature, because a row to predict may lack any of them. Raises CleaningError if a feature has no
        value."""
        n_rows = effects.kept[-1] if effects.kept else effects.n_rows
        for name in self._features:
            if effects.missing[name] == n_rows:
                raise CleaningError(
                    f"{name!r} has no value in any row, so no {self._nulls} exists; leave it out with data.exclude"
                )
        return dict(zip(self._features, values.tolist(), strict=True))


def _listed(cells: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {n:,}" for name, n in cells.items())


def _within(name: str, low: float | None, high: float | None, numeric: Sequence[str]) -> _Filter:
    """Drop rows whose non-missing value is outside the bounds."""
    if name not in numeric:
        raise ConfigurationError(
            f"clean.bounds.{name}: no numeric column of that name is in use{did_you_mean(name, numeric)}"
        )
    if low is not None and high is not None:
        dropped = f"outside {low:g} to {high:g}"
    else:
        dropped = f"above {high:g}" if low is None else f"below {low:g}"

    def keep(frame: Frame) -> Column:
        column = frame[name]
        inside = column.between(-math.inf if low is None else low, math.inf if high is None else high)
        return column.isna() | inside.fillna(False)

    return _Filter("bounds", f"{name} {dropped}", keep)


def _with_vector(column: VectorColumn, unit: bool) -> _Filter:
    """Drop rows whose vector cannot be clustered."""
    why = ", ".join(f"{text}: {n:,}" for text, n in column.reasons(unit=unit).items())
    detail = f"{column.name} not a vector of {column.size} numbers" + (f" ({why})" if why else "")
    return _Filter("vectors", detail, lambda frame: ~is_bad(frame[column.name], unit=unit))


def _with_length(features: Sequence[str]) -> _Filter:
    """Drop rows that are zero in every feature, which cannot be scaled to length 1."""
    return _Filter("length", "zero in every feature", lambda frame: (frame[list(features)] != 0).any(axis=1))


def _with_weight(name: str) -> _Filter:
    """Drop rows without a weight, or with a negative one."""
    return _Filter(
        "weight", f"no {name} of at least 0", lambda frame: frame[name].between(0, MAX_MAGNITUDE).fillna(False)
    )


def _vectors_at(table: Table, rows: np.ndarray | None) -> tuple[VectorColumn, ...]:
    """The vectors of the rows of a cleaned table, by their numbers in the source (n,); None: of all."""
    places = _places(table, rows)
    return tuple(column.at(places) for column in table.vectors)


def _places(table: Table, rows: np.ndarray | None) -> np.ndarray | None:
    """The numbers in a table of rows that are given by their numbers in the source; None for all rows."""
    if rows is None or len(rows) == table.n_rows:
        return None
    return rows if table.rows is None else np.searchsorted(table.rows, rows)


def _where(text: str, columns: Sequence[str], frames: Frames) -> _Filter:
    """Drop rows that do not meet a condition on columns of the frame."""
    try:
        condition = parse_condition(text)
    except InputError as error:
        raise ConfigurationError(f"clean.where: {error}") from error
    for name in condition.columns:
        if name not in columns:
            raise ConfigurationError(
                f"clean.where: {name!r} is neither a feature nor a column with a role{did_you_mean(name, columns)}; give it a role, such as data.roles.year={name}"
            )
    return _Filter("where", f"other values than {text}", lambda frame: _meets(frame, condition, frames))


def _meets(frame: Frame, condition: Condition, frames: Frames) -> Column:
    """Which rows of a frame meet a condition, as a column of it."""
    host = frames.to_pandas(frame[list(condition.columns)])
    values = {name: _plain_values(host[name]) for name in host.columns}
    found = pd.DataFrame({"kept": condition.matches(values)})
    if len(host.index) and host.index[0] != 0:
        found.index = host.index
    return frames.from_pandas(found)["kept"]


def _plain_values(column: pd.Series) -> np.ndarray:
    """A column as numbers (n,) float64 with NaN, or as texts (n,) object with None."""
    if column.dtype.kind in "iufb" or pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return column.astype(object).where(column.notna(), None).to_numpy()


def _with_group(group: str | None) -> _Filter:
    if group is None:
        raise ConfigurationError("clean.require_group needs a group column; name it in data.roles.group")
    return _Filter("group", f"no {group}", lambda frame: frame[group].notna())


def _apply(frame: Frame, mask: Any, rows: np.ndarray | None) -> tuple[Frame, np.ndarray | None]:
    """The marked rows with the index 0..n-1, and their numbers in the source."""
    if mask is None:
        return frame, rows
    kept = np.flatnonzero(mask.to_numpy())
    return frame[mask].reset_index(drop=True), kept if rows is None else rows[kept]


def _means(frame: Frame, features: Sequence[str]) -> np.ndarray:
    """The mean of each feature without its missing values, NaN if it has no value."""
    found = []
    for name in features:
        column = frame[name]
        starts = range(0, len(column), MEAN_ROWS)
        total = sum(float(column.iloc[start : start + MEAN_ROWS].sum()) for start in starts)
        n = int(column.count())
        found.append(total / n if n else math.nan)
    return np.array(found)


def _extremes(frame: Frame, features: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The minimum and maximum of each feature."""
    if not features:
        return {}
    numbers = frame[list(features)]
    lows, highs = host_values(numbers.min()).tolist(), host_values(numbers.max()).tolist()
    return dict(zip(features, zip(lows, highs, strict=True), strict=True))


def _distinct_rows(
    table: Table, frame: Frame, mask: Any, by: str, frames: Frames, rows: np.ndarray | None = None
) -> Any:
    """A mask of the rows to keep that do not repeat an earlier id or row; rows without an id are not repeats. ``rows`` are the places
    of the rows of the frame in the columns of vectors."""
    name = table.roles.id
    if by == "id":
        ids = frame[name] if mask is None else frame[name].where(mask)
        keep = ~(ids.to_frame().duplicated(keep="first") & ids.notna())
        return keep if mask is None else keep & mask
    compared = _hashable(frame[compared_columns(table, frame)], frames)
    for column in table.vectors:  # the frame has the states of the vectors under their names
        hashed = pd.DataFrame({column.name: hash_vectors(column.at(rows))})
        compared[column.name] = frames.from_pandas(hashed)[column.name]
    return ~compared.duplicated(keep="first")


def compared_columns(table: Table, frame: Frame) -> list[str]:
    """The columns that ``clean.duplicates=row`` compares: all except a generated id."""
    made = table.audit.source.get("id_made")
    return [column for column in frame.columns if not (made and column == table.roles.id)]


def _hashable(frame: Frame, frames: Frames) -> Frame:
    """Convert columns of lists to text."""
    frame = frame.copy(deep=False)
    for name in frame.columns:
        if "list" in str(frame[name].dtype).lower():
            lists = pa.array(frames.to_pandas(frame[[name]])[name])
            text = pd.DataFrame({name: join_items(lists).to_pandas()})
            frame[name] = frames.from_pandas(text)[name]
    return frame


@dataclass(frozen=True)
class IdCounts:
    """The number of rows without an id, and of rows that repeat the id of another."""

    n_missing: int = 0
    n_repeated: int = 0


def _id_counts(table: Table, frame: Frame, *, unique: bool) -> IdCounts:
    if table.audit.source.get("id_made"):
        return IdCounts()
    ids = frame[table.roles.id]
    n_missing = int(ids.isna().sum())
    return IdCounts(n_missing, 0 if unique else len(ids) - n_missing - int(ids.nunique()))


def finish(
    table: Table,
    config: CleanConfig,
    log: StepLog,
    *,
    extremes: Mapping[str, tuple[float, float]],
    fills: Mapping[str, float],
    ids: IdCounts,
    count_distinct: Callable[[list[str]], int],
) -> Table:
    """The cleaned table with its audit; ``table`` has the rows that were kept.

    Features with one value are dropped. Raises CleaningError if values are too large, or no feature is left.
    """
    _check_magnitude(extremes)
    constant = [name for name, (low, high) in extremes.items() if low == high]
    features = [name for name in table.column_features if name not in constant]
    elements = table.features[len(table.column_features) :]
    if constant:
        log.cells("constants", f"features with one value dropped: {', '.join(constant)}", 0)
    if not features and not elements:
        raise CleaningError(
            f"every feature has one value only in the {log.n_rows:,} rows kept ({', '.join(constant)}); "
            "choose other data.features or loosen clean.*"
        )
    left_out = (ExcludedColumn(n, f"constant ({extremes[n][0]:g}) in the rows kept") for n in constant)
    frame = table.frame
    if constant:
        gone = {name for name in constant if name not in table.roles.columns}
        frame = frame[[name for name in frame.columns if name not in gone]]
    audit = replace(
        table.audit,
        steps=(*table.audit.steps, *log.steps),
        left_out=(*table.audit.left_out, *left_out),
        features=(*features, *elements),
        rows_kept=log.n_rows,
        fills={name: fills[name] for name in features if name in fills},
        notes=(*table.audit.notes, *_id_notes(table.roles.id, ids)),
        distinct_feature_rows=None if elements else count_distinct(features),
    )
    audit = replace(audit, warnings=(*audit.warnings, *dropped_rows_warnings(audit)))
    return replace(table, frame=frame, features=audit.features, audit=audit)


def _id_notes(name: str, ids: IdCounts) -> list[str]:
    notes = [f"{ids.n_missing:,} rows have no {name}"] if ids.n_missing else []
    if ids.n_repeated:
        notes.append(f"{ids.n_repeated:,} rows repeat the {name} of another; clean.duplicates=id keeps the first")
    return notes


def _check_magnitude(extremes: Mapping[str, tuple[float, float]]) -> None:
    """Raise CleaningError for values whose squares and products overflow."""
    for name, (low, high) in extremes.items():
        if max(high, -low) > MAX_MAGNITUDE:
            raise CleaningError(
                f"{name!r} has values from {low:.3g} to {high:.3g}, and sums of squares overflow beyond ±{MAX_MAGNITUDE:g}; rescale it, "
                f"leave it out (data.exclude=[{name}]), or drop those rows (clean.bounds.{name}=[-{MAX_MAGNITUDE:g},{MAX_MAGNITUDE:g}])"
            )
