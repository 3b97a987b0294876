"""`Library`: search, items, clusters, neighbours and averages of an export.

    with Library.open("out/") as library:
        library.search("beyonce crazy in luv").hits[0].item.label
        library.cluster_items(2, pick="random", seed=7).items
        library.similar("4uLU6hMCjMI75M1A2tKUQC", 10)

A library reads the export folder only. Its results are frozen records of plain values (`gpuclust.serve.records`). A library
can be used by several threads.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from gpuclust.errors import ExportError, InputError
from gpuclust.model.bundle import Bundle
from gpuclust.model.manifest import MODEL, Manifest, read_manifest
from gpuclust.model.records import NOISE, Cluster, Example
from gpuclust.serve import averages as means
from gpuclust.serve import search as searching
from gpuclust.serve.export_info import describe_numbers, export_info
from gpuclust.serve.export_reader import read_clusters
from gpuclust.serve.id_suggestions import near_ids, near_names
from gpuclust.serve.index.build import Progress
from gpuclust.serve.index.locate import find_or_build, size_of
from gpuclust.serve.index.open import CLOSED, Index, open_index
from gpuclust.serve.permutation import permuted
from gpuclust.serve.records import Average, Averages, By, ExportInfo, Hit, Item, Neighbour, NotFound, Page, SearchResult
from gpuclust.serve.text import fold, fold_one, names_in
from gpuclust.tracks.links import track_id

Pick = Literal["popular", "central", "random"]
MAX_ITEMS = 1_000  # items per call
MAX_LISTED_FEATURES = 40  # features listed in an error
MIN_MATCH_SCORE = 0.6  # of a search result that identifies an item
EXAMPLES = 5


class Library:
    """An open export; see `Library.open`."""

    def __init__(self, manifest: Manifest, model: Bundle, clusters: Mapping[int, Cluster], index: Index) -> None:
        self._manifest, self._open_index, self._clusters = manifest, index, dict(clusters)
        self._closed = False
        self._with_examples: set[int] = set()
        # The ids of the generated catalogue have the form of Spotify's, and rows that are no tracks may have ids like them.
        data = (manifest.text.get("config") or {}).get("data")
        generated = isinstance(data, Mapping) and data.get("source") == "catalogue"
        self._may_be_tracks = not generated and bool({"title", "creator"} & manifest.roles.keys())
        self._ranges: dict[str, tuple[float, float]] = {}
        self.model = model

    @classmethod
    def open(cls, folder: str | Path, progress: Progress | None = None) -> Library:
        """Open an export folder; the first call builds its index.

        ``progress`` is called with the stage and the share done, in [0, 1], while an index is built. Raises ExportError or
        ModelError if the folder is not an export or is damaged, or if no index can be written.
        """
        manifest = read_manifest(Path(folder))
        model = Bundle.load_preparation(manifest.folder / MODEL)
        if model.features != manifest.model_features:
            raise ExportError(f"{folder} is damaged: its model has other features than its manifest; export it again")
        clusters = read_clusters(manifest)
        report = progress or (lambda stage, done: None)
        path = find_or_build(manifest, report)
        try:
            index = open_index(path)
        except (OSError, ValueError, KeyError, TypeError, sqlite3.Error, pa.ArrowException):
            shutil.rmtree(path, ignore_errors=True)  # damaged: build it again
            index = open_index(find_or_build(manifest, report))
        return cls(manifest, model, clusters, index)

    def close(self) -> None:
        """Close the index. Any later call raises ExportError."""
        self._closed = True
        self._open_index.database.close()

    @property
    def _index(self) -> Index:
        if self._closed:
            raise ExportError(CLOSED)
        return self._open_index

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self._index.rows.num_rows)

    @property
    def folder(self) -> Path:
        """The export folder."""
        return self._manifest.folder

    @property
    def features(self) -> tuple[str, ...]:
        """The features that are columns, in the order of the model; the values of vectors are not in an export."""
        return tuple(self._manifest.features)

    @property
    def vectors(self) -> Mapping[str, int]:
        """The columns of vectors that the model takes, with their lengths."""
        return self._manifest.vectors

    @property
    def facts(self) -> ExportInfo:
        """Information about the export: its run, its sweep and warnings."""
        noise = self._clusters[NOISE].size if NOISE in self._clusters else 0
        return export_info(
            self._manifest, n_rows=len(self), n_noise=noise, n_clusters=sum(c >= 0 for c in self._clusters)
        )

    def has(self, role: str) -> bool:
        """Whether the export has a column for a role (title, creator, group, popularity, year or preview)."""
        return role in self._manifest.roles

    @property
    def index_bytes(self) -> int:
        """Size of the index on disk in bytes."""
        return size_of(self._index.folder)

    @property
    def axis_shares(self) -> tuple[float, float, float]:
        """The share of the variance of the prepared features on each axis of the map (x, y, z), in [0, 1]."""
        x, y, z = self._index.info["axis_shares"]
        return float(x), float(y), float(z)

    def range_of(self, feature: str) -> tuple[float, float]:
        """The minimum and maximum of a feature; NaN if it has no values."""
        if feature not in self._ranges:
            values = self.column(feature)
            known = values[np.isfinite(values)] if not np.isfinite(values).all() else values
            self._ranges[feature] = (float(known.min()), float(known.max())) if len(known) else (np.nan, np.nan)
        return self._ranges[feature]

    def require_feature(self, name: str) -> None:
        """Raise InputError with similar names if the export has no such feature."""
        if name in self.features:
            return
        near = near_names(name, self.features)
        hint = f"; did you mean {' or '.join(near)}? The" if near else "; the"
        raise InputError(f"there is no feature {name[:100]!r}{hint} features are {self.listed_features}")

    @property
    def listed_features(self) -> str:
        """The features for a message; of many, the first 40."""
        if not self.features:
            return f"the values of the vectors {', '.join(self._manifest.vectors)}, which the export does not hold"
        more = (
            f" and {len(self.features) - MAX_LISTED_FEATURES} more" if len(self.features) > MAX_LISTED_FEATURES else ""
        )
        return ", ".join(self.features[:MAX_LISTED_FEATURES]) + more

    def changed(self) -> bool:
        """Whether the export in the folder was replaced or removed since it was opened."""
        try:
            return read_manifest(self.folder).digest != self._manifest.digest
        except ExportError:
            return True

    # Items

    def item(self, id: str) -> Item:
        """The item with an id, the most popular one if the id is repeated. Raises NotFound with similar ids."""
        return self.at([self.rank_of(id)])[0]

    def rank_of(self, id: str) -> int:
        """The rank of the item with an id. Raises NotFound."""
        text = str(id).encode("utf-8", "replace").decode()
        ranks = self._index.database.column("select rank from items where id = ? order by rank limit 1", (text,))
        if not ranks:
            raise NotFound(f"there is no item {text[:100]!r}", near_ids(self._index, text))
        return int(ranks[0])

    def at(self, ranks: Iterable[int] | np.ndarray) -> tuple[Item, ...]:
        """The items with these ranks (by popularity, from 0), in the given order."""
        wanted = np.asarray(list(ranks) if not isinstance(ranks, np.ndarray) else ranks, dtype=np.int64)
        return tuple(self._item(rank, row) for rank, row in zip(wanted.tolist(), self._take(wanted), strict=True))

    def _take(self, ranks: np.ndarray) -> list[dict[str, Any]]:
        return list(self._index.rows.take(pa.array(ranks, pa.int64())).to_pylist())

    def _item(self, rank: int, row: dict[str, Any]) -> Item:
        cluster = row["cluster"]
        known = self._clusters.get(cluster)
        return Item(
            rank=rank,
            **{name: row[name] for name in _COPIED_COLUMNS},
            creators=names_in(row["creator"]),
            groups=tuple(g for g in row["groups"] if g is not None),
            cluster_name=known.name if known else "",
            features={f: row[f"f/{f}"] for f in self.features},
            **{name: row[f"x/{name}"] for name in ("album", "url", "duration_ms")},
            track=track_id(row["id"], row["x/url"]) if self._may_be_tracks else "",
        )

    def recording_of(self, ranks: np.ndarray) -> np.ndarray:
        """(n,) int32: for each rank, the rank of the most popular item with the same title and creator."""
        return self._index.recording[ranks]

    def points(self, ranks: Sequence[int] | np.ndarray) -> np.ndarray:
        """The points of items in the prepared feature space, of vectors in its first principal components: (len(ranks), n_columns) float64."""
        return self._index.tree.points_of(np.asarray(ranks, dtype=np.int64))

    @property
    def rows(self) -> pa.Table:
        """All items by rank as a memory-mapped Arrow table: ``id, title, creator, groups, popularity, year,
        preview, cluster, confidence, distance, x, y, z``, ``f/FEATURE`` for each feature, ``x/album, x/url, x/duration_ms``,
        and ``recording, repeat`` (see `gpuclust.serve.index.build.with_recordings`)."""
        return self._index.rows

    def column(self, name: str) -> np.ndarray:
        """(n_rows,) values by rank of a feature (float64), or of ``cluster`` (int32), ``x``, ``y``, ``z``,
        ``confidence``, ``distance`` (float32), ``popularity``, ``year`` (float64 with NaN where missing)."""
        column = self._index.rows[f"f/{name}" if name in self.features and name not in _NUMBER_COLUMNS else name]
        values = column.to_numpy()
        return values.astype(np.float64) if name in ("popularity", "year") else values

    # Clusters

    @property
    def clusters(self) -> tuple[Cluster, ...]:
        """All clusters by number, followed by the noise (-1) if there is any."""
        return tuple(self.cluster(c) for c in sorted(self._clusters, key=lambda c: (c < 0, c)))

    def cluster(self, cluster: int) -> Cluster:
        """A cluster with its profile. Raises NotFound with the existing clusters."""
        known = self._clusters.get(cluster)
        if known is None:
            raise NotFound(f"there is no cluster {cluster}; there are {describe_numbers(self._clusters)}")
        if cluster not in self._with_examples:
            known = self._clusters[cluster] = replace(
                known,
                representatives=self._examples(cluster, known.representatives, "central"),
                popular=self._examples(cluster, known.popular, "popular") if self.has("popularity") else (),
            )
            self._with_examples.add(cluster)
        return known

    def _examples(self, cluster: int, given: Sequence[Example], pick: Pick) -> tuple[Example, ...]:
        """The examples in the export, one per recording; without examples, the first items of the cluster."""
        try:
            ranks = np.array([self.rank_of(example.id) for example in given], dtype=np.int64)
        except NotFound:
            return tuple(given)
        if len(ranks):
            first = np.sort(np.unique(self._index.recording[ranks], return_index=True)[1])
            return tuple(given[i] for i in first)
        items = self.at(self.cluster_ranks(cluster, pick, limit=EXAMPLES, distinct=True))
        return tuple(Example(item.id, item.title, item.creator, item.popularity) for item in items)

    def cluster_items(
        self,
        cluster: int,
        *,
        pick: Pick = "popular",
        seed: int = 0,
        offset: int = 0,
        limit: int = 10,
        distinct: bool = False,
    ) -> Page:
        """A page of the items of a cluster.

        ``pick`` is the order: ``popular``, ``central`` (nearest to the centre first; most confident first if the algorithm
        has no centres) or ``random`` (determined by the seed, the same in every process). ``distinct`` returns only the most
        popular row of each recording (title and creator). A page has at most 1,000 items. Raises NotFound for an unknown
        cluster, ValueError for an unknown ``pick``.
        """
        if pick not in ("popular", "central", "random"):
            raise ValueError(f"pick={pick!r} is not one of popular, central, random")
        self.cluster(cluster)
        offset, limit = max(offset, 0), min(max(limit, 0), MAX_ITEMS)
        ranks = self.cluster_ranks(cluster, pick, seed=seed, offset=offset, limit=limit, distinct=distinct)
        run = self._index.runs.get(cluster, slice(0, 0))
        total = run.stop - run.start
        if distinct:
            total -= int(np.count_nonzero(self._index.repeat[self._index.popular[run]]))
        return Page(self.at(ranks), total, offset)

    def cluster_ranks(
        self,
        cluster: int,
        pick: Pick = "popular",
        *,
        seed: int = 0,
        offset: int = 0,
        limit: int = MAX_ITEMS,
        distinct: bool = False,
    ) -> np.ndarray:
        """The ranks (at most ``limit``,) int32 of the items that `cluster_items` returns, without its limit."""
        order = (self._index.central if pick == "central" else self._index.popular)[
            self._index.runs.get(cluster, slice(0, 0))
        ]
        if distinct:
            order = order[~self._index.repeat[order]]
        stop = min(offset + limit, len(order))
        if pick == "random":
            return np.asarray(order[[permuted(i, len(order), seed) for i in range(offset, stop)]], dtype=np.int32)
        return np.asarray(order[offset : max(stop, offset)])

    # Search

    def search(self, query: str = "", *, title: str = "", creator: str = "", limit: int = 10) -> SearchResult:
        """Search items by title and creator together (``query``) or separately.

        The best match comes first, ties by popularity; only the best of several rows with the same title and creator is
        returned. Case, accents and punctuation are ignored; words may be misspelt, shortened or missing. At most 100
        results; an empty query has no results.
        """
        limit = min(max(limit, 0), 100)
        folded = searching.folded(query, title, creator)
        ranked = searching.search(self._index, folded, limit)
        named = {rank: searching.of_title(self._index, rank) for rank in ranked.ranks}
        hits = []
        for item, score in zip(self.at(ranked.ranks), ranked.scores, strict=True):
            count, creators = named[item.rank]
            hits.append(Hit(item, score, count, tuple(c for c in creators if c != item.creator)))
        return SearchResult(
            query=query or " ".join(filter(None, (title, creator))),
            hits=tuple(hits),
            complete=ranked.complete,
            ambiguous=named[ranked.ranks[0]][1] if hits and self._is_ambiguous(folded, hits[0]) else (),
            total=ranked.total,
            total_is_minimum=ranked.is_minimum,
        )

    def _is_ambiguous(self, folded: searching.Query, best: Hit) -> bool:
        """Whether the query is a title of items by several creators, and not the name of a creator."""
        typed = folded.any or ("" if folded.creator else folded.title)
        if not typed or not best.other_creators or typed != fold_one(best.item.title):
            return False
        return not folded.any or not searching.is_creator(self._index, typed)

    def creators_of(self, id: str) -> tuple[str, ...]:
        """The creators of all items with the same title, most popular first, at most 20. Raises NotFound."""
        return searching.of_title(self._index, self.rank_of(id))[1]

    def resolve(self, text: str) -> tuple[int, str]:
        """The rank of the item with an id, or of the best match for words of its title and creator.

        Also returns a note if the match differs from the text. Raises NotFound with the nearest items if the best match
        lacks a considerable part of the words.
        """
        try:
            return self.rank_of(text), ""
        except NotFound as missing:
            found = self.search(text, limit=5)
            if not found.hits or found.hits[0].score < MIN_MATCH_SCORE:
                near = tuple(f"“{hit.item.label}”" for hit in found.hits[:3])
                raise NotFound(f"nothing is called {text[:100]!r}", near or missing.suggestions) from missing
            best, typed = found.hits[0].item, fold_one(text)
            title, creator = fold_one(best.title), fold_one(best.creator)
            if typed == title and found.hits[0].other_creators:
                others = ", ".join(found.hits[0].other_creators[:5])
                note = f"took “{best.label}”; also by {others}: name the creator, or give the id {best.id}, to choose"
                return best.rank, note
            exact = typed in (title, f"{title} {creator}", f"{creator} {title}", fold_one(best.label))
            return best.rank, "" if exact else f"took “{best.label}” for {text[:100]!r}"

    def creator_keys(self, ranks: np.ndarray) -> list[frozenset[str]]:
        """The creators of each item (len(ranks),), without case and accents."""
        written = self._index.rows["creator"].take(pa.array(ranks, pa.int64())).to_pylist()
        names = [names_in(text) for text in written]
        distinct = sorted({name for own in names for name in own})
        # One call for all names: a call takes a millisecond for any number of texts.
        keys = dict(zip(distinct, fold(pa.array(distinct, pa.string())).to_pylist(), strict=True))
        return [frozenset(keys[name] for name in own) for own in names]

    # Neighbours

    def similar(self, id: str, k: int = 10, *, within_cluster: bool = False) -> tuple[Neighbour, ...]:
        """The k items nearest to an item, in its cluster or among all items; ties by popularity.

        Rows of the same recording (title and creator) as the item are left out; of any other recording only the nearest row
        is returned. At most 1,000. Raises NotFound.
        """
        rank = self.rank_of(id)
        k = min(max(k, 0), MAX_ITEMS)
        if k == 0:
            return ()
        point, recording = self.points([rank])[0], self._index.recording
        cluster = int(self.column("cluster")[rank]) if within_cluster else None
        count = k + 1 + k // 4
        while True:
            ranks, distances = self.nearest(point, count, cluster=cluster)
            first = np.sort(np.unique(recording[ranks], return_index=True)[1])
            first = first[recording[ranks[first]] != recording[rank]]
            if len(first) >= k or len(ranks) < count:
                return self.neighbours(ranks[first[:k]], distances[first[:k]])
            count *= 4

    def nearest(self, point: np.ndarray, k: int, *, cluster: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Ranks (k,) and Euclidean distances (k,) of the items nearest to a point (n_columns,) of the prepared space."""
        return self._index.tree.nearest(point, k, cluster=cluster)

    def neighbours(self, ranks: np.ndarray, distances: np.ndarray) -> tuple[Neighbour, ...]:
        """Items with their distances."""
        return tuple(Neighbour(item, float(d)) for item, d in zip(self.at(ranks), distances, strict=True))

    # Averages

    def averages(
        self,
        by: By,
        *,
        cluster: int | None = None,
        min_count: int | None = 1,
        offset: int = 0,
        limit: int = 100,
    ) -> Averages:
        """Means of the features by year (ascending), group or creator (most items first).

        They are over all items or, for years and groups, over the items of one cluster. An item counts for each of its
        groups and creators. A page has at most 1,000 values. Values with fewer than ``min_count`` rows are left out; with
        None a year or a group needs 1 % of the averaged rows, at most 30, and a creator one row. Raises ValueError for an
        unknown ``by`` or for creators of one cluster, NotFound for an unknown cluster.
        """
        if by not in means.BY:
            raise ValueError(f"by={by!r} is not one of {', '.join(means.BY)}")
        n_rows = len(self)
        if cluster is not None:
            n_rows = self.cluster(cluster).size
            if by == "creator":
                raise ValueError("averages by creator are over all clusters; leave cluster out")
        if min_count is None:
            min_count = 1 if by == "creator" else means.min_count_of(n_rows)
        found = means.page(
            self._index.averages[by], by, cluster=cluster, min_count=max(min_count, 1),
            offset=max(offset, 0), limit=min(max(limit, 0), MAX_ITEMS),
        )  # fmt: skip
        without = self._index.info["n_without_year"] if by == "year" and self.has("year") else 0
        return replace(found, without=without)

    def average_of_creator(self, name: str) -> Average:
        """The averages of one creator, ignoring case and accents. Raises NotFound with similar names."""
        key = fold_one(name)
        places = self._index.database.column(
            "select position from creators where key = ? order by position limit 1", (key,)
        )
        if not places:
            near = dict.fromkeys(hit.item.creator for hit in self.search(creator=name, limit=5).hits)
            raise NotFound(f"there is no creator {name[:100]!r}", tuple(near))
        return means.average(self._index.averages["creator"].slice(places[0], 1).to_pylist()[0])


_COPIED_COLUMNS = (
    "id", "title", "creator", "popularity", "year", "preview", "cluster", "confidence", "distance", "x", "y", "z",
)  # fmt: skip
_NUMBER_COLUMNS = ("cluster", "x", "y", "z", "confidence", "distance", "popularity", "year")
