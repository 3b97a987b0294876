"""Rows placed among landmarks: rows whose positions on a map, or in a reduced space, are known.

UMAP, PaCMAP and t-SNE give positions to the rows that they were fitted on, and to no function of a row. A fit of a sample and this placement give
positions to all rows of a table, and to new rows, with NumPy alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from gpuclust.model.prediction import ArraySpec

# A NumPy or a CuPy array.
Array = Any

N_NEIGHBORS = 5
"""Landmarks that a row is placed by."""
MAX_SEARCHED = 64
"""The number of principal components in which landmarks are searched, where rows have more columns."""
NEAR_CELLS = 12
"""Cells of landmarks in which the neighbours of a row are searched: its own, and those nearest to it."""
LABELS = {"pca": "PC", "umap": "UMAP", "pacmap": "PaCMAP", "tsne": "t-SNE"}
"""The name of a method on an axis."""


def landmark_arrays(of: str, inputs: str, outputs: str) -> dict[str, ArraySpec]:
    """The arrays of landmarks in a model: ``of`` is a part of it, ``inputs`` and ``outputs`` are the axes of its rows and their positions."""
    return {
        "mean": ArraySpec("f", (inputs,)),
        "directions": ArraySpec("f", (f"{of} directions", inputs)),
        "cells": ArraySpec("f", (f"{of} cells", f"{of} directions")),
        "landmarks": ArraySpec("f", (f"{of} landmarks", f"{of} directions")),
        "positions": ArraySpec("f", (f"{of} landmarks", outputs)),
    }


@dataclass(frozen=True)
class Landmarks:
    """Landmarks, and the placement of rows among them.

    ``mean`` (n_columns,) and ``directions`` (m, n_columns) float64 project a row into the space in which its neighbours are searched, Euclidean.
    ``landmarks`` (n, m) float32 are there, and ``cells`` (n_cells, m) float32 are centres that divide them. ``positions`` (n, n_outputs) float32
    are their positions.
    """

    name: str
    mean: np.ndarray
    directions: np.ndarray
    cells: np.ndarray
    landmarks: np.ndarray
    positions: np.ndarray

    @property
    def n_columns(self) -> int:
        """Number of columns that `transform` gives."""
        return int(self.positions.shape[1])

    @property
    def label(self) -> str:
        """The name of the method on an axis."""
        return LABELS.get(self.name, self.name)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What `from_arrays` reads."""
        return {name: getattr(self, name) for name in ARRAY_NAMES}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], name: str) -> Landmarks:
        """The landmarks that `to_arrays` gave, of a method."""
        return cls(name, *(arrays[part] for part in ARRAY_NAMES))

    def projected(self, rows: np.ndarray) -> np.ndarray:
        """Rows (n_rows, n_columns) in the space of the landmarks, float32."""
        return project(rows, self.mean, self.directions)

    def transform(self, rows: Array, xp: Any = np) -> Array:
        """Rows (n_rows, n_columns) to their positions (n_rows, n_outputs) float64, by ``xp``, NumPy or CuPy; computed on the host.

        A position is the mean of those of the 5 nearest landmarks, weighted by 1 / d²; a row that equals a landmark gets its position. Neighbours
        are searched in the nearest cells of landmarks, so that the fifth of a row at the border of a cell can be a slightly farther one.
        """
        points = self.projected(rows if xp is np else rows.get())
        placed = np.empty((len(points), self.n_columns))
        own = nearest_cell(points, self.cells)
        order = np.argsort(own, kind="stable")
        starts = np.searchsorted(own[order], np.arange(len(self.cells) + 1))
        for cell in np.flatnonzero(np.diff(starts)):
            of_cell = order[starts[cell] : starts[cell + 1]]
            placed[of_cell] = self._place(points[of_cell], self._candidates[cell])
        return placed if xp is np else xp.asarray(placed)

    def _place(self, points: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """The positions of points (n, m) among some landmarks."""
        known = self.landmarks[candidates]
        count = min(N_NEIGHBORS, len(candidates))
        centre = known.mean(axis=0)  # products of values near 0 are exact enough to find neighbours
        near, far = points - centre, known - centre
        squares = (far * far).sum(axis=1) - 2 * near @ far.T
        chosen = np.argpartition(squares, count - 1, axis=1)[:, :count]
        exact = points[:, None, :] - known[chosen]
        distances = np.einsum("ijk,ijk->ij", exact, exact, dtype=np.float64)
        weights = 1.0 / np.maximum(distances, np.maximum(distances.max(axis=1, keepdims=True) * 1e-12, 1e-60))
        weights /= weights.sum(axis=1, keepdims=True)
        return np.einsum("ij,ijk->ik", weights, self.positions[candidates[chosen]].astype(np.float64))

    @cached_property
    def _candidates(self) -> list[np.ndarray]:
        """For each cell, the landmarks of the cells that are searched, ascending."""
        own = nearest_cell(self.landmarks, self.cells)
        members = [np.flatnonzero(own == cell) for cell in range(len(self.cells))]
        squares = ((self.cells[:, None, :] - self.cells) ** 2).sum(axis=2)
        found = []
        for cell in range(len(self.cells)):
            nearest = np.argsort(squares[cell], kind="stable")
            enough = np.searchsorted(np.cumsum([len(members[c]) for c in nearest]), N_NEIGHBORS) + 1
            found.append(np.sort(np.concatenate([members[c] for c in nearest[: max(NEAR_CELLS, enough)]])))
        return found


ARRAY_NAMES = tuple(landmark_arrays("", "", ""))


@dataclass(frozen=True)
class LandmarkReduction:
    """A reduction of the scaled features to positions among landmarks (see `gpuclust.model.preparation.Reducer`)."""

    name: ClassVar[str]
    ARRAYS: ClassVar[Mapping[str, ArraySpec]] = landmark_arrays("projection", "features", "columns")

    landmarks: Landmarks

    @property
    def n_columns(self) -> int:
        """Number of columns that `transform` gives."""
        return self.landmarks.n_columns

    @property
    def explained_share(self) -> float:
        """NaN: positions are no projection, so that they keep no share of the variance."""
        return float("nan")

    def transform(self, scaled: Array, xp: Any = np) -> Array:
        """Scaled rows (n_rows, n_features) float64 to their positions (n_rows, n_columns) float64."""
        return self.landmarks.transform(scaled, xp)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What `from_arrays` reads."""
        return self.landmarks.to_arrays()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """The reduction that `to_arrays` gave."""
        return cls(Landmarks.from_arrays(arrays, cls.name))


def project(rows: np.ndarray, mean: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Rows (n_rows, n_columns) in the given directions from a mean: (n_rows, n_directions) float32."""
    return ((rows - mean) @ directions.T).astype(np.float32)


def nearest_cell(points: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The nearest cell (n,) int64 of each point (n, m)."""
    squares = (cells * cells).sum(axis=1) - 2 * points @ cells.T
    return np.asarray(squares.argmin(axis=1))
