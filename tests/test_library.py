"""A library of an export: what it finds, whom it names, and that it says what is not there. Against brute force."""

import hashlib
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
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuclust.errors import ExportError, ModelError
from gpuclust.model.manifest import read_manifest
from gpuclust.serve.averages import min_count_of
from gpuclust.serve.export_info import describe_numbers
from gpuclust.serve.export_reader import index_bytes, read_assignments
from gpuclust.serve.index import locate
from gpuclust.serve.index.locate import find_or_build
from gpuclust.serve.index.open import open_index
from gpuclust.serve.library import Library
from gpuclust.serve.permutation import permuted
from gpuclust.serve.records import NotFound
from tests.exporting import FEATURES, made_export, sealed, table_of, tracks


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
    assert list((cache / "gpuclust").glob("*/v*-*/search.sqlite"))
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


def test_an_index_that_does_not_fit_in_memory_is_one_line(folder: Path, tmp_path: Path, monkeypatch) -> None:
    """Before anything is read: what is needed, what is there, and what to do; nothing is left behind."""
    copied = tmp_path / "export"
    shutil.copytree(folder, copied, ignore=shutil.ignore_patterns(".index"))
    n_rows, needed = index_bytes(read_manifest(copied))
    assert n_rows == read_manifest(copied).text["rows"]["kept"]
    monkeypatch.setattr(locate, "available_memory", lambda: needed - 1)
    message = (
        rf"\({n_rows:,} rows\) needs about 0.1\d? GB of memory while it is built, and 0.1\d? GB are free; use a machine"
    )
    with pytest.raises(ExportError, match=message):
        Library.open(copied)
    assert [path.name for path in (copied / ".index").iterdir()] == ["lock"]
    monkeypatch.setattr(locate, "available_memory", lambda: needed)
    Library.open(copied).close()


def test_other_columns_of_the_source_are_not_read(folder: Path, tmp_path: Path) -> None:
    """They would only cost memory: the index has roles, features, what was added, and albums, addresses and durations."""
    copied = tmp_path / "export"
    shutil.copytree(folder, copied, ignore=shutil.ignore_patterns(".index"))
    table = pq.read_table(copied / "assignments.parquet")
    added = {name: pa.array(["x"] * len(table)) for name in ("Mood", "Album")}
    pq.write_table(
        pa.table({**dict(zip(table.column_names, table.columns, strict=True)), **added}), copied / "assignments.parquet"
    )
    found = read_assignments(read_manifest(sealed(copied)))
    assert found.column_names == [*table.column_names, "Album"]
    assert found.select(table.column_names).equals(read_assignments(read_manifest(folder)))


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
    assert describe_numbers([-1, *range(202)]) == "0…201 and -1 (noise)"
    assert describe_numbers([0, 1, -1]) == "0, 1 and -1 (noise)"
    assert describe_numbers([-1]) == "-1 (noise)"
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
    assert sorted(permuted(i, n, seed) for i in range(n)) == list(range(n))


def test_shuffles_look_random() -> None:
    """Places of the first item over many seeds: a chi-square of 9 degrees is under 33.7 but once in 10,000."""
    places = np.bincount([permuted(0, 10, seed) for seed in range(5_000)], minlength=10)
    assert ((places - 500) ** 2 / 500).sum() < 33.7
    # Known values: the same ten in every process, release and machine.
    assert [permuted(i, 1000, 7) for i in range(5)] == [162, 64, 807, 482, 405]


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
        assert all(c.representatives and c.popular == () for c in library.clusters), (
            "nothing is popular without a popularity"
        )
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


# Rows of one recording


COPIES = [
    ("Blinding Lights", "The Weeknd"),
    ("BLINDING LIGHTS", "the weeknd"),
    ("Blinding Lights - 2020 Remaster", "The Weeknd"),
    ("Blinding Lights (Remastered 2021)", "The Weeknd"),
    ("Blinding Lights - Remasterizado 2020", "The Weeknd"),
    ('Blinding Lights - From "A Film"', "The Weeknd"),
    ("Bli\u0301nding Lights", "The Weeknd"),
]
OTHERS = [("Blinding Lights", "All Time Low"), ("Blinding Lights - Live", "The Weeknd"), ("Blinding Lights", "")]
PAIRS = [
    ("Crazy In Love", "Beyoncé;JAY-Z"),
    ("Crazy in Love", "Jay-Z; Beyonce"),
    ("", "The Weeknd"),
    ("", "The Weeknd"),
]


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Iterator[Library]:
    """Tracks of which some are the same recording: near one another and in one cluster, under several ids."""
    frame = tracks(300)
    frame["title"], frame["artist"] = [f"Song {i}" for i in range(300)], [f"Band {i % 40}" for i in range(300)]
    named = [*COPIES, *OTHERS, *PAIRS]
    own = pd.concat([frame.iloc[[0]]] * len(named), ignore_index=True)
    own["id"], own["title"], own["artist"] = [f"copy{i}" for i in range(len(named))], *zip(*named, strict=True)
    own["popularity"] = [90 - i for i in range(len(named))]
    own["energy"] += 0.0001 * np.arange(len(named))
    frame = pd.concat([frame, own], ignore_index=True)
    frame["year"] = [0, 1859, 3000, *[1999] * 50, *[2000] * 29, *[2001] * 2, *([2002] * (len(frame) - 84))]
    with Library.open(made_export(frame, tmp_path_factory.mktemp("repeated"), store_template)) as opened:
        yield opened


def test_one_recording_is_one_result(repeated: Library) -> None:
    found = repeated.search("blinding lights")
    assert [hit.item.id for hit in found.hits[:3]] == ["copy0", "copy7", "copy9"]
    assert {hit.item.id for hit in found.hits} == {"copy0", "copy7", "copy8", "copy9"}
    assert found.total == 4
    assert found.hits[0].same_title == 5, "rows of this very title, whoever made them"
    # What is typed whole is the row that is shown.
    assert repeated.search("blinding lights 2020 remaster").hits[0].item.id == "copy2"
    assert [h.item.id for h in repeated.search("crazy in love").hits] == ["copy10"]
    assert len([h for h in repeated.search("the weeknd", limit=50).hits if not h.item.title]) == 2, (
        "no title, no recording"
    )


def test_no_neighbour_is_a_copy(repeated: Library) -> None:
    for within in (False, True):
        near = [n.item.id for n in repeated.similar("copy1", 12, within_cluster=within)]
        assert len(near) == 12
        assert not {f"copy{i}" for i in range(len(COPIES))} & set(near)
        assert {"copy7", "copy8", "copy9"} <= set(near), "another version is another recording"
        assert len({"copy10", "copy11"} & set(near)) == 1
    near = repeated.similar("track00005", 1000)
    # All recordings but the item's own; those of several rows by their nearest one.
    assert len(near) == len(repeated) - (len(COPIES) - 1) - 1 - 1
    assert [n.distance for n in near] == sorted(n.distance for n in near)
    points = repeated.points(np.arange(len(repeated)))
    own = repeated.item("track00005").rank
    copies = [repeated.item(f"copy{i}").rank for i in range(len(COPIES))]
    nearest = np.sqrt(((points[copies] - points[own]) ** 2).sum(axis=1)).min()
    assert nearest == pytest.approx(next(n.distance for n in near if n.item.rank in copies), rel=1e-12)


def test_clusters_show_a_recording_once(repeated: Library) -> None:
    home = repeated.item("copy0").cluster
    whole = repeated.cluster_items(home, limit=1000)
    once = repeated.cluster_items(home, limit=1000, distinct=True)
    assert whole.total == len(whole.items) == once.total + len(COPIES) - 1 + 1
    assert [i.id for i in once.items] == [
        i.id for i in whole.items if i.id not in {*(f"copy{j}" for j in range(1, 7)), "copy11"}
    ]
    drawn = repeated.cluster_items(home, pick="random", seed=3, limit=1000, distinct=True)
    assert {i.id for i in drawn.items} == {i.id for i in once.items}
    known = repeated.cluster(home)
    assert [e.id for e in known.popular] == ["copy0", "copy7", "copy8", "copy9", "copy10"]
    assert len({e.title for e in known.representatives}) == len(known.representatives)


def test_what_distinguishes_an_item(copied: Path) -> None:
    """Columns that no role names are read where the export has them."""
    kept = pd.read_parquet(copied / "assignments.parquet")
    kept["album_name"], kept["Track_URL"] = [f"Album {i}" for i in range(len(kept))], None
    kept.loc[7, ["album_name", "Track_URL"]] = [None, "https://x.example/7"]
    kept.to_parquet(copied / "assignments.parquet")
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["sha256"]["assignments.parquet"] = hashlib.sha256(
        (copied / "assignments.parquet").read_bytes()
    ).hexdigest()
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with Library.open(copied) as library:
        first, other = library.item("track00003"), library.item("track00007")
        assert (first.album, first.url) == ("Album 3", "")
        assert (other.album, other.url) == ("", "https://x.example/7")


def test_averages_without_years_that_cannot_be_and_of_too_few_rows(repeated: Library) -> None:
    found = repeated.averages("year", min_count=None)
    assert found.min_count == 3, "1 % of 314 rows"
    assert [(a.value, a.count) for a in found.values] == [(1999, 50), (2000, 29), (2002, len(repeated) - 84)]
    assert (found.left_out, found.left_out_rows, found.without) == (1, 2, 3)
    everything = repeated.averages("year")
    assert [a.value for a in everything.values] == [1999, 2000, 2001, 2002]
    assert [a.value for a in repeated.averages("year", min_count=30, offset=1).values] == [2002]
    assert [repeated.item(f"track{i:05d}").year for i in range(4)] == [None, None, None, 1999]
    assert [min_count_of(n) for n in (0, 99, 250, 2_999, 3_000, 1_000_000)] == [1, 1, 2, 29, 30, 30]


def test_the_axes_of_the_map_show_a_share_of_the_variance(repeated: Library) -> None:
    points = repeated.points(np.arange(len(repeated)))
    values, _ = np.linalg.eigh(np.cov(points.T))
    # The points are float32: seven digits.
    np.testing.assert_allclose(repeated.axis_shares, np.sort(values)[::-1][:3] / values.sum(), rtol=1e-5)


def test_warnings_of_an_older_export(copied: Path) -> None:
    """Its manifest has no warnings, and does not say whether the run was the sweep's choice."""
    path = copied / "manifest.json"
    manifest = json.loads(path.read_text())
    sweep = {"selection_reason": "kmeans k=2 has the highest silhouette, 0.25", "verdict": "two", "curves": {}}
    for key in ("warnings", "selected", "noise_fraction"):
        manifest.pop(key, None)
    path.write_text(json.dumps(manifest | {"sweep": sweep, "run_name": "kmeans k=8"}))
    rows = pd.read_parquet(copied / "clusters.parquet")
    assert Library.open(copied).facts.warnings == ()
    noise = rows.iloc[[0]].assign(cluster=-1, size=399, name="noise")
    pd.concat([rows, noise]).to_parquet(copied / "clusters.parquet")
    manifest = json.loads(sealed(copied).joinpath("manifest.json").read_text())
    facts = Library.open(copied).facts
    (warning,) = facts.warnings
    assert warning.startswith("1 of 400 rows are in a cluster; the other 100% are noise")
    assert (facts.selected, facts.sweep_choice) == (False, "kmeans k=2")
    path.write_text(json.dumps(manifest | {"sweep": sweep, "run_name": "kmeans k=2", "warnings": ["mind"]}))
    facts = Library.open(copied).facts
    assert (facts.selected, facts.warnings) == (True, ("mind",))
