"""Lloyd passes over blocks of rows: labels kept between passes against fresh ones, and rows on disk against rows in memory.

    python experiments/bench/lloyd_blocks.py                     # 2,000,000 rows of 7 features, about a minute on two cores
    python experiments/bench/lloyd_blocks.py --rows 40000000     # writes 1.1 GB to the folder for temporary files

First checks that all ways give the same bits. A pass is timed from the fourth iteration on, when few labels change. The file is dropped
from the page cache before each pass over the disk where the system allows it. A sweep is k = 2 to 10 with six starts each, which share
every read. `--features`, `--clusters` and `--folder` change the rest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import heading, write

from gpuclust.algorithms.kmeans import passes
from gpuclust.algorithms.kmeans.lloyd import LloydBatch, rows_in_blocks, rows_in_memory
from gpuclust.algorithms.kmeans.passes import LloydRows
from gpuclust.runtime.blocks import DiskBlocks, DiskWriter

FIRST_PASSES, PASSES = 3, 8
SIZES, STARTS = range(2, 11), 6
CHUNK = 1_000_000  # rows that are generated at once


def generate(path: Path, n_rows: int, n_features: int) -> DiskBlocks:
    """Rows of eight overlapping clusters, float32, written a chunk at a time."""
    rng = np.random.default_rng(0)
    centers = 1.5 * rng.normal(size=(8, n_features))
    writer = DiskWriter(path, n_features, np.float32)
    for start in range(0, n_rows, CHUNK):
        n = min(CHUNK, n_rows - start)
        writer.append(centers[rng.integers(0, 8, n)] + rng.normal(size=(n, n_features)))
    blocks = writer.close()
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return blocks


def drop_from_cache(path: Path) -> None:
    """Let the next read of a file come from the disk."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def forget_labels(rows: LloydRows) -> None:
    """Drop the labels that runs keep, and nothing else."""
    for cache in rows.blocks._caches[0].values():  # type: ignore[attr-defined]
        cache.pop(passes.LABELS, None)


Before = Callable[[LloydRows], None]


def passes_in_turn(ways: dict[str, tuple[LloydRows, Before]], starts: list[np.ndarray]) -> dict[str, float]:
    """Median seconds of a pass of each way, made in turn; all have the same bits after every pass."""
    batches = {name: LloydBatch(rows, starts) for name, (rows, _) in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    fits = np.arange(len(starts))
    for number in range(FIRST_PASSES + PASSES):
        for name, (rows, before) in ways.items():
            before(rows)
            start = time.perf_counter()
            batches[name].run_pass(fits)
            batches[name].move(fits)
            if number >= FIRST_PASSES:
                seconds[name].append(time.perf_counter() - start)
        first, *others = batches.values()
        for other in others:
            assert all(np.array_equal(a, b) for a, b in zip(first.total, other.total, strict=True))
            assert np.array_equal(first.centers.float64, other.centers.float64)
    for rows, _ in ways.values():
        forget_labels(rows)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--features", type=int, default=7)
    parser.add_argument("--clusters", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    facts = heading(
        "Lloyd passes over blocks of rows", f"{options.rows:,} generated rows of {options.features} features"
    )
    with tempfile.TemporaryDirectory(prefix="gpuclust-bench-", dir=options.folder) as folder:
        path = Path(folder) / "rows"
        blocks = generate(path, options.rows, options.features)
        X = np.concatenate(blocks.collect(lambda run: run.X.copy()))
        memory, disk = rows_in_memory(X, np.empty(0)), rows_in_blocks(blocks)
        assert np.array_equal(memory.frame.rounding, disk.frame.rounding)
        rng = np.random.default_rng(1)

        def start(k: int) -> np.ndarray:
            chosen: np.ndarray = memory.frame.to_tiled(X[np.sort(rng.choice(len(X), k, replace=False))])
            return chosen

        ways: dict[str, tuple[LloydRows, Before]] = {
            "kept": (memory, lambda _: None),
            "fresh": (rows_in_memory(X, np.empty(0)), forget_labels),
            "disk": (disk, lambda _: drop_from_cache(path)),
        }
        for rows, _ in ways.values():  # compiles, and makes the tiles
            LloydBatch(rows, [start(options.clusters)]).run_pass(np.arange(1))
        one = passes_in_turn(ways, [start(options.clusters)])
        del ways["fresh"]
        sweep = passes_in_turn(ways, [start(k) for k in SIZES for _ in range(STARTS)])
    ratios = {
        "fresh_to_kept": one["fresh"] / one["kept"],
        "disk_to_memory": one["disk"] / one["kept"],
        "disk_to_memory_of_a_sweep": sweep["disk"] / sweep["kept"],
    }
    print("the same bits in every pass")
    print(
        f"one fit, k = {options.clusters}: labels kept {1e3 * one['kept']:.1f} ms, fresh {1e3 * one['fresh']:.1f} ms: "
        f"{ratios['fresh_to_kept']:.1f} times; from disk {1e3 * one['disk']:.1f} ms: {ratios['disk_to_memory']:.2f} times"
    )
    print(
        f"a sweep of {len(SIZES) * STARTS} fits: memory {1e3 * sweep['kept']:.0f} ms, disk {1e3 * sweep['disk']:.0f} ms: "
        f"{ratios['disk_to_memory_of_a_sweep']:.2f} times"
    )
    settings = {"rows": options.rows, "features": options.features, "clusters": options.clusters, "passes": PASSES}
    write("lloyd_blocks", {"environment": facts, **settings, "one_fit": one, "sweep": sweep, "ratios": ratios})


if __name__ == "__main__":
    main()
