"""Passes of Lloyd's iterations over blocks of rows, wherever the rows are.

Each function that takes a `Run` first is the part of a pass that `RowBlocks` runs where the rows are. Its result is the same with and
without the contents of the run's cache: the labels of the last pass, which make the next pass faster, and the tiles of rows in memory.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from gpuclust.algorithms.kmeans.kernels_cpu import (
    CHUNK_TILES,
    MAX_CHUNKS,
    Centers,
    ChunkStatistics,
    PassWorkspace,
    Sums,
    add_exactly,
    lloyd_chunks,
    make_centers,
    merge_chunks,
    pass_workspace,
)
from gpuclust.algorithms.kmeans.product_pass import (
    Bounds,
    GridRows,
    ProductPass,
    bound_bytes,
    grid_rows,
    make_bounds,
)
from gpuclust.algorithms.kmeans.tiled_matrix import Frame, Tiles, tile_rows
from gpuclust.runtime.blocks import RowBlocks, Run
from gpuclust.runtime.nearest import ROWS
from gpuclust.runtime.threads import in_threads

LABELS, TILES, ROWS_32 = "kmeans labels", "kmeans tiles", "kmeans rows"  # keys of a run's cache
UNSET = {1: 255, 2: 65535}  # the label of a row that has none yet, by the bytes of a label
SCRATCH_BYTES = 16 * 2**20  # of the arrays of a pass, to be kept for the next


class RowFrame(NamedTuple):
    """How passes transform the rows: a few plain values, which are sent to the workers."""

    frame: Frame
    weight: np.ndarray  # (n_rows of all blocks,) float64, or empty where every row counts once
    keep_tiles: bool  # keep the tiles between passes: as much memory as the rows in float32


@dataclass(frozen=True)
class LloydRows:
    """The rows that K-Means is fitted to."""

    blocks: RowBlocks
    seen: RowFrame
    sum_sq_norm: float  # weighted sum of the squared norms, in the coordinates of the frame
    spherical: bool = False  # rows and centres have length 1

    @property
    def frame(self) -> Frame:
        """The coordinates."""
        return self.seen.frame

    def centers_of(self, means: np.ndarray) -> np.ndarray:
        """The centres of clusters from their means (n_clusters, n_features), both in the coordinates of the frame: on the sphere, the means
        divided by their length (Dhillon and Modha 2001)."""
        if not self.spherical:
            return means
        centers = self.frame.from_tiled(means)
        length = np.sqrt((centers * centers).sum(axis=1, keepdims=True))
        return self.frame.to_tiled(np.where(length > 0, centers / np.where(length > 0, length, 1.0), centers))


class PassKey(NamedTuple):
    """The key of the labels that a pass found for one fit; a later pass uses these labels if they are cached."""

    batch: str
    fit: int
    number: int


class ClusterSums(NamedTuple):
    """Sums (n_clusters, n_features) and masses (n_clusters,) of the clusters of one fit, in float64."""

    sums: np.ndarray
    masses: np.ndarray


@dataclass
class _KeptLabels:
    """The labels of a run of rows for a batch of fits, and the statistics of these labels."""

    batch: str
    labels: np.ndarray  # (n_fits, n_tiles * ROWS) uint8 or uint16; the largest value where a row has none
    total: Sums
    number: np.ndarray = field(repr=False)  # (n_fits,) int64, the pass that found them
    bounds: Bounds | None = field(repr=False)


def _no_labels(batch: str, n_rows: int, centers: Centers, *, bounds: bool) -> _KeptLabels:
    n_fits, (n_centers, n_features) = len(centers.n_clusters), centers.float64.shape
    dtype = np.uint8 if centers.n_clusters.max() <= UNSET[1] else np.uint16
    labels = np.full((n_fits, -(-n_rows // ROWS) * ROWS), UNSET[dtype().itemsize], dtype)
    total = Sums(np.zeros((n_centers, n_features)), np.zeros(n_centers), np.zeros(n_centers, np.int64))
    return _KeptLabels(
        batch, labels, total, np.zeros(n_fits, np.int64), make_bounds(n_rows, centers) if bounds else None
    )


def label_bytes(centers: Sequence[np.ndarray], *, bounds: bool = False) -> int:
    """Bytes a row and fit that a batch with these starting centres keeps: its labels and, with ``bounds``, its bounds."""
    widest = max(len(start) for start in centers)
    return (1 if widest <= UNSET[1] else 2) + (bound_bytes(widest) if bounds else 0)


class _Scratch(threading.local):
    """The arrays that the passes of one thread of the host write to, kept where the next pass has the same shape."""

    shape: tuple[int, ...] = ()
    arrays: tuple[ChunkStatistics, Sequence[PassWorkspace]]

    def of(self, *shape: int) -> tuple[ChunkStatistics, Sequence[PassWorkspace]]:
        """The arrays for (n_chunks, n_centers, n_features)."""
        if self.shape == shape:
            return self.arrays
        n_chunks, n_centers, n_features = shape
        chunks = ChunkStatistics(
            np.zeros((n_chunks, (n_centers + 1) * n_features)),
            np.zeros((n_chunks, n_centers + 1)),
            np.zeros((n_chunks, n_centers + 1), np.int64),
        )
        arrays = chunks, [pass_workspace(n_features) for _ in range(n_chunks)]
        if chunks.sums.nbytes <= SCRATCH_BYTES:
            self.shape, self.arrays = shape, arrays
        return arrays


_scratch = _Scratch()


def _weight_of(run: Run, seen: RowFrame) -> np.ndarray:
    """The weights of the rows of a run; empty where every row counts once."""
    return seen.weight[run.first_row : run.first_row + len(run.X)]


def _tiles_of(run: Run, seen: RowFrame) -> Tiles:
    if not seen.keep_tiles or ROWS_32 in run.cache:
        return Tiles(np.empty(0, np.float32), np.empty(0))
    if TILES not in run.cache:
        run.cache[TILES] = tile_rows(run.X, seen.frame)
    tiles: Tiles = run.cache[TILES]
    return tiles


def _grid_rows_of(run: Run, seen: RowFrame) -> GridRows:
    if ROWS_32 not in run.cache:
        run.cache[ROWS_32] = grid_rows(run.X, seen.frame)
    rows: GridRows = run.cache[ROWS_32]
    return rows


def _label(run: Run, seen: RowFrame, kept: _KeptLabels, centers: Centers, moved: np.ndarray, fits: np.ndarray) -> None:
    """Bring the labels of `fits`, and their statistics, up to date with the centres."""
    X, frame = run.X, seen.frame
    n_centers, n_features = centers.float64.shape
    n_chunks = max(1, min(MAX_CHUNKS, -(-len(X) // ROWS) // CHUNK_TILES))
    chunks, workspaces = _scratch.of(n_chunks, n_centers, n_features)
    weight, unset = _weight_of(run, seen), UNSET[kept.labels.itemsize]
    if kept.bounds is not None:
        rows = _grid_rows_of(run, seen)
        ProductPass(X, weight, frame, rows, centers, moved, kept.labels, kept.bounds, unset).run(fits, chunks)
        merge_chunks(fits, centers.first, centers.n_clusters, chunks, kept.total)
        return
    tiles = _tiles_of(run, seen)

    def work(first: int, last: int) -> None:
        lloyd_chunks(
            X, weight, frame.origin, frame.scale, frame.rounding, *tiles, *centers, *chunks, *workspaces[first],
            fits, kept.labels, unset, first, last,
        )  # fmt: skip

    in_threads(n_chunks, work)
    merge_chunks(fits, centers.first, centers.n_clusters, chunks, kept.total)


def label_rows(
    run: Run,
    seen: RowFrame,
    batch: str,
    number: int,
    centers: Centers,
    moved: np.ndarray,
    fits: np.ndarray,
    clusters: np.ndarray,
) -> list[Sums | None]:
    """Pass ``number`` of a batch: the statistics of `fits` (n_running,), with the rows assigned to the nearest of the centres.

    ``moved`` (n_centers,) float64 is how far the centres have moved in all passes, for bounds that are kept; empty where none are.
    ``clusters`` (n_running_clusters,) int64 are those of these fits in the arrays of all. The statistics are exact, so that those of the
    run stand for its first block, and None for the others.
    """
    kept = run.cache.get(LABELS)
    if kept is None or kept.batch != batch:
        kept = _no_labels(batch, len(run.X), centers, bounds=len(moved) > 0)
    run.cache.pop(LABELS, None)  # not to be used where the pass is interrupted
    _label(run, seen, kept, centers, moved, fits)
    kept.number[fits] = number
    run.cache[LABELS] = kept
    found = Sums(*(array[clusters] for array in kept.total))
    return [found, *[None] * (len(run.edges) - 1)]


def add_sums(a: Sums | None, b: Sums | None) -> Sums | None:
    """The statistics of two parts of the rows."""
    if a is None or b is None:
        return a if b is None else b
    return Sums(*(x + y for x, y in zip(a, b, strict=True)))


def labels_of(run: Run, seen: RowFrame, key: PassKey, centers: np.ndarray) -> np.ndarray:
    """The labels (n_rows of the run,) that pass ``key`` found by these centres (n_clusters, n_features): from the cache, or computed
    again."""
    kept = run.cache.get(LABELS)
    if kept is not None and kept.batch == key.batch and kept.number[key.fit] == key.number:
        return kept.labels[key.fit, : len(run.X)]
    alone = make_centers([centers], seen.frame.grid)
    kept = _no_labels("", len(run.X), alone, bounds=False)
    _label(run, seen, kept, alone, np.zeros(len(alone.float64)), np.arange(1))
    return kept.labels[0, : len(run.X)]


def exact_sums(run: Run, seen: RowFrame, key: PassKey, centers: np.ndarray) -> list[ClusterSums]:
    """Float64 sums of the rows themselves, about the origin in the scale of X, and masses of each block."""
    labels, weight, edges = labels_of(run, seen, key, centers), _weight_of(run, seen), run.edges
    k, n_features = centers.shape
    found = [ClusterSums(np.zeros((k, n_features)), np.zeros(k)) for _ in edges]

    def work(first: int, last: int) -> None:
        scratch = np.empty((k, n_features + 1))
        for i in range(first, last):
            add_exactly(run.X, weight, seen.frame.origin, labels, *edges[i], scratch, *found[i])

    in_threads(len(edges), work)
    return found


def add_cluster_sums(a: ClusterSums, b: ClusterSums) -> ClusterSums:
    """The sums of two parts of the rows."""
    return ClusterSums(a.sums + b.sums, a.masses + b.masses)


@dataclass(frozen=True)
class FarthestRows:
    """The rows farthest from their centres, at most ``wanted`` of them, in descending order; ties in the order of the rows."""

    wanted: int
    squares: np.ndarray  # (n,) float64, the squared distances, in the coordinates of the frame
    rows: np.ndarray  # (n,) int64, their numbers
    labels: np.ndarray  # (n,)
    values: np.ndarray  # (n, n_features) float64, weight times the row about the origin, in the scale of X
    masses: np.ndarray  # (n,) float64, their weights

    def __add__(self, other: FarthestRows) -> FarthestRows:
        mine, theirs = self._arrays, other._arrays
        return _farthest(self.wanted, *(np.concatenate(pair) for pair in zip(mine, theirs, strict=True)))

    @property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.squares, self.rows, self.labels, self.values, self.masses


def _farthest(wanted: int, squares: np.ndarray, rows: np.ndarray, *arrays: np.ndarray) -> FarthestRows:
    order = np.lexsort((rows, -squares))[:wanted]
    return FarthestRows(wanted, squares[order], rows[order], *(array[order] for array in arrays))


def _squares(
    X: np.ndarray, frame: Frame, labels: np.ndarray | None = None, centers: np.ndarray | None = None
) -> np.ndarray:
    """The squared distances (n,) float64 of rows to the centres of their labels, by default to the origin, a few rows at a time."""
    found = np.empty(len(X))
    for at in range(0, len(X), ROWS):
        z = (X[at : at + ROWS] - frame.origin) * frame.scale
        if labels is not None and centers is not None:
            z -= centers[labels[at : at + ROWS]]
        found[at : at + ROWS] = (z**2).sum(axis=1)
    return found


def farthest_rows(run: Run, seen: RowFrame, key: PassKey, centers: np.ndarray, wanted: int) -> list[FarthestRows]:
    """The rows of each block that are farthest from their centres."""
    labels, weight, frame = labels_of(run, seen, key, centers), _weight_of(run, seen), seen.frame
    found = []
    for start, stop in run.edges:
        own = labels[start:stop]
        squares = _squares(run.X[start:stop], frame, own, centers)
        n = min(wanted, stop - start)
        least = np.partition(squares, -n)[-n]
        rows = np.flatnonzero(squares >= least)
        mass = weight[start:stop][rows] if len(weight) else np.ones(len(rows))
        values = mass[:, None] * (run.X[start:stop][rows] - frame.origin)
        found.append(_farthest(wanted, squares[rows], run.first_row + start + rows, own[rows], values, mass))
    return found


def square_norms(run: Run, frame: Frame, weight: np.ndarray) -> list[float]:
    """The weighted sum of the squared norms of each block, in the coordinates of the frame."""
    found = []
    for start, stop in run.edges:
        squares = _squares(run.X[start:stop], frame)
        own = weight[run.first_row + start : run.first_row + stop]
        found.append(float(squares @ own if len(own) else squares.sum()))
    return found
