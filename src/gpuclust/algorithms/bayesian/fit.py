"""Bayesian Gaussian mixtures by scikit-learn, with the arrays that a prediction needs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.special import digamma

from gpuclust.algorithms.bayesian import BayesianGmmConfig
from gpuclust.algorithms.registry import FitInput, FitResult
from gpuclust.errors import FitError
from gpuclust.model import gmm
from gpuclust.model.bayesian_gmm import as_mixture
from gpuclust.model.prediction import place_rows


def fit(data: FitInput, configs: Sequence[BayesianGmmConfig]) -> list[FitResult]:
    """Fit each configuration to ``data.X`` (n_samples, n_columns); the CPU computes, also for rows on a device."""
    X = data.backend.to_host(data.X).astype(np.float64)
    results = []
    for i, config in enumerate(configs):
        results.append(_result(X, _fit_sklearn(X, config, data.seed)))
        data.progress((i + 1) / len(configs))
    return results


def _fit_sklearn(X: np.ndarray, config: BayesianGmmConfig, seed: int) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import BayesianGaussianMixture

    settings = asdict(config)
    settings |= {"n_components": settings.pop("max_components"), "random_state": seed}
    del settings["name"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the result has a note
        try:
            return BayesianGaussianMixture(**settings).fit(X)
        except ValueError as error:
            raise FitError(
                f"the Bayesian mixture of {config.max_components} components cannot be fitted: {str(error).splitlines()[0]}"
            ) from error


def _result(X: np.ndarray, model: Any) -> FitResult:
    """The components that are the likeliest of at least one row; without the others these rows have the same components. ``effective_components``
    is the exponential of the entropy of all weights."""
    kind = model.covariance_type
    parameters = {
        "weights": model.weights_,
        "means": model.means_,
        "covariances": model.covariances_,
        "precisions_cholesky": model.precisions_cholesky_,
        "log_offsets": log_offsets(model),
    }
    parameters = {name: np.asarray(value, dtype=np.float64) for name, value in parameters.items()}
    own = ("weights", "means", "log_offsets", *(() if kind == "tied" else ("covariances", "precisions_cholesky")))
    used = np.unique(place_rows(gmm.place(as_mixture(parameters), {"covariance_type": kind}), X)[0])
    parameters |= {name: parameters[name][used] for name in own}
    parameters["weights"] /= parameters["weights"].sum()
    labels, confidence, distance = place_rows(gmm.place(as_mixture(parameters), {"covariance_type": kind}), X)
    shares = model.weights_[model.weights_ > 0]
    stopped = "the variational inference stopped at max_iter before it converged; raise cluster.max_iter"
    return FitResult(
        labels=labels,
        confidence=confidence,
        distance=distance,
        parameters=parameters,
        options={"covariance_type": kind},
        per_cluster=own,
        metrics={
            "lower_bound": float(np.ravel(model.lower_bound_)[0]),  # scikit-learn gives an array (1,) for tied
            "effective_components": float(np.exp(-(shares * np.log(shares)).sum())),
            "n_iter": model.n_iter_,
        },
        converged=model.converged_,
        notes=() if model.converged_ else (stopped,),
    )


def log_offsets(model: Any) -> np.ndarray:
    """What the expected log density of each component (n_components,) has beside the Gaussian of its mean and covariance: its expected log weight,
    and the uncertainty of its precision and its mean (Bishop 2006, equations 10.64 to 10.66)."""
    n_features = model.means_.shape[1]
    if model.weight_concentration_prior_type == "dirichlet_process":
        a, b = model.weight_concentration_
        total = digamma(a + b)
        left = np.concatenate([[0.0], np.cumsum(digamma(b) - total)[:-1]])
        log_weights = digamma(a) - total + left
    else:
        log_weights = digamma(model.weight_concentration_) - digamma(model.weight_concentration_.sum())
    freedom = np.broadcast_to(model.degrees_of_freedom_, log_weights.shape)
    log_det = digamma(0.5 * (freedom - np.arange(n_features)[:, None])).sum(axis=0) + n_features * np.log(2.0)
    return np.asarray(
        log_weights + 0.5 * (log_det - n_features / model.mean_precision_) - 0.5 * n_features * np.log(freedom)
    )
