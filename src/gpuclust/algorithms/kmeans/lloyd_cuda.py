"""Lloyd's iterations on a GPU until convergence: as `lloyd`, with the centres and the stopping rule on the device.

The fits of a batch advance together in two launches an iteration. The host reads their state every PASSES_PER_CHECK iterations.
It computes only the new centres of fits with empty clusters, which are rare. Arrays of rows and centres are those of ``xp``, which is cupy, or numpy under
numba's simulator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuclust.algorithms.kmeans.assign_cuda import assign, cluster_sums, to_host
from gpuclust.algorithms.kmeans.kernels_cuda import (
    DONE,
    EMPTY,
    EXPLAINED,
    FIRST_CENTER,
    FIRST_ROW,
    GIVEN,
    LEAST_MOVE,
    MAX_ITER,
    MAX_PART_BITS,
    MAX_REGISTER_FEATURES,
    MOVE_THREADS,
    N_CLUSTERS,
    N_ITER,
    N_PLAN,
    N_ROWS,
    N_STATE,
    NO_SUMS,
    PART_BITS,
    RELOCATED,
    SETTLED,
    STARTING,
    STATUS,
    THREADS,
    TILE,
    fill_tiles,
    move_centers,
    pass_kernel,
    wide_pass,
)
from gpuclust.algorithms.kmeans.lloyd import fill_empty, means_of
from gpuclust.algorithms.kmeans.passes import ClusterSums, FarthestRows
from gpuclust.algorithms.kmeans.tiled_matrix import BlockMoments, Frame, frame_from
from gpuclust.errors import FitError
from gpuclust.runtime.backend import Array
from gpuclust.runtime.jit import ignore_small_grid_warnings
from gpuclust.runtime.jit_cuda import RepeatedLaunch
from gpuclust.runtime.nearest import FAR, GROUP

PASSES_PER_CHECK = 8
BLOCKS = 1056  # approximate number in a pass: 8 for each of the 132 multiprocessors of an H100
MAX_CELLS = 3072  # float64 sums that a block keeps in shared memory
MAX_NEAR = 4096  # float32 values of the centres that `pass_kernel` keeps in shared memory


@dataclass(frozen=True)
class RowSet:
    """Some of the rows of a matrix, one after another from a multiple of TILE on, that a fit is fitted to."""

    first_row: int
    n_rows: int
    sum_sq_norm: float  # in the coordinates of the frame


@dataclass(frozen=True)
class DeviceRows:
    """Rows on the device, in sets."""

    X: Array  # (n, n_features) float32 or float64
    values: Array  # (n_tiles * n_features * TILE,) float32, the rows as tiles in the coordinates of the frame
    frame: Frame
    table: Array  # (2 n_features + 1,) float64: the frame's origin, rounding and scale
    sets: tuple[RowSet, ...]
    xp: Any

    @property
    def origin(self) -> Array:
        """The frame's origin (n_features,) on the device."""
        return self.table[: self.X.shape[1]]

    def to_tiled(self, rows: Array) -> Array:
        """Rows or centres (n, n_features) on the device in the coordinates of the frame, float64."""
        return (rows - self.origin) * self.frame.scale

    def from_tiled(self, centers: Array) -> Array:
        """Centres (n, n_features) on the device in the coordinates of X."""
        return centers / self.frame.scale + self.origin


@dataclass(frozen=True)
class DeviceJob:
    """One fit: the number of its set of rows, its initial centres (n_clusters, n_features) on the device in the coordinates of the frame, and its
    limits."""

    rows: int
    start: Array
    max_iter: int
    least_move: float  # squared, in the coordinates of the frame


@dataclass(frozen=True)
class DeviceResult:
    """The result of a run of Lloyd's iterations; arrays (n_clusters, n_features) float64 on the device."""

    centers: Array
    assigned: Array  # the centres by which the last pass assigned the rows
    inertia: float
    n_iter: int
    converged: bool
    relocated: (
        bool  # the last iteration moved an empty cluster: `centers` are not the means of the last pass's clusters
    )


def rows_on_device(X: Array, xp: Any) -> DeviceRows:
    """The rows of a matrix (n_samples, n_features) float32 or float64 on the device, in one set. Raises FitError for NaN or infinity."""
    X = xp.ascontiguousarray(X)
    n_rows = len(X)
    # One copy to the host
    low, high = X.min(axis=0).astype(np.float64), X.max(axis=0).astype(np.float64)
    moments = xp.stack([X.mean(axis=0, dtype=np.float64), X.var(axis=0, dtype=np.float64), low, high])
    mean, variance, low, high = to_host(moments, xp)
    try:
        if not np.isfinite(mean).all():
            raise ValueError("X holds NaN, infinity or values too large to add up")
        found = BlockMoments(n_rows, mean, variance, low, high)
        found = BlockMoments(n_rows, mean, variance * n_rows * found.scale**2, low, high)
        frame = frame_from(found)
    except ValueError as error:
        raise FitError(f"{error}; clean or scale the features first") from None
    table = xp.asarray(np.concatenate([frame.origin, frame.rounding, [frame.scale]]))
    return _with_tiles(X, frame, table, (RowSet(0, n_rows, frame.sum_sq_norm),), xp)


def rows_of_samples(rows: DeviceRows, samples: Sequence[np.ndarray]) -> DeviceRows:
    """Samples of the rows as separate sets; each sample is an array of row numbers."""
    xp, first, sets, chosen = rows.xp, 0, [], []
    for sample in samples:
        n_padded = -(-len(sample) // TILE) * TILE
        chosen.append(np.concatenate([sample, np.repeat(sample[-1:], n_padded - len(sample))]))
        sets.append((first, len(sample)))
        first += n_padded
    X = xp.ascontiguousarray(rows.X[xp.asarray(np.concatenate(chosen))])
    norms = (rows.to_tiled(X) ** 2).sum(axis=1)
    sums = to_host(xp.stack([norms[start : start + n].sum() for start, n in sets]), xp)
    found = tuple(RowSet(start, n, float(total)) for (start, n), total in zip(sets, sums, strict=True))
    return _with_tiles(X, rows.frame, rows.table, found, xp)


def _with_tiles(X: Array, frame: Frame, table: Array, sets: tuple[RowSet, ...], xp: Any) -> DeviceRows:
    n_tiles = -(-len(X) // TILE)
    values = xp.empty(n_tiles * X.shape[1] * TILE, dtype=np.float32)
    with ignore_small_grid_warnings():
        fill_tiles[n_tiles, TILE](X, table, values)
    return DeviceRows(X, values, frame, table, sets, xp)


class DeviceBatch:
    """K-Means fits in progress: their centres, sums and state on the device. See `move_centers` for the arrays."""

    def __init__(self, rows: DeviceRows, jobs: Sequence[DeviceJob]) -> None:
        self.rows, self.jobs, self.xp = rows, jobs, rows.xp
        n_clusters = [len(job.start) for job in jobs]
        padded = [-(-k // GROUP) * GROUP for k in n_clusters]
        self.first = np.concatenate([[0], np.cumsum(padded)])
        n_features, n_centers = rows.X.shape[1], int(self.first[-1])
        self.plan = np.zeros((len(jobs), N_PLAN), np.int64)
        self.plan[:, FIRST_ROW] = [rows.sets[job.rows].first_row for job in jobs]
        self.plan[:, N_ROWS] = [rows.sets[job.rows].n_rows for job in jobs]
        self.plan[:, FIRST_CENTER], self.plan[:, N_CLUSTERS] = self.first[:-1], n_clusters
        self.plan[:, PART_BITS] = [part_bits(k * (n_features + 1)) for k in n_clusters]
        self.state = np.zeros((len(jobs), N_STATE))
        self.state[:, STATUS] = STARTING
        self.state[:, LEAST_MOVE] = [job.least_move for job in jobs]
        self.state[:, MAX_ITER] = [job.max_iter for job in jobs]
        xp, shape = self.xp, (n_centers, n_features)
        self.means, self.centers, self.assigned = xp.zeros(shape), xp.zeros(shape), xp.zeros(shape)
        numbers = np.concatenate([first + np.arange(k) for first, k in zip(self.first[:-1], n_clusters, strict=True)])
        self.means[xp.asarray(numbers)] = xp.concatenate([job.start for job in jobs])
        self.totals, self.sums = (xp.zeros(n_centers * (n_features + 1)) for _ in range(2))
        floats = xp.zeros((n_centers, n_features + 1), dtype=np.float32)
        floats[:, 0] = FAR
        self.floats = floats.reshape(-1)
        self.plan_on_device, self.state_on_device = xp.asarray(self.plan), xp.array(self.state)

    def of(self, fit: int) -> slice:
        """The clusters of a fit in the arrays of all fits."""
        return slice(int(self.first[fit]), int(self.first[fit]) + int(self.plan[fit, N_CLUSTERS]))

    def run(self) -> None:
        """Iterate until all fits have stopped."""
        running = np.arange(len(self.jobs))
        n_launched, iterate = len(running), self._iteration(running)
        while len(running):
            if 2 * len(running) <= n_launched:  # blocks of fits that have ended return at once
                n_launched, iterate = len(running), self._iteration(running)
            with ignore_small_grid_warnings():
                for _ in range(PASSES_PER_CHECK):
                    iterate()
            self.state = to_host(self.state_on_device, self.xp)
            empty = np.flatnonzero(self.state[:, STATUS] == EMPTY)
            for fit in empty.tolist():
                self._relocate(fit)
            if len(empty):
                self.state_on_device[:] = self.xp.asarray(self.state)
            running = np.flatnonzero(self.state[:, STATUS] != DONE)

    def _iteration(self, fits: np.ndarray) -> Callable[[], None]:
        """A function that starts one iteration of these fits."""
        rows, n_features = self.rows, self.rows.X.shape[1]
        own = self.plan[fits]
        n_cells = own[:, N_CLUSTERS] * (n_features + 1)
        in_registers = n_features <= MAX_REGISTER_FEATURES and n_cells.max() <= MAX_NEAR
        kernel = pass_kernel(n_features) if in_registers else wide_pass
        n_sums = np.where(own[:, PART_BITS] == NO_SUMS, 0, n_cells << (own[:, PART_BITS] % NO_SUMS))
        shared = int((8 * n_sums + (4 * n_cells if in_registers else 0)).max())
        n_tiles = -(-int(own[:, N_ROWS].max()) // TILE)
        grid = (len(fits), max(1, min(n_tiles, -(-BLOCKS // len(fits)))))
        run_pass = RepeatedLaunch(
            kernel, grid, THREADS, rows.X, rows.values, rows.table, self.xp.asarray(fits.astype(np.int32)), self.plan_on_device,
            self.state_on_device, self.centers, self.floats, self.totals, shared=shared,
        )  # fmt: skip
        move = RepeatedLaunch(
            move_centers, len(self.jobs), MOVE_THREADS, self.plan_on_device, rows.frame.grid, self.totals, self.sums, self.means,
            self.centers, self.assigned, self.floats, self.state_on_device,
        )  # fmt: skip

        def iterate() -> None:
            run_pass()
            move()

        return iterate

    def _relocate(self, fit: int) -> None:
        """Give each empty cluster of a fit the row farthest from its centre, as `LloydBatch.relocate` does; for the next iteration."""
        rows, xp, frame = self.rows, self.xp, self.rows.frame
        own = rows.sets[self.jobs[fit].rows]
        X = rows.X[own.first_row : own.first_row + own.n_rows]
        found = assign(X, rows.from_tiled(self.centers[self.of(fit)]), xp)
        exact = ClusterSums(*cluster_sums(X, found.labels, rows.origin, int(self.plan[fit, N_CLUSTERS]), xp))
        empty = np.flatnonzero(exact.masses == 0)
        wanted = min(max(1, len(empty)), own.n_rows)
        numbers = xp.argsort(-found.squares, kind="stable")[:wanted]
        farthest = FarthestRows(
            wanted, to_host(found.squares[numbers], xp) * frame.scale**2, to_host(numbers, xp),
            to_host(found.labels[numbers], xp), to_host(X[numbers] - rows.origin, xp), np.ones(wanted),
        )  # fmt: skip
        fill_empty(exact, empty, farthest, frame.grid)
        self.means[self.of(fit)] = xp.asarray(means_of(exact) * frame.scale)
        self.state[fit, STATUS] = GIVEN

    def results(self) -> list[DeviceResult]:
        """The results of the fits."""
        found = []
        for i, job in enumerate(self.jobs):
            own, state = self.of(i), self.state[i]
            inertia = self.rows.sets[job.rows].sum_sq_norm - float(state[EXPLAINED])
            found.append(
                DeviceResult(
                    self.centers[own], self.assigned[own], inertia, int(state[N_ITER]), bool(state[SETTLED]),
                    bool(state[RELOCATED]),
                )
            )  # fmt: skip
        return found


def run_lloyd(rows: DeviceRows, jobs: Sequence[DeviceJob]) -> list[DeviceResult]:
    """Run jobs until they stop, all of them together."""
    if not jobs:
        return []
    batch = DeviceBatch(rows, jobs)
    batch.run()
    return batch.results()


def exact_centers(rows: DeviceRows, result: DeviceResult) -> Array:
    """The centres of a result as means of the rows themselves in float64, in the coordinates of X: (n_clusters, n_features) on the device."""
    if result.relocated:
        return rows.from_tiled(result.centers)
    labels = assign(rows.X, rows.from_tiled(result.assigned), rows.xp).labels
    sums = ClusterSums(*cluster_sums(rows.X, labels, rows.origin, len(result.assigned), rows.xp))
    return rows.xp.asarray(means_of(sums)) + rows.origin


def round_centers(rows: DeviceRows, centers: Array) -> Array:
    """Centres (n_clusters, n_features) rounded to a coarse grid, so that centres that differ by rounding errors become equal.

    The step of the grid is at most a quarter of the standard deviation divided by n_clusters ** (1 / n_features), because many clusters are closer to
    each other. All values are in the coordinates of the frame.
    """
    n_clusters, n_features = centers.shape
    finest = math.sqrt(rows.frame.variance) / (4 * n_clusters ** (1 / n_features))
    step = 2.0 ** math.floor(math.log2(finest)) if finest > 0 else 1.0
    return rows.xp.rint(centers / step) * step


def part_bits(n_cells: int) -> int:
    """How many threads, as a power of two, add one column to n_cells sums of their own in a block's shared memory; NO_SUMS if none can."""
    fitting = MAX_CELLS // n_cells
    return min(MAX_PART_BITS, fitting.bit_length() - 1) if fitting else NO_SUMS
