"""The backend: one device, its arrays and its frames; which backend is chosen, and why.

`cpu.py` and `gpu.py` implement the protocol. Arrays named X live on the backend's device; results are NumPy arrays on the host.
What is computed there is in `gpuclust.algorithms`, `gpuclust.reducers` and `gpuclust.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from gpuclust.data.table import Frames
from gpuclust.errors import BackendError

# A NumPy or a CuPy array.
Array = Any
Progress = Callable[[float], None]


class Backend(Protocol):
    """One device."""

    @property
    def name(self) -> str:
        """``cpu`` or ``gpu``."""

    @property
    def device(self) -> str:
        """The device in words."""

    @property
    def xp(self) -> ModuleType:
        """The module of its arrays: numpy or cupy."""

    @property
    def frames(self) -> Frames:
        """Its frames: pandas or cuDF."""

    def to_host(self, array: Array) -> np.ndarray:
        """The array in host memory."""

    def to_device(self, array: np.ndarray) -> Array:
        """The array in this backend's memory."""

    def host_array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """A new array in host memory from which copies to the device are fast; its values are undefined."""

    def errors(self, what: str) -> AbstractContextManager[None]:
        """A context in which errors of the device's libraries become a FitError that says that ``what`` failed, or DeviceLost."""


@dataclass(frozen=True)
class BackendChoice:
    """Which backend was chosen, and why, in words for the tag ``gpuclust.backend_reason``."""

    name: str
    reason: str


def probe_gpu() -> str | None:
    """Why the GPU backend cannot run here, in words, or None when it can."""
    try:
        from gpuclust.runtime import gpu
    except Exception as error:  # RAPIDS raises anything from ImportError to RuntimeError without its libraries
        if isinstance(error, ModuleNotFoundError):
            return f"RAPIDS not installed (no module {error.name})"
        return f"RAPIDS cannot be imported ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
    return gpu.unavailable()


def select_backend(requested: str, probe: Callable[[], str | None] = probe_gpu) -> BackendChoice:
    """Decide the backend before work starts: ``auto`` may fall back to the CPU, ``gpu`` never does.

    Raises BackendError when ``gpu`` is asked for and cannot run.
    """
    if requested == "cpu":
        return BackendChoice("cpu", "backend=cpu")
    why_not = probe()
    if why_not is None:
        return BackendChoice("gpu", "CUDA GPU and RAPIDS found")
    if requested == "gpu":
        raise BackendError(f"backend=gpu cannot run here: {why_not}; use backend=auto or backend=cpu")
    return BackendChoice("cpu", why_not)


def create_backend(name: str, pool_fraction: float = 0.8) -> Backend:
    """The backend of that name, ready to compute."""
    if name == "gpu":
        from gpuclust.runtime.gpu import GpuBackend

        return GpuBackend(pool_fraction=pool_fraction)
    from gpuclust.runtime.cpu import CpuBackend

    return CpuBackend()
