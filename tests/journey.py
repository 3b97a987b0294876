"""An algorithm on its way through everything: a sweep from the command line, its verdict, an export, predictions, the MLflow model and the API."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd

import gpuclust as gc
from gpuclust.cli import main
from gpuclust.tracking.mlflow import MlflowRecorder


@dataclass(frozen=True)
class Journey:
    """What a sweep left behind: its folder with ``rows.csv``, the store and the export ``out/``."""

    folder: Path

    @property
    def store(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def recorder(self) -> MlflowRecorder:
        return MlflowRecorder(self.store, "gpuclust")

    @property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "out" / "manifest.json").read_text())
        return found

    @property
    def exported(self) -> pd.DataFrame:
        return pd.read_parquet(self.folder / "out" / "assignments.parquet")

    def verdict(self) -> dict[str, Any]:
        (sweep,) = self.recorder.sweeps()
        document: dict[str, Any] = self.recorder.document(sweep.run_id, "verdict.json")
        return {**document, "kind": sweep.tags["gpuclust.verdict_kind"]}


def journey(folder: Path, store_template: Path, X: np.ndarray, *overrides: str) -> Journey:
    """Sweep the rows X (n, d) by the command line and export the choice."""
    (folder / "mlflow.db").write_bytes(store_template.read_bytes())
    names = [chr(ord("a") + i) for i in range(X.shape[1])]
    pd.DataFrame(X, columns=names).to_csv(folder / "rows.csv", index=False)
    done = Journey(folder)
    command = ["-m", f"data.path={folder / 'rows.csv'}", f"tracking.uri={done.store}", "backend=cpu", *overrides]
    assert main(command) == 0
    assert main(["export", "best", "--uri", done.store, "--out", str(folder / "out")]) == 0
    return done


def assert_predictions_are_the_labels(done: Journey) -> None:
    """The command, Python, the MLflow model and the API give the rows that were fitted their exported clusters."""
    exported, out = done.exported, done.folder / "new.parquet"
    features = [name for name in exported if len(str(name)) == 1 and name not in ("x", "y", "z")]
    assert main(["predict", str(done.folder / "out"), str(done.folder / "rows.csv"), "--out", str(out)]) == 0
    np.testing.assert_array_equal(pd.read_parquet(out)["cluster"], exported["cluster"])
    rows = exported[features]
    np.testing.assert_array_equal(gc.load_model(done.folder / "out").predict(rows)["cluster"], exported["cluster"])
    (output,) = done.recorder.client.get_run(done.manifest["run_id"]).outputs.model_outputs
    logged = mlflow.pyfunc.load_model(done.recorder.client.get_logged_model(output.model_id).artifact_location)
    np.testing.assert_array_equal(logged.predict(rows)["cluster"], exported["cluster"])
    answer = asyncio.run(_asked(done.folder / "out", rows.head(50).to_dict("records")))
    assert [p["cluster"] for p in answer["predictions"]] == exported["cluster"].head(50).tolist()


async def _asked(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    from gpuclust.serve.api import create_app

    app = create_app(folder)
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            answer = await client.post("/api/v1/predict", json={"rows": rows})
    finally:
        app.state.library.close()
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found
