"""Read a table. Each step is a module: `source` (`files`, `sniff`, `schema`, `join`), `columns`, `load`, `infer_types`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from gpuclust.config import DataConfig
from gpuclust.data.columns import ColumnSelection, IdCandidates, id_candidates, select_columns
from gpuclust.data.encode import CategoryCounts, Encoder
from gpuclust.data.infer_types import TypedColumns, infer_types, text_step
from gpuclust.data.source import CatalogueSource, FileSource, LoadedTable, fingerprint, open_source
from gpuclust.data.summary import column_warnings
from gpuclust.data.table import Audit, Column, Frame, Frames, Roles, Table, sample_rows
from gpuclust.data.vectors import VectorColumn
from gpuclust.errors import DataError
from gpuclust.sanitize import mask


def read(data: DataConfig, frames: Frames, *, encoder: Encoder | None = None) -> Table:
    """Read a table: its role columns and its feature columns, with an audit of what was read and what was left out.

    Features are numeric but not yet finite. They are `data.features` if set, else those of the preset, else every numeric
    column that is not a role, an index, an id, mostly missing or excluded. `data.n_rows` of a file draws a seeded sample
    of its rows, in their order. Lists written as text become lists in the creator and group columns. ``encoder`` decides how columns are
    encoded; by default by their values.

    Raises:
        ConfigurationError: a named column does not exist.
        DataError: the file is missing, empty, corrupt or not a table, or has no column to cluster.
    """
    opened = open_table(data, frames)
    opened = opened.with_id(find_id(opened.candidates, lambda name: _all_distinct(opened.frame[name])))
    frame, roles = _with_id(opened.frame, opened.selection)
    rows = opened.sampled_rows()
    if rows is not None:
        frame = frame.iloc[rows].reset_index(drop=True)
    joined = opened.source.add_joined(frame, opened.selection, frames)
    source = opened.source
    encoder = encoder or CategoryCounts(data)
    typed = infer_types(
        joined.frame, opened.selection, roles, frames, decimal=source.decimal, where=source.where, encoder=encoder
    )
    return opened.table(typed, typed.frame, rows, len(typed.frame), joined, opened.vectors(rows))


@dataclass(frozen=True)
class OpenedTable:
    """The columns of a source that a table uses, as they were loaded, and their entries in the audit."""

    data: DataConfig
    source: FileSource | CatalogueSource
    selection: ColumnSelection
    candidates: IdCandidates
    frame: Frame
    description: dict[str, Any]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def with_id(self, found: tuple[str, str] | None) -> OpenedTable:
        """The same with the id column that was found, and why it is the id."""
        selection, description, notes = self.selection, dict(self.description), self.notes
        if found is not None:
            name, reason = found
            selection = selection.with_id(name)
            description |= {"id_column": name, "id_found": reason}
            notes = (*notes, f"{name} is the id ({reason}); data.roles.id=COLUMN names another")
        description["id_made"] = "id" not in selection.roles
        return replace(self, selection=selection, description=description, notes=notes)

    def sampled_rows(self) -> np.ndarray | None:
        """The numbers of the rows of a sample (n_rows,); None for all rows."""
        n_rows = self.data.n_rows
        return sample_rows(len(self.frame), n_rows, self.data.seed) if n_rows and n_rows < len(self.frame) else None

    def vectors(self, rows: np.ndarray | None) -> tuple[VectorColumn, ...]:
        """The columns of vectors, of a sample of the rows (n_rows,) or of all. Raises DataError."""
        columns = self.source.vectors(self.selection.vectors)
        if short := [column for column in columns if len(column) != len(self.frame)]:
            raise DataError(
                f"{self.source.where}: {short[0].name!r} has {len(short[0]):,} vectors for {len(self.frame):,} rows; "
                "correct the rows that cannot be read"
            )
        return tuple(column.at(rows) for column in columns)

    def table(
        self,
        typed: TypedColumns,
        frame: Frame,
        rows: np.ndarray | None,
        n_rows: int,
        joined: LoadedTable,
        vectors: tuple[VectorColumn, ...] = (),
    ) -> Table:
        """The table of the typed columns, with its audit."""
        notes, description = [*self.notes, *typed.notes], self.description | joined.source
        if rows is not None:
            n_source, seed = len(self.frame), self.data.seed
            notes.append(f"a sample of {n_rows:,} of {n_source:,} rows, drawn with data.seed={seed}")
            description["sample"] = {"n_rows": n_rows, "seed": seed}
        features = (*typed.features, *(name for column in vectors for name in column.names))
        warnings = column_warnings(self.selection.unused_booleans, typed.unsuitable, typed.doubtful)
        audit = Audit(
            source=description,
            features=features,
            left_out=(*self.selection.left_out, *typed.left_out),
            steps=(text_step(typed.text_cells, n_rows),) if typed.text_cells else (),
            notes=tuple(notes),
            warnings=(*self.warnings, *joined.warnings, *warnings),
            rows_read=n_rows,
            rows_kept=n_rows,
        )
        roles, digest = Roles(**typed.roles), fingerprint(self.data)
        return Table(frame, roles, features, digest, audit, rows, vectors, typed.encodings)


def open_table(data: DataConfig, frames: Frames) -> OpenedTable:
    """Select the columns of a source and load them. Raises ConfigurationError or DataError."""
    source = open_source(data)
    selection = select_columns(source.kinds, data, where=source.where, preset=source.preset)
    candidates = id_candidates(selection, source.keys, source.kinds)
    loaded = source.load(selection, candidates, frames)
    if not len(loaded.frame):
        raise DataError(f"{source.where} has a header but no rows; give a file with rows")
    return OpenedTable(data, source, selection, candidates, loaded.frame, loaded.source, loaded.notes, loaded.warnings)


def other_columns(table: Table, data: DataConfig, frames: Frames, names: Sequence[str] | None = None) -> pa.Table:
    """Read the columns of the source that are neither features nor roles: an Arrow table with the rows of ``table``.

    No job holds these columns; an export reads them again. ``names`` selects some of `Table.other_columns`, in that order.
    Parquet and Feather columns keep their types; a CSV column is int64, float64 or bool if all of its values are written
    as one, else text.

    Raises:
        DataError: the source has changed since the table was read from it.
    """
    if not (wanted := wanted_columns(table, data, names)):
        return pa.table({})
    columns = open_source(data).arrow_columns(wanted, frames)
    return columns if table.rows is None else columns.take(pa.array(table.rows))


def wanted_columns(table: Table, data: DataConfig, names: Sequence[str] | None) -> list[str]:
    """Those of ``names`` that are `Table.other_columns` or columns of vectors; by default the former. Raises DataError if the source has changed since it was read."""
    if fingerprint(data) != table.fingerprint:
        raise DataError(f"{mask(data.shown)} has changed since it was read; run the job again")
    known = (*table.other_columns, *(column.name for column in table.vectors))
    return [name for name in (table.other_columns if names is None else names) if name in known]


def find_id(candidates: IdCandidates, all_distinct: Callable[[str], bool]) -> tuple[str, str] | None:
    """The id column among the candidates and why it is the id; ``all_distinct`` tells whether no value of a column is repeated.

    It is the first column that is named like an id and has distinct values, else the only text column with distinct values.
    """
    for name in candidates.named:
        if all_distinct(name):
            return name, "it is named like an id, and no value is repeated"
    distinct = [name for name in candidates.text if all_distinct(name)]
    if len(distinct) == 1:
        return distinct[0], "it is the only column of text without repeated values"
    return None


def _all_distinct(column: Column) -> bool:
    """Whether no value of a column is missing or repeated; numbers must be whole."""
    if bool(column.isna().any()) or int(column.nunique()) < len(column):
        return False
    return column.dtype.kind != "f" or not bool((column % 1 != 0).any())


def _with_id(frame: Frame, selection: ColumnSelection) -> tuple[Frame, dict[str, str]]:
    """The frame with an id column, and the roles. Without an id, the id is the row number in the source, from 0."""
    if "id" in selection.roles:
        return frame, selection.roles
    name = made_id(frame.columns)
    frame[name] = np.arange(len(frame), dtype=np.int64)
    return frame, {"id": name, **selection.roles}


def made_id(columns: Collection[str]) -> str:
    """The name of an id column that is made."""
    return next(n for n in ("id", "row", "row_id", "row_number_in_source") if n not in columns)
