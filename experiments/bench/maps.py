"""A UMAP map of a million rows: its time, its trustworthiness beside that of principal components, and the peak memory.

    python experiments/bench/maps.py               # a few minutes on two cores; --rows and --sample for less

UMAP is fitted on a sample, and all rows are placed among its rows. The placement is compared with `transform` of umap-learn on rows that were not
fitted: the seconds of both, and the trustworthiness of the positions that they give. UMAP and the search for neighbours are compiled before.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings

import numpy as np
from common import generated, heading, write

from gpuclust.config import MapConfig
from gpuclust.data.table import sample_rows
from gpuclust.metrics.trustworthiness import MAX_COMPARED, sampled_trustworthiness
from gpuclust.model.preparation import MAP_DIMENSIONS, Preparation, Scaling
from gpuclust.reducers.landmarks import EmbeddingSettings
from gpuclust.reducers.maps import fit_map
from gpuclust.reducers.pca import first, fit_components
from gpuclust.reducers.umap import embed
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.matrix import Matrix

SEED, N_FEATURES, HELD_OUT = 0, 10, 10_000
BACKEND = CpuBackend()


def prepared(n_rows: int) -> Matrix:
    """Rows of eight overlapping Gaussian clusters, with their principal components as the map."""
    raw = generated(n_rows, N_FEATURES)
    scaling = Scaling("none", np.zeros(N_FEATURES), np.ones(N_FEATURES))
    drawn = first(fit_components(raw, BACKEND), MAP_DIMENSIONS)
    preparation = Preparation(tuple("abcdefghij"), scaling, None, drawn, "float32")
    X, coordinates = preparation.transform(raw)
    return Matrix(X, coordinates, preparation, "bench", 0.0)


def peak_gb() -> float:
    """The largest memory that the process has held, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def against_transform(sample: np.ndarray, held_out: np.ndarray, positions: np.ndarray) -> dict[str, float]:
    """Seconds and trustworthiness of umap-learn's `transform` of rows that were not fitted, and the trustworthiness of their ``positions``."""
    from umap import UMAP

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = UMAP(n_neighbors=15, min_dist=0.1, random_state=SEED, n_jobs=1).fit(sample)
        started = time.perf_counter()
        theirs = fitted.transform(held_out)
        seconds = time.perf_counter() - started
    own, library = sampled_trustworthiness(held_out, [positions, theirs], seed=SEED)
    return {"transform_seconds": seconds, "placed_trustworthiness": own, "transform_trustworthiness": library}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--sample", type=int, default=50_000)
    asked = parser.parse_args()
    facts = heading(f"UMAP map of {asked.rows:,} rows x {N_FEATURES}", f"fitted on {asked.sample:,} rows")
    embed(generated(5_000, N_FEATURES).astype(np.float32), EmbeddingSettings(2, None, 0.1, SEED), BACKEND)  # compiles
    matrix = prepared(asked.rows)
    before, started = peak_gb(), time.perf_counter()
    found = fit_map(matrix, MapConfig("umap", sample_rows=asked.sample), seed=SEED, backend=BACKEND)
    seconds, after = time.perf_counter() - started, peak_gb()
    started = time.perf_counter()
    found.landmarks.transform(matrix.X[:65_536])
    per_block = time.perf_counter() - started
    rows = sample_rows(asked.rows, MAX_COMPARED, SEED)
    maps = [coordinates[rows, :2] for coordinates in (found.coordinates, matrix.coordinates)]
    own, linear = sampled_trustworthiness(matrix.X[rows], maps, seed=SEED)
    record = {
        "n_rows": asked.rows, "n_features": N_FEATURES, "sample_rows": asked.sample, "seconds": seconds,
        "block_seconds": per_block, "trustworthiness": own, "trustworthiness_pca": linear,
        "peak_gb_before": before, "peak_gb": after,
    }  # fmt: skip
    print(
        f"map {seconds:.1f} s (placing 65,536 rows on one core {per_block:.2f} s), peak memory {before:.2f} -> {after:.2f} GB"
    )
    print(f"trustworthiness {own:.4f}, two principal components {linear:.4f}")
    fitted = sample_rows(asked.rows, asked.sample, SEED)
    held_out = np.setdiff1d(np.arange(asked.rows), fitted)[: min(HELD_OUT, asked.rows - asked.sample)]
    positions = found.coordinates[held_out, :2]
    started = time.perf_counter()
    found.landmarks.transform(matrix.X[held_out])
    record |= {"held_out": len(held_out), "placed_seconds": time.perf_counter() - started}
    record |= against_transform(matrix.X[fitted], matrix.X[held_out], positions)
    print(
        f"{len(held_out):,} rows that were not fitted: placed in {record['placed_seconds']:.2f} s, trustworthiness "
        f"{record['placed_trustworthiness']:.4f}; transform of umap-learn {record['transform_seconds']:.2f} s, "
        f"{record['transform_trustworthiness']:.4f}"
    )
    write("maps", {"environment": facts} | record)


if __name__ == "__main__":
    main()
