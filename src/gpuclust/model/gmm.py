"""Prediction with a Gaussian mixture: the component of the greatest responsibility."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gpuclust.errors import ModelError
from gpuclust.model.prediction import (
    ArraySpec,
    Centres,
    Options,
    Parameters,
    Place,
    Placed,
    PredictionRule,
    Soft,
    register_rule,
)

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


def centres(parameters: Parameters, options: Options) -> Centres:
    """The components; precisions as scikit-learn shapes them.

    Each factor is the upper triangle (d, d), or the diagonal (d,), of the precision's Cholesky factor.
    """
    weights, means, cholesky = (parameters[n].astype(np.float64) for n in ("weights", "means", "precisions_cholesky"))
    kind, (k, d) = options["covariance_type"], means.shape
    factors = {"full": lambda: cholesky, "tied": lambda: np.broadcast_to(cholesky, (k, d, d)), "diag": lambda: cholesky,
               "spherical": lambda: np.repeat(cholesky[:, None], d, axis=1)}[kind]()  # fmt: skip
    diagonals = factors if factors.ndim == 2 else np.diagonal(factors, axis1=1, axis2=2)
    with np.errstate(divide="ignore"):
        constant = np.log(weights) + np.log(diagonals).sum(axis=1) - 0.5 * d * np.log(2 * np.pi)
    return Centres(means, factors, constant)


def log_densities(points: np.ndarray, components: Centres) -> tuple[np.ndarray, np.ndarray]:
    """log(weight x density) and squared Mahalanobis distances, both (n, n_clusters) float64, of points (n, n_columns) in the components."""
    means, factors, constant = components.means, components.factors, components.constant
    assert factors is not None
    assert constant is not None
    squares = np.empty((len(points), len(means)))
    for c in range(len(means)):
        away = points - means[c]
        whitened = away @ factors[c] if factors.ndim == 3 else away * factors[c]
        squares[:, c] = np.einsum("ij,ij->i", whitened, whitened)
    return constant - 0.5 * squares, squares


def soft(parameters: Parameters, options: Options) -> Soft:
    """The responsibilities. The outlier score is the Mahalanobis distance to the component of the greatest one."""
    components = centres(parameters, options)

    def run(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores, squares = log_densities(points.astype(np.float64), components)
        likelihood = np.exp(scores - scores.max(axis=1, keepdims=True))
        own = scores.argmax(axis=1)
        return likelihood / likelihood.sum(axis=1, keepdims=True), np.sqrt(squares[np.arange(len(own)), own])

    return run


def place(parameters: Parameters, options: Options) -> Place:
    """The greatest responsibility, which is the confidence."""
    components = centres(parameters, options)
    means = components.means

    def run(points: np.ndarray) -> Placed:
        points = points.astype(np.float64)
        scores, _ = log_densities(points, components)
        labels = scores.argmax(axis=1)
        confidence = 1.0 / np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)
        away = points - means[labels]
        return labels, confidence, np.sqrt(np.einsum("ij,ij->i", away, away))

    return run


register_rule(
    PredictionRule(
        "gmm",
        arrays,
        place,
        options={"covariance_type": tuple(COVARIANCES)},
        check=check,
        soft=soft,
        centres=centres,
        outlier="Mahalanobis distance to the component",
    )
)
