"""Scratch folders, and a table's frame on disk: its rows, columns and types are those of the pandas frame."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gpuclust.data.disk_frame import GROUP_ROWS, DiskFrameWriter
from gpuclust.data.frames import TEXT_LIST, PandasFrames
from gpuclust.errors import BackendError
from gpuclust.runtime.scratch import MARK, Scratch


@pytest.fixture
def scratch(tmp_path):
    with Scratch(tmp_path) as scratch:
        yield scratch


@pytest.fixture(scope="module")
def frame():
    n = 2 * GROUP_ROWS + 1000
    rng = np.random.default_rng(0)
    texts = pd.Series([None if i % 7 == 0 else f"név {i}" for i in range(n)], dtype="str")
    lists = pd.Series([None if i % 5 == 0 else ["a", f"b{i % 3}"] for i in range(n)], dtype=TEXT_LIST)
    year = pd.Series(rng.integers(1950, 2020, n), dtype="int32")
    when = pd.Series(np.datetime64("2020-01-01", "ms") + np.arange(n))
    made = {"id": np.arange(n) * 3, "title": texts, "x": rng.normal(size=n), "group": lists, "year": year, "when": when,
            "flag": pd.Series([True, None] * (n // 2), dtype=object), "y": rng.normal(size=n), "popularity": np.where(rng.random(n) < 0.1, np.nan, 5.0)}  # fmt: skip
    return pd.DataFrame(made)


def written(frame, scratch, step=50_000):
    with DiskFrameWriter(scratch, ["x", "y"]) as writer:
        for start in range(0, len(frame), step):
            writer.append(frame[start : start + step].reset_index(drop=True))
        return writer.close()


def test_the_frame_is_the_pandas_frame(frame, scratch):
    disk = written(frame, scratch)
    assert len(disk) == len(frame)
    assert disk.shape == frame.shape
    assert disk.columns.equals(frame.columns)
    assert disk.dtypes.equals(frame.dtypes)
    pd.testing.assert_frame_equal(disk.to_pandas(), frame)
    pd.testing.assert_frame_equal(disk[["year", "x"]].to_pandas(), frame[["year", "x"]])
    assert PandasFrames().to_pandas(disk[["x"]])["x"].equals(frame["x"])
    with pytest.raises(KeyError, match="nothing"):
        disk[["nothing"]]


@pytest.mark.parametrize("rows", [1, GROUP_ROWS, 2 * GROUP_ROWS, 10**7])
def test_batches_are_the_rows_in_order(frame, scratch, rows):
    disk = written(frame, scratch, step=GROUP_ROWS)
    batches = list(disk.batches(["y", "id"], rows))
    assert len(batches) == -(-len(frame) // (-(-rows // GROUP_ROWS) * GROUP_ROWS))
    pd.testing.assert_frame_equal(pd.concat(batches, ignore_index=True), frame[["y", "id"]])


def test_rows_by_their_numbers(frame, scratch, seed):
    disk = written(frame, scratch)
    rows = np.random.default_rng(seed).integers(0, len(frame), 500)
    pd.testing.assert_frame_equal(disk.iloc[rows], frame.iloc[rows].reset_index(drop=True))
    pd.testing.assert_frame_equal(disk[["x"]].iloc[rows], frame[["x"]].iloc[rows].reset_index(drop=True))
    pd.testing.assert_frame_equal(disk.iloc[:3], frame.iloc[:3])
    pd.testing.assert_frame_equal(disk.iloc[[-1]], frame.iloc[[-1]].reset_index(drop=True))
    assert disk.iloc[np.array([], int)].dtypes.equals(frame.dtypes)


def test_values_are_blocks(frame, scratch):
    disk = written(frame, scratch)
    every = np.arange(len(frame))
    assert (disk.values_of(["x", "y"]).take(every) == frame[["x", "y"]].to_numpy()).all()
    other = disk.values_of(["y"])
    assert (other.take(every) == frame[["y"]].to_numpy()).all()
    assert disk[["y"]].values_of(["y"]) is other


def test_a_scratch_folder_is_removed(tmp_path):
    with Scratch(tmp_path / "new") as scratch:
        scratch.file("a").write_bytes(b"1")
        assert scratch.file("a") != scratch.file("a")
        assert scratch.path.name.startswith(f"gpuclust-{os.getpid()}-")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("name", ["features", "columns"])
def test_a_full_disk_is_one_line(frame, scratch, monkeypatch, name):
    file = scratch.file
    monkeypatch.setattr(scratch, "file", lambda wanted: Path("/dev/full") if wanted == name else file(wanted))
    with pytest.raises(BackendError, match=r"cannot hold the rows: .*; set memory\.folder to a larger disk"):
        written(frame, scratch)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendError, match=r"file/x cannot hold the rows: Not a directory; set memory.folder"):
        Scratch(tmp_path / "file" / "x")


CODE = "import sys; from gpuclust.runtime.scratch import Scratch; s = Scratch(sys.argv[1]); print(s.path, flush=True); sys.stdin.read()"


def test_the_folder_of_a_killed_process_is_removed_by_the_next(tmp_path):
    similar = tmp_path / "gpuclust-1-abcdefgh"  # a user's folder: it has no mark
    similar.mkdir()
    (similar / "mine").write_text("")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    killed, ended, running = processes
    folders = [Path(process.stdout.readline().strip()) for process in processes]
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    ended.communicate()
    assert (folders[0] / MARK).exists()
    assert not folders[1].exists()
    with Scratch(tmp_path) as mine:
        assert {path.name for path in tmp_path.iterdir()} == {
            similar.name, mine.path.name, folders[2].name
        }  # fmt: skip
    running.communicate()
    assert [path.name for path in tmp_path.iterdir()] == [similar.name]
    killed.stdin.close()
    killed.stdout.close()
