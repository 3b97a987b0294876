"""The signatures of the GPU libraries that are installed, one a line, as `signatures.txt` holds them.

    .venv-rapids/bin/python -m tests.gpu_fakes.record > tests/gpu_fakes/signatures.txt

Run where RAPIDS is installed; no GPU is needed. The stand-ins read the file, so a call that the real library would not take fails
with them too, and a name that it does not have is an AttributeError.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

from tests.contract.signatures import NoSignature, signature
from tests.contract.values import Declared, Thing

UFUNC = "(*args, out=None, dtype=None, casting='same_kind')"
UNSIGNED = {
    # Compiled classes whose docstrings list the parameters but whose objects do not tell them.
    "rmm.mr.CudaAsyncMemoryResource": "(initial_pool_size=None, release_threshold=None, enable_ipc=False, enable_fabric=False)",
    "rmm.mr.CudaMemoryResource": "()",
}


def main() -> None:
    """Print one line for each name: ``cupy.ndarray.sum(self, axis=None, dtype=None, out=None, keepdims=False)``."""
    for name, found in sorted(recorded()):
        print(f"{name}{found}")


def recorded() -> Iterator[tuple[str, str]]:
    """Names and signatures. Annotations are left out; a default that is no constant is ``...``."""
    import cudf
    import cuml.cluster
    import cuml.decomposition
    import cuml.manifold
    import cuml.neighbors
    import cuml.preprocessing
    import cupy
    import cupyx
    import rmm.mr
    from cudf.core.accessors.string import StringMethods
    from cudf.core.series import DatetimeProperties
    from numba import cuda
    from numba.cuda.cudadrv.devicearray import DeviceNDArray

    for module in (cupy, cupy.linalg, cupyx, cudf, rmm.mr):
        yield from members(module, module.__name__)
    for cls in (cupy.ndarray, cudf.DataFrame, cudf.Series, cudf.Index):
        yield from members(cls, f"{cls.__module__.partition('.')[0]}.{cls.__name__}")
    yield from members(StringMethods, "cudf.Series.str")
    yield from members(DatetimeProperties, "cudf.Series.dt")
    for package in (cuml.cluster, cuml.decomposition, cuml.manifold, cuml.neighbors, cuml.preprocessing):
        for name in (
            "KMeans",
            "DBSCAN",
            "HDBSCAN",
            "PCA",
            "UMAP",
            "NearestNeighbors",
            "StandardScaler",
            "MinMaxScaler",
            "RobustScaler",
        ):
            if name in vars(package):
                yield f"{package.__name__}.{name}", text_of(getattr(package, name), None)
                yield from members(getattr(package, name), f"{package.__name__}.{name}")
    yield from members(DeviceNDArray, "numba.DeviceNDArray")
    for name in ("to_device", "device_array", "device_array_like", "as_cuda_array", "is_cuda_array", "pinned_array"):
        yield f"numba.cuda.{name}", text_of(getattr(cuda, name), None)


def members(owner: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """The public members of a module or a class; a property has no parentheses."""
    for name in dir(owner):
        value = inspect.getattr_static(owner, name) if isinstance(owner, type) else getattr(owner, name)
        if name.startswith("_") or inspect.ismodule(value):
            continue
        if not callable(getattr(owner, name)) or isinstance(value, property):
            yield f"{prefix}.{name}", ""
        elif inspect.getmodule(value) is None or isinstance(owner, type) or not _foreign(owner, value):
            yield f"{prefix}.{name}", text_of(getattr(owner, name), owner if isinstance(owner, type) else None)


def _foreign(owner: Any, value: Any) -> bool:
    """Whether a member of a module comes from another package, such as NumPy's types in CuPy."""
    return str(getattr(value, "__module__", "")).partition(".")[0] in (
        "typing",
        "types",
        "warnings",
        "functools",
        "contextlib",
    )


def text_of(value: Any, owner: Any) -> str:
    """The signature in words; of what tells none, ``(*args, **kwargs)``."""
    if type(value).__name__ == "ufunc":
        return UFUNC
    name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
    short = next((known for known in UNSIGNED if name.endswith(known.rpartition(".")[2])), None)
    if short is not None:
        return UNSIGNED[short]
    try:
        found = signature(Thing(value, owner), Declared()) if owner is not None else signature(Thing(value), Declared())
    except (NoSignature, TypeError, ValueError):
        return "(*args, **kwargs)"
    if found is None:
        return "(*args, **kwargs)"
    parameters = [
        p.replace(annotation=p.empty, default=_constant(p.default))
        for p in found.parameters.values()
        if p.name != "self"
    ]
    return str(found.replace(parameters=parameters, return_annotation=found.empty))


def _constant(value: Any) -> Any:
    if value is inspect.Parameter.empty or value is None or isinstance(value, (bool, int, float, str)):
        return value
    return ...


if __name__ == "__main__":
    sys.exit(main())
