"""Algorithms that share HDBSCAN's tree or its nearest neighbours, compared with the packages that have them.

    python experiments/bench/dbscan.py

On the five standardised principal components of 89,741 tracks, each pair timed in turn:

- DBSCAN: a tree with eight cuts, border rows included, and eight fits of scikit-learn's. First checks, for each radius, that the core rows
  are scikit-learn's and that their clusters are (ARI 1).
- PLSCAN: a tree with its most persistent layer, and a fit of fast_plscan (its measure of persistence ``size``).
- Leiden: a graph with three resolutions, and the same by scikit-learn's neighbours, products of sparse matrices and leidenalg, once with
  one graph and three partitions. The partitions must have the same labels.

The peak of memory of each is what a process of its own reaches above the rows.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import common
import igraph
import leidenalg
import numpy as np
from fast_plscan import PLSCAN
from scipy.sparse import csr_array, eye_array
from sklearn.cluster import DBSCAN
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

from gpuclust.algorithms.dbscan import DbscanConfig
from gpuclust.algorithms.leiden import LeidenConfig
from gpuclust.algorithms.plscan import PlscanConfig
from gpuclust.algorithms.registry import FitInput, FitResult, fit
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend

MIN_SAMPLES = 15
RADII = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45)
NEIGHBORS = 15
RESOLUTIONS = (0.1, 0.3, 1.0)
REPEATS = 3


def fitted(X: np.ndarray, configs: Sequence[Any]) -> list[FitResult]:
    """The results of configurations of one algorithm, which share what they can."""
    found = fit(FitInput(X, 0, CpuBackend(), ResultCache(), "bench"), configs)
    assert all(isinstance(result, FitResult) for result in found), found
    return found  # type: ignore[return-value]


def cuts(X: np.ndarray) -> list[FitResult]:
    """The clusters at all radii, from one tree."""
    return fitted(X, [DbscanConfig(eps=eps, min_samples=MIN_SAMPLES) for eps in RADII])


def dbscan_fits(X: np.ndarray) -> list[DBSCAN]:
    """scikit-learn's fits at all radii; it counts the row itself."""
    return [DBSCAN(eps=eps, min_samples=MIN_SAMPLES + 1, n_jobs=-1).fit(X) for eps in RADII]


def layer(X: np.ndarray) -> FitResult:
    """The most persistent layer of a tree."""
    return fitted(X, [PlscanConfig(min_samples=MIN_SAMPLES)])[0]


def plscan_fit(X: np.ndarray) -> PLSCAN:
    """fast_plscan's fit."""
    return PLSCAN(min_samples=MIN_SAMPLES, min_cluster_size=MIN_SAMPLES).fit(X)


def partitions(X: np.ndarray) -> list[np.ndarray]:
    """The communities at all resolutions, from one graph."""
    configs = [LeidenConfig(resolution=resolution, n_neighbors=NEIGHBORS) for resolution in RESOLUTIONS]
    return [result.labels for result in fitted(X, configs)]


def partitions_by_hand(X: np.ndarray) -> list[np.ndarray]:
    """The same by scikit-learn's neighbours, products of sparse matrices and leidenalg."""
    near = csr_array(NearestNeighbors(n_neighbors=NEIGHBORS, n_jobs=-1).fit(X).kneighbors_graph(mode="connectivity"))
    own = near + eye_array(len(X), format="csr")
    shared = csr_array((own @ own.T).multiply((near + near.T) > 0)).tocoo()
    upper = shared.row < shared.col
    edges = np.column_stack([shared.row[upper], shared.col[upper]])
    edges, values = edges[order := np.lexsort(edges.T[::-1])], shared.data[upper][order]
    network, weights = igraph.Graph(n=len(X), edges=edges), values / (2 * (NEIGHBORS + 1) - values)
    return [
        np.asarray(
            leidenalg.find_partition(
                network, leidenalg.RBConfigurationVertexPartition, weights=weights, n_iterations=2, seed=0,
                resolution_parameter=resolution,
            ).membership
        )
        for resolution in RESOLUTIONS
    ]  # fmt: skip


PARTS: dict[str, Callable[[np.ndarray], Any]] = {
    "dbscan_tree_and_eight_cuts": cuts,
    "dbscan_eight_fits": dbscan_fits,
    "plscan_tree_and_layer": layer,
    "plscan_fast_plscan": plscan_fit,
    "leiden_graph_and_three_partitions": partitions,
    "leiden_by_hand": partitions_by_hand,
}


def agreement_of_dbscan(X: np.ndarray) -> list[dict[str, Any]]:
    """For each radius: the number of clusters, of rows that are core rows on one side only, and the ARI of the core rows."""
    found = []
    for eps, ours, reference in zip(RADII, cuts(X), dbscan_fits(X), strict=True):
        core = reference.core_sample_indices_
        other = len(np.setxor1d(np.flatnonzero(ours.confidence == 1), core))
        ari = float(adjusted_rand_score(ours.labels[core], reference.labels_[core]))
        clusters = int(ours.labels.max()) + 1
        print(f"  DBSCAN, eps={eps}: {clusters} clusters, other core rows {other}, ARI of core rows {ari:.6f}")
        found.append({"eps": eps, "clusters": clusters, "other_core_rows": other, "core_ari": ari})
    return found


def agreement(X: np.ndarray) -> dict[str, Any]:
    """How far the results agree with those of the packages; also compiles."""
    ours, theirs = layer(X), plscan_fit(X)
    pairs = list(zip(partitions(X), partitions_by_hand(X), strict=True))
    found = {
        "dbscan": agreement_of_dbscan(X),
        "plscan": {"clusters": [int(ours.labels.max()) + 1, int(theirs.labels_.max()) + 1],
                   "ari": float(adjusted_rand_score(ours.labels, theirs.labels_))},
        "leiden": {"clusters": [int(a.max()) + 1 for a, _ in pairs], "same_labels": all(np.array_equal(a, b) for a, b in pairs),
                   "ari": min(float(adjusted_rand_score(a, b)) for a, b in pairs)},
    }  # fmt: skip
    print(f"  PLSCAN: {found['plscan']}\n  Leiden: {found['leiden']}")
    return found


def peak_of(part: str) -> float:
    """The memory, in MB, that a process of its own reaches above the rows and the imports."""
    command = [sys.executable, __file__, "--peak-of", part]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peak-of", choices=PARTS, help=argparse.SUPPRESS)
    part = parser.parse_args().peak_of
    X, what = common.real_tracks(5, distinct=True, dtype=np.float32)
    if part is not None:  # the process whose memory is measured
        PARTS[part](X[:2000])  # what is imported and compiled at the first call
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        PARTS[part](X)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
        return
    facts = common.heading("Cuts of one tree, communities of one graph", what, f"min_samples={MIN_SAMPLES}")
    agrees = agreement(X)
    seconds: dict[str, float] = {}
    for algorithm, repeats in (("dbscan", REPEATS), ("plscan", REPEATS), ("leiden", 1)):
        parts = {name: part for name, part in PARTS.items() if name.startswith(algorithm)}
        seconds |= common.interleaved({name: lambda part=part: part(X) for name, part in parts.items()}, repeats)  # type: ignore[misc]
    peaks = {name: round(peak_of(name)) for name in PARTS}
    for name in PARTS:
        print(f"{name:36} {seconds[name]:7.2f} s, peak {peaks[name]:5} MB")
    ours, theirs = list(PARTS)[::2], list(PARTS)[1::2]
    ratios = {a.partition("_")[0]: round(seconds[b] / seconds[a], 2) for a, b in zip(ours, theirs, strict=True)}
    print("times faster: " + ", ".join(f"{name} {ratio}" for name, ratio in ratios.items()))
    common.write(
        "dbscan",
        {"environment": facts, "data": what, "min_samples": MIN_SAMPLES, "radii": RADII, "n_neighbors": NEIGHBORS,
         "resolutions": RESOLUTIONS, "agreement": agrees, "seconds": seconds, "peak_mb": peaks, "times_faster": ratios},
    )  # fmt: skip


if __name__ == "__main__":
    main()
