"""Which files a path means, in which format, and what identifies their content."""

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
class Source:
    """The files of one table, sorted by name, all in one format: ``csv``, ``parquet`` or ``feather``."""

    files: tuple[Path, ...]
    format: str


def find(path: str) -> Source:
    """The file at a path, or the table files of a folder and its sub-folders.

    The first bytes decide the format where they can, then the name's ending; hidden files are passed over.

    Raises:
        DataError: there is nothing there, it cannot be opened, or the formats differ.
    """
    place = expanded(path)
    if place.is_dir():
        files = sorted(p for p in place.rglob("*") if p.is_file() and _visible(p, place) and _extension(p))
        if not files:
            raise DataError(f"{path} is a folder without table files; give CSV, TSV, Parquet or Feather")
    elif place.is_file():
        files = [place]
    else:
        raise DataError(_why_absent(path, place))
    formats = {_format(p) for p in files}
    if len(formats) > 1:
        raise DataError(f"{path} mixes {' and '.join(sorted(formats))} files; keep one format in a folder")
    return Source(tuple(files), formats.pop())


def expanded(path: str) -> Path:
    """The path with ``~`` as the home folder. Raises DataError where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path}: there is no user of that name; give the path in full") from error


def _why_absent(path: str, place: Path) -> str:
    try:
        place.stat()
    except FileNotFoundError:
        if place.is_symlink():
            return f"{path} is a link to {place.readlink()}, which does not exist; check the link"
    except OSError as error:
        return f"{path} cannot be opened: {error.strerror}"
    else:
        return f"{path} is neither a file nor a folder but a pipe, a socket or a device; write the table into a file"
    return f"{path} does not exist; check the path{_neighbours(place)}"


def _visible(path: Path, place: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in path.relative_to(place).parts)


def _extension(path: Path) -> str | None:
    name = path.with_suffix("") if path.suffix == ".gz" else path
    return EXTENSIONS.get(name.suffix.lower())


def _neighbours(place: Path) -> str:
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


def digest(source: Source) -> str:
    """SHA-256 of the bytes of all files, in order. A file that has not changed since is not read again."""
    parts = []
    for path in source.files:
        status = path.stat()
        parts.append(_file_digest(str(path.resolve()), status.st_size, status.st_mtime_ns))
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


@lru_cache(maxsize=4096)
def _file_digest(path: str, size: int, mtime_ns: int) -> str:
    del size, mtime_ns  # parts of the cache's key
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
