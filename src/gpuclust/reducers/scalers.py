"""Scaling of each feature, by scikit-learn's or cuML's scalers."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuclust.config import plugins
from gpuclust.model.preparation import Scaling, blocks
from gpuclust.runtime.backend import Array, Backend

# A feature whose mean is this many standard deviations from 0 is centred in float64 before anything is computed or rounded.
FAR = 32.0
# Standard deviations outside of which a feature is brought near 1 before a scaler is fitted: scikit-learn's and cuML's take
# a spread below 2e-15 for that of a constant.
SMALL, LARGE = 1e-9, 1e9


def fit_scaling(raw: Array, method: str, backend: Backend) -> Scaling:
    """The scaling of raw features (n_rows, n_features) float64, exact however far they are from 0 and however small.

    Method ``none`` keeps the units and subtracts only what would cost precision: a round number near the mean of a feature
    that is `FAR` from 0. Distances, and what follows from them, do not change.
    """
    origin, spread = _origin(raw, backend.xp)
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log2(spread))
    rounded = np.where(spread > 0, np.exp2(exponent), 1.0)
    far = (spread > 0) & (np.abs(origin) > FAR * spread)
    shift = np.where(far, np.round(origin / rounded) * rounded, 0.0)
    odd = (spread > 0) & ((spread < SMALL) | (spread > LARGE)) & (method != "none")
    unit = np.where(odd, rounded, 1.0)
    if not (far | odd).any():
        return _fit_scaler(raw, method, backend)
    moved = raw.copy()
    for j in np.flatnonzero(far | odd).tolist():
        moved[:, j] = (moved[:, j] - shift[j]) / unit[j]
    fitted = _fit_scaler(moved, method, backend)
    return Scaling(method, shift + fitted.offset * unit, fitted.scale * unit)


def _origin(raw: Array, xp: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature: (n_features,) float64 on the host, exact at any distance from 0."""
    first = raw[0]
    total = xp.zeros(raw.shape[1])
    for block in blocks(len(raw)):
        total += (raw[block] - first).sum(axis=0)
    mean = first + total / len(raw)
    total, squares = xp.zeros(raw.shape[1]), xp.zeros(raw.shape[1])
    for block in blocks(len(raw)):
        centred = raw[block] - mean
        total += centred.sum(axis=0)
        squares += (centred**2).sum(axis=0)
    off = total / len(raw)
    deviation = xp.sqrt(xp.maximum(squares / len(raw) - off**2, 0.0))
    return _host(mean + off), _host(deviation)


def _host(array: Array) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.get()


def _fit_scaler(X: Array, method: str, backend: Backend) -> Scaling:
    """The library's scaler, or a plug-in's; a constant feature keeps scale 1."""
    if method not in SCALERS:
        found: Scaling = plugins("scalers")[method].load()(X)
        return found
    if backend.name == "gpu":
        from gpuclust.reducers.gpu import fit_scaler

        return fit_scaler(X, method)
    return SCALERS[method](X)


def _standard(X: np.ndarray) -> Scaling:
    from sklearn.preprocessing import StandardScaler

    fitted = StandardScaler().fit(X)
    return Scaling("standard", fitted.mean_, fitted.scale_)


def _minmax(X: np.ndarray) -> Scaling:
    from sklearn.preprocessing import MinMaxScaler

    fitted = MinMaxScaler().fit(X)
    return Scaling("minmax", fitted.data_min_, 1.0 / fitted.scale_)


def _robust(X: np.ndarray) -> Scaling:
    from sklearn.preprocessing import RobustScaler

    fitted = RobustScaler().fit(X)
    return Scaling("robust", fitted.center_, fitted.scale_)


def _none(X: np.ndarray) -> Scaling:
    return Scaling("none", np.zeros(X.shape[1]), np.ones(X.shape[1]))


SCALERS = {"standard": _standard, "minmax": _minmax, "robust": _robust, "none": _none}
