"""Which columns are used, as what, and why the others are not."""

from __future__ import annotations

import pytest

from gpuclust.config import DataConfig, RolesConfig
from gpuclust.data.columns import select_columns
from gpuclust.errors import ConfigurationError, DataError
from gpuclust.tracks.presets import TRACKS, normalise_name

GENERIC = {"id": "text", "price": "number", "size": "number", "colour": "text", "sold": "boolean", "": "index"}


def pick(kinds, *, tracks=False, **config):
    return select_columns(kinds, DataConfig(**config), where="table.csv", preset=TRACKS if tracks else None)


def reasons(selection):
    return {out.column: out.reason for out in selection.left_out}


def test_all_numeric_columns_are_features_and_the_others_are_left_out_with_a_reason():
    selection = pick(GENERIC)
    assert selection.features == ("price", "size")
    assert reasons(selection) == {"id": "role id", "colour": "text", "sold": "boolean", "": "numbers the rows"}
    assert selection.roles == {"id": "id"}
    assert not selection.explicit


def test_named_features_keep_their_order_and_exclude_removes():
    selection = pick(GENERIC, features=["size", "price"])
    assert selection.features == ("size", "price")
    assert selection.explicit
    assert pick(GENERIC, exclude=["size"]).features == ("price",)
    assert reasons(pick(GENERIC, exclude=["size"]))["size"] == "excluded by data.exclude"


@pytest.mark.parametrize("key", ["features", "exclude"])
def test_an_unknown_column_names_the_nearest(key):
    with pytest.raises(ConfigurationError, match=rf"data\.{key}: table\.csv has no column 'prize'; did you mean price"):
        pick(GENERIC, **{key: ["prize"]})


def test_an_unknown_role_column_names_the_nearest():
    with pytest.raises(ConfigurationError, match=r"data\.roles\.title: .*'color'; did you mean colour"):
        pick(GENERIC, roles=RolesConfig(title="color"))


def test_a_column_like_no_other_lists_what_there_is():
    with pytest.raises(ConfigurationError, match="it has id, price, size"):
        pick(GENERIC, features=["xyzzy"])


def test_no_numeric_column_says_what_was_seen():
    with pytest.raises(DataError, match=r"no numeric column.*name: text"):
        pick({"name": "text", "born": "date"})


def test_a_feature_that_cannot_be_numbers_is_refused():
    with pytest.raises(ConfigurationError, match="'born' holds no numbers"):
        pick({"name": "text", "born": "date"}, features=["born"])


def test_roles_are_no_features_unless_named():
    kinds = {"popularity": "number", "x": "number"}
    roles = RolesConfig(popularity="popularity")
    assert pick(kinds, roles=roles).features == ("x",)
    both = pick(kinds, roles=roles, features=["popularity", "x"])
    assert both.features == ("popularity", "x")
    assert both.roles["popularity"] == "popularity"
    assert both.role_columns == ()


SPOTIFY = {
    "Track Name": "text", "Artist.Name": "text", "URI": "text", "Genre": "text", "Release Date": "text",
    "Energy": "number", "Loudness": "number", "Key": "number", "BPM": "number", "Weight": "number",
}  # fmt: skip


def test_tracks_are_known_in_any_spelling():
    selection = pick(SPOTIFY, tracks=True)
    assert selection.features == ("Energy", "Loudness", "BPM")
    assert selection.roles == {
        "id": "URI", "title": "Track Name", "creator": "Artist.Name", "group": "Genre", "year": "Release Date",
    }  # fmt: skip
    assert "category" in reasons(selection)["Key"]
    assert "not an audio feature" in reasons(selection)["Weight"]


def test_named_roles_come_before_the_usual_names():
    kinds = {"name": "text", "track_name": "text", "energy": "number"}
    assert pick(kinds, tracks=True, roles=RolesConfig(title="name")).roles["title"] == "name"
    taken = pick(kinds, tracks=True, roles=RolesConfig(creator="track_name"))
    assert taken.roles == {"title": "name", "creator": "track_name"}


def test_tracks_without_audio_features_are_refused():
    with pytest.raises(DataError, match="no audio feature"):
        pick({"track_id": "text", "weight": "number"}, tracks=True)


def test_there_are_ten_audio_features():
    assert len(TRACKS.features) == 10
    assert all(name in aliases for name, aliases in TRACKS.features.items())


@pytest.mark.parametrize("name", ["track name", "Track.Name", " TRACK-NAME ", "track_name"])
def test_spellings_of_a_name_are_one(name):
    assert normalise_name(name) == "track_name"
