"""What is specific to tables of music tracks: the usual names of their features, roles and other columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Terms:
    """How people speak of a feature: what ``high`` and ``low`` values are called, and the ``unit`` of the values."""

    high: str
    low: str
    unit: str = ""


@dataclass(frozen=True)
class Preset:
    """The columns to expect in one kind of table.

    ``features`` and ``roles`` map a feature or a role to the column names that are used for it, the most likely first, in
    the form of `normalise_name`. ``categories`` are numeric columns that hold codes. A table matches the preset if it has
    the ``required_roles`` and half of the features.
    """

    name: str
    feature_kind: str
    features: Mapping[str, tuple[str, ...]]
    roles: Mapping[str, tuple[str, ...]]
    categories: tuple[str, ...] = ()
    required_roles: frozenset[str] = frozenset()
    terms: Mapping[str, Terms] = field(default_factory=dict)

    def terms_of(self, column: str) -> Terms | None:
        """The words for a column, by its name or by another usual name of the same feature."""
        name = normalise_name(column)
        return next((self.terms[f] for f in self.terms if name == f or name in self.features.get(f, ())), None)


TRACKS = Preset(
    name="tracks",
    feature_kind="audio feature",
    features={
        "acousticness": ("acousticness",),
        "danceability": ("danceability",),
        "duration_ms": ("duration_ms", "duration"),
        "energy": ("energy",),
        "instrumentalness": ("instrumentalness",),
        "liveness": ("liveness",),
        "loudness": ("loudness",),
        "speechiness": ("speechiness",),
        "tempo": ("tempo", "bpm"),
        "valence": ("valence",),
    },
    roles={
        "id": ("track_id", "spotify_id", "id", "track_uri", "uri"),
        "title": ("track_name", "song_title", "title", "name", "song", "track"),
        "creator": ("artists", "artist", "artist_name", "artist_names", "track_artist", "creator"),
        "group": ("track_genre", "genre", "genres", "playlist_genre"),
        "popularity": ("popularity", "track_popularity"),
        "year": ("year", "release_year", "release_date", "track_album_release_date", "album_release_date"),
        "preview": ("preview_url", "track_preview_url", "preview"),
    },
    categories=("key", "mode", "time_signature"),
    required_roles=frozenset({"title", "creator"}),
    terms={
        "acousticness": Terms("acoustic", "not acoustic"),
        "danceability": Terms("danceable", "not danceable"),
        "duration_ms": Terms("long", "short"),
        "energy": Terms("energetic", "calm"),
        "instrumentalness": Terms("instrumental", "with vocals"),
        "liveness": Terms("live sound", "studio sound"),
        "loudness": Terms("loud", "quiet", "db"),
        "speechiness": Terms("spoken", "little speech"),
        "tempo": Terms("fast", "slow", "bpm"),
        "valence": Terms("cheerful", "dark"),
        "popularity": Terms("popular", "little known"),
        "year": Terms("recent", "old"),
    },
)
PRESETS = {TRACKS.name: TRACKS}
"""Values of `data.preset` other than ``none``."""

# The end of a title that marks another issue of the same recording: "- 2012 Remaster", "(Remastered Version)",
# "; Remasterizado en 2009", '(From "Frozen")'. Written so that Python's re and RE2 (Arrow) read it alike.
ISSUE = (
    r"(?i)\s*[-–(\[;/,]\s*(?:\d{4}\s+)?(?:digital(?:ly)?\s+|versi[oó]n\s+|vers[aã]o\s+)?remast[eé]r[a-zé]*"
    r"(?:\s+(?:album\s+|lp\s+)?version)?(?:(?:\s+(?:in|en|em))?[\s/]+\d{4})?\s*[)\]]?\s*$"
    r"|\s*[-–(\[]\s*from\s+[\"“][^\"”]+[\"”]\s*[)\]]?\s*$"
)
FIRST_YEAR = 1860
"""The year of the oldest sound recording."""
# The usual names of columns without a role.
ALBUM_COLUMNS = ("album", "album_name", "track_album_name", "release_name")
URL_COLUMNS = (
    "url", "track_url", "external_url", "audio_url", "href", "link", "path", "file_path", "filepath", "file", "filename",
)  # fmt: skip
DURATION_COLUMNS = ("duration_ms", "track_duration_ms")


def normalise_name(name: str) -> str:
    """A column name in the form in which names are compared: lower case, words joined by underscores."""
    return re.sub(r"[\s.\-]+", "_", name.strip().lower())
