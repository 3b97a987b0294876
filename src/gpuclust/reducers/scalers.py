"""Scaling of each feature, by passes over the rows; on a GPU, of rows that it holds, by cuML's scalers.

The numbers are those of scikit-learn's scalers: the same operations, for each block of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuclust.config import plugins
from gpuclust.errors import ConfigurationError
from gpuclust.model.preparation import Scaling
from gpuclust.runtime.backend import Array, Backend
from gpuclust.runtime.blocks import RowBlocks, Run
from gpuclust.runtime.passes import as_blocks, each_block, on_host, xp_of

# A feature whose mean is this many standard deviations from 0 is centred in float64 before anything is computed or rounded.
FAR = 32.0
# Standard deviations outside of which a feature is brought near 1 before a scaler is fitted: scikit-learn's and cuML's take
# a spread below 2e-15 for that of a constant.
SMALL, LARGE = 1e-9, 1e9
METHODS = ("standard", "minmax", "robust", "none")
EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Totals:
    """Of some rows, for each feature: the sum of the differences from a row, the sum, the least and the greatest value."""

    from_first: Array
    total: Array
    lowest: Array
    highest: Array

    def __add__(self, other: Totals) -> Totals:
        xp = xp_of(self.lowest)
        return Totals(
            self.from_first + other.from_first,
            self.total + other.total,
            xp.minimum(self.lowest, other.lowest),
            xp.maximum(self.highest, other.highest),
        )


@dataclass(frozen=True)
class FeatureStatistics:
    """Of all rows, for each feature, (n_features,) float64 on the host.

    ``mean`` and ``deviation`` (standard deviation) are exact however far the values are from 0. ``total`` is the plain sum and
    ``variance`` the variance about total / n, in scikit-learn's operations.
    """

    n_rows: int
    mean: np.ndarray
    deviation: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    total: np.ndarray
    variance: np.ndarray


def feature_statistics(raw: Array | RowBlocks) -> FeatureStatistics:
    """The statistics of raw features (n_rows, n_features) float64, NumPy, CuPy or blocks, in two reads."""
    rows = as_blocks(raw)
    n = len(rows)
    first = raw.take(np.zeros(1, np.int64))[0] if isinstance(raw, RowBlocks) else raw[0]
    found: Totals = rows.reduce(_totals, first)
    mean = first + found.from_first / n
    sums = rows.reduce(_centred, mean, found.total / n)
    off = sums[0] / n
    xp = xp_of(mean)
    deviation = xp.sqrt(xp.maximum(sums[1] / n - off**2, 0.0))
    # As `sklearn.utils.extmath._incremental_mean_and_var` corrects the second pass.
    variance = (sums[3] - sums[2] ** 2 / n) / n
    host = [on_host(a) for a in (mean + off, deviation, found.lowest, found.highest, found.total, variance)]
    return FeatureStatistics(n, *host)


def _totals(run: Run, first: Array) -> list[Totals]:
    def of(start: int, stop: int) -> Totals:
        X = run.X[start:stop]
        return Totals((X - first).sum(axis=0), X.sum(axis=0), X.min(axis=0), X.max(axis=0))

    return each_block(run, of)


def _centred(run: Run, *centres: Array) -> list[Array]:
    """For each centre (n_features,), the sums of the differences from it and of their squares: (2 * n_centres, n_features)."""

    def of(start: int, stop: int) -> Array:
        sums = []
        for centre in centres:
            gap = run.X[start:stop] - centre
            sums.append(gap.sum(axis=0))
            gap **= 2
            sums.append(gap.sum(axis=0))
        return xp_of(run.X).stack(sums)

    return each_block(run, of)


def fit_scaling(
    raw: Array | RowBlocks, method: str, backend: Backend, statistics: FeatureStatistics | None = None
) -> Scaling:
    """The scaling of raw features (n_rows, n_features) float64, exact however far they are from 0 and however small.

    ``raw`` is on the backend's device, or in blocks. Method ``none`` keeps the units and subtracts only what would cost precision:
    a round number near the mean of a feature that is `FAR` from 0. Distances, and what follows from them, do not change.

    Raises ConfigurationError where a plug-in's scaler would need all rows of blocks in memory.
    """
    found = feature_statistics(raw) if statistics is None else statistics
    origin, spread = found.mean, found.deviation
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log2(spread))
    rounded = np.where(spread > 0, np.exp2(exponent), 1.0)
    far = (spread > 0) & (np.abs(origin) > FAR * spread)
    shift = np.where(far, np.round(origin / rounded) * rounded, 0.0)
    odd = (spread > 0) & ((spread < SMALL) | (spread > LARGE)) & (method != "none")
    unit = np.where(odd, rounded, 1.0)
    move = Move(np.flatnonzero(far | odd), shift, unit)
    if method not in METHODS:
        fitted = _by_plugin(raw, method, move)
    elif backend.name == "gpu" and not isinstance(raw, RowBlocks):
        from gpuclust.reducers.gpu import fit_scaler

        fitted = fit_scaler(move.applied(raw), method)
    else:
        fitted = SCALERS[method](as_blocks(raw), move, found)
    return Scaling(method, shift + fitted.offset * unit, fitted.scale * unit) if len(move.columns) else fitted


@dataclass(frozen=True)
class Move:
    """``(x - shift) / unit`` for some ``columns`` (m,), the others as they are; ``shift`` and ``unit`` (n_features,) float64."""

    columns: np.ndarray
    shift: np.ndarray
    unit: np.ndarray

    def applied(self, X: Array) -> Array:
        """Rows (..., n_features), moved; the same array where no column is."""
        if not len(self.columns):
            return X
        moved = X.copy()
        for j in self.columns.tolist():
            moved[..., j] = (moved[..., j] - self.shift[j]) / self.unit[j]
        return moved


def _by_plugin(raw: Array | RowBlocks, method: str, move: Move) -> Scaling:
    if isinstance(raw, RowBlocks):
        raise ConfigurationError(f"scale={method} needs all rows in memory; use memory.mode=resident")
    found: Scaling = plugins("scalers")[method].load()(move.applied(raw))
    return found


def _standard(rows: RowBlocks, move: Move, found: FeatureStatistics) -> Scaling:
    """Mean and standard deviation; a constant feature (`sklearn.preprocessing._data._is_constant_feature`) keeps scale 1."""
    n = found.n_rows
    mean, variance = found.total / n, found.variance
    if len(move.columns):
        mean = rows.reduce(_moved_sums, move) / n
        sums = rows.reduce(_moved_squares, move, mean)
        variance = (sums[1] - sums[0] ** 2 / n) / n
    noise = n * EPSILON * variance + (n * mean * EPSILON) ** 2
    return Scaling("standard", mean, np.where(variance <= noise, 1.0, np.sqrt(variance)))


def _moved_sums(run: Run, move: Move) -> list[np.ndarray]:
    return each_block(run, lambda start, stop: move.applied(run.X[start:stop]).sum(axis=0))


def _moved_squares(run: Run, move: Move, centre: np.ndarray) -> list[np.ndarray]:
    return each_block(run, lambda a, b: _centred(Run(move.applied(run.X[a:b]), run.first_block), centre)[0])


def _minmax(rows: RowBlocks, move: Move, found: FeatureStatistics) -> Scaling:
    """The least value and the range; moving keeps the order."""
    lowest, highest = move.applied(found.lowest), move.applied(found.highest)
    return Scaling("minmax", lowest, 1.0 / (1.0 / _without_constants(highest - lowest)))


def _robust(rows: RowBlocks, move: Move, found: FeatureStatistics) -> Scaling:
    """The median and the range of the middle half; moving keeps the order, so that the order statistics are of the raw values."""
    from gpuclust.runtime.order_statistics import (
        QuantilePlaces,
        median_ranks,
        middle,
        order_statistics,
    )  # imports numba

    n = np.array([found.n_rows])
    quartiles = QuantilePlaces.of(n, (0.25, 0.75))
    values = move.applied(order_statistics(rows, np.concatenate([median_ranks(n)[0], quartiles.ranks[0]])))
    low, high = quartiles.interpolate(values[None, 2:])[0]
    return Scaling("robust", middle(values[:2]), _without_constants(high - low))


def _none(rows: RowBlocks, move: Move, found: FeatureStatistics) -> Scaling:
    return Scaling("none", np.zeros(rows.shape[1]), np.ones(rows.shape[1]))


def _without_constants(spread: np.ndarray) -> np.ndarray:
    return np.where(spread < 10 * EPSILON, 1.0, spread)


SCALERS: dict[str, Any] = {"standard": _standard, "minmax": _minmax, "robust": _robust, "none": _none}
