"""Build the index of an export: a folder of SQLite, Arrow and NumPy files that are mapped into memory.

Rows are numbered by popularity (rank 0 is the most popular; file order without a popularity). The first results of a
full-text search, the first members of a cluster and ties are therefore the most popular rows.

    rows.arrow           the items, one row per rank
    search.sqlite        ids, folded titles and creators; the full-text index over both
    words.arrow          the vocabulary of the full-text index
    tree-*.npy           points and leaves of the tree for nearest neighbours
    popular.npy, central.npy  ranks by cluster, sorted by popularity and by distance to the centre
    averages-*.arrow     means of the features by year, group and creator
    index.json           the slice of each cluster in those two files, the number of rows without a year, the share of the
                         variance on each axis of the map, and the time of the build
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuclust.errors import ExportError
from gpuclust.model.bundle import Bundle
from gpuclust.model.manifest import ASSIGNMENTS, MODEL, Manifest
from gpuclust.model.preparation import Projection
from gpuclust.serve.averages import write_averages
from gpuclust.serve.export_reader import points_of, popularity_of, read_assignments, read_clusters
from gpuclust.serve.neighbours import build_tree
from gpuclust.serve.spelling import letters_of
from gpuclust.serve.text import CREATOR_SEPARATOR, fold, recordings
from gpuclust.tracks.presets import ALBUM_COLUMNS, DURATION_COLUMNS, FIRST_YEAR, URL_COLUMNS

Progress = Callable[[str, float], None]
VERSION = 2  # of the file format; another version is another index

# A partial build is discarded, so no journal is needed.
_UNSAFE = "pragma journal_mode = off; pragma synchronous = off; pragma cache_size = -200000;"
_TABLES = f"""{_UNSAFE}
create table items(rank integer primary key, id text not null, title text not null, creator text not null);
"""
_INDEXES = """
create index items_id on items(id);
create index items_title on items(title) where title <> '';
create index items_creator on items(creator) where creator <> '';
create virtual table words using fts5(title, creator, content='items', content_rowid='rank', tokenize='ascii', detail=column);
insert into words(words) values('rebuild');
create virtual table terms using fts5vocab(words, 'row');
"""


def build(manifest: Manifest, folder: Path, progress: Progress) -> None:
    """Write the index of an export into an existing folder. Raises ExportError or ModelError for a damaged export, and
    OSError or sqlite3.Error if it cannot be written."""
    started = time.perf_counter()
    progress("reading the export", 0.0)
    model = Bundle.load_preparation(manifest.folder / MODEL)
    source = stamp_of(manifest)
    table = read_assignments(manifest)
    _check_clusters(table, manifest)
    popularity = popularity_of(table, manifest)
    by_popularity = np.argsort(-np.nan_to_num(popularity, nan=-np.inf), kind="stable")
    table = table.take(pa.array(by_popularity)).combine_chunks()
    progress("writing the rows", 0.15)
    rows = row_table(table, manifest, by_popularity)
    folded = tuple(fold(rows[name].combine_chunks()) for name in ("title", "creator"))
    rows = with_recordings(rows, *folded)
    write_arrow(rows, folder / "rows.arrow")
    progress("indexing titles", 0.25)
    with ThreadPoolExecutor(1) as pool:
        # SQLite releases the interpreter lock, so the numeric parts are computed at the same time.
        searching = pool.submit(_write_search, rows, folded, folder)
        creators = write_averages(rows, folder)
        if manifest.vectors:
            points = points_of(table, manifest, model)[by_popularity]
            drawn = model.preparation.map_projection
            ratios = drawn.explained_variance_ratio.tolist() if isinstance(drawn, Projection) else []
            shares = [*ratios, 0.0, 0.0, 0.0][:3]
        else:
            points = points_of(table, manifest, model)
            shares = axis_shares(rows, points)
        tree = build_tree(points, rows["cluster"].to_numpy())
        tree.save(folder)
        runs = _write_orders(rows, folder)
        progress("indexing words", 0.5)
        searching.result()
    _write_creators(creators, folder)
    info = {
        "version": VERSION,
        "n_rows": rows.num_rows,
        "runs": runs,
        "n_without_year": rows["year"].null_count,
        "axis_shares": shares,
        "source": source,
        "build_seconds": time.perf_counter() - started,
    }
    (folder / "index.json").write_text(json.dumps(info) + "\n", encoding="utf-8")
    progress("indexed", 1.0)


def stamp_of(manifest: Manifest) -> list[int]:
    """Size and modification time of the file of the rows; while they are equal, its digest is not computed again.

    Raises ExportError."""
    try:
        status = (manifest.folder / ASSIGNMENTS).stat()
    except OSError as error:
        path = manifest.folder / ASSIGNMENTS
        raise ExportError(f"{path} cannot be read ({error.strerror}); export it again") from error
    return [status.st_size, status.st_mtime_ns]


def _check_clusters(table: pa.Table, manifest: Manifest) -> None:
    """Raise ExportError if rows are in a cluster that clusters.parquet does not describe."""
    present = set(pc.unique(pc.fill_null(pc.cast(table["cluster"], pa.int64()), -1)).to_pylist())
    if unknown := sorted(present - read_clusters(manifest).keys()):
        raise ExportError(
            f"{manifest.folder} is damaged: {ASSIGNMENTS} has rows in cluster {unknown[0]}, which the clusters' file "
            "does not describe; export it again"
        )


def row_table(table: pa.Table, manifest: Manifest, position: np.ndarray) -> pa.Table:
    """The columns of the items under fixed names; a feature F is ``f/F``.

    ``position`` (n_rows,) is the row number in the export, used as the id if there is none.
    """
    roles, n = manifest.roles, table.num_rows

    def role(name: str) -> Any:
        return table[roles[name]].combine_chunks() if name in roles else None

    columns = {
        "id": pc.coalesce(_text(role("id"), n), pc.cast(pa.array(position), pa.large_string())),
        "title": pc.fill_null(_text(role("title"), n), ""),
        "creator": pc.fill_null(_text(role("creator"), n), ""),
        "groups": _lists(role("group"), n),
        "popularity": pa.array(popularity_of(table, manifest), from_pandas=True),
        "year": _years(role("year"), n),
        "preview": pc.fill_null(_text(role("preview"), n), ""),
        "cluster": pc.fill_null(pc.cast(table["cluster"], pa.int32()), -1),
    }
    for name in ("confidence", "distance", "x", "y", "z"):
        columns[name] = _finite(table[name], pa.float32()) if name in table.column_names else pa.nulls(n, pa.float32())
    columns["x/album"] = _named_text(table, ALBUM_COLUMNS)
    columns["x/url"] = _named_text(table, URL_COLUMNS)
    columns["x/duration_ms"] = _named_number(table, DURATION_COLUMNS)
    columns |= {f"f/{feature}": _finite(table[name], pa.float64()) for feature, name in manifest.features.items()}
    return pa.table(columns).combine_chunks()


def _finite(column: Any, kind: pa.DataType) -> Any:
    """Cast numbers to one type; infinities and NaN become null."""
    values = pc.cast(column, kind, safe=False)
    return pc.if_else(pc.is_finite(values), values, pa.scalar(None, kind))


def _named_text(table: pa.Table, names: Sequence[str]) -> Any:
    """The first text column with one of the names, ignoring case; empty text if there is none."""
    for name in _named(table, names):
        if pa.types.is_string(table[name].type) or pa.types.is_large_string(table[name].type):
            return pc.fill_null(_text(table[name].combine_chunks(), table.num_rows), "")
    return pc.fill_null(pa.nulls(table.num_rows, pa.large_string()), "")


def _named_number(table: pa.Table, names: Sequence[str]) -> Any:
    """The first numeric column with one of the names, ignoring case; nulls if there is none."""
    for name in _named(table, names):
        if pa.types.is_integer(table[name].type) or pa.types.is_floating(table[name].type):
            return pc.cast(table[name].combine_chunks(), pa.float64())
    return pa.nulls(table.num_rows, pa.float64())


def _named(table: pa.Table, names: Sequence[str]) -> list[str]:
    by_name = {name.lower(): name for name in table.column_names}
    return [by_name[name] for name in names if name in by_name]


def with_recordings(rows: pa.Table, titles: Any, creators: Any) -> pa.Table:
    """Add ``recording``, the rank of the most popular row with the same title and creator, and ``repeat``, whether a more
    popular row of the same recording is in the same cluster. ``titles`` and ``creators`` are the folded texts of the rows."""
    written_titles, written_creators = (rows[name].combine_chunks() for name in ("title", "creator"))
    recording = recordings(written_titles, written_creators, titles, creators)
    pairs = recording.astype(np.int64) << 32 | (rows["cluster"].to_numpy().astype(np.int64) + 1)
    repeat = np.ones(len(pairs), dtype=bool)
    repeat[np.unique(pairs, return_index=True)[1]] = False
    return rows.append_column("recording", pa.array(recording)).append_column("repeat", pa.array(repeat))


def axis_shares(rows: pa.Table, points: np.ndarray) -> list[float]:
    """The share of the variance of points (n_rows, n_columns) on each axis of the map (x, y, z), in [0, 1]."""
    if not len(points):
        return [0.0, 0.0, 0.0]
    total = float(np.var(points, axis=0, dtype=np.float64).sum())
    axes = (rows[axis].combine_chunks().drop_null().to_numpy() for axis in ("x", "y", "z"))
    shown = [float(np.var(axis, dtype=np.float64)) if len(axis) else 0.0 for axis in axes]
    return [min(variance / total, 1.0) if total > 0 else 0.0 for variance in shown]


def _text(column: Any, n: int) -> Any:
    """Convert a column to text; the items of a list are joined by the separator of names."""
    if column is None:
        return pa.nulls(n, pa.large_string())
    if _is_list(column.type):
        column = pc.binary_join(column.cast(pa.list_(pa.string())), f"{CREATOR_SEPARATOR} ")
    return column.cast(pa.large_string())


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _lists(column: Any, n: int) -> Any:
    """Convert a column to lists of text: a value becomes a list of one item, null an empty list."""
    if column is None:
        return (
            pa.array([[]] * n, pa.list_(pa.string()))
            if n < 1
            else pa.ListArray.from_arrays([0] * (n + 1), pa.array([], pa.string()))
        )
    if _is_list(column.type):
        return pc.fill_null(column.cast(pa.list_(pa.string())), pa.scalar([], pa.list_(pa.string())))
    texts = column.cast(pa.string())
    offsets = np.append(0, np.cumsum(pc.is_valid(texts).to_numpy(zero_copy_only=False))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), texts.drop_null())


def _years(column: Any, n: int) -> Any:
    """Convert dates (by their year), text (by the first four digits) and numbers (without decimals) to years.

    Years before 1860, when the oldest recording was made, and after next year become null.
    """
    if column is None:
        return pa.nulls(n, pa.int32())
    years = _whole_years(column)
    usable = pc.and_(pc.greater_equal(years, FIRST_YEAR), pc.less_equal(years, datetime.now().year + 1))
    return pc.if_else(usable, years, pa.scalar(None, pa.int32()))


def _whole_years(column: Any) -> Any:
    if pa.types.is_temporal(column.type):
        return pc.cast(pc.year(column), pa.int32())
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        found = pc.struct_field(pc.extract_regex(column, r"(?P<year>\d{4})"), "year")
        return pc.cast(found, pa.int32())
    numbers = pc.floor(pc.cast(column, pa.float64()))
    usable = pc.and_(pc.is_finite(numbers), pc.less(pc.abs(numbers), 1e9))
    return pc.cast(pc.if_else(usable, numbers, None), pa.int32())


def write_arrow(table: pa.Table, path: Path) -> None:
    """Write an uncompressed Arrow file of one batch, whose columns can be mapped into memory."""
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=max(table.num_rows, 1))


def _write_orders(rows: pa.Table, folder: Path) -> dict[str, list[int]]:
    """Write the ranks of each cluster by popularity and by distance to the centre; return the slice of each cluster."""
    clusters, ranks = rows["cluster"].to_numpy(), np.arange(rows.num_rows, dtype=np.int32)
    away = pc.coalesce(rows["distance"], pc.subtract(pa.scalar(1.0, pa.float32()), rows["confidence"]))
    away = pc.fill_null(away, np.inf).to_numpy()
    np.save(folder / "popular.npy", np.lexsort((ranks, clusters)).astype(np.int32), allow_pickle=False)
    np.save(folder / "central.npy", np.lexsort((ranks, away, clusters)).astype(np.int32), allow_pickle=False)
    present, sizes = np.unique(clusters, return_counts=True)
    stops = np.cumsum(sizes)
    return {str(c): [int(stop - size), int(stop)] for c, size, stop in zip(present, sizes, stops, strict=True)}


def _write_search(rows: pa.Table, folded: Sequence[Any], folder: Path) -> None:
    """Write the SQLite file and the vocabulary of its full-text index; ``folded`` are the titles and creators of the rows."""
    # A connection for this thread, in autocommit mode except for explicit transactions.
    database = sqlite3.connect(folder / "search.sqlite", isolation_level=None)
    try:
        database.executescript(_TABLES)
        database.execute("begin")
        columns = (range(rows.num_rows), *(column.to_pylist() for column in (rows["id"], *folded)))
        database.executemany("insert into items values (?, ?, ?, ?)", zip(*columns, strict=True))
        database.execute("commit")
        del columns
        database.executescript(_INDEXES)
        database.execute("analyze")
        terms = database.execute("select term, doc from terms order by term").fetchall()
    finally:
        database.close()
    _write_words([term for term, _ in terms], [count for _, count in terms], folder / "words.arrow")


def _write_creators(creators: Any, folder: Path) -> None:
    """Write the position of each creator in the averages, by folded name."""
    database = sqlite3.connect(folder / "search.sqlite", isolation_level=None)
    try:
        database.executescript(f"{_UNSAFE} create table creators(key text not null, position integer not null); begin")
        keyed = zip(fold(creators).to_pylist(), range(len(creators)), strict=True)
        database.executemany("insert into creators values (?, ?)", keyed)
        database.execute("commit")
        database.execute("create index creators_key on creators(key, position)")
    finally:
        database.close()


def _write_words(words: list[str], counts: list[int], path: Path) -> None:
    parts = [letters_of(words[at : at + 16_384]) for at in range(0, len(words), 16_384)]
    table = pa.table(
        {
            "word": pa.array(words, pa.string()),
            "count": pa.array(counts, pa.int64()),
            "length": pa.array([len(word) for word in words], pa.int64()),
            "letters": pa.array(np.concatenate(parts) if parts else np.empty(0, np.uint64)),
        }
    )
    write_arrow(table, path)
