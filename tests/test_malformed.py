"""Malformed tables at the command line: a result with every row accounted for, or one line that says what to do.

Every eighth case runs in the ordinary tests; ``pytest -m campaign tests/test_malformed.py`` runs them all.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpuclust.cli import main
from gpuclust.compose import compose
from gpuclust.data.clean import clean
from gpuclust.data.frames import PandasFrames
from gpuclust.data.read import read
from tests import malformed, malformed_files
from tests.malformed import Case

CASES = [case for family in (*malformed.FAMILIES, *malformed_files.FAMILIES) for case in family()]
JOB = ("data=table", "tracking=none", "score=none", "report=none", "cluster.n_init=1", "cluster.n_clusters=2")


def ids(case: Case) -> str:
    return re.sub(r"[^\w.,=+-]+", "_", case.name)


def check(case: Case, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What must hold of any table."""
    path = case.make(folder)
    options = [
        o for o in JOB if not (o.startswith("cluster.n_") and any("cluster=" in given for given in case.options))
    ]
    overrides = [*options, *case.options, f"data.path='{path}'"]
    capsys.readouterr()
    status = main(overrides)
    out, err = capsys.readouterr()
    said = err.rstrip("\n").split("\n")
    assert status in case.statuses, f"exit {status}: {said[-1]}"
    assert "Traceback" not in out + err
    assert not re.search(r"\w+Warning: ", out + err), err
    if status == 2:
        assert said[-1].startswith("gpuclust: "), err
        assert sum(line.startswith("gpuclust: ") for line in said) == 1, err
        assert len(said[-1]) < 1500
    elif status == 1:
        assert "failed" in err
    else:
        every_row_is_accounted_for(case, overrides, err)


def every_row_is_accounted_for(case: Case, overrides: list[str], said: str) -> None:
    config = compose(overrides)
    frames = PandasFrames()
    audit = clean(read(config.data, frames), config.clean, frames).audit
    left_out = audit.source.get("records_left_out", 0)
    removed = sum(step.rows_removed for step in audit.steps)
    if case.rows is not None:
        assert audit.rows_read + left_out == case.rows
    assert audit.rows_kept + removed == audit.rows_read
    rows = f"{audit.rows_kept:,} of {audit.rows_read:,} rows" if removed else f"{audit.rows_kept:,} rows"
    assert rows in said, "the rows kept of those read are on the terminal"
    if left_out:
        assert f"{left_out:,} of {audit.rows_read + left_out:,} rows could not be read" in said
    for step in audit.steps:
        assert step.rule in ("nulls", "constants", "text", "infinities", "bounds", "duplicates", "group")


def test_the_campaign_has_two_hundred_tables() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 200
    assert len({ids(case) for case in CASES}) == len(names)


@pytest.mark.parametrize("case", CASES[::8], ids=ids)
def test_a_sample_of_malformed_tables(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(case, tmp_path, capsys)


@pytest.mark.campaign
@pytest.mark.parametrize("case", CASES, ids=ids)
def test_malformed_tables(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(case, tmp_path, capsys)
