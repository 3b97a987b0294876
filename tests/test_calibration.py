"""A sample of the calibration suite: the verdict of every kind of sweep on known answers, beside the usual rules.

docs/verdict.md has the whole suite. Version 0.1.0 was right on 9 (K-Means), 5 (mixture), 15 (HDBSCAN) and 8 (all) of these 18 tables.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from experiments.calibration import evidence as fits
from experiments.calibration.score import BASELINES, RIGHT, SWEEPS, Answer, grade, score, summary
from experiments.calibration.tables import Table, tables

NAMES = (
    "Gaussian, 2 columns",
    "uniform cube, 3 columns",
    "Student t2, 4 columns",
    "lognormal 1.0, 3 columns",
    "elongated 10:1, 2 columns",
    "3 Gaussian columns and one of 2 values",
    "ordinal 1..6, 3 columns",
    "banana",
    "ring",
    "3 groups, 2 columns, 8 sd apart",
    "7 groups, 4 columns, 5 sd apart",
    "3 groups, 3 columns, 12 sd apart, Student t3 groups",
    "8 groups, 4 columns, 9 sd apart, swept 2 to 6",
    "4 groups, 3 columns, 8 sd apart, swept 4 to 10",
    "6 groups, 40 columns, 12 sd apart",
    "4 groups, 3 columns, 10 sd apart, 30% noise",
    "two moons",
    "three parallel lines",
)
SEED = 11  # neither a development nor a held-out draw


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The grades of one draw of each table."""
    known = {table.name: table for table in tables()}
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("calibration")
        patch.setattr(fits, "CACHE", folder)
        patch.setattr("experiments.calibration.score.CACHE", folder)
        return [score(known[name], SEED) for name in NAMES]


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_sweep_is_right_on_nine_tables_in_ten_and_ahead_of_every_rule(rows: list[dict[str, Any]], sweep: str) -> None:
    found = summary(rows)
    wrong = {row["table"]: row["answers"][sweep] for row in rows if row["grades"][sweep] != RIGHT}
    assert found[sweep]["right"] >= 0.9, wrong
    assert all(found[sweep]["right"] > found[rule]["right"] for rule in BASELINES)


@pytest.mark.parametrize("sweep", SWEEPS)
def test_no_sweep_is_clear_about_rows_without_groups(rows: list[dict[str, Any]], sweep: str) -> None:
    assert summary(rows)[sweep]["clear_on_unstructured"] == 0.0


def test_the_suite_covers_what_it_says() -> None:
    suite = tables()
    assert len({table.name for table in suite}) == len(suite) >= 100
    families = Counter(table.family for table in suite)
    assert {"one cloud", "discrete", "curved cloud", "groups", "range", "wide", "noise", "shapes", "real"} <= set(
        families
    )
    assert {k for table in suite for k in table.truth} >= set(range(2, 11)) | {12}
    widths = {table.matrix(0).shape[1] for table in suite if table.family in ("one cloud", "wide")}
    assert min(widths) == 1
    assert max(widths) == 384
    assert 30 <= sum(table.held_out for table in suite) <= len(suite) / 2


def test_answers_are_graded_as_documented() -> None:
    def table(truth: tuple[int, ...], sizes: tuple[int, ...] = (2, 3, 4, 5), *, ambiguous: bool = False) -> Table:
        return Table("t", "groups", truth, lambda seed: None, ambiguous=ambiguous, sizes=sizes)  # type: ignore[arg-type,return-value]

    def graded(t: Table, kind: str, *sizes: int) -> str:
        return grade(t, Answer(kind, sizes), counts_by_range=True)

    assert graded(table(()), "none") == RIGHT
    assert graded(table(()), "several", 2) == "several, wrong"
    assert graded(table((3,)), "clear", 3) == RIGHT
    assert graded(table((3,)), "several", 3, 4) == "partly right"
    assert graded(table((3,)), "none") == "no answer"
    assert graded(table((5,)), "open") == RIGHT
    assert graded(table((9,)), "clear", 5) == "clear, wrong"
    assert graded(table((3,), ambiguous=True), "several", 3, 4) == RIGHT
    assert graded(table((3,), ambiguous=True), "clear", 4) == "clear, wrong"
