"""Clustering of tables of millions of rows, on a GPU or a CPU, tracked in MLflow.

>>> import gpuclust as gc
>>> run = gc.fit("tracks.csv", gc.KMeans(n_clusters=6))                       # doctest: +SKIP
>>> sweep = gc.sweep("tracks.csv", gc.KMeans(n_clusters=range(2, 11)))        # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"

__all__ = [
    "DBSCAN", "HDBSCAN", "PLSCAN", "AgglomerativeClustering", "BayesianGaussianMixture", "BisectingKMeans", "GaussianMixture", "GpuclustError", "KMeans", "Leiden", "Model", "Run", "SpectralClustering", "Sweep", "fit", "load_model", "open_export", "promote", "sweep",
]  # fmt: skip

if TYPE_CHECKING:
    from gpuclust.api import Model, Run, Sweep, fit, load_model, open_export, promote, sweep
    from gpuclust.errors import GpuclustError
    from gpuclust.estimators import (
        DBSCAN,
        HDBSCAN,
        PLSCAN,
        AgglomerativeClustering,
        BayesianGaussianMixture,
        BisectingKMeans,
        GaussianMixture,
        KMeans,
        Leiden,
        SpectralClustering,
    )

_ESTIMATORS = (
    "DBSCAN",
    "HDBSCAN",
    "PLSCAN",
    "AgglomerativeClustering",
    "BayesianGaussianMixture",
    "BisectingKMeans",
    "GaussianMixture",
    "KMeans",
    "Leiden",
    "SpectralClustering",
)
_HOMES = {"GpuclustError": "errors"} | dict.fromkeys(_ESTIMATORS, "estimators")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import gpuclust`` stays fast."""
    if name not in __all__:
        raise AttributeError(f"module 'gpuclust' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"gpuclust.{_HOMES.get(name, 'api')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
