"""How long a person waits for the explorer: from the address to the page, and from a click to its answer, in headless Chromium.

    python experiments/bench/explorer.py [out/] [--repeats 9]
    python experiments/bench/explorer.py --map --rows 1160000 --repeats 5

First checks that what is waited for shows the export's own numbers, then prints the best, the median and the slowest of the visits.
"First paint" is until the title and the figures of the overview can be read, in a browser with an empty cache; "drawn" until the
charts are there too. The map is drawn when each of its rows is; "map from its address" begins with an empty cache. Frames per second
are those of the map while a pointer drags it, a wheel zooms it, and a pointer turns three axes, for three seconds each. Memory is the
proportional set size of all processes of the browser with the map open. The browser renders WebGL in software and shares the machine
with the server.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import heading, write
from pictures import FLAGS, chromium, gpuclust, served

GENERATED = ("data=catalogue", "cluster=kmeans", "cluster.n_clusters=8", "score=quick", "report=none")
READY = "[data-testid=stApp][data-test-script-state=notRunning]"
DRAWN = "(s) => { const l = document.querySelector(s + ' .js-plotly-plot')?._fullLayout; return !!(l && l._size); }"
MAP = ".gpuclust-map"
SETTLED = "(map) => map.gpuclustMap.settled()"
STATS = "(map) => map.gpuclustMap.stats()"
MOVING_SECONDS = 3.0


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="an export folder (default: one of generated tracks)")
    parser.add_argument("--rows", type=int, default=114_000, help="of the generated tracks (default: 114,000)")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--map", action="store_true", help="only the map, from its address")
    options = parser.parse_args()
    facts = heading("Explorer", f"{options.repeats} visits in headless Chromium, which renders WebGL in software")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder
        if folder is None:
            gpuclust(temporary, *GENERATED, f"data.n_rows={options.rows}")
            gpuclust(temporary, "export", "best", "--out", "out")
            folder = Path(temporary) / "out"
        n_rows = json.loads((folder / "manifest.json").read_text())["rows"]["kept"]
        times, frames = measured(folder.resolve(), n_rows, options.repeats, only_map=options.map)
    for name, values in times.items():
        print(
            f"{name:<34} best {min(values):5.2f} s   median {statistics.median(values):5.2f} s   slowest {max(values):5.2f} s"
        )
    for name, values in frames.items():
        print(f"{name:<34} median {statistics.median(values):6.1f}   from {min(values):.1f} to {max(values):.1f}")
    write(
        "explorer_map" if options.map else "explorer",
        {
            "environment": facts,
            "rows": n_rows,
            "visits": options.repeats,
            "median_seconds": {name: statistics.median(values) for name, values in times.items()},
            "seconds": times,
            "load_average": os.getloadavg(),
            "median_map": {name: statistics.median(values) for name, values in frames.items()},
            "map": frames,
        },
    )


def measured(
    folder: Path, n_rows: int, repeats: int, *, only_map: bool
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each step, and the frames a second and the memory of the map; a number for each visit."""
    from playwright.sync_api import sync_playwright

    times: dict[str, list[float]] = {}
    frames: dict[str, list[float]] = {}
    with sync_playwright() as playwright, served(".", "explore", str(folder), "--no-browser") as address:
        for _ in range(repeats):
            if not only_map:
                browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
                context = browser.new_context(viewport={"width": 1280, "height": 900})
                for name, seconds in visit(context.new_page(), address, n_rows).items():
                    times.setdefault(name, []).append(seconds)
                browser.close()
            browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(60_000)
            began = time.perf_counter()
            page.goto(f"{address}/map", wait_until="commit")
            drawn(page, n_rows)
            times.setdefault("map from its address", []).append(time.perf_counter() - began)
            for name, value in moved(page).items():
                frames.setdefault(name, []).append(value)
            frames.setdefault("memory of the browser, MB", []).append(memory_of_browser())
            browser.close()
    return times, frames


def drawn(page: Any, n_rows: int) -> None:
    """Wait until the map has drawn each row, and check that it has."""
    found = page.locator(MAP)
    found.evaluate(SETTLED)
    stats = found.evaluate(STATS)
    if stats["failed"] or stats["drawn"] != n_rows:
        raise SystemExit(f"the map drew {stats['drawn']:,} of {n_rows:,} rows: {stats['failed']}")


def moved(page: Any) -> dict[str, float]:
    """Frames a second while the map moves under a pointer and a wheel, in two axes and in three."""
    stage, found = page.locator(f"{MAP} .gm-stage"), page.locator(MAP)
    box = stage.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def circle(turn: int) -> None:
        page.mouse.move(x + 150 * math.sin(turn / 12), y + 80 * math.cos(turn / 12))

    def rate(act: Callable[[int], None]) -> float:
        before, began, turn = found.evaluate(STATS)["frames"], time.perf_counter(), 0
        while time.perf_counter() - began < MOVING_SECONDS:
            act(turn)
            turn += 1
        return float(found.evaluate(STATS)["frames"] - before) / (time.perf_counter() - began)

    rates = {}
    page.mouse.move(x, y)
    page.mouse.down()
    rates["frames a second, moving"] = rate(circle)
    page.mouse.up()
    rates["frames a second, zooming"] = rate(lambda turn: page.mouse.wheel(0, -40 if turn // 25 % 2 == 0 else 40))
    page.get_by_role("button", name="3-D").click()
    found.evaluate(SETTLED)
    page.mouse.move(x, y)
    page.mouse.down()
    rates["frames a second, turning"] = rate(circle)
    page.mouse.up()
    found.evaluate(SETTLED)
    return rates


def memory_of_browser() -> float:
    """Megabytes of the processes that this process started with Playwright, shared pages divided among them."""
    total, todo = 0, [os.getpid()]
    while todo:
        process = Path(f"/proc/{todo.pop()}")
        try:
            children = [
                int(c) for task in (process / "task").iterdir() for c in (task / "children").read_text().split()
            ]
            if b"chrom" in (process / "cmdline").read_bytes().split(b"\0")[0]:
                total += int(re.search(r"^Pss:\s+(\d+)", (process / "smaps_rollup").read_text(), re.M)[1])
        except (OSError, TypeError):
            continue
        todo += children
    return total / 1000


def visit(page: Any, address: str, n_rows: int) -> dict[str, float]:
    """One visit with an empty cache: what was waited for, in seconds."""
    page.set_default_timeout(60_000)
    times = {}

    def timed(name: str, act: Callable[[], Any], wait: Callable[[], Any]) -> None:
        act()
        began = time.perf_counter()
        wait()
        times[name] = time.perf_counter() - began

    began = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.get_by_text(f"{n_rows:,}", exact=True).first.wait_for()
    times["first paint of the overview"] = time.perf_counter() - began
    page.wait_for_function(DRAWN, arg=".st-key-heat")
    times["overview drawn"] = time.perf_counter() - began
    link = lambda name: page.get_by_role("link", name=name).click(no_wait_after=True)  # noqa: E731
    timed("map", lambda: link("Map"), lambda: drawn(page, n_rows))
    feature = page.locator(f"{MAP} select option[value^='f/']").first.get_attribute("value")
    timed(
        "map coloured by a feature",
        lambda: page.get_by_label("Colour").select_option(feature),
        lambda: (page.locator(f"{MAP} .gm-scale").wait_for(), page.locator(MAP).evaluate(SETTLED)),
    )
    timed(
        "map to three axes",
        lambda: page.get_by_role("button", name="3-D").click(),
        lambda: (page.get_by_role("slider", name="Rotate").wait_for(), drawn(page, n_rows)),
    )
    timed("all clusters", lambda: link("Clusters"), lambda: page.locator(".st-key-card-1 button").first.wait_for())
    page.locator(READY).wait_for()
    timed(
        "a cluster",
        lambda: page.locator(".st-key-card-1 button").first.click(),
        lambda: page.get_by_role("heading", name="Representative").wait_for(),
    )
    link("Search")
    box = page.get_by_label("Title or", exact=False)
    box.fill("love")
    page.locator(READY).wait_for()
    timed("search", lambda: box.press("Enter"), lambda: page.locator(".st-key-hits button").first.wait_for())
    page.locator(READY).wait_for()
    timed(
        "an item and its nearest",
        lambda: page.locator(".st-key-hits button").first.click(),
        lambda: page.get_by_role("heading", name="Nearest").wait_for(),
    )
    timed(
        "a playlist", lambda: link("Playlist"), lambda: page.get_by_text(re.compile(r"^30 (items|tracks)")).wait_for()
    )
    return times


if __name__ == "__main__":
    main()
