"""The four covariance types of a Gaussian mixture: the M-step, the iterations with it on the host, and what follows from the parameters.

Shapes are scikit-learn's: ``full`` (k, d, d), ``tied`` (d, d), ``diag`` (k, d), ``spherical`` (k,).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gpuclust.algorithms.mixture.em import Array, EMBackend, EMSettings, EMStatistics
from gpuclust.errors import ConfigurationError, FitError


@dataclass(frozen=True)
class MixtureParameters:
    """Weights (k,), means (k, d), covariances and precisions_cholesky by type, all float64."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    precisions_cholesky: np.ndarray


@dataclass(frozen=True)
class EMRun:
    """The last parameters of a run, and the mean log-likelihood of a row before each M-step."""

    parameters: MixtureParameters
    lower_bounds: list[float]
    converged: bool


class IteratingBackend(EMBackend):
    """An `EMBackend` that also iterates: `HostIterations` with the M-step on the host, or on its device."""

    @abstractmethod
    def iterate(
        self,
        X: Array,
        parameters: MixtureParameters,
        settings: EMSettings,
        sample_weight: Array | None,
        report: Callable[[float], None],
    ) -> EMRun:
        """EM on a `matrix` from given parameters; ``report`` receives the fraction of ``max_iter`` that is done.

        Raises FitError where a component becomes empty or collapses, or sums are not finite.
        """


class HostIterations(IteratingBackend):
    """Iterations with passes on any device and the M-step on the host."""

    def iterate(
        self,
        X: Array,
        parameters: MixtureParameters,
        settings: EMSettings,
        sample_weight: Array | None,
        report: Callable[[float], None],
    ) -> EMRun:
        """A pass is the E-step of these parameters and the sums of the next."""
        kind = settings.covariance_type
        resolution = 10 * float(np.finfo(X.dtype).eps)
        lower_bounds: list[float] = []
        for iteration in range(1, settings.max_iter + 1):
            p = parameters
            statistics = self.em_pass(X, p.weights, p.means, p.precisions_cholesky, kind, sample_weight)
            parameters = m_step(statistics, p.means, kind, settings.reg_covar, resolution)
            lower_bounds.append(statistics.log_likelihood / total_weight(sample_weight, X))
            report(iteration / settings.max_iter)
            if len(lower_bounds) > 1 and abs(lower_bounds[-1] - lower_bounds[-2]) < settings.tol:
                return EMRun(parameters, lower_bounds, converged=True)
        return EMRun(parameters, lower_bounds, converged=False)


def total_weight(sample_weight: Array | None, X: Array) -> float:
    """The sum of the weights of the rows."""
    return float(len(X)) if sample_weight is None else float(sample_weight.sum())


def m_step(
    statistics: EMStatistics, means: np.ndarray, covariance_type: str, reg_covar: float, resolution: float
) -> MixtureParameters:
    """The M-step: the parameters that the statistics, taken about ``means`` (k, d), make likeliest.

    Raises FitError for a component of weight ``resolution`` or less, and for a covariance that is not positive
    definite.
    """
    counts = statistics.counts
    if not np.isfinite(statistics.sums).all():
        raise not_finite()
    empty = np.flatnonzero(counts <= resolution)
    if empty.size:
        raise empty_component(int(empty[0]), len(counts), counts[empty[0]])
    moved = statistics.sums / counts[:, None]
    covariances = _covariances(statistics, moved, covariance_type, reg_covar)
    return MixtureParameters(
        weights=counts / counts.sum(),
        means=means + moved,
        covariances=covariances,
        precisions_cholesky=precisions_cholesky(covariances, covariance_type),
    )


def _covariances(statistics: EMStatistics, moved: np.ndarray, covariance_type: str, reg_covar: float) -> np.ndarray:
    """Scatter about the new means, which lie ``moved`` (k, d) from the ones it was taken about."""
    counts, scatter = statistics.counts, statistics.scatter
    if covariance_type in ("diag", "spherical"):
        variances = scatter / counts[:, None] - moved**2 + reg_covar
        return variances if covariance_type == "diag" else variances.mean(axis=1)
    outer = moved[:, :, None] * moved[:, None, :]
    if covariance_type == "tied":
        covariance = (scatter - counts[:, None, None] * outer).sum(axis=0) / counts.sum()
    else:
        covariance = scatter / counts[:, None, None] - outer
    return covariance + reg_covar * np.eye(moved.shape[1])


def precisions_cholesky(covariances: np.ndarray, covariance_type: str) -> np.ndarray:
    """Upper triangular U with U U^T the precision (``diag``, ``spherical``: its square root). Raises FitError."""
    if covariance_type in ("diag", "spherical"):
        if not (covariances > 0).all():
            raise ill_defined(np.flatnonzero(~(covariances > 0).reshape(len(covariances), -1).all(axis=1))[0])
        return 1.0 / np.sqrt(covariances)
    if covariance_type == "tied":
        return _inverse(_cholesky(covariances, 0)).T
    return _inverse(np.stack([_cholesky(m, c) for c, m in enumerate(covariances)])).swapaxes(-1, -2)


def _cholesky(covariance: np.ndarray, component: int) -> np.ndarray:
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise ill_defined(component) from None


def _inverse(lower: np.ndarray) -> np.ndarray:
    """The inverses of lower triangular matrices (..., d, d), row by row.

    Not LAPACK's triangular solver: even for a small matrix it wakes the BLAS's threads, which then spin for some 20 ms
    on the cores that the next pass needs.
    """
    inverse = np.zeros_like(lower)
    for i in range(lower.shape[-1]):
        inverse[..., i, i] = 1
        inverse[..., i, :i] = -(lower[..., i, None, :i] @ inverse[..., :i, :i])[..., 0, :]
        inverse[..., i, :] /= lower[..., i, i, None]
    return inverse


def not_finite() -> FitError:
    """The error for statistics that are not finite."""
    return FitError(
        "the mixture's sums are not finite; remove missing and infinite values (clean.nulls) and scale the features"
    )


def empty_component(component: int, n_components: int, weight: float) -> FitError:
    """The error for a component without rows."""
    return FitError(
        f"component {component} of {n_components} became empty (weight {weight:.1e}); lower "
        "cluster.n_clusters, raise cluster.reg_covar, or start with other means (seed, cluster.init_params)"
    )


def ill_defined(component: int) -> FitError:
    """The error for a covariance that is not positive definite."""
    return FitError(
        f"the covariance of component {component} is not positive definite (single, equal or collapsed rows); lower "
        "cluster.n_clusters, raise cluster.reg_covar, or scale the features"
    )


def cholesky_of_precisions(precisions: np.ndarray, covariance_type: str) -> np.ndarray:
    """`precisions_cholesky` from precisions: U with U U^T = precision, by reversing rows and columns twice."""
    precisions = np.asarray(precisions, dtype=np.float64)
    try:
        if covariance_type in ("full", "tied"):
            return np.linalg.cholesky(precisions[..., ::-1, ::-1])[..., ::-1, ::-1]
    except np.linalg.LinAlgError:
        raise ConfigurationError("precisions_init is not positive definite; give symmetric, positive ones") from None
    if not (precisions > 0).all():
        raise ConfigurationError("precisions_init must be positive; give 1 / variance")
    return np.sqrt(precisions)


def precisions(cholesky: np.ndarray, covariance_type: str) -> np.ndarray:
    """The precisions, in the covariances' shape."""
    return cholesky @ cholesky.swapaxes(-1, -2) if covariance_type in ("full", "tied") else cholesky**2


def shape(covariance_type: str, n_components: int, n_features: int) -> tuple[int, ...]:
    """The shape of covariances and precisions of this type."""
    k, d = n_components, n_features
    return {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[covariance_type]


def n_parameters(covariance_type: str, n_components: int, n_features: int) -> int:
    """Free parameters of the mixture: weights, means and covariances."""
    k, d = n_components, n_features
    free = {"full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2, "diag": k * d, "spherical": k}
    return free[covariance_type] + k * d + k - 1
