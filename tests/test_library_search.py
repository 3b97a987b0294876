"""Search in a library: titles find themselves however they are typed, slips are forgiven, any text is only text."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gpuclust.serve.library import Library
from gpuclust.serve.spelling import edit_distances
from gpuclust.serve.text import fold_one
from tests.exporting import TITLES, made_export, table_of, tracks


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Iterator[Library]:
    with Library.open(made_export(tracks(), tmp_path_factory.mktemp("search"), store_template)) as opened:
        yield opened


TYPED = st.sampled_from(TITLES)


@settings(deadline=None)
@given(row=st.integers(0, 399))
def test_any_title_is_found_by_itself(library: Library, row: int) -> None:
    title = library.at([row])[0].title
    found = library.search(title)
    assert fold_one(found.hits[0].item.title) == fold_one(title)
    assert found.hits[0].score == 1.0


@settings(deadline=None)
@given(row=st.integers(0, 399), loud=st.booleans())
def test_case_accents_and_punctuation_do_not_matter(library: Library, row: int, loud: bool) -> None:
    item = library.at([row])[0]
    typed = fold_one(item.title)
    typed = typed.upper() if loud else f" {typed.replace(' ', '  ')} "
    first = library.search(typed).hits[0]
    assert fold_one(first.item.title) == fold_one(item.title)


@settings(deadline=None)
@given(row=st.integers(0, 399), data=st.data())
def test_a_title_and_its_creator_find_the_item(library: Library, row: int, data: st.DataObject) -> None:
    item = library.at([row])[0]
    assume(any(c.isalnum() for c in item.title))
    typed = data.draw(st.sampled_from([f"{item.title} {item.creator}", f"{item.creator} {item.title}"]))
    first = library.search(typed).hits[0].item
    same = fold_one(first.title), fold_one(first.creator)
    # What is asked for is first, unless the other way round reads the same.
    assert " ".join(sorted(" ".join(same).split())) == " ".join(
        sorted(f"{fold_one(item.title)} {fold_one(item.creator)}".split())
    )
    by_field = library.search(title=item.title, creator=item.creator).hits[0].item
    assert (fold_one(by_field.title), fold_one(by_field.creator)) == (fold_one(item.title), fold_one(item.creator))


LONG = ["Bohemian Rhapsody", "Paranoid Android", "Smells Like Teen Spirit", "Thunderstruck", "Wonderwall"]


@settings(deadline=None)
@given(title=st.sampled_from(LONG), data=st.data())
def test_a_slip_in_a_word_is_forgiven(library: Library, title: str, data: st.DataObject) -> None:
    words = title.lower().split()
    which = data.draw(st.sampled_from([i for i, w in enumerate(words) if len(w) >= 5]))
    at = data.draw(st.integers(0, len(words[which]) - 2))
    word, letter = words[which], data.draw(st.sampled_from("aeiouxyz"))
    kinds = [word[:at] + word[at + 1 :], word[:at] + letter + word[at:], word[:at] + letter + word[at + 1 :],
             word[:at] + word[at + 1] + word[at] + word[at + 2 :]]  # fmt: skip
    words[which] = data.draw(st.sampled_from(kinds))
    assert library.search(" ".join(words)).hits[0].item.title == title


@pytest.mark.parametrize(
    ("typed", "title"),
    [
        ("beyonce crazy in luv", "Crazy In Love"),
        ("fly me to the mo", "Fly Me to the Moon"),
        ("bohem rhap", "Bohemian Rhapsody"),
        ("spirit teen", "Smells Like Teen Spirit"),
        ("thunder struck", "Thunderstruck"),
        ("paranoidandroid", "Paranoid Android"),
        ("strasse nach lodz", "Straße nach Łódź"),
        ("駆ける", "夜に駆ける"),
        ("blue and green", "Blue & Green"),
        ("yesterday xyzzyplugh", "Yesterday"),
    ],
)
def test_what_people_type(library: Library, typed: str, title: str) -> None:
    assert library.search(typed).hits[0].item.title == title


def test_exact_titles_come_first_and_equal_ones_by_popularity(library: Library) -> None:
    found = library.search("love")
    hits = [hit for hit in found.hits if hit.score == 1.0]
    assert {hit.item.title for hit in hits} == {"Love"}
    scores = [(-hit.score, hit.item.rank) for hit in found.hits]
    assert scores == sorted(scores)
    assert found.complete
    assert not library.search("lovw").complete


def test_an_ambiguous_title_lists_its_creators(library: Library) -> None:
    found = library.search("hello")
    table = table_of(library)
    same = table[table["title"].map(fold_one) == "hello"].sort_values("popularity", ascending=False, kind="stable")
    assert found.ambiguous == tuple(same["artist"].unique())
    assert found.hits[0].same_title == len(same) == 6
    assert set(found.hits[0].other_creators) == set(found.ambiguous) - {found.hits[0].item.creator}
    assert library.creators_of(found.hits[0].item.id) == found.ambiguous
    assert library.search("song 100 of rock").ambiguous == ()


def test_nothing_false_is_said_of_a_creators_name(library: Library) -> None:
    """``queen`` is a creator's name; the best hits' titles have other creators too."""
    found = library.search("queen", limit=30)
    assert {hit.item.creator for hit in found.hits} == {"Queen"}
    assert any(hit.other_creators for hit in found.hits)
    assert found.ambiguous == ()
    # A title that is a creator's name is found first, and is no question of whose it is.
    both = library.search("the the", limit=50)
    assert both.hits[0].item.title == "The The"
    assert "The The" in {hit.item.creator for hit in both.hits[1:]}
    assert both.ambiguous == ()
    # Part of a title, or a title and a creator, is not the title.
    assert library.search("hell").ambiguous == ()
    assert library.search("hello adele").ambiguous == ()
    assert library.search(title="hello", creator="adele").ambiguous == ()
    assert library.search(title="hello").ambiguous == library.search("hello").ambiguous != ()


def test_a_total_counts_different_items(library: Library) -> None:
    table = table_of(library)
    keys = (
        table["title"].map(fold_one)
        + "/"
        + table["artist"].map(lambda a: " ".join(sorted(map(fold_one, a.split(";")))))
    )
    words = (table["title"] + " " + table["artist"]).map(fold_one).str.split()
    expected = keys[words.map(lambda own: any(word.startswith("song") for word in own))].nunique()
    for limit in (1, 10, 100):
        found = library.search("song", limit=limit)
        assert (len(found.hits), found.total, found.total_is_minimum) == (limit, expected, False)
    assert library.search("xyzzyplugh yesterday").total is None
    assert library.search("xyzzyplugh").total in (0, None)


def test_searching_one_field(library: Library) -> None:
    assert {h.item.creator for h in library.search(creator="queen").hits} == {"Queen"}
    titled = [h.item.title for h in library.search(title="the the").hits]
    assert titled[0] == "The The"
    assert all("the" in title.lower() for title in titled)
    both = library.search(title="hello", creator="adele").hits
    assert all(h.item.creator == "Adele" for h in both if h.score == 1.0)


@settings(deadline=None)
@given(
    typed=st.one_of(st.text(max_size=60), st.text("\"*()^:-+{}andorNEAR '", max_size=40), TYPED.map(lambda t: t * 5))
)
def test_any_text_is_only_text(library: Library, typed: str) -> None:
    found = library.search(typed, limit=5)
    assert len(found.hits) <= 5
    assert all(0 < hit.score <= 1 for hit in found.hits)
    assert found == library.search(typed, limit=5)


def test_nothing_finds_nothing(library: Library) -> None:
    assert library.search("").hits == ()
    assert library.search("   ").hits == ()
    assert library.search("hello", limit=0).hits == ()


def osa(a: str, b: str) -> int:
    """Optimal string alignment by its recurrence."""
    d = {(i, j): i or j for i in range(len(a) + 1) for j in range(len(b) + 1) if not (i and j)}
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            d[i, j] = min(d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                d[i, j] = min(d[i, j], d[i - 2, j - 2] + 1)
    return d[len(a), len(b)]


@settings(deadline=None)
@given(word=st.text("abcé", max_size=7), others=st.lists(st.text("abcé", max_size=8), max_size=5))
def test_edit_distances_are_those_of_the_recurrence(word: str, others: list[str]) -> None:
    assert edit_distances(word, others).tolist() == [osa(word, other) for other in others]


@settings(deadline=None)
@given(text=st.text(max_size=40))
def test_folding_twice_changes_nothing(text: str) -> None:
    folded = fold_one(text)
    assume(any(c.isalnum() for c in folded) and folded.isprintable())
    assert fold_one(folded) == folded


def test_real_titles_are_found(real_data: Path, tmp_path: Path, store_template: Path) -> None:
    frame = pd.read_csv(real_data / "playlist_songs_33k.csv").drop_duplicates("track_id").dropna(subset=["track_name"])
    numeric = ["danceability", "energy", "valence", "tempo", "loudness"]
    folder = made_export(frame, tmp_path, store_template, features=numeric)
    with Library.open(folder) as library:
        first = library.search("beyonce crazy in luv").hits[0].item
        assert fold_one(first.title).startswith("crazy in love")
        assert "Beyoncé" in first.creator
        swift = library.search("taylor swift")
        assert all("Taylor Swift" in hit.item.creators for hit in swift.hits)
        assert swift.ambiguous == ()
        for typed in ("taylor swift", "queen", "love", "ed sheeran", "blinding lights"):
            hits = [(fold_one(h.item.title), fold_one(h.item.creator)) for h in library.search(typed).hits]
            assert len(set(hits)) == len(hits) > 1
        for rank in np.random.default_rng(1).integers(0, len(library), 50):
            item = library.at([int(rank)])[0]
            names = [(fold_one(n.item.title), fold_one(n.item.creator)) for n in library.similar(item.id, 10)]
            assert len({*names, (fold_one(item.title), fold_one(item.creator))}) == 11
        for rank in np.random.default_rng(0).integers(0, len(library), 300):
            title = library.at([int(rank)])[0].title
            assert fold_one(library.search(title).hits[0].item.title) == fold_one(title)
