"""The exception tree.

GpuclustError
├── InputError                 exit status 2: nothing was run
│   ├── ConfigurationError     a key, a choice or a range
│   ├── DataError              a file that is missing, empty, corrupt or not a table
│   ├── CleaningError          nothing, or too little, is left after cleaning
│   ├── BackendError           the backend asked for cannot run here
│   ├── TrackingError          the MLflow store cannot be reached or written
│   │   └── StoreUnavailable   it does not answer now; another try may succeed
│   ├── ExportError            no such run, or a folder that cannot be written or read
│   └── ModelError             a bundle that is damaged, or rows that do not fit it
└── JobError                   exit status 1: one job failed, the others are kept
    ├── FitError               an algorithm could not fit what it was given
    └── RecordingError         what was computed could not be recorded; what was recorded before is kept
"""

from __future__ import annotations

from gpuclust.sanitize import mask


class GpuclustError(Exception):
    """Anything that gpuclust raises on purpose. Its text is one line: what, where, and what to do, without secrets."""

    exit_status = 2

    def __init__(self, message: str = "") -> None:
        line = mask(str(message)).replace("\n", " ")
        # A name from a file may hold control characters, which a terminal would obey.
        super().__init__("".join(c if c.isprintable() else "?" for c in line))


class InputError(GpuclustError):
    """What was asked for cannot be done as it stands; nothing was run."""


class ConfigurationError(InputError):
    """A configuration key, choice or value is wrong."""


class DataError(InputError):
    """A file is missing, empty, corrupt, or not a table."""


class CleaningError(InputError):
    """Cleaning left nothing, or too little, to cluster."""


class BackendError(InputError):
    """The backend that was asked for cannot run on this machine."""


class TrackingError(InputError):
    """The tracking store cannot be reached or written."""


class StoreUnavailable(TrackingError):
    """The tracking store does not answer now; another try may succeed."""


class ExportError(InputError):
    """There is no such run, or an export folder cannot be written or read."""


class ModelError(InputError):
    """A model bundle is damaged, or the rows do not fit it."""


class JobError(GpuclustError):
    """A job failed; the other jobs of its sweep are kept."""

    exit_status = 1


class FitError(JobError):
    """An algorithm could not fit the matrix with these parameters."""


class RecordingError(JobError):
    """What was computed could not be recorded; what was recorded before is kept."""


def why(error: BaseException) -> str:
    """An error in one line: of the file system, what it says, about which file or folder, and what to do."""
    if not isinstance(error, OSError):
        return str(error)
    import errno
    import tempfile  # 20 ms, which `gpuclust --help` need not take

    of_disk = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
    where = error.filename or (tempfile.gettempdir() if of_disk else None)
    if where is None:
        return str(error.strerror or error)
    return f"{error.strerror or error}: {where}; check that it is writable and has space"
