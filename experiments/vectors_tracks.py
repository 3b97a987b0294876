"""Track vectors from who appears with what, and their clusters, in one command:

    python experiments/vectors_tracks.py [TABLE] [--rows 20000] [--size 128] [--out track_vectors.parquet] [KEY=VALUE ...]

TABLE is a CSV or Parquet file of tracks with artists and genres; without one, the generated catalogue. Artists and genres that occur on the
same tracks are counted, the counts are weighted by their positive pointwise mutual information (Levy and Goldberg 2014) and reduced by a
truncated singular value decomposition; the vector of a track is the mean of those of its artists and genres. See vectors_tracks.md.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import coo_array, csr_array
from sklearn.decomposition import TruncatedSVD

from gpuclust.cli import main as gpuclust
from gpuclust.data.lists import parse_list

IDS, TITLES = ("track_id", "id", "uri"), ("track_name", "title", "name", "song_title")
CREATORS, GROUPS = (
    ("artists", "track_artist", "artist", "artist_name"),
    ("track_genre", "genre", "playlist_genre", "genres"),
)


def tracks_of(path: str | None, n_rows: int) -> pd.DataFrame:
    """One row a track: id, title, artists and genres (lists of text), a seeded sample of at most ``n_rows``."""
    if path is None:
        from gpuclust.tracks.catalogue import catalogue

        table = catalogue(n_rows, seed=0)
    else:
        table = pd.read_parquet(path) if path.endswith(".parquet") else pd.read_csv(path)
    column = {word: next((n for n in names if n in table), None) for word, names in
              (("id", IDS), ("title", TITLES), ("artists", CREATORS), ("genres", GROUPS))}  # fmt: skip
    if missing := [word for word in ("artists", "genres") if column[word] is None]:
        raise SystemExit(f"{path} has no column of {' and '.join(missing)}; it has {', '.join(table.columns[:12])}")
    own = pd.DataFrame({word: table[name] for word, name in column.items() if name is not None})
    own = own.dropna(subset=["artists", "genres"])
    own["id"] = own["id"].astype(str) if "id" in own else np.arange(len(own)).astype(str)
    own["title"] = own["title"].astype(str) if "title" in own else own["id"]
    for word in ("artists", "genres"):
        own[word] = own[word].map(_items)
    merged = own.groupby("id", sort=False).agg({"title": "first", "artists": "first", "genres": "sum"}).reset_index()
    return merged if len(merged) <= n_rows else merged.sample(n_rows, random_state=0).reset_index(drop=True)


def _items(cell: object) -> list[str]:
    if isinstance(cell, str):
        return parse_list(cell) if cell.startswith("[") else [part.strip() for part in cell.split(";") if part.strip()]
    return [str(item) for item in cell]  # type: ignore[attr-defined]


def vectors_of(tracks: pd.DataFrame, size: int) -> np.ndarray:
    """The vectors of tracks (n_tracks, size) float32."""
    words = [[*(f"artist {a}" for a in artists), *(f"genre {g}" for g in set(genres))]
             for artists, genres in zip(tracks["artists"], tracks["genres"], strict=True)]  # fmt: skip
    codes, names = pd.factorize(np.array([word for own in words for word in own], dtype=object))
    rows = np.repeat(np.arange(len(words)), [len(own) for own in words])
    marks = csr_array((np.ones(len(codes)), (rows, codes)), shape=(len(words), len(names)))
    counts = coo_array(marks.T @ marks)
    apart = counts.row != counts.col
    row, col, data = counts.row[apart], counts.col[apart], counts.data[apart]
    totals = np.bincount(row, data, len(names))
    information = np.maximum(np.log(data * data.sum() / (totals[row] * totals[col])), 0.0)
    weighted = csr_array((information, (row, col)), shape=counts.shape)
    of_words = TruncatedSVD(min(size, len(names) - 1), random_state=0).fit_transform(weighted)
    lengths = np.asarray(marks.sum(axis=1)).reshape(-1, 1)
    return np.asarray(marks @ of_words / np.maximum(lengths, 1), dtype=np.float32)


def main() -> int:
    """Write the vectors and run the study on them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--out", default="track_vectors.parquet")
    options, overrides = parser.parse_known_args()
    if options.table and "=" in options.table:
        options.table, overrides = None, [options.table, *overrides]
    tracks = tracks_of(options.table, options.rows)
    X = vectors_of(tracks, options.size)
    columns = {name: pa.array(tracks[name]) for name in ("id", "title", "artists", "genres")}
    pq.write_table(
        pa.table({**columns, "vector": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), X.shape[1])}), options.out
    )
    print(f"{options.out}: {X.shape[0]:,} tracks × {X.shape[1]}")
    return gpuclust(["experiments=vectors_tracks", f"data.path={options.out}", *overrides])


if __name__ == "__main__":
    sys.exit(main())
