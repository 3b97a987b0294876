"""Why an item is in its cluster, in which clusters it may also belong, and how well it fits: from the model of its export."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gpuclust.errors import ModelError
from gpuclust.model.bundle import Bundle
from gpuclust.model.encodings import sums_by_column
from gpuclust.serve.records import Item
from gpuclust.serve.schemas import Membership, Why

NO_VECTORS = "the export does not hold the vectors, so what each value contributes is not known"


def why_of(item: Item, model: Bundle, names: Mapping[int, str]) -> Why:
    """What each feature of an item contributes to d(own) - d(next). Raises ModelError where the model cannot say it."""
    said = model.explain(_row(item, model))
    own, other = int(said.cluster[0]), int(said.next[0])
    by_column = sums_by_column(said.contributions, model.encodings, tuple(item.features))
    contributions = {column: float(values[0]) for column, values in by_column.items()}
    return Why(
        item.id, own, names.get(own, ""), other, names.get(other, ""),
        float(said.difference[0]), contributions, float(said.constant[0]),
    )  # fmt: skip


def memberships_of(
    item: Item, model: Bundle, names: Mapping[int, str], top: int
) -> tuple[tuple[Membership, ...], float]:
    """The likeliest clusters of an item, and its outlier score. Raises ModelError where the model has none."""
    found = model.memberships(_row(item, model), top)
    pairs = zip(found.cluster[0].tolist(), found.probability[0].tolist(), strict=True)
    return tuple(Membership(c, names.get(c, ""), share) for c, share in pairs), float(found.outlier[0])


def _row(item: Item, model: Bundle) -> np.ndarray:
    """The features (1, n_features) float64 of an item, missing NaN."""
    if len(item.features) != len(model.features):
        raise ModelError(NO_VECTORS)
    return np.array([[np.nan if value is None else value for value in item.features.values()]], dtype=np.float64)
