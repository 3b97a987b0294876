"""Rows sorted into cells, on which every labeling is constant: the unit of the silhouette passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuclust.errors import FitError
from gpuclust.runtime.passes import on_host

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Cells:
    """Rows sorted so that each cell, on which every labeling is constant, is one run; each cluster owns a row of sums.

    `order` and `sums_of` are on a device if the labelings were sorted there; the others are on the host. `order` (n_clustered,) sorts the rows that some labeling clusters; `starts` (n_cells + 1,) bounds the cells in it;
    `sums` (n_cells, n_labelings) is each cell's row of sums, -1 for noise; `sums_of` (n_labelings, n_samples) likewise
    for each row of the matrix; `first` (n_labelings + 1,) bounds each labeling's rows of sums; `weights` (n_sums,)
    float64 are the weights of the clusters.
    """

    order: Array
    starts: Array
    sums: Array
    sums_of: Array
    first: Array
    weights: Array

    @property
    def n_clustered(self) -> list[int]:
        """Number of clustered rows of each labeling."""
        return [int((sums >= 0).sum()) for sums in self.sums_of]


def sort_into_cells(labelings: Sequence[Array], n_samples: int, weight: Any, xp: Any = np) -> Cells:
    """Number the clusters of all labelings and sort the rows into cells; see `Cells`.

    ``xp`` is the module that sorts them: numpy, or cupy for `weight` (n_samples,) on a device, to which each labeling is copied.
    """
    if not len(labelings):
        raise FitError("silhouette: no labeling was given")
    sums_of = xp.empty((len(labelings), n_samples), np.int32)
    first = np.zeros(len(labelings) + 1, np.int64)
    for number, labels in enumerate(labelings):
        codes, n_clusters = _codes(xp.asarray(labels), n_samples, number, xp)
        first[number + 1] = first[number] + n_clusters
        sums_of[number] = xp.where(codes >= 0, codes + int(first[number]), -1)
    totals = np.zeros(first[-1])
    for number, sums in enumerate(sums_of):
        clustered = sums >= 0
        # On a device the order of these additions varies; weights that are multiplicities add up exactly in any order.
        totals += on_host(xp.bincount(sums[clustered], weights=weight[clustered], minlength=int(first[-1])))
        check_clusters(totals[first[number] : first[number + 1]], number)
    order, starts, cell_sums = group_rows(sums_of, first, xp)
    return Cells(order, starts, cell_sums, sums_of, first, totals)


def group_rows(sums_of: Any, first: Array, xp: Any = np) -> tuple[Any, Array, Array]:
    """Sort rows into cells: `order`, `starts` and `sums` of `Cells` from its `sums_of` (n_labelings, n_samples) and `first`.

    The arrays are empty, but for `starts`, where all rows are noise.
    """
    cell_of = xp.zeros(sums_of.shape[1], np.int64)
    n_cells = 1
    for number, sums in enumerate(sums_of):
        n_clusters = int(first[number + 1] - first[number])
        if n_cells * (n_clusters + 1) >= 2**62:
            _, cell_of = xp.unique(cell_of, return_inverse=True)
            n_cells = int(cell_of.max()) + 1
        cell_of = cell_of * (n_clusters + 1) + xp.where(sums >= 0, sums - int(first[number]) + 1, 0)
        n_cells *= n_clusters + 1
    order = xp.argsort(cell_of, kind="stable")
    order = order[sums_of.max(axis=0)[order] >= 0]
    if not len(order):
        return order, np.zeros(1, np.int64), np.empty((0, len(sums_of)), np.int32)
    changes = on_host(xp.flatnonzero(xp.diff(cell_of[order])))
    starts = np.concatenate([[0], changes + 1, [len(order)]])
    return order, starts, np.ascontiguousarray(on_host(sums_of[:, order[xp.asarray(starts[:-1])]]).T)


def _codes(labels: Any, n_samples: int, number: int, xp: Any) -> tuple[Any, int]:
    """Labels as 0..n_clusters-1 without gaps, and -1."""
    if labels.shape != (n_samples,) or labels.dtype.kind not in "iu":
        raise FitError(
            f"silhouette: labeling {number} is {labels.dtype} of shape {labels.shape}; "
            f"give integers of shape ({n_samples},)"
        )
    if int(labels.max()) >= 2 * n_samples:
        distinct, labels = xp.unique(labels, return_inverse=True)
        labels = labels - int((distinct < 0).sum())
    clustered = labels >= 0
    present = xp.bincount(labels[clustered]) > 0
    codes = xp.full(n_samples, -1, np.int64)
    codes[clustered] = (xp.cumsum(present) - 1)[labels[clustered]]
    return codes, int(present.sum())


def check_clusters(weights: Array, number: int) -> None:
    """Raises FitError unless the clusters of a labeling, of these weights (n_clusters,), are at least two and fewer than the rows."""
    if len(weights) < 2 or len(weights) >= weights.sum():
        raise FitError(
            f"silhouette: labeling {number} has {len(weights):,} clusters in {weights.sum():,.6g} clustered rows; "
            "it needs at least 2 clusters and fewer than rows"
        )


def positions(cells: Cells, targets: Any, xp: Any = np) -> Any:
    """Where the targets are in `cells.order`; 0 for a row that is noise everywhere: what it scores is not read. ``xp`` is the module of the
    arrays."""
    position = xp.zeros(cells.sums_of.shape[1], np.int64)
    position[cells.order] = xp.arange(len(cells.order))
    return position[targets]


def split_into_blocks(cells: Cells, width: int) -> tuple[Array, Array]:
    """Cut each cell into blocks of at most `width` rows: their bounds (n_blocks + 1,) and their cells (n_blocks,)."""
    lengths = np.diff(cells.starts)
    pieces = -(-lengths // width)
    cell = np.repeat(np.arange(len(lengths)), pieces)
    piece = np.arange(len(cell)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    starts = cells.starts[cell] + lengths[cell] * piece // pieces[cell]
    return np.append(starts, len(cells.order)), cell
