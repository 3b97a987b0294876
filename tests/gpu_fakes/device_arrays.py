"""numba's device arrays, as strict as `numba.cuda.cudadrv.devicearray.DeviceNDArray`: integers and slices index them, nothing else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.gpu_fakes.device import to_device as count_up
from tests.gpu_fakes.device import to_host as count_down


class DeviceNDArray:
    """A NumPy array in the role of memory on the device. It has the attributes of the real class and no others."""

    __cuda_memory__ = True
    __cuda_ndarray__ = True
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, memory: np.ndarray, stream: Any = 0) -> None:
        self._memory, self.stream = memory, stream

    ndim = property(lambda self: self._memory.ndim)
    shape = property(lambda self: self._memory.shape)
    strides = property(lambda self: self._memory.strides)
    dtype = property(lambda self: self._memory.dtype)
    size = property(lambda self: self._memory.size)
    nbytes = property(lambda self: self._memory.nbytes)
    alloc_size = property(lambda self: self._memory.nbytes)
    T = property(lambda self: self.transpose())

    @property
    def flags(self) -> dict[str, bool]:
        """The flags that the real class has."""
        flags = self._memory.flags
        return {"C_CONTIGUOUS": flags.c_contiguous, "F_CONTIGUOUS": flags.f_contiguous}

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return interface_of(self._memory)

    def bind(self, stream: Any = 0) -> DeviceNDArray:
        return DeviceNDArray(self._memory, stream)

    def is_c_contiguous(self) -> bool:
        return self._memory.flags.c_contiguous

    def is_f_contiguous(self) -> bool:
        return self._memory.flags.f_contiguous

    def transpose(self, axes: Any = None) -> DeviceNDArray:
        if axes and tuple(axes) == tuple(range(self.ndim)):
            return self
        if self.ndim != 2:
            raise NotImplementedError("transposing a non-2D DeviceNDArray isn't supported")
        return DeviceNDArray(np.ascontiguousarray(self._memory.T))

    def copy_to_host(self, ary: np.ndarray | None = None, stream: Any = 0) -> np.ndarray:
        if any(stride < 0 for stride in self.strides):
            raise NotImplementedError(f"D->H copy not implemented for negative strides: {self.strides}")
        count_down(self.nbytes, "copy_to_host")
        if ary is None:
            return self._memory.copy(order="K")
        _check_compatible(self._memory, ary)
        ary[...] = self._memory
        return ary

    def copy_to_device(self, ary: Any, stream: Any = 0) -> None:
        if ary.size == 0:
            return
        _contiguous(self._memory)
        if hasattr(ary, "__cuda_array_interface__"):
            source = memory_of(ary)
            _contiguous(source)
        else:
            source = np.asarray(ary)
            count_up(source.nbytes, "copy_to_device")
        _check_compatible(self._memory, source)
        self._memory[...] = source

    def reshape(self, *newshape: Any, order: str = "C") -> DeviceNDArray:
        if len(newshape) == 1 and isinstance(newshape[0], (tuple, list)):
            newshape = tuple(newshape[0])
        return self._view(self._memory.reshape(newshape, order=order))  # type: ignore[call-overload]

    def ravel(self, order: str = "C", stream: Any = 0) -> DeviceNDArray:
        return self._view(self._memory.ravel(order=order))  # type: ignore[arg-type]

    def squeeze(self, axis: Any = None, stream: Any = 0) -> DeviceNDArray:
        return DeviceNDArray(self._memory.squeeze(axis))

    def view(self, dtype: Any) -> DeviceNDArray:
        return DeviceNDArray(self._memory.view(dtype))

    def split(self, section: int, stream: Any = 0) -> Any:
        if self.ndim != 1:
            raise ValueError("only support 1d array")
        for i in range(math.ceil(self.size / section)):
            yield DeviceNDArray(self._memory[i * section : (i + 1) * section])

    def _view(self, found: np.ndarray) -> DeviceNDArray:
        if self.size and not np.shares_memory(found, self._memory):
            raise NotImplementedError("operation requires copying")
        return DeviceNDArray(found)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("`copy=False` is not supported. A copy is always created.")
        found = self.copy_to_host()
        return found if dtype is None else found.astype(dtype)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, item: Any) -> Any:
        found = self._memory[self._index(item)]
        if isinstance(found, np.ndarray):
            return DeviceNDArray(found)
        count_down(self.dtype.itemsize, "DeviceNDArray[i]")
        return found

    getitem = __getitem__

    def __setitem__(self, key: Any, value: Any) -> None:
        key = self._index(key)
        if hasattr(value, "__cuda_array_interface__"):
            value = memory_of(value)
        else:
            count_up(np.asarray(value).nbytes, "DeviceNDArray[i] =")
        self._memory[key] = value

    setitem = __setitem__

    def _index(self, item: Any) -> tuple[Any, ...]:
        """The index, if it consists of integers and slices; what else raises is what the real class raises (dummyarray.Dim)."""
        parts = item if isinstance(item, tuple) else (item,)
        if len(parts) > self.ndim:
            raise IndexError(f"{len(parts) - self.ndim} extra indices given")
        for part in parts:
            if isinstance(part, np.ndarray) and part.size > 1:
                raise ValueError(
                    "The truth value of an array with more than one element is ambiguous. Use a.any() or a.all()"
                )
            if not isinstance(part, (slice, int, np.integer)):
                raise TypeError(f"slice indices must be integers or None or have an __index__ method, not {type(part)}")
        return parts


class _View:
    def __init__(self, interface: dict[str, Any], owner: Any) -> None:
        self.__array_interface__, self._owner = interface, owner


def interface_of(memory: np.ndarray) -> dict[str, Any]:
    """The CUDA array interface of an array on the device."""
    return {
        "shape": memory.shape,
        "strides": None if memory.flags.c_contiguous else memory.strides,
        "data": (memory.ctypes.data if memory.size else 0, False),
        "typestr": memory.dtype.str,
        "version": 3,
    }


def memory_of(array: Any) -> np.ndarray:
    """The memory of anything that has the CUDA array interface, not copied."""
    found = getattr(array, "_memory", None)
    if isinstance(found, np.ndarray):
        return found
    described = array.__cuda_array_interface__
    if 0 in described["shape"]:
        return np.empty(described["shape"], described["typestr"])
    return np.asarray(_View({**described, "version": 3}, array))


def garbage(shape: Any, dtype: Any = np.float64, order: Any = "C") -> np.ndarray:
    """Memory that holds no useful values, as after an allocation: NaN, or a number that is no valid index."""
    found = np.empty(shape, dtype, order)
    if found.dtype.kind == "f":
        found.fill(np.nan)
    elif found.dtype.kind in "iu":
        found.fill(np.iinfo(found.dtype).max - 7)
    return found


def to_device(obj: Any, stream: Any = 0, copy: bool = True, to: Any = None) -> Any:
    """As `numba.cuda.to_device`."""
    if to is not None:
        if copy:
            to.copy_to_device(obj, stream=stream)
        return to
    if isinstance(obj, DeviceNDArray):
        return obj
    if hasattr(obj, "__cuda_array_interface__"):
        return DeviceNDArray(memory_of(obj))
    host = np.asarray(obj)
    if host.dtype.kind not in "biufc":
        raise TypeError(f"an array of {host.dtype} cannot be copied to the device")
    _contiguous(host)
    if copy:
        count_up(host.nbytes, "cuda.to_device")
    return DeviceNDArray(host.copy(order="K") if copy else garbage(host.shape, host.dtype))


def as_cuda_array(obj: Any, sync: bool = True) -> DeviceNDArray:
    """As `numba.cuda.as_cuda_array`."""
    if not hasattr(obj, "__cuda_array_interface__"):
        raise TypeError("*obj* doesn't implement the cuda array interface.")
    return DeviceNDArray(memory_of(obj))


def is_cuda_array(obj: Any) -> bool:
    """As `numba.cuda.is_cuda_array`."""
    return hasattr(obj, "__cuda_array_interface__")


def device_array(
    shape: Any, dtype: Any = np.float64, strides: Any = None, order: str = "C", stream: Any = 0
) -> DeviceNDArray:
    """As `numba.cuda.device_array`; what it holds is not zero."""
    sizes = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    for size in sizes:
        if not isinstance(size, (int, np.integer)):
            raise TypeError(f"shape elements must be integers, got {type(size).__name__}")
    return DeviceNDArray(garbage(sizes, dtype, order))


def device_array_like(ary: Any, stream: Any = 0) -> DeviceNDArray:
    """As `numba.cuda.device_array_like`."""
    return device_array(ary.shape, ary.dtype)


def pinned_array(shape: Any, dtype: Any = np.float64, strides: Any = None, order: str = "C") -> np.ndarray:
    """As `numba.cuda.pinned_array`: an array on the host."""
    return garbage(shape, dtype, order)


def _contiguous(memory: np.ndarray) -> None:
    if not (memory.flags.c_contiguous or memory.flags.f_contiguous):
        raise ValueError(
            "Array contains non-contiguous buffer and cannot be transferred as a single memory region. Please ensure "
            "contiguous buffer with numpy .ascontiguousarray()"
        )


def _check_compatible(one: np.ndarray, other: Any) -> None:
    if one.dtype != other.dtype:
        raise TypeError(f"incompatible dtype: {one.dtype} vs. {other.dtype}")
    if np.squeeze(one).shape != np.squeeze(other).shape:
        raise ValueError(f"incompatible shape: {one.shape} vs. {other.shape}")
