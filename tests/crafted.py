"""Exports that were not made by us: an honest one, damaged on purpose in one place each, with digests that fit the damage.

`CASES` maps a name to what is done to the folder of an export. The cases are made by rule from the parts of an export, so
that a new field of the manifest or a new column gets its cases too.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tests.exporting import sealed

Damage = Callable[[Path], None]
FILES = ("manifest.json", "assignments.parquet", "clusters.parquet", "model/model.json", "model/arrays.npz")
# The fields of a manifest, and of its parts.
FIELDS = (
    "format", "gpuclust", "run_id", "run_name", "key", "fingerprint", "source", "algorithm", "config", "roles", "features",
    "colors", "rows", "noise_fraction", "warnings", "metrics", "backend", "sweep", "selected", "versions", "renamed", "sha256",
)  # fmt: skip
PARTS = ("roles.id", "roles.title", "roles.group", "features.0", "rows.kept", "colors.0", "metrics.silhouette", "sha256.clusters.parquet",
         "backend.gpuclust.device", "config.cluster", "renamed.energy")  # fmt: skip


def nested(depth: int) -> Any:
    """Lists in lists."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


VALUES: dict[str, Any] = {
    "null": None, "list": [], "object": {}, "text": "x", "number": -1, "list of lists": [["a"], {"b": 1}], "huge": 10**400, "infinite": float("inf"),
    "true": True, "deep": nested(150), "long": "x" * 200_000, "path": "../../../etc/passwd", "control": "\x1b[31m\x00\n", "added": "cluster",
    "sweep": {"curves": {"silhouette": {"2": "x", "y": []}}, "chosen": 3, "because": {"a": 1}},
}  # fmt: skip


def cases() -> dict[str, Damage]:
    """Every case by its name."""
    return dict(
        [*_of_manifest(), *_of_json(), *_of_files(), *_of_assignments(), *_of_clusters(), *_of_bytes(), *_of_index()]
    )


def _of_manifest() -> Iterator[tuple[str, Damage]]:
    for field in (*FIELDS, *PARTS):
        yield f"manifest without {field}", _in_manifest(field, None, remove=True)
        for name, value in VALUES.items():
            yield f"manifest {field} {name}", _in_manifest(field, value)
    for name, value in {
        "0": 0, "2": 2, "text": "1", "half": 1.5, "vast": 10**30,
    }.items():  # fmt: skip
        yield f"manifest format is {name}", _in_manifest("format", value)
    yield "manifest features twice", _changed(lambda m: m | {"features": m["features"] * 2})
    yield "manifest features 30,000", _changed(lambda m: m | {"features": [f"f{i}" for i in range(30_000)]})
    yield "manifest features another order", _changed(lambda m: m | {"features": m["features"][::-1]})
    yield "manifest roles unknown column", _changed(lambda m: m | {"roles": {**m["roles"], "title": "nowhere"}})
    yield "manifest roles a feature", _changed(lambda m: m | {"roles": {**m["roles"], "title": m["features"][0]}})
    yield (
        "manifest digests of another file",
        _changed(lambda m: m | {"sha256": dict.fromkeys(m["sha256"], "0" * 64)}, seal=False),
    )
    yield "manifest digests go up", _changed(lambda m: m | {"sha256": m["sha256"] | {"../../etc/passwd": "0" * 64}})
    yield "manifest is a list", lambda folder: _write(folder / "manifest.json", b"[]")


def _of_json() -> Iterator[tuple[str, Damage]]:
    for name, content in {
        "empty": b"", "not utf-8": b'{"format": 1, "a": "\xff\xfe"}', "utf-16": '{"format": 1}'.encode("utf-16"), "deep": b"[" * 200_000,
        "deep closed": b"[" * 100_000 + b"]" * 100_000, "digits": b'{"format": ' + b"9" * 100_000 + b"}", "surrogate": b'{"format": 1, "run_id": "\\ud800"}',
        "half": b'{"format": 1, "roles": {"id"', "large": b'{"format": 1, "a": "' + b"x" * (40 << 20) + b'"}', "nul": b"\0" * 1000, "true": b"true",
    }.items():  # fmt: skip
        yield f"manifest text {name}", _bytes("manifest.json", content)
        yield f"model text {name}", _bytes("model/model.json", content)


def _of_files() -> Iterator[tuple[str, Damage]]:
    for name in (*FILES, "model"):
        yield f"{name} missing", _replaced(name, lambda path: None)
        yield f"{name} fifo", _replaced(name, os.mkfifo)
        yield f"{name} link to a device", _replaced(name, lambda path: path.symlink_to("/dev/zero"))
        yield f"{name} link to itself", _replaced(name, lambda path: path.symlink_to(path.name))
        yield f"{name} empty", _replaced(name, lambda path: path.write_bytes(b"") and None)
        yield f"{name} folder", _replaced(name, lambda path: path.mkdir())
        yield f"{name} link outside", _linked_outside(name)


def _of_assignments() -> Iterator[tuple[str, Damage]]:
    file = "assignments.parquet"
    for column in (
        "id",
        "title",
        "artist",
        "genre",
        "popularity",
        "year",
        "energy",
        "cluster",
        "confidence",
        "distance",
        "x",
        "y",
        "z",
    ):
        yield f"{file} without {column}", _table(file, lambda t, c=column: t.drop_columns([c]))
        yield f"{file} {column} twice", _table(file, lambda t, c=column: t.append_column(c, t[c]))
        for name, make in COLUMNS.items():
            yield f"{file} {column} {name}", _table(file, lambda t, c=column, m=make: _with(t, c, m(t.num_rows)))
    for name, value in {"unknown": 77, "below noise": -5, "vast": 2**40}.items():
        yield (
            f"{file} cluster {name}",
            _table(file, lambda t, v=value: _with(t, "cluster", pa.array([v] * t.num_rows, pa.int64()))),
        )
    yield f"{file} no rows", _table(file, lambda t: t.slice(0, 0))
    yield f"{file} fewer rows", _table(file, lambda t: t.slice(0, 10))
    yield f"{file} repeated ids", _table(file, lambda t: _with(t, "id", pa.array(["same"] * t.num_rows)))
    yield f"{file} other format", lambda folder: pyarrow.csv.write_csv(pa.table({"a": [1]}), folder / file)
    yield f"{file} millions of equal rows", _many(file)
    yield f"{file} one long text", _long_text(file, "title")


COLUMNS: dict[str, Callable[[int], pa.Array]] = {
    "of nothing": lambda n: pa.nulls(n),
    "of texts": lambda n: pa.array(["x"] * n),
    "of lists": lambda n: pa.array([[1.0, 2.0]] * n),
    "of lists of lists": lambda n: pa.array([[["a"]]] * n),
    "of structs": lambda n: pa.array([{"a": 1}] * n),
    "of maps": lambda n: pa.array([[("a", 1)]] * n, pa.map_(pa.string(), pa.int64())),
    "of bytes": lambda n: pa.array([b"\xff\xfe"] * n),
    "of bad utf-8": lambda n: pa.Array.from_buffers(
        pa.string(),
        n,
        [None, pa.py_buffer(np.arange(0, 2 * n + 1, 2, dtype=np.int32).tobytes()), pa.py_buffer(b"\xff\xfe" * n)],
    ),
    "of infinities": lambda n: pa.array([np.inf, -np.inf] * (n // 2) + [np.nan] * (n % 2)),
    "of vast numbers": lambda n: pa.array([1.7e308] * n),
    "of far times": lambda n: pa.array([2**62] * n, pa.timestamp("us")),
    "of categories": lambda n: pa.array(["a", "b"] * (n // 2) + ["a"] * (n % 2)).dictionary_encode(),
    "of truths": lambda n: pa.array([True] * n),
}


def _of_clusters() -> Iterator[tuple[str, Damage]]:
    file = "clusters.parquet"
    for column in (
        "cluster",
        "name",
        "size",
        "fraction",
        "description",
        "nearest",
        "top_groups",
        "representatives",
        "rule",
        "mean_energy",
    ):
        yield (
            f"{file} without {column}",
            _table(file, lambda t, c=column: t.drop_columns([c]) if c in t.column_names else t),
        )
        yield f"{file} {column} twice", _table(file, lambda t, c=column: t.append_column(c, pa.nulls(t.num_rows)))
        for name, make in COLUMNS.items():
            yield f"{file} {column} {name}", _table(file, lambda t, c=column, m=make: _with(t, c, m(t.num_rows)))
    for column, value in {
        "size": -1,
        "fraction": 2.0,
        "cluster": 0,
        "nearest": 99,
        "name": "\x1b]0;x\x07" * 50,
    }.items():
        yield (
            f"{file} {column} is {str(value)[:4]!r}",
            _table(file, lambda t, c=column, v=value: _with(t, c, pa.array([v] * t.num_rows))),
        )
    shares = {"without a value": [{"count": 1}], "of numbers": [{"value": 3, "count": 1.5}], "with more": [{"value": "a", "count": 1, "lift": 1.0, "evil": [1]}],
              "of nulls": [None], "of negatives": [{"value": "a", "count": -1, "lift": None}]}  # fmt: skip
    for name, value in shares.items():
        yield (
            f"{file} shares {name}",
            _table(file, lambda t, v=value: _with(t, "top_groups", pa.array([v] * t.num_rows))),
        )
        yield (
            f"{file} examples {name}",
            _table(file, lambda t, v=value: _with(t, "representatives", pa.array([v] * t.num_rows))),
        )
    yield f"{file} no rows", _table(file, lambda t: t.slice(0, 0))
    yield f"{file} the same row twice", _table(file, lambda t: pa.concat_tables([t, t]))
    yield f"{file} millions of equal rows", _many(file)
    yield f"{file} one long text", _long_text(file, "description")


def _of_bytes() -> Iterator[tuple[str, Damage]]:
    for name in FILES:
        for seed in range(12):
            yield f"{name} with bytes changed {seed}", _flipped(name, seed)
        for share in (0.02, 0.5, 0.98):
            yield f"{name} cut at {share:.0%}", _cut(name, share)


def _of_index() -> Iterator[tuple[str, Damage]]:
    yield "index link to a folder of others", _index_link
    for name in ("lock", ".", "index.json", "rows.arrow", "search.sqlite", "popular.npy"):
        yield f"index {name} fifo", _in_index(name, os.mkfifo)
        yield f"index {name} link", _in_index(name, lambda path: path.symlink_to("/dev/zero"))
        yield f"index {name} rubbish", _in_index(name, lambda path: path.write_bytes(b"rubbish" * 500) and None)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _in_manifest(field: str, value: Any, *, remove: bool = False) -> Damage:
    """Change a field; ``a.b`` is a field of a part, ``features.0`` a place in a list."""

    def change(manifest: dict[str, Any]) -> dict[str, Any]:
        first, _, rest = field.partition(".")
        if not rest:
            changed = {k: v for k, v in manifest.items() if k != first}
            return changed if remove else changed | {first: value}
        part = manifest.get(first)
        if isinstance(part, list):
            part = part[1:] if remove else [value, *part[1:]]
        else:
            part = {k: v for k, v in (part or {}).items() if k != rest} | ({} if remove else {rest: value})
        return manifest | {first: part}

    return _changed(change, seal=not field.startswith("sha256"))


def _changed(change: Callable[[dict[str, Any]], Any], *, seal: bool = True) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return damage


def _bytes(name: str, content: bytes) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(content)
        if name != "manifest.json":
            sealed(folder)

    return damage


def _replaced(name: str, make: Callable[[Path], Any]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)
        if name != "manifest.json" and path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            sealed(folder)

    return damage


def _linked_outside(name: str) -> Damage:
    """The file as it was, but somewhere else."""

    def damage(folder: Path) -> None:
        outside = folder.parent / f"outside-{Path(name).name}"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return damage


def _table(file: str, change: Callable[[pa.Table], pa.Table]) -> Damage:
    def damage(folder: Path) -> None:
        pq.write_table(change(pq.ParquetFile(folder / file).read()), folder / file, store_schema=False)
        sealed(folder)

    return damage


def _with(table: pa.Table, name: str, column: Any) -> pa.Table:
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, column)
    return table.append_column(name, column)


def _many(file: str) -> Damage:
    """Thirty million times one row, in some kilobytes."""

    def damage(folder: Path) -> None:
        one = pq.ParquetFile(folder / file).read().slice(0, 1)
        flat = [name for name in one.column_names if not pa.types.is_nested(one[name].type)]
        part = pa.table({name: pa.array(one[name].to_pylist() * 1_000_000, one[name].type) for name in flat[:6]})
        with pq.ParquetWriter(folder / file, part.schema, compression="zstd") as writer:
            for _ in range(30):
                writer.write_table(part)
        manifest = json.loads((folder / "manifest.json").read_text())
        if file.startswith("assignments"):
            manifest["rows"]["kept"] = 30_000_000
        (folder / "manifest.json").write_text(json.dumps(manifest))
        sealed(folder)

    return damage


def _long_text(file: str, column: str) -> Damage:
    """A megabyte of text, named by every row: a dictionary in the file, a hundred gigabytes out of it."""

    def damage(folder: Path) -> None:
        table = pq.ParquetFile(folder / file).read()
        rows = pa.array(np.arange(60_000) % table.num_rows)
        table = table.take(rows)
        text = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(len(table), dtype=np.int32)), pa.array(["x" * (1 << 20)])
        )
        pq.write_table(
            _with(table, column, text),
            folder / file,
            compression="zstd",
            dictionary_pagesize_limit=1 << 24,
            store_schema=False,
        )
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["rows"]["kept"] = 60_000 if file.startswith("assignments") else manifest["rows"]["kept"]
        (folder / "manifest.json").write_text(json.dumps(manifest))
        sealed(folder)

    return damage


def _flipped(name: str, seed: int) -> Damage:
    def damage(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        rng = np.random.default_rng(seed)
        for _ in range(1 + seed % 6):
            content[int(rng.integers(len(content) * (seed % 2) // 2, len(content)))] = int(rng.integers(256))
        _bytes(name, bytes(content))(folder)

    return damage


def _cut(name: str, share: float) -> Damage:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        _bytes(name, content[: int(len(content) * share)])(folder)

    return damage


def _index_link(folder: Path) -> None:
    """A link in place of the index, to a folder of somebody's work, which must stay as it is."""
    others = folder.parent / "others"
    (others / "work").mkdir(parents=True)
    (others / "work" / "thesis.txt").write_text("years of it")
    shutil.rmtree(folder / ".index", ignore_errors=True)
    (folder / ".index").symlink_to(others)


def _in_index(name: str, make: Callable[[Path], Any]) -> Damage:
    """Something else in place of a file of the index, or of the index."""

    def damage(folder: Path) -> None:
        home = folder / ".index"
        (found,) = (path for path in home.iterdir() if path.is_dir())
        path = home / "lock" if name == "lock" else found if name == "." else found / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        make(path)

    return damage


CASES = cases()

__all__ = ["CASES", "FILES"]
