"""scikit-learn estimators over gpuclust's CPU kernels: `KMeans`, `GaussianMixture`, `HDBSCAN` and others.

Parameters and fitted attributes have scikit-learn's names and meanings, so the estimators work in a ``Pipeline``, in
``GridSearchCV`` and with ``clone``. They also describe the algorithm of `gpuclust.fit` and `gpuclust.sweep`, where a
parameter may have several values, as in ``KMeans(n_clusters=range(2, 11))``.
"""

from gpuclust.estimators.agglomerative import AgglomerativeClustering
from gpuclust.estimators.bayesian import BayesianGaussianMixture
from gpuclust.estimators.bisecting import BisectingKMeans
from gpuclust.estimators.dbscan import DBSCAN
from gpuclust.estimators.hdbscan import HDBSCAN
from gpuclust.estimators.kmeans import KMeans
from gpuclust.estimators.leiden import Leiden
from gpuclust.estimators.mixture import GaussianMixture
from gpuclust.estimators.plscan import PLSCAN
from gpuclust.estimators.spectral import SpectralClustering

__all__ = [
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
]
