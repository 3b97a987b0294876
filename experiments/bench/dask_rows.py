"""Rows on Dask workers: a mixture on two one-thread workers compared with two threads here, the cost of an empty pass, and kills.

    python experiments/bench/dask_rows.py              # about two minutes on two cores
    python experiments/bench/dask_rows.py --kills 20   # also kills a random worker 20 times, at random moments of fits

Every fit has to have the same bits: here, on 1, 2, 3 and 8 shards, and after each kill. Times are per EM iteration, taken in turn.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import generated, heading, write

from gpuclust.algorithms.mixture.blocks import BlockPasses
from gpuclust.algorithms.mixture.fit import GaussianMixture
from gpuclust.algorithms.mixture.m_step import MixtureParameters
from gpuclust.config import WorkersConfig
from gpuclust.runtime import dask as dask_module
from gpuclust.runtime.blocks import DiskWriter, MemoryBlocks, RowBlocks, Run
from gpuclust.runtime.dask import Workers, connect
from gpuclust.runtime.dask_blocks import dask_blocks

TARGET_RATIO, TARGET_EMPTY_MS, TARGET_LOST_SECONDS = 1.25, 15.0, 5.0
SHARDS = (1, 2, 3, 8)
REPEATS = 5
EMPTY_PASSES = 200


class Silent:
    """A display that shows nothing."""

    def stage(self, text: str, done: float = 0.0) -> None:
        """Nothing."""


class TimedPasses(BlockPasses):
    """The passes of EM, timed one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def _moments(self, X: Any, *args: Any) -> Any:
        began = time.perf_counter()
        found = super()._moments(X, *args)
        self.seconds.append(time.perf_counter() - began)
        return found


def fit(blocks: RowBlocks, k: int, iterations: int) -> tuple[GaussianMixture, list[float]]:
    """A mixture from fixed starts with a fixed number of iterations, and the seconds of each."""
    passes = TimedPasses()
    d = blocks.shape[1]
    rows = blocks.take(np.random.default_rng(0).choice(len(blocks), k, replace=False)).astype(np.float64)
    start = MixtureParameters(np.full(k, 1 / k), rows, np.stack([np.eye(d)] * k), np.stack([np.eye(d)] * k))
    model = GaussianMixture(k, max_iter=iterations, tol=0, random_state=0, kmeans=lambda *_: start, device=passes)
    return model.fit(blocks), passes.seconds


def same_bits(first: GaussianMixture, second: GaussianMixture) -> bool:
    """Whether two fits agree in every bit."""
    names = ("weights_", "means_", "covariances_")
    return first.lower_bounds_ == second.lower_bounds_ and all(
        np.array_equal(getattr(first, name), getattr(second, name)) for name in names
    )


def nothing(run: Run) -> list[int]:
    """An empty pass."""
    return [0] * len(run.edges)


def with_kills(blocks: RowBlocks, expected: GaussianMixture, workers: Workers, n_kills: int, k: int) -> dict[str, Any]:
    """Fits during which a random worker is killed at a random moment, each compared with an undisturbed one in time and bits."""
    usual = statistics.median(_seconds(lambda: fit(blocks, k, expected.n_iter_)) for _ in range(3))
    generator, lost, equal = random.Random(0), [], 0
    for _ in range(n_kills):
        pid = generator.choice(sorted(workers.everywhere(os.getpid).values()))
        timer = threading.Timer(generator.uniform(0, usual), os.kill, (pid, signal.SIGKILL))
        timer.start()
        began = time.perf_counter()
        model, _ = fit(blocks, k, expected.n_iter_)
        lost.append(time.perf_counter() - began - usual)
        equal += same_bits(model, expected)
        timer.join()
        time.sleep(3)  # the next kill meets two workers again
        fit(blocks, k, 3)
    print(
        f"{n_kills} kills -9 at random moments of a fit of {usual:.1f} s: {equal} fits with the same bits, seconds lost "
        f"{statistics.median(lost):.1f} (median), {max(lost):.1f} (most; target {TARGET_LOST_SECONDS:g})"
    )
    return {"kills": n_kills, "same_bits": equal, "fit_seconds": usual, "seconds_lost": lost}


def _seconds(function: Any) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main() -> None:
    """Compare, print and write the results."""
    parser = argparse.ArgumentParser(description="Rows on Dask workers")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--features", type=int, default=7)
    parser.add_argument("--components", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--kills", type=int, default=0)
    options = parser.parse_args()
    n, d, k = options.rows, options.features, options.components
    heading("Rows on Dask workers", f"{n:,} generated rows, {d} features, mixture of {k} full components, float32")
    config = WorkersConfig(name="dask", count=2)
    with tempfile.TemporaryDirectory() as folder:
        X = generated(n, d).astype(np.float32)
        writer = DiskWriter(Path(folder) / "rows.bin", d, X.dtype)
        writer.append(X)
        on_disk, here = writer.close(), MemoryBlocks(X)
        workers = connect(config, print)
        there = dask_blocks(on_disk, config, Silent())
        expected, _ = fit(here, k, options.iterations)
        found: dict[str, Any] = {}
        for n_shards in SHARDS:
            model, _ = fit(dask_blocks(on_disk, config, Silent(), n_shards=n_shards), k, options.iterations)
            found[f"{n_shards} shards"] = same_bits(model, expected)
        print(f"same bits as here: {found}")
        assert all(found.values()), "the bits differ"
        seconds: dict[str, list[float]] = {"here, 2 threads": [], "2 workers, 1 thread each": []}
        for _ in range(REPEATS):
            for name, blocks in zip(seconds, (here, there), strict=True):
                seconds[name] += fit(blocks, k, options.iterations)[1]
        low = {name: min(values) for name, values in seconds.items()}
        middle = {name: statistics.median(values) for name, values in seconds.items()}
        ratios = {
            "minimum": low["2 workers, 1 thread each"] / low["here, 2 threads"],
            "median": middle["2 workers, 1 thread each"] / middle["here, 2 threads"],
        }
        print(
            f"an iteration: here {1e3 * low['here, 2 threads']:.0f} ms, on workers {1e3 * low['2 workers, 1 thread each']:.0f} ms "
            f"(minima): {ratios['minimum']:.2f}, medians {ratios['median']:.2f} (target {TARGET_RATIO})"
        )
        empty = [_seconds(lambda: there.reduce(nothing)) for _ in range(EMPTY_PASSES)]
        print(
            f"an empty pass: {1e3 * min(empty):.1f} ms at least, {1e3 * statistics.median(empty):.1f} ms median "
            f"(target {TARGET_EMPTY_MS:g} at least)"
        )
        record: dict[str, Any] = {
            "rows": n, "features": d, "components": k, "iterations": options.iterations, "same_bits": found,
            "seconds": {name: {"minimum": low[name], "median": middle[name]} for name in seconds}, "ratios": ratios,
            "target_ratio": TARGET_RATIO, "empty_ms": {"minimum": 1e3 * min(empty), "median": 1e3 * statistics.median(empty)},
        }  # fmt: skip
        if options.kills:
            record["kills"] = with_kills(there, expected, workers, options.kills, k)
        dask_module.close()
    write("dask_rows", record)


if __name__ == "__main__":
    main()
