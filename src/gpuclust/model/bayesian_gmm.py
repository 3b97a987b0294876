"""Prediction with a Bayesian Gaussian mixture: the component of the greatest responsibility."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gpuclust.model import gmm
from gpuclust.model.prediction import ArraySpec, Options, Parameters, PredictionRule, register_rule


def arrays(options: Options) -> Mapping[str, ArraySpec]:
    """Those of a mixture, and what the expected log density of each component has beside its Gaussian."""
    return {**gmm.arrays(options), "log_offsets": ArraySpec("f", ("clusters",))}


def as_mixture(parameters: Parameters) -> Parameters:
    """The mixture whose log weights are the offsets: its responsibilities are those of scikit-learn's BayesianGaussianMixture."""
    offsets = parameters["log_offsets"].astype(np.float64)
    shares = np.exp(offsets - offsets.max())
    return {**parameters, "weights": shares / shares.sum()}


register_rule(
    PredictionRule(
        "bayesian_gmm",
        arrays,
        lambda parameters, options: gmm.place(as_mixture(parameters), options),
        options={"covariance_type": tuple(gmm.COVARIANCES)},
        check=gmm.check,
        soft=lambda parameters, options: gmm.soft(as_mixture(parameters), options),
        centres=lambda parameters, options: gmm.centres(as_mixture(parameters), options),
        outlier="Mahalanobis distance to the component",
    )
)
