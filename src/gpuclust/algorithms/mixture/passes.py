"""The EM pass of a device."""

from __future__ import annotations

import numpy as np

from gpuclust.algorithms.mixture.em import Array, EMBackend, EMStatistics
from gpuclust.errors import ConfigurationError


def passes(device: str) -> EMBackend:
    """The passes of ``cpu`` or ``cuda``. Raises ConfigurationError for another name."""
    if device == "cpu":
        from gpuclust.algorithms.mixture import em_cpu

        return em_cpu
    if device == "cuda":
        from gpuclust.algorithms.mixture import kernels_cuda

        return kernels_cuda
    raise ConfigurationError(f"device={device!r} has no EM pass; choose cpu or cuda")


def em_pass(
    X: Array,
    weights: np.ndarray,
    means: np.ndarray,
    precisions_cholesky: np.ndarray,
    covariance_type: str,
    sample_weight: Array | None = None,
) -> EMStatistics:
    """`EMBackend.em_pass` on the device where X is."""
    device = "cuda" if hasattr(X, "__cuda_array_interface__") else "cpu"
    return passes(device).em_pass(X, weights, means, precisions_cholesky, covariance_type, sample_weight)
