"""How kernels are compiled: once for each machine, kept on disk where that is possible, and not without saying so."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pickle import UnpicklingError
from typing import Any

from numba import njit
from numba.core import event


def compiled(*, inner: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` without the interpreter's lock, kept on disk, or in memory alone where nothing can be written.

    Quicker to compile without the ways in that nobody takes: from C, and from Python where only kernels call it (`inner`).
    The folder is NUMBA_CACHE_DIR, else __pycache__ beside the file, else the user's own cache.
    """
    options = {"nogil": True, "no_cfunc_wrapper": True, "no_cpython_wrapper": inner, **options}

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            kernel = njit(cache=True, **options)(function)
        except RuntimeError:  # numba's answer where no folder is writable
            return njit(**options)(function)
        _forgive(kernel._cache)
        return kernel

    return decorate


def _forgive(cache: Any) -> None:
    """A folder that was writable at import may be full, damaged or gone when a kernel is looked up or kept.

    Numba would raise out of the first call; here the kernel is compiled, and not kept.
    """
    load, save = cache.load_overload, cache.save_overload

    def load_if_possible(*args: Any) -> Any:
        try:
            return load(*args)
        except (OSError, EOFError, UnpicklingError):
            return None

    def save_if_possible(*args: Any) -> None:
        with suppress(OSError, EOFError, UnpicklingError):
            save(*args)

    cache.load_overload, cache.save_overload = load_if_possible, save_if_possible


@contextmanager
def small_grids() -> Iterator[None]:
    """Without the advice that a small table fills no device, which helps nobody here.

    By its text: numba and numba-cuda have a class each for it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*under-utilization")
        yield


class _Listener(event.Listener):
    """Calls back at the first kernel that is compiled rather than read from disk."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell: Callable[[], None] | None = tell

    def on_start(self, event: Any) -> None:
        tell, self._tell = self._tell, None
        if tell is not None:
            tell()

    def on_end(self, event: Any) -> None:
        pass


@contextmanager
def told_when_compiling(tell: Callable[[], None]) -> Iterator[None]:
    """Call ``tell`` once when, within the context, some kernel is not on disk and has to be compiled."""
    with event.install_listener("numba:compile", _Listener(tell)):
        yield
