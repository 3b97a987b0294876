"""Profiles: every figure against pandas or scikit-learn, names that differ, and what is not said when chance says it."""

import io
import itertools
import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gpuclust.analysis import enrichment, members, naming, rules
from gpuclust.analysis.arrow_schema import cluster_table
from gpuclust.analysis.enrichment import MIN_COUNT
from gpuclust.analysis.profile import Profile, profile, read_profile, with_rules
from gpuclust.analysis.table_stats import CategoryEncoder, TableStats, categories, compute_table_stats
from gpuclust.data.disk_frame import DiskFrame, DiskFrameWriter
from gpuclust.data.frames import TEXT_LIST, PandasFrames
from gpuclust.data.table import Audit, Roles, Table
from gpuclust.report.page import Report, page
from gpuclust.runtime import blocks
from gpuclust.runtime.blocks import BLOCK_ROWS
from gpuclust.runtime.scratch import Scratch

FEATURES = ("energy", "tempo", "duration_ms")


def test_the_nearest_cluster_is_found_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    z = np.random.default_rng(0).normal(size=(100, 11))
    gaps = ((z[:, None] - z[None]) ** 2).sum(axis=2)
    np.fill_diagonal(gaps, np.inf)
    for most in (1, 5_000, naming.MAX_VALUES):
        monkeypatch.setattr(naming, "MAX_VALUES", most)
        np.testing.assert_array_equal(naming.nearest(z), gaps.argmin(axis=1))
    np.testing.assert_array_equal(naming.nearest(z[:1]), [-1])


def table_of(frame: Any, features: tuple[str, ...] = FEATURES, **roles: str) -> Table:
    if "id" not in frame.columns:
        frame = frame.assign(id=range(len(frame)))
    return Table(frame, Roles(**roles), features, "", Audit())


def stats_of(frame: Any, features: tuple[str, ...] = FEATURES, **roles: str) -> TableStats:
    return compute_table_stats(table_of(frame, features, **roles), PandasFrames())


@pytest.fixture
def tracks(seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Three clusters of 3:2:1 and 60 rows of noise; cluster 2 is fast."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2, -1], [300, 200, 100, 60])
    frame = pd.DataFrame(
        {
            "id": [f"t{i}" for i in range(len(labels))],
            "name": [f"Title {i}" for i in range(len(labels))],
            "artist": rng.choice(["Ann", "Bo", "Cy"], len(labels)),
            "genre": np.where(labels == 2, "fast", rng.choice(["rock", "jazz"], len(labels))),
            "popularity": rng.permutation(len(labels)).astype(float),
            "energy": rng.normal(0.5, 0.1, len(labels)) + 0.1 * labels,
            "tempo": rng.normal(100, 5, len(labels)) + 40 * (labels == 2),
            "duration_ms": rng.normal(2e5, 1e4, len(labels)),
        }
    )
    order = rng.permutation(len(labels))
    return frame.iloc[order].reset_index(drop=True), labels[order].astype(np.int32)


ROLES = {"id": "id", "title": "name", "creator": "artist", "group": "genre", "popularity": "popularity"}


def test_the_figures_are_those_of_pandas(tracks: tuple[pd.DataFrame, np.ndarray]) -> None:
    frame, labels = tracks
    described = profile(stats_of(frame, **ROLES), FEATURES, labels)
    assert [c.cluster for c in described.clusters] == [0, 1, 2, -1]
    assert [c.cluster for c in described.proper] == [0, 1, 2]
    whole = frame[list(FEATURES)]
    for c in described.clusters:
        own = whole[labels == c.cluster]
        assert (c.size, c.fraction) == (len(own), len(own) / len(frame))
        for f, p in c.features.items():
            expected = [own[f].mean(), own[f].median(), own[f].std(ddof=0)]
            np.testing.assert_allclose([p.mean, p.median, p.std], expected, rtol=1e-12)  # float64, sums of 300 terms
            scale = whole[f].std(ddof=0)
            np.testing.assert_allclose(p.z, (own[f].mean() - whole[f].mean()) / scale, rtol=1e-9)
            np.testing.assert_allclose(p.z_se, own[f].std(ddof=0) / np.sqrt(len(own)) / scale, rtol=1e-9)
    np.testing.assert_array_equal(described.z()[:, 0], [c.features["energy"].z for c in described.proper])


def test_a_median_of_an_even_and_of_an_odd_number_of_rows() -> None:
    frame = pd.DataFrame({"a": [1.0, 9.0, 2.0, 5.0, 7.0]})
    described = profile(stats_of(frame, ("a",)), ("a",), np.array([0, 0, 0, 1, 1]))
    assert [c.features["a"].median for c in described.clusters] == [2.0, 6.0]


def test_groups_by_count_and_by_lift_are_those_of_a_cross_table(tracks: tuple[pd.DataFrame, np.ndarray]) -> None:
    frame, labels = tracks
    described = profile(stats_of(frame, **ROLES), FEATURES, labels)
    counts = pd.crosstab(labels, frame["genre"])
    shares = counts.div(counts.sum(axis=1), axis=0)
    lifts = shares / (frame["genre"].value_counts(normalize=True).reindex(counts.columns))
    for c in described.clusters:
        row = counts.loc[c.cluster]
        expected = sorted(row[row > 0].items(), key=lambda item: (-item[1], item[0]))
        assert [(s.value, s.count) for s in c.top_groups] == expected
        for share in (*c.top_groups, *c.top_groups_by_lift):
            np.testing.assert_allclose(share.lift, lifts.loc[c.cluster, share.value], rtol=1e-12)
            np.testing.assert_allclose(share.fraction, shares.loc[c.cluster, share.value], rtol=1e-12)
        by_lift = [s.lift for s in c.top_groups_by_lift]
        assert by_lift == sorted(by_lift, reverse=True)
        assert all(lift > 1 for lift in by_lift)
    assert described.clusters[2].top_groups_by_lift[0].value == "fast"


def test_a_value_that_occurs_a_few_times_has_no_lift() -> None:
    n = 200
    group = np.array(["common"] * n, dtype=object)
    group[: MIN_COUNT - 1] = "rare"
    group[n - MIN_COUNT :] = "enough"
    labels = np.repeat([0, 1], n // 2)
    described = profile(
        stats_of(pd.DataFrame({"a": np.arange(float(n)), "g": group}), ("a",), group="g"), ("a",), labels
    )
    assert "rare" in [s.value for s in described.clusters[0].top_groups]
    assert [s.value for s in described.clusters[0].top_groups_by_lift] == ["common"]
    assert [s.value for s in described.clusters[1].top_groups_by_lift] == ["enough"]


def test_each_genre_of_a_list_counts_and_a_missing_one_does_not() -> None:
    genres = pd.Series([["rock", "pop"], None, ["pop"], ["rock"], []], dtype=TEXT_LIST)
    found = categories(genres)
    assert found.values.to_pylist() == ["pop", "rock"]
    assert sorted(zip(found.rows.tolist(), found.codes.tolist(), strict=True)) == [(0, 0), (0, 1), (2, 0), (3, 1)]
    assert found.totals.tolist() == [2, 2]
    frame = pd.DataFrame({"a": np.arange(5.0), "g": genres})
    described = profile(stats_of(frame, ("a",), group="g"), ("a",), np.array([0, 0, 0, 1, 1]))
    assert [(s.value, s.count, s.fraction) for s in described.clusters[0].top_groups] == [
        ("pop", 2, 2 / 3),
        ("rock", 1, 1 / 3),
    ]


@pytest.mark.parametrize("values", [["a", "b", "a", None], [1, 2, 1, None], [True, False, True, None]])
def test_categories_of_any_type(values: list[Any]) -> None:
    found = categories(pd.Series(values, dtype=object))
    assert [found.values[c].as_py() for c in found.codes] == [str(v) for v in values if v is not None]
    assert found.rows.tolist() == [0, 1, 2]


def test_many_creators_take_the_sparse_path_to_the_same_counts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    creators = rng.integers(0, 700, 1000).astype(str)
    labels = rng.integers(-1, 40, 1000)
    frame = pd.DataFrame({"a": rng.normal(size=1000), "who": creators})
    described = profile(stats_of(frame, ("a",), creator="who"), ("a",), labels)
    for c in described.clusters:
        counts = pd.Series(creators[labels == c.cluster]).value_counts()
        expected = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))[:5]
        assert [(s.value, s.count) for s in c.top_creators] == expected


def test_representatives_are_nearest_by_the_distance_given(tracks: tuple[pd.DataFrame, np.ndarray]) -> None:
    frame, labels = tracks
    distance = np.arange(len(frame), 0, -1, dtype=np.float32)
    described = profile(stats_of(frame, **ROLES), FEATURES, labels, distance=distance)
    for c in described.proper:
        assert [r.id for r in c.representatives] == frame["id"][labels == c.cluster].iloc[::-1].head(5).tolist()
    assert described.clusters[-1].representatives == (), "noise has no centre"


def test_representatives_without_a_distance_are_certain_and_near_the_mean(
    tracks: tuple[pd.DataFrame, np.ndarray],
) -> None:
    frame, labels = tracks
    confidence = np.where(frame.index % 4 == 0, 1.0, 0.5)
    described = profile(stats_of(frame, **ROLES), FEATURES, labels, confidence=confidence)
    z = (frame[list(FEATURES)] - frame[list(FEATURES)].mean()) / frame[list(FEATURES)].std(ddof=0)
    for c in described.proper:
        own = z[labels == c.cluster]
        gap = ((own - own.mean()) ** 2).sum(axis=1)[confidence[own.index] == 1.0]
        assert [r.id for r in c.representatives] == frame["id"][gap.sort_values().index[:5]].tolist()


def test_the_most_popular_rows_once_each() -> None:
    frame = pd.DataFrame(
        {
            "id": list("abcdef"),
            "name": ["Hit", "hit", "Song", "Unknown", "Old", "Hit"],
            "artist": ["X", "X", "X", "Y", "Y", "Z"],
            "popularity": [90.0, 95.0, 80.0, np.nan, 10.0, 70.0],
            "a": np.arange(6.0),
        }
    )
    described = profile(stats_of(frame, ("a",), **(ROLES | {"group": "artist"})), ("a",), np.zeros(6, dtype=int))
    rows = described.clusters[0].popular
    assert [(r.id, r.title, r.creator, r.popularity) for r in rows] == [
        ("b", "hit", "X", 95.0), ("c", "Song", "X", 80.0), ("f", "Hit", "Z", 70.0), ("e", "Old", "Y", 10.0)
    ]  # fmt: skip


def test_one_recording_is_one_example() -> None:
    """Case, accents, the order of the creators and a remaster make no other recording; a live version does."""
    names = ["Hit", "HÍT - 2011 Remaster", 'Hit (From "A Film")', "Hit - Live", "Hit", "", ""]
    frame = pd.DataFrame(
        {
            "id": list("abcdefg"),
            "name": names,
            "artist": ["X;Y", "y; x", "X;Y", "X;Y", "Z", "X", "X"],
            "popularity": np.arange(7.0, 0, -1),
            "a": np.arange(7.0),
        }
    )
    described = profile(stats_of(frame, ("a",), **(ROLES | {"group": "artist"})), ("a",), np.zeros(7, dtype=int))
    assert [r.id for r in described.clusters[0].popular] == ["a", "d", "e", "f", "g"]
    assert {r.id for r in described.clusters[0].representatives} >= {"d", "e"}
    assert len({r.id for r in described.clusters[0].representatives} & {"a", "b", "c"}) == 1


def test_a_row_is_shown_by_its_id_and_its_creators_where_it_has_nothing_else() -> None:
    frame = pd.DataFrame({"id": [7, 8], "who": pd.Series([["A", "B"], None], dtype=TEXT_LIST), "a": [0.0, 1.0]})
    rows = stats_of(frame, ("a",), creator="who").rows(np.array([1, 0]))
    assert [(r.id, r.title, r.creator, r.popularity) for r in rows] == [("8", "", "", None), ("7", "", "A, B", None)]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (["duration_ms", "loudness_dB", "track_popularity"], ["duration", "loudness", "track popularity"]),
        (["duration_ms", "duration_s"], ["duration_ms", "duration_s"]),
        (["Energy", "BPM", "ms", "x"], ["energy", "BPM", "ms", "x"]),
        (["two\nlines", "_"], ["two lines", "_"]),
        (["temp_min", "temp_max"], ["temp min", "temp max"]),
    ],
)
def test_columns_as_words(columns: list[str], words: list[str]) -> None:
    assert list(naming.readable(columns)) == words


def spoken(words: list[str]) -> naming.Vocabulary:
    return naming.Vocabulary(
        tuple(words), tuple(f"high {w}" for w in words), tuple(f"low {w}" for w in words), ("",) * len(words)
    )


def named(z: Any, words: list[str] | None = None) -> tuple[str, ...]:
    z = np.array(z, dtype=float)
    return naming.names(z, np.zeros_like(z), spoken(words or ["energy", "tempo", "valence"]))


def test_a_name_says_what_is_far_from_the_whole_and_from_the_nearest_cluster() -> None:
    assert named([[1.5, 0.8, 0.1], [-1.0, -0.2, 0.0]])[0] == "High energy · high tempo"
    assert named([[0.9, -2.0, 0.7], [-0.9, 2.0, 0.6]])[0] == "Low tempo · high energy · high valence"
    # Energy is farther from the whole, but the nearest cluster has it too.
    assert named([[2.0, 1.5, 0.0], [2.0, 0.0, 0.0], [-2.0, -1.5, 0.0]])[0] == "High tempo · high energy"
    assert named([[0.1, 0.2, -0.3]]) == ("Mixed",)


def test_a_cluster_near_the_average_is_named_by_its_nearest() -> None:
    z = [[0.1, -0.2, 0.02], [0.9, 1.8, 0.0]]
    assert named(z) == ("Lower tempo · lower energy", "High tempo · high energy")
    assert not any("average" in name.lower() for name in named(np.random.default_rng(0).normal(0, 0.2, (20, 3))))


def test_a_mean_that_its_error_could_explain_is_not_named() -> None:
    z = np.array([[0.9, 0.6, 0.0], [-0.9, 0.0, 0.0]])
    words = spoken(["a", "b", "c"])
    certain, vague = (naming.names(z, np.array([[0.01, se, 0.01]] * 2), words)[0] for se in (0.01, 0.5))
    assert (certain, vague) == ("High a · high b", "High a")


def test_the_last_word_is_what_the_neighbour_differs_in() -> None:
    z = [[2.0, 1.5, 1.2, 0.3], [2.0, 1.5, 1.2, -0.8], [-2.0, -2.0, -2.0, 0.0]]
    assert named(z, ["a", "b", "c", "d"])[:2] == ("High a · high b · higher d", "High a · low d · high b")
    z = [[2.0, 1.5, 0.1], [2.0, 1.5, 3.0], [-2.0, -2.0, -2.0]]
    assert named(z)[0] == "High energy · high tempo · lower valence"


def test_clusters_with_the_same_words_are_told_apart_by_what_differs_most() -> None:
    z = [[1.2, 1.0, 0.05], [1.2, 1.0, -0.35], [0.0, 0.0, 0.0]]
    assert named(z)[:2] == ("High energy · high tempo · higher valence", "High energy · high tempo · lower valence")
    # The same words in another order are the same name to a reader.
    z = [[1.5, 1.0, 0.0], [1.0, 1.4, 0.0], [-2.0, -2.0, 0.0]]
    assert named(z)[:2] == ("High energy · high tempo · higher energy", "High tempo · high energy · lower energy")
    assert named(np.zeros((3, 3))) == ("Mixed", "Mixed (2)", "Mixed (3)")


def test_the_words_of_a_preset_and_of_times() -> None:
    features = ("acousticness", "Energy", "tempo", "duration_ms", "year", "x")
    words = naming.vocabulary(features, "tracks")
    z = np.array([[1.0, -2.0, 0.0, 1.5, 0.0, 0.0], [-1.0, 2.0, 1.0, -1.5, 0.0, 0.9]])
    means = np.array([[0.9, 0.1, 120.0, 841_000.0, 1990.0, 0.0], [0.1, 0.9, 150.0, 101_000.0, 1990.0, 5.0]])
    assert naming.names(z, np.zeros_like(z), words, means) == (
        "Calm · long (14 min) · acoustic",
        "Energetic · short (1:41) · not acoustic",
    )
    assert words.units == ("", "", "bpm", "ms", "", "")
    plain = naming.vocabulary(features)
    assert (
        naming.names(z, np.zeros_like(z), plain, means)[0] == "Low energy · high duration (14 min) · high acousticness"
    )


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 5)).flatmap(
        lambda shape: arrays(float, shape, elements=st.sampled_from([-2.0, -0.6, -0.3, 0.0, 0.02, 0.4, 0.7, 2.5]))
    )
)
def test_names_are_distinct_as_sets_of_words_too(z: np.ndarray) -> None:
    found = naming.names(z, np.full_like(z, 0.01), spoken([f"feature {i}" for i in range(z.shape[1])]))
    assert len({frozenset(name.lower().split(" · ")) for name in found}) == len(z)
    assert all(len(name.split(" · ")) <= naming.MAX_WORDS + naming.MAX_SPLITS for name in found)
    assert not any("average" in name.lower() for name in found)


def test_nearest_is_the_nearest_mean(seed: int) -> None:
    z = np.random.default_rng(seed).normal(size=(6, 4))
    for i, j in enumerate(naming.nearest(z)):
        assert j != i
        assert all(np.linalg.norm(z[i] - z[j]) <= np.linalg.norm(z[i] - z[o]) for o in range(6) if o != i)


def test_a_sentence_tells_size_means_neighbour_and_groups(tracks: tuple[pd.DataFrame, np.ndarray]) -> None:
    frame, labels = tracks
    described = profile(stats_of(frame, **ROLES), FEATURES, labels)
    fast, near = described.clusters[2], described.clusters[1]
    mean, overall, other = fast.features["tempo"].mean, frame["tempo"].mean(), near.features["tempo"].mean
    assert fast.description.startswith(f"100 rows (15.2 %): high tempo ({mean:.3g}; {overall:.3g} in all rows)")
    assert f"Closest cluster: 1, which has lower tempo ({other:.3g} vs {mean:.3g})." in fast.description
    assert fast.description.endswith("Most frequent: fast (100.0 %, 6.6 × expected).")
    assert fast.subtitle == "like fast"
    assert "60 rows (9.1 %) in no cluster: " in described.clusters[3].description
    assert all(c.description.endswith(".") and "\n" not in c.description for c in described.clusters)


def satisfied(rule: str, frame: pd.DataFrame) -> np.ndarray:
    """The rows that meet a rule, by pandas' own reading of it."""
    return frame.eval(rule).to_numpy()


def test_a_rule_is_judged_on_all_rows(tracks: tuple[pd.DataFrame, np.ndarray]) -> None:
    frame, labels = tracks
    described = profile(stats_of(frame, **ROLES), FEATURES, labels)
    ruled = with_rules(described, stats_of(frame, **ROLES), labels)
    assert all(c.rule is None for c in described.clusters)
    assert ruled.clusters[3].rule is None, "noise is no region"
    for c in ruled.proper:
        assert c.rule is not None
        assert 1 <= len(c.rule.text.split(" and ")) <= 3
        met, own = satisfied(c.rule.text, frame), labels == c.cluster
        assert c.rule.fidelity == (met == own).mean()
        assert c.rule.precision == (met & own).sum() / met.sum()
        assert c.rule.recall == (met & own).sum() / own.sum()
    fast = ruled.clusters[2].rule
    assert fast is not None
    assert fast.text.startswith("tempo > ")
    assert fast.fidelity > 0.99  # 40 beats apart at a deviation of 5: four deviations to each side of the threshold


def test_a_band_is_one_condition() -> None:
    x = np.linspace(0, 9, 901)
    labels = ((x > 3) & (x < 6)).astype(int)
    frame = pd.DataFrame({"x": x})
    ruled = with_rules(profile(stats_of(frame, ("x",)), ("x",), labels), stats_of(frame, ("x",)), labels)
    rule = ruled.clusters[1].rule
    assert rule is not None
    low, name, high = rule.text.replace("<=", "<").split(" < ")
    assert name == "x"
    # Rounded to a fiftieth of a standard deviation (2.6) at most.
    assert (float(low), float(high)) == (pytest.approx(3, abs=0.06), pytest.approx(6, abs=0.06))
    assert rule.fidelity > 0.98


def test_one_cluster_has_no_rule_and_no_neighbour() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0]})
    ruled = with_rules(
        profile(stats_of(frame, ("a",)), ("a",), np.zeros(3, int)), stats_of(frame, ("a",)), np.zeros(3, int)
    )
    assert (ruled.clusters[0].rule, ruled.clusters[0].nearest) == (None, None)
    assert ruled.clusters[0].description == "3 rows (100.0 %): close to the average of all rows in every feature."


def test_nothing_but_noise_is_a_profile_of_noise() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0]})
    described = profile(stats_of(frame, ("a",)), ("a",), np.full(3, -1))
    assert [c.name for c in described.clusters] == ["Noise"]
    assert described.proper == ()
    assert described.z().shape == (0, 1)
    assert cluster_table(described).num_rows == 1


def test_a_profile_goes_to_json_csv_parquet_and_html(tracks: tuple[pd.DataFrame, np.ndarray], tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    frame, labels = tracks
    frame.loc[0, "name"] = "<script>alert(1)</script>"
    described = with_rules(profile(stats_of(frame, **ROLES), FEATURES, labels), stats_of(frame, **ROLES), labels)
    assert json.loads(described.to_json())["clusters"][2]["name"] == described.clusters[2].name
    rows = pd.read_csv(io.StringIO(described.to_csv()), float_precision="round_trip")
    assert rows.shape == (4 * 3, 10)
    assert rows["mean"].tolist() == [p.mean for c in described.clusters for p in c.features.values()]
    pq.write_table(cluster_table(described), tmp_path / "clusters.parquet")
    table = pq.read_table(tmp_path / "clusters.parquet")
    assert table["representatives"].to_pylist()[0][0].keys() == {"id", "title", "creator", "popularity"}
    assert table["top_groups_by_lift"].to_pylist()[2][0]["value"] == "fast"
    assert table["rule"].to_pylist()[3] is None
    assert table["rule_fidelity"].to_pylist()[2] == described.clusters[2].rule.fidelity  # type: ignore[union-attr]
    assert {f"{kind}_tempo" for kind in ("mean", "median", "std", "z", "z_se")} <= set(table.column_names)
    html = page(Report("tracks", clusters=described.clusters))
    assert escape(described.clusters[2].description.partition("): ")[2][1:]) in html
    assert "tempo &gt; " in html
    assert read_profile(json.loads(described.to_json())) == described
    assert read_profile({"features": []}) is None
    assert "<script>" not in html


def test_names_do_not_depend_on_the_order_of_the_rows(tracks: tuple[pd.DataFrame, np.ndarray], seed: int) -> None:
    frame, labels = tracks
    order = np.random.default_rng(seed + 1).permutation(len(frame))
    shuffled = frame.iloc[order].reset_index(drop=True)

    def said(described: Profile) -> list[Any]:
        return [(c.name, c.description, c.top_groups, c.top_creators, c.popular) for c in described.clusters]

    assert said(profile(stats_of(frame, **ROLES), FEATURES, labels)) == said(
        profile(stats_of(shuffled, **ROLES), FEATURES, labels[order])
    )


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 2**32 - 1), st.booleans())
def test_categories_that_arrive_in_parts_are_those_of_the_whole(sizes: list[int], seed: int, lists: bool) -> None:
    rng = np.random.default_rng(seed)
    words = np.array([*"abcdefgh", None], dtype=object)
    n = sum(sizes)
    if lists:
        cells = [
            None if rng.random() < 0.2 else [w for w in rng.choice(words, rng.integers(0, 4)) if w] for _ in range(n)
        ]
        column = pd.Series(cells, dtype=TEXT_LIST)
    else:
        column = pd.Series(rng.choice(words[: rng.integers(1, 10)], n), dtype="str")
    encoder = CategoryEncoder()
    for start, stop in itertools.pairwise(np.cumsum([0, *sizes])):
        encoder.add(column.iloc[start:stop].reset_index(drop=True))
    found, expected = encoder.close(), categories(column)
    assert found.values.to_pylist() == expected.values.to_pylist()
    for name in ("codes", "rows", "totals"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.fixture(scope="module")
def large() -> tuple[pd.DataFrame, np.ndarray]:
    """Rows of three blocks in four clusters and noise, with repeated values, missing texts and lists."""
    rng = np.random.default_rng(0)
    n = 2 * BLOCK_ROWS + 1001
    labels = rng.choice([-1, 0, 1, 2, 3], n, p=[0.05, 0.4, 0.3, 0.2, 0.05]).astype(np.int32)
    artists = [["Ann"], ["Ann", "Bo"], None, ["Cy"]]
    frame = pd.DataFrame(
        {
            "id": [f"t{i}" for i in range(n)],
            "name": pd.Series([f"Title {i % 5000}" for i in range(n)], dtype="str"),
            "artist": pd.Series([artists[i] for i in rng.integers(0, 4, n)], dtype=TEXT_LIST),
            "genre": pd.Series(np.where(labels == 2, "fast", rng.choice(["rock", "jazz", None], n)), dtype="str"),
            "popularity": np.where(rng.random(n) < 0.1, np.nan, rng.integers(0, 100, n)),
            "energy": rng.normal(0.5, 0.1, n) + 0.1 * labels,
            "tempo": rng.integers(90, 130, n) + 40.0 * (labels == 2),
            "duration_ms": rng.normal(2e5, 1e4, n),
        }
    )
    return frame, labels


def on_disk(frame: pd.DataFrame, scratch: Scratch) -> DiskFrame:
    writer = DiskFrameWriter(scratch, FEATURES)
    for start in range(0, len(frame), 50_000):
        writer.append(frame.iloc[start : start + 50_000].reset_index(drop=True))
    return writer.close()


@pytest.mark.parametrize("known", ["distance", "confidence", "nothing"])
def test_a_table_on_disk_has_the_profile_of_the_same_table_in_memory(
    large: tuple[pd.DataFrame, np.ndarray], known: str, tmp_path: Path
) -> None:
    frame, labels = large
    values = np.random.default_rng(1).random(len(frame)).astype(np.float32).round(3)
    with Scratch(tmp_path) as scratch:
        found = []
        for held in (frame, on_disk(frame, scratch)):
            stats = stats_of(held, **ROLES)
            described = profile(stats, FEATURES, labels, **({} if known == "nothing" else {known: values}))
            found.append(with_rules(described, stats, labels) if known == "nothing" else described)
    assert found[0] == found[1]
    for c in found[1].clusters:
        own = frame[labels == c.cluster]
        assert [p.median for p in c.features.values()] == own[list(FEATURES)].median().tolist()
        np.testing.assert_allclose([p.mean for p in c.features.values()], own[list(FEATURES)].mean(), rtol=1e-12)
        np.testing.assert_allclose([p.std for p in c.features.values()], own[list(FEATURES)].std(ddof=0), rtol=1e-10)
        assert c.popular[0].popularity == own["popularity"].max()
    if known == "nothing":
        rule = found[1].clusters[2].rule
        assert rule is not None
        met = frame.query(rule.text).index
        assert rule.precision == pytest.approx((labels[met] == 2).mean())


def test_the_profile_does_not_depend_on_the_rows_read_at_once(
    large: tuple[pd.DataFrame, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, labels = large
    confidence = np.random.default_rng(2).random(len(frame)).astype(np.float32)
    stats = stats_of(frame, **ROLES)
    expected = with_rules(profile(stats, FEATURES, labels, confidence=confidence), stats, labels)
    monkeypatch.setattr(blocks, "RUN_BLOCKS", 1)
    monkeypatch.setattr(members, "CHUNK_ROWS", 10_000)
    monkeypatch.setattr(rules, "CHUNK_ROWS", 10_000)
    monkeypatch.setattr(enrichment, "CHUNK_VALUES", 1_000)
    assert with_rules(profile(stats, FEATURES, labels, confidence=confidence), stats, labels) == expected


@pytest.mark.real
def test_real_genres_have_names_that_differ_and_rules_that_hold(real_data: Path) -> None:
    from sklearn.cluster import KMeans

    from gpuclust.compose import compose
    from gpuclust.data.clean import clean
    from gpuclust.data.read import read

    config = compose(["data=tracks", f"data.path={real_data / 'playlist_tracks_10k.csv'}"])
    frames = PandasFrames()
    table = clean(read(config.data, frames), config.clean, frames)
    gathered = compute_table_stats(table, frames)
    labels = KMeans(8, n_init=1, random_state=0).fit_predict((gathered.raw.X - gathered.mean) / gathered.std)
    described = with_rules(profile(gathered, table.features, labels), gathered, labels)
    assert len({c.name for c in described.clusters}) == 8
    for one, other in itertools.pairwise(described.clusters):
        assert one.description != other.description
    # A rule must say more than the best constant answer: that no row, or every row, is in the cluster.
    assert all(
        c.rule is not None and c.rule.fidelity > max(c.fraction, 1 - c.fraction) - 0.1 for c in described.clusters
    )
    assert all(len(c.representatives) == 5 and len(c.popular) == 5 for c in described.clusters)
