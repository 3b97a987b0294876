"""Where a table is read from: files with the table joined to them, or the generated catalogue of tracks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gpuclust.config import DataConfig
from gpuclust.data.arrow_types import common_schema, with_schema
from gpuclust.data.columns import ColumnSelection, IdCandidates, matches_preset
from gpuclust.data.files import content_digest, find_files
from gpuclust.data.frames import read_arrow
from gpuclust.data.join import Join, JoinResult, join_columns, open_join
from gpuclust.data.load import LoadedColumns, load_columns
from gpuclust.data.schema import FileSchema, read_schema
from gpuclust.data.table import NULL_SPELLINGS, Frame, Frames
from gpuclust.data.vectors import VectorColumn, read_vectors
from gpuclust.errors import ConfigurationError, DataError
from gpuclust.tracks.presets import PRESETS, TRACKS, Preset

CATALOGUE_ROWS = 20_000


@dataclass(frozen=True)
class LoadedTable:
    """The selected columns of a source, and what the audit says about how they were read."""

    frame: Frame
    source: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileSource:
    """Files, and the table of `data.join` if there is one; ``kinds`` are the columns of both."""

    where: str
    schema: FileSchema
    join: Join | None
    preset: Preset | None
    bad_rows: str

    @property
    def kinds(self) -> dict[str, str]:
        """Column -> kind; see `FileSchema`."""
        return self.schema.kinds | (self.join.kinds if self.join else {})

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that may be an id; see `FileSchema`."""
        return self.schema.keys

    @property
    def decimal(self) -> str:
        """The decimal mark of numbers written as text."""
        return self.schema.decimal

    def load(self, selection: ColumnSelection, candidates: IdCandidates, frames: Frames) -> LoadedTable:
        """Load the selected columns of the files and the id candidates, which stay text. Raises DataError."""
        text = {name for role, name in selection.roles.items() if role not in ("popularity", "weight", "year")}
        text = (text | {self.join.left} if self.join else text) - set(selection.features) | {*candidates.all}
        wanted = [*selection.role_columns, *selection.features]
        wanted = [name for name in wanted if not (self.join and name in self.join.kinds)]
        wanted += [self.join.left] if self.join else []
        loaded = load_columns(self.schema, frames, list(dict.fromkeys([*wanted, *candidates.all])), text=text)
        bad = loaded.bad_rows_warning(self.bad_rows)
        damaged = any(layout.damaged for layout in loaded.layouts)
        return LoadedTable(
            frame=loaded.frame,
            source=self._describe(loaded),
            notes=("some bytes do not fit the encoding and were replaced by U+FFFD",) if damaged else (),
            warnings=(bad,) if bad else (),
        )

    def vectors(self, names: Sequence[str]) -> tuple[VectorColumn, ...]:
        """Columns of vectors of the files. Raises DataError."""
        return read_vectors(self.schema, names)

    def add_joined(self, frame: Frame, selection: ColumnSelection, frames: Frames) -> LoadedTable:
        """Add the selected columns of the joined table. Raises DataError."""
        if self.join is None:
            return LoadedTable(frame)
        columns = self.joined_columns(selection)
        joined = join_columns(frame, self.join, frames, columns, bad_rows=self.bad_rows)
        return self.describe_joined(joined, columns)

    def joined_columns(self, selection: ColumnSelection) -> list[str]:
        """The selected columns of the joined table."""
        used = {*selection.role_columns, *selection.features}
        return [name for name in self.join.kinds if name in used] if self.join else []

    def describe_joined(self, joined: JoinResult, columns: Sequence[str]) -> LoadedTable:
        """A frame with added columns, and their entries in the audit."""
        assert self.join is not None
        source = {"path": self.join.path, "columns": list(columns), "rows_matched": joined.rows_matched}
        return LoadedTable(joined.frame, {"join": source}, warnings=(joined.warning,) if joined.warning else ())

    def arrow_columns(self, names: Sequence[str], frames: Frames) -> pa.Table:
        """Columns as an Arrow table with their own types; a CSV column has the narrowest type that holds all its values."""
        columns = self._own_columns([name for name in names if name in self.schema.kinds], frames)
        added = [name for name in names if name not in self.schema.kinds]
        if self.join is not None and added:
            frame = load_columns(self.schema, frames, [self.join.left], text=[self.join.left]).frame
            joined = frames.to_pandas(join_columns(frame, self.join, frames, added, bad_rows="skip").frame)
            for name in added:
                columns = columns.append_column(name, pa.array(joined[name], from_pandas=True))
        return columns.select(list(names))

    def _own_columns(self, names: list[str], frames: Frames) -> pa.Table:
        files = self.schema.files
        if files.format == "csv":
            frame = frames.to_pandas(load_columns(self.schema, frames, names, text=names).frame)
            text = {name: pa.array(frame[name], pa.string(), from_pandas=True) for name in names}
            return pa.table({name: _narrowest_type(column, self.decimal) for name, column in text.items()})
        parts = [read_arrow(file, files.format, names) for file in files.paths]
        schema = common_schema([part.schema for part in parts])
        return pa.concat_tables([with_schema(part, schema) for part in parts])

    def _describe(self, loaded: LoadedColumns) -> dict[str, Any]:
        """How the files are written, for the audit."""
        files, origin = self.schema.files, self.schema.files.origin
        if origin is not None and origin.query is not None:
            return {
                "kind": "query",
                "query": origin.query.text,
                "database": origin.query.database,
                "engine": origin.engine,
                "rows": len(loaded.frame),
            }
        paths = files.paths if origin is None else origin.files
        description: dict[str, Any] = {
            "kind": "file" if len(paths) == 1 else "folder",
            "path": self.where,
            "files": len(paths),
            "bytes": sum(path.stat().st_size for path in paths),
            "format": files.format if origin is None else origin.format,
            "rows": len(loaded.frame),
        }
        if origin is not None and origin.format == "excel":
            description["sheet"] = origin.sheet or "the first"
        if loaded.layouts:
            layout = loaded.layouts[0]
            description |= {
                "separator": layout.separator,
                "encoding": ", ".join(sorted({item.encoding for item in loaded.layouts})),
                "decimal": layout.decimal,
                "header": layout.header,
                "gzip": layout.compressed,
                "index_column": layout.columns[0] if layout.index_column else None,
                "records_left_out": loaded.n_bad,
            }
        if loaded.readers:
            description["reader"] = "; ".join(loaded.readers)
        return description


@dataclass(frozen=True)
class CatalogueSource:
    """The generated catalogue of tracks; ``table`` is a pandas frame. It has the members of `FileSource`."""

    table: Any
    seed: int
    where: str = "the catalogue"
    preset: Preset = TRACKS
    keys: tuple[str, ...] = ()
    decimal: str = "."

    @property
    def kinds(self) -> dict[str, str]:
        """Column -> ``number`` or ``text``."""
        return {name: "number" if kind.kind in "iuf" else "text" for name, kind in self.table.dtypes.items()}

    def load(self, selection: ColumnSelection, candidates: IdCandidates, frames: Frames) -> LoadedTable:
        """The selected columns."""
        del candidates  # the catalogue has an id
        frame = frames.from_pandas(self.table[[*selection.role_columns, *selection.features]])
        return LoadedTable(frame, {"kind": "catalogue", "n_rows": len(self.table), "seed": self.seed})

    def vectors(self, names: Sequence[str]) -> tuple[VectorColumn, ...]:
        """The catalogue has no vectors."""
        assert not names
        return ()

    def add_joined(self, frame: Frame, selection: ColumnSelection, frames: Frames) -> LoadedTable:
        """The frame itself: nothing is joined to the catalogue."""
        del selection, frames
        return LoadedTable(frame)

    def arrow_columns(self, names: Sequence[str], frames: Frames) -> pa.Table:
        """Columns as an Arrow table."""
        del frames
        return pa.Table.from_pandas(self.table[list(names)], preserve_index=False).replace_schema_metadata(None)


def open_source(data: DataConfig) -> FileSource | CatalogueSource:
    """Find the files of a table and read their schema and that of the joined table; or generate the catalogue.

    Raises:
        ConfigurationError: `data.path` and `data.query` are missing, or a column of `data.join` does not exist.
        DataError: a file is missing, empty, damaged or not a table.
    """
    if data.source == "catalogue":
        from gpuclust.tracks.catalogue import catalogue

        return CatalogueSource(catalogue(data.n_rows or CATALOGUE_ROWS, seed=data.seed), data.seed)
    location = _location(data)
    schema = read_schema(location)
    query = schema.files.origin.query if schema.files.origin else None
    where = str(query or data.path)
    join = open_join(data.join, schema.kinds, where)
    return FileSource(where, schema, join, PRESETS.get(data.preset), data.bad_rows)


def fingerprint(data: DataConfig) -> str:
    """Identify the content of a source without parsing it: 64 hexadecimal digits.

    SHA-256 of the bytes of the file (of all files, for a folder or with `data.join`), of the values of a query's result, or of the
    parameters of the catalogue. Digests are cached by path, size and modification time; a query is run once (`forget_results`).

    Raises:
        DataError: the file is missing or empty.
    """
    if data.source == "catalogue":
        return hashlib.sha256(f"catalogue {data.n_rows or CATALOGUE_ROWS} {data.seed}".encode()).hexdigest()
    first = content_digest(find_files(_location(data)))
    if data.join.path is None:
        return first
    return hashlib.sha256(f"{first} {content_digest(find_files(data.join.path))}".encode()).hexdigest()


def detect_preset(location: str) -> str:
    """The name of the preset that the columns of a file or a query match, or ``none``; also ``none`` if it cannot be read."""
    try:
        kinds = read_schema(location).kinds
    except (DataError, OSError, RuntimeError):  # RuntimeError: the user of ~name does not exist
        return "none"
    return next((name for name, preset in PRESETS.items() if matches_preset(kinds, preset)), "none")


def _location(data: DataConfig) -> str:
    if not data.location:
        raise ConfigurationError("data.path is missing: name the file to cluster, as in data.path=tracks.csv")
    return data.location


_KINDS = {
    "bool": "^(true|false)$",
    "int64": "^(0|-?[1-9][0-9]{0,17})$",
    "float64": r"^[+-]?(0|[1-9][0-9]*|0?[.][0-9]+|[1-9][0-9]*[.][0-9]*|0[.])(e[+-]?[0-9]+)?$",
}
"""How the values of a type are written in CSV, the narrowest type first."""


@dataclass
class TextKinds:
    """The types that all values of a column of text so far are written as; a code such as 007 is text."""

    decimal: str
    possible: tuple[str, ...] = tuple(_KINDS)
    any_value: bool = False

    def add(self, column: Any) -> None:
        """Look at a part of the column."""
        present = self._cells(column).drop_null()
        self.any_value = self.any_value or len(present) > 0
        self.possible = tuple(kind for kind in self.possible if _all_match(present, _KINDS[kind]))

    def narrow(self, column: Any) -> Any:
        """A part of the column, with the narrowest type that holds all values of the whole."""
        if not self.any_value or not self.possible:
            return column
        cells = self._cells(column)
        if self.possible[0] == "bool":
            return pc.equal(pc.utf8_lower(cells), "true")
        return cells.cast(pa.int64() if self.possible[0] == "int64" else pa.float64())

    def _cells(self, column: Any) -> Any:
        cells = pc.utf8_trim_whitespace(column)
        cells = pc.if_else(pc.is_in(cells, value_set=pa.array(NULL_SPELLINGS)), pa.scalar(None, pa.string()), cells)
        return pc.replace_substring(cells, self.decimal, ".") if self.decimal != "." else cells


def _all_match(cells: Any, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(cells, pattern, ignore_case=True)).as_py())


def _narrowest_type(column: Any, decimal: str) -> Any:
    """Convert text to bool, int64 or float64 if every present value is written as one; a code such as 007 stays text."""
    kinds = TextKinds(decimal)
    kinds.add(column)
    return kinds.narrow(column)
