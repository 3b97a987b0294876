"""Throughput and latency of `gpuclust serve` by route, under load from wrk on the same machine.

    python experiments/bench/api.py                          # exports the real tracks and a generated catalogue of 1.2 million
    python experiments/bench/api.py --export NAME=FOLDER ... # existing exports
    python experiments/bench/api.py --workers 2              # with two server processes

First the answers are compared with those of the library behind the API. Then each route is measured with one connection (the
latency) and with sixteen (the throughput), with 500 different requests in turn. Where wrk is not installed (apt-get install wrk), a
loop over httpx is used instead, which costs more than the server; the record names the tool.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import numpy as np
from common import TRACKS, environment, heading, write

from gpuclust.serve.library import Library

API = "/api/v1"
SECONDS = {1: 2, 16: 3}  # of load, by the number of connections
REQUESTS = 500
CATALOGUE_ROWS = 1_200_000


@dataclass(frozen=True)
class Load:
    """The requests of one route: paths, and for a POST one body for each path."""

    name: str
    paths: list[str]
    bodies: list[str] | None = None


def main() -> None:
    """Measure every export and write results/api.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--export", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument(
        "--workers", type=int, default=1, help="server processes; other than 1 goes to a file of its own"
    )
    options = parser.parse_args()
    given = dict(text.split("=", 1) for text in options.export)
    tool = "wrk" if shutil.which("wrk") else "httpx in one process (no wrk here: it costs more than the server does)"
    facts = environment() | heading(
        "API under load", f"load by {tool}, on the server's own machine; --workers {options.workers}"
    )
    record: dict[str, Any] = {
        "environment": facts, "load": tool, "workers": options.workers, "seconds": SECONDS, "exports": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        exports = {name: Path(path) for name, path in given.items()} or made(Path(folder))
        for name, export in exports.items():
            record["exports"][name] = measured(name, export, options.workers)
    write("api" if options.workers == 1 else f"api_{options.workers}_workers", record)


def made(folder: Path) -> dict[str, Path]:
    """The two exports, made with the command line."""
    sources = {
        "catalogue 1.2M": ["data=catalogue", f"data.n_rows={CATALOGUE_ROWS}", "cluster.n_clusters=8", "score=none"]
    }
    if TRACKS.exists():
        sources["real 114k"] = ["data=tracks", f"data.path={TRACKS}", "clean=tracks", "cluster.n_clusters=7"]
    done = {}
    for name, overrides in sources.items():
        place = folder / name.replace(" ", "-")
        place.mkdir()
        command = [sys.executable, "-m", "gpuclust"]
        for arguments in ([*overrides, "report=none"], ["export", "best", "--out", "out"]):
            subprocess.run([*command, *arguments], cwd=place, check=True, capture_output=True)
        done[name] = place / "out"
    return done


def measured(name: str, export: Path, workers: int) -> dict[str, Any]:
    """The measurements of every route of one export."""
    with Library.open(export) as library:
        loads = loads_of(library)
        n_rows = len(library)
        with served(export, workers) as (address, seconds):
            agree(library, address)
            print(f"\n{name}: {n_rows:,} rows; up {seconds:.1f} s after the command")
            print(
                f"{'route':<28}{'1 connection: p50':>19}{'p95':>8}{'p99':>8}{'16 connections: req/s':>24}{'p50':>8}{'p95':>8}{'p99':>8}"
            )
            routes = {}
            for load in loads:
                one, many = (pressed(address, load, connections) for connections in SECONDS)
                routes[load.name] = {"1": one, "16": many}
                single = f"{one['p50_ms']:>19.1f}{one['p95_ms']:>8.1f}{one['p99_ms']:>8.1f}"
                loaded = (
                    f"{many['per_second']:>24,.0f}{many['p50_ms']:>8.1f}{many['p95_ms']:>8.1f}{many['p99_ms']:>8.1f}"
                )
                print(f"{load.name:<28}{single}{loaded}", flush=True)
    return {"rows": n_rows, "start_seconds": round(seconds, 2), "routes": routes}


@contextmanager
def served(export: Path, workers: int) -> Iterator[tuple[str, float]]:
    """A server's address, and the seconds until it printed it; the index exists already."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "gpuclust", "serve", str(export), "--port", "0", "--workers", str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"on (http://\S+)/api/v1", process.stdout.readline())
        assert found is not None, "the server did not start"
        yield found[1], time.perf_counter() - started
    finally:
        process.terminate()
        process.wait(30)


def loads_of(library: Library) -> list[Load]:
    """Requests of every route, the same for the same export."""
    rng = np.random.default_rng(0)
    ranks = rng.integers(0, len(library), REQUESTS)
    items = library.at(ranks)
    clusters = [item.cluster for item in items]
    ids = [quote(item.id, safe="") for item in items]
    words = [f"{item.title} {item.creators[0] if item.creators else ''}" for item in items]
    letters = random.Random(0)
    wrong = [_slip(text, letters) for text in words]
    rows = [{k: v for k, v in item.features.items() if v is not None} for item in items]
    feature = library.features[0]
    tastes = [{"taste": {feature: row[feature]}} for row in rows if feature in row]
    return [
        Load("health", ["/health"]),
        Load("clusters", ["/clusters"]),
        Load(
            "cluster items, popular",
            [f"/clusters/{c}/items?offset={o}" for c, o in zip(clusters, ranks % 500, strict=True)],
        ),
        Load("cluster items, random", [f"/clusters/{c}/items?pick=random&seed={i}" for i, c in enumerate(clusters)]),
        Load("item", [f"/items/{i}" for i in ids]),
        Load("search, as written", [f"/search?q={quote(text)}" for text in words]),
        Load("search, with a slip", [f"/search?q={quote(text)}" for text in wrong]),
        Load("similar, in the cluster", [f"/items/{i}/similar?within=cluster" for i in ids]),
        Load("similar, among all", [f"/items/{i}/similar" for i in ids]),
        Load("playlist of an item", [f"/items/{i}/playlist" for i in ids]),
        Load("playlist of a taste", ["/playlist"], [json.dumps(taste) for taste in tastes]),
        Load("averages by group", ["/averages/group"]),
        Load("predict 1 row", ["/predict"], [json.dumps({"rows": [row]}) for row in rows]),
        Load("predict 1,000 rows", ["/predict"], [json.dumps({"rows": rows + rows})]),
    ]


def _slip(text: str, rng: random.Random) -> str:
    """The text with two neighbouring letters exchanged."""
    at = rng.randrange(max(len(text) - 1, 1))
    return text[:at] + text[at : at + 2][::-1] + text[at + 2 :]


def agree(library: Library, address: str) -> None:
    """Check that the server's answers are those of the library."""
    (item,) = library.at([len(library) // 2])
    with httpx.Client(base_url=address + API, timeout=60) as client:
        answer = client.get(f"/items/{quote(item.id, safe='')}").json()["item"]
        assert answer["features"] == dict(item.features)
        near = client.get(f"/items/{quote(item.id, safe='')}/similar").json()["neighbours"]
        assert [n["item"]["id"] for n in near] == [n.item.id for n in library.similar(item.id)]
        page = client.get(f"/clusters/{item.cluster}/items?pick=random&seed=3").json()["items"]
        assert [i["id"] for i in page] == [
            i.id for i in library.cluster_items(item.cluster, pick="random", seed=3).items
        ]
        rows = [dict(i.features) for i in library.at(range(1_000))]
        placed = client.post("/predict", json={"rows": rows}).json()["predictions"]
        assert [p["cluster"] for p in placed] == [i.cluster for i in library.at(range(1_000))]


def pressed(address: str, load: Load, connections: int) -> dict[str, float]:
    """Requests a second and percentiles of the latency in milliseconds; every answer must be a 200."""
    if shutil.which("wrk"):
        return by_wrk(address, load, connections, SECONDS[connections])
    return asyncio.run(by_httpx(address, load, connections, SECONDS[connections]))


SCRIPT = """\
local requests, at = {}, 0
init = function(args)
  for line in io.lines("REQUESTS") do
    local path, body = line:match("^([^\\t]*)\\t?(.*)$")
    if body == "" then requests[#requests + 1] = wrk.format("GET", path)
    else requests[#requests + 1] = wrk.format("POST", path, {["Content-Type"] = "application/json"}, body) end
  end
end
request = function() at = at % #requests + 1; return requests[at] end
done = function(summary, latency, all)
  local errors = summary.errors
  print(string.format("RESULT %d %d %d %f %f %f", summary.requests, summary.duration,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99)))
end
"""


def by_wrk(address: str, load: Load, connections: int, seconds: int) -> dict[str, float]:
    """Load from one thread of wrk."""
    with tempfile.TemporaryDirectory() as folder:
        requests, script = Path(folder) / "requests", Path(folder) / "load.lua"
        bodies = load.bodies or [""] * len(load.paths)
        paths = load.paths if len(load.paths) == len(bodies) else load.paths * len(bodies)
        requests.write_text("".join(f"{API}{path}\t{body}\n" for path, body in zip(paths, bodies, strict=True)))
        script.write_text(SCRIPT.replace("REQUESTS", str(requests)))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script), address]
        out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\S+) (\S+) (\S+)", out)
    assert found is not None, out
    count, micros, errors = (int(found[i]) for i in (1, 2, 3))
    assert not errors, f"{load.name}: {errors} of {count} requests failed"
    return figures(count / (micros / 1e6), [float(found[i]) / 1e3 for i in (4, 5, 6)])


async def by_httpx(address: str, load: Load, connections: int, seconds: int) -> dict[str, float]:
    """Load from coroutines that each wait for their answer before they ask again."""
    taken: list[float] = []
    ends = time.perf_counter() + seconds

    async def ask(client: httpx.AsyncClient, first: int) -> None:
        at = first
        while time.perf_counter() < ends:
            path = load.paths[at % len(load.paths)]
            body = load.bodies[at % len(load.bodies)] if load.bodies else None
            started = time.perf_counter()
            declared = {"content-type": "application/json"} if body else {}
            answer = await client.request("POST" if body else "GET", API + path, content=body, headers=declared)
            taken.append((time.perf_counter() - started) * 1e3)
            assert answer.status_code == 200, answer.text
            at += connections

    assert urlsplit(address).hostname == "127.0.0.1"
    async with httpx.AsyncClient(base_url=address, timeout=10) as client:
        await asyncio.gather(*(ask(client, i) for i in range(connections)))
    return figures(len(taken) / seconds, np.percentile(taken, [50, 95, 99]).tolist())


def figures(per_second: float, milliseconds: list[float]) -> dict[str, float]:
    """One measurement."""
    p50, p95, p99 = (round(value, 2) for value in milliseconds)
    return {"per_second": round(per_second, 1), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


if __name__ == "__main__":
    main()
