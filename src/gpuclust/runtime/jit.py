"""Compilation of kernels: once per machine, with a cache on disk where possible, and with a message to the user.

Numba compiles under one lock, so a second core helps only from another process: a `CompileWorker` compiles the kernels that
are needed later, and this process reads them from the cache on disk.
"""

from __future__ import annotations

import fcntl
import gc
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import PickleError
from typing import Any

from numba import config, njit
from numba.core import event

PRECOMPILE = "gpuclust.metrics.precompile"
SILHOUETTE_KERNELS = "gpuclust.metrics.silhouette.kernels_cpu"
POLL_SECONDS = 0.02  # between two looks into the cache for what the worker compiles
FASTMATH = {"contract", "nnan", "nsz"}
# What reading or writing a cache raises where its folder is full, missing or damaged: pickle's manual names these.
CACHE_ERRORS = (
    OSError,
    EOFError,
    PickleError,
    AttributeError,
    ImportError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
)


def compiled(*, inner: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` without the interpreter's lock, cached on disk, or in memory alone where no folder is writable.

    ``fastmath`` is, unless given, for arithmetic that never meets NaN and does not distinguish 0.0 from -0.0. To cut
    compile time the C wrapper is skipped, as is the Python wrapper of kernels that only kernels call (``inner``).
    The cache is in NUMBA_CACHE_DIR, else in __pycache__ beside the file, else in the user's own cache folder.
    """
    options = {"nogil": True, "no_cfunc_wrapper": True, "no_cpython_wrapper": inner, "fastmath": FASTMATH, **options}

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            kernel = njit(cache=True, **options)(function)
        except RuntimeError:  # numba's answer where no folder is writable
            return njit(**options)(function)
        ignore_cache_errors(kernel._cache)
        return kernel

    return decorate


def ignore_cache_errors(cache: Any) -> None:
    """Compile without the cache if its folder has become full, damaged or missing since the import.

    Numba would raise an error from the first call. A kernel that the worker is still to compile is waited for. The folder is locked during
    compilation: numba writes the list of versions before the version itself, so without a lock two processes that compile one kernel for
    two types could each load the other's version.
    """
    load, save, module = cache.load_overload, cache.save_overload, cache._py_func.__module__

    def load_if_possible(*args: Any) -> Any:
        while True:
            coming = _worker is not None and _worker.will_compile(
                module
            )  # before loading: it may save and end in between
            try:
                with _lock(cache.cache_path):
                    found = load(*args)
            except CACHE_ERRORS:
                return None
            if found is not None or not coming:
                return found
            time.sleep(POLL_SECONDS)

    def save_if_possible(*args: Any) -> None:
        with suppress(*CACHE_ERRORS):
            Path(cache.cache_path).mkdir(parents=True, exist_ok=True)
            with _lock(cache.cache_path):
                save(*args)

    cache.load_overload, cache.save_overload = load_if_possible, save_if_possible


@contextmanager
def _lock(folder: str) -> Iterator[None]:
    """Lock a folder against other processes, if it exists and its file system supports locks."""
    descriptor = None
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


@dataclass
class CompileWorker:
    """A process, started by ``command``, that compiles the kernels of some ``modules`` into the cache on disk.

    No other process should compile these at the same time: numba's cache does not merge versions of one kernel that two
    processes save.
    """

    command: Sequence[str]
    modules: frozenset[str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, once. Where it cannot be started, all kernels are compiled in this process."""
        if self.process is None:
            nothing = subprocess.DEVNULL
            with suppress(OSError):
                self.process = subprocess.Popen(self.command, stdin=nothing, stdout=nothing, stderr=nothing)

    def will_compile(self, module: str) -> bool:
        """Whether the process is running and may still compile kernels of ``module``."""
        return module in self.modules and self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """Kill the process if it is running."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


_worker: CompileWorker | None = None
_listener: _Listener | None = None


def set_worker(worker: CompileWorker) -> None:
    """Within `notify_on_compile`: the worker to start if a kernel has to be compiled. Only the first one registered is used."""
    global _worker
    if _listener is not None and _worker is None:
        _worker = worker


@contextmanager
def ignore_small_grid_warnings() -> Iterator[None]:
    """Silence numba's performance warning that a small table does not fill the GPU.

    It is filtered by its text, as numba and numba-cuda have different classes for it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*under-utilization")
        yield


class _Listener(event.Listener):
    """Receives an event for each kernel that is compiled rather than read from the cache.

    The first one calls ``callback``; the first one outside the worker's modules starts the worker. The garbage collector is off during
    compilation, where it took a tenth of the time.
    """

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback
        self._depth, self._gc_was_enabled = 0, False

    def report(self) -> None:
        """Call the callback, if this is the first time."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    def on_start(self, event: Any) -> None:
        self.report()
        if self._depth == 0:
            self._gc_was_enabled = gc.isenabled()
            gc.disable()
        self._depth += 1
        module = event.data["dispatcher"].py_func.__module__
        if _worker is not None and module not in _worker.modules:
            _worker.start()

    def on_end(self, event: Any) -> None:
        self._depth -= 1
        if self._depth == 0 and self._gc_was_enabled:
            gc.enable()


@contextmanager
def notify_on_compile(callback: Callable[[], None]) -> Iterator[None]:
    """Call ``callback`` once if, within the context, a kernel is not in the cache and has to be compiled."""
    global _worker, _listener
    _listener = _Listener(callback)
    try:
        with event.install_listener("numba:compile", _listener):
            yield
    finally:
        _listener = None
        if _worker is not None:
            _worker.stop()
            _worker = None


def report_compile() -> None:
    """Within `notify_on_compile`: report a compilation for which numba sends no event."""
    if _listener is not None:
        _listener.report()


def schedule_precompile(algorithm: str, X: Any, modules: Sequence[str] = ()) -> None:
    """Register a worker that compiles the kernels used after a fit of ``algorithm`` to X (n_samples, n_features), in memory or in blocks.

    It starts if the fit has to compile kernels of its own. ``modules`` are the modules of the algorithm whose kernels the
    worker compiles, besides those of the silhouette.
    """
    if config.NUMBA_DEFAULT_NUM_THREADS > 1:  # one core for each process
        task = (algorithm, X.dtype.name, str(X.shape[1]))
        set_worker(
            CompileWorker((sys.executable, "-P", "-m", PRECOMPILE, *task), frozenset({SILHOUETTE_KERNELS, *modules}))
        )
