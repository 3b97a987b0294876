"""The parts of the benches that run on a GPU, on the stand-ins and on few rows.

Run by `tests.test_gpu_benches` in a process of its own.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from gpuclust.algorithms.kmeans import KMeansConfig

BENCH = Path(__file__).resolve().parents[2] / "experiments" / "bench"


def bench(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(BENCH), *sys.path])
    return importlib.import_module(name)


def groups(n_rows: int, n_features: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return 10.0 * (np.arange(n_rows) % 3)[:, None] + rng.normal(size=(n_rows, n_features))


def test_whole_fits_agree_with_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    common = bench("common", monkeypatch)
    configs = {name: [KMeansConfig(n_clusters=3, n_init=1, engine=name)] for name in ("auto", "fused")}
    found = common.whole_fits(groups(150, 2).astype(np.float32), configs, 1)
    assert set(found) == {*configs, "cpu"}
    for name, one in found.items():
        assert one["seconds"] > 0
        assert one["adjusted_rand"] == [1.0]  # of three groups that do not overlap
        assert name == "cpu" or one["same_labels_again"]


@pytest.mark.campaign
def test_the_part_of_kmeans(monkeypatch: pytest.MonkeyPatch) -> None:
    kmeans = bench("kmeans", monkeypatch)
    for name, value in {
        "ROWS": 400,
        "REPEATS": 1,
        "RESTARTS": 1,
        "SIZES": range(2, 4),
        "GPU_ITERATIONS": (8, 16),
    }.items():
        monkeypatch.setattr(kmeans, name, value)
    monkeypatch.setattr(kmeans, "real_tracks", lambda n_features: (groups(400, n_features), "made rows"))
    record = kmeans.on_gpu()
    assert set(record["float32"]["seconds"]) >= {"ours", "cuml"}
    assert set(record["whole_fits"]) == {"auto", "library", "fused", "cpu"}
