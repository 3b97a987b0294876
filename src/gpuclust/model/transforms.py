"""Transforms of single features, which make skewed features more symmetric before they are scaled: fitted elsewhere, applied here with
NumPy or CuPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# A NumPy or a CuPy array.
Array = Any

LOG, YEO_JOHNSON, QUANTILE = "log", "yeo-johnson", "quantile"
METHODS = (LOG, YEO_JOHNSON, QUANTILE)
NO_POWER = 1e-12
"""A power that is nearer to 0 than this is 0."""


@dataclass(frozen=True)
class FeatureTransform:
    """An increasing function of one feature.

    ``log``: ln(x + parameter). ``yeo-johnson``: the power transform of Yeo and Johnson (2000) with the power ``parameter``. ``quantile``: the
    rank between ``quantiles`` (m,), which do not decrease, and its score between ``scores`` (m,), those of equally spaced ranks, both
    float64 and by linear interpolation; values beyond the first and the last quantile have the score of these.
    """

    method: str
    parameter: float = 0.0
    quantiles: np.ndarray | None = None
    scores: np.ndarray | None = None

    def forward(self, x: Array, xp: Any = np) -> Array:
        """Values (...,) float64, transformed; NaN or -infinity where a logarithm does not exist."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            if self.method == LOG:
                return xp.log(x + self.parameter)
            if self.method == YEO_JOHNSON:
                up = _power(xp.where(x > 0, x, 0.0), self.parameter, xp)
                down = _power(xp.where(x < 0, -x, 0.0), 2.0 - self.parameter, xp)
                return xp.where(xp.isnan(x), x, up - down)
        quantiles, scores = xp.asarray(self.quantiles), xp.asarray(self.scores)
        ranks = xp.linspace(0.0, 1.0, len(quantiles))
        # As in scikit-learn: the mean of both directions gives a repeated quantile the middle of its ranks.
        rank = 0.5 * (xp.interp(x, quantiles, ranks) - xp.interp(-x, -quantiles[::-1], -ranks[::-1]))
        return xp.interp(rank, ranks, scores)

    def inverse(self, y: float) -> float:
        """A value that is transformed to ``y``."""
        if self.method == LOG:
            return float(np.exp(y) - self.parameter)
        if self.method == YEO_JOHNSON:
            return _root(y, self.parameter) if y >= 0 else -_root(-y, 2.0 - self.parameter)
        assert self.quantiles is not None
        assert self.scores is not None
        return float(np.interp(y, self.scores, self.quantiles))


def _power(x: Array, power: float, xp: Any) -> Array:
    """((1 + x)^power - 1) / power, and ln(1 + x) for the power 0; ``x`` is at least 0."""
    logarithm = xp.log1p(x)
    return logarithm if abs(power) < NO_POWER else xp.expm1(power * logarithm) / power


def _root(y: float, power: float) -> float:
    return float(np.expm1(y if abs(power) < NO_POWER else np.log1p(power * y) / power))


def transformed(raw: Array, transforms: Mapping[int, FeatureTransform], xp: Any = np) -> Array:
    """Rows (..., n_features) float64 with some features transformed, by their places; the same array where there are none."""
    if not transforms:
        return raw
    found = raw.copy()
    for j, transform in transforms.items():
        found[..., j] = transform.forward(raw[..., j], xp)
    return found


def transform_arrays(transforms: Mapping[int, FeatureTransform]) -> dict[str, np.ndarray]:
    """The arrays of the ``quantile`` transforms, in the order of the features: ``quantiles`` and ``scores`` (n_transforms, m)."""
    found = [transforms[j] for j in sorted(transforms) if transforms[j].method == QUANTILE]
    if not found:
        return {}
    return {name: np.array([getattr(transform, name) for transform in found]) for name in ("quantiles", "scores")}


def transforms_from(
    methods: Mapping[int, tuple[str, float]], arrays: Mapping[str, np.ndarray]
) -> dict[int, FeatureTransform]:
    """The transforms of features by their places, from their methods and parameters and the arrays of `transform_arrays`."""
    rows = iter(zip(arrays.get("quantiles", ()), arrays.get("scores", ()), strict=True))
    return {
        j: FeatureTransform(method, parameter, *(next(rows) if method == QUANTILE else ()))
        for j, (method, parameter) in sorted(methods.items())
    }
