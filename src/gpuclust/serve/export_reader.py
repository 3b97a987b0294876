"""What an export folder holds, as the index needs it: the rows with their roles, and the clusters.

Both are Parquet files from anybody: what their footers announce is bounded before they are read, their columns and types are
compared with the manifest, and the clusters are validated by a schema.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from gpuclust.errors import ExportError, message_of
from gpuclust.model.bundle import Bundle
from gpuclust.model.manifest import (
    ADDED,
    ASSIGNMENTS,
    CLUSTERS,
    MAX_POINT_COLUMNS,
    POINTS,
    Manifest,
    opened,
    verify,
)
from gpuclust.model.records import NOISE, Cluster, FeatureStats, Rule
from gpuclust.model.schema import one_line
from gpuclust.resources import gigabytes
from gpuclust.tracks.presets import ALBUM_COLUMNS, DURATION_COLUMNS, URL_COLUMNS

_STATS = tuple(f.name for f in fields(FeatureStats))
_RULE = {f.name: "rule" if f.name == "text" else f"rule_{f.name}" for f in fields(Rule)}
MAX_CLUSTERS = 1_000_000
MAX_COLUMNS = 100_000
# A file of more than so many rows has at least a byte for each: coordinates of real rows do not compress further.
MIN_SUSPECT_ROWS = 100_000
# What a file may unpack to: so many times its size, and some for small ones. Real exports reach 10.
MAX_RATIO, FREE_BYTES = 500, 64 << 20
BYTES_A_VALUE = 8
READ_AT_ONCE = 1 << 20  # bytes of a file that is read whole
MAX_TEXT_BYTES = 2 << 30  # of a column, as Arrow numbers the bytes of one
OPTIONAL_COLUMNS = {"confidence", "distance", *ALBUM_COLUMNS, *URL_COLUMNS, *DURATION_COLUMNS}
"""Columns (in lower case) that are read if they exist, in addition to the features, the roles and the columns of every export."""

INDEX_BYTES, INDEX_ROW, INDEX_VALUES = 100_000_000, 300, 4.5
"""The memory of the build of an index: all together, for each row, and for each byte of the columns that are read."""
SMALLER = "use a machine with more memory, or export a job of fewer rows (data.n_rows)"


def read_assignments(manifest: Manifest) -> pa.Table:
    """The rows of the export, checked against the manifest: features, roles, what the clustering added, and `OPTIONAL_COLUMNS`.

    Raises ExportError.
    """
    path = manifest.folder / ASSIGNMENTS
    needed = {*manifest.roles.values(), *manifest.features.values(), "cluster", "x", "y", "z"}

    def wanted(names: list[str]) -> list[str]:
        if missing := needed - set(names):
            raise ExportError(
                f"{path} lacks {', '.join(sorted(missing))[:500]}, which the manifest names; export it again"
            )
        if repeated := [name for name in needed if names.count(name) > 1]:
            raise ExportError(f"{path} has two columns named {repeated[0]}; export it again")
        return [
            name for name in names if name in needed or (name.lower() in OPTIONAL_COLUMNS and names.count(name) == 1)
        ]

    with opened(manifest.folder, ASSIGNMENTS) as file:
        verify(file, manifest, ASSIGNMENTS)
        table = _parquet(file, manifest, ASSIGNMENTS, wanted)
    kept = (manifest.text.get("rows") or {}).get("kept")
    if kept is not None and kept != table.num_rows:
        raise ExportError(f"{path} has {table.num_rows:,} rows, the manifest says {kept:,}; export it again")
    numeric = {*manifest.features.values(), "x", "y", "z", *({"confidence", "distance"} & set(table.column_names))}
    for name in numeric:
        if not _is_number(table[name].type):
            raise ExportError(f"{path}: the column {name} holds {table[name].type}, not numbers; export it again")
    if not pa.types.is_integer(table["cluster"].type):
        raise ExportError(f"{path}: the column cluster holds {table['cluster'].type}, not integers; export it again")
    for name in manifest.roles.values():
        if not _is_plain(table[name].type):
            raise ExportError(f"{path}: the column {name} holds {table[name].type}, not plain values; export it again")
    return table


def _parquet(
    file: BinaryIO, manifest: Manifest, name: str, wanted: Callable[[list[str]], list[str] | None] = lambda _: None
) -> pa.Table:
    """A Parquet file, read once its footer is found plausible; ``wanted`` chooses among its columns. Raises ExportError."""
    path = manifest.folder / name
    try:
        size = os.fstat(file.fileno()).st_size
        source = pa.BufferReader(file.read()) if size <= READ_AT_ONCE else pa.OSFile(str(path))
        found = pq.ParquetFile(source)
        _check_footer(found.metadata, size)
        texts = [f.name for f in found.schema_arrow if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
        columns = wanted(found.schema_arrow.names)
        table = pq.ParquetFile(source, metadata=found.metadata, read_dictionary=texts).read(
            columns, use_threads=size > READ_AT_ONCE
        )
        table = table if columns is None else table.select(columns)
        for i, column in enumerate(table.columns):
            if pa.types.is_dictionary(column.type):
                table = table.set_column(i, table.field(i).name, _decoded(column))
        table.validate(full=True)
    except ExportError:
        raise
    except MemoryError as error:
        raise ExportError(f"{path} does not fit into memory{f' ({error})' if str(error) else ''}; {SMALLER}") from error
    except Exception as error:  # pyarrow raises Arrow's, Python's and NumPy's errors on a damaged file
        reason = message_of(error) or type(error).__name__
        raise ExportError(f"{path} is damaged ({reason}); export it again") from error
    return table


def _check_footer(metadata: Any, size: int) -> None:
    """Raises ValueError when a file announces more than it can hold, and MemoryError when it announces more than this machine can."""
    n_rows, n_columns, n_groups = metadata.num_rows, metadata.num_columns, metadata.num_row_groups
    if n_columns > MAX_COLUMNS:
        raise ValueError(f"it has {n_columns:,} columns, more than {MAX_COLUMNS:,}")
    if n_rows > MIN_SUSPECT_ROWS and n_rows > size:
        raise ValueError(f"it announces {n_rows:,} rows in {size:,} bytes")
    if n_groups > n_rows + 1:
        raise ValueError(f"it announces {n_groups:,} row groups of {n_rows:,} rows")
    groups = [metadata.row_group(i) for i in range(n_groups)]
    if sum(group.num_rows for group in groups) != n_rows or any(group.num_rows < 0 for group in groups):
        raise ValueError("its row groups have other numbers of rows than it announces")
    chunks = [group.column(j) for group in groups for j in range(n_columns)]
    values = [chunk.num_values for chunk in chunks]
    unpacked = [chunk.total_uncompressed_size for chunk in chunks]
    if min((*values, *unpacked), default=0) < 0:
        raise ValueError("it announces negative sizes")
    if sum(unpacked) > FREE_BYTES + MAX_RATIO * size:
        raise ValueError(f"it unpacks to {sum(unpacked):,} bytes from {size:,}")
    needed = max(sum(unpacked), BYTES_A_VALUE * max(sum(values), n_rows * n_columns))
    if needed > _memory():
        raise MemoryError(f"it needs {gigabytes(needed)}, this machine has {gigabytes(_memory())}")


def index_bytes(manifest: Manifest) -> tuple[int, int]:
    """The number of rows, and an estimate of the memory that the index of an export needs while it is built, from the footer of its rows.

    Measured on exports of 100,000 to 400,000 rows with and without text: 0.9 to 1.5 times what it took. Raises ExportError.
    """
    with opened(manifest.folder, ASSIGNMENTS) as file:
        try:
            found = pq.ParquetFile(file)
            groups = [found.metadata.row_group(i) for i in range(found.metadata.num_row_groups)]
            names = {*manifest.roles.values(), *manifest.features.values(), *ADDED}
            chunks = [group.column(j) for group in groups for j in range(found.metadata.num_columns)]
            own = [
                c
                for c in chunks
                if (name := c.path_in_schema.split(".")[0]) in names or name.lower() in OPTIONAL_COLUMNS
            ]
            size = sum(chunk.total_uncompressed_size for chunk in own)
            return found.metadata.num_rows, int(INDEX_BYTES + INDEX_ROW * found.metadata.num_rows + INDEX_VALUES * size)
        except (pa.ArrowException, OSError):
            return 0, 0  # the rows are read next, and the error is raised then


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A dictionary column as plain texts: one long text, named by many rows, is no more than a few bytes of a file."""
    if not (pa.types.is_string(column.type.value_type) or pa.types.is_large_string(column.type.value_type)):
        return pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], column.type.value_type)
    chunks = []
    for chunk in column.chunks:
        lengths = pc.fill_null(pc.binary_length(chunk.dictionary), 0)
        size = pc.sum(pc.cast(pc.take(lengths, chunk.indices), pa.int64())).as_py() or 0
        if size > MAX_TEXT_BYTES:
            raise ValueError(f"a column of texts unpacks to {size:,} bytes")
        chunks.append(chunk.dictionary_decode())
    return pa.chunked_array(chunks, column.type.value_type)


def _is_number(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(
        t.is_integer(kind) or t.is_floating(kind) or t.is_boolean(kind) or t.is_decimal(kind) or t.is_null(kind)
    )


def _is_plain(kind: pa.DataType) -> bool:
    """Texts, numbers, dates, or lists of them."""
    t = pa.types
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        return _is_plain(kind.value_type) and not t.is_nested(kind.value_type)
    if t.is_dictionary(kind):
        return _is_plain(kind.value_type)
    return bool(_is_number(kind) or t.is_string(kind) or t.is_large_string(kind) or t.is_temporal(kind))


def popularity_of(table: pa.Table, manifest: Manifest) -> np.ndarray:
    """(n_rows,) float64; NaN where missing, and everywhere when there is no such role or it is no number."""
    if "popularity" not in manifest.roles:
        return np.full(table.num_rows, np.nan)
    try:
        column = pc.cast(table[manifest.roles["popularity"]], pa.float64())
    except pa.ArrowException:
        return np.full(table.num_rows, np.nan)
    return np.asarray(pc.fill_null(column, np.nan).to_numpy(zero_copy_only=False), dtype=np.float64)


def points_of(table: pa.Table, manifest: Manifest, model: Bundle) -> np.ndarray:
    """The rows in the prepared space (n_rows, n_columns), or in its first principal components where the export has no vectors.

    Raises ExportError where these are missing or damaged.
    """
    if not manifest.vectors:
        return model.points(raw_features(table, manifest))
    path = manifest.folder / POINTS
    if POINTS not in manifest.text["sha256"]:
        raise ExportError(f"{path} is not in the manifest; export the run again")
    with opened(manifest.folder, POINTS) as file:
        verify(file, manifest, POINTS)
        try:
            points = np.load(file, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ExportError(f"{path} is damaged ({message_of(error)}); export it again") from error
    fits = isinstance(points, np.ndarray) and points.ndim == 2 and points.dtype == np.float32
    if not fits or len(points) != table.num_rows or not 1 <= points.shape[1] <= MAX_POINT_COLUMNS:
        raise ExportError(f"{path} does not fit the {table.num_rows:,} rows of the export; export it again")
    if not np.isfinite(points).all():
        raise ExportError(f"{path} has values that are not finite; export it again")
    return points


def raw_features(table: pa.Table, manifest: Manifest) -> np.ndarray:
    """(n_rows, n_features) float64 in original units; missing is NaN."""
    raw = np.empty((table.num_rows, len(manifest.features)), dtype=np.float64)
    for j, name in enumerate(manifest.features.values()):
        raw[:, j] = pc.fill_null(pc.cast(table[name], pa.float64()), np.nan).to_numpy(zero_copy_only=False)
    return raw


_CLUSTERS = TypeAdapter(list[Cluster])


def read_clusters(manifest: Manifest) -> dict[int, Cluster]:
    """The clusters by number, noise last. Raises ExportError when the file is missing or damaged, or was changed."""
    path = manifest.folder / CLUSTERS
    with opened(manifest.folder, CLUSTERS) as file:
        verify(file, manifest, CLUSTERS)
        table = _parquet(file, manifest, CLUSTERS)
    try:
        if table.num_rows > MAX_CLUSTERS:
            raise ValueError(f"it has {table.num_rows:,} clusters")
        if len(set(table.column_names)) < table.num_columns:
            raise ValueError("two of its columns have one name")
        given = table.to_pylist()
        rows = _CLUSTERS.validate_python([_nested(row, manifest.features) for row in given])
        found = {row.cluster: row for row in rows}
        if not all(_possible(row) for row in rows):
            raise ValueError("a cluster has a number, a size or a share that cannot be")
        if len(found) < len(rows):
            raise ValueError("two rows describe one cluster")
    except ValidationError as error:
        raise ExportError(f"{path} is damaged (row {one_line(error)}); export it again") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise ExportError(f"{path} is damaged ({' '.join(str(error).split())[:200]}); export it again") from error
    return found


def _possible(cluster: Cluster) -> bool:
    shares = (*cluster.top_groups, *cluster.top_groups_by_lift, *cluster.top_creators, *cluster.top_creators_by_lift)
    numbers = NOISE <= cluster.cluster < 2**31 and cluster.size >= 0 and 0 <= cluster.fraction <= 1
    return numbers and all(share.count >= 0 for share in shares)


def _nested(row: Mapping[str, Any], features: Iterable[str]) -> dict[str, Any]:
    """A row as the record has it: the statistics of its features and the parts of its rule as one value each. What is missing
    (null, or a column that an older export lacks) has the record's default."""
    rule = {name: row.get(column) for name, column in _RULE.items()}
    stats = {f: {kind: _number(row.get(f"{kind}_{f}")) for kind in _STATS} for f in features}
    known: dict[str, Any] = _present({**row, "rule": rule if rule["text"] else None})
    return {**known, "features": stats}


def _present(value: Any) -> Any:
    """The value without what is None in it."""
    if isinstance(value, dict):
        return {name: _present(part) for name, part in value.items() if part is not None}
    return [_present(part) for part in value] if isinstance(value, list) else value


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
