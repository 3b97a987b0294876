"""MODEL: the time of each pass on a GPU, from the instructions of the compiled kernels and the bytes that they move.

    python experiments/bench/gpu_model.py       # a second; it needs no GPU. Nothing in its table has been measured on one

tests/gpu_kernels/counts.json has the instructions of one step of each loop, counted in the machine code for an H100 (sm_90), with the unit
that executes them; results/gpu_kernels_0_1_0.json has the same for version 0.1.0. The bound of a kernel is the time of the busiest unit of
the multiprocessors, or of the memory, whichever is longer. It is divided by an efficiency: at most EFFICIENCY, less where few warps fit on a
multiprocessor. An iteration adds the launches, kernels of one block, and what the host does while the device waits. Where it does
not wait, the host's time counts only if it is longer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import RESULTS, write

COUNTS = Path(__file__).resolve().parents[2] / "tests" / "gpu_kernels" / "counts.json"
BEFORE = RESULTS / "gpu_kernels_0_1_0.json"
DEVICE = "90"
ROWS = 1_160_000

MULTIPROCESSORS, CLOCK, BANDWIDTH = 132, 1.7e9, 3.35e12  # of an H100 SXM; bytes a second
WARPS_PER_CLOCK = {
    # Instructions of a warp that one multiprocessor executes in a clock, from the table of arithmetic throughputs in NVIDIA's programming
    # guide. "all" is what its four schedulers issue.
    "all": 4.0, "fp32": 4.0, "integer": 2.0, "multiply": 2.0, "fp64": 2.0, "load/store": 1.0, "special": 0.5, "control": 4.0,
}  # fmt: skip
REGISTERS, SHARED_BYTES, MAX_WARPS = 65_536, 227 << 10, 64  # of a multiprocessor
ISSUES_PER_CLOCK = 0.25  # instructions that a single warp issues in a clock: most wait four clocks for the previous one
EFFICIENCY = 0.7  # at most: warps wait for memory, and the last blocks leave multiprocessors idle
LAUNCH_US = 3.0  # from one kernel's start to the next one's, on the device
REPEATED_LAUNCH_US = 5.0  # of the host: 1.2 measured for the arguments, the rest is the driver's
ARRAY_US = 7.0  # of the host for each array of an ordinary launch of numba-cuda 0.30; measured on one core at 2.1 GHz
CHECK_US = 25.0  # a download of a few bytes, which waits for the device
ITERATIONS_PER_CHECK = 8  # iterations


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """``units`` of work (rows, pairs, cells) of a kernel in counts.json; ``name`` is its case."""

    name: str
    units: float


@dataclass(frozen=True, kw_only=True)
class Version:
    """One implementation. ``moved`` bytes of device memory; ``arrays`` of ordinary launches, ``launches`` that are repeated; ``one_block_us`` of
    kernels whose few threads wait for each step; ``waiting_us`` of the host while the device waits; ``checks``: the host reads the state every
    ITERATIONS_PER_CHECK times."""

    kernels: tuple[Kernel, ...]
    moved: float
    arrays: int = 0
    launches: int = 0
    one_block_us: float = 0.0
    waiting_us: float = 0.0
    checks: bool = False


@dataclass(frozen=True, kw_only=True)
class Work:
    """An iteration or a pass on ROWS rows, in 0.1.0 and today, and the target in microseconds."""

    name: str
    before: Version | None
    after: Version
    target_us: float | None


def table(n_rows: float, n_features: int, itemsize: int = 4) -> float:
    """Bytes of a matrix."""
    return n_rows * n_features * itemsize


def bound_us(kernel: Kernel, counts: dict[str, Any]) -> dict[str, float] | None:
    """Microseconds that each unit of the device needs at least for a kernel, None if its instructions have not been counted."""
    case = counts.get(kernel.name, {})
    loops = case.get(DEVICE, {}).get("loops")
    if not loops or "threads" not in case:
        return None
    busy: dict[str, float] = {}
    for name, loop in loops.items():
        for unit, number in loop.items():
            warps = number * case["steps"][name] * kernel.units / 32
            busy[unit] = busy.get(unit, 0.0) + 1e6 * warps / (WARPS_PER_CLOCK[unit] * MULTIPROCESSORS * CLOCK)
    return busy


def efficiency(kernel: Kernel, counts: dict[str, Any]) -> float:
    """The share of the bound that a kernel can reach with the warps that fit on a multiprocessor."""
    case = counts[kernel.name]
    used, warps = case[DEVICE], case["threads"] / 32
    registers = -(-used["registers"] // 8) * 8 * case["threads"]
    shared = max(1024, used["shared"] + case["dynamic_shared"])
    blocks = min(REGISTERS // registers, SHARED_BYTES // shared, MAX_WARPS // warps)
    return float(min(EFFICIENCY, blocks * warps / WARPS_PER_CLOCK["all"] * ISSUES_PER_CLOCK))


def modelled(version: Version, counts: dict[str, Any]) -> dict[str, Any] | None:
    """Microseconds of one iteration and of its parts, None if the instructions of a kernel have not been counted."""
    memory = 1e6 * version.moved / BANDWIDTH
    computed = bound = 0.0
    busiest = []
    for kernel in version.kernels:
        busy = bound_us(kernel, counts)
        if busy is None:
            return None
        unit = max(busy, key=busy.__getitem__)
        busiest.append(unit)
        bound += busy[unit]
        computed += busy[unit] / efficiency(kernel, counts)
    launches = max(version.launches, len(version.kernels))
    device = max(memory / EFFICIENCY, computed) + LAUNCH_US * launches + version.one_block_us
    host = ARRAY_US * version.arrays + REPEATED_LAUNCH_US * version.launches
    check = CHECK_US / ITERATIONS_PER_CHECK if version.checks else 0.0
    total = device + host + version.waiting_us if version.waiting_us else max(device, host) + check
    limit = "memory" if memory / EFFICIENCY > computed else ", ".join(dict.fromkeys(busiest))
    return {
        "total_us": total, "device_us": device, "host_us": host + version.waiting_us + check, "bound_us": max(bound, memory),
        "memory_us": memory, "limited_by": limit,
    }  # fmt: skip


def lloyd(n_features: int, n_clusters: int, target_us: float | None) -> Work:
    """An iteration of K-Means. Version 0.1.0 is estimated to take at least 500 µs to merge its sums, and 600 µs of host time."""
    return Work(
        name=f"Lloyd iteration, d={n_features} k={n_clusters}",
        before=Version(
            kernels=(Kernel(name=f"lloyd_pass_{n_features}_{n_clusters}_float32", units=ROWS),),
            moved=table(ROWS, n_features), waiting_us=500 + 600,
        ),
        after=Version(
            # The pass reads float32 tiles, whatever the type of the matrix.
            kernels=(Kernel(name=f"lloyd_pass_{n_features}", units=ROWS),),
            # `move_centers` adds 128 values three times, a step of 30 clocks after the other.
            moved=table(ROWS, n_features), launches=2, one_block_us=3 * 128 * 30 / CLOCK * 1e6, checks=True,
        ),
        target_us=target_us,
    )  # fmt: skip


def em(n_features: int, n_components: int, target_us: float, host_us: float) -> Work:
    """An iteration of EM with full covariances; ``host_us`` of version 0.1.0 is a low estimate."""
    return Work(
        name=f"EM iteration, d={n_features} k={n_components}",
        before=Version(
            kernels=(Kernel(name=f"em_tiles_{n_features}_{n_components}_float32", units=ROWS),),
            moved=table(ROWS, n_features), waiting_us=host_us,
        ),
        after=Version(
            kernels=(Kernel(name=f"em_pass_{n_features}_{n_components}_float32", units=ROWS),),
            # `merge` adds some hundred lines; `m_step` factors a matrix, two phases of about 900 clocks for each feature.
            moved=table(ROWS, n_features), launches=3, one_block_us=5 + n_features * 2 * 900 / CLOCK * 1e6, checks=True,
        ),
        target_us=target_us,
    )  # fmt: skip


def silhouette(dtype: str) -> Work:
    """The exact silhouette of one labeling: every pair of rows."""
    kernels = (Kernel(name=f"silhouette_add_11_{dtype}", units=float(ROWS) ** 2),)
    version = Version(kernels=kernels, moved=table(ROWS, 11))
    return Work(name=f"exact silhouette, 11 features, {dtype}", before=version, after=version, target_us=2.5e6)


def scores() -> Work:
    """Davies-Bouldin, Calinski-Harabasz and the split gain of one clustering of 11 features. Version 0.1.0 called `bincount` 230 times, each
    of which waited for the device: an estimated 25 to 50 ms."""
    gathered = 2 * (1.75 * table(ROWS, 11) + 8 * ROWS)  # rows of 44 bytes are read in sectors of 32; and their numbers
    return Work(
        name="other scores of a clustering, 11 features",
        before=Version(kernels=(), moved=0.0, waiting_us=37_500),
        after=Version(
            kernels=(Kernel(name="grouped_products_11_float32", units=ROWS), Kernel(name="grouped_spreads_float32", units=ROWS)),
            moved=gathered + 100 * ROWS,  # the sort reads and writes labels and numbers in four steps
            arrays=16, waiting_us=770 + 3 * CHECK_US + 300,  # the labels at 6 GB/s, three downloads, the small uploads and the sort's launches
        ),
        target_us=None,
    )  # fmt: skip


WORKS = (
    lloyd(5, 10, 60),
    lloyd(11, 10, None),
    em(5, 5, 80, 1500),
    em(11, 10, 400, 2500),
    silhouette("float32"),
    silhouette("float64"),
    scores(),
)


def shown(found: dict[str, Any] | None) -> str:
    """Microseconds, and what limits the kernels."""
    if found is None:
        return "not counted"
    limit = f", by {found['limited_by']}" if found["limited_by"] else ""
    return f"{found['total_us']:11,.0f} (device {found['device_us']:,.0f}; bound {found['bound_us']:,.0f}{limit})"


def main() -> None:
    """Print the table and write results/gpu_model.json."""
    before, after = json.loads(BEFORE.read_text()), json.loads(COUNTS.read_text())
    print(f"MODEL, not measured: microseconds on an H100, {ROWS:,} rows, at most {EFFICIENCY:.0%} of the roofline")
    record: dict[str, Any] = {
        "model": True,
        "device": "H100 SXM, sm_90",
        "rows": ROWS,
        "efficiency": EFFICIENCY,
        "works": {},
    }
    for work in WORKS:
        then = modelled(work.before, before) if work.before is not None else None
        now = modelled(work.after, after)
        target = f"; target {work.target_us:,.0f}" if work.target_us else ""
        print(f"{work.name:52} 0.1.0: {shown(then):60} now: {shown(now)}{target}")
        record["works"][work.name] = {"version_0_1_0": then, "now": now, "target_us": work.target_us}
    write("gpu_model", record)


if __name__ == "__main__":
    main()
