"""One fit of an algorithm, as a job makes it: for tests that need labels or parameters and no job."""

from __future__ import annotations

from typing import Any

from gpuclust.algorithms.hdbscan.cpu import fit_cut
from gpuclust.algorithms.hdbscan.fit import spanning_tree
from gpuclust.algorithms.registry import FitInput, FitResult, algorithm_of
from gpuclust.runtime.backend import Backend
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend

__all__ = ["fit_all", "fit_cut", "fit_one", "spanning_tree"]


def fit_all(
    X: Any, configs: list[Any], *, seed: int = 0, backend: Backend | None = None, distinct: Any = None
) -> list[FitResult]:
    """Results of configurations of one algorithm on X (n_samples, n_columns), on the backend's device."""
    backend = backend or CpuBackend()
    data = FitInput(X, seed, backend, ResultCache(0), "test", distinct)
    return algorithm_of(configs[0]).fitter(backend.name)(data, configs)


def fit_one(X: Any, config: Any, **options: Any) -> FitResult:
    """The result of one configuration."""
    return fit_all(X, [config], **options)[0]
