"""Cleaning: each rule alone, their order, their accounting, and what is said when nothing is left."""

from __future__ import annotations

import ast
import math
import statistics

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuclust.config import CleanConfig, DataConfig, JoinConfig
from gpuclust.data.clean import clean
from gpuclust.data.frames import TEXT_LIST, PandasFrames
from gpuclust.data.read import read
from gpuclust.data.table import Audit, Roles, Table
from gpuclust.errors import CleaningError, ConfigurationError

FRAMES = PandasFrames()
NAN, INF = np.nan, np.inf


def table(frame, *, roles=None, features=None, **source):
    frame = pd.DataFrame(frame)
    roles = roles or Roles()
    if roles.id not in frame:
        frame.insert(0, roles.id, range(len(frame)))
        source["id_made"] = True
    features = features or [name for name in frame if name not in roles.columns]
    audit = Audit(source=source, features=tuple(features), rows_read=len(frame), rows_kept=len(frame))
    return Table(frame, roles, tuple(features), "fingerprint", audit)


def run(frame, *, roles=None, features=None, **config):
    return clean(table(frame, roles=roles, features=features), CleanConfig(**config), FRAMES)


def steps(cleaned):
    return {s.rule: (s.rows_before, s.rows_removed, s.cells_changed) for s in cleaned.audit.steps}


def test_a_clean_table_keeps_its_rows():
    got = run({"x": [1, 2, 4], "y": [0.5, 0.25, 0.5]})
    assert got.n_rows == got.audit.rows_kept == 3
    assert (got.frame[["x", "y"]].dtypes == np.float64).all()
    assert steps(got) == {"nulls": (3, 0, 0)}
    assert got.audit.distinct_feature_rows == 3


def test_the_given_table_is_not_changed():
    given_table = table({"x": [1, NAN, INF, 4], "t": ["a", "b", "c", "d"], "c": [1, 1, 1, 1]}, features=["x", "c"])
    before = given_table.frame.copy(deep=True)
    clean(given_table, CleanConfig(nulls="mean"), FRAMES)
    pd.testing.assert_frame_equal(given_table.frame, before)


def test_rows_with_a_missing_feature_go():
    got = run({"x": [1, NAN, 3, 5], "y": [1, NAN, NAN, 2]})
    assert got.frame["x"].tolist() == [1, 5]
    assert got.frame.index.equals(pd.RangeIndex(2))
    assert steps(got) == {"nulls": (4, 2, 0)}
    assert got.audit.fills == {}


@pytest.mark.parametrize(("method", "fill"), [("median", 2.0), ("mean", 5.0)])
def test_missing_features_are_filled(method, fill):
    got = run({"x": [1, 2, NAN, 12, NAN], "y": [1, 2, 3, 4, 5]}, nulls=method)
    assert got.frame["x"].tolist() == [1, 2, fill, 12, fill]
    assert steps(got) == {"nulls": (5, 0, 2)}
    assert got.audit.fills["x"] == fill


def test_fills_come_from_the_rows_within_bounds():
    got = run({"x": [1, 3, NAN, 1000]}, nulls="mean", bounds={"x": [None, 100]})
    assert got.frame["x"].tolist() == [1, 3, 2]


def test_infinities_are_missing():
    got = run({"x": [1, INF, -INF, 4], "y": [1, 2, 3, 4]})
    assert got.frame["x"].tolist() == [1, 4]
    assert steps(got) == {"infinities": (4, 0, 2), "nulls": (4, 2, 0)}


def test_text_in_a_feature_is_missing():
    got = run({"x": ["1", "2.5", "none of it", "NA", None]}, features=["x"])
    assert got.frame["x"].tolist() == [1, 2.5]
    assert steps(got) == {"text": (5, 0, 1), "nulls": (5, 3, 0)}


def test_bounds_drop_what_is_known_and_outside():
    frame = {"tempo": [0, 120, 90, NAN, 300], "y": [1, 2, 3, 4, 5]}
    got = run(frame, bounds={"tempo": [1, 250], "y": [None, 3]}, nulls="median")
    assert got.frame["tempo"].tolist() == [120, 90]
    removed = [(s.rule, s.detail, s.rows_before, s.rows_removed) for s in got.audit.steps]
    assert removed[:2] == [("bounds", "tempo outside 1 to 250", 5, 2), ("bounds", "y above 3", 3, 1)]


def test_the_ends_of_bounds_are_inside():
    assert run({"x": [1, 2, 3, 4]}, bounds={"x": [2, 3]}).frame["x"].tolist() == [2, 3]


def test_bounds_hold_for_a_numeric_role():
    roles = Roles(id="id", year="year")
    got = run({"x": [1, 2, 3], "year": [1950, 2001, 2002]}, roles=roles, bounds={"year": [2000, None]})
    assert got.frame["year"].tolist() == [2001, 2002]


@pytest.mark.parametrize("name", ["tempa", "genre"])
def test_bounds_on_no_such_feature_name_the_nearest(name):
    frame = {"tempo": [1, 2], "genre": ["a", "b"]}
    with pytest.raises(ConfigurationError, match=rf"clean\.bounds\.{name}"):
        run(frame, features=["tempo"], bounds={name: [0, 1]})
    with pytest.raises(ConfigurationError, match="did you mean tempo"):
        run(frame, features=["tempo"], bounds={"tempa": [0, 1]})


def test_rows_without_a_group_go_when_one_is_required():
    frame = {"x": [1, 2, 3], "genre": ["a", None, "b"]}
    assert run(frame, roles=Roles(group="genre"), require_group=True).frame["x"].tolist() == [1, 3]
    assert run(frame, roles=Roles(group="genre")).n_rows == 3
    with pytest.raises(ConfigurationError, match=r"data\.roles\.group"):
        run(frame, features=["x"], require_group=True)


def test_rows_without_a_list_of_groups_go_too():
    frame = {"x": [1.0, 2, 3], "genre": pd.array([["a"], None, ["a", "b"]], dtype=TEXT_LIST)}
    got = run(frame, roles=Roles(group="genre"), require_group=True)
    assert [list(g) for g in got.frame["genre"]] == [["a"], ["a", "b"]]


def test_repeated_ids_go_and_the_first_stays():
    got = run({"id": ["a", "b", "a", None, None], "x": [1, 2, 3, 4, 5]}, duplicates="id")
    assert got.frame["x"].tolist() == [1, 2, 4, 5]
    assert steps(got)["duplicates"] == (5, 1, 0)


def test_repeated_and_missing_ids_are_noted():
    frame = {"id": ["a", "a", "b", None], "x": [1, 2, 3, 4]}
    assert run(frame).audit.notes == (
        "1 rows have no id", "1 rows repeat the id of another; clean.duplicates=id keeps the first",
    )  # fmt: skip
    assert run(frame, duplicates="id").audit.notes == ("1 rows have no id",)
    assert run({"x": [1, 2]}).audit.notes == ()


def test_a_repeated_id_whose_first_row_is_dropped_keeps_the_next():
    got = run({"id": ["a", "a", "b"], "x": [NAN, 2, 3]}, duplicates="id")
    assert got.frame["x"].tolist() == [2, 3]


def test_repeated_rows_go_and_a_made_id_does_not_count():
    frame = {"t": ["a", "a", "b", "a"], "x": [1, 1, 1, 2]}
    roles = Roles(title="t")
    assert run(frame, roles=roles, duplicates="row").frame["id"].tolist() == [0, 2, 3]
    own = {"id": [7, 8, 9, 9], **frame}
    assert run(own, roles=roles, duplicates="row").n_rows == 4


def test_rows_with_different_lists_are_different():
    lists = pd.array([["a"], ["a"], ["a", "b"], None, None], dtype=TEXT_LIST)
    got = run({"g": lists, "x": [1, 1, 1, 1, 1], "y": [1, 1, 1, 2, 2]}, roles=Roles(group="g"),
              features=["x", "y"], duplicates="row")  # fmt: skip
    assert got.frame["id"].tolist() == [0, 2, 3]


def test_constant_features_are_dropped_and_named():
    got = run({"x": [1, 2, 9], "c": [3, 3, 3], "d": [5, 5, NAN]})
    assert got.features == ("x",)
    assert got.audit.features == ("x",)
    assert list(got.frame) == ["id", "x"]
    assert [(out.column, out.reason) for out in got.audit.left_out] == [
        ("c", "constant (3) in the rows kept"), ("d", "constant (5) in the rows kept"),
    ]  # fmt: skip


def test_a_constant_feature_with_a_role_keeps_its_column():
    got = run({"x": [1, 2], "year": [2000, 2000]}, roles=Roles(year="year"), features=["x", "year"])
    assert got.features == ("x",)
    assert got.frame["year"].tolist() == [2000, 2000]


def test_nothing_but_constants_is_an_error():
    with pytest.raises(CleaningError, match="every feature has one value only in the 2 rows"):
        run({"x": [1, 1], "y": [2, 2]})


@pytest.mark.parametrize("value", [1e200, -1e308, 1.7e308])
def test_values_that_overflow_are_refused_with_what_to_do(value):
    frame = {"x": [1.0, 2.0, value], "y": [1.0, 2.0, 3.0]}
    with pytest.raises(CleaningError, match=r"'x' has values from .* overflow.*data\.exclude=\[x\].*clean\.bounds\.x"):
        run(frame)
    assert run(frame, bounds={"x": [-1e75, 1e75]}).n_rows == 2
    assert run({"x": [1e74, -1e74, 3.0]}).n_rows == 3


def test_many_dropped_rows_are_a_warning_that_names_their_columns():
    got = run({"x": [1.0, NAN, NAN, 2.0, 5.0], "y": [1.0, 2.0, NAN, 3.0, 4.0]})
    (line,) = got.audit.warnings
    assert line == (
        "2 of 5 rows (40%) were dropped, as they lack x (2) or y (1); data.exclude=[x,y] or clean.nulls=median keeps them"
    )
    assert run({"x": [*range(100), NAN], "y": [*range(101)]}).audit.warnings == ()


def test_the_numbers_of_the_rows_kept_are_kept():
    got = run({"x": [1, NAN, 3, 5, 9], "y": [1, 2, 3, 50, 4]}, bounds={"y": [None, 10]}, nulls="drop")
    assert got.rows.tolist() == [0, 2, 4]
    assert run({"x": [1, 2]}).rows is None


def test_nothing_left_says_which_rule_took_how_many():
    with pytest.raises(CleaningError) as error:
        run({"x": [1, 2, NAN], "y": [1, 2, 3]}, bounds={"x": [5, None]})
    assert "left none of 3 rows" in str(error.value)
    assert "bounds (x below 5) took 2" in str(error.value)
    assert "nulls (a feature is missing (x: 1)) took 1" in str(error.value)


def test_a_feature_without_any_value_cannot_be_filled():
    with pytest.raises(CleaningError, match="'y' has no value in any row, so no mean"):
        run({"x": [1, 2], "y": [NAN, NAN]}, nulls="mean")


def test_distinct_rows_are_counted_as_numpy_does(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 4, (5000, 5)).astype(float)
    frame = pd.DataFrame(values, columns=list("abcde"))
    assert FRAMES.count_distinct(frame, list("abcde")) == len(np.unique(values, axis=0))
    swapped = pd.DataFrame({"a": [1.0, 2.0, 0.0, -0.0], "b": [2.0, 1.0, 0.0, 0.0]})
    assert FRAMES.count_distinct(swapped, ["a", "b"]) == 3


def test_to_matrix_is_in_c_order():
    matrix = FRAMES.to_matrix(pd.DataFrame({"x": [1, 2], "t": ["a", "b"], "y": [0.5, 1]}), ["y", "x"])
    assert matrix.flags.c_contiguous
    assert matrix.dtype == np.float64
    assert matrix.tolist() == [[0.5, 1], [1, 2]]


CELLS = st.one_of(st.sampled_from([NAN, INF, -INF, 0.0, 1.0, 2.0]), st.floats(-50, 50))


@st.composite
def dirty(draw):
    n = draw(st.integers(1, 15))

    def column(cells):
        return draw(st.lists(cells, min_size=n, max_size=n))

    return {
        "id": column(st.sampled_from(["a", "b", "c", "d", None])),
        "genre": column(st.sampled_from(["pop", "rock", None])),
        "x": column(CELLS),
        "y": column(CELLS),
        "z": column(st.sampled_from(["1", "2.5", "", "what", None])),
    }


def number(cell):
    """A cell as a finite float, or None."""
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def by_hand(frame, nulls, duplicates, bounds, group):
    """The rules in plain Python, row by row: the rows kept, or None where there is nothing to cluster."""
    features = ["x", "y", "z"]
    rows = [dict(zip(frame, cells, strict=True)) for cells in zip(*frame.values(), strict=True)]
    rows = [row | {name: number(row[name]) for name in features} for row in rows]
    for name, (low, high) in bounds.items():
        low, high = -INF if low is None else low, INF if high is None else high
        rows = [row for row in rows if row[name] is None or low <= row[name] <= high]
    rows = [row for row in rows if row["genre"] is not None or not group]
    for name in features if nulls != "drop" else ():
        known = [row[name] for row in rows if row[name] is not None]
        if not known:
            return None
        fill = {"median": statistics.median, "mean": statistics.fmean}[nulls](known)
        rows = [row | {name: fill if row[name] is None else row[name]} for row in rows]
    rows = [row for row in rows if None not in (row["x"], row["y"], row["z"])]
    if duplicates != "none":
        keys = [row["id"] if duplicates == "id" else tuple(row.values()) for row in rows]
        rows = [row for i, row in enumerate(rows) if keys[i] is None or keys[i] not in keys[:i]]
    varied = [name for name in features if len({row[name] for row in rows}) > 1]
    return [{name: row[name] for name in ("id", "genre", *varied)} for row in rows] if varied else None


@settings(max_examples=300, deadline=None)
@given(
    dirty(),
    st.sampled_from(["drop", "median", "mean"]),
    st.sampled_from(["none", "id", "row"]),
    st.sampled_from([{}, {"x": [-10, 10]}, {"x": [None, 0], "y": [0, None]}]),
    st.booleans(),
)
def test_cleaning_is_as_by_hand_and_its_accounts_add_up(frame, nulls, duplicates, bounds, group):
    raw = table(frame, roles=Roles(group="genre"))
    config = CleanConfig(nulls=nulls, duplicates=duplicates, bounds=bounds, require_group=group)
    expected = by_hand(frame, nulls, duplicates, bounds, group)
    if expected is None:
        with pytest.raises(CleaningError):
            clean(raw, config, FRAMES)
        return
    got = clean(raw, config, FRAMES)
    values = got.frame[list(got.features)].to_numpy()
    assert values.dtype == np.float64
    assert np.isfinite(values).all()
    # the mean is summed in another order: a few units in the last place of numbers up to 50
    wanted = [[row[name] for name in got.features] for row in expected]
    np.testing.assert_allclose(values, wanted, rtol=1e-13, atol=1e-13)
    assert list(expected[0]) == ["id", "genre", *got.features]
    for name in ("id", "genre"):
        assert got.frame[name].astype(object).where(got.frame[name].notna(), None).tolist() == [
            r[name] for r in expected
        ]
    assert got.frame.index.equals(pd.RangeIndex(len(expected)))
    running = got.audit.rows_read
    for step in got.audit.steps:
        assert step.rows_before == running
        running -= step.rows_removed
    assert running == got.audit.rows_kept == got.n_rows


@pytest.mark.real
class TestRealTracks:
    """Figures of the data's README, and the same done by hand in pandas."""

    def test_duplicates_of_tracks_114k(self, real_data):
        raw = read(DataConfig(path=str(real_data / "tracks_114k.csv"), preset="tracks"), FRAMES)
        by_id = clean(raw, CleanConfig(duplicates="id"), FRAMES)
        assert by_id.n_rows == by_id.frame["track_id"].nunique() == 89_741
        assert steps(by_id)["duplicates"] == (114_000, 24_259, 0)
        assert "24,259 rows repeat the track_id" in clean(raw, CleanConfig(), FRAMES).audit.notes[0]
        by_row = clean(raw, CleanConfig(duplicates="row"), FRAMES)
        names = [*raw.roles.columns, *raw.features]
        by_hand = pd.read_csv(real_data / "tracks_114k.csv", usecols=names).drop_duplicates(subset=names)
        assert by_row.n_rows == len(by_hand)
        vectors = by_hand.drop_duplicates("track_id")[list(raw.features)]
        assert by_id.audit.distinct_feature_rows == len(vectors.drop_duplicates())

    def test_unknown_tempo(self, real_data):
        raw = read(DataConfig(path=str(real_data / "tracks_114k.csv"), preset="tracks"), FRAMES)
        got = clean(raw, CleanConfig(bounds={"tempo": [1, None]}), FRAMES)
        by_hand = pd.read_csv(real_data / "tracks_114k.csv", usecols=["tempo"])["tempo"]
        assert got.audit.steps[0].rows_removed == int((by_hand < 1).sum()) > 0

    def test_tracks_whose_artists_have_no_genre_go(self, real_data):
        join = JoinConfig(path=str(real_data / "artist_genres_29k.csv"), left="artists", columns=["genres"])
        raw = read(DataConfig(path=str(real_data / "tracks_12k_lists.csv"), preset="tracks", join=join), FRAMES)
        got = clean(raw, CleanConfig(require_group=True), FRAMES)
        second = pd.read_csv(real_data / "artist_genres_29k.csv")
        known = set(second["artists"][second["genres"] != "[]"])
        artists = pd.read_csv(real_data / "tracks_12k_lists.csv")["artists"].map(ast.literal_eval)
        assert got.n_rows == int(artists.map(lambda names: bool(known & set(names))).sum())
