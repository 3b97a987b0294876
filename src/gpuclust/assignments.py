"""Rows with their clusters, a batch at a time: the columns of a table, the predictions of a model, and the files that hold both."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from gpuclust.algorithms.registry import get_algorithm, resolve
from gpuclust.analysis.noise import NoiseAssignment, assign_noise
from gpuclust.config import DataConfig, did_you_mean
from gpuclust.data.column_batches import other_columns_batches
from gpuclust.data.disk_frame import NO_VALUE_YET, DiskFrame
from gpuclust.data.table import Frames, Table, sample_rows
from gpuclust.errors import ConfigurationError, DataError, message_of
from gpuclust.model.bundle import Assignment, Bundle, Prediction
from gpuclust.model.explanation import Memberships
from gpuclust.model.manifest import ADDED, MAX_POINT_COLUMNS
from gpuclust.runtime.blocks import BLOCK_ROWS, RowBlocks, Run
from gpuclust.sanitize import safe_table

POINT_SAMPLE = 20_000
BATCH_ROWS = 4 * BLOCK_ROWS
"""The number of rows that are written at once, as one Parquet row group."""


def assign(bundle: Bundle, raw: RowBlocks) -> Assignment:
    """The clusters of rows of raw features (n_rows, n_features) by a model."""
    parts: list[Assignment] = raw.collect(_assign, bundle)
    cluster, confidence, distance = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("cluster", "confidence", "distance")
    )
    return Assignment(cluster, confidence, distance)


def _assign(run: Run, bundle: Bundle) -> Assignment:
    return bundle.assign(run.X)


def neighbour_points(bundle: Bundle, raw: RowBlocks) -> np.ndarray:
    """Rows of raw features in the first principal components of the prepared space, as many as `MAX_POINT_COLUMNS`: (n_rows, m) float32.

    The components are those of a sample of the rows.
    """
    rows = sample_rows(len(raw), POINT_SAMPLE, 0)
    sample = bundle.points(raw.take(rows)).astype(np.float64)
    mean = sample.mean(axis=0)
    sample -= mean
    if sample.shape[1] <= MAX_POINT_COLUMNS:
        directions = np.eye(sample.shape[1])
    else:
        _, vectors = np.linalg.eigh(sample.T @ sample)
        directions = vectors[:, : -MAX_POINT_COLUMNS - 1 : -1]
    return np.concatenate(raw.collect(_projected, bundle, mean, directions))


def _projected(run: Run, bundle: Bundle, mean: np.ndarray, directions: np.ndarray) -> np.ndarray:
    return ((bundle.points(run.X) - mean) @ directions).astype(np.float32)


class SourceColumns:
    """The columns of a source that an export has, in Arrow tables of `BATCH_ROWS` rows: the id, every role column, the features, then
    the other columns of the source (all of them, or those named by ``keep``); a row for each row of the table.

    Raises ConfigurationError when a named column is not there.
    """

    def __init__(self, table: Table, data: DataConfig, frames: Frames, keep: Sequence[str] | None = None) -> None:
        vectors = [column.name for column in table.vectors]
        known = (*table.roles.columns, *table.column_features, *vectors, *table.other_columns)
        for name in keep or ():
            if name not in known:
                near = did_you_mean(name, known) or f"; it has {', '.join(known[:12])}"
                raise ConfigurationError(f"--keep {name}: {data.path or 'the catalogue'} has no such column{near}")
        self._table, self._data, self._frames = table, data, frames
        self._own = list(dict.fromkeys((*table.roles.columns, *table.column_features)))
        wanted = table.other_columns if keep is None else keep
        self._others = [name for name in dict.fromkeys(wanted) if name not in self._own]

    @property
    def names(self) -> list[str]:
        """The columns, in order."""
        return [*self._own, *self._others]

    def __iter__(self) -> Iterator[pa.Table]:
        own = frame_batches(self._table.frame[self._own], self._frames)
        if not self._others:
            yield from own
            return
        others = other_columns_batches(self._table, self._data, self._frames, self._others, rows=BATCH_ROWS)
        for columns, added in zip(own, others, strict=True):
            for name in self._others:
                columns = columns.append_column(name, added[name])
            yield columns


def frame_batches(frame: Any, frames: Frames) -> Iterator[pa.Table]:
    """A frame in Arrow tables of `BATCH_ROWS` rows."""
    if not isinstance(frame, DiskFrame):
        (whole,) = tables_of([frames.to_pandas(frame)])
        yield from (whole.slice(start, BATCH_ROWS) for start in range(0, whole.num_rows, BATCH_ROWS))
        return
    yield from tables_of(frame.batches(rows=BATCH_ROWS))


def tables_of(frames: Iterable[pd.DataFrame]) -> Iterator[pa.Table]:
    """Frames of the same columns as Arrow tables of one schema, that of the first. Raises DataError for values of several types."""
    schema = None
    for frame in frames:
        try:
            table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False).replace_schema_metadata(None)
        except (pa.ArrowException, TypeError) as error:
            raise DataError(
                f"a column has values of several types; make them one type ({message_of(error)})"
            ) from error
        if schema is None:
            fields = [
                field.with_type(NO_VALUE_YET) if pa.types.is_null(field.type) else field for field in table.schema
            ]
            schema = pa.schema(fields)
            table = table.cast(schema)
        yield table


def with_assignments(
    columns: Iterable[pa.Table],
    bundle: Bundle,
    raw: RowBlocks,
    assigned: Assignment,
    *,
    rescue: bool = False,
    memberships: int = 0,
    progress: Callable[[float], None] = lambda done: None,
) -> Iterator[pa.Table]:
    """The columns with what `with_prediction` adds, and with that of `with_memberships` for so many clusters. With ``rescue``, and a model that has a soft membership, also
    ``cluster_rescued`` and ``confidence_rescued``: the nearest cluster of each row of noise."""
    has_distance, rescued = not np.isnan(assigned.distance).all(), None
    if rescue and (membership := get_algorithm(bundle.algorithm).soft_membership) is not None:
        rescued = assign_noise(assigned.cluster, assigned.confidence, bundle.parameters, resolve(membership))
    start = 0
    for part in columns:
        rows = slice(start, start + part.num_rows)
        values = raw.take(np.arange(rows.start, rows.stop))
        coordinates = bundle.coordinates(values)
        found = Prediction(assigned.cluster[rows], assigned.confidence[rows], assigned.distance[rows], coordinates)
        part = part.rename_columns(list(free_names(part.column_names, memberships).values()))
        table = with_prediction(part, found, has_distance=has_distance)
        if memberships:
            table = with_memberships(table, bundle.memberships(values, memberships), memberships)
        if rescued is not None:
            table = _with_rescued(table, NoiseAssignment(rescued.cluster[rows], rescued.confidence[rows]))
        yield table
        start = rows.stop
        progress(start / len(raw))


def free_names(names: Sequence[str], memberships: int = 0) -> dict[str, str]:
    """Name of a source's column -> its name in an export: one that the export adds itself becomes NAME_source, or NAME_source_2
    and so on where the source has that too. ``memberships``: in how many clusters the export has memberships."""
    added = (*ADDED, *membership_columns(memberships))
    taken = {*names, *added}
    found = {}
    for name in names:
        found[name] = name
        if name in added:
            tried = (f"{name}_source{'' if i == 1 else f'_{i}'}" for i in itertools.count(1))
            found[name] = next(free for free in tried if free not in taken)
            taken.add(found[name])
    return found


def with_prediction(columns: pa.Table, prediction: Prediction, *, has_distance: bool) -> pa.Table:
    """The columns with ``cluster``, ``confidence``, ``distance`` (where the model has one) and ``x``, ``y``, ``z`` added.

    A column that has one of these names already is kept under another (`free_names`).
    """
    columns = columns.rename_columns(list(free_names(columns.column_names).values()))
    absent = ~prediction.placed
    added: dict[str, pa.Array] = {
        "cluster": pa.array(prediction.cluster, pa.int32(), mask=absent),
        "confidence": pa.array(prediction.confidence, pa.float32(), mask=absent),
    }
    if has_distance:
        added["distance"] = pa.array(prediction.distance, pa.float32(), mask=absent)
    for i, axis in enumerate("xyz"):
        added[axis] = pa.array(prediction.coordinates[:, i], pa.float32(), mask=absent)
    for name, values in added.items():
        columns = columns.append_column(name, values)
    return columns


def membership_columns(n: int) -> tuple[str, ...]:
    """The columns that `with_memberships` adds for n clusters; none for 0."""
    pairs = [name for i in range(1, n + 1) for name in (f"cluster_{i}", f"probability_{i}")]
    return (*pairs, "outlier") if n else ()


def with_memberships(columns: pa.Table, found: Memberships, n: int) -> pa.Table:
    """The columns with ``cluster_1``, ``probability_1``, ``cluster_2`` and so on for the n likeliest clusters, the likeliest first, and ``outlier``; columns with
    these names are replaced. They are empty where a row was not placed, or the model has fewer clusters."""
    absent = np.isnan(found.outlier)
    added: dict[str, pa.Array] = {}
    for i in range(n):
        there = i < found.cluster.shape[1]
        cluster = found.cluster[:, i] if there else np.zeros(len(absent), np.int32)
        probability = found.probability[:, i] if there else np.zeros(len(absent), np.float32)
        empty = absent if there else np.ones(len(absent), bool)
        added |= {f"cluster_{i + 1}": pa.array(cluster, pa.int32(), mask=empty)}
        added |= {f"probability_{i + 1}": pa.array(probability, pa.float32(), mask=empty)}
    added["outlier"] = pa.array(found.outlier, pa.float32(), mask=absent)
    for name, values in added.items():
        if name in columns.column_names:
            columns = columns.set_column(columns.column_names.index(name), name, values)
        else:
            columns = columns.append_column(name, values)
    return columns


def _with_rescued(columns: pa.Table, assigned: NoiseAssignment) -> pa.Table:
    columns = columns.append_column("cluster_rescued", pa.array(assigned.cluster, pa.int32()))
    return columns.append_column("confidence_rescued", pa.array(assigned.confidence, pa.float32()))


def with_path(tables: Iterable[pa.Table], path: str) -> Iterator[pa.Table]:
    """The tables with ``cluster_path``: the path of a cluster in which all rows are, and the cluster of each row: ``3.0``."""
    for table in tables:
        own = pc.cast(table["cluster"], pa.string())
        yield table.append_column("cluster_path", pc.binary_join_element_wise(path, own, "."))


def write_tables(tables: Iterable[pa.Table], *, parquet: Path | None = None, csv: Path | None = None) -> None:
    """Write tables of one schema, one after another, to a Parquet file, a row group each, or a CSV file, or both.

    The CSV is safe in a spreadsheet: a text or a name that it would run as a formula begins with an apostrophe.
    """
    with ExitStack() as files:
        writers: dict[str, Any] = {}
        for table in tables:
            safe = safe_table(table) if csv else table
            if parquet and "parquet" not in writers:
                writers["parquet"] = files.enter_context(pq.ParquetWriter(parquet, table.schema, compression="zstd"))
            if csv and "csv" not in writers:
                writers["csv"] = files.enter_context(pyarrow.csv.CSVWriter(csv, safe.schema))
            for name, writer in writers.items():
                writer.write_table(safe if name == "csv" else table)
