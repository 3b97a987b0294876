"""Where the index of an export is kept, and how several processes agree on who builds it.

``.index/KEY`` inside the export folder, or below the user's cache folder where the export cannot be written. KEY is made
of the manifest and the version of the index, so another export under the same name has another index. It is built in a
temporary folder under a file lock and renamed: a KEY that exists is whole. Who comes second waits and finds it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpuclust.errors import ExportError
from gpuclust.serve.build import VERSION, Progress, build
from gpuclust.serve.source import Manifest

FOLDER, FACTS = ".index", "index.json"


def find_or_build(manifest: Manifest, progress: Progress) -> Path:
    """The folder of the index of an export, built if there is none. Raises ExportError when it cannot be written."""
    key = key_of(manifest)
    for home in homes(manifest):
        if facts_of(home / key) is not None:
            return home / key
    for home in homes(manifest):
        try:
            home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=home):
                pass
        except OSError:
            continue
        return _build_in(home, key, manifest, progress)
    raise ExportError(
        f"no index can be written in {' or in '.join(str(home) for home in homes(manifest))}; "
        "make one of them writable, or name another place in XDG_CACHE_HOME"
    )


def key_of(manifest: Manifest) -> str:
    """What an index is called: the manifest's digest and the version of the index's files."""
    return f"v{VERSION}-{manifest.digest[:24]}"


def homes(manifest: Manifest) -> tuple[Path, Path]:
    """Where indexes of an export may be: beside it, and in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(str(manifest.folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return manifest.folder / FOLDER, cache / "gpuclust" / name


def facts_of(index: Path) -> dict[str, Any] | None:
    """What ``index.json`` says, or None when the index is not there or is of another version."""
    try:
        facts = json.loads((index / FACTS).read_text(encoding="utf-8"))
        return dict(facts) if facts["version"] == VERSION else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def size_of(index: Path) -> int:
    """Bytes on disk."""
    return sum(path.stat().st_size for path in index.iterdir())


def _build_in(home: Path, key: str, manifest: Manifest, progress: Progress) -> Path:
    try:
        with _locked(home / "lock", progress):
            if facts_of(home / key) is not None:  # another process built it while this one waited
                return home / key
            temporary = Path(tempfile.mkdtemp(prefix=f"{key}.part-", dir=home))
            try:
                build(manifest, temporary, progress)
                _forget(home, but=temporary)
                temporary.chmod(0o755)
                temporary.rename(home / key)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ExportError(f"the index cannot be written in {home} ({reason}); free some space there") from error
    return home / key


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    """Hold an exclusive lock; it ends with the process, however that ends."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another process is building the index", 0.0)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _forget(home: Path, but: Path) -> None:
    """Remove indexes of earlier exports and what killed builds left; who has them open keeps what is open."""
    for path in home.iterdir():
        if path.is_dir() and path != but:
            shutil.rmtree(path, ignore_errors=True)
