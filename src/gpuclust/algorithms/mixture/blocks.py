"""Gaussian mixtures over rows that are not in memory: the fit of `mixture.fit` with passes over blocks."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from gpuclust.algorithms.mixture import GmmConfig
from gpuclust.algorithms.mixture.cpu import MAX_VALUES_FLOAT64, result_of, settings_of
from gpuclust.algorithms.mixture.cpu import fit as fit_in_memory
from gpuclust.algorithms.mixture.em import Array, EMScores, EMStatistics, KernelParameters, recentre
from gpuclust.algorithms.mixture.em_cpu import moments_part, statistics_of
from gpuclust.algorithms.mixture.fit import GaussianMixture
from gpuclust.algorithms.mixture.m_step import HostIterations
from gpuclust.algorithms.mixture.short_em import short_em_init
from gpuclust.algorithms.registry import FitInput, FitResult
from gpuclust.errors import ConfigurationError, FitError
from gpuclust.runtime.blocks import Part, RowBlocks
from gpuclust.runtime.jit import schedule_precompile


def fit(data: FitInput, configs: Sequence[GmmConfig]) -> list[FitResult]:
    """Fit each configuration to the blocks ``data.X`` (n_samples, n_columns), with the same results as for rows in memory.

    Raises ConfigurationError for an engine or an initialisation that needs all rows at once, unless the matrix has at most `MAX_VALUES_FLOAT64` values.
    """
    return [_fit(data, config) for config in configs]


def _fit(data: FitInput, config: GmmConfig) -> FitResult:
    blocks = data.X
    assert isinstance(blocks, RowBlocks)
    n_rows, n_columns = blocks.shape
    if n_rows * n_columns <= MAX_VALUES_FLOAT64:
        rows = blocks.take(np.arange(n_rows))
        return fit_in_memory(replace(data, X=rows), [config])[0]
    if config.init_from is not None:
        raise FitError(
            "cluster.init_from of a mixture needs all rows in memory; use memory.mode=resident, or cluster=kmeans"
        )
    if config.engine == "library":
        raise _needs_memory("cluster.engine=library", "cluster.engine=fused")
    if config.init_params == "k-means++":
        raise _needs_memory("cluster.init_params=k-means++", "cluster.init_params=kmeans")
    schedule_precompile("gmm", blocks)
    init = short_em_init(config.covariance_type, config.reg_covar)
    mixture = GaussianMixture(**settings_of(config, data.seed), kmeans=init, device=BlockPasses(_streamed(data)))
    return result_of(blocks, mixture.fit(blocks, progress=data.progress), "fused")


def _streamed(data: FitInput) -> Part | None:
    """The part of a pass that copies the rows to the GPU, where one is used."""
    if data.backend.name != "gpu":
        return None
    from gpuclust.algorithms.mixture.stream_cuda import StreamedSums

    return StreamedSums()


def _needs_memory(setting: str, other: str) -> ConfigurationError:
    return ConfigurationError(f"{setting} needs all rows in memory; use {other} or memory.mode=resident")


class BlockPasses(HostIterations):
    """The passes of EM over `RowBlocks`, without weights of rows; their results have the bits of passes over rows in memory.

    With ``streamed`` the E-step is computed by it, run by run: ``streamed(run, KernelParameters)`` gives the statistics about the centres.
    """

    def __init__(self, streamed: Part | None = None) -> None:
        self._streamed = streamed

    def matrix(self, X: RowBlocks) -> RowBlocks:
        """The blocks themselves."""
        return X

    def host(self, X: Array) -> np.ndarray:
        """Rows that are in memory. Raises TypeError for blocks, because their rows are not copied to memory."""
        if isinstance(X, np.ndarray):
            return X
        raise TypeError("rows in blocks are not copied to memory")

    def take(self, X: RowBlocks, numbers: np.ndarray) -> np.ndarray:
        """Rows by their numbers, in float64 in host memory."""
        return X.take(numbers).astype(np.float64)

    def reduce(self, X: RowBlocks, part: Part, *args: Any) -> Any:
        """Merge the statistics of the blocks, which are computed where the blocks are."""
        return X.reduce(part, *args)

    def _moments(self, X: RowBlocks, labels: Array, sample_weight: Array | None, c: KernelParameters) -> EMStatistics:
        assert not len(labels), "labels of all rows are for rows in memory"
        assert sample_weight is None, "weights are for rows in memory"
        if self._streamed is not None:
            return recentre(reduce(operator.add, X.collect(self._streamed, c)), c, float(len(X)))
        return statistics_of(X.reduce(moments_part, c, len(X)), c, float(len(X)))

    def _scores(
        self, X: RowBlocks, sample_weight: Array | None, c: KernelParameters, responsibilities: bool
    ) -> EMScores:
        raise TypeError("rows in blocks are scored by gpuclust.algorithms.mixture.cpu.score_rows")
