"""The seam between what is computed and where: the protocol, its results, and the one device test.

A backend translates meanings, so that a configuration says the same everywhere; `cpu.py` and `gpu.py` implement
the protocol. Arrays named X live on the backend's device; results are NumPy arrays on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gpuclust.config import GmmConfig, HdbscanConfig, KMeansConfig
from gpuclust.data.table import Frames
from gpuclust.errors import BackendError
from gpuclust.metrics.silhouette.score import SilhouetteResult

if TYPE_CHECKING:
    from gpuclust.runtime.deduplicate import Distinct

# A NumPy or a CuPy array.
Array = Any
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Scaling:
    """``(x - offset) / scale`` per feature; both (n_features,) float64."""

    method: str
    offset: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class Projection:
    """``(x - mean) @ components.T / scale``: principal components, largest loading of each positive.

    ``mean`` (n_features,), ``components`` (n_components, n_features), ``explained_variance`` and
    ``explained_variance_ratio`` (n_components,), all float64; ``scale`` (n_components,) is one unless the
    components were whitened or standardised again. ``population_factor`` is sqrt((n - 1) / n), which turns a
    standard deviation with n - 1 into one with n.
    """

    mean: np.ndarray
    components: np.ndarray
    explained_variance: np.ndarray
    explained_variance_ratio: np.ndarray
    scale: np.ndarray
    population_factor: float = 1.0


@dataclass(frozen=True)
class Fit:
    """What an algorithm found, before its clusters are put in canonical order.

    ``labels`` (n_samples,) int32, noise -1; ``confidence`` (n_samples,) float32 in [0, 1]; ``distance`` (n_samples,)
    float32 to the own centre, in the prepared space, where there is one. ``parameters`` are the fitted values,
    arrays whose first axis is the cluster where ``per_cluster`` names them. ``metrics`` are the algorithm's own.
    """

    labels: np.ndarray
    confidence: np.ndarray
    distance: np.ndarray | None
    parameters: Mapping[str, np.ndarray]
    metrics: Mapping[str, float]
    per_cluster: tuple[str, ...] = ()
    converged: bool = True
    engine: str = "library"
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """One device. Every method takes and returns what this file names, with the same meaning everywhere.

    ``distinct``, where it is given, is X without its repeated rows: a backend may work on it instead, with the same result.
    """

    @property
    def name(self) -> str:
        """``cpu`` or ``gpu``."""

    @property
    def device(self) -> str:
        """The device in words."""

    @property
    def xp(self) -> ModuleType:
        """The module of its arrays: numpy or cupy."""

    @property
    def frames(self) -> Frames:
        """Its frames: pandas or cuDF."""

    def to_host(self, array: Array) -> np.ndarray:
        """The array in host memory."""

    def to_device(self, array: np.ndarray) -> Array:
        """The array in this backend's memory."""

    def fit_scaling(self, X: Array, method: str) -> Scaling:
        """Fit one of ``standard``, ``minmax``, ``robust``, ``none`` on X (n_samples, n_features) float64."""

    def fit_projection(self, X: Array) -> Projection:
        """All ``min(n_samples, n_features)`` principal components of X (n_samples, n_features) float64."""

    def kmeans(
        self,
        X: Array,
        requests: Sequence[KMeansConfig],
        seed: int,
        progress: Progress,
        distinct: Distinct | None = None,
    ) -> list[Fit]:
        """K-Means for several requests on one matrix. Parameters: ``centers`` (k, d) float64."""

    def gmm(self, X: Array, request: GmmConfig, seed: int, progress: Progress, distinct: Distinct | None = None) -> Fit:
        """Gaussian mixture. Parameters: ``weights``, ``means``, ``covariances``, ``precisions_cholesky``."""

    def hdbscan_tree(self, X: Array, min_samples: int) -> Any:
        """The dear step of HDBSCAN, shared by all cuts: see `gpuclust.algorithms.hdbscan.fit.SpanningTree`."""

    def hdbscan_cut(self, X: Array, tree: Any, request: HdbscanConfig) -> Fit:
        """The cheap step: labels for one ``min_cluster_size``, method and epsilon."""

    def silhouette(
        self,
        X: Array,
        labelings: Sequence[np.ndarray],
        rows: np.ndarray | None,
        progress: Progress,
        distinct: Distinct | None = None,
    ) -> list[SilhouetteResult]:
        """Silhouette of several labelings of one matrix, noise left out; exact, or for a sample of rows.

        ``distinct`` is given only where equal rows have equal labels.
        """


@dataclass(frozen=True)
class Choice:
    """Which backend was chosen, and why, in words for the tag ``gpuclust.backend_reason``."""

    name: str
    reason: str


def probe_gpu() -> str | None:
    """Why the GPU backend cannot run here, in words, or None when it can."""
    try:
        from gpuclust.runtime import gpu
    except Exception as error:  # RAPIDS raises anything from ImportError to RuntimeError without its libraries
        if isinstance(error, ModuleNotFoundError):
            return f"RAPIDS not installed (no module {error.name})"
        return f"RAPIDS cannot be imported ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
    return gpu.unavailable()


def choose(requested: str, probe: Callable[[], str | None] = probe_gpu) -> Choice:
    """Decide the backend before work starts: ``auto`` may fall back to the CPU, ``gpu`` never does.

    Raises BackendError when ``gpu`` is asked for and cannot run.
    """
    if requested == "cpu":
        return Choice("cpu", "backend=cpu")
    why_not = probe()
    if why_not is None:
        return Choice("gpu", "CUDA GPU and RAPIDS found")
    if requested == "gpu":
        raise BackendError(f"backend=gpu cannot run here: {why_not}; use backend=auto or backend=cpu")
    return Choice("cpu", why_not)


def load(name: str, pool_fraction: float = 0.8) -> Backend:
    """The backend of that name, ready to compute."""
    if name == "gpu":
        from gpuclust.runtime.gpu import GpuBackend

        return GpuBackend(pool_fraction=pool_fraction)
    from gpuclust.runtime.cpu import CpuBackend

    return CpuBackend()
