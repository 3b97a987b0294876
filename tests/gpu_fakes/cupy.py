"""CuPy: `arrays.ndarray`, functions with CuPy's parameters that compute as NumPy's, and as much of ``cupy.cuda`` as is used."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.gpu_fakes.arrays import inner, ndarray, refuse_host, wrap
from tests.gpu_fakes.device import launch, to_device, to_host
from tests.gpu_fakes.device_arrays import garbage
from tests.gpu_fakes.signatures import StandIn, bind, callable_name, known

CREATES = {"arange", "eye", "linspace", "ones", "zeros", "full", "identity", "tri"}
"""Functions that take no arrays."""
WAITS = {"unique", "nonzero", "argwhere", "flatnonzero", "histogram", "bincount", "array_equal"}
VIEWS = {"broadcast_to", "expand_dims", "moveaxis", "ravel", "reshape", "squeeze", "swapaxes", "transpose"}
MEMORY = 80 * 2**30


class Cupy(StandIn):
    """The module ``cupy``, or ``cupy.linalg``."""

    def __getattr__(self, name: str) -> Any:
        full = f"{self.__name__}.{name}"
        real = getattr(np.linalg if self.__name__ == "cupy.linalg" else np, name, None)
        if name.startswith("_") or not known(full) or real is None:
            return super().__getattr__(name)
        if not callable_name(full) or isinstance(real, type):
            return real
        made = _function(full, name, real)
        setattr(self, name, made)
        return made


def _function(full: str, name: str, real: Any) -> Any:
    def function(*args: Any, **kwargs: Any) -> Any:
        bind(full, args, kwargs)
        if name not in CREATES:
            refuse_host((*args, *kwargs.values()), name)
            if not any(map(_on_device, (*args, *kwargs.values()))):
                raise TypeError(f"{full} needs an array on the device, not {[type(a) for a in args]}")
        if name not in VIEWS:
            launch(full)
        if name in WAITS:
            to_host(8, name)
        given = {k: inner(v) for k, v in kwargs.items() if v is not None}
        with np.errstate(all="ignore"):
            try:
                return wrap(real(*map(inner, args), **given))
            except (
                np.linalg.LinAlgError
            ):  # cuSOLVER's answer to a singular matrix, with CuPy's default of not looking at it
                return wrap(np.full(args[0].shape, np.nan))

    function.__name__ = name
    return function


def _on_device(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_on_device, value))
    return hasattr(value, "__cuda_array_interface__")


def array(
    obj: Any,
    dtype: Any = None,
    copy: bool = True,
    order: str = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> Any:
    """As `cupy.array`: a host array is copied to the device, one there only if asked."""
    if isinstance(obj, (list, tuple)) and any(map(_on_device, obj)):
        refuse_host(obj, "array")
        launch("cupy.array")
        return wrap(np.array(inner(obj), dtype))
    if _on_device(obj):
        memory = inner(obj)
        if not copy and (dtype is None or memory.dtype == np.dtype(dtype)) and _ordered(memory, order):
            return obj if isinstance(obj, ndarray) else wrap(memory)
        launch("cupy.copy")
        return wrap(np.array(memory, dtype, order=order, ndmin=ndmin))  # type: ignore[call-overload]
    if hasattr(type(obj), "__array__") and not isinstance(obj, (np.ndarray, np.generic)):
        raise TypeError(f"Unsupported type {type(obj)}")
    host = np.array(obj, dtype, order=order, ndmin=ndmin)  # type: ignore[call-overload]
    if host.dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {host.dtype}")
    to_device(host.nbytes, "asarray")
    return wrap(host)


def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> Any:
    """As `cupy.asarray`."""
    return array(a, dtype, copy=bool(copy), order=order or "K", blocking=blocking)


def ascontiguousarray(a: Any, dtype: Any = None) -> Any:
    """As `cupy.ascontiguousarray`: what is contiguous is not copied."""
    return array(a, dtype, copy=False, order="C")


def _ordered(memory: np.ndarray, order: str) -> bool:
    return order not in "CF" or bool(memory.flags.c_contiguous if order == "C" else memory.flags.f_contiguous)


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> Any:
    """As `cupy.asnumpy`."""
    if isinstance(a, ndarray):
        return a.get(stream=stream, order=order, out=out)
    if _on_device(a):
        return wrap(inner(a)).get(order=order, out=out)
    return np.asarray(a)


def empty(shape: Any, dtype: Any = float, order: str = "C") -> Any:
    """As `cupy.empty`; what it holds is not zero."""
    return wrap(garbage(shape, dtype, order))


def empty_like(prototype: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None) -> Any:
    """As `cupy.empty_like`."""
    return empty(prototype.shape if shape is None else shape, prototype.dtype if dtype is None else dtype)


def bincount(x: Any, weights: Any = None, minlength: Any = None) -> Any:
    """As `cupy.bincount`, which waits for the device twice: for the least and for the largest value."""
    refuse_host((x, weights), "bincount")
    if x.ndim != 1:
        raise ValueError("object too deep for desired array")
    if x.dtype.kind == "f":
        raise TypeError("x must be int array")
    if bool((x < 0).any()):
        raise ValueError("The first argument of bincount must be non-negative")
    if weights is not None and x.shape != weights.shape:
        raise ValueError("The weights and list don't have the same length.")
    if x.size:
        int(x.max())
    launch("cupy.bincount")
    return wrap(np.bincount(inner(x), inner(weights), minlength or 0))


def scatter_add(a: Any, slices: Any, value: Any) -> None:
    """As `cupyx.scatter_add`."""
    refuse_host((a, slices, value), "scatter_add")
    launch("cupyx.scatter_add")
    np.add.at(inner(a), inner(slices), inner(value))


class CUDARuntimeError(RuntimeError):
    """An error of the CUDA runtime."""

    def __init__(self, status: int) -> None:
        self.status = status
        name = {
            2: "cudaErrorMemoryAllocation: out of memory",
            700: "cudaErrorIllegalAddress: an illegal memory access was encountered",
        }
        super().__init__(name.get(status, f"error {status}"))


class OutOfMemoryError(MemoryError):
    """No memory is left on the device."""


class Stream:
    """A stream; everything runs at once."""

    null: Stream
    ptr = 0

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: Any = None
    ) -> None:
        self.non_blocking = non_blocking

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.synchronize()

    def synchronize(self) -> None:
        """Wait for the device."""
        to_host(0, "synchronize")

    def use(self) -> Stream:
        """Make it the current stream."""
        return self

    def record(self, event: Any = None) -> Any:
        """Record an event."""
        return event or SimpleNamespace(synchronize=self.synchronize)

    def wait_event(self, event: Any) -> None:
        """Wait for an event."""


Stream.null = Stream(null=True)


class PinnedMemoryPointer(bytearray):
    """Pinned memory on the host, as a buffer."""


def make() -> tuple[Cupy, Cupy, StandIn]:
    """The modules ``cupy``, ``cupy.linalg`` and ``cupyx``."""
    cupy, linalg, cupyx = Cupy("cupy"), Cupy("cupy.linalg"), StandIn("cupyx")
    for function in (array, asarray, ascontiguousarray, asnumpy, empty, empty_like, bincount):
        setattr(cupy, function.__name__, function)
    properties = {
        "name": b"Stand-in H100",
        "major": 9,
        "minor": 0,
        "totalGlobalMem": MEMORY,
        "multiProcessorCount": 132,
    }
    runtime = SimpleNamespace(
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
        getDeviceCount=lambda: 1,
        getDevice=lambda: 0,
        getDeviceProperties=lambda device: dict(properties),
        deviceSynchronize=lambda: to_host(0, "deviceSynchronize"),
        memGetInfo=lambda: (MEMORY, MEMORY),
        CUDARuntimeError=CUDARuntimeError,
    )
    cupy.cuda = SimpleNamespace(
        runtime=runtime,
        set_allocator=lambda allocator=None: None,
        Stream=Stream,
        get_current_stream=lambda device_id=-1: Stream.null,
        Device=lambda device=None: SimpleNamespace(
            id=0, synchronize=runtime.deviceSynchronize, mem_info=(MEMORY, MEMORY)
        ),
        alloc_pinned_memory=PinnedMemoryPointer,
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    )
    cupy.ndarray, cupy.linalg, cupy.__path__, cupy.__version__ = ndarray, linalg, [], "14.2.0"
    cupyx.scatter_add = scatter_add
    cupyx.empty_pinned = lambda shape, dtype=float, order="C": garbage(shape, dtype, order)
    cupyx.zeros_pinned = lambda shape, dtype=float, order="C": np.zeros(shape, dtype, order)
    return cupy, linalg, cupyx
