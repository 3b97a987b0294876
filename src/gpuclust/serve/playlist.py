"""Playlists: the nearest items to a cluster's centre, to liked items or to a taste, without repeating itself.

Candidates come nearest first, equal distances by popularity. A greedy choice then takes what is near and unlike what it
has (maximal marginal relevance; Carbonell and Goldstein, SIGIR 1998), at most so many of a creator and one of a
recording (the same title and creator). What was chosen is listed nearest first. The same input gives the same list.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from gpuclust.errors import InputError
from gpuclust.model.records import NOISE
from gpuclust.serve.id_suggestions import near_names
from gpuclust.serve.library import Library
from gpuclust.serve.records import Item, NotFound, plain
from gpuclust.serve.text import fold, fold_one, names_in

SIZE, PER_CREATOR, DIVERSITY = 30, 2, 0.3
MAX_PLAYLIST_ITEMS = 500  # items of a playlist
POOL = 8  # candidates for each item wanted, at first
BLOCK = 16_384  # rows at a time
SLACK = 0.05  # of a feature's range, that a taste may be beyond it
NAMED, LISTED = 4, 40  # features in a list's name, in an error


@dataclass(frozen=True)
class Taken:
    """An item of a playlist and its distance from what was asked for: Euclidean in the prepared feature space; from a
    cluster, the export's own distance to the centre, or 1 - confidence where the algorithm has no centres."""

    item: Item
    distance: float


@dataclass(frozen=True)
class Playlist:
    """A named list, nearest first. ``notes`` say what a person should know of how it was made (a title that several
    creators have, fewer items than asked for); ``made_from`` is the request, ready for JSON."""

    name: str
    taken: tuple[Taken, ...]
    notes: tuple[str, ...] = ()
    made_from: Mapping[str, Any] = field(default_factory=dict)

    @property
    def items(self) -> tuple[Item, ...]:
        """The items, in order."""
        return tuple(taken.item for taken in self.taken)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON. The ``distance`` of a place in the list is from what was asked for; that of its
        item to the centre of its own cluster is ``distance_to_centre``."""
        listed = []
        for position, taken in enumerate(self.taken, 1):
            own = taken.item.to_dict()
            to_centre = {"distance_to_centre": own.pop("distance")}
            listed.append({"position": position, "distance": taken.distance} | own | to_centre)
        return dict(plain({"name": self.name, "made_from": self.made_from, "notes": self.notes, "items": listed}))


@dataclass(frozen=True)
class Rules:
    """How a list is chosen. ``size`` in [1, 500]; ``per_creator`` at most so many of each creator, None for no limit;
    ``diversity`` in [0, 1]: 0 takes the nearest, more prefers items unlike those it has."""

    size: int = SIZE
    per_creator: int | None = PER_CREATOR
    diversity: float = DIVERSITY

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MAX_PLAYLIST_ITEMS:
            raise InputError(f"size={self.size} is not in 1..{MAX_PLAYLIST_ITEMS}")
        if self.per_creator is not None and self.per_creator < 1:
            raise InputError(f"per_creator={self.per_creator} is less than 1; leave the limit out for none")
        if not 0 <= self.diversity <= 1:
            raise InputError(f"diversity={self.diversity} is not in [0, 1]")


@dataclass(frozen=True)
class Candidates:
    """Ranks (n,), nearest first, and their distances (n,)."""

    ranks: np.ndarray
    distances: np.ndarray


# The nearest so many candidates, or all there are.
Source = Callable[[int], Candidates]


def from_cluster(library: Library, cluster: int, rules: Rules = Rules()) -> Playlist:
    """A playlist of a cluster, nearest to its centre first. Raises NotFound for an unknown cluster."""
    known = library.cluster(cluster)

    def source(count: int) -> Candidates:
        ranks = library.cluster_ranks(cluster, "central", limit=count)
        away = np.asarray(library.column("distance")[ranks], dtype=np.float64)
        unsure = 1 - np.asarray(library.column("confidence")[ranks], dtype=np.float64)
        return Candidates(ranks, np.nan_to_num(np.where(np.isnan(away), unsure, away), nan=math.inf))

    chosen = choose(library, source, known.size, rules)
    return _playlist(known.name, chosen, rules, {"cluster": cluster})


def from_liked(
    library: Library,
    likes: Sequence[str],
    rules: Rules = Rules(),
    *,
    within_cluster: bool = False,
) -> Playlist:
    """A playlist near liked items, each given by id or by words of its title and creator; they are not in it themselves.

    Distances are to the nearest liked item. ``within_cluster`` keeps to the clusters of the liked items. Raises NotFound
    when one cannot be found, InputError when none is given.
    """
    if not likes:
        raise InputError("no liked item was given; name at least one by id or title")
    resolved = [resolve(library, text) for text in likes]
    liked = list(dict.fromkeys(rank for rank, _ in resolved))
    items, points = library.at(liked), library.points(liked)
    clusters = sorted({item.cluster for item in items}) if within_cluster else [None]

    def source(count: int) -> Candidates:
        # The nearest `count` to the nearest liked are among the nearest `count` to each.
        near = [library.nearest(point, count, cluster=c) for point in points for c in clusters]
        ranks = np.unique(np.concatenate([ranks for ranks, _ in near]))
        return nearest_of(library, ranks, points, count)

    available = len(library) if not within_cluster else sum(library.cluster(c).size for c in clusters if c is not None)
    chosen = choose(library, source, available, rules, without=items)
    name = f"Like {items[0].title or items[0].id}{f' and {len(items) - 1} more' if len(items) > 1 else ''}"
    asked = {"liked": [item.id for item in items], "within_cluster": within_cluster}
    return _playlist(name, chosen, rules, asked, [note for _, note in resolved if note])


def from_taste(
    library: Library,
    taste: Mapping[str, float],
    rules: Rules = Rules(),
    *,
    cluster: int | None = None,
) -> Playlist:
    """A playlist near a taste: wanted values of some features in original units; unnamed features are ignored.

    Distances are over the named features, scaled as the model scales them. Raises InputError for an unknown feature or a
    value that is not within the feature's range in the export, NotFound for an unknown cluster.
    """
    wanted = _checked(library, taste)
    names = list(wanted)
    at = [library.features.index(name) for name in names]
    offset, scale = library.space.offset[at], library.space.scale[at]
    if cluster is None:
        ranks = np.arange(len(library), dtype=np.int32)
    else:
        ranks = library.cluster_ranks(cluster, "popular", limit=library.cluster(cluster).size)
    columns = [library.column(name) if cluster is None else library.column(name)[ranks] for name in names]
    squares = _squares(columns, [wanted[name] for name in names], offset, scale)

    def source(count: int) -> Candidates:
        reach = np.partition(squares, min(count, len(squares)) - 1)[min(count, len(squares)) - 1]
        near = np.flatnonzero(squares <= reach)
        best = near[np.lexsort((ranks[near], squares[near]))[:count]]
        return Candidates(ranks[best], np.sqrt(squares[best]))

    chosen = choose(library, source, len(ranks), rules)
    return _playlist(_name_of_taste(wanted, cluster), chosen, rules, {"taste": wanted, "cluster": cluster})


def _name_of_taste(wanted: Mapping[str, float], cluster: int | None) -> str:
    """``energy 0.8, valence 0.6 in cluster 3``; three digits of each value, the first few features."""
    parts = [f"{feature.replace('_', ' ')} {_short(value)}" for feature, value in wanted.items()]
    name = ", ".join(parts[:NAMED]) + (f" and {len(parts) - NAMED} more" if len(parts) > NAMED else "")
    return name if cluster is None else f"{name} in {'the noise' if cluster == NOISE else f'cluster {cluster}'}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _squares(
    columns: Sequence[np.ndarray], wanted: Sequence[float], middle: np.ndarray, spread: np.ndarray
) -> np.ndarray:
    """(n,) squared distances of rows, given by column, from wanted values in units of ``spread``; a missing value is in the
    ``middle``. Some thousand rows at a time stay in the processor's cache."""
    squares = np.zeros(len(columns[0]))
    for start in range(0, len(squares), BLOCK):
        block = squares[start : start + BLOCK]
        for column, value, centre, unit in zip(columns, wanted, middle, spread, strict=True):
            away = column[start : start + BLOCK] - value
            away[np.isnan(away)] = centre - value
            away /= unit
            away *= away
            block += away
    return squares


def resolve(library: Library, text: str) -> tuple[int, str]:
    """The rank of the item that an id, or words of a title and creator, mean; and a note where it is not just what was typed.

    Raises NotFound with what comes nearest when the best match lacks a good part of the words.
    """
    try:
        return library.rank_of(text), ""
    except NotFound as missing:
        found = library.search(text, limit=5)
        if not found.hits or found.hits[0].score < 0.6:
            near = tuple(f"“{hit.item.label}”" for hit in found.hits[:3])
            raise NotFound(f"nothing is called {text[:100]!r}", near or missing.suggestions) from missing
        best, typed = found.hits[0].item, fold_one(text)
        title, creator = fold_one(best.title), fold_one(best.creator)
        if typed == title and found.hits[0].other_creators:
            others = ", ".join(found.hits[0].other_creators[:5])
            return (
                best.rank,
                f"took “{best.label}”; also by {others}: name the creator, or give the id {best.id}, to choose",
            )
        exact = typed in (title, f"{title} {creator}", f"{creator} {title}", fold_one(best.label))
        return best.rank, "" if exact else f"took “{best.label}” for {text[:100]!r}"


def nearest_of(library: Library, ranks: np.ndarray, points: np.ndarray, count: int) -> Candidates:
    """The ``count`` of some ranks nearest to the nearest of points (n_points, n_columns)."""
    own = library.points(ranks)
    distances = np.sqrt(np.min([((own - point) ** 2).sum(axis=1) for point in points], axis=0))
    best = np.lexsort((ranks, distances))[:count]
    return Candidates(ranks[best], distances[best])


def choose(
    library: Library, source: Source, available: int, rules: Rules, without: Iterable[Item] = ()
) -> tuple[Taken, ...]:
    """Choose from the nearest candidates, looking farther until the list is full or nothing is left."""
    without = tuple(without)
    count = POOL * rules.size + len(without)
    while True:
        count = min(count, available)
        candidates = source(count) if count else Candidates(np.empty(0, np.int32), np.empty(0))
        picked = _greedy(library, candidates, rules, without)
        if len(picked) == rules.size or count >= available:
            break
        count *= 4
    picked = np.sort(picked)  # candidates are nearest first, so places in them are too
    items = library.at(candidates.ranks[picked])
    return tuple(Taken(item, float(d)) for item, d in zip(items, candidates.distances[picked], strict=True))


def _greedy(library: Library, candidates: Candidates, rules: Rules, without: Sequence[Item]) -> np.ndarray:
    """Places of the chosen candidates, in the order chosen."""
    liked = np.array(sorted(item.rank for item in without), dtype=np.int64)
    recordings, creators = library.recording_of(candidates.ranks), _creators(library, candidates.ranks)
    free = ~np.isin(recordings, library.recording_of(liked))
    same_creator = _places_of_each(creators)
    points = library.points(candidates.ranks) if rules.diversity else np.empty((len(recordings), 0))
    near, alike, spread = _relevance(candidates.distances), np.zeros(len(recordings)), 0.0
    counts: Counter[str] = Counter()
    chosen: list[int] = []
    while len(chosen) < rules.size and free.any():
        gain = (1 - rules.diversity) * near - rules.diversity * alike
        best = int(np.argmax(np.where(free, gain, -np.inf)))
        chosen.append(best)
        free[recordings == recordings[best]] = False
        counts.update(creators[best])
        for creator in creators[best]:
            if rules.per_creator is not None and counts[creator] >= rules.per_creator:
                free[same_creator[creator]] = False
        if rules.diversity:
            away = np.sqrt(((points - points[best]) ** 2).sum(axis=1))
            spread = spread or float(np.median(away)) or 1.0
            alike = np.maximum(alike, 1 / (1 + away / spread))
    return np.array(chosen, dtype=np.int64)


def _places_of_each(keys: Sequence[Iterable[Any]]) -> dict[Any, list[int]]:
    places: dict[Any, list[int]] = {}
    for i, own in enumerate(keys):
        for key in own:
            places.setdefault(key, []).append(i)
    return places


def _relevance(distances: np.ndarray) -> np.ndarray:
    """Distances as nearness in [0, 1], half at the median candidate."""
    finite = distances[np.isfinite(distances)]
    middle = float(np.median(finite)) if len(finite) else 0.0
    return np.asarray(1 / (1 + distances / (middle or 1.0)))


def _creators(library: Library, ranks: np.ndarray) -> list[frozenset[str]]:
    """The creators of each item, folded."""
    written = library.rows["creator"].take(pa.array(ranks, pa.int64())).to_pylist()
    names = [names_in(text) for text in written]
    flat = sorted({name for own in names for name in own})
    # All at once, as a call takes a millisecond however few texts there are.
    keys = dict(zip(flat, fold(pa.array(flat, pa.string())).to_pylist(), strict=True))
    return [frozenset(keys[name] for name in own) for own in names]


def taste_range(library: Library, feature: str) -> tuple[float, float]:
    """The values of a feature that a taste may have: its range in the export, 5 % wider at both ends."""
    low, high = library.range_of(feature)
    slack = SLACK * (high - low)
    return low - slack, high + slack


def _checked(library: Library, taste: Mapping[str, float]) -> dict[str, float]:
    if not taste:
        raise InputError(f"no taste was given; name some of {_listed(library.features)}")
    for name, value in taste.items():
        if name not in library.features:
            near = near_names(name, library.features)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise InputError(
                f"there is no feature {name[:100]!r}{hint}{' The' if hint else '; the'} features are {_listed(library.features)}"
            )
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(f"{name}={value!r} is not a number")
        low, high = taste_range(library, name)
        if not low <= value <= high:
            least, most = library.range_of(name)
            raise InputError(
                f"{name}={value:g} is outside the range of {name} in this export, {least:.6g} to {most:.6g}"
            )
    return {name: float(taste[name]) for name in library.features if name in taste}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _playlist(
    name: str, chosen: tuple[Taken, ...], rules: Rules, asked: dict[str, Any], notes: Sequence[str] = ()
) -> Playlist:
    fewer = [f"{len(chosen)} items, not {rules.size}: nothing more meets the rules"] if len(chosen) < rules.size else []
    asked |= {"size": rules.size, "per_creator": rules.per_creator, "diversity": rules.diversity}
    return Playlist(name, chosen, (*notes, *fewer), asked)
