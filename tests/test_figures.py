"""Figures draw the numbers they are given, in any thread, with any text, and however little there is to show."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.figure import Figure
from PIL import Image

from gpuclust.report import figures as fg
from gpuclust.report.text_collection import TextCollection

HOSTILE = "$\\frac{1}{0}$ \x00\x1b[31m\u202etxt.exe\u202c 日本語 🎵 مرحبا é\u0301 <script>\n%s{}"


def decoded(figure: Figure) -> np.ndarray:
    """The figure as pixels (height, width, 3), through its PNG."""
    with Image.open(io.BytesIO(fg.to_png(figure))) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def written(figure: Figure) -> list[str]:
    """Every text that was drawn as outlines."""
    return [t for found in figure.findobj(TextCollection) for t in found.texts]


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


def test_a_heat_map_of_a_wide_table_has_the_most_telling_features_and_says_so() -> None:
    z = np.random.default_rng(0).normal(size=(5, 384))
    figure = fg.profile_heatmap(z, [f"e{i}" for i in range(384)], np.full(5, 0.2))
    heads = [text for text in written(figure) if text.startswith("e") and text[1:].isdigit()]
    assert heads == [f"e{f}" for f in np.argsort(-(z**2).sum(axis=0), kind="stable")[:24]]
    assert any("the 24 most different of 384 features" in text for text in written(figure))


def test_bars_are_as_long_as_the_stabilities() -> None:
    figure = fg.stability_bars([0.9, 0.6, 0.3])
    assert [p.get_width() for p in figure.axes[0].patches] == [0.9, 0.6, 0.3]
    assert {"0.90 stable", "0.60 in between", "0.30 dissolved"} <= {" ".join(t.split()) for t in written(figure)}


def test_correlation_and_distributions_use_all_they_get() -> None:
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
    "persistence": lambda t: fg.persistence_curve([5, 10], [1.0, 2.0]),
    "map": lambda t: fg.cluster_map(np.eye(2), np.array([0, 1]), names={0: t, 1: t}, axis_names=(t, t)),
    "profile": lambda t: fg.profile_heatmap([[1.0, 2.0]], [t, t], [1.0], names={0: t}),
    "stability": lambda t: fg.stability_bars([0.5, 0.9], errors=[0.1, 0.1], names={1: t}),
    "correlation": lambda t: fg.correlation_matrix(np.eye(2), [t, t]),
    "distributions": lambda t: fg.feature_distributions(np.eye(3), [t] * 3),
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
        lambda: fg.correlation_matrix([[1.0]], ["only"]),
        lambda: fg.stability_bars([]),
        lambda: fg.contingency(np.zeros((1, 1)), ["a"], ["b"]),
        lambda: fg.persistence_curve([10], [1.0]),
        lambda: fg.gap_curve([1], [0.1], [0.0], chosen=None),
        lambda: fg.feature_distributions(np.ones((5, 1)), ["same"]),
    ],
)
def test_little_or_nothing_to_show_is_drawn_too(figure: Callable[[], Figure]) -> None:
    assert decoded(figure()).size > 0


def test_no_pyplot_and_pages_without_matplotlib() -> None:
    code = (
        "import sys, gpuclust.report.page, gpuclust.pages.palette; assert 'matplotlib' not in sys.modules;"
        "import gpuclust.report.figures; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
