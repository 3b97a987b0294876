"""Which columns of a table are used, as what, and why the others are not."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from gpuclust.config import DataConfig, RolesConfig, did_you_mean
from gpuclust.data.table import ExcludedColumn
from gpuclust.errors import ConfigurationError, DataError

AUDIO_FEATURES: dict[str, tuple[str, ...]] = {
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
}
"""The ten audio features and the names that tables give them."""

TRACK_ROLES: dict[str, tuple[str, ...]] = {
    "id": ("track_id", "spotify_id", "id", "track_uri", "uri"),
    "title": ("track_name", "song_title", "title", "name", "song", "track"),
    "creator": ("artists", "artist", "artist_name", "artist_names", "track_artist", "creator"),
    "group": ("track_genre", "genre", "genres", "playlist_genre"),
    "popularity": ("popularity", "track_popularity"),
    "year": ("year", "release_year", "release_date", "track_album_release_date", "album_release_date"),
    "preview": ("preview_url", "track_preview_url", "preview"),
}
"""The roles of a table of tracks and the names that tables give them, the likeliest first."""

CATEGORIES = ("key", "mode", "time_signature")
KEY_NAME = re.compile(
    r"(^|_)(id|ids|uid|uuid|guid|key|pk|code|sku|isbn|isrc|ean|doi|uri)$"
    r"|^(account|case|client|customer|doc|item|member|object|order|patient|person|product|record|row|sample|song|track|user)id$"
)
"""The names of columns that identify rows, in the spelling of `spelling`."""
MAX_FEATURES = 50_000
ROLE_NAMES = tuple(f.name for f in fields(RolesConfig))


@dataclass(frozen=True)
class Choice:
    """Columns chosen from what a table offers, before its values were all seen.

    ``roles`` is role -> column of the file; ``features`` are in the order of use. ``named`` says that the user
    listed the features, so that none of them may be left out; ``preset`` that they are those of a preset.
    """

    roles: dict[str, str]
    features: tuple[str, ...]
    left_out: tuple[ExcludedColumn, ...]
    named: bool
    preset: bool = False

    def with_id(self, name: str) -> Choice:
        """The same choice with a column as the id, which is then no feature."""
        others = tuple(out for out in self.left_out if out.column != name)
        return replace(
            self,
            roles={"id": name, **self.roles},
            features=tuple(feature for feature in self.features if feature != name),
            left_out=(*others, ExcludedColumn(name, "role id")),
        )

    @property
    def role_columns(self) -> tuple[str, ...]:
        """Role columns that are not features, each once."""
        return tuple(c for c in dict.fromkeys(self.roles.values()) if c not in self.features)


def choose(kinds: dict[str, str], data: DataConfig, *, where: str, tracks: bool) -> Choice:
    """Choose features and roles from the columns that a table offers.

    Args:
        kinds: column -> ``number``, ``boolean``, ``text``, ``list``, ``date``, ``empty``, ``index`` or ``other``.
        data: features, exclusions and roles by name.
        where: the file's name, for messages.
        tracks: use the names that tables of tracks have (`AUDIO_FEATURES`, `TRACK_ROLES`).

    Raises:
        ConfigurationError: a column is named that is not there.
        DataError: no column is left that could be a feature.
    """
    _require(data.features, kinds, "data.features", where)
    _require(data.exclude, kinds, "data.exclude", where)
    for name in data.features:
        if kinds[name] in ("list", "date", "other"):
            raise ConfigurationError(f"data.features: {name!r} holds no numbers ({kinds[name]}); leave it out")
    roles = _roles(kinds, data.roles, where, tracks=tracks)
    if data.features:
        features = [name for name in dict.fromkeys(data.features) if name not in data.exclude]
    elif tracks:
        features = [name for name in _audio_features(kinds) if name not in data.exclude]
    else:
        features = [name for name in kinds if not _why_not(name, kinds, data, roles)]
    chosen = set(features)
    left_out = tuple(
        ExcludedColumn(name, _why_not(name, kinds, data, roles, tracks=tracks) or "not named in data.features")
        for name in kinds
        if name not in chosen
    )
    if not features:
        wanted = "audio feature (preset tracks)" if tracks else "numeric column"
        seen = "; ".join(f"{out.column}: {out.why}" for out in left_out[:8])
        raise DataError(f"{where} has no {wanted} to cluster; name columns in data.features ({seen})")
    if len(features) > MAX_FEATURES:
        raise DataError(
            f"{where} has {len(features):,} columns of numbers, more than the {MAX_FEATURES:,} that a job takes; name some in "
            "data.features, or reduce them to fewer columns before"
        )
    return Choice(roles, tuple(features), left_out, named=bool(data.features), preset=tracks and not data.features)


def _require(names: Collection[str], known: Collection[str], key: str, where: str) -> None:
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f"; it has {', '.join(list(known)[:12])}"
            raise ConfigurationError(f"{key}: {where} has no column {name!r}{hint}")


def _roles(kinds: dict[str, str], named: RolesConfig, where: str, *, tracks: bool) -> dict[str, str]:
    """Role -> column: what is named, then what tables of tracks call it, then a column called id."""
    roles = {role: name for role in ROLE_NAMES if (name := getattr(named, role))}
    for role, name in roles.items():
        _require([name], kinds, f"data.roles.{role}", where)
    aliases = TRACK_ROLES if tracks else {"id": ("id",)}
    offered = {spelling(name): name for name in reversed(kinds) if kinds[name] not in ("index", "other")}
    for role, names in aliases.items():
        free = (offered[alias] for alias in names if alias in offered and offered[alias] not in roles.values())
        column = next(free, None)
        if column is not None:
            roles.setdefault(role, column)
    return {role: roles[role] for role in ROLE_NAMES if role in roles}


def key_candidates(choice: Choice, keys: Sequence[str], kinds: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Columns that may be the id where none has that role, of those that look distinct at first sight (``keys``).

    First the columns that are named like an id, then the other columns of text. Which of them is the id is decided by all
    of their values (`gpuclust.data.read`). A column that the user lists as a feature is none of them.
    """
    if "id" in choice.roles:
        return [], []
    taken = {*choice.roles.values(), *(choice.features if choice.named else ())}
    free = [name for name in keys if name not in taken]
    named = [name for name in free if KEY_NAME.search(spelling(_CAMEL.sub("_", name)))]
    return named, [name for name in free if kinds[name] == "text" and name not in named]


def _audio_features(kinds: dict[str, str]) -> list[str]:
    offered = {spelling(name): name for name in reversed(kinds) if kinds[name] in ("number", "empty")}
    found = (next((offered[a] for a in aliases if a in offered), None) for aliases in AUDIO_FEATURES.values())
    return [name for name in found if name is not None]


def are_tracks(kinds: dict[str, str]) -> bool:
    """Whether these columns are those of a table of tracks: a title, a creator, and half of the audio features."""
    roles = _roles({n: k for n, k in kinds.items() if k != "number"}, RolesConfig(), "", tracks=True)
    return {"title", "creator"} <= roles.keys() and 2 * len(_audio_features(kinds)) >= len(AUDIO_FEATURES)


_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def spelling(name: str) -> str:
    """A column's name as it is compared: lower case, words joined by underscores."""
    return re.sub(r"[\s.\-]+", "_", name.strip().lower())


def _why_not(
    name: str, kinds: Mapping[str, str], data: DataConfig, roles: Mapping[str, str], *, tracks: bool = False
) -> str | None:
    """Why a column is no feature unless it is named; None when nothing speaks against it."""
    if name in data.exclude:
        return "excluded by data.exclude"
    if kinds[name] == "index":
        return "numbers the rows"
    role = next((role for role, column in roles.items() if column == name), None)
    if role is not None:
        return f"role {role}"
    if kinds[name] not in ("number", "empty"):
        return kinds[name]
    if data.features:
        return "not named in data.features"
    if tracks and spelling(name) in CATEGORIES:
        return "a category written as a number; name it in data.features to use it"
    return "not an audio feature; name it in data.features to use it" if tracks else None
