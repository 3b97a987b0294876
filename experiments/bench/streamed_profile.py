"""What is made of a clustering when its table is on disk, compared with the same table in memory: profile, rules, map and export.

Each way runs in a process of its own, in turns; that process measures the time of each step, and its peak memory (resident set) with the
table read. First checks that both ways give the same profile and rules, the same pixels of the map and the same exported rows.

    python experiments/bench/streamed_profile.py [--rows 1000000] [--repeats 3] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from common import heading, write
from streamed_read import make_files, peak

from gpuclust.analysis.profile import profile, with_rules
from gpuclust.analysis.table_stats import compute_table_stats
from gpuclust.assignments import SourceColumns, assign, with_assignments, write_tables
from gpuclust.config import CleanConfig, DataConfig
from gpuclust.data.clean import clean
from gpuclust.data.frames import PandasFrames
from gpuclust.data.read import read
from gpuclust.data.stream import read_streamed
from gpuclust.model.bundle import Bundle
from gpuclust.model.preparation import Preparation, Scaling, projection_of
from gpuclust.report.figures import cluster_map, to_png
from gpuclust.runtime.blocks import BLOCK_ROWS, MemoryBlocks
from gpuclust.runtime.scratch import Scratch

N_CLUSTERS = 10


def run_here(way: str, path: Path) -> dict[str, Any]:
    """All steps in this process: seconds of each, peak memory, and a digest of the results."""
    data, frames = DataConfig(path=str(path), preset="tracks"), PandasFrames()
    seconds: dict[str, float] = {}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = work()
        seconds[step] = time.perf_counter() - began
        return found

    with Scratch(path.parent) as scratch:
        if way == "resident":
            table = clean(read(data, frames), CleanConfig(), frames)
        else:
            table = read_streamed(data, CleanConfig(), frames, scratch)
        stats = timed("statistics", lambda: compute_table_stats(table, frames))
        n_features = len(table.features)
        scaling = Scaling("standard", stats.mean, stats.scale)
        axes = projection_of(np.zeros(n_features), np.eye(n_features)[:3], np.ones(3), table.n_rows)
        rows = np.random.default_rng(0).choice(table.n_rows, N_CLUSTERS, replace=False)
        preparation = Preparation(tuple(table.features), scaling, None, axes, "float32")
        bundle = Bundle("kmeans", preparation, {"centers": preparation.points(stats.raw.take(rows))})
        assigned = timed("assign", lambda: assign(bundle, stats.raw))
        labels = assigned.cluster
        described = timed("profile", lambda: profile(stats, table.features, labels, distance=assigned.distance))
        described = timed("rules", lambda: with_rules(described, stats, labels))
        out = path.with_name(f"{way}.parquet")
        columns = SourceColumns(table, data, frames)
        timed("export", lambda: write_tables(with_assignments(columns, bundle, stats.raw, assigned), parquet=out))
        writer = scratch.writer("coordinates", 3, np.float32)
        for start in range(0, table.n_rows, BLOCK_ROWS):
            part = np.arange(start, min(start + BLOCK_ROWS, table.n_rows))
            writer.append(bundle.coordinates(stats.raw.take(part)))
        on_disk = writer.close()
        xy = on_disk if way == "streamed" else on_disk.take(np.arange(table.n_rows))
        png = timed("map", lambda: to_png(cluster_map(xy, labels)))
        assert isinstance(stats.raw, MemoryBlocks) == (way == "resident")
    digest = hashlib.blake2b(described.to_json().encode() + png)
    for batch in pq.ParquetFile(out).iter_batches():
        digest.update(repr(batch.schema).encode() + batch.to_pandas().to_csv(index=False).encode())
    return {"seconds": seconds, "peak_mb": peak(), "digest": digest.hexdigest()}


def run_alone(way: str, path: Path) -> dict[str, Any]:
    """`run_here` in a process of its own."""
    asked = [sys.executable, __file__, "--way", way, "--file", str(path)]
    found: dict[str, Any] = json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="where the files are made; default: the folder of temporary files")
    parser.add_argument("--way", choices=("resident", "streamed"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(run_here(args.way, args.file)))
        return
    heading(f"{args.rows:,} tracks with 11 features in {N_CLUSTERS} clusters: the table on disk against in memory")
    runs: dict[str, list[dict[str, Any]]] = {"resident": [], "streamed": []}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = make_files(Path(folder), args.rows)["Parquet"]
        for _ in range(args.repeats):
            for way, found in runs.items():
                found.append(run_alone(way, path))
    assert len({run["digest"] for found in runs.values() for run in found}) == 1, "the results differ"
    best = {w: {s: min(run["seconds"][s] for run in f) for s in f[0]["seconds"]} for w, f in runs.items()}
    peaks = {way: statistics.median(run["peak_mb"] for run in found) for way, found in runs.items()}
    for step, seconds in best["streamed"].items():
        ratio = seconds / best["resident"][step]
        print(f"  {step:12}{seconds:6.2f} s against {best['resident'][step]:6.2f} s ({ratio:.2f} x)")
    print(f"  same results; peak {peaks['streamed']:,.0f} MB against {peaks['resident']:,.0f} MB")
    write("streamed_profile", {"rows": args.rows, "repeats": args.repeats, "seconds": best, "peak_mb": peaks})


if __name__ == "__main__":
    main()
