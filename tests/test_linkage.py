"""HDBSCAN from one tree, against fast_hdbscan's direct fits, scikit-learn, SciPy and plain restatements of the papers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numba
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from gpuclust.algorithms.hdbscan.fit import (
    HdbscanResult,
    SpanningTree,
    extract_clusters,
    spanning_tree,
    tree_from_edges,
)
from gpuclust.algorithms.hdbscan.predict import prediction_data, soft_membership
from gpuclust.algorithms.hdbscan.quality import persistence_curve, relative_validity
from gpuclust.errors import FitError
from gpuclust.model import prediction
from gpuclust.model.prediction import place_rows, rule_of

UNIT = ["acousticness", "danceability", "energy", "instrumentalness", "liveness", "speechiness", "valence"]
# Sizes, both methods, epsilon, a limit on sizes, a single cluster: what a user can combine.
EIGHT_SETTINGS = [
    {"min_cluster_size": 10},
    {"min_cluster_size": 25, "cluster_selection_method": "leaf"},
    {"min_cluster_size": 50},
    {"min_cluster_size": 15, "cluster_selection_epsilon": 0.3},
    {"min_cluster_size": 15, "cluster_selection_epsilon": 0.25, "cluster_selection_method": "leaf"},
    {"min_cluster_size": 20, "max_cluster_size": 400},
    {"min_cluster_size": 100, "allow_single_cluster": True},
    {"min_cluster_size": 40, "cluster_selection_epsilon": 0.9, "allow_single_cluster": True},
]


def predicted(data: Mapping[str, np.ndarray], X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of rows in a fit whose clusters are not yet numbered by size."""
    labels, probabilities, _ = place_rows(rule_of("hdbscan").place(data, {}), X)
    return labels, probabilities


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Of several trees that are minimal, which one fast_hdbscan finds depends on thread timing; not with one thread."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def components(tracks: pd.DataFrame, n_components: int = 5) -> np.ndarray:
    """The seven 0..1 features min-max scaled, their principal components standardised."""
    X = tracks[UNIT].to_numpy(np.float64)
    X = (X - X.min(axis=0)) / (X.max(axis=0) - X.min(axis=0))
    X = X - X.mean(axis=0)
    X = X @ np.linalg.svd(X, full_matrices=False)[2][:n_components].T
    return (X - X.mean(axis=0)) / X.std(axis=0)


@pytest.fixture(scope="session")
def tracks_20k(real_data: Path) -> np.ndarray:
    """20,000 of the 114,000 real tracks, repeated ones among them."""
    return components(pd.read_csv(real_data / "tracks_114k.csv").sample(20_000, random_state=0))


@pytest.fixture(scope="session")
def tree_20k(tracks_20k: np.ndarray) -> SpanningTree:
    return spanning_tree(tracks_20k, min_samples=10)


def blobs(n: int, n_features: int = 3, *, seed: int = 0, centres: int = 4, spread: float = 0.6) -> np.ndarray:
    """Gaussian groups of unlike density; random floats, so no two distances are equal."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-8, 8, size=(centres, n_features))
    group = rng.integers(0, centres, n)
    return centre[group] + rng.normal(size=(n, n_features)) * spread * (1 + group[:, None])


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal up to the numbers of the clusters; noise is noise in both."""
    pairs = set(zip(a.tolist(), b.tolist(), strict=True))
    return len(pairs) == len(set(a.tolist())) == len(set(b.tolist())) and all((x < 0) == (y < 0) for x, y in pairs)


# ---- the cut against fast_hdbscan -------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("setting", EIGHT_SETTINGS, ids=str)
def test_labels_equal_direct_fits_on_real_tracks(
    tracks_20k: np.ndarray, setting: dict[str, object], one_thread: None
) -> None:
    from fast_hdbscan import HDBSCAN

    X = tracks_20k[:8_000]
    found = extract_clusters(spanning_tree(X, min_samples=10), **setting)  # type: ignore[arg-type]
    direct = HDBSCAN(min_samples=10, **({"max_cluster_size": np.inf} | setting)).fit(X)
    assert found.n_clusters >= 1
    assert_array_equal(found.labels, direct.labels_)


@pytest.mark.real
@pytest.mark.parametrize("size", [5, 30, 200])
@pytest.mark.parametrize("method", ["eom", "leaf"])
def test_labels_equal_fast_hdbscan_on_the_same_edges(tree_20k: SpanningTree, size: int, method: str) -> None:
    from fast_hdbscan.hdbscan import clusters_from_spanning_tree

    found = extract_clusters(tree_20k, min_cluster_size=size, cluster_selection_method=method)
    labels, strengths, *_ = clusters_from_spanning_tree(
        tree_20k.edges, min_cluster_size=size, cluster_selection_method=method
    )
    assert_array_equal(found.labels, labels)
    # Beside identical rows fast_hdbscan divides by an infinite density; elsewhere both divide the same float32 numbers.
    infinite = condensed_labels_with_infinite_density(found)
    comparable = ~np.isin(found.labels, infinite)
    assert comparable.mean() > 0.5
    assert_allclose(found.probabilities[comparable], strengths[comparable], atol=1e-7)


def condensed_labels_with_infinite_density(found: HdbscanResult) -> np.ndarray:
    tree = found.condensed
    rows = (tree.child < tree.n_rows) & np.isinf(tree.lambda_val)
    return np.unique(found.labels[tree.child[rows]])


@pytest.mark.parametrize("seed_", range(4))
@pytest.mark.parametrize("epsilon", [0.0, 0.4, 3.0])
@pytest.mark.parametrize("method", ["eom", "leaf"])
def test_single_cluster_and_epsilon_equal_fast_hdbscan(seed_: int, epsilon: float, method: str) -> None:
    from fast_hdbscan.hdbscan import clusters_from_spanning_tree

    tree = spanning_tree(blobs(600, 2, seed=seed_), min_samples=4)
    options = {
        "min_cluster_size": 8,
        "cluster_selection_method": method,
        "cluster_selection_epsilon": epsilon,
        "allow_single_cluster": True,
    }
    labels, strengths, *_ = clusters_from_spanning_tree(tree.edges, **options)
    found = extract_clusters(tree, **options)  # type: ignore[arg-type]
    assert_array_equal(found.labels, labels)
    assert_allclose(found.probabilities, strengths, atol=1e-7)  # float32 quotients


def test_a_lone_cluster_beside_an_oversized_one_is_kept() -> None:
    """fast_hdbscan 0.3.4 raises KeyError here."""
    gaps = np.concatenate([1.02 ** np.arange(300), [1e4], 1.02 ** np.arange(40)])  # each line loses its last row first
    X = np.cumsum(gaps)[:, None]
    found = extract_clusters(spanning_tree(X, min_samples=3), min_cluster_size=30, max_cluster_size=100)
    assert found.n_clusters == 1
    assert (found.labels[:300] == -1).all()
    assert (found.labels[300:] == 0).all()


def test_blobs_equal_scikit_learn() -> None:
    from sklearn.cluster import HDBSCAN

    X = blobs(700, 3, seed=3)
    theirs = HDBSCAN(min_cluster_size=20, min_samples=7 + 1, copy=True).fit(X).labels_  # it counts the row itself
    assert same_partition(extract_clusters(spanning_tree(X, min_samples=7), min_cluster_size=20).labels, theirs)


# ---- the tree -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("min_samples", [1, 2, 9])
@pytest.mark.parametrize("n_features", [1, 4, 40])  # beyond 30 fast_hdbscan alone would use an approximate graph
def test_the_tree_is_minimal(min_samples: int, n_features: int) -> None:
    X = blobs(300, n_features, seed=1).astype(np.float32).astype(float)
    tree = spanning_tree(X, min_samples=min_samples)
    distance = cdist(X, X)
    core = np.sort(distance, axis=1)[:, min_samples]  # position 0 is the row itself
    reach = np.maximum(distance, np.maximum(core[:, None], core))
    np.fill_diagonal(reach, 0.0)
    # fast_hdbscan subtracts and sums squares in float32: 2**-24 a step, so some 1e-7 relative over 40 features.
    assert_allclose(tree.core_distances, core, rtol=2e-6)
    assert_allclose(np.sort(tree.edges[:, 2]), np.sort(minimum_spanning_tree(reach).data), rtol=2e-6)
    ends = tree.edges[:, :2].astype(int)
    assert_allclose(tree.edges[:, 2], reach[ends[:, 0], ends[:, 1]], rtol=2e-6)
    assert tree.n_rows == 300
    assert tree.nbytes == tree.edges.nbytes + tree.core_distances.nbytes + tree.linkage.nbytes


@pytest.mark.parametrize("min_samples", [1, 4, 15])
def test_ties_are_broken_as_fast_hdbscan_does_with_one_thread(min_samples: int, one_thread: None) -> None:
    """On a grid, where nearly every distance is shared; the threads of this process change nothing."""
    from fast_hdbscan.hdbscan import compute_minimum_spanning_tree

    X = np.random.default_rng(0).integers(0, 12, size=(8_000, 3)).astype(float)
    edges, *_ = compute_minimum_spanning_tree(X, min_samples=min_samples)
    expected = edges[np.lexsort((edges[:, 1], edges[:, 0], edges[:, 2]))]
    for n_threads in {1, 2, numba.config.NUMBA_NUM_THREADS}:
        numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))
        assert_array_equal(spanning_tree(X, min_samples=min_samples).edges, expected)


def test_linkage_equals_scipy() -> None:
    from scipy.cluster.hierarchy import linkage

    X = blobs(200, 2, seed=5).astype(np.float32).astype(float)
    expected = linkage(X, "single")
    ours = spanning_tree(X, min_samples=1).linkage
    assert_allclose(ours[:, 2:], expected[:, 2:], rtol=2e-6)  # float32 distances
    assert_array_equal(np.sort(ours[:, :2], axis=1), np.sort(expected[:, :2], axis=1))


def test_the_edges_of_a_tree_in_any_order_give_the_same_cut(seed: int) -> None:
    X = blobs(500, 3, seed=seed)
    tree = spanning_tree(X, min_samples=1)  # with more, equal distances leave a choice that the order of edges decides
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(tree.edges)
    flipped = np.where(rng.random(len(shuffled))[:, None] < 0.5, shuffled, shuffled[:, [1, 0, 2]])
    other = tree_from_edges(flipped, tree.core_distances, 1)
    for method in ("eom", "leaf"):
        options = {"min_cluster_size": 10, "cluster_selection_method": method}
        assert_array_equal(extract_clusters(other, **options).labels, extract_clusters(tree, **options).labels)  # type: ignore[arg-type]


def test_edges_that_are_no_tree_are_refused() -> None:
    core = np.ones(4)
    cycle = np.array([[0, 1, 1.0], [1, 2, 1.0], [2, 0, 1.0]])
    with pytest.raises(FitError, match="cycle"):
        tree_from_edges(cycle, core, 1)
    with pytest.raises(FitError, match="2 edges are no spanning tree of 4 rows"):
        tree_from_edges(cycle[:2], core, 1)
    with pytest.raises(FitError, match="no spanning tree"):
        tree_from_edges(cycle + np.array([0, 7, 0]), core, 1)
    with pytest.raises(FitError, match="not numbers"):
        tree_from_edges(np.array([[0, 1, 1.0], [1, 2, np.nan], [2, 3, 1.0]]), core, 1)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"X": np.array([[0.0], [np.nan], [1.0]])}, "finite values .* 1 rows"),
        ({"X": np.array([[0.0], [np.inf], [-np.inf]])}, "finite values .* 2 rows"),
        ({"X": np.array([[0.0], [1e30], [1.0]])}, "1 rows have others"),
        ({"X": np.zeros(3)}, "shape"),
        ({"min_samples": 3}, "min_samples=3 needs 1 to 2 for the 3 rows"),
        ({"min_samples": 0}, "min_samples=0"),
        ({"X": np.zeros((1, 2)), "min_samples": 1}, "for the 1 rows"),
        ({"X": np.zeros((0, 2)), "min_samples": 1}, "for the 0 rows"),
    ],
)
def test_a_matrix_that_cannot_be_fitted_is_refused(change: dict[str, object], match: str) -> None:
    given_ = {"X": np.arange(3.0)[:, None], "min_samples": 1} | change
    with pytest.raises(FitError, match=match):
        spanning_tree(given_["X"], min_samples=given_["min_samples"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "setting",
    [
        {"min_cluster_size": 1},
        {"min_cluster_size": 51},
        {"cluster_selection_method": "best"},
        {"cluster_selection_epsilon": -1.0},
        {"cluster_selection_epsilon": np.nan},
        {"max_cluster_size": -1},
    ],
)
def test_a_setting_out_of_range_is_refused(setting: dict[str, object]) -> None:
    tree = spanning_tree(blobs(50), min_samples=2)
    name, value = next(iter(setting.items()))
    with pytest.raises(FitError, match=f"{name}={value!r}"):
        extract_clusters(tree, **({"min_cluster_size": 5} | setting))  # type: ignore[arg-type]


# ---- identical rows and other extremes --------------------------------------------------------------------------


def test_identical_rows_stay_together() -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([np.repeat(rng.normal(size=(5, 2)) * 10, 60, axis=0), rng.normal(size=(200, 2))])
    tree = spanning_tree(X, min_samples=5)
    for method in ("eom", "leaf"):
        found = extract_clusters(tree, min_cluster_size=10, cluster_selection_method=method)
        repeated = found.labels[:300].reshape(5, 60)
        assert (repeated == repeated[:, :1]).all()
        assert len(set(repeated[:, 0].tolist()) - {-1}) == 5
        assert ((found.probabilities >= 0) & (found.probabilities <= 1)).all()
        assert (found.probabilities[:300] == 1.0).all()
        assert np.isfinite(found.persistence).all()
        assert -1.0 <= found.relative_validity <= 1.0
        data = prediction_data(X, tree, found)
        assert_array_equal(predicted(data, X)[0], found.labels)
        assert np.isfinite(soft_membership(data)[1]).all()


def test_all_rows_identical_is_all_noise() -> None:
    tree = spanning_tree(np.ones((50, 3)), min_samples=5)
    found = extract_clusters(tree, min_cluster_size=5)
    assert (found.labels == -1).all()
    assert found.n_clusters == 0
    assert found.relative_validity == 0.0
    data = prediction_data(np.ones((50, 3)), tree, found)
    labels, probabilities = predicted(data, np.zeros((4, 3)))
    assert (labels == -1).all()
    assert (probabilities == 0).all()
    assert (soft_membership(data)[0] == -1).all()
    assert persistence_curve(tree).chosen == 5


def test_two_rows() -> None:
    tree = spanning_tree(np.array([[0.0], [1.0]]), min_samples=1)
    assert extract_clusters(tree, min_cluster_size=2).labels.tolist() == [-1, -1]


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(12, 120),
    n_features=st.integers(1, 4),
    levels=st.integers(2, 40),
    min_samples=st.integers(1, 10),
    size=st.integers(2, 12),
    method=st.sampled_from(["eom", "leaf"]),
    single=st.booleans(),
    draw=st.integers(0, 2**31),
)
def test_properties_of_any_cut(
    n: int, n_features: int, levels: int, min_samples: int, size: int, method: str, single: bool, draw: int
) -> None:
    """On a coarse grid, so that ties and identical rows are everywhere."""
    X = np.random.default_rng(draw).integers(0, levels, size=(n, n_features)).astype(float)
    tree = spanning_tree(X, min_samples=min_samples)
    found = extract_clusters(tree, min_cluster_size=size, cluster_selection_method=method, allow_single_cluster=single)
    counts = np.bincount(found.labels + 1, minlength=found.n_clusters + 1)
    assert len(counts) == found.n_clusters + 1
    if not (single and found.n_clusters == 1):  # a selected root keeps only its dense rows
        assert (counts[1:] >= size).all()
    assert ((found.probabilities > 0) == (found.labels >= 0)).all()
    assert (found.probabilities <= 1).all()
    assert ((found.persistence >= 0) & (found.persistence <= 1)).all()
    assert -1.0 <= found.relative_validity <= 1.0
    assert len(found.condensed.selected) == found.n_clusters
    assert np.sort(found.condensed.child[found.condensed.child < n]).tolist() == list(range(n))
    eightfold = extract_clusters(
        spanning_tree(X * 8, min_samples=min_samples),  # exact in binary, so the distances only change exponent
        min_cluster_size=size,
        cluster_selection_method=method,
        allow_single_cluster=single,
    )
    assert found.n_clusters == eightfold.n_clusters


@settings(max_examples=25, deadline=None)
@given(draw=st.integers(0, 2**31), size=st.integers(3, 30), method=st.sampled_from(["eom", "leaf"]))
def test_the_order_of_rows_changes_nothing(draw: int, size: int, method: str) -> None:
    X = blobs(150, 2, seed=draw)
    order = np.random.default_rng(draw).permutation(150)
    options = {"min_cluster_size": size, "cluster_selection_method": method}
    # min_samples=1: with more, several edges share one core distance and the order of rows decides between them.
    first = extract_clusters(spanning_tree(X, min_samples=1), **options)  # type: ignore[arg-type]
    second = extract_clusters(spanning_tree(X[order], min_samples=1), **options)  # type: ignore[arg-type]
    assert same_partition(first.labels[order], second.labels)


# ---- how good a cut is ------------------------------------------------------------------------------------------


def naive_relative_validity(edges: np.ndarray, labels: np.ndarray) -> float:
    """hdbscan 0.8.44 `relative_validity_`, edge by edge."""
    n_clusters = labels.max() + 1
    sparseness, separation = np.zeros(n_clusters), np.full(n_clusters, np.inf)
    longest, to_noise = 0.0, np.inf
    for i, j, length in edges:
        a, b = labels[int(i)], labels[int(j)]
        longest = max(longest, length)
        if a == -1 and b == -1:
            continue
        if a == -1 or b == -1:
            to_noise = min(to_noise, length)
        elif a == b:
            sparseness[a] = max(sparseness[a], length)
        else:
            separation[a] = min(separation[a], length)
            separation[b] = min(separation[b], length)
    to_noise = longest if np.isinf(to_noise) else to_noise
    separation[np.isinf(separation)] = 2 * (longest if n_clusters > 1 else to_noise)
    validity = [(sep - sparse) / max(sep, sparse) for sep, sparse in zip(separation, sparseness, strict=True)]
    return float(sum((labels == c).sum() * v for c, v in enumerate(validity)) / len(labels))


@pytest.mark.parametrize("seed_", range(6))
@pytest.mark.parametrize("single", [False, True])
def test_relative_validity_equals_the_naive_one(seed_: int, single: bool) -> None:
    tree = spanning_tree(blobs(400, 2, seed=seed_), min_samples=3)
    epsilon = 50.0 if single else 0.0  # one cluster of everything near
    found = extract_clusters(tree, min_cluster_size=10, cluster_selection_epsilon=epsilon, allow_single_cluster=single)
    assert found.n_clusters == 1 if single else found.n_clusters > 1
    # The same few sums in another order: a few units in the last of 16 digits.
    assert found.relative_validity == pytest.approx(naive_relative_validity(tree.edges, found.labels), rel=1e-12)


def test_relative_validity_ranks_groups_above_halves() -> None:
    X = np.concatenate([blobs(200, 2, centres=1, seed=0), 60 + blobs(200, 2, centres=1, seed=1)])
    edges = spanning_tree(X, min_samples=5).edges
    groups = np.repeat([0, 1], 200).astype(np.int32)
    halves = (np.arange(400) % 2).astype(np.int32)
    assert relative_validity(edges, groups) > 0.5 > 0.0 > relative_validity(edges, halves)
    assert relative_validity(edges, np.full(400, -1, dtype=np.int32)) == 0.0


def test_persistence_equals_its_definition() -> None:
    X = blobs(500, 3, seed=2)
    found = extract_clusters(spanning_tree(X, min_samples=4), min_cluster_size=15)
    tree = found.condensed
    for label, cluster in enumerate(tree.selected):
        rows = tree.parent == cluster
        birth = float(tree.lambda_val[tree.child == cluster][0])
        stability = ((tree.lambda_val[rows].astype(float) - birth) * tree.child_size[rows]).sum()
        expected = stability / ((found.labels == label).sum() * float(tree.lambda_val.max()))
        assert found.persistence[label] == pytest.approx(expected, rel=1e-9)  # sums of some hundred float64


@pytest.mark.parametrize("seed_", range(5))
def test_the_persistence_curve_is_plscans(seed_: int) -> None:
    """The steps of fast_hdbscan 0.3.4 `build_cluster_layers`, by its own functions, on the same tree.

    Not the PLSCAN estimator: it sorts its edges by length alone, so equal ones in another order.
    """
    from fast_hdbscan import cluster_trees, layer_clusters

    tree = spanning_tree(blobs(1500, 2, seed=seed_, centres=7, spread=0.3), min_samples=4)
    core = tree.core_distances
    normalised = tree.linkage.copy()
    normalised[:, 2] = (normalised[:, 2] - core.min()) / (core.mean() - core.min())
    condensed = cluster_trees.condense_tree(normalised, 5, lambda_method="plscan")
    clusters = cluster_trees.mask_condensed_tree(condensed, condensed.child >= tree.n_rows)
    births, deaths, _, lambda_deaths = layer_clusters.min_cluster_size_barcode(clusters, tree.n_rows, 5)
    sizes, total = layer_clusters.compute_total_persistence(births, deaths, lambda_deaths)
    peaks = layer_clusters.find_peaks(total)
    best = sizes[peaks[total[peaks].argmax()]]
    layer = np.flatnonzero((births <= best) & (deaths > best)) + tree.n_rows
    labels, _ = layer_clusters.extract_clusters_by_id(condensed, layer)

    curve = persistence_curve(tree)
    assert_array_equal(curve.sizes, sizes)
    assert_allclose(curve.total_persistence, total, rtol=1e-4, atol=1e-2)  # theirs are float32 sums of some hundred
    assert curve.chosen == best + 1
    found = extract_clusters(tree, min_cluster_size=curve.chosen, cluster_selection_method="leaf")
    assert same_partition(found.labels, labels)


def test_the_persistence_curve_refuses_a_size_out_of_range() -> None:
    tree = spanning_tree(blobs(20), min_samples=2)
    with pytest.raises(FitError, match="base_min_cluster_size=21"):
        persistence_curve(tree, base_min_cluster_size=21)


# ---- placing rows -----------------------------------------------------------------------------------------------


def naive_predict(X: np.ndarray, tree: SpanningTree, found: HdbscanResult, x: np.ndarray) -> tuple[int, float]:
    """hdbscan 0.8.44 `_find_cluster_and_probability` for one new row, with the fitted core distances."""
    condensed = found.condensed
    child = {int(c): k for k, c in enumerate(condensed.child)}
    distance = np.sqrt(((X.astype(np.float32).astype(float) - x.astype(np.float32).astype(float)) ** 2).sum(axis=1))
    near = np.argsort(distance)[: 2 * tree.min_samples]
    reach = np.maximum.reduce(
        [tree.core_distances[near], distance[near], np.full(len(near), distance[near[tree.min_samples]])]
    )
    neighbour, lam = int(near[reach.argmin()]), 1.0 / reach.min()
    row = child[neighbour]
    cluster = int(condensed.parent[row])
    lam_row = float(condensed.lambda_val[row])
    if lam_row > lam:
        while cluster > condensed.n_rows and condensed.lambda_val[child[cluster]] >= lam:
            cluster = int(condensed.parent[child[cluster]])
    selected = condensed.selected.tolist()
    while cluster not in selected and cluster > condensed.n_rows:
        cluster = int(condensed.parent[child[cluster]])
    if cluster not in selected:
        return -1, 0.0
    own = (condensed.parent == cluster) & (condensed.child < condensed.n_rows)
    return selected.index(cluster), min(min(lam, lam_row) / float(condensed.lambda_val[own].max()), 1.0)


@pytest.mark.parametrize("min_samples", [1, 5])
@pytest.mark.parametrize("method", ["eom", "leaf"])
def test_new_rows_are_placed_as_hdbscan_does(min_samples: int, method: str) -> None:
    X = blobs(400, 3, seed=4)
    new = blobs(150, 3, seed=4, spread=0.9) + 0.05
    tree = spanning_tree(X, min_samples=min_samples)
    found = extract_clusters(tree, min_cluster_size=12, cluster_selection_method=method)
    labels, probabilities = predicted(prediction_data(X, tree, found), new)
    expected = [naive_predict(X, tree, found, x) for x in new]
    assert labels.dtype == np.int32
    assert probabilities.dtype == np.float32
    assert_array_equal(labels, [label for label, _ in expected])
    assert len(set(labels.tolist())) > 2
    assert_allclose(probabilities, [p for _, p in expected], atol=1e-6)  # float32


@pytest.mark.parametrize(
    "options",
    [
        {"min_cluster_size": 8},
        {"min_cluster_size": 8, "cluster_selection_method": "leaf"},
        {"min_cluster_size": 8, "cluster_selection_epsilon": 0.4},
        {"min_cluster_size": 8, "cluster_selection_epsilon": 3.0, "allow_single_cluster": True},
        {"min_cluster_size": 150, "allow_single_cluster": True},
    ],
    ids=str,
)
def test_fitted_rows_get_their_labels_back(options: dict[str, object], seed: int) -> None:
    X = blobs(800, 4, seed=seed)
    tree = spanning_tree(X, min_samples=6)
    found = extract_clusters(tree, **options)  # type: ignore[arg-type]
    labels, probabilities = predicted(prediction_data(X, tree, found), X)
    assert_array_equal(labels, found.labels)
    assert_allclose(probabilities, found.probabilities, atol=1e-7)  # float64 rounded to float32


@pytest.mark.real
@pytest.mark.parametrize("size", [5, 25, 200])
@pytest.mark.parametrize("method", ["eom", "leaf"])
def test_fitted_real_tracks_get_their_labels_back(
    tracks_20k: np.ndarray, tree_20k: SpanningTree, size: int, method: str
) -> None:
    """All but identical rows that tie between two clusters: under 0.5 % of the tracks (0.24 % seen on all 114,000)."""
    found = extract_clusters(tree_20k, min_cluster_size=size, cluster_selection_method=method)
    labels, _ = predicted(prediction_data(tracks_20k, tree_20k, found), tracks_20k)
    different = labels != found.labels
    assert different.mean() < 0.005
    _, group, copies = np.unique(tracks_20k.astype(np.float32), axis=0, return_inverse=True, return_counts=True)
    assert (copies[group][different] > 1).all()


def test_far_rows_are_noise_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    X = blobs(600, 3, seed=6)
    tree = spanning_tree(X, min_samples=5)
    data = prediction_data(X, tree, extract_clusters(tree, min_cluster_size=20))
    labels, probabilities = predicted(data, X)
    assert (predicted(data, X[:5] + 1e4)[0] == -1).all()
    monkeypatch.setattr(prediction, "BLOCK_ROWS", 7)
    again = predicted(data, X)
    assert_array_equal(again[0], labels)
    assert_array_equal(again[1], probabilities)
    assert len(predicted(data, X[:0])[0]) == 0


def test_prediction_data_survive_a_file_without_pickle(tmp_path: Path) -> None:
    X = blobs(300, 3, seed=7)
    tree = spanning_tree(X, min_samples=5)
    data = prediction_data(X, tree, extract_clusters(tree, min_cluster_size=20))
    np.savez(tmp_path / "arrays.npz", **data)
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as file:
        loaded = dict(file)
    for ours, theirs in zip(predicted(data, X), predicted(loaded, X), strict=True):
        assert_array_equal(ours, theirs)


# ---- soft membership --------------------------------------------------------------------------------------------


def membership_vectors(X: np.ndarray, found: HdbscanResult) -> np.ndarray:
    """hdbscan 0.8.44 `all_points_membership_vectors`, row by row and cluster by cluster, on our condensed tree."""
    tree = found.condensed
    n, lam = tree.n_rows, tree.lambda_val.astype(float)
    born = {int(c): (int(p), v) for p, c, v in zip(tree.parent, tree.child, lam, strict=True) if c >= n}
    densest = {int(c): lam[tree.parent == c].max() for c in {n, *born}}

    def way_up(cluster: int) -> list[int]:
        return [cluster, *way_up(born[cluster][0])] if cluster in born else [cluster]

    leaves = {c for c in densest if c not in {p for p, _ in born.values()}}
    exemplars = [
        X[tree.child[np.any([(tree.parent == f) & (lam == densest[f]) for f in leaves if c in way_up(f)], axis=0)]]
        for c in tree.selected
    ]
    result = np.zeros((n, len(tree.selected)))
    for k in np.flatnonzero(tree.child < n):
        row, node = tree.child[k], int(tree.parent[k])
        heights = []
        for cluster in map(int, tree.selected):
            mine, its = way_up(node), way_up(cluster)
            if node in its or cluster in mine:
                heights.append(lam[k])
            else:
                meet = max(set(mine) & set(its))
                heights.append(next(born[low][1] for low, high in pairwise(mine) if high == meet))
        with np.errstate(divide="ignore"):
            close = np.array([1 / np.sqrt(((e - X[row]) ** 2).sum(axis=1)).min() for e in exemplars])
        close = np.where(np.isinf(close), 1e300, close)
        score = np.exp(-((densest[node] + 1e-8) / np.array(heights)))
        vector = close / close.sum() * np.exp(score) / np.exp(score).sum()
        ceiling = max(densest[int(tree.selected[int(np.argmax(heights))])], lam[k])
        result[row] = vector / vector.sum() * max(heights) / ceiling
    return result


@pytest.mark.parametrize("method", ["eom", "leaf"])
@pytest.mark.parametrize("seed_", [0, 1])
def test_soft_membership_is_the_top_of_hdbscans_vectors(method: str, seed_: int) -> None:
    X = blobs(250, 2, seed=seed_, centres=5).astype(np.float32).astype(float)
    tree = spanning_tree(X, min_samples=3)
    found = extract_clusters(tree, min_cluster_size=8, cluster_selection_method=method)
    data = prediction_data(X, tree, found)
    expected = membership_vectors(X, found)
    labels, strengths = soft_membership(data)
    assert_array_equal(labels, expected.argmax(axis=1))
    assert_allclose(strengths, expected.max(axis=1), rtol=1e-5)  # float32
    assert (labels >= 0).all()
    assert (found.labels == -1).any()
    some = soft_membership(data, np.arange(0, len(X), 3))
    assert_array_equal(some[0], labels[::3])
    assert_array_equal(some[1], strengths[::3])


def test_soft_membership_agrees_with_the_clustering() -> None:
    X = blobs(1000, 3, seed=8)
    tree = spanning_tree(X, min_samples=5)
    found = extract_clusters(tree, min_cluster_size=25)
    labels, strengths = soft_membership(prediction_data(X, tree, found))
    clustered = found.labels >= 0
    # Not all: a row at the rim of its own cluster can be nearer to the exemplars of another (hdbscan's documentation).
    assert (labels[clustered] == found.labels[clustered]).mean() > 0.9
    assert strengths[clustered].mean() > strengths[~clustered].mean()


# ---- start-up ---------------------------------------------------------------------------------------------------


def test_serving_a_model_does_not_import_fast_hdbscan() -> None:
    """Only a new tree needs it."""
    code = (
        "import sys, numpy as np\n"
        "from gpuclust.algorithms.hdbscan.fit import extract_clusters, tree_from_edges\n"
        "from gpuclust.algorithms.hdbscan.predict import prediction_data\n"
        "from gpuclust.model.prediction import assign\n"
        "X = np.arange(9.0)[:, None] ** 2\n"
        "edges = np.column_stack([np.arange(8), np.arange(1, 9), np.diff(X[:, 0])])\n"
        "tree = tree_from_edges(edges, np.r_[1.0, np.diff(X[:, 0])], 1)\n"
        "assign('hdbscan', prediction_data(X, tree, extract_clusters(tree, min_cluster_size=2)), {}, X)\n"
        "assert not any(name.startswith('fast_hdbscan') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


TREE = (
    "import sys, numpy as np\n"
    "from gpuclust.algorithms.hdbscan.fit import extract_clusters, spanning_tree\n"
    "X = np.random.default_rng(0).normal(size=(60, 2)).round(1)\n"
    "print(extract_clusters(spanning_tree(X, min_samples=3), min_cluster_size=5).labels.tolist())\n"
)


def test_a_tree_needs_nothing_of_fast_hdbscan_and_is_its_own() -> None:
    """`import fast_hdbscan` compiles for half a minute the first time."""
    code = TREE + (
        "assert not any(name.startswith('fast_hdbscan') for name in sys.modules)\n"
        "import fast_hdbscan\n"
        "print(fast_hdbscan.HDBSCAN(min_samples=3, min_cluster_size=5).fit(X).labels_.tolist())\n"
    )
    environment = {**os.environ, "NUMBA_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    ours, theirs = run.stdout.splitlines()
    assert ours == theirs


def test_no_writable_cache_folder_breaks_nothing() -> None:
    # Of all the places where numba may keep compiled code, only the folder of an environment variable that is not set.
    environment = {**os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    environment.pop("NUMBA_CACHE_DIR", None)
    uncached = subprocess.run([sys.executable, "-c", TREE], check=True, capture_output=True, text=True, env=environment)
    cached = subprocess.run([sys.executable, "-c", TREE], check=True, capture_output=True, text=True)
    assert uncached.stdout == cached.stdout
