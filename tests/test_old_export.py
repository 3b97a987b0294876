"""An export that version 0.1.0 wrote still opens: its clusters are the records of today, its model predicts its labels."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from gpuclust import edits
from gpuclust.model.bundle import Bundle
from gpuclust.model.manifest import read_manifest, verify_all
from gpuclust.serve.library import Library

OLD = Path(__file__).parent / "data" / "export_0_1_0"


def test_an_export_of_version_0_1_0_opens(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(OLD, tmp_path / "out"))
    library = Library.open(folder)
    assert not any(item.track for item in library.at(np.arange(len(library)))), (
        "no track of the generated catalogue exists"
    )
    written = pq.read_table(folder / "clusters.parquet").to_pylist()
    for cluster, row in zip(library.clusters, written, strict=True):
        values = json.loads(json.dumps(cluster.to_dict(), allow_nan=False))
        assert (values["cluster"], values["name"], values["size"]) == (row["cluster"], row["name"], row["size"])
        assert (values["rule"], values["rule_recall"]) == (row["rule"] or "", row["rule_recall"])
        assert {f: s["z"] for f, s in values["features"].items()} == {f: row[f"z_{f}"] for f in values["features"]}


def test_its_model_gives_its_labels() -> None:
    bundle = Bundle.load(OLD / "model")
    rows = pq.read_table(OLD / "assignments.parquet")
    raw = np.column_stack([rows[name].to_numpy() for name in bundle.features])
    np.testing.assert_array_equal(bundle.predict(raw).cluster, rows["cluster"].to_numpy())


def test_it_can_be_named_and_merged(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(OLD, tmp_path / "out"))
    before = pq.read_table(folder / "clusters.parquet").to_pydict()
    edits.name_clusters(folder, {0: "Zero"})
    edits.merge_clusters(folder, [0, 1])
    verify_all(read_manifest(folder))
    with Library.open(folder) as library:
        merged = library.cluster(0)
    assert (merged.name, merged.size) == ("Zero", sum(before["size"][:2]))
    edits.undo(folder)
    edits.undo(folder)
    after = pq.read_table(folder / "clusters.parquet").to_pydict()
    assert {name: after[name] for name in before} == before
