"""The JSON API, asked by a real HTTP client: a running `gpuclust serve`, held against the export's own files."""

import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pandas as pd
import pytest

from gpuclust.serve.problems import Json
from tests.browser import FLAGS, PATIENCE_MS, chromium_or_skip, expect
from tests.exporting import CREATORS, FEATURES, TITLES, made_export, tracks
from tests.serving import serving

SLASHED = "a/b c%2F?#"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    frame = tracks()
    frame.loc[3, "id"] = SLASHED
    frame["preview"] = ["https://p.example/1.mp3", "javascript:alert(1)"] * (len(frame) // 2)
    return made_export(frame, tmp_path_factory.mktemp("api"), store_template, "clean.bounds.tempo=[1,400]")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    with serving(folder) as address, httpx.Client(base_url=address, timeout=60) as opened:
        yield opened


@pytest.fixture(scope="module")
def table(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "assignments.parquet")


def no_constant(name: str) -> float:
    raise AssertionError(f"{name} is not JSON")


def got(client: httpx.Client, path: str, **asked: Any) -> Any:
    """A 200's content, as strict JSON."""
    answer = client.get(path, params=asked)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return json.loads(answer.content.decode("utf-8"), parse_constant=no_constant)


def refused(answer: httpx.Response, status: int) -> Any:
    """A problem document's content."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    content = answer.json()
    assert (content["type"], content["status"]) == ("about:blank", status)
    assert content["title"]
    assert content["detail"]
    return content


# What is there


def test_health_and_export_tell_what_is_served(client: httpx.Client, folder: Path, table: pd.DataFrame) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    health, export = got(client, "/health"), got(client, "/export")
    assert (health["status"], health["rows"], health["clusters"], health["changed"]) == ("ok", len(table), 3, False)
    assert export["run_id"] == manifest["run_id"]
    assert export["metrics"] == manifest["metrics"]
    assert export["features"] == manifest["features"]
    assert export["key"] == health["key"]
    assert (export["selected"], export["sweep_choice"], export["because"], export["warnings"]) == (False, "", [], [])


def test_clusters_are_those_of_the_export(client: httpx.Client, table: pd.DataFrame) -> None:
    listed = got(client, "/clusters")["clusters"]
    assert [c["size"] for c in listed] == table["cluster"].value_counts().sort_index().tolist()
    for short in listed:
        own = table[table["cluster"] == short["cluster"]]
        whole = got(client, f"/clusters/{short['cluster']}")
        assert whole["name"] == short["name"]
        for feature in FEATURES:
            # Means of the same numbers summed in another order.
            assert whole["features"][feature]["mean"] == pytest.approx(own[feature].mean(), rel=1e-12)
            assert short["features"][feature] == whole["features"][feature]["mean"]


def test_items_of_a_cluster_by_popularity_and_closeness(client: httpx.Client, table: pd.DataFrame) -> None:
    own = table[table["cluster"] == 1]
    popular = got(client, "/clusters/1/items", pick="popular", limit=1000)
    assert popular["total"] == len(own) == len(popular["items"])
    assert popular["next_offset"] is None
    assert [i["popularity"] for i in popular["items"]] == sorted(own["popularity"], reverse=True)
    central = got(client, "/clusters/1/items", pick="central", limit=5)
    assert [i["distance"] for i in central["items"]] == sorted(own["distance"].tolist())[:5]


def test_a_seed_gives_the_same_items_page_after_page(client: httpx.Client, table: pd.DataFrame) -> None:
    asked: dict[str, Any] = {"pick": "random", "seed": 7, "limit": 10}
    seen: list[str] = []
    offset = 0
    while offset is not None:
        page = got(client, "/clusters/0/items", offset=offset, **asked)
        assert page == got(client, "/clusters/0/items", offset=offset, **asked)
        seen += [item["id"] for item in page["items"]]
        offset = page["next_offset"]
    own = table[table["cluster"] == 0]["id"]
    assert len(seen) == len(own)
    assert set(seen) == set(own)
    other = got(client, "/clusters/0/items", **asked | {"seed": 8})
    assert [item["id"] for item in other["items"]] != seen[:10]
    assert got(client, "/clusters/0/items", offset=2**31 - 1)["items"] == []


def test_search_by_title_and_creator(client: httpx.Client) -> None:
    found = got(client, "/search", q="crazy in luv", limit=3)
    assert found["hits"][0]["item"]["title"] == "Crazy In Love"
    assert len(found["hits"]) <= 3
    by = got(client, "/search", creator="acdc")["hits"]
    assert "AC/DC" in {hit["item"]["creator"] for hit in by}
    assert got(client, "/search")["hits"] == []
    assert got(client, "/search", q="queen")["ambiguous"] == []
    found = got(client, "/search", q="hello", limit=2)
    assert (len(found["hits"]), found["total_is_minimum"]) == (2, False)
    assert found["total"] >= len(found["ambiguous"]) > 2


@pytest.mark.parametrize("title", TITLES)
def test_hostile_titles_come_out_as_they_are(title: str, client: httpx.Client, table: pd.DataFrame) -> None:
    row = table[table["title"] == title].iloc[0]
    answer = got(client, f"/items/{quote(row['id'], safe='')}")
    assert answer["item"]["title"] == title
    assert answer["item"]["creator"] == row["artist"]
    assert got(client, "/search", title=title)["hits"], title


def test_an_item_has_its_cluster_and_who_else_has_its_title(client: httpx.Client, table: pd.DataFrame) -> None:
    row = table[table["title"] == "Yesterday"].iloc[0]
    answer = got(client, f"/items/{row['id']}")
    item = answer["item"]
    assert item["features"] == {f: row[f] for f in FEATURES}
    assert (item["cluster"], item["year"], item["popularity"]) == (row["cluster"], row["year"], row["popularity"])
    assert answer["cluster"]["cluster"] == row["cluster"]
    assert set(answer["same_title_creators"]) == set(table[table["title"] == "Yesterday"]["artist"])


def test_an_id_may_hold_a_slash(client: httpx.Client) -> None:
    for path in ("", "/similar", "/playlist"):
        got(client, f"/items/{quote(SLASHED, safe='')}{path}")
    assert got(client, f"/creators/{quote('ac/dc', safe='')}")["value"] == "AC/DC"


def test_similar_items_are_the_nearest(client: httpx.Client, table: pd.DataFrame) -> None:
    # The export scales by mean and standard deviation: distances there, by brute force.
    scaled = (table[FEATURES] - table[FEATURES].mean()) / table[FEATURES].std(ddof=0)
    row = int(np.flatnonzero(table["title"] == "Imagine")[0])
    away = np.sqrt(((scaled - scaled.iloc[row]) ** 2).sum(axis=1)).to_numpy()
    for within in ("all", "cluster"):
        allowed = away.copy()
        allowed[row] = np.inf
        if within == "cluster":
            allowed[table["cluster"] != table["cluster"][row]] = np.inf
        answer = got(client, f"/items/{table['id'][row]}/similar", within=within, limit=7)["neighbours"]
        nearest = np.argsort(allowed)[:7]
        assert [n["item"]["id"] for n in answer] == table["id"].iloc[nearest].tolist()
        # The model's matrix is float32: relative 6e-8 a coordinate, differences of coordinates near 1.
        np.testing.assert_allclose([n["distance"] for n in answer], allowed[nearest], rtol=1e-5)


@pytest.mark.parametrize(("by", "column"), [("year", "year"), ("group", "genre"), ("creator", "artist")])
def test_averages(by: str, column: str, client: httpx.Client, table: pd.DataFrame) -> None:
    answer = got(client, f"/averages/{by}", limit=1000, min_count=1)
    values = table.assign(**{column: table[column].astype(str).str.split(r"\s*;\s*", regex=True)}).explode(column)
    expected = values.groupby(column)[FEATURES].mean()
    assert answer["total"] == len(expected) == len(answer["values"])
    for value in answer["values"]:
        for feature in FEATURES:
            # Sums in another order.
            assert value["features"][feature] == pytest.approx(expected.loc[str(value["value"]), feature], rel=1e-12)
    # By default a year or a group needs 1 % of the rows, a creator one.
    sizes, least = values[column].value_counts(), 1 if by == "creator" else 4
    default = got(client, f"/averages/{by}", limit=1000)
    assert {str(v["value"]): v["count"] for v in default["values"]} == sizes[sizes >= least].to_dict()
    assert (default["min_count"], default["left_out"]) == (least, int((sizes < least).sum()))
    assert default["left_out_rows"] == int(sizes[sizes < least].sum())
    if by != "creator":
        inside = got(client, f"/clusters/2/averages/{by}", limit=1000, min_count=1)["values"]
        assert sum(v["count"] for v in inside) == (table["cluster"] == 2).sum()


# Playlists


def test_playlists_of_all_kinds_and_forms(client: httpx.Client, table: pd.DataFrame) -> None:
    liked = table[table["title"] == "Wonderwall"].iloc[0]["id"]
    bodies: list[dict[str, Any]] = [
        {"cluster": 1},
        {"like": [liked, "yesterday"]},
        {"taste": {"energy": 0.8, "tempo": 120}},
    ]
    for body in bodies:
        answer = client.post("/playlist", json=body | {"size": 12, "per_creator": 1})
        assert answer.status_code == 200, answer.text
        made = answer.json()
        assert answer.json() == client.post("/playlist", json=body | {"size": 12, "per_creator": 1}).json()
        creators = [name for listed in made["items"] for name in listed["item"]["creators"]]
        assert len(creators) == len(set(creators))
        assert [listed["distance"] for listed in made["items"]] == sorted(
            listed["distance"] for listed in made["items"]
        )
        # A place's distance is from what was asked for, its item's own to the centre of the item's cluster.
        to_centre = table.set_index("id")["distance"]
        for listed in made["items"]:
            assert listed["item"]["distance"] == to_centre[listed["item"]["id"]]
            assert (listed["distance"] == listed["item"]["distance"]) == ("cluster" in body)
    of_cluster = got(client, "/clusters/1/playlist", size=5)
    assert {listed["item"]["cluster"] for listed in of_cluster["items"]} == {1}
    assert liked not in [x["item"]["id"] for x in got(client, f"/items/{liked}/playlist", size=50)["items"]]


def test_a_playlist_as_a_file(client: httpx.Client) -> None:
    csv = client.get("/clusters/0/playlist", params={"format": "csv", "size": 200, "per_creator": 0})
    assert csv.headers["content-type"] == "text/csv; charset=utf-8"
    assert csv.headers["content-disposition"] == 'attachment; filename="playlist.csv"'
    assert csv.content.startswith(b"\xef\xbb\xbf")
    cells = [cell for line in csv.text.splitlines() for cell in line.split(",")]
    assert not [cell for cell in cells if cell.strip('"').startswith(("=", "@"))]
    template = "https://open.example/{id}"
    m3u8 = client.post("/playlist", params={"format": "m3u8", "url_template": template}, json={"cluster": 0})
    items = client.post("/playlist", json={"cluster": 0}).json()["items"]
    addresses = [line for line in m3u8.text.splitlines() if not line.startswith("#")]
    assert addresses == [template.format(id=quote(listed["item"]["id"], safe="")) for listed in items]
    uris = client.post("/playlist", params={"format": "uris", "url_template": template}, json={"cluster": 0})
    assert (uris.text.splitlines(), uris.headers["content-type"]) == (addresses, "text/plain; charset=utf-8")
    refused(client.get("/clusters/0/playlist", params={"format": "m3u8", "url_template": "nowhere"}), 422)
    m3u8 = client.post("/playlist", params={"format": "m3u8"}, json={"cluster": 0})
    assert m3u8.headers["content-type"] == "application/vnd.apple.mpegurl"
    assert m3u8.text.startswith("#EXTM3U\n")
    assert "javascript:" not in m3u8.text


def test_a_playlist_of_nothing_that_is_known(client: httpx.Client) -> None:
    content = refused(client.post("/playlist", json={"taste": {"energi": 1.0}}), 422)
    assert "did you mean energy" in content["detail"]
    content = refused(client.post("/playlist", json={"taste": {"happiness": 1.0}}), 422)
    assert "the features are danceability, energy, valence, tempo, duration_ms" in content["detail"]
    surrogate = b'{"taste": {"\\ud800": 1}}'  # a name that UTF-8 cannot hold
    refused(client.post("/playlist", content=surrogate, headers={"content-type": "application/json"}), 422)
    content = refused(client.post("/playlist", json={"taste": {"energy": 8}}), 422)
    assert "energy=8 is outside the range of energy in this export, 0" in content["detail"]
    refused(client.post("/playlist", json={"like": ["zzzzqqqq xxyyzz"]}), 404)
    refused(client.post("/playlist", json={"cluster": 9}), 404)
    assert "give an object with cluster, like or taste" in refused(client.post("/playlist", json={}), 422)["detail"]
    refused(client.post("/playlist", json=[1]), 422)
    refused(client.post("/playlist", json={"cluster": 1, "like": ["yesterday"]}), 422)


# Placing rows


def test_training_rows_are_placed_where_the_export_has_them(client: httpx.Client, table: pd.DataFrame) -> None:
    rows = table[FEATURES].to_dict("records")
    placed = client.post("/predict", json={"rows": rows}).json()["predictions"]
    assert [p["cluster"] for p in placed] == table["cluster"].tolist()
    for name in ("confidence", "distance", "x", "y", "z"):
        np.testing.assert_array_equal(np.float32([p[name] for p in placed]), table[name].to_numpy(np.float32))


def test_rows_that_cannot_be_placed_say_why(client: httpx.Client, table: pd.DataFrame) -> None:
    row = {f: float(table[f][0]) for f in FEATURES}
    rows = [row, row | {"energy": None}, row | {"tempo": 0}, row | {"energy": 1e300}, {}]
    placed = client.post("/predict", json={"rows": rows}).json()["predictions"]
    assert placed[0]["problem"] is None
    assert placed[0]["cluster"] == table["cluster"][0]
    for answer, why in zip(
        placed[1:], ("energy is missing", "tempo=0 is outside 1", "too far out", "missing"), strict=True
    ):
        assert why in answer["problem"]
        assert [answer[k] for k in ("cluster", "name", "confidence", "distance", "x", "y", "z")] == [None] * 7


def test_bodies_that_are_refused(client: httpx.Client) -> None:
    declared = {"content-type": "application/json"}

    def sent(content: Any, headers: dict[str, str] = declared) -> httpx.Response:
        return client.post("/predict", content=content, headers=headers)

    content = refused(client.post("/predict", json={"rows": [{"enrgy": 1.0}]}), 422)
    assert content["suggestions"] == ["energy"]
    assert "suggestions" not in refused(client.post("/predict", json={"rows": [{"happiness": 1.0}]}), 422)
    refused(client.post("/predict", json={"rows": []}), 422)
    refused(client.post("/predict", json={"rows": [{}] * 10_001}), 422)
    refused(client.post("/predict", json={"rows": [{"energy": "0.5"}]}), 422)
    refused(client.post("/predict", json={"rows": [{"energy": True}]}), 422)
    refused(client.post("/predict", json={"rows": [{}], "row": 1}), 422)
    refused(sent(b'{"rows": [{"energy": NaN}]}'), 422)
    refused(sent(b'{"rows": [{"energy": 1e999}]}'), 422)
    assert "character 10" in refused(sent(b'{"rows": ['), 400)["detail"]
    refused(sent(b"\xff\xfe\xff"), 400)
    refused(sent(b"[" * 100_000), 400)
    refused(sent(b'{"rows": [{"energy": ' + b"9" * 10_000 + b"}]}"), 400)
    refused(sent(b'{"rows": [{}]}', {}), 415)
    # A lone surrogate is a name that UTF-8 cannot hold; the answer still is UTF-8.
    assert "ud800" in refused(sent(b'{"rows": [{"\\ud800": 1}]}'), 422)["detail"]
    refused(client.request("POST", "/predict", content=b" " * (8 * 2**20 + 1), headers=declared), 413)
    refused(sent(b" " * 2**20 for _ in range(9)), 413)


# What is not there


def test_unknown_things_come_with_suggestions(client: httpx.Client) -> None:
    assert refused(client.get("/items/track0010"), 404)["suggestions"]
    assert "there are 0, 1, 2" in refused(client.get("/clusters/17"), 404)["detail"]
    assert refused(client.get("/creators/Beyonse"), 404)["suggestions"][0] in CREATORS
    assert "openapi.json" in refused(client.get("/nothing"), 404)["detail"]
    assert "did you mean pick" in refused(client.get("/clusters/0/items?pik=popular"), 422)["detail"]
    for path in (
        "/items/%00",
        "/items/%ff%fe",
        "/items/%ED%A0%80",
        "/items/" + "x" * 1_501,
        "/items/..%2f..%2fetc%2fpasswd",
    ):
        assert client.get(path).status_code in (404, 422), path


@pytest.mark.parametrize(
    "path",
    ["/clusters/one", "/clusters/-2", "/clusters/0/items?limit=0", "/clusters/0/items?limit=1001", "/clusters/0/items?pick=best",
     "/clusters/0/items?offset=-1", "/clusters/0/items?seed=1.5", "/search?limit=101", "/averages/colour", "/clusters/0/averages/creator",
     f"/search?q={'x' * 501}"],
)  # fmt: skip
def test_values_outside_their_limits_are_refused(path: str, client: httpx.Client) -> None:
    assert refused(client.get(path), 422)["errors"]


def test_the_pages_about_the_api_need_nothing_from_elsewhere(client: httpx.Client) -> None:
    root = str(client.base_url).removesuffix("/api/v1/")
    index = client.get(f"{root}/")
    assert index.status_code == 200
    assert 'href="docs"' in index.text
    links = got(client, root + "/api/v1")
    assert {client.get(root + path).status_code for name, path in links.items() if name != "search"} == {200}
    docs = client.get(f"{root}/docs")
    files = re.findall(r'(?:src|href)="(docs/[^"]+)"', docs.text)
    assert files == ["docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/start.js"]
    policy = docs.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "http" not in docs.text + index.text + policy
    for file in files:
        answer = client.get(f"{root}/{file}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].partition(";")[0] in ("text/css", "text/javascript")
    refused(client.get(f"{root}/docs/..%2fapi_docs.py"), 404)


@pytest.mark.browser
def test_swagger_ui_tries_a_request_with_the_token_and_loads_nothing_from_elsewhere(folder: Path) -> None:
    chromium = chromium_or_skip()
    from playwright.sync_api import sync_playwright

    token = "token-of-the-test"
    asked: list[str] = []
    problems: list[str] = []
    with serving(folder, "--token", token) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(address.replace("/api/v1", "/docs"))
        page.get_by_label("token").fill("wrong-token-here")
        page.get_by_role("button").click()
        page.get_by_label("The token is wrong").fill(token)
        page.get_by_role("button").click()
        route = page.locator(".opblock", has_text="/api/v1/health")
        route.locator("button").first.click()
        route.get_by_text("Try it out").click()
        route.get_by_text("Execute").click()
        expect(route.locator(".live-responses-table")).to_contain_text('"status": "ok"')
        browser.close()
    assert {url.partition("/docs")[0].partition("/api")[0] for url in asked if not url.startswith("data:")} == {
        address.removesuffix("/api/v1")
    }
    assert [text for text in problems if "401" not in text] == [], "its policy stops nothing that Swagger UI needs"


def test_other_methods_are_refused(client: httpx.Client) -> None:
    for verb, path in (
        ("DELETE", "/clusters"),
        ("PUT", "/items/track00001"),
        ("GET", "/predict"),
        ("OPTIONS", "/clusters"),
    ):
        answer = client.request(verb, path)
        refused(answer, 405)
        assert answer.headers["allow"]


def test_an_export_without_years(tmp_path: Path, store_template: Path) -> None:
    folder = made_export(tracks(60).drop(columns=["year", "popularity"]), tmp_path, store_template)
    with serving(folder) as address, httpx.Client(base_url=address) as client:
        assert refused(client.get("/averages/year"), 404)["suggestions"] == ["group", "creator"]
        item = got(client, "/clusters/0/items")["items"][0]
        assert (item["year"], item["popularity"]) == (None, None)
        content = refused(client.get("/clusters/0/playlist?format=m3u8"), 409)
        assert "give url_template" in content["detail"]


# The protocol


def test_a_get_has_an_etag_and_is_not_sent_again(client: httpx.Client) -> None:
    for path in ("/clusters", "/search?q=hello", "/items/track00001", "/openapi.json"):
        first = client.get(path)
        tag = first.headers["etag"]
        assert first.headers["cache-control"] == "public, max-age=60"
        for sent in (tag, f'"other", {tag}', "*"):
            again = client.get(path, headers={"if-none-match": sent})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert client.get(path, headers={"if-none-match": '"other"'}).content == first.content
    assert client.get("/search?q=hello").headers["etag"] != client.get("/search?q=hallo").headers["etag"]
    assert client.get("/clusters/17", headers={"if-none-match": "*"}).status_code == 404
    health = client.get("/health")
    assert "etag" not in health.headers
    assert health.headers["cache-control"] == "no-store"


def test_another_export_has_other_etags(folder: Path, client: httpx.Client, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "out", ignore=shutil.ignore_patterns(".index")))
    (copy / "manifest.json").write_text((copy / "manifest.json").read_text() + " ")
    with serving(copy) as address, httpx.Client(base_url=address) as other:
        assert other.get("/clusters").content == client.get("/clusters").content
        assert other.get("/clusters").headers["etag"] != client.get("/clusters").headers["etag"]
        (copy / "manifest.json").unlink()
        assert got(other, "/health")["changed"] is True


def test_head_is_get_without_a_body(client: httpx.Client) -> None:
    get, head = client.get("/clusters"), client.head("/clusters")
    assert (head.status_code, head.content) == (200, b"")
    assert {k: v for k, v in head.headers.items() if k != "date"} == {
        k: v for k, v in get.headers.items() if k != "date"
    }


def test_long_answers_are_zipped_for_who_takes_it(client: httpx.Client) -> None:
    plain = client.get("/clusters", headers={"accept-encoding": "identity"})
    zipped = client.get("/clusters", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert zipped.headers["content-encoding"] == "gzip"
    assert zipped.content == plain.content
    assert int(zipped.headers["content-length"]) < int(plain.headers["content-length"]) / 2
    assert "accept-encoding" in plain.headers["vary"].lower()


def test_answers_are_nothing_that_a_browser_would_run(client: httpx.Client) -> None:
    for path in ("/search?q=script", "/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers


def test_pages_elsewhere_cannot_read_it_unless_asked(client: httpx.Client, folder: Path) -> None:
    page, preflight = {"origin": "https://music.example"}, {"access-control-request-method": "GET"}
    assert not [h for h in client.get("/health", headers=page).headers if h.startswith("access-control")]
    assert client.options("/health", headers=page | preflight).status_code == 405
    # A name that its owner points at this machine is not this machine's name.
    refused(client.get("/health", headers={"host": "music.example"}), 421)
    with serving(folder, "--cors", "https://music.example", "https://b.example") as address:
        answer = httpx.get(f"{address}/health", headers=page)
        assert answer.headers["access-control-allow-origin"] == "https://music.example"
        assert httpx.options(f"{address}/health", headers=page | preflight).status_code == 200
        other = httpx.get(f"{address}/health", headers={"origin": "https://c.example"})
        assert "access-control-allow-origin" not in other.headers


def test_json_of_what_json_cannot_hold() -> None:
    text = "\ud800 \U0001f3b5 \x00 \u202e </script>"
    body = Json({"a": math.nan, "b": [math.inf, {"c": -math.inf}], text: text, "d": ("x", 1)}).body
    read = json.loads(bytes(body).decode("utf-8"), parse_constant=no_constant)
    clean = text.replace("\ud800", "\ufffd")
    assert read == {"a": None, "b": [None, {"c": None}], clean: clean, "d": ["x", 1]}
