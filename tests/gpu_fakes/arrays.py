"""CuPy's array, as strict as the real one: no implicit copy to the host, no NumPy array as an operand, results of reductions stay arrays."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.gpu_fakes.device import launch, to_device, to_host
from tests.gpu_fakes.device_arrays import garbage, interface_of, memory_of
from tests.gpu_fakes.signatures import bind, callable_name, known

VIEWS = {"reshape", "ravel", "transpose", "squeeze", "swapaxes", "view", "T", "diagonal"}
WAITS = {"nonzero"}
"""Methods that wait for the device, because the size of their result is not known before."""


class ndarray:
    """A NumPy array in the role of memory on the device. A method that is not written here takes the parameters of CuPy's and computes
    as NumPy's of that name."""

    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("_memory",)

    def __init__(
        self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, order: str = "C"
    ) -> None:
        self._memory = garbage(shape, dtype, order)

    shape = property(lambda self: self._memory.shape)
    dtype = property(lambda self: self._memory.dtype)
    ndim = property(lambda self: self._memory.ndim)
    size = property(lambda self: self._memory.size)
    itemsize = property(lambda self: self._memory.itemsize)
    nbytes = property(lambda self: self._memory.nbytes)
    strides = property(lambda self: self._memory.strides)
    flags = property(lambda self: self._memory.flags)
    T = property(lambda self: wrap(self._memory.T))
    device = property(lambda self: "<CUDA Device 0>")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**interface_of(self._memory), "stream": 1}

    # What leaves the device

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        to_host(self.nbytes, "get")
        if out is None:
            return self._memory.copy(order)
        out[...] = self._memory
        return out

    def item(self, *index: Any) -> Any:
        to_host(self.itemsize, "item")
        return self._memory.item(*index)

    def tolist(self) -> Any:
        to_host(self.nbytes, "tolist")
        return self._memory.tolist()

    def __bool__(self) -> bool:
        to_host(self.itemsize, "bool")
        return bool(self._memory)

    def __float__(self) -> float:
        to_host(self.itemsize, "float")
        return float(self._memory)

    def __int__(self) -> int:
        to_host(self.itemsize, "int")
        return int(self._memory)

    def __index__(self) -> int:
        to_host(self.itemsize, "index")
        return operator.index(self._memory)

    def __repr__(self) -> str:
        return f"device {self._memory!r}"

    def __format__(self, how: str) -> str:
        if self.ndim == 0:
            return format(self.item(), how)
        return format(str(self), how)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
        )

    # Operations

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        refuse_host(inputs, ufunc.__name__)
        refuse_host(kwargs.get("out") or (), ufunc.__name__)
        if method != "__call__":
            return NotImplemented
        launch(f"cupy.{ufunc.__name__}")
        return wrap(ufunc(*map(inner, inputs), **{k: inner(v) for k, v in kwargs.items()}))

    def __array_function__(self, function: Any, kinds: Any, args: Any, kwargs: Any) -> Any:
        import cupy

        if not all(issubclass(kind, ndarray) for kind in kinds):
            return NotImplemented
        module = cupy.linalg if function.__module__ == "numpy.linalg" else cupy
        return getattr(module, function.__name__)(*args, **kwargs)

    def __len__(self) -> int:
        return len(self._memory)

    def __iter__(self) -> Iterator[Any]:
        return (wrap(row) for row in self._memory)

    def __getitem__(self, index: Any) -> Any:
        return wrap(self._memory[_index(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        launch("cupy.setitem")
        self._memory[_index(index)] = inner(value)

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())

    def astype(self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True) -> Any:
        if not copy and self.dtype == np.dtype(dtype):
            return self
        launch("cupy.astype")
        return wrap(self._memory.astype(dtype, order))

    def fill(self, value: Any) -> None:
        refuse_host((value,), "fill")
        launch("cupy.fill")
        self._memory.fill(inner(value))

    def set(self, arr: Any, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != arr.dtype or self.shape != arr.shape:
            raise ValueError(
                f"{arr.dtype} array of shape {arr.shape} cannot be set to {self.dtype} array of shape {self.shape}"
            )
        to_device(arr.nbytes, "set")
        self._memory[...] = arr

    def __copy__(self) -> Any:
        return self.copy()

    def __getattr__(self, name: str) -> Any:
        full = f"cupy.ndarray.{name}"
        if name.startswith("_") or not known(full):
            raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r}")
        if not callable_name(full):
            return wrap(getattr(self._memory, name))

        def method(*args: Any, **kwargs: Any) -> Any:
            bind(full, args, kwargs)
            refuse_host((*args, *kwargs.values()), name)
            if name not in VIEWS:
                launch(f"cupy.{name}")
            if name in WAITS:
                to_host(8, name)
            given = {k: inner(v) for k, v in kwargs.items() if v is not None}
            return wrap(getattr(self._memory, name)(*map(inner, args), **given))

        return method


def wrap(found: Any) -> Any:
    """A result of NumPy as one of CuPy: scalars are arrays without dimensions."""
    if isinstance(found, (np.ndarray, np.generic)):
        made = object.__new__(ndarray)
        made._memory = np.asarray(found)
        return made
    if isinstance(found, (tuple, list)):
        return type(found)(map(wrap, found))
    return found


def inner(value: Any) -> Any:
    """The memory of an array on the device; anything else as it is."""
    if isinstance(value, ndarray):
        return value._memory
    if isinstance(value, (tuple, list)) and not isinstance(value, str):
        return type(value)(map(inner, value))
    if hasattr(value, "__cuda_array_interface__"):
        return memory_of(value)
    return value


def refuse_host(values: Any, what: str) -> None:
    """Raises TypeError, as CuPy does, for an operand on the host."""
    for value in values:
        if isinstance(value, np.ndarray) or type(value).__module__.startswith(("pandas.", "pyarrow")):
            raise TypeError(f"Unsupported type {type(value)} ({what})")
        if isinstance(value, (tuple, list)):
            refuse_host(value, what)


def _index(index: Any) -> Any:
    """The index for NumPy. A list or an array on the host is copied to the device; a mask has to wait for its count."""
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    if isinstance(index, (np.ndarray, list)):
        index = wrap(np.asarray(index))
        to_device(index.nbytes, "index")
    if not isinstance(index, ndarray) and hasattr(index, "__cuda_array_interface__"):
        index = wrap(memory_of(index))
    if isinstance(index, ndarray):
        if index.dtype.kind not in "biu":
            raise IndexError(f"arrays used as indices must be of integer (or boolean) type, not {index.dtype}")
        launch("cupy.take")
        if index.dtype.kind == "b":
            to_host(8, "mask")
        return index._memory
    return index


def _operator(name: str) -> None:
    function = getattr(operator, f"{name}_" if name in ("and", "or") else name)

    def check(other: Any) -> Any:
        if other is None or isinstance(other, str):
            return NotImplemented
        refuse_host((other,), name)
        launch(f"cupy.{name}")
        return inner(other)

    def forward(self: ndarray, other: Any) -> Any:
        other = check(other)
        return other if other is NotImplemented else wrap(function(self._memory, other))

    def backward(self: ndarray, other: Any) -> Any:
        other = check(other)
        return other if other is NotImplemented else wrap(function(other, self._memory))

    def in_place(self: ndarray, other: Any) -> Any:
        other = check(other)
        found = function(self._memory, other)
        if not np.can_cast(found.dtype, self.dtype, "same_kind"):
            raise TypeError(f"output (typecode {found.dtype.char!r}) could not be coerced to provided output parameter")
        self._memory[...] = found
        return self

    setattr(ndarray, f"__{name}__", forward)
    if name not in COMPARISONS:
        setattr(ndarray, f"__r{name}__", backward)
        setattr(ndarray, f"__i{name}__", in_place)


COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
for _name in (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
    *COMPARISONS,
):
    _operator(_name)


def _unary(function: Any) -> Any:
    def apply(self: ndarray) -> Any:
        launch(f"cupy.{function.__name__}")
        return wrap(function(self._memory))

    return apply


for _function in (operator.neg, operator.pos, operator.abs, operator.invert):
    setattr(ndarray, f"__{_function.__name__}__", _unary(_function))
ndarray.__module__ = "cupy"
