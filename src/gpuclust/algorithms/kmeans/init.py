"""Initial centres of K-Means on all rows: every restart on a small matrix, the best of a search on samples of a large one.

One sample has local optima of its own and hides some of the whole's, so a search takes SAMPLES small ones rather than one
large. On each, a share of the restarts is seeded and iterated; then, SWAPS times, as many trials as there are restarts
take one of the best solutions, move one centre to a row drawn by its squared distance, and iterate again (Fränti, P.
(2018), "Efficiency of random swap clustering", Journal of Big Data 5:13). The best distinct solutions go on to all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from gpuclust.algorithms.kmeans.lloyd import LloydResult, rows_in_memory, run_lloyd
from gpuclust.algorithms.kmeans.passes import LloydRows
from gpuclust.algorithms.kmeans.seeding import plus_plus
from gpuclust.algorithms.kmeans.tiled_matrix import Frame, tile_rows
from gpuclust.runtime.products import nearest_centers

SAMPLE_ROWS = 8192
SAMPLES = 3
SWAPS = 3  # rounds
PARENTS = 5  # solutions whose centres the trials of a round move
KEPT = 2  # solutions of a sample that go on to all rows
ROWS_PER_CLUSTER = 64  # of a sample, at least; with more clusters the restarts run on all rows
SAMPLE_TOL = 1e-3  # what is left to move is moved on all rows


class _HasInertia(Protocol):
    @property
    def inertia(self) -> float: ...


Solution = TypeVar("Solution", bound=_HasInertia)


@dataclass(frozen=True)
class KMeansRequest:
    """One K-Means to fit; the parameters are scikit-learn's. `init` is "k-means++" or "random"."""

    n_clusters: int
    seed: int
    n_init: int = 10
    init: str = "k-means++"
    max_iter: int = 300
    tol: float = 1e-4
    spherical: bool = False
    """Whether rows and centres have length 1. It is the same for all requests of one fit."""
    start: np.ndarray | None = field(default=None, compare=False)
    """Centres (n_clusters, n_features) to start from, instead of ``n_init`` starts."""


@dataclass(frozen=True)
class _Sample:
    """Rows in memory, (n, n_features), in the coordinates of a frame."""

    X: np.ndarray
    weight: np.ndarray  # (n,) float64, or empty where every row counts once
    frame: Frame


@dataclass(frozen=True)
class _Search:
    """A request's search on one sample: its generator, and the best distinct solutions so far."""

    owner: int  # index of the request
    n_trials: int
    generator: np.random.Generator
    best: list[LloydResult]


def choose_starts(rows: LloydRows, requests: Sequence[KMeansRequest]) -> list[tuple[int, np.ndarray]]:
    """The centres from which each request, named by its index, is fitted on all rows, in the coordinates of `rows`.

    What is chosen for a request depends on the rows and the request alone, not on the other requests.
    """
    starts: list[tuple[int, np.ndarray]] = []
    searching: dict[int, list[int]] = {}
    for i, request in enumerate(requests):
        if request.start is not None:
            starts.append((i, rows.frame.to_tiled(request.start)))
            continue
        least = ROWS_PER_CLUSTER * request.n_clusters
        if len(rows.blocks) <= 2 * SAMPLE_ROWS or least > SAMPLE_ROWS:
            sample = _sample(rows, (request.seed, 0), max(SAMPLE_ROWS, least))
            if rows.spherical and request.n_init > 1 and least <= SAMPLE_ROWS:
                # Between vectors of many dimensions the squared distances differ little, so that seeds often share a cluster.
                starts += _search(sample, 0, [i], requests, spherical=True, n_samples=1)
                continue
            starts += [(i, start) for start in _seeds(sample, request, range(request.n_init), 0)]
        else:
            searching.setdefault(request.seed, []).append(i)
    for seed, owners in searching.items():
        for number in range(SAMPLES):
            mine = [i for i in owners if number < requests[i].n_init]
            if mine:
                sample = _sample(rows, (seed, number), SAMPLE_ROWS)
                starts += _search(sample, number, mine, requests, spherical=rows.spherical)
    return starts


def _sample(rows: LloydRows, seed: tuple[int, int], size: int) -> _Sample:
    """A seeded sample without replacement, in the order of the rows; the rows themselves where they are few."""
    chosen, weight = sample_numbers(len(rows.blocks), seed, size), rows.seen.weight
    return _Sample(rows.blocks.take(chosen), weight[chosen] if len(weight) else weight, rows.frame)


def sample_numbers(n_rows: int, seed: tuple[int, int], size: int) -> np.ndarray:
    """The numbers of the rows of a seeded sample, ascending; of all rows where they are at most twice its size."""
    if n_rows <= 2 * size:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(seed).choice(n_rows, size, replace=False, shuffle=False))


def restart_generators(request: KMeansRequest, restarts: range, number: int) -> list[np.random.Generator]:
    """The generators of some of a request's restarts on the sample of this number."""
    return [np.random.default_rng((request.seed, request.n_clusters, number, restart)) for restart in restarts]


def trial_generator(request: KMeansRequest, number: int) -> np.random.Generator:
    """The generator of the trials of a request's search on the sample of this number."""
    return np.random.default_rng((request.seed, request.n_clusters, number, request.n_init, 1))


def _seeds(sample: _Sample, request: KMeansRequest, restarts: range, number: int) -> list[np.ndarray]:
    """Starting centres of some of a request's restarts, on the sample of this number."""
    k, weight = request.n_clusters, sample.weight
    generators = restart_generators(request, restarts, number)
    if request.init == "k-means++":
        counted = weight if len(weight) else np.ones(len(sample.X))
        chosen = plus_plus(tile_rows(sample.X, sample.frame), counted, k, generators)
    else:
        weighted = np.count_nonzero(weight) >= k
        chances = weight / weight.sum() if weighted else None
        chosen = [generator.choice(len(sample.X), k, replace=False, p=chances) for generator in generators]
    return [sample.frame.to_tiled(sample.X[rows]) for rows in chosen]


def _search(
    sample: _Sample,
    number: int,
    owners: Sequence[int],
    requests: Sequence[KMeansRequest],
    *,
    spherical: bool,
    n_samples: int = SAMPLES,
) -> list[tuple[int, np.ndarray]]:
    """The best distinct solutions of each request on one of ``n_samples`` samples; their trials advance together."""
    rows = rows_in_memory(sample.X, sample.weight, sample.frame, spherical=spherical)
    searches: list[_Search] = []
    trials: list[tuple[int, np.ndarray]] = []
    for i in owners:
        request = requests[i]
        seeds = _seeds(sample, request, range(number, request.n_init, n_samples), number)
        trials += [(len(searches), seed) for seed in seeds]
        searches.append(_Search(i, request.n_init if request.n_init > 1 else 0, trial_generator(request, number), []))
    for _ in range(1 + SWAPS):
        limits = [requests[searches[s].owner] for s, _ in trials]
        jobs = [
            (start, limit.max_iter, max(limit.tol, SAMPLE_TOL))
            for (_, start), limit in zip(trials, limits, strict=True)
        ]
        for (s, _), outcome in zip(trials, run_lloyd(rows, jobs), strict=True):
            searches[s].best.append(outcome)
        for search in searches:
            search.best[:] = distinct_solutions(search.best, PARENTS)
        trials = [(s, start) for s, search in enumerate(searches) for start in _swapped(sample, search)]
        if not trials:
            break
    kept = [(search, KEPT if search.n_trials else 1) for search in searches]
    return [(search.owner, outcome.centers) for search, n in kept for outcome in search.best[:n]]


def distinct_solutions(outcomes: list[Solution], n: int) -> list[Solution]:
    """The n of least inertia that differ in it by more than what SAMPLE_TOL leaves open."""
    best: list[Solution] = []
    for outcome in sorted(outcomes, key=lambda outcome: outcome.inertia):
        if len(best) < n and (not best or outcome.inertia > best[-1].inertia * (1 + 1e-4)):
            best.append(outcome)
    return best


def _swapped(sample: _Sample, search: _Search) -> list[np.ndarray]:
    """Solutions in turn, each with one of its centres moved to a row drawn by its weighted squared distance."""
    chances = []
    for outcome in search.best if search.n_trials else []:
        _, distance, _ = nearest_centers(sample.X, sample.frame.from_tiled(outcome.centers))
        potential = np.cumsum(distance**2 * sample.weight if len(sample.weight) else distance**2)
        if potential[-1] > 0:
            chances.append((outcome, potential))
    trials = []
    for trial in range(search.n_trials if chances else 0):
        outcome, potential = chances[trial % len(chances)]
        row = int(np.searchsorted(potential, search.generator.random() * potential[-1], side="right"))
        centers = outcome.centers.copy()
        centers[search.generator.integers(len(centers))] = sample.frame.to_tiled(sample.X[min(row, len(potential) - 1)])
        trials.append(centers)
    return trials
