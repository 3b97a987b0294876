"""The GPU backend against the CPU's, on real tracks and on the catalogue. Run on a GPU machine: pytest -m gpu."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from gpuclust.algorithms.cluster import Clustering, cluster
from gpuclust.algorithms.hdbscan import HdbscanConfig
from gpuclust.algorithms.hdbscan.fit import spanning_tree
from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.mixture import GmmConfig
from gpuclust.config import CleanConfig, ClusterConfig, Config, DataConfig, ReduceConfig, ScaleConfig
from gpuclust.data.clean import clean
from gpuclust.data.read import read
from gpuclust.data.table import NULL_SPELLINGS, CsvLayout, Table
from gpuclust.errors import FitError
from gpuclust.metrics.silhouette import silhouettes
from gpuclust.pipeline import job as jobs
from gpuclust.pipeline.context import make_job
from gpuclust.pipeline.run_log import bundle_of
from gpuclust.reducers.pca import fit_components
from gpuclust.reducers.prepare import prepare
from gpuclust.reducers.scalers import fit_scaling
from gpuclust.runtime.backend import Backend, BackendChoice, probe_gpu
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.matrix import Matrix

pytestmark = [
    pytest.mark.gpu,
    # RAPIDS and its dependencies warn of their own deprecations; ours are errors everywhere else.
    pytest.mark.filterwarnings("default"),
]

CPU = CpuBackend()
SEVEN = ["danceability", "energy", "speechiness", "acousticness", "instrumentalness", "liveness", "valence"]


@pytest.fixture(scope="module")
def gpu() -> Backend:
    """The GPU backend, where there is a GPU."""
    reason = probe_gpu()
    if reason is not None:
        pytest.skip(f"no GPU to test on: {reason}")
    from gpuclust.runtime.gpu import GpuBackend

    return GpuBackend(pool_fraction=0.5)


@pytest.fixture(scope="module")
def tracks(real_data: Path) -> DataConfig:
    """Seven features of the 114,000 tracks, by preset."""
    return DataConfig(preset="tracks", path=str(real_data / "tracks_114k.csv"), features=SEVEN)


DISTINCT = CleanConfig(duplicates="id")


def cleaned(data: DataConfig, backend: Backend, how: CleanConfig = DISTINCT) -> Table:
    return clean(read(data, backend.frames), how, backend.frames)


def matrix_on(backend: Backend, X: np.ndarray, dtype: str = "float32") -> Matrix:
    """A matrix of the same numbers on a backend: standardised, on the host, so that both have the same."""
    X = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(dtype)
    made = catalogue_matrix(CPU, 100)
    return replace(made, X=backend.to_device(X), key=f"{backend.name}-{dtype}-{X.shape}")


def catalogue_matrix(backend: Backend, n_rows: int, reduce: ReduceConfig | None = None) -> Matrix:
    table = cleaned(DataConfig(source="catalogue", n_rows=n_rows, seed=1), backend, CleanConfig())
    return prepare(table, ScaleConfig(), reduce or ReduceConfig(), dtype="float64", key=backend.name, backend=backend)


def both(X: np.ndarray, request: ClusterConfig, gpu: Backend, dtype: str = "float32") -> tuple[Clustering, Clustering]:
    """The CPU's and the GPU's clustering of the same numbers."""
    found = [cluster(matrix_on(b, X, dtype), [request], seed=0, backend=b, cache=ResultCache())[0] for b in (CPU, gpu)]
    assert all(isinstance(c, Clustering) for c in found), found
    return found[0], found[1]  # type: ignore[return-value]


# Frames


def audit(table: Table) -> dict[str, Any]:
    """The audit without who read the file: on a CPU there is one reader."""
    found = table.audit.to_dict()
    found["source"].pop("reader", None)
    return found


@pytest.mark.real
@pytest.mark.parametrize(
    "file", ["tracks_114k.csv", "playlist_tracks_10k.csv", "playlist_songs_33k.csv", "song_attributes_2k.csv",
             "tracks_12k_lists.csv"],
)  # fmt: skip
def test_reading_and_cleaning_give_the_same_table(gpu, real_data, file):
    data = DataConfig(preset="tracks", path=str(real_data / file))
    on_cpu, on_gpu = cleaned(data, CPU, CleanConfig()), cleaned(data, gpu, CleanConfig())
    assert audit(on_gpu) == audit(on_cpu)
    assert (on_gpu.roles, on_gpu.features, on_gpu.fingerprint) == (on_cpu.roles, on_cpu.features, on_cpu.fingerprint)
    np.testing.assert_array_equal(
        gpu.to_host(gpu.frames.to_matrix(on_gpu.frame, on_gpu.features)),
        CPU.frames.to_matrix(on_cpu.frame, on_cpu.features),
    )
    columns = [c for c in on_cpu.roles.columns if c not in on_cpu.features]
    pd.testing.assert_frame_equal(gpu.frames.to_pandas(on_gpu.frame[columns]), on_cpu.frame[columns])


@pytest.mark.real
@pytest.mark.parametrize("nulls", ["drop", "median", "mean"])
def test_every_cleaning_rule_takes_the_same_rows(gpu, tracks, tmp_path, nulls):
    raw = pd.read_csv(tracks.path, nrows=3000, index_col=0)
    raw.loc[5:40, "energy"] = np.nan
    raw.loc[100:110, "valence"] = np.inf
    raw["tempo"] = raw["tempo"].astype(object).where(raw.index % 97 != 0, "fast")
    path = tmp_path / "spoiled.csv"
    pd.concat([raw, raw.head(200)]).to_csv(path)
    how = CleanConfig(nulls=nulls, duplicates="row", bounds={"tempo": [60, 180], "liveness": [None, 0.9]})
    data = replace(tracks, path=str(path), features=[*SEVEN, "tempo"])
    on_cpu, on_gpu = cleaned(data, CPU, how), cleaned(data, gpu, how)
    assert audit(on_gpu) == audit(on_cpu)
    np.testing.assert_allclose(
        gpu.to_host(gpu.frames.to_matrix(on_gpu.frame, on_gpu.features)),
        CPU.frames.to_matrix(on_cpu.frame, on_cpu.features),
        rtol=1e-14,  # a mean of 3,000 values, summed in another order
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "latin-1"])
@pytest.mark.parametrize("decimal", [".", ","])
def test_a_text_file_reads_the_same_however_it_is_written(gpu, tmp_path, encoding, decimal):
    separator = ";" if decimal == "," else ","
    name = {"gb18030": "夜曲", "latin-1": "Café"}.get(encoding, "Ωραία 🎵")
    cells = ["1", "-2.5e-3", " 7 ", *NULL_SPELLINGS]
    rows = [f'{i}{separator}"{name}{separator} {i}"{separator}{c.replace(".", decimal)}' for i, c in enumerate(cells)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join([separator.join(("id", "name", "x")), *rows]) + "\n", encoding=encoding)
    layout = CsvLayout(separator, encoding, decimal, columns=("id", "name", "x"))
    on_cpu = CPU.frames.read_csv(path, layout, numbers=["x"], text=["name", "id"]).frame
    on_gpu = gpu.frames.read_csv(path, layout, numbers=["x"], text=["name", "id"])
    pd.testing.assert_frame_equal(gpu.frames.to_pandas(on_gpu.frame), on_cpu)
    assert on_gpu.reader == ("cuDF" if encoding == "utf-8" else f"the Arrow reader (written in {encoding})")


def test_bytes_that_do_not_fit_the_encoding_are_refused(gpu, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"name\nCaf\xe9\n")
    with pytest.raises(UnicodeError):
        gpu.frames.read_csv(path, CsvLayout(columns=("name",)), numbers=[], text=["name"])


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_binary_files_read_the_same_lists_categories_and_dates_too(gpu, tmp_path, kind):
    made = pd.DataFrame(
        {
            "id": ["a", "b", None],
            "n": [1, 2, 3],
            "x": [0.5, np.nan, -1.0],
            "kind": pd.Categorical(["u", "v", "u"]),
            "day": pd.to_datetime(["2020-01-02", None, "1999-12-31"]),
            "genres": [["jazz", "funk"], [], None],
        }
    )
    path = tmp_path / f"a.{kind}"
    getattr(made, f"to_{kind}")(path)
    columns = ["genres", "id", "x", "kind", "n", "day"]
    found = [gpu.frames.to_pandas(getattr(gpu.frames, f"read_{kind}")(path, columns)),
             getattr(CPU.frames, f"read_{kind}")(path, columns)]  # fmt: skip
    assert list(found[0].columns) == columns
    pd.testing.assert_frame_equal(found[0][columns[1:]], found[1][columns[1:]], check_dtype=False)
    as_lists = [[None if v is pd.NA or v is None else list(v) for v in f["genres"].astype(object)] for f in found]
    assert as_lists[0] == as_lists[1] == [["jazz", "funk"], [], None]


def test_distinct_rows_are_counted_alike(gpu):
    frame = pd.DataFrame({"a": [0.0, -0.0, 1.0, 1.0], "b": [2.0, 2.0, 2.0, 3.0]})
    assert gpu.frames.count_distinct(gpu.frames.from_pandas(frame), ["a", "b"]) == 3
    assert CPU.frames.count_distinct(frame, ["a", "b"]) == 3


# Scaling and projection


@pytest.mark.parametrize("method", ["standard", "minmax", "robust", "none"])
def test_scaling_is_the_same_constants_included(gpu, method):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(3, 2, 5000), rng.exponential(size=5000), np.full(5000, 0.1), np.zeros(5000)])
    on_cpu, on_gpu = fit_scaling(X, method, CPU), fit_scaling(gpu.to_device(X), method, gpu)
    # Means and quantiles of 5,000 values in another order; the third feature's spread is rounding error alone.
    np.testing.assert_allclose(on_gpu.offset, on_cpu.offset, rtol=1e-12)
    np.testing.assert_allclose(on_gpu.scale, on_cpu.scale, rtol=1e-12)
    assert on_gpu.scale[2:].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("shape", [(4000, 7), (4, 9), (500, 1)])
def test_components_are_the_same_with_their_signs(gpu, shape):
    rng = np.random.default_rng(1)
    X = rng.normal(size=shape) @ np.diag(np.linspace(3, 1, shape[1])) + 5
    on_cpu, on_gpu = fit_components(X, CPU), fit_components(gpu.to_device(X), gpu)
    known = slice(0, min(shape[0] - 1, shape[1]))  # as many rows as components leave the last one arbitrary
    np.testing.assert_allclose(on_gpu.explained_variance, on_cpu.explained_variance, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(on_gpu.explained_variance_ratio, on_cpu.explained_variance_ratio, rtol=1e-9, atol=1e-12)
    # Eigenvectors lose the digits that their eigenvalues share: neighbours differ by 5 % here.
    np.testing.assert_allclose(on_gpu.components[known], on_cpu.components[known], atol=1e-9)
    assert on_gpu.population_factor == on_cpu.population_factor


@pytest.mark.real
def test_prepared_tracks_are_the_same(gpu, tracks):
    reduce = ReduceConfig(method="pca", n_components=5, rescale=True)
    found = [
        prepare(cleaned(tracks, b), ScaleConfig("minmax"), reduce, dtype="float64", key=b.name, backend=b)
        for b in (CPU, gpu)
    ]
    assert found[1].preparation.explained_variance == pytest.approx(0.9349, abs=1e-4)  # as the data's README says
    np.testing.assert_allclose(gpu.to_host(found[1].X), found[0].X, atol=1e-8)
    np.testing.assert_allclose(found[1].coordinates, found[0].coordinates, atol=1e-6)  # float32


# Algorithms


@pytest.mark.real
@pytest.mark.parametrize("engine", ["library", "fused"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kmeans_reaches_the_optimum_of_the_readme(gpu, tracks_11, engine, dtype):
    _, on_gpu = both(tracks_11, KMeansConfig(n_clusters=7, engine=engine), gpu, dtype)
    # The inertia that the data's README gives; K-Means has a lower optimum, found from some starts.
    assert on_gpu.metrics["inertia"] <= 551_260 * (1 + 5e-4)
    assert on_gpu.converged
    again = CPU_assign(tracks_11, on_gpu, dtype)
    np.testing.assert_array_equal(on_gpu.labels, again[0])
    np.testing.assert_allclose(on_gpu.distance, again[1], rtol=1e-6)  # float32


@pytest.mark.real
@pytest.mark.parametrize("engine", ["library", "fused"])
def test_kmeans_finds_the_same_clusters_where_there_is_one_optimum(gpu, tracks_11, engine):
    on_cpu, on_gpu = both(tracks_11, KMeansConfig(n_clusters=3, engine=engine), gpu)
    assert on_gpu.metrics["inertia"] == pytest.approx(on_cpu.metrics["inertia"], rel=1e-4)
    # What `tol` leaves undone moves rows on a border: a few in a thousand.
    assert adjusted_rand_score(on_cpu.labels, on_gpu.labels) > 0.98


def CPU_assign(X: np.ndarray, found: Clustering, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """What a model served on a CPU gives the training rows."""
    from gpuclust.algorithms.kmeans.fit import assign

    labels, nearest, _ = assign(matrix_on(CPU, X, dtype).X, found.parameters["centers"])
    return labels, nearest


@pytest.mark.parametrize("engine", ["library", "fused"])
@pytest.mark.parametrize("tol", [1e-4, 0.0])
def test_kmeans_means_by_tol_what_scikit_learn_means(gpu, engine, tol):
    X = catalogue_matrix(CPU, 20_000).X
    request = KMeansConfig(n_clusters=5, engine=engine, n_init=3, tol=tol)
    on_cpu, on_gpu = both(X, request, gpu, "float64")
    assert on_gpu.converged
    # cuML's own criterion would stop when the cost falls by less than 1e-4 of itself: far from settled.
    assert on_gpu.metrics["inertia"] <= on_cpu.metrics["inertia"] * (1 + 2e-3)


def test_fused_kmeans_is_the_same_in_every_run(gpu):
    X = catalogue_matrix(CPU, 20_000).X
    requests = [KMeansConfig(n_clusters=k, engine="fused", n_init=2) for k in (3, 8)]
    matrix = matrix_on(gpu, X)
    runs = [cluster(matrix, requests, seed=3, backend=gpu, cache=ResultCache()) for _ in range(2)]
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.centers, other.centers)


@pytest.mark.parametrize("engine", ["library", "fused"])
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_mixtures_find_the_same_components(gpu, covariance_type, engine):
    X = catalogue_matrix(CPU, 20_000).X[:, :5]
    request = GmmConfig(n_clusters=3, covariance_type=covariance_type, tol=1e-6, max_iter=500, engine=engine)
    on_cpu, on_gpu = both(X, request, gpu, "float64")
    # Both start from a K-Means, each from its own: the same optimum, reached from two sides.
    assert on_gpu.metrics["log_likelihood"] == pytest.approx(on_cpu.metrics["log_likelihood"], rel=1e-3)
    for name in ("bic", "aic", "icl"):
        assert on_gpu.metrics[name] == pytest.approx(on_cpu.metrics[name], rel=2e-3)
    assert adjusted_rand_score(on_cpu.labels, on_gpu.labels) > 0.95


@pytest.mark.real
def test_the_mixture_of_the_readme(gpu, tracks):
    reduce = ReduceConfig(method="pca", n_components=5, rescale=True)
    matrix = prepare(cleaned(tracks, gpu), ScaleConfig("minmax"), reduce, dtype="float64", key="readme", backend=gpu)
    request = GmmConfig(n_clusters=5, n_init=3)
    (found,) = cluster(matrix, [request], seed=0, backend=gpu, cache=ResultCache())
    assert isinstance(found, Clustering)
    assert found.metrics["bic"] < 632_741 * 1.002


@pytest.mark.real
@pytest.mark.parametrize("method", ["eom", "leaf"])
def test_hdbscan_cuts_the_same_clusters(gpu, tracks_11, method):
    request = HdbscanConfig(min_cluster_size=200, min_samples=10, cluster_selection_method=method)
    on_cpu, on_gpu = both(tracks_11[:30_000], request, gpu)
    # cuML's distances are float32 made from squares, about 1e-3 off between near-identical rows: a few change sides.
    assert abs(on_cpu.n_clusters - on_gpu.n_clusters) <= max(1, on_cpu.n_clusters // 10)
    assert adjusted_rand_score(on_cpu.labels, on_gpu.labels) > 0.9
    assert on_gpu.metrics["relative_validity"] == pytest.approx(on_cpu.metrics["relative_validity"], abs=0.05)


@pytest.mark.real
def test_the_hdbscan_tree_weighs_the_same(gpu, tracks_11):
    X = tracks_11[:20_000].astype(np.float32)
    from gpuclust.algorithms.hdbscan.gpu import fit_tree

    trees = [spanning_tree(X, min_samples=15), fit_tree(gpu.to_device(X), 15)]
    # Every minimum spanning tree has the same weight; the row itself not counted among its 15 neighbours on both.
    assert trees[1].edges[:, 2].sum() == pytest.approx(trees[0].edges[:, 2].sum(), rel=1e-4)
    # The CPU's are float32, and a neighbour that cuML's rounded distances miss is off by less than their error.
    np.testing.assert_allclose(trees[1].core_distances, trees[0].core_distances, atol=1e-4)


def test_hdbscan_says_how_many_samples_it_takes(gpu):
    from gpuclust.algorithms.hdbscan.gpu import fit_tree

    X = gpu.to_device(np.random.default_rng(0).normal(size=(3000, 2)))
    with pytest.raises(FitError, match="1 to 1023"):
        fit_tree(X, 1024)
    assert fit_tree(X, 1023).n_rows == 3000


@pytest.mark.real
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_silhouettes_are_the_same_exact_and_sampled(gpu, tracks_11, dtype, tolerance):
    X = tracks_11[:20_000].astype(dtype)
    labelings = [np.arange(20_000, dtype=np.int32) % 5 - 1, (X[:, 0] > 0).astype(np.int32)]
    for rows in (None, np.arange(0, 20_000, 7)):
        on_cpu = silhouettes(X, labelings, backend=CPU, rows=rows)
        on_gpu = silhouettes(gpu.to_device(X), labelings, backend=gpu, rows=rows)
        for one, other in zip(on_cpu, on_gpu, strict=True):
            assert other.score == pytest.approx(one.score, abs=tolerance)
            assert other.standard_error == pytest.approx(one.standard_error, abs=tolerance)


# Whole jobs


@pytest.mark.real
@pytest.mark.parametrize(
    "request_", [KMeansConfig(n_clusters=5, n_init=3), GmmConfig(n_clusters=4), HdbscanConfig(min_cluster_size=150)],
    ids=lambda r: r.name,
)  # fmt: skip
def test_a_model_trained_on_the_gpu_serves_on_a_cpu(gpu, context: Any, tracks, request_, tmp_path):
    from gpuclust.model.bundle import Bundle

    config = Config(data=replace(tracks, n_rows=20_000), clean=DISTINCT, cluster=request_, dtype="float64")
    context = replace(context, backend=gpu, choice=BackendChoice("gpu", "a test"))
    (result,) = jobs.compute([make_job(config, "job", {}, "gpu")], context)
    assert not isinstance(result, Exception), result
    assert {"silhouette", "calinski_harabasz", "davies_bouldin", "n_clusters"} <= set(result.metrics)
    bundle_of(config, result.table, result.matrix, result.clustering, result.profile).save(tmp_path / "model")
    raw = CPU.frames.to_matrix(gpu.frames.to_pandas(result.table.frame), result.table.features)
    model = Bundle.load(tmp_path / "model")
    served = model.training(len(raw), lambda: model.assign(raw))
    np.testing.assert_array_equal(served.cluster, result.clustering.labels)
    np.testing.assert_allclose(served.confidence, result.clustering.confidence, atol=1e-5)  # float32


def test_the_device_is_named_with_its_driver(gpu):
    name, _, rest = gpu.device.partition(" (")
    assert name
    assert "GiB), driver " in rest
    assert ", CUDA " in rest


def test_too_little_memory_is_said_in_a_line(gpu):
    from gpuclust.runtime.gpu import device_errors

    with (
        pytest.raises(FitError, match=r"too little memory for an array of a petabyte .*pool_fraction"),
        device_errors("an array of a petabyte"),
    ):
        gpu.xp.empty(2**47, dtype=np.float64)
    assert float(gpu.xp.ones(3).sum()) == 3.0  # and the device goes on
