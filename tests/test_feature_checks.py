"""Numeric columns that are not measurements, and the default features of a table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gpuclust.config import DataConfig
from gpuclust.data.feature_checks import check_features, split_issues
from gpuclust.data.frames import PandasFrames
from gpuclust.data.read import read
from gpuclust.data.summary import join_names, summary
from gpuclust.data.table import Audit, Step

N = 400


def issue(values, name="x"):
    return check_features(pd.DataFrame({name: np.asarray(values, dtype=float)}), [name], PandasFrames())[name]


def kind(values, name):
    found = issue(values, name)
    return None if found is None else found.kind


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        (np.arange(N) % 2, "x", "flag"),
        (np.arange(N) % 2 * 254 + 1, "x", "flag"),
        (np.arange(N) % 10, "x", "few"),
        (np.arange(N) % 11, "x", None),
        (np.arange(N) % 17, "pixel", None),
        (np.arange(N) % 4 / 4, "x", "coarse"),
        (np.full(N, 3.25), "x", "constant"),
        (np.full(N, np.nan), "x", "empty"),
        (np.where(np.arange(N) < 250, np.nan, np.arange(N)), "x", "missing"),
        (np.arange(N), "x", "counter"),
        (np.arange(N) + 1, "x", "counter"),
        (np.arange(N) + 1900, "year", None),
        (np.arange(N)[::-1] * 7, "item_id", "id"),
        (np.arange(N)[::-1] * 7, "price", None),
        (np.arange(2000)[::-1] * 7, "customer", "id"),
        (np.arange(N) % 26, "label", "label"),
        (np.arange(N) % 26, "class", "label"),
        (np.arange(N) % 26, "labelled", None),
        (np.arange(N) % 26 + 0.5, "target", None),
        (np.arange(N) / 7, "target", None),
        (np.arange(12) % 2, "x", None),  # too few rows to tell
        (np.arange(30) % 4, "x", None),
    ],
)
def test_the_issue_of_a_column(values, name, expected):
    assert kind(values, name) == expected


def features(tmp_path, **columns):
    pd.DataFrame(columns).to_csv(tmp_path / "t.csv", index=False)
    return read(DataConfig(path=str(tmp_path / "t.csv")), PandasFrames())


def random(seed):
    return np.random.default_rng(seed)


def test_a_questionnaire_is_clustered_by_its_answers(tmp_path, seed):
    answers = {f"question {w}": random(seed + i).integers(1, 7, N) for i, w in enumerate("abcdef")}
    table = features(tmp_path, **answers, age=random(seed).normal(40, 9, N))
    assert len(table.features) == 7
    (line,) = table.audit.warnings
    assert line.startswith("features with few values: question a (6 different whole numbers), ")
    assert "data.exclude=[question a," in line


def test_two_features_are_always_left(tmp_path, seed):
    r = random(seed)
    table = features(tmp_path, x=r.normal(size=N), flag=r.integers(0, 2, N), label=r.integers(0, 3, N))
    assert table.features == ("x", "flag")
    table = features(tmp_path, x=r.normal(size=N), y=r.normal(size=N), flag=r.integers(0, 2, N))
    assert table.features == ("x", "y")


def test_pixels_at_the_edge_belong_to_their_image(tmp_path):
    from sklearn.datasets import load_digits

    digits = load_digits(as_frame=True)
    table = features(tmp_path, **dict(digits.data.items()), digit=digits.target)
    assert "digit" not in table.features
    assert len(table.features) == (digits.data.nunique() > 1).sum() == 61


def test_columns_left_out_are_named_with_how_to_include_them(tmp_path, seed):
    r = random(seed)
    table = features(
        tmp_path, x=r.normal(size=N), y=r.normal(size=N), mode=r.integers(0, 2, N), live=r.random(N) < 0.5, s=1.0
    )
    assert table.audit.warnings == (
        "not used as features: live (a boolean), mode (a flag: 0 or 1) and s (constant (1)); data.features=[...] names the columns to use",
    )
    assert {"mode", "live", "s"} <= set(table.other_columns)


def test_unfit_columns_are_the_same_whatever_their_order():
    found = {
        "a": None,
        "b": None,
        "f": issue(np.arange(N) % 2),
        "c": issue([1.0] * N),
    }
    left, used = split_issues(found)
    again, used_again = split_issues(dict(reversed(found.items())))
    assert (set(left), set(used)) == (set(again), set(used_again)) == ({"f", "c"}, set())


def test_the_summary_is_one_line_of_facts():
    audit = Audit(features=("a", "b"), rows_read=10, rows_kept=10)
    assert summary(audit) == "10 rows × 2 features: a, b"
    steps = (
        Step("bounds", "tempo below 1", 239_200, 3),
        Step("nulls", "a feature is missing (...)", 239_197, 85_953, 0, {"popularity": 85_000, "time_signature": 1000}),
    )
    audit = Audit(features=("a",), steps=steps, rows_read=239_200, rows_kept=153_244)
    assert summary(audit) == (
        "153,244 of 239,200 rows (3 with tempo below 1; 85,953 lack popularity or time_signature) × 1 feature: a"
    )


def test_long_lists_are_cut():
    assert join_names("abc") == "a, b and c"
    assert join_names("a") == "a"
    assert join_names([str(i) for i in range(9)], last="or") == "0, 1, 2, 3, 4 or 4 more"
