"""Output folders: whole or not there, and nothing hidden is left behind, whenever the process is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gpuclust import folders
from gpuclust.errors import ExportError
from gpuclust.folders import whole_folder

# Writes a folder and is killed at a moment: while it writes, or before or after a call of folders.py.
CODE = """
import os, signal, sys
from pathlib import Path
from gpuclust import folders

out, moment = Path(sys.argv[1]), sys.argv[2]
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if moment == "old moved away":
    folders._exchanged = lambda *_: False
    rename = Path.rename
    Path.rename = lambda self, to: (rename(self, to), die())[0]
if moment == "put in place":
    folders._remove = die
with folders.whole_folder(out, force=True) as folder:
    (folder / "new.txt").write_text("new")
    if moment == "being written":
        die()
"""


def write(out: Path, text: str, *, force: bool = False) -> None:
    with whole_folder(out, force) as folder:
        (folder / f"{text}.txt").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize(
    ("moment", "left"), [("being written", ["old.txt"]), ("put in place", ["new.txt"]), ("old moved away", None)]
)
def test_a_kill_at_any_moment_keeps_one_whole_folder_and_the_next_start_removes_the_rest(
    moment: str, left: list[str] | None, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write(out, "old")
    killed = subprocess.run([sys.executable, "-c", CODE, str(out), moment], timeout=60)
    assert killed.returncode == -9
    assert len(names(tmp_path)) == 2
    assert (names(out) if out.exists() else None) == left
    folders._clear_abandoned(out)
    assert names(tmp_path) == ["out"]
    assert names(out) == (left or ["old.txt"]), "a folder that was moved away is put back"
    write(out, "next", force=True)
    assert names(out) == ["next.txt"]
    assert names(tmp_path) == ["out"]


def test_the_hidden_folder_of_a_living_process_and_those_of_others_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / ".out.mine").mkdir()
    (tmp_path / ".other.gpuclust-12345678").mkdir()
    with whole_folder(out, force=False) as first:
        write(out, "second")
        assert first.is_dir()
        (first / "first.txt").write_text("first")
        write(out, "third", force=True)
        assert first.is_dir()
        first.rename(tmp_path / "aside")  # else it could not take the place of the other without --force
        first.mkdir()
        out.rename(tmp_path / "done")
    assert names(tmp_path) == [".other.gpuclust-12345678", ".out.mine", "aside", "done", "out"]


@pytest.mark.parametrize("exchange", [True, False])
def test_force_replaces_a_folder_that_always_exists(
    exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write(out, "old")
    if not exchange:
        monkeypatch.setattr(folders, "_exchanged", lambda *_: False)
    elif not folders._exchanged(out, out):
        pytest.skip("this file system cannot exchange two folders")
    write(out, "new", force=True)
    assert names(out) == ["new.txt"]
    assert names(tmp_path) == ["out"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError), whole_folder(tmp_path / "out", force=False):
        raise ValueError
    with pytest.raises(ExportError, match="No space left"), whole_folder(tmp_path / "out", force=False):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == []
    with pytest.raises(ExportError, match="cannot be written"), whole_folder(tmp_path / ("x" * 300), force=False):
        pass


def test_a_link_that_is_replaced_does_not_lose_what_it_leads_to(tmp_path: Path) -> None:
    write(tmp_path / "real", "old")
    (tmp_path / "out").symlink_to(tmp_path / "real")
    write(tmp_path / "out", "new", force=True)
    assert names(tmp_path / "out") == ["new.txt"]
    assert names(tmp_path / "real") == ["old.txt"]
