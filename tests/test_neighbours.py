"""Neighbours and averages of a library, against brute force and against the table."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuclust.serve.library import Library
from gpuclust.serve.neighbours import build_tree
from gpuclust.serve.records import NotFound
from tests.exporting import CREATORS, FEATURES, made_export, table_of, tracks


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Iterator[Library]:
    with Library.open(made_export(tracks(), tmp_path_factory.mktemp("neighbours"), store_template)) as opened:
        yield opened


def prepared(library: Library) -> np.ndarray:
    """The prepared space as its definition says: K-Means on standardised features."""
    raw = table_of(library)[list(library.features)].to_numpy()
    return (raw - raw.mean(axis=0)) / raw.std(axis=0)


@pytest.mark.parametrize("within", [False, True])
def test_neighbours_are_those_of_brute_force(library: Library, within: bool) -> None:
    table, X = table_of(library), prepared(library)
    for i in range(0, 400, 37):
        squares = ((X - X[i]) ** 2).sum(axis=1)
        squares[i] = np.inf
        if within:
            squares[table["cluster"] != table["cluster"][i]] = np.inf
        expected = np.sqrt(np.sort(squares)[:12])
        near = library.similar(table["id"][i], 12, within_cluster=within)
        # The matrix is float32: 1e-6 of coordinates of a few units.
        np.testing.assert_allclose([n.distance for n in near], expected, atol=1e-5)
        assert {n.item.id for n in near} == set(table["id"][np.argsort(squares)[:12]])


@settings(deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(1, 3000), k=st.integers(0, 50), coarse=st.booleans())
def test_the_tree_is_exact_with_ties_by_rank(seed: int, n: int, k: int, coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 4, (n, 3)).astype(np.float32) if coarse else rng.normal(size=(n, 3)).astype(np.float32)
    clusters = rng.integers(-1, 3, n).astype(np.int32)
    tree = build_tree(points, clusters)
    np.testing.assert_array_equal(tree.points_of(np.arange(n)), points)
    query = rng.normal(size=3) if not coarse else rng.integers(0, 4, 3).astype(float)
    squares = ((points.astype(np.float64) - query) ** 2).sum(axis=1)
    for cluster in (None, 1):
        allowed = np.arange(n) if cluster is None else np.flatnonzero(clusters == cluster)
        expected = allowed[np.lexsort((allowed, squares[allowed]))[:k]]
        ranks, distances = tree.nearest(query, k, cluster=cluster)
        np.testing.assert_array_equal(ranks, expected)
        # One sum of three squares in another order: a few units in the last place.
        np.testing.assert_allclose(distances, np.sqrt(squares[expected]), rtol=1e-14)


def test_averages_are_the_tables(library: Library) -> None:
    table = table_of(library)
    years = library.averages("year", limit=1000)
    expected = table.groupby("year")[FEATURES].mean()
    assert [a.value for a in years.values] == expected.index.tolist()
    # Sums of at most a few dozen values in another order.
    np.testing.assert_allclose([[a.features[f] for f in FEATURES] for a in years.values], expected, rtol=1e-12)
    groups = library.averages("group", cluster=1)
    own = table[table["cluster"] == 1]
    assert {a.value: a.count for a in groups.values} == own["genre"].value_counts().to_dict()
    for group in groups.values:
        assert group.features["energy"] == pytest.approx(own[own["genre"] == group.value]["energy"].mean(), rel=1e-12)
    creators = library.averages("creator")
    counts = [a.count for a in creators.values]
    assert counts == sorted(counts, reverse=True)
    # Two names in one cell count each.
    assert creators.total == len({name.strip() for cell in CREATORS for name in cell.split(";")})
    jay = table[table["artist"].str.contains("JAY-Z")]
    assert library.average_of_creator("jay z").count == len(jay)
    assert library.averages("creator", offset=3, limit=2).values == creators.values[3:5]
    with pytest.raises(NotFound, match="there is no creator 'Quen'; did you mean Queen"):
        library.average_of_creator("Quen")
    with pytest.raises(ValueError, match="over all clusters"):
        library.averages("creator", cluster=1)
