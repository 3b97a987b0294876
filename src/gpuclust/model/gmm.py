"""Prediction with a Gaussian mixture: the component of the greatest responsibility."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gpuclust.errors import ModelError
from gpuclust.model.prediction import ArraySpec, Options, Parameters, Place, Placed, PredictionRule, register_rule

# Shapes of the covariances and of the Cholesky factors of the precisions, as in scikit-learn.
COVARIANCES = {
    "full": ("clusters", "columns", "columns"),
    "tied": ("columns", "columns"),
    "diag": ("clusters", "columns"),
    "spherical": ("clusters",),
}


def arrays(options: Options) -> Mapping[str, ArraySpec]:
    """The arrays of a mixture of the given ``covariance_type``."""
    axes = COVARIANCES[options["covariance_type"]]
    return {
        "weights": ArraySpec("f", ("clusters",)),
        "means": ArraySpec("f", ("clusters", "columns")),
        "covariances": ArraySpec("f", axes, finite=False),
        "precisions_cholesky": ArraySpec("f", axes),
    }


def check(parameters: Parameters, options: Options) -> None:
    """The weights are shares, and every Cholesky factor of a precision has a positive diagonal."""
    weights, cholesky = parameters["weights"], parameters["precisions_cholesky"]
    if (weights < 0).any() or abs(weights.sum() - 1.0) > 1e-3:
        raise ModelError("the array parameters/weights has negative values or does not add up to 1")
    triangular = options["covariance_type"] in ("full", "tied")
    diagonals = np.diagonal(cholesky, axis1=-2, axis2=-1) if triangular else cholesky
    if not (diagonals > 0).all():
        raise ModelError("the array parameters/precisions_cholesky has values on its diagonal that are not positive")


def place(parameters: Parameters, options: Options) -> Place:
    """The greatest responsibility, which is the confidence; precisions as scikit-learn shapes them."""
    weights, means, cholesky = (parameters[n].astype(np.float64) for n in ("weights", "means", "precisions_cholesky"))
    kind, (k, d) = options["covariance_type"], means.shape
    # Of each component: the upper triangle (d, d), or the diagonal (d,), of its precision's Cholesky factor.
    factors = {"full": lambda: cholesky, "tied": lambda: np.broadcast_to(cholesky, (k, d, d)), "diag": lambda: cholesky,
               "spherical": lambda: np.repeat(cholesky[:, None], d, axis=1)}[kind]()  # fmt: skip
    diagonals = factors if factors.ndim == 2 else np.diagonal(factors, axis1=1, axis2=2)
    with np.errstate(divide="ignore"):
        constant = np.log(weights) + np.log(diagonals).sum(axis=1) - 0.5 * d * np.log(2 * np.pi)

    def run(points: np.ndarray) -> Placed:
        points = points.astype(np.float64)
        scores = np.empty((len(points), k))
        for c in range(k):
            away = points - means[c]
            whitened = away @ factors[c] if factors.ndim == 3 else away * factors[c]
            scores[:, c] = constant[c] - 0.5 * np.einsum("ij,ij->i", whitened, whitened)
        labels = scores.argmax(axis=1)
        confidence = 1.0 / np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)
        away = points - means[labels]
        return labels, confidence, np.sqrt(np.einsum("ij,ij->i", away, away))

    return run


register_rule(PredictionRule("gmm", arrays, place, options={"covariance_type": tuple(COVARIANCES)}, check=check))
