"""Table: a frame on the backend's device, with what its columns mean and what was done to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

# A pandas or a cuDF frame: the code that gets one uses only the methods that both have.
Frame = Any
Column = Any


@dataclass(frozen=True)
class Roles:
    """Which column means what. Only ``id`` is always there; the others may be None."""

    id: str = "id"
    title: str | None = None
    creator: str | None = None
    group: str | None = None
    popularity: str | None = None
    year: str | None = None
    preview: str | None = None

    def named(self) -> dict[str, str]:
        """The roles that have a column, in the order of the fields: role -> column."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name)}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that have a role, each once."""
        return tuple(dict.fromkeys(self.named().values()))


@dataclass(frozen=True)
class ExcludedColumn:
    """A column that was not used as a feature, and why."""

    column: str
    why: str


@dataclass(frozen=True)
class Step:
    """One cleaning rule: what it did and how many rows it took; ``columns`` are the columns at fault, with their cells."""

    rule: str
    detail: str
    rows_before: int
    rows_removed: int
    cells_changed: int = 0
    columns: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Audit:
    """What was read and what was cleaned, written as ``audit.json``."""

    source: dict[str, Any] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    left_out: tuple[ExcludedColumn, ...] = ()
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What a user should know before trusting a clustering of this table: a line each, the same wherever it is shown."""
    rows_read: int = 0
    rows_kept: int = 0
    distinct_feature_rows: int | None = None
    fills: dict[str, float] = field(default_factory=dict)
    """What a missing value of each feature was, and in a row to predict will be, replaced by; empty when dropped."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Table:
    """A frame (pandas or cuDF) of role columns and feature columns.

    ``frame`` has one row per item, a plain 0..n-1 index, the id column, every role column and every feature
    column; features are float64 and finite. ``fingerprint`` identifies the content that was read (a digest of
    the file's bytes, or of the catalogue's parameters), not the cleaning. ``rows`` (n_rows,) int64 are the numbers of the
    rows in the source, counted from 0; None where they are 0..n-1.
    """

    frame: Frame
    roles: Roles
    features: tuple[str, ...]
    fingerprint: str
    audit: Audit
    rows: np.ndarray | None = None

    @property
    def other_columns(self) -> tuple[str, ...]:
        """The columns of the source that are neither features nor roles, in its order: see `gpuclust.data.others`."""
        used = {*self.roles.columns, *self.features}
        return tuple(out.column for out in self.audit.left_out if out.column not in used)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.frame)


@dataclass(frozen=True)
class CsvLayout:
    """How a delimited text file is written, as `sniff.py` found it."""

    separator: str = ","
    encoding: str = "utf-8"
    """A Python codec name. `sniff.utf8_stream` gives the file's bytes as UTF-8, unpacked, whatever this is."""
    decimal: str = "."
    header: bool = True
    """The first record holds the names of the columns; it is skipped, and ``columns`` is used instead."""
    empty_lines: int = 0
    """How many empty lines are before the first record."""
    index_column: bool = False
    """The first column has no name and numbers the rows."""
    columns: tuple[str, ...] = ()
    """A name for every column of the file, each once."""
    compressed: bool = False
    """The file is gzip."""
    damaged: bool = False
    """Some bytes do not fit the encoding; they are replaced by U+FFFD."""

    @property
    def plain(self) -> bool:
        """A reader of UTF-8 (with or without a byte-order mark) can take the file as it lies."""
        return self.encoding in ("utf-8", "utf-8-sig") and not self.damaged


NULL_SPELLINGS = (
    "", "NA", "N/A", "n/a", "na", "NaN", "nan", "NAN", "-nan", "-NaN", "null", "NULL", "Null", "None", "none",
    "NONE", "<NA>", "#N/A", "-", "?",
)  # fmt: skip
"""Cells that mean "no value" in a column of numbers. In a column of text only the empty cell does."""


def unique_names(names: Sequence[str]) -> list[str]:
    """Names that are all there and all different, told apart as pandas does: ``a``, ``a.1``."""
    taken: dict[str, None] = {}
    for i, name in enumerate(names):
        wanted = base = name or f"Unnamed: {i}"
        repeat = 0
        while wanted in taken:
            repeat += 1
            wanted = f"{base}.{repeat}"
        taken[wanted] = None
    return list(taken)


class Frames(Protocol):
    """The few things that pandas and cuDF do differently. Everything else uses the methods they share.

    Text is the library's own string type; a missing text is missing, not empty. A column of lists is
    ``pandas.ArrowDtype(pyarrow.list_(pyarrow.string()))`` in pandas and a list column in cuDF; `from_pandas` and
    `to_pandas` carry it over.
    """

    name: str

    def read_csv(
        self, path: Path, layout: CsvLayout, *, numbers: Sequence[str], text: Sequence[str]
    ) -> tuple[Frame, int]:
        """The named columns of a delimited file, numbers first, and how many more lines than rows it has.

        A column of ``numbers`` is float64 where each of its cells is a number or a null spelling, and stays text
        where one is not. A column of ``text`` is always text, however it looks. Records with more or fewer fields
        than the header are left out. Fields in quotes may hold separators and newlines.

        Raises:
            DataError: the file cannot be parsed.
            UnicodeError: the bytes do not fit ``layout.encoding`` (never when ``layout.damaged``).
        """

    def read_parquet(self, path: Path, columns: Sequence[str]) -> Frame:
        """The named columns of a Parquet file. Categories come as text, dates as datetimes, decimals as float64."""

    def read_feather(self, path: Path, columns: Sequence[str]) -> Frame:
        """The named columns of a Feather or Arrow IPC file, typed as by `read_parquet`."""

    def concat(self, frames: Sequence[Frame]) -> Frame:
        """The frames one below the other, with a new 0..n-1 index."""

    def to_numeric(self, column: Column) -> Column:
        """A column of text as float64; what is not a number becomes missing."""

    def count_distinct(self, frame: Frame, columns: Sequence[str]) -> int:
        """How many different rows there are in these float64 columns (0.0 and -0.0 are the same)."""

    def from_pandas(self, frame: Any) -> Frame:
        """A pandas frame on this backend's device."""

    def to_pandas(self, frame: Frame) -> Any:
        """The frame as pandas, on the host."""

    def to_matrix(self, frame: Frame, columns: Sequence[str]) -> Any:
        """float64 array (n_rows, n_columns), C order, on this backend's device."""


def host_values(by_column: Any) -> np.ndarray:
    """What pandas or cuDF computed for each column of a frame, as float64 on the host."""
    host = by_column.to_pandas() if hasattr(by_column, "to_pandas") else by_column
    values: np.ndarray = host.to_numpy(np.float64)
    return values


def sample_rows(n_rows: int, size: int, seed: int) -> np.ndarray:
    """Seeded sample without replacement of ``size`` of ``n_rows`` row numbers, sorted, int64."""
    if size >= n_rows:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(seed).choice(n_rows, size=size, replace=False))
