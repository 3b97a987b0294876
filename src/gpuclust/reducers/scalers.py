"""Scaling of each feature: by passes over the rows, or by cuML's scalers for rows in the memory of a GPU.

The results equal those of scikit-learn's scalers: the same operations are applied to each block of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuclust.config import UNIT, plugins
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
METHODS = ("standard", "minmax", "robust", "none")  # of each feature; `unit` is of each row
SIDE_BY_SIDE = 64  # rows that are compared at once
EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Totals:
    """``sums`` (m, n_features) of some rows, and the smallest and the largest value of each feature."""

    sums: Array
    lowest: Array
    highest: Array

    def __add__(self, other: Totals) -> Totals:
        xp = xp_of(self.lowest)
        lowest, highest = xp.minimum(self.lowest, other.lowest), xp.maximum(self.highest, other.highest)
        return Totals(self.sums + other.sums, lowest, highest)


@dataclass(frozen=True)
class FeatureStatistics:
    """Of all rows, for each feature, (n_features,) float64 on the host.

    ``mean`` and ``deviation`` (standard deviation) are exact however far the values are from 0. ``plain``: the mean and the variance in
    the operations of scikit-learn, (2, n_features); None if no scaler needs them.
    """

    n_rows: int
    mean: np.ndarray
    deviation: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    plain: np.ndarray | None


def feature_statistics(raw: Array | RowBlocks, *, plain: bool = False) -> FeatureStatistics:
    """The statistics of raw features (n_rows, n_features) float64, NumPy, CuPy or blocks, in two reads."""
    rows = as_blocks(raw)
    n = len(rows)
    first = raw.take(np.zeros(1, np.int64))[0] if isinstance(raw, RowBlocks) else raw[0]
    xp = xp_of(first)
    origins = xp.stack([first, xp.zeros_like(first)]) if plain else first[None]
    found: Totals = rows.reduce(_totals, origins)
    means = origins + found.sums / n
    sums = rows.reduce(_centred, means)
    off = sums[0, 0] / n
    deviation = xp.sqrt(xp.maximum(sums[0, 1] / n - off**2, 0.0))
    moments = on_host(xp.stack([means[1], _variance(sums[1], n)])) if plain else None
    mean, spread, lowest, highest = map(on_host, (means[0] + off, deviation, found.lowest, found.highest))
    return FeatureStatistics(n, mean, spread, lowest, highest, moments)


def _totals(run: Run, origins: Array) -> list[Totals]:
    """Of each block, the sums of the differences from each origin (m, n_features), and the extremes."""

    def of(start: int, stop: int) -> Totals:
        X = run.X[start:stop]
        sums = [(X - origin if origin.any() else X).sum(axis=0) for origin in origins]
        return Totals(xp_of(X).stack(sums), *_extremes(X))

    return each_block(run, of)


def _extremes(X: Array) -> tuple[Array, Array]:
    """The smallest and the largest value of each column. Many rows are compared side by side, which is several times as fast in NumPy."""
    n, n_columns = X.shape
    whole = n // SIDE_BY_SIDE * SIDE_BY_SIDE
    if not whole:
        return X.min(axis=0), X.max(axis=0)
    wide, rest = X[:whole].reshape(-1, SIDE_BY_SIDE * n_columns), X[whole:]
    lowest, highest = (f(axis=0).reshape(-1, n_columns) for f in (wide.min, wide.max))
    xp = xp_of(X)
    return xp.concatenate([lowest, rest]).min(axis=0), xp.concatenate([highest, rest]).max(axis=0)


def _centred(run: Run, centres: Array) -> list[Array]:
    """Of each block, the sums of the differences from each centre (m, n_features) and of their squares: (m, 2, n_features)."""

    def of(start: int, stop: int) -> Array:
        return xp_of(run.X).stack([_sums_about(run.X[start:stop], centre) for centre in centres])

    return each_block(run, of)


def _sums_about(X: Array, centre: Array) -> Array:
    gap = X - centre
    total = gap.sum(axis=0)
    gap **= 2
    return xp_of(X).stack([total, gap.sum(axis=0)])


def _variance(sums: Array, n: int) -> Array:
    """The variance from sums about a mean (2, n_features), corrected for its rounding as in `sklearn.utils.extmath`."""
    return (sums[1] - sums[0] ** 2 / n) / n


def fit_scaling(
    raw: Array | RowBlocks, method: str, backend: Backend, statistics: FeatureStatistics | None = None
) -> Scaling:
    """The scaling of raw features (n_rows, n_features) float64, exact however far they are from 0 and however small.

    ``raw`` is on the backend's device, or in blocks. Method ``none`` keeps the units. It subtracts only a round number near the mean of a
    feature that is `FAR` from 0, to keep precision. Distances, and what follows from them, do not change.

    Raises ConfigurationError where a plug-in's scaler would need all rows of blocks in memory.
    """
    if method == UNIT:
        return Scaling(UNIT, np.zeros(raw.shape[1]), np.ones(raw.shape[1]))
    found = feature_statistics(raw, plain=method == "standard") if statistics is None else statistics
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
    if len(move.columns):
        mean = rows.reduce(_moved_sums, move) / n
        variance = _variance(rows.reduce(_moved_squares, move, mean), n)
    else:
        assert found.plain is not None
        mean, variance = found.plain
    noise = n * EPSILON * variance + (n * mean * EPSILON) ** 2
    return Scaling("standard", mean, np.where(variance <= noise, 1.0, np.sqrt(variance)))


def _moved_sums(run: Run, move: Move) -> list[np.ndarray]:
    return each_block(run, lambda start, stop: move.applied(run.X[start:stop]).sum(axis=0))


def _moved_squares(run: Run, move: Move, centre: np.ndarray) -> list[np.ndarray]:
    return each_block(run, lambda start, stop: _sums_about(move.applied(run.X[start:stop]), centre))


def _minmax(rows: RowBlocks, move: Move, found: FeatureStatistics) -> Scaling:
    """The smallest value and the range; a shift keeps the order."""
    lowest, highest = move.applied(found.lowest), move.applied(found.highest)
    return Scaling("minmax", lowest, 1.0 / (1.0 / _without_constants(highest - lowest)))


def _robust(rows: RowBlocks, move: Move, found: FeatureStatistics) -> Scaling:
    """The median and the interquartile range. A shift keeps the order, so the order statistics are computed from the raw values."""
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
