"""From fitted parameters to a Fit: the labels, confidences and criteria that a job records and a served model repeats.

Everything here is float64 on the host. A backend computes the parameters; what they mean for a row is said once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuclust.config import HdbscanConfig, default_min_cluster_size
from gpuclust.runtime.backend import Array, Fit, Projection

if TYPE_CHECKING:
    from gpuclust.algorithms.mixture.em import EMScores

MixtureAssign = Callable[[Array, Mapping[str, np.ndarray], str], "tuple[EMScores, np.ndarray]"]


def projection(mean: np.ndarray, components: np.ndarray, variance: np.ndarray, n_rows: int) -> Projection:
    """A Projection whose components' largest loadings are positive; ratios are 0 where there is no variance.

    ``variance`` is the explained variance with n - 1, as scikit-learn and cuML give it.
    """
    components = np.asarray(components, dtype=np.float64)
    largest = np.abs(components).argmax(axis=1)
    signs = np.where(components[np.arange(len(components)), largest] < 0, -1.0, 1.0)
    variance = np.maximum(np.asarray(variance, dtype=np.float64), 0.0)
    total = variance.sum()
    return Projection(
        mean=np.asarray(mean, dtype=np.float64),
        components=components * signs[:, None],
        explained_variance=variance,
        explained_variance_ratio=variance / total if total > 0 else np.zeros_like(variance),
        scale=np.ones(len(components)),
        population_factor=float(np.sqrt((n_rows - 1) / n_rows)),
    )


def kmeans_fit(X: np.ndarray, centers: np.ndarray, n_iter: int, converged: bool, engine: str) -> Fit:
    """Labels, confidence and inertia of given centres, in float64, as a served model computes them."""
    from gpuclust.algorithms.kmeans.fit import assign

    labels, nearest, second = assign(X, centers)
    return Fit(
        labels=labels,
        confidence=margin(nearest, second),
        distance=nearest.astype(np.float32),
        parameters={"centers": np.asarray(centers, dtype=np.float64)},
        per_cluster=("centers",),
        metrics={"inertia": float(np.square(nearest).sum()), "n_iter": n_iter},
        converged=converged,
        engine=engine,
        notes=() if converged else ("K-Means stopped at max_iter before it converged; raise cluster.max_iter",),
    )


def margin(nearest: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Confidence of a hard assignment: 1 - d(own centre) / d(next centre), float32 in [0, 1]; 1 with no other centre.

    The simplified silhouette of Hruschka, de Castro and Campello (2004).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(second > 0, nearest / second, 1.0)
    return (1.0 - ratio).astype(np.float32)


def mixture_fit(X: Array, model: Any, engine: str, assign: MixtureAssign | None = None) -> Fit:
    """Labels, confidence and criteria of a fitted mixture, in float64, as a served model computes them.

    ``model`` has scikit-learn's fitted attributes; ``assign`` does on another device what `mixture_assign` does here. ``bic``, ``aic`` and ``icl`` (BIC plus twice the entropy of the
    responsibilities; Biernacki, Celeux and Govaert 2000) are lower for better mixtures.
    """
    from gpuclust.algorithms.mixture.m_step import n_parameters

    kind = model.covariance_type
    parameters = {
        "weights": np.asarray(model.weights_, dtype=np.float64),
        "means": np.asarray(model.means_, dtype=np.float64),
        "covariances": np.asarray(model.covariances_, dtype=np.float64),
        "precisions_cholesky": np.asarray(model.precisions_cholesky_, dtype=np.float64),
    }
    scores, distance = (assign or mixture_assign)(X, parameters, kind)
    free = n_parameters(kind, *parameters["means"].shape)
    bic = -2 * scores.log_likelihood + free * float(np.log(len(X)))
    return Fit(
        labels=scores.labels,
        confidence=scores.confidence,
        distance=distance,
        parameters=parameters,
        per_cluster=("weights", "means", *(() if kind == "tied" else ("covariances", "precisions_cholesky"))),
        metrics={
            "log_likelihood": scores.log_likelihood,
            "bic": bic,
            "aic": -2 * scores.log_likelihood + 2 * free,
            "icl": bic + 2 * scores.entropy,
            "n_iter": model.n_iter_,
        },
        converged=model.converged_,
        engine=engine,
        notes=_mixture_notes(model.converged_, scores.labels, len(parameters["weights"])),
    )


def _mixture_notes(converged: bool, labels: np.ndarray, n_components: int) -> tuple[str, ...]:
    """What a user should know of a fit beside its figures."""
    notes = [] if converged else ["EM stopped at max_iter before it converged; raise cluster.max_iter"]
    without = n_components - len(np.unique(labels))
    if without:
        notes.append(f"{without} of {n_components} components are the likeliest of no row, so there are fewer clusters")
    return tuple(notes)


def mixture_assign(
    X: np.ndarray, parameters: Mapping[str, np.ndarray], covariance_type: str
) -> tuple[EMScores, np.ndarray]:
    """Each row under a mixture, in float64 whatever X is: its scores, and its Euclidean distance to its mean (n,) float32."""
    from gpuclust.algorithms.mixture.em import passes

    X = np.asarray(X, dtype=np.float64)
    means = parameters["means"]
    scores = passes("cpu").score_pass(
        X, parameters["weights"], means, parameters["precisions_cholesky"], covariance_type
    )
    squares = np.zeros(len(X))
    for j in range(X.shape[1]):  # by column: no second matrix
        squares += (X[:, j] - means[scores.labels, j]) ** 2
    return scores, np.sqrt(squares).astype(np.float32)


def hdbscan_fit(X: np.ndarray, tree: Any, request: HdbscanConfig) -> Fit:
    """One cut of a spanning tree; the tree may come from any device."""
    from gpuclust.algorithms.hdbscan.fit import cut
    from gpuclust.algorithms.hdbscan.predict import prediction_data

    size = request.min_cluster_size
    curve = None
    if isinstance(size, str):
        from gpuclust.algorithms.hdbscan.fit import auto_min_cluster_size

        curve = auto_min_cluster_size(tree)
        size = int(curve.chosen)
    elif size is None:
        size = default_min_cluster_size(tree.n_rows)
    found = cut(
        tree,
        min_cluster_size=size,
        cluster_selection_method=request.cluster_selection_method,
        cluster_selection_epsilon=float(request.cluster_selection_epsilon),
        max_cluster_size=request.max_cluster_size or 0,
        allow_single_cluster=request.allow_single_cluster,
    )
    none = (
        ()
        if found.n_clusters
        else (f"every row is noise at min_cluster_size={size}; lower it, or cluster.min_samples",)
    )
    return Fit(
        labels=found.labels,
        confidence=found.probabilities.astype(np.float32),
        distance=None,
        parameters=prediction_data(X, tree, found),
        metrics={"relative_validity": found.relative_validity, "min_cluster_size": size},
        notes=none,
        details={"condensed": found.condensed, "persistence": found.persistence, "persistence_curve": curve},
    )
