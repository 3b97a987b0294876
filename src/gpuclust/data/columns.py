"""Select the columns of a table: features and roles, and the reason why each other column is not used."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from gpuclust.config import DataConfig, RolesConfig, did_you_mean
from gpuclust.data.table import ExcludedColumn
from gpuclust.errors import ConfigurationError, DataError
from gpuclust.tracks.presets import Preset, normalise_name

ID_NAME = re.compile(
    r"(^|_)(id|ids|uid|uuid|guid|key|pk|code|sku|isbn|isrc|ean|doi|uri)$"
    r"|^(account|case|client|customer|doc|item|member|object|order|patient|person|product|record|row|sample|song|track|user)id$"
)
"""The names of columns that identify rows, as `normalise_name` writes them."""
MAX_FEATURES = 50_000
WEIGHT = "weight"
"""The role of the column of ``data.weight``, which has no key in ``data.roles``."""
ROLE_NAMES = tuple(f.name for f in fields(RolesConfig))
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True)
class ColumnSelection:
    """The columns to read, selected from the schema before the values are known.

    ``roles`` maps a role to its column; ``features`` are in the order of use, and so are the columns of ``vectors`` and those that are
    ``encoded`` as features (see `gpuclust.model.encodings`). If ``explicit``, the user listed the features,
    and none of them may be left out. If ``from_preset``, the features are those of a preset.
    """

    roles: dict[str, str]
    features: tuple[str, ...]
    left_out: tuple[ExcludedColumn, ...]
    explicit: bool
    from_preset: bool = False
    vectors: tuple[str, ...] = ()
    encoded: tuple[str, ...] = ()

    def with_id(self, name: str) -> ColumnSelection:
        """The same selection with a column as the id; the column is then not a feature."""
        others = tuple(out for out in self.left_out if out.column != name)
        return replace(
            self,
            roles={"id": name, **self.roles},
            features=tuple(feature for feature in self.features if feature != name),
            left_out=(*others, ExcludedColumn(name, "role id")),
        )

    @property
    def role_columns(self) -> tuple[str, ...]:
        """Role columns, and columns that are encoded, that are not features, each once."""
        return tuple(c for c in dict.fromkeys([*self.roles.values(), *self.encoded]) if c not in self.features)

    @property
    def unused_booleans(self) -> list[str]:
        """The boolean columns that are left out although the user has not listed the features."""
        if self.explicit or self.from_preset:
            return []
        return [out.column for out in self.left_out if out.reason == "boolean"]


@dataclass(frozen=True)
class IdCandidates:
    """Columns that may be the id: those that are named like an id, and the other text columns."""

    named: tuple[str, ...] = ()
    text: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """All candidates, those named like an id first."""
        return (*self.named, *self.text)


def select_columns(
    kinds: Mapping[str, str], data: DataConfig, *, where: str, preset: Preset | None = None
) -> ColumnSelection:
    """Select features and roles from the columns of a table.

    Args:
        kinds: column -> ``number``, ``boolean``, ``text``, ``list``, ``vector``, ``date``, ``empty``, ``index`` or ``other``.
        data: features, exclusions and roles by name.
        where: the file's name, for messages.
        preset: the usual names of features and roles in such a table.

    Raises:
        ConfigurationError: a named column does not exist.
        DataError: no column can be a feature.
    """
    require_columns(data.features, kinds, "data.features", where)
    require_columns(data.exclude, kinds, "data.exclude", where)
    for name in data.features:
        if kinds[name] in ("list", "date", "other") and name not in data.categorical:
            raise ConfigurationError(f"data.features: {name!r} holds no numbers ({kinds[name]}); leave it out")
    encoded = _encoded(kinds, data, where)
    roles = _roles(kinds, data.roles, where, preset)
    if data.weight is not None:
        roles[WEIGHT] = _weight(kinds, data.weight, roles, where)
    if data.features:
        features = [name for name in dict.fromkeys(data.features) if name not in data.exclude]
    elif preset:
        features = [name for name in _preset_features(kinds, preset) if name not in data.exclude]
    else:
        features = [name for name in kinds if not _exclusion_reason(name, kinds, data, roles)]
    vectors = tuple(name for name in features if kinds[name] == "vector")
    features = [name for name in features if kinds[name] != "vector" and name not in encoded]
    if not features and not encoded and not data.features and not preset:
        vectors = _only_vectors(kinds, data, roles)
    selected = {*features, *vectors, *encoded}
    left_out = tuple(
        ExcludedColumn(name, _exclusion_reason(name, kinds, data, roles, preset) or "not named in data.features")
        for name in kinds
        if name not in selected
    )
    if not features and not vectors and not encoded:
        wanted = f"{preset.feature_kind} (preset {preset.name})" if preset else "numeric column"
        seen = "; ".join(f"{out.column}: {out.reason}" for out in left_out[:8])
        raise DataError(f"{where} has no {wanted} to cluster; name columns in data.features ({seen})")
    if len(features) > MAX_FEATURES:
        raise DataError(
            f"{where} has {len(features):,} columns of numbers, more than the {MAX_FEATURES:,} that a job takes; name some in "
            "data.features, or reduce them to fewer columns before"
        )
    explicit = bool(data.features)
    from_preset = bool(preset) and not explicit
    return ColumnSelection(roles, tuple(features), left_out, explicit, from_preset, vectors, encoded)


def _weight(kinds: Mapping[str, str], wanted: str, roles: Mapping[str, str], where: str) -> str:
    """The column of ``data.weight``: that of the role of this name, else the column. Raises ConfigurationError."""
    name = roles.get(wanted, wanted)
    require_columns([name], kinds, "data.weight", where)
    if kinds[name] not in ("number", "boolean"):
        raise ConfigurationError(
            f"data.weight={wanted}: {name!r} holds no numbers ({kinds[name]}); name another column"
        )
    return name


def _encoded(kinds: Mapping[str, str], data: DataConfig, where: str) -> tuple[str, ...]:
    """The columns of ``data.categorical`` and ``data.circular``. Raises ConfigurationError for one that does not exist, or has another kind."""
    require_columns(data.categorical, kinds, "data.categorical", where)
    require_columns(data.circular, kinds, "data.circular", where)
    for name in data.categorical:
        if kinds[name] not in ("text", "number", "boolean", "empty"):
            raise ConfigurationError(f"data.categorical: {name!r} holds no categories ({kinds[name]}); leave it out")
    for name in data.circular:
        if kinds[name] != "number":
            raise ConfigurationError(f"data.circular.{name}: the column holds no numbers ({kinds[name]}); leave it out")
    return tuple(name for name in dict.fromkeys([*data.categorical, *data.circular]) if name not in data.exclude)


def _only_vectors(kinds: Mapping[str, str], data: DataConfig, roles: Mapping[str, str]) -> tuple[str, ...]:
    """The column of vectors of a table that has one and no column of numbers."""
    found = [n for n, kind in kinds.items() if kind == "vector" and n not in {*data.exclude, *roles.values()}]
    return tuple(found) if len(found) == 1 else ()


def require_columns(names: Collection[str], known: Collection[str], key: str, where: str) -> None:
    """Raise ConfigurationError for a name that is not among the columns of a table; ``key`` is the key that names it."""
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f"; it has {', '.join(list(known)[:12])}"
            raise ConfigurationError(f"{key}: {where} has no column {name!r}{hint}")


def _roles(kinds: Mapping[str, str], named: RolesConfig, where: str, preset: Preset | None) -> dict[str, str]:
    """Role -> column: the configured names first, then the names of the preset, or without a preset a column called id."""
    roles = {role: name for role in ROLE_NAMES if (name := getattr(named, role))}
    for role, name in roles.items():
        require_columns([name], kinds, f"data.roles.{role}", where)
    columns = {
        normalise_name(name): name for name in reversed(list(kinds)) if kinds[name] not in ("index", "vector", "other")
    }
    for role, names in (preset.roles if preset else {"id": ("id",)}).items():
        free = (columns[alias] for alias in names if alias in columns and columns[alias] not in roles.values())
        column = next(free, None)
        if column is not None:
            roles.setdefault(role, column)
    return {role: roles[role] for role in ROLE_NAMES if role in roles}


def id_candidates(selection: ColumnSelection, keys: Sequence[str], kinds: Mapping[str, str]) -> IdCandidates:
    """The columns that may be the id if no column has that role: those of ``keys`` that are not in use otherwise.

    `gpuclust.data.read` decides by all of their values. A column that the user lists as a feature is not a candidate.
    """
    if "id" in selection.roles:
        return IdCandidates()
    taken = {
        *selection.roles.values(),
        *selection.vectors,
        *selection.encoded,
        *(selection.features if selection.explicit else ()),
    }
    free = [name for name in keys if name not in taken]
    named = [name for name in free if ID_NAME.search(normalise_name(_CAMEL.sub("_", name)))]
    return IdCandidates(tuple(named), tuple(n for n in free if kinds[n] == "text" and n not in named))


def _preset_features(kinds: Mapping[str, str], preset: Preset) -> list[str]:
    columns = {normalise_name(name): name for name in reversed(list(kinds)) if kinds[name] in ("number", "empty")}
    found = (next((columns[a] for a in aliases if a in columns), None) for aliases in preset.features.values())
    return [name for name in found if name is not None]


def matches_preset(kinds: Mapping[str, str], preset: Preset) -> bool:
    """Whether a table has the roles that a preset requires, in columns that are not numbers, and half of its features."""
    roles = _roles({n: k for n, k in kinds.items() if k != "number"}, RolesConfig(), "", preset)
    return preset.required_roles <= roles.keys() and 2 * len(_preset_features(kinds, preset)) >= len(preset.features)


def _exclusion_reason(
    name: str, kinds: Mapping[str, str], data: DataConfig, roles: Mapping[str, str], preset: Preset | None = None
) -> str | None:
    """Why a column is not a feature unless the user names it; None if it can be one."""
    if name in data.exclude:
        return "excluded by data.exclude"
    if kinds[name] == "index":
        return "numbers the rows"
    role = next((role for role, column in roles.items() if column == name), None)
    if role is not None:
        return f"role {role}"
    if kinds[name] == "vector":
        return "a list of numbers; name it in data.features to use it"
    if kinds[name] not in ("number", "empty"):
        return kinds[name]
    if data.features:
        return "not named in data.features"
    if preset and normalise_name(name) in preset.categories:
        return "a category written as a number; name it in data.features to use it"
    return f"not an {preset.feature_kind}; name it in data.features to use it" if preset else None
