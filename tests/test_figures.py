"""Figures draw the numbers they are given, in any thread, with any text, and however little there is to show."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PathCollection, PolyCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from gpuclust.report import figures as fg
from gpuclust.report import palette
from gpuclust.report import text_collection as letters
from gpuclust.report.tree import Tree

HOSTILE = "$\\frac{1}{0}$ \x00\x1b[31m\u202etxt.exe\u202c 日本語 🎵 مرحبا é\u0301 <script>\n%s{}"


def decoded(figure: Figure) -> np.ndarray:
    """The figure as pixels (height, width, 3), through its PNG."""
    with Image.open(io.BytesIO(fg.to_png(figure))) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def written(figure: Figure) -> list[str]:
    """Every text that was drawn as outlines."""
    return [t for found in figure.findobj(letters.Letters) for t in found.texts]


def test_elbow_draws_the_inertia_sorted_by_size_and_marks_the_knee() -> None:
    axes = fg.elbow([4, 2, 3], [10.0, 40.0, 20.0], knee=3).axes[0]
    curve = axes.lines[0]
    assert curve.get_xdata().tolist() == [2, 3, 4]
    assert curve.get_ydata().tolist() == [40, 20, 10]
    assert [3.0, 3.0] in [list(line.get_xdata()) for line in axes.lines[1:]]


def test_silhouette_curve_draws_errors_and_rings_the_highest() -> None:
    curves = {"standard": fg.Curve([2, 3], [0.3, 0.1], [0.01, 0.02]), "minmax": fg.Curve([2, 3], [0.2, np.nan])}
    axes = fg.silhouette_curve(curves).axes[0]
    bars = next(c.get_segments() for c in axes.collections)
    # Half an ulp of values near 0.3.
    np.testing.assert_allclose([s[:, 1] for s in bars], [[0.29, 0.31], [0.08, 0.12]], atol=1e-15)
    ring = axes.lines[-1]
    assert (list(ring.get_xdata()), list(ring.get_ydata())) == ([2.0], [0.3])
    assert axes.containers[1].lines[0].get_xdata().tolist() == [2.0]


def test_bic_says_when_it_still_falls_and_names_each_covariance_type() -> None:
    figure = fg.bic_curve({"full": fg.Curve([1, 2, 3], [9e5, 8e5, 7e5]), "tied": fg.Curve([1, 2, 3], [9e5, 6e5, 8e5])})
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert "lowest: 600,000 at 2 (tied) · still falling at the largest size: full" in texts
    assert {"full", "tied"} <= set(texts)


def test_explained_variance_bars_and_running_sum() -> None:
    axes = fg.explained_variance([0.5, 0.3, 0.2], kept=2).axes[0]
    assert [p.get_height() for p in axes.patches if isinstance(p, Rectangle)] == [0.5, 0.3, 0.2]
    # Rounding of a sum of three.
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.5, 0.8, 1.0], atol=1e-15)


def test_gap_and_persistence_draw_what_they_get() -> None:
    gap = fg.gap_curve([1, 2, 3], [0.1, 0.5, 0.4], [0.01, 0.01, 0.02], chosen=2).axes[0]
    assert gap.containers[0].lines[0].get_ydata().tolist() == [0.1, 0.5, 0.4]
    steps = fg.persistence_curve([5, 10, 50], [1.0, 3.0, 2.0], chosen=10, n_clusters=4).axes[0]
    assert steps.lines[0].get_ydata().tolist() == [1, 3, 2]
    assert "cut at a minimum cluster size of 10: 4 clusters" in [t.get_text() for t in steps.texts]


def cells(figure: Figure) -> np.ndarray:
    """The values that a heat map's colours stand for, (rows, columns)."""
    (mesh,) = [c for c in figure.axes[0].collections if isinstance(c, QuadMesh)]
    return np.asarray(mesh.get_array())


def test_profile_heatmap_shows_z_as_given() -> None:
    z = np.array([[1.25, -0.5], [0.0, 2.04]])
    figure = fg.profile_heatmap(z, ["energy", "tempo"], [75, 25], names={0: "Loud"})
    np.testing.assert_array_equal(cells(figure), z)
    assert {"+1.2", "-0.5", "+0.0", "+2.0", "energy", "tempo", "Loud", "75.0 %", "25.0 %"} <= set(written(figure))


def test_a_heatmap_of_many_clusters_says_what_it_leaves_out() -> None:
    figure = fg.profile_heatmap(np.zeros((61, 3)), ["a", "b", "c"], np.ones(61) / 61)
    assert cells(figure).shape == (40, 3)
    assert any("the first 40 of 61 clusters" in t for t in written(figure))


def test_bars_are_as_long_as_the_sizes_and_the_stabilities() -> None:
    sizes = fg.cluster_sizes([50, 30, 20]).axes[0]
    assert [p.get_width() for p in sizes.patches] == [50, 30, 20]
    figure = fg.stability_bars([0.9, 0.6, 0.3])
    assert [p.get_width() for p in figure.axes[0].patches] == [0.9, 0.6, 0.3]
    assert {"0.90 stable", "0.60 in between", "0.30 dissolved"} <= {" ".join(t.split()) for t in written(figure)}


def test_bubble_areas_are_shares_of_the_groups() -> None:
    counts = np.array([[30, 10], [0, 5]])
    axes = fg.group_bubbles(counts, ["rock", "jazz"]).axes[0]
    (bubbles,) = [c for c in axes.collections if type(c) is PathCollection and len(c.get_sizes()) == 3]
    shares = bubbles.get_sizes() / bubbles.get_sizes().max()
    np.testing.assert_allclose(sorted(shares), [0.25, 0.75, 1.0], rtol=1e-12)  # Rounding of one division.


def test_balance_and_correlation_and_distributions_use_all_they_get() -> None:
    balance = fg.cluster_balance({"raw": [90, 10], "standardised": [50, 50]}).axes[0]
    widths = [
        np.ptp(p.vertices[:, 0]) for c in balance.collections if isinstance(c, PolyCollection) for p in c.get_paths()
    ]
    np.testing.assert_allclose(widths, [0.9, 0.1, 0.5, 0.5], atol=1e-12)  # Rounding of a running sum.
    matrix = np.array([[1.0, -0.7], [-0.7, 1.0]])
    figure = fg.correlation_matrix(matrix, ["acousticness", "energy"])
    np.testing.assert_array_equal(cells(figure), matrix)
    assert "strongest: energy with acousticness, -0.70" in written(figure)
    values = np.random.default_rng(0).exponential(size=(2_000, 2)) ** 3
    for axes in fg.feature_distributions(values, ["a", "b"]).axes:
        heights = [
            np.ptp(path.vertices[:, 1])
            for c in axes.collections
            if isinstance(c, PolyCollection)
            for path in c.get_paths()
        ]
        assert sum(heights) == 2_000


def test_silhouette_shapes_span_each_clusters_values() -> None:
    rng = np.random.default_rng(0)
    values, labels = rng.uniform(-0.3, 0.9, 900), np.repeat([0, 1, -1], [500, 300, 100])
    axes = fg.silhouette_by_cluster(values, labels).axes[0]
    (shapes,) = [c for c in axes.collections if isinstance(c, PolyCollection)]
    for cluster, path in enumerate(shapes.get_paths()):
        mine = values[labels == cluster]
        assert path.vertices[:, 0].max() == pytest.approx(mine.max(), abs=1e-12)  # A quantile's interpolation.
        assert path.vertices[:, 0].min() == pytest.approx(mine.min(), abs=1e-12)
    heights = [np.ptp(path.vertices[:, 1]) for path in shapes.get_paths()]
    assert heights[0] / heights[1] == pytest.approx(500 / 300)
    mean = values[labels >= 0].mean()
    assert any(np.allclose(line.get_xdata(), mean) for line in axes.lines)


def small_tree() -> dict[str, np.ndarray]:
    """Ten rows (0..9) and root 10 that splits at density 1 into 11 (rows 0..5) and 12 (rows 6..8); row 9 leaves first."""
    parent = np.array([10, 10, 10, *[11] * 6, *[12] * 3])
    child = np.array([9, 11, 12, *range(6), 6, 7, 8])
    density = np.array([0.5, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, np.inf, 1.5, 1.5, 2.5])
    return {"parent": parent, "child": child, "density": density, "size": np.array([1, 6, 3, *[1] * 9], float)}


def test_tree_branches_have_the_rows_they_hold() -> None:
    tree = Tree.of(**small_tree())
    assert {node: branch.rows for node, branch in tree.branches.items()} == {10: 10, 11: 6, 12: 3}
    assert tree.up == {11: 10, 12: 10}
    twelve = tree.branches[12]
    assert (twelve.birth, twelve.steps.tolist(), twelve.widths.tolist()) == (1.0, [1.5, 1.5, 2.5], [3, 2, 1, 0])
    assert tree.branches[10].widths.tolist() == [10, 9, 3, 0]


def test_tree_siblings_do_not_overlap_and_chosen_ones_are_coloured() -> None:
    tree, arrays = Tree.of(**small_tree()), small_tree()
    one, other = (tree.branches[node].shape(9.0)[:, 0] for node in (11, 12))
    assert one.max() < other.min() or other.max() < one.min()
    figure = fg.condensed_tree(arrays["parent"], arrays["child"], arrays["density"], arrays["size"], selected=[11, 12])
    (shapes,) = [c for c in figure.axes[0].collections if isinstance(c, PolyCollection)]
    painted = {tuple((face[:3] * 255).round().astype(int)) for face in shapes.get_facecolor()}
    assert {palette.rgb(palette.cluster_color(c)) for c in (0, 1)} < painted


def test_contingency_shades_each_line_by_its_own_total() -> None:
    figure = fg.contingency([[3, 1], [0, 5]], ["a", "b"], ["x", "y"])
    np.testing.assert_allclose(cells(figure), [[0.75, 0.25], [0, 1]], rtol=1e-15)
    assert {"75 %", "25 %", "100 %"} <= set(written(figure))


ALL: dict[str, Callable[[str], Figure]] = {
    "elbow": lambda t: fg.elbow([2, 3], [2.0, 1.0], name=t, x_label=t),
    "silhouette": lambda t: fg.silhouette_curve({t: fg.Curve([2, 3], [0.1, 0.2]), "b": fg.Curve([2, 3], [0.3, 0.2])}),
    "bic": lambda t: fg.bic_curve({t: fg.Curve([2, 3, 4], [3, 2, 1]), "b": fg.Curve([2, 3, 4], [4, 3, 2])}),
    "score": lambda t: fg.score_curve({t: fg.Curve([10, 100, 1000], [0.1, 0.2, 0.1])}, label=t),
    "gap": lambda t: fg.gap_curve([1, 2], [0.1, 0.2], [0.01, 0.01]),
    "variance": lambda t: fg.explained_variance([0.7, 0.3]),
    "persistence": lambda t: fg.persistence_curve([5, 10], [1.0, 2.0]),
    "map": lambda t: fg.cluster_map(np.eye(2), np.array([0, 1]), names={0: t, 1: t}, axis_names=(t, t)),
    "biplot": lambda t: fg.biplot(np.eye(2), np.array([0, 1]), np.eye(2), [t, t], names={0: t}),
    "pairs": lambda t: fg.pairplot(np.eye(4), np.array([0, 1, 1, -1]), [t] * 4, names={0: t}),
    "profile": lambda t: fg.profile_heatmap([[1.0, 2.0]], [t, t], [1.0], names={0: t}),
    "sizes": lambda t: fg.cluster_sizes([3, 2], names={0: t}),
    "bubbles": lambda t: fg.group_bubbles([[1, 2], [3, 4]], [t, t]),
    "stability": lambda t: fg.stability_bars([0.5, 0.9], errors=[0.1, 0.1], names={1: t}),
    "correlation": lambda t: fg.correlation_matrix(np.eye(2), [t, t]),
    "distributions": lambda t: fg.feature_distributions(np.eye(3), [t] * 3),
    "balance": lambda t: fg.cluster_balance({t: [3, 1]}),
    "silhouettes": lambda t: fg.silhouette_by_cluster([0.1, 0.2, 0.3], [0, 0, 1], names={0: t}),
    "tree": lambda t: fg.condensed_tree(
        *[small_tree()[k] for k in ("parent", "child", "density", "size")], selected=[11]
    ),
    "contingency": lambda t: fg.contingency([[1, 2]], [t], [t, t], rows=t, columns=t),
}


@pytest.mark.parametrize("name", ALL)
def test_hostile_text_is_drawn_without_a_warning(name: str) -> None:
    picture = decoded(ALL[name](HOSTILE))
    assert picture.shape[0] > 100
    assert (picture < 128).any()


@pytest.mark.parametrize("name", ALL)
def test_threads_draw_the_same_pixels(name: str) -> None:
    alone = fg.to_png(ALL[name]("energy"))
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: fg.to_png(ALL[name]("energy")), range(8))) == {alone}


@pytest.mark.parametrize(
    "figure",
    [
        lambda: fg.cluster_map(np.zeros((0, 2)), np.zeros(0, int)),
        lambda: fg.cluster_map(np.ones((3, 2)), np.full(3, -1)),
        lambda: fg.cluster_map(np.ones((60_000, 2)), np.zeros(60_000, int)),
        lambda: fg.elbow([], []),
        lambda: fg.bic_curve({}),
        lambda: fg.silhouette_curve({"kmeans": fg.Curve([5], [0.2], [0.0])}),
        lambda: fg.profile_heatmap(np.array([[np.nan]]), ["a"], [5]),
        lambda: fg.silhouette_by_cluster([], []),
        lambda: fg.correlation_matrix([[1.0]], ["only"]),
        lambda: fg.cluster_balance({}),
        lambda: fg.cluster_sizes([]),
        lambda: fg.stability_bars([]),
        lambda: fg.group_bubbles(np.zeros((0, 2)), []),
        lambda: fg.contingency(np.zeros((1, 1)), ["a"], ["b"]),
        lambda: fg.condensed_tree([3, 3, 3], [0, 1, 2], [1.0, np.inf, 2.0], [1, 1, 1]),
        lambda: fg.explained_variance([]),
        lambda: fg.persistence_curve([10], [1.0]),
        lambda: fg.gap_curve([1], [0.1], [0.0], chosen=None),
        lambda: fg.pairplot(np.ones((1, 1)), np.array([0]), ["only"]),
        lambda: fg.biplot(np.zeros((2, 2)), np.array([0, 0]), np.zeros((1, 2)), ["only"]),
        lambda: fg.feature_distributions(np.ones((5, 1)), ["same"]),
    ],
)
def test_little_or_nothing_to_show_is_drawn_too(figure: Callable[[], Figure]) -> None:
    assert decoded(figure()).size > 0


def test_save_writes_the_png_it_returns(tmp_path: Path) -> None:
    png = fg.save(fg.elbow([2, 3], [2.0, 1.0]), tmp_path / "elbow.png")
    assert (tmp_path / "elbow.png").read_bytes() == png
    assert png.startswith(b"\x89PNG")


def test_no_pyplot_and_pages_without_matplotlib() -> None:
    code = (
        "import sys, gpuclust.report.page, gpuclust.report.palette; assert 'matplotlib' not in sys.modules;"
        "import gpuclust.report.figures; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
