"""Initialisation of a mixture: the best of several short runs of EM on a sample, each from its own k-means++ seeds.

A mixture has many optima, and one initialisation finds one of them. The runs start from seeds because results of K-Means differ
less. Short runs are cheap and show which initialisation leads to a high likelihood (Biernacki, Celeux and Govaert 2003, "Choosing starting values for the EM algorithm", Comput. Stat. Data Anal. 41).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from gpuclust.algorithms.mixture.em import Array
from gpuclust.algorithms.mixture.fit import GaussianMixture, em_backend
from gpuclust.algorithms.mixture.init import KMeansStart, draw_rows
from gpuclust.algorithms.mixture.m_step import IteratingBackend, MixtureParameters
from gpuclust.errors import FitError
from gpuclust.runtime.blocks import RowBlocks

START_ROWS = 2_000  # rows that the seeds of a start are drawn from
# Rows, iterations and runs of each round; the best of a round go on in the next, from where they were.
ROUNDS = ((10_000, 30, 24), (60_000, 25, 4))


def short_em_init(covariance_type: str, reg_covar: float, device: IteratingBackend | None = None) -> KMeansStart:
    """The ``kmeans`` of a `GaussianMixture`: the parameters of the short run with the highest likelihood.

    A sample of rows with ``sample_weight`` is drawn in proportion. The search is on ``device``, where the matrix must be, or on the host; it uses
    at most 60,000 rows of any matrix.
    """
    passes = device or em_backend("cpu")

    def start(
        X: Array, n_components: int, random_state: np.random.RandomState, sample_weight: Array | None
    ) -> MixtureParameters:
        sample = _sample(passes, X, random_state, sample_weight)
        on_host = passes.host(sample).astype(np.float64, copy=False)  # for the seeds
        short_run = partial(
            _short_run, passes, n_components=n_components, covariance_type=covariance_type, reg_covar=reg_covar
        )
        (rows, iterations, runs), *later = ROUNDS
        if n_components == 1:  # every initialisation leads to the only optimum
            runs = 1
        starts = (_start(passes, on_host, n_components, random_state) for _ in range(runs))
        found = [short_run(sample[:rows], iterations, kmeans=start) for start in starts if start is not None]
        for rows, iterations, runs in later:
            best_runs = sorted((m for m in found if m is not None), key=lambda m: -m.lower_bound_)[:runs]
            found = [
                short_run(sample[:rows], iterations, **onward) for m in best_runs for onward in _next_round(passes, m)
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


def _sample(
    passes: IteratingBackend, X: Array, random_state: np.random.RandomState, sample_weight: Array | None
) -> Array:
    """Rows in random order, as many as the largest round takes; a weighted row may come more than once."""
    size = min(max(rows for rows, _, _ in ROUNDS), len(X))
    if sample_weight is None:
        rows = draw_rows(random_state, len(X), size)
    else:
        weight = passes.host(sample_weight)
        rows = random_state.choice(len(X), size=size, p=weight / float(weight.sum()))
    return X.take(rows).astype(np.float64) if isinstance(X, RowBlocks) else passes.take(X, rows)


def _start(
    passes: IteratingBackend, sample: np.ndarray, n_components: int, random_state: np.random.RandomState
) -> KMeansStart | None:
    """Labels by the nearest k-means++ seed of few rows, or None when these have not so many distinct ones."""
    from sklearn.cluster import kmeans_plusplus

    few = sample[random_state.permutation(len(sample))[: max(START_ROWS, 20 * n_components)]]
    seeds, _ = kmeans_plusplus(few, n_components, random_state=random_state)
    if len(np.unique(seeds, axis=0)) < n_components:
        return None
    return lambda X, *_: passes.nearest(X, seeds)


def _next_round(passes: IteratingBackend, found: GaussianMixture) -> tuple[dict[str, Any], ...]:
    """Two initialisations for the next round: the parameters of the run, and the most probable component of each row.

    The second is a step of classification EM (Celeux and Govaert 1992, Comput. Stat. Data Anal. 14), which leaves
    plateaus that the first stays on; but one of its components may have no rows, which ends it.
    """
    same_parameters = {"weights_init": found.weights_, "means_init": found.means_, "precisions_init": found.precisions_}
    parameters = (found.weights_, found.means_, found.precisions_cholesky_, found.covariance_type)
    return same_parameters, {"kmeans": lambda X, *_: passes.labels(X, *parameters)}


def _short_run(passes: IteratingBackend, sample: Array, iterations: int, **settings: Any) -> GaussianMixture | None:
    """A mixture after a few iterations, or None if a component became empty."""
    model = GaussianMixture(max_iter=iterations, random_state=0, device=passes, **settings)
    try:
        return model.fit(sample)
    except FitError:
        return None
