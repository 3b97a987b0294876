"""The explorer in a real browser: what a person sees, clicks, types and takes home."""

import csv
import http.server
import io
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.browser import (
    FLAGS,
    HOSTILE,
    Explorer,
    Tab,
    axe_or_none,
    chromium_or_skip,
    expect,
    explorer,
    exports_of,
    hostile_table,
    plain_id,
    tab,
    until,
    until_true,
    violations,
    visitor,
)
from tests.exporting import made_export

# A browser on a busy machine may miss a click: a test fails when it fails three times in a row (reruns are in the summary).
pytestmark = [pytest.mark.browser, pytest.mark.flaky(reruns=2)]
PAGE_OF_AN_ITEM = "http://open.example/{id}"
N_ROWS = 50_400  # just more than the rows that are a point each
SOUND = b"RIFF$\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00@\x1f\x00\x00@\x1f\x00\x00\x01\x00\x08\x00data\x00\x00\x00\x00"


class Lookup(http.server.BaseHTTPRequestHandler):
    """A preview service: knows one song, has a bad day for another, and serves a sound."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if "Song%2014" in self.path:
            self.send_error(503)
            return
        sound = self.path.startswith("/sound")
        url = f"http://127.0.0.1:{self.server.server_address[1]}/sound.wav"
        known = {"results": [{"artist": "x", "previewUrl": url}]} if "Song%2013" in self.path else {"results": []}
        body = SOUND if sound else json.dumps(known).encode()
        self.send_response(200)
        self.send_header("Content-Type", "audio/wav" if sound else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def lookup() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Lookup)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory, store_template: Path, lookup: str) -> list[Path]:
    folder = tmp_path_factory.mktemp("explorer")
    (folder / "mlflow.db").write_bytes(store_template.read_bytes())
    table = hostile_table(folder / "tracks.parquet", n_rows=N_ROWS, preview=f"{lookup}/sound.wav")
    return exports_of(table, f"sqlite:///{folder / 'mlflow.db'}", folder, [4, 3, 2])


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    path = chromium_or_skip()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def running(chromium: Any, exports: list[Path], lookup: str) -> Iterator[Explorer]:
    options = ["--compare", str(exports[1]), "--previews", lookup + "/find?term={query}"]
    with explorer(exports[0], *options, "--url-template", PAGE_OF_AN_ITEM) as found:
        yield found


@pytest.fixture(scope="module")
def person(chromium: Any) -> Iterator[Any]:
    with visitor(chromium) as context:
        yield context


@pytest.fixture
def site(person: Any, running: Explorer) -> Iterator[Tab]:
    with tab(person, running.address) as opened:
        yield opened
        assert opened.errors == []


def clusters_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "clusters.parquet")


def test_the_overview_says_what_was_clustered_and_asks_nothing_of_the_outside(site: Tab, exports: list[Path]) -> None:
    site.open()
    manifest = json.loads((exports[0] / "manifest.json").read_text())
    site.shows(f"{N_ROWS:,}")
    site.shows(f"{manifest['metrics']['silhouette']:.3f}")
    site.shows(f"This export is the sweep's choice: {manifest['sweep']['selection_reason']}")
    page = site.page
    assert manifest["sweep"]["because"]
    page.get_by_text("Evidence").click()
    for line in manifest["sweep"]["because"]:
        site.shows(line)
    site.page.locator(".js-plotly-plot .bars .point").first.wait_for()
    for title in ("Silhouette", "Elbow (inertia)"):
        expect(site.page.locator(".gtitle", has_text=title)).to_have_count(1)
    for path in ("map", "clusters", "search", "playlist", "trends", "compare", "download"):
        site.open(path)
    assert site.outside == []


def test_every_page_is_reached_and_used_with_the_keyboard(site: Tab) -> None:
    page = site.open()
    expect(page.get_by_role("link", name="Search")).to_be_visible()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText").strip().endswith("Search"):
            break
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Search").wait_for()
    page.get_by_label("Title or artist").focus()
    page.keyboard.type("honst song")
    page.keyboard.press("Enter")
    hit = page.get_by_role("button", name="An Honest Song")
    hit.wait_for()
    hit.focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="An Honest Song").wait_for()


def test_search_shows_the_cluster_and_the_nearest(site: Tab, exports: list[Path]) -> None:
    page = site.open("search")
    page.get_by_label("Title or artist").fill("honst song")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="An Honest Song").click()
    page.get_by_role("heading", name="An Honest Song").wait_for()
    site.settle()
    rows = pd.read_parquet(exports[0] / "assignments.parquet")
    own = rows[rows["title"] == "An Honest Song"].iloc[0]
    name = clusters_of(exports[0]).set_index("cluster").loc[own["cluster"], "name"]
    site.shows(f"{own['cluster']} · {name}")
    page.locator("[data-testid=stDataFrame]").first.wait_for(state="attached")  # the first is folded away
    page.get_by_role("heading", name="Nearest").wait_for()
    expect(page).to_have_url(re.compile(f"item={own['id']}"))


def test_a_preview_plays_from_its_column_only_when_asked_and_only_from_the_web(site: Tab, lookup: str) -> None:
    page = site.open("search?item=t12")
    expect(page.locator("audio")).to_have_count(0)
    page.get_by_text("Listen").click()
    expect(page.locator("audio")).to_have_attribute("src", f"{lookup}/sound.wav")
    # The first row's preview is a file of this machine: no player gets it, and the lookup is asked instead.
    site.open("search?item=t0")
    page.get_by_text("Listen").click()
    page.get_by_text("knows no preview").wait_for()
    expect(page.locator("audio")).to_have_count(0)


def test_the_lookup_finds_a_preview_and_its_failure_is_said(site: Tab, lookup: str) -> None:
    page = site.open("search?item=t13")
    page.get_by_text("Listen").click()
    expect(page.locator("audio")).to_have_attribute("src", f"{lookup}/sound.wav")
    assert "/find?term=Song%2013%20Band%2013" in Lookup.asked
    site.open("search?item=t14")
    page.get_by_text("Listen").click()
    page.get_by_text("did not answer").wait_for()


def test_a_card_opens_its_cluster(site: Tab, exports: list[Path]) -> None:
    page = site.open("clusters")
    known = clusters_of(exports[0])
    expect(page.locator("[class*=st-key-card-]")).to_have_count(len(known))
    colors = json.loads((exports[0] / "manifest.json").read_text())["colors"]
    color = "rgb({}, {}, {})".format(*(int(colors["1"][i : i + 2], 16) for i in (1, 3, 5)))
    expect(page.locator(".st-key-card-1")).to_have_css("border-left-color", color)
    expect(page.locator(".st-key-card-1")).to_contain_text(f"{known['size'][1]:,} rows")
    page.locator(".st-key-card-1").get_by_role("button", name="Open").click()
    page.get_by_role("heading", name="Representative").wait_for()
    expect(page).to_have_url(re.compile("cluster=1$"))
    site.shows(known["description"][1])
    expect(page.locator(".stPlotlyChart .polar")).to_have_count(1)


def figure(page: Any, selector: str) -> Any:
    page.wait_for_function("s => document.querySelector(s + ' .js-plotly-plot')?._fullLayout?._size", arg=selector)
    return page.locator(f"{selector} .js-plotly-plot").first


POINT = """(g) => {
  const trace = g._fullData[0], at = { x: trace.x[5], y: trace.y[5] }, layout = g._fullLayout, box = g.getBoundingClientRect();
  return { x: box.left + layout.xaxis._offset + layout.xaxis.l2p(at.x), y: box.top + layout.yaxis._offset + layout.yaxis.l2p(at.y) };
}"""


def test_the_map_shows_every_row_and_a_point_of_the_sample_opens(site: Tab) -> None:
    page = site.open("map")
    plot = figure(page, ".st-key-map")
    site.shows(f"All {N_ROWS:,} rows as density; a sample of")
    expect(page.locator(".st-key-map image")).to_have_count(1)

    def click() -> None:
        at = plot.evaluate(POINT)
        page.mouse.move(at["x"], at["y"])
        page.mouse.click(at["x"], at["y"])

    until(click, page.locator(".st-key-item-on-map"))
    # Whichever point lies on top there, its title is a heading now.
    expect(page.locator(".st-key-item-on-map h3")).to_have_text(re.compile(r"\w"))


NARROWER = """width => {
  const [low, high] = document.querySelector(".st-key-map .js-plotly-plot")._fullLayout.xaxis.range;
  return high - low < width;
}"""


def test_the_map_zooms_and_a_box_selects_all_rows_in_it(site: Tab, exports: list[Path]) -> None:
    page = site.open("map")
    plot = figure(page, ".st-key-map")
    before = plot.evaluate("g => g._fullLayout.xaxis.range.slice()")
    at = plot.evaluate(
        "g => { const b = g.getBoundingClientRect(); return { x: b.left + b.width / 2, y: b.top + 200 }; }"
    )
    page.mouse.move(at["x"], at["y"])
    page.mouse.wheel(0, -300)
    page.wait_for_function(NARROWER, arg=before[1] - before[0])
    site.settle()
    plot.hover()
    page.locator(".modebar-btn[data-val=select]").click()
    page.mouse.move(at["x"] - 120, at["y"] - 80)
    page.mouse.down()
    page.mouse.move(at["x"] + 120, at["y"] + 120, steps=4)
    page.mouse.up()
    page.get_by_text("rows chosen").wait_for()
    site.settle()
    chosen = plot.evaluate("g => g._fullLayout.selections[0]")
    rows = pd.read_parquet(exports[0] / "assignments.parquet")
    xs, ys = sorted((chosen["x0"], chosen["x1"])), sorted((chosen["y0"], chosen["y1"]))
    inside = rows[rows["x"].between(*xs) & rows["y"].between(*ys)]
    site.shows(f"{len(inside):,} rows chosen")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV", exact=True).click()
    taken = pd.read_csv(download.value.path())
    assert sorted(taken["id"]) == sorted(inside["id"])


TURNED = """before => {
  const { eye } = document.querySelector(".st-key-deep .js-plotly-plot")._fullLayout.scene._scene.getCamera();
  return ["x", "y", "z"].some((axis, i) => Math.abs(eye[axis] - before[i]) > 0.1);
}"""


# The angle that the slider shows is the eye's, and it is not the one from before the key.
FOLLOWS = """before => {
  const scene = document.querySelector(".st-key-deep .js-plotly-plot")._fullLayout.scene?._scene;
  const angle = Number(document.querySelector("input[type=range][aria-label=Turn]").value);
  if (!scene?.glplot || angle === before) return false;
  const { eye } = scene.getCamera(), apart = Math.atan2(eye.y, eye.x) * 180 / Math.PI - angle;
  return Math.abs(apart - 360 * Math.round(apart / 360)) < 1;
}"""


def test_three_axes_turn_under_the_pointer_and_by_the_keyboard(site: Tab) -> None:
    page = site.open("map")
    page.get_by_text("3-D", exact=True).click()
    plot = figure(page, ".st-key-deep")
    page.wait_for_function("() => document.querySelector('.st-key-deep .js-plotly-plot').gpuclustListens")
    eye = "g => { const e = g._fullLayout.scene._scene.getCamera().eye; return [e.x, e.y, e.z]; }"
    before = plot.evaluate(eye)

    def drag() -> None:
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        for step in range(1, 7):
            page.mouse.move(box["x"] + box["width"] / 2 + 20 * step, box["y"] + box["height"] / 2 + 4 * step)
            page.evaluate("() => new Promise(requestAnimationFrame)")
        page.mouse.up()

    until_true(drag, page, TURNED, before)
    slider = page.get_by_role("slider", name="Turn")
    shown = float(slider.input_value())

    def press() -> None:
        slider.focus()
        page.keyboard.press("ArrowRight")

    until_true(press, page, FOLLOWS, shown)


# Where on the screen the point nearest to the eye is: data to clip space as WebGL does it, by the scene's own matrices.
NEAREST = """(g) => {
  const scene = g._fullLayout.scene._scene, { projection, view, model } = scene.glplot.cameraParams;
  const times = (m, v) => [0, 1, 2, 3].map((i) => m[i] * v[0] + m[4 + i] * v[1] + m[8 + i] * v[2] + m[12 + i] * v[3]);
  const box = scene.container.getBoundingClientRect();
  let best = null;
  for (const trace of g._fullData.filter((t) => t.customdata)) {
    for (let i = 0; i < trace._length; i++) {
      const point = ["x", "y", "z"].map((axis, d) => trace[axis][i] * scene.dataScale[d]);
      const clip = times(projection, times(view, times(model, [...point, 1])));
      const depth = clip[2] / clip[3];
      if (best === null || depth < best.depth)
        best = { depth, x: box.left + (clip[0] / clip[3] + 1) / 2 * box.width, y: box.top + (1 - clip[1] / clip[3]) / 2 * box.height };
    }
  }
  return best;
}"""


# Plotly looks once a frame for the point under the pointer and at the buttons, and without a GPU a frame takes long.
FRAMES = """async () => {
  for (let i = 0; i < 12; i++) await new Promise(requestAnimationFrame);
  await new Promise(then => setTimeout(then, 300));
}"""


def test_a_point_in_three_axes_opens(site: Tab) -> None:
    page = site.open("map")
    page.get_by_text("3-D", exact=True).click()
    plot = figure(page, ".st-key-deep")
    page.wait_for_function("() => document.querySelector('.st-key-deep .js-plotly-plot').gpuclustListens")

    def click() -> None:
        at = plot.evaluate(NEAREST)
        page.mouse.move(at["x"] - 9, at["y"])
        page.mouse.move(at["x"], at["y"])
        page.evaluate(FRAMES)
        page.mouse.down()
        page.evaluate(FRAMES)
        page.mouse.up()

    until(click, page.locator(".st-key-item-in-depth"))


def test_a_playlist_is_built_and_downloaded(site: Tab) -> None:
    page = site.open("search?item=t12")
    page.get_by_role("button", name="Add to playlist").click()
    page.get_by_role("button", name="In the playlist").wait_for()
    page.get_by_role("link", name="Playlist").click()
    page.get_by_role("heading", name="Like An Honest Song").wait_for()
    site.settle()
    page.get_by_label("Length").fill("12")
    page.keyboard.press("Enter")
    page.get_by_text("12 items").wait_for()
    site.settle()
    files = {}
    for label in ("CSV", "JSON", "M3U8"):
        with page.expect_download() as download:
            page.locator(".st-key-playlist-files").get_by_role("button", name=label).click()
        assert download.value.suggested_filename.endswith(label.lower())
        files[label] = Path(download.value.path()).read_text(encoding="utf-8-sig")
    listed = list(csv.DictReader(io.StringIO(files["CSV"])))
    ids = [entry["id"] for entry in json.loads(files["JSON"])["items"]]
    assert [row["id"] for row in listed] == ids
    assert len(ids) == 12
    assert "t12" not in ids
    assert files["M3U8"].startswith("#EXTM3U")
    assert [line for line in files["M3U8"].splitlines() if not line.startswith("#")] == [
        PAGE_OF_AN_ITEM.format(id=id) for id in ids
    ]


def test_a_taste_and_a_cluster_make_playlists_too(site: Tab) -> None:
    page = site.open("playlist")
    page.get_by_text("30 items").wait_for()
    page.get_by_text("Target values", exact=True).click()
    page.get_by_role("heading", name="energy").wait_for()
    page.get_by_text("30 items").wait_for()


def test_the_address_has_the_state_of_a_page(site: Tab) -> None:
    """A link opens the same view, a change is in the address, and the Back button undoes it."""
    page = site.open("playlist?from=target&feature=tempo&size=12&at-tempo=100")
    page.get_by_role("heading", name="tempo 100").wait_for()
    page.get_by_text("12 items").wait_for()
    page.get_by_label("Length").fill("9")
    page.keyboard.press("Enter")
    page.get_by_text("9 items").wait_for()
    expect(page).to_have_url(re.compile(r"from=target.*size=9"))
    page.go_back()
    page.get_by_text("12 items").wait_for()
    page = site.open("search?q=honst+song")
    page.get_by_role("button", name="An Honest Song").click()
    page.get_by_role("heading", name="An Honest Song").wait_for()
    expect(page).to_have_url(re.compile(r"q=honst(\+|%20)song&item=t12"))
    site.open("trends?by=group&x=tempo&y=energy")
    axes = figure(page, ".st-key-bubbles").evaluate("g => [g.layout.xaxis.title.text, g.layout.yaxis.title.text]")
    assert axes == ["tempo", "energy"]
    site.open("clusters?view=compare&clusters=1&clusters=2")
    drawn = figure(page, ".st-key-radar").evaluate("g => g.data.length")
    assert drawn == 3, "two clusters, and the mean of all rows"
    site.open("playlist?from=nobody&size=x&feature=none&per-creator=nan")
    page.get_by_text("30 items").wait_for()


def test_two_exports_are_compared(site: Tab, exports: list[Path]) -> None:
    page = site.open("compare")
    from sklearn.metrics import adjusted_rand_score

    first, second = (pd.read_parquet(path / "assignments.parquet")["cluster"] for path in exports[:2])
    values = [f"{N_ROWS:,}", f"{adjusted_rand_score(first, second):.3f}"]
    expect(page.locator("[data-testid=stMetricValue]")).to_have_text(values)
    page.locator(
        ".st-key-meeting .js-plotly-plot .hm, .st-key-meeting .js-plotly-plot .heatmaplayer image"
    ).first.wait_for(state="attached")


def test_averages_over_years(site: Tab, exports: list[Path]) -> None:
    page = site.open("trends")
    figure(page, ".st-key-years")
    drawn = page.locator(".st-key-years .js-plotly-plot").evaluate(
        "g => g.data.map(t => [t.name, t.x.length ?? Object.keys(t.x).length])"
    )
    assert [n for _, n in drawn] == [60, 60, 60]
    assert drawn[0][0] == "energy"


def test_an_export_that_its_sweep_did_not_choose_says_so(chromium: Any, exports: list[Path]) -> None:
    """And without a template there is no playlist file of addresses that it does not have."""
    manifest = json.loads((exports[1] / "manifest.json").read_text())
    assert manifest["selected"] is False
    with explorer(exports[1]) as running, visitor(chromium) as context, tab(context, running.address) as site:
        page = site.open()
        chosen = manifest["sweep"]["chosen"]["name"]
        site.shows(f"This export: {manifest['run_name']}; the sweep's choice was {chosen}")
        shares = PLAIN_MAP.format(n=2)
        site.open("map")
        site.shows(shares)
        axis = figure(page, ".st-key-map").evaluate("g => g.layout.xaxis.title.text")
        assert re.fullmatch(r"PC1 \(\d+ %\)", axis)
        page.get_by_text("3-D", exact=True).click()
        site.shows(PLAIN_MAP.format(n=3))
        site.open("playlist")
        page.get_by_text("Select a row for details.").wait_for()
        expect(page.locator(".st-key-playlist-files button")).to_have_count(2)
        assert site.errors == []


PLAIN_MAP = "the {n} axes show "


def test_a_table_that_is_no_music_has_no_playlists(chromium: Any, tmp_path: Path, store_template: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(300, 3)) + rng.integers(0, 3, (300, 1)) * 6, columns=["a", "b", "c"])
    folder = made_export(frame, tmp_path, store_template, features=["a", "b", "c"])
    with explorer(folder) as running, visitor(chromium) as context, tab(context, running.address) as site:
        page = site.open()
        expect(page.get_by_role("link", name="Search")).to_be_visible()
        for absent in ("Playlist", "Trends"):
            expect(page.get_by_role("link", name=absent)).to_have_count(0)
        site.open("clusters?cluster=0")
        expect(page.get_by_text("Most popular")).to_have_count(0)
        site.open("search")
        page.get_by_label("Id").fill("7")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Nearest").wait_for()
        expect(page.get_by_role("button", name="Add to playlist")).to_have_count(0)
        assert site.errors == []


def test_the_assignments_are_downloaded_whole(site: Tab, exports: list[Path]) -> None:
    page = site.open("download")
    with page.expect_download() as download:
        page.get_by_role("button", name="Parquet", exact=True).click()
    assert pq.read_table(download.value.path()).equals(pq.read_table(exports[0] / "assignments.parquet"))
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV", exact=True).click()
    rows = pd.read_csv(download.value.path(), keep_default_na=False)
    assert len(rows) == N_ROWS
    assert not rows["title"].str.match(r"[=+\-@\t\r]").any()


READS = """([selector, text]) => document.querySelector(selector)?.innerText.replaceAll("\u2060", "") === text"""
MARKUP = ":is(a, b, strong, em, s, code, img, script, ul, h1 h1, .katex, .katex-error, [data-testid=stIconMaterial], [style*=color])"


def test_hostile_titles_are_text(site: Tab) -> None:
    page = site.page
    for number, title in enumerate(HOSTILE):
        site.open(f"search?item=t{number}")
        page.wait_for_function(READS, arg=[".st-key-item-found h3", plain_id(title)])
        expect(page.locator(f".st-key-item-found h3 {MARKUP}"), title).to_have_count(0)
        facts = page.locator(".st-key-item-found [data-testid=stText]").first
        expect(facts.locator(MARKUP), title).to_have_count(0)
        expect(facts).to_contain_text(plain_id(HOSTILE[number % 4]))
    assert page.evaluate("window.stolen") is None
    assert site.outside == []


def test_hostile_titles_are_text_in_lists_labels_and_hovers(site: Tab) -> None:
    page = site.open("search")
    page.get_by_label("Title or artist").fill("evil example")
    page.keyboard.press("Enter")
    page.locator(".st-key-hits button").first.wait_for()
    site.settle()
    page.wait_for_function(
        "([selector, text]) => [...document.querySelectorAll(selector)].some("
        "e => e.innerText.replaceAll('\u2060', '').includes(text))",
        arg=[".st-key-hits button", plain_id(HOSTILE[6])],
    )
    expect(page.locator(f".st-key-hits {MARKUP}")).to_have_count(0)
    site.open("map")
    plot = figure(page, ".st-key-map")
    texts = plot.evaluate("g => g.data.flatMap(t => Object.values(t.hovertext ?? []))")
    titles = [text.removeprefix("<b>").partition("</b><br>")[0] for text in texts]
    assert not [title for title in titles if "<" in title or ">" in title]
    # A feature may be called anything too: it is in labels of widgets, axes and headings.
    page.get_by_text("Colour").wait_for()
    site.open("trends")
    names = figure(page, ".st-key-years").evaluate("g => g.data.map(t => t.name)")
    assert "a&lt;b&gt;$c$" in names
    site.open("clusters?cluster=0")
    expect(page.locator("[data-testid=stMain] script")).to_have_count(0)
    assert page.evaluate("window.stolen") is None
    assert site.outside == []


FITS = "() => (main => main.scrollWidth <= main.clientWidth)(document.querySelector('[data-testid=stMain]'))"


PAGES = ("", "map", "clusters", "clusters?view=compare", "clusters?cluster=0", "search", "search?q=song&item=t12", "playlist",
         "playlist?from=target", "trends", "trends?by=group", "compare", "download")  # fmt: skip


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str | None:
    return axe_or_none(tmp_path_factory.mktemp("axe"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_a_phone_and_is_accessible(
    chromium: Any, running: Explorer, scheme: str, axe: str | None
) -> None:
    from playwright.sync_api import TimeoutError as Missing

    with visitor(chromium, color_scheme=scheme) as context, tab(context, running.address) as site:
        found = {}
        for path in PAGES:
            site.page.set_viewport_size({"width": 1440, "height": 900})
            page = site.open(path)
            if axe is not None:
                found[f"/{path} on a desk"] = violations(page, axe)
            page.set_viewport_size({"width": 390, "height": 800})
            try:
                page.wait_for_function(FITS)
            except Missing:
                raise AssertionError(f"/{path} is wider than the screen") from None
            if axe is not None:
                found[f"/{path} on a phone"] = violations(page, axe)
        shades = r"[0-9]|[1-5]\d|6[0-3]" if scheme == "dark" else r"19[2-9]|2\d\d"
        expect(page.locator("[data-testid=stApp]")).to_have_css("background-color", re.compile(rf"rgb\(({shades}),"))
        assert site.errors == []
        assert {where: rules for where, rules in found.items() if rules} == {}
    if axe is None:
        pytest.skip("the pages fit; their accessibility is not checked: npm could not fetch axe-core")
