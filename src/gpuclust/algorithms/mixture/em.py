"""The EM pass of a Gaussian mixture: one read of the matrix gives the log-likelihood and the statistics of the M-step.

`gpuclust.algorithms.mixture.fit.em_backend` finds the implementation for a device: `em_cpu` (numba) or `kernels_cuda` (numba.cuda).
Both do the same, and the tests compare them. This file has what they share: the results, the base class, and the parameters in
the form that the inner loops read.

Method: Dempster, Laird and Rubin (1977); the notation is that of scikit-learn's `mixture._gaussian_mixture`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuclust.runtime.blocks import MergeTree, Part, Run

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")

# A NumPy array, or one on a device (anything with ``__cuda_array_interface__``).
Array = Any


@dataclass(frozen=True)
class EMStatistics:
    """The results of one pass with given parameters; those of two tables with the same parameters add up.

    ``log_likelihood``: sum of w log p(x), nan after a label pass. ``counts`` (k,): sum of w r. ``sums`` (k, d): sum of
    w r (x - mean). ``scatter``: sum of w r (x - mean)(x - mean)^T, (k, d, d) for ``full`` and ``tied``, its diagonal
    (k, d) for ``diag`` and ``spherical``. ``mean`` is the component's mean that the pass was given, so nothing cancels
    when the M-step subtracts what the mean moved. All float64.
    """

    log_likelihood: float
    counts: np.ndarray
    sums: np.ndarray
    scatter: np.ndarray

    def __add__(self, other: EMStatistics) -> EMStatistics:
        return EMStatistics(
            self.log_likelihood + other.log_likelihood,
            self.counts + other.counts,
            self.sums + other.sums,
            self.scatter + other.scatter,
        )


@dataclass(frozen=True)
class EMScores:
    """The scores of every row with given parameters, on the host.

    ``labels`` (n,) int32: the most probable component. ``confidence`` (n,) float32 in [0, 1]: its responsibility.
    ``log_prob`` (n,) float64: log p(x), or (0,) where it is not kept. ``log_likelihood`` and ``entropy``: sums over the rows of w log p(x) and of
    -w sum_k r log r, which ICL needs. ``responsibilities`` (n, k) in the matrix's dtype, only when asked for.
    """

    labels: np.ndarray
    confidence: np.ndarray
    log_prob: np.ndarray
    log_likelihood: float
    entropy: float
    responsibilities: np.ndarray | None = None


@dataclass(frozen=True)
class EMSettings:
    """When iterations of EM stop, and what the M-step adds to the diagonal of a covariance; names as in scikit-learn."""

    covariance_type: str
    reg_covar: float
    tol: float
    max_iter: int


class EMBackend(ABC):
    """One device's passes. X (n, d) is float32 or float64, sample_weight (n,) or None; parameters are NumPy arrays."""

    @abstractmethod
    def matrix(self, X: Array) -> Array:
        """X in this device's memory, in float32 or float64; not copied where it is so already."""

    @abstractmethod
    def host(self, X: Array) -> np.ndarray:
        """X in host memory."""

    def take(self, X: Array, numbers: np.ndarray) -> Array:
        """Rows of X by their numbers in this device's memory, in float64 on the host."""
        return self.host(X)[numbers].astype(np.float64)

    def nearest(self, X: Array, centres: np.ndarray) -> Array:
        """The nearest of the centres (k, d) to each row, (n,) int32 in this device's memory."""
        rows = self.host(X)
        return ((centres**2).sum(axis=1) - 2 * rows @ centres.T).argmin(axis=1).astype(np.int32)

    def labels(
        self, X: Array, weights: np.ndarray, means: np.ndarray, precisions_cholesky: np.ndarray, covariance_type: str
    ) -> Array:
        """The most probable component of each row, (n,) int32 in this device's memory."""
        return self.score_pass(X, weights, means, precisions_cholesky, covariance_type).labels

    def reduce(self, X: Array, part: Part, *args: Any) -> Any:
        """Merge the statistics ``part(run, *args)`` of the blocks of X, computed from host memory."""
        found = part(Run(self.host(X), 0), *args)
        tree = MergeTree(len(found))
        for block, value in enumerate(found):
            tree.put(0, block, value)
        return tree.value

    def em_pass(
        self,
        X: Array,
        weights: np.ndarray,
        means: np.ndarray,
        precisions_cholesky: np.ndarray,
        covariance_type: str,
        sample_weight: Array | None = None,
    ) -> EMStatistics:
        """E-step and the sums of the M-step. Computes in X's dtype, sums in float64."""
        X = self.matrix(X)
        c = kernel_parameters(weights, means, precisions_cholesky, covariance_type, X.dtype)
        return self._moments(X, np.empty(0, dtype=np.int32), sample_weight, c)

    def label_pass(
        self, X: Array, labels: Array, means: np.ndarray, covariance_type: str, sample_weight: Array | None = None
    ) -> EMStatistics:
        """The same sums for given labels (n,) in [0, k); rows with other labels are left out."""
        X = self.matrix(X)
        return self._moments(X, labels, sample_weight, label_parameters(means, covariance_type, X.dtype))

    def score_pass(
        self,
        X: Array,
        weights: np.ndarray,
        means: np.ndarray,
        precisions_cholesky: np.ndarray,
        covariance_type: str,
        sample_weight: Array | None = None,
        responsibilities: bool = False,
    ) -> EMScores:
        """Labels, confidence, log-likelihood and entropy in one read."""
        X = self.matrix(X)
        c = kernel_parameters(weights, means, precisions_cholesky, covariance_type, X.dtype)
        return self._scores(X, sample_weight, c, responsibilities)

    @abstractmethod
    def _moments(self, X: Array, labels: Array, sample_weight: Array | None, c: KernelParameters) -> EMStatistics:
        """The statistics of a pass over a `matrix`, about the means; ``labels`` (n,), or (0,) for an E-step."""

    @abstractmethod
    def _scores(self, X: Array, sample_weight: Array | None, c: KernelParameters, responsibilities: bool) -> EMScores:
        """The scores of the rows of a `matrix`."""


@dataclass(frozen=True)
class KernelParameters:
    """The parameters as the inner loops read them, in the matrix's dtype.

    The log of (weight times density) of component c is ``base + constants[c] - |offsets[c] + factors[c] (x -
    centres[c])|^2``. ``centres`` (k, d) are the means rounded to the dtype and ``offsets`` (k, d) what the rounding
    took, so float32 works far from the origin too; ``factors`` is (k, d, d) lower triangular, or (k, 1, d) for a
    diagonal, and the kernels' scatter has its shape. ``base`` is added in float64, outside the loops. ``shift`` (k, d)
    float64 is centre - mean; ``matrices`` says whether the scatter is (k, d, d) or (k, d).
    """

    centres: np.ndarray
    factors: np.ndarray
    offsets: np.ndarray
    constants: np.ndarray
    base: float
    shift: np.ndarray
    matrices: bool

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What a kernel takes."""
        return self.centres, self.factors, self.offsets, self.constants


def kernel_parameters(
    weights: np.ndarray,
    means: np.ndarray,
    precisions_cholesky: np.ndarray,
    covariance_type: str,
    dtype: np.dtype[Any],
) -> KernelParameters:
    """Parameters in scikit-learn's form (means (k, d), precisions_cholesky by type) as the inner loops read them."""
    means = np.asarray(means, dtype=np.float64)
    k, d = means.shape
    matrices = covariance_type in ("full", "tied")
    cholesky = np.asarray(precisions_cholesky, dtype=np.float64)
    if matrices:
        factors = np.broadcast_to(cholesky, (k, d, d)).transpose(0, 2, 1)
        log_det = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    else:
        factors = np.broadcast_to(cholesky.reshape(k, -1), (k, d))[:, None, :]
        log_det = np.log(factors[:, 0]).sum(axis=1)
    with np.errstate(divide="ignore"):  # a weight of 0 is -inf: the component takes no row
        constants = np.log(np.asarray(weights, dtype=np.float64)) + log_det - 0.5 * d * np.log(2 * np.pi)
    base = float(constants.max())
    centres = means.astype(dtype)
    shift = centres.astype(np.float64) - means
    offsets = factors @ shift[:, :, None] if matrices else factors * shift[:, None, :]
    half = np.sqrt(0.5)  # the -1/2 of the exponent, taken into the factors
    return KernelParameters(
        centres=centres,
        factors=np.ascontiguousarray(half * factors, dtype=dtype),
        offsets=np.ascontiguousarray(half * offsets.reshape(k, d), dtype=dtype),
        constants=np.maximum(constants - base, np.finfo(dtype).min).astype(dtype),
        base=base,
        shift=shift,
        matrices=matrices,
    )


def label_parameters(means: np.ndarray, covariance_type: str, dtype: np.dtype[Any]) -> KernelParameters:
    """The parameters of a label pass: the centres, and the shape of the scatter. Its log-likelihood is nan."""
    k, d = np.shape(means)
    matrices = covariance_type in ("full", "tied")
    centres = np.asarray(means, dtype=dtype)
    return KernelParameters(
        centres=centres,
        factors=np.zeros((k, d if matrices else 1, d), dtype=dtype),
        offsets=np.zeros((k, d), dtype=dtype),
        constants=np.zeros(k, dtype=dtype),
        base=np.nan,
        shift=centres.astype(np.float64) - means,
        matrices=matrices,
    )


def recentre(found: EMStatistics, c: KernelParameters, total: float) -> EMStatistics:
    """The statistics of a kernel, which are about the rounded centres, about the means themselves.

    Its scatter has the factors' shape, of a matrix only the lower triangle. ``total`` is the sum of the weights.
    """
    moved = found.sums + found.counts[:, None] * c.shift
    if c.matrices:
        lower = np.tril(found.scatter)
        scatter = lower + np.tril(lower, -1).transpose(0, 2, 1)
        scatter += found.sums[:, :, None] * c.shift[:, None, :] + c.shift[:, :, None] * moved[:, None, :]
    else:
        scatter = found.scatter[:, 0] + c.shift * (found.sums + moved)
    return EMStatistics(found.log_likelihood + c.base * total, found.counts, moved, scatter)
