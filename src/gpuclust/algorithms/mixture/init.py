"""Initialisation of EM: the four methods of scikit-learn's mixtures, drawing the same random numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from gpuclust.algorithms.mixture.em import COVARIANCE_TYPES, Array, EMBackend, EMStatistics
from gpuclust.algorithms.mixture.m_step import (
    IteratingBackend,
    MixtureParameters,
    cholesky_of_precisions,
    m_step,
    shape,
)
from gpuclust.errors import ConfigurationError
from gpuclust.runtime.blocks import BLOCK_ROWS, Run

INIT_PARAMS = ("kmeans", "k-means++", "random", "random_from_data")
CHUNK = 65_536  # rows of which distances are held at once
MAX_PERMUTED = 4_000_000  # rows whose numbers are permuted for a sample, which takes 8 bytes each

KMeansStart = Callable[[Array, int, np.random.RandomState, "Array | None"], "np.ndarray | MixtureParameters"]


def kmeans_labels(
    X: Array, n_components: int, random_state: np.random.RandomState, sample_weight: Array | None
) -> np.ndarray:
    """Labels (n,) of scikit-learn's K-Means with one start, as its mixtures use it. X must be on the host."""
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    def seeds(X: np.ndarray, n_clusters: int, random_state: np.random.RandomState) -> np.ndarray:
        return _plus_plus(X, n_clusters, random_state, sample_weight)

    with warnings.catch_warnings():
        # Fewer distinct rows than components: the empty component raises a FitError later.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(n_clusters=n_components, init=seeds, n_init=1, random_state=random_state)
        return model.fit(X, sample_weight=sample_weight).labels_


def _plus_plus(
    X: np.ndarray, n_clusters: int, random_state: np.random.RandomState, sample_weight: np.ndarray | None
) -> np.ndarray:
    """Greedy k-means++ (Arthur and Vassilvitskii 2007), drawing and choosing as scikit-learn's does.

    Scikit-learn holds the distances of every row to every candidate; this holds one array of n rows, so that a start
    takes less memory than the matrix.
    """
    from sklearn.metrics.pairwise import euclidean_distances

    w = None if sample_weight is None else np.asarray(sample_weight, dtype=X.dtype)
    chunks = [slice(first, first + CHUNK) for first in range(0, len(X), CHUNK)]
    closest = np.full(len(X), np.inf, dtype=X.dtype)

    def nearest(rows: slice, candidates: np.ndarray) -> np.ndarray:
        return np.minimum(closest[rows], euclidean_distances(candidates, X[rows], squared=True))

    if w is None:
        chosen = X[int(random_state.random_sample() * len(X))]
    else:
        chosen = X[random_state.choice(len(X), p=w / w.sum())]
    centers = [chosen]
    for _ in range(1, n_clusters):
        for rows in chunks:
            closest[rows] = nearest(rows, chosen[None])[0]
        reach = np.cumsum(closest if w is None else w * closest)
        drawn = random_state.uniform(size=2 + int(np.log(n_clusters))) * reach[-1]
        candidates = X[np.minimum(np.searchsorted(reach, drawn), len(X) - 1)]
        del reach
        potentials = np.zeros(len(candidates))
        for rows in chunks:
            distances = nearest(rows, candidates)
            potentials += distances.sum(axis=1, dtype=np.float64) if w is None else distances @ w[rows]
        chosen = candidates[potentials.argmin()]
        centers.append(chosen)
    return np.stack(centers)


@dataclass(eq=False)
class MixtureSettings:
    """The parameters of a mixture, with scikit-learn's names and meanings, and two of our own.

    ``kmeans(X, n_components, random_state, sample_weight)`` gives the start of ``init_params="kmeans"``: labels (n,), or
    the first `MixtureParameters` themselves. It is scikit-learn's K-Means with one start unless another is given. On a
    device it gets X there, scikit-learn's a copy.
    ``device`` is ``cpu``, ``cuda``, or any `gpuclust.algorithms.mixture.m_step.IteratingBackend`.
    """

    n_components: int = 1
    _: KW_ONLY
    covariance_type: str = "full"
    tol: float = 1e-3
    reg_covar: float = 1e-6
    max_iter: int = 200
    n_init: int = 1
    init_params: str = "kmeans"
    weights_init: np.ndarray | None = None
    means_init: np.ndarray | None = None
    precisions_init: np.ndarray | None = None
    random_state: int | np.random.RandomState | None = None
    kmeans: KMeansStart = kmeans_labels
    device: str | IteratingBackend = "cpu"

    def check(self) -> None:
        """Raises ConfigurationError for a parameter out of its range."""
        for name, choices in (("covariance_type", COVARIANCE_TYPES), ("init_params", INIT_PARAMS)):
            if getattr(self, name) not in choices:
                raise ConfigurationError(
                    f"{name}={getattr(self, name)!r} is unknown; choose one of {', '.join(choices)}"
                )
        lowest: dict[str, float] = {"n_components": 1, "max_iter": 0, "n_init": 1, "tol": 0, "reg_covar": 0}
        for name, low in lowest.items():
            if not getattr(self, name) >= low:
                raise ConfigurationError(f"{name}={getattr(self, name)} is too low; give {low} or more")

    def check_start(self, n_features: int) -> None:
        """Raises ConfigurationError for given initial parameters of a wrong shape or range."""
        k, d = self.n_components, n_features
        expected = {"weights_init": (k,), "means_init": (k, d), "precisions_init": shape(self.covariance_type, k, d)}
        for name, wanted in expected.items():
            given = getattr(self, name)
            if given is not None and np.shape(given) != wanted:
                raise ConfigurationError(f"{name} has shape {np.shape(given)}; give {wanted}")
        if self.weights_init is not None:
            weights = np.asarray(self.weights_init)
            if not ((weights >= 0).all() and abs(weights.sum() - 1) < 1e-6):
                raise ConfigurationError(f"weights_init must be shares that sum to 1, not to {weights.sum():.6g}")


@dataclass(frozen=True)
class MixtureInit:
    """How the initial parameters of one mixture are found on one device."""

    settings: MixtureSettings
    backend: EMBackend

    def parameters(
        self, X: Array, random_state: np.random.RandomState, sample_weight: Array | None
    ) -> MixtureParameters:
        """Initial parameters from X; those given by the caller replace the estimated ones."""
        given = self.settings
        if given.weights_init is not None and given.means_init is not None and given.precisions_init is not None:
            found = None
        else:
            found = self._estimate(X, random_state, sample_weight)
        weights = found.weights if given.weights_init is None and found else np.asarray(given.weights_init, np.float64)
        means = found.means if given.means_init is None and found else np.asarray(given.means_init, np.float64)
        if given.precisions_init is None and found:
            return MixtureParameters(weights, means, found.covariances, found.precisions_cholesky)
        cholesky = cholesky_of_precisions(np.asarray(given.precisions_init), given.covariance_type)
        covariances = _covariances_of(cholesky, given.covariance_type)
        return MixtureParameters(weights, means, covariances, cholesky)

    def _estimate(
        self, X: Array, random_state: np.random.RandomState, sample_weight: Array | None
    ) -> MixtureParameters:
        if self.settings.init_params == "kmeans":
            on_host = self.settings.kmeans is kmeans_labels
            rows = self.backend.host(X) if on_host else X
            weight = sample_weight
            if on_host and sample_weight is not None:
                weight = self.backend.host(sample_weight)
            found = self.settings.kmeans(rows, self.settings.n_components, random_state, weight)
            return found if isinstance(found, MixtureParameters) else self._of_labels(X, found, sample_weight)
        weight = None if sample_weight is None else self.backend.host(sample_weight)
        if self.settings.init_params == "random":
            return self._of_random(X, random_state, weight)
        if self.settings.init_params == "random_from_data":
            chosen = draw_rows(random_state, len(X), self.settings.n_components)
        else:
            from sklearn.cluster import kmeans_plusplus

            _, chosen = kmeans_plusplus(
                self.backend.host(X), self.settings.n_components, sample_weight=weight, random_state=random_state
            )
        means = self.backend.host(self.backend.take(X, chosen)).astype(np.float64)
        return self._of_rows(X, means, weight)

    def _of_labels(self, X: Array, labels: np.ndarray, sample_weight: Array | None) -> MixtureParameters:
        """Two reads: the means, then the scatter about them."""
        middle = self.backend.host(X[:1]).astype(np.float64).repeat(self.settings.n_components, axis=0)
        rough = self.backend.label_pass(X, labels, middle, "diag", sample_weight)
        with np.errstate(invalid="ignore"):
            means = middle + np.nan_to_num(rough.sums / rough.counts[:, None])
        return self._m_step(
            self.backend.label_pass(X, labels, means, self.settings.covariance_type, sample_weight), means
        )

    def _of_random(
        self, X: Array, random_state: np.random.RandomState, sample_weight: np.ndarray | None
    ) -> MixtureParameters:
        """Random responsibilities, a block of rows at a time; every mean is then near the mean of the data."""
        k = self.settings.n_components
        middle = self.backend.reduce(X, _column_sums) / len(X)
        states = []
        for start in range(0, len(X), BLOCK_ROWS):
            states.append(random_state.get_state(legacy=False)["state"])
            random_state.uniform(size=(min(BLOCK_ROWS, len(X) - start), k))
        matrices = self.settings.covariance_type in ("full", "tied")
        total = self.backend.reduce(X, _random_moments, states, middle, k, matrices, sample_weight)
        return self._m_step(total, np.tile(middle, (k, 1)))

    def _of_rows(self, X: Array, means: np.ndarray, sample_weight: np.ndarray | None) -> MixtureParameters:
        """One row is a component's mean and its only row, so its covariance is ``reg_covar`` alone.

        As in scikit-learn, weights are 1 / n, and ``tied`` takes the scatter of all rows about 0 less that of the means.
        """
        k, d = means.shape
        if self.settings.covariance_type == "tied":
            alone = np.ones(1), np.zeros((1, d)), np.eye(d)[None]  # the only component, so every row is its own
            all_rows = self.backend.em_pass(X, *alone, "full", None).scatter[0]
            scatter = np.repeat((all_rows - means.T @ means)[None] / k, k, axis=0)
        else:
            scatter = np.zeros((k, d, d) if self.settings.covariance_type == "full" else (k, d))
        found = self._m_step(EMStatistics(np.nan, np.ones(k), np.zeros((k, d)), scatter), means)
        total = len(X) if sample_weight is None else float(sample_weight.sum())
        return MixtureParameters(np.full(k, 1 / total), means, found.covariances, found.precisions_cholesky)

    def _m_step(self, statistics: EMStatistics, means: np.ndarray) -> MixtureParameters:
        return m_step(statistics, means, self.settings.covariance_type, self.settings.reg_covar, resolution=0.0)


def draw_rows(random_state: np.random.RandomState, n_rows: int, size: int) -> np.ndarray:
    """Distinct row numbers (size,) int64 in random order; if there are many rows, without a permutation of all of them."""
    if n_rows <= MAX_PERMUTED:
        return random_state.choice(n_rows, size=size, replace=False)
    return np.random.default_rng(random_state.randint(2**32, size=4, dtype=np.uint32)).choice(
        n_rows, size, replace=False
    )


def _column_sums(run: Run) -> list[np.ndarray]:
    """The sums of the columns of each block, (d,) float64."""
    return [run.X[start:stop].sum(axis=0, dtype=np.float64) for start, stop in run.edges]


def _random_moments(
    run: Run, states: list[Any], middle: np.ndarray, k: int, matrices: bool, sample_weight: np.ndarray | None
) -> list[EMStatistics]:
    """The statistics about ``middle`` (d,) of each block under random responsibilities. ``states``: of the generator, by block."""
    found = []
    for block, (start, stop) in enumerate(run.edges, run.first_block):
        random_state = np.random.RandomState()
        random_state.set_state({"bit_generator": "MT19937", "state": states[block]})
        diff = run.X[start:stop] - middle
        shares = random_state.uniform(size=(len(diff), k))
        shares /= shares.sum(axis=1)[:, None]
        if sample_weight is not None:
            shares *= sample_weight[run.first_row + start : run.first_row + stop, None]
        if matrices:
            scatter = np.stack([(share[:, None] * diff).T @ diff for share in shares.T])
        else:
            scatter = shares.T @ diff**2
        found.append(EMStatistics(np.nan, shares.sum(axis=0), shares.T @ diff, scatter))
    return found


def _covariances_of(cholesky: np.ndarray, covariance_type: str) -> np.ndarray:
    if covariance_type in ("diag", "spherical"):
        return cholesky**-2.0
    inverse = np.linalg.inv(cholesky)
    return inverse.swapaxes(-1, -2) @ inverse
