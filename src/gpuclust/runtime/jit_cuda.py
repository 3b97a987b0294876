"""Compilation of kernels for a GPU: `cuda_kernel` is to numba.cuda what `jit.compiled` is to numba."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any

from numba import config, cuda

from gpuclust.runtime.jit import ignore_cache_errors, report_compile


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
        _report_misses(kernel._cache)
        return kernel

    return decorate


def _report_misses(cache: Any) -> None:
    """Report the compilation of a kernel that is not in the cache, because numba.cuda sends no event for it."""
    load = cache.load_overload

    def load_or_report(*args: Any) -> Any:
        found = load(*args)
        if found is None:
            report_compile()
        return found

    cache.load_overload = load_or_report


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


class RepeatedLaunch:
    """Launches of a kernel with the same arguments, as in the iterations of a fit whose arrays are kept.

    numba prepares the arguments at every launch, which takes several microseconds of host time for each array. Here the first call launches
    as usual and keeps the arguments that numba passes to the driver; later calls pass the same arguments to the driver. Arrays must not be
    replaced between the calls, and numbers keep the values of the first call.
    """

    def __init__(self, kernel: Any, blocks: Any, threads: Any, *arguments: Any, shared: int = 0) -> None:
        """``blocks`` of ``threads``, each with ``shared`` bytes of shared memory besides what the kernel declares."""
        self._arguments = arguments  # keeps the arrays alive
        self._configured = kernel[blocks, threads, 0, shared]
        self._repeat: Callable[[], Any] | None = None

    def __call__(self) -> None:
        """Start the kernel and return without waiting for it."""
        if self._repeat is not None:
            self._repeat()
            return
        with _kept_launch() as kept:
            self._configured(*self._arguments)
        if kept:
            self._repeat = partial(kept[0], *kept[1:])


@contextmanager
def _kept_launch() -> Iterator[list[Any]]:
    """Yield a list that receives the function by which numba launches a kernel, and its arguments; nothing in the simulator."""
    kept: list[Any] = []
    if config.ENABLE_CUDASIM:
        yield kept
        return
    from numba.cuda import dispatcher

    launch = dispatcher.launch

    def keep(*arguments: Any) -> Any:
        kept[:] = [launch, *arguments]
        return launch(*arguments)

    dispatcher.launch = keep
    try:
        yield kept
    finally:
        dispatcher.launch = launch
