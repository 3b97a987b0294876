"""What the explorer computes, and what it refuses, without a browser."""

import asyncio
import base64
import html
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import httpx
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score
from starlette.applications import Starlette
from streamlit.testing.v1 import AppTest

from gpuclust.cli import main
from gpuclust.errors import ConfigurationError, ExportError
from gpuclust.model.records import CategoryShare, Cluster, FeatureStats
from gpuclust.serve.explorer import charts
from gpuclust.serve.explorer.items import details_of, frame_of
from gpuclust.serve.explorer.launch import explore
from gpuclust.serve.explorer.map_data import ROUTES, chosen_rows, map_data
from gpuclust.serve.explorer.points import Span, span_of
from gpuclust.serve.explorer.session import NOISE_COLOR, OpenExport, colors_of
from gpuclust.serve.explorer.tables import as_csv, rows_of
from gpuclust.serve.explorer.texts import JOINER, as_hover, as_markdown, figure, fit, noun, plural, reading, short
from gpuclust.serve.explorer.transitions import ClusterTransitions, count_transitions
from gpuclust.serve.explorer.views.overview import SIZE_KEYS, choice_of, curves_of, own_point, place_of, titled
from gpuclust.serve.explorer.views.playlist import file_name
from gpuclust.serve.explorer.views.search import counted
from gpuclust.serve.explorer.views.trends import left_out
from gpuclust.serve.library import Library
from gpuclust.serve.records import Average, Averages, ExportInfo, Hit, Item, SearchResult
from gpuclust.tracks.links import check_template, is_address, location_of, page_of, track_id, uri_of
from gpuclust.tracks.previews import Preview, preview_of
from tests.browser import HOSTILE, explorer, exports_of, free_port, hostile_table


def item(**values: Any) -> Item:
    given: dict[str, Any] = {
        "rank": 0, "id": "i", "title": "A & B", "creator": "C;D", "creators": ("C", "D"), "groups": (), "popularity": None, "year": None,
        "preview": "", "cluster": 0, "cluster_name": "", "confidence": None, "distance": None, "x": 0.0, "y": 0.0, "z": 0.0, "features": {},
    }  # fmt: skip
    return Item(**(given | values))


# Texts


def unescaped(markdown: str) -> str:
    """What CommonMark makes of backslashes before punctuation."""
    out, i = "", 0
    while i < len(markdown):
        i += markdown[i] == "\\"
        out += markdown[i]
        i += 1
    return out.replace(JOINER, "")


@given(st.text(max_size=60))
def test_text_for_markdown_is_the_text_and_no_punctuation_is_bare(text: str) -> None:
    shown = as_markdown(text)
    assert unescaped(shown) == short(text).replace(JOINER, "")
    bare = [c for i, c in enumerate(shown) if c in "!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~" and shown[i - 1] != "\\"]
    assert not bare


@given(st.text(max_size=60))
def test_text_for_a_hover_is_the_text_as_html(text: str) -> None:
    shown = as_hover(text)
    assert html.unescape(shown).replace(JOINER, "") == html.unescape(html.escape(short(text), quote=False)).replace(
        JOINER, ""
    )
    assert "<" not in shown
    assert not shown.startswith("$")


@pytest.mark.parametrize("text", HOSTILE)
def test_what_extensions_read_after_markdown_is_kept_apart(text: str) -> None:
    shown = as_markdown(text).replace("\\", "")
    for together in (":material/", ":smile:", "http://", "www.", "<-", "->", "--", ">="):
        assert together not in shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (float("nan"), "–"), (3.0, "3"), (1234567.0, "1,234,567"), (0.12345, "0.123"), (1234.56, "1,234.6")],
)
def test_figures(value: float | None, shown: str) -> None:
    assert figure(value) == reading("tempo", value) == shown


def test_milliseconds_are_minutes() -> None:
    assert reading("duration_ms", 225_400.0) == "3:45 min"
    assert reading("duration_ms", None) == "–"


def test_a_name_is_cut_between_its_parts() -> None:
    assert fit("3 · High energy · Low valence", 20) == "3 · High energy"
    assert fit("3 · High energy · Low valence", 29) == "3 · High energy · Low valence"
    assert fit("High_instrumentalness_of_tracks", 12) == "High_instru…"


@pytest.mark.parametrize(
    ("column", "word", "several"),
    [
        ("artists", "artist", "artists"),
        ("track_artist", "artist", "artists"),
        ("artist_name", "artist", "artists"),
        ("track_genre", "genre", "genres"),
        ("Cover_Type", "cover type", "cover types"),
        ("countries", "country", "countries"),
        ("series", "series", "series"),
        ("track_name", "track name", "track names"),
        ("topic", "topic", "topics"),
        ("release_date", "release date", "release dates"),
        ("???", "???", "???s"),
    ],
)
def test_a_column_is_a_word(column: str, word: str, several: str) -> None:
    assert (noun(column), plural(noun(column))) == (word, several)
    assert plural(word, 1) == f"1 {word}"
    assert plural(word, 1200) == f"1,200 {several}"


# The map


def test_an_axis_leaves_out_only_what_is_far_beyond() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=10_000), [500.0, np.nan]])
    assert span_of(values).high < 20
    assert span_of(np.full(5, 2.0)) == Span(1.0, 3.0)
    assert span_of(np.array([1.0, 3.0]), pad=0.0) == Span(1.0, 3.0)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_selected_rows_come_as_bits(chosen: list[bool]) -> None:
    sent = base64.b64encode(np.packbits(chosen, bitorder="little").tobytes()).decode()
    assert np.array_equal(chosen_rows(sent, len(chosen)), np.flatnonzero(chosen))
    assert chosen_rows("", len(chosen)) is None
    with pytest.raises(ValueError, match="a selection of"):
        chosen_rows(sent, len(chosen) + 8)


def test_the_map_fetches_the_columns_of_the_export_in_the_order_of_ranks(pair: list[Path]) -> None:
    with Library.open(pair[0]) as library:
        clusters = {c.cluster: c for c in library.clusters}
        data = map_data(OpenExport(pair[0], "v", library, clusters, colors_of(None, clusters)))
        assert data.columns["x"]["share"] == library.axis_shares[0]
        features = [name for name in data.columns if name.startswith("f/")]
        assert features == [f"f/{name}" for name in library.features]
        for name in features:
            values = library.rows[name].to_numpy().astype(np.float32)
            np.testing.assert_array_equal(data.array(name), values)
        assert data.array("cluster").dtype == np.int32
        groups = data.array("group")
        names = data.columns["group"]["names"]
        assert [names[code] for code in groups[:50]] == [item.groups[0] for item in library.at(range(50))]
        found = responses(
            "v/column?name=x", "v/rows/7", "points.js", "v/column?name=nothing", "v/column", "w/column?name=x", "v/rows/999999999"
        )  # fmt: skip
        np.testing.assert_array_equal(np.frombuffer(found[0].content, np.float32), library.column("x"))
        assert found[1].json()["title"] == short(library.at([7])[0].title)
        assert "export function mount" in found[2].text
        assert [response.status_code for response in found] == [200, 200, 200, 404, 404, 404, 404]


def responses(*paths: str) -> list[httpx.Response]:
    """What the routes of the map answer."""

    async def asked() -> list[httpx.Response]:
        transport = httpx.ASGITransport(Starlette(routes=list(ROUTES)))
        async with httpx.AsyncClient(transport=transport, base_url="http://explorer") as client:
            return [await client.get(f"/points/{path}") for path in paths]

    return asyncio.run(asked())


# Two exports


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> list[Path]:
    folder = tmp_path_factory.mktemp("pair")
    (folder / "mlflow.db").write_bytes(store_template.read_bytes())
    table = hostile_table(folder / "tracks.parquet", n_rows=1_200, preview="")
    return exports_of(table, f"sqlite:///{folder / 'mlflow.db'}", folder, [4, 3])


def test_which_became_which(pair: list[Path]) -> None:

    with Library.open(pair[0]) as first, Library.open(pair[1]) as second:
        found = count_transitions(first, second)
        ours, theirs = first.column("cluster"), second.column("cluster")
        order = [second.rank_of(id) for id in first.rows["id"].to_pylist()]
        assert found.adjusted_rand == pytest.approx(
            adjusted_rand_score(ours, theirs[order]), abs=1e-12
        )  # sums of integers
        for i, a in enumerate(found.first):
            for j, b in enumerate(found.second):
                assert found.counts[i, j] == ((ours == a) & (theirs[order] == b)).sum()
        assert (found.only_first, found.only_second, found.shared) == (0, 0, 1_200)
        assert count_transitions(first, first).adjusted_rand == 1.0


def rows_with(ids: list[str], clusters: list[int]) -> Any:
    """What a comparison needs of a library."""
    return SimpleNamespace(
        rows=pa.table({"id": pa.array(ids, pa.large_string())}), column=lambda name: np.array(clusters, np.int32)
    )


def test_rows_are_matched_by_place_in_one_table_and_by_id_in_two() -> None:
    same = count_transitions(rows_with(["a", "a", "b"], [0, 1, 1]), rows_with(["a", "a", "b"], [0, 1, 0]))
    assert (same.shared, same.counts.tolist()) == (3, [[1, 0], [1, 1]]), "each row, although an id is there twice"
    other = count_transitions(rows_with(["a", "b", "b", "c"], [0, 0, 1, 1]), rows_with(["b", "a", "d"], [5, 6, 6]))
    assert (other.shared, other.only_first, other.only_second) == (2, 1, 1)
    assert sorted(zip(other.second, other.counts[0].tolist(), strict=True)) == [(5, 1), (6, 1)]


def test_many_clusters_are_counted_in_a_sparse_table(monkeypatch):
    random = np.random.default_rng(0)
    ids = [f"i{i}" for i in range(300)]
    first, second = (rows_with(ids, random.integers(-1, 40, 300).tolist()) for _ in range(2))
    dense = count_transitions(first, second)
    monkeypatch.setattr("gpuclust.serve.explorer.transitions.MAX_DENSE", 0)
    sparse = count_transitions(first, second)
    assert not isinstance(sparse.counts, np.ndarray)
    assert (sparse.first, sparse.second, sparse.shared) == (dense.first, dense.second, dense.shared)
    assert sparse.adjusted_rand == dense.adjusted_rand
    np.testing.assert_array_equal(sparse.counts.toarray(), dense.counts)
    np.testing.assert_array_equal(sparse.largest(7).shares, dense.largest(7).shares)
    assert [sparse.most_common(i, 3) for i in range(40)] == [dense.most_common(i, 3) for i in range(40)]


def test_the_largest_clusters_keep_their_shares() -> None:
    found = ClusterTransitions((-1, 0, 1), (0, 1, 2), np.array([[1, 0, 0], [5, 2, 3], [0, 0, 4]]), 0, 0)
    drawn = found.largest(2)
    assert (drawn.first, drawn.second) == ((0, 1), (0, 2))
    assert drawn.counts.tolist() == [[5, 3], [0, 4]]
    assert drawn.shares.tolist() == [[0.5, 0.3], [0.0, 1.0]]


def test_agreement_at_its_ends() -> None:
    assert ClusterTransitions((0,), (0,), np.array([[9]]), 0, 0).adjusted_rand == 1.0
    assert ClusterTransitions((0, 1), (0, 1), np.array([[0, 4], [5, 0]]), 0, 0).adjusted_rand == 1.0
    assert ClusterTransitions((), (), np.zeros((0, 0), dtype=np.int64), 3, 3).shared == 0


# Previews


@pytest.mark.parametrize("url", ["http://x.example/a.mp3", "https://x.example/a?b=c"])
def test_addresses(url: str) -> None:
    assert is_address(url)
    assert preview_of(item(preview=url), None) == Preview(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:///etc/passwd",
        "/etc/passwd",
        "javascript:alert(1)",
        "http://",
        "data:audio/wav,x",
        "http://[",
        "https://a b/",
    ],
)
def test_what_is_no_address_of_the_web_is_never_played(url: str) -> None:
    assert not is_address(url)
    assert preview_of(item(preview=url), None).url == ""


TRACK = "4uLU6hMCjMI75M1A2tKUQC"


@pytest.mark.parametrize(
    "values",
    [
        {"id": TRACK},
        {"id": f"spotify:track:{TRACK}"},
        {"id": "7", "url": f"https://open.spotify.com/track/{TRACK}?si=1"},
        {"id": "7", "url": f"https://open.spotify.com/intl-de/track/{TRACK}"},
    ],
)
def test_ids_of_a_known_form_are_links(values: dict[str, str]) -> None:
    assert track_id(**values) == TRACK
    known = item(**values, track=TRACK)
    assert uri_of(known) == f"spotify:track:{TRACK}"
    assert page_of(known).partition("?")[0].endswith(f"/track/{TRACK}")
    template = "https://x.example/{id}"
    assert (
        page_of(known, template) == uri_of(known, template) == f"https://x.example/{values['id'].replace(':', '%3A')}"
    )


@pytest.mark.parametrize(
    "id",
    ["track00001", "A" * 22, "1" * 22, TRACK + "x", "9" + TRACK[1:], f"spotify:album:{TRACK}", f"https://evil.example/track/{TRACK}", ""],
)  # fmt: skip
def test_other_ids_are_not_links(id: str) -> None:
    assert track_id(id) == page_of(item(id=id)) == location_of(item(id=id)) == uri_of(item(id=id)) == ""


@pytest.mark.parametrize(
    "template",
    [
        "",
        "x",
        "ftp://x/{id}",
        "http://x/",
        "http://x/{nope}",
        "http://x/{id",
        "http://x/{}",
        "http://x/{id.__class__}",
        "http://x/{0}",
    ],
)
def test_templates_that_cannot_work(template: str) -> None:
    with pytest.raises(ConfigurationError, match="--previews"):
        check_template(template)


def test_a_service_that_is_not_there_is_said() -> None:
    found = preview_of(item(), f"http://127.0.0.1:{free_port()}/{{query}}")
    assert found.url == ""
    assert "did not answer" in found.reason


# The rest


def cluster(number: int) -> Cluster:
    return Cluster(number, "n", 1, 1.0, {})


def test_colours_are_the_manifests_and_only_colours() -> None:
    clusters = {0: cluster(0), 1: cluster(1), -1: cluster(-1)}
    said = {"0": "#123456", "1": "red;} body {display:none"}
    found = colors_of(said, clusters)
    assert found[0] == "#123456"
    assert found[-1] == NOISE_COLOR
    assert len(found[1]) == 7
    assert set(colors_of(None, clusters)) == {0, 1, -1}


def test_curves_of_one_chart_share_their_axis() -> None:
    curves = {
        "silhouette/kmeans": {"2": 0.3, "3": 0.2},
        "silhouette/hdbscan": {"50": 0.4, "400": 0.5},
        "silhouette/toy": {"0.1": 0.4, "0.2": 0.5},
        "relative_validity/hdbscan": {"50": 0.1, "400": 0.2},
    }
    keys = {**SIZE_KEYS, "toy": "radius"}
    assert curves_of(curves, "silhouette", "kmeans", keys) == {"kmeans": {"2": 0.3, "3": 0.2}}
    assert curves_of(curves, "silhouette", "hdbscan", keys) == {"hdbscan": {"50": 0.4, "400": 0.5}}
    assert curves_of(curves, "silhouette", "toy", keys) == {"toy": {"0.1": 0.4, "0.2": 0.5}}
    assert curves_of(curves, "relative_validity", "kmeans") == {}
    alone = {"relative_validity": curves["relative_validity/hdbscan"]}
    assert curves_of(alone, "relative_validity", "hdbscan") == {"relative validity": {"50": 0.1, "400": 0.2}}

    def tick(algorithm: str) -> float | None:
        return charts.curve("S", curves_of(curves, "silhouette", algorithm, keys), None).layout.xaxis.dtick  # type: ignore[no-any-return]

    assert tick("hdbscan") is None, "a tick for each whole number from 50 to 400"
    assert tick("toy") is None, "no whole number between 0.1 and 0.2"
    assert tick("kmeans") == 1


def test_the_ring_is_at_the_export_s_own_point() -> None:
    lines = {"full": {"2": 3.0, "3": 2.0}, "diag": {"2": 4.0, "3": 3.5}}

    def ringed(lines: dict[str, dict[str, float]], own: tuple[float, float] | None) -> list[tuple[float, float]]:
        drawn = charts.curve("BIC", lines, own).data
        return [(trace.x[0], trace.y[0]) for trace in drawn if trace.mode == "markers"]

    assert ringed(lines, (3.0, 3.5)) == [(3.0, 3.5)]
    assert ringed(lines, None) == []
    assert ringed(lines, (5.0, 7.0)) == [(5.0, 7.0)], "a size that is on no line stands alone"
    only = {"hdbscan": {"50": 0.2, "100": 0.1}}
    drawn = charts.curve("Silhouette", only, (21.0, 0.5)).data
    assert list(drawn[0].x) == [21.0, 50.0, 100.0], "and has its point where there is one line"
    assert ringed(only, (21.0, 0.5)) == [(21.0, 0.5)]


def test_a_run_has_the_scores_of_its_own_algorithm() -> None:
    manifest: dict[str, Any] = {
        "algorithm": "kmeans",
        "config": {"cluster": {"n_clusters": 8}},
        "metrics": {"silhouette": 0.18, "inertia": 5.0, "n_clusters": 8.0},
        "sweep": {"curves": {"bic/gmm": {"2": 9.0, "8": 7.0}}},
    }
    assert own_point(manifest, "silhouette") == (8.0, 0.18)
    assert own_point(manifest, "bic") is None, "the BIC of a mixture of 8 is not that of K-Means"
    assert titled("BIC", "bic", curves_of(manifest["sweep"]["curves"], "bic", "kmeans")) == "BIC (gmm)"
    assert titled("BIC", "bic", {"bic": {}}) == titled("BIC", "bic", {"full": {}, "diag": {}}) == "BIC"
    auto = {"algorithm": "hdbscan", "config": {"cluster": {"min_cluster_size": "auto"}}}
    assert own_point(auto | {"metrics": {"silhouette": 0.5, "min_cluster_size": 21.0}}, "silhouette") == (21.0, 0.5)
    assert own_point(auto | {"metrics": {"silhouette": 0.5}}, "silhouette") is None


def test_curves_are_lines_by_what_else_was_swept() -> None:
    curves = {
        "bic/full": {"2": 3.0, "3": 2.0},
        "bic/diag": {"2": 4.0, "3": 3.5},
        "bic_other": {"2": 1.0},
        "silhouette": {"2": 0.1},
    }
    assert curves_of(curves, "bic", "gmm") == {"full": {"2": 3.0, "3": 2.0}, "diag": {"2": 4.0, "3": 3.5}}
    assert curves_of(curves, "silhouette", "gmm") == {}


def test_rows_to_download_have_what_the_table_has_and_nothing_of_the_index(pair: list[Path]) -> None:

    with Library.open(pair[0]) as library:
        names = rows_of(library, np.array([0, 5])).column_names
    assert names[:3] == ["id", "title", "creator"]
    assert not {"recording", "repeat", "album", "url", "duration_ms"} & set(names)
    assert not [name for name in names if "/" in name]


def test_csv_runs_nothing_in_a_spreadsheet() -> None:
    table = pa.table(
        {"=a": ["=1+1", "-x", "ok", None], "n": [-1.5, 2.0, 3.0, 4.0], "l": [["=a", "b"], [], None, ["c"]]}
    )
    assert as_csv(table).decode().splitlines() == [
        '"\'=a","n","l"',
        '"\'=1+1",-1.5,"\'=a; b"',
        '"\'-x",2,""',
        '"ok",3,',
        ',4,"c"',
    ]


def average(year: int, count: int = 40) -> Average:
    return Average(year, count, {"energy": year / 1000})


def test_years_that_are_left_out_are_gaps_and_are_said() -> None:
    values = (average(1999), average(2000), average(2003))
    found = Averages("year", values, 3, min_count=30, left_out=2, left_out_rows=7, without=1)
    standard = {"energy": (2.0, 1.0)}
    for drawn in (charts.over_years(found, ["energy"], standard=standard), charts.one_over_years(found, "energy")):
        (line,) = drawn.data
        assert list(line.x) == [1999, 2000, 2001, 2002, 2003]
        assert [v is None for v in line.y] == [False, False, True, True, False]
        assert not line.connectgaps
        assert line.hovertext[0].endswith("(40 rows)")
    assert left_out(found, "year") == "1 row without a valid year; 2 years with fewer than 30 rows (7 rows) left out."
    assert left_out(Averages("group", (), 0, min_count=30, left_out=2, left_out_rows=1), "country") == (
        "2 countries with fewer than 30 rows (1 row) left out."
    )
    assert left_out(Averages("year", values, 3), "year") == ""


def found_of(n_hits: int, **values: Any) -> SearchResult:
    return SearchResult("q", tuple(Hit(item(), 1.0) for _ in range(n_hits)), **{"complete": True, **values})


def test_results_are_counted() -> None:
    assert counted(found_of(10, total=143)) == "10 of 143"
    assert counted(found_of(10, total=661, total_is_minimum=True)) == "10 of more than 600"
    assert counted(found_of(3, total=3, complete=False)) == "3 of 3. No exact match; closest results:"
    assert counted(found_of(3, total=None, complete=False)) == "No exact match. Closest results:"


def test_a_table_of_items_has_no_none_and_no_column_that_says_nothing() -> None:
    several = [
        item(title="A", year=1999, popularity=3.0, cluster=0),
        item(title="B", cluster=0, album="C", duration_ms=225_000.0),
    ]
    frame = frame_of(several, [0.5, 1.0])
    assert list(frame) == ["title", "creator", "album", "year", "length", "popularity", "distance"]
    assert not frame.isin([None]).any().any()
    assert not frame.isna().any().any()
    assert frame["year"].tolist() == ["1999", ""]
    assert frame["length"].tolist() == ["", "3:45"]
    assert frame["popularity"].tolist() == ["3", ""]
    assert "cluster" in frame_of([item(cluster=0), item(cluster=1)])
    assert list(frame_of([item(title="", creators=(), creator="", cluster=0)])) == ["id"]
    assert details_of(several[0]) == "1999 · popularity 3"
    assert details_of(several[1]) == "C · 3:45"


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"selected": False, "sweep_choice": "kmeans k=2"},
            "This export: kmeans k=8; the sweep's choice was kmeans k=2 (r).",
        ),
        ({"selected": True, "sweep_choice": "kmeans k=8"}, "This export is the sweep's choice: r"),
        ({"selected": None}, "The sweep's choice: r"),
    ],
)
def test_whether_an_export_is_the_choice_of_its_sweep(facts: dict[str, Any], said: str) -> None:
    manifest = {"run_name": "kmeans k=8", "sweep": {"selection_reason": "r"}}
    assert choice_of(ExportInfo("", "", 0, 0, "kmeans", (), {}, manifest, **facts)) == said
    assert choice_of(ExportInfo("", "", 0, 0, "kmeans", (), {}, {"run_name": "kmeans k=8", "sweep": None})) == ""


def test_the_place_of_an_export_in_its_sweep() -> None:
    curves = {"silhouette": {"2": 0.5, "3": 0.4, "4": 0.3}, "inertia": {"2": 9.0}}
    reason = "kmeans k=2 has the highest silhouette, 0.5000, of 3 jobs; next is kmeans k=3 with 0.4000"
    sweep = {"selection_reason": reason, "curves": curves}
    assert place_of({"metrics": {"silhouette": 0.4}, "sweep": sweep}) == ", second of 3 by silhouette"
    today = "kmeans k=2 has the highest silhouette (0.5000 ± 0.0100) of 3 jobs; next is kmeans k=3 (0.4000)"
    assert (
        place_of({"metrics": {"silhouette": 0.3}, "sweep": sweep | {"selection_reason": today}})
        == ", third of 3 by silhouette"
    )
    lowest = {"selection_reason": "a has the lowest BIC, 1.0, of 2 jobs", "curves": {"bic/gmm": {"2": 1.0, "3": 7.0}}}
    assert place_of({"metrics": {"bic": 7.0}, "sweep": lowest}) == ", second of 2 by BIC"
    more = sweep | {"selection_reason": reason.replace("3 jobs", "4 jobs")}
    assert place_of({"metrics": {"silhouette": 0.4}, "sweep": more}) == "", "a job without a point may be better"
    assert place_of({"metrics": {"bic": 0.4}, "sweep": sweep}) == place_of({"sweep": None}) == ""


def many_features(n_features: int, n_clusters: int) -> OpenExport:
    """An export, as charts use it, whose last feature differs most."""
    names = tuple(f"e{i}" for i in range(n_features))

    class Features:
        features = names

    clusters = {
        c: Cluster(c, f"c{c}", 10, 0.1, {f: FeatureStats(0.0, 0.0, 1.0, i / n_features * (-1) ** c, 0.0) for i, f in enumerate(names)})
        for c in range(n_clusters)
    }  # fmt: skip
    return OpenExport(Path(), "", Features(), clusters, colors_of(None, clusters))  # type: ignore[arg-type]


def test_wide_tables_are_drawn_by_their_most_telling_features() -> None:
    wide = many_features(384, 202)
    drawn = charts.profile_heatmap(wide, range(30)).data[0]
    assert list(drawn.x) == [f"e{i}" for i in range(383, 363, -1)]
    radar = charts.radar(wide, [0, 1]).data[1]
    assert len(radar.theta) == 13
    assert charts.left_out_features(wide, 12) == "The 12 of 384 features that differ most."
    narrow = many_features(12, 3)
    assert narrow.telling_features([0], 12) == [f"e{i}" for i in range(12)], "in the order of the model"
    assert charts.left_out_features(narrow, 12) == ""


def test_bubbles_have_the_area_of_their_rows() -> None:
    values = [Average("rock", 900, {"a": 1.0, "b": 2.0}), Average("<b>", 100, {"a": 3.0, "b": 4.0}), Average("x", 5, {"a": float("nan"), "b": 1.0})]  # fmt: skip
    drawn, names = charts.bubbles(values, "a", "b").data
    assert (list(drawn.x), list(drawn.y), list(drawn.marker.size)) == ([1.0, 3.0], [2.0, 4.0], [900, 100])
    assert list(names.text) == ["rock", "&lt;b&gt;"]
    close = [Average(f"g{i}", 10 + i, {"a": 1 + i / 1000, "b": 1.0}) for i in range(9)] + values[1:2]
    assert list(charts.bubbles(close, "a", "b").data[1].text) == ["&lt;b&gt;", "g8"], "names that cover no other"
    shares = [CategoryShare("jazz", 30, 4.0, 0.3), CategoryShare("pop", 10, 0.0, 0.1)]
    (drawn,) = charts.share_bubbles(shares, "#000000").data
    assert (list(drawn.x), list(drawn.y), list(drawn.text)) == ([4.0], ["jazz"], ["30.0%"]), "no logarithm of 0"


def test_noise_is_a_bar_and_many_clusters_are_one() -> None:
    clusters = {c: Cluster(c, f"c{c}", 100 - c, 0.0, {}) for c in range(40)} | {-1: Cluster(-1, "noise", 900, 0.0, {})}
    colors = colors_of(None, clusters)
    (bars,) = charts.size_bars(OpenExport(Path(), "", None, clusters, colors)).data  # type: ignore[arg-type]
    assert bars.y[-1] == "Noise", "the first from above"
    assert bars.x[-1] == 900
    assert bars.y[0] == "11 smaller clusters"
    assert sum(bars.x) == sum(c.size for c in clusters.values())
    few = {c: clusters[c] for c in (-1, 0, 1)}
    assert list(charts.size_bars(OpenExport(Path(), "", None, few, colors)).data[0].x) == [99, 100, 900]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [*HOSTILE, "", "../../x", "con/aux"])
def test_file_names_are_file_names(name: str) -> None:
    found = file_name(name)
    assert found
    assert not set(found) & set('/\\<>:"|?*\x00.')


def test_what_cannot_be_explored_is_one_line(tmp_path: Path, pair: list[Path]) -> None:
    with pytest.raises(ExportError, match="is not an export folder"):
        explore(tmp_path, port=free_port())
    with pytest.raises(ExportError, match="is not an export folder"):
        explore(pair[0], compare=tmp_path, port=free_port())
    with pytest.raises(ConfigurationError, match="--port 70000"):
        explore(pair[0], port=70_000)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match="give another --port"):
            explore(pair[0], port=taken.getsockname()[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_told(pair: list[Path], number: int) -> None:
    with explorer(pair[0]) as running:
        os.kill(running.process.pid, number)
        status = running.process.wait(timeout=60)
    assert status == 0, running.errors
    assert not [line for line in running.errors if "Traceback" in line]


def test_the_overview_shows_the_reasons_of_the_verdict_that_the_manifest_lists(main_module: None) -> None:
    def page() -> None:
        from pathlib import Path

        from gpuclust.model.manifest import Manifest
        from gpuclust.serve.explorer.views.overview import _verdict
        from gpuclust.serve.export_info import export_info

        sweep = {"verdict": "3 clusters", "verdict_kind": "clear", "because": ["silhouette: 3", "the gap statistic: 3"]}
        manifest = Manifest(Path("out"), "0" * 64, {}, {}, {"roles": {}, "warnings": [], "sweep": sweep})
        _verdict(export_info(manifest, n_rows=10, n_noise=0, n_clusters=3))

    shown = AppTest.from_function(page).run()
    assert not shown.exception
    assert [box.value for box in shown.success] == ["3 clusters"]
    assert shown.expander[0].text[0].value.splitlines() == ["silhouette: 3", "the gap statistic: 3"]


def test_nothing_of_streamlit_is_imported_before_the_input_is_right(tmp_path: Path) -> None:
    code = (
        "import sys; from gpuclust.cli import main; status = main(['explore', sys.argv[1]]); "
        "assert not {'streamlit', 'plotly'} & set(sys.modules); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "is not an export folder" in done.stderr


def test_one_line_leads_from_a_sweep_to_its_explorer(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = ["-m", "data.n_rows=400", "cluster.n_clusters=2,3", "report=none", f"tracking.uri={uri}"]
    assert main(sweep) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if " && " in line)
    export, look = (shlex.split(part) for part in line.split(" && "))
    assert (export[:2], look[:2]) == (["gpuclust", "export"], ["gpuclust", "explore"])
    assert main(export[1:]) == 0
    with explorer(tmp_path / look[2]) as running, urlopen(running.address) as page:
        assert page.status == 200
