"""What GPU libraries raise, as errors of gpuclust: a failed job, or a lost device. This file needs no GPU library."""

from __future__ import annotations

import re
from collections.abc import Callable

from gpuclust.errors import DeviceLost, FitError, JobError, message_of

_CUDA_NAME = re.compile(r"cudaError([A-Z]\w*)|CUDA_ERROR_([A-Z_]+)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_OUT_OF_MEMORY = frozenset({"memoryallocation", "outofmemory"})
_HARMLESS = _OUT_OF_MEMORY | {"insufficientdriver"}
"""Errors that a synchronisation may raise although the context is not lost; the second one is raised where there is no driver."""
_LOST = frozenset({
    "illegaladdress", "launchtimeout", "contextisdestroyed", "assert", "hardwarestackerror", "illegalinstruction",
    "misalignedaddress", "invalidaddressspace", "invalidpc", "launchfailure", "launchfailed", "eccuncorrectable",
    "nvlinkuncorrectable", "devicesunavailable", "nodevice", "deinitialized", "cudartunloading", "invalidcontext",
})  # fmt: skip
"""The CUDA errors after which every later call of the process fails: names of the runtime and of the driver API, without prefix,
case and underscores (codes 700, 702, 709, 710, 714 to 719, 214, 220, 46, 100, 4, 201)."""


def failure_of(error: Exception, what: str, synchronise: Callable[[], object]) -> JobError:
    """The error to raise for an exception of any GPU library while ``what`` was computed.

    It is a `DeviceLost` where the exception names a CUDA error that ends the context, or where ``synchronise``, which waits for the
    device, fails twice with CUDA errors: a kernel fails after the call that started it has returned. It is a FitError otherwise.
    """
    text = " ".join(_COLOUR.sub("", str(error)).split())
    names = cuda_errors(text)
    if names & _LOST:
        return _lost(what, error)
    if names & _OUT_OF_MEMORY or "out of memory" in text.lower() or "bad_alloc" in text:
        return FitError(
            f"the GPU has too little memory for {what} ({_describe(error)}); use dtype=float32, fewer rows, "
            "a higher backend.pool_fraction, or backend=cpu"
        )
    if isinstance(error, MemoryError):  # of NumPy, Arrow or Python
        return FitError(
            f"this machine has too little memory for {what} ({_describe(error)}); use dtype=float32, fewer rows (data.n_rows), or a machine with "
            "more"
        )
    if (later := _still_failing(synchronise)) is not None:
        return _lost(what, later)
    return FitError(f"{what} failed on the GPU: {_describe(error)}; try backend=cpu")


def cuda_errors(text: str) -> frozenset[str]:
    """The CUDA errors that a text names, without prefix, case and underscores: ``illegaladdress``."""
    found = (runtime or driver for runtime, driver in _CUDA_NAME.findall(text))
    return frozenset(name.replace("_", "").lower() for name in found)


def _still_failing(synchronise: Callable[[], object]) -> Exception | None:
    """The CUDA error that a synchronisation still raises, or None. An error that does not end the context is raised only once."""
    found = None
    for _ in range(2):
        try:
            synchronise()
        except Exception as error:  # each library has types of its own
            if not cuda_errors(str(error)) - _HARMLESS:
                return None
            found = error
        else:
            return None
    return found


def _lost(what: str, error: Exception) -> DeviceLost:
    return DeviceLost(
        f"the GPU failed during this step: {what} ({_describe(error)}); this process cannot use the GPU any more, try backend=cpu"
    )


def _describe(error: Exception) -> str:
    """The text of an exception in one line, after its type unless that is a general type of Python."""
    text = " ".join(_COLOUR.sub("", message_of(error)).split())
    if text and type(error) in (RuntimeError, ValueError, MemoryError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
