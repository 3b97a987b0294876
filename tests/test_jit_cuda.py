"""Kernels for a GPU: what the cache on disk tells apart, and that a kernel is made where there is no cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_contract import RAPIDS_PYTHON, ROOT

KERNELS = """
from numba import cuda, float32

from gpuclust.runtime.jit_cuda import cuda_kernel

FACTOR = {factor}


def scale(width):
    @cuda_kernel(device=True)
    def scaled(x):
        return {inner} * x + width

    return scaled


def make(width, dtype=float32):
    scaled = scale(width)

    @cuda_kernel({options})
    def multiply(x):
        i = cuda.grid(1)
        if i < x.shape[0]:
            x[i] = dtype(FACTOR) * scaled(x[i])

    return multiply
"""
KEY = """
import sys

sys.path.insert(0, sys.argv[1])
from kernels import make

print(*(make(width)._cache._py_func.__code__.co_code.hex() for width in (3, 4)))
"""
SIMULATED = """
import sys

import numpy as np

sys.path.insert(0, sys.argv[1])
from kernels import make

x = np.arange(3, dtype=np.float32)
make(4)[1, 8](x)
print(*x)
"""
# A device that is only a name: what a launch compiles and caches, without loading the result.
COMPILED = """
import sys
from types import SimpleNamespace

import numba.cuda.dispatcher as dispatcher
from numba.cuda import types
from numba.cuda.cudadrv import devices, runtime

device = SimpleNamespace(compute_capability=(9, 0), id=0)
devices.get_context = lambda *_: SimpleNamespace(device=device)
dispatcher.get_current_device = lambda: device
dispatcher._Kernel.bind = lambda kernel: kernel.library.get_cubin()
sys.path.insert(0, sys.argv[1])
from kernels import make

from gpuclust.runtime.jit import notify_on_compile

told = []
kernel = make(int(sys.argv[2]))
with notify_on_compile(lambda: told.append(True)):
    kernel.compile((types.Array(types.float32, 1, "C"),))
print(sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()), len(told))
"""


def run(code: str, folder: Path, *arguments: str, python: Path | str = sys.executable, **variables: str) -> list[str]:
    command = [python, "-c", code, str(folder), *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def write(folder: Path, factor: float = 2.0, inner: float = 1.0, options: str = "") -> Path:
    (folder / "kernels.py").write_text(KERNELS.format(factor=factor, inner=inner, options=options))
    return folder


def test_the_key_of_a_kernel_is_the_same_in_each_process_and_another_for_other_constants(tmp_path: Path) -> None:
    first = run(KEY, write(tmp_path))
    assert run(KEY, tmp_path) == first
    found = {*first}
    for changed in ({"factor": 3.0}, {"inner": 2.0}, {"options": "fastmath=True"}):
        found |= {*run(KEY, write(tmp_path, **changed))}
    assert len(found) == 8  # two widths of each of four sources


def test_the_simulator_runs_a_kernel_and_its_device_function(tmp_path: Path) -> None:
    write(tmp_path, options="fastmath=True, max_registers=64")
    assert run(SIMULATED, tmp_path, NUMBA_ENABLE_CUDASIM="1") == ["8.0", "10.0", "12.0"]


def test_a_kernel_is_made_where_no_folder_is_writable(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from numba.core import caching

        def refuse(self):
            raise PermissionError("no folder is writable")

        caching._CacheLocator.ensure_cache_path = refuse
        sys.path.insert(0, sys.argv[1])
        from kernels import make

        kernel = make(3)
        print(type(kernel).__name__, type(kernel._cache).__name__)
    """
    write(tmp_path)
    assert run(code, tmp_path) == ["CUDADispatcher", "NullCache"]


def test_a_kernel_is_compiled_once_and_again_after_a_change_or_damage(tmp_path: Path) -> None:
    if not RAPIDS_PYTHON.exists():
        pytest.skip("RAPIDS is not installed in .venv-rapids: run make contract")
    cache = tmp_path / "cache"

    def compiled(width: int) -> list[str]:
        return run(COMPILED, tmp_path, str(width), python=RAPIDS_PYTHON, NUMBA_CACHE_DIR=str(cache))

    write(tmp_path)
    assert compiled(3) == ["0", "1", "1"]
    assert compiled(3) == ["1", "0", "0"]
    assert compiled(4) == ["0", "1", "1"]
    assert compiled(3) == ["1", "0", "0"]  # the two are kept beside each other
    for path in cache.rglob("*.nbc"):
        path.write_bytes(path.read_bytes()[:100])
    assert compiled(3) == ["0", "1", "1"]
    assert compiled(3) == ["1", "0", "0"]


# What the driver would receive; the arrays are only addresses.
LAUNCHED = """
import ctypes
import sys
from types import SimpleNamespace

import numpy as np
import numba.cuda.dispatcher as dispatcher
from numba.cuda import types
from numba.cuda.codegen import CUDACodeLibrary
from numba.cuda.cudadrv import devices
from numba.cuda.cudadrv.devicearray import DeviceNDArray

device = SimpleNamespace(compute_capability=(9, 0), id=0)
devices.get_context = lambda *_: SimpleNamespace(device=device)
dispatcher.get_current_device = lambda: device
dispatcher._Kernel.bind = lambda kernel: kernel.library.get_cubin()
CUDACodeLibrary.get_cufunc = lambda library: SimpleNamespace(kernel=library.name)
sent = []
dispatcher.launch = lambda stream, config, *rest: sent.append((int(stream.handle), str(config), *map(str, rest)))
sys.path.insert(0, sys.argv[1])
from kernels import make

from gpuclust.runtime.jit_cuda import RepeatedLaunch


class Memory:
    size, device_ctypes_pointer = 4096, ctypes.c_void_p(64)


array = DeviceNDArray((1000,), (4,), np.float32, gpu_data=Memory())
kernel = make(3)
kernel[200, 128, 0, 512](array)
launch = RepeatedLaunch(kernel, 200, 128, array, shared=512)
for _ in range(3):
    launch()
print(len(sent), len(set(sent)), "64" in sent[0])
"""


def test_a_repeated_launch_gives_the_driver_what_an_ordinary_one_gives(tmp_path: Path) -> None:
    if not RAPIDS_PYTHON.exists():
        pytest.skip("RAPIDS is not installed in .venv-rapids: run make contract")
    assert run(LAUNCHED, write(tmp_path), python=RAPIDS_PYTHON) == ["4", "1", "True"]


def test_the_simulator_repeats_a_launch(tmp_path: Path) -> None:
    code = SIMULATED.replace("make(4)[1, 8](x)", "launch = RepeatedLaunch(make(4), 1, 8, x)\nlaunch()\nlaunch()")
    code = code.replace("from kernels", "from gpuclust.runtime.jit_cuda import RepeatedLaunch\nfrom kernels")
    assert run(code, write(tmp_path), NUMBA_ENABLE_CUDASIM="1") == ["24.0", "28.0", "32.0"]
