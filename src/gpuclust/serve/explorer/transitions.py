"""Two exports of the same items: which clusters became which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from gpuclust.serve.library import Library


@dataclass(frozen=True)
class ClusterTransitions:
    """``counts`` (len(first), len(second)) int64: items by their cluster in either export, ``first`` and ``second`` the clusters'
    numbers, the columns in the order in which they follow the rows. ``only_first`` and ``only_second``: items of one export alone."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    counts: np.ndarray
    only_first: int
    only_second: int

    @property
    def shared(self) -> int:
        """Items in both."""
        return int(self.counts.sum())

    @property
    def adjusted_rand(self) -> float:
        """Agreement of the two labelings of the shared items, 1 the same and 0 as by chance (Hubert and Arabie, "Comparing
        partitions", J. Classification 2, 1985, eq. 5); 1 where both put everything together."""
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
    """Count the items of both exports by their clusters. Items are the same when their ids are; where an id occurs more than
    once in an export, its most popular item counts."""
    ours, theirs = _labels(first), _labels(second)
    both = ours.index.intersection(theirs.index, sort=False)
    a, b = ours.loc[both].to_numpy(), theirs.loc[both].to_numpy()
    rows, row = np.unique(a, return_inverse=True)
    columns, column = np.unique(b, return_inverse=True)
    counts = np.bincount(row * len(columns) + column, minlength=len(rows) * len(columns)).reshape(
        len(rows), len(columns)
    )
    row_order = np.argsort(np.where(rows < 0, np.iinfo(np.int32).max, rows), kind="stable")
    counts = counts[row_order]
    # A column stands where most of its items come from, so that what stayed together lies on the diagonal.
    column_order = np.lexsort((-counts.max(axis=0), counts.argmax(axis=0))) if counts.size else np.arange(len(columns))
    return ClusterTransitions(
        tuple(rows[row_order].tolist()),
        tuple(columns[column_order].tolist()),
        counts[:, column_order].astype(np.int64),
        len(ours) - len(both),
        len(theirs) - len(both),
    )


def _labels(library: Library) -> pd.Series:
    """Cluster by id, the most popular first where an id repeats."""
    found = pd.Series(library.column("cluster"), index=pd.Index(library.rows["id"].to_pandas()))
    return found[~found.index.duplicated()]
