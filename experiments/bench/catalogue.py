"""The speed at which the built-in catalogue is generated, and the memory that a stream of it uses.

First checks that the stream and the complete catalogue agree in every row. Then measures, in one process and in turns, the rows
generated per second, and the ratio to reading the same rows from CSV with pandas' Arrow engine. Last, in a separate process, the
memory that a long stream uses.

    python experiments/bench/catalogue.py [--rows 1200000] [--csv-rows 200000] [--stream-rows 20000000]
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa

from gpuclust.tracks.catalogue import catalogue, stream


def check_agreement(n_rows: int = 150_000) -> None:
    whole = catalogue(n_rows)
    pd.testing.assert_frame_equal(pd.concat(stream(n_rows, chunk_rows=33_333)), whole, check_exact=True)
    pd.testing.assert_frame_equal(catalogue(n_rows // 3), whole.head(n_rows // 3), check_exact=True)
    print(f"agreement: {n_rows:,} rows are the same whole, streamed and as the head of a longer catalogue")


def against_csv(n_rows: int, repeats: int = 5) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tracks.csv"
        catalogue(n_rows).to_csv(path, index=False)
        generate, read = [], []
        for _ in range(repeats):
            start = perf_counter()
            catalogue(n_rows)
            middle = perf_counter()
            pd.read_csv(path, engine="pyarrow")
            generate.append(middle - start)
            read.append(perf_counter() - middle)
    ratio = median(g / r for g, r in zip(generate, read, strict=True))
    print(f"{n_rows:,} rows: generate {median(generate):.2f} s, read as CSV {median(read):.2f} s, ratio {ratio:.2f}")


def at_once(n_rows: int, repeats: int = 3) -> None:
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        frame = catalogue(n_rows)
        seconds.append(perf_counter() - start)
    size = frame.memory_usage(deep=True).sum() / 2**20
    print(f"{n_rows:,} rows at once: {median(seconds):.2f} s ({n_rows / median(seconds):,.0f} rows/s), {size:.0f} MiB")


def long_stream(n_rows: int) -> None:
    start, process = perf_counter(), psutil.Process()
    held = [process.memory_info().rss // 2**20 for _ in stream(n_rows)]
    seconds = perf_counter() - start
    print(
        f"{n_rows:,} rows streamed: {seconds:.1f} s ({n_rows / seconds:,.0f} rows/s), "
        f"process at {held[:2][-1]} MiB after two chunks, at {max(held)} MiB at most"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_200_000)
    parser.add_argument("--csv-rows", type=int, default=200_000)
    parser.add_argument("--stream-rows", type=int, default=20_000_000)
    parser.add_argument("--only-stream", action="store_true", help="the stream alone, in this process")
    asked = parser.parse_args()
    if asked.only_stream:
        long_stream(asked.stream_rows)
        return
    versions = f"numpy {np.__version__}, pandas {pd.__version__}, pyarrow {pa.__version__}"
    print(f"python {platform.python_version()}, {versions}, {platform.machine()}", flush=True)
    check_agreement()
    against_csv(asked.csv_rows)
    at_once(asked.rows)
    command = [sys.executable, __file__, "--only-stream", "--stream-rows", str(asked.stream_rows)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
