"""Locate the index of an export, and build it once even if several processes need it.

The index is ``.index/KEY`` in the export folder, or in the user's cache folder if the export is read-only. KEY is made from
the manifest and the version of the index, so another export under the same name has another index. The index is built in
a temporary folder under a file lock and then renamed: an existing KEY is complete. Other processes wait for the lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gpuclust.errors import ExportError, GpuclustError, message_of
from gpuclust.model.manifest import ASSIGNMENTS, Manifest, opened, verify
from gpuclust.resources import available_memory, gigabytes
from gpuclust.serve.export_reader import SMALLER, index_bytes
from gpuclust.serve.index.build import VERSION, Progress, build, stamp_of

FOLDER, INFO = ".index", "index.json"
OWN_FOLDER = re.compile(r"v\d+-\w+(\.part-.+)?")  # folders made by this module


def find_or_build(manifest: Manifest, progress: Progress) -> Path:
    """The folder of the index of an export, built if necessary. Raises ExportError if it cannot be written."""
    key = key_of(manifest)
    for parent in candidate_dirs(manifest):
        if (info := read_index_info(parent / key)) is not None:
            _check_source(manifest, parent / key, info)
            return parent / key
    for parent in candidate_dirs(manifest):
        if parent.is_symlink():  # a link in a foreign export may point anywhere
            continue
        try:
            parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=parent):
                pass
        except OSError:
            continue
        return _build_in(parent, key, manifest, progress)
    raise ExportError(
        f"no index can be written in {' or in '.join(str(parent) for parent in candidate_dirs(manifest))}; "
        "make one of them writable, or name another place in XDG_CACHE_HOME"
    )


def key_of(manifest: Manifest) -> str:
    """The name of an index: the digest of the manifest and the version of the index."""
    return f"v{VERSION}-{manifest.index_digest[:24]}"


def candidate_dirs(manifest: Manifest) -> tuple[Path, Path]:
    """The folders that may hold indexes of an export: one in the export and one in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(str(manifest.folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return manifest.folder / FOLDER, cache / "gpuclust" / name


def read_index_info(index: Path) -> dict[str, Any] | None:
    """Read ``index.json``; None if the index does not exist, has another version, or contains anything but regular files."""
    try:
        if index.is_symlink() or index.parent.is_symlink():
            return None
        if not all(stat.S_ISREG(path.lstat().st_mode) for path in index.iterdir()):
            return None
        info = json.loads((index / INFO).read_text(encoding="utf-8"))
        return dict(info) if info["version"] == VERSION else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _check_source(manifest: Manifest, index: Path, info: Mapping[str, Any]) -> None:
    """Raise ExportError if the file of the rows is not the indexed one.

    The digest is computed only if the size or the modification time has changed; both are then stored.
    """
    stamp = stamp_of(manifest)
    if info.get("source") == stamp:
        return
    with opened(manifest.folder, ASSIGNMENTS) as file:
        verify(file, manifest, ASSIGNMENTS)
    with suppress(OSError):  # the index of another user may be read-only
        with tempfile.NamedTemporaryFile("w", dir=index, prefix=f".{INFO}.", delete=False, encoding="utf-8") as written:
            written.write(json.dumps({**info, "source": stamp}) + "\n")
        Path(written.name).chmod(0o644)
        Path(written.name).rename(index / INFO)


def size_of(index: Path) -> int:
    """Size of an index on disk in bytes."""
    return sum(path.stat().st_size for path in index.iterdir())


def _build_in(parent: Path, key: str, manifest: Manifest, progress: Progress) -> Path:
    try:
        with _locked(parent / "lock", progress):
            if read_index_info(parent / key) is not None:  # another process built it while this one waited
                return parent / key
            temporary = Path(tempfile.mkdtemp(prefix=f"{key}.part-", dir=parent))
            try:
                _build_checked(manifest, temporary, progress)
                _remove_stale(parent, but=temporary)
                temporary.chmod(0o755)
                temporary.rename(parent / key)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ExportError(f"the index cannot be written in {parent} ({reason}); free some space there") from error
    return parent / key


def _build_checked(manifest: Manifest, folder: Path, progress: Progress) -> None:
    """Build an index; convert the errors caused by a damaged export to ExportError."""
    n_rows, needed = index_bytes(manifest)
    if needed > (free := available_memory()):
        raise ExportError(
            f"the index of {manifest.folder} ({n_rows:,} rows) needs about {gigabytes(needed)} of memory while it is built, and "
            f"{gigabytes(free)} are free; {SMALLER}"
        )
    try:
        build(manifest, folder, progress)
    except (OSError, sqlite3.Error, GpuclustError):
        raise
    except MemoryError as error:
        raise ExportError(f"{manifest.folder} does not fit into memory; {SMALLER}") from error
    except Exception as error:  # Arrow, NumPy and Python raise many types of errors for damaged data
        reason = message_of(error) or type(error).__name__
        raise ExportError(f"{manifest.folder} is damaged ({reason}); export it again") from error


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    """Hold an exclusive lock. The system releases it if the process is killed."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK  # do not follow links, do not wait for a FIFO
    with os.fdopen(os.open(path, flags, 0o644), "rb+", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another process is building the index", 0.0)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_stale(parent: Path, but: Path) -> None:
    """Remove stale indexes and partial builds. Processes that have them open are unaffected."""
    for path in parent.iterdir():
        if path != but and OWN_FOLDER.fullmatch(path.name):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
