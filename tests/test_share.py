"""The page to send: one file that loads nothing, whose every text stays text, and that people can read and search."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpuclust.cli import main
from gpuclust.errors import ExportError
from gpuclust.model.records import Cluster, FeatureStats
from gpuclust.pages.cards import heat_map
from gpuclust.pages.share import Item, Share, share_page
from gpuclust.report.page import Report, page
from gpuclust.serve.share import _of_each, page_of_folder, write_share_page
from tests.browser import HOSTILE, headless, hostile_table, visitor
from tests.exporting import made_export
from tests.test_page import HOSTILE as MARKUP
from tests.test_page import Page

MAX_BYTES = 5 << 20
MAX_HEIGHT = 12_000  # pixels of a page with 202 clusters of 384 features


def many(n_clusters: int = 202, n_features: int = 384) -> list[Cluster]:
    """Clusters of a wide table, as HDBSCAN finds them in vectors."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n_clusters, n_features))
    se = 0.01
    return [
        Cluster(
            i,
            f"High e{i} · low e{i + 1} · high e{i + 2}",
            100,
            0.9 / n_clusters,
            {f"e{j}": FeatureStats(v, v, 1.0, v, se) for j, v in enumerate(z[i].tolist())},
            description="100 rows (0.5 %): high e1 (1.2; 0.1 in all rows). Closest cluster: 1, which has lower e1 (0.1 vs 1.2).",
        )
        for i in range(n_clusters)
    ]


def content(words: str = "plain") -> Share:
    """A page whose every text is ``words``."""
    stats = {
        words: FeatureStats(1.0, 1.0, 0.1, 1.25, 0.01),
        "duration_ms": FeatureStats(221_000.0, 2e5, 9.0, -0.6, 0.01),
    }
    rng = np.random.default_rng(0)
    return Share(
        dataset=words,
        clusters=[Cluster(0, words, 30, 0.6, stats, description=words), Cluster(-1, "Noise", 20, 0.4, stats)],
        features=(words, "duration_ms"),
        xy=rng.normal(size=(50, 2)),
        labels=np.repeat([0, -1], [30, 20]),
        axes=(words, words),
        date=words,
        verdict=words,
        kind="none",
        because=[words],
        warnings=[words],
        metrics={"silhouette": 0.3},
        sample=np.array([3, 40]),
        items=[Item(words, words, words, 0, "https://open.example/track/1"), Item("Song", "", "", -1)],
        technical=[("Data", [(words, words)])],
    )


def test_hostile_text_stays_text_and_only_one_script_may_run() -> None:
    source = share_page(content(MARKUP))
    parsed = Page(source)
    assert [a for name, a in parsed.elements if name == "script"] == [
        {"id": "sample", "type": "application/json"},
        {"type": "module"},
    ]
    assert "<script>alert(1)</script>" in parsed.text
    assert not re.search("[\x00\u202e]", source)
    script = source.rpartition('</script>\n<script type="module">')[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = (a["content"] for name, a in parsed.elements if name == "meta" and "http-equiv" in a)
    allowed = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert policy == f"{allowed}; base-uri 'none'; form-action 'none'"
    for name, attributes in parsed.elements:
        assert name not in {"link", "iframe", "object", "base", "form"}
        assert not [a for a in attributes if a.startswith("on")]
        assert (attributes.get("src") or "data:").startswith("data:")
    sample = json.loads(re.findall(r'<script id="sample"[^>]*>(.*?)</script>', source)[0])
    assert [item[3:] for item in sample["items"]] == [["https://open.example/track/1"], []]
    assert np.frombuffer(base64.b64decode(sample["cluster"]), "<i2").tolist() == [0, -1]
    assert (sample["rows"], sample["word"]) == (50, "rows"), "what the note below the map says"


@pytest.mark.parametrize(("n_clusters", "most"), [(3, 10), (100, 10), (5_000, 2)])
def test_the_sample_has_rows_of_each_cluster_and_a_bound(n_clusters: int, most: int) -> None:
    labels = np.append(np.repeat(np.arange(n_clusters), 12), np.full(1_000, -1)).astype(np.int32)
    chosen = _of_each(labels, np.random.default_rng(0).permutation(len(labels)), 30)
    found, counts = np.unique(labels[chosen], return_counts=True)
    assert len(found) == n_clusters + 1
    assert counts[1:].max() <= most


def test_the_page_has_the_order_of_a_report() -> None:
    source = share_page(replace(content("plain"), dataset="tracks.csv", date="3 May 2026"))
    order = ["<h1>", "tracks.csv", "3 May 2026", 'class="map"', 'class="heat"', 'class="plain"', 'id="query"', "<article",
             '<details class="technical">']  # fmt: skip
    places = [source.find(text, source.index("<body>")) for text in order]
    assert -1 not in places
    assert places == sorted(places)
    shown = Page(source).text
    for words in (
        "Only 30 of 50 rows are in the only cluster",
        "50 rows",
        "2 features",
        "3:41",
        "partly separated",
    ):
        assert words in shown, words


def test_the_heat_map_shows_the_most_telling_features_and_says_so() -> None:
    clusters = many(30, 50)
    z = np.array([[s.z for s in c.features.values()] for c in clusters])
    telling = np.argsort(-(z**2).sum(axis=0), kind="stable")[:12]
    source = str(heat_map(clusters, {}))
    assert re.findall(r'<th title="e(\d+)">', source) == [str(f) for f in telling]
    assert "the 12 most different of 50 features; the 24 largest of 30 clusters" in source


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """An export of tracks whose titles, groups and columns are hostile, with twelve clusters and addresses."""
    folder = tmp_path_factory.mktemp("share")
    path = hostile_table(folder / "hostile.parquet", n_rows=3000, preview="")
    frame = pd.read_parquet(path)
    frame.loc[len(HOSTILE) + 1, "id"] = "4uLU6hMCjMI75M1A2tKUQC"
    frame["url"] = [
        "" if i == len(HOSTILE) + 1 else f"https://open.example/{i}" if i else "javascript:alert(1)"
        for i in range(len(frame))
    ]
    return made_export(
        frame, folder / "music", store_template, "cluster.n_clusters=12", features=["energy", "'a<b>$c$'", "tempo"]
    )


@pytest.fixture(scope="module")
def wine(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """An export of a table of numbers alone."""
    from sklearn.datasets import load_wine

    data = load_wine(as_frame=True).data.rename(columns={"od280/od315_of_diluted_wines": "od280"})
    folder = tmp_path_factory.mktemp("wine")
    return made_export(data, folder, store_template, "data=table", features=list(data.columns))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with headless() as opened:
        yield opened


class Visit:
    """A file in the browser at a width and in a theme: what it asked for, and what went wrong in it."""

    def __init__(self, context: Any, path: Path) -> None:
        self.page = context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.goto(path.as_uri())

    def check(self, path: Path) -> None:
        """Nothing was loaded, nothing failed or ran, and nothing is wider than the window."""
        assert [url for url in self.requests if not url.startswith("data:")] == [path.as_uri()]
        assert self.errors == []
        assert self.page.evaluate("window.stolen") is None
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    @property
    def height(self) -> int:
        return int(self.page.evaluate("document.documentElement.scrollHeight"))


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_people_read_and_search_the_page(browser: Any, music: Path, tmp_path: Path, width: int, scheme: str) -> None:
    path = write_share_page(music, tmp_path / "tracks.html")
    assert path.stat().st_size < MAX_BYTES
    with visitor(browser, viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        visit = Visit(context, path)
        shown = visit.page
        visit.check(path)
        assert "3,000 tracks in 12 clusters" in shown.locator("h1").inner_text()
        assert shown.locator(".plane .chip").count() >= 8
        assert not shown.locator(".plane").is_visible(), "the map of points takes the place of the picture"
        stats = shown.evaluate(
            "document.getElementById('points').gpuclustMap.settled().then(() => document.getElementById('points').gpuclustMap.stats())"
        )
        assert stats["rows"] == stats["shown"] == 3000
        paper = shown.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")
        # A number on the map opens the folded card of its cluster.
        assert not shown.locator("#cluster-11").is_visible()
        shown.evaluate("location.hash = 'cluster-11'")
        shown.locator("#cluster-11").wait_for(state="visible")
        shown.locator("#query").fill("honest SÖNG")
        link = shown.locator("#found a", has_text="An Honest Song")
        assert link.get_attribute("href") == f"https://open.example/{len(HOSTILE)}"
        shown.locator("#query").fill(f"song {len(HOSTILE) + 1} ")
        link = shown.locator("#found").get_by_role("link", name=f"Song {len(HOSTILE) + 1}", exact=True)
        assert link.get_attribute("href") == "https://open.spotify.com/track/4uLU6hMCjMI75M1A2tKUQC"
        shown.locator("#query").fill("script")
        assert HOSTILE[0] in shown.locator("#found").inner_text()
        assert shown.locator("#found a[href^='javascript']").count() == 0
        shown.locator("#query").fill("no such thing at all")
        assert "Nothing in the sample matches" in shown.locator("#found").inner_text()
        visit.check(path)


@pytest.mark.browser
def test_wide_tables_and_tables_that_are_not_music(browser: Any, wine: Path, tmp_path: Path) -> None:
    """A report of 202 clusters of 384 features, and the page of wine, at a desk and on a phone."""
    pages = {"wide": page(Report("wide", dataset="e.parquet", clusters=many())), "wine": page_of_folder(wine)}
    for name, source in pages.items():
        path = tmp_path / f"{name}.html"
        path.write_text(source, encoding="utf-8")
        for width in (1440, 390):
            with visitor(browser, viewport={"width": width, "height": 900}) as context:
                visit = Visit(context, path)
                visit.check(path)
                assert visit.height < MAX_HEIGHT, (name, width)
                assert visit.page.locator("#query").count() == 0
                if name == "wide":
                    visit.page.get_by_text("Show all 202 clusters").click()
                    assert visit.page.locator("#cluster-201").is_visible()
    text = Page(pages["wine"]).text
    assert "178 rows in 3 clusters" in text
    assert not re.search("track|creator|listen|playlist", text.replace("tracks.parquet", ""), re.IGNORECASE)


def test_the_command_writes_the_page(tmp_path: Path, store_template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["a", "b"])
    made_export(frame, tmp_path, store_template, "data=table", features=["a", "b"])
    store = ["--uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--experiment", "e"]
    alone, folder = tmp_path / "page.html", tmp_path / "again"
    assert main(["export", "best", "--html", str(alone), *store]) == 0
    assert f"{alone}: 60 rows in 3 clusters" in capsys.readouterr().out
    assert main(["export", "best", "--out", str(folder), "--html", *store]) == 0
    assert (folder / "report.html").read_text(encoding="utf-8") == page_of_folder(folder)
    assert "60 rows in 3 clusters" in alone.read_text(encoding="utf-8")
    assert main(["export", "best", "--html", str(alone), *store]) == 2
    assert "exists; name another --html" in capsys.readouterr().err
    assert main(["export", "best", *store]) == 2
    assert "--out DIR" in capsys.readouterr().err
    with pytest.raises(ExportError, match="exists"):
        write_share_page(folder, alone)
