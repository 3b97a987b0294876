"""fast_hdbscan's KD-tree (0.3.4, BSD-2, McInnes and contributors), without the rest of the package."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


class _Deferred(ModuleType):
    """A package whose submodules can be imported before, or without, running its ``__init__``."""

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        if name.startswith("__") or spec is None or spec.loader is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        return getattr(self, name)


def _kd_tree() -> Any:
    """fast_hdbscan's KD-tree module alone: `import fast_hdbscan` would compile all of the package, for half a minute."""
    package = "fast_hdbscan"
    spec = None if package in sys.modules else importlib.util.find_spec(package)
    if spec is not None:
        module = importlib.util.module_from_spec(spec)
        module.__class__ = _Deferred
        sys.modules[package] = module
    try:
        return importlib.import_module(f"{package}.numba_kdtree")
    except RuntimeError:  # numba's answer where no cache folder is writable
        importlib.import_module(f"{package}.variables").NUMBA_CACHE = False  # type: ignore[attr-defined]
        return importlib.import_module(f"{package}.numba_kdtree")


_kd = _kd_tree()
build_kdtree, rdist = _kd.build_kdtree, _kd.rdist
point_to_node_lower_bound_rdist = _kd.point_to_node_lower_bound_rdist
simple_heap_push, siftdown = _kd.simple_heap_push, _kd.siftdown
