"""``manifest.json`` of an export: its schema, and safe access to the files of the folder.

Exports are untrusted input. The whole manifest is validated before use; a file must be a regular file in the folder with the
SHA-256 digest in the manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Self, cast

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, field_validator, model_validator

from gpuclust.errors import ExportError, ModelError, message_of
from gpuclust.model.files import opened as regular
from gpuclust.model.schema import one_line
from gpuclust.model.vectors import element_names

ASSIGNMENTS, CLUSTERS, MANIFEST, MODEL = "assignments.parquet", "clusters.parquet", "manifest.json", "model"
POINTS = "points.npy"
"""Of an export of vectors, which are not among the assignments: the prepared rows in their first principal components, (n_rows, m) float32,
by which neighbours are found."""
MAX_POINT_COLUMNS = 64
FORMAT = 1
ADDED_FIRST = (
    "cluster",
    "confidence",
    "distance",
    "x",
    "y",
    "z",
    "cluster_rescued",
    "confidence_rescued",
)  # by version 0.1.0
ADDED = (*ADDED_FIRST, "cluster_path")
ROLES = ("id", "title", "creator", "group", "popularity", "year", "preview")
MAX_BYTES = 32 << 20
MAX_FEATURES = 20_000
MAX_MEMBERSHIPS = 100
MAX_NAME = 200  # characters of a name that a person gives
FITTED_LABELS, FITTED_CLUSTERS = "labels_fitted.npy", "clusters_fitted.parquet"
"""Of an export with merged clusters: the labels (n_rows,) int32 and the clusters before the first merge."""

Name = Annotated[str, Field(min_length=1, max_length=10_000)]
Number = float | None  # may be NaN, which Python writes into JSON


class _Part(BaseModel):
    """Values are not converted; unknown fields of other versions are kept."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")


class RowCounts(_Part):
    """Rows of the table that was clustered."""

    read: NonNegativeInt | None = None
    kept: NonNegativeInt | None = None
    noise: NonNegativeInt | None = None


class RunName(_Part):
    """The id and name of a run."""

    run_id: str = ""
    name: str = ""


class Sweep(RunName):
    """The sweep of the run: the chosen run and the curves (metric -> size -> value)."""

    chosen: RunName | None = None
    selection_reason: str = ""
    verdict: str = ""
    verdict_kind: str = ""
    because: list[str] = []
    curves: dict[str, dict[str, Number]] = {}


class Edit(_Part):
    """A change that a person made to an export: ``action`` (name, merge, propose), ``who`` and ``when`` (ISO 8601, UTC), ``how`` in words, and what changed:
    ``names`` (cluster -> name; empty: the generated one again) or ``clusters``, of which the first takes in the others."""

    action: str
    who: str = ""
    when: str = ""
    how: str = ""
    names: dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Annotated[str, Field(max_length=MAX_NAME)]] = {}
    clusters: list[NonNegativeInt] = []


def merged_clusters(edits: Iterable[Mapping[str, Any]]) -> dict[int, int]:
    """Fitted cluster -> the cluster that it is in after the merges among some edits; the other clusters are left out."""
    merged: dict[int, int] = {}
    for edit in edits:
        if len(edit.get("clusters") or ()) > 1:
            into, *others = edit["clusters"]
            merged = {c: into if now in others else now for c, now in merged.items()} | dict.fromkeys(others, into)
    return merged


class Text(_Part):
    """A manifest. Fields that version 0.1.0 does not write have a default."""

    format: Annotated[int, Field(ge=1, le=FORMAT)]
    gpuclust: str = ""
    run_id: str = ""
    run_name: str = ""
    key: str = ""
    fingerprint: str = ""
    source: str = ""
    dataset: str = ""
    algorithm: str = ""
    size_keys: dict[str, str | None] = {}
    config: dict[str, Any] = {}
    roles: dict[str, Name]
    features: Annotated[list[Name], Field(max_length=MAX_FEATURES)]
    vectors: dict[Name, Annotated[int, Field(ge=1, le=MAX_FEATURES)]] = {}
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
    path: Annotated[str, Field(max_length=1_000)] = ""
    memberships: Annotated[int, Field(ge=0, le=MAX_MEMBERSHIPS)] = 0
    edits: list[Edit] = []
    index_of: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    sha256: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]

    @field_validator("features")
    @classmethod
    def _distinct(cls, features: list[str]) -> list[str]:
        if len(set(features)) < len(features):
            raise ValueError("a feature is named twice")
        return features

    @model_validator(mode="after")
    def _any_feature(self) -> Self:
        if not self.features and not self.vectors:
            raise ValueError("it names no feature")
        return self

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
    """The manifest of an export.

    ``digest`` is that of its bytes; ``roles`` and ``features`` map to column names of ``assignments.parquet``; ``vectors`` are the columns of
    vectors, which are not there, with their lengths: the last features of the model; ``text`` is the whole validated manifest.
    """

    folder: Path
    digest: str
    roles: Mapping[str, str]
    features: Mapping[str, str]
    text: Mapping[str, Any]

    @property
    def index_digest(self) -> str:
        """What identifies the rows, their clusters and their model: edits of names, which an index does not hold, keep it."""
        return str(self.text.get("index_of") or self.digest)

    @property
    def vectors(self) -> Mapping[str, int]:
        """Column of vectors -> the number of values of a vector."""
        return dict(self.text.get("vectors") or {})

    @property
    def model_features(self) -> tuple[str, ...]:
        """The features of the model, in order."""
        return (
            *self.features,
            *(name for column, size in self.vectors.items() for name in element_names(column, size)),
        )


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an export folder. Raises ExportError if the folder is not an export, or if the manifest does not
    match the schema or has a newer format."""
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
    """The name of a column in the export: a column that clashes with an added column is renamed."""
    if text.get("renamed") is not None:
        return str(text["renamed"].get(name, name))
    return f"{name}_source" if name in ADDED_FIRST else name


@contextmanager
def opened(folder: Path, name: str) -> Iterator[BinaryIO]:
    """Open a file of an export folder. Raises ExportError if it is missing, cannot be read, is not a regular file, or is a
    link out of the folder."""
    path = folder / name
    try:
        file = regular(path, folder)
    except ModelError as error:
        raise ExportError(str(error)) from error
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        reason = getattr(error, "strerror", None) or error
        raise ExportError(f"{path} cannot be read ({reason}); export it again") from error
    with file:
        yield file


def verify(file: BinaryIO, manifest: Manifest, name: str) -> None:
    """Compare an open file with its digest and rewind it. Raises ExportError if it was changed."""
    file.seek(0)
    if hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest() != manifest.text["sha256"][name]:
        raise ExportError(f"{manifest.folder} was changed since its export ({name}); export it again")
    file.seek(0)


def verify_all(manifest: Manifest) -> None:
    """Compare every file of an export with its digest. Raises ExportError if one is missing or was changed."""
    for name in manifest.text["sha256"]:
        with opened(manifest.folder, name) as file:
            verify(file, manifest, name)
