"""The lower bounds of pyproject.toml at work: a sweep, an export, a prediction, the MLflow model, the API. Run by `make lowest`."""

from __future__ import annotations

import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd


def main() -> None:
    constraints = Path(__file__).with_name("lowest-constraints.txt").read_text().splitlines()
    for name, _, wanted in (line.partition("==") for line in constraints if line and not line.startswith("#")):
        found = version(name)
        assert (found + ".0.0").startswith(wanted), f"{name} {found} is installed, not the lower bound {wanted}"
    from gpuclust.cli import main as gpuclust

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        rng = np.random.default_rng(0)
        group = rng.integers(0, 3, 600)
        frame = pd.DataFrame({"a": group + rng.normal(0, 0.1, 600), "b": group * 100 + rng.integers(0, 9, 600)})
        frame["c"] = rng.normal(size=600)
        frame.insert(0, "id", [f"r{i}" for i in range(600)])
        frame.to_csv("rows.csv", index=False)
        base = ["-m", "data=table", "data.path=rows.csv", "backend=cpu"]
        assert gpuclust([*base, "cluster=kmeans,gmm", "cluster.n_clusters=range(2,5)"]) == 0
        assert gpuclust([*base, "cluster=hdbscan", "cluster.min_cluster_size=20,40"]) == 0
        assert gpuclust(["export", "best", "--out", "out"]) == 0
        assert gpuclust(["predict", "out", "rows.csv", "--out", "scored.parquet"]) == 0
        assert gpuclust(["playlist", "out", "--cluster", "0", "--size", "5"]) == 0
        assert gpuclust(["describe", "rows.csv"]) == 0
        assert gpuclust(["predict", "out", "rows.csv", "--out", "scored.csv"]) == 0
        served()
        logged(frame)
    print("the lower bounds work: Python", sys.version.split()[0])


def logged(frame: pd.DataFrame) -> None:
    """The MLflow models of the store place the rows."""
    import mlflow

    mlflow.set_tracking_uri("sqlite:///gpuclust-runs/mlflow.db")
    found = [path.parent for path in Path("gpuclust-runs").rglob("MLmodel")]
    assert len(found) == 2
    for path in found:
        placed = mlflow.pyfunc.load_model(str(path)).predict(frame)
        assert placed["cluster"].nunique() >= 2


def served() -> None:
    """The API's application, its document, and the explorer's modules."""
    import importlib
    import pkgutil

    import gpuclust.serve.explorer
    from gpuclust.serve.api import create_app

    assert "/api/v1/predict" in create_app("out").openapi()["paths"]
    for module in pkgutil.walk_packages(gpuclust.serve.explorer.__path__, "gpuclust.serve.explorer."):
        if not module.name.endswith(".main"):  # which runs the program
            importlib.import_module(module.name)


if __name__ == "__main__":
    main()
