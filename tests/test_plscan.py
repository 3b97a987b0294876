"""PLSCAN: fast_plscan's clusters from HDBSCAN's tree, the layers, and the way from a sweep to the API."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

import gpuclust as gc
from gpuclust.algorithms.hdbscan import HdbscanConfig
from gpuclust.algorithms.hdbscan.fit import spanning_tree
from gpuclust.algorithms.hdbscan.quality import layer_sizes, persistence_curve
from gpuclust.algorithms.plscan import PlscanConfig
from gpuclust.algorithms.registry import FitInput, FitResult, fit
from gpuclust.errors import FitError
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from tests.journey import Journey, assert_predictions_are_the_labels, journey

GROUPS = (((0, 0, 0), 0.5, 300), ((3, 3, 3), 0.3, 200), ((8, 8, 6), 0.8, 400), ((12, 9, 12), 0.4, 150))


def rows() -> np.ndarray:
    """Groups of different density; the first two are near each other. 10 % of uniform noise. float32."""
    rng = np.random.default_rng(0)
    groups = [rng.normal(center, spread, size=(n, 3)) for center, spread, n in GROUPS]
    return np.concatenate([*groups, rng.uniform(-2, 14, size=(110, 3))]).astype(np.float32)


def data_of(X: np.ndarray) -> FitInput:
    return FitInput(X, 0, CpuBackend(), ResultCache(), "rows")


@pytest.mark.parametrize("min_samples", [5, 10, 25])
def test_clusters_are_those_of_fast_plscan(min_samples: int) -> None:
    pytest.importorskip("fast_plscan")
    from fast_plscan import PLSCAN

    X = rows()
    reference = PLSCAN(min_samples=min_samples, min_cluster_size=min_samples).fit(X)
    (found,) = fit(data_of(X), [PlscanConfig(min_samples=min_samples)])
    assert isinstance(found, FitResult)
    assert found.labels.max() == reference.labels_.max()
    # Rows at the same mutual reachability distance can leave a cluster in either order.
    assert adjusted_rand_score(found.labels, reference.labels_) > 0.99
    sizes, total = reference._persistence_trace
    curve = persistence_curve(
        spanning_tree(X, min_samples=min_samples), base_min_cluster_size=min_samples, weighted=False
    )
    # Small clusters depend on that order too; the large ones do not. fast_plscan lists further sizes, at which only small clusters end.
    large = curve.sizes[curve.sizes > 50]
    assert len(large)
    at = np.searchsorted(sizes, large)
    np.testing.assert_array_equal(sizes[at], large)
    np.testing.assert_allclose(curve.total_persistence[curve.sizes > 50], total[at], rtol=0.02)


def clouds(kind: str) -> np.ndarray:
    """Separated clouds in five columns, float32: those of tests/test_estimators.py, or three far groups of three."""
    if kind == "alone":
        return make_blobs([250, 200, 120, 80], n_features=5, cluster_std=0.6, random_state=3)[0].astype(np.float32)
    rng = np.random.default_rng(3)
    centers = np.repeat(rng.normal(size=(3, 5)) * 12, 3, axis=0) + rng.normal(size=(9, 5)) * 2.2
    return (np.repeat(centers, 60, axis=0) + rng.normal(size=(540, 5)) * 0.5).astype(np.float32)


@pytest.mark.parametrize(("kind", "min_samples", "n_layers"), [("alone", 5, 1), ("groups", 5, 1), ("groups", 20, 2)])
def test_separated_clouds_have_the_persistence_and_the_layers_of_fast_plscan(
    kind: str, min_samples: int, n_layers: int
) -> None:
    pytest.importorskip("fast_plscan")
    from fast_plscan import PLSCAN

    X = clouds(kind)
    reference = PLSCAN(min_samples=min_samples, min_cluster_size=min_samples).fit(X)
    curve = persistence_curve(
        spanning_tree(X, min_samples=min_samples), base_min_cluster_size=min_samples, weighted=False
    )
    sizes, total = reference._persistence_trace
    np.testing.assert_array_equal(curve.sizes, sizes)
    np.testing.assert_array_equal(curve.total_persistence, total)
    layers = sorted(reference.cluster_layers(), key=lambda layer: -total[sizes == layer[0]])
    assert layer_sizes(curve).tolist() == [size + 1 for size, *_ in layers]
    assert len(layers) == n_layers
    for number, (_, labels, _) in enumerate(layers, start=1):
        ours = gc.PLSCAN(min_samples=min_samples + 1, layer=number).fit(X)
        np.testing.assert_array_equal(ours.labels_ == -1, labels == -1)
        assert adjusted_rand_score(ours.labels_, labels) == 1.0


def test_the_persistence_is_that_of_all_cuts_of_the_tree() -> None:
    """By hand: a leaf cluster lasts for the sizes at which HDBSCAN's leaves have it."""
    tree = spanning_tree(rows(), min_samples=10)
    curve = persistence_curve(tree, base_min_cluster_size=10, weighted=False)
    (found,) = fit(data_of(rows()), [PlscanConfig(min_samples=10)])
    assert isinstance(found, FitResult)
    size = int(found.metrics["min_cluster_size"])
    assert size == curve.sizes[curve.total_persistence.argmax()] + 1
    (leaves,) = fit(
        data_of(rows()), [HdbscanConfig(min_samples=10, min_cluster_size=size, cluster_selection_method="leaf")]
    )
    assert isinstance(leaves, FitResult)
    np.testing.assert_array_equal(found.labels, leaves.labels)
    assert len(GROUPS) == found.labels.max() + 1


def test_layers_are_the_peaks_by_persistence() -> None:
    X, data = rows(), data_of(rows())
    curve = persistence_curve(spanning_tree(X, min_samples=5), base_min_cluster_size=5, weighted=False)
    sizes = layer_sizes(curve)
    assert len(sizes) > 1
    found = fit(data, [PlscanConfig(min_samples=5, layer=layer) for layer in range(1, len(sizes) + 1)])
    assert data.cache.n_created["tree"] == 1, "all layers are cuts of one tree"
    assert [result.metrics["min_cluster_size"] for result in found] == sizes.tolist()  # type: ignore[union-attr]
    heights = curve.total_persistence[np.searchsorted(curve.sizes, sizes - 1)]
    assert (np.diff(heights) <= 0).all()
    (refused,) = fit(data, [PlscanConfig(min_samples=5, layer=99)])
    assert isinstance(refused, FitError)
    assert str(refused) == f"cluster.layer=99 is above the number of layers of the tree, {len(sizes)}; lower it"


def test_a_tree_that_never_splits_is_noise() -> None:
    X = np.arange(30.0, dtype=np.float32).reshape(-1, 1)
    fitted = gc.PLSCAN(min_samples=4).fit(X)
    assert (fitted.labels_ == -1).all()


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Journey:
    options = ("cluster=plscan", "cluster.min_samples=5,10,20", "scale=none", "report=none")
    return journey(tmp_path_factory.mktemp("plscan"), store_template, rows(), *options)


def test_a_sweep_has_curves_and_a_verdict(swept: Journey) -> None:
    verdict = swept.verdict()
    assert verdict["sizes"] == [4], verdict
    assert any(line.startswith("PLSCAN: 4 clusters at ") for line in verdict["because"]), verdict
    (sweep,) = swept.recorder.sweeps()
    assert sweep.metrics["min_samples/n_clusters"]
    assert {job.metrics["n_clusters"] for job in swept.recorder.jobs()} == {4.0}


def test_every_way_to_predict_gives_the_labels(swept: Journey) -> None:
    assert "cluster_rescued" in swept.exported
    assert_predictions_are_the_labels(swept)
