"""The costs of an export's library: building its index, once; opening it; and the latency of every kind of query.

Exports the built-in catalogue, or uses a given export. First checks the answers: neighbours against brute force, pages against the
table, and that each title finds itself. Then times each kind of query with many different inputs on one thread, the kinds in turn,
and reports the median, the 95th and the 99th percentile. The target is a 95th percentile below 100 ms at 1.2 million rows.

    python experiments/bench/library.py [--rows 1200000] [--export DIR] [--questions 200]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from common import heading, write

from gpuclust.serve.library import Library
from gpuclust.serve.records import NotFound
from gpuclust.serve.text import fold_one
from gpuclust.tracks.playlist import from_cluster, from_liked, from_taste

LIMIT_MS = 100.0


@contextmanager
def exported(rows: int) -> Iterator[Path]:
    """An export of the catalogue, made with gpuclust's commands."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = ["data=catalogue", f"data.n_rows={rows}", "cluster.n_clusters=6", "score=quick", "report=none"]
        for arguments in (overrides, ["export", "best", "--out", "out"]):
            command = [sys.executable, "-m", "gpuclust", *arguments]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        yield Path(folder) / "out"


def slip(text: str, rng: np.random.Generator) -> str:
    """The text with one letter removed from its longest word."""
    longest = max(text.split(), key=len, default=text)
    at = int(rng.integers(0, max(len(longest), 1)))
    return text.replace(longest, longest[:at] + longest[at + 1 :], 1)


def not_there(library: Library, id: str) -> None:
    try:
        library.item(id)
    except NotFound:
        return
    raise AssertionError(id)


def questions(library: Library, rng: np.random.Generator) -> dict[str, Callable[[], object]]:
    """A query of each kind about random rows; each call makes a different one."""
    n, clusters = len(library), [c.cluster for c in library.clusters]

    def item():
        return library.at([int(rng.integers(n))])[0]

    def cluster():
        return int(rng.choice(clusters))

    def words(count: int) -> str:
        return " ".join(rng.permutation(f"{item().title} {item().creator}".split())[:count])

    def misspelt(titled, made) -> str:
        return f"{slip(titled.title, rng)} {slip(made.creator, rng)}"

    def taste():
        return {f: item().features[f] for f in rng.choice(library.features, 3, replace=False)}

    return {
        "item by id": lambda: library.item(item().id),
        "unknown id, with suggestions": lambda: not_there(library, item().id[:-1] + "?"),
        "search: a title": lambda: library.search(item().title),
        "search: title and creator": lambda: library.search("{0.title} {0.creator}".format(item())),
        "search: title, creator, a slip in each": lambda: library.search(misspelt(row := item(), row)),
        "search: the same of two items, so no match": lambda: library.search(misspelt(item(), item())),
        "search: a word begun": lambda: library.search(item().title[: int(rng.integers(1, 6))]),
        "search: words of different items": lambda: library.search(words(5)),
        "search: a frequent word": lambda: library.search(
            str(rng.choice(["the", "of", "in the", "love", "the of in"]))
        ),
        "cluster's items: popular": lambda: library.cluster_items(cluster(), offset=int(rng.integers(10_000))),
        "cluster's items: central": lambda: library.cluster_items(cluster(), pick="central"),
        "cluster's items: random": lambda: library.cluster_items(cluster(), pick="random", seed=int(rng.integers(1e6))),
        "10 nearest over all": lambda: library.similar(item().id, 10),
        "10 nearest in the cluster": lambda: library.similar(item().id, 10, within_cluster=True),
        "100 nearest over all": lambda: library.similar(item().id, 100),
        "averages by year": lambda: library.averages("year"),
        "averages by group, one cluster": lambda: library.averages("group", cluster=cluster()),
        "averages of a creator": lambda: library.average_of_creator(item().creator),
        "playlist of a cluster": lambda: from_cluster(library, cluster()),
        "playlist of 3 liked": lambda: from_liked(library, [item().id for _ in range(3)]),
        "playlist of a taste": lambda: from_taste(library, taste()),
    }


def check_answers(library: Library, rng: np.random.Generator) -> None:
    """Check that neighbours are those of brute force, each recording once, that titles are found, and that pages follow each other."""
    everything = np.arange(len(library))
    points, recordings = library.points(everything), library.recording_of(everything)
    for rank in rng.integers(0, len(library), 5):
        squares = ((points - points[rank]) ** 2).sum(axis=1)
        squares[recordings == recordings[rank]] = np.inf
        nearest = np.lexsort((everything, squares))[:1000]
        expected = nearest[np.sort(np.unique(recordings[nearest], return_index=True)[1])][:50]
        found = library.similar(library.at([rank])[0].id, 50)
        assert [near.item.rank for near in found] == expected.tolist()
    for rank in rng.integers(0, len(library), 50):
        title = library.at([rank])[0].title
        assert fold_one(library.search(title).hits[0].item.title) == fold_one(title), title
    pages = [library.cluster_items(0, pick="random", seed=1, offset=at) for at in range(0, 50, 10)]
    whole = library.cluster_items(0, pick="random", seed=1, limit=50)
    assert sum((page.items for page in pages), ()) == whole.items
    print("agreement: 250 neighbours as by brute force, 50 titles found first, pages of a random order continue")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_200_000)
    parser.add_argument("--export", type=Path, help="an export folder to use instead of making one")
    parser.add_argument("--questions", type=int, default=200, help="of each kind")
    options = parser.parse_args()
    if options.export:
        measure(options.export, options.questions)
        return
    with exported(options.rows) as folder:
        measure(folder, options.questions)


def measure(folder: Path, count: int) -> None:
    shutil.rmtree(folder / ".index", ignore_errors=True)
    start = time.perf_counter()
    Library.open(folder).close()
    build_seconds = time.perf_counter() - start
    start = time.perf_counter()
    library = Library.open(folder)
    open_seconds = time.perf_counter() - start
    exported_mb = sum(path.stat().st_size for path in folder.glob("*.parquet")) / 1e6
    environment = heading(
        "Library of an export",
        f"{len(library):,} rows; export {exported_mb:.0f} MB, index {library.index_bytes / 1e6:.0f} MB",
        f"first opening, with the index built: {build_seconds:.1f} s; opening again: {1000 * open_seconds:.0f} ms",
    )
    rng = np.random.default_rng(0)
    check_answers(library, rng)
    asked = questions(library, rng)
    taken: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(count):
        for name, ask in asked.items():
            start = time.perf_counter()
            ask()
            taken[name].append(1000 * (time.perf_counter() - start))
    rows = {}
    print(f"{'milliseconds':42} {'median':>8} {'p95':>8} {'p99':>8}")
    for name, values in taken.items():
        median, p95, p99 = np.percentile(values, [50, 95, 99])
        rows[name] = {"median_ms": median, "p95_ms": p95, "p99_ms": p99}
        print(f"{name:42} {median:8.1f} {p95:8.1f} {p99:8.1f}{'' if p95 < LIMIT_MS else '  over the limit'}")
    record = {
        "rows": len(library),
        "export_mb": exported_mb,
        "index_mb": library.index_bytes / 1e6,
        "build_seconds": build_seconds,
        "open_seconds": open_seconds,
        "questions": count,
        "limit_ms": LIMIT_MS,
        "answers": rows,
    }
    write("library", {"environment": environment} | record)


if __name__ == "__main__":
    main()
