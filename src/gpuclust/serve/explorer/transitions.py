"""Compare two exports of the same items: how rows move between clusters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from gpuclust.serve.library import Library

MAX_DENSE = 4_000_000
"""Cells of a table of counts that is an array; a larger one is sparse: 20,000 clusters against 20,000 would take 3 GB."""


@dataclass(frozen=True)
class ClusterTransitions:
    """The contingency table of two clusterings.

    ``counts`` (len(first), len(second)) int64, an array or a sparse CSR array, are the items by cluster in both exports; ``first`` and
    ``second`` are the cluster numbers of its rows and columns; ``only_first`` and ``only_second`` count the items in one export only.
    """

    first: tuple[int, ...]
    second: tuple[int, ...]
    counts: Any
    only_first: int
    only_second: int
    row_totals: np.ndarray | None = None
    """(len(first),) the shared items of each cluster of the first export, where ``counts`` leaves out some of the second."""

    @property
    def shares(self) -> np.ndarray:
        """``counts`` as shares of the shared items of each cluster of the first export."""
        totals = self.totals(axis=1) if self.row_totals is None else self.row_totals
        return np.asarray(self.counts / np.maximum(totals, 1)[:, None])

    def totals(self, axis: int) -> np.ndarray:
        """The shared items of each cluster of the first export (``axis`` 1) or of the second (0)."""
        return np.asarray(self.counts.sum(axis=axis)).ravel()

    def most_common(self, row: int, most: int) -> list[tuple[int, int]]:
        """The columns in which a row has the most items, at most ``most``, with the numbers of items; empty columns are left out."""
        counts = self.counts[row] if isinstance(self.counts, np.ndarray) else self.counts[[row]].toarray().ravel()
        order = counts.argsort(kind="stable")[::-1][:most]
        return [(int(j), int(counts[j])) for j in order if counts[j]]

    @property
    def shared(self) -> int:
        """Number of items in both exports."""
        return int(self.counts.sum())

    def largest(self, most: int) -> ClusterTransitions:
        """The table of the clusters with the most shared items, at most so many of each export, in the order of their numbers."""
        rows, columns = (np.sort(np.argsort(-self.totals(axis), kind="stable")[:most]) for axis in (1, 0))
        kept = self.counts[np.ix_(rows, columns)]
        return replace(
            self,
            first=tuple(self.first[i] for i in rows),
            second=tuple(self.second[j] for j in columns),
            counts=kept if isinstance(kept, np.ndarray) else kept.toarray(),
            row_totals=self.totals(axis=1)[rows],
        )

    @property
    def adjusted_rand(self) -> float:
        """Adjusted Rand index of the shared items: 1 for equal clusters, 0 for chance; 1 if both have a single cluster.

        Hubert and Arabie, "Comparing partitions", J. Classification 2, 1985, eq. 5.
        """
        pairs = _pairs(self.counts if isinstance(self.counts, np.ndarray) else self.counts.data).sum()
        rows, columns = (_pairs(self.totals(axis)).sum() for axis in (1, 0))
        whole = float(_pairs(np.array([self.shared])).sum())
        expected = rows * columns / whole if whole else 0.0
        most = (rows + columns) / 2
        return 1.0 if most == expected else float((pairs - expected) / (most - expected))


def _pairs(counts: np.ndarray) -> np.ndarray:
    n = counts.astype(np.float64)
    return n * (n - 1) / 2


def count_transitions(first: Library, second: Library) -> ClusterTransitions:
    """Count the items of both exports by cluster.

    Exports of one table are matched row by row. Other exports are matched by id; of a repeated id, the most popular item counts.
    """
    from scipy.sparse import coo_array

    if first.rows["id"].equals(second.rows["id"]):  # in the order of popularity, equal ids in the order of the table
        a, b = first.column("cluster"), second.column("cluster")
        only_first = only_second = 0
    else:
        ours, theirs = _labels(first), _labels(second)
        both = ours.index.intersection(theirs.index, sort=False)
        a, b = ours.loc[both].to_numpy(), theirs.loc[both].to_numpy()
        only_first, only_second = len(ours) - len(both), len(theirs) - len(both)
    rows, row = np.unique(a, return_inverse=True)
    columns, column = np.unique(b, return_inverse=True)
    counts = coo_array((np.ones(len(row), np.int64), (row, column)), shape=(len(rows), len(columns))).tocsr()
    row_order = np.argsort(np.where(rows < 0, np.iinfo(np.int32).max, rows), kind="stable")
    counts = counts[row_order]
    # Order the columns by the row with most of their items, so that matching clusters are on the diagonal.
    column_order = np.arange(len(columns))
    if len(row):
        most = counts.max(axis=0).toarray().ravel()
        column_order = np.lexsort((-most, np.asarray(counts.argmax(axis=0)).ravel()))
    counts = counts[:, column_order]
    return ClusterTransitions(
        tuple(rows[row_order].tolist()),
        tuple(columns[column_order].tolist()),
        counts.toarray() if len(rows) * len(columns) <= MAX_DENSE else counts,
        only_first,
        only_second,
    )


def _labels(library: Library) -> pd.Series:
    """Cluster by id; of a repeated id, that of the most popular item."""
    found = pd.Series(library.column("cluster"), index=pd.Index(library.rows["id"].to_pandas()))
    return found[~found.index.duplicated()]
