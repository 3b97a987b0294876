"""Initial centres of K-Means on a GPU: the search of `init`, from the same samples and random numbers.

The samples of all requests are rows of one small matrix on the device; seeds and trials of all requests are computed together.
The host keeps the inertia of the solutions and draws the random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuclust.algorithms.kmeans.init import (
    KEPT,
    PARENTS,
    ROWS_PER_CLUSTER,
    SAMPLE_ROWS,
    SAMPLE_TOL,
    SAMPLES,
    SWAPS,
    KMeansRequest,
    distinct_solutions,
    restart_generators,
    sample_numbers,
    trial_generator,
)
from gpuclust.algorithms.kmeans.kernels_cuda import FIRST_CENTER, FIRST_ROW, N_CLUSTERS, N_PLAN, N_ROWS, TILE
from gpuclust.algorithms.kmeans.lloyd_cuda import DeviceJob, DeviceResult, DeviceRows, rows_of_samples, run_lloyd
from gpuclust.algorithms.kmeans.seeding_cuda import draw_rows, plus_plus
from gpuclust.runtime.backend import Array
from gpuclust.runtime.jit import ignore_small_grid_warnings


@dataclass(frozen=True)
class _Seeding:
    """Restarts of request ``owner`` on one sample: ``rows`` is its set, ``number`` its number."""

    owner: int
    rows: int
    number: int
    restarts: range


@dataclass(frozen=True)
class _Search:
    """A request's search on one sample: its generator, and the best distinct solutions so far."""

    owner: int
    rows: int
    n_trials: int
    generator: np.random.Generator
    best: list[DeviceResult]


def choose_starts(rows: DeviceRows, requests: Sequence[KMeansRequest]) -> list[tuple[int, Array]]:
    """The centres from which each request, named by its index, is fitted on all rows, on the device in the coordinates of the frame."""
    n_rows, samples = len(rows.X), dict[tuple[int, int, int], int]()
    direct: list[_Seeding] = []
    searching: list[_Seeding] = []
    for i, request in enumerate(requests):
        least = ROWS_PER_CLUSTER * request.n_clusters
        if n_rows <= 2 * SAMPLE_ROWS or least > SAMPLE_ROWS:
            key = (request.seed, 0, max(SAMPLE_ROWS, least))
            direct.append(_Seeding(i, samples.setdefault(key, len(samples)), 0, range(request.n_init)))
            continue
        for number in range(min(SAMPLES, request.n_init)):
            key = (request.seed, number, SAMPLE_ROWS)
            restarts = range(number, request.n_init, SAMPLES)
            searching.append(_Seeding(i, samples.setdefault(key, len(samples)), number, restarts))
    numbers = [sample_numbers(n_rows, (seed, number), size) for seed, number, size in samples]
    sampled = rows_of_samples(rows, numbers)
    seeds = iter(_seeds(sampled, [*direct, *searching], requests))
    starts = [(seeding.owner, next(seeds)) for seeding in direct for _ in seeding.restarts]
    trials = [(s, next(seeds)) for s, seeding in enumerate(searching) for _ in seeding.restarts]
    return starts + _search(sampled, searching, trials, requests)


def _seeds(rows: DeviceRows, seedings: Sequence[_Seeding], requests: Sequence[KMeansRequest]) -> list[Array]:
    """Starting centres (n_clusters, n_features) of each restart of each seeding."""
    starts = [
        (seeding, generator)
        for seeding in seedings
        for generator in restart_generators(requests[seeding.owner], seeding.restarts, seeding.number)
    ]
    plan = np.zeros((len(starts), N_PLAN), np.int64)
    for i, (seeding, _) in enumerate(starts):
        own = rows.sets[seeding.rows]
        plan[i, [FIRST_ROW, N_ROWS, N_CLUSTERS]] = own.first_row, own.n_rows, requests[seeding.owner].n_clusters
    plan[1:, FIRST_CENTER] = np.cumsum(plan[:-1, N_CLUSTERS])
    chosen = np.zeros(int(plan[:, N_CLUSTERS].sum()), np.int64)
    greedy: list[int] = []
    for i, (seeding, generator) in enumerate(starts):
        if requests[seeding.owner].init == "k-means++":
            greedy.append(i)
            continue
        first, k = plan[i, FIRST_CENTER], plan[i, N_CLUSTERS]
        chosen[first : first + k] = plan[i, FIRST_ROW] + generator.choice(plan[i, N_ROWS], k, replace=False)
    on_device = rows.xp.asarray(chosen)
    if greedy:
        _plus_plus(rows, plan[greedy], [starts[i][1] for i in greedy], on_device)
    centers = rows.to_tiled(rows.X[on_device].astype(np.float64))
    ends = plan[:, FIRST_CENTER] + plan[:, N_CLUSTERS]
    return [centers[first:end] for first, end in zip(plan[:, FIRST_CENTER].tolist(), ends.tolist(), strict=True)]


def _plus_plus(rows: DeviceRows, plan: np.ndarray, generators: Sequence[np.random.Generator], chosen: Array) -> None:
    """Write the rows that k-means++ chooses for each start to ``chosen``."""
    xp = rows.xp
    clusters = plan[:, N_CLUSTERS]
    draws = [g.random((k, 2 + int(np.log(k)))) for k, g in zip(clusters.tolist(), generators, strict=True)]
    first = np.concatenate([[0], np.cumsum([d.size for d in draws])])
    closest = xp.empty((len(plan), int(plan[:, N_ROWS].max())), dtype=np.float32)
    with ignore_small_grid_warnings():
        plus_plus[len(plan), TILE](
            rows.values, rows.X.shape[1], xp.asarray(plan), xp.asarray(np.concatenate([d.ravel() for d in draws])),
            xp.asarray(first), closest, chosen,
        )  # fmt: skip


def _search(
    rows: DeviceRows, seedings: Sequence[_Seeding], trials: list[tuple[int, Array]], requests: Sequence[KMeansRequest]
) -> list[tuple[int, Array]]:
    """The best distinct solutions of each request on each of its samples."""
    searches = []
    for seeding in seedings:
        request = requests[seeding.owner]
        n_trials, generator = request.n_init if request.n_init > 1 else 0, trial_generator(request, seeding.number)
        searches.append(_Search(seeding.owner, seeding.rows, n_trials, generator, []))
    for _ in range(1 + SWAPS):
        jobs = []
        for s, start in trials:
            request = requests[searches[s].owner]
            least_move = max(request.tol, SAMPLE_TOL) * rows.frame.variance
            jobs.append(DeviceJob(searches[s].rows, start, request.max_iter, least_move))
        for (s, _), result in zip(trials, run_lloyd(rows, jobs), strict=True):
            searches[s].best.append(result)
        for search in searches:
            search.best[:] = distinct_solutions(search.best, PARENTS)
        trials = _swapped(rows, searches)
        if not trials:
            break
    return [(s.owner, result.centers) for s in searches for result in s.best[: KEPT if s.n_trials else 1]]


def _swapped(rows: DeviceRows, searches: Sequence[_Search]) -> list[tuple[int, Array]]:
    """Solutions in turn, each with one of its centres moved to a row drawn by its squared distance."""
    xp: Any = rows.xp
    parents: list[Array] = []
    owners, replaced, draws = [], [], []
    for s, search in enumerate(searches):
        solutions = [solution for solution in search.best if solution.inertia > 0]
        for trial in range(search.n_trials if solutions else 0):
            parents.append(solutions[trial % len(solutions)].centers)
            draws.append(search.generator.random())
            replaced.append(int(search.generator.integers(len(parents[-1]))))
            owners.append(s)
    if not parents:
        return []
    plan = np.zeros((len(parents), N_PLAN), np.int64)
    plan[:, FIRST_ROW] = [rows.sets[searches[s].rows].first_row for s in owners]
    plan[:, N_ROWS] = [rows.sets[searches[s].rows].n_rows for s in owners]
    plan[:, N_CLUSTERS] = [len(parent) for parent in parents]
    plan[1:, FIRST_CENTER] = np.cumsum(plan[:-1, N_CLUSTERS])
    centers = xp.concatenate(parents)
    floats = xp.zeros((len(centers), centers.shape[1] + 1), dtype=np.float32)
    floats[:, 1:] = centers
    chosen = xp.zeros(len(parents), dtype=np.int64)
    closest = xp.empty((len(parents), int(plan[:, N_ROWS].max())), dtype=np.float32)
    with ignore_small_grid_warnings():
        draw_rows[len(parents), TILE](
            rows.values,
            rows.X.shape[1],
            xp.asarray(plan),
            floats.reshape(-1),
            xp.asarray(np.array(draws)),
            closest,
            chosen,
        )
    centers[xp.asarray(plan[:, FIRST_CENTER] + np.array(replaced))] = rows.to_tiled(rows.X[chosen].astype(np.float64))
    return [
        (s, centers[first : first + k])
        for s, first, k in zip(owners, plan[:, FIRST_CENTER].tolist(), plan[:, N_CLUSTERS].tolist(), strict=True)
    ]
