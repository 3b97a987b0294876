"""Algorithms that share HDBSCAN's tree or its nearest neighbours, compared with the packages that have them.

    python experiments/bench/dbscan.py

On the five standardised principal components of 89,741 tracks, each pair timed in turn:

- DBSCAN: a tree with four cuts, border rows included, and four fits of scikit-learn's. For each radius the core rows must be scikit-learn's,
  and so must their clusters (ARI 1).
- PLSCAN: a tree with its most persistent layer, and a fit of fast_plscan (its measure of persistence ``size``).
- Leiden: a graph with its communities by igraph, and the same by scikit-learn's neighbours, products of sparse matrices and leidenalg. The
  modularity of both partitions is compared.

The peak of memory of each is what a process of its own reaches above the rows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
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
RADII = (0.1, 0.2, 0.3, 0.4)
NEIGHBORS = 15
REPEATS = {"dbscan": 3, "plscan": 3, "leiden": 1}


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


def communities(X: np.ndarray) -> np.ndarray:
    """The communities of the graph of nearest neighbours."""
    return fitted(X, [LeidenConfig(n_neighbors=NEIGHBORS)])[0].labels


def by_hand(X: np.ndarray) -> tuple[np.ndarray, Any, np.ndarray]:
    """The same by scikit-learn's neighbours, products of sparse matrices and leidenalg: the labels, and the graph
    with its weights."""
    near = csr_array(NearestNeighbors(n_neighbors=NEIGHBORS, n_jobs=-1).fit(X).kneighbors_graph(mode="connectivity"))
    own = near + eye_array(len(X), format="csr")
    shared = csr_array((own @ own.T).multiply((near + near.T) > 0)).tocoo()
    upper = shared.row < shared.col
    weights = shared.data[upper] / (2 * (NEIGHBORS + 1) - shared.data[upper])
    network = igraph.Graph(n=len(X), edges=np.column_stack([shared.row[upper], shared.col[upper]]))
    found = leidenalg.find_partition(network, leidenalg.RBConfigurationVertexPartition, weights=weights, seed=0)
    return np.asarray(found.membership), network, weights


PARTS: dict[str, Callable[[np.ndarray], Any]] = {
    "dbscan_tree_and_four_cuts": cuts,
    "dbscan_four_fits": dbscan_fits,
    "plscan_tree_and_layer": layer,
    "plscan_fast_plscan": plscan_fit,
    "leiden_graph_and_igraph": communities,
    "leiden_by_hand_and_leidenalg": by_hand,
}


def agreement(found: dict[str, Any]) -> dict[str, Any]:
    """How far the results of the parts agree with those of the packages."""
    dbscan = []
    for eps, ours, reference in zip(RADII, found["dbscan_tree_and_four_cuts"], found["dbscan_four_fits"], strict=True):
        core = reference.core_sample_indices_
        dbscan.append(
            {"eps": eps, "clusters": int(ours.labels.max()) + 1, "core_rows": len(core),
             "other_core_rows": len(np.setxor1d(np.flatnonzero(ours.confidence == 1), core)),
             "core_ari": float(adjusted_rand_score(ours.labels[core], reference.labels_[core]))}
        )  # fmt: skip
    ours, theirs = found["plscan_tree_and_layer"].labels, found["plscan_fast_plscan"].labels_
    plscan = {"clusters": [int(ours.max()) + 1, int(theirs.max()) + 1], "ari": float(adjusted_rand_score(ours, theirs))}
    labels, (other, network, weights) = found["leiden_graph_and_igraph"], found["leiden_by_hand_and_leidenalg"]
    leiden = {"clusters": [int(labels.max()) + 1, int(other.max()) + 1],
              "modularity": [float(network.modularity(one, weights=weights)) for one in (labels, other)]}  # fmt: skip
    for line in (*dbscan, plscan, leiden):
        print(f"  {line}")
    return {"dbscan": dbscan, "plscan": plscan, "leiden": leiden}


def peak_of(part: str, rows: Path) -> float:
    """The memory, in MB, that a process of its own reaches above the rows and the imports."""
    command = [sys.executable, __file__, "--peak-of", part, str(rows)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(part: str, rows: str) -> None:
    """What `peak_of` reads."""
    X = np.load(rows)
    PARTS[part](X[:2000])  # what is imported and compiled at the first call
    before = highest_mb()
    PARTS[part](X)
    print(highest_mb() - before)


def highest_mb() -> float:
    """The highest resident memory of this process so far, in MB; getrusage would count that of the process which started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peak-of", nargs=2, help=argparse.SUPPRESS)
    measured = parser.parse_args().peak_of
    if measured is not None:
        print_peak(*measured)
        return
    X, what = common.real_tracks(5, distinct=True, dtype=np.float32)
    facts = common.heading("DBSCAN, PLSCAN and Leiden", what, f"min_samples={MIN_SAMPLES}")
    for part in PARTS.values():
        part(X[:2000])  # compiles
    seconds: dict[str, float] = {}
    found: dict[str, Any] = {}
    for algorithm, repeats in REPEATS.items():
        names = [name for name in PARTS if name.startswith(algorithm)]
        runs = {name: lambda name=name: found.update({name: PARTS[name](X)}) for name in names}  # type: ignore[misc]
        seconds |= common.interleaved(runs, repeats)
    agrees = agreement(found)
    with TemporaryDirectory() as folder:
        np.save(rows := Path(folder) / "rows.npy", X)
        peaks = {name: round(peak_of(name, rows)) for name in PARTS}
    for name in PARTS:
        print(f"{name:36} {seconds[name]:7.2f} s, peak {peaks[name]:5} MB")
    ours, theirs = list(PARTS)[::2], list(PARTS)[1::2]
    ratios = {a.partition("_")[0]: round(seconds[b] / seconds[a], 2) for a, b in zip(ours, theirs, strict=True)}
    print("times faster: " + ", ".join(f"{name} {ratio}" for name, ratio in ratios.items()))
    common.write(
        "dbscan",
        {"environment": facts, "data": what, "min_samples": MIN_SAMPLES, "radii": RADII, "n_neighbors": NEIGHBORS,
         "agreement": agrees, "seconds": seconds, "peak_mb": peaks, "times_faster": ratios},
    )  # fmt: skip


if __name__ == "__main__":
    main()
