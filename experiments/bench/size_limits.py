"""K-Means with limits on the sizes of clusters, against k-means-constrained where it is installed, else against K-Means without limits.

    python experiments/bench/size_limits.py                # 2,000 rows in 20 clusters, less than a minute on two cores
    python experiments/bench/size_limits.py --rows 10000 --clusters 100

The rows are real tracks. Both sides have one start. k-means-constrained starts its restricted iterations from k-means++; ours start from K-Means
without limits, so the sums of squares differ: the bench prints their ratio. That each assignment is optimal is shown by tests/test_sizes.py.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from common import heading, interleaved, real_tracks, write

import gpuclust as gc

LOW, HIGH = 0.3, 2.0  # of the mean size: playlists of 30 to 200 tracks where the mean is 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--clusters", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    X, source = real_tracks(10, distinct=True)
    X = np.ascontiguousarray(X[np.random.default_rng(0).permutation(len(X))[: asked.rows]])
    n, k = len(X), asked.clusters
    low, high = int(LOW * n / k), int(HIGH * n / k)
    facts = heading("Limits of sizes", f"{source}: {n:,} rows, {k} clusters of {low} to {high} rows")

    def ours(**limits: Any) -> gc.KMeans:
        return gc.KMeans(k, n_init=1, random_state=0, **limits).fit(X)

    limited, free = ours(min_size=low, max_size=high), ours()
    sizes = {"free": np.bincount(free.labels_, minlength=k), "limited": np.bincount(limited.labels_, minlength=k)}
    assert sizes["limited"].min() >= low
    assert sizes["limited"].max() <= high
    runs: dict[str, Callable[[], object]] = {
        "K-Means": ours,
        "with limits": lambda: ours(min_size=low, max_size=high),
    }
    inertia = {"K-Means": free.inertia_, "with limits": limited.inertia_}
    if find_spec("k_means_constrained") is not None:
        from k_means_constrained import KMeansConstrained

        def theirs() -> Any:
            return KMeansConstrained(k, size_min=low, size_max=high, n_init=1, random_state=0).fit(X)

        inertia["k-means-constrained"] = theirs().inertia_
        runs["k-means-constrained"] = theirs
    seconds = interleaved(runs, asked.repeats)
    print(f"sizes {sizes['free'].min()} to {sizes['free'].max()} without limits")
    for name in runs:
        print(
            f"{name:>20}: {seconds[name]:7.3f} s, sum of squares {inertia[name] / free.inertia_:.4f} of that of K-Means"
        )
    record = {"seconds": seconds, "inertia": inertia, "sizes": {name: found.tolist() for name, found in sizes.items()}}
    write("size_limits", {"environment": facts, "load": os.getloadavg()[0], "source": source, "n_rows": n, "n_clusters": k,
                          "min_size": low, "max_size": high, "repeats": asked.repeats, **record})  # fmt: skip


if __name__ == "__main__":
    main()
