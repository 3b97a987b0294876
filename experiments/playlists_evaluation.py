"""Evaluation of the playlists: precision on held-out tracks and genres, compared with random and with popular tracks.

Two tables of real tracks are clustered and exported with gpuclust's commands. Playlists: five tracks of every playlist with
enough tracks are liked, and the others are right. Genres: five tracks of a genre are liked, and a recommendation is right when it
has that genre. Genres and playlists are not used as features. Every way recommends the same number of tracks, never a liked one.
Intervals are 95 % percentile bootstrap over the queries.

    python experiments/playlists_evaluation.py --data FOLDER [--seeds 3] [--out playlists_evaluation.json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gpuclust.serve.library import Library
from gpuclust.tracks.playlist import PlaylistOptions, from_liked, nearest_of

SIZE, LIKED, MIN_OWN_TRACKS = 30, 5, 15
BOOTSTRAPS = 2_000
TRACKS = {"playlists": "playlist_songs_33k.csv", "genres": "tracks_114k.csv"}
TRUTH = {"playlists": "playlist_id", "genres": "track_genre"}


@dataclass(frozen=True)
class Case:
    """The ranks of the liked tracks, and those of the tracks that are right."""

    liked: np.ndarray
    right: np.ndarray


def export(source: Path, folder: Path, k: str) -> Path:
    """Cluster a table of tracks and export the chosen job."""
    overrides = [
        "data=tracks",
        f"data.path={source.resolve()}",
        "clean=tracks",
        f"cluster.n_clusters={k}",
        "report=none",
    ]
    for arguments in (["-m", *overrides], ["export", "best", "--out", "out"]):
        subprocess.run(
            [sys.executable, "-m", "gpuclust", *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
    return folder / "out"


def cases(library: Library, source: Path, truth: str, seeds: int) -> list[Case]:
    """The queries: for each playlist or genre that has enough tracks, five of them for each seed."""
    ranks = {id: rank for rank, id in reversed(list(enumerate(library.rows["id"].to_pylist())))}
    raw = pd.read_csv(source, usecols=["track_id", truth], dtype=str).dropna().drop_duplicates()
    members: dict[str, list[int]] = defaultdict(list)
    for id, value in zip(raw["track_id"], raw[truth], strict=True):
        if id in ranks:
            members[value].append(ranks[id])
    made = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        for value in sorted(members):
            own = np.array(sorted(members[value]))
            if len(own) >= MIN_OWN_TRACKS:
                liked = rng.choice(own, LIKED, replace=False)
                made.append(Case(liked, np.setdiff1d(own, liked)))
    return made


def ways(library: Library, rng: np.random.Generator) -> dict[str, Callable[[Case], np.ndarray]]:
    """Every way to recommend: liked ranks in, at most `SIZE` ranks out."""
    clusters = library.column("cluster")
    members = {c: np.flatnonzero(clusters == c) for c in np.unique(clusters)}

    def playlist(**rules: float | int | None) -> Callable[[Case], np.ndarray]:
        def recommend(case: Case) -> np.ndarray:
            ids = [item.id for item in library.at(case.liked)]
            made = from_liked(library, ids, PlaylistOptions(SIZE, **rules))  # type: ignore[arg-type]
            return np.array([item.rank for item in made.items])

        return recommend

    def in_clusters(pick: Callable[[np.ndarray, int], np.ndarray]) -> Callable[[Case], np.ndarray]:
        """Picks from the clusters of the liked, as many from each as its share of the liked."""

        def recommend(case: Case) -> np.ndarray:
            own, counts = np.unique(clusters[case.liked], return_counts=True)
            shares = counts * SIZE // LIKED
            pools = [np.setdiff1d(members[c], case.liked) for c in own]
            return np.concatenate([pick(pool, share) for pool, share in zip(pools, shares, strict=True)])

        return recommend

    def nearest_mean(case: Case) -> np.ndarray:
        ranks, _ = library.nearest(library.points(case.liked).mean(axis=0), SIZE + LIKED)
        return ranks[~np.isin(ranks, case.liked)][:SIZE]

    def nearest_any(case: Case) -> np.ndarray:
        points = library.points(case.liked)
        ranks = np.unique(np.concatenate([library.nearest(point, SIZE + LIKED)[0] for point in points]))
        return nearest_of(library, np.setdiff1d(ranks, case.liked), points, SIZE).ranks

    everything = np.arange(len(library))
    return {
        "gpuclust playlist --like, with its defaults": playlist(),
        "… diversity 0": playlist(diversity=0.0),
        "… diversity 0.6": playlist(diversity=0.6),
        "… diversity 0, any number per creator": playlist(diversity=0.0, per_creator=None),
        "nearest to any liked, no rules": nearest_any,
        "nearest to the mean of the liked, no rules": nearest_mean,
        "random, same clusters": in_clusters(lambda pool, n: rng.choice(pool, min(n, len(pool)), replace=False)),
        "most popular, same clusters": in_clusters(lambda pool, n: pool[:n]),  # ranks are by popularity
        "most popular of all": lambda case: np.setdiff1d(everything[: SIZE + LIKED], case.liked)[:SIZE],
        "random of all": lambda case: rng.choice(np.setdiff1d(everything, case.liked), SIZE, replace=False),
    }


def interval(values: np.ndarray) -> list[float]:
    """Mean and its 95 % percentile bootstrap interval."""
    rng = np.random.default_rng(0)
    means = np.array([values[rng.integers(0, len(values), len(values))].mean() for _ in range(BOOTSTRAPS)])
    return [float(values.mean()), *(float(v) for v in np.percentile(means, [2.5, 97.5]))]


def evaluate(kind: str, data: Path, seeds: int, k: str) -> dict[str, object]:
    """Precision of every way, and its paired difference from random picks of the same clusters."""
    with tempfile.TemporaryDirectory() as folder:
        source = data / TRACKS[kind]
        with Library.open(export(source, Path(folder), k)) as library:
            queries = cases(library, source, TRUTH[kind], seeds)
            found = {
                name: np.array([np.isin(recommend(case), case.right).sum() / SIZE for case in queries])
                for name, recommend in ways(library, np.random.default_rng(0)).items()
            }
            facts = library.facts
    base = found["random, same clusters"]
    print(f"\n{kind}: {TRACKS[kind]}, {facts.n_rows:,} tracks in {facts.n_clusters} clusters, {len(queries)} queries")
    print(
        f"| recommended by | precision@{SIZE} (95 % interval) | minus random, same clusters | ratio to random, same clusters |"
    )
    print("|---|---|---|---|")
    rows = {}
    for name, values in found.items():
        own, paired = interval(values), interval(values - base)
        rows[name] = {"precision": own, "over_random_same_cluster": paired}
        cells = [f"{100 * v:.2f}" for v in (*own, *paired)]
        print(
            f"| {name} | {cells[0]} % ({cells[1]} to {cells[2]}) | {cells[3]} ({cells[4]} to {cells[5]}) "
            f"| {values.mean() / base.mean():.2f} |"
        )
    return {"rows": facts.n_rows, "clusters": facts.n_clusters, "queries": len(queries), "ways": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=beside, help="the folder of the two tables")
    parser.add_argument("--kinds", nargs="+", choices=list(TRACKS), default=list(TRACKS))
    parser.add_argument("--k", default="range(4,9)", help="sizes that the sweep tries")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    record = {kind: evaluate(kind, options.data, options.seeds, options.k) for kind in options.kinds}
    if options.out:
        options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
