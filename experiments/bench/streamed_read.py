"""Reading and cleaning a table in bounded memory, compared with reading it into memory: time, and the peak of memory.

A Parquet file of tracks (and the same as CSV) with missing cells, unknown tempos and repeated ids. Each way runs in a process of its
own, in turns; that process measures its time and its peak memory (resident set, after importing the libraries). First checks that
both ways give the same rows, numbers, texts and audit.

    python experiments/bench/streamed_read.py [--rows 3000000] [--repeats 3] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from common import heading, write

from gpuclust.config import CleanConfig, DataConfig
from gpuclust.data.clean import clean
from gpuclust.data.frames import PandasFrames
from gpuclust.data.read import read
from gpuclust.data.stream import read_streamed
from gpuclust.runtime.scratch import Scratch
from gpuclust.tracks.catalogue import catalogue

PART_ROWS = 250_000
CLEANINGS = {
    "drop": CleanConfig(bounds={"tempo": [1, None]}),
    "ids": CleanConfig(duplicates="id", bounds={"tempo": [1, None]}),
    "median": CleanConfig(nulls="median"),
}


def make_files(folder: Path, n_rows: int) -> dict[str, Path]:
    """Tracks with 11 features and 6 other columns; one cell in 500 missing, one tempo in 1,000 unknown, one id in 50 repeated."""
    paths = {"Parquet": folder / "tracks.parquet", "CSV": folder / "tracks.csv"}
    base = catalogue(min(n_rows, PART_ROWS))
    rng = np.random.default_rng(0)
    writers: list[Any] = []
    for start in range(0, n_rows, PART_ROWS):
        part = base.iloc[: min(PART_ROWS, n_rows - start)].copy()
        part["id"] = [f"{start + i if i % 50 else start // 2 + i:012d}x" for i in range(len(part))]
        part["valence"] = rng.random(len(part))
        part["brightness"] = rng.normal(size=len(part))
        part.loc[rng.integers(0, len(part), len(part) // 500), "energy"] = np.nan
        part.loc[rng.integers(0, len(part), len(part) // 1000), "tempo"] = 0.0
        table = pa.Table.from_pandas(part, preserve_index=False)
        writers = writers or [
            pq.ParquetWriter(paths["Parquet"], table.schema),
            pyarrow.csv.CSVWriter(paths["CSV"], table.schema),
        ]
        for writer in writers:
            writer.write_table(table)
    for writer in writers:
        writer.close()
    return paths


def run_here(way: str, path: Path, cleaning: str) -> dict[str, Any]:
    """Read and clean in this process: seconds, peak memory, the growth of the peak, and a digest of the result."""
    data, config, frames = DataConfig(path=str(path), preset="tracks"), CLEANINGS[cleaning], PandasFrames()
    clean(read(DataConfig(source="catalogue", n_rows=1000, preset="tracks"), frames), config, frames)  # imports
    before, began = peak(), time.perf_counter()
    with Scratch(path.parent) as scratch:
        if way == "resident":
            table = clean(read(data, frames), config, frames)
            seconds, most = time.perf_counter() - began, peak()
            parts = (table.frame.iloc[i : i + 65_536] for i in range(0, len(table.frame), 65_536))
        else:
            table = read_streamed(data, config, frames, scratch)
            seconds, most = time.perf_counter() - began, peak()
            parts = table.frame.batches()
        found = hashlib.blake2b(repr((table.audit, table.features, table.roles)).encode())
        found.update(np.ascontiguousarray(table.rows).tobytes() if table.rows is not None else b"all")
        for part in parts:
            found.update(repr(part.dtypes.tolist()).encode())
            found.update(pd.util.hash_pandas_object(part, index=False).to_numpy().tobytes())
    return {"seconds": seconds, "peak_mb": most, "growth_mb": most - before, "digest": found.hexdigest()}


def peak() -> float:
    """The largest resident set of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e3 if sys.platform != "darwin" else 1e6)


def run_alone(way: str, path: Path, cleaning: str) -> dict[str, Any]:
    """`run_here` in a process of its own."""
    asked = [sys.executable, __file__, "--way", way, "--file", str(path), "--cleaning", cleaning]
    found: dict[str, Any] = json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="where the files are made; default: the folder of temporary files")
    parser.add_argument("--way", choices=("resident", "streamed"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cleaning", choices=CLEANINGS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(run_here(args.way, args.file, args.cleaning)))
        return
    heading(f"Reading and cleaning {args.rows:,} tracks with 11 features: streamed against in memory")
    results = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        paths = make_files(Path(folder), args.rows)
        for form, cleaning in [("Parquet", "drop"), ("Parquet", "ids"), ("Parquet", "median"), ("CSV", "drop")]:
            runs: dict[str, list[dict[str, Any]]] = {"resident": [], "streamed": []}
            for _ in range(args.repeats):
                for way, found in runs.items():
                    found.append(run_alone(way, paths[form], cleaning))
            digests = {run["digest"] for found in runs.values() for run in found}
            assert len(digests) == 1, f"{form}, {cleaning}: the tables differ"
            line: dict[str, Any] = {"form": form, "cleaning": cleaning, "mb": paths[form].stat().st_size / 1e6}
            for way, found in runs.items():
                line[f"{way}_seconds"] = min(run["seconds"] for run in found)
                line[f"{way}_peak_mb"] = statistics.median(run["peak_mb"] for run in found)
                line[f"{way}_growth_mb"] = statistics.median(run["growth_mb"] for run in found)
            line["ratio"] = line["streamed_seconds"] / line["resident_seconds"]
            results.append(line)
            print(
                f"  {form:8}{cleaning:8} same table; {line['streamed_seconds']:.1f} s against {line['resident_seconds']:.1f} s "
                f"({line['ratio']:.2f} x), peak {line['streamed_peak_mb']:,.0f} MB against {line['resident_peak_mb']:,.0f} MB"
            )
    write("streamed_read", {"rows": args.rows, "repeats": args.repeats, "results": results})


if __name__ == "__main__":
    main()
