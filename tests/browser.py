"""A real headless Chromium, a real explorer behind it, and an export full of text that wants to be markup."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

# Chromium without a sandbox (tests run as root), without a GPU, and without calls of its own.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
WRITTEN = "text => document.querySelector('[data-testid=stMain]').innerText.replaceAll('\u2060', '').includes(text)"
AXE_VERSION = "4.14.1"
AXE_RULES: dict[str, dict[str, bool]] = {}
PATIENCE_MS = 60_000  # a machine that runs other things beside the tests is no failure
HOSTILE = (
    "<script>window.stolen = 1</script>",
    "<img src=x onerror='window.stolen = 1'>",
    "**bold** _it_ `code` [link](http://evil.example)",
    "$\\frac{1}{2}$ and $$x^2$$",
    ":red[colour] :material/home: :smile:",
    '=HYPERLINK("http://evil.example","x")',
    "www.evil.example and http://evil.example",
    "# heading\n- list\x00\x1b[31mred",
    "\u202egnp.exe \u0645\u0631\u062d\u0628\u0627",
    "a <- b -> c -- d >= e",
    "&lt;b&gt; &amp; <b>fat</b>",
    "%{customdata} {0} %s",
)
"""Titles that a careless page would run, draw, link or fetch."""


def expect(found: Any, message: str | None = None) -> Any:
    """Playwright's assertions on a locator, which wait until they hold; imported late, as it may not be installed."""
    from playwright.sync_api import expect as assertions

    assertions.set_options(timeout=PATIENCE_MS)
    return assertions(found, message)


@dataclass
class Explorer:
    """A running explorer: where it is, its process, and what it wrote to standard error."""

    address: str
    process: subprocess.Popen[str]
    errors: list[str]


@dataclass
class Tab:
    """A page of the browser, with what it asked for elsewhere and what went wrong in it."""

    page: Any
    address: str
    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def open(self, path: str = "") -> Any:
        """Go to a page of the explorer and wait until it is drawn."""
        self.page.goto(f"{self.address}/{path}")
        self.page.get_by_role("heading").first.wait_for()
        return self.settle()

    def settle(self) -> Any:
        """Wait until the server has nothing more to draw."""
        self.page.wait_for_timeout(120)  # the page needs a moment to tell the server what was clicked
        self.page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
        return self.page

    def shows(self, text: str) -> None:
        """Wait until a text is written on the page, without the joiners that keep texts from being read as markup."""
        from playwright.sync_api import TimeoutError as Missing

        try:
            self.page.wait_for_function(WRITTEN, arg=text)
        except Missing:
            written = self.page.locator("[data-testid=stMain]").inner_text()
            raise AssertionError(f"{text!r} is not among: {written}") from None


def until(act: Callable[[], None], appears: Any) -> None:
    """Do what a person does again where nothing came of it, until a locator is there: a busy page can miss a click."""
    for _ in range(5):
        act()
        with suppress(AssertionError):
            expect(appears.first).to_be_attached(timeout=PATIENCE_MS / 6)
            return
    act()
    expect(appears.first).to_be_attached()


@contextmanager
def explorer(folder: Path, *options: str) -> Iterator[Explorer]:
    """Run ``gpuclust explore`` on a free port until the block ends."""
    command = [
        sys.executable,
        "-m",
        "gpuclust",
        "explore",
        str(folder),
        "--port",
        str(free_port()),
        "--no-browser",
        *options,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    errors: list[str] = []
    threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True).start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line.startswith("http://"), f"no address but {line!r} and {''.join(errors)}"
        yield Explorer(line, process, errors)
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def headless() -> Iterator[Any]:
    """A headless Chromium; the test is skipped where there is none."""
    path = chromium_or_skip()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


def chromium_or_skip() -> str:
    """Where Chromium is; skips, saying so, where it or Playwright is absent."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install 'gpuclust[dev]'")
    named = os.environ.get("GPUCLUST_CHROMIUM", "")
    found = shutil.which(named or "chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium here; install it, or name one in GPUCLUST_CHROMIUM")
    return str(found)


def axe_or_none(folder: Path) -> str | None:
    """The script of axe-core, which checks a page for accessibility: named in GPUCLUST_AXE, else fetched by npm into a folder;
    None, with a warning printed, where npm is absent or cannot reach its registry."""
    named = os.environ.get("GPUCLUST_AXE", "")
    if named:
        return Path(named).read_text(encoding="utf-8")
    try:
        command = ["npm", "pack", f"axe-core@{AXE_VERSION}", "--silent", "--fetch-retries=0"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
        with tarfile.open(folder / f"axe-core-{AXE_VERSION}.tgz") as packed:
            script = packed.extractfile("package/axe.min.js")
            assert script is not None
            return script.read().decode()
    except (OSError, subprocess.SubprocessError, tarfile.TarError, KeyError) as error:
        print(f"accessibility is not checked: axe-core was not fetched ({type(error).__name__})")
        return None


def violations(page: Any, axe: str) -> list[str]:
    """What axe-core finds on a page: the rule, and the elements that break it."""
    page.evaluate(axe)
    found = page.evaluate("async rules => (await axe.run(document, { rules })).violations", AXE_RULES)
    return [f"{each['id']}: {[node['html'][:160] for node in each['nodes'][:3]]}" for each in found]


@contextmanager
def visitor(browser: Any, **options: Any) -> Iterator[Any]:
    """A browser context (its own cache and cookies); ``options`` as Playwright's ``new_context`` takes them."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 1000}, "accept_downloads": True, **options})
    context.set_default_timeout(PATIENCE_MS)
    try:
        yield context
    finally:
        context.close()


@contextmanager
def tab(context: Any, address: str) -> Iterator[Tab]:
    """A fresh page, which is a session of its own."""
    page = context.new_page()
    opened = Tab(page, address)
    here = (address, address.replace("http", "ws"), "data:", "blob:", "about:")
    page.on("request", lambda request: None if request.url.startswith(here) else opened.outside.append(request.url))
    page.on("pageerror", lambda error: opened.errors.append(str(error)))
    try:
        yield opened
    finally:
        page.close()


def hostile_table(path: Path, *, n_rows: int, preview: str) -> Path:
    """A table of tracks in four groups, with hostile titles at the top of the charts and an honest one among them."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 4, n_rows)
    centers = np.array([[0.2, 0.8, 90], [0.8, 0.2, 120], [0.5, 0.5, 150], [0.9, 0.9, 100]])
    values = centers[kind] + rng.normal(size=(n_rows, 3)) * [0.05, 0.05, 5]
    titles = [*HOSTILE, "An Honest Song", *(f"Song {i}" for i in range(len(HOSTILE) + 1, n_rows))]
    creators = [HOSTILE[i % 4] if i < len(HOSTILE) else f"Band {i % 997}" for i in range(n_rows)]
    frame = pd.DataFrame(values, columns=["energy", "a<b>$c$", "tempo"])
    frame.insert(0, "id", [f"t{i}" for i in range(n_rows)])
    frame["title"], frame["artist"] = titles, creators
    frame["genre"] = np.array(["<b>rock</b>", "jazz", "$folk$", "pop"])[kind]
    frame["popularity"] = np.maximum(100 - np.arange(n_rows), 0)
    frame["year"] = 1960 + np.arange(n_rows) % 60
    frame["preview"] = [
        preview if i == len(HOSTILE) else "file:///etc/passwd" if i == 0 else None for i in range(n_rows)
    ]
    frame.to_parquet(path, index=False)
    return path


def exports_of(table: Path, uri: str, out: Path, sizes: Sequence[int]) -> list[Path]:
    """An export for each size of a K-Means sweep over a hostile table, the chosen one first."""
    from gpuclust.compose import plan
    from gpuclust.export import export, find_run
    from gpuclust.pipeline.context import RunContext
    from gpuclust.pipeline.sweep import jobs_of, run
    from gpuclust.runtime.backend import BackendChoice
    from gpuclust.runtime.cache import ResultCache
    from gpuclust.runtime.cpu import CpuBackend
    from gpuclust.tracking.mlflow import MlflowRecorder
    from tests.conftest import Quiet

    recorder = MlflowRecorder(uri, "explorer")
    context = RunContext(
        CpuBackend(), BackendChoice("cpu", "a test"), ResultCache(), recorder, Quiet(), "gpuclust test"
    )
    roles = {
        "title": "title",
        "creator": "artist",
        "group": "genre",
        "popularity": "popularity",
        "year": "year",
        "preview": "preview",
    }
    words = [f"data.roles.{role}={column}" for role, column in roles.items()]
    features = "data.features=[energy,'a<b>$c$',tempo]"
    overrides = ["data=table", f"data.path={table}", features, *words, "report=none", "score=quick"]
    planned = plan([*overrides, f"cluster.n_clusters={','.join(map(str, sizes))}"], multirun=True)
    done = run(planned, jobs_of(planned, context.backend), context)
    assert done.chosen is not None
    ordered = sorted(done.outcomes, key=lambda outcome: outcome is not done.chosen)
    for i, outcome in enumerate(ordered):
        export(find_run(recorder, str(outcome.run_id)), out / f"export-{i}", recorder=recorder, context=context)
    return [out / f"export-{i}" for i in range(len(ordered))]


def plain_id(text: str) -> str:
    """A text as it is expected on a page: one line, without what turns its direction."""
    return re.sub(r"\s+", " ", "".join(" " if ord(c) < 32 else c for c in text if c not in "\u202e")).strip()
