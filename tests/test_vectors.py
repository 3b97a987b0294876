"""Columns of vectors: reading, cleaning, unit rows, spherical K-Means, description, export and prediction."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from experiments import vectors_tracks
from sklearn.metrics import adjusted_rand_score

from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.kmeans.fit import KMeansRequest, fit_centers, fit_kmeans
from gpuclust.algorithms.mixture import GmmConfig
from gpuclust.analysis.table_stats import categories, words_of
from gpuclust.analysis.terms import top_terms
from gpuclust.assignments import SourceColumns
from gpuclust.config import CleanConfig, Config, DataConfig, ReduceConfig, ScaleConfig, needs_length, unit_rows
from gpuclust.data.clean import clean
from gpuclust.data.frames import PandasFrames
from gpuclust.data.read import read
from gpuclust.data.stream import read_streamed
from gpuclust.data.summary import summary
from gpuclust.errors import ConfigurationError, DataError, ExportError, ModelError
from gpuclust.model.bundle import UNPLACED, Bundle
from gpuclust.model.rows import to_matrix
from gpuclust.model.vectors import listed, source_columns
from gpuclust.model.vectors import vector_columns as places_of
from gpuclust.predict import predict
from gpuclust.reducers.prepare import prepare
from gpuclust.runtime.blocks import MemoryBlocks
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.forecast import forecast
from gpuclust.runtime.scratch import Scratch
from gpuclust.serve.library import Library
from tests.serving import serving

SIZE, K, N = 96, 5, 600
WORDS = ("ballad tender slow", "riff amp loud", "synth drop club", "choir mass organ", "banjo creek porch")
FRAMES = PandasFrames()


def sphere(
    n: int = N, size: int = SIZE, k: int = K, seed: int = 0, noise: float = 0.05
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, size) float32 of several lengths around k directions, and the direction of each."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((k, size))
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    labels = rng.integers(0, k, n)
    X = centers[labels] + noise * rng.standard_normal((n, size))
    return (X * rng.lognormal(sigma=0.5, size=(n, 1))).astype(np.float32), labels


def fixed(X: np.ndarray) -> pa.Array:
    """Vectors as an Arrow array of lists of a fixed size."""
    return pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), X.shape[1])


def table_of(X: np.ndarray, labels: np.ndarray) -> pa.Table:
    rng = np.random.default_rng(1)
    titles = [" ".join([*rng.permutation(WORDS[c].split()), f"take {i % 7}"]) for i, c in enumerate(labels)]
    groups = [f"genre {c}" for c in labels]
    columns = {"id": np.arange(len(X)), "title": titles, "genre": groups, "tempo": rng.normal(120, 20, len(X))}
    return pa.table({**columns, "embedding": fixed(X)})


def read_it(path: Path, *features: str, **options: object):
    return read(DataConfig(path=str(path), features=list(features), **options), FRAMES)


# Reading


@pytest.mark.parametrize("kind", ["fixed", "list", "large list", "half", "double", "feather", "csv", "numpy csv"])
def test_vectors_are_read_from_every_kind_of_list(kind, tmp_path):
    X, labels = sphere(50, 8)
    path = tmp_path / "v.parquet"
    table = table_of(X, labels).drop(["embedding"])
    types = {
        "list": pa.list_(pa.float32()),
        "large list": pa.large_list(pa.float32()),
        "double": pa.list_(pa.float64()),
    }
    if "csv" in kind:
        path = tmp_path / "v.csv"
        written = [str(row.tolist()) if kind == "csv" else str(row) for row in X]
        table.to_pandas().assign(embedding=written).to_csv(path, index=False)
    else:
        lists = fixed(X.astype(np.float16)) if kind == "half" else fixed(X)
        table = table.append_column("embedding", lists.cast(types[kind]) if kind in types else lists)
        if kind == "feather":
            path = tmp_path / "v.arrow"
            pa.feather.write_feather(table, path)
        else:
            pq.write_table(table, path)
    found = read_it(path, "embedding")
    assert found.features == tuple(f"embedding[{j}]" for j in range(8))
    assert found.column_features == ()
    assert "embedding" not in found.frame.columns
    (column,) = found.vectors
    assert column.values.dtype == (np.float16 if kind == "half" else np.float32)
    tolerance = {"half": 1e-3, "numpy csv": 1e-6}.get(kind, 0.0)  # what a half holds, and what NumPy prints
    np.testing.assert_allclose(column.values.astype(np.float64), X, rtol=tolerance, atol=tolerance)


def test_a_list_of_numbers_is_used_only_if_it_is_named_or_alone(tmp_path):
    X, labels = sphere(50, 8)
    path = tmp_path / "v.parquet"
    pq.write_table(table_of(X, labels), path)
    found = read_it(path)
    assert found.features == ("tempo",)
    assert next(out.reason for out in found.audit.left_out if out.column == "embedding").startswith("a list of numbers")
    pq.write_table(table_of(X, labels).drop(["tempo"]), path)
    assert read_it(path).features[0] == "embedding[0]"


def test_vectors_and_columns_and_a_sample_of_the_rows(tmp_path):
    X, labels = sphere(200, 8)
    path = tmp_path / "v.parquet"
    pq.write_table(table_of(X, labels).append_column("second", fixed(-X)), path, row_group_size=64)
    found = clean(read_it(path, "embedding", "tempo", "second", n_rows=60), CleanConfig(), FRAMES)
    assert found.features[:2] == ("tempo", "embedding[0]")
    assert found.features[-1] == "second[7]"
    assert found.n_rows == 60
    assert found.rows is not None
    np.testing.assert_array_equal(found.vectors[0].take(np.arange(60)), X[found.rows])
    np.testing.assert_array_equal(found.vectors[1].read(10, 20), -X[found.rows[10:20]])


def bad_vectors(path: Path) -> np.ndarray:
    """60 rows, of which five have no vector of 8 numbers and one is zero; the vectors (60, 8) float32."""
    X, labels = sphere(60, 8)
    X[7] = 0
    cells = [row.tolist() for row in X]
    cells[3], cells[4], cells[5] = None, [1.0, 2.0], []
    cells[6] = [*cells[6][:7], float("nan")]
    cells[8] = [*cells[8][:7], None]
    columns = table_of(X, labels).drop(["embedding"])
    pq.write_table(columns.append_column("embedding", pa.array(cells, pa.list_(pa.float32()))), path)
    return X


@pytest.mark.parametrize("unit", [False, True])
def test_rows_without_a_usable_vector_are_dropped_and_counted(unit, tmp_path):
    X = bad_vectors(tmp_path / "v.parquet")
    found = clean(read_it(tmp_path / "v.parquet", "embedding"), CleanConfig(), FRAMES, unit=unit)
    gone = [3, 4, 5, 6, 8] + [7] * unit
    kept = np.setdiff1d(np.arange(60), gone)
    assert found.frame["id"].tolist() == kept.tolist()
    np.testing.assert_array_equal(found.vectors[0].take(np.arange(len(kept))), X[kept])
    step = next(step for step in found.audit.steps if step.rule == "vectors")
    assert step.rows_removed == len(gone)
    assert "missing: 2, of another length: 1, with NaN or infinity: 2" in step.detail
    assert ("all zero: 1" in step.detail) == unit
    assert "embedding[0..7]" in summary(found.audit)


def test_rows_that_repeat_a_vector_and_all_else_are_duplicates(tmp_path):
    X, labels = sphere(40, 8)
    whole = table_of(X, labels)
    other = whole.slice(0, 3).set_column(4, "embedding", fixed(X[:3] + 1))
    pq.write_table(pa.concat_tables([whole, whole.slice(5, 2), other]), tmp_path / "v.parquet")
    found = clean(read_it(tmp_path / "v.parquet", "embedding"), CleanConfig(duplicates="row"), FRAMES)
    assert found.n_rows == 43


def test_a_column_without_vectors_and_text_are_refused_in_one_line(tmp_path):
    X, labels = sphere(10, 4)
    nothing = pa.array([None] * 10, pa.list_(pa.float32()))
    pq.write_table(table_of(X, labels).append_column("empty", nothing), tmp_path / "v.parquet")
    with pytest.raises(DataError, match=r"'empty' holds no vector in its first rows"):
        read_it(tmp_path / "v.parquet", "empty")
    with pytest.raises(ConfigurationError, match=r"vectors \(embedding\) are held in memory, which memory.mode=disk"):
        read_streamed(
            DataConfig(path=str(tmp_path / "v.parquet"), features=["embedding"]),
            CleanConfig(),
            FRAMES,
            Scratch(tmp_path),
        )
    with pytest.raises(ConfigurationError, match="'title' is text"):
        read_it(tmp_path / "v.parquet", "title")


def test_the_forecast_counts_the_values_of_vectors(tmp_path):
    X, labels = sphere(1000, 64)
    pq.write_table(table_of(X, labels), tmp_path / "v.parquet")
    found = [
        forecast(Config(data=DataConfig(path=str(tmp_path / "v.parquet"), features=names)))
        for names in (["embedding"], ["tempo"])
    ]
    assert [f.n_features for f in found] == [64, 1]
    assert found[0].resident_bytes - found[1].resident_bytes > 1000 * 64 * 12


def test_names_of_features_are_written_as_ranges():
    names = (*[f"v[{i}]" for i in range(3, 9)], "tempo", *[f"e{i}" for i in range(128)], "x1", "x2")
    assert listed(names) == ["v[3..8]", "tempo", "e0..e127", "x1", "x2"]
    features = ("tempo", *(f"v[{i}]" for i in range(3)), *(f"w[{i}]" for i in range(2)), "z[1]")
    assert places_of(features) == {"v": slice(1, 4), "w": slice(4, 6)}
    assert source_columns(features) == ("tempo", "z[1]", "v", "w")


# Unit rows and spherical K-Means


def test_the_matrix_of_vectors_is_that_of_columns(tmp_path):
    """The same bits as from a table that has a column for each value, for every scaling."""
    X, labels = sphere(300, 12)
    path, wide = tmp_path / "v.parquet", tmp_path / "wide.parquet"
    pq.write_table(table_of(X, labels), path)
    pq.write_table(pa.table({"id": np.arange(300), **{f"embedding[{j}]": X[:, j] for j in range(12)}}), wide)
    tables = [clean(t, CleanConfig(), FRAMES) for t in (read_it(path, "embedding"), read_it(wide))]
    for method in ("standard", "minmax", "robust", "unit", "none"):
        for reduce in (ReduceConfig("none"), ReduceConfig("pca", 4)):
            of_vectors, of_columns = (
                prepare(t, ScaleConfig(method), reduce, dtype="float32", key="k", backend=CpuBackend()) for t in tables
            )
            np.testing.assert_allclose(of_vectors.X, of_columns.X, rtol=1e-5, atol=1e-6)
            if method == "unit" and reduce.method == "none":
                np.testing.assert_allclose(of_vectors.X, X / np.linalg.norm(X, axis=1, keepdims=True), atol=1e-6)


def test_rows_of_any_magnitude_have_length_one(tmp_path):
    X = np.random.default_rng(0).standard_normal((20, 4)) * np.logspace(-30, 30, 20)[:, None]
    pq.write_table(pa.table({"id": np.arange(20), "v": fixed(X.astype(np.float32))}), tmp_path / "v.parquet")
    table = clean(read_it(tmp_path / "v.parquet", "v"), CleanConfig(), FRAMES, unit=True)
    matrix = prepare(table, ScaleConfig("unit"), ReduceConfig("none"), dtype="float32", key="k", backend=CpuBackend())
    assert matrix.X.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(matrix.X, axis=1), 1, rtol=1e-6)


def test_cosine_asks_for_rows_of_length_one_where_they_are_not():
    def config(scale: str, reduce: str, metric: str) -> Config:
        return Config(scale=ScaleConfig(scale), reduce=ReduceConfig(reduce), cluster=KMeansConfig(metric=metric))

    assert not unit_rows(config("unit", "none", "cosine"))  # scale=unit has made them so
    assert unit_rows(config("unit", "pca", "cosine"))
    assert unit_rows(config("standard", "none", "cosine"))
    assert not unit_rows(config("standard", "none", "euclidean"))
    assert not unit_rows(dataclasses.replace(Config(), cluster=GmmConfig()))
    assert needs_length(config("none", "none", "cosine"))
    assert not needs_length(config("standard", "none", "cosine"))


def lloyd_on_sphere(X: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Spherical K-Means of Dhillon and Modha, to its end, in float64."""
    for _ in range(300):
        labels = (X @ centers.T).argmax(axis=1)
        sums = np.stack([X[labels == c].sum(axis=0) for c in range(len(centers))])
        moved = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        if np.allclose(moved, centers, rtol=0, atol=1e-12):
            break
        centers = moved
    return centers


@pytest.mark.parametrize("noise", [0.05, 0.25])  # clusters far apart, and overlapping ones
def test_spherical_kmeans_is_a_fixed_point_of_its_definition(noise):
    X = sphere(3000, 24, noise=noise)[0].astype(np.float64)
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    (fit,) = fit_kmeans(X, [KMeansRequest(K, seed=0, tol=0.0, spherical=True)])
    np.testing.assert_allclose(np.linalg.norm(fit.centers, axis=1), 1, rtol=1e-12)
    expected = lloyd_on_sphere(X.astype(np.float64), fit.centers)
    np.testing.assert_allclose(fit.centers, expected, atol=1e-6)
    cosine = (X.astype(np.float64) @ fit.centers.T).max(axis=1)
    assert fit.inertia == pytest.approx((2 - 2 * cosine).sum(), rel=1e-6)
    means = np.stack([X[fit.labels == c].mean(axis=0) for c in range(K)])
    assert np.linalg.norm(means, axis=1).max() < 0.999, "Euclidean centres would not have length 1"


def test_spherical_kmeans_of_blocks_is_that_of_memory_and_kinds_of_requests_mix():
    X = sphere(2000, 16, noise=0.2)[0]
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    requests = [
        KMeansRequest(4, seed=0, spherical=True),
        KMeansRequest(4, seed=0),
        KMeansRequest(6, seed=0, spherical=True),
    ]
    memory, blocks = fit_centers(X, requests), fit_centers(MemoryBlocks(X), requests)
    for a, b in zip(memory, blocks, strict=True):
        np.testing.assert_array_equal(a.centers, b.centers)
    (alone,) = fit_centers(X, requests[1:2])
    np.testing.assert_array_equal(memory[1].centers, alone.centers)
    assert not np.allclose(np.linalg.norm(memory[1].centers, axis=1), 1)


# Words


def test_words_set_clusters_apart():
    labels = np.repeat([0, 1, 2], 100)
    texts = pd.Series([f"the Love {WORDS[c]} 2011 (Remix)" for c in labels])
    found = top_terms(categories(words_of(texts)), labels, (0, 1, 2))
    for c in range(3):
        assert {term.value for term in found[c]} == set(WORDS[c].split()), "a word of all clusters is no word of one"
        assert found[c][0].count == 100
    nothing = categories(words_of(pd.Series(["", None, "a 12"])))
    assert top_terms(nothing, np.zeros(3, np.int32), (0,)) == {0: ()}


# From a file to predictions


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A sweep over vectors with cosine distances: the folder, the file, the true labels, and the sweep's result."""
    import gpuclust

    folder = tmp_path_factory.mktemp("vectors")
    X, labels = sphere()
    pq.write_table(table_of(X, labels), folder / "v.parquet")
    found = gpuclust.sweep(
        folder / "v.parquet",
        gpuclust.KMeans(n_clusters=[K - 1, K, K + 1], metric="cosine"),
        features=["embedding"],
        scale="unit",
        config={"data.roles": {"title": "title", "group": "genre"}},
        tracking=folder / "mlflow.db",
        progress=False,
    )
    found.best.export(folder / "out")
    return folder, labels, found


def test_the_right_number_of_clusters_is_found_and_described(fitted):
    folder, labels, found = fitted
    assert found.best.metrics["n_clusters"] == K
    assert adjusted_rand_score(labels, found.best.labels_) == 1.0
    clusters = pq.read_table(folder / "out" / "clusters.parquet").to_pylist()
    for cluster in clusters:
        true = labels[found.best.labels_ == cluster["cluster"]][0]
        assert cluster["name"] == f"Genre {true}"
        assert {term["value"] for term in cluster["top_terms"]} == set(WORDS[true].split())
        assert len(cluster["representatives"]) == 5
    assert not any(name.startswith("mean_") for name in clusters[0])


def test_an_export_holds_no_vectors_and_finds_neighbours(fitted):
    folder, labels, _found = fitted
    names = pq.read_schema(folder / "out" / "assignments.parquet").names
    assert "embedding" not in names
    assert {"tempo", "title", "cluster", "distance"} <= {*names}
    with Library.open(folder / "out") as library:
        assert library.features == ()
        assert library.vectors == {"embedding": SIZE}
        near = library.similar("0", 10)
        assert {labels[int(n.item.id)] for n in near} == {labels[0]}
    data = DataConfig(path=str(folder / "v.parquet"), features=["embedding"])
    table = clean(read(data, FRAMES), CleanConfig(), FRAMES)
    assert "embedding" not in SourceColumns(table, data, FRAMES).names
    kept = pa.concat_tables(SourceColumns(table, data, FRAMES, ["embedding"]))
    assert kept["embedding"].equals(pq.read_table(folder / "v.parquet")["embedding"])


def test_clusters_of_vectors_are_merged_and_described_from_the_points(fitted, tmp_path):
    import gpuclust
    from gpuclust import edits

    folder, _labels, found = fitted
    out = Path(shutil.copytree(folder / "out", tmp_path / "out"))
    before = {row["cluster"]: row for row in edits.open_edits(out).clusters}
    after = {row["cluster"]: row for row in edits.merge_clusters(out, [0, 2]).clusters}
    assert after[0]["size"] == before[0]["size"] + before[2]["size"]
    words = {c: {term["value"] for term in before[c]["top_terms"]} for c in (0, 2)}
    assert {term["value"] for term in after[0]["top_terms"]} == words[0] | words[2]
    assert after[0]["nearest"] in after
    inside = np.isin(found.best.labels_, [0, 2])
    assert all(inside[int(row["id"])] for row in after[0]["representatives"])
    merged = pq.read_table(out / "assignments.parquet")["cluster"].to_numpy()
    assert (merged[inside] == 0).all()
    assert (gpuclust.load_model(out).predict(pq.read_table(folder / "v.parquet"))["cluster"] == merged).all()
    edits.undo(out)
    assert edits.open_edits(out).clusters == tuple(before.values())
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | {"memberships": 2}))
    with pytest.raises(ExportError, match="does not hold the vectors"):
        edits.merge_clusters(out, [0, 2])
    earlier = Path(shutil.copytree(folder / "out", tmp_path / "earlier"))  # what a new export with memberships replaces
    edits.merge_clusters(earlier, [0, 2])
    assert "does not hold the vectors" in edits.carry_edits(out, earlier)[0]
    assert not edits.open_edits(out).edits


def test_an_export_with_a_map_of_neighbours_opens(tmp_path: Path) -> None:
    import gpuclust

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4, 16))[np.arange(200) % 4] + 0.3 * rng.normal(size=(200, 16))
    table = pa.table({"id": [f"r{i}" for i in range(200)], "v": pa.array(list(rows), pa.list_(pa.float64()))})
    run = gpuclust.fit(
        table,
        gpuclust.KMeans(n_clusters=4),
        features=["v"],
        config={"map": "tsne"},
        tracking=f"sqlite:///{tmp_path}/m.db",
        progress=False,
    )
    with gpuclust.open_export(run.export(tmp_path / "out")) as library:
        assert library.axis_shares == (0.0, 0.0, 0.0)
        assert (library.facts.map.trustworthiness or 0.0) > 0.9
        assert len(library.similar("r0", 3)) == 3


@pytest.mark.parametrize("view", ["overview", "clusters", "one cluster", "compare", "playlist", "search"])
def test_the_explorer_shows_clusters_of_vectors(view, fitted, main_module):
    from streamlit.testing.v1 import AppTest

    from gpuclust.serve.explorer.settings import Settings, configure

    def page() -> None:
        import importlib

        import streamlit as st

        name = st.query_params.get("page", "overview")
        getattr(importlib.import_module(f"gpuclust.serve.explorer.views.{name}"), name)()

    configure(Settings(fitted[0] / "out"))
    app = AppTest.from_function(page, default_timeout=120)
    app.query_params["page"] = "clusters" if view in ("one cluster", "compare") else view
    if view == "one cluster":
        app.query_params["cluster"] = "0"
    if view == "compare":
        app.query_params["view"] = "compare"
    shown = app.run()
    assert not shown.exception
    if view in ("overview", "compare"):
        assert any("words" in frame.value.columns for frame in shown.dataframe)


def test_the_api_places_rows_with_their_vector_in_a_list(fitted):
    folder, _, found = fitted
    rows = pq.read_table(folder / "v.parquet", columns=["embedding"]).slice(0, 3).to_pylist()
    with serving(folder / "out") as address, httpx.Client(base_url=address, timeout=60) as client:
        answer = client.post("/predict", json={"rows": [*rows, {"embedding": None}]})
        assert answer.status_code == 200, answer.text
        predictions = answer.json()["predictions"]
        assert [p["cluster"] for p in predictions[:3]] == found.best.labels_[:3].tolist()
        assert predictions[3]["problem"] == "embedding is missing, or one of its values is"
        assert client.post("/predict", json={"rows": [{"embedding": [1.0]}]}).status_code == 422


def test_the_model_predicts_a_new_file(fitted, tmp_path):
    folder, _labels, _found = fitted
    own = pq.read_table(folder / "out" / "assignments.parquet").to_pandas()
    scored = predict(folder / "out", folder / "v.parquet", tmp_path / "p.parquet")
    p = pq.read_table(tmp_path / "p.parquet").to_pandas()
    assert scored.n_unplaced == 0
    np.testing.assert_array_equal(p.cluster, own.cluster)
    np.testing.assert_array_equal(p.distance, own.distance)
    lines = scored.novelty.in_words()
    assert any("distance to the own centre" in line for line in lines)
    assert not any("0.1.0" in line for line in lines)
    X = bad_vectors(tmp_path / "other.parquet")
    with pytest.raises(ModelError, match=r"has vectors of 8 numbers, and the model takes vectors of 96"):
        predict(folder / "out", tmp_path / "other.parquet", tmp_path / "q.parquet")
    assert X.shape == (60, 8)


def test_rows_from_python_have_their_vector_in_one_cell(fitted):
    folder, _labels, found = fitted
    bundle = Bundle.load(folder / "out" / "model")
    frame = pq.read_table(folder / "v.parquet").to_pandas().head(6)
    frame["embedding"] = [row.tolist() for row in frame["embedding"]]
    frame.at[1, "embedding"] = None
    frame.at[2, "embedding"] = [1.0, 2.0]
    frame.at[3, "embedding"] = [0.0] * SIZE
    frame.at[4, "embedding"] = str(frame.at[4, "embedding"])
    raw, _ = to_matrix(frame, bundle.features)
    placed = bundle.predict(raw)
    assert (placed.cluster == UNPLACED).tolist() == [False, True, True, True, False, False]
    assert placed.cluster[0] == found.best.labels_[0]
    assert placed.cluster[4] == found.best.labels_[4]
    assert bundle.obstacle(raw[1]) == "embedding is missing, or one of its values is"
    assert "no direction" in str(bundle.obstacle(raw[3]))
    with pytest.raises(ModelError, match=r"the rows lack embedding; the model needs the columns embedding$"):
        to_matrix(frame[["title"]], bundle.features)
    with pytest.raises(ModelError, match="the vectors of 'embedding' have 3 values, and the model takes 96"):
        to_matrix({"embedding": [[1.0, 2.0, 3.0]]}, bundle.features)


def test_tags_parameters_and_pages_have_ranges(fitted):
    folder, _, found = fitted
    page = (folder / "out" / "report.html").read_text() if (folder / "out" / "report.html").exists() else ""
    assert "embedding[17]" not in page
    assert listed(found.best.features) == [f"embedding[0..{SIZE - 1}]"]


# The study


def test_tracks_of_one_genre_and_artist_have_near_vectors(tmp_path):
    path = tmp_path / "tracks.csv"
    genres = ["jazz", "funk", "punk"]
    rows = [(f"t{i}", f"song {i}", f"artist {i % 3} {i % 5};guest {i % 3}", genres[i % 3]) for i in range(60)]
    pd.DataFrame(rows, columns=["track_id", "track_name", "artists", "track_genre"]).to_csv(path, index=False)
    tracks = vectors_tracks.tracks_of(str(path), 60)
    assert tracks["artists"][0] == ["artist 0 0", "guest 0"]
    X = vectors_tracks.vectors_of(tracks, 8)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    of = np.arange(60) % 3
    cosines = X @ X.T
    assert cosines[of[:, None] == of].min() > cosines[of[:, None] != of].max()
    generated = vectors_tracks.tracks_of(None, 200)
    assert vectors_tracks.vectors_of(generated, 16).shape == (200, 16)
