"""The matrix that algorithms fit: the prepared rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from gpuclust.model.preparation import Preparation
from gpuclust.runtime.backend import Array, Backend
from gpuclust.runtime.blocks import RowBlocks
from gpuclust.runtime.deduplicate import Distinct, distinct_rows, worth_deduplicating, worth_deduplicating_fits


@dataclass(frozen=True)
class Matrix:
    """The prepared rows: ``X`` (n_samples, n_columns) in the configured dtype, on the backend's device or in blocks.

    ``coordinates`` (n_samples, 3) float32 on the host, or in blocks if X is, are its coordinates on the map: by default the first
    three principal components of the scaled features. ``map_metrics`` say how well another map keeps neighbours. ``key`` identifies its source and configuration; ``seconds`` is the time of its preparation. ``n_distinct`` is the number of
    distinct rows of features in the table, None if they were not counted.
    """

    X: Array | RowBlocks
    coordinates: np.ndarray | RowBlocks
    preparation: Preparation
    key: str
    seconds: float
    n_distinct: int | None = None
    notes: tuple[str, ...] = ()
    weight: np.ndarray | None = None
    """The weights of the rows (n_samples,) float64 on the host, their mean 1; None: each row counts once."""
    map_metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.X.shape[0])

    @property
    def in_blocks(self) -> bool:
        """Whether the rows are in blocks, not in one array."""
        return isinstance(self.X, RowBlocks)

    def resident(self, backend: Backend) -> Matrix:
        """The matrix with all rows in one array on the backend's device: for methods that need it, of few rows."""
        if not isinstance(self.X, RowBlocks):
            return self
        rows = np.arange(self.n_rows)
        X, coordinates = backend.to_device(self.X.take(rows)), self.coordinates
        taken = coordinates.take(rows) if isinstance(coordinates, RowBlocks) else coordinates
        return replace(self, X=X, coordinates=taken)

    @cached_property
    def distinct(self) -> Distinct | None:
        """The distinct rows, found at the first use, where scoring them alone pays; only of one array."""
        if isinstance(self.X, RowBlocks) or not worth_deduplicating(self.n_distinct, self.n_rows):
            return None
        found = distinct_rows(self.X)
        return found if worth_deduplicating(len(found.X), self.n_rows) else None

    @property
    def distinct_to_fit(self) -> Distinct | None:
        """The distinct rows where fitting them alone pays too, and where each row counts once."""
        if self.weight is not None:
            return None
        return self.distinct if worth_deduplicating_fits(self.n_distinct, self.n_rows) else None
