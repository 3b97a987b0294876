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

from gpuclust.serve.library import Library
from tests.browser import (
    HOSTILE,
    Explorer,
    Tab,
    axe_or_none,
    chromium_or_skip,
    expect,
    explorer,
    exports_of,
    headless,
    hostile_table,
    plain_id,
    tab,
    until,
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
    with headless() as browser:
        yield browser


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
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as one HTML file").click()
    assert f"{N_ROWS:,} rows in" in Path(download.value.path()).read_text(encoding="utf-8")
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


def drawn_map(page: Any) -> Any:
    """The map, when each row that it shows is drawn."""
    found = page.locator(".gpuclust-map")
    found.evaluate("map => map.gpuclustMap.settled()")
    assert found.evaluate("map => map.gpuclustMap.stats().failed") is None
    return found


STATS = "map => map.gpuclustMap.stats()"
# The row at the right edge of the cloud, where no other lies over it.
OUTMOST = """map => {
  const map_ = map.gpuclustMap, rows = map_.rows();
  let best = 0, most = -Infinity;
  for (const row of rows) { const { x } = map_.locate(row); if (x > most) { most = x; best = row; } }
  return best;
}"""


def test_the_map_draws_every_row_and_any_of_them_opens(site: Tab, exports: list[Path]) -> None:
    page = site.open("map")
    plot = drawn_map(page)
    stats = plot.evaluate(STATS)
    assert (stats["rows"], stats["shown"], stats["drawn"]) == (N_ROWS, N_ROWS, N_ROWS)
    with Library.open(exports[0]) as library:
        shares = sum(library.axis_shares[:2])
        expect(plot.locator(".gm-note")).to_contain_text(
            f"All {N_ROWS:,} rows; the 2 axes show {round(100 * shares)} %"
        )
        names = {f"{c.cluster} · {c.name}" for c in library.clusters}
        assert 1 <= len(plot.evaluate("map => map.gpuclustMap.labels()")) <= len(names)
        assert set(plot.evaluate("map => map.gpuclustMap.labels()")) <= names
        page.get_by_role("button", name="Zoom out").click()
        drawn_map(page)
        rank = plot.evaluate(OUTMOST)
        title = library.at([rank])[0].title
    at = plot.evaluate("(map, row) => map.gpuclustMap.locate(row)", rank)
    page.mouse.move(at["x"] - 3, at["y"])
    page.mouse.move(at["x"], at["y"])
    expect(plot.locator(".gm-card b")).to_have_text(title)
    until(lambda: page.mouse.click(at["x"], at["y"]), page.locator(".st-key-item-on-map"))
    expect(page.locator(".st-key-item-on-map h3")).to_contain_text(title)
    # By the keyboard: zoom in to the centre, and open the row that is nearest to it.
    stage = plot.locator(".gm-stage")
    stage.focus()
    for key in ("0", "ArrowRight", "ArrowLeft", "+"):
        page.keyboard.press(key)
    drawn_map(page)
    page.keyboard.press("Enter")
    expect(page.locator(".st-key-item-on-map h3")).not_to_contain_text(title)
    # The map that the clicks have shown again frees its memory when the page is left.
    plot.evaluate("map => { window.leftMap = map.gpuclustMap; }")
    page.get_by_role("link", name="Overview").first.click()
    page.wait_for_function("() => window.leftMap.stats().destroyed")


def test_a_box_selects_all_rows_in_it_and_filters_and_the_address_keep_the_view(site: Tab, exports: list[Path]) -> None:
    page = site.open("map")
    plot = drawn_map(page)
    rows = pd.read_parquet(exports[0] / "assignments.parquet")
    box = plot.locator(".gm-stage").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.wheel(0, 120)
    drawn_map(page)
    plot.get_by_role("button", name="Box").click()
    page.mouse.move(x - box["width"] * 0.4, y - box["height"] * 0.4)
    page.mouse.down()
    page.mouse.move(x + 10, y + box["height"] * 0.4, steps=4)
    page.mouse.up()
    page.get_by_role("heading", name="rows selected").wait_for()
    site.settle()
    corners = np.array(plot.evaluate("map => map.gpuclustMap.selection()"), dtype=np.float64)
    (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
    inside = rows[rows["x"].between(x0, x1) & rows["y"].between(y0, y1)]
    assert 0 < len(inside) < N_ROWS
    page.get_by_role("heading", name=f"{len(inside):,} rows selected").wait_for()
    # A filter narrows the selection: clusters from the legend, numbers from a histogram.
    largest = int(rows["cluster"].mode()[0])
    plot.get_by_role("button", name=re.compile(rf"^{largest} · ")).click()
    field = plot.get_by_label("energy from")
    field.fill("0.5")
    field.press("Enter")
    both = inside[(inside["cluster"] == largest) & (inside["energy"].astype(np.float32) >= 0.5)]
    page.get_by_role("heading", name=f"{len(both):,} rows selected").wait_for()
    site.settle()
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV", exact=True).click()
    assert sorted(pd.read_csv(download.value.path())["id"]) == sorted(both["id"])
    plot.get_by_label("Colour").select_option("f/energy")
    page.wait_for_function("() => location.search.includes('color=') && location.search.includes('area=')")
    before = plot.evaluate("map => map.gpuclustMap.state()")
    # The same address shows the same rows to somebody else.
    page.goto(page.url)
    again = drawn_map(page)
    page.get_by_role("heading", name=f"{len(both):,} rows selected").wait_for()
    assert again.evaluate("map => map.gpuclustMap.state()") == before
    shown = rows[(rows["cluster"] == largest) & (rows["energy"].astype(np.float32) >= 0.5)]
    assert again.evaluate(STATS)["shown"] == len(shown)
    again.get_by_role("button", name="Remove selection").click()
    page.get_by_role("heading", name="rows selected").wait_for(state="detached")
    again.get_by_role("button", name="List these rows").click()
    page.get_by_role("heading", name=f"{len(shown):,} rows selected").wait_for()
    # A lasso: the rows inside a polygon that crosses itself, by the even-odd rule.
    center = rows[["x", "y"]].median()
    star = [(center["x"] + 2 * np.cos(2.4 * i), center["y"] + 2 * np.sin(2.4 * i)) for i in range(7)]
    star = [(float(f"{a:.5g}"), float(f"{b:.5g}")) for a, b in star]
    plot = page.locator(".gpuclust-map")
    plot.evaluate("(map, text) => map.gpuclustMap.restore(text)", f"area={'~'.join(f'{a}~{b}' for a, b in star)}")
    assert 0 < crossed(rows, star) == plot.evaluate(STATS)["selected"] < N_ROWS


def crossed(rows: pd.DataFrame, corners: list[tuple[float, float]]) -> int:
    """How many rows have an odd number of edges to their right."""
    x, y = rows["x"].to_numpy(np.float64), rows["y"].to_numpy(np.float64)
    odd = np.zeros(len(rows), dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, [corners[-1], *corners[:-1]], strict=True):
        if y0 != y1:
            odd ^= ((y0 > y) != (y1 > y)) & (x < x0 + (x1 - x0) * (y - y0) / (y1 - y0))
    return int(odd.sum())


def test_three_axes_turn_under_the_pointer_and_by_the_keyboard_and_a_point_opens(site: Tab) -> None:
    page = site.open("map")
    plot = drawn_map(page)
    plot.get_by_role("button", name="3-D").click()
    slider = plot.get_by_role("slider", name="Rotate")
    slider.wait_for()
    drawn_map(page)
    assert slider.input_value() == "45"
    box = plot.locator(".gm-stage").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 120, y + 24, steps=6)
    page.mouse.up()
    expect(slider).not_to_have_value("45")
    turned = slider.input_value()
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(slider).not_to_have_value(turned)
    drawn_map(page)
    rank = plot.evaluate(OUTMOST)
    at = plot.evaluate("(map, row) => map.gpuclustMap.locate(row)", rank)
    until(lambda: page.mouse.click(at["x"], at["y"]), page.locator(".st-key-item-on-map"))


def test_a_browser_without_webgl_draws_the_map_too(chromium: Any, running: Explorer) -> None:
    flags = ["--no-sandbox", "--disable-3d-apis"]
    browser = chromium.browser_type.launch(executable_path=chromium_or_skip(), args=flags)
    try:
        with visitor(browser) as context, tab(context, running.address) as site:
            stats = drawn_map(site.open("map")).evaluate(STATS)
            assert (stats["renderer"], stats["drawn"]) == ("cpu", N_ROWS)
            assert site.errors == []
    finally:
        browser.close()


# Two maps of the same points, one for each renderer: how many pixels each painted, and by how much their colours differ there.
BOTH = """async ([n, state]) => {
  const { mount } = await import(new URL("/points/points.js", location.href).href);
  const x = new Float32Array(n), y = new Float32Array(n), z = new Float32Array(n), cluster = new Int32Array(n);
  let seed = 1;
  const random = () => (seed = (seed * 1664525 + 1013904223) >>> 0) / 4294967296;
  for (let i = 0; i < n; i++) {
    cluster[i] = i % 3;
    [x[i], y[i], z[i]] = [random() + random() + cluster[i], random() + random() - cluster[i], random()];
  }
  const found = [];
  for (const renderer of ["webgl", "cpu"]) {
    const place = document.createElement("div");
    place.style.width = "700px";
    document.querySelector("[data-testid=stMain]").append(place);
    const map = mount(place, { x, y, z, cluster }, { renderer, height: 400 });
    await map.settled();
    if (state) { await map.restore(state); await map.settled(); }
    const canvas = place.querySelector("canvas"), copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
    copy.drawImage(canvas, 0, 0);
    found.push({ renderer: map.stats().renderer, data: copy.getImageData(0, 0, canvas.width, canvas.height).data });
    map.destroy();
  }
  const [a, b] = found;
  let painted = [0, 0], both = 0, apart = 0;
  for (let i = 0; i < a.data.length; i += 4) {
    const on = [a, b].map(({ data }) => data[i + 3] > 20);
    on.forEach((is, k) => (painted[k] += is));
    if (on[0] && on[1]) {
      both++;
      for (let c = 0; c < 3; c++) apart += Math.abs(a.data[i + c] - b.data[i + c]) / 3;
    }
  }
  return { renderers: found.map((f) => f.renderer), painted, both, apart: apart / both };
}"""


@pytest.mark.parametrize(("n_rows", "state"), [(100_000, ""), (2_000, ""), (2_000, "axes=x~y~z")])
def test_both_renderers_paint_the_same_picture(site: Tab, n_rows: int, state: str) -> None:
    found = site.open("download").evaluate(BOTH, [n_rows, state])
    assert found["renderers"] == ["webgl", "cpu"]
    # A point at the edge of a pixel can fall to either side, and a disc of a few pixels is rounded to a whole position.
    assert min(found["painted"]) > 0.9 * max(found["painted"]) > 2_000
    assert found["both"] > (0.95 if n_rows > 50_000 else 0.7) * max(found["painted"])
    assert found["apart"] < 12


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
    site.open("clusters?view=compare&" + "&".join(["clusters=1", "clusters=2"] * 6))
    drawn = figure(page, ".st-key-radar").evaluate("g => g.data.length")
    assert drawn == 3, "each of them once, which is no more than the page takes"
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
        site.shows(f"This export: {manifest['run_name']}, second of 3 by silhouette; the sweep's choice was {chosen}")
        plot = drawn_map(site.open("map"))
        expect(plot.locator(".gm-note")).to_contain_text("the 2 axes show ")
        expect(plot.locator("option[value=x]").first).to_have_text(re.compile(r"PC1 \(\d+ %\)"))
        plot.get_by_role("button", name="3-D").click()
        expect(plot.locator(".gm-note")).to_contain_text("the 3 axes show ")
        site.open("playlist")
        page.get_by_text("Select a row for details.").wait_for()
        expect(page.locator(".st-key-playlist-files button")).to_have_count(2)
        assert site.errors == []


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
        page.get_by_label("Id", exact=True).fill("7")
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
    plot = drawn_map(site.open("map"))
    # Ranks are by popularity: the hostile titles come first. A point is on the map wherever it is; its card is text.
    for rank in range(len(HOSTILE)):
        at = plot.evaluate("(map, row) => map.gpuclustMap.locate(row)", rank)
        page.mouse.move(at["x"] - 30, at["y"])
        page.mouse.move(at["x"], at["y"])
        plot.locator(".gm-card b").wait_for()
        expect(plot.locator(".gm-card :is(a, strong, img, script, h1)")).to_have_count(0)
    # A feature may be called anything too: it is in labels of widgets, axes and headings.
    plot.get_by_label("Colour").select_option("f/a<b>$c$")
    expect(plot.locator(".gm-head", has_text="a<b>$c$")).to_have_count(1)
    drawn_map(page)
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
