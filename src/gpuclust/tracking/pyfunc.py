"""The model that MLflow loads: placing rows with a bundle. A logged model carries this file (see `carried`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gpuclust.errors import ModelError
from gpuclust.model.bundle import Bundle
from gpuclust.model.rows import to_matrix


class ClusteringModel:
    """Rows of features in, a DataFrame with ``cluster``, ``confidence`` and ``distance`` out, in the order of the rows."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that rows must have."""
        return self.bundle.features

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Place each row of what `gpuclust.model.rows.to_matrix` takes.

        ``cluster`` is -1 for noise and missing where a row cannot be placed; ``distance`` is to the own centre, missing
        where the algorithm has none. ``params={"memberships": 3}`` adds ``cluster_1``, ``probability_1`` and so on for the likeliest clusters, and
        ``outlier``. Missing values are pandas' own, which a server writes as null. Raises MlflowException (400 Bad Request from a server) when the rows do not fit.
        """
        from mlflow.exceptions import MlflowException

        try:
            raw, index = to_matrix(model_input, self.features, self.bundle.encodings)
        except ModelError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        found = self.bundle.predict(raw)
        top = int((params or {}).get("memberships") or 0)
        columns: dict[str, Any] = {"cluster": pd.arrays.IntegerArray(found.cluster.astype(np.int64), ~found.placed)}
        for name in ("confidence", "distance"):
            values = getattr(found, name).astype(np.float64)
            columns[name] = pd.arrays.FloatingArray(values, np.isnan(values))
        if top > 0:
            try:
                soft = self.bundle.memberships(raw, top)
            except ModelError as error:
                raise MlflowException.invalid_parameter_value(str(error)) from None
            absent = np.isnan(soft.outlier)
            for i in range(soft.cluster.shape[1]):
                own, share = soft.cluster[:, i].astype(np.int64), soft.probability[:, i].astype(np.float64)
                columns[f"cluster_{i + 1}"] = pd.arrays.IntegerArray(own, absent)
                columns[f"probability_{i + 1}"] = pd.arrays.FloatingArray(share, absent)
            columns["outlier"] = pd.arrays.FloatingArray(soft.outlier.astype(np.float64), absent)
        return pd.DataFrame(columns, index=index)


def _load_pyfunc(data_path: str) -> ClusteringModel:
    """What MLflow calls to load the model from its bundle folder."""
    return ClusteringModel(Bundle.load(Path(data_path)))
