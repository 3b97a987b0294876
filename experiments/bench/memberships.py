"""What memberships and outlier scores add to an export and to a prediction.

First checks the values: the likeliest cluster is the label (K-Means, mixtures), and HDBSCAN's memberships of a row add up to at most 1. Then
times in turn the prediction of all rows with and without three memberships, and the whole command ``gpuclust export`` with and without
``--memberships 3`` for K-Means.

    python experiments/bench/memberships.py [--rows 1000000] [--density-rows 100000]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
from pathlib import Path

import pandas as pd
from common import generated, heading, interleaved, write

import gpuclust as gc
from gpuclust.cli import main as command

FEATURES, TOP = 10, 3
FITTED = 100_000  # rows that the models are fitted to


def predictions(frame: pd.DataFrame, algorithm: gc.KMeans | gc.GaussianMixture | gc.HDBSCAN) -> dict[str, float]:
    """Seconds to place all rows, and to give them their memberships and outlier scores."""
    few, without = frame.head(FITTED), {"score.silhouette": False}
    bundle = gc.fit(few, algorithm, config=without, tracking=None, progress=False).model._bundle
    raw = frame.to_numpy()
    found = bundle.memberships(raw, TOP)
    if not isinstance(algorithm, gc.HDBSCAN):
        assert (found.cluster[:, 0] == bundle.assign(raw).cluster).mean() > 0.9999, "float32 ties"
    assert found.probability.sum(axis=1).max() <= 1 + 1e-5
    return interleaved({"labels": lambda: bundle.assign(raw), "memberships": lambda: bundle.memberships(raw, TOP)}, 2)


def exports(frame: pd.DataFrame) -> dict[str, float]:
    """Seconds of ``gpuclust export`` without and with memberships."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        frame.to_parquet("rows.parquet")
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"

        def run(*arguments: str) -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                assert command([*arguments]) == 0

        run("data.path=rows.parquet", "cluster.n_clusters=8", "score=quick", "report=none")
        plain = ["export", "best", "--out", "out", "--force"]
        run(*plain)  # what is read and compiled once
        seconds = interleaved({"export": lambda: run(*plain), "with memberships": lambda: run(*plain, "--memberships", str(TOP))}, 1)  # fmt: skip
    os.chdir(here)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--density-rows", type=int, default=100_000)
    options = parser.parse_args()
    names = [f"f{i}" for i in range(FEATURES)]
    frame = pd.DataFrame(generated(options.rows, FEATURES), columns=names)
    few = frame.head(options.density_rows)[names[:5]]
    environment = heading(
        "memberships", f"{options.rows:,} rows x {FEATURES}; HDBSCAN {len(few):,} x 5; {TOP} memberships"
    )
    record: dict[str, object] = {"rows": options.rows, "density_rows": len(few), "memberships": TOP}
    for name, data, algorithm in (
        ("kmeans", frame, gc.KMeans(n_clusters=8)),
        ("gmm", frame, gc.GaussianMixture(n_components=8)),
        ("hdbscan", few, gc.HDBSCAN(min_cluster_size=200)),
    ):
        seconds = predictions(data, algorithm)
        record[name] = seconds
        print(
            f"{name}: labels {seconds['labels']:.2f} s, memberships and outlier scores {seconds['memberships']:.2f} s"
        )
    seconds = exports(frame)
    record["export"] = seconds
    print(f"export: {seconds['export']:.1f} s, with --memberships {TOP} {seconds['with memberships']:.1f} s")
    write("memberships", {"environment": environment} | record)


if __name__ == "__main__":
    main()
