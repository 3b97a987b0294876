"""Make the README's pictures from the built-in catalogue: pages of the explorer and the chart view of MLflow.

    python experiments/pictures.py            writes docs/*.png

Needs Playwright for Python and a Chromium (GPUCLUST_CHROMIUM names one that is not on the PATH).
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
SWEEP = ("-m", "data=catalogue", "data.n_rows=60000", "cluster=kmeans", "cluster.n_clusters=range(2,11)")
WIDTH, HEIGHT = 1280, 860
DOCS = Path(__file__).resolve().parents[1] / "docs"


def main() -> None:
    """Run a sweep, export its choice, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DOCS, metavar="DIR", help="where to (default: docs/)")
    out = parser.parse_args().out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        gpuclust(folder, *SWEEP)
        gpuclust(folder, "export", "best", "--out", "out")
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        with served(folder, "explore", "out", "--no-browser") as address:
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            explorer(page, address, out)
            dark = browser.new_page(viewport={"width": WIDTH, "height": 1040}, color_scheme="dark")
            deep(dark, address, out)
        with served(folder, "ui") as address:
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            charts(page, address, out)
            runs(page, address, out)
        browser.close()
    for path in sorted(out.glob("*.png")):
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def explorer(page: Any, address: str, out: Path) -> None:
    """The map with every row, a cluster's page, a playlist of target values, and the trends over the years."""
    page.goto(f"{address}/map")
    page.locator(".gpuclust-map").evaluate("map => map.gpuclustMap.settled()")
    still(page)
    page.screenshot(path=out / "explorer-map.png")
    page.goto(f"{address}/clusters?cluster=0")
    page.locator(".stPlotlyChart .polar").first.wait_for()
    page.locator(".st-key-shares-chart .points").first.wait_for()
    still(page)
    page.screenshot(path=out / "explorer-cluster.png")
    page.goto(f"{address}/playlist?from=target&feature=energy&feature=valence&at-energy=0.8&at-valence=0.7")
    page.locator("[data-testid=stDataFrame]").first.wait_for()
    still(page)
    page.screenshot(path=out / "explorer-playlist.png")
    page.goto(f"{address}/trends")
    page.locator(".st-key-years .points").first.wait_for()
    still(page)
    page.screenshot(path=out / "explorer-trends.png")


def deep(page: Any, address: str, out: Path) -> None:
    """The map with three axes, in the dark theme."""
    page.goto(f"{address}/map")
    page.get_by_role("button", name="3-D").click()
    page.get_by_role("slider", name="Rotate").wait_for()
    page.locator(".gpuclust-map").evaluate("map => map.gpuclustMap.settled()")
    still(page)
    page.screenshot(path=out / "explorer-3d.png")


def charts(page: Any, address: str, out: Path) -> None:
    """The MLflow UI as `gpuclust ui` opens it."""
    page.goto(address)
    page.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=90_000)
    close = page.locator("[data-component-id^='mlflow.assistant'][data-component-id$='.close']")
    if close.count():
        close.first.click()
    page.mouse.move(1, 1)
    page.wait_for_timeout(4_000)  # until the animations of bars and legends have ended
    page.screenshot(path=out / "mlflow-charts.png")


def runs(page: Any, address: str, out: Path) -> None:
    """The table of runs, with the columns that the experiment shares."""
    page.goto(address.replace("compareRunsMode=CHART", "").replace("gpuclust-charts", "gpuclust-runs"))
    page.get_by_text("catalogue · K-Means k=2..10").first.wait_for(timeout=90_000)
    page.wait_for_timeout(4_000)
    page.screenshot(path=out / "mlflow-runs.png")


def still(page: Any) -> None:
    """Wait until the server has nothing more to draw and the browser has drawn it."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    page.wait_for_timeout(2_500)


def gpuclust(folder: str, *arguments: str) -> None:
    """Run one command and wait for its end."""
    subprocess.run([sys.executable, "-m", "gpuclust", *arguments], cwd=folder, check=True)


@contextmanager
def served(folder: str, *arguments: str) -> Iterator[str]:
    """A command that prints an address and serves it, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "gpuclust", *arguments, "--port", port]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def chromium() -> str:
    """The path of Chromium."""
    named = os.environ.get("GPUCLUST_CHROMIUM", "chromium")
    found = shutil.which(named) or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        sys.exit("no chromium here; install it, or name one in GPUCLUST_CHROMIUM")
    return found


if __name__ == "__main__":
    main()
