"""Find the files of a table, detect their format, and compute a digest of their content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from glob import glob
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from gpuclust.config import DataConfig, did_you_mean
from gpuclust.data.remote import WILD, RemoteFile, is_remote, list_files, without_query
from gpuclust.errors import DataError

if TYPE_CHECKING:
    from gpuclust.data.query import Query

EXTENSIONS = {
    ".parquet": "parquet", ".pq": "parquet", ".feather": "feather", ".arrow": "feather", ".ipc": "feather",
    ".csv": "csv", ".tsv": "csv", ".tab": "csv", ".psv": "csv", ".txt": "csv",
    ".jsonl": "json", ".ndjson": "json", ".xlsx": "excel", ".xlsm": "excel",
}  # fmt: skip
COPIED = ("json", "excel")
"""Formats that are read from an Arrow copy."""
MAGIC = {b"PAR1": "parquet", b"ARRO": "feather"}
FOOTER_BYTES = 1 << 16
"""Bytes of the request for a Parquet footer."""
REQUESTS = 16
"""The number of files whose fingerprints are requested at once."""

TableFile = Path | RemoteFile


@dataclass(frozen=True)
class Origin:
    """What Arrow copies were made from: ``files`` of the format ``json`` or ``excel`` (of one ``sheet``), or the result of a ``query``, which
    ``engine`` computed and ``digest`` identifies."""

    format: str
    files: tuple[TableFile, ...] = ()
    sheet: str | None = None
    query: Query | None = None
    engine: str = ""
    digest: str = ""


@dataclass(frozen=True)
class TableFiles:
    """The files of one table, sorted by name (or in the order of a list), all in one format: ``csv``, ``parquet`` or ``feather``.

    ``origin``: what they are copies of, where they are.
    """

    paths: tuple[TableFile, ...]
    format: str
    origin: Origin | None = None


def find_files(location: str) -> TableFiles:
    """Find the file at a path, the table files in a folder and its sub-folders, the files that match a pattern, or those of a list; or
    run a query.

    A path may be the address of a store or a web address (`gpuclust.data.remote`). ``location`` may also be a query, or a
    `DataConfig.location`. The format follows from the first bytes of a file if they identify one, else from its extension. Hidden files
    are skipped. JSON lines, sheets and results of queries are copied to Arrow files. A folder that is a Delta or Iceberg table is read as
    the query of all its rows.

    Raises:
        DataError: the path does not exist or cannot be opened, the formats differ, or the query fails.
    """
    source = DataConfig().at(location)
    query = _query(source)
    if query is not None:
        from gpuclust.data.query import run_query

        result = run_query(query)
        origin = Origin("query", query=query, engine=result.engine, digest=result.digest)
        return TableFiles((result.path,), "feather", origin)
    path = source.path
    parts = split_paths(path)
    files = [file for part in parts for file in _files_at(part)]
    formats = {_format(file) for file in files}
    if len(formats) > 1:
        where = "a folder" if len(parts) == 1 else "the list"
        raise DataError(f"{path} mixes {' and '.join(sorted(formats))} files; keep one format in {where}")
    (format,) = formats
    if source.sheet is not None and format != "excel":
        raise DataError(f"data.sheet={source.sheet} is for an Excel workbook, and {path} is {format}; leave it out")
    if format not in COPIED:
        return TableFiles(tuple(files), format)
    copies = tuple(_copy(file, format, source.sheet, file_version(file)) for file in files)
    return TableFiles(copies, "feather", Origin(format, tuple(files), source.sheet))


def _query(source: DataConfig) -> Query | None:
    """The query of a source; for a folder that is a Delta or Iceberg table, the one of all its rows."""
    from gpuclust.data.lake_tables import query_of
    from gpuclust.data.query import Query

    if source.query is not None:
        return Query(source.query, source.database, source.folder)
    parts = split_paths(source.path)
    if len(parts) > 1 or is_remote(parts[0]):
        return None
    text = query_of(_local(parts[0]))
    return Query(text) if text else None


def _files_at(path: str) -> Sequence[TableFile]:
    """The files at one path. In a folder, JSON and Excel files beside others are no part of the table."""

    def wanted(name: str) -> bool:
        if name.startswith("_delta_log/"):
            raise DataError(f"{path} is a Delta table; read it with data.query=\"from delta_scan('{path}')\"")
        return _is_table(name)

    files: Sequence[TableFile] = list_files(path, wanted) if is_remote(path) else _local_files(path)
    if len(files) == 1 or WILD.search(path):
        return files
    plain = [file for file in files if _extension(file.name) not in COPIED]
    return plain or files


def file_version(file: TableFile) -> tuple[int, int] | None:
    """What tells a local file from its earlier contents; a remote file knows its own version."""
    if isinstance(file, RemoteFile):
        return None
    status = file.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=4096)
def _copy(file: TableFile, format: str, sheet: str | None, version: tuple[int, int] | None) -> Path:
    """The Arrow copy of a file, made once."""
    from gpuclust.data.copies import write_copy
    from gpuclust.data.excel import read_sheet
    from gpuclust.data.json_lines import json_tables

    del version  # a part of the cache's key
    return write_copy([read_sheet(file, sheet)] if format == "excel" else json_tables(file), file.name)


def join_paths(paths: Any) -> str | None:
    """``data.path`` as one text: one path unchanged, several as a JSON list (`split_paths` reads it)."""
    if isinstance(paths, Sequence) and not isinstance(paths, str):
        texts = [str(path) for path in paths]
        return texts[0] if len(texts) == 1 else json.dumps(texts, ensure_ascii=False)
    return None if paths is None else str(paths)


def split_paths(path: str) -> list[str]:
    """The paths that ``data.path`` names: one, or those of a list. Raises DataError for a list without paths."""
    if not path.startswith("["):
        return [path]
    try:
        found = json.loads(path)
    except ValueError:
        return [path]  # a file whose name begins with a bracket
    if not found or not all(isinstance(item, str) and item for item in found):
        raise DataError(f"{path} is not a list of paths; give them as in [a.parquet,b.parquet]")
    return [str(item) for item in found]


def absolute_path(path: str) -> str:
    """The absolute path, or those of a list; addresses and queries are unchanged. Raises RuntimeError if the user of ``~name`` does not exist."""
    if DataConfig().at(path).query is not None:
        return path
    parts = [
        p if is_remote(p) else str(Path(p.removeprefix("file://")).expanduser().absolute()) for p in split_paths(path)
    ]
    return join_paths(parts) or ""


def short_name(path: str) -> str:
    """The name of the file at a path, without its folder; of a list the first one's and how many more; of a query what it reads."""
    if (query := DataConfig().at(path).query) is not None:
        from gpuclust.data.query import Query

        return Query(query).name
    first, *others = split_paths(path)
    name = Path(without_query(first)[0] if is_remote(first) else first).name
    return f"{name} and {len(others)} more" if others else name


def _local(path: str) -> Path:
    return expand_user(path.removeprefix("file://"))


def _local_files(path: str) -> list[Path]:
    place = _local(path)
    if place.is_dir():
        from gpuclust.data.lake_tables import query_of

        if text := query_of(place):
            raise DataError(
                f'{path} is a Delta or Iceberg table, which is no part of a list; read it with data.query="{text}"'
            )
        files = sorted(p for p in place.rglob("*") if p.is_file() and _is_table(p.relative_to(place).as_posix()))
        if not files:
            raise DataError(
                f"{path} is a folder without table files; give CSV, TSV, JSON lines, Parquet, Feather or Excel"
            )
        return files
    if place.is_file():
        return [place]
    above = next(folder for folder in (place, *place.parents) if os.path.lexists(folder))
    pattern = str(place.relative_to(above))
    if WILD.search(pattern):  # in the part of the path that does not exist as it is written
        found = (above / name for name in glob(pattern, root_dir=above, recursive=True))  # noqa: PTH207
        if matching := sorted(file for file in found if file.is_file()):
            return matching
        raise DataError(f"{path} matches no file; check the pattern")
    raise DataError(_missing_reason(path, place))


def expand_user(path: str) -> Path:
    """Expand ``~`` to the home folder. Raises DataError if the user does not exist."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path}: there is no user of that name; give the path in full") from error


def _missing_reason(path: str, place: Path) -> str:
    try:
        place.stat()
    except FileNotFoundError:
        if place.is_symlink():
            return f"{path} is a link to {place.readlink()}, which does not exist; check the link"
    except OSError as error:
        return f"{path} cannot be opened: {error.strerror}"
    else:
        return f"{path} is neither a file nor a folder but a pipe, a socket or a device; write the table into a file"
    return f"{path} does not exist; check the path{_similar_names(place)}"


def _is_table(name: str) -> bool:
    """Whether a file below a folder is a part of a table, by its path in the folder."""
    path = PurePosixPath(name)
    return not any(part.startswith((".", "_")) for part in path.parts) and _extension(path.name) is not None


def _extension(name: str) -> str | None:
    return EXTENSIONS.get(PurePosixPath(name.lower().removesuffix(".gz")).suffix)


def _similar_names(place: Path) -> str:
    folder = place.parent
    return did_you_mean(place.name, [p.name for p in folder.iterdir()] if folder.is_dir() else [])


def _format(path: TableFile) -> str:
    try:
        with path.open("rb", buffering=64) as file:
            magic = file.read(4)
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}") from error
    if not magic:
        raise DataError(f"{path} is empty; give a file with a header and rows")
    if magic == b"FEA1":
        raise DataError(f"{path} is Feather version 1; write it again as Feather version 2 or Parquet")
    named = _extension(path.name) or ("json" if path.name.lower().removesuffix(".gz").endswith(".json") else "csv")
    if magic not in MAGIC and named == "parquet":
        raise DataError(f"{path} is not a Parquet file: it does not begin with PAR1; write or fetch it again")
    return MAGIC.get(magic, named)


def content_digest(files: TableFiles) -> str:
    """SHA-256 of the bytes of all files, in order, or of the values of a query's result. An unchanged file is not read again.

    A remote file is not read: its digest is computed from its size, its ETag (else its modification time) and, for Parquet, its footer.
    """
    origin = files.origin
    if origin is not None and origin.digest:
        return origin.digest
    paths = files.paths if origin is None else origin.files
    with ThreadPoolExecutor(REQUESTS) as pool:  # a remote file costs two requests
        parts = list(pool.map(lambda path: _digest(path, files.format if origin is None else origin.format), paths))
    if origin is not None and origin.sheet is not None:
        parts.append(origin.sheet)
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


def _digest(path: TableFile, format: str) -> str:
    if isinstance(path, RemoteFile):
        return _remote_digest(path, format)
    status = path.stat()
    return _file_digest(str(path.resolve()), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _remote_digest(file: RemoteFile, format: str) -> str:
    found = hashlib.sha256(f"{file.size} {file.tag()} ".encode())
    if format == "parquet":
        found.update(_footer(file))
    return found.hexdigest()


def _footer(file: RemoteFile) -> bytes:
    """The metadata at the end of a Parquet file, whose length is in its last 8 bytes; nothing if they are damaged."""
    with file.open(buffering=FOOTER_BYTES) as stream:
        stream.seek(-min(8, file.size), os.SEEK_END)
        length = int.from_bytes(stream.read(4), "little")
        if not 0 < length <= file.size - 8:
            return b""
        stream.seek(-8 - length, os.SEEK_END)
        return stream.read(length)


@lru_cache(maxsize=4096)
def _file_digest(path: str, size: int, mtime_ns: int) -> str:
    del size, mtime_ns  # parts of the cache's key
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
