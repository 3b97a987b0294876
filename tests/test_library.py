"""A library of an export: what it finds, whom it names, and that it says what is not there. Against brute force."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuclust.errors import ExportError, ModelError
from gpuclust.serve.index import find_or_build
from gpuclust.serve.library import Library
from gpuclust.serve.pick import shuffled
from gpuclust.serve.records import NotFound
from gpuclust.serve.source import read_manifest
from gpuclust.serve.store import open_index
from tests.exporting import FEATURES, made_export, table_of, tracks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    return made_export(tracks(), tmp_path_factory.mktemp("library"), store_template)


@pytest.fixture(scope="module")
def library(folder: Path) -> Iterator[Library]:
    with Library.open(folder) as opened:
        yield opened


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """An export of this test's own, not indexed yet."""
    return Path(shutil.copytree(folder, tmp_path / "out", ignore=shutil.ignore_patterns(".index")))


# Opening


def test_what_is_known_of_the_export(library: Library) -> None:
    table = table_of(library)
    facts = library.facts
    assert (facts.n_rows, facts.n_clusters, facts.algorithm) == (len(table), 3, "kmeans")
    assert facts.features == tuple(json.loads((library.folder / "manifest.json").read_text())["features"])
    assert [c.size for c in library.clusters] == table["cluster"].value_counts().sort_index().tolist()
    described = pd.read_parquet(library.folder / "clusters.parquet")
    for row, known in zip(described.to_dict("records"), library.clusters, strict=True):
        assert (known.name, known.fraction) == (row["name"], row["fraction"])
        assert known.features["energy"].mean == row["mean_energy"]
        assert [asdict(share)["value"] for share in known.top_groups] == [s["value"] for s in row["top_groups"]]
        json.dumps(known.to_dict(), allow_nan=False)


def test_the_index_is_built_once(copied: Path) -> None:
    stages: list[str] = []
    Library.open(copied, lambda stage, done: stages.append(stage)).close()
    assert stages[0] == "reading the export"
    assert stages[-1] == "indexed"
    again: list[str] = []
    Library.open(copied, lambda stage, done: again.append(stage)).close()
    assert again == []


def test_another_export_under_the_same_name_is_indexed_anew(copied: Path) -> None:
    manifest = copied / "manifest.json"
    with Library.open(copied) as library:
        assert not library.changed()
        manifest.write_text(manifest.read_text() + " ")
        assert library.changed()
        before = {path.name for path in (copied / ".index").iterdir() if path.is_dir()}
        Library.open(copied).close()
        after = {path.name for path in (copied / ".index").iterdir() if path.is_dir()}
        assert len(after) == 1
        assert before.isdisjoint(after)
        # Who had it open goes on, from other threads too.
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda _: library.search("hello").hits[0].score, range(8))) == [1.0] * 8


def open_and_count(folder: str) -> int:
    with Library.open(folder) as library:
        return len(library) + len(library.search("hello").hits)


def test_two_processes_may_open_it_at_once(copied: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        counts = pool.map(open_and_count, [str(copied)] * 3)
    assert len(set(counts)) == 1
    assert len([path for path in (copied / ".index").iterdir() if path.is_dir()]) == 1


def test_a_damaged_index_is_built_again(copied: Path) -> None:
    Library.open(copied).close()
    (index,) = (path for path in (copied / ".index").iterdir() if path.is_dir())
    (index / "search.sqlite").write_bytes(b"not a database" * 100)
    (index / "rows.arrow").write_bytes(b"")
    assert open_and_count(str(copied)) > 400


def test_a_killed_build_leaves_nothing_that_is_used(copied: Path) -> None:
    home = copied / ".index"
    (home / "v1-x.part-abc").mkdir(parents=True)
    (home / "v1-x.part-abc" / "rows.arrow").write_bytes(b"half")
    open_and_count(str(copied))
    assert not (home / "v1-x.part-abc").exists()


def test_a_read_only_export_is_indexed_in_the_cache(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    (copied / ".index").write_text("a file where the folder would be, as no rights stop root")
    assert open_and_count(str(copied)) > 400
    assert list((cache / "gpuclust").glob("*/v1-*/search.sqlite"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(copied / "manifest.json"))
    with pytest.raises(ExportError, match="no index can be written in"):
        Library.open(copied)


def test_folders_that_are_no_export(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"is not an export folder: manifest.json is missing"):
        Library.open(tmp_path / "nowhere")
    changed = pd.read_parquet(copied / "assignments.parquet")
    changed["energy"] = 0.0
    changed.to_parquet(copied / "assignments.parquet")
    with pytest.raises(ExportError, match=r"was changed since its export \(assignments.parquet\)"):
        Library.open(copied)
    (copied / "model" / "arrays.npz").write_bytes(b"no arrays")
    with pytest.raises(ModelError, match="is damaged"):
        Library.open(copied)
    (copied / "clusters.parquet").unlink()
    shutil.copy(tmp_path / "out" / "manifest.json", tmp_path / "m")
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(ExportError, match="has format 99, this gpuclust reads up to 1"):
        Library.open(copied)


def test_it_needs_nothing_of_the_machinery(folder: Path) -> None:
    code = (
        "import sys; from gpuclust.serve.library import Library; Library.open(sys.argv[1]).search('hello'); "
        "heavy = {'mlflow', 'hydra', 'sklearn', 'numba', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, timeout=60, env={**os.environ})


@pytest.mark.parametrize("ask", ["at", "item", "search", "cluster_items", "similar", "averages"])
def test_a_closed_library_says_so_at_once(folder: Path, ask: str) -> None:
    library = Library.open(folder)
    library.close()
    library.close()
    asked = {"at": [[0]], "item": ["track00001"], "similar": ["track00001"], "cluster_items": [0], "averages": ["year"]}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(getattr(library, ask), *asked.get(ask, ["hello"]))
        with pytest.raises(ExportError, match="this library was closed; open the export again"):
            answer.result(timeout=10)


def test_who_waits_for_a_connection_is_told_of_the_end(folder: Path) -> None:
    database = open_index(find_or_build(read_manifest(folder), lambda stage, done: None)).database
    with ThreadPoolExecutor(4) as pool, ExitStack() as held:
        while not database._free.empty():
            held.enter_context(database._connection())
        waiting = [pool.submit(database.column, "select 1") for _ in range(4)]
        database.close()
        for answer in waiting:
            with pytest.raises(ExportError, match="this library was closed"):
                answer.result(timeout=10)


# Items and clusters


def test_items_say_what_the_table_says(library: Library) -> None:
    table = table_of(library).set_index("id")
    for id in table.index[:80]:
        item, row = library.item(id), table.loc[id]
        assert (item.title, item.creator, item.groups) == (row["title"], row["artist"], (row["genre"],))
        assert (item.popularity, item.year, item.cluster) == (row["popularity"], row["year"], row["cluster"])
        assert item.features == {f: row[f] for f in library.features}
        assert (item.x, item.distance) == (row["x"], row["distance"])
        assert item.creators == tuple(name.strip() for name in row["artist"].split(";"))
        assert json.loads(json.dumps(item.to_dict(), allow_nan=False))["id"] == id


def test_an_id_that_is_not_there_is_answered_with_near_ones(library: Library) -> None:
    for typed in ("track00a42", "rack00042", "TRACK00042", "track0004"):
        with pytest.raises(NotFound, match=r"there is no item .*did you mean") as caught:
            library.item(typed)
        assert any(suggestion.startswith("track") for suggestion in caught.value.suggestions)
    with pytest.raises(NotFound) as caught:
        library.item("Bohemian Rapsody")
    assert {library.item(s).title for s in caught.value.suggestions} == {"Bohemian Rhapsody"}
    for typed in ("", "\x00", "\ud800", "' or 1=1 --", "%", "x" * 10_000):
        with pytest.raises(NotFound):
            library.item(typed)


def test_a_cluster_that_is_not_there(library: Library) -> None:
    with pytest.raises(NotFound, match="there is no cluster 7; there are 0, 1, 2"):
        library.cluster(7)
    with pytest.raises(ValueError, match="is not one of popular, central, random"):
        library.cluster_items(0, pick="best")  # type: ignore[arg-type]


@pytest.mark.parametrize("cluster", [0, 1, 2])
def test_a_clusters_items_in_their_orders(library: Library, cluster: int) -> None:
    own = table_of(library).query("cluster == @cluster")
    popular = library.cluster_items(cluster, limit=1000).items
    # Equal popularity keeps the order of the file.
    assert [i.id for i in popular] == own.sort_values("popularity", ascending=False, kind="stable")["id"].tolist()
    central = [i.distance for i in library.cluster_items(cluster, pick="central", limit=1000).items]
    assert central == sorted(own["distance"].tolist())
    known = library.cluster(cluster)
    assert {e.id for e in (*known.representatives, *known.popular)} <= set(own["id"])
    assert known.representatives
    assert known.popular


@settings(deadline=None)
@given(seed=st.integers(0, 2**63 - 1), size=st.integers(1, 40))
def test_a_random_order_is_one_order_read_by_pages(library: Library, seed: int, size: int) -> None:
    whole = [i.id for i in library.cluster_items(1, pick="random", seed=seed, limit=1000).items]
    assert sorted(whole) == sorted(i.id for i in library.cluster_items(1, limit=1000).items)
    read, offset = [], 0
    while offset is not None:
        page = library.cluster_items(1, pick="random", seed=seed, offset=offset, limit=size)
        read += [i.id for i in page.items]
        offset = page.next_offset
    assert read == whole


@settings(deadline=None)
@given(n=st.integers(1, 3000), seed=st.integers(0, 2**64))
def test_a_shuffle_is_a_bijection(n: int, seed: int) -> None:
    assert sorted(shuffled(i, n, seed) for i in range(n)) == list(range(n))


def test_shuffles_look_random() -> None:
    """Places of the first item over many seeds: a chi-square of 9 degrees is under 33.7 but once in 10,000."""
    places = np.bincount([shuffled(0, 10, seed) for seed in range(5_000)], minlength=10)
    assert ((places - 500) ** 2 / 500).sum() < 33.7
    # Known values: the same ten in every process, release and machine.
    assert [shuffled(i, 1000, 7) for i in range(5)] == [162, 64, 807, 482, 405]


# Other tables


def test_a_table_with_nothing_but_numbers(tmp_path: Path, store_template: Path) -> None:
    frame = tracks(10)[FEATURES]
    with Library.open(made_export(frame, tmp_path, store_template, "cluster.n_clusters=2")) as library:
        assert len(library) == 10
        item = library.at([3])[0]
        assert (item.title, item.creator, item.creators, item.groups, item.year) == ("", "", (), (), None)
        assert library.item(item.id) == item
        assert len(library.similar(item.id, 50)) == 9
        assert library.search("hello").hits == ()
        assert library.averages("year").values == library.averages("creator").values == ()


def test_lists_dates_clashing_names_and_components(tmp_path: Path, store_template: Path) -> None:
    frame = tracks(300).rename(columns={"energy": "x"})
    frame["artist"] = [[a, "Guest"] if i % 2 else [a] for i, a in enumerate(frame["artist"].str.replace(";", " "))]
    frame["genre"] = [[g, "all"] if i % 3 else None for i, g in enumerate(frame["genre"])]
    frame["popularity"] = frame["popularity"].astype("float64").where(frame.index % 5 > 0)
    features = ["danceability", "x", "valence", "tempo"]
    folder = made_export(frame, tmp_path, store_template, "reduce=pca", "reduce.n_components=3", features=features)
    with Library.open(folder) as library:
        table = table_of(library)
        item = library.item("track00001")
        assert item.creators[-1] == "Guest"
        assert item.groups[-1] == "all"
        assert item.features["x"] == table.set_index("id").loc["track00001", "x_source"]
        np.testing.assert_array_equal(library.column("x"), library.rows["x"].to_numpy())
        assert library.average_of_creator("guest").count == 150
        assert {a.value: a.count for a in library.averages("group").values}["all"] == 200
        assert [i.popularity is None for i in library.at(np.arange(300))] == [False] * 240 + [True] * 60
        # The prepared space is that of the components: a rotation's cut, so distances only shrink.
        raw = table[["danceability", "x_source", "valence", "tempo"]].to_numpy()
        scaled = (raw - raw.mean(axis=0)) / raw.std(axis=0)
        _, _, directions = np.linalg.svd(scaled - scaled.mean(axis=0), full_matrices=False)
        X = scaled @ directions[:3].T
        i = table.index[table["id"] == "track00001"][0]
        expected = np.sort(np.sqrt(((X - X[i]) ** 2).sum(axis=1)))[1:6]
        np.testing.assert_allclose([n.distance for n in library.similar("track00001", 5)], expected, atol=1e-5)


def test_clusters_without_centres(tmp_path: Path, store_template: Path) -> None:
    folder = made_export(tracks(), tmp_path, store_template, "cluster=hdbscan", "cluster.min_cluster_size=20")
    with Library.open(folder) as library:
        table = table_of(library)
        assert "distance" not in table
        central = library.cluster_items(0, pick="central", limit=1000).items
        confidence = [i.confidence for i in central]
        assert confidence == sorted(confidence, reverse=True)
        assert all(i.distance is None for i in central)
        noise = int((table["cluster"] == -1).sum())
        assert noise > 0
        assert library.clusters[-1].cluster == -1
        assert library.cluster_items(-1).total == noise
