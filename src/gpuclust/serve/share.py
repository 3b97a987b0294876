"""The page to send of an export folder (`gpuclust.pages.share`): what the folder holds, and a sample of its rows for the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuclust.errors import ExportError
from gpuclust.model.records import NOISE, Cluster
from gpuclust.pages.share import Item as Found
from gpuclust.pages.share import Share, share_page
from gpuclust.pages.text import percent
from gpuclust.serve.export_info import export_info
from gpuclust.serve.export_reader import Manifest, popularity_of, read_assignments, read_clusters, read_manifest
from gpuclust.serve.index.build import row_table
from gpuclust.serve.manifest import MANIFEST
from gpuclust.serve.records import ExportInfo
from gpuclust.tracks.links import web_address

SAMPLE = 4_000  # rows that can be searched
MIN_A_CLUSTER = 10  # of each cluster, at least so many of them


def write_share_page(folder: Path, path: Path, *, force: bool = False) -> Path:
    """Write the page of an export folder to a file. Raises ExportError if it exists (unless ``force``) or cannot be written."""
    if path.exists() and not force:
        raise ExportError(f"{path} exists; name another --html, or replace it with --force")
    text = page_of_folder(folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise ExportError(f"{path} cannot be written ({error.strerror}); name another --html") from error
    return path


def page_of_folder(folder: Path) -> str:
    """The page of an export folder as HTML text. Raises ExportError if it is not an export or is damaged."""
    manifest = read_manifest(folder)
    table, clusters = read_assignments(manifest), read_clusters(manifest)
    listed = [clusters[c] for c in sorted(clusters, key=lambda c: (c == NOISE, c))]
    labels = pc.fill_null(pc.cast(table["cluster"], pa.int32()), NOISE).to_numpy()
    xy = np.column_stack([pc.cast(table[axis], pa.float64()).to_numpy(zero_copy_only=False) for axis in ("x", "y")])
    items, addresses = _items(table, manifest, labels, listed)
    noise = clusters[NOISE].size if NOISE in clusters else 0
    about = export_info(manifest, n_rows=table.num_rows, n_noise=noise, n_clusters=sum(c >= 0 for c in clusters))
    text = manifest.text
    sweep, data = text.get("sweep") or {}, (text.get("config") or {}).get("data") or {}
    made = datetime.fromtimestamp((folder / MANIFEST).stat().st_mtime).astimezone()
    return share_page(
        Share(
            dataset=Path(str(text.get("source") or folder.name).replace("\\", "/")).name,
            clusters=listed,
            features=tuple(manifest.features),
            xy=xy,
            labels=labels,
            date=f"{made.day} {made:%B %Y}",
            preset=str(data.get("preset", "none")) if isinstance(data, Mapping) else "none",
            verdict=str(sweep.get("verdict") or "").partition("\n")[0],
            kind=str(sweep.get("verdict_kind") or ""),
            because=about.because,
            warnings=about.warnings,
            metrics=text.get("metrics") or {},
            items=items if len(items) else (),
            n_items=table.num_rows,
            addresses=addresses,
            technical=_technical(about, text),
        )
    )


def _technical(about: ExportInfo, text: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, Any]]]]:
    backend, rows = text.get("backend") or {}, text.get("rows") or {}
    made = [
        ("Run", text.get("run_name", "")),
        ("Run id", text.get("run_id", "")),
        ("Algorithm", about.algorithm),
        (
            "Chosen by the sweep",
            "" if about.selected is None else "yes" if about.selected else f"no, it chose {about.sweep_choice}",
        ),
        ("Reason", (text.get("sweep") or {}).get("selection_reason", "")),
        ("Device", backend.get("gpuclust.device", "")),
        ("Version", text.get("gpuclust", "")),
    ]
    table = [
        ("Source", text.get("source", "")),
        ("Rows read", rows.get("read")),
        ("Rows clustered", about.n_rows),
        ("Noise", percent(text.get("noise_fraction") or 0.0)),
        (
            "Features",
            ", ".join(about.features[:60])
            + (f" and {len(about.features) - 60} more" if len(about.features) > 60 else ""),
        ),
    ]
    metrics = [(name.replace("_", " ").capitalize(), value) for name, value in (text.get("metrics") or {}).items()]
    sections = {"How it was made": made, "Data": table, "Metrics": metrics}
    return [(title, [(k, v) for k, v in values if v not in (None, "")]) for title, values in sections.items()]


def _items(
    table: pa.Table, manifest: Manifest, labels: np.ndarray, clusters: Sequence[Cluster]
) -> tuple[list[Found], dict[str, str]]:
    """A sample of the rows by which people know them, each title and creator once, and the addresses of the examples of the clusters.

    The most popular rows of each cluster where there is a popularity, else rows at random; empty for a table that only has numbers."""
    if not {"title", "creator", "group"} & manifest.roles.keys() and _is_numbered(table, manifest):
        return [], {}
    examples = {e.id for c in clusters for e in (*c.representatives, *c.popular)}
    chosen = _sampled(labels, popularity_of(table, manifest))
    if "id" in manifest.roles and examples:
        known = pc.is_in(pc.cast(table[manifest.roles["id"]], pa.string()), pa.array(sorted(examples), pa.string()))
        chosen = np.union1d(chosen, np.flatnonzero(known.to_numpy(zero_copy_only=False)))
    rows = row_table(table.take(pa.array(chosen)), manifest, chosen)
    names = ("id", "title", "creator", "groups", "preview", "cluster", "x/url")
    found: dict[tuple[str, str], Found] = {}
    addresses = {}
    for values in zip(*(rows[name].to_pylist() for name in names), strict=True):
        row = dict(zip(names, values, strict=True))
        address = _address(row)
        if row["id"] in examples and address:
            addresses[row["id"]] = address
        title, creator = row["title"] or row["id"], row["creator"].replace(";", ", ")
        group = ", ".join(g for g in row["groups"] if g)
        found.setdefault((title.lower(), creator.lower()), Found(title, creator, group, row["cluster"], address))
    return list(found.values()), addresses


def _is_numbered(table: pa.Table, manifest: Manifest) -> bool:
    """Whether the ids are only the numbers of the rows."""
    if "id" not in manifest.roles:
        return True
    ids = table[manifest.roles["id"]]
    return bool(
        pa.types.is_integer(ids.type) and pc.all(pc.equal(ids, pa.array(np.arange(len(ids)), ids.type))).as_py()
    )


def _sampled(labels: np.ndarray, popularity: np.ndarray) -> np.ndarray:
    """Row numbers, ascending: of each cluster its share of `SAMPLE`, but at least `MIN_A_CLUSTER`."""
    order = np.random.default_rng(0).permutation(len(labels))
    order = order[np.argsort(-np.nan_to_num(popularity[order], nan=-np.inf), kind="stable")]
    order = order[np.argsort(labels[order], kind="stable")]
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    quotas = np.maximum(np.ceil(SAMPLE * counts / max(len(labels), 1)), MIN_A_CLUSTER).astype(np.int64)
    return np.sort(
        np.concatenate(
            [
                np.empty(0, np.int64),
                *(order[s : s + q] for s, q in zip(starts, np.minimum(quotas, counts), strict=True)),
            ]
        )
    )


def _address(row: Mapping[str, Any]) -> str:
    """Where an item can be heard or seen: a web address, or empty."""
    return web_address(row["x/url"])
