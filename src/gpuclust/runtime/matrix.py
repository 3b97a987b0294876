"""The matrix that algorithms fit: the prepared rows of a table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gpuclust.model.preparation import Preparation
from gpuclust.runtime.backend import Array
from gpuclust.runtime.deduplicate import Distinct, distinct_rows, worth_deduplicating, worth_deduplicating_fits


@dataclass(frozen=True)
class Matrix:
    """The prepared rows: ``X`` (n_samples, n_columns) on the backend's device, in the configured dtype.

    ``coordinates`` (n_samples, 3) float32 on the host are the first three principal components of the scaled
    features. ``key`` names what made it; ``seconds`` is what that cost. ``n_distinct`` is how many different rows of
    features the table has, None where they were not counted.
    """

    X: Array
    coordinates: np.ndarray
    preparation: Preparation
    key: str
    seconds: float
    n_distinct: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.X.shape[0])

    @cached_property
    def distinct(self) -> Distinct | None:
        """The distinct rows, found at the first use, where scoring them alone pays; only on the host."""
        if not isinstance(self.X, np.ndarray) or not worth_deduplicating(self.n_distinct, self.n_rows):
            return None
        found = distinct_rows(self.X)
        return found if worth_deduplicating(len(found.X), self.n_rows) else None

    @property
    def distinct_to_fit(self) -> Distinct | None:
        """The distinct rows where fitting them alone pays too."""
        return self.distinct if worth_deduplicating_fits(self.n_distinct, self.n_rows) else None
