"""Placing new rows in an exported clustering, from ``model.json`` and ``arrays.npz`` alone.

What `gpuclust.tracking.bundle.Bundle.predict` computes, in NumPy and SciPy: a server answers a few rows at a time, so
it builds the search tree once and compiles no kernel. The tests compare the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpuclust.model.files import read_model
from gpuclust.model.prediction import Place, rule_of
from gpuclust.model.schema import Description
from gpuclust.model.space import Reduction, Space, reduction_of, space_of

UNPLACED = -2
MAP_DIMENSIONS = 3
# Scaled values beyond which squares, or distances in float32, overflow, by the type of the matrix.
MAX_SCALED = 1e15
REACH = {"float32": MAX_SCALED, "float64": 1e30}


@dataclass(frozen=True)
class Placement:
    """Where rows belong: ``cluster`` (n,) int32, noise -1, -2 where a row could not be placed; ``confidence`` (n,) float32
    in [0, 1]; ``distance`` (n,) float32 to the own centre, NaN where the algorithm has none; ``coordinates`` (n, 3) float32
    on the map; NaN where not placed."""

    cluster: np.ndarray
    confidence: np.ndarray
    distance: np.ndarray
    coordinates: np.ndarray


@dataclass(frozen=True)
class Predictor:
    """A model that was read. ``bounds`` are what cleaning allowed, by feature, in original units; ``place`` is the
    algorithm, from prepared points to labels."""

    description: Description
    space: Space
    bounds: Mapping[str, tuple[float | None, float | None]]
    map: Reduction
    place: Place

    def predict(self, raw: np.ndarray) -> Placement:
        """Place rows of raw features (n, n_features) float64, in the order of ``space.features``; missing is NaN."""
        raw = np.where(np.isfinite(raw), raw, np.nan)
        usable = self._usable(raw)
        placement = Placement(
            np.full(len(raw), UNPLACED, dtype=np.int32),
            np.full(len(raw), np.nan, dtype=np.float32),
            np.full(len(raw), np.nan, dtype=np.float32),
            np.full((len(raw), MAP_DIMENSIONS), np.nan, dtype=np.float32),
        )
        if usable.any():
            found = self.place(self.space.prepare(raw[usable]))
            placement.cluster[usable], placement.confidence[usable], placement.distance[usable] = found
            axes = (self.space.scaled(raw[usable]) - self.map.mean) @ self.map.components.T / self.map.scale
            placement.coordinates[usable] = 0.0
            placement.coordinates[usable, : axes.shape[1]] = axes
        return placement

    def _usable(self, raw: np.ndarray) -> np.ndarray:
        """Which rows of raw features, missing NaN, have no `obstacle`: (n,) bool."""
        usable = np.ones(len(raw), dtype=bool)
        farthest = REACH[self.space.dtype]
        for j, feature in enumerate(self.space.features):
            values = raw[:, j]
            low, high = self.bounds.get(feature, (None, None))
            if feature not in self.space.fills:
                usable &= ~np.isnan(values)
            for limit, outside in ((low, np.less), (high, np.greater)):
                if limit is not None:
                    usable &= ~outside(values, limit)
            usable &= ~(np.abs(values / farthest - self.space.offset[j] / farthest) > self.space.scale[j])
        return usable

    def obstacle(self, row: np.ndarray) -> str | None:
        """Why a row of raw features (n_features,) cannot be placed; None when it can."""
        farthest = REACH[self.space.dtype]
        for j, (feature, value) in enumerate(zip(self.space.features, row.tolist(), strict=True)):
            low, high = self.bounds.get(feature, (None, None))
            if not np.isfinite(value):
                if feature not in self.space.fills:
                    return f"{feature} is missing"
            elif (low is not None and value < low) or (high is not None and value > high):
                return (
                    f"{feature}={value:g} is outside {_number(low)} to {_number(high)}, which the model was fitted on"
                )
            elif abs(value / farthest - self.space.offset[j] / farthest) > self.space.scale[j]:
                return f"{feature}={value:g} is too far out to be placed"
        return None


def _number(limit: float | None) -> str:
    return "any" if limit is None else f"{limit:g}"


def read_predictor(folder: Path) -> Predictor:
    """The model in a folder. Raises ModelError when it cannot be used."""
    model = read_model(folder)
    description = model.description
    parameters = {
        name.removeprefix("parameters/"): array
        for name, array in model.arrays.items()
        if name.startswith("parameters/")
    }
    return Predictor(
        description=description,
        space=space_of(model),
        bounds=description.bounds,
        map=reduction_of("map", model.arrays),
        place=rule_of(description.algorithm).place(parameters, description.all_options),
    )
