"""The forecast of memory and time: its inputs before anything is read, the ladder, and what is printed."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from gpuclust import resources
from gpuclust.algorithms.mixture import GmmConfig
from gpuclust.compose import compose, plan
from gpuclust.config import Config, DataConfig, MemoryConfig, WorkersConfig, bytes_of, validate
from gpuclust.data.source_size import source_size
from gpuclust.errors import BackendError, ConfigurationError
from gpuclust.runtime import forecast as module
from gpuclust.runtime import memory
from gpuclust.runtime.forecast import TREE_SAMPLE, forecast, hdbscan_rows, plan_memory, tree_rows
from gpuclust.tracks.catalogue import catalogue


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """20,000 generated tracks as Parquet, CSV and gzip CSV, in one folder each."""
    folder = tmp_path_factory.mktemp("tracks")
    frame = catalogue(20_000, seed=1)
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / "t.parquet", row_group_size=7000)
    feather.write_feather(pa.Table.from_pandas(frame, preserve_index=False), folder / "t.feather")
    frame.to_csv(folder / "t.csv", index=False)
    frame.to_csv(folder / "t.csv.gz", index=False)
    frame.attrs["folder"] = str(folder)
    return frame


@pytest.mark.parametrize("name", ["t.parquet", "t.feather", "t.csv", "t.csv.gz"])
def test_rows_and_widths_are_known_before_reading(tracks: pd.DataFrame, name: str) -> None:
    """Footers count the rows; a sample of a text file estimates them within 5 %, as the lines of generated tracks are alike."""
    size = source_size(DataConfig(path=f"{tracks.attrs['folder']}/{name}", preset="tracks"))
    assert size.exact is name.endswith(("parquet", "feather"))
    assert size.n_rows == (len(tracks) if size.exact else pytest.approx(len(tracks), rel=0.05))
    assert size.n_features == 10
    roles = tracks[[c for c in ("track_id", "track_name", "artists", "track_genre") if c in tracks]]
    assert size.text_bytes >= 0.8 * pa.Table.from_pandas(roles, preserve_index=False).nbytes / len(tracks)


def test_the_catalogue_is_not_generated() -> None:
    size = source_size(compose(["data.n_rows=4000000000"]).data)
    assert (size.n_rows, size.exact, size.n_features) == (4_000_000_000, True, 10)


def with_memory(**values: Any) -> Config:
    config = compose(["data.n_rows=3000000"])
    return replace(config, memory=replace(config.memory, **values))


def test_the_ladder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = forecast(with_memory(limit="1TB")).resident_bytes
    resident = plan_memory(with_memory(limit=needs))
    assert resident.mode == "resident"
    streamed = plan_memory(with_memory(limit=needs - 1, folder=str(tmp_path)))
    assert (streamed.mode, streamed.limit, streamed.folder) == ("disk", needs - 1, tmp_path)
    assert "streams from disk, 0.12 GB read a pass, about" in streamed.reason
    assert plan_memory(with_memory(limit="1TB", mode="disk")).mode == "disk"
    with pytest.raises(BackendError, match=r"needs .* GB of 0.20: cannot run .*streaming from disk needs"):
        plan_memory(with_memory(limit="200MB"))
    with pytest.raises(BackendError, match=r"memory\.mode=resident; use memory.mode=auto"):
        plan_memory(with_memory(limit=needs - 1, mode="resident"))
    spread = replace(with_memory(limit=needs - 1, folder=str(tmp_path)), workers=WorkersConfig(name="dask", use="rows"))
    assert plan_memory(spread).mode == "cluster"
    assert "rows on the workers of the cluster" in plan_memory(spread).reason
    monkeypatch.setattr(module, "free_bytes", lambda folder: 1000)
    with pytest.raises(BackendError, match=r"temporary files of .* exceed the 0.00 GB free in .*set memory.folder"):
        plan_memory(with_memory(limit=needs - 1))


def test_a_table_that_does_not_fit_the_gpu_has_its_matrix_in_pinned_memory_or_on_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_device_limit", lambda: 10**9)
    found = forecast(with_memory(limit="1TB"), backend="gpu")
    assert found.rung == "pinned"
    assert "GB of the GPU's 1.0 GB: the matrix in page-locked memory" in found.text
    assert "the CPU computes the fits" in found.text
    assert found.disk_bytes < found.pinned_bytes < found.resident_bytes
    mixture = replace(with_memory(limit="1TB"), cluster=GmmConfig())
    assert "each pass of EM streams to it" in forecast(mixture, backend="gpu").text
    assert forecast(with_memory(limit=found.pinned_bytes - 1), backend="gpu").rung == "disk"
    assert forecast(with_memory(limit="1TB", mode="disk"), backend="gpu").rung == "disk"
    assert forecast(with_memory(limit=found.pinned_bytes), backend="cpu").rung == "disk"
    monkeypatch.setattr(module, "_device_limit", lambda: 10**11)
    assert forecast(with_memory(limit="1TB"), backend="gpu").rung == "resident"


def test_only_large_jobs_are_announced() -> None:
    small = forecast(compose(["data.n_rows=20000", "memory.limit=8GB"]))
    assert small.rung == "resident"
    assert not small.noteworthy
    assert forecast(compose(["data.n_rows=20000000", "memory.limit=100GB"])).noteworthy
    assert forecast(compose(["data.n_rows=20000", "memory.limit=8GB", "memory.mode=disk"])).noteworthy


def test_a_sweep_takes_the_largest_peak_and_the_time_of_all_its_jobs() -> None:
    jobs = [job.config for job in plan(["data.n_rows=500000", "cluster=kmeans,gmm"], multirun=True).jobs]
    alone, together = [forecast(job) for job in jobs], forecast(jobs)
    assert together.resident_bytes == max(one.resident_bytes for one in alone)
    assert max(one.seconds for one in alone) < together.seconds < sum(one.seconds for one in alone)


def test_the_tree_of_hdbscan_is_of_a_sample_where_it_does_not_fit() -> None:
    assert hdbscan_rows(8 * 10**9, 10) > 2 * hdbscan_rows(4 * 10**9, 10) > 0
    assert hdbscan_rows(4 * 10**9, 20) < hdbscan_rows(4 * 10**9, 10)
    found = forecast(compose(["data.n_rows=40000000", "cluster=hdbscan", "memory.limit=4GB"]))
    assert found.tree_rows == tree_rows(40_000_000, 10, 4 * 10**9) == TREE_SAMPLE
    asked = ["data.n_rows=40000000", "cluster=hdbscan", "cluster.sample_rows=90000", "memory.limit=4GB"]
    assert forecast(compose(asked)).tree_rows == 90_000
    assert tree_rows(2000, 10, 1) == hdbscan_rows(1, 10) < 2000
    assert tree_rows(10_000, 10, 4 * 10**9) == 10_000
    assert f"HDBSCAN's tree of {found.tree_rows:,} of 40,000,000 rows" in found.text


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4e9), ("4 GiB", 4 * 2**30), ("1.5gb", 1.5e9), (4e9, 4e9), ("500000000", 5e8), ("2TB", 2e12)],
)
def test_sizes_of_memory(text: str | float, size: float) -> None:
    assert bytes_of(text) == size
    assert compose([f"memory.limit={text}".replace(" ", "")]).memory.limit != "auto"


@pytest.mark.parametrize("text", ["4XB", "-1", "lots", "10MB", "nan"])
def test_a_wrong_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"memory.limit=.* is not auto, or at least 100MB, as in 4GB"):
        compose([f"memory.limit={text}"])


def test_memory_changes_no_key() -> None:
    from gpuclust.pipeline.context import make_job

    jobs = [make_job(compose(over), "job", {}, "cpu") for over in ([], ["memory=disk", "memory.limit=4GB"])]
    assert jobs[0].key == jobs[1].key
    with pytest.raises(ConfigurationError, match="memory changes no result"):
        plan(["memory.mode=disk,resident"], multirun=True)


def test_the_limit_is_what_rlimit_leaves() -> None:
    """A process of its own with 3 GB of address space: it may take what is left of them."""
    code = (
        "import resource, psutil; resource.setrlimit(resource.RLIMIT_AS, (3 * 10**9, 3 * 10**9));"
        "from gpuclust.resources import available_memory;"
        "left = 3 * 10**9 - psutil.Process().memory_info().vms; found = available_memory();"
        "assert abs(found - left) < 5e7 or found < left, (found, left)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_limit_on_address_space_is_not_spent_on_reserves() -> None:
    """A command under RLIMIT_AS takes its memory from few arenas; by default Arrow alone reserves 1 GiB."""
    code = (
        "import resource, psutil, sys; from gpuclust import cli;"
        "limit = 8 * 10**9 if sys.argv[1] == 'limit' else resource.RLIM_INFINITY;"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit)); assert cli.main(['--version']) == 0;"
        "import pyarrow as pa; before = psutil.Process().memory_info().vms;"
        "column = pa.array(range(10**5)).cast('int32'); print(psutil.Process().memory_info().vms - before)"
    )
    grown = []
    for how in ("limit", "none"):
        done = subprocess.run([sys.executable, "-c", code, how], capture_output=True, text=True, check=True, timeout=60)
        grown.append(int(done.stdout.split()[-1]))
    assert grown[0] < 1e8 < 9e8 < grown[1]


def test_the_limit_is_what_the_cgroup_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text("1000000000\n")
    (folder / "memory.usage_in_bytes").write_text("700000000\n")
    (folder / "memory.stat").write_text("cache 5\ntotal_inactive_file 200000000\n")
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    monkeypatch.setattr(resources, "_cgroup_folders", lambda: iter([(folder, names)]))
    assert resources.available_memory() == 500_000_000
    monkeypatch.undo()
    assert 0 < resources.available_memory() < 2**60


def test_the_scratch_folder(tmp_path: Path) -> None:
    assert memory.scratch_folder(MemoryConfig(folder=str(tmp_path / "new"))) == tmp_path / "new"
    assert memory.scratch_folder(MemoryConfig()).is_dir()


def test_a_scratch_folder_that_cannot_be_written_is_refused(locked: Path) -> None:
    with pytest.raises(BackendError, match=r"memory.folder=.* cannot be written; name a folder"):
        memory.scratch_folder(MemoryConfig(folder=str(locked / "below")))


def test_a_scratch_folder_of_an_unknown_user_is_refused() -> None:
    with pytest.raises(
        BackendError, match=r"^memory\.folder=~nosuchuser/x: there is no user of that name; give the path"
    ):
        memory.scratch_folder(MemoryConfig(folder="~nosuchuser/x"))


def run(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "gpuclust", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def test_cost_prints_the_forecast_and_runs_nothing(tmp_path: Path, tracks: pd.DataFrame) -> None:
    path = f"{tracks.attrs['folder']}/t.parquet"
    said = run("--cost", f"data.path={path}", "memory.limit=4GB", cwd=tmp_path)
    assert said.startswith("20,000 rows × 10 features: needs 0.")
    assert " GB of 4.0: all rows in memory, about" in said
    assert "read a pass" in said
    said = run("-m", "--cfg", "--cost", f"data.path={path}", "cluster=kmeans,gmm", cwd=tmp_path)
    assert "\n# 2 jobs, 20,000 rows" in said
    import yaml

    assert yaml.safe_load(said)["memory"] == {"limit": "auto", "mode": "auto", "folder": None}
    assert not list(tmp_path.iterdir())


def test_validate_refuses_a_mode_that_does_not_exist() -> None:
    with pytest.raises(ConfigurationError, match=r"memory.mode=ram is not one of auto, resident, disk"):
        validate(replace(compose([]), memory=MemoryConfig(mode="ram")))


def test_wider_tables_need_more(tmp_path: Path) -> None:
    for n_columns in (3, 30):
        X = np.random.default_rng(0).normal(size=(1000, n_columns))
        pq.write_table(pa.table({f"f{i}": X[:, i] for i in range(n_columns)}), tmp_path / f"{n_columns}.parquet")
    narrow, wide = (forecast(compose([f"data.path={tmp_path}/{n}.parquet"])) for n in (3, 30))
    assert wide.resident_bytes > narrow.resident_bytes
    assert wide.pass_bytes == 10 * narrow.pass_bytes == 1000 * 30 * 4


def test_a_large_job_is_announced_and_every_run_has_the_forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job on 2,000 rows says nothing; where a job of a minute is small, it says what it needs. Both runs have the tag."""
    from gpuclust.cli import main
    from gpuclust.tracking.mlflow import MlflowRecorder

    monkeypatch.chdir(tmp_path)
    job = ["data=catalogue", "data.n_rows=2000", "cluster.n_init=1", "report=none", "score=none", "backend=cpu"]
    assert main(job) == 0
    assert "needs" not in capsys.readouterr().err
    monkeypatch.setattr(module, "QUIET_SECONDS", 0)
    assert main([*job, "seed=1"]) == 0
    assert "all rows in memory, about" in capsys.readouterr().err
    runs = MlflowRecorder(None, "gpuclust").finished_jobs().values()
    assert all(re.match(r"needs 0\.\d+ GB of ", run.tags["gpuclust.forecast"]) for run in runs)
    assert len(runs) == 2
