"""Scaling: seconds by rows, clusters and features, with a chart for each algorithm and the fitted exponents.

    python experiments/bench/scaling.py            # about ten minutes on two cores
    python experiments/bench/scaling.py --only hdbscan --varies rows --limit 10

Rows are from the built-in catalogue (standardised), or from Gaussian clusters where the number of features varies. One quantity
varies; the others are ROWS, CLUSTERS and the features of the catalogue. A curve ends before the point whose time, extrapolated from
the last two, would exceed the limit. Every curve is written to the record when it ends; the others in the record stay. The
exponent is the slope of log seconds over log size by least squares, for the upper half of the points, where fixed costs have
little influence. Each point is the shortest of three repeats, or of as many as fit into twice the limit, since other work on the
machine can only add time.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from common import RESULTS, generated, heading, write
from matplotlib.axes import Axes

from gpuclust.algorithms.hdbscan.fit import extract_clusters, spanning_tree
from gpuclust.algorithms.kmeans.fit import KMeansRequest, fit_kmeans
from gpuclust.algorithms.mixture.fit import GaussianMixture
from gpuclust.config import DataConfig
from gpuclust.data.frames import PandasFrames
from gpuclust.data.read import read
from gpuclust.metrics.silhouette.score import silhouette
from gpuclust.pages.palette import cluster_color
from gpuclust.report.style import add_axes, caption, grid, new_figure, to_png  # fmt: skip
from gpuclust.report.style import heading as title

SIZES = {
    "rows": (10_000, 20_000, 50_000, 100_000, 200_000, 400_000, 800_000, 1_200_000),
    "clusters": (2, 4, 8, 16, 32, 64, 128),
    "features": (2, 4, 8, 16, 32, 64),
    "neighbours": (2, 5, 10, 20, 50),
}
ROWS = {"kmeans": 100_000, "gmm": 100_000, "hdbscan": 10_000, "silhouette": 20_000}
CLUSTERS, NEIGHBOURS = 8, 5
EM_ITERATIONS = 10
ROWS_LIMIT, LIMIT = 300.0, 2.0  # seconds per point: where rows vary (up to 1.2 million), and elsewhere
LONG = 5.0  # seconds; points that take longer are measured once, and printed at once
PATIENCE = 3  # times LIMIT for HDBSCAN, which would have few points otherwise
STEEPEST = 2.0  # no pass here grows faster than the square
CURVES = {
    "kmeans": ("rows", "clusters", "features"),
    "gmm": ("rows", "clusters", "features"),
    "hdbscan": ("rows", "neighbours", "features"),
    "silhouette": ("rows", "clusters", "features"),
}
TITLES = {
    "kmeans": "K-Means: ten starts, to convergence",
    "gmm": f"Gaussian mixture: {EM_ITERATIONS} iterations of EM, full covariances",
    "hdbscan": "HDBSCAN: the tree and one cut",
    "silhouette": "Silhouette: exact, every pair of rows",
}


@dataclass(frozen=True)
class Curve:
    """Seconds (m,) for the sizes (m,) of the quantity that varies, and the exponent of their upper half."""

    varies: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def exponent(self) -> float:
        """Slope of log seconds over log size; nan with fewer than two points."""
        if len(self.sizes) < 2:
            return math.nan
        upper = slice(min(len(self.sizes) // 2, len(self.sizes) - 2), None)
        return float(np.polyfit(np.log(self.sizes[upper]), np.log(self.seconds[upper]), 1)[0])


def kmeans(X: np.ndarray, clusters: int, _: int) -> Callable[[], object]:
    request = KMeansRequest(clusters, seed=0, n_init=10)
    return lambda: fit_kmeans(X, [request])


def gmm(X: np.ndarray, clusters: int, _: int) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    means = X[rng.choice(len(X), clusters, replace=False)].astype(np.float64)
    start: dict[str, Any] = {
        "weights_init": np.full(clusters, 1 / clusters),
        "means_init": means,
        "precisions_init": np.repeat(np.eye(X.shape[1])[None], clusters, axis=0),
    }
    return lambda: GaussianMixture(clusters, tol=0.0, max_iter=EM_ITERATIONS, random_state=0, **start).fit(X)


def hdbscan(X: np.ndarray, _: int, neighbours: int) -> Callable[[], object]:
    return lambda: extract_clusters(spanning_tree(X, min_samples=neighbours), min_cluster_size=100)


def nearest_labels(X: np.ndarray, clusters: int, _: int) -> Callable[[], object]:
    labels = fit_kmeans(X, [KMeansRequest(clusters, seed=0, n_init=1)])[0].labels
    return lambda: silhouette(X, [labels])


MAKE = {"kmeans": kmeans, "gmm": gmm, "hdbscan": hdbscan, "silhouette": nearest_labels}


def catalogue() -> np.ndarray:
    """The catalogue's features, standardised, float32; the first n rows are a catalogue too."""
    table = read(DataConfig(source="catalogue", n_rows=SIZES["rows"][-1]), PandasFrames())
    X = PandasFrames().to_matrix(table.frame, table.features)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    return np.random.default_rng(0).permutation(X).astype(np.float32)


def points(algorithm: str, varies: str, rows: np.ndarray, limit: float) -> Iterator[tuple[int, float]]:
    """Sizes and their seconds, up to the point whose successor would take too long."""
    before: list[tuple[int, float]] = []
    for size in SIZES[varies]:
        if len(before) > 1:
            slope = math.log(before[-1][1] / before[-2][1]) / math.log(before[-1][0] / before[-2][0])
            slope = min(max(slope, 0.0), STEEPEST)
            if before[-1][1] * (size / before[-1][0]) ** slope > limit:
                return
        X = rows[: size if varies == "rows" else ROWS[algorithm]]
        if varies == "features":
            X = generated(len(X), size).astype(np.float32)
        clusters = size if varies == "clusters" else CLUSTERS
        neighbours = size if varies == "neighbours" else NEIGHBOURS
        if varies == "features" or not before:
            MAKE[algorithm](X[:2_000], clusters, neighbours)()  # compiles
        work = MAKE[algorithm](X, clusters, neighbours)
        seconds: list[float] = []
        while len(seconds) < 3 and sum(seconds) < 2 * min(limit, LONG):
            began = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - began)
        before.append((size, min(seconds)))
        if before[-1][1] > LONG:
            print(f"{algorithm:<11} {varies:<11} {size:>9,}: {before[-1][1]:.1f} s", flush=True)
        yield before[-1]
        if before[-1][1] > limit:
            return


def measure(algorithm: str, varies: str, rows: np.ndarray, limit: float) -> Curve:
    found = list(points(algorithm, varies, rows, limit))
    curve = Curve(varies, tuple(size for size, _ in found), tuple(seconds for _, seconds in found))
    print(
        f"{algorithm:<11} {varies:<11} {curve.sizes[0]:>9,} to {curve.sizes[-1]:>9,}: {curve.seconds[0]:8.3f} to "
        f"{curve.seconds[-1]:8.3f} s, exponent {curve.exponent:.2f}",
        flush=True,
    )
    return curve


def draw(algorithm: str, curves: Sequence[Curve], machine: str) -> None:
    """Draw a panel for each curve, on logarithmic axes, with its fitted line."""
    figure = new_figure(12.0, 4.6)
    width = 12.0 / len(curves)
    low = min(min(curve.seconds) for curve in curves) / 1.6
    high = max(max(curve.seconds) for curve in curves) * 1.8
    for i, curve in enumerate(curves):
        axes = add_axes(figure, 0.75 + i * width, 0.75, 12.0 - (i + 1) * width + 0.2, 1.25)
        _draw_curve(axes, curve, low, high, cluster_color(i))
        caption(axes, "", curve.varies, "seconds" if i == 0 else "", note=f"exponent {curve.exponent:.2f}")
    title(figure, TITLES[algorithm], machine, left=0.3)
    (RESULTS / f"scaling_{algorithm}.png").write_bytes(to_png(figure))


def _draw_curve(axes: Axes, curve: Curve, low: float, high: float, color: str) -> None:
    axes.set(xscale="log", yscale="log", ylim=(low, high))
    grid(axes, "both")
    upper = slice(min(len(curve.sizes) // 2, max(len(curve.sizes) - 2, 0)), None)
    sizes = np.array(curve.sizes[upper], float)
    middle = np.exp(np.log(curve.seconds[upper]).mean())
    fitted = middle * (sizes / np.exp(np.log(sizes).mean())) ** curve.exponent
    axes.plot(sizes, fitted, color=color, linewidth=5, alpha=0.25, solid_capstyle="round")
    axes.plot(curve.sizes, curve.seconds, color=color, linewidth=1.4, marker="o", markersize=4)
    axes.set_xticks(curve.sizes, [_short(size) for size in curve.sizes])
    axes.minorticks_off()
    ticks = [m * 10.0**e for e in range(-4, 4) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])


def _short(size: int) -> str:
    """The size as a short text; empty where it would overlap its neighbour's."""
    if size == SIZES["rows"][-2]:
        return ""
    return f"{size / 1e6:g}M" if size >= 1_000_000 else f"{size / 1000:g}k" if size >= 1000 else str(size)


def known() -> dict[str, Any]:
    """The existing record: curves by algorithm and by the quantity that varies."""
    path = RESULTS / "scaling.json"
    return json.loads(path.read_text()) if path.exists() else {"curves": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--limit", type=float, help="seconds a point (default: as in the file)")
    parser.add_argument("--only", choices=tuple(CURVES), help="one algorithm; the others' curves stay")
    parser.add_argument("--varies", choices=tuple(SIZES), help="one of its curves; the others stay")
    options = parser.parse_args()
    facts = heading("Scaling", "a curve ends before a point that would take longer than its limit")
    rows = catalogue()
    fixed = {"rows": ROWS, "clusters": CLUSTERS, "neighbours": NEIGHBOURS, "features": int(rows.shape[1])}
    for algorithm, varying in CURVES.items():
        if options.only not in (None, algorithm):
            continue
        for varies in varying:
            limit = options.limit or (
                ROWS_LIMIT if varies == "rows" else PATIENCE * LIMIT if algorithm == "hdbscan" else LIMIT
            )
            if options.varies in (None, varies):
                curve = measure(algorithm, varies, rows, limit)
                record = known()
                record["curves"].setdefault(algorithm, {})[varies] = {
                    "sizes": curve.sizes,
                    "seconds": curve.seconds,
                    "exponent": curve.exponent,
                    "limit_seconds": limit,
                    "environment": facts,
                }
                write("scaling", {"fixed": fixed, "curves": record["curves"]})
        measured = known()["curves"][algorithm]
        curves = [
            Curve(v, tuple(measured[v]["sizes"]), tuple(measured[v]["seconds"])) for v in varying if v in measured
        ]
        machine = f"{facts['cores']} cores, {facts['cpu']}, {facts['date']}; float32, {rows.shape[1]} features, seconds"
        draw(algorithm, curves, machine)


if __name__ == "__main__":
    main()
