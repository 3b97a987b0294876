"""A temporary folder for rows that are not held in memory. It is removed at the end of the process.

The process holds a lock on the folder, so that the next process that uses the same place can recognise and remove the folders of
processes that were killed.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpuclust.errors import BackendError
from gpuclust.folders import default_folder, locked, new_locked_folder
from gpuclust.runtime.blocks import DiskWriter
from gpuclust.runtime.pinned import Allocate, PinnedWriter

MARK = "scratch"
"""The file that tells a scratch folder from a user's folder of a similar name."""
_NAME = re.compile(r"gpuclust-\d+-[a-z0-9_]{8}")


class Scratch:
    """A folder ``gpuclust-<process>-<random>`` in ``place`` (by default `default_folder`).

    It and its files are removed by `close`, at the latest at the end of the process; if the process is killed, by the next one that
    opens a scratch folder in the same place. Raises BackendError if no folder can be made there.
    """

    def __init__(self, place: Path | None = None, *, pinned: Allocate | None = None) -> None:
        """With ``pinned`` matrices are in host memory that it gives (`gpuclust.runtime.pinned`), not in files."""
        self._pinned = pinned
        self.place = Path(place or default_folder()).expanduser()
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            _clear_abandoned(self.place)
            self.path, self._lock = new_locked_folder(self.place, f"gpuclust-{os.getpid()}-")
            (self.path / MARK).touch()
        except OSError as error:
            raise BackendError(
                f"{self.place} cannot hold the rows: {error.strerror}; set memory.folder to a folder that can be written"
            ) from error
        self._owner, self._n_files = os.getpid(), 0
        atexit.register(self.close)

    def file(self, name: str) -> Path:
        """A path for a new file; its name begins with ``name``."""
        self._n_files += 1
        return self.path / f"{name}-{self._n_files}"

    def writer(self, name: str, n_columns: int, dtype: Any) -> DiskWriter:
        """A writer of rows (n, n_columns) to a new file."""
        return DiskWriter(self.file(name), n_columns, dtype)

    def matrix_writer(self, n_columns: int, dtype: Any) -> DiskWriter | PinnedWriter:
        """A writer of the rows (n, n_columns) of a matrix, which fits read many times."""
        if self._pinned is not None:
            return PinnedWriter(n_columns, dtype, self._pinned)
        return self.writer("matrix", n_columns, dtype)

    def full(self, error: OSError) -> BackendError:
        """The error to raise if a file cannot be written."""
        return BackendError(
            f"{self.place} cannot hold the rows: {error.strerror or error}; set memory.folder to a larger disk"
        )

    def close(self) -> None:
        """Remove the folder. A process that was forked from the owner removes nothing."""
        atexit.unregister(self.close)
        if self._lock >= 0 and os.getpid() == self._owner:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
        self._lock = -1

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _clear_abandoned(place: Path) -> None:
    """Remove the folders of processes that were killed. A folder that another user owns stays."""
    for path in place.glob("gpuclust-*"):
        if _NAME.fullmatch(path.name) is None or (lock := locked(path)) is None:
            continue
        with suppress(OSError):
            if (path / MARK).exists() or not any(path.iterdir()):
                shutil.rmtree(path, ignore_errors=True)
        os.close(lock)
