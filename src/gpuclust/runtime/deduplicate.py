"""The distinct rows of a matrix and how often each occurs: tables of tracks list a track once for each genre or playlist."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpuclust.data.frames import hash_rows

# Measured by experiments/bench/duplicates.py. The time of an exact silhouette follows the square of the rows, and finding
# the distinct ones costs a fiftieth of it, so it pays early. Fits spend most of theirs on samples; it is their last
# iterations on all rows that become shorter, which is seen in large tables with many repeats only.
MIN_SHARE, MIN_ROWS = 0.1, 5_000
MIN_SHARE_FITS, MIN_ROWS_FITS = 0.5, 200_000


@dataclass(frozen=True)
class Distinct:
    """The distinct rows of a matrix of n rows, in the order of their first occurrences.

    ``X`` (n_distinct, n_features) in the matrix's dtype and where the matrix is; on the host ``first`` (n_distinct,) int64, the row where
    each occurs first; ``inverse`` (n,) int64, which of them each row is; ``counts`` (n_distinct,) float64, how often each occurs.
    """

    X: Any
    first: np.ndarray
    inverse: np.ndarray
    counts: np.ndarray

    def note(self, what: str) -> str:
        """The note of a job that used the distinct rows."""
        return f"{what} on {len(self.X):,} distinct rows of {len(self.inverse):,}, weighted by how often each occurs"

    def repeats(self, values: np.ndarray) -> bool:
        """Whether equal rows have equal values (n,)."""
        return bool((values[self.first][self.inverse] == values).all())


def worth_deduplicating(n_distinct: int | None, n_rows: int) -> bool:
    """Whether there are few enough distinct rows to score them alone; None: their number is unknown."""
    return n_distinct is not None and n_rows >= MIN_ROWS and n_distinct <= (1 - MIN_SHARE) * n_rows


def worth_deduplicating_fits(n_distinct: int | None, n_rows: int) -> bool:
    """Whether there are few enough distinct rows to fit them alone; None: their number is unknown."""
    return n_distinct is not None and n_rows >= MIN_ROWS_FITS and n_distinct <= (1 - MIN_SHARE_FITS) * n_rows


def distinct_rows(X: Any) -> Distinct:
    """Find the distinct rows of X (n, n_features), a NumPy or CuPy array of float32 or float64 and finite, exactly; 0.0 and -0.0 are the
    same."""
    xp: Any = np if isinstance(X, np.ndarray) else sys.modules["cupy"]
    _, first, inverse, counts = xp.unique(
        hash_rows(X.T, len(X), xp.zeros), return_index=True, return_inverse=True, return_counts=True
    )
    if not _all_equal(X, first, inverse):  # two different rows share a hash: the slow way
        if xp is not np:
            of_host = distinct_rows(X.get())
            return replace(of_host, X=xp.asarray(of_host.X))
        _, first, inverse, counts = np.unique(
            X + 0.0, axis=0, return_index=True, return_inverse=True, return_counts=True
        )
    order = xp.argsort(first)
    rank = xp.empty(len(order), np.int64)
    rank[order] = xp.arange(len(order))
    first = first[order]
    rows = xp.ascontiguousarray(X[first])
    found = (first, rank[inverse.reshape(-1)], counts[order].astype(np.float64))
    return Distinct(rows, *(found if xp is np else map(xp.asnumpy, found)))


def _all_equal(X: Any, first: Any, inverse: Any) -> bool:
    """Whether every row equals the first of its hash; column by column, without a second matrix."""
    return all(bool((X[first, j][inverse] == X[:, j]).all()) for j in range(X.shape[1]))
