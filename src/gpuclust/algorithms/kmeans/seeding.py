"""Greedy k-means++ on a tiled matrix, many starts at once.

Arthur, D. and Vassilvitskii, S. (2007), "k-means++: the advantages of careful seeding", SODA; greedy with
2 + log k candidates a centre, as scikit-learn does it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpuclust.algorithms.kmeans.tiled_matrix import Tiles
from gpuclust.runtime.jit import compiled
from gpuclust.runtime.nearest import FAR, GROUP, ROWS, fill_squares, workspace
from gpuclust.runtime.threads import in_threads


@compiled()
def _pick(weights, tile_sums, at):  # type: ignore[no-untyped-def]
    """The row where the running sum of weights (n_rows,) exceeds `at`; tile_sums (n_tiles,) are their sums by tile."""
    n_tiles = len(tile_sums)
    t = 0
    while t < n_tiles - 1 and at >= tile_sums[t]:
        at -= tile_sums[t]
        t += 1
    last = t * ROWS
    for r in range(t * ROWS, min((t + 1) * ROWS, len(weights))):
        if weights[r] > 0:
            last = r
            if at < weights[r]:
                return r
            at -= weights[r]
    return last


@compiled(inner=True)
def _weigh(potential, weight, closest, tile_sums, first):  # type: ignore[no-untyped-def]
    """Fill potential (n_rows,) and tile_sums (n_tiles,) and return the total; before the first centre it is the weight alone."""
    total = 0.0
    for t in range(len(tile_sums)):
        tile_sums[t] = 0
        for r in range(t * ROWS, min((t + 1) * ROWS, len(weight))):
            potential[r] = weight[r] if first else weight[r] * closest[r]
            tile_sums[t] += potential[r]
        total += tile_sums[t]
    return total


@compiled(fastmath=True)  # sums in any order: a choice between candidates, not a result
def _reduce(closest, squares, weight, reduced):  # type: ignore[no-untyped-def]
    """reduced = min(closest, squares) of one tile, (ROWS,) float32 each; its sum weighted by weight (n,), n <= ROWS."""
    for r in range(ROWS):
        reduced[r] = min(closest[r], squares[r])
    total = 0.0
    for r in range(len(weight)):
        total += weight[r] * reduced[r]
    return total


class SeedingWorkspace(NamedTuple):
    """Arrays that one run of `_plus_plus` writes to; n_padded is n_rows rounded up to whole tiles."""

    squares: np.ndarray  # (GROUP * ROWS,) float32, squared distances of a tile to four candidates
    candidates: np.ndarray  # (n_trials rounded up to GROUP * n_features,) float32
    closest: np.ndarray  # (n_padded,) float32, squared distance of each row to its nearest centre so far
    reduced: np.ndarray  # (n_trials, n_padded) float32, the same with each candidate added
    potential: np.ndarray  # (n_rows,) float64, weight times `closest`
    tile_sums: np.ndarray  # (n_tiles,) float64, of the potential
    trial_sums: np.ndarray  # (n_trials,) float64, the total potential with each candidate added
    rows: np.ndarray  # (n_trials,) int64, the row of each candidate


@compiled()
def _plus_plus(tiles, weight, draws, workspace, chosen):  # type: ignore[no-untyped-def]
    """Fill chosen (n_clusters,) int64 with row numbers.

    ``tiles`` are the values of `Tiles`, weight (n_rows,) float64, draws (n_clusters, n_trials) float64 in [0, 1).
    """
    squares, candidates, closest, reduced, potential, tile_sums, trial_sums, rows = workspace
    n_rows, n_tiles, n_trials = len(weight), len(closest) // ROWS, draws.shape[1]
    n_features = len(tiles) // len(closest)
    for r in range(len(closest)):
        closest[r] = FAR
    for c in range(len(chosen)):
        total = _weigh(potential, weight, closest, tile_sums, c == 0)
        if not total > 0:  # every row lies on a centre already
            total = _weigh(potential, weight, closest, tile_sums, True)
        trials = 1 if c == 0 else n_trials
        for i in range(trials):
            rows[i] = _pick(potential, tile_sums, draws[c, i] * total)
            base = (rows[i] // ROWS) * n_features * ROWS + rows[i] % ROWS
            for f in range(n_features):
                candidates[i * n_features + f] = tiles[base + f * ROWS]
            trial_sums[i] = 0
        for t in range(n_tiles):
            tile = tiles[t * n_features * ROWS : (t + 1) * n_features * ROWS]
            n = min(ROWS, n_rows - t * ROWS)
            for i in range(trials):
                if i % GROUP == 0:
                    fill_squares(squares, tile, candidates, i, n_features)
                at = (i % GROUP) * ROWS
                trial_sums[i] += _reduce(
                    closest[t * ROWS : (t + 1) * ROWS], squares[at : at + ROWS], weight[t * ROWS : t * ROWS + n],
                    reduced[i, t * ROWS : (t + 1) * ROWS],
                )  # fmt: skip
        best = 0
        for i in range(1, trials):
            best = i if trial_sums[i] < trial_sums[best] else best
        chosen[c] = rows[best]
        for r in range(len(closest)):
            closest[r] = reduced[best, r]


def plus_plus(
    tiles: Tiles, weight: np.ndarray, n_clusters: int, generators: Sequence[np.random.Generator]
) -> list[np.ndarray]:
    """Numbers of n_clusters rows, (n_clusters,) int64, chosen by k-means++ with each generator; the runs are parallel.

    ``weight`` (n_rows,) float64 is that of each row.
    """
    n_trials = 2 + int(math.log(n_clusters))
    draws = [generator.random((n_clusters, n_trials)) for generator in generators]
    chosen = [np.zeros(n_clusters, np.int64) for _ in generators]
    n_tiles = len(tiles.max_norm)
    n_features = len(tiles.values) // (n_tiles * ROWS)

    def run(first: int, last: int) -> None:
        squares, closest = workspace(GROUP * ROWS, np.float32), workspace(n_tiles * ROWS, np.float32)
        reduced = np.empty((n_trials, len(closest)), np.float32)
        candidates = np.zeros(-(-n_trials // GROUP) * GROUP * n_features, np.float32)
        potential, tile_sums, trial_sums = (np.empty(n) for n in (len(weight), n_tiles, n_trials))
        candidate_rows = np.zeros(n_trials, np.int64)
        scratch = SeedingWorkspace(
            squares, candidates, closest, reduced, potential, tile_sums, trial_sums, candidate_rows
        )
        for start in range(first, last):
            _plus_plus(tiles.values, weight, draws[start], scratch, chosen[start])

    in_threads(len(draws), run)
    return chosen
