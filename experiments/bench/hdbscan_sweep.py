"""One HDBSCAN tree cut eight times, compared with one fit and with eight fits of fast_hdbscan called directly.

    python experiments/bench/hdbscan_sweep.py   # about two minutes on two cores; --gpu runs only the part on a GPU

First checks, for the eight settings below and all 114,000 tracks, that the labels equal those of direct fast_hdbscan fits in every
row. With several threads, fast_hdbscan's choice between equal edges depends on their timing, so the direct fits use one
thread; the rows that differ from its fits with all threads are counted. One fit of each on all eleven features, for which a search
row by row is slowest, is timed once. No setting makes one cluster of all rows, for which fast_hdbscan is quadratic. On a GPU, one
tree by cuML with eight cuts by our code is compared with eight fits of cuML called directly, and the share of rows on which
both agree is reported.
"""

from __future__ import annotations

from typing import Any

import common
import numba
import numpy as np
from fast_hdbscan import HDBSCAN
from sklearn.metrics import adjusted_rand_score

from gpuclust.algorithms.hdbscan.fit import extract_clusters, spanning_tree

MIN_SAMPLES = 15
REPEATS = 7
TARGET = 1.5
SETTINGS: list[dict[str, Any]] = [
    {"min_cluster_size": 25},
    {"min_cluster_size": 50, "cluster_selection_method": "leaf"},
    {"min_cluster_size": 100},
    {"min_cluster_size": 400},
    {"min_cluster_size": 50, "cluster_selection_epsilon": 0.3},
    {"min_cluster_size": 25, "cluster_selection_epsilon": 0.25, "cluster_selection_method": "leaf"},
    {"min_cluster_size": 50, "max_cluster_size": 2_000},
    {"min_cluster_size": 100, "allow_single_cluster": True},
]


def direct(X: np.ndarray, setting: dict[str, Any]) -> np.ndarray:
    """The labels of fast_hdbscan's estimator."""
    return HDBSCAN(min_samples=MIN_SAMPLES, **setting).fit(X).labels_


def check(X: np.ndarray) -> list[dict[str, Any]]:
    """Compare all labels; at every setting they must equal those of the direct fit with one thread."""
    tree = spanning_tree(X, min_samples=MIN_SAMPLES)
    threads = numba.get_num_threads()
    found = []
    for setting in SETTINGS:
        ours = extract_clusters(tree, **setting)
        theirs = direct(X, setting)
        numba.set_num_threads(1)
        alone = direct(X, setting)
        numba.set_num_threads(threads)
        different = int((ours.labels != alone).sum())
        found.append(
            {
                "setting": setting,
                "clusters": ours.n_clusters,
                "noise": round(float((ours.labels < 0).mean()), 4),
                "rows_unlike_one_thread": different,
                "rows_unlike_all_threads": int((ours.labels != theirs).sum()),
            }
        )
        print(
            f"  {setting}: {ours.n_clusters} clusters, rows unlike fast_hdbscan: {different}"
            f" (with all threads {found[-1]['rows_unlike_all_threads']})"
        )
        if different:
            raise SystemExit(f"labels differ from a direct fast_hdbscan fit in {different} rows at {setting}")
    return found


def on_gpu() -> dict[str, Any]:
    """One tree and eight cuts of it, and eight fits of cuML, on the device."""
    import cupy as cp
    from cuml.cluster import HDBSCAN as CumlHDBSCAN

    from gpuclust.algorithms.hdbscan.gpu import fit_tree

    X, what = common.real_tracks(5, dtype=np.float32)
    there = cp.asarray(X)

    def ours() -> list[np.ndarray]:
        tree = fit_tree(there, MIN_SAMPLES)
        return [extract_clusters(tree, **setting).labels for setting in SETTINGS]

    def theirs() -> list[np.ndarray]:
        fits = (CumlHDBSCAN(min_samples=MIN_SAMPLES, output_type="cupy", **setting).fit(there) for setting in SETTINGS)
        return [cp.asnumpy(model.labels_) for model in fits]

    agreement = [float(adjusted_rand_score(a, b)) for a, b in zip(ours(), theirs(), strict=True)]
    assert min(agreement) > 0.9, f"cuML's own cuts differ: ARI {agreement}"
    functions = {"tree_and_eight_cuts": ours, "eight_cuml_fits": theirs}
    seconds = common.interleaved({name: common.synchronised(run) for name, run in functions.items()}, REPEATS)
    ratio = seconds["eight_cuml_fits"] / seconds["tree_and_eight_cuts"]
    print(
        f"a tree and eight cuts {seconds['tree_and_eight_cuts']:.2f} s, eight cuML fits {seconds['eight_cuml_fits']:.2f} s"
    )
    print(f"{ratio:.1f} times as fast; ARI of the eight {min(agreement):.4f} at least")
    return {"data": what, "min_samples": MIN_SAMPLES, "seconds": seconds, "ratio": ratio, "adjusted_rand": agreement}


def main() -> None:
    if not common.only_gpu(__doc__ or ""):
        on_cpu()
    common.gpu_too("hdbscan_sweep", on_gpu)


def on_cpu() -> None:
    X, what = common.real_tracks(5)
    facts = common.heading("HDBSCAN: one tree, eight cuts", what, f"min_samples={MIN_SAMPLES}")
    agreement = check(X)
    tree = spanning_tree(X, min_samples=MIN_SAMPLES)
    first = SETTINGS[0]

    def sweep() -> None:
        shared = spanning_tree(X, min_samples=MIN_SAMPLES)
        for setting in SETTINGS:
            extract_clusters(shared, **setting)

    seconds = common.interleaved(
        {
            "one_fit": lambda: extract_clusters(spanning_tree(X, min_samples=MIN_SAMPLES), **first),
            "tree_and_eight_cuts": sweep,
            "eight_cuts": lambda: [extract_clusters(tree, **setting) for setting in SETTINGS],
            "fast_hdbscan_one_fit": lambda: direct(X, first),
        },
        REPEATS,
    )
    wide, _ = common.real_tracks(11)
    wide_seconds = common.interleaved(
        {
            "one_fit": lambda: extract_clusters(spanning_tree(wide, min_samples=MIN_SAMPLES), **first),
            "fast_hdbscan_one_fit": lambda: direct(wide, first),
        },
        1,
    )
    ratio = seconds["tree_and_eight_cuts"] / seconds["one_fit"]
    against = 8 * seconds["fast_hdbscan_one_fit"] / seconds["tree_and_eight_cuts"]
    for name, value in seconds.items():
        print(f"{name:>24}: {value * 1e3:9.1f} ms")
    print(f"a tree and eight cuts / one fit: {ratio:.3f} (target: at most {TARGET})")
    print(f"eight direct fast_hdbscan fits / a tree and eight cuts: {against:.1f}")
    print(
        f"eleven features: one fit {wide_seconds['one_fit']:.1f} s, of fast_hdbscan {wide_seconds['fast_hdbscan_one_fit']:.1f} s"
    )
    record = {
        "environment": facts,
        "data": what,
        "min_samples": MIN_SAMPLES,
        "seconds": seconds,
        "seconds_with_eleven_features": wide_seconds,
        "ratio_to_one_fit": round(ratio, 3),
        "target": TARGET,
        "times_faster_than_eight_direct_fits": round(against, 2),
        "agreement": agreement,
    }
    common.write("hdbscan_sweep", record)


if __name__ == "__main__":
    main()
