"""Remote files for DuckDB: `gpuclust.data.remote` as a file system of fsspec, with the same addresses and credentials."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fsspec import AbstractFileSystem

from gpuclust.data.remote import STORES, WEB, RemoteFile, list_files
from gpuclust.errors import GpuclustError


class RemoteFiles(AbstractFileSystem):
    """The files of stores and of the web, for reading. ``error`` is the error of the last file that could not be read."""

    protocol = (*STORES, *WEB)
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.error: GpuclustError | None = None
        self._files: dict[str, RemoteFile] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path

    def glob(self, path: str, **options: Any) -> list[str]:
        """The addresses of the files that an address names."""
        del options
        try:
            found = list_files(path, lambda _: True)
        except GpuclustError as error:
            self.error = error
            raise
        self._files |= {file.url: file for file in found}
        return [file.url for file in found]

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """The size of a file."""
        del options
        return {"name": path, "size": self._file(path).size, "type": "file"}

    def modified(self, path: str) -> datetime:
        """The modification time of a file; 1970 where it is not known."""
        return datetime.fromtimestamp(self._file(path).modified / 1e9, UTC)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        del options
        try:
            return self._file(path).open(mode)
        except GpuclustError as error:
            self.error = error
            raise

    def _file(self, path: str) -> RemoteFile:
        if path not in self._files:
            self.glob(path)
        return self._files[path]
