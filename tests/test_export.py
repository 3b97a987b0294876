"""From a recorded run to a folder, and from a folder to scored rows: the whole way through a real MLflow store."""

import csv
import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import calinski_harabasz_score, silhouette_score

from gpuclust import assignments
from gpuclust.analysis.comparison import compare_all
from gpuclust.analysis.table_stats import feature_blocks
from gpuclust.assignments import SourceColumns, assign, with_assignments, write_tables
from gpuclust.choice import find
from gpuclust.compare import matches_csv, table_csv
from gpuclust.compose import plan
from gpuclust.data.disk_frame import NO_VALUE_YET
from gpuclust.data.stream import read_streamed
from gpuclust.errors import ConfigurationError, DataError, ExportError, ModelError
from gpuclust.export import Exported, export, find_run
from gpuclust.folders import whole_folder
from gpuclust.model.bundle import Bundle
from gpuclust.model.manifest import read_manifest, verify_all
from gpuclust.pipeline import job as jobs
from gpuclust.pipeline import sweep
from gpuclust.pipeline.context import RowStorage
from gpuclust.pipeline.run_files import leaderboard_csv
from gpuclust.pipeline.run_log import bundle_of, training_of
from gpuclust.predict import predict
from gpuclust.runtime.blocks import BLOCK_ROWS
from gpuclust.runtime.scratch import Scratch
from gpuclust.tracking.mlflow import MlflowRecorder

HOSTILE = [
    '=HYPERLINK("http://x")',
    "+1",
    "-2",
    "@SUM(A1)",
    "\tTab",
    "plain",
    "Ünïcode 🎵",
    "<script>alert(1)</script>",
]


def verify(folder: Path) -> Mapping[str, Any]:
    """The manifest of an export whose files have the digests that it names."""
    manifest = read_manifest(folder)
    verify_all(manifest)
    return manifest.text


@pytest.fixture
def recorder(uri: str) -> MlflowRecorder:
    return MlflowRecorder(uri, "e")


@pytest.fixture
def tracked(context: Any, recorder: MlflowRecorder) -> Any:
    return dataclasses.replace(context, recorder=recorder)


@pytest.fixture
def tracks(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    n = 400
    frame = pd.DataFrame(rng.normal(size=(n, 4)) + 4 * rng.integers(0, 3, n)[:, None], columns=["a", "b", "c", "x"])
    frame.insert(0, "id", [f"t{i}" for i in range(n)])
    frame["name"] = [HOSTILE[i % len(HOSTILE)] for i in range(n)]
    frame["genre"] = rng.choice(["rock", "jazz", None], n)
    frame.to_csv(tmp_path / "tracks.csv", index=False)
    return tmp_path / "tracks.csv"


def run(context: Any, path: Path, *overrides: str, multirun: bool = False) -> sweep.SweepResult:
    p = plan(
        ["data=table", f"data.path={path}", "data.features=[a,b,c,x]", "data.roles.title=name", "data.roles.group=genre",
         "report=none", *overrides], multirun=multirun,
    )  # fmt: skip
    return sweep.run(p, sweep.jobs_of(p, context.backend), context)


def exported(context: Any, recorder: MlflowRecorder, out: Path, which: str = "best", **options: Any) -> Exported:
    return export(find_run(recorder, which), out, recorder=recorder, context=context, **options)


def test_the_folder_holds_what_the_contract_says(
    tracked: Any, recorder: MlflowRecorder, tracks: Path, tmp_path: Path
) -> None:
    result = run(tracked, tracks, "cluster.n_clusters=2,3,4", multirun=True)
    done = exported(tracked, recorder, tmp_path / "out")
    assert result.chosen is not None
    assert done.run.run_id == result.chosen.run_id
    table = pq.read_table(tmp_path / "out" / "assignments.parquet")
    types = {f.name: str(f.type) for f in table.schema}
    assert types["cluster"] == "int32"
    assert {types[c] for c in ("confidence", "distance", "x", "y", "z")} == {"float"}
    # The table's own column x is kept beside the map's.
    assert {"id", "name", "genre", "a", "b", "c", "x_source"} <= types.keys()
    frame = table.to_pandas()
    assert frame["confidence"].between(0, 1).all()
    clusters = pd.read_parquet(tmp_path / "out" / "clusters.parquet")
    assert clusters["size"].tolist() == frame["cluster"].value_counts().sort_index().tolist()
    for feature in ("a", "b", "c"):
        expected = frame.groupby("cluster")[feature].mean()
        np.testing.assert_allclose(clusters[f"mean_{feature}"], expected, rtol=1e-12)
    manifest = verify(tmp_path / "out")
    assert manifest["run_id"] == done.run.run_id
    assert manifest["rows"]["kept"] == 400
    assert manifest["sweep"]["curves"]["silhouette"].keys() == {"2", "3", "4"}
    assert set(manifest["sha256"]) == {
        "assignments.parquet",
        "clusters.parquet",
        "model/arrays.npz",
        "model/model.json",
    }


def test_the_manifest_says_what_the_sweep_chose_and_why(
    tracked: Any, recorder: MlflowRecorder, tracks: Path, tmp_path: Path
) -> None:
    result = run(tracked, tracks, "cluster.n_clusters=2,3,4", multirun=True)
    assert result.chosen is not None
    assert result.conclusion is not None
    other = next(o for o in result.outcomes if o.run_id != result.chosen.run_id)
    for which, selected in ((result.chosen.run_id, True), (other.run_id, False)):
        exported(tracked, recorder, tmp_path / which, which)
        manifest = verify(tmp_path / which)
        assert manifest["selected"] is selected
        assert manifest["sweep"]["chosen"] == {"run_id": result.chosen.run_id, "name": result.chosen.job.name}
        assert manifest["sweep"]["verdict_kind"] == result.conclusion.verdict.kind
        assert manifest["sweep"]["because"] == list(result.conclusion.verdict.because)
        assert manifest["sweep"]["because"]
        assert manifest["warnings"] == []


def test_much_noise_is_a_warning_in_the_manifest(tracked: Any, recorder: MlflowRecorder, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dense = [rng.normal(c, 0.02, size=(60, 3)) for c in (0, 1)]
    frame = pd.DataFrame(np.concatenate([*dense, rng.uniform(-3, 4, size=(480, 3))]), columns=["a", "b", "c"])
    frame.to_csv(tmp_path / "noisy.csv", index=False)
    p = plan(["data=table", f"data.path={tmp_path / 'noisy.csv'}", "cluster=hdbscan", "cluster.min_cluster_size=30",
              "report=none"])  # fmt: skip
    result = sweep.run(p, sweep.jobs_of(p, tracked.backend), tracked)
    exported(tracked, recorder, tmp_path / "out", result.outcomes[0].run_id)
    manifest = verify(tmp_path / "out")
    n_noise = int((pd.read_parquet(tmp_path / "out" / "assignments.parquet")["cluster"] == -1).sum())
    assert n_noise > 180
    assert manifest["rows"]["in_clusters"] == 600 - n_noise
    assert manifest["noise_fraction"] == n_noise / 600
    (warning,) = manifest["warnings"]
    assert f"{600 - n_noise} of 600 rows are in a cluster" in warning
    assert manifest["selected"] is False
    assert manifest["sweep"] is None


def test_every_number_can_be_recomputed_from_the_export(
    tracked: Any, recorder: MlflowRecorder, tracks: Path, tmp_path: Path
) -> None:
    run(tracked, tracks, "cluster.n_clusters=3", "dtype=float64")
    done = exported(tracked, recorder, tmp_path / "out")
    frame = pd.read_parquet(tmp_path / "out" / "assignments.parquet")
    raw = frame[["a", "b", "c", "x_source"]].to_numpy()
    X = (raw - raw.mean(axis=0)) / raw.std(axis=0)
    labels = frame["cluster"].to_numpy()
    assert done.run.metrics["silhouette"] == pytest.approx(silhouette_score(X, labels), abs=1e-9)
    assert done.run.metrics["calinski_harabasz"] == pytest.approx(calinski_harabasz_score(X, labels), rel=1e-9)
    centers = np.array([X[labels == c].mean(axis=0) for c in range(3)])
    assert done.run.metrics["inertia"] == pytest.approx(((X - centers[labels]) ** 2).sum(), rel=1e-6)


@pytest.mark.parametrize("models", ["chosen", "none"])
@pytest.mark.parametrize("algorithm", ["kmeans", "gmm", "hdbscan"])
def test_a_run_without_a_kept_model_is_computed_again(
    tracked: Any, recorder: MlflowRecorder, tracks: Path, tmp_path: Path, algorithm: str, models: str
) -> None:
    size = "cluster.min_cluster_size=20" if algorithm == "hdbscan" else "cluster.n_clusters=3"
    result = run(tracked, tracks, f"cluster={algorithm}", size, f"tracking.models={models}")
    exported(tracked, recorder, tmp_path / "out", result.outcomes[0].run_id)
    frame = pd.read_parquet(tmp_path / "out" / "assignments.parquet")
    clustering = result.outcomes[0].clustering
    assert clustering is not None
    np.testing.assert_array_equal(frame["cluster"], clustering.labels)
    np.testing.assert_array_equal(frame["confidence"], clustering.confidence)


def test_a_run_of_a_version_that_took_other_columns_by_default_is_exported(
    tracked: Any, recorder: MlflowRecorder, tracks: Path, tmp_path: Path
) -> None:
    """Version 0.1.0 took a 0/1 column as a feature unless features were named; its runs name none."""
    pd.read_csv(tracks).assign(flag=lambda f: (f["a"] > 2).astype(int)).to_csv(tracks, index=False)
    done = run(tracked, tracks, "data.features=[a,b,c,x,flag]", "cluster.n_clusters=3")
    (recorded,) = [path for path in tmp_path.rglob("config.yaml") if done.outcomes[0].run_id in str(path)]
    text = recorded.read_text()
    named = "  features:\n  - a\n  - b\n  - c\n  - x\n  - flag\n"
    assert named in text
    recorded.write_text(text.replace(named, "  features: []\n"))
    folder = exported(tracked, recorder, tmp_path / "out", done.outcomes[0].run_id).folder
    assert json.loads((folder / "manifest.json").read_text())["features"] == ["a", "b", "c", "x", "flag"]


def test_which_run_is_best(tracked: Any, recorder: MlflowRecorder, tracks: Path) -> None:
    result = run(tracked, tracks, "cluster.n_clusters=2,3,4", multirun=True)
    run(tracked, tracks, "cluster.n_clusters=7")
    assert result.chosen is not None
    assert find_run(recorder, "best").run_id == result.chosen.run_id
    assert find_run(recorder, str(result.parent)).run_id == result.chosen.run_id


def test_runs_that_cannot_be_exported(tracked: Any, recorder: MlflowRecorder, tracks: Path) -> None:
    with pytest.raises(ExportError, match="has no finished job"):
        find_run(recorder, "best")
    result = run(tracked, tracks, "cluster.n_clusters=500")
    with pytest.raises(ExportError, match="is FAILED"):
        find_run(recorder, result.outcomes[0].run_id)
    with pytest.raises(ExportError, match="there is no run 123"):
        find_run(recorder, "123")
    run(tracked, tracks, "cluster.n_clusters=2")
    with pytest.raises(ExportError, match="has the metric bic"):
        find(recorder, "best", "bic")


def test_a_file_that_changed_is_not_exported_and_one_that_moved_is(
    tracked: Any, recorder: MlflowRecorder, tracks: Path, tmp_path: Path
) -> None:
    run(tracked, tracks, "cluster.n_clusters=3")
    moved = tracks.rename(tmp_path / "moved.csv")
    with pytest.raises(DataError, match="does not exist"):
        exported(tracked, recorder, tmp_path / "out")
    exported(tracked, recorder, tmp_path / "out", data_path=str(moved))
    moved.write_text(moved.read_text() + "new,1,2,3,4,a,rock\n")
    with pytest.raises(ExportError, match="has changed since run"):
        exported(tracked, recorder, tmp_path / "out2", data_path=str(moved))
    assert not (tmp_path / "out2").exists()


def test_the_memory_and_the_workers_of_the_run_do_not_matter(
    tracked: Any, recorder: MlflowRecorder, tracks: Path, tmp_path: Path
) -> None:
    """They may be those of another machine."""
    scratch = tmp_path / "scratch"
    run(tracked, tracks, "cluster.n_clusters=3", f"memory.folder={scratch}", "memory.limit=100GB")
    scratch.rmdir()
    scratch.touch()
    found = exported(dataclasses.replace(tracked, storage=RowStorage()), recorder, tmp_path / "out")
    assert verify(found.folder)["config"]["memory"]["folder"] is None


def test_a_folder_is_whole_or_not_there(
    tracked: Any, recorder: MlflowRecorder, tracks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tracked, tracks, "cluster.n_clusters=3")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Bundle, "save", full)
        with pytest.raises(ExportError, match=r"No space left on device\); free some space"):
            exported(tracked, recorder, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir() if "out" in p.name] == []
    exported(tracked, recorder, tmp_path / "out")
    with pytest.raises(ExportError, match="exists; name another"):
        exported(tracked, recorder, tmp_path / "out")
    exported(tracked, recorder, tmp_path / "out", force=True)
    assert [p.name for p in tmp_path.iterdir() if "out" in p.name] == ["out"]


def test_a_changed_export_is_noticed(tracked: Any, recorder: MlflowRecorder, tracks: Path, tmp_path: Path) -> None:
    run(tracked, tracks, "cluster.n_clusters=3")
    exported(tracked, recorder, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (tmp_path / "out" / "clusters.parquet").write_bytes(b"other")
    assert "clusters.parquet" in manifest["sha256"]
    with pytest.raises(ExportError, match=r"was changed since its export \(clusters.parquet\)"):
        verify(tmp_path / "out")
    with pytest.raises(ExportError, match="is not an export folder"):
        verify(tmp_path)


def test_names_of_columns_are_made_safe_in_csv(tmp_path: Path) -> None:
    names = ["=tempo", "+a", "-b", "@c", "\td", "\re", "plain"]
    write_tables([pa.table({name: ["x", "=1"] for name in names})], csv=tmp_path / "t.csv")
    written = pd.read_csv(tmp_path / "t.csv")
    assert written.columns.tolist() == [*("'" + name for name in names[:-1]), "plain"]
    assert set(written.to_numpy().ravel()) == {"x", "'=1"}


def test_every_csv_that_is_written_is_safe() -> None:
    rows = [{"rank": 1, "job": "=cmd()", "score": -0.5, "+key": None}]
    assert leaderboard_csv(rows) == "rank,job,score,'+key\n1,'=cmd(),-0.5,\n"
    pair = compare_all({"=first": np.array([0, 0, 1]), "@second": np.array([0, 1, 1])})
    for text in (table_csv(pair), matches_csv(pair[0]), pair[0].to_csv()):
        cells = [cell for line in csv.reader(io.StringIO(text)) for cell in line]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "@"))], text
    assert "'=first" in pair[0].to_csv()


def test_csv_cells_that_a_spreadsheet_would_run_are_made_safe(
    tracked: Any, recorder: MlflowRecorder, tracks: Path, tmp_path: Path
) -> None:
    run(tracked, tracks, "cluster.n_clusters=3")
    exported(tracked, recorder, tmp_path / "out", form="csv")
    written = pd.read_csv(tmp_path / "out" / "assignments.csv", keep_default_na=False)
    assert written["name"].iloc[:8].tolist() == ["'" + t if t[0] in "=+-@\t" else t for t in HOSTILE]
    kept = pd.read_parquet(tmp_path / "out" / "assignments.parquet")
    assert kept["name"].iloc[:8].tolist() == HOSTILE


def test_predict_gives_the_training_rows_their_clusters(
    tracked: Any, recorder: MlflowRecorder, tracks: Path, tmp_path: Path
) -> None:
    run(tracked, tracks, "cluster.n_clusters=3")
    exported(tracked, recorder, tmp_path / "out")
    expected = pd.read_parquet(tmp_path / "out" / "assignments.parquet")
    for form in ("parquet", "csv"):
        scored = predict(tmp_path / "out", tracks, tmp_path / f"scored.{form}")
        assert (scored.n_rows, scored.n_unplaced) == (400, 0)
        found = pd.read_parquet(scored.path) if form == "parquet" else pd.read_csv(scored.path)
        np.testing.assert_array_equal(found["cluster"], expected["cluster"])
        assert found["id"].tolist() == expected["id"].tolist()


def test_predict_says_what_it_cannot_do(tracked: Any, recorder: MlflowRecorder, tracks: Path, tmp_path: Path) -> None:
    run(tracked, tracks, "cluster.n_clusters=3")
    exported(tracked, recorder, tmp_path / "out")
    frame = pd.read_csv(tracks)
    frame.loc[:9, "a"] = np.nan
    frame.to_parquet(tmp_path / "holes.parquet")
    scored = predict(tmp_path / "out", tmp_path / "holes.parquet", tmp_path / "s.parquet")
    assert scored.n_unplaced == 10
    assert pd.read_parquet(scored.path)["cluster"].isna().sum() == 10
    frame.drop(columns="b").to_parquet(tmp_path / "narrow.parquet")
    with pytest.raises((DataError, ModelError, ExportError, Exception), match="b"):
        predict(tmp_path / "out", tmp_path / "narrow.parquet", tmp_path / "n.parquet")
    with pytest.raises(ExportError, match=r"must end in \.parquet or \.csv"):
        predict(tmp_path / "out", tracks, tmp_path / "s.txt")
    with pytest.raises(ExportError, match="exists"):
        predict(tmp_path / "out", tracks, tmp_path / "s.parquet")
    with pytest.raises(ModelError, match="holds no model"):
        predict(tmp_path, tracks, tmp_path / "t.parquet")


def test_a_read_only_place_is_said(locked: Path) -> None:
    with pytest.raises(ExportError, match="cannot be written"), whole_folder(locked / "out", force=False):
        pytest.fail("it was written")


def test_every_other_column_of_the_source_is_kept(tracked: Any, recorder: MlflowRecorder, tmp_path: Path) -> None:
    """A key of the user's, columns with the names of ours, and types that only Parquet has: all are in the export, row by row."""
    rng = np.random.default_rng(0)
    n = 300
    frame = pd.DataFrame(rng.normal(size=(n, 2)) + 5 * rng.integers(0, 2, n)[:, None], columns=["a", "b"])
    frame.loc[::10, "a"] = np.nan
    frame["doc_id"] = [f"{i:04d}" for i in rng.permutation(n)]
    frame["cluster"] = rng.integers(0, 9, n)
    frame["cluster_source"] = "mine"
    frame["confidence"] = rng.choice(["low", "high"], n)
    frame["when"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(n), "D")
    frame["tags"] = [[f"t{i % 3}", "all"] for i in range(n)]
    frame["where"] = [{"x": float(i)} for i in range(n)]
    frame.to_parquet(tmp_path / "t.parquet")
    p = plan(["data=table", f"data.path={tmp_path / 't.parquet'}", "data.features=[a,b]", "data.n_rows=200",
              "cluster.n_clusters=2", "report=none"])  # fmt: skip
    sweep.run(p, sweep.jobs_of(p, tracked.backend), tracked)
    exported(tracked, recorder, tmp_path / "out", form="csv")
    found = pd.read_parquet(tmp_path / "out" / "assignments.parquet")
    manifest = verify(tmp_path / "out")
    assert manifest["renamed"] == {"cluster": "cluster_source_2", "confidence": "confidence_source"}
    assert found["cluster"].isin([0, 1]).all()
    assert len(found) < 200
    source = frame.set_index("doc_id").loc[found["doc_id"]].reset_index()
    pd.testing.assert_series_equal(found["a"], source["a"])
    for ours, theirs in {"cluster": "cluster_source_2", "cluster_source": "cluster_source",
                         "confidence": "confidence_source", "when": "when"}.items():  # fmt: skip
        assert found[theirs].astype(str).tolist() == source[ours].astype(str).tolist(), ours
    assert [list(t) for t in found["tags"]] == source["tags"].tolist()
    assert [w["x"] for w in found["where"]] == [w["x"] for w in source["where"]]
    written = pd.read_csv(tmp_path / "out" / "assignments.csv", dtype={"doc_id": str})
    assert written["doc_id"].tolist() == found["doc_id"].tolist()
    exported(tracked, recorder, tmp_path / "none", keep=[])
    ours = {"cluster", "confidence", "distance", "x", "y", "z"}
    assert set(pq.read_schema(tmp_path / "none" / "assignments.parquet").names) == {"doc_id", "a", "b", *ours}
    exported(tracked, recorder, tmp_path / "some", keep=["tags", "doc_id"])
    assert set(pq.read_schema(tmp_path / "some" / "assignments.parquet").names) == {"doc_id", "a", "b", "tags", *ours}
    with pytest.raises(ConfigurationError, match=r"--keep tag: .* has no such column; did you mean tags"):
        exported(tracked, recorder, tmp_path / "wrong", keep=["tag"])
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(("algorithm", "form"), [("kmeans", "csv"), ("kmeans", "parquet"), ("hdbscan", "parquet")])
def test_a_table_on_disk_is_exported_as_in_memory(
    context: Any, algorithm: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    n = BLOCK_ROWS + 2000 if algorithm == "kmeans" else 3000
    frame = pd.DataFrame(rng.normal(size=(n, 3)) + 4 * rng.integers(0, 3, n)[:, None], columns=["a", "b", "x"])
    frame.insert(0, "id", [f"t{i}" for i in range(n)])
    frame["name"] = [HOSTILE[i % len(HOSTILE)] for i in range(n)]
    frame["code"] = [f"{i:03d}" for i in rng.integers(0, 300, n)]
    frame["whole"] = pd.array(rng.integers(0, 9, n), dtype="Int64")
    frame.loc[::7, "whole"] = None
    frame.loc[::50, "b"] = None
    frame["genre"] = pd.array([None] * n, dtype="boolean")
    path = tmp_path / f"table.{form}"
    frame.to_csv(path, index=False) if form == "csv" else frame.to_parquet(path)
    overrides = [f"data.path={path}", "data=table", "data.features=[a,b,x]", "data.roles.title=name", "report=none"]
    overrides += ["data.roles.group=genre"] if form == "parquet" else []
    (job,) = sweep.jobs_of(plan([*overrides, f"cluster={algorithm}"], multirun=False), context.backend)
    (result,) = jobs.compute([job], context)
    bundle = bundle_of(job.config, result.table, result.matrix, result.clustering, result.profile)
    monkeypatch.setattr(assignments, "BATCH_ROWS", BLOCK_ROWS)
    frames, data = context.backend.frames, job.config.data
    with Scratch(tmp_path / "scratch") as scratch:
        on_disk = read_streamed(data, job.config.clean, frames, scratch)
        for where, table in (("memory", result.table), ("disk", on_disk)):
            raw = feature_blocks(table, frames)
            assigned = bundle.training(table.n_rows, lambda raw=raw: assign(bundle, raw))
            np.testing.assert_array_equal(assigned.cluster, result.clustering.labels)
            tables = with_assignments(SourceColumns(table, data, frames), bundle, raw, assigned, rescue=True)
            write_tables(tables, parquet=tmp_path / f"{where}.parquet", csv=tmp_path / f"{where}.csv")
            training = training_of(table, result.clustering.distance, result.clustering.confidence)
            assert training == bundle.details["training"]
    memory, disk = (pq.ParquetFile(tmp_path / f"{where}.parquet") for where in ("memory", "disk"))
    assert disk.num_row_groups == 1 + (algorithm == "kmeans" and result.table.n_rows > BLOCK_ROWS)
    assert memory.read().equals(disk.read())
    assert form == "csv" or memory.schema_arrow.field("genre").type == NO_VALUE_YET
    assert (tmp_path / "memory.csv").read_bytes() == (tmp_path / "disk.csv").read_bytes()
    names = {"id", "name", "a", "b", "x_source", "code", "whole", "cluster", "confidence", "x", "y", "z"}
    assert names <= set(disk.schema_arrow.names)
