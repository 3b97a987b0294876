"""Categories and circular columns of a table as features: what is counted, what is refused, and what is said about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pandas as pd

from gpuclust.config import DataConfig
from gpuclust.data.table import ExcludedColumn, Frame, Frames
from gpuclust.errors import ConfigurationError
from gpuclust.model.encodings import CIRCULAR, FREQUENCY, ONEHOT, Encoding, category_of, encoded

MAX_KEPT = 10_000
"""The number of categories that have a frequency of their own."""


class Encoder(Protocol):
    """Decides how columns are encoded, from all rows."""

    kept: tuple[str, ...]
    """The encoded columns that stay in the frame."""

    @property
    def columns(self) -> list[str]:
        """The columns that `add` reads."""

    def add(self, frame: pd.DataFrame) -> None:
        """Look at more rows."""

    def encodings(self) -> tuple[tuple[Encoding, ...], list[str]]:
        """The encodings of all columns, and notes about them. Raises ConfigurationError."""


class GivenEncodings:
    """The encodings of a model, for new rows; the encoded columns stay in the frame."""

    def __init__(self, given: Sequence[Encoding]) -> None:
        self._given = tuple(given)
        self.kept = tuple(encoding.column for encoding in given)

    @property
    def columns(self) -> list[str]:
        """No columns."""
        return []

    def add(self, frame: pd.DataFrame) -> None:
        """Nothing is learned from new rows."""

    def encodings(self) -> tuple[tuple[Encoding, ...], list[str]]:
        """The encodings."""
        return self._given, []


@dataclass
class CategoryCounts:
    """The categories of the columns of ``data.categorical``, counted batch by batch."""

    data: DataConfig
    counts: dict[str, Counter[str]] = field(init=False)
    kept: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.counts = {name: Counter() for name in self.data.categorical if name not in self.data.exclude}

    @property
    def columns(self) -> list[str]:
        """The columns to count."""
        return list(self.counts)

    def add(self, frame: pd.DataFrame) -> None:
        """Count the categories of more rows."""
        for name, counter in self.counts.items():
            for value, n in frame[name].value_counts(dropna=True).items():
                if (category := category_of(value)) is not None:
                    counter[category] += int(n)

    def encodings(self) -> tuple[tuple[Encoding, ...], list[str]]:
        """The encodings of all columns, and a note for each column of which not every category is kept.

        Raises ConfigurationError for a column that identifies rows, and for one that has no value.
        """
        found, notes = [], []
        for name, counter in self.counts.items():
            total = sum(counter.values())
            if not counter:
                raise ConfigurationError(f"data.categorical: {name!r} has no value; leave it out")
            if len(counter) > max(self.data.max_categories, total // 2):
                raise ConfigurationError(
                    f"data.categorical: {name!r} has {len(counter):,} different values in {total:,} rows, which identify rows rather "
                    "than group them; leave it out"
                )
            encoding = self._encoding(name, counter, total)
            found.append(encoding)
            if n_others := len(counter) - len(encoding.categories):
                share = sum(counter[c] for c in encoding.categories) / total
                they_have = (
                    f"a feature each, and the {n_others:,} others share {encoding.features[-1]!r}; data.max_categories=N keeps more"
                    if encoding.kind == ONEHOT
                    else f"their own frequency, and the {n_others:,} others the mean of theirs"
                )
                notes.append(
                    f"{name} has {len(counter):,} categories: the {len(encoding.categories):,} most frequent ({share:.0%} of the rows) have {they_have}"
                )
        circular = {name: period for name, period in self.data.circular.items() if name not in self.data.exclude}
        found += [Encoding(name, CIRCULAR, period=float(period)) for name, period in circular.items()]
        return tuple(found), notes

    def _encoding(self, name: str, counter: Counter[str], total: int) -> Encoding:
        onehot = self.data.encoding == ONEHOT
        most = self.data.max_categories if onehot else MAX_KEPT
        ordered = sorted(counter, key=lambda c: (-counter[c], c))
        kept = ordered if len(ordered) <= most else ordered[: most - 1]
        rest = sum(counter[c] for c in ordered[len(kept) :]) / total
        shares = tuple(counter[c] / total for c in kept)
        if onehot:
            return Encoding(name, ONEHOT, tuple(kept), shares, rest)
        return Encoding(name, FREQUENCY, tuple(kept), shares, rest / max(len(ordered) - len(kept), 1))


def encoded_names(encodings: Sequence[Encoding], taken: Collection[str]) -> tuple[str, ...]:
    """The features of encoded columns. Raises ConfigurationError if a column of the table has the name of one."""
    names = tuple(name for encoding in encodings for name in encoding.features)
    if clash := sorted(set(names) & set(taken)):
        raise ConfigurationError(
            f"the table has a column {clash[0]!r}, which is also the name of a feature made from another column; rename it"
        )
    return names


def with_encoded(frame: Frame, encodings: Sequence[Encoding], frames: Frames) -> Frame:
    """A pandas or cuDF frame with the features of its encoded columns added."""
    if not encodings:
        return frame
    names = tuple(name for encoding in encodings for name in encoding.features)
    host = frames.to_pandas(frame[list(dict.fromkeys(encoding.column for encoding in encodings))])
    made = encoded(host, encodings, names)[list(names)]
    if isinstance(frame, pd.DataFrame):
        return pd.concat([frame, made], axis=1)
    added = frames.from_pandas(made)
    for name in names:
        frame[name] = added[name]
    return frame


def encoded_exclusions(encodings: Sequence[Encoding]) -> list[ExcludedColumn]:
    """The columns that are features only in their encoded form."""
    said: dict[str, Any] = {ONEHOT: "one-hot", FREQUENCY: "its frequency", CIRCULAR: "sine and cosine"}
    return [ExcludedColumn(e.column, f"encoded: {said[e.kind]}") for e in encodings]
