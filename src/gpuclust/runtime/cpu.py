"""The CPU backend: pandas, scikit-learn and our own fused passes."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gpuclust.algorithms.results import hdbscan_fit, kmeans_fit, mixture_fit, projection
from gpuclust.config import AUTO, GmmConfig, HdbscanConfig, KMeansConfig
from gpuclust.data.frames import PandasFrames
from gpuclust.errors import FitError
from gpuclust.metrics.silhouette.score import SilhouetteResult, silhouette
from gpuclust.runtime.backend import Fit, Progress, Projection, Scaling
from gpuclust.runtime.deduplicate import Distinct
from gpuclust.runtime.precompile import expect

FEW_VALUES = 2_000_000


class CpuBackend:
    """Computes in host memory; see `gpuclust.runtime.backend.Backend` for what each method means."""

    name = "cpu"
    xp = np

    def __init__(self) -> None:
        self.frames = PandasFrames()

    @cached_property
    def device(self) -> str:
        """The processor's name and its cores."""
        return f"{_processor()} ({_cores()} cores)"

    def to_host(self, array: np.ndarray) -> np.ndarray:
        """The array itself."""
        return array

    def to_device(self, array: np.ndarray) -> np.ndarray:
        """The array itself."""
        return array

    def fit_scaling(self, X: np.ndarray, method: str) -> Scaling:
        """See Backend; scikit-learn's scalers, which leave a constant feature at scale 1."""
        from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

        if method == "standard":
            standard = StandardScaler().fit(X)
            return Scaling(method, standard.mean_, standard.scale_)
        if method == "minmax":
            minmax = MinMaxScaler().fit(X)
            return Scaling(method, minmax.data_min_, 1.0 / minmax.scale_)
        if method == "robust":
            robust = RobustScaler().fit(X)
            return Scaling(method, robust.center_, robust.scale_)
        return Scaling(method, np.zeros(X.shape[1]), np.ones(X.shape[1]))

    def fit_projection(self, X: np.ndarray) -> Projection:
        """See Backend; PCA by the eigenvectors of the covariance, exact, one read of a tall matrix."""
        from sklearn.decomposition import PCA

        tall = X.shape[0] > X.shape[1]
        with warnings.catch_warnings():
            # A matrix without variance has no ratios; they are 0 below.
            warnings.simplefilter("ignore", RuntimeWarning)
            pca = PCA(svd_solver="covariance_eigh" if tall else "full").fit(X)
        return projection(pca.mean_, pca.components_, pca.explained_variance_, len(X))

    def kmeans(
        self,
        X: np.ndarray,
        requests: Sequence[KMeansConfig],
        seed: int,
        progress: Progress,
        distinct: Distinct | None = None,
    ) -> list[Fit]:
        """See Backend. Engine ``fused`` is `gpuclust.algorithms.kmeans.fit`, ``library`` scikit-learn."""
        from gpuclust.algorithms.kmeans.fit import KMeansRequest, fit_kmeans, use_fused

        fused = [
            i
            for i, r in enumerate(requests)
            if r.engine == "fused" or (r.engine == AUTO and use_fused(len(X), X.shape[1], r.n_clusters))
        ]
        fits: dict[int, Fit] = {}
        wanted = [
            KMeansRequest(r.n_clusters, seed=seed, n_init=r.n_init, init=r.init, max_iter=r.max_iter, tol=r.tol)
            for r in (requests[i] for i in fused)
        ]
        if wanted:
            expect("kmeans", X)
            models = fit_kmeans(X, wanted, distinct=distinct, progress=lambda n, of: progress(n / of))
            for i, found in zip(fused, models, strict=True):
                fits[i] = _noted(kmeans_fit(X, found.centers, found.n_iter, found.converged, "fused"), distinct)
        for i, request in enumerate(requests):
            if i not in fits:
                fits[i] = _library_kmeans(X, request, seed)
                progress((i + 1) / len(requests))
        return [fits[i] for i in range(len(requests))]

    def gmm(
        self, X: np.ndarray, request: GmmConfig, seed: int, progress: Progress, distinct: Distinct | None = None
    ) -> Fit:
        """See Backend. Engine ``fused`` is `gpuclust.algorithms.mixture.fit`, ``library`` scikit-learn."""
        from gpuclust.algorithms.mixture.fit import GaussianMixture
        from gpuclust.algorithms.mixture.short_em import short_em_init

        settings: dict[str, Any] = {
            "n_components": request.n_clusters,
            "covariance_type": request.covariance_type,
            "init_params": request.init_params,
            "n_init": request.n_init,
            "max_iter": request.max_iter,
            "tol": request.tol,
            "reg_covar": request.reg_covar,
            "random_state": seed,
        }
        if request.engine == "library":
            return mixture_fit(X, _library_gmm(X, settings), "library")
        expect("gmm", X)
        search = short_em_init(request.covariance_type, request.reg_covar)
        if distinct is None or request.init_params != "kmeans":  # the other starts draw a number for each row
            mixture = GaussianMixture(**settings, kmeans=search)
            return mixture_fit(X, mixture.fit(_precise(X), progress=progress), "fused")

        mixture = GaussianMixture(**settings, kmeans=lambda _, n, random, __: search(X, n, random, None))
        model = mixture.fit(_precise(distinct.X), distinct.counts, progress=progress)
        return _noted(mixture_fit(X, model, "fused"), distinct)

    def hdbscan_tree(self, X: np.ndarray, min_samples: int) -> Any:
        """See Backend; fast_hdbscan's tree, by our own kernels."""
        from gpuclust.algorithms.hdbscan.fit import spanning_tree

        expect("hdbscan", X)
        return spanning_tree(X, min_samples=min_samples)

    def hdbscan_cut(self, X: np.ndarray, tree: Any, request: HdbscanConfig) -> Fit:
        """See Backend."""
        return hdbscan_fit(X, tree, request)

    def silhouette(
        self,
        X: np.ndarray,
        labelings: Sequence[np.ndarray],
        rows: np.ndarray | None,
        progress: Progress,
        distinct: Distinct | None = None,
    ) -> list[SilhouetteResult]:
        """See Backend."""
        if distinct is not None and rows is None:
            once = [labels[distinct.first] for labels in labelings]
            return silhouette(distinct.X, once, sample_weight=distinct.counts, progress=progress)
        return silhouette(X, labelings, rows=rows, progress=progress)


def _noted(fit: Fit, distinct: Distinct | None) -> Fit:
    return fit if distinct is None else replace(fit, notes=(*fit.notes, distinct.note("fitted")))


def _precise(X: np.ndarray) -> np.ndarray:
    """A small matrix in float64: its mixture is found as fast, and needs no float32 passes compiled at a first use."""
    return X.astype(np.float64, copy=False) if X.size <= FEW_VALUES else X


def _library_kmeans(X: np.ndarray, request: KMeansConfig, seed: int) -> Fit:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Fewer distinct rows than clusters: said by the note below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(
            request.n_clusters,
            init=request.init,
            n_init=request.n_init,
            max_iter=request.max_iter,
            tol=request.tol,
            random_state=seed,
        ).fit(X)
    return kmeans_fit(X, model.cluster_centers_, model.n_iter_, model.n_iter_ < request.max_iter, "library")


def _library_gmm(X: np.ndarray, settings: dict[str, Any]) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        # Not converged is told by the fit's own note.
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            return GaussianMixture(**settings).fit(X)
        except ValueError as error:
            raise FitError(
                f"the mixture of {settings['n_components']} components cannot be fitted: {str(error).splitlines()[0]}"
            ) from error


def _cores() -> int:
    """Those that this process may use, where the system tells; else those that there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
