"""The files of an edited export folder: what follows from the fitted clusters and a list of edits (`gpuclust.model.manifest.Edit`).

The names in ``clusters.parquet`` and in the model follow from them, and where clusters are merged also the labels. The fitted labels and clusters are kept
beside them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gpuclust.analysis.arrow_schema import cluster_table
from gpuclust.analysis.profile import Profile, profile, with_rules
from gpuclust.analysis.table_stats import categories, compute_table_stats, words_of
from gpuclust.assignments import with_memberships, write_tables
from gpuclust.data.files import find_files
from gpuclust.data.frames import PandasFrames
from gpuclust.data.table import Audit, Roles, Table
from gpuclust.errors import ExportError
from gpuclust.model.bundle import Bundle, merge_labels
from gpuclust.model.files import MODEL as DESCRIPTION
from gpuclust.model.manifest import (
    ASSIGNMENTS,
    CLUSTERS,
    FITTED_CLUSTERS,
    FITTED_LABELS,
    MANIFEST,
    MODEL,
    POINTS,
    Manifest,
    merged_clusters,
    opened,
    verify,
)
from gpuclust.runtime.blocks import MemoryBlocks

NAME, MERGE, PROPOSE = "name", "merge", "propose"
# The columns of an export that hold labels; `FITTED_LABELS` has them in this order.
LABELS = ("cluster", "cluster_rescued")
INDEX = ".index"  # of the library; it holds labels and no names
Row = dict[str, Any]


@dataclass(frozen=True)
class State:
    """What a list of edits leads to: ``merged``: fitted cluster -> the cluster that it is in now; the ``names`` that people gave, and those that
    a model ``proposed``, by cluster."""

    merged: Mapping[int, int]
    names: Mapping[int, str]
    proposed: Mapping[int, str]

    @classmethod
    def after(cls, edits: Iterable[Mapping[str, Any]]) -> State:
        """The state after edits, in their order."""
        edits = list(edits)
        names: dict[int, str] = {}
        proposed: dict[int, str] = {}
        for edit in edits:
            given = {int(c): str(name) for c, name in (edit.get("names") or {}).items()}
            if edit["action"] == MERGE:
                into, *others = edit["clusters"]
                kept = next((names[c] for c in (into, *others) if c in names), "")
                for c in (into, *others):
                    names.pop(c, None)
                    proposed.pop(c, None)
                names |= {into: kept} if kept else {}
            target = proposed if edit["action"] == PROPOSE else names
            target |= given
            for c in [c for c, name in given.items() if not name]:
                del target[c]
        return cls(merged_clusters(edits), names, proposed)


def rewrite(folder: Path, manifest: Manifest, edits: Sequence[Mapping[str, Any]]) -> None:
    """Write what edits change, in a folder that has the files of an export. Files are replaced, never written into: they may be links."""
    before, after = State.after(manifest.text.get("edits") or ()), State.after(edits)
    text = {**manifest.text, "edits": list(edits), "index_of": manifest.index_digest}
    changed = [CLUSTERS, f"{MODEL}/{DESCRIPTION}"]
    if after.merged != before.merged:
        changed += [ASSIGNMENTS, ASSIGNMENTS.replace(".parquet", ".csv"), FITTED_CLUSTERS, FITTED_LABELS]
    for name in text["sha256"].keys() & set(changed):
        with opened(manifest.folder, name) as file:
            verify(file, manifest, name)
    fitted = _fitted_clusters(manifest)
    if after.merged != before.merged:
        shutil.rmtree(folder / INDEX, ignore_errors=True)
        del text["index_of"]
        labels = _fitted_labels(manifest)
        own = {name: merge_labels(values, after.merged) for name, values in labels.items()}
        _write_labels(folder, manifest, own, after.merged)
        for name in (FITTED_CLUSTERS, FITTED_LABELS):
            (folder / name).unlink(missing_ok=True)
        if after.merged:
            pq.write_table(fitted, folder / FITTED_CLUSTERS, compression="zstd")
            np.save(folder / FITTED_LABELS, np.stack(list(labels.values())))
        rows = _merged_rows(manifest, fitted, own["cluster"], after.merged)
    elif after.merged:  # as they are, without names
        rows = [_unnamed(row) for row in clusters_of(manifest).to_pylist()]
    else:
        rows = fitted.to_pylist()
    rows = [_named(row, after) for row in rows]
    (folder / CLUSTERS).unlink()
    pq.write_table(pa.Table.from_pylist(rows, schema=fitted.schema), folder / CLUSTERS, compression="zstd")
    _write_model(folder / MODEL / DESCRIPTION, rows, after.merged)
    kept = {name: digest for name, digest in text["sha256"].items() if name not in changed}
    text["sha256"] = kept | {name: _digest(folder / name) for name in changed if (folder / name).is_file()}
    if not edits:
        del text["edits"]
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).write_text(json.dumps(text, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def clusters_of(manifest: Manifest, name: str = CLUSTERS) -> pa.Table:
    """The clusters of an export, with the columns of names, which older exports lack. Raises ExportError where the file was changed."""
    with opened(manifest.folder, name) as file:
        verify(file, manifest, name)
        try:
            table = pq.read_table(file)
        except (pa.ArrowException, OSError) as error:
            raise ExportError(f"{manifest.folder / name} is damaged ({error}); export it again") from error
    for column in ("generated_name", "proposed_name"):
        if column not in table.column_names:
            table = table.append_column(column, pa.array([""] * table.num_rows, pa.string()))
    return table


def _fitted_clusters(manifest: Manifest) -> pa.Table:
    """The clusters as they were fitted and named by their profile."""
    table = clusters_of(manifest, FITTED_CLUSTERS if FITTED_CLUSTERS in manifest.text["sha256"] else CLUSTERS)
    return pa.Table.from_pylist([_unnamed(row) for row in table.to_pylist()], schema=table.schema)


def _fitted_labels(manifest: Manifest) -> dict[str, np.ndarray]:
    """The columns of labels (n_rows,) int32 before the first merge, by name."""
    path = manifest.folder / ASSIGNMENTS
    names = [name for name in LABELS if name in pq.read_schema(path).names and name not in manifest.roles.values()]
    if FITTED_LABELS not in manifest.text["sha256"]:
        table = pq.read_table(path, columns=names)
        return {name: table[name].to_numpy().astype(np.int32) for name in names}
    with opened(manifest.folder, FITTED_LABELS) as file:
        verify(file, manifest, FITTED_LABELS)
        return dict(zip(names, np.load(file, allow_pickle=False), strict=True))


def _unnamed(row: Row) -> Row:
    return {**row, "name": row.get("generated_name") or row["name"], "generated_name": "", "proposed_name": ""}


def _named(row: Row, state: State) -> Row:
    name = state.names.get(row["cluster"], "")
    given = {"name": name, "generated_name": row["name"]} if name and name != row["name"] else {}
    return {**row, **given, "proposed_name": state.proposed.get(row["cluster"], "")}


def _write_model(path: Path, rows: Sequence[Row], merged: Mapping[int, int]) -> None:
    """Write the names, the sizes and what was merged into the description of the model."""
    model = json.loads(path.read_text(encoding="utf-8"))
    notes = model.setdefault("details", {}).get("clusters", {})
    model["details"]["clusters"] = {
        str(row["cluster"]): {**notes.get(str(row["cluster"]), {}), "name": row["name"], "size": row["size"]}
        for row in rows
    }
    model.pop("merged", None)
    model |= {"merged": {str(c): into for c, into in merged.items()}} if merged else {}
    path.unlink()
    path.write_text(json.dumps(model, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_labels(
    folder: Path, manifest: Manifest, labels: Mapping[str, np.ndarray], merged: Mapping[int, int]
) -> None:
    """Write the rows again with these columns of labels (n_rows,) int32, and the memberships that they have."""
    n_memberships = int(manifest.text.get("memberships") or 0)
    if n_memberships and manifest.vectors:
        raise ExportError(
            f"{manifest.folder} does not hold the vectors that its memberships are computed from; export it without --memberships to merge its clusters"
        )
    model = replace(Bundle.load(manifest.folder / MODEL), merged=merged) if n_memberships else None
    csv = (folder / ASSIGNMENTS).with_suffix(".csv")

    def tables() -> Iterable[pa.Table]:
        start = 0
        with pq.ParquetFile(manifest.folder / ASSIGNMENTS) as file:
            for i in range(file.num_row_groups):
                table = file.read_row_group(i)
                for name, values in labels.items():
                    at = table.column_names.index(name)
                    part = pa.array(values[start : start + table.num_rows], pa.int32())
                    table = table.set_column(at, table.schema.field(at), part)
                if model is not None:
                    raw = np.column_stack([table[c].to_numpy().astype(np.float64) for c in manifest.features.values()])
                    table = with_memberships(table, model.memberships(raw, n_memberships), n_memberships)
                yield table
                start += table.num_rows

    written = [folder / ASSIGNMENTS, *([csv] if csv.name in manifest.text["sha256"] else [])]
    parts = [
        path.with_name(f".{path.name}.part") for path in written
    ]  # the file that is read may be the one that is written
    write_tables(tables(), parquet=parts[0], csv=next(iter(parts[1:]), None))
    for part, path in zip(parts, written, strict=True):
        part.replace(path)


def _merged_rows(manifest: Manifest, fitted: pa.Table, labels: np.ndarray, merged: Mapping[int, int]) -> list[Row]:
    """The rows of ``clusters.parquet`` after merging: the merged clusters are described again from their rows, the others stay."""
    if not merged:
        return fitted.to_pylist()
    described = {row["cluster"]: row for row in cluster_table(_described(manifest, labels)).to_pylist()}
    joined, rows = set(merged.values()), []
    for row in fitted.to_pylist():
        c = row["cluster"]
        if c in merged:
            continue
        row = {**row, **described[c]} if c in joined else {**row, "nearest": merged.get(row["nearest"], row["nearest"])}
        rows.append({name: row.get(name) for name in fitted.schema.names})
    return rows


def _described(manifest: Manifest, labels: np.ndarray) -> Profile:
    """What is in each cluster of ``labels`` (n_rows,), from the rows of the export; its points stand for vectors."""
    columns = {
        **{column: column for column in manifest.roles.values()},
        **{column: f for f, column in manifest.features.items()},
    }
    frames = PandasFrames()
    path = manifest.folder / ASSIGNMENTS
    added = [c for c in ("confidence", "distance") if c in pq.read_schema(path).names]
    frame = frames.read_parquet(find_files(str(path)).paths[0], [*columns, *added])
    confidence, distance = (frame[c].to_numpy(np.float32) if c in added else None for c in ("confidence", "distance"))
    frame = frame[list(columns)].rename(columns=columns)
    features = tuple(manifest.features)
    frame = frame.astype(dict.fromkeys(features, np.float64))
    table = Table(frame, Roles(**manifest.roles), features, str(manifest.text.get("fingerprint", "")), Audit())
    stats = compute_table_stats(table, frames)
    if manifest.vectors:
        with opened(manifest.folder, POINTS) as file:
            verify(file, manifest, POINTS)
            points = MemoryBlocks(np.load(file, allow_pickle=False).astype(np.float64))
        titles = stats.roles.get("title")
        words = None if titles is None else categories(words_of(stats.shown[titles]))
        stats = replace(stats, vectors=points, words=words)
    config = manifest.text.get("config") or {}
    preset = str((config.get("data") or {}).get("preset") or "none")
    encodings = Bundle.load_preparation(manifest.folder / MODEL).encodings
    found = profile(
        stats, features, labels, distance=distance, confidence=confidence, preset=preset, encodings=encodings
    )
    return with_rules(found, stats, labels, seed=int(config.get("seed") or 0))
