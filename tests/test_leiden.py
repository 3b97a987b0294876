"""Leiden: igraph's communities of scikit-learn's graph of neighbours, seeds, predictions, and the way from a sweep to the API."""

import random
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.datasets import make_moons
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

import gpuclust as gc
from gpuclust.algorithms.leiden import LeidenConfig
from gpuclust.algorithms.leiden.fit import Graph, graph_of, joined, membership
from gpuclust.algorithms.registry import FitInput, FitResult, fit
from gpuclust.config import Config, DataConfig
from gpuclust.errors import ConfigurationError, ModelError
from gpuclust.model import leiden as rule
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.forecast import memory_terms
from tests.journey import Journey, assert_predictions_are_the_labels, journey

installed = pytest.mark.skipif(
    find_spec("igraph") is None,
    reason="igraph is not installed: pip install 'gpuclust[leiden]'",
)


def rows(n_columns: int = 3) -> np.ndarray:
    """Four groups of different sizes, float32."""
    rng = np.random.default_rng(0)
    groups = [rng.normal(size=(n, n_columns)) + 6 * np.eye(4, n_columns)[i] for i, n in enumerate((300, 200, 150, 100))]
    return np.concatenate(groups).astype(np.float32)


def data_of(X: np.ndarray, seed: int = 0) -> FitInput:
    return FitInput(X, seed, CpuBackend(), ResultCache(), "rows")


def by_hand(X: np.ndarray, k: int) -> csr_array:
    """The weighted adjacency matrix of the graph, from scikit-learn's neighbours and products of sparse matrices."""
    near = NearestNeighbors(n_neighbors=k).fit(X).kneighbors_graph(mode="connectivity")
    either = ((near + near.T) > 0).astype(float)
    own = near + csr_array(np.eye(len(X)))
    shared = (own @ own.T).multiply(either)
    return csr_array(shared / (2 * (k + 1) - shared.toarray()))


@pytest.mark.parametrize("n_columns", [3, 24])
def test_the_graph_has_the_jaccard_weights_of_scikit_learns_neighbours(n_columns: int) -> None:
    X, k = rows(n_columns), 10
    graph = graph_of(data_of(X), LeidenConfig(n_neighbors=k))
    a, b = graph.edges.T
    assert (a < b).all()
    wanted = by_hand(X.astype(np.float64), k).toarray()
    found = np.zeros_like(wanted)
    found[a, b] = found[b, a] = graph.weights
    assert (graph.weights > 0).all()
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_a_row_that_is_missing_among_its_own_neighbours() -> None:
    X = np.concatenate([np.zeros((30, 2)), rows(2)]).astype(np.float32)
    graph = graph_of(data_of(X), LeidenConfig(n_neighbors=5))
    assert (graph.edges[:, 0] != graph.edges[:, 1]).all()
    assert np.bincount(graph.edges.ravel(), minlength=len(X)).min() >= 5


def test_confidence_is_the_share_of_the_weight_that_stays_in_the_cluster() -> None:
    edges = np.array([[0, 1], [0, 2], [1, 2]], dtype=np.int32)
    found = membership(Graph(edges, np.array([3.0, 1.0, 2.0]), 3), np.array([0, 0, 1]))
    np.testing.assert_allclose(found, [3 / 4, 3 / 5, 0.0])


def test_edges_weigh_the_same_on_request() -> None:
    graph = joined(np.array([[1, 2], [0, 2], [0, 1]], dtype=np.int32), jaccard=False)
    assert graph.weights.tolist() == [1, 1, 1]


@installed
def test_communities_are_igraphs_and_as_good_as_leidenalgs() -> None:
    """The same partition as igraph's of a graph that is built by hand; leidenalg, by the authors of Leiden, finds no better one."""
    import igraph

    leidenalg = pytest.importorskip("leidenalg")
    X = rows()
    upper = np.triu(by_hand(X.astype(np.float64), 15).toarray())
    edges = np.argwhere(upper > 0)
    weights, network = upper[*edges.T], igraph.Graph(n=len(X), edges=edges)
    for resolution in (0.2, 1.0, 2.0):
        before = random.getstate()
        (found,) = fit(data_of(X, seed=7), [LeidenConfig(resolution=resolution)])
        assert isinstance(found, FitResult)
        assert random.getstate() == before, "the generator of the process is not used"
        igraph.set_random_number_generator(random.Random(7))
        reference = network.community_leiden("modularity", weights=weights, resolution=resolution, n_iterations=2)
        igraph.set_random_number_generator(random)
        np.testing.assert_array_equal(found.labels, reference.membership)
        assert found.metrics["modularity"] == pytest.approx(network.modularity(reference.membership, weights=weights))
        other = leidenalg.find_partition(
            network, leidenalg.RBConfigurationVertexPartition, weights=weights, seed=7, resolution_parameter=resolution
        ).membership
        quality, best = (
            network.modularity(labels, weights=weights, resolution=resolution) for labels in (found.labels, other)
        )
        assert quality > best - 0.005, resolution
        if resolution == 0.2:  # the groups themselves
            assert adjusted_rand_score(other, found.labels) == 1.0


@installed
def test_the_same_seed_gives_the_same_clusters_and_all_resolutions_share_the_graph() -> None:
    X = make_moons(600, noise=0.15, random_state=0)[0].astype(np.float32)
    data = data_of(X, seed=3)
    requests = [LeidenConfig(resolution=r) for r in (0.5, 1.0, 1.0)]
    _, first, again = fit(data, requests)
    np.testing.assert_array_equal(first.labels, again.labels)  # type: ignore[union-attr]
    assert data.cache.n_created["graph"] == 1


@installed
@pytest.mark.parametrize("n_columns", [3, 24])
def test_new_rows_join_the_cluster_of_their_neighbours(n_columns: int) -> None:
    X = rows(n_columns)
    fitted = gc.Leiden(resolution=0.3, random_state=0).fit(X[::2])
    groups = np.repeat(range(4), (300, 200, 150, 100))
    assert adjusted_rand_score(groups[::2], fitted.labels_) > 0.95
    assert adjusted_rand_score(groups[1::2], fitted.predict(X[1::2])) > 0.95
    np.testing.assert_array_equal(fitted.predict(X[::2]), fitted.labels_)


@pytest.mark.parametrize("n_columns", [3, 24])
def test_votes_are_counted(n_columns: int) -> None:
    rng = np.random.default_rng(1)
    points = rng.normal(size=(20_000, n_columns)).astype(np.float32)  # two parts of the comparison
    labels = rng.integers(0, 3, size=len(points)).astype(np.int32)
    parameters = {"points": points, "n_neighbors": np.asarray(7), "training_labels": labels,
                  "training_confidence": np.full(len(points), 0.25, dtype=np.float32)}  # fmt: skip
    rule.check(parameters, {})
    new = rng.normal(size=(300, n_columns)).astype(np.float32)
    near = (
        NearestNeighbors(n_neighbors=7, algorithm="brute")
        .fit(points.astype(np.float64))
        .kneighbors(new, return_distance=False)
    )
    counts = np.array([np.bincount(row, minlength=3) for row in labels[near]])
    found, confidence, _ = rule.place(parameters, {})(new)
    np.testing.assert_array_equal(found, counts.argmax(axis=1))
    np.testing.assert_allclose(confidence, counts.max(axis=1) / 7)
    found, confidence, _ = rule.place(parameters, {})(points[:50])
    np.testing.assert_array_equal(found, labels[:50])
    assert (confidence == 0.25).all()
    for change in ({"training_labels": labels + 1}, {"n_neighbors": np.asarray(0)}):
        with pytest.raises(ModelError, match="the array parameters/"):
            rule.check({**parameters, **change}, {})


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "igraph", None)
    (found,) = fit(data_of(rows()), [LeidenConfig()])
    assert isinstance(found, ConfigurationError)
    assert str(found).endswith("pip install 'gpuclust[leiden]'")
    assert "\n" not in str(found)


def test_the_forecast_counts_the_graph(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n" + "1.5,2.5\n" * 1000)
    data = DataConfig(path=str(tmp_path / "rows.csv"))
    few, many = (
        memory_terms(Config(data=data, cluster=LeidenConfig(n_neighbors=k)), "resident")["fixed"] for k in (10, 20)
    )
    assert many - few == pytest.approx(140 * 10 * 1000, rel=0.05)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Journey:
    options = ("cluster=leiden", "cluster.resolution=0.02,0.05,0.1,0.2", "scale=none", "report=none")
    return journey(tmp_path_factory.mktemp("leiden"), store_template, rows(), *options)


@installed
def test_a_sweep_has_curves_and_a_verdict(swept: Journey) -> None:
    (sweep,) = swept.recorder.sweeps()
    assert sweep.metrics["resolution/n_clusters"]
    verdict = swept.verdict()
    assert any(line.startswith("Leiden: 4 clusters at ") for line in verdict["because"]), verdict
    assert verdict["sizes"] == [4]


@installed
def test_every_way_to_predict_gives_the_labels(swept: Journey) -> None:
    assert_predictions_are_the_labels(swept)
