"""The exception tree.

GpuclustError
├── InputError                 exit status 2: nothing was run
│   ├── ConfigurationError     a key, a choice or a range
│   ├── DataError              a file that is missing, empty, corrupt or not a table
│   ├── CleaningError          too few rows or features are left after cleaning
│   ├── BackendError           the requested backend cannot run on this machine
│   ├── TrackingError          the MLflow store cannot be reached or written
│   │   └── StoreUnavailable   it does not respond; a retry may succeed
│   ├── ExportError            the run does not exist, or a folder cannot be written or read
│   └── ModelError             a model bundle is damaged, or rows do not match it
└── JobError                   exit status 1: one job failed, the others are kept
    ├── FitError               an algorithm failed to fit
    ├── DeviceLost             the GPU failed, and no later job of the process can use it
    └── RecordingError         a result could not be recorded; results recorded earlier are kept
"""

from __future__ import annotations

from collections.abc import Sequence

from gpuclust.sanitize import mask


class GpuclustError(Exception):
    """Base class of the errors that gpuclust raises. The message is one line (what, where, what to do) without secrets."""

    exit_status = 2

    def __init__(self, message: str = "") -> None:
        line = mask(str(message)).replace("\n", " ")
        # A name from a file may contain control characters, which a terminal would interpret.
        super().__init__("".join(c if c.isprintable() else "?" for c in line))


class InputError(GpuclustError):
    """The command, its configuration or its input is invalid; nothing was run."""


class ConfigurationError(InputError):
    """A configuration key, choice or value is wrong."""


class DataError(InputError):
    """A file is missing, empty, corrupt, or not a table."""


class CleaningError(InputError):
    """Too few rows or features are left after cleaning."""


class BackendError(InputError):
    """The requested backend cannot run on this machine."""


class TrackingError(InputError):
    """The tracking store cannot be reached or written."""


class StoreUnavailable(TrackingError):
    """The tracking store does not respond; a retry may succeed."""


class ExportError(InputError):
    """The run does not exist, or an export folder cannot be written or read."""


class ModelError(InputError):
    """A model bundle is damaged, or rows do not match it."""


class JobError(GpuclustError):
    """A job failed; the other jobs of its sweep are kept."""

    exit_status = 1


class FitError(JobError):
    """An algorithm failed to fit the matrix with these parameters."""


class DeviceLost(JobError):
    """The GPU failed in a way that ends its use by this process; results recorded earlier are kept."""


class RecordingError(JobError):
    """A result could not be recorded; results recorded earlier are kept."""


def message_of(error: BaseException) -> str:
    """The text of an exception from a library in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]


def did_you_mean(names: Sequence[str]) -> str:
    """``; did you mean X or Y?`` as the end of a message; nothing without names."""
    return f"; did you mean {' or '.join(names)}?" if names else ""


def why(error: BaseException) -> str:
    """The message of an exception in one line; of an error of the file system with the path and what to do."""
    if not isinstance(error, OSError):
        return str(error)
    import errno
    import tempfile  # 20 ms, which `gpuclust --help` need not take

    of_disk = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
    where = error.filename or (tempfile.gettempdir() if of_disk else None)
    if where is None:
        return str(error.strerror or error)
    return f"{error.strerror or error}: {where}; check that it is writable and has space"
