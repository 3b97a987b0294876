"""What an export folder holds, as the index needs it: the manifest, the rows with their roles, the clusters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gpuclust.errors import ExportError
from gpuclust.serve.records import Cluster, Example, FeatureStats, Share

ASSIGNMENTS, CLUSTERS, MANIFEST, MODEL = "assignments.parquet", "clusters.parquet", "manifest.json", "model"
FORMAT = 1
ADDED = ("cluster", "confidence", "distance", "x", "y", "z", "cluster_rescued", "confidence_rescued")
ROLES = ("id", "title", "creator", "group", "popularity", "year", "preview")
STATS = tuple(f.name for f in fields(FeatureStats))


@dataclass(frozen=True)
class Manifest:
    """An export's manifest: ``digest`` of its bytes, ``roles`` and ``features`` by the names of the columns that hold
    them in ``assignments.parquet``, and everything as written in ``text``."""

    folder: Path
    digest: str
    roles: Mapping[str, str]
    features: Mapping[str, str]
    text: Mapping[str, Any]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an export folder. Raises ExportError when the folder is no export, or of a newer format."""
    try:
        written = (folder / MANIFEST).read_bytes()
        text = json.loads(written)
        roles, features, form = dict(text["roles"]), list(text["features"]), int(text["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"{folder} is not an export folder: {MANIFEST} is missing or damaged; make one with gpuclust export"
        ) from error
    if form > FORMAT:
        raise ExportError(f"{folder} has format {form}, this gpuclust reads up to {FORMAT}; upgrade it")
    return Manifest(
        folder=folder,
        digest=hashlib.sha256(written).hexdigest(),
        roles={role: _column(roles[role], text) for role in ROLES if roles.get(role)},
        features={feature: _column(feature, text) for feature in features},
        text=text,
    )


def _column(name: str, manifest: Mapping[str, Any]) -> str:
    """A table's column in the export: one that clashes with what the export adds was renamed."""
    renamed = manifest.get("renamed")
    if isinstance(renamed, dict):
        return str(renamed.get(name, name))
    return f"{name}_source" if name in ADDED else name


def read_assignments(manifest: Manifest) -> pa.Table:
    """The rows of the export, checked against the manifest's digest. Raises ExportError."""
    path = manifest.folder / ASSIGNMENTS
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ExportError(f"{path} cannot be read ({error}); export it again") from error
    expected = manifest.text.get("sha256", {}).get(ASSIGNMENTS)
    if expected is not None and digest != expected:
        raise ExportError(f"{manifest.folder} was changed since its export ({ASSIGNMENTS}); export it again")
    needed = {*manifest.roles.values(), *manifest.features.values(), "cluster", "x", "y", "z"}
    if missing := needed - set(table.column_names):
        raise ExportError(f"{path} lacks {', '.join(sorted(missing))}, which the manifest names; export it again")
    return table


def popularity_of(table: pa.Table, manifest: Manifest) -> np.ndarray:
    """(n_rows,) float64; NaN where missing, and everywhere when there is no such role or it is no number."""
    if "popularity" not in manifest.roles:
        return np.full(table.num_rows, np.nan)
    try:
        column = pc.cast(table[manifest.roles["popularity"]], pa.float64())
    except pa.ArrowException:
        return np.full(table.num_rows, np.nan)
    return np.asarray(pc.fill_null(column, np.nan).to_numpy(zero_copy_only=False), dtype=np.float64)


def raw_features(table: pa.Table, manifest: Manifest) -> np.ndarray:
    """(n_rows, n_features) float64 in original units; missing is NaN."""
    raw = np.empty((table.num_rows, len(manifest.features)), dtype=np.float64)
    for j, name in enumerate(manifest.features.values()):
        raw[:, j] = pc.fill_null(pc.cast(table[name], pa.float64()), np.nan).to_numpy(zero_copy_only=False)
    return raw


def read_clusters(manifest: Manifest) -> dict[int, Cluster]:
    """The clusters by number, noise last. Raises ExportError when the file is missing or damaged."""
    path = manifest.folder / CLUSTERS
    try:
        rows = pq.read_table(path).to_pylist()
        return {int(row["cluster"]): _cluster(row, manifest) for row in rows}
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise ExportError(f"{path} is missing or damaged ({error}); export it again") from error


_LISTS: Mapping[str, type] = {
    "top_groups": Share,
    "top_groups_by_lift": Share,
    "top_creators": Share,
    "top_creators_by_lift": Share,
    "representatives": Example,
    "popular": Example,
}


def _cluster(row: Mapping[str, Any], manifest: Manifest) -> Cluster:
    """A row of clusters.parquet; columns that an older export lacks keep their defaults."""
    known = {f.name for f in fields(Cluster)} - {"features", *_LISTS}
    given = {name: row[name] for name in known if row.get(name) is not None}
    for name, record in _LISTS.items():
        names = {f.name for f in fields(record)}
        listed = row.get(name) or ()
        given[name] = tuple(record(**{k: v for k, v in entry.items() if k in names}) for entry in listed)
    stats = {
        feature: FeatureStats(*(_number(row.get(f"{kind}_{feature}")) for kind in STATS))
        for feature in manifest.features
    }
    return Cluster(**given, features=stats)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
