"""The GPU code on strict stand-ins for the GPU libraries, each part in a process where numba.cuda simulates the device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RAPIDS_PYTHON = ROOT / ".venv-rapids" / "bin" / "python"
PARTS = {
    "strict": "the stand-ins refuse what the real libraries refuse",
    "frames": "files are read to the same rows and bits as on the CPU, by the reader that the audit names",
    "scores": "the scores and the profile, and what they copy",
    "kmeans": "both engines of K-Means against the CPU, and the same labels in every run",
    "jobs": "every algorithm, initialisation, engine and dtype through a sweep, a model, an export and predictions",
    "copies": "what moves between host and device in an iteration and in a job",
    "failures": "an error of the device fails its job, or ends the sweep with one line",
}


def checked(part: str, *options: str) -> None:
    """Run the checks of a part."""
    pytest.importorskip("greenlet")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.gpu_fakes.plugin", *options,
         f"tests/gpu_fakes/check_{part}.py"],
        cwd=ROOT,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


@pytest.mark.parametrize("part", PARTS)
def test_the_gpu_code_on_stand_ins(part: str) -> None:
    checked(part, "-m", "not campaign")


@pytest.mark.campaign
def test_an_error_at_any_use_of_the_device() -> None:
    checked("failures", "-m", "campaign")


def test_the_stand_ins_have_the_signatures_of_the_installed_libraries() -> None:
    if not RAPIDS_PYTHON.exists():
        pytest.skip("RAPIDS is not installed in .venv-rapids: run make contract")
    done = subprocess.run(
        [RAPIDS_PYTHON, "-m", "tests.gpu_fakes.record"],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    recorded = (ROOT / "tests" / "gpu_fakes" / "signatures.txt").read_text()
    assert done.stdout.splitlines() == recorded.splitlines(), "run python -m tests.gpu_fakes.record, see there"
