"""Open an export in Embedding Atlas, with our names, colours, labels and neighbours.

Embedding Atlas (the extra ``gpuclust[atlas]``) is a viewer with linked tables and charts. Its version 0.20 draws with WebGL2; later
ones need WebGPU.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gpuclust.errors import ConfigurationError
from gpuclust.model.records import NOISE
from gpuclust.sanitize import printable
from gpuclust.serve.library import Library

LAST_WEBGL = (0, 20)  # the last version that draws without WebGPU
NEIGHBOURS = 10
MAX_ROWS_WITH_NEIGHBOURS = 50_000  # more take minutes; --neighbours N finds them anyway
NOISE_COLOR = "#B8B8B8"
CLUSTER, X, Y, NEAREST = "cluster name", "x", "y", "__nearest"


def open_atlas(folder: Path, *, host: str = "127.0.0.1", port: int = 5055, neighbours: int | None = None) -> int:
    """Run Embedding Atlas over an export until SIGINT; return the exit status.

    ``neighbours`` is the number of nearest rows to find for each row: by default 10 up to 50,000 rows, else none. Raises
    ConfigurationError if Embedding Atlas is not installed or the number is negative, ExportError if the folder is not an export.
    """
    if neighbours is not None and not 0 <= neighbours <= 100:
        raise ConfigurationError(f"--neighbours {neighbours} is outside 0 to 100")
    try:
        import click

        version = metadata.version("embedding-atlas")
        from embedding_atlas import cli
    except ImportError as error:
        missing = getattr(error, "name", None) or "embedding-atlas"
        raise ConfigurationError(
            f"gpuclust atlas needs {missing.replace('_', '-')}; install it with pip install 'gpuclust[atlas]' (7 GB with "
            "what it depends on), or use gpuclust explore"
        ) from error
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) > LAST_WEBGL:
        print(
            f"gpuclust: embedding-atlas {version} draws only in browsers with WebGPU; 0.20 needs WebGL2",
            file=sys.stderr,
        )
    with tempfile.TemporaryDirectory(prefix="gpuclust-atlas-") as made:
        with Library.open(folder) as library:
            count = neighbours if neighbours is not None else NEIGHBOURS * (len(library) <= MAX_ROWS_WITH_NEIGHBOURS)
            count = min(count, max(len(library) - 1, 0))
            name = folder.resolve().name
            rows, labels = Path(made) / f"{name}.parquet", Path(made) / f"labels of {name}.parquet"
            pq.write_table(table_of(library, count), rows)
            pq.write_table(labels_of(library), labels)
            _with(cli, props_of(library))
        options = [
            "--x",
            X,
            "--y",
            Y,
            "--labels",
            str(labels),
            "--duckdb",
            "server",
            "--host",
            host,
            "--port",
            str(port),
        ]
        options += ["--text", "title"] if library.has("title") else []
        options += ["--neighbors", NEAREST] if count else []
        try:
            cli.main.main([str(rows), *options], prog_name="gpuclust atlas", standalone_mode=False)
        except click.Abort:  # Ctrl-C
            return 0
        except click.ClickException as error:
            raise ConfigurationError(f"Embedding Atlas did not start: {error.format_message()}") from error
    return 0


def table_of(library: Library, neighbours: int) -> pa.Table:
    """The rows by rank: what the export says of them, the name of the cluster, the features, and the nearest rows, fewer than all."""
    rows = library.rows
    names = {c.cluster: name_of(c.cluster, c.name) for c in library.clusters}
    columns: dict[str, Any] = {"id": rows["id"]}
    if library.has("title"):
        columns["title"] = rows["title"]
    if library.has("creator"):
        columns["creator"] = rows["creator"]
    if library.has("group"):
        columns["group"] = pa.array([", ".join(g for g in groups if g) for groups in rows["groups"].to_pylist()])
    columns |= {role: rows[role] for role in ("year", "popularity") if library.has(role)}
    numbers = library.column("cluster")
    listed = np.array(sorted(names))
    columns[CLUSTER] = pa.DictionaryArray.from_arrays(
        np.searchsorted(listed, numbers).astype(np.int32), [names[int(c)] for c in listed]
    ).cast(pa.string())
    columns |= {"cluster": rows["cluster"], X: rows["x"], Y: rows["y"]}
    for feature in library.features:
        plain = feature.replace("_", " ")
        columns[plain if plain not in columns else f"{plain} (feature)"] = rows[f"f/{feature}"]
    if neighbours:
        columns[NEAREST] = _nearest(library, neighbours)
    return pa.table(columns)


def labels_of(library: Library) -> pa.Table:
    """The name of each cluster at the median of its rows; larger clusters first."""
    numbers, x, y = (library.column(name) for name in ("cluster", "x", "y"))
    found = [c for c in library.clusters if c.cluster != NOISE and c.size]
    medians = [(np.nanmedian(x[numbers == c.cluster]), np.nanmedian(y[numbers == c.cluster])) for c in found]
    return pa.table(
        {
            "x": [float(a) for a, _ in medians],
            "y": [float(b) for _, b in medians],
            "text": [name_of(c.cluster, c.name) for c in found],
            "priority": [c.size for c in found],
        }
    )


def props_of(library: Library) -> dict[str, Any]:
    """Settings of the viewer that its command line lacks: coloured by cluster, in our colours, the largest cluster first."""
    given = library.facts.manifest.get("colors")
    stored = given if isinstance(given, Mapping) else {}
    ordered = sorted(library.clusters, key=lambda c: -c.size)
    colors = [NOISE_COLOR if c.cluster == NOISE else str(stored.get(str(c.cluster), "#0072B2")) for c in ordered]
    text = {"text": "title"} if library.has("title") else {}
    embedding = {"title": "Map", "data": {"x": X, "y": Y, "category": CLUSTER, **text}}
    return {
        "chartTheme": {"categoryColors": colors},
        "defaultChartsConfig": {"embedding": embedding, "exclude": ["id", NEAREST]},
    }


def name_of(cluster: int, name: str) -> str:
    """The label of a cluster in one line."""
    return "Noise" if cluster == NOISE else printable(f"{cluster} · {name}")


def _nearest(library: Library, count: int) -> pa.Array:
    from scipy.spatial import cKDTree

    points = library.points(np.arange(len(library)))
    distances, ids = cKDTree(points).query(points, count + 1, workers=-1)
    own = ids == np.arange(len(ids))[:, None]
    own[~own.any(axis=1), -1] = True  # a row with many copies may not be among its own nearest
    kept = ~own
    offsets = np.arange(0, count * len(ids) + 1, count, dtype=np.int32)
    lists = [pa.ListArray.from_arrays(offsets, each[kept]) for each in (ids.astype(np.int64), distances)]
    return pa.StructArray.from_arrays(lists, ["ids", "distances"])


def _with(cli: Any, props: Mapping[str, Any]) -> None:
    """Let the command line pass more settings to its page."""
    made = cli.make_embedding_atlas_props
    cli.make_embedding_atlas_props = lambda **options: {**made(**options), **props}
