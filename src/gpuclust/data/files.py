"""Find the files of a table, detect their format, and compute a digest of their content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gpuclust.config import did_you_mean
from gpuclust.errors import DataError

EXTENSIONS = {
    ".parquet": "parquet", ".pq": "parquet", ".feather": "feather", ".arrow": "feather", ".ipc": "feather",
    ".csv": "csv", ".tsv": "csv", ".tab": "csv", ".psv": "csv", ".txt": "csv",
}  # fmt: skip
MAGIC = {b"PAR1": "parquet", b"ARRO": "feather"}


@dataclass(frozen=True)
class TableFiles:
    """The files of one table, sorted by name, all in one format: ``csv``, ``parquet`` or ``feather``."""

    paths: tuple[Path, ...]
    format: str


def find_files(path: str) -> TableFiles:
    """Find the file at a path, or the table files in a folder and its sub-folders.

    The format follows from the first bytes of a file if they identify one, else from its extension. Hidden files are
    skipped.

    Raises:
        DataError: the path does not exist or cannot be opened, or the formats differ.
    """
    place = expand_user(path)
    if place.is_dir():
        files = sorted(p for p in place.rglob("*") if p.is_file() and _visible(p, place) and _extension(p))
        if not files:
            raise DataError(f"{path} is a folder without table files; give CSV, TSV, Parquet or Feather")
    elif place.is_file():
        files = [place]
    else:
        raise DataError(_missing_reason(path, place))
    formats = {_format(p) for p in files}
    if len(formats) > 1:
        raise DataError(f"{path} mixes {' and '.join(sorted(formats))} files; keep one format in a folder")
    return TableFiles(tuple(files), formats.pop())


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


def _visible(path: Path, place: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in path.relative_to(place).parts)


def _extension(path: Path) -> str | None:
    name = path.with_suffix("") if path.suffix == ".gz" else path
    return EXTENSIONS.get(name.suffix.lower())


def _similar_names(place: Path) -> str:
    folder = place.parent
    return did_you_mean(place.name, [p.name for p in folder.iterdir()] if folder.is_dir() else [])


def _format(path: Path) -> str:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}") from error
    if not magic:
        raise DataError(f"{path} is empty; give a file with a header and rows")
    if magic == b"FEA1":
        raise DataError(f"{path} is Feather version 1; write it again as Feather version 2 or Parquet")
    named = _extension(path) or "csv"
    if magic not in MAGIC and named == "parquet":
        raise DataError(f"{path} is not a Parquet file: it does not begin with PAR1; write or fetch it again")
    return MAGIC.get(magic, named)


def content_digest(files: TableFiles) -> str:
    """SHA-256 of the bytes of all files, in order. An unchanged file is not read again."""
    parts = []
    for path in files.paths:
        status = path.stat()
        parts.append(_file_digest(str(path.resolve()), status.st_size, status.st_mtime_ns))
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


@lru_cache(maxsize=4096)
def _file_digest(path: str, size: int, mtime_ns: int) -> str:
    del size, mtime_ns  # parts of the cache's key
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
