"""Remote files: S3, Google Cloud Storage and Azure through pyarrow's file systems, web addresses through fsspec.

The credentials are those that the tools of the stores use: ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY`` (or a profile or a role),
``AWS_ENDPOINT_URL`` for MinIO and other S3-compatible stores, ``GOOGLE_APPLICATION_CREDENTIALS``, ``AZURE_STORAGE_ACCOUNT``.
"""

from __future__ import annotations

import atexit
import hashlib
import io
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from gpuclust.errors import DataError, GpuclustError, message_of

STORES = ("s3", "gs", "gcs", "abfs", "abfss")
WEB = ("http", "https")
BUFFER_BYTES = 4 << 20
"""Bytes of one request when a whole file is read."""
LISTING_SECONDS = 10.0
"""How long a listing is cached, because a sweep asks for the fingerprint of each of its jobs."""
WILD = re.compile(r"[*?\[]")

_ADDRESS = re.compile(rf"({'|'.join((*STORES, *WEB))})://", re.IGNORECASE)


def is_remote(path: str) -> bool:
    """Whether a path is the address of a remote file."""
    return _ADDRESS.match(path) is not None


@dataclass(frozen=True)
class RemoteFile:
    """A file in a store or on the web, with the members of `pathlib.Path` that reading needs.

    ``store`` is a pyarrow file system and ``path`` the file's name in it. ``modified`` is in nanoseconds since 1970, 0 where it is not known;
    ``etag`` is a web server's identifier of the content.
    """

    url: str
    store: Any = field(compare=False)
    path: str
    size: int
    modified: int = 0
    etag: str = ""

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of its path."""
        path = urlsplit(self.url).path if scheme_of(self.url) in WEB else self.path
        return PurePosixPath(unquote(path)).name

    @property
    def suffix(self) -> str:
        """The ending of its name."""
        return PurePosixPath(self.name).suffix

    def stat(self) -> os.stat_result:
        """Its size and its modification time."""
        seconds = self.modified / 1e9
        return os.stat_result((0, 0, 0, 0, 0, 0, self.size, seconds, seconds, seconds))

    def open(self, mode: str = "rb", buffering: int = -1) -> BinaryIO:
        """Open the file for reading. ``buffering`` is the number of bytes of a request. Raises DataError where it cannot be opened."""
        assert mode == "rb"
        size = BUFFER_BYTES if buffering < 0 else buffering
        return cast(BinaryIO, io.BufferedReader(_Raw(self.url, self.arrow()), min(size, max(self.size, 1))))

    def arrow(self) -> Any:
        """The file as a pyarrow.NativeFile. Raises DataError where it cannot be opened."""
        with store_errors(self.url):
            return self.store.open_input_file(self.path)

    def tag(self) -> str:
        """The store's identifier of the content: the ETag, else the modification time. Raises DataError."""
        if scheme_of(self.url) in WEB:
            return self.etag
        with store_errors(self.url), self.store.open_input_file(self.path) as file:
            facts = {_text(key).lower(): _text(value) for key, value in (file.metadata() or {}).items()}
        return facts.get("etag") or str(self.modified)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


class _Raw(io.RawIOBase):
    """A pyarrow file as a raw stream of Python, so that it can be buffered and read line by line."""

    def __init__(self, url: str, file: Any) -> None:
        self._url, self._file = url, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with store_errors(self._url):
            piece = self._file.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._file.seek(offset, whence)
        return int(self._file.tell())

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def arrow_input(file: Path | RemoteFile) -> Any:
    """The argument for pyarrow's readers."""
    return file.arrow() if isinstance(file, RemoteFile) else file


def list_files(url: str, wanted: Callable[[str], bool]) -> list[RemoteFile]:
    """The file at an address, or the files below a folder or that match a pattern (``*``, ``?``, ``[...]``), sorted by path.

    ``wanted`` tells whether a name below a folder is that of a table file. Raises DataError if there is no file, or the store cannot be
    reached or denies access.
    """
    known = _listings.get(url)
    if known is None or time.monotonic() - known[0] > LISTING_SECONDS:
        with store_errors(url):
            known = (time.monotonic(), _web_file(url) if scheme_of(url) in WEB else _stored_files(url, wanted))
        _listings[url] = known
    return known[1]


_listings: dict[str, tuple[float, list[RemoteFile]]] = {}


def scheme_of(url: str) -> str:
    """``s3``, ``https`` and so on."""
    return url.partition("://")[0].lower()


def _stored_files(url: str, wanted: Callable[[str], bool]) -> list[RemoteFile]:
    from pyarrow.fs import FileSelector, FileType

    address, query = without_query(url)
    pattern = WILD.search(address)
    above = address if pattern is None else address[: pattern.start()].rpartition("/")[0]
    store, root = open_store(above + query)

    def found(info: Any) -> RemoteFile:
        # The path in the store ends like the address does, from where the two are cut.
        shown = above.rstrip("/") + info.path[len(root) :] + query
        return RemoteFile(shown, store, info.path, info.size or 0, info.mtime_ns or 0)

    if pattern is None:
        info = store.get_file_info(root)
        if info.type == FileType.File:
            return [found(info)]
    infos = store.get_file_info(FileSelector(root, recursive=True, allow_not_found=True))
    files = sorted((info for info in infos if info.type == FileType.File), key=lambda info: info.path)
    below = [(info, info.path[len(root) :].lstrip("/")) for info in files]
    if pattern is not None:
        asked = address[len(above) :].lstrip("/")
        matching = [found(info) for info, name in below if _matches(name, asked)]
        if not matching:
            raise DataError(f"{url} matches no file; check the pattern")
        return matching
    tables = [found(info) for info, name in below if wanted(name)]
    if not tables:
        raise DataError(f"{url} {'is a folder without table files' if files else 'does not exist'}; check the address")
    return tables


def _matches(name: str, pattern: str) -> bool:
    """Whether a path matches a pattern, whose ``*`` stays within a folder and whose ``**`` does not."""
    parts, wanted = name.split("/"), pattern.split("/")

    def match(i: int, j: int) -> bool:
        if j == len(wanted):
            return i == len(parts)
        if wanted[j] == "**":
            return match(i, j + 1) or (i < len(parts) and match(i + 1, j))
        return i < len(parts) and fnmatchcase(parts[i], wanted[j]) and match(i + 1, j + 1)

    return match(0, 0)


def without_query(url: str) -> tuple[str, str]:
    """An address of a store, and its parameters with the question mark: a pattern may have question marks too."""
    found = re.search(r"\?[a-z_]+=", url)
    return (url, "") if found is None else (url[: found.start()], url[found.start() :])


def open_store(url: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it, without a slash at the end. Raises DataError if it cannot be used."""
    address, query = without_query(url)
    scheme, _, rest = address.partition("://")
    root, _, path = rest.partition("/")
    with store_errors(url):
        store, base = _store(f"{scheme.lower()}://{root}{_with_endpoint(scheme.lower(), query)}")
    return store, f"{base.rstrip('/')}/{path}".strip("/")


@lru_cache(maxsize=64)
def _store(url: str) -> tuple[Any, str]:
    """The file system of a bucket, and its name in it. One is kept for each, because finding the region of a bucket is a request."""
    from pyarrow.fs import FileSystem

    store, base = FileSystem.from_uri(url)
    return store, base


def _with_endpoint(scheme: str, query: str) -> str:
    """The parameters of an S3 address, with ``AWS_ENDPOINT_URL`` if they name no endpoint."""
    named = dict(parse_qsl(query.lstrip("?")))
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if scheme != "s3" or not endpoint or "endpoint_override" in named:
        return query
    place = urlsplit(endpoint)
    more = f"endpoint_override={quote(place.netloc, safe=':')}&scheme={place.scheme or 'https'}"
    if "region" not in named:
        more += f"&region={os.environ.get('AWS_REGION') or os.environ.get('AWS_DEFAULT_REGION') or 'us-east-1'}"
    return f"{query}&{more}" if query else f"?{more}"


class _Web:
    """Web addresses by fsspec, with the method of a pyarrow file system that a RemoteFile uses."""

    def __init__(self) -> None:
        try:
            from fsspec.implementations.http import HTTPFileSystem
        except ImportError as error:
            raise DataError(
                f"web addresses need the packages fsspec and aiohttp (no module {error.name}): pip install 'gpuclust[remote]'"
            ) from error
        self.files = HTTPFileSystem(skip_instance_cache=True)

    def open_input_file(self, url: str) -> Any:
        """The file as a pyarrow.NativeFile; each read is one request of a range."""
        import pyarrow as pa

        return pa.PythonFile(self.files.open(url, "rb", cache_type="none"), mode="r")


@lru_cache(maxsize=1)
def _web() -> _Web:
    return _Web()


def _web_file(url: str) -> list[RemoteFile]:
    """The file at a web address. If the server does not support ranges or does not report the size, the file is downloaded."""
    web = _web()
    info = web.files.info(url)
    etag, size = str(info.get("ETag") or info.get("Last-Modified") or ""), info.get("size")
    if size and _has_ranges(web.files, url, int(size)):
        return [RemoteFile(url, web, url, int(size), etag=etag)]
    from pyarrow.fs import LocalFileSystem

    copy = _downloaded(url, etag)
    return [RemoteFile(url, LocalFileSystem(), str(copy), copy.stat().st_size, etag=etag or _digest(copy))]


def _has_ranges(files: Any, url: str, size: int) -> bool:
    """Whether the server answers a request for the last byte alone."""
    with files.open(url, "rb", cache_type="none", size=size) as file:
        try:
            file.seek(size - 1)
            return len(file.read(1)) == 1
        except ValueError:  # fsspec's, before it reads the answer
            return False


@lru_cache(maxsize=256)
def _downloaded(url: str, etag: str) -> Path:
    """A copy of a web file that is removed when the process ends."""
    del etag  # a part of the cache's key
    folder = Path(tempfile.mkdtemp(prefix="gpuclust-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _web().files.get_file(url, str(folder / "file"))
    return folder / "file"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def store_errors(url: str, done: str = "read") -> Iterator[None]:
    """Convert errors of the stores' libraries to a DataError of one line: the address, what cannot be ``done``, and what to do."""
    try:
        yield
    except GpuclustError:
        raise
    except Exception as error:  # the libraries have their own exception classes, and also raise ValueError
        raise DataError(f"{url} {_reason(url, error, done)}") from error


def _reason(url: str, error: Exception, done: str) -> str:
    cause = error.__cause__ if isinstance(error, FileNotFoundError) else None  # fsspec raises it for any error
    text = f"{type(cause or error).__name__} {cause or error}"
    parts = urlsplit(url)
    for address in (url, url.partition("?")[0], parts.path, parts.netloc):
        text = text.replace(address, " ") if len(address) > 1 else text  # an address may contain 401 or 404
    credentials = {
        "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE)",
        "gs": "GOOGLE_APPLICATION_CREDENTIALS",
        "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
        "abfs": "the account's credentials (az login, or AZURE_STORAGE_KEY)",
        "abfss": "the account's credentials (az login, or AZURE_STORAGE_KEY)",
    }.get(scheme_of(url), "an address with a valid signature")
    if re.search(r"NO_SUCH_BUCKET|NoSuchBucket|bucket .* not found", text, re.IGNORECASE):
        return "is in a bucket that does not exist; check the name of the bucket"
    if re.search(
        r"ACCESS_DENIED|\b40[13]\b|INVALID_ACCESS_KEY|SIGNATURE|credential|Unauthenticated", text, re.IGNORECASE
    ):
        return f"cannot be {done}: access is denied; set {credentials}"
    if re.search(r"FileNotFoundError|\b404\b|NOT_FOUND|RESOURCE_NOT_FOUND", text):
        return "does not exist; check the address"
    if re.search(
        r"NETWORK_CONNECTION|resolve|curlCode|ClientConnect|Cannot connect|timed? ?out|Unavailable", text, re.IGNORECASE
    ):
        endpoint = " and AWS_ENDPOINT_URL" if scheme_of(url) == "s3" else ""
        return f"cannot be reached; check the network{endpoint}"
    return f"cannot be {done}: {message_of(error) or type(error).__name__}"
