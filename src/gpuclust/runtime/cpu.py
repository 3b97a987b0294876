"""The CPU backend: NumPy arrays and pandas frames."""

from __future__ import annotations

import os
import platform
from functools import cached_property
from pathlib import Path

import numpy as np

from gpuclust.data.frames import PandasFrames


class CpuBackend:
    """Computes in host memory; see `gpuclust.runtime.backend.Backend` for what each method means."""

    name = "cpu"
    xp = np

    def __init__(self) -> None:
        self.frames = PandasFrames()

    @cached_property
    def device(self) -> str:
        """The processor's name and its cores."""
        return f"{_processor()} ({_cores()} cores)"

    def to_host(self, array: np.ndarray) -> np.ndarray:
        """The array itself."""
        return array

    def to_device(self, array: np.ndarray) -> np.ndarray:
        """The array itself."""
        return array


def _cores() -> int:
    """Those that this process may use, where the system tells; else those that there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
