"""A MODEL of how rows scale over machines, up to 1,000 machines and 100 billion rows. Nothing of that size was run.

    python experiments/bench/scaling_model.py              # about four minutes on two cores

Two parts of the model are measured on this machine: the kernels' time for a row, on one thread, and the time of an empty pass of
`gpuclust.runtime.dask_blocks` with 16, 64 and 256 workers that live in one process beside their scheduler. A straight line through the
CPU time of scheduler and client, which work one after the other, gives the overhead of any number of workers; the wall time, in which the
workers of this one process wait for one another, is recorded beside it. The third part is assumed: machines of 16 cores of which 90 % count, and a network
whose figures are below. The result is a table, results/scaling_model.json, and results/scaling_model.png.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, generated, heading, write

from gpuclust.runtime.blocks import BLOCK_ROWS, DiskWriter, MemoryBlocks, RowBlocks, Run

WORKERS = (16, 64, 256)
EMPTY_PASSES = 12
KERNEL_ROWS, FEATURES, CLUSTERS = 1_000_000, 11, 10

# Assumed.
CORES, EFFICIENCY = 16, 0.9
BYTES_PER_SECOND = 1.25e9  # 10 Gbit/s at the scheduler, through which all statistics go
ROUND_TRIP_SECONDS = 0.5e-3
BASE_SECONDS = 0.010  # of any pass on workers: an empty pass on two of them, by dask_rows.py
MACHINES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
ROWS = (10**7, 10**8, 10**9, 10**10, 10**11)

SETTINGS = {
    "distributed.admin.tick.limit": "300s",
    "distributed.comm.timeouts.connect": "120s",
    "distributed.comm.timeouts.tcp": "300s",
    "distributed.scheduler.worker-ttl": None,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.profile.enabled": False,
}


class Silent:
    """A display that shows nothing."""

    def stage(self, text: str, done: float = 0.0) -> None:
        """Nothing."""


def nothing(run: Run) -> list[int]:
    """An empty pass."""
    return [0] * len(run.edges)


async def serve(address: str, n_workers: int) -> None:
    """Many workers in this process, for an hour."""
    import dask
    from distributed import Worker

    dask.config.set(SETTINGS)
    for _ in range(n_workers):
        await Worker(address, nthreads=1, heartbeat_interval="60s", death_timeout=600, dashboard=False)
    print("up", flush=True)
    await asyncio.sleep(3600)


def empty_pass(n_workers: int, folder: Path) -> dict[str, float]:
    """Seconds of an empty pass over blocks on so many workers, and the CPU time of the scheduler for it."""
    import psutil

    from gpuclust.config import WorkersConfig
    from gpuclust.runtime import dask as dask_module
    from gpuclust.runtime.dask_blocks import dask_blocks

    file = folder / f"scheduler-{n_workers}.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]  # fmt: skip
    scheduler = subprocess.Popen([*command, "--scheduler-file", str(file)], **quiet)  # type: ignore[call-overload]
    workers = None
    try:
        while not file.exists():
            time.sleep(0.1)
        time.sleep(0.5)
        address = json.loads(file.read_text())["address"]
        workers = subprocess.Popen(
            [sys.executable, __file__, "--serve", address, "--workers", str(n_workers)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert workers.stdout is not None
        assert workers.stdout.readline() == "up\n", "the workers did not start"
        writer = DiskWriter(folder / f"rows-{n_workers}.bin", 1, np.float32)
        for _ in range(n_workers):
            writer.append(np.zeros((BLOCK_ROWS, 1), np.float32))
        config = WorkersConfig(name="dask", address=address, count=n_workers)
        blocks = dask_blocks(writer.close(), config, Silent(), n_shards=n_workers)
        blocks.reduce(nothing)
        process, seconds = psutil.Process(scheduler.pid), []
        before, own = sum(process.cpu_times()[:2]), time.process_time()
        for _ in range(EMPTY_PASSES):
            began = time.perf_counter()
            blocks.reduce(nothing)
            seconds.append(time.perf_counter() - began)
        cpu = (sum(process.cpu_times()[:2]) - before) / EMPTY_PASSES
        client_cpu = (time.process_time() - own) / EMPTY_PASSES
        dask_module.close()
        return {
            "minimum": min(seconds),
            "median": float(np.median(seconds)),
            "scheduler_cpu": cpu,
            "client_cpu": client_cpu,
        }
    finally:
        for started in (workers, scheduler):
            if started is not None:
                started.kill()
                started.wait()


def kernel_nanoseconds() -> dict[str, float]:
    """Nanoseconds for a row of 11 float32 features with 10 clusters, on one thread: the fastest of several passes."""
    import numba

    from gpuclust.algorithms.mixture.blocks import BlockPasses

    numba.set_num_threads(1)
    blocks = MemoryBlocks(generated(KERNEL_ROWS, FEATURES).astype(np.float32))
    k, d = CLUSTERS, FEATURES
    means = blocks.take(np.arange(k)).astype(np.float64)
    passes, unit = BlockPasses(), np.stack([np.eye(d)] * k)
    found = {"EM, full covariances": _fastest(lambda: passes.em_pass(blocks, np.full(k, 1 / k), means, unit, "full"))}
    found["K-Means"] = kmeans_seconds(blocks, means)
    return {name: 1e9 * seconds / KERNEL_ROWS for name, seconds in found.items()}


def kmeans_seconds(blocks: RowBlocks, centers: np.ndarray) -> float:
    """Seconds of a Lloyd pass that has the labels of the pass before: the fastest, from the fourth iteration on."""
    from gpuclust.algorithms.kmeans.lloyd import LloydBatch, rows_in_blocks

    rows, fits, seconds = rows_in_blocks(blocks), np.arange(1), []
    batch = LloydBatch(rows, [rows.frame.to_tiled(centers)])
    for _ in range(8):
        began = time.perf_counter()
        batch.run_pass(fits)
        batch.move(fits)
        seconds.append(time.perf_counter() - began)
    return min(seconds[3:])


def _fastest(function: Any, repeats: int = 5) -> float:
    function()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def statistics_bytes(name: str) -> int:
    """Bytes of the statistics of a pass that a worker sends: up to two sub-trees."""
    k, d = CLUSTERS, FEATURES
    return 2 * 8 * (k * (1 + d + d * d) if name.startswith("EM") else k * (1 + d))


def pass_seconds(name: str, n_rows: int, n_machines: int, cost: float, line: tuple[float, float]) -> float:
    """The model: computing on all cores, the scheduler's line, and the statistics through one network card."""
    compute = n_rows * cost * 1e-9 / (n_machines * CORES * EFFICIENCY)
    if n_machines == 1:
        return compute
    network = 2 * ROUND_TRIP_SECONDS + 2 * n_machines * statistics_bytes(name) / BYTES_PER_SECOND
    return compute + line[0] + line[1] * n_machines + network


def draw(table: dict[str, Any], path: Path) -> None:
    """The speed-up over one machine, a panel for each algorithm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, (name, by_rows) in zip(figure.subplots(1, 2, sharey=True), table.items(), strict=True):
        for rows, seconds in by_rows.items():
            axes.plot(
                MACHINES, [seconds["1"] / seconds[str(m)] for m in MACHINES], marker=".", label=f"{int(rows):.0e} rows"
            )
        axes.plot(MACHINES, MACHINES, color="0.8", linestyle="--", zorder=0)
        axes.set(xscale="log", yscale="log", xlabel="machines of 16 cores", title=name)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("speed-up of a pass")
    figure.axes[0].legend()
    figure.suptitle("A MODEL, not a measurement: rows on Dask workers")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, extrapolate, print and write."""
    parser = argparse.ArgumentParser(description="A model of rows on many machines")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve, options.workers))
        return
    facts = heading(
        "Rows on many machines: A MODEL", "measured: the kernels and the scheduler; assumed: machines, network"
    )
    costs = kernel_nanoseconds()
    print(
        f"kernels, one thread, {FEATURES} features, k={CLUSTERS}: "
        + ", ".join(f"{n} {c:.0f} ns a row" for n, c in costs.items())
    )
    import dask

    dask.config.set(SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        empty = {n: empty_pass(n, Path(folder)) for n in WORKERS}
    for n, found in empty.items():
        print(
            f"an empty pass on {n} workers: {1e3 * found['minimum']:.0f} ms at least; for a worker {1e3 * found['scheduler_cpu'] / n:.2f} ms "
            f"of CPU of the scheduler and {1e3 * found['client_cpu'] / n:.2f} ms of the client"
        )
    slope, base = np.polyfit(WORKERS, [empty[n]["scheduler_cpu"] + empty[n]["client_cpu"] for n in WORKERS], 1)
    line = (max(float(base), BASE_SECONDS), float(slope))
    print(f"overhead of a pass: {1e3 * line[0]:.1f} ms + {1e3 * line[1]:.2f} ms for each worker")
    table = {
        name: {str(n): {str(m): pass_seconds(name, n, m, cost, line) for m in MACHINES} for n in ROWS}
        for name, cost in costs.items()
    }
    for name, by_rows in table.items():
        print(f"\n{name}, k={CLUSTERS}: ms of a pass (speed-up), MODEL")
        print(f"{'rows':>15}" + "".join(f"{m:>16}" for m in MACHINES))
        for rows, seconds in by_rows.items():
            cells = (f"{1e3 * s:,.0f} ({seconds['1'] / s:.1f})" for s in seconds.values())
            print(f"{int(rows):>15,}" + "".join(f"{cell:>16}" for cell in cells))
    draw(table, RESULTS / "scaling_model.png")
    write(
        "scaling_model",
        {
            "environment": facts, "model": True, "measured": {"nanoseconds_a_row": costs, "empty_pass_seconds": empty},
            "assumed": {"cores": CORES, "efficiency": EFFICIENCY, "bytes_per_second": BYTES_PER_SECOND, "round_trip_seconds": ROUND_TRIP_SECONDS, "base_seconds": BASE_SECONDS},
            "overhead_seconds": {"base": line[0], "per_worker": line[1]}, "seconds": table,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
