"""`Table`: a frame on the backend's device with the roles of its columns and an audit; the protocol of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gpuclust.data.files import TableFile

if TYPE_CHECKING:
    from gpuclust.data.vectors import VectorColumn
    from gpuclust.model.encodings import Encoding

# A pandas or a cuDF frame; shared code uses only the methods that both have.
Frame = Any
Column = Any


@dataclass(frozen=True)
class Roles:
    """The column of each role. Only ``id`` is always set; the others may be None."""

    id: str = "id"
    title: str | None = None
    creator: str | None = None
    group: str | None = None
    popularity: str | None = None
    year: str | None = None
    preview: str | None = None
    weight: str | None = None

    def named(self) -> dict[str, str]:
        """The roles that have a column, in the order of the fields: role -> column."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name)}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that have a role, each once."""
        return tuple(dict.fromkeys(self.named().values()))


@dataclass(frozen=True)
class ExcludedColumn:
    """A column that is not used as a feature, and the reason."""

    column: str
    reason: str


@dataclass(frozen=True)
class Step:
    """The effect of one cleaning rule; ``columns`` maps the affected columns to the number of affected cells."""

    rule: str
    detail: str
    rows_before: int
    rows_removed: int
    cells_changed: int = 0
    columns: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Audit:
    """A record of how a table was read and cleaned, written as ``audit.json``."""

    source: dict[str, Any] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    left_out: tuple[ExcludedColumn, ...] = ()
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """One line for each problem of the table that may make a clustering misleading; shown in the same words everywhere."""
    rows_read: int = 0
    rows_kept: int = 0
    distinct_feature_rows: int | None = None
    fills: dict[str, float] = field(default_factory=dict)
    """Feature -> replacement of a missing value, also in rows to predict; empty if rows with missing values are dropped."""

    def to_dict(self) -> dict[str, Any]:
        """Convert to a dictionary for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Table:
    """A frame of role columns and feature columns: pandas, cuDF, or a `gpuclust.data.disk_frame.DiskFrame`.

    ``frame`` has one row per item, a plain 0..n-1 index, the id column, every role column and every feature
    column; features are float64 and finite. ``fingerprint`` identifies the content that was read (a digest of
    the file's bytes, or of the catalogue's parameters), not the cleaning. ``rows`` (n_rows,) int64 are the numbers of the
    rows in the source, counted from 0; None where they are 0..n-1. ``vectors`` are the columns of vectors, which are not in the frame;
    their values are the last features. ``encodings`` are of the columns that are features in an encoded form, which are not in the frame.
    """

    frame: Frame
    roles: Roles
    features: tuple[str, ...]
    fingerprint: str
    audit: Audit
    rows: np.ndarray | None = None
    vectors: tuple[VectorColumn, ...] = ()
    encodings: tuple[Encoding, ...] = ()

    @property
    def column_features(self) -> tuple[str, ...]:
        """The features that are columns of the frame: all but the values of vectors."""
        return self.features[: len(self.features) - sum(column.size for column in self.vectors)]

    @property
    def other_columns(self) -> tuple[str, ...]:
        """The columns of the source that are neither features nor roles, in its order: see `gpuclust.data.read.other_columns`."""
        used = {*self.roles.columns, *self.features, *(column.name for column in self.vectors)}
        return tuple(out.column for out in self.audit.left_out if out.column not in used)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.frame)


@dataclass(frozen=True)
class CsvLayout:
    """How a delimited text file is written, as detected by `sniff.py`."""

    separator: str = ","
    encoding: str = "utf-8"
    """A Python codec name; `sniff.utf8_stream` converts any encoding to UTF-8."""
    decimal: str = "."
    header: bool = True
    """Whether the first record holds the names of the columns; readers skip it and use ``columns``."""
    empty_lines: int = 0
    """Number of empty lines before the first record."""
    index_column: bool = False
    """Whether the first column has no name and numbers the rows."""
    columns: tuple[str, ...] = ()
    """The unique names of the columns."""
    compressed: bool = False
    """Whether the file is gzip."""
    damaged: bool = False
    """Whether some bytes do not fit the encoding; they are replaced by U+FFFD."""

    @property
    def plain(self) -> bool:
        """Whether a reader of UTF-8 (with or without a byte-order mark) can read the file without conversion."""
        return self.encoding in ("utf-8", "utf-8-sig") and not self.damaged


NULL_SPELLINGS = (
    "", "NA", "N/A", "n/a", "na", "NaN", "nan", "NAN", "-nan", "-NaN", "null", "NULL", "Null", "None", "none",
    "NONE", "<NA>", "#N/A", "-", "?",
)  # fmt: skip
"""Cells that mean a missing value in a numeric column. In a text column only the empty cell does."""


def unique_names(names: Sequence[str]) -> list[str]:
    """Make names non-empty and unique as pandas does: a repeated ``a`` becomes ``a.1``."""
    taken: dict[str, None] = {}
    for i, name in enumerate(names):
        wanted = base = name or f"Unnamed: {i}"
        repeat = 0
        while wanted in taken:
            repeat += 1
            wanted = f"{base}.{repeat}"
        taken[wanted] = None
    return list(taken)


@dataclass(frozen=True)
class CsvRows:
    """What was read of a delimited file: its rows, how many more lines than rows it has, and, where a backend has several readers, which
    one read it and why, for the audit."""

    frame: Frame
    n_more: int = 0
    reader: str = ""


class Frames(Protocol):
    """The operations for which pandas and cuDF differ. All other code uses the methods that both have.

    Text has the string type of the library; a missing text is null, not empty. A column of lists is
    ``pandas.ArrowDtype(pyarrow.list_(pyarrow.string()))`` in pandas and a list column in cuDF; `from_pandas` and
    `to_pandas` convert between them.
    """

    name: str

    def read_csv(self, path: TableFile, layout: CsvLayout, *, numbers: Sequence[str], text: Sequence[str]) -> CsvRows:
        """Read columns of a delimited file, numbers first.

        A column of ``numbers`` is float64 if each of its cells is a number or a null spelling, else text. A column of
        ``text`` is always text. Records with more or fewer fields than the header are skipped. Fields in quotes may
        contain separators and newlines.

        Raises:
            DataError: the file cannot be parsed.
            UnicodeError: the bytes do not fit ``layout.encoding`` (never when ``layout.damaged``).
        """

    def read_parquet(self, path: TableFile, columns: Sequence[str]) -> Frame:
        """Read columns of a Parquet file. Categories become text, dates become datetimes, decimals become float64."""

    def read_feather(self, path: TableFile, columns: Sequence[str]) -> Frame:
        """Read columns of a Feather or Arrow IPC file, with the types of `read_parquet`."""

    def concat(self, frames: Sequence[Frame]) -> Frame:
        """Concatenate frames by rows, with a new 0..n-1 index."""

    def to_numeric(self, column: Column) -> Column:
        """Convert a text column to float64; a cell that is not a number becomes missing."""

    def count_distinct(self, frame: Frame, columns: Sequence[str]) -> int:
        """Count the distinct rows of these float64 columns (0.0 and -0.0 are equal)."""

    def from_pandas(self, frame: Any) -> Frame:
        """A pandas frame on this backend's device."""

    def to_pandas(self, frame: Frame) -> Any:
        """The frame as pandas, on the host."""

    def to_matrix(self, frame: Frame, columns: Sequence[str]) -> Any:
        """float64 array (n_rows, n_columns), C order, on this backend's device."""


def host_values(by_column: Any) -> np.ndarray:
    """Convert one value per column of a pandas or cuDF frame to a float64 array on the host."""
    host = by_column.to_pandas() if hasattr(by_column, "to_pandas") else by_column
    values: np.ndarray = host.to_numpy(np.float64)
    return values


def sample_rows(n_rows: int, size: int, seed: int) -> np.ndarray:
    """Draw ``size`` of ``n_rows`` row numbers without replacement by a seed; sorted, int64."""
    if size >= n_rows:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(seed).choice(n_rows, size=size, replace=False))
