"""Soft memberships and outlier scores of rows, and the reason for a label: what each feature contributes to d(own) - d(next)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gpuclust.errors import ModelError
from gpuclust.model.prediction import Centres, Soft, in_threads, row_blocks
from gpuclust.model.preparation import Preparation, Projection


@dataclass(frozen=True)
class Memberships:
    """The likeliest clusters of rows: ``cluster`` (n, m) int32 and ``probability`` (n, m) float32 in [0, 1], the likeliest first, and ``outlier`` (n,)
    float32, larger for rows that fit their cluster less. A row that cannot be placed has -2 and NaN."""

    cluster: np.ndarray
    probability: np.ndarray
    outlier: np.ndarray


@dataclass(frozen=True)
class Explanation:
    """Why rows have their labels. ``cluster`` and ``next`` (n,) int32 are the own and the second nearest cluster, ``difference`` (n,) float64 is d(own) -
    d(next), ``contributions`` (n, n_features) float64 what each feature contributes to it, and ``constant`` (n,) what no feature does. A
    negative contribution speaks for the own cluster. A row that cannot be placed has -2 and NaN."""

    cluster: np.ndarray
    next: np.ndarray
    difference: np.ndarray
    contributions: np.ndarray
    constant: np.ndarray


def numbers_of(n_fitted: int, merged: Mapping[int, int]) -> np.ndarray:
    """The cluster (n_fitted,) int32 that each fitted cluster is in."""
    return np.array([merged.get(c, c) for c in range(n_fitted)], dtype=np.int32)


def memberships(soft: Soft, points: np.ndarray, merged: Mapping[int, int], top: int) -> Memberships:
    """The ``top`` likeliest clusters of points (n, n_columns); a merged cluster has the sum of the memberships in its parts. Where there are fewer
    clusters, there are fewer columns."""
    blocks = row_blocks(len(points))
    found: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def run(at: slice) -> None:
        shares, outlier = soft(points[at])
        numbers = numbers_of(shares.shape[1], merged)
        present = np.unique(numbers)
        if merged:
            shares = np.column_stack([shares[:, numbers == c].sum(axis=1) for c in present])
        order = np.argsort(-shares, axis=1, kind="stable")[:, :top]
        found[at.start] = present[order], np.take_along_axis(shares, order, axis=1), outlier

    in_threads(run, blocks)
    if not found:
        return Memberships(np.empty((0, 0), np.int32), np.empty((0, 0), np.float32), np.empty(0, np.float32))
    cluster, probability, outlier = (
        np.concatenate(part) for part in zip(*(found[at.start] for at in blocks), strict=True)
    )
    return Memberships(cluster.astype(np.int32), probability.astype(np.float32), outlier.astype(np.float32))


def explain(centres: Centres, preparation: Preparation, raw: np.ndarray, merged: Mapping[int, int]) -> Explanation:
    """The contributions of the features of rows (n, n_features), all of which can be placed.

    A squared distance to a centre is a sum over the features: (z - z of the centre) x the gradient, in the scaled space, where a reduction is
    linear. For Euclidean distances each term is divided by d(own) + d(next), so that the terms add up to d(own) - d(next).

    Raises ModelError where there is one cluster alone, or the reduction is not linear.
    """
    numbers = numbers_of(len(centres.means), merged)
    if len(np.unique(numbers)) < 2:
        raise ModelError("the model has one cluster, so there is no second nearest cluster")
    z, A = _linear(preparation, raw)
    points, back = (
        z @ A,
        np.linalg.pinv(A),
    )  # mean @ back: a point of the scaled space for each centre, whose image is the centre

    def gradient(rows: np.ndarray, c: int) -> np.ndarray:
        """(n, n_columns): half the gradient of the squared distance of rows to a centre."""
        away = points[rows] - centres.means[c]
        if centres.factors is None:
            return away
        factor = centres.factors[c]
        return np.asarray((away @ factor) @ factor.T if factor.ndim == 2 else away * factor**2)

    every = np.arange(len(raw))
    squares = np.stack(
        [np.einsum("ij,ij->i", points - mean, gradient(every, c)) for c, mean in enumerate(centres.means)], axis=1
    )
    distances = np.sqrt(np.maximum(squares, 0.0)) if centres.constant is None else 0.5 * squares - centres.constant
    own = distances.argmin(axis=1)
    second = np.where(numbers[None] == numbers[own][:, None], np.inf, distances).argmin(axis=1)
    contributions = np.zeros_like(z)
    for sign, chosen in ((1.0, own), (-1.0, second)):
        for c in np.unique(chosen):
            rows = np.flatnonzero(chosen == c)
            contributions[rows] += sign * (z[rows] - centres.means[c] @ back) * (gradient(rows, c) @ A.T)
    if centres.constant is None:
        total = distances[every, own] + distances[every, second]
        contributions *= np.divide(1.0, total, out=np.zeros(len(raw)), where=total > 0)[:, None]
        constant = np.zeros(len(raw))
    else:
        contributions *= 0.5
        constant = centres.constant[second] - centres.constant[own]
    difference = distances[every, own] - distances[every, second]
    return Explanation(numbers[own], numbers[second], difference, contributions, constant)


def _linear(preparation: Preparation, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows z (n, n_features) of the scaled space and a matrix A (n_features, n_columns) so that z @ A are the prepared rows."""
    z, projection = preparation.scaled(raw), preparation.projection
    A = np.eye(z.shape[1])
    if isinstance(projection, Projection):
        z, A = z - projection.mean, projection.components.T / projection.scale
    elif projection is not None:
        raise ModelError(f"reduce={projection.name} is not linear, so a label cannot be explained by features")
    if preparation.unit:
        length = np.linalg.norm(z @ A, axis=1, keepdims=True)
        z = z / np.where(length > 0, length, 1.0)
    return z, A
