"""Lloyd's iterations to their end: many runs advanced together, with scikit-learn's stopping rule and empty clusters.

The host keeps the centres and statistics of the fits; the rows are in blocks, in memory, on disk or on workers, and one read of them
serves a pass of all fits that still run (`gpuclust.algorithms.kmeans.passes`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gpuclust.algorithms.kmeans.kernels_cpu import (
    UNIT,
    LloydStatistics,
    Means,
    Sums,
    make_centers,
    move_centers,
    update_means,
)
from gpuclust.algorithms.kmeans.passes import (
    ClusterSums,
    FarthestRows,
    LloydRows,
    PassKey,
    RowFrame,
    add_cluster_sums,
    add_sums,
    exact_sums,
    farthest_rows,
    label_bytes,
    label_rows,
    labels_of,
    square_norms,
)
from gpuclust.algorithms.kmeans.product_pass import use_products
from gpuclust.algorithms.kmeans.tiled_matrix import Frame, frame_of
from gpuclust.runtime.blocks import MemoryBlocks, Request, RowBlocks

BATCH_BYTES = 64 * 2**20  # of labels of the runs that advance together, where the rows are in memory

Job = tuple[np.ndarray, int, float]
"""A start (n_clusters, n_features) in the coordinates of the frame, max_iter, and tol."""


@dataclass(frozen=True)
class LloydResult:
    """Where a run of Lloyd's iterations ended."""

    centers: np.ndarray  # in the coordinates of the rows
    inertia: float
    n_iter: int
    converged: bool
    assigned: np.ndarray  # the centres by which the last pass assigned the rows
    # of that pass; None if `centers` are not the means of its clusters, because an empty one was moved
    key: PassKey | None


def rows_in_memory(
    X: np.ndarray, weight: np.ndarray, frame: Frame | None = None, *, spherical: bool = False
) -> LloydRows:
    """Rows (n_samples, n_features) for passes, by default in coordinates of their own; ``spherical`` rows have length 1.

    Raises ValueError where they hold NaN or infinity.
    """
    blocks = MemoryBlocks(X)
    own = frame_of(blocks) if frame is None else frame
    whole = frame is None and not len(weight)
    norms = own.sum_sq_norm if whole else blocks.reduce(square_norms, own, weight)
    return LloydRows(blocks, RowFrame(own, weight, keep_tiles=True), norms, spherical)


def rows_in_blocks(blocks: RowBlocks, *, spherical: bool = False) -> LloydRows:
    """Rows for passes that keep no copy of them. Raises ValueError where they hold NaN or infinity."""
    frame = frame_of(blocks)
    return LloydRows(blocks, RowFrame(frame, np.empty(0), keep_tiles=False), frame.sum_sq_norm, spherical)


def run_lloyd(
    rows: LloydRows,
    jobs: Sequence[Job],
    *,
    batch_bytes: int = BATCH_BYTES,
    progress: Callable[[float], None] = lambda _: None,
) -> list[LloydResult]:
    """Run jobs until they stop: as many at once as can keep their labels in ``batch_bytes``, but at least one.

    Centres are the means of rows rounded to float32; `exact_centers` are those of the rows themselves. ``progress`` receives the
    fraction of the jobs that have ended.
    """
    outcomes: list[LloydResult] = []
    by_products = _by_products(rows, [start for start, _, _ in jobs]) if jobs else False
    for group in _batches(rows, jobs, batch_bytes, by_products=by_products):
        done = len(outcomes)

        def ended(n: int, done: int = done) -> None:
            progress((done + n) / len(jobs))

        outcomes += _run_batch(rows, group, ended, by_products=by_products)
    return outcomes


def _run_batch(
    rows: LloydRows, jobs: Sequence[Job], ended: Callable[[int], None], *, by_products: bool
) -> list[LloydResult]:
    batch = LloydBatch(rows, [start for start, _, _ in jobs], by_products=by_products)
    limits = np.array([max_iter for _, max_iter, _ in jobs])
    least_move = np.array([tol for _, _, tol in jobs]) * rows.frame.variance
    n_iter = np.zeros(len(jobs), np.int64)
    settled, relocated = np.zeros((2, len(jobs)), bool)
    running = np.arange(len(jobs))
    while len(running):
        batch.run_pass(running)
        relocated[running] = batch.relocate(running[batch.state.n_empty[running] > 0], running)
        batch.move(running)
        n_iter[running] += 1
        settled[running] = (batch.state.changed[running] == 0) | (batch.state.moved[running] <= least_move[running])
        running = running[~settled[running] & (n_iter[running] < limits[running])]
        ended(len(jobs) - len(running))
    return [
        LloydResult(
            batch.centers.float64[batch.of(i)].copy(), batch.inertia(i), int(n_iter[i]), bool(settled[i]),
            batch.assigned[batch.of(i)].copy(), None if relocated[i] else batch.key(i),
        )
        for i in range(len(jobs))
    ]  # fmt: skip


def exact_centers(rows: LloydRows, outcomes: Sequence[LloydResult]) -> list[np.ndarray]:
    """The centres of each outcome, as means of the rows themselves in float64, in the coordinates of the frame. One read for all."""
    requests = [
        Request(exact_sums, (rows.seen, outcome.key, outcome.assigned), add_cluster_sums)
        for outcome in outcomes
        if outcome.key is not None
    ]
    found = iter(rows.blocks.passes(requests) if requests else [])
    return [o.centers if o.key is None else rows.centers_of(means_of(next(found)) * rows.frame.scale) for o in outcomes]


def fill_empty(exact: ClusterSums, empty: np.ndarray, farthest: FarthestRows, grid: float) -> bool:
    """Move the farthest rows from their clusters to the ``empty`` ones; False, and nothing is moved, where all rows are on their centres.

    Changes ``exact``, the sums of all clusters of a fit. ``grid`` is `Frame.grid`.
    """
    sums, masses = exact
    # Centres are means of rows rounded to float32 and to the grid.
    if farthest.squares[0] <= max(sums.shape[1] * (2 * UNIT) ** 2, grid**2):
        return False
    for i, cluster in enumerate(empty[: len(farthest.squares)]):
        sums[farthest.labels[i]] -= farthest.values[i]
        sums[cluster] = farthest.values[i]
        masses[farthest.labels[i]] -= farthest.masses[i]
        masses[cluster] = farthest.masses[i]
    return True


def means_of(found: ClusterSums) -> np.ndarray:
    """Means of the clusters; an empty one is given the biggest one's, as in scikit-learn."""
    sums, masses = found
    source = np.where(masses > 0, np.arange(len(masses)), np.argmax(masses))
    means: np.ndarray = sums[source] / masses[source, None]
    return means


def _batches(rows: LloydRows, jobs: Sequence[Job], batch_bytes: int, *, by_products: bool) -> Iterator[Sequence[Job]]:
    if not jobs:
        return
    size = label_bytes([start for start, _, _ in jobs], bounds=by_products) * len(rows.blocks)
    step = max(1, batch_bytes // size)
    n_batches = -(-len(jobs) // step)
    for i in range(n_batches):
        yield jobs[i * len(jobs) // n_batches : (i + 1) * len(jobs) // n_batches]


def _by_products(rows: LloydRows, starts: Sequence[np.ndarray]) -> bool:
    """Whether passes are made of products and keep bounds (`product_pass`): only of rows that they keep in memory anyway."""
    return rows.seen.keep_tiles and use_products(starts[0].shape[1], max(map(len, starts)))


class LloydBatch:
    """K-Means fits in progress on the same rows: their centres and statistics, all in the coordinates of the frame."""

    def __init__(self, rows: LloydRows, starts: Sequence[np.ndarray], *, by_products: bool = False) -> None:
        self.rows = rows
        self._grid = rows.frame.grid
        self.centers = make_centers(starts, self._grid)
        self.assigned = self.centers.float64.copy()
        """The centres by which the last pass assigned the rows."""
        self._moved = np.zeros(len(self.assigned) if by_products else 0)
        n_fits, (n_centers, n_features) = len(starts), self.centers.float64.shape
        self.total = Sums(np.zeros((n_centers, n_features)), np.zeros(n_centers), np.zeros(n_centers, np.int64))
        self.state = Means(
            np.zeros((n_centers, n_features)), np.zeros(n_fits, np.int64), np.zeros(n_fits, np.int64), np.zeros(n_fits)
        )
        first, n_clusters = self.centers.first, self.centers.n_clusters
        self._owner = np.repeat(np.arange(n_fits), np.diff(first))
        self._real = np.arange(n_centers) - first[self._owner] < n_clusters[self._owner]
        self._name, self._n_passes = uuid.uuid4().hex, np.zeros(n_fits, np.int64)

    def of(self, fit: int) -> slice:
        """The clusters of a fit in the arrays of all fits."""
        first = self.centers.first[fit]
        return slice(first, first + self.centers.n_clusters[fit])

    def key(self, fit: int) -> PassKey:
        """The key of the labels that the last pass of a fit found."""
        return PassKey(self._name, fit, int(self._n_passes[fit]))

    def run_pass(self, fits: np.ndarray) -> None:
        """One read of the rows: labels by the present centres; sums, masses, sizes and means by these labels."""
        number = int(self._n_passes[fits].max()) + 1
        self._n_passes[fits] = number
        running = np.zeros(len(self._n_passes), bool)
        running[fits] = True
        clusters = np.flatnonzero(running[self._owner] & self._real)
        self.assigned[clusters] = self.centers.float64[clusters]
        args = (self.rows.seen, self._name, number, self.centers, self._moved, fits, clusters)
        found: Sums = self.rows.blocks.reduce(label_rows, *args, add=add_sums)
        update_means(fits, self.centers.first, self.centers.n_clusters, found, self.total, self.state)

    def move(self, fits: np.ndarray) -> None:
        """Make the means the centres; `state.moved` is then the squared length of that move."""
        if self.rows.spherical:
            for fit in fits.tolist():
                self.state.means[self.of(fit)] = self.rows.centers_of(self.state.means[self.of(fit)])
        for fit in fits.tolist() if len(self._moved) else ():
            squares = ((self.state.means[self.of(fit)] - self.centers.float64[self.of(fit)]) ** 2).sum(axis=1)
            self._moved[self.of(fit)] += np.sqrt(squares) * (1 + 1e-9)
        move_centers(fits, self.centers, self._grid, self.state.means, self.state.moved)

    def relocate(self, fits: np.ndarray, among: np.ndarray) -> np.ndarray:
        """Give each empty cluster of `fits` the row farthest from its centre, taken out of the cluster it is in, as scikit-learn does.

        Returns the fits of `among` in which a cluster was moved. If there are more clusters than distinct rows, no such row exists and
        none is moved. One read.
        """
        moved = np.zeros(len(self._n_passes), bool)
        requests = []
        for fit in fits.tolist():
            args = (self.rows.seen, self.key(fit), self.assigned[self.of(fit)])
            requests.append(Request(exact_sums, args, add_cluster_sums))
            requests.append(Request(farthest_rows, (*args, int(self.state.n_empty[fit])), FarthestRows.__add__))
        found = iter(self.rows.blocks.passes(requests) if requests else [])
        for fit in fits.tolist():
            moved[fit] = self._move_empty(fit, next(found), next(found))
        return moved[among]

    def _move_empty(self, fit: int, exact: ClusterSums, farthest: FarthestRows) -> bool:
        empty = np.flatnonzero(self.total.sizes[self.of(fit)] == 0)
        if not fill_empty(exact, empty, farthest, self._grid):
            return False
        self.state.means[self.of(fit)] = means_of(exact) * self.rows.frame.scale
        return True

    def inertia(self, fit: int) -> float:
        """Weighted sum of squared distances from the rows to the centres of their clusters, from the statistics alone."""
        sums, masses, _ = (array[self.of(fit)] for array in self.total)
        filled = masses > 0
        if self.rows.spherical:
            centers = self.rows.centers_of(sums[filled] / masses[filled, None])
            of_centers = (2 * centers * sums[filled] - masses[filled, None] * centers**2).sum()
            return self.rows.sum_sq_norm - float(of_centers)
        return self.rows.sum_sq_norm - float(((sums[filled] ** 2).sum(axis=1) / masses[filled]).sum())


def lloyd_pass(
    X: np.ndarray, centers: Sequence[np.ndarray], sample_weight: np.ndarray | None = None
) -> list[LloydStatistics]:
    """One pass over a C-contiguous float32 or float64 matrix for several sets of centres.

    Each is (n_clusters, n_features) in the coordinates of X.
    """
    weight = np.empty(0) if sample_weight is None else np.ascontiguousarray(sample_weight, np.float64)
    rows = rows_in_memory(X, weight)
    starts = [rows.frame.to_tiled(start) for start in centers]
    batch = LloydBatch(rows, starts)
    batch.run_pass(np.arange(len(starts)))
    found = []
    for fit, start in enumerate(starts):
        args = (rows.seen, batch.key(fit), start)
        sums, masses = rows.blocks.reduce(exact_sums, *args, add=add_cluster_sums)
        labels = np.concatenate(rows.blocks.collect(labels_of, *args)).astype(np.int32)
        inertia = (
            rows.sum_sq_norm
            - 2 * rows.frame.scale * float((start * sums).sum())
            + float(masses @ (start**2).sum(axis=1))
        )
        sums = sums + masses[:, None] * rows.frame.origin
        found.append(LloydStatistics(labels, sums, masses, inertia / rows.frame.scale**2))
    return found
