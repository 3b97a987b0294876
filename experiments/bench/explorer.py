"""How long a person waits for the explorer: from the address to the page, and from a click to its answer, in headless Chromium.

    python experiments/bench/explorer.py [out/] [--repeats 9]

First checks that what is waited for shows the export's own numbers, then prints the best, the median and the slowest of the visits.
"First paint" is until the title and the figures of the overview can be read, in a browser with an empty cache; "drawn" until the
charts are there too; three axes until their first picture is painted. The browser renders WebGL in software and shares the machine with the server.
"""

from __future__ import annotations

import argparse
import json
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

GENERATED = ("data=catalogue", "data.n_rows=114000", "cluster=kmeans", "cluster.n_clusters=7", "report=none")
READY = "[data-testid=stApp][data-test-script-state=notRunning]"
DRAWN = "(s) => { const l = document.querySelector(s + ' .js-plotly-plot')?._fullLayout; return !!(l && l._size); }"

PAINTED = "() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"  # after the next frame


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, nargs="?", help="an export folder (default: one of 114,000 generated tracks)"
    )
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    facts = heading("Explorer", f"{options.repeats} visits in headless Chromium, which renders WebGL in software")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder
        if folder is None:
            gpuclust(temporary, *GENERATED)
            gpuclust(temporary, "export", "best", "--out", "out")
            folder = Path(temporary) / "out"
        n_rows = json.loads((folder / "manifest.json").read_text())["rows"]["kept"]
        times = measured(folder.resolve(), n_rows, options.repeats)
    for name, seconds in times.items():
        print(
            f"{name:<28} best {min(seconds):5.2f} s   median {statistics.median(seconds):5.2f} s   slowest {max(seconds):5.2f} s"
        )
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    write(
        "explorer",
        {"environment": facts, "rows": n_rows, "visits": options.repeats, "median_seconds": medians, "seconds": times},
    )


def measured(folder: Path, n_rows: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of each step, a number for each visit."""
    from playwright.sync_api import sync_playwright

    times: dict[str, list[float]] = {}
    with sync_playwright() as playwright, served(".", "explore", str(folder), "--no-browser") as address:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        for _ in range(repeats):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            for name, seconds in visit(context.new_page(), address, n_rows).items():
                times.setdefault(name, []).append(seconds)
            context.close()
        browser.close()
    return times


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
    timed("map", lambda: link("Map"), lambda: page.wait_for_function(DRAWN, arg=".st-key-map"))
    timed("map coloured by a feature", lambda: choose(page, "Colour", 3), lambda: colored(page))
    timed(
        "map to three axes",
        lambda: page.get_by_text("3-D", exact=True).click(),
        lambda: (page.wait_for_function(DRAWN, arg=".st-key-deep"), page.evaluate(PAINTED)),
    )
    timed("all clusters", lambda: link("Clusters"), lambda: page.locator(".st-key-card-1 button").first.wait_for())
    page.locator(READY).wait_for()
    timed(
        "a cluster",
        lambda: page.locator(".st-key-card-1 button").first.click(),
        lambda: page.get_by_role("heading", name="Representative").wait_for(),
    )
    link("Search")
    box = page.get_by_label("Title, creator, or both")
    box.fill("love")
    page.locator(READY).wait_for()
    timed("search", lambda: box.press("Enter"), lambda: page.locator(".st-key-hits button").first.wait_for())
    page.locator(READY).wait_for()
    timed(
        "an item and its nearest",
        lambda: page.locator(".st-key-hits button").first.click(),
        lambda: page.get_by_role("heading", name="Nearest").wait_for(),
    )
    timed("a playlist", lambda: link("Playlist"), lambda: page.get_by_text("30 items").wait_for())
    return times


def choose(page: Any, label: str, number: int) -> None:
    """Take an option of a select box by the keyboard."""
    page.locator(READY).wait_for()
    page.get_by_role("combobox", name=label).click()
    page.get_by_role("option").nth(number).click()


def colored(page: Any) -> None:
    """Wait until the points carry a scale."""
    page.wait_for_function(
        "() => document.querySelector('.st-key-map .js-plotly-plot')?._fullData?.[0]?.marker?.showscale"
    )


if __name__ == "__main__":
    main()
