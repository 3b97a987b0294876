"""The memory that this process may take, and the folder for rows that do not fit in memory."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from gpuclust.config import AUTO, MemoryConfig, bytes_of
from gpuclust.errors import BackendError

CGROUPS = Path("/sys/fs/cgroup")
DISK_FOLDER = Path("/var/tmp")
EFFECTIVE = os.access in os.supports_effective_ids
UNLIMITED = 2**60
"""A cgroup without a limit reports a number above this one."""


def memory_limit(config: MemoryConfig) -> int:
    """The bytes that this process may take in total: ``memory.limit``, or its present memory and what is still available
    (`available_memory`)."""
    if config.limit != AUTO:
        return bytes_of(config.limit)
    return psutil.Process().memory_info().rss + available_memory()


def available_memory() -> int:
    """The bytes that this process can still take: the smallest amount that the machine, the cgroups and the limits of the process leave
    free."""
    process = psutil.Process().memory_info()
    found = [psutil.virtual_memory().available, *_left_by_cgroups()]
    for limit, taken in (
        (resource.RLIMIT_AS, process.vms),
        (resource.RLIMIT_DATA, getattr(process, "data", process.rss)),
    ):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            found.append(soft - taken)
    return max(min(found), 0)


def _left_by_cgroups() -> Iterator[int]:
    """The bytes that each cgroup of this process leaves free; cached file pages count as free."""
    for folder, names in _cgroup_folders():
        with suppress(OSError, ValueError):  # the root has no limit, and "max" is no number
            limit = int((folder / names[0]).read_text())
            used = int((folder / names[1]).read_text())
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            if limit < UNLIMITED:
                yield limit - used + int(statistics.get(names[2], 0))


def _cgroup_folders() -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Each folder of a cgroup that limits this process, with the names of its limit, its use and its file pages."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            root, names = CGROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):  # version 1
            root, names = CGROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        inside = root / path.lstrip("/")
        folders = [inside, *inside.parents] if inside.is_dir() else [root]  # in a container the path may be the host's
        for folder in folders:
            if folder == root or root in folder.parents:
                yield folder, names


def default_folder() -> Path:
    """The system's temporary folder, or /var/tmp where that one is in memory."""
    folder = Path(tempfile.gettempdir())
    return DISK_FOLDER if _in_memory(folder) and os.access(DISK_FOLDER, os.W_OK) else folder


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


def _in_memory(folder: Path) -> bool:
    """Whether a folder is in memory (tmpfs)."""
    mounted = [part for part in psutil.disk_partitions(all=True) if Path(part.mountpoint) in (folder, *folder.parents)]
    return max(mounted, key=lambda part: len(part.mountpoint)).fstype in ("tmpfs", "ramfs") if mounted else False


def free_bytes(folder: Path) -> int:
    """The free bytes of the disk of a folder."""
    return shutil.disk_usage(folder).free
