"""What an export folder holds, as the index needs it: the rows with their roles, and the clusters.

Both are Parquet files from anybody: what their footers announce is bounded before they are read, their columns and types are
compared with the manifest, and the clusters are validated by a schema.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt, TypeAdapter, ValidationError

from gpuclust.errors import ExportError, message_of
from gpuclust.model.records import NOISE
from gpuclust.model.schema import one_line
from gpuclust.serve.manifest import ASSIGNMENTS, CLUSTERS, MODEL, Manifest, opened, read_manifest, verify
from gpuclust.serve.records import Cluster, Example, FeatureStats, Share

STATS = tuple(f.name for f in fields(FeatureStats))
MAX_CLUSTERS = 1_000_000
MAX_COLUMNS = 100_000
# A file of more than so many rows has at least a byte for each: coordinates of real rows do not compress further.
MIN_SUSPECT_ROWS = 100_000
# What a file may unpack to: so many times its size, and some for small ones. Real exports reach 10.
MAX_RATIO, FREE_BYTES = 500, 64 << 20
BYTES_A_VALUE = 8
READ_AT_ONCE = 1 << 20  # bytes of a file that is read whole
MAX_TEXT_BYTES = 2 << 30  # of a column, as Arrow numbers the bytes of one


def read_assignments(manifest: Manifest) -> pa.Table:
    """The rows of the export, checked against the manifest. Raises ExportError."""
    with opened(manifest.folder, ASSIGNMENTS) as file:
        verify(file, manifest, ASSIGNMENTS)
        table = _parquet(file, manifest, ASSIGNMENTS)
    path = manifest.folder / ASSIGNMENTS
    needed = {*manifest.roles.values(), *manifest.features.values(), "cluster", "x", "y", "z"}
    if missing := needed - set(table.column_names):
        raise ExportError(f"{path} lacks {', '.join(sorted(missing))[:500]}, which the manifest names; export it again")
    if repeated := [name for name in needed if table.column_names.count(name) > 1]:
        raise ExportError(f"{path} has two columns named {repeated[0]}; export it again")
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


def _parquet(file: BinaryIO, manifest: Manifest, name: str) -> pa.Table:
    """A Parquet file, read once its footer is found plausible. Raises ExportError."""
    path = manifest.folder / name
    try:
        size = os.fstat(file.fileno()).st_size
        source = pa.BufferReader(file.read()) if size <= READ_AT_ONCE else pa.OSFile(str(path))
        found = pq.ParquetFile(source)
        _check_footer(found.metadata, size)
        texts = [f.name for f in found.schema_arrow if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
        table = pq.ParquetFile(source, metadata=found.metadata, read_dictionary=texts).read(
            use_threads=size > READ_AT_ONCE
        )
        for i, column in enumerate(table.columns):
            if pa.types.is_dictionary(column.type):
                table = table.set_column(i, table.field(i).name, _decoded(column))
        table.validate(full=True)
    except ExportError:
        raise
    except MemoryError as error:
        raise ExportError(f"{path} does not fit into memory") from error
    except Exception as error:  # pyarrow raises Arrow's, Python's and NumPy's errors on a damaged file
        reason = message_of(error) or type(error).__name__
        raise ExportError(f"{path} is damaged ({reason}); export it again") from error
    return table


def _check_footer(metadata: Any, size: int) -> None:
    """Raises ValueError when a file announces more than it can hold, or than this machine can."""
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
        raise ValueError(f"it needs {needed / 2**30:,.0f} GiB of memory, this machine has {_memory() / 2**30:,.0f}")


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


def raw_features(table: pa.Table, manifest: Manifest) -> np.ndarray:
    """(n_rows, n_features) float64 in original units; missing is NaN."""
    raw = np.empty((table.num_rows, len(manifest.features)), dtype=np.float64)
    for j, name in enumerate(manifest.features.values()):
        raw[:, j] = pc.fill_null(pc.cast(table[name], pa.float64()), np.nan).to_numpy(zero_copy_only=False)
    return raw


class _Row(BaseModel):
    """Types are not converted; what a later version adds is ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


Label = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, (int, float)) else value)]


class ShareRow(_Row):
    """A value and how often it occurs in a cluster."""

    value: Label
    count: NonNegativeInt
    lift: float | None = None
    fraction: float | None = 0.0


class ExampleRow(_Row):
    """A row that stands for a cluster."""

    id: Label
    title: str | None = ""
    creator: str | None = ""
    popularity: float | None = None


def _listed(value: Any) -> Any:
    return () if value is None else tuple(value) if isinstance(value, list) else value


Shares = Annotated[tuple[ShareRow, ...], BeforeValidator(_listed)]
Examples = Annotated[tuple[ExampleRow, ...], BeforeValidator(_listed)]
Line = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]


class ClusterRow(_Row):
    """A row of clusters.parquet, without the statistics of its features. What an older export lacks has a default."""

    cluster: Annotated[int, Field(ge=NOISE, le=2**31 - 1)]
    name: str
    size: NonNegativeInt
    fraction: Annotated[float, Field(ge=0, le=1)]
    description: Line = ""
    nearest: int | None = None
    top_groups: Shares = ()
    top_groups_by_lift: Shares = ()
    top_creators: Shares = ()
    top_creators_by_lift: Shares = ()
    representatives: Examples = ()
    popular: Examples = ()
    rule: Line = ""
    rule_fidelity: float | None = None
    rule_precision: float | None = None
    rule_recall: float | None = None


_ROWS = TypeAdapter(list[ClusterRow])
_LISTS: Mapping[str, type] = {
    "top_groups": Share,
    "top_groups_by_lift": Share,
    "top_creators": Share,
    "top_creators_by_lift": Share,
    "representatives": Example,
    "popular": Example,
}


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
        rows = _ROWS.validate_python(given)
        found = {row.cluster: _cluster(row, raw, manifest) for row, raw in zip(rows, given, strict=True)}
        if len(found) < len(rows):
            raise ValueError("two rows describe one cluster")
    except ValidationError as error:
        raise ExportError(f"{path} is damaged (row {one_line(error)}); export it again") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise ExportError(f"{path} is damaged ({' '.join(str(error).split())[:200]}); export it again") from error
    return found


def _cluster(row: ClusterRow, raw: Mapping[str, Any], manifest: Manifest) -> Cluster:
    lists: dict[str, Any] = {
        name: tuple(record(**entry.model_dump()) for entry in getattr(row, name)) for name, record in _LISTS.items()
    }
    stats = {
        feature: FeatureStats(*(_number(raw.get(f"{kind}_{feature}")) for kind in STATS))
        for feature in manifest.features
    }
    given = {name: value for name, value in vars(row).items() if name not in _LISTS}
    return Cluster(**given, **lists, features=stats)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


__all__ = ["ASSIGNMENTS", "CLUSTERS", "MODEL", "Manifest", "read_manifest"]
