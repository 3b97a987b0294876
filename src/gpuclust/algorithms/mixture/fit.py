"""Gaussian mixtures: a small host loop over the fused EM pass, with scikit-learn's parameters and results.

Unlike scikit-learn's it keeps no n x k array, takes sample weights, computes float32 input in float32 but its sums in
float64, raises FitError when a component becomes empty, and runs on a GPU (``device="cuda"``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpuclust.algorithms.mixture.em import Array, EMBackend, EMScores, EMSettings
from gpuclust.algorithms.mixture.init import MixtureInit, MixtureSettings
from gpuclust.algorithms.mixture.m_step import EMRun, IteratingBackend, n_parameters, precisions, total_weight
from gpuclust.errors import ConfigurationError, FitError, ModelError


@dataclass(frozen=True)
class Evaluation(EMScores):
    """`EMScores` with the criteria to choose a mixture by; of each the lower is the better.

    ``icl`` is the integrated completed likelihood (Biernacki, Celeux and Govaert 2000): BIC plus twice the entropy.
    """

    bic: float = np.nan
    aic: float = np.nan
    icl: float = np.nan


@dataclass(eq=False, repr=False)
class GaussianMixture(MixtureSettings):
    """Expectation-maximisation of a Gaussian mixture (Dempster, Laird and Rubin 1977).

    Parameters and fitted attributes have scikit-learn's names and meanings; attributes are float64 NumPy arrays.
    Convergence is a change of the mean log-likelihood below ``tol``. Not converging is no warning: see
    ``converged_``. Of ``n_init`` initialisations, those in which a component becomes empty are skipped unless all do.
    """

    weights_: np.ndarray = field(init=False)
    means_: np.ndarray = field(init=False)
    covariances_: np.ndarray = field(init=False)
    precisions_: np.ndarray = field(init=False)
    precisions_cholesky_: np.ndarray = field(init=False)
    converged_: bool = field(init=False)
    n_iter_: int = field(init=False)
    lower_bound_: float = field(init=False)
    lower_bounds_: list[float] = field(init=False)
    n_features_in_: int = field(init=False)

    def fit(
        self,
        X: Array,
        sample_weight: Array | None = None,
        *,
        progress: Callable[[float], None] | None = None,
    ) -> GaussianMixture:
        """Fit X (n_samples, n_features), float32 or float64; a weight w counts as w equal rows.

        ``progress`` receives the fraction of all possible iterations that is done. Raises FitError for values that are
        not finite, for fewer rows than components, and when a component becomes empty or collapses in every initialisation.
        """
        self.check()
        device = self._em_backend()
        X = device.matrix(X)
        _check_matrix(device, X, self.n_components)
        self.check_start(X.shape[1])
        start = MixtureInit(self, device)
        settings = EMSettings(self.covariance_type, self.reg_covar, self.tol, self.max_iter)
        random_state = _random_state(self.random_state)
        best: EMRun | None = None
        failure: FitError | None = None
        for attempt in range(self.n_init):

            def report(share: float, attempt: int = attempt) -> None:
                if progress is not None:
                    progress((attempt + share) / self.n_init)

            try:
                initial = start.parameters(X, random_state, sample_weight)
                run = device.iterate(X, initial, settings, sample_weight, report)
            except FitError as error:
                failure = error
                continue
            if best is None or not run.lower_bounds or run.lower_bounds[-1] > best.lower_bounds[-1]:
                best = run
        if best is None:
            assert failure is not None
            raise failure
        self._keep(best, X.shape[1])
        return self

    def _keep(self, run: EMRun, n_features: int) -> None:
        self.weights_ = run.parameters.weights
        self.means_ = run.parameters.means
        self.covariances_ = run.parameters.covariances
        self.precisions_cholesky_ = run.parameters.precisions_cholesky
        self.precisions_ = precisions(self.precisions_cholesky_, self.covariance_type)
        self.converged_ = run.converged
        self.n_iter_ = len(run.lower_bounds)
        self.lower_bounds_ = run.lower_bounds
        self.lower_bound_ = run.lower_bounds[-1] if run.lower_bounds else -np.inf
        self.n_features_in_ = n_features

    def predict(self, X: Array) -> np.ndarray:
        """The most probable component of each row, (n_samples,) int32."""
        return self._score(X).labels

    def evaluate(self, X: Array, sample_weight: Array | None = None, *, responsibilities: bool = False) -> Evaluation:
        """Labels, confidence, log-likelihood and all criteria in one read of X.

        The ``responsibilities`` (n_samples, n_components), in X's dtype, only when asked for.
        """
        scores = self._score(X, sample_weight, responsibilities)
        found = information_criteria(scores, self.covariance_type, self.means_, total_weight(sample_weight, X))
        return Evaluation(**vars(scores), bic=found["bic"], aic=found["aic"], icl=found["icl"])

    def _score(self, X: Array, sample_weight: Array | None = None, responsibilities: bool = False) -> EMScores:
        if not hasattr(self, "means_"):
            raise FitError("the mixture is not fitted yet; call fit first")
        device = self._em_backend()
        X = device.matrix(X)
        if X.ndim != 2 or X.shape[1] != self.n_features_in_:
            raise ModelError(
                f"rows of shape {tuple(X.shape)} do not fit a mixture of {self.n_features_in_} features; "
                f"give (n, {self.n_features_in_})"
            )
        parameters = (self.weights_, self.means_, self.precisions_cholesky_, self.covariance_type)
        return device.score_pass(X, *parameters, sample_weight, responsibilities)

    def _em_backend(self) -> IteratingBackend:
        return em_backend(self.device) if isinstance(self.device, str) else self.device


def information_criteria(scores: EMScores, covariance_type: str, means: np.ndarray, n_rows: float) -> dict[str, float]:
    """``bic``, ``aic`` and ``icl`` of a mixture with means (k, d); ``n_rows`` is the sum of the weights."""
    free = n_parameters(covariance_type, *means.shape)
    deviance = -2 * scores.log_likelihood
    bic = deviance + free * float(np.log(n_rows))
    return {"bic": bic, "aic": deviance + 2 * free, "icl": bic + 2 * scores.entropy}


def _check_matrix(device: EMBackend, X: Any, n_components: int) -> None:
    if X.ndim != 2 or X.shape[1] == 0:
        raise FitError(f"a matrix of shape {tuple(X.shape)} cannot be fitted; give (n_samples, n_features)")
    if X.shape[0] < n_components:
        raise FitError(f"n_components={n_components} is more than the {X.shape[0]:,} rows; lower cluster.n_clusters")
    # On a device the first pass finds out, without another read.
    if isinstance(X, np.ndarray) and not np.isfinite(X).all():
        raise FitError("the matrix has missing or infinite values; drop or fill them (clean.nulls)")


def _random_state(seed: int | np.random.RandomState | None) -> np.random.RandomState:
    return seed if isinstance(seed, np.random.RandomState) else np.random.RandomState(seed)


def em_backend(device: str) -> IteratingBackend:
    """The EM passes of ``cpu`` or ``cuda``. Raises ConfigurationError for another name."""
    if device == "cpu":
        from gpuclust.algorithms.mixture.em_cpu import CpuPasses

        return CpuPasses()
    if device == "cuda":
        from gpuclust.algorithms.mixture.em_cuda import CudaPasses

        return CudaPasses()
    raise ConfigurationError(f"device={device!r} has no EM pass; choose cpu or cuda")
