"""The lineage of clusters: against counts by pandas, over exports whose clusters are known to split and join."""

import json
import shutil
from pathlib import Path
from typing import Any

import matplotlib.image
import pandas as pd
import pytest

from gpuclust import edits
from gpuclust.cli import main
from tests.exporting import made_export, sealed, tracks


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> tuple[Path, Path]:
    """An export of 4 clusters, and the same with clusters 0 and 3 merged and named."""
    folder = tmp_path_factory.mktemp("lineage")
    first = made_export(tracks(), folder, store_template, "cluster.n_clusters=4")
    second = Path(shutil.copytree(first, folder / "second"))
    edits.merge_clusters(second, [0, 3], name="Both")
    return first, second


def test_clusters_that_join_and_split_are_named(exports: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    first, second = exports
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert main(["lineage", str(first), str(second), "--out", "out"]) == 2  # the same run twice
        assert "the same run is named twice" in capsys.readouterr().err
        manifest = json.loads((second / "manifest.json").read_text())
        (second / "manifest.json").write_text(json.dumps(manifest | {"run_id": "f" * 32, "run_name": "joined"}))
        assert main(["lineage", str(first), str(second), str(first).replace("out", "out/."), "--out", "out"]) == 2
        capsys.readouterr()
        assert main(["lineage", str(first), str(second), "--out", "out"]) == 0
    shown = capsys.readouterr().out.splitlines()
    sizes = pd.read_parquet(first / "clusters.parquet").set_index("cluster")["size"]
    names = pd.read_parquet(first / "clusters.parquet").set_index("cluster")["name"]
    assert shown[0] == "kmeans k=4 -> joined: 400 rows"
    assert f"kmeans k=4 1 ({names[1]}): continues as 1 ({names[1]}) 100%" in shown
    share = {c: f"{sizes[c] / (sizes[0] + sizes[3]):.0%}" for c in (0, 3)}
    assert f"joined 0 (Both): made of 0 ({names[0]}) {share[0]}, 3 ({names[3]}) {share[3]}" in shown
    table = pd.read_csv(tmp_path / "out" / "lineage.csv")
    assert table.groupby("second")["shared"].sum().to_dict() == {0: sizes[0] + sizes[3], 1: sizes[1], 2: sizes[2]}
    picture = matplotlib.image.imread(tmp_path / "out" / "lineage.png")
    assert picture[..., :3].std() > 0.05
    content = json.loads((tmp_path / "out" / "lineage.json").read_text())
    assert content["runs"].keys() == {"kmeans k=4", "joined"}


def test_different_tables_are_matched_by_their_ids(exports: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    first, second = exports
    later = Path(shutil.copytree(second, tmp_path / "later"))
    rows = pd.read_parquet(later / "assignments.parquet").sample(300, random_state=0)
    rows.to_parquet(later / "assignments.parquet", index=False)
    manifest = json.loads((later / "manifest.json").read_text())
    manifest |= {"run_id": "e" * 32, "run_name": "later", "fingerprint": "other"}
    (later / "manifest.json").write_text(json.dumps(manifest))
    sealed(later)
    assert main(["lineage", str(later), str(first)]) == 0
    shown = capsys.readouterr().out
    assert "different tables: 300 rows have the same ids" in shown
    known = pd.read_parquet(first / "assignments.parquet").set_index("id")["cluster"]
    both = rows[rows["cluster"] == 0]
    shares = known[both["id"]].value_counts(normalize=True)
    assert "later 0 (Both): splits into" in shown
    for c in (0, 3):
        assert f"{shares[c]:.0%}" in shown
    for name in ("later", "first"):
        folder = Path(shutil.copytree(later if name == "later" else first, tmp_path / f"numbered-{name}"))
        frame = pd.read_parquet(folder / "assignments.parquet")
        frame["id"] = range(len(frame))
        frame.to_parquet(folder / "assignments.parquet", index=False)
        sealed(folder)
    assert main(["lineage", str(tmp_path / "numbered-later"), str(tmp_path / "numbered-first")]) == 2
    assert "name the id with data.roles.id" in capsys.readouterr().err
