"""The memory that this process may take, and the folder for rows that do not fit in memory."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import psutil

from gpuclust.config import AUTO, MemoryConfig, bytes_of
from gpuclust.errors import BackendError
from gpuclust.folders import default_folder
from gpuclust.resources import available_memory

EFFECTIVE = os.access in os.supports_effective_ids


def memory_limit(config: MemoryConfig) -> int:
    """The bytes that this process may take in total: ``memory.limit``, or its present memory and what is still available
    (`available_memory`)."""
    if config.limit != AUTO:
        return bytes_of(config.limit)
    return psutil.Process().memory_info().rss + available_memory()


def scratch_folder(config: MemoryConfig) -> Path:
    """``memory.folder``; else the system's temporary folder, or /var/tmp where that one is in memory.

    Raises BackendError where it is not a folder that can be written.
    """
    if config.folder is not None:
        try:
            folder = Path(config.folder).expanduser()
        except RuntimeError as error:
            raise BackendError(
                f"memory.folder={config.folder}: there is no user of that name; give the path in full"
            ) from error
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
    else:
        folder = default_folder()
    usable = False
    with suppress(OSError):
        usable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK, effective_ids=EFFECTIVE)
    if not usable:
        raise BackendError(f"memory.folder={folder} cannot be written; name a folder on a disk with free space")
    return folder.absolute()


def free_bytes(folder: Path) -> int:
    """The free bytes of the disk of a folder."""
    return shutil.disk_usage(folder).free
