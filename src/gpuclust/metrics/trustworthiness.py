"""Trustworthiness (Venna and Kaski 2001): whether neighbours on a map are neighbours in the space that it shows, as scikit-learn's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

N_NEIGHBORS = 15
MAX_COMPARED = 50_000
"""The number of rows, at most, among which ranks are counted."""
MAX_ROWS = 1_000
"""The number of these, at most, whose neighbours are looked at."""
ROWS_AT_ONCE = 100


def sampled_trustworthiness(
    X: np.ndarray,
    maps: Sequence[np.ndarray],
    *,
    n_neighbors: int = N_NEIGHBORS,
    max_rows: int = MAX_ROWS,
    seed: int = 0,
) -> list[float]:
    """The trustworthiness of each map (n, 2 or more) of the rows X (n, n_columns), in [0, 1]; NaN for fewer than three rows.

    It is the mean over at most ``max_rows`` rows, drawn by the seed; their neighbours and ranks are among all n rows. Where all rows are used it is
    that of `sklearn.manifold.trustworthiness`; of rows at equal distances, the one on the map counts as the nearer. ``n_neighbors`` is at most
    (n - 1) // 2.
    """
    n, n_neighbors = len(X), min(n_neighbors, (len(X) - 1) // 2)
    if n_neighbors < 1:
        return [float("nan") for _ in maps]
    rows = np.arange(n) if n <= max_rows else np.sort(np.random.default_rng(seed).choice(n, max_rows, replace=False))
    spaces = [_centred(space) for space in (X, *maps)]
    penalties = np.zeros(len(maps))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        far, *near = (_squares(space, some) for space in spaces)
        for i, squares in enumerate(near):
            neighbors = np.argpartition(squares, n_neighbors - 1, axis=1)[:, :n_neighbors]
            own = np.take_along_axis(far, neighbors, axis=1)
            ranks = np.stack([1 + (far < limit[:, None]).sum(axis=1) for limit in own.T])
            penalties[i] += np.maximum(ranks - n_neighbors, 0).sum()
    scale = 2.0 / (n_neighbors * (2 * n - 3 * n_neighbors - 1) * len(rows))
    return [float(1.0 - scale * penalty) for penalty in penalties]


def _centred(space: np.ndarray) -> np.ndarray:
    values = np.asarray(space, dtype=np.float64)
    return values - values.mean(axis=0)


def _squares(space: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The squared distances, less a constant for each row, of some rows to all (len(rows), n); infinite to themselves."""
    squares = (space * space).sum(axis=1) - 2 * space[rows] @ space.T
    squares[np.arange(len(rows)), rows] = np.inf
    return np.asarray(squares)
