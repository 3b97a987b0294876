"""The number of rows of a source and their width, from footers and a sample, before the rows are read."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from gpuclust.config import DataConfig
from gpuclust.data.columns import id_candidates, select_columns
from gpuclust.data.files import TableFile
from gpuclust.data.frames import iter_arrow, open_arrow
from gpuclust.data.remote import arrow_input
from gpuclust.data.schema import FileSchema, first_rows
from gpuclust.data.source import CATALOGUE_ROWS, CatalogueSource, open_source
from gpuclust.data.table import CsvLayout
from gpuclust.data.vectors import head_size
from gpuclust.errors import DataError, message_of
from gpuclust.model.encodings import FREQUENCY

SAMPLE_BYTES = 1 << 20
SAMPLE_ROWS = 2000


@dataclass(frozen=True)
class SourceSize:
    """The rows and columns that a job reads. ``exact``: the rows are counted in footers, not estimated from a sample.

    A feature takes 8 bytes a row; ``text_bytes`` are the bytes a row of the other columns. ``n_vector_values`` of the features are values
    of vectors, which take 4 bytes.
    """

    n_rows: int
    exact: bool
    n_features: int
    text_bytes: float
    n_vector_values: int = 0


def source_size(data: DataConfig) -> SourceSize:
    """The size of a source. Only footers and a sample are read; for the catalogue, a sample is generated.

    Raises:
        ConfigurationError: a named column does not exist.
        DataError: a file is missing, empty, damaged or not a table.
    """
    source = open_source(replace(data, n_rows=SAMPLE_ROWS) if data.source == "catalogue" else data)
    selection = select_columns(source.kinds, data, where=source.where, preset=source.preset)
    n_features = len(selection.features) + 2 * len(data.circular)
    if data.encoding == FREQUENCY:
        n_features += len(data.categorical)
    elif isinstance(source, CatalogueSource):
        n_features += sum(min(source.table[name].nunique(), data.max_categories) for name in data.categorical)
    else:
        n_features += sum(_n_categories(source.schema, name, data.max_categories) for name in data.categorical)
    if isinstance(source, CatalogueSource):
        text = pa.Table.from_pandas(source.table[list(selection.role_columns)], preserve_index=False)
        return SourceSize(data.n_rows or CATALOGUE_ROWS, True, n_features, text.nbytes / max(text.num_rows, 1))
    candidates = id_candidates(selection, source.keys, source.kinds)
    used = dict.fromkeys([*selection.role_columns, *selection.features, *candidates.all])
    text_columns = [name for name in used if name not in selection.features and name in source.schema.kinds]
    n_rows, exact = _n_rows(source.schema)
    n_values = sum(head_size(source.schema, name) for name in selection.vectors)
    text_bytes = sum(_widths(source.schema, text_columns).values())
    return SourceSize(n_rows, exact, n_features + n_values, text_bytes, n_values)


def _n_rows(schema: FileSchema) -> tuple[int, bool]:
    """The number of rows of all files, and whether it is counted rather than estimated."""
    files = schema.files
    if files.format == "csv":
        pairs = zip(files.paths, schema.layouts, strict=True)
        return sum(_csv_rows(path, layout) for path, layout in pairs), False
    return sum(_footer_rows(path, files.format) for path in files.paths), True


def _footer_rows(path: TableFile, format: str) -> int:
    try:
        if format == "parquet":
            return int(pa.parquet.read_metadata(arrow_input(path)).num_rows)
        with open_arrow(path) as reader:
            return sum(batch.num_rows for batch in iter_arrow(reader))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is a damaged {format.title()} file ({message_of(error)}); fetch it again") from error


def _csv_rows(path: TableFile, layout: CsvLayout) -> int:
    """The estimated number of rows: the bytes of the file divided by the mean bytes of its first lines, without the header."""
    head, read = _beginning(path, layout)
    n_lines = head.count(b"\n")
    if not n_lines:
        return 1
    size = path.stat().st_size
    if read >= size:  # the whole file was read
        return max(n_lines + (not head.endswith(b"\n")) - int(layout.header), 1)
    return max(round(size / read * n_lines) - int(layout.header), 1)


def _beginning(path: TableFile, layout: CsvLayout) -> tuple[bytes, int]:
    """The first bytes of the text, and how many bytes of the file they are."""
    try:
        with path.open("rb", buffering=SAMPLE_BYTES) as file:
            if not layout.compressed:
                head = file.read(SAMPLE_BYTES)
                return head, len(head)
            head = gzip.GzipFile(fileobj=file).read(SAMPLE_BYTES)
            return head, max(file.tell(), 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {message_of(error)}") from error


def _widths(schema: FileSchema, names: Sequence[str]) -> dict[str, float]:
    """The mean bytes per row of some columns in memory, from the first rows of the first file."""
    if not names:
        return {}
    files = schema.files
    if files.format != "csv":
        table: Any = first_rows(files.paths[0], files.format, names)
        return {name: table.column(name).nbytes / max(table.num_rows, 1) for name in table.column_names}
    layout, rows = schema.layouts[0], _csv_head(schema)
    places = {name: layout.columns.index(name) for name in names}
    return {name: 4 + sum(len(row[i].encode()) for row in rows) / max(len(rows), 1) for name, i in places.items()}


def _csv_head(schema: FileSchema) -> list[list[str]]:
    """Some of the first records of the first delimited file."""
    layout = schema.layouts[0]
    head, _ = _beginning(schema.files.paths[0], layout)
    text = head[: head.rfind(b"\n") + 1].decode(layout.encoding, "replace")
    rows: list[list[str]] = []
    with suppress(csv.Error):  # a field of more than 128 KiB
        rows.extend(csv.reader(io.StringIO(text, newline=""), delimiter=layout.separator))
    step = max(1, len(rows) // SAMPLE_ROWS)
    return [row for row in rows[int(layout.header) :: step] if len(row) == len(layout.columns)]


def _n_categories(schema: FileSchema, name: str, most: int) -> int:
    """The number of one-hot features of a column, from the first rows of the first file; ``most`` for a column of a joined table."""
    if name not in schema.kinds:
        return most
    if schema.files.format == "csv":
        place = schema.layouts[0].columns.index(name)
        return min(len({row[place] for row in _csv_head(schema)}), most)
    values: Any = first_rows(schema.files.paths[0], schema.files.format, [name]).column(name)
    return min(len(values.unique()), most)
