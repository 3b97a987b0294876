"""Rows and jobs on the workers of a Dask cluster: two processes of this machine give the bits of this process, and may be killed."""

from __future__ import annotations

import json
import operator
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from gpuclust.algorithms import registry
from gpuclust.algorithms.cluster import Clustering
from gpuclust.algorithms.hdbscan import HdbscanConfig
from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.mixture import GmmConfig
from gpuclust.algorithms.registry import FitInput, fit
from gpuclust.compose import plan
from gpuclust.config import ScoreConfig, WorkersConfig
from gpuclust.data.files import join_paths
from gpuclust.errors import BackendError, ConfigurationError, FitError
from gpuclust.metrics.validity import score
from gpuclust.pipeline import batches, sweep
from gpuclust.pipeline.batches import choose
from gpuclust.reducers.pca import fit_components
from gpuclust.runtime.blocks import BLOCK_ROWS, DiskBlocks, DiskWriter, MemoryBlocks, Request, Run
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.forecast import plan_memory
from gpuclust.runtime.order_statistics import medians
from gpuclust.tracking import recorder as tags
from gpuclust.tracking.recorder import KILLED, MemoryRecorder
from tests.test_cluster import matrix_of

pytest.importorskip("distributed", reason="rows on workers need gpuclust[dask]")

from gpuclust.runtime import dask as module
from gpuclust.runtime import dask_blocks as blocks_module
from gpuclust.runtime.dask import connect
from gpuclust.runtime.dask_blocks import dask_blocks

LOCAL = WorkersConfig(name="dask", count=2)


@pytest.fixture(scope="session")
def workers():
    """Two worker processes, which are started again when they are killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
        yield connect(LOCAL)
        module.close()


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(8 * BLOCK_ROWS + 17, 3)).astype(np.float32)


def written(path, X):
    writer = DiskWriter(path, X.shape[1], X.dtype)
    writer.append(X)
    return writer.close()


def sums(run: Run, power: float = 1.0):
    return [(run.X[a:b].astype(np.float64) ** power).sum(axis=0) for a, b in run.edges]


def numbers(run: Run):
    return run.first_row + np.arange(len(run.X))


def count(run: Run):
    run.cache["n"] = run.cache.get("n", 0) + 1
    return [run.cache["n"]] * len(run.edges)


def slow_sums(run: Run):
    time.sleep(0.3)
    return sums(run)


def fail(run: Run):
    raise FitError("no component is left")


@pytest.mark.parametrize("n_shards", [1, 2, 3, 8])
def test_any_number_of_shards_has_the_bits_of_memory(workers, rows, quiet, n_shards):
    there, here = dask_blocks(rows, LOCAL, quiet, n_shards=n_shards), MemoryBlocks(rows)
    requests = [Request(sums, (2.0,), operator.add), Request(sums, (1.0,), operator.add), Request(numbers, (), None)]
    squares, plain, found = there.passes(requests)
    np.testing.assert_array_equal(squares, here.reduce(sums, 2.0))
    np.testing.assert_array_equal(plain, here.reduce(sums))
    np.testing.assert_array_equal(np.concatenate(found), np.arange(len(rows)))
    np.testing.assert_array_equal(there.take(np.array([70_000, 3])), rows[[70_000, 3]])


def test_workers_read_the_file_that_they_see(workers, rows, quiet, tmp_path, monkeypatch):
    on_disk = written(tmp_path / "x", rows)
    monkeypatch.setattr(blocks_module, "SEND_BYTES", 0)  # nothing may be sent
    there = dask_blocks(on_disk, LOCAL, quiet)
    np.testing.assert_array_equal(there.reduce(sums), MemoryBlocks(rows).reduce(sums))
    assert any("loading rows to 2 Dask workers" in stage for stage in quiet.stages)
    half = DiskBlocks(on_disk.path, (4 * BLOCK_ROWS, 3), np.float32, first_row=BLOCK_ROWS)
    expected = MemoryBlocks(rows[BLOCK_ROWS : 5 * BLOCK_ROWS]).reduce(sums)
    np.testing.assert_array_equal(dask_blocks(half, LOCAL, quiet).reduce(sums), expected)
    in_memory = dask_blocks(rows, LOCAL, quiet, folder=tmp_path)  # too large to send: written to a file first
    assert (in_memory.in_memory, there.in_memory) == (True, False)
    (copy,) = tmp_path.glob("gpuclust-*/rows-*")
    np.testing.assert_array_equal(in_memory.reduce(sums), there.reduce(sums))
    del in_memory
    assert not copy.parent.exists()


def test_a_worker_without_room_reads_its_file_again_in_each_pass(workers, rows, quiet, tmp_path):
    workers.everywhere(_set_share, 0.0)
    try:
        on_disk = written(tmp_path / "x", rows)
        there = dask_blocks(on_disk, LOCAL, quiet)
        held = workers.everywhere(_bytes_held, str(on_disk.path))
        assert list(held.values()) == [[0], [0]]
        np.testing.assert_array_equal(there.reduce(sums), MemoryBlocks(rows).reduce(sums))
    finally:
        workers.everywhere(_set_share, 0.5)


def _set_share(share):
    blocks_module.SHARE = share


def _bytes_held(path):
    """Of each shard of a file; those of an earlier test's file stay until Dask releases them."""
    return [shard.blocks.nbytes for shard in list(blocks_module._held) if shard.spec.path == path]


def test_rows_that_the_workers_cannot_read_are_sent_up_to_a_limit(workers, rows, quiet, tmp_path, monkeypatch):
    on_disk = written(tmp_path / "x", rows)
    monkeypatch.setattr(blocks_module, "_visible", lambda *_: False)
    np.testing.assert_array_equal(dask_blocks(on_disk, LOCAL, quiet).reduce(sums), MemoryBlocks(rows).reduce(sums))
    monkeypatch.setattr(blocks_module, "SEND_BYTES", 1000)
    with pytest.raises(BackendError, match=r"cannot read .*/x, .*set memory\.folder to a folder on a file system"):
        dask_blocks(on_disk, LOCAL, quiet)
    with pytest.raises(BackendError, match=r"cannot read .*/rows-1, .*set memory\.folder to"):
        dask_blocks(rows, LOCAL, quiet, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_an_owner_keeps_stays_on_the_worker_until_it_is_released(workers, rows, quiet):
    there = dask_blocks(rows, LOCAL, quiet)
    assert [there.reduce(count, add=max) for _ in range(2)] == [1, 2]
    there.release(0)
    assert there.reduce(count, add=max) == 1


def test_an_error_of_a_pass_is_raised_here(workers, rows, quiet):
    with pytest.raises(FitError, match="no component is left"):
        dask_blocks(rows, LOCAL, quiet).reduce(fail)


@pytest.mark.parametrize("n_killed", [1, 2])
def test_a_killed_worker_changes_no_bit(workers, rows, quiet, monkeypatch, n_killed):
    monkeypatch.setattr(blocks_module, "LOOK_SECONDS", 0.0)
    there, expected = dask_blocks(rows, LOCAL, quiet), MemoryBlocks(rows).reduce(sums)
    for victim in list(workers.everywhere(os.getpid).values())[:n_killed]:
        threading.Timer(0.1, os.kill, (victim, signal.SIGKILL)).start()
    np.testing.assert_array_equal(there.reduce(slow_sums), expected)
    deadline = time.monotonic() + 30
    while len(set(workers.holders(there._shards)) - {None}) < 2:  # the new process takes its share of the rows
        assert time.monotonic() < deadline
        time.sleep(0.1)
        np.testing.assert_array_equal(there.reduce(sums), expected)


def test_a_cluster_without_workers_is_waited_for(workers, rows, quiet, monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    addresses, first = workers.addresses, iter([[], []])
    with monkeypatch.context() as patch:
        patch.setattr(workers, "addresses", lambda: next(first, addresses()))
        tasks = module.Tasks(workers, abs)
        tasks.start(-3)
    while not (ended := tasks.ended()):
        assert tasks
    assert ended == [(-3, 3)]
    assert tasks.ended() == []
    with monkeypatch.context() as patch:
        patch.setattr(workers, "addresses", list)
        patch.setattr(module, "WORKER_SECONDS", 0.05)
        for call in (lambda: tasks.start(1), tasks.ended, lambda: dask_blocks(rows, LOCAL, quiet)):
            with pytest.raises(BackendError, match=r"no worker is left at tcp://.*; start workers with `dask worker"):
                call()
            workers._alone_since = None


QUICK = ["data=catalogue", "data.n_rows=600", "report=none", "cluster.n_init=1", "cluster=kmeans,gmm", "cluster.n_clusters=2,3,4"]  # fmt: skip
TIMES = {"load_seconds", "prepare_seconds", "fit_seconds", "score_seconds"}


def swept(context, *overrides):
    planned = plan([*QUICK, *overrides], multirun=True)
    return sweep.run(planned, sweep.jobs_of(planned, context.backend), context)


def recorded(context):
    """What is recorded of the jobs: name -> (digest of the labels, metrics without times)."""
    runs = [r for r in context.recorder.runs.values() if r.tags[tags.KIND] == "job"]
    assert len({r.start.name for r in runs}) == len(runs) == 6
    return {r.start.name: (r.tags[tags.LABELS], {k: v for k, v in r.metrics.items() if k not in TIMES}) for r in runs}


def test_jobs_on_workers_are_recorded_once_and_equal_those_here(workers, context):
    said = []
    here = replace(context, recorder=MemoryRecorder())
    there = replace(context, recorder=MemoryRecorder(), cache=ResultCache(), say=said.append)
    first, second = swept(here), swept(there, "workers=dask", "workers.count=2", "workers.use=jobs")
    assert recorded(here) == recorded(there)
    assert first.chosen.job.key == second.chosen.job.key
    assert "Dask: 6 batches of jobs on the workers (workers.use)" in said
    assert swept(there, "workers=dask", "workers.count=2").repeated


def test_a_job_that_fails_on_a_worker_is_a_failed_run(workers, context):
    result = swept(context, "workers=dask", "workers.count=2", "workers.use=jobs", "cluster.n_clusters=2,3,700")
    failed = [outcome.error for outcome in result.failed]
    assert len(failed) == 2
    assert all("n_clusters=700 is more than" in error for error in failed)


def test_jobs_of_a_killed_worker_run_again(workers, context, monkeypatch):
    start = module.Tasks.start
    begun = []

    def start_and_kill(self, item):
        start(self, item)
        begun.append(item)
        if len(begun) == 3:
            os.kill(next(iter(workers.everywhere(os.getpid).values())), signal.SIGKILL)

    monkeypatch.setattr(module.Tasks, "start", start_and_kill)
    result = swept(context, "workers=dask", "workers.count=2", "workers.use=jobs")
    assert not result.failed
    assert len(recorded(context)) == 6


def test_an_interrupt_ends_the_jobs_on_workers(workers, context, monkeypatch):
    monkeypatch.setattr(batches, "record_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        swept(context, "workers=dask", "workers.count=2", "workers.use=jobs")
    assert {run.status for run in context.recorder.runs.values()} == {KILLED}
    assert swept(replace(context, recorder=MemoryRecorder()), "workers.count=2").failed == ()


def interrupted(*_):
    raise KeyboardInterrupt


def test_a_file_that_workers_cannot_read_is_named_before_anything_is_recorded(workers, context, monkeypatch, tmp_path):
    table = pd.DataFrame({"id": range(50), "a": np.arange(50) % 7, "b": np.arange(50) % 5 * 1.0})
    table.to_csv(tmp_path / "t.csv", index=False)
    sizes = iter([1])
    monkeypatch.setattr(batches, "_size", lambda path: next(sizes))
    planned = plan([f"data.path={tmp_path / 't.csv'}", "workers=dask", "workers.count=2", "workers.use=jobs"])
    with pytest.raises(BackendError, match=r"cannot read .*t\.csv; put it on a file system that all machines share"):
        sweep.run(planned, sweep.jobs_of(planned, context.backend), context)
    assert not context.recorder.runs


def test_files_of_a_list_and_of_a_pattern_are_looked_for_on_the_workers(context, tmp_path):
    (job,) = jobs_like(context)

    def reason(*paths):
        """Why the files cannot be read on a worker that has no b.csv."""
        for name in "ab":
            (tmp_path / f"{name}.csv").write_text("x,y\n1,2\n")
        data = replace(job.config.data, path=join_paths([str(path) for path in paths]))

        def everywhere(function, path):
            (tmp_path / "b.csv").unlink(missing_ok=True)
            return {"tcp://a": function(path)}

        fake = SimpleNamespace(everywhere=everywhere)
        return batches._unreadable([replace(job, config=replace(job.config, data=data))], fake)

    assert f"tcp://a cannot read {tmp_path / 'b.csv'};" in reason("s3://bucket/x.csv", tmp_path / "b.csv")
    for path in (tmp_path / "*.csv", tmp_path, f"file://{tmp_path}/b.csv"):
        assert f"tcp://a cannot read {path};" in reason(path)
    assert reason(tmp_path / "a.csv", "https://host/x.csv") is None
    assert reason("s3://bucket/x-*.csv") is None


def test_a_matrix_stays_here_where_workers_cannot_fit_it(workers, context, rows, monkeypatch):
    kmeans, gmm = jobs_like(context, "cluster=kmeans,gmm", "workers=dask", "workers.count=2", "workers.use=rows")
    monkeypatch.setitem(registry.algorithms(), "gmm", replace(registry.get_algorithm("gmm"), fit={"cpu": fail}))
    monkeypatch.setattr(batches, "warm_up", print)
    matrix, said = replace(matrix_of(rows[:2000]), key="m"), []
    context = replace(context, say=said.append, memory=plan_memory(kmeans.config, backend="cpu"))
    hold = batches.with_workers([kmeans, gmm], 2, 2000, context).hold
    assert isinstance(hold(matrix, [kmeans]).X, blocks_module.DaskBlocks)
    assert hold(matrix, [kmeans, gmm]) is matrix
    assert batches.with_workers([gmm], 1, 2000, context).hold(matrix, [gmm]) is matrix
    gpu = SimpleNamespace(name="gpu")
    assert batches.with_workers([kmeans], 1, 2000, replace(context, backend=gpu)).batches_on == "here"
    assert said == [
        "Dask: rows on the workers (workers.use)",
        "Dask: computing here (cluster=gmm needs all rows in memory)",
        "Dask: computing here (the matrix is in the memory of the GPU)",
    ]


def test_workers_compile_a_fit_but_build_no_tree(monkeypatch):
    fitted = []
    monkeypatch.setattr(batches, "fit", lambda data, configs: fitted.append(configs[0].name))
    for config in (HdbscanConfig(), KMeansConfig()):
        batches.warm_up(config, "float32", 9)
    assert fitted == ["kmeans"]


def jobs_like(context, *overrides):
    planned = plan(["data=catalogue", *overrides], multirun=True)
    return sweep.jobs_of(planned, context.backend)


def worker(memory):
    return module.Worker("tcp://a", "a", 16, memory, {})


def test_the_use_of_workers_follows_the_memory_and_the_time_of_a_pass(context):
    gmm = ("cluster=gmm", "cluster.n_clusters=range(2,10)")
    many, huge = (jobs_like(context, f"data.n_rows={n}", *gmm) for n in (1_000_000, 100_000_000))
    two = [worker(8_000_000_000)] * 2
    assert choose(many, 8, 1_000_000, two)[0] == "jobs"
    assert choose(many, 8, 5_000_000, two, can_read=False)[0] == "rows"
    assert choose(huge, 8, 100_000_000, two)[0] == "rows"  # the table does not fit a worker
    assert choose(huge[-1:], 1, 100_000_000, two)[0] == "rows"
    assert choose(many[-1:], 1, 10_000, two)[0] == "here"  # asking the workers takes longer than a pass
    assert choose(jobs_like(context, "cluster=hdbscan"), 1, 1_000_000, two)[0] == "here"


def test_errors_of_a_connection_are_one_line(workers, free_port, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(module, "WORKER_SECONDS", 0.5)
    address = f"tcp://127.0.0.1:{free_port}"
    with pytest.raises(BackendError, match=f"no Dask scheduler answers at {address} within 1 seconds; start one with"):
        connect(WorkersConfig(name="dask", address=address))
    with pytest.raises(BackendError, match="no Dask scheduler answers at nonsense"):
        connect(WorkersConfig(name="dask", address="nonsense"))
    with pytest.raises(ConfigurationError, match="both given"):
        connect(WorkersConfig(name="dask", address=address, scheduler_file="s.json"))
    with pytest.raises(BackendError, match=r"scheduler_file=.*s\.json does not exist"):
        connect(WorkersConfig(name="dask", scheduler_file=str(tmp_path / "s.json")))
    with pytest.raises(BackendError, match=r"scheduler_file=~nosuchuser/s\.json: there is no user of that name"):
        connect(WorkersConfig(name="dask", scheduler_file="~nosuchuser/s.json"))
    with pytest.raises(BackendError, match=r"2 of 3 workers are at the Dask scheduler .* or lower workers\.count"):
        connect(WorkersConfig(name="dask", address=workers.scheduler, count=3))
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", workers.scheduler)
    with monkeypatch.context() as patch:
        patch.setattr(module, "__version__", "9.9")
        with pytest.raises(BackendError, match=r"runs gpuclust .*; install the version of this process there: pip"):
            connect(WorkersConfig(name="dask", address=workers.scheduler))
        patch.setattr(module.platform, "python_version_tuple", lambda: ("3", "99", "0"))
        with pytest.raises(
            BackendError, match=r"runs Python 3\.\d+.*; this process runs Python 3\.99: use one version"
        ):
            connect(WorkersConfig(name="dask", address=workers.scheduler))
    said = []
    (tmp_path / "s.json").write_text(json.dumps({"address": workers.scheduler}))
    connect(WorkersConfig(name="dask", scheduler_file=str(tmp_path / "s.json")), said.append).close()
    assert said[0].startswith("Dask: 2 workers on 1 machine")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(BackendError, match=r"needs Dask .*pip install 'gpuclust\[dask\]'"):
        connect(WorkersConfig(name="dask", address="tcp://127.0.0.1:1"))


@pytest.mark.parametrize(
    "config",
    [
        KMeansConfig(name="kmeans", n_clusters=4, n_init=2, max_iter=15),
        GmmConfig(name="gmm", n_clusters=3, max_iter=6, n_init=1),
    ],
    ids=lambda config: config.name,
)
def test_a_fit_on_workers_has_the_bits_of_a_fit_here(workers, quiet, config):
    rng = np.random.default_rng(1)
    X = (rng.normal(size=(300_000, 7)) + 3 * rng.integers(0, 4, (300_000, 1))).astype(np.float32)

    def fitted(blocks):
        (result,) = fit(FitInput(blocks, 0, CpuBackend(), ResultCache(0), "x"), [config])
        return result

    expected = fitted(MemoryBlocks(X))
    for n_shards in (1, 2, 3):
        there = dask_blocks(X, LOCAL, quiet, n_shards=n_shards)
        if n_shards == 2:  # a worker ends during the fit
            victim = next(iter(workers.everywhere(os.getpid).values()))
            threading.Timer(0.05, os.kill, (victim, signal.SIGKILL)).start()
        found = fitted(there)
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found.confidence, expected.confidence)
        assert found.metrics == expected.metrics
        for name, value in expected.parameters.items():
            np.testing.assert_array_equal(found.parameters[name], value)


def test_scores_medians_and_components_on_workers_are_those_of_memory(workers, rows, quiet):
    X = rows[: 3 * BLOCK_ROWS + 17].astype(np.float64)  # as raw features are
    labels = np.random.default_rng(1).integers(-1, 3, len(X)).astype(np.int32)
    sizes, nothing = np.bincount(labels[labels >= 0]), np.empty(0, np.float32)
    found = Clustering(
        "kmeans", labels, sizes, np.empty((3, 0)), nothing, None, {}, {}, {}, True, "", (), None, 0.0
    )  # fmt: skip
    sides = []
    for blocks in (MemoryBlocks(X), dask_blocks(X, LOCAL, quiet, n_shards=3)):
        matrix = replace(matrix_of(X[:1]), X=blocks)
        (scores,) = score(matrix, [found], ScoreConfig(exact_limit=10, sample_size=50), seed=0, backend=CpuBackend())
        components = fit_components(blocks, CpuBackend()).components
        sides.append((scores.metrics, medians(blocks, labels, 3).tolist(), components.tolist()))
    assert "silhouette_with_noise" in sides[0][0]
    assert sides[0] == sides[1]
