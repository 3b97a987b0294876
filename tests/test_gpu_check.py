"""`make gpu-check` without a GPU: what it says there, and what it makes of the output of pytest and of compute-sanitizer."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gpuclust.runtime.backend import probe_gpu

ROOT = Path(__file__).resolve().parents[1]
CLEAN = """========= COMPUTE-SANITIZER
...
========= ERROR SUMMARY: 0 errors
"""
# The form of compute-sanitizer's reports, from its manual.
INVALID = """========= COMPUTE-SANITIZER
========= Invalid __global__ write of size 4 bytes
=========     at add(float *)+0x90
=========     by thread (31,0,0) in block (2,0,0)
=========     Address 0x7fd1 is out of bounds
=========
========= ERROR SUMMARY: 1 error
"""
RACE = """========= COMPUTE-SANITIZER
========= Error: Race reported between Write access at sum+0x1d0 and Read access at sum+0x250 [64 hazards]
=========
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""
SANITIZER = """#!/bin/sh
while [ "$1" != "{python}" ]; do shift; done
cat <<'END'
{output}END
"$@"
"""
TESTS = """
import pytest


@pytest.mark.gpu
def test_on_the_device():
    assert {holds}


def test_elsewhere():
    raise AssertionError("not marked")
"""


@pytest.fixture
def gpu_check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "experiments")
    return importlib.import_module("gpu_check")


def test_without_a_gpu_one_line_says_so() -> None:
    if probe_gpu() is None:
        pytest.skip("there is a GPU")
    command = [sys.executable, ROOT / "experiments" / "gpu_check.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("gpu-check needs a GPU: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("output", "finding", "summary", "holds"),
    [
        (CLEAN, None, "ERROR SUMMARY: 0 errors", True),
        (CLEAN, None, "ERROR SUMMARY: 0 errors", False),
        (INVALID, "Invalid __global__ write of size 4 bytes", "ERROR SUMMARY: 1 error", True),
        (RACE, "Error: Race reported between", "RACECHECK SUMMARY: 1 hazard displayed", True),
    ],
    ids=["clean", "a failed test", "invalid address", "race"],
)
def test_a_part_passes_only_if_its_tests_and_the_sanitizer_do(
    gpu_check: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    output: str,
    finding: str | None,
    summary: str,
    holds: bool,
) -> None:
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(SANITIZER.format(python=sys.executable, output=output))
    tool.chmod(0o755)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: on a GPU\n")
    (tmp_path / "test_it.py").write_text(TESTS.format(holds=holds))
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert gpu_check.compute_sanitizer() == str(tool)
    found = gpu_check.run_tests("memcheck", (str(tool), "--tool", "memcheck"), "test_it.py")
    assert found.passed is (holds and finding is None)
    assert f"1 tests run, {int(not holds)} failed, 0 skipped; {summary}" in found.summary
    assert bool(found.findings) is not found.passed
    assert finding is None or any(line.startswith(finding) for line in found.findings)


def test_a_part_without_tests_does_not_pass(
    gpu_check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test_it.py").write_text("def test_elsewhere():\n    pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: on a GPU\n")
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    assert gpu_check.run_tests("tests", ()).passed is False


def test_without_a_sanitizer_its_parts_say_what_to_install(
    gpu_check: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "compute_sanitizer", lambda: None)
    monkeypatch.setattr(gpu_check, "run_tests", lambda name, command, *files: gpu_check.Check(name, passed=True))
    found = gpu_check.checks(gpu_check.TOOLS)
    assert [check.passed for check in found] == [True, None, None, None]
    assert all("pip install nvidia-cuda-sanitizer-api" in check.summary for check in found[1:])


def test_the_kernels_that_are_checked_are_those_with_tests_on_the_device(gpu_check: ModuleType) -> None:
    files = gpu_check.kernel_tests()
    assert len(files) >= 4
    marked = [file for file in files if "pytest.mark.gpu" in (ROOT / file).read_text()]
    assert {"tests/test_em_cuda.py", "tests/test_lloyd_cuda.py", "tests/test_silhouette_cuda.py"} <= set(marked)
