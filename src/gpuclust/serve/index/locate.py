"""Where the index of an export is kept, and how several processes agree on who builds it.

``.index/KEY`` inside the export folder, or below the user's cache folder where the export cannot be written. KEY is made
of the manifest and the version of the index, so another export under the same name has another index. It is built in a
temporary folder under a file lock and renamed: a KEY that exists is whole. Who comes second waits and finds it.
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
from gpuclust.serve.index.build import VERSION, Progress, build, stamp_of
from gpuclust.serve.manifest import ASSIGNMENTS, Manifest, opened, verify

FOLDER, INFO = ".index", "index.json"
OWN_FOLDER = re.compile(r"v\d+-\w+(\.part-.+)?")  # names of folders that this module makes


def find_or_build(manifest: Manifest, progress: Progress) -> Path:
    """The folder of the index of an export, built if there is none. Raises ExportError when it cannot be written."""
    key = key_of(manifest)
    for parent in candidate_dirs(manifest):
        if (info := read_index_info(parent / key)) is not None:
            _check_source(manifest, parent / key, info)
            return parent / key
    for parent in candidate_dirs(manifest):
        if parent.is_symlink():  # in an export from elsewhere it may lead anywhere
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
    """What an index is called: the manifest's digest and the version of the index's files."""
    return f"v{VERSION}-{manifest.digest[:24]}"


def candidate_dirs(manifest: Manifest) -> tuple[Path, Path]:
    """Where indexes of an export may be: beside it, and in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(str(manifest.folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return manifest.folder / FOLDER, cache / "gpuclust" / name


def read_index_info(index: Path) -> dict[str, Any] | None:
    """What ``index.json`` says, or None when the index is not there, is of another version, or is not a folder of plain
    files alone."""
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
    """Raises ExportError where the rows' file is not the one that was indexed. Its digest is computed when its size or its
    time of change is another, and these are remembered."""
    stamp = stamp_of(manifest)
    if info.get("source") == stamp:
        return
    with opened(manifest.folder, ASSIGNMENTS) as file:
        verify(file, manifest, ASSIGNMENTS)
    with suppress(OSError):  # another's index may be read only
        with tempfile.NamedTemporaryFile("w", dir=index, prefix=f".{INFO}.", delete=False, encoding="utf-8") as written:
            written.write(json.dumps({**info, "source": stamp}) + "\n")
        Path(written.name).chmod(0o644)
        Path(written.name).rename(index / INFO)


def size_of(index: Path) -> int:
    """Bytes on disk."""
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
    """Build an index; what a damaged export makes of that is an ExportError."""
    try:
        build(manifest, folder, progress)
    except (OSError, sqlite3.Error, GpuclustError):
        raise
    except MemoryError as error:
        raise ExportError(f"{manifest.folder} does not fit into memory") from error
    except Exception as error:  # the values of a column are not what its type says: Arrow, NumPy and Python complain
        reason = message_of(error) or type(error).__name__
        raise ExportError(f"{manifest.folder} is damaged ({reason}); export it again") from error


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    """Hold an exclusive lock; it ends with the process, however that ends."""
    flags = (
        os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    )  # no link elsewhere, no FIFO that would be waited for
    with os.fdopen(os.open(path, flags, 0o644), "rb+", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another process is building the index", 0.0)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_stale(parent: Path, but: Path) -> None:
    """Remove indexes of earlier exports and what killed builds left; who has them open keeps what is open."""
    for path in parent.iterdir():
        if path != but and OWN_FOLDER.fullmatch(path.name):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
