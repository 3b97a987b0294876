"""Describe the noise of a clustering and assign its rows to clusters, without changing the labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpuclust.analysis.moments import moments
from gpuclust.model.records import NOISE
from gpuclust.runtime.blocks import RowBlocks
from gpuclust.runtime.passes import as_blocks


@dataclass(frozen=True)
class NoiseAssignment:
    """The most likely cluster of every row.

    ``cluster`` (n_rows,) int32: the label of the row or, for noise, the cluster with the greatest soft membership (-1 only
    if there are no clusters). ``confidence`` (n_rows,) float32 in [0, 1]: that of the label or, for noise, the soft
    membership, which is low far from all clusters.
    """

    cluster: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class NoiseProfile:
    """Statistics of the noise.

    ``z``: feature -> distance of the mean of the noise from the mean of all rows in standard deviations; ``spread``: feature ->
    its standard deviation over that of all rows (above 1: noise lies around the clusters, below: between them).
    ``destinations``: cluster -> (noise rows assigned to it, their median membership).
    """

    size: int
    fraction: float
    z: Mapping[str, float]
    spread: Mapping[str, float]
    destinations: Mapping[int, tuple[int, float]]

    def to_dict(self) -> dict[str, Any]:
        """Convert to a dictionary for JSON."""
        return asdict(self) | {
            "destinations": {
                str(c): {"rows": rows, "median_membership": median} for c, (rows, median) in self.destinations.items()
            }
        }


def assign_noise(
    labels: np.ndarray,
    confidence: np.ndarray,
    parameters: Mapping[str, np.ndarray],
    soft_membership: Callable[..., tuple[np.ndarray, np.ndarray]],
) -> NoiseAssignment:
    """Assign the noise rows of a fit to clusters by soft membership (for HDBSCAN: McInnes, Healy and Astels, hdbscan's soft clustering).

    ``labels`` and ``confidence`` (n_rows,) of the fitted rows; ``parameters`` are the clustering's, with the numbering of
    its clusters under ``canonical``; ``soft_membership`` is the algorithm's (`gpuclust.algorithms.registry.Algorithm`). Only the
    noise rows are computed.
    """
    noise = np.flatnonzero(labels == NOISE)
    cluster, certain = labels.astype(np.int32, copy=True), confidence.astype(np.float32, copy=True)
    if len(noise) == 0 or len(parameters["canonical"]) == 0:
        return NoiseAssignment(cluster, certain)
    found, membership = soft_membership(parameters, rows=noise)
    renumber = np.append(parameters["canonical"], NOISE).astype(np.int32)
    cluster[noise], certain[noise] = renumber[found], membership
    return NoiseAssignment(cluster, certain)


def noise_profile(
    labels: np.ndarray, assigned: NoiseAssignment, *, raw: np.ndarray | RowBlocks, features: tuple[str, ...]
) -> NoiseProfile:
    """Describe the noise of labels (n_rows,) in the original features ``raw`` (n_rows, n_features) float64."""
    blocks = as_blocks(raw)
    noise = labels == NOISE
    size, whole, rows = int(noise.sum()), moments(blocks), moments(blocks, labels, (NOISE,))
    scale = np.where(whole.std > 0, whole.std, 1.0)
    z, spread = ((rows.mean - whole.mean) / scale)[0], (rows.std / scale)[0]
    to, membership = assigned.cluster[noise], assigned.confidence[noise]
    destinations = {
        int(c): (int((to == c).sum()), float(np.median(membership[to == c]))) for c in np.unique(to) if c != NOISE
    }
    return NoiseProfile(
        size=size,
        fraction=size / len(labels),
        z=dict(zip(features, z.tolist() if size else [0.0] * len(features), strict=True)),
        spread=dict(zip(features, spread.tolist(), strict=True)),
        destinations=destinations,
    )
