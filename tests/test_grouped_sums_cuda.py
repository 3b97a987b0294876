"""The sums over the rows of each cluster on a GPU against the CPU's scores and scikit-learn, under numba's CUDA simulator."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score

from gpuclust.metrics.grouped_sums import MAX_COLUMNS, ClusterProducts
from gpuclust.metrics.icl_gain import gain_of_products, split_gain
from gpuclust.metrics.validity import _dispersion, _validities
from gpuclust.model.records import NOISE
from gpuclust.runtime.blocks import BLOCK_ROWS, MemoryBlocks
from gpuclust.runtime.passes import PerRow

SIMULATED = """
import dataclasses
import sys
import numpy as np
from numba import cuda
from tests.gpu_fakes import simulator
from gpuclust.metrics import grouped_sums_cuda as module
from gpuclust.metrics.grouped_sums import MAX_COLUMNS

simulator.install()
given = np.load(sys.argv[1])
module.THREADS, module.MERGED = 64, 16
module.SEGMENT, module.TILE_ROWS = 50, 7  # several segments of a cluster, and several tiles of a segment
X = cuda.to_device(given["X"])
rows = module.sort_rows(given["labels"], int(given["n_clusters"]), np)
rows = dataclasses.replace(rows, order=cuda.to_device(rows.order))
centers = given["centers"]
found = {"columns": module.column_sums(X, rows, centers), "spreads": module.spreads(X, rows, centers)}
if X.shape[1] <= MAX_COLUMNS:
    found["products"] = module.products(X, rows, given["origin"])
    assert (found["products"] == module.products(X, rows, given["origin"])).all()
np.savez(sys.argv[2], **found)
"""


def clustered(n: int, d: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows around five centres, the fourth without rows, one row in the fifth, and noise."""
    rng = np.random.default_rng(3)
    labels = rng.integers(-1, 3, n).astype(np.int32)
    labels[7] = 4
    X = rng.normal(size=(n, d)) + 3 * rng.normal(size=(6, d))[labels] + 20
    return X.astype(dtype), labels


@pytest.mark.parametrize(("dtype", "d"), [("float32", 5), ("float64", 11), ("float32", 23), ("float64", 70)])
def test_simulated_sums_give_the_scores_of_the_cpu(tmp_path: Path, dtype: str, d: int) -> None:
    X, labels = clustered(400, d, dtype)
    k, sizes = 5, np.bincount(labels[labels != NOISE], minlength=5)
    host = X.astype(np.float64)
    centers = np.stack([host[labels == c].mean(axis=0) if (labels == c).any() else np.zeros(d) for c in range(-1, k)])
    np.savez(tmp_path / "given.npz", X=X, labels=labels, n_clusters=k, centers=centers, origin=host[:9].mean(axis=0))
    subprocess.run(
        [sys.executable, "-c", SIMULATED, tmp_path / "given.npz", tmp_path / "found.npz"],
        check=True,
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
    )
    found = np.load(tmp_path / "found.npz")
    for c in range(-1, k):
        gaps = host[labels == c] - centers[c + 1]
        # Sums of up to 130 differences of some units, in float64.
        np.testing.assert_allclose(found["columns"][c + 1], [gaps.sum(axis=0), (gaps**2).sum(axis=0)], atol=1e-10)
        squares = (gaps**2).sum(axis=1)
        np.testing.assert_allclose(found["spreads"][c + 1], [np.sqrt(squares).sum(), squares.sum()], rtol=1e-12)
    if d > MAX_COLUMNS:
        return
    of_clusters = found["products"][1:]
    assert (of_clusters[:, -1, -1] == sizes).all()
    products = ClusterProducts(
        host[:9].mean(axis=0), of_clusters[:, -1, -1], of_clusters[:, -1, :-1], of_clusters[:, :-1, :-1]
    )
    # The same sums in another order, and one step less for the means.
    assert gain_of_products(products) == pytest.approx(split_gain(X, labels), abs=1e-9)
    means = products.origin + products.sums / np.maximum(sizes, 1)[:, None]
    np.testing.assert_allclose(means[sizes > 0], centers[1:][sizes > 0], rtol=1e-12)


class OnDevice(MemoryBlocks):
    """Blocks in memory that say that they are on a GPU, for the code that chooses the passes."""

    def __init__(self, X: np.ndarray) -> None:
        super().__init__(X)
        self.on_device = True


def test_scores_on_a_gpu_read_the_rows_twice_and_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The passes are those of a GPU; NumPy gives what the kernels give, which the test above shows."""
    from gpuclust.metrics import grouped_sums, validity

    X, labels = clustered(BLOCK_ROWS + 500, 4, "float32")
    sizes = np.bincount(labels[labels != NOISE], minlength=5)
    clustering = SimpleNamespace(labels=labels, sizes=sizes, n_clusters=4)
    reads = []

    def products(run, labels, k, origin):  # type: ignore[no-untyped-def]
        reads.append("products")
        rows = np.c_[run.X - origin, np.ones(len(run.X))]
        own = labels.of(run)
        return [np.stack([rows[own == c].T @ rows[own == c] for c in range(-1, k)]), *[None] * (len(run.edges) - 1)]

    def spreads(run, labels, means):  # type: ignore[no-untyped-def]
        reads.append("spreads")
        squares = ((run.X - means[labels.of(run)]) ** 2).sum(axis=1)
        own = np.where(labels.of(run) == NOISE, len(means) - 1, labels.of(run))
        sums = [np.bincount(own, weights=w, minlength=len(means)) for w in (np.sqrt(squares), squares)]
        return [np.stack(sums), *[None] * (len(run.edges) - 1)]

    ((expected, _),) = _validities(X, [clustering])
    with monkeypatch.context() as patch:
        patch.setattr(grouped_sums, "_products", products)
        patch.setattr(validity, "_cluster_spreads", spreads)
        patch.setattr(validity, "MemoryBlocks", OnDevice)
        ((found, _),) = _validities(X, [clustering])
    assert reads == ["products", "spreads"]
    assert found.keys() == expected.keys() == {"split_gain", "calinski_harabasz", "davies_bouldin"}
    kept = labels != NOISE
    for name, value in found.items():
        assert value == pytest.approx(expected[name], rel=1e-9, abs=1e-9)
    host = X[kept].astype(np.float64)
    assert found["calinski_harabasz"] == pytest.approx(calinski_harabasz_score(host, labels[kept]), rel=1e-9)
    assert found["davies_bouldin"] == pytest.approx(davies_bouldin_score(host, labels[kept]), rel=1e-9)
    assert _dispersion(MemoryBlocks(X), clustering, PerRow(labels), None).items() <= expected.items()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("d", [1, 5, 11, 64, 70, 300])
def test_sums_on_a_device_are_those_of_numpy_in_every_run(dtype: str, d: int) -> None:
    cuda = pytest.importorskip("numba.cuda")
    if not cuda.is_available():
        pytest.skip("no CUDA GPU on this machine")
    from gpuclust.metrics import grouped_sums_cuda as module

    X, labels = clustered(20_000, d, dtype)
    rows = module.sort_rows(labels, 5, np)
    rows = replace(rows, order=cuda.to_device(rows.order))
    centers = np.random.default_rng(0).normal(size=(6, d)) + 20
    given = cuda.to_device(X)

    def sums() -> list[np.ndarray]:
        found = [module.column_sums(given, rows, centers), module.spreads(given, rows, centers)]
        return found if d > MAX_COLUMNS else [*found, module.products(given, rows, centers[0])]

    found = sums()
    for one, again in zip(found, sums(), strict=True):
        np.testing.assert_array_equal(one, again)
    for c in range(-1, 5):
        gaps = X[labels == c].astype(np.float64) - centers[c + 1]
        squares = (gaps**2).sum(axis=1)
        # 5,000 terms in another order
        np.testing.assert_allclose(found[0][c + 1], [gaps.sum(axis=0), (gaps**2).sum(axis=0)], rtol=1e-10, atol=1e-8)
        np.testing.assert_allclose(found[1][c + 1], [np.sqrt(squares).sum(), squares.sum()], rtol=1e-12)
        if d <= MAX_COLUMNS:
            ones = np.c_[X[labels == c].astype(np.float64) - centers[0], np.ones((labels == c).sum())]
            np.testing.assert_allclose(found[2][c + 1], ones.T @ ones, rtol=1e-10, atol=1e-8)
