"""A matrix in page-locked memory: the same rows and the same results as on disk."""

from __future__ import annotations

import operator
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuclust.algorithms.mixture.fit import em_backend
from gpuclust.compose import compose
from gpuclust.pipeline import job as jobs
from gpuclust.pipeline.context import RowStorage, make_job
from gpuclust.runtime.blocks import BLOCK_ROWS, DiskBlocks, MemoryBlocks, Run
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.forecast import DISK, PINNED, plan_memory
from gpuclust.runtime.pinned import RUN_ROWS, PinnedBlocks, PinnedWriter
from tests.test_em_cuda import example

ROOT = Path(__file__).resolve().parents[1]

ROOT = Path(__file__).resolve().parents[1]


def block_sums(run: Run) -> list[np.ndarray]:
    return [run.X[start:stop].sum(axis=0, dtype=np.float64) for start, stop in run.edges]


@pytest.mark.parametrize("n_rows", [1, RUN_ROWS, RUN_ROWS + 5, 2 * RUN_ROWS])
def test_rows_that_are_written_in_pieces_are_the_rows(n_rows: int) -> None:
    X = np.random.default_rng(0).normal(size=(n_rows, 2)).astype(np.float32)
    writer = PinnedWriter(2, np.float32, CpuBackend().host_array)
    for start in range(0, n_rows, 700_001):
        writer.append(X[start : start + 700_001])
    blocks = writer.close()
    assert blocks.shape == X.shape
    assert blocks.nbytes == X.nbytes
    np.testing.assert_array_equal(np.concatenate([part for _, part in blocks.runs()]), X)
    assert [first for first, _ in blocks.runs()] == list(range(0, -(-n_rows // BLOCK_ROWS), RUN_ROWS // BLOCK_ROWS))
    rows = np.random.default_rng(1).integers(0, n_rows, 500)
    np.testing.assert_array_equal(blocks.take(rows), X[rows])
    one, other = (b.reduce(block_sums, add=operator.add) for b in (blocks, MemoryBlocks(X)))
    np.testing.assert_array_equal(one, other)  # to the bit: the same blocks


def test_a_job_with_its_matrix_in_pinned_memory_has_the_results_of_one_on_disk(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(
        [
            "data=catalogue",
            "data.n_rows=70000",
            "cluster.n_clusters=3",
            "cluster.n_init=1",
            "report=none",
            "memory.mode=disk",
        ]
    )
    found = {}
    for mode in ("disk", PINNED):
        here = replace(context, memory=replace(plan_memory(config), mode=mode), cache=ResultCache())
        (result,) = jobs.compute([make_job(config, "job", {}, "cpu")], replace(here, storage=type(here.storage)()))
        assert not isinstance(result, Exception), result
        found[mode] = result
    assert isinstance(found[PINNED].matrix.X, PinnedBlocks)
    np.testing.assert_array_equal(found[PINNED].clustering.labels, found["disk"].clustering.labels)
    times = [name for name in found["disk"].metrics if name.endswith("_seconds")]
    for name in found["disk"].metrics.keys() - set(times):
        assert found[PINNED].metrics[name] == found["disk"].metrics[name]


def test_a_table_on_disk_has_no_pinned_matrix_because_another_table_has(tmp_path: Path) -> None:
    storage, backend = RowStorage(), CpuBackend()
    disk = plan_memory(compose(["data=catalogue", "data.n_rows=100", "memory.mode=disk"]))
    kinds = {}
    for mode in (PINNED, DISK):
        plan = replace(disk, mode=mode, folder=tmp_path)
        scratch = storage.folder(plan, backend)
        assert scratch is not None
        assert storage.folder(plan, backend) is scratch
        writer = scratch.matrix_writer(2, np.float32)
        writer.append(np.ones((3, 2), np.float32))
        kinds[mode] = type(writer.close())
    assert kinds == {PINNED: PinnedBlocks, DISK: DiskBlocks}


SIMULATED = """
import sys
import numpy as np


from tests.gpu_fakes.install import install
install()
from gpuclust.algorithms.mixture import em_cuda
from gpuclust.algorithms.mixture.blocks import BlockPasses
from gpuclust.algorithms.mixture.stream_cuda import StreamedSums
from gpuclust.runtime import blocks
from tests.gpu_fakes.device import DEVICE, UP

em_cuda.TOTAL_WARPS = 2
blocks.BLOCK_ROWS, blocks.RUN_BLOCKS = 16, 2  # runs of 32 rows, of which the last has 3
given = np.load(sys.argv[1])
X = given["X"]
passes, parameters = BlockPasses(StreamedSums()), (given["weights"], given["means"], given["cholesky"], "full")
passes.em_pass(blocks.MemoryBlocks(X), *parameters)
with DEVICE.measure() as counts:
    em = passes.em_pass(blocks.MemoryBlocks(X), *parameters)
np.savez(sys.argv[2], up=[event.n_bytes for event in counts.of(UP)], **vars(em))
"""


def test_passes_of_em_stream_the_rows_to_the_device(tmp_path: Path) -> None:
    """On the simulator: the statistics of the CPU, and every row is copied once a pass."""
    given = example(99, 3, 2, "full", "float64", weighted=False)
    np.savez(tmp_path / "given.npz", **given)
    done = subprocess.run(
        [sys.executable, "-c", SIMULATED, tmp_path / "given.npz", tmp_path / "found.npz"],
        cwd=ROOT,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    wanted = em_backend("cpu").em_pass(given["X"], given["weights"], given["means"], given["cholesky"], "full")
    for name, value in vars(wanted).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-11, atol=1e-11, err_msg=name)
    run, rest = 32 * 3 * 8, 3 * 3 * 8
    copied = found["up"].tolist()
    assert [size for size in copied if size == run] == [run] * 3
    assert copied.count(rest) >= 1
    assert max(size for size in copied if size not in (run, rest)) < run  # the parameters
