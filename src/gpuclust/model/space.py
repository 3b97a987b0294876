"""The feature space of an exported model: raw rows, missing values and all, to the points that its clusters live in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpuclust.model.files import read_model
from gpuclust.model.preparation import Preparation, preparation_in


@dataclass(frozen=True)
class Space:
    """A preparation, and the values by which imputation replaces a missing one, by feature."""

    preparation: Preparation
    fills: Mapping[str, float]

    @property
    def features(self) -> tuple[str, ...]:
        """The columns of raw rows, in order."""
        return self.preparation.features

    @property
    def offset(self) -> np.ndarray:
        """(n_features,) float64: what scaling subtracts."""
        return self.preparation.scaling.offset

    @property
    def scale(self) -> np.ndarray:
        """(n_features,) float64: what scaling divides by."""
        return self.preparation.scaling.scale

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Raw rows (n, n_features) float64, missing NaN, to points (n, n_columns) in the type of the matrix."""
        return self.preparation.points(self.preparation.filled(raw, self.fills))


def read_space(folder: Path) -> Space:
    """The space of the model in a folder. Raises ModelError when the model cannot be used."""
    model = read_model(folder, only=("scaling/", "projection/", "map/"))
    return Space(preparation_in(model.description, model.arrays), model.description.fills)
