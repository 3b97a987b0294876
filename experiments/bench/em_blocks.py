"""The EM pass over a matrix on disk, compared with the pass over the same matrix in memory.

    python experiments/bench/em_blocks.py                       # 8 million rows x 11, about a minute on two cores
    python experiments/bench/em_blocks.py --rows 40000000       # 1.8 GB on disk and in memory

The statistics of both must have the same bits. "Cold" passes begin with the file out of the page cache (posix_fadvise). The peak of
memory is that of a process of its own that only passes over the disk.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import heading, interleaved, write

from gpuclust.algorithms.mixture.blocks import BlockPasses
from gpuclust.algorithms.mixture.em import EMStatistics
from gpuclust.algorithms.mixture.fit import em_backend
from gpuclust.runtime.blocks import DiskBlocks, DiskWriter

COLUMNS, COMPONENTS = 11, 5
PIECE = 1 << 20
TARGET, TARGET_MB = 1.4, 600


def written(path: Path, n_rows: int) -> DiskBlocks:
    """Rows of eight overlapping groups as float32, a piece at a time."""
    writer = DiskWriter(path, COLUMNS, np.float32)
    centres = np.random.default_rng(0).normal(size=(8, COLUMNS)).astype(np.float32) * 2
    for piece, start in enumerate(range(0, n_rows, PIECE)):
        random, n = np.random.default_rng([1, piece]), min(PIECE, n_rows - start)
        writer.append(random.standard_normal((n, COLUMNS), dtype=np.float32) + centres[random.integers(0, 8, n)])
    return writer.close()


def em_pass(backend: object, X: object) -> EMStatistics:
    """One pass with parameters that depend on the sizes alone."""
    random = np.random.default_rng(2)
    means = random.normal(size=(COMPONENTS, COLUMNS))
    precisions = np.stack([np.eye(COLUMNS)] * COMPONENTS)
    return backend.em_pass(X, np.full(COMPONENTS, 1 / COMPONENTS), means, precisions, "full")  # type: ignore[attr-defined]


def evict(path: Path) -> None:
    """Take the file out of the page cache."""
    file = os.open(path, os.O_RDONLY)
    os.fdatasync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def peak_mb() -> float:
    """The largest resident memory of this process so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    """Print and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=8_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the matrix is written for the time of the bench")
    parser.add_argument("--peak-of", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak_of is not None:  # the process whose memory is measured
        blocks = DiskBlocks(given.peak_of, (given.rows, COLUMNS), np.float32)
        em_pass(BlockPasses(), blocks)
        print(peak_mb())
        return
    heading(f"An EM pass from disk and from memory, {given.rows:,} x {COLUMNS} float32, {COMPONENTS} full components")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "matrix"
        blocks = written(path, given.rows)
        command = [sys.executable, __file__, "--rows", str(given.rows), "--peak-of", str(path)]
        peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        X = np.fromfile(path, np.float32).reshape(blocks.shape)
        cpu = em_backend("cpu")
        memory, disk = em_pass(cpu, X), em_pass(BlockPasses(), blocks)
        for name, value in vars(memory).items():
            assert np.array_equal(getattr(disk, name), value), f"{name} differ"

        def cold() -> None:
            evict(path)
            em_pass(BlockPasses(), blocks)

        seconds = interleaved(
            {
                "memory": lambda: em_pass(cpu, X),
                "disk, cold": cold,
                "disk, in the page cache": lambda: em_pass(BlockPasses(), blocks),
            },
            given.repeats,
        )
    ratios = {name: value / seconds["memory"] for name, value in seconds.items() if name != "memory"}
    for name, value in seconds.items():
        print(
            f"{name:>24}: {value:6.2f} s" + (f", {ratios[name]:.2f} times the pass in memory" if name in ratios else "")
        )
    print(
        f"targets: cold at most {TARGET} times; peak memory of the passes {peak:.0f} MB, at most {TARGET_MB}; same bits"
    )
    write(
        "em_blocks",
        {
            "n_rows": given.rows,
            "n_columns": COLUMNS,
            "n_components": COMPONENTS,
            "seconds": seconds,
            "ratios": ratios,
            "peak_mb": peak,
            "targets": {"cold": TARGET, "peak_mb": TARGET_MB},
            "same_bits": True,
        },
    )


if __name__ == "__main__":
    main()
