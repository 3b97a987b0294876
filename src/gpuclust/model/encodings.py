"""Columns that become features of other values: categories as one-hot columns or as frequencies, and circular columns as sine and cosine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd  # imported where it is used: the API does without it

ONEHOT, FREQUENCY, CIRCULAR = "onehot", "frequency", "circular"
OTHER = "(other)"
MISSING = frozenset(("", "na", "n/a", "nan", "-nan", "null", "none", "<na>", "#n/a", "-", "?"))
"""Text that stands for a missing value, in lower case."""


@dataclass(frozen=True)
class Encoding:
    """How one column becomes features.

    ``shares`` are those of ``categories`` among the training rows with a value. ``onehot``: a feature of 0 and 1 for each of the categories, and, with
    ``rest``, one for all others; without it, a row of another category has 0 in all of them. ``frequency``: the share of the category,
    ``rest`` for all others. ``circular``: the sine and the cosine of the angle 2 pi x / ``period``.
    """

    column: str
    kind: str
    categories: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    rest: float = 0.0
    period: float = 1.0

    @cached_property
    def features(self) -> tuple[str, ...]:
        """The names of its features."""
        if self.kind == CIRCULAR:
            return f"sin({self.column})", f"cos({self.column})"
        if self.kind == FREQUENCY:
            return (f"frequency({self.column})",)
        return tuple(f"{self.column}={c}" for c in (*self.categories, *((OTHER,) if self.rest else ())))

    @property
    def other_feature(self) -> str | None:
        """The one-hot feature that all other categories share, if there is one."""
        return self.features[-1] if self.kind == ONEHOT and self.rest else None

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {category: i for i, category in enumerate(self.categories)}

    def codes(self, values: pd.Series | list[Any]) -> np.ndarray:
        """The place of each value in ``categories`` (n,) int64; their number for any other value, and -1 for a missing one."""
        if not isinstance(values, list):
            import pandas as pd

            numbers, distinct = pd.factorize(values)
            return np.append(self.codes(list(distinct)), -1)[numbers]
        texts = [category_of(value) for value in values]
        places = [-1 if text is None else self._codes.get(text, len(self.categories)) for text in texts]
        return np.array(places, np.int64)

    def unknown(self, values: list[Any]) -> np.ndarray:
        """Which values (n,) are categories that no training row had; those that share a place with others are not told apart."""
        if self.kind == CIRCULAR or self.rest:
            return np.zeros(len(values), bool)
        return self.codes(values) == len(self.categories)

    def encode(self, values: pd.Series | list[Any]) -> np.ndarray:
        """The features of values, of a column or a list: (n, n_features) float64, NaN where a value is missing."""
        if self.kind == CIRCULAR:
            angle = numbers_of(values) * (2 * np.pi / self.period)
            return np.column_stack([np.sin(angle), np.cos(angle)])
        codes = self.codes(values)
        if self.kind == FREQUENCY:
            return np.array([*self.shares, self.rest, np.nan])[codes][:, None]
        marks = np.zeros((len(codes), len(self.features)))
        own = np.flatnonzero((codes >= 0) & (codes < len(self.features)))
        marks[own, codes[own]] = 1.0
        marks[codes < 0] = np.nan
        return marks

    def to_dict(self) -> dict[str, Any]:
        """Convert to a dictionary for JSON."""
        known = {"categories": list(self.categories), "shares": list(self.shares), "rest": self.rest}
        return {"column": self.column, "kind": self.kind} | (
            {"period": self.period} if self.kind == CIRCULAR else known
        )


def category_of(value: Any) -> str | None:
    """A value as the name of a category: whole numbers without a fraction, true and false in lower case; None if it is missing."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return None if np.isnan(value) else f"{float(value):.15g}"
    text = str(value).strip()
    lower = text.lower()
    return None if lower in MISSING else lower if lower in ("true", "false") else text


def numbers_of(column: pd.Series | list[Any]) -> np.ndarray:
    """Values as float64 (n,), NaN where one is missing, infinite or not a number."""
    if isinstance(column, list):
        values = np.array([value if isinstance(value, (int, float)) else np.nan for value in column], np.float64)
    else:
        import pandas as pd

        numbers = column if column.dtype.kind in "iuf" else pd.to_numeric(column.astype(object), errors="coerce")
        values = numbers.to_numpy(np.float64, na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def encoded(frame: pd.DataFrame, encodings: Sequence[Encoding], features: Sequence[str]) -> pd.DataFrame:
    """A frame with those of ``features`` added that come from encoded columns; columns that are not there add none."""
    import pandas as pd

    found: dict[str, np.ndarray] = {}
    for encoding in encodings:
        if encoding.column in frame.columns:
            values = encoding.encode(frame[encoding.column])
            found |= {name: values[:, j] for j, name in enumerate(encoding.features) if name in features}
    if not found:
        return frame
    kept = frame[[name for name in frame.columns if name not in found]]
    return pd.concat([kept, pd.DataFrame(found, index=frame.index)], axis=1)


def encoded_columns(encodings: Sequence[Encoding], features: Sequence[str]) -> dict[str, str]:
    """Feature -> the column that it comes from, of ``features`` that come from encoded columns."""
    return {name: e.column for e in encodings for name in e.features if name in features}


def sums_by_column(values: np.ndarray, encodings: Sequence[Encoding], features: Sequence[str]) -> dict[str, np.ndarray]:
    """The values (n, n_features) of features summed by the column that they come from: column -> (n,), in the order of the features."""
    made = encoded_columns(encodings, features)
    found: dict[str, np.ndarray] = {}
    for j, name in enumerate(features):
        column = made.get(name, name)
        found[column] = found[column] + values[:, j] if column in found else values[:, j]
    return found


def groups_of(encodings: Sequence[Encoding], features: Sequence[str]) -> Mapping[str, tuple[Encoding, list[int]]]:
    """Column -> its encoding and the places of its features among ``features``."""
    place = {name: j for j, name in enumerate(features)}
    found = {e.column: (e, [place[name] for name in e.features if name in place]) for e in encodings}
    return {column: (encoding, places) for column, (encoding, places) in found.items() if places}
