"""Prediction with a Bayesian Gaussian mixture: the component of the greatest responsibility."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gpuclust.model import gmm
from gpuclust.model.prediction import ArraySpec, Options, Parameters, Place, PredictionRule, register_rule


def arrays(options: Options) -> Mapping[str, ArraySpec]:
    """Those of a mixture, and what the expected log density of each component has beside its Gaussian."""
    return {**gmm.arrays(options), "log_offsets": ArraySpec("f", ("clusters",))}


def place(parameters: Parameters, options: Options) -> Place:
    """As scikit-learn's BayesianGaussianMixture: a mixture whose log weights are the offsets."""
    offsets = parameters["log_offsets"].astype(np.float64)
    shares = np.exp(offsets - offsets.max())
    return gmm.place({**parameters, "weights": shares / shares.sum()}, options)


register_rule(
    PredictionRule("bayesian_gmm", arrays, place, options={"covariance_type": tuple(gmm.COVARIANCES)}, check=gmm.check)
)
