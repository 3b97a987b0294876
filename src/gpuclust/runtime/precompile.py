"""At a machine's first use, what comes after the fit is compiled by a second process while the first compiles the fit.

    python -m gpuclust.runtime.precompile hdbscan float32 9

does the later steps on a few rows of that type and number of features, whose kernels are then on disk.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

ROWS = 600  # in two clusters: enough that the silhouette goes both of its ways
LATER = frozenset({"gpuclust.metrics.silhouette.kernels_cpu", "gpuclust.algorithms.hdbscan.condense"})


def expect(algorithm: str, X: np.ndarray) -> None:
    """Tell what is fitted to which matrix, so that a helper can be started if kernels have to be compiled."""
    from numba import config

    from gpuclust.runtime.jit import Helper, offer

    if config.NUMBA_DEFAULT_NUM_THREADS > 1:  # a core for each
        task = (algorithm, X.dtype.name, str(X.shape[1]))
        offer(Helper((sys.executable, "-P", "-m", "gpuclust.runtime.precompile", *task), LATER))


def main(arguments: Sequence[str]) -> None:
    """Compile what a job of this algorithm, type and number of features needs after its fit, in that order."""
    from gpuclust.metrics.silhouette.score import silhouette

    algorithm, dtype, n_features = arguments
    X = np.random.default_rng(0).normal(size=(ROWS, int(n_features))).astype(dtype)
    if algorithm == "hdbscan":
        _cut(X)
    labels = np.arange(ROWS, dtype=np.int32) % 2
    silhouette(X, [labels])
    silhouette(X, [labels], rows=np.arange(2))


def _cut(X: np.ndarray) -> None:
    """Cut a tree of two clusters: rows after each other, with a long edge in the middle."""
    from gpuclust.algorithms.hdbscan.fit import tree_from_edges
    from gpuclust.algorithms.hdbscan.predict import soft_membership
    from gpuclust.algorithms.results import hdbscan_fit
    from gpuclust.config import HdbscanConfig

    rows = np.arange(ROWS)
    lengths = 1.0 + rows[1:] / ROWS
    lengths[ROWS // 2] = 9.0
    tree = tree_from_edges(np.column_stack([rows[:-1], rows[1:], lengths]), np.ones(ROWS), 5)
    fit = hdbscan_fit(X, tree, HdbscanConfig(min_cluster_size=20))
    soft_membership(fit.parameters)


if __name__ == "__main__":
    main(sys.argv[1:])
