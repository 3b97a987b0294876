"""The CPU backend: NumPy arrays and pandas frames."""

from __future__ import annotations

import os
import platform
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gpuclust.data.frames import PandasFrames


class CpuBackend:
    """The CPU and host memory; `gpuclust.runtime.backend.Backend` documents the methods."""

    name = "cpu"
    xp = np

    def __init__(self) -> None:
        self.frames = PandasFrames()

    @cached_property
    def device(self) -> str:
        """The name of the processor and the number of cores."""
        return f"{_processor()} ({_cores()} cores)"

    def to_host(self, array: np.ndarray) -> np.ndarray:
        """The array itself."""
        return array

    def to_device(self, array: np.ndarray) -> np.ndarray:
        """The array itself."""
        return array

    def host_array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """A new array, whose values are undefined."""
        return np.empty(shape, dtype)

    def errors(self, what: str) -> AbstractContextManager[None]:
        """Errors as they are."""
        return nullcontext()


def _cores() -> int:
    """The number of cores that this process may use, or of all cores where the system does not report it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
