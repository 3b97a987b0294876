"""Where a secret is left behind: every byte of a folder is searched, unpacked as far as its format goes."""

from __future__ import annotations

import base64
import gzip
import io
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

import pyarrow.parquet as pq

PNG = b"\x89PNG\r\n\x1a\n"
INLINE = re.compile(rb"data:[\w/+.-]+;base64,([A-Za-z0-9+/=]+)")


def leaks(folder: Path, secrets: Sequence[str]) -> list[str]:
    """The files below a folder that hold one of the secrets, as it is, percent-encoded, decoded or in base64."""
    wanted = {
        form.encode() for secret in secrets for form in (secret, unquote(secret), quote(unquote(secret), safe=""))
    }
    wanted |= {base64.b64encode(form)[:-4] for form in tuple(wanted) if len(form) > 8}
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert files, f"there is nothing in {folder}"
    return [
        f"{path.relative_to(folder)} ({where})"
        for path in files
        for where, content in contents(path)
        if any(form in content for form in wanted)
    ]


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """The bytes of a file, and what is packed in them."""
    raw = path.read_bytes()
    yield from unpacked("as it is", raw)
    if raw.startswith(b"SQLite format 3"):  # a long text is cut into pages there, so it is read as text as well
        database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        try:
            yield "its rows", "\n".join(database.iterdump()).encode()
        finally:
            database.close()
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        yield "its rows", repr((table.schema.metadata, table.to_pylist())).encode()


def unpacked(where: str, raw: bytes) -> Iterator[tuple[str, bytes]]:
    """The bytes, and those of the archive, the picture or the page that they are."""
    yield where, raw
    if raw.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            for name in archive.namelist():
                yield from unpacked(f"{where}, {name}", archive.read(name))
    elif raw.startswith(b"\x1f\x8b"):
        yield from unpacked(f"{where}, unpacked", gzip.decompress(raw))
    elif raw.startswith(PNG):
        yield f"{where}, its texts", b"\n".join(png_texts(raw))
    for found in INLINE.finditer(raw):
        yield from unpacked(f"{where}, inline", base64.b64decode(found[1]))


def png_texts(raw: bytes) -> Iterator[bytes]:
    """The text chunks of a PNG file."""
    at = len(PNG)
    while at < len(raw):
        length, kind = int.from_bytes(raw[at : at + 4], "big"), raw[at + 4 : at + 8]
        content = raw[at + 8 : at + 8 + length]
        if kind in (b"tEXt", b"iTXt"):
            yield content
        elif kind == b"zTXt":
            keyword, _, packed = content.partition(b"\0")
            yield keyword + zlib.decompress(packed[1:])
        at += 12 + length
