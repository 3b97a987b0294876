"""Compiles, in a second process, the kernels that a job needs after its fit, while the first process compiles the fit.

    python -m gpuclust.metrics.precompile hdbscan float32 9

runs the later steps on a few rows of that dtype and number of features; their kernels are then in the cache on disk.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from gpuclust.algorithms.registry import get_algorithm, resolve
from gpuclust.metrics.silhouette import silhouette

ROWS = 600  # in two clusters: enough for both branches of the silhouette


def main(arguments: Sequence[str]) -> None:
    """Compile what a job of this algorithm, dtype and number of features needs after its fit, in that order."""
    name, dtype, n_features = arguments
    X = np.random.default_rng(0).normal(size=(ROWS, int(n_features))).astype(dtype)
    after_fit = get_algorithm(name).after_fit
    if after_fit is not None:
        resolve(after_fit)(X)
    labels = np.arange(ROWS, dtype=np.int32) % 2
    silhouette(X, [labels])
    silhouette(X, [labels], rows=np.arange(2))


if __name__ == "__main__":
    main(sys.argv[1:])
