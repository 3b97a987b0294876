"""Compilation of kernels for a GPU: `cuda_kernel` is to numba.cuda what `jit.compiled` is to numba."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from hashlib import sha256
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any

from numba import config, cuda

from gpuclust.runtime.jit import ignore_cache_errors


def cuda_kernel(*, device: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.cuda.jit` with a cache on disk, or in memory alone where no folder is writable or the cache is damaged.

    ``device``: a function that kernels call; it is compiled, and cached, as a part of each of them. ``options`` are those of
    `numba.cuda.jit` (``fastmath``, ``max_registers``, ``launch_bounds``, ...). The cache is where that of the CPU's kernels is
    (see `compiled`). A kernel may refer to numbers, numba types and device functions in variables of its module or of the function that
    makes it: another value of one of them, here or in a device function, is another kernel in the cache. numba's simulator
    (NUMBA_ENABLE_CUDASIM=1) runs the function as it is.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        if config.ENABLE_CUDASIM:
            return cuda.jit(device=device)(function)
        if device:
            return cuda.jit(device=True, **options)(function)
        try:
            kernel = cuda.jit(cache=True, **options)(function)
        except RuntimeError:  # numba's answer where no folder is writable
            return cuda.jit(**options)(function)
        kernel._cache._py_func = _KeyedByContent(function, options)
        ignore_cache_errors(kernel._cache)
        return kernel

    return decorate


class _KeyedByContent:
    """What numba reads of a function for the key of its cache, which would be its own bytecode and the pickled closure.

    A pickled device function is different in every process, and neither its code nor the constants of a module are in that key.
    """

    __closure__ = None

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.__module__ = function.__module__
        self._function, self._options = function, options

    def content(self) -> list[str]:
        """What the compiled code depends on, as text that is the same in every process."""
        return [repr(sorted(self._options.items())), *_content(self._function, set())]

    @property
    def __code__(self) -> Any:
        return SimpleNamespace(co_code=sha256("\n".join(self.content()).encode()).digest())


def _content(function: Any, seen: set[Any]) -> Iterator[str]:
    """Describe what the compiled code of a function depends on: its bytecode and the values and functions that it refers to."""
    if function in seen:
        return
    seen.add(function)
    yield from _code(function.__code__)
    variables = inspect.getclosurevars(function)
    for name, value in sorted({**variables.globals, **variables.nonlocals}.items()):
        value = getattr(value, "py_func", value)
        yield name
        if isinstance(value, FunctionType):
            yield from _content(value, seen)
        elif not inspect.ismodule(value):
            yield repr(value)


def _code(code: CodeType) -> Iterator[str]:
    yield f"{code.co_code.hex()} {code.co_names}"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant)
        else:
            yield repr(constant)
