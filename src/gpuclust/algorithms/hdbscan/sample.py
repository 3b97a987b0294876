"""HDBSCAN on a sample: the rows that the tree is built from, the settings scaled to their number, and the labels of all other rows.

The clusters of a sample agree with those of all rows; the border between a cluster and the noise is less exact, because the sample
is less dense. ``min_samples`` is not scaled: a smaller value would find clusters that do not exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psutil

from gpuclust.algorithms.hdbscan import HdbscanConfig, default_min_cluster_size, for_subset, sampling_note
from gpuclust.algorithms.hdbscan.place import FittedRows
from gpuclust.algorithms.registry import FitInput, FitResult, SizeSearch
from gpuclust.model.hdbscan import fall
from gpuclust.model.prediction import in_threads, row_blocks
from gpuclust.runtime.backend import Array
from gpuclust.runtime.blocks import RowBlocks, Run
from gpuclust.runtime.forecast import tree_rows


def sample_of(data: FitInput, config: HdbscanConfig) -> np.ndarray | None:
    """The numbers of the rows that the tree is built from, (m,) int64 ascending; None: all rows. Rows that this process holds in memory are
    sampled only if ``sample_rows`` is a number, wherever passes over them are made."""
    n_rows, n_columns = data.X.shape
    size = n_rows
    if isinstance(config.sample_rows, int):
        size = config.sample_rows
    elif isinstance(data.X, RowBlocks) and not data.X.in_memory:
        limit = psutil.virtual_memory().total // 2 if data.memory is None else data.memory
        size = tree_rows(n_rows, n_columns, limit)
    if size >= n_rows:
        return None
    return np.sort(np.random.default_rng(data.seed).choice(n_rows, size, replace=False, shuffle=False))


def rows_of(data: FitInput, sample: np.ndarray | None) -> Array:
    """The rows of the tree (m, n_columns): on the backend's device, or on the host if the matrix is in blocks."""
    if isinstance(data.X, RowBlocks):
        return data.X.take(np.arange(len(data.X)) if sample is None else sample)
    return data.X if sample is None else data.X[data.backend.to_device(sample)]


def settings_of(config: HdbscanConfig, n_rows: int, share: float) -> HdbscanConfig:
    """The configuration for the tree of a share of ``n_rows`` rows; the sizes of clusters are scaled by the share."""
    if config.min_cluster_size is None:
        config = replace(config, min_cluster_size=default_min_cluster_size(n_rows))
    if config.max_cluster_size is not None:
        config = replace(config, max_cluster_size=max(2, round(share * config.max_cluster_size)))
    return for_subset(config, share)


@dataclass(frozen=True)
class _Placed:
    """Labels and confidences of a run's rows in each of several cuts, both (n_cuts, n)."""

    labels: np.ndarray
    confidence: np.ndarray


def place_part(run: Run, tree: dict[str, np.ndarray], cuts: list[dict[str, np.ndarray]]) -> _Placed:
    """Find the place of the rows of a run in the tree once, and their clusters in each of its cuts."""
    fitted = FittedRows(tree["points"], tree["core_distances"], int(tree["min_samples"]))
    falls = [fall(cut) for cut in cuts]
    labels = np.empty((len(cuts), len(run.X)), dtype=np.int32)
    confidence = np.empty((len(cuts), len(run.X)), dtype=np.float32)
    for start, stop in run.edges:
        row, density = fitted.nearest(run.X[start:stop])

        def place(rows: slice, start: int = start, row: np.ndarray = row, density: np.ndarray = density) -> None:
            of_run = slice(start + rows.start, start + rows.stop)
            for i, within in enumerate(falls):
                labels[i, of_run], confidence[i, of_run], _ = within(row[rows], density[rows])

        in_threads(place, row_blocks(stop - start))
    return _Placed(labels, confidence)


def extend(
    data: FitInput, sample: np.ndarray, fits: Sequence[FitResult], configs: Sequence[HdbscanConfig]
) -> list[FitResult]:
    """The cuts of one tree of a sample with labels for all rows: those of the sample from the tree, the others as new rows."""
    n_rows = len(data.X)
    shared = ("points", "core_distances", "min_samples")
    tree = {name: fits[0].parameters[name] for name in shared}
    cuts = [{name: value for name, value in fit.parameters.items() if name not in shared} for fit in fits]
    if isinstance(data.X, RowBlocks):
        found = data.X.collect(place_part, tree, cuts)
    else:
        found = [place_part(Run(data.backend.to_host(data.X), 0), tree, cuts)]
    return [
        _extended(fit, config, sample, n_rows, [run.labels[i] for run in found], [run.confidence[i] for run in found])
        for i, (fit, config) in enumerate(zip(fits, configs, strict=True))
    ]


def _extended(
    fit: FitResult, config: HdbscanConfig, sample: np.ndarray, n_rows: int, labels: Any, confidence: Any
) -> FitResult:
    share = len(sample) / n_rows
    labels, confidence = np.concatenate(labels), np.concatenate(confidence)
    labels[sample], confidence[sample] = fit.labels, fit.confidence
    search = fit.size_search
    if search is not None:  # in rows of the table
        sizes, chosen = np.round(search.sizes / share).astype(np.int64), round(search.chosen / share)
        search, size = SizeSearch(sizes, search.scores, chosen), chosen
    else:
        size = default_min_cluster_size(n_rows) if config.min_cluster_size is None else int(config.min_cluster_size)
    note = sampling_note({"tree_rows": len(sample), "n_rows": n_rows})
    none = f"every row is noise at min_cluster_size={size}; lower it, or cluster.min_samples"
    return replace(
        fit,
        labels=labels,
        confidence=confidence,
        parameters={**fit.parameters, "sample": sample},
        options={"sampled": True},
        metrics={**fit.metrics, "min_cluster_size": size, "tree_rows": len(sample)},
        notes=note if len(fit.parameters["cluster_node"]) else (*note, none),
        size_search=search,
    )
