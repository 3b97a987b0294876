"""From files to one frame: what their columns look like, and the columns asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from gpuclust.data.columns import are_tracks
from gpuclust.data.files import Source, find
from gpuclust.data.frames import iter_arrow, named_apart, open_arrow
from gpuclust.data.records import Unreadable, unreadable
from gpuclust.data.sniff import Sniffed, may_be_key, sniff
from gpuclust.data.table import CsvLayout, Frame, Frames, unique_names
from gpuclust.errors import DataError

HEAD_ROWS = 2000
BAD_ROWS = 0.01
"""Share of the rows that may be unreadable under ``data.bad_rows=few``."""
INDEX_NAMES = ("", "Unnamed: 0", "__index_level_0__")


@dataclass(frozen=True)
class Look:
    """Files of one table that were looked at, not yet read.

    ``kinds`` is column -> ``number``, ``boolean``, ``text``, ``list``, ``date``, ``empty``, ``index`` or ``other``.
    ``layouts`` has one entry a file for CSV, and is empty for the binary formats. ``keys`` are the columns of text and
    numbers whose first values are all known and all different.
    """

    source: Source
    kinds: dict[str, str]
    layouts: tuple[CsvLayout, ...] = ()
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """A frame, how its files turned out to be written, and what of each could not be read."""

    frame: Frame
    layouts: tuple[CsvLayout, ...] = ()
    bad: tuple[tuple[Path, Unreadable], ...] = ()

    @property
    def n_bad(self) -> int:
        """How many lines could not be read as rows."""
        return sum(found.n_lines for _, found in self.bad)

    def bad_rows(self, policy: str) -> str | None:
        """What to say of the rows that could not be read; None where all could.

        Raises DataError where the policy of `data.bad_rows` does not allow as many.
        """
        if not self.bad:
            return None
        file, found = self.bad[0]
        n_rows = len(self.frame) + self.n_bad
        line = f"{self.n_bad:,} of {n_rows:,} rows could not be read; the first is line {found.first:,} of {file.name} ({found.why})"
        if policy == "error" or (policy == "few" and self.n_bad > BAD_ROWS * n_rows):
            raise DataError(f"{file}: {line}; mend the file, or set data.bad_rows=skip to go on without them")
        return line


def look(path: str) -> Look:
    """Look at the files under a path.

    Raises:
        DataError: a file is missing, empty or damaged, or the files of a folder have different columns.
    """
    source = find(path)
    if source.format == "csv":
        sniffed = [sniff(file) for file in source.files]
        kinds = [_csv_kinds(s) for s in sniffed]
        layouts = tuple(s.layout for s in sniffed)
        keys = [s.keys for s in sniffed]
    else:
        kinds = [_schema_kinds(file, source.format) for file in source.files]
        layouts = ()
        keys = [_keys(source, kinds[0])]
    for file, other in zip(source.files[1:], kinds[1:], strict=True):
        if different := set(kinds[0]) ^ set(other):
            raise DataError(
                f"{file} and {source.files[0].name} differ in column {sorted(different)[0]!r}; "
                "keep files with the same columns in a folder"
            )
    widest = {name: _widest([k[name] for k in kinds]) for name in kinds[0]}
    in_all = [n for n in keys[0] if widest[n] in ("number", "text") and all(n in other for other in keys[1:])]
    return Look(source, widest, layouts, tuple(in_all))


def preset_of(path: str) -> str:
    """``tracks`` where a file has the columns of a table of tracks, by its header; else ``none``, also where it cannot be read."""
    try:
        return "tracks" if are_tracks(look(path).kinds) else "none"
    except (DataError, OSError, RuntimeError):  # RuntimeError: ~name of nobody
        return "none"


def load(seen: Look, frames: Frames, columns: Sequence[str], *, text: Collection[str] = ()) -> Loaded:
    """Read columns of the files.

    From CSV a column of kind ``number`` or ``empty`` comes as float64 if all of it can, unless it is one of
    ``text``, which stay as they are written.
    """
    if seen.source.format != "csv":
        reader = frames.read_parquet if seen.source.format == "parquet" else frames.read_feather
        return Loaded(frames.concat([reader(file, columns) for file in seen.source.files]))
    numbers = [name for name in columns if seen.kinds[name] in ("number", "empty") and name not in text]
    as_numbers = set(numbers)
    written = [name for name in columns if name not in as_numbers]
    parts, layouts, bad = [], [], []
    numeric = frozenset(name for name, kind in seen.kinds.items() if kind == "number")
    for file, layout in zip(seen.source.files, seen.layouts, strict=True):
        part, layout, found = _read_csv(file, layout, frames, numbers, written, numeric)
        parts.append(part)
        layouts.append(layout)
        if found.n_lines:
            bad.append((file, found))
    return Loaded(frames.concat(_same_types(parts, numbers)), tuple(layouts), tuple(bad))


def _read_csv(
    file: Path,
    layout: CsvLayout,
    frames: Frames,
    numbers: Sequence[str],
    text: Sequence[str],
    numeric: frozenset[str],
) -> tuple[Frame, CsvLayout, Unreadable]:
    """Read a file; when its encoding was misjudged from a part of it, judge it from the whole."""
    try:
        frame, n_more = frames.read_csv(file, layout, numbers=numbers, text=text)
    except UnicodeError:
        whole = sniff(file, whole=True).layout
        layout = replace(layout, encoding=whole.encoding, damaged=whole.damaged)
        try:
            frame, n_more = frames.read_csv(file, layout, numbers=numbers, text=text)
        except UnicodeError:
            layout = replace(layout, damaged=True)
            frame, n_more = frames.read_csv(file, layout, numbers=numbers, text=text)
    found = unreadable(file, layout, numeric) if n_more > 0 else Unreadable()
    if found.n_broken > max(10, len(frame)):
        raise DataError(
            f"{file} is not a table: {found.n_broken:,} records do not have the {len(layout.columns)} fields of its header"
        )
    return frame, layout, found


def _same_types(parts: list[Frame], numbers: Sequence[str]) -> list[Frame]:
    """A column that is text in one file is made text in the others."""
    for name in numbers if len(parts) > 1 else ():
        kinds = {part[name].dtype.kind for part in parts}
        if len(kinds) > 1:
            for part in parts:
                if part[name].dtype.kind == "f":
                    part[name] = part[name].astype("str").where(part[name].notna())
    return parts


def _csv_kinds(sniffed: Sniffed) -> dict[str, str]:
    kinds = dict(sniffed.kinds)
    if sniffed.layout.index_column:
        kinds[sniffed.layout.columns[0]] = "index"
    return kinds


def _schema_kinds(file: Path, format: str) -> dict[str, str]:
    try:
        if format == "parquet":
            schema = pa.parquet.read_schema(file)
        else:
            with open_arrow(file) as reader:
                schema = reader.schema
    except (pa.ArrowException, OSError) as error:
        text = " ".join(str(error).split())[:160]
        raise DataError(f"{file} is a damaged {format.title()} file ({text}); write or fetch it again") from error
    kinds = {name: kind_of(type_) for name, type_ in zip(unique_names(schema.names), schema.types, strict=True)}
    first = next(iter(kinds), None)
    for name in kinds:
        if name == "__index_level_0__" or (name == first and name in INDEX_NAMES and kinds[name] == "number"):
            kinds[name] = "index"
    return kinds


def _keys(source: Source, kinds: dict[str, str]) -> tuple[str, ...]:
    """The columns of text and of whole numbers whose first values, in the first file, may be those of a key."""
    names = [name for name, kind in kinds.items() if kind in ("number", "text")]
    sample = _head(source.files[0], source.format, names)
    whole = [f.name for f in sample.schema if pa.types.is_integer(f.type) or kind_of(f.type) == "text"]
    return tuple(n for n in whole if may_be_key([None if v is None else str(v) for v in sample.column(n).to_pylist()]))


def _head(file: Path, format: str, names: Sequence[str]) -> Any:
    """The first rows of some columns of a binary file, as an Arrow table; none where the file cannot be read."""
    empty = pa.table({})
    try:
        if format == "parquet":
            opened = pa.parquet.ParquetFile(file)
            only = list(names) if named_apart(opened.schema_arrow.names) else None
            batch = next(opened.iter_batches(HEAD_ROWS, columns=only))
        else:
            with open_arrow(file) as reader:
                batch = next(iter_arrow(reader)).slice(0, HEAD_ROWS)
        table = pa.Table.from_batches([batch])
        return table.rename_columns(unique_names(table.column_names)).select(list(names))
    except (pa.ArrowException, OSError, StopIteration):
        return empty


def kind_of(type_: Any) -> str:
    """The kind of an Arrow column type."""
    types = pa.types
    if types.is_dictionary(type_):
        return kind_of(type_.value_type)
    if types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_):
        return "number"
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        return "text"
    if types.is_list(type_) or types.is_large_list(type_):
        return "list" if kind_of(type_.value_type) == "text" else "other"
    if types.is_date(type_) or types.is_timestamp(type_):
        return "date"
    if types.is_boolean(type_):
        return "boolean"
    return "empty" if types.is_null(type_) else "other"


def _widest(kinds: Sequence[str]) -> str:
    """One kind for a column that looks different in several files."""
    seen = [kind for kind in kinds if kind != "empty"]
    if not seen:
        return "empty"
    return seen[0] if len(set(seen)) == 1 else ("number" if "number" in seen else "text")
