"""Reading a model's two files without trusting them: regular files of the folder, of bounded size, never a pickle.

The headers of all arrays are read and checked before any array is, and both files against the SHA-256 digests in the
manifest of the export that they belong to.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from pydantic import BaseModel, ValidationError

from gpuclust.errors import ModelError, message_of
from gpuclust.model.schema import Description, check_headers, check_values, parse

MODEL, ARRAYS, MANIFEST = "model.json", "arrays.npz", "manifest.json"
MAX_JSON_BYTES = 64 << 20
MAX_ARRAY_BYTES = 16 << 30
MAX_ARRAYS = 64
MAX_HEADER_BYTES = 4_096
# Arrays above the size that are compressed further than this are refused: deflate reaches 1,032 on zeros, real values
# below 50, and labels that are all the same some hundreds.
MAX_RATIO, MIN_RATIO_BYTES = 400, 64 << 20


@dataclass(frozen=True)
class ModelFiles:
    """A model's description and its arrays by their full names, as in ``scaling/offset``."""

    description: Description
    arrays: Mapping[str, np.ndarray]


def read_model(folder: Path, only: Collection[str] | None = None) -> ModelFiles:
    """Read the model in a folder: all of its arrays, or those whose names begin with one of ``only``.

    Where the folder above has the manifest of an export, the files must have its digests. Raises ModelError, in one
    line, when a file is missing, is not a regular file, was changed, or does not follow the schema.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100  a link to another folder stays one
    digests = _digests(folder)
    root = folder if digests is None else folder.parent
    try:
        with opened(folder / MODEL, root) as file:
            text = bounded(file, folder / MODEL)
            _verify(file, folder / MODEL, digests)
        description = parse(text)
        with opened(folder / ARRAYS, root) as file:
            _verify(file, folder / ARRAYS, digests)
            arrays = _arrays(file, description, only)
        check_values(description, arrays)
    except ModelError as error:
        if str(folder) in str(error):
            raise
        raise ModelError(f"the model in {folder} cannot be used: {error}") from error
    except FileNotFoundError as error:
        raise ModelError(f"{folder} holds no model: {Path(error.filename).name} is missing") from error
    except MemoryError as error:
        raise ModelError(f"the model in {folder} does not fit into memory") from error
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen types on a damaged file
        reason = message_of(error) or type(error).__name__
        raise ModelError(f"the model in {folder} is damaged ({reason}); export it again") from error
    return ModelFiles(description, arrays)


def opened(path: Path, root: Path) -> BufferedReader:
    """A regular file that lies under ``root``, open for reading; a FIFO or a device is refused without waiting for it."""
    try:
        resolved = path.resolve(strict=True)
    except RuntimeError as error:  # a link to itself, in Python 3.11 and 3.12
        raise ModelError(f"{path} is a link to itself") from error
    if not resolved.is_relative_to(root.resolve()):
        raise ModelError(f"{path} is a link out of {root}; copy the file into the folder")
    descriptor = os.open(resolved, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ModelError(f"{path} is not a regular file")
    return os.fdopen(descriptor, "rb")


def bounded(file: BufferedReader, path: Path) -> bytes:
    text = file.read(MAX_JSON_BYTES + 1)
    if len(text) > MAX_JSON_BYTES:
        raise ModelError(f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB")
    return text


class _Manifest(BaseModel):
    gpuclust: str | None = None
    sha256: dict[str, str] | None = None


def _digests(folder: Path) -> Mapping[str, str] | None:
    """SHA-256 by file name from the manifest of the export that the folder is in; None where there is no export."""
    path = folder.parent / MANIFEST
    if not os.path.lexists(path):
        return None
    with opened(path, path.parent) as file:
        text = bounded(file, path)
    try:
        manifest = _Manifest.model_validate_json(text)
    except ValidationError as error:
        raise ModelError(f"{path} is damaged; export the run again") from error
    if manifest.sha256 is None:
        if manifest.gpuclust is None:  # another program's manifest
            return None
        raise ModelError(f"{path} has no digests of the model's files; export the run again")
    return {name: manifest.sha256.get(f"{folder.name}/{name}", "") for name in (MODEL, ARRAYS)}


def _verify(file: BufferedReader, path: Path, digests: Mapping[str, str] | None) -> None:
    """Compare an open file with the manifest, and go back to its beginning."""
    if digests is None:
        return
    file.seek(0)
    if hashlib.file_digest(file, "sha256").hexdigest() != digests[path.name]:
        raise ModelError(
            f"{path} is damaged or was changed since its export (not the SHA-256 of the manifest); export the run again"
        )
    file.seek(0)


def _arrays(file: BufferedReader, description: Description, only: Collection[str] | None) -> dict[str, np.ndarray]:
    with ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > MAX_ARRAYS:
            raise ModelError(f"{ARRAYS} has {len(members):,} members, more than the {MAX_ARRAYS} that a model may have")
        headers = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name in headers or name == member.filename:
                raise ModelError(f"{ARRAYS} has the member {member.filename[:80]!r}, which is not an array of its own")
            headers[name] = _header(archive, member)
        if sum(member.file_size for member in members) > MAX_ARRAY_BYTES:
            raise ModelError(f"{ARRAYS} has more than {MAX_ARRAY_BYTES >> 30} GiB of arrays")
        check_headers(description, headers)
        wanted = [m for m in members if only is None or m.filename.startswith(tuple(only))]
        return {member.filename.removesuffix(".npy"): _array(archive, member) for member in wanted}


def _header(archive: ZipFile, member: ZipInfo) -> tuple[str, tuple[int, ...]]:
    """Type and shape of an array, after comparing the size that they imply with the member's."""
    name = member.filename[:80]
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ModelError(f"{ARRAYS}: {name} is compressed in a way that NumPy does not use")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream, max_header_size=MAX_HEADER_BYTES)
        begin = stream.tell()
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        raise ModelError(f"{ARRAYS}: {name} does not hold plain numbers")
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or begin + size != member.file_size:
        raise ModelError(f"{ARRAYS}: {name} has another size than its shape {shape} says")
    if size > MIN_RATIO_BYTES and size > MAX_RATIO * member.compress_size:
        raise ModelError(f"{ARRAYS}: {name} unpacks to {size:,} bytes from {member.compress_size:,}")
    return dtype.str, shape


def _array(archive: ZipFile, member: ZipInfo) -> np.ndarray:
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False, max_header_size=MAX_HEADER_BYTES)
