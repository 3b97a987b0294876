"""Gaussian mixtures on the CPU: our fused EM pass, or scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpuclust.algorithms.mixture import GmmConfig
from gpuclust.algorithms.mixture.em import EMScores, kernel_parameters
from gpuclust.algorithms.mixture.em_cpu import score_part
from gpuclust.algorithms.mixture.fit import GaussianMixture, information_criteria
from gpuclust.algorithms.mixture.short_em import short_em_init
from gpuclust.algorithms.registry import FitInput, FitResult, Start
from gpuclust.errors import FitError
from gpuclust.model.records import sizes_of
from gpuclust.runtime.backend import Array
from gpuclust.runtime.blocks import MergeTree, RowBlocks, Run
from gpuclust.runtime.jit import schedule_precompile
from gpuclust.runtime.nearest import nearest_two

# A matrix of up to this many values is fitted in float64, which is as fast and compiles no float32 kernels.
MAX_VALUES_FLOAT64 = 2_000_000

ScoreRows = Callable[[Array, Mapping[str, np.ndarray], str], "tuple[EMScores, np.ndarray]"]


def fit(data: FitInput, configs: Sequence[GmmConfig]) -> list[FitResult]:
    """Fit each configuration. Engine ``fused`` is `GaussianMixture`, ``library`` scikit-learn."""
    return [_fit(data, config) for config in configs]


def settings_of(config: GmmConfig, seed: int) -> dict[str, Any]:
    """The parameters of `GaussianMixture`, here and in scikit-learn, for a configuration and a seed."""
    return {
        "n_components": config.n_clusters,
        "covariance_type": config.covariance_type,
        "init_params": config.init_params,
        "n_init": config.n_init,
        "max_iter": config.max_iter,
        "tol": config.tol,
        "reg_covar": config.reg_covar,
        "random_state": seed,
    }


def _fit(data: FitInput, config: GmmConfig) -> FitResult:
    X, distinct = np.asarray(data.X), data.distinct
    settings, start = settings_of(config, data.seed), data.start_of(config)
    if config.engine == "library":
        if start is not None:
            raise FitError(
                "cluster.engine=library cannot start from the clusters of a run; leave cluster.engine or cluster.init_from out"
            )
        if data.weight is not None:
            raise FitError(
                "scikit-learn's mixtures have no weights of rows; use cluster.engine=fused, or leave data.weight out"
            )
        return result_of(X, _fit_sklearn(X, settings), "library")
    schedule_precompile("gmm", X)
    init: Any = short_em_init(config.covariance_type, config.reg_covar)
    if start is not None:
        init, settings = (lambda *_: start_labels(X, start)), settings | FROM_START
    if (
        distinct is None or start is not None or config.init_params != "kmeans"
    ):  # the other initialisations draw a number for each row
        mixture = GaussianMixture(**settings, kmeans=init)
        rows = in_float64(X)
        result = result_of(X, mixture.fit(rows, data.weight, progress=data.progress), "fused")
        if data.weight is None:
            return result
        found = mixture.evaluate(rows, data.weight)
        criteria = {"log_likelihood": found.log_likelihood, "bic": found.bic, "aic": found.aic, "icl": found.icl}
        return replace(result, metrics={**result.metrics, **criteria})

    mixture = GaussianMixture(**settings, kmeans=lambda _, n, random, __: init(X, n, random, None))
    model = mixture.fit(in_float64(distinct.X), distinct.counts, progress=data.progress)
    result = result_of(X, model, "fused")
    return replace(result, notes=(*result.notes, distinct.note("fitted")))


FROM_START = {"init_params": "kmeans", "n_init": 1}
"""The settings of a mixture that starts from the clusters of a run."""


def start_labels(X: np.ndarray, start: Start) -> np.ndarray:
    """The labels (n,) int32 to start from; a row of no cluster is in that of the nearest centre."""
    if (start.labels >= 0).all():
        return start.labels
    return np.where(start.labels >= 0, start.labels, nearest_two(np.ascontiguousarray(X), start.centers)[0]).astype(
        np.int32
    )


def in_float64(X: np.ndarray) -> np.ndarray:
    """X in float64, which is as fast as float32 for few rows; X itself for many."""
    return X.astype(np.float64, copy=False) if X.size <= MAX_VALUES_FLOAT64 else X


def _fit_sklearn(X: np.ndarray, settings: dict[str, Any]) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture as SklearnMixture

    with warnings.catch_warnings():
        # The result has a note where the fit did not converge.
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            return SklearnMixture(**settings).fit(X)
        except ValueError as error:
            raise FitError(
                f"the mixture of {settings['n_components']} components cannot be fitted: {str(error).splitlines()[0]}"
            ) from error


def result_of(X: Array | RowBlocks, model: Any, engine: str, assign: ScoreRows | None = None) -> FitResult:
    """Labels, confidence and criteria of a fitted mixture, in float64, as a served model computes them.

    ``model`` has scikit-learn's fitted attributes; ``assign`` does on another device what `score_rows` does here. ``bic``, ``aic`` and ``icl`` (BIC plus twice the entropy of the
    responsibilities; Biernacki, Celeux and Govaert 2000) are lower for better mixtures.
    """
    kind = model.covariance_type
    parameters = {
        "weights": np.asarray(model.weights_, dtype=np.float64),
        "means": np.asarray(model.means_, dtype=np.float64),
        "covariances": np.asarray(model.covariances_, dtype=np.float64),
        "precisions_cholesky": np.asarray(model.precisions_cholesky_, dtype=np.float64),
    }
    scores, distance = (assign or score_rows)(X, parameters, kind)
    return FitResult(
        labels=scores.labels,
        confidence=scores.confidence,
        distance=distance,
        parameters=parameters,
        options={"covariance_type": kind},
        per_cluster=("weights", "means", *(() if kind == "tied" else ("covariances", "precisions_cholesky"))),
        metrics={
            "log_likelihood": scores.log_likelihood,
            **information_criteria(scores, kind, parameters["means"], len(X)),
            "n_iter": model.n_iter_,
        },
        converged=model.converged_,
        engine=engine,
        notes=_mixture_notes(model.converged_, scores.labels, len(parameters["weights"])),
    )


def _mixture_notes(converged: bool, labels: np.ndarray, n_components: int) -> tuple[str, ...]:
    """Notes on a fit for the user, in addition to its metrics."""
    notes = [] if converged else ["EM stopped at max_iter before it converged; raise cluster.max_iter"]
    without = int(np.count_nonzero(sizes_of(labels, n_components) == 0))
    if without:
        notes.append(f"{without} of {n_components} components are the likeliest of no row, so there are fewer clusters")
    return tuple(notes)


def score_rows(
    X: np.ndarray | RowBlocks, parameters: Mapping[str, np.ndarray], covariance_type: str
) -> tuple[EMScores, np.ndarray]:
    """Each row under a mixture, in float64 whatever X is: its scores without ``log_prob``, and its Euclidean distance to its
    mean (n,) float32."""
    means = parameters["means"]
    c = kernel_parameters(
        parameters["weights"], means, parameters["precisions_cholesky"], covariance_type, np.dtype(np.float64)
    )
    found = X.collect(score_part, c, means) if isinstance(X, RowBlocks) else [score_part(Run(X, 0), c, means)]
    totals = [line for run in found for line in run.totals]
    tree = MergeTree(len(totals))
    for block, line in enumerate(totals):
        tree.put(0, block, line)
    log_likelihood, entropy = tree.value
    parts = [[run.labels for run in found], [run.confidence for run in found], [run.distance for run in found]]
    found.clear()  # so that the parts of one result are freed before the next is joined
    labels, confidence, distance = (_joined(parts.pop(0)) for _ in range(3))
    log_likelihood += c.base * len(X)
    return EMScores(labels, confidence, np.empty(0), float(log_likelihood), float(entropy)), distance


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
