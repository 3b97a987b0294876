"""Whose run it is: the process that owns it, whether that process still lives, and the lease that it renews.

A RUNNING run with a job's key is a claim on the job. Its owner renews a lease on it; when the lease has expired, or the owner
is known to have ended, the claim is void and another process may take the job.
"""

from __future__ import annotations

import os
import platform
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import psutil

HOST, PROCESS, LEASE, TICKET = "gpuclust.host", "gpuclust.process", "gpuclust.lease", "gpuclust.ticket"

LEASE_SECONDS = 60.0
RENEW_SECONDS = 10.0
# A process that is alive on this host keeps its claim so long without renewing it: the machine may be overloaded.
GRACE_SECONDS = 600.0


def lease() -> str:
    """A lease from now on: the second since 1970 at which it expires."""
    return f"{time.time() + LEASE_SECONDS:.0f}"


def owner() -> dict[str, str]:
    """The tags of a run that this process owns."""
    process = psutil.Process()
    return {
        HOST: platform.node(),
        PROCESS: f"{process.pid}@{process.create_time():.2f}@{_namespace()}",
        LEASE: lease(),
    }


def is_mine(tags: Mapping[str, str]) -> bool:
    """Whether a run with these tags is this process's own."""
    return _is_here(tags) and tags.get(PROCESS, "").partition("@")[0] == str(os.getpid()) and _process(tags) is not None


def is_live(tags: Mapping[str, str]) -> bool:
    """Whether the owner of a RUNNING run still works on it, as far as this process can know."""
    overdue = time.time() - _expiry(tags)
    if not _is_here(tags):
        return overdue < 0
    process = _process(tags)
    if process is None:
        return False
    with suppress(psutil.Error):
        if process.status() == psutil.STATUS_STOPPED:
            return overdue < 0
    return overdue < GRACE_SECONDS or LEASE not in tags


def is_abandoned(tags: Mapping[str, str]) -> bool:
    """Whether the owner of a RUNNING run certainly ended: gone from this host, or long overdue elsewhere."""
    if _is_here(tags):
        return _process(tags) is None
    return LEASE in tags and time.time() - _expiry(tags) > GRACE_SECONDS


def _expiry(tags: Mapping[str, str]) -> float:
    try:
        return float(tags.get(LEASE, "0"))
    except ValueError:
        return 0.0


def _is_here(tags: Mapping[str, str]) -> bool:
    """Whether the owner's process id means something here: the same host, and not another container on it."""
    _, _, rest = tags.get(PROCESS, "").partition("@")
    namespace = rest.partition("@")[2]
    return tags.get(HOST) == platform.node() and namespace in ("", _namespace())


def _namespace() -> str:
    """What tells the process ids of one container from those of another."""
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)  # noqa: PTH116  a link that leads nowhere as a path
    except OSError:
        return ""


def _process(tags: Mapping[str, str]) -> psutil.Process | None:
    """The owner's process; None when it ended: its id may have been given out again, so its start counts too."""
    pid, _, rest = tags.get(PROCESS, "").partition("@")
    try:
        process = psutil.Process(int(pid))
        same = abs(process.create_time() - float(rest.partition("@")[0])) < 2  # seconds: the clock may be corrected
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (ValueError, psutil.Error):
        return None


class Leases:
    """Renews the lease of each open run in the background, so that a long job keeps its claim."""

    def __init__(self, renew: Callable[[str, str], object]) -> None:
        self._renew = renew
        self._open: dict[str, None] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __iter__(self) -> Iterator[str]:
        """The open runs, the latest first."""
        return iter(list(reversed(self._open)))

    def add(self, run_id: str) -> str:
        """Renew the lease of a run until it is dropped; the run."""
        with self._lock:
            self._open[run_id] = None
            if self._thread is None:
                self._thread = threading.Thread(
                    target=_renew, args=(weakref.ref(self),), name="gpuclust leases", daemon=True
                )
                self._thread.start()
        return run_id

    def drop(self, run_id: str) -> None:
        """Renew no longer: the run was closed."""
        with self._lock:
            self._open.pop(run_id, None)

    def renew(self) -> bool:
        """Renew every lease once; False, and the thread is over, where no run is open."""
        with self._lock:
            if not self._open:
                self._thread = None
                return False
            runs = list(self._open)
        for run_id in runs:
            if run_id in self._open:
                with suppress(Exception):  # the store is away: the next round tries again
                    self._renew(run_id, lease())
        return True


def _renew(leases: weakref.ref[Leases]) -> None:
    """Renew until no run is open, or until the recorder that owns the leases is gone."""
    while True:
        time.sleep(RENEW_SECONDS)
        found = leases()
        if found is None or not found.renew():
            return
        del found
