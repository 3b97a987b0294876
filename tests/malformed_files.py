"""Files that are packed, binary, cut, no table or no file, each with what must hold of it: for the campaign in `test_malformed`."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import sqlite3
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from tests.malformed import Case, N, bad, csv, frame, ok, raw, swapped


def packed() -> Iterator[Case]:
    text = csv().encode()
    whole = gzip.compress(text)
    yield ok("gzip", whole, ".csv.gz")
    yield ok("gzip named csv", whole)
    yield ok("csv named gz", text, ".csv.gz")
    yield ok("two gzip members", gzip.compress(text[:500]) + gzip.compress(text[500:]), ".csv.gz")
    for cut in (1, 5, 11, len(whole) // 2, len(whole) - 4):
        yield raw(f"gzip cut after {cut} bytes", whole[:cut], ".csv.gz", statuses=(2,))
    yield bad("gzip with a wrong checksum", whole[:-8] + b"\x00" * 8, ".csv.gz")
    yield bad("gzip damaged inside", whole[: len(whole) // 2] + b"\x55" * 40 + whole[len(whole) // 2 + 40 :], ".csv.gz")
    yield bad("gzip of gzip", gzip.compress(whole), ".csv.gz")
    yield bad("gzip of nothing", gzip.compress(b""), ".csv.gz")
    yield raw("gzip and rubbish after", whole + b"rubbish", ".csv.gz")
    yield bad("bzip2", bz2.compress(text), ".csv.bz2")
    yield bad("xz", lzma.compress(text), ".csv.xz")
    yield bad("zstd", pa.compress(text * 20, "zstd", asbytes=True), ".csv.zst")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("table.csv", text)
    yield bad("zip", out.getvalue(), ".csv.zip")


def _parquet(table: pa.Table, **how: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **how)
    return out.getvalue()


def _table(**extra: object) -> pa.Table:
    table = pa.Table.from_pandas(frame(), preserve_index=False)
    for name, values in extra.items():
        table = table.append_column(name, values)
    return table


def parquet() -> Iterator[Case]:
    whole = _parquet(_table())
    yield ok("parquet", whole, ".parquet")
    yield ok("parquet named csv", whole)
    yield bad("csv named parquet", csv(), ".parquet")
    for compression in ("none", "gzip", "brotli", "zstd", "lz4"):
        yield ok(f"parquet, {compression}", _parquet(_table(), compression=compression), ".parquet")
    yield bad("parquet without rows", _parquet(_table().slice(0, 0)), ".parquet")
    yield bad("parquet without columns", _parquet(pa.table({})), ".parquet")
    yield ok("parquet, a group for each row", _parquet(_table(), row_group_size=1), ".parquet")
    for cut in (4, 8, 100, len(whole) // 2, len(whole) - 1):
        yield raw(f"parquet cut after {cut} bytes", whole[:cut], ".parquet", statuses=(2,))
    for at in (10, len(whole) // 3, len(whole) - 30):
        yield raw(f"parquet damaged at {at}", whole[:at] + b"\xff" * 12 + whole[at + 12 :], ".parquet")
    yield ok("parquet, a name twice", _parquet(pa.Table.from_arrays(_table().columns, ["a", "b", "b", ""])), ".parquet")
    many = range(N)
    odd: dict[str, pa.Array] = {
        "lists": pa.array([[i, i + 1] for i in many]), "texts in lists": pa.array([["x"]] * N), "structs": pa.array([{"p": i} for i in many]),
        "maps": pa.array([[("k", 1)]] * N, pa.map_(pa.string(), pa.int64())), "bytes": pa.array([b"\xff\x00"] * N),
        "nulls": pa.nulls(N), "uint64": pa.array([2**64 - 1 - i for i in many], pa.uint64()), "float16": pa.array(np.arange(N, dtype=np.float16)),
        "dates": pa.array([18_000 + i for i in many], pa.date32()), "times": pa.array(many, pa.time64("us")),
        "nanoseconds": pa.array(many, pa.timestamp("ns", "Asia/Tokyo")), "far dates": pa.array([10**15] * N, pa.timestamp("s")),
        "durations": pa.array(many, pa.duration("ms")), "booleans": pa.array([i % 2 == 0 for i in many]),
        "categories": pa.array(["u", "v"] * (N // 2)).dictionary_encode(), "numbers as categories": pa.array([1.5, 2.5] * (N // 2)).dictionary_encode(),
        "large texts": pa.array(["t"] * N, pa.large_string()), "views": pa.array(["t"] * N, pa.string_view()),
        "fixed lists": pa.array([[1.0, 2.0]] * N, pa.list_(pa.float32(), 2)), "infinities": pa.array([np.inf, -np.inf, 1.0] * (N // 3)),
        "huge": pa.array([1e308, -1e308] * (N // 2)), "decimals": pa.array([i / 4 for i in many]).cast(pa.decimal128(38, 4)),
        "wide decimals": pa.array(["9" * 50] * N).cast(pa.decimal256(60, 2)),
    }  # fmt: skip
    for name, values in odd.items():
        if name != "views":  # written by later versions of pyarrow only
            yield raw(f"parquet with {name}", _parquet(_table(extra=values)), ".parquet", rows=N)
    yield ok("parquet with pandas' index", _indexed(), ".parquet")
    yield bad("parquet of texts", _parquet(pa.table({"t": ["x"] * N})), ".parquet")


def _indexed() -> bytes:
    out = io.BytesIO()
    frame().set_index(pd.Index(np.arange(N) * 3, name="")).to_parquet(out)
    return out.getvalue()


def arrow() -> Iterator[Case]:
    def written(**how: object) -> bytes:
        out = io.BytesIO()
        feather.write_feather(_table(), out, **how)
        return out.getvalue()

    for compression in ("uncompressed", "lz4", "zstd"):
        yield ok(f"feather, {compression}", written(compression=compression), ".feather")
    out = io.BytesIO()
    with pa.ipc.new_stream(out, _table().schema) as stream:
        stream.write_table(_table())
    yield ok("arrow stream", out.getvalue(), ".arrow")
    empty = io.BytesIO()
    with pa.ipc.new_file(empty, _table().schema):
        pass
    yield bad("feather without batches", empty.getvalue(), ".feather")
    twice = io.BytesIO()
    feather.write_feather(pa.Table.from_arrays(_table().columns, ["a", "b", "b", "b"]), twice)
    yield ok("feather, a name thrice", twice.getvalue(), ".feather")
    yield bad("feather version 1", b"FEA1" + b"\x00" * 64 + b"FEA1", ".feather")
    whole = written()
    for cut in (6, 60, len(whole) // 2, len(whole) - 3):
        yield bad(f"feather cut after {cut} bytes", whole[:cut], ".feather")
    yield raw("feather named parquet", whole, ".parquet")


def no_tables() -> Iterator[Case]:
    yield bad("JSON", json.dumps(frame().to_dict("list")), ".json")
    yield raw("JSON lines", frame().to_json(orient="records", lines=True), ".jsonl")
    yield bad("a picture", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, ".png")
    yield bad("a PDF", b"%PDF-1.7\n" + bytes(range(256)) * 20, ".pdf")
    yield raw("a web page", "<!doctype html>\n<html><body>\n" + "<p>Not found</p>\n" * 30 + "</body></html>\n", ".html")
    yield raw("prose", "It was a bright cold day in April, and the clocks were striking thirteen.\n" * 20, ".txt")
    yield bad("a pickle", pickle.dumps(frame()), ".pkl")
    yield bad("a NumPy array", _npy(), ".npy")
    yield bad("random bytes", np.random.default_rng(0).bytes(5000))
    yield bad("zeros", b"\x00" * 5000)
    yield bad("doubles", struct.pack("500d", *range(500)), ".bin")
    yield bad("Parquet's mark alone", b"PAR1", ".parquet")

    def database(folder: Path) -> Path:
        with sqlite3.connect(folder / "t.db") as connection:
            frame().to_sql("t", connection)
        connection.close()
        return folder / "t.db"

    def pipe(folder: Path) -> Path:
        os.mkfifo(folder / "t.csv")
        return folder / "t.csv"

    def loop(folder: Path) -> Path:
        (folder / "a.csv").symlink_to("b.csv")
        (folder / "b.csv").symlink_to("a.csv")
        return folder / "a.csv"

    def broken(folder: Path) -> Path:
        (folder / "t.csv").symlink_to("gone.csv")
        return folder / "t.csv"

    def below_a_file(folder: Path) -> Path:
        (folder / "t.csv").write_text(csv())
        return folder / "t.csv" / "below.csv"

    made: dict[str, Callable[[Path], Path | str]] = {
        "a database": database, "a pipe": pipe, "a loop of links": loop, "a broken link": broken, "below a file": below_a_file,
        "missing": lambda folder: folder / "none.csv", "no such user": lambda _: "~nosuchuser/t.csv", "a device": lambda _: "/dev/null",
        "a name too long": lambda folder: folder / ("n" * 300 + ".csv"), "an address": lambda _: "s3://bucket/t.csv",
    }  # fmt: skip
    for name, make in made.items():
        yield Case(f"path: {name}", make, (2,))


def _npy() -> bytes:
    out = io.BytesIO()
    np.save(out, frame()[list("abc")].to_numpy())
    return out.getvalue()


def folders() -> Iterator[Case]:
    def of(**files: bytes | str) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            (folder / "t").mkdir()
            for name, content in files.items():
                path = folder / "t" / name.replace("_", ".")
                path.write_bytes(content.encode() if isinstance(content, str) else content)
            return folder / "t"

        return make

    first, second = csv(40), csv(20, 1)
    yield Case("folder of two", of(a_csv=first, b_csv=second), (0,), 60)
    yield Case("folder of two, one packed", of(a_csv=first, b_csv=gzip.compress(second.encode())), (0,), 60)
    yield Case("folder, types differ", of(a_csv=first, b_csv=second.replace("item", "7")), (0, 2), 60)
    yield Case(
        "folder, text in one file",
        of(a_csv=first, b_csv=swapped(second, range(1, 21), lambda s: s.rsplit(",", 1)[0] + ",x")),
        (0, 2),
        60,
    )
    yield Case("folder, other columns", of(a_csv=first, b_csv=second.replace("name", "title")), (2,))
    yield Case(
        "folder, other order",
        of(a_csv=first, b_csv=frame(20, 1)[["c", "b", "a", "name"]].to_csv(index=False)),
        (0,),
        60,
    )
    yield Case("folder, one file empty", of(a_csv=first, b_csv=""), (2,))
    yield Case("folder, one without rows", of(a_csv=first, b_csv="name,a,b,c\n"), (0, 2), 40)
    yield Case("folder, one unclosed quote", of(a_csv=first, b_csv=swapped(second, [3], lambda s: '"' + s)), (2,))
    yield Case("folder, mixed formats", of(a_csv=first, b_parquet=_parquet(_table())), (2,))
    yield Case("folder, nothing", of(), (2,))
    yield Case("folder, no table", of(readme_md="hello"), (2,))
    parts = {"a_parquet": _parquet(_table()), "b_parquet": _parquet(_table().set_column(1, "a", pa.array(range(N))))}
    yield Case("folder of parquet, types differ", of(**parts), (0, 2), 2 * N)


FAMILIES = (packed, parquet, arrow, no_tables, folders)
