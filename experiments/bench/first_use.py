"""First use: the time that a job spends on compiling its kernels, once on each machine, by algorithm.

    python experiments/bench/first_use.py            # about two minutes on two cores; --gpu runs only the part on a GPU

Each job runs in its own process on 20,000 generated tracks, in turn with an empty cache of compiled kernels and with the cache that
this run has filled. The difference of the medians is the cost of compilation. Both runs must give the same results, and only
the first may report that it compiles. Processor seconds are recorded too, as other work on the machine changes them less.
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import gpu_too, heading, only_gpu, write

from gpuclust.pipeline.start import COMPILING

ALGORITHMS = ("kmeans", "gmm", "hdbscan")
ROWS = 20_000
LIMIT = 10.0  # seconds of compiling
REPEATS = 2
# Of numba, CuPy, cuDF and the driver.
CACHES = ("NUMBA_CACHE_DIR", "CUPY_CACHE_DIR", "LIBCUDF_KERNEL_CACHE_PATH", "CUDA_CACHE_PATH")
SAYS = COMPILING.partition(":")[0]


def job(algorithm: str, cache: Path, folder: Path, backend: str = "cpu") -> tuple[float, float, str]:
    """Seconds of a job with this cache, its processor seconds, and its output."""
    options = [f"data.n_rows={ROWS}", f"cluster={algorithm}", "tracking=none", f"backend={backend}"]
    command = [sys.executable, "-m", "gpuclust", *options]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **{name: str(cache / name) for name in CACHES}},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    assert done.returncode == 0, done.stdout + done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, processor, done.stdout + done.stderr


def scores(printed: str) -> str:
    """The silhouette and the other figures of the job's line, without its seconds."""
    line = next(line for line in printed.splitlines() if " done " in line)
    return re.sub(r"\s+[\d.]+ s$", "", line)


def main() -> None:
    if not only_gpu(__doc__ or ""):
        facts = heading("First use", f"one job on {ROWS:,} generated tracks, with an empty and with a full cache")
        write("first_use", {"environment": facts, **measured("cpu")})
    gpu_too("first_use", lambda: measured("gpu"))


def measured(backend: str) -> dict[str, Any]:
    """Seconds of the first job and of another one for each algorithm."""
    record: dict[str, dict[str, float]] = {}
    with TemporaryDirectory() as root:
        job("kmeans", Path(root) / "kept", Path(root), backend)  # the operating system's caches are warm for all
        for algorithm in ALGORITHMS:
            first, again = [], []
            for i in range(REPEATS):
                cache = Path(root) / f"{algorithm}-{i}"
                *seconds, cold = job(algorithm, cache, Path(root), backend)
                first.append(seconds)
                *seconds, warm = job(algorithm, cache, Path(root), backend)
                again.append(seconds)
                assert backend == "gpu" or SAYS in cold, cold
                assert SAYS not in warm, warm
                assert scores(cold) == scores(warm), (cold, warm)
            medians = [[statistics.median(column) for column in zip(*runs, strict=True)] for runs in (first, again)]
            found = {
                "first": medians[0][0],
                "again": medians[1][0],
                "compiling": medians[0][0] - medians[1][0],
                "compiling_processor": medians[0][1] - medians[1][1],
            }
            record[algorithm] = found
            print(
                f"{algorithm:<8} first {found['first']:5.1f} s, again {found['again']:5.1f} s: compiling "
                f"{found['compiling']:4.1f} s, {found['compiling_processor']:.1f} s of the processor (at most {LIMIT:.0f} "
                f"wanted); load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    load = os.getloadavg()[0]
    return {"n_rows": ROWS, "repeats": REPEATS, "limit_seconds": LIMIT, "load": load, "seconds": record}


if __name__ == "__main__":
    main()
