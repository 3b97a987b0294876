"""Playlists: the items nearest to the centre of a cluster, to liked items, or to target values of features (a taste).

Candidates are sorted by distance, ties by popularity. A greedy selection takes items that are near and differ from those
already selected (maximal marginal relevance; Carbonell and Goldstein, SIGIR 1998), with a maximum per creator and one item
per recording (same title and creator). The selected items are listed nearest first. The same input gives the same list.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuclust.errors import InputError
from gpuclust.model.records import NOISE

if TYPE_CHECKING:
    from gpuclust.serve.library import Library
    from gpuclust.serve.records import Item

SIZE, PER_CREATOR, DIVERSITY = 30, 2, 0.3
MAX_PLAYLIST_ITEMS = 500  # items of a playlist
CANDIDATES_PER_ITEM = 8  # in the first attempt
BLOCK_ROWS = 16_384
MARGIN = 0.05  # share of the range of a feature by which a target value may exceed it
MAX_NAMED = 4  # features in the name of a playlist


@dataclass(frozen=True)
class PlaylistEntry:
    """An item of a playlist and its distance to the request.

    The distance is Euclidean in the prepared feature space; for a cluster it is the distance to the centre in the export, or
    1 - confidence if the algorithm has no centres.
    """

    item: Item
    distance: float


@dataclass(frozen=True)
class Playlist:
    """A named list of items, nearest first.

    ``notes`` explain how the list differs from the request (a title with several creators, fewer items than requested);
    ``made_from`` is the request, ready for JSON.
    """

    name: str
    entries: tuple[PlaylistEntry, ...]
    notes: tuple[str, ...] = ()
    made_from: Mapping[str, Any] = field(default_factory=dict)

    @property
    def items(self) -> tuple[Item, ...]:
        """The items in the order of the list."""
        return tuple(entry.item for entry in self.entries)

    def to_dict(self) -> dict[str, Any]:
        """Convert to a dictionary for JSON.

        ``distance`` is the distance to the request, ``distance_to_centre`` that to the centre of the item's cluster.
        """
        items = []
        for position, entry in enumerate(self.entries, 1):
            item = entry.item.to_dict()
            to_centre = {"distance_to_centre": item.pop("distance")}
            distance = entry.distance if math.isfinite(entry.distance) else None
            items.append({"position": position, "distance": distance} | item | to_centre)
        return {"name": self.name, "made_from": dict(self.made_from), "notes": list(self.notes), "items": items}


@dataclass(frozen=True)
class PlaylistOptions:
    """Options of the selection.

    ``size`` in [1, 500]; ``per_creator`` is the maximum number of items of a creator, None for no limit; ``diversity`` in
    [0, 1]: 0 selects the nearest items, larger values prefer items that differ from those already selected.
    """

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


# Returns the given number of nearest candidates, or all.
CandidateSource = Callable[[int], Candidates]


def from_cluster(
    library: Library, cluster: int, options: PlaylistOptions = PlaylistOptions(), *, popular: bool = False
) -> Playlist:
    """Make a playlist of a cluster, nearest to its centre first, or the most popular first (regardless of the diversity).

    Raises NotFound for an unknown cluster, and InputError for ``popular`` where the export has no popularity.
    """
    described = library.cluster(cluster)
    if popular and not library.has("popularity"):
        raise InputError("the export has no popularity; data.roles.popularity=COLUMN names its column in a job")

    def distances(ranks: np.ndarray) -> np.ndarray:
        away = np.asarray(library.column("distance")[ranks], dtype=np.float64)
        unsure = 1 - np.asarray(library.column("confidence")[ranks], dtype=np.float64)
        return np.nan_to_num(np.where(np.isnan(away), unsure, away), nan=math.inf)

    def nearest(count: int) -> Candidates:
        ranks = library.cluster_ranks(cluster, "central", limit=count)
        return Candidates(ranks, distances(ranks))

    def most_popular(count: int) -> Candidates:
        ranks = library.cluster_ranks(cluster, "popular", limit=count)
        return Candidates(ranks, np.arange(len(ranks), dtype=np.float64))

    if not popular:
        chosen = choose(library, nearest, described.size, options)
        return _playlist(described.name, chosen, options, {"cluster": cluster})
    chosen = choose(library, most_popular, described.size, replace(options, diversity=0.0))
    away = distances(np.array([entry.item.rank for entry in chosen], dtype=np.int64))
    chosen = tuple(PlaylistEntry(entry.item, float(d)) for entry, d in zip(chosen, away, strict=True))
    return _playlist(described.name, chosen, options, {"cluster": cluster, "popular": True})


def from_liked(
    library: Library,
    likes: Sequence[str],
    options: PlaylistOptions = PlaylistOptions(),
    *,
    within_cluster: bool = False,
) -> Playlist:
    """Make a playlist near liked items, each given by id or by words of its title and creator, without these items.

    Distances are to the nearest liked item. ``within_cluster`` selects only from the clusters of the liked items. Raises
    NotFound if an item cannot be found, InputError if none is given.
    """
    if not likes:
        raise InputError("no liked item was given; name at least one by id or title")
    resolved = [library.resolve(text) for text in likes]
    liked = list(dict.fromkeys(rank for rank, _ in resolved))
    items, points = library.at(liked), library.points(liked)
    clusters = sorted({item.cluster for item in items}) if within_cluster else [None]

    def nearest(count: int) -> Candidates:
        # The `count` items nearest to any liked item are among the `count` nearest to each of them.
        near = [library.nearest(point, count, cluster=c) for point in points for c in clusters]
        ranks = np.unique(np.concatenate([ranks for ranks, _ in near]))
        return nearest_of(library, ranks, points, count)

    available = len(library) if not within_cluster else sum(library.cluster(c).size for c in clusters if c is not None)
    chosen = choose(library, nearest, available, options, without=items)
    name = f"Like {items[0].title or items[0].id}{f' and {len(items) - 1} more' if len(items) > 1 else ''}"
    request = {"liked": [item.id for item in items], "within_cluster": within_cluster}
    return _playlist(name, chosen, options, request, [note for _, note in resolved if note])


def from_taste(
    library: Library,
    taste: Mapping[str, float],
    options: PlaylistOptions = PlaylistOptions(),
    *,
    cluster: int | None = None,
) -> Playlist:
    """Make a playlist near a taste: target values of some features in original units.

    Distances are over these features only, scaled as in the model. Raises InputError for an unknown feature or a value
    outside the range of the feature in the export, NotFound for an unknown cluster.
    """
    wanted = _checked(library, taste)
    names = list(wanted)
    at = [library.features.index(name) for name in names]
    preparation = library.model.preparation
    scaling = preparation.scaling
    offset, scale = scaling.offset[at], scaling.scale[at]
    if cluster is None:
        ranks = np.arange(len(library), dtype=np.int32)
    else:
        ranks = library.cluster_ranks(cluster, "popular", limit=library.cluster(cluster).size)
    columns = [library.column(name) if cluster is None else library.column(name)[ranks] for name in names]
    targets = [wanted[name] for name in names]
    for i, j in enumerate(at):
        if (transform := preparation.transforms.get(j)) is not None:
            columns[i] = transform.forward(np.asarray(columns[i], np.float64))
            targets[i] = float(transform.forward(np.float64(targets[i])))
    squares = _squares(columns, targets, offset, scale)

    def nearest(count: int) -> Candidates:
        reach = np.partition(squares, min(count, len(squares)) - 1)[min(count, len(squares)) - 1]
        near = np.flatnonzero(squares <= reach)
        best = near[np.lexsort((ranks[near], squares[near]))[:count]]
        return Candidates(ranks[best], np.sqrt(squares[best]))

    chosen = choose(library, nearest, len(ranks), options)
    return _playlist(_name_of_taste(wanted, cluster), chosen, options, {"taste": wanted, "cluster": cluster})


def _name_of_taste(wanted: Mapping[str, float], cluster: int | None) -> str:
    """``energy 0.8, valence 0.6 in cluster 3``; three digits of each value, the first few features."""
    parts = [_target(feature, value) for feature, value in wanted.items()]
    name = ", ".join(parts[:MAX_NAMED]) + (f" and {len(parts) - MAX_NAMED} more" if len(parts) > MAX_NAMED else "")
    return name if cluster is None else f"{name} in {'the noise' if cluster == NOISE else f'cluster {cluster}'}"


def _target(feature: str, value: float) -> str:
    """A feature and its target value; a length in milliseconds as minutes and seconds."""
    if feature.lower().endswith("duration_ms") and 0 <= value < 1e9:
        return f"{feature[:-3].replace('_', ' ')} {round(value / 1000) // 60}:{round(value / 1000) % 60:02}"
    return f"{feature.replace('_', ' ')} {_short(value)}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _squares(
    columns: Sequence[np.ndarray], wanted: Sequence[float], middle: np.ndarray, spread: np.ndarray
) -> np.ndarray:
    """(n,) squared distances of rows, given by column, to target values in units of ``spread``.

    A missing value is replaced by the ``middle``. Rows are processed in blocks that fit into the processor's cache.
    """
    squares = np.zeros(len(columns[0]))
    for start in range(0, len(squares), BLOCK_ROWS):
        block = squares[start : start + BLOCK_ROWS]
        for column, value, centre, unit in zip(columns, wanted, middle, spread, strict=True):
            away = column[start : start + BLOCK_ROWS] - value
            away[np.isnan(away)] = centre - value
            away /= unit
            away *= away
            block += away
    return squares


def nearest_of(library: Library, ranks: np.ndarray, points: np.ndarray, count: int) -> Candidates:
    """The ``count`` ranks with the smallest distance to any of the points (n_points, n_columns)."""
    own = library.points(ranks)
    distances = np.sqrt(np.min([((own - point) ** 2).sum(axis=1) for point in points], axis=0))
    best = np.lexsort((ranks, distances))[:count]
    return Candidates(ranks[best], distances[best])


def choose(
    library: Library, source: CandidateSource, available: int, options: PlaylistOptions, without: Iterable[Item] = ()
) -> tuple[PlaylistEntry, ...]:
    """Select from the nearest candidates; take more candidates until the list is full or no candidate is left."""
    without = tuple(without)
    count = CANDIDATES_PER_ITEM * options.size + len(without)
    while True:
        count = min(count, available)
        candidates = source(count) if count else Candidates(np.empty(0, np.int32), np.empty(0))
        picked = _greedy(library, candidates, options, without)
        if len(picked) == options.size or count >= available:
            break
        count *= 4
    picked = np.sort(picked)  # candidates are sorted by distance
    items = library.at(candidates.ranks[picked])
    return tuple(PlaylistEntry(item, float(d)) for item, d in zip(items, candidates.distances[picked], strict=True))


def _greedy(library: Library, candidates: Candidates, options: PlaylistOptions, without: Sequence[Item]) -> np.ndarray:
    """Positions of the selected candidates, in the order of selection."""
    liked = np.array(sorted(item.rank for item in without), dtype=np.int64)
    recordings, creators = library.recording_of(candidates.ranks), library.creator_keys(candidates.ranks)
    free = ~np.isin(recordings, library.recording_of(liked))
    same_creator = _positions_by_key(creators)
    points = library.points(candidates.ranks) if options.diversity else np.empty((len(recordings), 0))
    near, alike, spread = _relevance(candidates.distances), np.zeros(len(recordings)), 0.0
    counts: Counter[str] = Counter()
    chosen: list[int] = []
    while len(chosen) < options.size and free.any():
        gain = (1 - options.diversity) * near - options.diversity * alike
        best = int(np.argmax(np.where(free, gain, -np.inf)))
        chosen.append(best)
        free[recordings == recordings[best]] = False
        counts.update(creators[best])
        for creator in creators[best]:
            if options.per_creator is not None and counts[creator] >= options.per_creator:
                free[same_creator[creator]] = False
        if options.diversity:
            away = np.sqrt(((points - points[best]) ** 2).sum(axis=1))
            spread = spread or float(np.median(away)) or 1.0
            alike = np.maximum(alike, 1 / (1 + away / spread))
    return np.array(chosen, dtype=np.int64)


def _positions_by_key(keys: Sequence[Iterable[Any]]) -> dict[Any, list[int]]:
    places: dict[Any, list[int]] = {}
    for i, own in enumerate(keys):
        for key in own:
            places.setdefault(key, []).append(i)
    return places


def _relevance(distances: np.ndarray) -> np.ndarray:
    """Convert distances to a relevance in [0, 1], 0.5 at the median distance."""
    finite = distances[np.isfinite(distances)]
    middle = float(np.median(finite)) if len(finite) else 0.0
    return np.asarray(1 / (1 + distances / (middle or 1.0)))


def taste_range(library: Library, feature: str) -> tuple[float, float]:
    """The target values allowed for a feature: its range in the export, extended by 5 % at both ends."""
    low, high = library.range_of(feature)
    margin = MARGIN * (high - low)
    return low - margin, high + margin


def _checked(library: Library, taste: Mapping[str, float]) -> dict[str, float]:
    if not taste:
        raise InputError(f"no taste was given; name some of {library.listed_features}")
    for name, value in taste.items():
        library.require_feature(name)
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(f"{name}={value!r} is not a number")
        low, high = taste_range(library, name)
        if not low <= value <= high:
            least, most = library.range_of(name)
            raise InputError(
                f"{name}={value:g} is outside the range of {name} in this export, {least:.6g} to {most:.6g}"
            )
    return {name: float(taste[name]) for name in library.features if name in taste}


def _playlist(
    name: str,
    chosen: tuple[PlaylistEntry, ...],
    options: PlaylistOptions,
    request: dict[str, Any],
    notes: Sequence[str] = (),
) -> Playlist:
    fewer = (
        [f"{len(chosen)} items, not {options.size}: nothing more meets the rules"] if len(chosen) < options.size else []
    )
    request |= {"size": options.size, "per_creator": options.per_creator, "diversity": options.diversity}
    return Playlist(name, chosen, (*notes, *fewer), request)
