"""How kernels are compiled: once for each machine, kept on disk where that is possible, and not without saying so.

Numba compiles under one lock, so a second core helps only from another process: a `Helper` compiles what is wanted later,
and the folder on disk hands it over.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

import numpy as np
from numba import config, njit
from numba.core import event

PRECOMPILE = "gpuclust.metrics.precompile"
SILHOUETTE_KERNELS = "gpuclust.metrics.silhouette.kernels_cpu"
LOOK = 0.02  # seconds between looks for what the helper compiles


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

    Numba would raise out of the first call; here the kernel is compiled, and not kept. What the helper brings is waited for.
    """
    load, save, module = cache.load_overload, cache.save_overload, cache._py_func.__module__

    def load_if_possible(*args: Any) -> Any:
        while True:
            coming = _helper is not None and _helper.brings(module)  # asked before looking: what it keeps last counts
            try:
                found = load(*args)
            except (OSError, EOFError, UnpicklingError):
                return None
            if found is not None or not coming:
                return found
            time.sleep(LOOK)

    def save_if_possible(*args: Any) -> None:
        with suppress(OSError, EOFError, UnpicklingError):
            save(*args)

    cache.load_overload, cache.save_overload = load_if_possible, save_if_possible


@dataclass
class Helper:
    """A process that compiles kernels of some ``modules`` and keeps them on disk; ``command`` starts it.

    No other process should compile those meanwhile: numba's folder is not made for two that keep versions of one kernel.
    """

    command: Sequence[str]
    modules: frozenset[str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, once; a machine that cannot start it does without."""
        if self.process is None:
            nothing = subprocess.DEVNULL
            with suppress(OSError):
                self.process = subprocess.Popen(self.command, stdin=nothing, stdout=nothing, stderr=nothing)

    def brings(self, module: str) -> bool:
        """Whether kernels of a module may still come from it."""
        return module in self.modules and self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """End it, finished or not."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


_helper: Helper | None = None
_listening = False


def offer(helper: Helper) -> None:
    """Have this one started if something has to be compiled, within `notify_on_compile`; the first offer counts."""
    global _helper
    if _listening and _helper is None:
        _helper = helper


@contextmanager
def small_grids() -> Iterator[None]:
    """Without the advice that a small table fills no device, which helps nobody here.

    By its text: numba and numba-cuda have a class each for it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*under-utilization")
        yield


class _Listener(event.Listener):
    """Meets each kernel that is compiled rather than read from disk: calls back at the first, and starts the helper.

    Garbage is not collected meanwhile: compiling makes little of it, and looking for it took a tenth of the time.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell: Callable[[], None] | None = tell
        self._depth, self._collects = 0, False

    def on_start(self, event: Any) -> None:
        tell, self._tell = self._tell, None
        if tell is not None:
            tell()
        if self._depth == 0:
            self._collects = gc.isenabled()
            gc.disable()
        self._depth += 1
        module = event.data["dispatcher"].py_func.__module__
        if _helper is not None and module not in _helper.modules:
            _helper.start()

    def on_end(self, event: Any) -> None:
        self._depth -= 1
        if self._depth == 0 and self._collects:
            gc.enable()


@contextmanager
def notify_on_compile(tell: Callable[[], None]) -> Iterator[None]:
    """Call ``tell`` once when, within the context, some kernel is not on disk and has to be compiled."""
    global _helper, _listening
    _listening = True
    try:
        with event.install_listener("numba:compile", _Listener(tell)):
            yield
    finally:
        _listening = False
        if _helper is not None:
            _helper.stop()
            _helper = None


def schedule_precompile(algorithm: str, X: np.ndarray, modules: Sequence[str] = ()) -> None:
    """Offer a helper that compiles what follows a fit of ``algorithm`` to X; it starts if kernels have to be compiled.

    ``modules`` are the modules of the algorithm whose kernels the helper compiles, beside those of the silhouette.
    """
    if config.NUMBA_DEFAULT_NUM_THREADS > 1:  # one core for each process
        task = (algorithm, X.dtype.name, str(X.shape[1]))
        offer(Helper((sys.executable, "-P", "-m", PRECOMPILE, *task), frozenset({SILHOUETTE_KERNELS, *modules})))
