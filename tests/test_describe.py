"""`gpuclust describe`: what it says of a file, against pandas, and how it refuses what it cannot read."""

import io
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from gpuclust.cli import main
from gpuclust.compose import compose, plan
from gpuclust.describe import Description, advice, describe, described_data, show
from gpuclust.errors import ConfigurationError, DataError
from gpuclust.pipeline.context import make_job
from gpuclust.pipeline.job import get_table


@pytest.fixture
def messy(tmp_path: Path, seed: int) -> Path:
    """Every kind of column, and something wrong with most."""
    rng = np.random.default_rng(seed)
    n = 40
    a = rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "track id": [f"t{i % 38}" for i in range(n)],
            "a": a,
            "b": -2 * a + 1e-3 * rng.normal(size=n),
            "wide": 1e4 * rng.normal(size=n),
            "gaps": np.where(np.arange(n) % 4 == 0, np.nan, np.arange(n) * 1.5),
            "mixed": ["oops" if i == 3 else f"{(i * 7) % 40 * 0.5}" for i in range(n)],
            "same": 1.0,
            "word": ["[bold]x[/bold]" if i % 3 else "" for i in range(n)],
            "when": ["2020-01-02"] * n,
            "yes": [i % 2 == 0 for i in range(n)],
        }
    )
    frame.loc[39] = frame.loc[1]
    frame.to_csv(tmp_path / "messy.csv", index=False)
    return tmp_path / "messy.csv"


def looked_at(path: Path, *overrides: str, preset: str = "none") -> Description:
    return describe(described_data(path, overrides, preset=preset))[0]


def test_every_column_with_its_kind_its_use_and_its_range(messy: Path) -> None:
    found = looked_at(messy)
    raw = pd.read_csv(messy)
    columns = {c.name: c for c in found.columns}
    assert list(columns) == list(raw.columns)
    for name in ("a", "b", "wide", "gaps"):
        c, r = columns[name], raw[name]
        assert (c.kind, c.use, c.n_missing, c.n_distinct) == ("number", "feature", r.isna().sum(), r.nunique())
        # The file is parsed by Arrow here and by pandas there, which may differ in the last bit.
        np.testing.assert_allclose(
            [c.low, c.median, c.mean, c.high], [r.min(), r.median(), r.mean(), r.max()], rtol=1e-12
        )
    assert (columns["mixed"].n_text, columns["mixed"].n_missing, columns["mixed"].use) == (1, 0, "feature")
    assert (columns["word"].kind, columns["word"].n_missing) == ("text", (raw["word"].isna()).sum())
    assert (columns["yes"].kind, columns["yes"].low) == ("boolean", None)
    assert columns["word"].examples == ("[bold]x[/bold]",)
    assert found.features == ("a", "b", "wide", "gaps", "mixed")
    assert columns["same"].use == "constant (1)"
    assert (found.n_rows, found.n_duplicate_rows) == (40, raw.duplicated().sum())
    assert found.n_incomplete_rows == (raw["gaps"].isna() | (raw["mixed"] == "oops")).sum()


def test_correlations_are_those_of_pandas(messy: Path) -> None:
    found = looked_at(messy)
    raw = pd.read_csv(messy).assign(mixed=lambda f: pd.to_numeric(f["mixed"], errors="coerce"))
    expected = raw[list(found.features)].corr().to_numpy()
    np.testing.assert_allclose(np.array(found.correlation), expected, rtol=1e-9)
    (pair,) = found.pairs(0.95)
    assert pair[:2] == ("a", "b")
    assert pair[2] == pytest.approx(expected[0, 1], rel=1e-9)  # as above


def test_advice_names_the_setting_that_meets_it(messy: Path) -> None:
    found, table = describe(described_data(messy, ["data.roles.id=track id"]))
    said = "\n".join(advice(found, table))
    raw = pd.read_csv(messy)
    assert found.n_repeated_ids == raw["track id"].duplicated().sum()
    assert f"{found.n_repeated_ids} rows repeat an earlier track id: clean.duplicates=id" in said
    assert "11 of 40 rows (28%) were dropped, as they lack gaps (10) or mixed (1); data.exclude=[gaps,mixed]" in said
    assert "a and b are nearly redundant (r = -1.00): data.exclude=[b]" in said
    assert "not used as features: yes (a boolean) and same (constant (1)); data.features=[...]" in said
    assert "wide has a far larger scale than" in said


def test_a_file_of_tracks_is_told_from_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ["energy", "valence", "tempo", "liveness", "loudness"]
    pd.DataFrame(rng.normal(size=(30, 5)), columns=names).assign(title="x").to_csv(tmp_path / "t.csv", index=False)
    found, table = describe(described_data(tmp_path / "t.csv"))
    assert any("look like music tracks" in line for line in advice(found, table))
    found, table = describe(described_data(tmp_path / "t.csv", preset="tracks"))
    assert found.roles == {"title": "title"}
    assert not any("look like music tracks" in line for line in advice(found, table))


def test_lists_in_parquet_are_described(tmp_path: Path) -> None:
    table = pa.table({"x": [1.0, 2.5, 2.5, 4.0], "tags": pa.array([["a", "b"], ["c"], ["c"], None])})
    pq.write_table(table, tmp_path / "t.parquet")
    found = looked_at(tmp_path / "t.parquet", "data.roles.group=tags")
    tags = found.columns[1]
    assert (tags.kind, tags.use, tags.n_missing, tags.n_distinct) == ("list", "role group", 1, 2)
    assert tags.examples[0] == "c"
    assert found.n_duplicate_rows == 1


@pytest.mark.parametrize("override", ["cluster.n_clusters=3", "data.path=other.csv", "data.preset=tracks", "seed=1"])
def test_other_keys_are_refused(messy: Path, override: str) -> None:
    with pytest.raises(ConfigurationError, match=r"takes data\.\*"):
        described_data(messy, [override])


def test_what_is_printed_and_written(messy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "looked"
    assert main(["describe", str(messy), "data.exclude=[same]", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "40 rows, 10 columns, csv" in printed
    assert "[bold]x[/bold]" in printed, "text from the data is no markup"
    assert "excluded by data.exclude" in printed
    written = json.loads((out / "description.json").read_text())
    assert [c["name"] for c in written["columns"]] == list(pd.read_csv(messy).columns)
    assert written["features"] == ["a", "b", "wide", "gaps", "mixed"]
    assert written["advice"]
    assert all((out / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in ("correlation", "distributions"))
    # The command it ends with is one that composes.
    words = shlex.split(
        printed[printed.index("next: gpuclust -m ") :].splitlines()[0].removeprefix("next: gpuclust -m ")
    )
    assert len(plan(words, multirun=True).jobs) == 9


def test_a_feature_that_is_constant_where_another_is_known_makes_no_invalid_json(tmp_path: Path) -> None:
    """Without a correlation, and dropped by cleaning, where only the rows with a value of the other are left."""
    frame = pd.DataFrame(
        {"a": [1.5] * 20 + [2.5, 3.5] * 5, "b": [*np.arange(20) * 1.1, *[np.nan] * 10], "c": np.sqrt(range(30))}
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert main(["describe", str(tmp_path / "t.csv"), "--out", str(tmp_path / "o")]) == 0
    text = (tmp_path / "o" / "description.json").read_text()
    assert "NaN" not in text
    written = json.loads(text)
    assert written["features"] == ["b", "c"]
    assert next(c for c in written["columns"] if c["name"] == "a")["use"] == "constant (1.5) in the rows kept"


def odd_columns(n: int = 300, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "": np.arange(n),
            "doc_id": rng.permutation(5 * n)[:n],
            "x": rng.normal(size=n),
            "y": rng.normal(size=n),
            "count": rng.poisson(20, n),
            "flag": rng.integers(0, 2, n),
            "rating": rng.integers(1, 6, n),
            "label": rng.integers(0, 26, n),
            "same": 7,
            "row": np.arange(n) + 1,
            "open": rng.random(n) < 0.5,
            "half": rng.integers(0, 4, n) / 2,
        }
    )


def test_what_is_said_of_each_column_is_what_a_job_does(tmp_path: Path, context: Any) -> None:
    odd_columns().to_csv(tmp_path / "t.csv", index=False)
    found = looked_at(tmp_path / "t.csv")
    uses = {c.name: c.use for c in found.columns}
    assert uses == {
        "Unnamed: 0": "numbers the rows",
        "doc_id": "role id",
        "x": "feature",
        "y": "feature",
        "count": "feature",
        "flag": "a flag: 0 or 1",
        "rating": "5 different whole numbers",
        "label": "named like a label, 26 different whole numbers",
        "same": "constant (7)",
        "row": "counts the rows",
        "open": "boolean",
        "half": "feature",
    }
    config = compose(["data=table", f"data.path={tmp_path / 't.csv'}"])
    job_table = get_table(make_job(config, "job", {}, "cpu"), context)
    assert job_table.features == found.features == ("x", "y", "count", "half")
    assert job_table.audit.warnings == found.warnings
    assert len(found.warnings) == 2
    assert "flag (a flag: 0 or 1)" in found.warnings[0]
    assert "features with few values: half (4 different values)" in found.warnings[1]


def test_named_features_are_used_and_warned_of(tmp_path: Path) -> None:
    odd_columns().to_csv(tmp_path / "t.csv", index=False)
    found = looked_at(tmp_path / "t.csv", "data.features=[x,flag,label,row]")
    assert found.features == ("x", "flag", "label", "row")
    text = " ".join(found.warnings)
    assert "features with few values: flag (a flag: 0 or 1) and label" in text
    assert "features that number the rows: row" in text
    assert {c.name: c.what for c in found.columns if c.name in ("flag", "rating", "x")} == {
        "flag": "a flag: 0 or 1",
        "rating": "5 different whole numbers",
        "x": "",
    }


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_names_and_uses_are_whole_at_any_width(tmp_path: Path, width: int) -> None:
    odd_columns().to_csv(tmp_path / "t.csv", index=False)
    found, table = describe(described_data(tmp_path / "t.csv"))
    console = Console(width=width, file=io.StringIO(), highlight=False)
    show(found, table, console)
    printed = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    lines = {line.split()[0]: line for line in printed if line and line.split()[0] in {c.name for c in found.columns}}
    assert "doc_id" in lines
    assert "label" in lines
    assert all(len(line) <= width for line in lines.values())
    heads = next(line for line in printed if line.startswith("column ")).split()
    assert "use" in heads
    if width >= 80:
        assert "missing" in heads
        assert "flag: 0 or 1" in lines["flag"]
    if width == 200:
        assert "examples" in heads


def test_many_columns_alike_share_a_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(50, 384)), columns=[f"e{i}" for i in range(384)])
    frame.insert(0, "doc_id", [f"d{i}" for i in range(50)])
    frame.loc[3, "e7"] = np.nan
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), tmp_path / "t.parquet")
    found, table = describe(described_data(tmp_path / "t.parquet"))
    console = Console(width=80, file=io.StringIO(), highlight=False)
    show(found, table, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "e0…e383 (384 numbers)" in printed
    assert len(printed.splitlines()) < 25
    assert "384 features: e0..e383" in " ".join(printed.split())


def test_what_cannot_be_described_is_one_line_and_status_2(
    messy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "words.csv").write_text("x,y\na,b\nc,d\n")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "description.json").write_text("{}")
    wrong = [
        [str(tmp_path / "none.csv")],
        [str(tmp_path / "empty.csv")],
        [str(tmp_path / "words.csv")],
        [str(messy), "data.features=[nope]"],
        [str(messy), "data.feature=[a]"],
        [str(messy), "--out", str(tmp_path / "done")],
        [str(messy), "--out", str(messy / "below")],
    ]
    for arguments in wrong:
        assert main(["describe", *arguments]) == 2, arguments
        said = capsys.readouterr().err
        assert said.startswith("gpuclust: "), arguments
        assert said.count("\n") == 1, said


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        looked_at(tmp_path / "none.csv")


@pytest.mark.real
def test_the_readme_figures_of_the_real_tracks(real_data: Path) -> None:
    found = looked_at(real_data / "tracks_114k.csv", preset="tracks")
    assert (found.n_rows, found.n_duplicate_rows) == (114_000, 450)
    assert found.n_repeated_ids == 114_000 - 89_741
    assert found.source["index_column"] == "Unnamed: 0"
    assert next(c for c in found.columns if c.name == "track_name").n_missing == 1
