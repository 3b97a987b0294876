"""A matrix in page-locked memory: the same rows and the same results as on disk."""

from __future__ import annotations

import operator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuclust.compose import compose
from gpuclust.pipeline import job as jobs
from gpuclust.pipeline.context import make_job
from gpuclust.runtime.blocks import BLOCK_ROWS, MemoryBlocks, Run
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.forecast import PINNED, plan_memory
from gpuclust.runtime.pinned import RUN_ROWS, PinnedBlocks, PinnedWriter

ROOT = Path(__file__).resolve().parents[1]


def block_sums(run: Run) -> list[np.ndarray]:
    return [run.X[start:stop].sum(axis=0, dtype=np.float64) for start, stop in run.edges]


@pytest.mark.parametrize("n_rows", [1, RUN_ROWS, RUN_ROWS + 5, 2 * RUN_ROWS])
def test_rows_that_are_written_in_pieces_are_the_rows(n_rows: int) -> None:
    X = np.random.default_rng(0).normal(size=(n_rows, 2)).astype(np.float32)
    writer = PinnedWriter(2, np.float32)
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
