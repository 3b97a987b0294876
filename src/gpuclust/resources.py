"""The memory that this process may still take, and amounts of memory as text."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 2**60
"""A cgroup without a limit reports a number above this one."""


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


def gigabytes(size: float) -> str:
    """Bytes in units of 10^9: ``31 GB``, ``3.4 GB`` or ``0.05 GB``."""
    amount = size / 1e9
    return f"{amount:.{0 if amount >= 9.95 else 1 if amount >= 0.995 else 2}f} GB"
