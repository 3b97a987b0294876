"""The cache of compiled kernels: no process reads it while another one writes it."""

import subprocess
import sys
import time
from pathlib import Path

KERNELS = """
from gpuclust.runtime.jit import compiled


@compiled()
def multiplied(x):
    return {factor} * x
"""
CALL = """
import sys
from numba.core.caching import IndexDataCacheFile

save = IndexDataCacheFile._save_data


def paused(*args):
    print("the list of versions is written, the version is not", flush=True)
    sys.stdin.readline()
    save(*args)


if sys.argv[2] == "paused":
    IndexDataCacheFile._save_data = paused
sys.path.insert(0, sys.argv[1])
from kernels import multiplied

print("ready", flush=True)
print(multiplied(1.0), flush=True)
"""


def start(folder: Path, word: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CALL, str(folder), word]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_kernel_that_another_process_is_saving_is_not_the_one_of_an_earlier_version(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text(KERNELS.format(factor=2.0))
    assert start(tmp_path).communicate(timeout=120)[0].split() == ["ready", "2.0"]
    (tmp_path / "kernels.py").write_text(KERNELS.format(factor=33.0))
    first = start(tmp_path, "paused")
    assert first.stdout is not None
    assert [first.stdout.readline()[:5] for _ in range(2)] == ["ready", "the l"]
    second = start(tmp_path)
    assert second.stdout is not None
    assert second.stdout.readline() == "ready\n"
    time.sleep(2)  # it loads the version, or waits for it
    assert first.communicate("go on\n", timeout=120)[0].split() == ["33.0"]
    assert second.communicate(timeout=120)[0].split() == ["33.0"]
