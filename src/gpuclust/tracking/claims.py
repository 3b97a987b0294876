"""Claims on jobs: the process that owns a run, whether the process is alive, and the lease that it renews.

A RUNNING run with the key of a job is a claim on the job. Its owner renews a lease. If the lease has expired, or the owner has
ended, the claim is void and another process may run the job.
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
# A live process on this host keeps its claim this long without renewal: the machine may be overloaded.
GRACE_SECONDS = 600.0


def lease() -> str:
    """A new lease: its expiry in seconds since 1970."""
    return f"{time.time() + LEASE_SECONDS:.0f}"


def owner() -> dict[str, str]:
    """The tags of a run owned by this process."""
    process = psutil.Process()
    return {
        HOST: platform.node(),
        PROCESS: f"{process.pid}@{process.create_time():.2f}@{_namespace()}",
        LEASE: lease(),
    }


def is_mine(tags: Mapping[str, str]) -> bool:
    """Whether a run with these tags is owned by this process."""
    return _is_here(tags) and tags.get(PROCESS, "").partition("@")[0] == str(os.getpid()) and _process(tags) is not None


def is_live(tags: Mapping[str, str]) -> bool:
    """Whether the owner of a RUNNING run is still alive, as far as this process can detect."""
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
    """Whether the owner of a RUNNING run has certainly ended: no such process on this host, or a long expired lease."""
    if _is_here(tags):
        return _process(tags) is None
    return LEASE in tags and time.time() - _expiry(tags) > GRACE_SECONDS


def _expiry(tags: Mapping[str, str]) -> float:
    try:
        return float(tags.get(LEASE, "0"))
    except ValueError:
        return 0.0


def _is_here(tags: Mapping[str, str]) -> bool:
    """Whether the process id of the owner is valid here: same host and same container."""
    _, _, rest = tags.get(PROCESS, "").partition("@")
    namespace = rest.partition("@")[2]
    return tags.get(HOST) == platform.node() and namespace in ("", _namespace())


def _namespace() -> str:
    """The PID namespace, which distinguishes the process ids of containers."""
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)  # noqa: PTH116  a link that leads nowhere as a path
    except OSError:
        return ""


def _process(tags: Mapping[str, str]) -> psutil.Process | None:
    """The process of the owner; None if it has ended. The start time is compared too, because ids are reused."""
    pid, _, rest = tags.get(PROCESS, "").partition("@")
    try:
        process = psutil.Process(int(pid))
        same = (
            abs(process.create_time() - float(rest.partition("@")[0])) < 2
        )  # seconds, because the clock may be adjusted
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (ValueError, psutil.Error):
        return None


class Leases:
    """Renews the leases of the open runs in a background thread."""

    def __init__(self, renew: Callable[[str, str], object]) -> None:
        self._renew = renew
        self._open: dict[str, None] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __iter__(self) -> Iterator[str]:
        """The open runs, the latest first."""
        return iter(list(reversed(self._open)))

    def add(self, run_id: str) -> str:
        """Renew the lease of a run until `drop`; return the run id."""
        with self._lock:
            self._open[run_id] = None
            if self._thread is None:
                self._thread = threading.Thread(
                    target=_renew, args=(weakref.ref(self),), name="gpuclust leases", daemon=True
                )
                self._thread.start()
        return run_id

    def drop(self, run_id: str) -> None:
        """Stop renewing the lease of a run."""
        with self._lock:
            self._open.pop(run_id, None)

    def renew(self) -> bool:
        """Renew every lease once. Returns False, which ends the thread, if no run is open."""
        with self._lock:
            if not self._open:
                self._thread = None
                return False
            runs = list(self._open)
        for run_id in runs:
            if run_id in self._open:
                with suppress(Exception):  # the store is unavailable: try again in the next round
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
