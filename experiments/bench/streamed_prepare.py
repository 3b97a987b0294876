"""Preparing and scoring from disk against memory: the same numbers, the ratio of the times, and the peak of the memory.

    python experiments/bench/streamed_prepare.py                      # half a minute on two cores
    python experiments/bench/streamed_prepare.py --rows 40000000      # 7 GB of disk; only from disk, as it is more than --most

The rows are generated features (float64) of a table on disk. First both ways are compared: the scaling, the components and the matrix bit for
bit, the scores within 1e-9. Then each step runs from memory and from disk in turn. The peak is that of a process which only prepares and
scores from disk (scale=robust; the silhouette of few rows).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import heading, interleaved, write

from gpuclust.algorithms.cluster import Clustering
from gpuclust.config import ReduceConfig, ScaleConfig, ScoreConfig
from gpuclust.data.disk_frame import DiskFrameWriter
from gpuclust.data.table import Audit, Roles, Table
from gpuclust.metrics.validity import score
from gpuclust.reducers.prepare import prepare
from gpuclust.runtime.blocks import BLOCK_ROWS, RUN_BLOCKS
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.matrix import Matrix
from gpuclust.runtime.scratch import Scratch

BACKEND = CpuBackend()
SCORES = ScoreConfig(exact_limit=0)
CLUSTERS = (5, 10)
QUICK = 500  # rows of the silhouette where only memory is measured


def generate(scratch: Scratch, n_rows: int, n_features: int) -> Table:
    """A table on disk of correlated, skewed and discrete features, written a run of blocks at a time."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(n_features, n_features))
    names = [f"f{j}" for j in range(n_features)]
    writer = DiskFrameWriter(scratch, names)
    while writer.n_rows < n_rows:
        n = min(BLOCK_ROWS * RUN_BLOCKS, n_rows - writer.n_rows)
        rows = rng.normal(size=(n, n_features)) @ mixing + 5 * rng.integers(0, 4, n)[:, None]
        rows[:, 0] = np.exp(rows[:, 0] / 8)
        rows[:, 1] = rows[:, 1].round()
        writer.append(pd.DataFrame(rows, columns=names))
    return Table(writer.close(), Roles(), tuple(names), "bench", Audit())


def clusterings(n_rows: int) -> list[Clustering]:
    """Labels that no fit has to find: what is measured is scoring them."""
    rng = np.random.default_rng(1)
    found = []
    for k in CLUSTERS:
        labels = rng.integers(0, k, n_rows, dtype=np.int32)
        nothing = np.empty(0, np.float32)
        sizes = np.bincount(labels)
        found.append(
            Clustering(
                "kmeans", labels, sizes, np.empty((k, 0)), nothing, None, {}, {}, {}, True, "library", (), None, 0.0
            )
        )
    return found


def prepared(source: Table, scale: str, scratch: Scratch) -> Matrix:
    reduce = ReduceConfig("pca", 0.95)
    return prepare(source, ScaleConfig(scale), reduce, dtype="float32", key=scale, backend=BACKEND, scratch=scratch)


def scored(matrix: Matrix, found: list[Clustering]) -> list[dict[str, float]]:
    return [dict(s.metrics) for s in score(matrix, found, SCORES, seed=0, backend=BACKEND)]


def check(memory: Matrix, disk: Matrix) -> None:
    """Raises AssertionError unless both matrices and what made them are equal bit for bit."""
    again = disk.resident(BACKEND)
    np.testing.assert_array_equal(again.X, memory.X)
    np.testing.assert_array_equal(again.coordinates, memory.coordinates)
    np.testing.assert_array_equal(disk.preparation.scaling.scale, memory.preparation.scaling.scale)


def compare(on_disk: Table, scratch: Scratch, repeats: int) -> dict[str, Any]:
    n_rows = on_disk.n_rows
    in_memory = replace(on_disk, frame=on_disk.frame.to_pandas())
    found = clusterings(n_rows)
    record: dict[str, Any] = {}
    for scale in ("standard", "minmax", "robust"):
        check(prepared(in_memory, scale, scratch), prepared(on_disk, scale, scratch))
        sides: dict[str, Callable[[], object]] = {
            "memory": lambda scale=scale: prepared(in_memory, scale, scratch),
            "disk": lambda scale=scale: prepared(on_disk, scale, scratch),
        }
        record[f"prepare {scale}"] = report(f"prepare, scale={scale} reduce=pca", interleaved(sides, repeats))
    memory, disk = prepared(in_memory, "standard", scratch), prepared(on_disk, "standard", scratch)
    for one, other in zip(scored(memory, found), scored(disk, found), strict=True):
        assert one.keys() == other.keys()
        assert all(abs(one[m] - other[m]) <= 1e-9 * max(1, abs(one[m])) for m in one), (one, other)
    sides = {"memory": lambda: scored(memory, found), "disk": lambda: scored(disk, found)}
    k = " and ".join(map(str, CLUSTERS))
    record["score"] = report(f"score {k} clusters, silhouette of {SCORES.sample_size:,} rows", interleaved(sides, 1))
    return record


def report(what: str, seconds: dict[str, float]) -> dict[str, float]:
    ratio = seconds["disk"] / seconds["memory"]
    print(f"{what}: memory {seconds['memory']:.2f} s, disk {seconds['disk']:.2f} s, ratio {ratio:.2f}", flush=True)
    return {**seconds, "ratio": ratio}


def peak_alone(n_rows: int, n_features: int, scratch: Scratch) -> None:
    """Generate, prepare and score from disk, and print the peaks of this process in MB."""

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    prepared(generate(scratch, 1000, n_features), "robust", scratch)  # compiles
    found, peaks = clusterings(n_rows), [peak()]
    rows = generate(scratch, n_rows, n_features)
    peaks.append(peak())
    matrix = prepared(rows, "robust", scratch)
    peaks.append(peak())
    score(matrix, found, replace(SCORES, sample_size=QUICK), seed=0, backend=BACKEND)
    print(*peaks, peak())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=11)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--most", type=int, default=8_000_000, help="rows up to which memory is compared too")
    parser.add_argument(
        "--folder", type=Path, help="where the files are written (default: the folder for temporary files)"
    )
    parser.add_argument("--alone", action="store_true", help="only from disk, and print the peaks of the memory")
    options = parser.parse_args()
    with Scratch(options.folder) as scratch:
        if options.alone:
            peak_alone(options.rows, options.features, scratch)
            return
        size = f"{options.rows:,} rows of {options.features} features, float64"
        record: dict[str, Any] = {"environment": heading("Preparing and scoring from disk", size)}
        record |= {"rows": options.rows, "features": options.features}
        if options.rows <= options.most:
            record |= compare(generate(scratch, options.rows, options.features), scratch, options.repeats)
    command = [sys.executable, __file__, "--alone", "--rows", str(options.rows), "--features", str(options.features)]
    command += [] if options.folder is None else ["--folder", str(options.folder)]
    found = map(float, subprocess.run(command, check=True, capture_output=True).stdout.split())
    peaks = dict(zip(("labels", "writing", "prepare", "score"), found, strict=True))
    raw = options.rows * options.features * 8 / 1e6
    print(f"peak of a process in MB ({raw:.0f} MB of features): " + ", ".join(f"{k} {v:.0f}" for k, v in peaks.items()))
    write("streamed_prepare", record | {"peak_mb": peaks, "raw_mb": raw})


if __name__ == "__main__":
    main()
