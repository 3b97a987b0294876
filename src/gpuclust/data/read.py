"""Reading: from a file, a folder or the built-in catalogue to a Table whose columns are chosen and known."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpuclust.config import DataConfig
from gpuclust.data.columns import Choice, choose, key_candidates
from gpuclust.data.files import digest, find
from gpuclust.data.infer_types import TypedColumns, settle, text_step
from gpuclust.data.inspect import Loaded, Look, load, look
from gpuclust.data.join import Join, attach, open_join
from gpuclust.data.summary import of_columns
from gpuclust.data.table import Audit, Column, Frame, Frames, Roles, Step, Table, sample_rows
from gpuclust.errors import ConfigurationError, DataError

CATALOGUE_ROWS = 20_000


def fingerprint(data: DataConfig) -> str:
    """What identifies the content that `read` reads, found without parsing it: 64 hexadecimal digits.

    SHA-256 of the bytes of the file (of all files, for a folder or with `data.join`), or of the parameters of the
    catalogue. Digests are kept by path, size and modification time.

    Raises:
        DataError: the file is missing or empty.
    """
    if data.source == "catalogue":
        return hashlib.sha256(f"catalogue {data.n_rows or CATALOGUE_ROWS} {data.seed}".encode()).hexdigest()
    first = digest(find(_path(data)))
    if data.join.path is None:
        return first
    return hashlib.sha256(f"{first} {digest(find(data.join.path))}".encode()).hexdigest()


def read(data: DataConfig, frames: Frames) -> Table:
    """Read a table: its role columns and its feature columns, with what was found and what was left out.

    Features are numeric, not yet finite, and come first by `data.features`, else by the preset, else every numeric
    column that is not a role, an index, an id, mostly missing or excluded. `data.n_rows` of a file is a seeded sample
    of its rows, in their order. Lists written as text become lists in the creator and group columns.

    Raises:
        ConfigurationError: a named column is not there.
        DataError: the file is missing, empty, corrupt or not a table, or has no column to cluster.
    """
    opened = _open_catalogue(data, frames) if data.source == "catalogue" else _open_file(data, frames)
    frame = opened.load()
    if not len(frame):
        raise DataError(f"{opened.where} has a header but no rows; give a file with rows")
    rows_in_source = len(frame)
    _identify(frame, opened)
    frame, roles = _with_id(frame, opened.choice)
    opened.source["id_made"] = roles["id"] not in opened.choice.roles.values()
    rows = None
    if data.n_rows is not None and data.n_rows < rows_in_source:
        rows = sample_rows(rows_in_source, data.n_rows, data.seed)
        frame = frame.iloc[rows].reset_index(drop=True)
    frame = opened.join(frame)
    settled = settle(frame, opened.choice, roles, frames, decimal=opened.decimal, where=opened.where)
    return replace(_table(settled, opened, data, rows_in_source), rows=rows)


@dataclass
class _Opened:
    """A source that was looked at, with how to load it."""

    where: str
    choice: Choice
    load: Callable[[], Frame]
    join: Callable[[Frame], Frame] = lambda frame: frame
    decimal: str = "."
    keys: tuple[list[str], list[str]] = ([], [])
    """Columns that may be the id: those named like one, and other text."""
    source: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def _path(data: DataConfig) -> str:
    if not data.path:
        raise ConfigurationError("data.path is missing: name the file to cluster, as in data.path=tracks.csv")
    return data.path


def _open_catalogue(data: DataConfig, frames: Frames) -> _Opened:
    from gpuclust.tracks.catalogue import catalogue

    n_rows = data.n_rows or CATALOGUE_ROWS
    made = catalogue(n_rows, seed=data.seed)
    kinds = {name: "number" if made[name].dtype.kind in "iuf" else "text" for name in made.columns}
    choice = choose(kinds, data, where="the catalogue", tracks=True)
    wanted = [*choice.role_columns, *choice.features]
    source = {"kind": "catalogue", "n_rows": n_rows, "seed": data.seed}
    return _Opened("the catalogue", choice, lambda: frames.from_pandas(made[wanted]), source=source)


def _open_file(data: DataConfig, frames: Frames) -> _Opened:
    path = _path(data)
    seen = look(path)
    join = open_join(data.join, seen.kinds, path, bad_rows=data.bad_rows)
    added = join.kinds if join else {}
    choice = choose(seen.kinds | added, data, where=path, tracks=data.preset == "tracks")
    wanted = {name: None for name in (*choice.role_columns, *choice.features) if name not in added}
    text = {name for role, name in choice.roles.items() if role not in ("popularity", "year")}
    if join:
        wanted[join.left] = None
        text.add(join.left)
    text -= set(choice.features)
    keys = key_candidates(choice, seen.keys, seen.kinds)
    for name in (*keys[0], *keys[1]):
        wanted[name] = None
        text.add(name)
    decimal = next((layout.decimal for layout in seen.layouts), ".")
    opened = _Opened(
        path, choice, lambda: _load(opened, seen, frames, list(wanted), text, data), decimal=decimal, keys=keys
    )
    if join:
        opened.join = lambda frame: _join(opened, frame, join, frames, data)
    return opened


def _load(opened: _Opened, seen: Look, frames: Frames, wanted: list[str], text: set[str], data: DataConfig) -> Frame:
    loaded = load(seen, frames, wanted, text=text)
    opened.source = _describe(seen, loaded, opened.where)
    if bad := loaded.bad_rows(data.bad_rows):
        opened.warnings.append(bad)
    if any(layout.damaged for layout in loaded.layouts):
        opened.notes.append("some bytes do not fit the encoding and were replaced by U+FFFD")
    return loaded.frame


def _describe(seen: Look, loaded: Loaded, where: str) -> dict[str, Any]:
    """How the files are written, for the audit."""
    files = seen.source.files
    description: dict[str, Any] = {
        "kind": "file" if len(files) == 1 else "folder",
        "path": where,
        "files": len(files),
        "bytes": sum(file.stat().st_size for file in files),
        "format": seen.source.format,
        "rows": len(loaded.frame),
    }
    if loaded.layouts:
        layout = loaded.layouts[0]
        encodings = sorted({item.encoding for item in loaded.layouts})
        description |= {
            "separator": layout.separator,
            "encoding": ", ".join(encodings),
            "decimal": layout.decimal,
            "header": layout.header,
            "gzip": layout.compressed,
            "index_column": layout.columns[0] if layout.index_column else None,
            "records_left_out": loaded.n_bad,
        }
    return description


def _join(opened: _Opened, frame: Frame, join: Join, frames: Frames, data: DataConfig) -> Frame:
    used = {*opened.choice.role_columns, *opened.choice.features}
    columns = [name for name in join.kinds if name in used]
    frame, matched, bad = attach(frame, join, frames, columns)
    if bad:
        opened.warnings.append(bad)
    opened.source["join"] = {"path": data.join.path, "columns": columns, "rows_matched": matched}
    return frame


def _identify(frame: Frame, opened: _Opened) -> None:
    """Give the role of the id, where none has it, to a column that has a different value in every row.

    It is the first such column that is named like an id, else the only such column of text.
    """
    named, texts = opened.keys
    name = next((n for n in named if _all_different(frame[n])), None)
    how = "it is named like an id, and no value is repeated"
    if name is None:
        distinct = [n for n in texts if _all_different(frame[n])]
        name = distinct[0] if len(distinct) == 1 else None
        how = "it is the only column of text without repeated values"
    if name is not None:
        opened.choice = opened.choice.with_id(name)
        opened.source |= {"id_column": name, "id_found": how}
        opened.notes.append(f"{name} is the id ({how}); data.roles.id=COLUMN names another")


def _all_different(column: Column) -> bool:
    """Whether a column has a value in every row, each once; numbers have to be whole."""
    if bool(column.isna().any()) or int(column.nunique()) < len(column):
        return False
    return column.dtype.kind != "f" or not bool((column % 1 != 0).any())


def _with_id(frame: Frame, choice: Choice) -> tuple[Frame, dict[str, str]]:
    """The frame with an id column: the row number in the source, counted from 0, where there is none."""
    if "id" in choice.roles:
        return frame, choice.roles
    name = next(n for n in ("id", "row", "row_id", "row_number_in_source") if n not in frame.columns)
    frame[name] = np.arange(len(frame), dtype=np.int64)
    return frame, {"id": name, **choice.roles}


def _table(settled: TypedColumns, opened: _Opened, data: DataConfig, rows_in_source: int) -> Table:
    n_rows = len(settled.frame)
    notes = [*opened.notes, *settled.notes]
    source = opened.source
    if n_rows < rows_in_source:
        notes.append(f"a sample of {n_rows:,} of {rows_in_source:,} rows, drawn with data.seed={data.seed}")
        source = source | {"sample": {"n_rows": n_rows, "seed": data.seed}}
    steps: tuple[Step, ...] = ()
    if settled.text_cells:
        steps = (text_step(settled.text_cells, n_rows),)
    choice = opened.choice
    booleans = [] if choice.named or choice.preset else [o.column for o in choice.left_out if o.why == "boolean"]
    audit = Audit(
        source=source,
        features=settled.features,
        left_out=(*choice.left_out, *settled.left_out),
        steps=steps,
        notes=tuple(notes),
        warnings=(*opened.warnings, *of_columns(booleans, settled.unfit, settled.doubtful)),
        rows_read=n_rows,
        rows_kept=n_rows,
    )
    return Table(settled.frame, Roles(**settled.roles), settled.features, fingerprint(data), audit)
