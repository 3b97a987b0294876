"""Matrices in blocks: every holder gives the same bits, whatever the order in which blocks are merged."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuclust.errors import BackendError
from gpuclust.runtime import blocks as module
from gpuclust.runtime.blocks import BLOCK_ROWS, DiskBlocks, DiskWriter, MemoryBlocks, MergeTree, Run, together


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(3 * BLOCK_ROWS + 17, 3)).astype(np.float32)


def written(path, X):
    writer = DiskWriter(path, X.shape[1], X.dtype)
    for start in range(0, len(X), 100_000):
        writer.append(X[start : start + 100_000])
    return writer.close()


def sums(run: Run, power: float = 1.0):
    return [(run.X[a:b].astype(np.float64) ** power).sum(axis=0) for a, b in run.edges]


def numbers(run: Run):
    return run.first_row + np.arange(len(run.X))


@given(st.integers(1, 40), st.randoms())
@settings(max_examples=60, deadline=None)
def test_the_tree_is_the_same_in_every_order(n_blocks, random):
    values = [0.1 * (i + 1) ** 3 for i in range(n_blocks)]
    expected = MergeTree(n_blocks)
    for i, value in enumerate(values):
        expected.put(0, i, value)
    edges = sorted({0, n_blocks, *(random.randrange(n_blocks + 1) for _ in range(3))})
    shards = list(itertools.pairwise(edges))
    random.shuffle(shards)
    whole = MergeTree(n_blocks)
    for first, stop in shards:  # each shard merges what it can, and its sub-trees are merged at the end
        part = MergeTree(n_blocks)
        order = list(range(first, stop))
        random.shuffle(order)
        for i in order:
            part.put(0, i, values[i])
        for (level, index), value in part.nodes.items():
            whole.put(level, index, value)
    assert whole.value == expected.value


def test_disk_and_memory_give_the_same_bits(rows, tmp_path, monkeypatch):
    on_disk, in_memory = written(tmp_path / "x", rows), MemoryBlocks(rows)
    expected = in_memory.reduce(sums, 2.0)
    np.testing.assert_array_equal(on_disk.reduce(sums, 2.0), expected)
    np.testing.assert_allclose(expected, (rows.astype(np.float64) ** 2).sum(axis=0), rtol=1e-12)
    monkeypatch.setattr(module, "RUN_BLOCKS", 1)
    np.testing.assert_array_equal(on_disk.reduce(sums, 2.0), expected)
    np.testing.assert_array_equal(np.concatenate(on_disk.collect(numbers)), np.arange(len(rows)))


@pytest.mark.parametrize("advice", [module.MADV_POPULATE_READ, 9999], ids=["mapped", "read"])
@pytest.mark.parametrize("first_row", [0, 5])
def test_rows_on_disk_are_the_same_mapped_and_read(advice, first_row, rows, tmp_path, monkeypatch):
    """A system that cannot map the pages reads them; the rows may begin anywhere in the file, and a pass may change its copy."""
    monkeypatch.setattr(module, "MADV_POPULATE_READ", advice)
    monkeypatch.setattr(module, "RUN_BLOCKS", 1)
    written(tmp_path / "x", rows)
    blocks = DiskBlocks(tmp_path / "x", (len(rows) - first_row, 3), rows.dtype, first_row)
    for _ in range(2):
        at = 0
        for first, X in blocks.runs():
            assert first * BLOCK_ROWS == at
            np.testing.assert_array_equal(X, rows[first_row + at : first_row + at + BLOCK_ROWS])
            at += len(X)
            X[:] = 0
        assert at == len(blocks)


def test_rows_that_were_moved_are_aligned_and_bring_no_cache(rows):
    blocks, sent = MemoryBlocks(rows[:99].copy()), []
    blocks.reduce(sums)
    assert blocks._caches
    message = pickle.dumps(blocks, protocol=5, buffer_callback=sent.append)
    (shifted,) = (memoryview(b"." + bytes(buffer.raw()))[1:] for buffer in sent)
    assert not np.frombuffer(shifted, rows.dtype).flags.aligned
    moved = pickle.loads(message, buffers=[shifted])
    assert moved.X.flags.aligned
    assert moved.X.flags.writeable
    assert not moved._caches
    np.testing.assert_array_equal(moved.reduce(sums), blocks.reduce(sums))


def test_rows_are_taken_by_number_in_any_order(rows, tmp_path):
    on_disk = written(tmp_path / "x", rows)
    few = np.array([len(rows) - 1, 0, BLOCK_ROWS, 5, 5])
    many = np.random.default_rng(1).permutation(len(rows))
    for numbers_ in (few, many, np.empty(0, np.int64)):
        np.testing.assert_array_equal(on_disk.take(numbers_), rows[numbers_])


def test_tasks_share_each_read(rows, tmp_path, monkeypatch):
    blocks = written(tmp_path / "x", rows)
    reads = []
    runs = DiskBlocks.runs
    monkeypatch.setattr(DiskBlocks, "runs", lambda self: reads.append(1) or runs(self))

    def task(n_passes):
        def work(shared):
            found = [shared.reduce(sums, power) for power in range(1, n_passes + 1)]
            if n_passes == 2:
                raise ValueError("this task fails")
            return found

        return work

    first, second, third = together(blocks, [task(1), task(2), task(4)])
    assert len(reads) == 4
    assert isinstance(second, ValueError)
    np.testing.assert_array_equal(first[0], third[0])
    np.testing.assert_array_equal(third[3], blocks.reduce(sums, 4))


def test_a_failing_pass_fails_its_own_task_alone(rows):
    def fail(run):
        raise BackendError("this pass fails")

    failed, found = together(MemoryBlocks(rows), [lambda b: b.reduce(fail), lambda b: b.reduce(sums)])
    assert isinstance(failed, BackendError)
    np.testing.assert_array_equal(found, MemoryBlocks(rows).reduce(sums))


def test_an_interrupt_ends_the_tasks_that_wait_for_a_pass(rows):
    """The main thread is interrupted while one task computes without a pass, and the other waits for it."""
    ended = []

    def computes(blocks):
        os.kill(os.getpid(), signal.SIGINT)  # delivered to the main thread
        time.sleep(0.5)
        blocks.reduce(sums)

    def waits(blocks):
        try:
            blocks.reduce(sums)
        except BackendError as error:
            ended.append(str(error))
            raise

    with pytest.raises(KeyboardInterrupt):
        together(MemoryBlocks(rows), [waits, computes])
    assert ended == ["the fits were interrupted"]


def test_a_pass_keeps_what_its_owner_cached(rows):
    def count(run):
        run.cache["n"] = run.cache.get("n", 0) + 1
        return [run.cache["n"]] * len(run.edges)

    blocks = MemoryBlocks(rows)
    assert blocks.reduce(count, add=max) == 1
    assert blocks.reduce(count, add=max) == 2
    assert together(blocks, [lambda b: [b.reduce(count, add=max) for _ in range(2)]] * 2)[1] == [1, 2]
    blocks.release(0)
    assert blocks.reduce(count, add=max) == 1


def test_a_short_file_is_one_line(tmp_path):
    (tmp_path / "x").write_bytes(b"\0" * 16)
    with pytest.raises(BackendError, match=r"shorter than its 10 rows"):
        DiskBlocks(tmp_path / "x", (10, 2), np.float32).take(np.array([9]))
    with pytest.raises(BackendError, match=r"shorter than its 10 rows"):
        DiskBlocks(tmp_path / "x", (10, 2), np.float32).reduce(sums)
