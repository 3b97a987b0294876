"""numba's CUDA simulator, made as strict as a device and some ten times as fast.

`install` replaces the simulator's device arrays (`device_arrays`) and the way it runs kernels. What it adds:

- A thread of a block is a greenlet, not a thread of the operating system. Between two barriers the threads run one after another, in
  ascending order and then in descending order, and blocks in descending order, so that a missing barrier changes the result.
- Memory starts with garbage: shared and local arrays, and arrays of `numba.cuda.device_array`.
- A barrier that some threads reach on one line and some on another, or that only a part of a warp reaches, is an error; so are more
  than 48 KB of shared memory, more than 1024 threads a block, and an index outside an array.
- The functions of a warp: ``syncwarp``, ``shfl_*_sync``, ``ballot_sync``, ``all_sync``, ``any_sync``.

Without NUMBA_ENABLE_CUDASIM=1 there is no simulator, and `install` does nothing.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from greenlet import getcurrent, greenlet

from tests.gpu_fakes import device_arrays
from tests.gpu_fakes.device import launch
from tests.gpu_fakes.device_arrays import garbage, memory_of

WARP = 32
MAX_THREADS = 1024
MAX_SHARED_BYTES = 48 << 10
MAX_GRID = (2**31 - 1, 65535, 65535)
ALL_LANES = 0xFFFFFFFF

Site = tuple[str, int]


class SimulatorError(RuntimeError):
    """A kernel or its launch does what a device does not allow."""


class Thread:
    """A thread of a block. ``waits``: None while it can run, else ``block``, or the mask of the warp's lanes it waits for."""

    __slots__ = ("blockIdx", "greenlet", "lane", "offered", "site", "threadIdx", "waits", "warp")

    def __init__(self, run: Callable[[], None], number: int, thread: Any, block: Any) -> None:
        self.threadIdx, self.blockIdx = thread, block
        self.warp, self.lane = divmod(number, WARP)
        self.waits: str | int | None = None
        self.site: Site = ("", 0)
        self.offered: Any = None
        self.greenlet = greenlet(run)


class Block:
    """The threads of a block, and which of them runs."""

    def __init__(self, threads: list[Thread], reverse: bool) -> None:
        self.live, self.reverse = threads, reverse
        self.current = threads[0]
        self.scheduler = getcurrent()
        self.shared: dict[Site, np.ndarray] = {}

    def wait(self, on: str | int, depth: int = 2) -> None:
        """The running thread waits at a barrier; ``depth`` frames up is the kernel's line."""
        frame = sys._getframe(depth)
        self.current.waits, self.current.site = on, (frame.f_code.co_filename, frame.f_lineno)
        self.scheduler.switch()

    def run(self) -> None:
        """Run all threads to their end."""
        while self.live:
            for thread in reversed(self.live) if self.reverse else self.live:
                if thread.waits is None:
                    self.current = thread
                    thread.greenlet.switch()
            self.live = [thread for thread in self.live if not thread.greenlet.dead]
            self.reverse = not self.reverse
            if self.live and not self._release_warps():
                self._release_block()

    def _release_warps(self) -> bool:
        """Release the warps whose lanes have all come to a barrier of the warp; whether any thread can run."""
        warps: dict[int, list[Thread]] = {}
        for thread in self.live:
            warps.setdefault(thread.warp, []).append(thread)
        running = False
        for lanes in warps.values():
            for thread in lanes:
                mask = thread.waits
                if isinstance(mask, int):
                    group = [lane for lane in lanes if mask >> lane.lane & 1]
                    if all(isinstance(lane.waits, int) for lane in group):
                        _same_line(group)
                        for lane in group:
                            lane.waits = None
            running |= any(thread.waits is None for thread in lanes)
        return running

    def _release_block(self) -> None:
        if any(isinstance(thread.waits, int) for thread in self.live):
            raise SimulatorError(f"a part of a warp waits at a barrier of the warp: {_sites(self.live)}")
        _same_line(self.live)
        for thread in self.live:
            thread.waits = None


def _sites(threads: list[Thread]) -> str:
    return ", ".join(sorted({f"{file.rpartition('/')[2]}:{line}" for file, line in (t.site for t in threads)}))


def _same_line(threads: list[Thread]) -> None:
    if len({thread.site for thread in threads}) > 1:
        raise SimulatorError(f"the threads of a block wait at different barriers: {_sites(threads)}")


class Shared:
    """``cuda.shared``."""

    def __init__(self, dynamic: int) -> None:
        self.dynamic, self.block, self.n_bytes = dynamic, None, dynamic
        self.memory = np.zeros(0, np.uint8)

    def start(self, block: Any) -> None:
        """Give a block its memory."""
        self.block, self.n_bytes = block, self.dynamic
        self.memory = garbage(-(-self.dynamic // 8), np.float64).view(np.uint8)[: self.dynamic]

    def array(self, shape: Any, dtype: Any) -> np.ndarray:
        """The array that the threads of a block share; of shape 0, all dynamic memory."""
        kind = _dtype(dtype)
        if isinstance(shape, int) and shape == 0:
            return self.memory[: self.dynamic // kind.itemsize * kind.itemsize].view(kind)
        frame = sys._getframe(1)
        site = (frame.f_code.co_filename, frame.f_lineno)
        found = self.block.shared.get(site)  # type: ignore[attr-defined]
        if found is None:
            found = self.block.shared[site] = garbage(shape, kind)  # type: ignore[attr-defined]
            self.n_bytes += found.nbytes
            if self.n_bytes > MAX_SHARED_BYTES:
                raise SimulatorError(f"{self.n_bytes} bytes of shared memory are more than {MAX_SHARED_BYTES}")
        return found


class Local:
    """``cuda.local``."""

    @staticmethod
    def array(shape: Any, dtype: Any) -> np.ndarray:
        """An array of one thread."""
        return garbage(shape, _dtype(dtype))


def _dtype(dtype: Any) -> np.dtype[Any]:
    from numba.core import types
    from numba.np import numpy_support

    return np.dtype(numpy_support.as_dtype(dtype) if isinstance(dtype, types.Type) else dtype)


class _NumpyTypes:
    """NumPy's types for the names of ``numba.types``."""

    def __getattr__(self, name: str) -> Any:
        import numba

        found = getattr(numba.types, name)
        if isinstance(found, (numba.types.Integer, numba.types.Float)):
            found = _dtype(found).type
        setattr(self, name, found)
        return found


NUMPY_TYPES = _NumpyTypes()


def _kernel_module() -> type:
    """The class of the ``cuda`` that a running kernel sees."""
    from numba.cuda.simulator.kernelapi import FakeCUDAModule

    class KernelModule(FakeCUDAModule):  # type: ignore[misc]
        """numba's, with the running thread of the running block."""

        block: Block

        def __init__(self, grid: Any, block: Any, dynamic: int) -> None:
            super().__init__(grid, block, dynamic)
            self._shared, self._local = Shared(dynamic), Local()
            self.swapped: list[Callable[[], None]] = []
            self.known: set[int] = set()

        @property
        def threadIdx(self) -> Any:
            return self.block.current.threadIdx

        @property
        def blockIdx(self) -> Any:
            return self.block.current.blockIdx

        @property
        def laneid(self) -> int:
            return self.block.current.lane

        def syncthreads(self) -> None:
            self.block.wait("block")

        def _everyone(self, value: Any) -> list[Any]:
            """The values that all threads of the block offer."""
            self.block.current.offered = value
            self.block.wait("block", 3)
            found = [thread.offered for thread in self.block.live]
            self.block.wait("block", 3)
            return found

        def syncthreads_count(self, value: Any) -> int:
            return sum(map(bool, self._everyone(value)))

        def syncthreads_and(self, value: Any) -> int:
            return int(all(self._everyone(value)))

        def syncthreads_or(self, value: Any) -> int:
            return int(any(self._everyone(value)))

        def syncwarp(self, mask: int = ALL_LANES) -> None:
            self.block.wait(int(mask))

        def _lanes(self, mask: Any, value: Any) -> dict[int, Any]:
            """The values that the lanes of the warp offer."""
            own = self.block.current
            own.offered = value
            self.block.wait(int(mask), 3)
            found = {t.lane: t.offered for t in self.block.live if t.warp == own.warp and int(mask) >> t.lane & 1}
            self.block.wait(int(mask), 3)
            return found

        def shfl_sync(self, mask: Any, value: Any, src_lane: Any) -> Any:
            return self._lanes(mask, value).get(int(src_lane) % WARP, value)

        def shfl_up_sync(self, mask: Any, value: Any, delta: Any) -> Any:
            lane = self.laneid
            return self._lanes(mask, value).get(lane - int(delta), value)

        def shfl_down_sync(self, mask: Any, value: Any, delta: Any) -> Any:
            lane = self.laneid
            return self._lanes(mask, value).get(lane + int(delta), value)

        def shfl_xor_sync(self, mask: Any, value: Any, lane_mask: Any) -> Any:
            lane = self.laneid
            return self._lanes(mask, value).get(lane ^ int(lane_mask), value)

        def ballot_sync(self, mask: Any, predicate: Any) -> int:
            return sum(1 << lane for lane, value in self._lanes(mask, predicate).items() if value)

        def all_sync(self, mask: Any, predicate: Any) -> bool:
            return all(self._lanes(mask, predicate).values())

        def any_sync(self, mask: Any, predicate: Any) -> bool:
            return any(self._lanes(mask, predicate).values())

        def swap(self, function: Any) -> None:
            """Let a function see this module as its global ``cuda``, and NumPy's types for numba's, whose calls take a hundred times as
            long."""
            if id(function) in self.known:
                return
            self.known.add(id(function))
            names = function.__globals__
            if id(names) not in self.known:
                self.known.add(id(names))
                for name, value in list(names.items()):
                    other = self.replacement(value)
                    if other is not None:
                        self.swapped.append(partial(names.__setitem__, name, value))
                        names[name] = other
            for cell in function.__closure__ or ():
                value = cell.cell_contents
                other = self.replacement(value)
                if other is not None:
                    self.swapped.append(partial(setattr, cell, "cell_contents", value))
                    cell.cell_contents = other

        def replacement(self, value: Any) -> Any:
            """What a kernel sees instead of a global or a variable of its factory; None for the thing itself."""
            import numba
            from numba import cuda
            from numba.core import types

            if value is cuda:
                return self
            if value is numba.types:
                return NUMPY_TYPES
            if isinstance(value, (types.Integer, types.Float)):
                return _dtype(value).type
            return None

    return KernelModule


class Configured:
    """A kernel with its launch configuration."""

    def __init__(self, kernel: Any, configuration: Any) -> None:
        from numba.cuda.errors import normalize_kernel_dimensions

        self.kernel = kernel
        self.grid, self.threads = normalize_kernel_dimensions(*configuration[:2])
        self.dynamic = int(configuration[3]) if len(configuration) == 4 else 0
        if min(self.grid) < 1 or min(self.threads) < 1:
            raise SimulatorError(f"a launch of {self.grid} blocks of {self.threads} threads")
        if np.prod(self.threads) > MAX_THREADS or any(n > most for n, most in zip(self.grid, MAX_GRID, strict=True)):
            raise SimulatorError(f"a launch of {self.grid} blocks of {self.threads} threads is too large")

    def __call__(self, *arguments: Any) -> None:
        function = self.kernel.fn
        launch(f"{function.__module__.removeprefix('gpuclust.')}.{function.__name__}")
        copied: list[tuple[np.ndarray, np.ndarray]] = []
        given = [_argument(argument, copied) for argument in arguments]
        run(function, self.grid, self.threads, self.dynamic, given)
        for host, there in copied:
            host[...] = there


HOST_ARRAYS_WARN = False
"""Whether a host array as an argument of a kernel warns, as it does on a device."""


def _argument(value: Any, copied: list[tuple[np.ndarray, np.ndarray]]) -> Any:
    if hasattr(value, "__cuda_array_interface__"):
        return memory_of(value)
    if isinstance(value, np.ndarray):
        if HOST_ARRAYS_WARN:
            from numba.core.errors import NumbaPerformanceWarning

            text = "Host array used in CUDA kernel will incur copy overhead to/from device."
            warnings.warn(NumbaPerformanceWarning(text), stacklevel=3)
        device_arrays.count_up(value.nbytes, "argument of a kernel")
        there = value.copy()
        if value.flags.writeable:
            device_arrays.count_down(value.nbytes, "argument of a kernel")
            copied.append((value, there))
        return there
    if isinstance(value, tuple):
        return tuple(_argument(part, copied) for part in value)
    if not isinstance(value, (bool, int, float, np.generic)):
        raise TypeError(f"cannot determine Numba type of {type(value)}")
    return value


def run(function: Any, grid: Any, threads: Any, dynamic: int, arguments: list[Any]) -> None:
    """Run a kernel: one block after another."""
    from numba.cuda.simulator import kernel as numba_kernel
    from numba.cuda.simulator.kernelapi import Dim3

    if dynamic > MAX_SHARED_BYTES:
        raise SimulatorError(f"{dynamic} bytes of dynamic shared memory are more than {MAX_SHARED_BYTES}")
    module = _Module(grid, threads, dynamic)
    places = [Dim3(x, y, z) for z in range(threads[2]) for y in range(threads[1]) for x in range(threads[0])]
    numba_kernel._kernel_context = module
    module.swap(function)

    def body() -> None:
        function(*arguments)

    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            for number, where in enumerate(_blocks(grid)):
                block = Block(
                    [Thread(body, i, place, Dim3(*where)) for i, place in enumerate(places)], bool(number % 2)
                )
                module.block = block
                module._shared.start(block)
                block.run()
    finally:
        numba_kernel._kernel_context = None
        for restore in module.swapped:
            restore()


def _blocks(grid: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
    for z in reversed(range(grid[2])):
        for y in reversed(range(grid[1])):
            for x in reversed(range(grid[0])):
                yield x, y, z


_Module: Any = None


def install() -> bool:
    """Make the simulator strict; whether there is one in this process."""
    global _Module
    from numba import cuda
    from numba.core import config

    if not config.ENABLE_CUDASIM:
        return False
    if _Module is not None:
        return True
    from numba.cuda.simulator import kernel
    from numba.cuda.simulator.cudadrv import devicearray

    _Module = _kernel_module()

    def call(self: Any, *arguments: Any) -> Any:
        if not self._device:
            raise ValueError("a kernel is launched without its configuration: kernel[blocks, threads](...)")
        module = kernel._kernel_context
        if module is None:
            raise TypeError("a device function is called from the host")
        module.swap(self.fn)
        return self.fn(*arguments)

    kernel.FakeCUDAKernel.__call__ = call
    kernel.FakeCUDAKernel.__getitem__ = lambda self, configuration: Configured(self, configuration)
    kernel.FakeCUDAKernel.forall = lambda self, ntasks, tpb=0, stream=0, sharedmem=0: Configured(
        self, (max(1, -(-ntasks // (tpb or 128))), tpb or 128, stream, sharedmem)
    )
    for name in ("to_device", "as_cuda_array", "is_cuda_array", "device_array", "device_array_like", "pinned_array"):
        for module in (cuda, devicearray):
            setattr(module, name, getattr(device_arrays, name))
    devicearray.DeviceNDArray = devicearray.FakeCUDAArray = device_arrays.DeviceNDArray
    return True
