"""Initialisation of a mixture: the best of several short runs of EM on a sample, each from its own k-means++ seeds.

A mixture has many optima, and one initialisation finds one of them. The runs start from seeds because results of K-Means differ
less. Short runs are cheap and show which initialisation leads to a high likelihood (Biernacki, Celeux and Govaert 2003, "Choosing starting values for the EM algorithm", Comput. Stat. Data Anal. 41).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuclust.algorithms.mixture.em import Array
from gpuclust.algorithms.mixture.fit import GaussianMixture
from gpuclust.algorithms.mixture.init import KMeansStart, draw_rows
from gpuclust.algorithms.mixture.m_step import MixtureParameters
from gpuclust.errors import FitError
from gpuclust.runtime.blocks import RowBlocks

START_ROWS = 2_000  # rows that the seeds of a start are drawn from
# Rows, iterations and runs of each round; the best of a round go on in the next, from where they were.
ROUNDS = ((10_000, 30, 24), (60_000, 25, 4))


def short_em_init(covariance_type: str, reg_covar: float) -> KMeansStart:
    """The ``kmeans`` of a `GaussianMixture`: the parameters of the short run with the highest likelihood.

    A sample of rows with ``sample_weight`` is drawn in proportion. The search is on the host, on at most 60,000 rows,
    whatever the matrix.
    """

    def start(
        X: Array, n_components: int, random_state: np.random.RandomState, sample_weight: Array | None
    ) -> MixtureParameters:
        sample = _sample(X, random_state, sample_weight)
        (rows, iterations, runs), *later = ROUNDS
        if n_components == 1:  # every initialisation leads to the only optimum
            runs = 1
        starts = (_start(sample, n_components, random_state) for _ in range(runs))
        found = [
            _short_run(sample[:rows], iterations, covariance_type, reg_covar, n_components, kmeans=start)
            for start in starts
            if start is not None
        ]
        for rows, iterations, runs in later:
            best_runs = sorted((m for m in found if m is not None), key=lambda m: -m.lower_bound_)[:runs]
            found = [
                _short_run(sample[:rows], iterations, covariance_type, reg_covar, n_components, **onward)
                for m in best_runs
                for onward in _next_round(m)
            ]
        finished = [m for m in found if m is not None]
        if not finished:
            raise FitError(
                f"no initialisation of a {n_components}-component mixture converged to non-empty components; lower cluster.n_clusters, raise "
                "cluster.reg_covar, or scale the features"
            )
        best = max(finished, key=lambda m: m.lower_bound_)
        return MixtureParameters(best.weights_, best.means_, best.covariances_, best.precisions_cholesky_)

    return start


def _sample(X: Array, random_state: np.random.RandomState, sample_weight: Array | None) -> np.ndarray:
    """Rows in random order, as many as the largest round takes; a weighted row may come more than once."""
    size = min(max(rows for rows, _, _ in ROUNDS), len(X))
    if sample_weight is None:
        rows = draw_rows(random_state, len(X), size)
    else:
        share = _host(sample_weight) / float(sample_weight.sum())
        rows = random_state.choice(len(X), size=size, p=share)
    return _host(X.take(rows) if isinstance(X, RowBlocks) else X[rows]).astype(np.float64)


def _host(array: Array) -> np.ndarray:
    return array.get() if hasattr(array, "get") else np.asarray(array)


def _start(sample: np.ndarray, n_components: int, random_state: np.random.RandomState) -> KMeansStart | None:
    """Labels by the nearest k-means++ seed of few rows, or None when these have not so many distinct ones."""
    from sklearn.cluster import kmeans_plusplus

    few = sample[random_state.permutation(len(sample))[: max(START_ROWS, 20 * n_components)]]
    seeds, _ = kmeans_plusplus(few, n_components, random_state=random_state)
    if len(np.unique(seeds, axis=0)) < n_components:
        return None

    def nearest(X: Array, *_: object) -> np.ndarray:
        return ((seeds**2).sum(axis=1) - 2 * np.asarray(X) @ seeds.T).argmin(axis=1).astype(np.int32)

    return nearest


def _next_round(found: GaussianMixture) -> tuple[dict[str, Any], ...]:
    """Two initialisations for the next round: the parameters of the run, and the most probable component of each row.

    The second is a step of classification EM (Celeux and Govaert 1992, Comput. Stat. Data Anal. 14), which leaves
    plateaus that the first stays on; but one of its components may have no rows, which ends it.
    """
    same_parameters = {"weights_init": found.weights_, "means_init": found.means_, "precisions_init": found.precisions_}
    return same_parameters, {"kmeans": lambda X, *_: found.predict(X)}


def _short_run(
    sample: np.ndarray, iterations: int, covariance_type: str, reg_covar: float, n_components: int, **start: Any
) -> GaussianMixture | None:
    """A mixture after a few iterations, or None if a component became empty."""
    model = GaussianMixture(
        n_components,
        covariance_type=covariance_type,
        reg_covar=reg_covar,
        max_iter=iterations,
        random_state=0,
        **start,
    )
    try:
        return model.fit(sample)
    except FitError:
        return None
