"""Whole jobs on a table that does not fit in memory: within a limit that the kernel enforces, and with the labels of a job in memory.

    python experiments/bench/streamed_job.py                     # 3 million rows in memory and from disk, 30 million within 4 GB: about 15 minutes
    python experiments/bench/streamed_job.py --rows 0            # only the comparison

The tracks are generated: 10 features and 6 other columns, in pieces with seeds of their own. A job is a whole command (reading, cleaning,
scaling, ten starts of K-Means, scores, profile, recording in MLflow on SQLite). The comparison checks that labels are equal and metrics agree within
1e-9 before it prints the ratio of the times; the large job runs under RLIMIT_AS. Peaks are those of the resident set, by the kernel.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from common import heading, write

from gpuclust.tracks.catalogue import catalogue

PIECE = 500_000
JOB = ("data=tracks", "cluster=kmeans", "cluster.n_clusters=8", "score=quick", "report=none")


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--compare", type=int, default=3_000_000, help="rows of the jobs in memory and from disk (0: none)"
    )
    parser.add_argument("--rows", type=int, default=30_000_000, help="rows of the job within the limit (0: none)")
    parser.add_argument("--limit", type=float, default=4.0, help="RLIMIT_AS of that job in GB (default: 4)")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    facts = heading("Jobs from disk", "whole commands, each in a process of its own")
    found: dict[str, Any] = {"environment": facts}
    with TemporaryDirectory(dir="/var/tmp") as folder:
        if options.compare:
            found["compared"] = compared(Path(folder), options.compare, options.repeats)
        if options.rows:
            found["within_limit"] = within(Path(folder), options.rows, options.limit)
    write("streamed_job", found)


def compared(folder: Path, n_rows: int, repeats: int) -> dict[str, Any]:
    """The same job in memory and from disk, in turn: labels, metrics, seconds and peaks."""
    table = tracks(folder / "compared.parquet", n_rows)
    jobs: dict[str, list[dict[str, Any]]] = {"resident": [], "disk": []}
    for i in range(repeats):
        for mode, done in jobs.items():
            done.append(run(folder, table, f"memory.mode={mode}", f"tracking.experiment={mode}{i}"))
    first = {mode: recorded(folder, f"{mode}0") for mode in jobs}
    assert first["resident"]["labels"] == first["disk"]["labels"], "labels differ"
    for name, value in first["resident"]["metrics"].items():
        other = first["disk"]["metrics"][name]
        assert name.endswith("_seconds") or abs(value - other) <= 1e-9 * abs(value), (name, value, other)
    best = {mode: min(job["seconds"] for job in done) for mode, done in jobs.items()}
    peak = {mode: max(job["peak_mb"] for job in done) for mode, done in jobs.items()}
    ratio = best["disk"] / best["resident"]
    print(
        f"{n_rows:,} rows: labels equal; from disk {best['disk']:.1f} s, in memory {best['resident']:.1f} s, {ratio:.2f} times"
    )
    print(f"peak from disk {peak['disk']:,.0f} MB, in memory {peak['resident']:,.0f} MB")
    table.unlink()
    return {"rows": n_rows, "jobs": jobs, "ratio": ratio, "peak_mb": peak}


def within(folder: Path, n_rows: int, limit: float) -> dict[str, Any]:
    """A job of many rows under RLIMIT_AS."""
    table = tracks(folder / "large.parquet", n_rows)
    job = run(folder, table, "tracking.experiment=large", limit=int(limit * 1e9))
    print(
        f"{n_rows:,} rows within {limit:g} GB of address space: {job['seconds']:.0f} s, peak {job['peak_mb']:,.0f} MB"
    )
    return {"rows": n_rows, "limit_gb": limit, "bytes": table.stat().st_size, **job, **recorded(folder, "large")}


def tracks(path: Path, n_rows: int) -> Path:
    """A Parquet file of generated tracks, with ids that are all different."""
    writer, at = None, 0
    while at < n_rows:
        frame = catalogue(min(PIECE, n_rows - at), seed=at // PIECE)
        frame["id"] = [f"{at // PIECE:03d}{text}" for text in frame["id"]]
        piece = pa.Table.from_pandas(frame, preserve_index=False)
        writer = writer or pq.ParquetWriter(path, piece.schema)
        writer.write_table(piece)
        at += len(frame)
    assert writer is not None
    writer.close()
    return path


def run(folder: Path, table: Path, *overrides: str, limit: int | None = None) -> dict[str, Any]:
    """Run a job; its seconds, its peak in MB, and the line of its forecast."""
    command = [sys.executable, "-m", "gpuclust", *JOB, f"data.path={table}", "memory.folder=/var/tmp", *overrides]
    bound = (lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))) if limit else None
    measure = (
        "import json, resource, subprocess, sys, time; t = time.perf_counter(); "
        "p = subprocess.run(sys.argv[1:], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True); "
        "print(json.dumps([p.returncode, time.perf_counter() - t, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3, p.stderr]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", measure, *command], cwd=folder, capture_output=True, text=True, preexec_fn=bound
    )
    status, seconds, peak, said = json.loads(done.stdout)
    if status:
        raise SystemExit(said)
    needs = next((line for line in said.splitlines() if line.startswith("needs ")), "")
    return {"seconds": seconds, "peak_mb": peak, "forecast": needs}


def recorded(folder: Path, experiment: str) -> dict[str, Any]:
    """The digest of the labels and the metrics of the run of an experiment."""
    from gpuclust.tracking.mlflow import MlflowRecorder

    recorder = MlflowRecorder(f"sqlite:///{folder}/gpuclust-runs/mlflow.db", experiment, create=False)
    (job,) = recorder.finished_jobs().values()
    return {"labels": job.tags["gpuclust.labels"], "metrics": dict(job.metrics)}


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"{time.perf_counter() - started:.0f} s in all")
