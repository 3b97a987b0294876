"""A random projection (Johnson and Lindenstrauss 1984) and a scaler, as an installed package would add them to gpuclust."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpuclust.config import ReduceConfig
from gpuclust.model.prediction import ArraySpec
from gpuclust.model.preparation import Array, Scaling


@dataclass(frozen=True)
class RandomProjection:
    name: ClassVar[str] = "random"
    ARRAYS: ClassVar[Mapping[str, ArraySpec]] = {"directions": ArraySpec("f", ("features", "columns"))}
    directions: np.ndarray
    explained_share: float = 1.0

    @classmethod
    def fit(cls, X: Array, config: ReduceConfig, **_: Any) -> RandomProjection:
        rng = np.random.default_rng(config.options.get("seed", 0))
        n_columns = int(config.n_components)
        return cls(rng.normal(scale=n_columns**-0.5, size=(X.shape[1], n_columns)))

    @property
    def n_columns(self) -> int:
        return self.directions.shape[1]

    def transform(self, scaled: Array, xp: Any = np) -> Array:
        return scaled @ xp.asarray(self.directions)

    def to_arrays(self) -> Mapping[str, np.ndarray]:
        return {"directions": self.directions}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> RandomProjection:
        return cls(arrays["directions"])


def by_largest(X: Array) -> Scaling:
    return Scaling("maxabs", np.zeros(X.shape[1]), np.maximum(abs(X).max(axis=0), 1e-300))
