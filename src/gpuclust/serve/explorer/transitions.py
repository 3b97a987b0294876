"""Compare two exports of the same items: how rows move between clusters."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from gpuclust.serve.library import Library


@dataclass(frozen=True)
class ClusterTransitions:
    """The contingency table of two clusterings.

    ``counts`` (len(first), len(second)) int64 are the items by cluster in both exports; ``first`` and ``second`` are the cluster
    numbers of its rows and columns; ``only_first`` and ``only_second`` count the items in one export only.
    """

    first: tuple[int, ...]
    second: tuple[int, ...]
    counts: np.ndarray
    only_first: int
    only_second: int
    row_totals: np.ndarray | None = None
    """(len(first),) the shared items of each cluster of the first export, where ``counts`` leaves out some of the second."""

    @property
    def shares(self) -> np.ndarray:
        """``counts`` as shares of the shared items of each cluster of the first export."""
        totals = self.counts.sum(axis=1) if self.row_totals is None else self.row_totals
        return np.asarray(self.counts / np.maximum(totals, 1)[:, None])

    @property
    def shared(self) -> int:
        """Number of items in both exports."""
        return int(self.counts.sum())

    def largest(self, most: int) -> ClusterTransitions:
        """The table of the clusters with the most shared items, at most so many of each export, in the order of their numbers."""
        rows, columns = (np.sort(np.argsort(-self.counts.sum(axis=i), kind="stable")[:most]) for i in (1, 0))
        return replace(
            self,
            first=tuple(self.first[i] for i in rows),
            second=tuple(self.second[j] for j in columns),
            counts=self.counts[np.ix_(rows, columns)],
            row_totals=self.counts.sum(axis=1)[rows],
        )

    @property
    def adjusted_rand(self) -> float:
        """Adjusted Rand index of the shared items: 1 for equal clusters, 0 for chance; 1 if both have a single cluster.

        Hubert and Arabie, "Comparing partitions", J. Classification 2, 1985, eq. 5.
        """
        pairs = _pairs(self.counts).sum()
        rows, columns = _pairs(self.counts.sum(axis=1)).sum(), _pairs(self.counts.sum(axis=0)).sum()
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
    counts = np.bincount(row * len(columns) + column, minlength=len(rows) * len(columns)).reshape(
        len(rows), len(columns)
    )
    row_order = np.argsort(np.where(rows < 0, np.iinfo(np.int32).max, rows), kind="stable")
    counts = counts[row_order]
    # Order the columns by the row with most of their items, so that matching clusters are on the diagonal.
    column_order = np.lexsort((-counts.max(axis=0), counts.argmax(axis=0))) if counts.size else np.arange(len(columns))
    return ClusterTransitions(
        tuple(rows[row_order].tolist()),
        tuple(columns[column_order].tolist()),
        counts[:, column_order].astype(np.int64),
        only_first,
        only_second,
    )


def _labels(library: Library) -> pd.Series:
    """Cluster by id; of a repeated id, that of the most popular item."""
    found = pd.Series(library.column("cluster"), index=pd.Index(library.rows["id"].to_pandas()))
    return found[~found.index.duplicated()]
