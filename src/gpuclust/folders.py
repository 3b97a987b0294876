"""Output folders that are complete or absent, even if the process that writes them is killed; the folder for temporary files.

A folder is written under a hidden name beside its final one and then renamed. The process holds a lock on the hidden folder,
so that the next process can recognise and remove hidden folders left by a killed one. (filelock cannot lock a folder.)
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from gpuclust.errors import ExportError

HIDDEN = ".gpuclust-"
# Suffix of a folder that was moved away because the file system cannot exchange two folders.
OLD = ".old"
DISK_FOLDER = Path("/var/tmp")


@contextmanager
def whole_folder(out: Path, force: bool) -> Iterator[Path]:
    """Yield a temporary folder that gets the name ``out`` when the block ends without an error.

    With ``force`` it replaces an existing folder. Raises ExportError if it cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _clear_abandoned(out)
        temporary, lock = new_locked_folder(out.parent, f".{out.name}{HIDDEN}")
    except OSError as error:
        raise ExportError(f"{out} cannot be written ({error.strerror}); name another --out") from error
    try:
        temporary.chmod(0o755)
        yield temporary
        if force and os.path.lexists(out):
            _replace(out, temporary)
        else:
            temporary.rename(out)
    except OSError as error:
        raise ExportError(
            f"{out} cannot be written ({error.strerror or error}); free some space or name another --out"
        ) from error
    finally:
        _remove(temporary)
        os.close(lock)


def new_locked_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    """Create a folder; return it with the descriptor that locks it. Retries if another process removed it first."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = locked(path)
        if lock is not None and path.is_dir():
            return path, lock
        if lock is not None:
            os.close(lock)


def locked(path: Path) -> int | None:
    """A descriptor that locks a folder; None if another process holds the lock or the folder is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _clear_abandoned(out: Path) -> None:
    """Remove hidden folders that killed processes left, or restore the folder that one of them was replacing."""
    for path in sorted(out.parent.glob(f".{escape(out.name)}{HIDDEN}*"), key=lambda p: not p.name.endswith(OLD)):
        lock = locked(path)
        if lock is None:
            continue
        if path.name.endswith(OLD) and not os.path.lexists(out):
            path.rename(out)
        else:
            _remove(path)
        os.close(lock)


def _replace(out: Path, new: Path) -> None:
    """Replace a folder by another: in one step if the file system can, so that one of them always exists."""
    if _exchanged(new, out):
        return
    old = new.with_name(new.name + OLD)
    lock = locked(out)
    try:
        out.rename(old)
        try:
            new.rename(out)
        except OSError:
            old.rename(out)
            raise
    finally:
        if lock is not None:
            os.close(lock)
    _remove(old)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False if the system or the file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    here, exchange = -100, 2  # AT_FDCWD; RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
    names = os.fsencode(one), os.fsencode(other)
    with suppress(AttributeError):
        if sys.platform == "darwin":
            return int(libc.renamex_np(*names, exchange)) == 0
        return int(libc.renameat2(here, names[0], here, names[1], exchange)) == 0
    return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def default_folder() -> Path:
    """The system's temporary folder, or /var/tmp where that one is in memory."""
    folder = Path(tempfile.gettempdir())
    return DISK_FOLDER if _in_memory(folder) and os.access(DISK_FOLDER, os.W_OK) else folder


def _in_memory(folder: Path) -> bool:
    """Whether a folder is in memory (tmpfs)."""
    import psutil

    mounted = [part for part in psutil.disk_partitions(all=True) if Path(part.mountpoint) in (folder, *folder.parents)]
    return max(mounted, key=lambda part: len(part.mountpoint)).fstype in ("tmpfs", "ramfs") if mounted else False
