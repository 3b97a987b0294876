"""The bundle as an MLflow model, written as code (models-from-code): nothing is pickled.

MLflow runs this file when it loads the model; it needs gpuclust installed, and no GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from gpuclust.tracking.bundle import Bundle


class ClusteringModel(PythonModel):
    """Rows of features in, ``cluster``, ``confidence`` and ``distance`` out, in the order of the rows."""

    def load_context(self, context: Any) -> None:
        """Read the bundle that was logged beside this file."""
        self.bundle = Bundle.load(Path(context.artifacts["bundle"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Place each row; a row with a missing feature gets a missing cluster."""
        frame = pd.DataFrame(model_input)
        raw = frame.reindex(columns=list(self.bundle.features)).to_numpy(dtype=np.float64, na_value=np.nan)
        found = self.bundle.predict(raw)
        return pd.DataFrame(
            {
                "cluster": pd.array(np.where(found.placed, found.cluster, 0), dtype="Int64").copy(),
                "confidence": found.confidence.astype(np.float64),
                "distance": found.distance.astype(np.float64),
            },
            index=frame.index,
        ).assign(cluster=lambda out: out["cluster"].where(found.placed))


set_model(ClusteringModel())
