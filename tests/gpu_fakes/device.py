"""The device that the stand-ins share: it counts copies between host and device and kernel launches, and fails on demand."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

UP, DOWN, LAUNCH = "to the device", "to the host", "launch"


@dataclass(frozen=True)
class Event:
    """A copy of ``n_bytes`` in one direction, or a launch of the kernel or library step ``name``.

    ``where`` are the functions of gpuclust that led to it, the innermost first: ``algorithms.kmeans.gpu:fit``.
    """

    kind: str
    n_bytes: int
    name: str
    where: tuple[str, ...]


@dataclass
class Counts:
    """The events of one measurement, in their order."""

    events: list[Event] = field(default_factory=list)

    def of(self, kind: str, within: str = "") -> list[Event]:
        """The events of a kind; ``within``: only those under functions whose name holds this text."""
        return [e for e in self.events if e.kind == kind and (not within or any(within in at for at in e.where))]

    def largest(self, kind: str, within: str = "") -> int:
        """Bytes of the largest copy of a kind."""
        return max((e.n_bytes for e in self.of(kind, within)), default=0)

    def launches(self) -> Counter[str]:
        """Launches by name."""
        return Counter(e.name for e in self.of(LAUNCH))

    def table(self) -> str:
        """One line for each kind, function and size of copies, the most frequent first: for messages of tests."""
        rows = Counter((e.kind, e.name, e.n_bytes, *e.where[:2]) for e in self.events)
        return "\n".join(f"{n:6d} x {' '.join(map(str, row))}" for row, n in rows.most_common())


@dataclass
class Failure:
    """An error that the device raises at the ``after``-th event from now on of a kind whose name holds ``name``; if ``sticky``, at every
    event that follows, as a lost context does."""

    make: Callable[[], Exception]
    kind: str = LAUNCH
    name: str = ""
    after: int = 1
    sticky: bool = False


class Device:
    """Counters and failures of the only device."""

    def __init__(self) -> None:
        self.measurements: list[Counts] = []
        self.failures: list[Failure] = []
        self.lost: Callable[[], Exception] | None = None

    def happened(self, kind: str, n_bytes: int = 0, name: str = "") -> None:
        """Count an event, or raise the failure that is due."""
        if self.lost is not None:
            raise self.lost()
        for failure in self.failures:
            if failure.kind == kind and failure.name in name:
                failure.after -= 1
                if failure.after == 0:
                    self.lost = failure.make if failure.sticky else None
                    raise failure.make()
        if self.measurements:
            event = Event(kind, int(n_bytes), name, _where(sys._getframe(1)))
            for counts in self.measurements:
                counts.events.append(event)

    @contextmanager
    def measure(self) -> Iterator[Counts]:
        """Count the events of the block."""
        counts = Counts()
        self.measurements.append(counts)
        try:
            yield counts
        finally:
            self.measurements.remove(counts)

    @contextmanager
    def failing(self, failure: Failure) -> Iterator[None]:
        """Let the device fail within the block; it is whole again afterwards."""
        self.failures.append(failure)
        try:
            yield
        finally:
            self.failures.remove(failure)
            self.lost = None


DEVICE = Device()


def to_device(n_bytes: int, name: str = "") -> None:
    """Count a copy from the host."""
    DEVICE.happened(UP, n_bytes, name)


def to_host(n_bytes: int, name: str = "") -> None:
    """Count a copy to the host, which waits for the device."""
    DEVICE.happened(DOWN, n_bytes, name)


def launch(name: str) -> None:
    """Count a launch."""
    DEVICE.happened(LAUNCH, 0, name)


def _where(frame: FrameType | None) -> tuple[str, ...]:
    found: list[str] = []
    while frame is not None and len(found) < 12:
        module: Any = frame.f_globals.get("__name__", "")
        if module.startswith("gpuclust."):
            found.append(f"{module.removeprefix('gpuclust.')}:{frame.f_code.co_name}")
        frame = frame.f_back
    return tuple(found)
