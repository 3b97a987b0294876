"""K-Means of a matrix that is not in memory, by our own engine; the results are equal to those in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
from psutil import virtual_memory

from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.kmeans.cpu import Assigned, centroid_confidence, requests_of
from gpuclust.algorithms.kmeans.cpu import fit as fit_in_memory
from gpuclust.algorithms.kmeans.fit import FittedCenters, block_squares, fit_centers
from gpuclust.algorithms.registry import FitInput, FitResult
from gpuclust.errors import ConfigurationError
from gpuclust.runtime.blocks import BLOCK_ROWS, MergeTree, Request, RowBlocks, Run
from gpuclust.runtime.jit import schedule_precompile
from gpuclust.runtime.products import nearest_centers

LABEL_SHARE = 2
"""The share of the memory of a fit that the labels of the fits that advance together may take."""


def fit(data: FitInput, configs: Sequence[KMeansConfig]) -> list[FitResult]:
    """Fit several configurations to `RowBlocks`, all their starts in shared passes; the rows of one block are fitted in memory.

    Raises ConfigurationError for ``engine=library`` with more rows: scikit-learn needs all of them in memory.
    """
    blocks = data.X
    assert isinstance(blocks, RowBlocks)
    if len(blocks) <= BLOCK_ROWS:
        return fit_in_memory(replace(data, X=blocks.take(np.arange(len(blocks)))), configs)
    if any(config.engine == "library" for config in configs):
        raise ConfigurationError(
            "cluster.engine=library needs all rows in memory; use cluster.engine=fused or memory.mode=resident"
        )
    if any(config.limited for config in configs):
        raise ConfigurationError(
            "cluster.min_size and cluster.max_size need all rows in memory; use memory.mode=resident"
        )
    schedule_precompile("kmeans", blocks)
    room = virtual_memory().total // 2 if data.memory is None else data.memory
    requests = requests_of(configs, data)
    models = fit_centers(blocks, requests, batch_bytes=room // LABEL_SHARE, progress=data.progress)
    return [
        found.result(model.centers, model.n_iter, model.converged, "fused")
        for model, found in zip(models, assign_all(blocks, models), strict=True)
    ]


Part = tuple[np.ndarray, np.ndarray, np.ndarray, list[float]]


def assign_rows(run: Run, centers: np.ndarray) -> Part:
    """Labels (int32), confidence and distance (float32) of the rows of a run, and the sum of squared distances of each block."""
    labels, nearest, second = nearest_centers(run.X, centers)
    return labels, centroid_confidence(nearest, second), nearest.astype(np.float32), block_squares(nearest)


def assign_all(blocks: RowBlocks, models: Sequence[FittedCenters]) -> list[Assigned]:
    """All rows assigned to the centres of each model, in one read."""
    collected = blocks.passes([Request(assign_rows, (model.centers,), None) for model in models])
    return [_joined(blocks.n_blocks, collected.pop(0)) for _ in models]


def _joined(n_blocks: int, parts: list[Part]) -> Assigned:
    tree = MergeTree(n_blocks)
    for block, squares in enumerate(chain.from_iterable(part[3] for part in parts)):
        tree.put(0, block, squares)
    labels, confidence, distance, _ = zip(*parts, strict=True)
    del parts[:]
    columns = [list(labels), list(confidence), list(distance)]
    del labels, confidence, distance
    joined = []
    while columns:  # one column at a time, so that only one is in memory twice
        joined.append(np.concatenate(columns.pop(0)))
    return Assigned(joined[0], joined[1], joined[2], float(tree.value))
