"""Put the stand-ins in the place of the GPU libraries, in a process of its own that runs with NUMBA_ENABLE_CUDASIM=1."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec

from tests.gpu_fakes import cudf, cuml, cupy, rmm, simulator


def install() -> None:
    """Install the stand-ins for cupy, cuml, cudf, rmm and pynvml, and the strict simulator for numba.cuda."""
    if not simulator.install():
        raise RuntimeError("the stand-ins need the CUDA simulator: set NUMBA_ENABLE_CUDASIM=1 before Python starts")
    simulator.HOST_ARRAYS_WARN = True
    array_module, linalg, cupyx = cupy.make()
    modules = {
        "cupy": array_module,
        "cupy.linalg": linalg,
        "cupyx": cupyx,
        "cudf": cudf.make(),
        **cuml.make(),
        **rmm.make(),
    }
    for name, module in modules.items():
        module.__spec__ = ModuleSpec(name, None)
        module.__path__ = []
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
