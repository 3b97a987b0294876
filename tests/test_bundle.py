"""The portable model: the same predictions after a round trip, on the training rows and on rows that cannot be placed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpuclust.compose import compose
from gpuclust.errors import ModelError
from gpuclust.model.bundle import ARRAYS, MODEL, UNPLACED, Bundle
from gpuclust.pipeline import job as jobs
from gpuclust.pipeline.context import Result, make_job
from gpuclust.pipeline.run_log import bundle_of

CASES = {
    "kmeans": ["cluster=kmeans", "cluster.n_clusters=5"],
    "kmeans pca": ["cluster=kmeans", "cluster.n_clusters=4", "scale=minmax", "reduce=pca", "reduce.n_components=4", "reduce.rescale=true"],
    "kmeans float64": ["cluster=kmeans", "cluster.n_clusters=6", "dtype=float64", "scale=robust"],
    "gmm full": ["cluster=gmm", "cluster.n_clusters=4"],
    "gmm tied": ["cluster=gmm", "cluster.n_clusters=3", "cluster.covariance_type=tied"],
    "gmm diag": ["cluster=gmm", "cluster.n_clusters=3", "cluster.covariance_type=diag", "cluster.engine=library"],
    "gmm spherical": ["cluster=gmm", "cluster.n_clusters=3", "cluster.covariance_type=spherical", "reduce=pca"],
    "hdbscan": ["cluster=hdbscan", "cluster.min_cluster_size=40", "cluster.min_samples=5", "reduce=pca", "reduce.n_components=3"],
}  # fmt: skip


def built(context: Any, overrides: list[str]) -> tuple[Bundle, Result, np.ndarray]:
    job = make_job(compose(["data.n_rows=3000", *overrides]), "job", {}, "cpu")
    (result,) = jobs.compute([job], context)
    assert isinstance(result, Result), result
    bundle = bundle_of(job.config, result.table, result.matrix, result.clustering, result.profile)
    return bundle, result, context.backend.frames.to_matrix(result.table.frame, result.table.features)


@pytest.mark.parametrize("case", CASES)
def test_a_bundle_read_back_assigns_the_training_rows_as_the_job_did(case: str, context: Any, tmp_path: Path) -> None:
    bundle, result, raw = built(context, CASES[case])
    again = Bundle.load(bundle.save(tmp_path / "bundle"))
    training = again.training(len(raw), lambda: again.assign(raw))
    np.testing.assert_array_equal(training.cluster, result.clustering.labels)
    np.testing.assert_array_equal(training.confidence, result.clustering.confidence)
    np.testing.assert_array_equal(again.coordinates(raw), result.matrix.coordinates)
    if result.clustering.distance is not None:
        np.testing.assert_array_equal(training.distance, result.clustering.distance)
    predicted = again.predict(raw)
    if case == "hdbscan":
        clustered = training.cluster >= 0
        # What approximate_predict promises: rows of a cluster stay in it, bar those at its edge.
        assert (predicted.cluster[clustered] == training.cluster[clustered]).mean() > 0.95
    else:
        np.testing.assert_array_equal(predicted.cluster, training.cluster)


def test_the_order_and_the_number_of_rows_do_not_matter(context: Any) -> None:
    bundle, result, raw = built(context, CASES["kmeans pca"])
    order = np.random.default_rng(0).permutation(len(raw))
    np.testing.assert_array_equal(bundle.predict(raw[order]).cluster, result.clustering.labels[order])
    one_by_one = [int(bundle.predict(raw[i : i + 1]).cluster[0]) for i in range(50)]
    np.testing.assert_array_equal(one_by_one, result.clustering.labels[:50])


def test_rows_that_cannot_be_placed_are_told_from_noise(context: Any) -> None:
    bundle, _, raw = built(context, ["cluster.n_clusters=3", "clean.bounds.tempo=[60,200]"])
    rows = raw[:4].copy()
    tempo = bundle.features.index("tempo")
    rows[0, 0], rows[1, tempo], rows[2, 1] = np.nan, 0.0, np.inf
    found = bundle.predict(rows)
    np.testing.assert_array_equal(found.placed, [False, False, False, True])
    assert (found.cluster[:3] == UNPLACED).all()
    assert np.isnan(found.confidence[:3]).all()


def test_imputation_is_repeated_on_new_rows(context: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 3)), columns=list("abc"))
    frame.loc[:20, "a"] = np.nan
    frame.to_csv(tmp_path / "t.csv", index=False)
    bundle, _, _ = built(context, ["data=table", f"data.path={tmp_path / 't.csv'}", "data.n_rows=null", "clean.nulls=median",
                                "cluster.n_clusters=3"])  # fmt: skip
    median = frame["a"].median()
    rows = np.array([[np.nan, 0.5, 0.5], [median, 0.5, 0.5]])
    found = bundle.predict(rows)
    assert found.placed.all()
    assert found.cluster[0] == found.cluster[1]
    assert found.distance[0] == found.distance[1]


def test_no_rows_at_all(context: Any) -> None:
    bundle, _, _ = built(context, CASES["kmeans"])
    assert len(bundle.predict(np.empty((0, 10))).cluster) == 0


def test_a_row_of_the_wrong_width_is_refused(context: Any) -> None:
    bundle, _, _ = built(context, CASES["kmeans"])
    with pytest.raises(ModelError, match="rows have 2 values, the model takes 10: acousticness"):
        bundle.predict(np.zeros((1, 2)))


def damage(folder: Path, how: str) -> None:
    if how == "no json":
        (folder / MODEL).unlink()
    elif how == "not json":
        (folder / MODEL).write_text("{")
    elif how == "cut arrays":
        (folder / ARRAYS).write_bytes((folder / ARRAYS).read_bytes()[:200])
    elif how == "pickle":
        np.savez(folder / ARRAYS, **{"scaling/offset": np.array([object()])})
    elif how == "newer":
        model = json.loads((folder / MODEL).read_text()) | {"format": 99}
        (folder / MODEL).write_text(json.dumps(model))
    elif how == "other algorithm":
        model = json.loads((folder / MODEL).read_text()) | {"algorithm": "os.system"}
        (folder / MODEL).write_text(json.dumps(model))


@pytest.mark.parametrize("how", ["no json", "not json", "cut arrays", "pickle", "newer", "other algorithm"])
def test_a_damaged_bundle_is_refused_in_one_line(how: str, context: Any, tmp_path: Path) -> None:
    folder = built(context, CASES["kmeans"])[0].save(tmp_path / "bundle")
    damage(folder, how)
    with pytest.raises(ModelError) as error:
        Bundle.load(folder)
    assert "\n" not in str(error.value)


def test_the_files_are_plain_data(context: Any, tmp_path: Path) -> None:
    folder = built(context, CASES["gmm full"])[0].save(tmp_path / "bundle")
    assert {p.name for p in folder.iterdir()} == {MODEL, ARRAYS}
    with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
        shapes = {name: list(arrays[name].shape) for name in arrays.files}
    assert json.loads((folder / MODEL).read_text())["arrays"] == shapes
