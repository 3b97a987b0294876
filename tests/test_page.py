"""The pages: what is in them, that hostile data stays text, and that nothing is loaded from anywhere."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from gpuclust.data.table import Audit, ExcludedColumn, Step
from gpuclust.model.records import CategoryShare, Cluster, Example, FeatureStats, Rule
from gpuclust.pages.cards import MAX_CARDS
from gpuclust.pages.palette import cluster_color
from gpuclust.report import figures as fg
from gpuclust.report.page import SWEEP, Report, page

HOSTILE = (
    "\"'><script>alert(1)</script><img src=https://evil.example/x onerror=alert(2)>&amp;\u202e\x00\n</style>--><b>"
)
ALLOWED_TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "nav", "section", "article", "div", "span", "p",
    "h1", "h2", "h3", "h4", "a", "ul", "li", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "figure",
    "figcaption", "img", "i", "b", "bdi", "pre", "code", "details", "summary", "strong",
}  # fmt: skip
ALLOWED_ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "href", "class", "id", "aria-label", "aria-hidden", "scope", "tabindex",
    "role", "style", "alt", "src", "title", "open",
}  # fmt: skip
VOID = {"meta", "img", "input"}


class Page(HTMLParser):
    """Every element with its attributes, the text by element, and whether elements are nested properly."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


def audit(words: str = "plain") -> dict[str, object]:
    """An audit as the table makes it."""
    return Audit(
        source={"path": words},
        features=("energy", words),
        left_out=(ExcludedColumn(words, words),),
        steps=(Step("duplicates", words, 114_000, 24_259),),
        notes=(words,),
        rows_read=114_000,
        rows_kept=89_741,
    ).to_dict()


def job(words: str = "plain") -> Report:
    """A job whose every text is ``words``."""
    features = {
        words: FeatureStats(0.72, 0.7, 0.1, 1.25, 0.01),
        "tempo": FeatureStats(118.5, 117.0, 20.0, -0.4, 0.001),
    }
    cluster = Cluster(
        0,
        words,
        600,
        0.6,
        features,
        description=words,
        top_groups=(CategoryShare(words, 120, lift=2.5),),
        top_creators=(CategoryShare(words, 30, lift=1.0),),
        representatives=(Example(words, words, words),),
        popular=(Example(words, words, words),),
        rule=Rule(words, 0.9, 0.83, 0.71),
    )
    return Report(
        name=words,
        dataset=words,
        date=words,
        warnings=[words],
        verdict=words,
        reasons=[words, words],
        metrics={"n_clusters": 7, "silhouette": 0.14562, "noise_fraction": 0.25, "fit_seconds": 1.8234, words: 1.0},
        pictures={"Map of the clusters": fg.to_png(fg.elbow([2, 3], [1.0, 2.0]))},
        figures={words: fg.to_png(fg.elbow([2, 3], [2.0, 1.0]))},
        clusters=[cluster, replace(cluster, cluster=-1, size=400, fraction=0.4)],
        audit=audit(words),
        command=words,
        configuration=words,
        about={"run": words, words: words},
    )


def sweep(words: str = "plain") -> Report:
    """A sweep whose every text is ``words``; its second job is the chosen one, its third failed."""
    rows = [
        {"rank": 1, "chosen": False, "job": "kmeans k=2", "run_id": "0123456789abcdef", "cluster.n_clusters": 2, "n_clusters": 2.0,
         "silhouette": 0.2, "failure": ""},
        {"rank": 2, "chosen": True, "job": words, "run_id": "f" * 32, "cluster.n_clusters": 3, "n_clusters": 3.0, "silhouette": 0.15,
         words: words, "failure": ""},
        {"rank": 3, "chosen": False, "job": "kmeans k=4", "status": "failed", "run_id": "1" * 32, "cluster.n_clusters": 4,
         "failure": words},
    ]  # fmt: skip
    return replace(job(words), kind=SWEEP, verdict_kind="none", leaderboard=rows, metrics={"silhouette": 0.15})


@pytest.mark.parametrize("report", [job(HOSTILE), sweep(HOSTILE)], ids=["job", "sweep"])
def test_hostile_text_stays_text(report: Report) -> None:
    source = page(report)
    parsed = Page(source)
    assert {name for name, _ in parsed.elements} <= ALLOWED_TAGS
    for name, attributes in parsed.elements:
        assert set(attributes) <= ALLOWED_ATTRIBUTES, name
    assert "<script>alert(1)</script>" in parsed.text
    assert not re.search("[\x00\u202e]", source)
    source.encode("utf-8")


@pytest.mark.parametrize("report", [job(HOSTILE), sweep(HOSTILE)], ids=["job", "sweep"])
def test_nothing_is_loaded_from_anywhere(report: Report) -> None:
    parsed = Page(page(report))
    policies = [a["content"] for name, a in parsed.elements if name == "meta" and "http-equiv" in a]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    for name, attributes in parsed.elements:
        assert name not in {"link", "script", "iframe", "object", "base", "form"}
        assert (attributes.get("src") or "data:image/png;base64,").startswith("data:image/png;base64,")
        assert (attributes.get("href") or "#").startswith("#")
        assert "url(" not in (attributes.get("style") or "")
    css = re.findall(r"<style>(.*?)</style>", page(report), re.S)
    assert len(css) == 1
    assert not re.search(r"url\(|@import|http", css[0])


def test_every_link_leads_to_a_section() -> None:
    for source in (page(job()), page(sweep())):
        elements = Page(source).elements
        targets = [a["id"] for _, a in elements if "id" in a]
        links = [a["href"] for name, a in elements if name == "a"]
        assert len(targets) == len(set(targets))
        assert len(links) >= 5
        assert links == [f"#{t}" for t in targets if not t.startswith("cluster-")]


def test_figures_are_inside_the_page_byte_for_byte_with_their_titles_as_text() -> None:
    report = job()
    images = [a for name, a in Page(page(report)).elements if name == "img"]
    assert [base64.b64decode((a["src"] or "").partition(",")[2]) for a in images] == [
        *report.pictures.values(),
        *report.figures.values(),
    ]
    assert [a["alt"] for a in images] == [*report.pictures, *report.figures]


def test_the_same_report_gives_the_same_bytes() -> None:
    assert page(sweep()) == page(sweep())


def test_the_page_of_a_job_shows_its_numbers() -> None:
    source = page(job())
    shown = Page(source).text
    for words in ("0.1456", "25.0 %", "1.8 s", "114,000 rows read, 89,741 kept", "24,259", "+1.2", "600 rows · 60.0 %",
                  "120 (2.5×)", "118", "-0.4"):  # fmt: skip
        assert words in shown, words
    assert 'title="+1.25 ± 0.01 standard deviations"' in source


def order_of(source: str, *texts: str) -> list[int]:
    """Where the first of each text is."""
    places = [source.find(text) for text in texts]
    assert -1 not in places, dict(zip(texts, places, strict=True))
    return places


@pytest.mark.parametrize("report", [job(), sweep()], ids=["job", "sweep"])
def test_a_page_has_one_order_and_its_technical_part_is_folded(report: Report) -> None:
    """Headline; data set, rows and date; map and heat map; three sentences; cards; then what is folded."""
    shown = replace(report, dataset="tracks.csv", date="3 May 2026")
    source = page(shown)
    found = order_of(source, "<h1>", "tracks.csv", "3 May 2026", 'alt="Map of the clusters"', 'class="plain"', "<article",
                     '<details class="technical">', 'id="figures"', 'id="preparation"', 'id="reproduce"')  # fmt: skip
    assert found == sorted(found)
    elements = Page(source).elements
    assert not [a for name, a in elements if name == "details" and "open" in a]
    tiles = re.search(r'<dl class="tiles">.*?</dl>', source, re.S)
    assert tiles is not None
    assert tiles[0].count("<dt>") == 4


def test_only_a_clear_verdict_is_green() -> None:
    kinds = {kind: page(replace(sweep(), verdict_kind=kind)) for kind in ("clear", "several", "none", "open", "")}
    assert {kind for kind, source in kinds.items() if '<div class="verdict clear">' in source} == {"clear"}
    assert all('<div class="verdict">' in source for kind, source in kinds.items() if kind != "clear")
    quiet = replace(sweep(), clusters=job().clusters[:1])
    assert "600 rows in 1 cluster, but no natural number of clusters" in page(quiet)


def test_cards_have_the_colours_of_the_figures() -> None:
    styles = [a.get("style") or "" for name, a in Page(page(job())).elements if name == "article"]
    assert [f"--chip:{cluster_color(c)}" in style for c, style in zip((0, -1), styles, strict=True)] == [True, True]


def test_the_chosen_job_is_marked_and_failures_are_listed() -> None:
    source = page(replace(sweep("gmm k=3 full"), clusters=()))
    rows = re.findall(r"<tr[^>]*>.*?</tr>", source)
    marked = [row for row in rows if 'class="chosen"' in row]
    assert len(marked) == 1
    assert "gmm k=3 full" in marked[0]
    assert "chosen</span>" in marked[0]
    shown = Page(source).text
    assert "kmeans k=4: gmm k=3 full" in shown
    heads = re.findall(r"<th[^>]*><bdi>(.*?)</bdi></th>", source.partition("<thead>")[2].partition("</thead>")[0])
    assert heads == ["Job", "Clusters", "Silhouette", "Gmm k=3 full", "Status", "Run"], (
        "each fact once, and nothing that is constant"
    )
    assert '<code title="0123456789abcdef"><bdi>01234567</bdi></code>' in source


def test_parts_without_content_are_left_out() -> None:
    parsed = Page(page(Report("bare")))
    assert parsed.text.endswith("bare")
    assert not [name for name, _ in parsed.elements if name in {"section", "table", "figure", "dl"}]


def test_many_clusters_and_features_stay_readable() -> None:
    """A card has ten features at most, six cards are open, and from the 25th cluster on there is a row for each."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(202, 384))
    many = [
        Cluster(
            i,
            f"name {i}",
            10,
            1 / 202,
            {f"e{j}": FeatureStats(v, v, 1.0, v, 0.01) for j, v in enumerate(z[i].tolist())},
        )
        for i in range(202)
    ]
    source = page(Report("many", clusters=many))
    parsed = Page(source)
    assert (
        parsed.text.count("The 10 of 384 features that differ most from the average; all in profile.csv") == MAX_CARDS
    )
    assert source.partition("Show all 202 clusters")[0].count("<article") == 6
    assert source.count("<article") == MAX_CARDS
    assert all(f"name {i}" in parsed.text for i in range(202))
    first = source.partition("<article")[2].partition("</article>")[0]
    shown = re.findall(r"<bdi>e(\d+)</bdi>", first)
    assert [int(f) for f in shown] == np.argsort(-np.abs(z[0]))[:10].tolist()
    assert len(source) < 400_000


def test_numbers_of_any_kind_are_shown() -> None:
    metrics = {"a": np.float32(0.5), "b": np.int64(3), "c": float("nan"), "d": float("inf"), "e": 1e-7}
    shown = Page(page(Report("numbers", metrics=metrics))).text
    for words in ("A0.5000", "B3", "C–", "D∞", "E1.00e-07"):
        assert words in shown.replace(" ", ""), words
