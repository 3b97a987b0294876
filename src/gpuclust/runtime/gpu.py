"""The GPU backend: cuDF frames and CuPy arrays, which stay on the device for cuML and for kernels of our own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import cupy as cp
import numpy as np

from gpuclust.errors import BackendError, GpuclustError, message_of
from gpuclust.runtime.gpu_errors import failure_of

MIN_CAPABILITY = (7, 0)
"""Volta: the oldest devices that RAPIDS supports (with CUDA 13 Turing, 7.5)."""

FIRST_POOL_BYTES = 2**28
"""The initial size of the memory pool, which grows as it is used."""


def unavailable() -> str | None:
    """The reason why the GPU cannot be used, as text, or None when it can. Never raises."""
    try:
        return _driver_trouble() or _device_trouble() or _library_trouble()
    except Exception as error:  # a broken CUDA set-up can fail in any way
        return f"the GPU cannot be used ({type(error).__name__}: {message_of(error)})"


def _driver_trouble() -> str | None:
    driver, needed = cp.cuda.runtime.driverGetVersion(), cp.cuda.runtime.runtimeGetVersion()
    if driver == 0:
        return "no NVIDIA driver is loaded"
    if driver // 1000 < needed // 1000:
        return (
            f"the NVIDIA driver supports CUDA {_version(driver)}, older than the {needed // 1000}.0 needed; update it"
        )
    return None


def _device_trouble() -> str | None:
    if cp.cuda.runtime.getDeviceCount() == 0:
        return "no CUDA device is visible (is CUDA_VISIBLE_DEVICES set?)"
    name, capability, _ = _properties()
    if capability < MIN_CAPABILITY:
        least = ".".join(map(str, MIN_CAPABILITY))
        return f"{name} has compute capability {capability[0]}.{capability[1]}; RAPIDS needs {least} or newer"
    total = float(cp.arange(4, dtype=np.float64).sum())  # compiles and runs a kernel
    return None if total == 6.0 else f"{name} computes wrongly (0 + 1 + 2 + 3 gave {total})"


def _library_trouble() -> str | None:
    missing = [name for name in ("cuml", "cudf", "rmm") if find_spec(name) is None]
    return f"{', '.join(missing)} cannot be imported; install gpuclust[gpu]" if missing else None


def _properties() -> tuple[str, tuple[int, int], int]:
    """Name, compute capability and memory in bytes of the device in use."""
    found: dict[str, Any] = cp.cuda.runtime.getDeviceProperties(cp.cuda.runtime.getDevice())
    name: bytes = found["name"]
    return name.decode(), (found["major"], found["minor"]), found["totalGlobalMem"]


def device_memory() -> int:
    """The bytes of memory of the device in use."""
    return _properties()[2]


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


class GpuBackend:
    """The first visible GPU; `gpuclust.runtime.backend.Backend` documents the methods."""

    name = "gpu"
    xp = cp

    def __init__(self, pool_fraction: float = 0.8) -> None:
        """``pool_fraction`` is the largest share of the currently free GPU memory that the memory pool may take; 0: no pool."""
        from gpuclust.runtime.cudf_frames import CudfFrames

        try:
            set_up_memory(pool_fraction)
        except Exception as error:
            raise BackendError(
                f"the GPU cannot be used: {type(error).__name__}: {message_of(error)}; is another process using its memory?"
            ) from error
        self.frames = CudfFrames()

    @cached_property
    def device(self) -> str:
        """Name, memory, driver and CUDA version."""
        name, _, memory = _properties()
        cuda = _version(cp.cuda.runtime.driverGetVersion())
        return f"{name} ({memory / 2**30:.0f} GiB), driver {_driver()}, CUDA {cuda}"

    def to_host(self, array: cp.ndarray) -> np.ndarray:
        """A copy in host memory."""
        return cp.asnumpy(array)

    def to_device(self, array: np.ndarray) -> cp.ndarray:
        """A copy in GPU memory."""
        return cp.asarray(array)

    def host_array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """A new array in page-locked memory, or in other memory where the system does not let so much be locked."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        try:
            locked = cp.cuda.alloc_pinned_memory(size)
        except Exception:  # copies from other memory are slower, not wrong
            return np.empty(shape, dtype)
        return np.frombuffer(locked, np.uint8, size).view(dtype).reshape(shape)

    def errors(self, what: str) -> AbstractContextManager[None]:
        """See `device_errors`."""
        return device_errors(what)


def set_up_memory(pool_fraction: float) -> None:
    """Create one memory pool for cuML, cuDF and CuPy in this process; one that the program has set up is kept.

    The CUDA driver manages the pool. It grows with the allocations, up to ``pool_fraction`` of the memory that is free now, and fragmentation
    does not make allocations fail.
    """
    import rmm.mr
    from rmm.allocators.cupy import rmm_cupy_allocator

    if pool_fraction > 0 and type(rmm.mr.get_current_device_resource()) is rmm.mr.CudaMemoryResource:
        free, _ = rmm.mr.available_device_memory()
        limit = int(free * pool_fraction) // 256 * 256
        try:
            pool = rmm.mr.CudaAsyncMemoryResource(initial_pool_size=min(FIRST_POOL_BYTES, limit))
        except RuntimeError:  # virtual GPUs whose driver has no pools
            pool = rmm.mr.PoolMemoryResource(rmm.mr.CudaMemoryResource(), min(FIRST_POOL_BYTES, limit), limit)
        rmm.mr.set_current_device_resource(rmm.mr.LimitingResourceAdaptor(pool, limit))
    cp.cuda.set_allocator(rmm_cupy_allocator)


@contextmanager
def device_errors(what: str) -> Iterator[None]:
    """Convert any error to a FitError with the step that failed and what to do, or to DeviceLost where the GPU cannot be used any more;
    errors of gpuclust and of the file system stay as they are."""
    try:
        yield
    except GpuclustError:
        raise
    except Exception as error:  # CUDA, NVVM, numba and CuPy have types of their own, most of them not RuntimeErrors
        if (
            isinstance(error, OSError) and error.errno is not None
        ):  # of a file; a library that cannot be loaded has no number
            raise
        raise failure_of(error, what, cp.cuda.runtime.deviceSynchronize) from error


def _driver() -> str:
    """The driver's version, as nvidia-smi shows it."""
    import pynvml

    pynvml.nvmlInit()
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()
