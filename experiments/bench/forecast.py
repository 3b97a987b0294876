"""The forecast of memory and time against the peaks of whole jobs, each in a process of its own.

    python experiments/bench/forecast.py                          # compare at 0.3, 1 and 3 million rows: about 15 minutes on two cores
    python experiments/bench/forecast.py --rows 300000            # smaller
    python experiments/bench/forecast.py --modes resident disk    # also with memory.mode=disk
    python experiments/bench/forecast.py --fit                    # measure, fit the constants, write src/gpuclust/runtime/forecast.json

A job reads generated tracks (10 features, 6 other columns) from Parquet and is recorded in MLflow on SQLite, with the default scores,
figures and page. The peak is the largest resident set of the process, as the kernel reports it. The forecast is to be within -10 % and
+30 % of the peak; the exit status is 1 where it is not. Seconds are compared too, without a target: those of the forecast are an order of
magnitude.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import heading, write
from scipy.optimize import nnls

from gpuclust.compose import compose
from gpuclust.runtime import forecast as model
from gpuclust.tracks.catalogue import FEATURES, catalogue

LOW, HIGH = 0.9, 1.3
"""The bounds of forecast / peak."""
CENTRE = 1.08
"""The fitted peak is multiplied by this, so that both bounds are about equally far."""
ALGORITHMS = {
    "kmeans": ["cluster=kmeans"],
    "gmm": ["cluster=gmm"],
    "hdbscan": ["cluster=hdbscan", "cluster.min_cluster_size=500"],
}
PIECE = 500_000
CONSTANTS = Path(model.__file__).with_suffix(".json")


@dataclass(frozen=True)
class Measured:
    """A job that was run: its overrides, and its peak in bytes and seconds beside the forecast's."""

    label: str
    overrides: tuple[str, ...]
    mode: str
    n_rows: int
    peak: float
    seconds: float
    forecast_peak: float
    forecast_seconds: float

    @property
    def ratio(self) -> float:
        """Forecast / peak."""
        return self.forecast_peak / self.peak


def tracks(path: Path, n_rows: int) -> Path:
    """A Parquet file of generated tracks."""
    if not path.exists():
        frame = catalogue(n_rows, seed=0)
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path, row_group_size=PIECE)
    return path


def numbers(path: Path, n_rows: int, n_columns: int) -> Path:
    """A Parquet file of normal numbers in three clusters, without text."""
    if not path.exists():
        rng = np.random.default_rng(0)
        centres = rng.integers(0, 3, n_rows)[:, None] * 4.0
        X = centres + rng.normal(size=(n_rows, n_columns))
        pq.write_table(pa.table({f"f{i}": X[:, i] for i in range(n_columns)}), path)
    return path


def child(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Run Python in a process of its own; its peak in bytes and its seconds."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with status {process.returncode}: {said[-500:]}")
    return usage.ru_maxrss * 1024.0, time.perf_counter() - began


def measure(label: str, overrides: list[str], mode: str, folder: Path) -> Measured:
    """Run a job, and compare it with its forecast."""
    overrides = [*overrides, "backend=cpu", f"memory.mode={mode}"]
    found = model.forecast(compose(overrides))
    peak, seconds = child(["-m", "gpuclust", *overrides, "sweep.resume=false"], folder)
    expected = found.disk_bytes if mode == "disk" else found.resident_bytes
    measured = Measured(label, tuple(overrides), mode, found.n_rows, peak, seconds, expected, found.seconds)
    print(
        f"{label:24} {mode:8} {found.n_rows:>9,} rows: peak {peak / 1e9:5.2f} GB, forecast {expected / 1e9:5.2f} GB ({measured.ratio:.2f}); "
        f"{seconds:5.0f} s, forecast {found.seconds:5.0f} s",
        flush=True,
    )
    return measured


def measure_all(
    rows: list[int], algorithms: list[str], modes: list[str], folder: Path, *, wide: bool
) -> list[Measured]:
    """The jobs of the comparison; with ``wide`` also those whose columns tell numbers and text apart."""
    found = []
    for mode in modes:
        for n_rows in rows:
            path = tracks(folder / f"tracks_{n_rows}.parquet", n_rows)
            of_tracks = ["data=tracks", f"data.path={path}"]
            found += [measure(name, [*ALGORITHMS[name], *of_tracks], mode, folder) for name in algorithms]
        for n_columns in (3, 40) if wide else ():
            path = numbers(folder / f"numbers_{n_columns}.parquet", rows[0], n_columns)
            found.append(measure(f"kmeans, {n_columns} numbers", ["data=table", f"data.path={path}"], mode, folder))
        if wide:
            found.append(measure("kmeans, generated", ["data=catalogue", f"data.n_rows={rows[0]}"], mode, folder))
    return found


TREE = """
import sys
import pyarrow.parquet as pq
import numpy as np
from gpuclust.algorithms.hdbscan import HdbscanConfig
from gpuclust.algorithms.registry import FitInput, fit
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
path, features = sys.argv[1], sys.argv[2].split(",")
table = pq.read_table(path, columns=features)
X = np.empty((table.num_rows, len(features)), np.float32)
for i, name in enumerate(features):
    column = table[name].to_numpy()
    X[:, i] = (column - column.mean()) / column.std()
del table, column
found = fit(FitInput(X, 0, CpuBackend(), ResultCache(), "bench"), [HdbscanConfig(min_cluster_size=500)])[0]
assert not isinstance(found, Exception), found
"""


def measure_trees(rows: list[int], folder: Path) -> dict[str, float]:
    """The bytes of a row of HDBSCAN's tree: those that do not depend on the columns, and those of one column."""
    design, peaks = [], []
    for n_rows in rows:
        path = tracks(folder / f"tracks_{n_rows}.parquet", n_rows)
        for n_columns in (3, 10):
            peak, _ = child(["-c", TREE, str(path), ",".join(FEATURES[:n_columns])], folder)
            print(f"tree of {n_rows:,} rows, {n_columns} columns: peak {peak / 1e9:.2f} GB", flush=True)
            design.append([1.0, n_rows, n_rows * n_columns])
            peaks.append(peak)
    _, a_row, a_number = weighted(np.array(design), np.array(peaks))
    return {"tree_row": a_row * CENTRE, "tree_number": a_number * CENTRE}


def weighted(design: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Non-negative least squares of relative errors: coefficients (n_columns,)."""
    scale = (design / values[:, None]).max(axis=0)
    scale[scale == 0] = 1
    found, _ = nnls(design / values[:, None] / scale, np.ones(len(values)))
    return found / scale


def fitted(measured: list[Measured], trees: dict[str, float]) -> dict[str, Any]:
    """The constants of the model from measured jobs; those of a mode that was not measured stay."""
    constants = json.loads(CONSTANTS.read_text(encoding="utf-8"))
    for mode in ("resident", "disk"):
        mine = [m for m in measured if m.mode == mode]
        if not mine:
            continue
        terms = [model.memory_terms(compose(list(m.overrides)), mode) for m in mine]
        names = sorted({name for term in terms for name in term if name != "fixed"})
        design = np.array([[term.get(name, 0.0) for name in names] for term in terms])
        fixed = np.array([term.get("fixed", 0.0) for term in terms])
        peaks = np.array([m.peak for m in mine])
        coefficients = weighted(design, np.maximum(peaks * CENTRE - fixed, 1.0))
        constants["memory"] |= dict(zip(names, map(float, coefficients), strict=True))
    mine = [m for m in measured if m.mode == "resident"]
    terms = [model.time_terms(compose(list(m.overrides))) for m in mine]
    names = sorted({name for term in terms for name in term})
    design = np.array([[term.get(name, 0.0) for name in names] for term in terms])
    constants["seconds"] |= dict(
        zip(names, map(float, weighted(design, np.array([m.seconds for m in mine]))), strict=True)
    )
    streamed = {(m.label, m.n_rows): m.seconds for m in measured if m.mode == "disk"}
    slower = [streamed[key] / m.seconds for m in mine if (key := (m.label, m.n_rows)) in streamed]
    if slower:
        constants["seconds"]["disk"] = float(np.median(slower))
    constants["memory"] |= trees
    constants["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return constants


def main() -> int:
    """Measure, compare and, where it is asked for, fit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[300_000, 1_000_000, 3_000_000])
    parser.add_argument("--algorithms", nargs="+", choices=tuple(ALGORITHMS), default=list(ALGORITHMS))
    parser.add_argument("--modes", nargs="+", choices=("resident", "disk"), default=["resident"])
    parser.add_argument("--fit", action="store_true", help="fit the constants to what is measured, and write them")
    options = parser.parse_args()
    heading("Forecast and peak", f"target: forecast within {LOW - 1:+.0%} and {HIGH - 1:+.0%} of the peak")
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        measured = measure_all(options.rows, options.algorithms, options.modes, folder, wide=options.fit)
        if options.fit:
            constants = fitted(measured, measure_trees(options.rows[:2], folder))
            CONSTANTS.write_text(json.dumps(constants, indent=2) + "\n", encoding="utf-8")
            model.constants.cache_clear()
            print(f"written: {CONSTANTS.name}; with it:")
            measured = [again(m) for m in measured]
    outside = [m for m in measured if not LOW <= m.ratio <= HIGH]
    write("forecast", {"low": LOW, "high": HIGH, "jobs": [vars(m) | {"ratio": m.ratio} for m in measured]})
    print(f"{len(measured) - len(outside)} of {len(measured)} forecasts are within the bounds")
    return 1 if outside else 0


def again(measured: Measured) -> Measured:
    """The comparison with the constants that were fitted; the file of the job is still there."""
    found = model.forecast(compose(list(measured.overrides)))
    expected = found.disk_bytes if measured.mode == "disk" else found.resident_bytes
    result = Measured(**vars(measured) | {"forecast_peak": expected, "forecast_seconds": found.seconds})
    print(f"{result.label:24} {result.mode:8} {result.n_rows:>9,} rows: {result.ratio:.2f}")
    return result


if __name__ == "__main__":
    sys.exit(main())
