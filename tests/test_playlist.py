"""Playlists keep their promises for any request: size, order, no repetition, the same list for the same words."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuclust.cli import main
from gpuclust.errors import ExportError, InputError
from gpuclust.serve.library import Library
from gpuclust.serve.records import NotFound
from gpuclust.serve.text import fold_one
from gpuclust.tracks.links import location_of
from gpuclust.tracks.playlist import Playlist, PlaylistOptions, from_cluster, from_liked, from_taste
from gpuclust.tracks.playlist_files import render, write
from tests.exporting import FEATURES, made_export, tracks

N = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    frame = tracks(N)
    # The same recordings under other ids, and a remaster: nearest neighbours of themselves.
    again = frame.iloc[:40].assign(id=[f"again{i:05d}" for i in range(40)])
    again["title"] = again["title"].str.upper()
    remastered = frame.iloc[100:110].assign(id=[f"master{i:05d}" for i in range(10)])
    remastered["title"] += " - 2011 Remaster"
    frame = pd.concat([frame, again, remastered], ignore_index=True)
    return made_export(frame, tmp_path_factory.mktemp("playlist"), store_template)


@pytest.fixture(scope="module")
def library(folder: Path) -> Iterator[Library]:
    with Library.open(folder) as opened:
        yield opened


RULES = st.builds(
    PlaylistOptions,
    size=st.integers(1, 60),
    per_creator=st.none() | st.integers(1, 4),
    diversity=st.sampled_from([0.0, 0.3, 1.0]) | st.floats(0, 1),
)
IDS = st.integers(0, N - 1).map(lambda i: f"track{i:05d}")
TASTES = st.dictionaries(st.sampled_from(FEATURES[:3]), st.floats(0.3, 0.6), min_size=1)


def recording(title: str, creator: str) -> tuple[str, str]:
    return fold_one(title.removesuffix(" - 2011 Remaster").removesuffix(" - 2008 Remaster")), fold_one(creator)


def keeps_its_promises(made: Playlist, rules: PlaylistOptions) -> None:
    items = made.items
    assert 0 < len(items) <= rules.size
    assert len(items) == rules.size or any("nothing more meets the rules" in note for note in made.notes)
    recordings = [recording(item.title, item.creator) for item in items]
    assert len(set(recordings)) == len(recordings)
    if rules.per_creator is not None:
        counts = Counter(fold_one(name) for item in items for name in set(item.creators))
        assert max(counts.values()) <= rules.per_creator
    order = [(taken.distance, taken.item.rank) for taken in made.entries]
    assert order == sorted(order), "nearest first, equal distances by popularity"


@settings(deadline=None)
@given(cluster=st.integers(0, 2), rules=RULES)
def test_a_list_of_a_cluster(library: Library, cluster: int, rules: PlaylistOptions) -> None:
    made = from_cluster(library, cluster, rules)
    keeps_its_promises(made, rules)
    assert made.name == library.cluster(cluster).name
    assert {item.cluster for item in made.items} == {cluster}
    assert all(taken.distance == pytest.approx(taken.item.distance, abs=0) for taken in made.entries)
    assert made == from_cluster(library, cluster, rules)


@settings(deadline=None)
@given(likes=st.lists(IDS, min_size=1, max_size=4), rules=RULES, within=st.booleans())
def test_a_list_of_liked_items(library: Library, likes: list[str], rules: PlaylistOptions, within: bool) -> None:
    made = from_liked(library, likes, rules, within_cluster=within)
    keeps_its_promises(made, rules)
    liked = [library.item(id) for id in likes]
    assert not {item.id for item in made.items} & set(likes)
    assert not {recording(i.title, i.creator) for i in made.items} & {recording(i.title, i.creator) for i in liked}
    if within:
        assert {item.cluster for item in made.items} <= {item.cluster for item in liked}
    assert liked[0].title in made.name
    points = library.points([item.rank for item in liked])
    own = library.points([item.rank for item in made.items])
    expected = np.sqrt(((own[:, None] - points[None]) ** 2).sum(axis=2)).min(axis=1)
    # One sum of five squares in another order: a few units in the last place.
    np.testing.assert_allclose([taken.distance for taken in made.entries], expected, rtol=1e-12)
    assert made == from_liked(library, likes, rules, within_cluster=within)


@settings(deadline=None)
@given(taste=TASTES, rules=RULES, cluster=st.none() | st.integers(0, 2))
def test_a_list_of_a_taste(
    library: Library, taste: dict[str, float], rules: PlaylistOptions, cluster: int | None
) -> None:
    made = from_taste(library, taste, rules, cluster=cluster)
    keeps_its_promises(made, rules)
    raw = pd.read_parquet(library.folder / "assignments.parquet")
    spread = raw[list(taste)].std(ddof=0)
    for taken in made.entries:
        away = [(taken.item.features[f] - taste[f]) / spread[f] for f in taste]
        assert taken.distance == pytest.approx(float(np.linalg.norm(away)), rel=1e-9, abs=1e-12)
    assert made == from_taste(library, dict(reversed(taste.items())), rules, cluster=cluster)


def test_without_diversity_the_list_is_the_nearest(library: Library) -> None:
    made = from_liked(library, ["track00200"], PlaylistOptions(25, per_creator=None, diversity=0))
    near = library.similar("track00200", 60)
    seen, expected = {recording(*(getattr(library.item("track00200"), f) for f in ("title", "creator")))}, []
    for item in (n.item for n in near):
        if recording(item.title, item.creator) not in seen:
            seen.add(recording(item.title, item.creator))
            expected.append(item.id)
    assert [item.id for item in made.items] == expected[:25]


def test_diversity_spreads_the_list(library: Library) -> None:
    def spread(diversity: float) -> float:
        made = from_cluster(library, 0, PlaylistOptions(20, None, diversity))
        own = library.points([item.rank for item in made.items])
        return float(np.sqrt(((own[:, None] - own[None]) ** 2).sum(axis=2)).mean())

    assert spread(0.0) < spread(0.5) < spread(1.0)


def test_thirty_by_default(library: Library) -> None:
    assert len(from_taste(library, {"energy": 0.5}, PlaylistOptions(per_creator=None)).items) == 30
    assert PlaylistOptions().size == 30


def test_what_cannot_be_asked(library: Library) -> None:
    for wrong in ({"size": 0}, {"size": 501}, {"per_creator": 0}, {"diversity": 1.5}, {"diversity": float("nan")}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))}="):
            PlaylistOptions(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="there is no feature 'energi'; did you mean energy"):
        from_taste(library, {"energi": 1})
    for strange in ("happiness", "mood", "x", ""):
        with pytest.raises(
            InputError, match=r"there is no feature '.*'; the features are danceability, energy, valence, "
        ):
            from_taste(library, {strange: 1})
    with pytest.raises(InputError, match=r"did you mean danceability\? The features are danceability, "):
        from_taste(library, {"dance": 1})
    low, high = library.range_of("energy")
    for wrong in (8, -1.0, high + 0.06 * (high - low), low - 0.06 * (high - low)):
        with pytest.raises(
            InputError,
            match=rf"energy={wrong:g} is outside the range of energy in this export, {low:.6g} to {high:.6g}",
        ):
            from_taste(library, {"valence": 0.5, "energy": wrong})
    assert from_taste(library, {"energy": high + 0.04 * (high - low)}).entries, "a little beyond the rows is no mistake"
    with pytest.raises(InputError, match="energy=nan is not a number"):
        from_taste(library, {"energy": float("nan")})
    with pytest.raises(InputError, match="no taste was given"):
        from_taste(library, {})
    with pytest.raises(InputError, match="no liked item was given"):
        from_liked(library, [])
    with pytest.raises(NotFound, match="nothing is called 'xqzzt wkkjp'"):
        from_liked(library, ["xqzzt wkkjp"])
    with pytest.raises(NotFound, match="there is no cluster 9"):
        from_cluster(library, 9)


def test_liked_titles_are_looked_up_and_said(library: Library) -> None:
    made = from_liked(library, ["bohemian rapsody", "hello"], PlaylistOptions(5))
    assert len(made.made_from["liked"]) == 2
    assert any("took “Bohemian Rhapsody" in note or "took “BOHEMIAN RHAPSODY" in note for note in made.notes)
    assert any("also by" in note and "name the creator" in note for note in made.notes)
    # A title that is a creator's name too is as ambiguous.
    assert "also by" in from_liked(library, ["The The"], PlaylistOptions(5)).notes[0]


def test_names_are_plain(library: Library) -> None:
    assert from_taste(library, {"valence": 0.51965, "energy": 0.5}).name == "energy 0.5, valence 0.52"
    assert from_taste(library, {"duration_ms": 225_400.0}).name == "duration 3:45"
    assert from_taste(library, {"energy": 0.5}, cluster=1).name == "energy 0.5 in cluster 1"
    everything = {f: float(np.median(library.column(f))) for f in FEATURES}
    assert from_taste(library, everything).name.endswith("and 1 more")
    assert from_liked(library, ["track00100"]).name == f"Like {library.item('track00100').title}"
    taken = from_liked(library, ["queen"]).notes[0]
    assert taken.startswith("took “")
    assert taken.endswith("by Queen” for 'queen'"), "what a creator's name was taken for is said"


def hostile(library: Library) -> Playlist:
    """A list with every title there is."""
    return from_taste(library, {"energy": 0.5}, PlaylistOptions(450, per_creator=None, diversity=0))


def test_csv_runs_nothing_in_a_spreadsheet(library: Library) -> None:
    made = hostile(library)
    rows = list(csv.DictReader(io.StringIO(render(made, "csv"), newline="")))
    assert len(rows) == len(made.items)
    for row, item in zip(rows, made.items, strict=True):
        for name, text in (("title", item.title), ("creator", item.creator)):
            assert row[name] == (f"'{text}" if text[0] in "=+-@\t\r" else text)
        assert float(row["energy"]) == item.features["energy"]
    assert any(row["title"].startswith("'=HYPERLINK") for row in rows)


def test_json_is_the_whole_list(library: Library) -> None:
    made = hostile(library)
    read = json.loads(render(made, "json"))
    assert [item["title"] for item in read["items"]] == [item.title for item in made.items]
    assert read["made_from"]["taste"] == {"energy": 0.5}
    assert read["name"] == made.name


def test_json_has_both_distances(library: Library) -> None:
    """That from what was asked for, and the item's own to the centre of its cluster."""
    made = from_liked(library, ["track00200"], PlaylistOptions(20))
    for listed, taken in zip(made.to_dict()["items"], made.entries, strict=True):
        assert listed["distance"] == taken.distance
        assert listed["distance_to_centre"] == taken.item.distance != taken.distance


TRACK = "4uLU6hMCjMI75M1A2tKUQC"
TEMPLATE = "https://open.example/track/{id}"


def test_m3u8_has_two_lines_an_item(library: Library) -> None:
    made = hostile(library)
    lines = render(made, "m3u8", url_template=TEMPLATE).splitlines()
    assert lines[:2] == ["#EXTM3U", f"#PLAYLIST:{made.name}"]
    assert len(lines) == 2 + 2 * len(made.items)
    for info, location, item in zip(lines[2::2], lines[3::2], made.items, strict=True):
        assert info.startswith(f"#EXTINF:{round(item.features['duration_ms'] / 1000)},")
        assert location == TEMPLATE.format(id=item.id)


def test_m3u8_without_addresses_is_refused(library: Library, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"no column of web addresses or audio files; give --url-template"):
        render(from_cluster(library, 0), "m3u8")
    assert main(["playlist", str(folder), "--cluster", "0", "--format", "m3u8"]) == 2
    assert "give --url-template" in capsys.readouterr().err
    for template, said in (
        ("https://x.example/", "must hold one of {id}"),
        ("javascript:{id}", "is not an address"),
        ("{id}", "is not an address"),
    ):
        assert main(["playlist", str(folder), "--cluster", "0", "--format", "m3u8", "--url-template", template]) == 2
        assert f"--url-template {template} {said}" in capsys.readouterr().err


def test_uris_have_a_line_an_item(library: Library, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = from_cluster(library, 0, PlaylistOptions(3))
    assert render(made, "uris", url_template=TEMPLATE).splitlines() == [TEMPLATE.format(id=i.id) for i in made.items]
    first, *others = made.entries
    known = replace(made, entries=(replace(first, item=replace(first.item, track=TRACK)), *others))
    assert render(known, "uris") == f"spotify:track:{TRACK}\n", "an item without an address is left out"
    assert f"https://open.spotify.com/track/{TRACK}" in render(known, "m3u8").splitlines()
    assert main(["playlist", str(folder), "--cluster", "0", "--format", "uris"]) == 2
    assert "uris needs addresses that a player can open" in capsys.readouterr().err


def test_a_player_is_given_web_addresses_and_sounds_only(tmp_path: Path, store_template: Path) -> None:
    frame = tracks(60)
    links = [
        "https://example.org/a.mp3",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "",
        "https://e.org/a\n#EXT",
        None,
    ]
    frame["preview_url"] = [links[i % len(links)] for i in range(60)]
    frame.loc[4, "id"] = TRACK
    with Library.open(made_export(frame, tmp_path, store_template, "data.roles.preview=preview_url")) as library:
        made = from_taste(library, {"energy": 0.5}, PlaylistOptions(60, None, 0))
        locations = [line for line in render(made, "m3u8").splitlines() if not line.startswith("#")]
        assert [item.id for item in library.at(np.arange(60)) if item.track] == [TRACK]
    assert set(locations) == {"https://example.org/a.mp3", "https://e.org/a%0A#EXT"}
    kept = [i for i in made.items if (i.preview or "").startswith("https")]
    assert len(locations) == len(kept), "an item without an address is left out"


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("https://x.example/a b", "https://x.example/a%20b"),
        ("/music/Queen/01 Jealousy.flac", "/music/Queen/01 Jealousy.flac"),
        ("C:\\Music\\a.MP3", "C:\\Music\\a.MP3"),
        ("a.ogg", "a.ogg"),
        ("file:///music/a.mp3", "file:///music/a.mp3"),
        ("\\\\host\\share\\a.mp3", ""),
        ("//host/share/a.mp3", ""),
        ("file://host/a.mp3", ""),
        ("/etc/passwd", ""),
        ("smb://host/a.mp3", ""),
        ("#a.mp3", ""),
        ("a\nb.mp3", ""),
        ("", ""),
    ],
)
def test_locations(library: Library, url: str, location: str) -> None:
    assert location_of(replace(library.at([0])[0], url=url)) == location


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("https://user:secret@music.example/a.mp3?x=1", "https://music.example/a.mp3?x=1"),
        ("http://token@music.example:8000/a.mp3", "http://music.example:8000/a.mp3"),
        ("http://music.example@169.254.169.254/latest", ""),
        *((f"http://{host}/latest", "") for host in (
            "169.254.169.254", "2852039166", "0xA9FEA9FE", "169.254.43518", "[fe80::1]", "[::ffff:169.254.169.254]", "0.0.0.0",
            "127.0.0.1:8501", "127.1", "[::1]", "localhost", "localhost.", "a.localhost", "metadata.google.internal", "224.0.0.1",
        )),
        ("http://192.168.1.7/a.mp3", "http://192.168.1.7/a.mp3"),
        ("http://[2001:db8::1]/a.mp3", "http://[2001:db8::1]/a.mp3"),
    ],
)  # fmt: skip
def test_a_player_gets_no_passwords_and_no_addresses_of_this_machine(library: Library, url: str, location: str) -> None:
    assert location_of(replace(library.at([0])[0], url=url, preview="")) == location


def test_a_table_shows_text_as_text(library: Library) -> None:
    shown = render(hostile(library), "table")
    assert not {c for c in shown if ord(c) < 32 and c != "\n"} | {c for c in shown if c in "\x7f\u202e\u2066"}
    assert "<script>alert(1)</script>" in shown
    assert len(shown.splitlines()) == 1 + 1 + len(hostile(library).entries) + len(hostile(library).notes)
    lines = render(from_cluster(library, 1), "table").splitlines()
    assert lines[1].split() == ["title", "creator", "year", "duration", "popularity", "id"], (
        "one cluster needs no column"
    )
    assert "None" not in "".join(lines)


def test_files_are_written_whole(library: Library, tmp_path: Path) -> None:
    made = from_cluster(library, 0, PlaylistOptions(3))
    path = write(made, tmp_path / "new" / "list.csv", "csv")
    assert path.read_bytes().startswith(b"\xef\xbb\xbfposition,id,title")
    with pytest.raises(ExportError, match="exists; name another --out"):
        write(made, path, "csv")
    write(made, path, "json", force=True)
    assert json.loads(path.read_text(encoding="utf-8"))["name"] == made.name
    with pytest.raises(InputError, match="the format 'xml' is not one of table, csv, json, m3u8, uris"):
        render(made, "xml")


def test_a_place_that_cannot_be_written_is_said(library: Library, locked: Path) -> None:
    with pytest.raises(ExportError, match="cannot be written"):
        write(from_cluster(library, 0, PlaylistOptions(3)), locked / "list.csv", "csv")


def test_the_command(folder: Path, library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["playlist", str(folder), "--cluster", "1", "--size", "4", "--format", "json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert [item["id"] for item in made["items"]] == [i.id for i in from_cluster(library, 1, PlaylistOptions(4)).items]
    assert main(["playlist", str(folder), "--cluster", "1", "--size", "5", "--popular", "--format", "json"]) == 0
    liked = [item["popularity"] for item in json.loads(capsys.readouterr().out)["items"]]
    assert len(liked) == 5
    assert liked == sorted(liked, reverse=True)
    assert liked[0] == max(item.popularity or 0 for item in library.cluster_items(1, limit=1).items)
    out = tmp_path / "list.m3u8"
    options = ["--out", str(out), "--url-template", TEMPLATE]
    assert main(["playlist", str(folder), "--like", "Fly Me to the Moon", *options]) == 0
    assert out.read_text(encoding="utf-8").startswith("#EXTM3U\n#PLAYLIST:Like Fly Me to the Moon")
    assert "30 items" in capsys.readouterr().out
    assert main(["playlist", str(folder), "--taste", "energy=0.8,valence=0.6", "--size", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --cluster NUMBER, --like TITLE or --taste"),
        (["--cluster", "9"], "there is no cluster 9; there are 0, 1, 2"),
        (["--taste", "energy"], "--taste 'energy' is not FEATURE=NUMBER"),
        (["--taste", "energy=1", "--like", "x"], "give --like or --taste, not both"),
        (["--like", "hello", "--cluster", "1"], "with --like, use --within-cluster"),
        (["--taste", "energy=1", "--popular"], "--popular needs --cluster, without --like and --taste"),
        (["--cluster", "1", "--within-cluster"], "--within-cluster goes with --like"),
        (["--cluster", "1", "--format", "xml"], "--format xml is not one of table, csv, json, m3u8, uris"),
        (["--cluster", "1", "--out", "list.doc"], "list.doc does not say its format"),
        (["--cluster", "1", "--size", "0"], "size=0 is not in 1..500"),
    ],
)
def test_the_command_says_what_is_wrong(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["playlist", str(folder), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
