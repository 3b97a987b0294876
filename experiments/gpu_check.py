"""The checks that need a GPU, in one command: `make gpu-check`.

    python experiments/gpu_check.py [--quick]

First the tests marked gpu, then the CUDA kernels' tests on the device again under each tool of NVIDIA's compute-sanitizer: memcheck (addresses
outside arrays, leaks), racecheck (threads of a block that use shared memory without a barrier between them) and synccheck (barriers that not
all threads reach). --quick runs memcheck only. Writes bench/results/gpu_check.json; the exit status is 0 if everything passes, 1 if something
fails or could not be run, 2 if no GPU can be used.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

from bench.common import environment, write

from gpuclust.runtime.backend import probe_gpu

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("memcheck", "racecheck", "synccheck")
FOUND = 86  # the exit status of compute-sanitizer when it finds something
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
MAX_FINDINGS = 50


@dataclass
class Check:
    """What one part ran and found. ``passed`` is None for a part that could not be run."""

    name: str
    command: list[str] = field(default_factory=list)
    passed: bool | None = None
    seconds: float = 0.0
    summary: str = ""
    findings: list[str] = field(default_factory=list)


def compute_sanitizer() -> str | None:
    """The path of compute-sanitizer: on PATH, in the CUDA toolkit, or in the wheel nvidia-cuda-sanitizer-api."""
    folders = [os.environ.get("PATH", ""), "/usr/local/cuda/bin"]
    wheels = find_spec("nvidia.cu13") if find_spec("nvidia") else None
    if wheels is not None:
        folders += [str(Path(place) / "bin") for place in wheels.submodule_search_locations or ()]
    return shutil.which("compute-sanitizer", path=os.pathsep.join(folders))


def run_tests(name: str, command: Sequence[str], *files: str) -> Check:
    """Run pytest on the tests marked gpu of these files, or of all, with ``command`` before it."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        whole = [*command, *PYTEST, "-m", "gpu", f"--junitxml={report}", *files]
        print(f"== {name}: {' '.join(whole)}", flush=True)
        start = time.perf_counter()
        done = subprocess.run(whole, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        seconds = round(time.perf_counter() - start, 1)
        print(done.stdout[-4000:], flush=True)
        counts, failed = tests_of(report)
    check = Check(name, whole, done.returncode == 0 and counts["run"] > 0, seconds)
    check.findings = [*failed, *sanitizer_findings(done.stdout)][:MAX_FINDINGS]
    check.summary = f"{counts['run']} tests run, {counts['failed']} failed, {counts['skipped']} skipped"
    if command:
        check.summary += f"; {sanitizer_summary(done.stdout)}"
        check.passed = check.passed and not sanitizer_findings(done.stdout)
    return check


def tests_of(report: Path) -> tuple[dict[str, int], list[str]]:
    """Numbers of tests that were run, failed and were skipped, from pytest's report, and a line for each failure or skip."""
    counts, lines = {"run": 0, "failed": 0, "skipped": 0}, []
    if not report.exists():
        return counts, ["pytest wrote no report"]
    for case in ElementTree.parse(report).iter("testcase"):
        outcome = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        kind = "run" if outcome is None or outcome.tag != "skipped" else "skipped"
        counts[kind] += 1
        if outcome is not None:
            counts["failed"] += outcome.tag != "skipped"
            lines.append(
                f"{outcome.tag}: {case.get('classname')}.{case.get('name')}: {outcome.get('message', '')[:300]}"
            )
    return counts, lines


def sanitizer_findings(output: str) -> list[str]:
    """The first line of each report of compute-sanitizer: its lines begin with =========, those that explain one with spaces after it."""
    lines = re.findall(r"^========= (\S.*)$", output, re.MULTILINE)
    quiet = re.compile(
        r"COMPUTE-SANITIZER|(ERROR|RACECHECK|LEAK) SUMMARY: 0 |This tool is deprecated|Target application returned an error"
    )
    return [line for line in lines if not quiet.match(line)]


def sanitizer_summary(output: str) -> str:
    """The lines in which compute-sanitizer sums up, one for each process that used the GPU."""
    return "; ".join(dict.fromkeys(re.findall(r"^========= (\w+ SUMMARY: .*)$", output, re.MULTILINE))) or "no summary"


def kernel_tests() -> list[str]:
    """The files with tests of our CUDA kernels."""
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").glob("test_*_cuda.py"))]


def checks(tools: Sequence[str]) -> list[Check]:
    """Run everything."""
    found = [run_tests("tests", ())]
    sanitizer = compute_sanitizer()
    for tool in tools:
        if sanitizer is None:
            why = "compute-sanitizer is not installed: pip install nvidia-cuda-sanitizer-api, or the CUDA toolkit"
            found.append(Check(tool, summary=f"not run: {why}"))
        else:
            options = ["--leak-check", "full"] if tool == "memcheck" else []
            command = (sanitizer, "--tool", tool, *options, "--target-processes", "all", "--error-exitcode", str(FOUND))
            found.append(run_tests(tool, command, *kernel_tests()))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks, print a line for each and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="of compute-sanitizer's tools, memcheck only")
    quick = parser.parse_args(arguments).quick
    why_not = probe_gpu()
    if why_not is not None:
        print(f"gpu-check needs a GPU: {why_not}", file=sys.stderr)
        return 2
    from gpuclust.runtime.gpu import GpuBackend

    facts, device = environment(), GpuBackend().device
    found = checks(TOOLS[:1] if quick else TOOLS)
    for check in found:
        print(f"{check.name:10} {'passed' if check.passed else 'NOT PASSED'} in {check.seconds:.0f} s: {check.summary}")
    write("gpu_check", {"environment": facts, "device": device, "checks": [asdict(check) for check in found]})
    return 0 if all(check.passed for check in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
