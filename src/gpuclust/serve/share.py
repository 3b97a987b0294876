"""The page to send of an export folder (`gpuclust.pages.share`): what the folder holds, and a sample of its rows for the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuclust.errors import ExportError
from gpuclust.model.manifest import MANIFEST, Manifest, read_manifest
from gpuclust.model.records import NOISE, Cluster
from gpuclust.pages.share import LINEAR, Share, share_page
from gpuclust.pages.share import Item as Found
from gpuclust.pages.text import percent
from gpuclust.serve.export_info import export_info
from gpuclust.serve.export_reader import popularity_of, read_assignments, read_clusters
from gpuclust.serve.index.build import row_table
from gpuclust.serve.records import ExportInfo
from gpuclust.tracks.links import track_id, web_address

SAMPLE = 12_000  # rows at random, on the map and in the search
POPULAR = 4_000  # and the most popular rows
MIN_A_CLUSTER = 10  # of each cluster, at least so many of both, as long as there are few clusters


def write_share_page(folder: Path, path: Path, *, force: bool = False) -> Path:
    """Write the page of an export folder to a file. Raises ExportError if it exists (unless ``force``) or cannot be written."""
    if path.exists() and not force:
        raise ExportError(f"{path} exists; name another --html, or replace it with --force")
    text = page_of_folder(folder)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ExportError(f"{path} cannot be written ({error.strerror}); name another --html") from error
    return path


def page_of_folder(folder: Path) -> str:
    """The page of an export folder as HTML text. Raises ExportError if it is not an export or is damaged."""
    try:
        return _page(folder)
    except (pa.ArrowException, TypeError, AttributeError) as error:
        raise ExportError(
            f"{folder} is not an export that a page can be made of ({error}); export the run again"
        ) from error


def _page(folder: Path) -> str:
    manifest = read_manifest(folder)
    table, clusters = read_assignments(manifest), read_clusters(manifest)
    listed = [clusters[c] for c in sorted(clusters, key=lambda c: (c == NOISE, c))]
    labels = pc.fill_null(pc.cast(table["cluster"], pa.int32()), NOISE).to_numpy()
    xy = np.column_stack([pc.cast(table[axis], pa.float64()).to_numpy(zero_copy_only=False) for axis in ("x", "y")])
    sample, items, addresses = _sample(table, manifest, labels, listed)
    noise = clusters[NOISE].size if NOISE in clusters else 0
    about = export_info(manifest, n_rows=table.num_rows, n_noise=noise, n_clusters=sum(c >= 0 for c in clusters))
    text, drawn = manifest.text, about.map
    sweep, data = text.get("sweep") or {}, (text.get("config") or {}).get("data") or {}
    made = datetime.fromtimestamp((folder / MANIFEST).stat().st_mtime).astimezone()
    return share_page(
        Share(
            dataset=str(text.get("dataset") or Path(str(text.get("source") or folder.name).replace("\\", "/")).name),
            clusters=listed,
            features=tuple(manifest.features),
            xy=xy,
            labels=labels,
            axes=("PC 1", "PC 2") if drawn.linear else (drawn.axis(1), drawn.axis(2)),
            placed=LINEAR if drawn.linear else f"nearest rows in what was clustered {drawn.quality}".strip(),
            date=f"{made.day} {made:%B %Y}",
            preset=str(data.get("preset", "none")) if isinstance(data, Mapping) else "none",
            verdict=str(sweep.get("verdict") or "").partition("\n")[0],
            kind=str(sweep.get("verdict_kind") or ""),
            because=about.because,
            warnings=about.warnings,
            metrics=text.get("metrics") or {},
            sample=sample,
            items=items,
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


def _sample(
    table: pa.Table, manifest: Manifest, labels: np.ndarray, clusters: Sequence[Cluster]
) -> tuple[np.ndarray, list[Found], dict[str, str]]:
    """Row numbers, ascending: rows at random, the most popular ones, and the examples of the clusters; what people know these rows
    by (empty for a table that only has numbers), and the addresses of the examples."""
    random = np.random.default_rng(0).permutation(len(labels))
    chosen = _of_each(labels, random, SAMPLE)
    popularity = popularity_of(table, manifest)
    if np.isfinite(popularity).any():
        ranked = random[np.argsort(-np.nan_to_num(popularity[random], nan=-np.inf), kind="stable")]
        chosen = np.union1d(chosen, _of_each(labels, ranked, POPULAR))
    if not {"title", "creator", "group"} & manifest.roles.keys() and _is_numbered(table, manifest):
        return chosen, [], {}
    examples = {e.id for c in clusters for e in (*c.representatives, *c.popular)}
    if "id" in manifest.roles and examples:
        known = pc.is_in(pc.cast(table[manifest.roles["id"]], pa.string()), pa.array(sorted(examples), pa.string()))
        chosen = np.union1d(chosen, np.flatnonzero(known.to_numpy(zero_copy_only=False)))
    rows = row_table(table.take(pa.array(chosen)), manifest, chosen)
    names = ("id", "title", "creator", "groups", "preview", "cluster", "x/url")
    generated = manifest.text.get("source") == "catalogue"  # its ids have the form of Spotify's
    may_be_tracks = not generated and bool({"title", "creator"} & manifest.roles.keys())
    items, addresses = [], {}
    for values in zip(*(rows[name].to_pylist() for name in names), strict=True):
        row = dict(zip(names, values, strict=True))
        address = _address(row, may_be_tracks)
        if row["id"] in examples and address:
            addresses[row["id"]] = address
        groups = ", ".join(g for g in row["groups"] if g)
        items.append(
            Found(row["title"] or row["id"], row["creator"].replace(";", ", "), groups, row["cluster"], address)
        )
    return chosen, items, addresses


def _is_numbered(table: pa.Table, manifest: Manifest) -> bool:
    """Whether the ids are only the numbers of the rows."""
    if "id" not in manifest.roles:
        return True
    ids = table[manifest.roles["id"]]
    return bool(
        pa.types.is_integer(ids.type) and pc.all(pc.equal(ids, pa.array(np.arange(len(ids)), ids.type))).as_py()
    )


def _of_each(labels: np.ndarray, order: np.ndarray, size: int) -> np.ndarray:
    """The first rows of an order (n_rows,) of each cluster, ascending: its share of ``size``, but at least `MIN_A_CLUSTER`, or fewer
    where there are so many clusters that these would be more than ``size`` rows."""
    order = order[np.argsort(labels[order], kind="stable")]
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    least = min(MIN_A_CLUSTER, max(size // max(len(counts), 1), 1))
    quotas = np.maximum(np.ceil(size * counts / max(len(labels), 1)), least).astype(np.int64)
    first = [order[start : start + quota] for start, quota in zip(starts, np.minimum(quotas, counts), strict=True)]
    return np.sort(np.concatenate([np.empty(0, np.int64), *first]))


def _address(row: Mapping[str, Any], may_be_track: bool) -> str:
    """The web page of an item: that of its column of addresses, or of its track at Spotify; empty if there is none."""
    track = track_id(row["id"], row["x/url"]) if may_be_track else ""
    return web_address(row["x/url"]) or (f"https://open.spotify.com/track/{track}" if track else "")
