"""``manifest.json`` of an export: its schema, and the folder's files opened without trusting them.

An export may come from anybody. A manifest is checked whole before anything of it is used; a file must be a regular file
of the folder, and have the SHA-256 digest that the manifest gives.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, field_validator

from gpuclust.errors import ExportError, ModelError, message_of
from gpuclust.model.files import opened as regular
from gpuclust.model.schema import one_line

ASSIGNMENTS, CLUSTERS, MANIFEST, MODEL = "assignments.parquet", "clusters.parquet", "manifest.json", "model"
FORMAT = 1
ADDED = ("cluster", "confidence", "distance", "x", "y", "z", "cluster_rescued", "confidence_rescued")
ROLES = ("id", "title", "creator", "group", "popularity", "year", "preview")
MAX_BYTES = 32 << 20
MAX_FEATURES = 20_000

Name = Annotated[str, Field(min_length=1, max_length=10_000)]
Number = float | None  # JSON has NaN here: Python writes it


class _Part(BaseModel):
    """Types are not converted; fields that another version writes are kept as they are."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")


class RowCounts(_Part):
    """Rows of the table that was clustered."""

    read: NonNegativeInt | None = None
    kept: NonNegativeInt | None = None
    noise: NonNegativeInt | None = None


class Named(_Part):
    """A run."""

    run_id: str = ""
    name: str = ""


class Sweep(Named):
    """The sweep of the run: its choice and its curves (metric -> size -> value)."""

    chosen: Named | None = None
    selection_reason: str = ""
    verdict: str = ""
    verdict_kind: str = ""
    because: list[str] = []
    curves: dict[str, dict[str, Number]] = {}


class Text(_Part):
    """A manifest. What version 0.1.0 does not write has a default."""

    format: Annotated[int, Field(ge=1, le=FORMAT)]
    gpuclust: str = ""
    run_id: str = ""
    run_name: str = ""
    key: str = ""
    fingerprint: str = ""
    source: str = ""
    algorithm: str = ""
    size_keys: dict[str, str | None] = {}
    config: dict[str, Any] = {}
    roles: dict[str, Name]
    features: Annotated[list[Name], Field(min_length=1, max_length=MAX_FEATURES)]
    colors: dict[str, str] = {}
    rows: RowCounts = RowCounts()
    noise_fraction: Number = None
    warnings: list[str] = []
    metrics: dict[str, Number] = {}
    backend: dict[str, str] = {}
    sweep: Sweep | None = None
    selected: bool | None = None
    versions: dict[str, str] = {}
    renamed: dict[str, Name] | None = None
    sha256: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]

    @field_validator("features")
    @classmethod
    def _distinct(cls, features: list[str]) -> list[str]:
        if len(set(features)) < len(features):
            raise ValueError("a feature is named twice")
        return features

    @field_validator("sha256")
    @classmethod
    def _complete(cls, digests: dict[str, str]) -> dict[str, str]:
        if missing := [name for name in (ASSIGNMENTS, CLUSTERS) if name not in digests]:
            raise ValueError(f"the digest of {missing[0]} is missing")
        return digests


class _Head(BaseModel):
    format: int


@dataclass(frozen=True)
class Manifest:
    """An export's manifest: ``digest`` of its bytes, ``roles`` and ``features`` by the names of the columns that hold
    them in ``assignments.parquet``, and everything as written, and checked, in ``text``."""

    folder: Path
    digest: str
    roles: Mapping[str, str]
    features: Mapping[str, str]
    text: Mapping[str, Any]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an export folder. Raises ExportError when the folder is no export, when its manifest does not follow
    the schema, or is of a newer format."""
    try:
        with opened(folder, MANIFEST) as file:
            written = file.read(MAX_BYTES + 1)
    except (ExportError, OSError) as error:
        if isinstance(error, ExportError) and not isinstance(error.__cause__, OSError):
            raise
        raise ExportError(
            f"{folder} is not an export folder: {MANIFEST} is missing; make one with gpuclust export"
        ) from error
    if len(written) > MAX_BYTES:
        raise ExportError(f"{folder / MANIFEST} is larger than {MAX_BYTES >> 20} MiB; export the run again")
    try:
        text = json.loads(written)
        head = _Head.model_validate(text, strict=True)
        if head.format > FORMAT:
            raise ExportError(f"{folder} has format {head.format}, this gpuclust reads up to {FORMAT}; upgrade it")
        Text.model_validate(text)
    except (ValueError, RecursionError) as error:
        reason = one_line(error) if isinstance(error, ValidationError) else message_of(error)
        raise ExportError(
            f"{folder} is not an export folder: {MANIFEST} is damaged ({reason}); export the run again"
        ) from error
    return Manifest(
        folder=folder,
        digest=hashlib.sha256(written).hexdigest(),
        roles={role: _column(text["roles"][role], text) for role in ROLES if role in text["roles"]},
        features={feature: _column(feature, text) for feature in text["features"]},
        text=text,
    )


def _column(name: str, text: Mapping[str, Any]) -> str:
    """A table's column in the export: one that clashes with what the export adds was renamed."""
    if text.get("renamed") is not None:
        return str(text["renamed"].get(name, name))
    return f"{name}_source" if name in ADDED else name


@contextmanager
def opened(folder: Path, name: str) -> Iterator[BinaryIO]:
    """A file of an export folder. Raises ExportError when it is missing or cannot be read, when it is no regular file, or
    when it is a link out of the folder."""
    path = folder / name
    try:
        file = regular(path, folder)
    except ModelError as error:
        raise ExportError(str(error)) from error
    except (OSError, ValueError) as error:  # a name with a NUL
        reason = getattr(error, "strerror", None) or error
        raise ExportError(f"{path} cannot be read ({reason}); export it again") from error
    with file:
        yield file


def verify(file: BinaryIO, manifest: Manifest, name: str) -> None:
    """Compare an open file with its digest, and go back to its beginning. Raises ExportError when it was changed."""
    file.seek(0)
    if hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest() != manifest.text["sha256"][name]:
        raise ExportError(f"{manifest.folder} was changed since its export ({name}); export it again")
    file.seek(0)
