"""Export folders in an object store. The manifest is written last, and an export is read through a copy in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from gpuclust.data.remote import BUFFER_BYTES, WEB, is_remote, open_store, scheme_of, store_errors, without_query
from gpuclust.errors import ExportError
from gpuclust.folders import whole_folder
from gpuclust.model.manifest import MANIFEST, MAX_BYTES


def refuse_existing(url: str, force: bool) -> None:
    """Raise ExportError if files exist at an address and must not be replaced, or if the address cannot be written."""
    if _names(url, "written") and not force:
        raise ExportError(f"{url} exists; name another --out, or replace it with --force")


def upload(folder: Path, url: str) -> None:
    """Write the files of a folder below an address. The manifest is removed first and written last, so that an export with a manifest is
    complete.

    Files that the manifest of an earlier export there lists are removed, and no others. Raises DataError if the store cannot be reached
    or denies access.
    """
    store, root = open_store(url)
    before = _names(url, "written")
    earlier = _listed_before(url, before)
    ours = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    with store_errors(url, "written"):
        if MANIFEST in before:
            store.delete_file(f"{root}/{MANIFEST}")
        for name in sorted(ours, key=lambda name: name == MANIFEST):
            if name == MANIFEST:
                for other in earlier - set(ours):
                    store.delete_file(f"{root}/{other}")
            with (
                ours[name].open("rb") as source,
                store.open_output_stream(f"{root}/{name}", compression=None) as target,
            ):
                while piece := source.read(BUFFER_BYTES):
                    target.write(piece)


def local_export(folder: str | Path) -> Path:
    """The folder itself, or a copy of the export at an address: in ``XDG_CACHE_HOME/gpuclust/exports``, made once for each content.

    Raises ExportError if there is no export, DataError if it cannot be read.
    """
    url = str(folder)
    if not is_remote(url):
        return Path(folder)
    store, root = _writable_store(url)
    names = _names(url, "read")
    if MANIFEST not in names:
        raise ExportError(f"{url} is not an export: it has no {MANIFEST}; give the address of the folder")
    with store_errors(url), store.open_input_file(f"{root}/{MANIFEST}") as file:
        content = file.read(MAX_BYTES + 1)
    key = hashlib.sha256(without_query(url)[0].encode() + content).hexdigest()[:24]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpuclust" / "exports"
    copy = cache / key / (PurePosixPath(root).name or "export")
    if (copy / MANIFEST).is_file():
        return copy
    wanted = _listed(url, content) & set(names)
    with whole_folder(copy, force=True) as temporary:
        for name in sorted(wanted):
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with (
                store_errors(url),
                store.open_input_stream(f"{root}/{name}", compression=None) as source,
                target.open("wb") as out,
            ):
                while piece := source.read(BUFFER_BYTES):
                    out.write(piece)
        (temporary / MANIFEST).write_bytes(content)
    return copy


def _listed_before(url: str, names: Sequence[str]) -> set[str]:
    """The files of the export at an address, of those that are there; none where its manifest is missing or damaged."""
    store, root = open_store(url)
    if MANIFEST not in names:
        return set()
    with store_errors(url), store.open_input_file(f"{root}/{MANIFEST}") as file:
        content = file.read(MAX_BYTES + 1)
    with suppress(ExportError):
        return _listed(url, content) & set(names)
    return set()


def _listed(url: str, manifest: bytes) -> set[str]:
    """The files that a manifest lists. Raises ExportError if it is damaged, or names a file outside the folder."""
    try:
        names = set(json.loads(manifest)["sha256"])
        outside = [name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{url}/{MANIFEST} is damaged; export the run again") from error
    if outside:
        raise ExportError(f"{url}/{MANIFEST} names the file {sorted(outside)[0]!r} outside the folder")
    return names


def _writable_store(url: str) -> tuple[Any, str]:
    if scheme_of(url) in WEB:
        raise ExportError(f"{url} is a web address; an export is in a folder, or in s3://, gs:// or abfs://")
    return open_store(url)


def _names(url: str, done: str) -> list[str]:
    """The paths of the files below an address, relative to it."""
    from pyarrow.fs import FileSelector, FileType

    store, root = _writable_store(url)
    with store_errors(url, done):
        infos = store.get_file_info(FileSelector(root, recursive=True, allow_not_found=True))
    return [info.path[len(root) :].lstrip("/") for info in infos if info.type == FileType.File]
