"""The feature space of an exported model: raw rows to the prepared space that its clusters live in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpuclust.model.files import ModelFiles, read_model
from gpuclust.model.preparation import Reducer, projection_in

BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class Reduction:
    """A linear projection: ``(scaled - mean) @ components.T / scale``; components (n_components, n_features) float64."""

    mean: np.ndarray
    components: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class Space:
    """How raw features become points. ``offset`` and ``scale`` (n_features,) float64 in original units; ``reduction``
    None where nothing was reduced; ``fills`` what stands for a missing value; ``dtype`` of the matrix clustered."""

    features: tuple[str, ...]
    offset: np.ndarray
    scale: np.ndarray
    reduction: Reducer | None
    fills: Mapping[str, float]
    dtype: str

    @property
    def n_columns(self) -> int:
        """Dimensions of the prepared space."""
        return len(self.features) if self.reduction is None else self.reduction.n_columns

    def scaled(self, raw: np.ndarray) -> np.ndarray:
        """Raw rows (n, n_features) float64 to scaled ones, float64; a missing value is what was learned for it, else
        the middle of the scale."""
        raw = np.array(raw, dtype=np.float64, ndmin=2)
        for j, feature in enumerate(self.features):
            raw[~np.isfinite(raw[:, j]), j] = self.fills.get(feature, self.offset[j])
        return (raw - self.offset) / self.scale

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Raw rows (n, n_features) float64, missing NaN, to points (n, n_columns) in ``dtype``."""
        points = np.empty((len(raw), self.n_columns), dtype=self.dtype)
        for start in range(0, len(raw), BLOCK_ROWS):
            scaled = self.scaled(raw[start : start + BLOCK_ROWS])
            if self.reduction is not None:
                scaled = self.reduction.transform(scaled)
            points[start : start + BLOCK_ROWS] = scaled
        return points


def read_space(folder: Path) -> Space:
    """The space of the model in a folder. Raises ModelError when the model cannot be used."""
    return space_of(read_model(folder, only=("scaling/", "projection/")))


def space_of(model: ModelFiles) -> Space:
    """The space of a model that was read."""
    arrays, description = model.arrays, model.description
    return Space(
        features=tuple(description.features),
        offset=arrays["scaling/offset"].astype(np.float64),
        scale=arrays["scaling/scale"].astype(np.float64),
        reduction=projection_in(arrays, description.reduce),
        fills=description.fills,
        dtype=description.dtype,
    )


def reduction_of(name: str, arrays: Mapping[str, np.ndarray]) -> Reduction:
    """One of the projections of a model."""
    return Reduction(*(arrays[f"{name}/{part}"] for part in ("mean", "components", "scale")))
