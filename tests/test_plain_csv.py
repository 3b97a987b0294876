"""Which files cuDF may read, and numbers by exact arithmetic: against the csv module and the Arrow reader."""

from __future__ import annotations

import csv
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpuclust.data.frames import PandasFrames
from gpuclust.data.schema import read_schema
from gpuclust.data.sniff import sniff
from gpuclust.data.table import NULL_SPELLINGS, CsvLayout
from gpuclust.runtime import plain_csv
from gpuclust.runtime.plain_csv import NotPlain, count_records, exact_numbers

LAYOUT = CsvLayout(columns=("id", "name", "x"))


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Write bytes to a file, and give its path."""

    def write(content: bytes) -> Path:
        path = tmp_path / "a.csv"
        path.write_bytes(content)
        return path

    return write


PLAIN_LINES = b'1,a,2\n2,"b, c",3\n3,"say ""hi""",4\n4,"",\n5,\xc3\xa9,6\n,,\n'


def test_a_plain_file_has_its_records_counted(written: Any) -> None:
    assert count_records(written(b"id,name,x\n" + PLAIN_LINES), LAYOUT) == 6
    assert count_records(written(b"id,name,x\r\n" + PLAIN_LINES.replace(b"\n", b"\r\n") + b'7,8,"9"\r\n'), LAYOUT) == 7


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'1,7" Mix,2\n', "a quote inside an unquoted field"),
        (b'1, "a",2\n', "a quote inside an unquoted field"),
        (b'1,"a" ,2\n', "text after a quoted field"),
        (b'1,"a"b,2\n', "text after a quoted field"),
        (b'1,"a\nb",2\n', "a line break inside quotes"),
        (b'1,"a,2\n', "a line break inside quotes"),
        (b"1,a\n", "a line that is not a complete record"),
        (b"1,a,2,3\n", "a line that is not a complete record"),
        (b"1,a,2\n\n", "a line that is not a complete record"),
        (b"1,a\r,2\n", "a carriage return inside a line"),
        (b'1,"a\r\n",2\n', "a line break inside quotes"),
        (b'1,"a\r",2\n', "a carriage return inside a line"),
        (b"1,a\0,2\n", "a zero byte"),
        (b"1,caf\xe9,2\n", "bytes that are not UTF-8"),
        (b"1,a,2", "no line break at the end"),
    ],
)
def test_a_file_that_the_readers_may_parse_in_two_ways_is_not_plain(written: Any, content: bytes, reason: str) -> None:
    for before in (b"", PLAIN_LINES * 3):
        with pytest.raises(NotPlain, match=reason):
            count_records(written(b"id,name,x\n" + before + content), LAYOUT)


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        ({"encoding": "latin-1"}, "written in latin-1"),
        ({"compressed": True}, "compressed"),
        ({"columns": ("id",)}, "a single column"),
        ({"empty_lines": 1}, "empty lines"),
    ],
)
def test_a_layout_that_cudf_does_not_read_is_not_plain(written: Any, layout: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotPlain, match=reason):
        count_records(written(b"id,name,x\n1,a,2\n"), CsvLayout(**({"columns": LAYOUT.columns} | layout)))


def test_parts_that_end_anywhere_give_the_same_count(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(b"id,name,x\n" + PLAIN_LINES * 50)
    for size in (1, 7, 64, 10_000):
        monkeypatch.setattr(plain_csv, "PART_BYTES", size)
        assert count_records(path, LAYOUT) == 300


def test_random_files_are_plain_only_where_quotes_toggle_at_the_ends_of_fields(written: Any) -> None:
    """Where the check lets a file pass, a parser that toggles at every quote, as cuDF does, finds the csv module's fields."""
    draw, passed = random.Random(0), 0
    for _ in range(4000):
        fields = ["".join(draw.choices('ab"",\n ', k=draw.randint(0, 4))) for _ in range(6)]
        quoted = [f'"{f.replace(chr(34), chr(34) * 2)}"' if draw.random() < 0.6 else f for f in fields]
        text = "".join(",".join(quoted[i : i + 2]) + "\n" for i in (0, 2, 4))
        try:
            n = count_records(written(text.encode()), CsvLayout(columns=("a", "b"), header=False))
        except NotPlain:
            continue
        passed += 1
        rows = list(csv.reader(text.splitlines(keepends=True)))
        assert n == len(rows)
        assert [[cell.replace('""', '"') for cell in row] for row in toggled(text)] == rows
    assert passed > 100


def toggled(text: str) -> list[list[str]]:
    """The fields as libcudf finds them: quotes toggle wherever they are, and are removed at both ends of a field."""
    rows, row, field, inside = [], [], "", False
    for c in text:
        if c == '"':
            inside = not inside
        if c in ",\n" and not inside:
            row.append(field[1:-1] if field[:1] == '"' == field[-1:] else field)
            field = ""
            if c == "\n":
                rows.append(row)
                row = []
        else:
            field += c
    return rows


NUMBERS = [
    "0", "-0", "1", "-1", "1.", ".5", "-.5", "007", "1e5", "1E-5", "2.5e+3", "0.1", "0.3", "1.01e-06", "123456789012345", "1e22", "1e-22",
    "900719925474.993", "0.000118", "4.35", "2.675", "1.1e-10", " 7 ", "0.0004730000",
]  # fmt: skip


@pytest.mark.parametrize("decimal", [".", ","])
def test_numbers_have_the_bits_of_the_arrow_reader(written: Any, decimal: str) -> None:
    draw = np.random.default_rng(0)
    random_ones = [
        f"{draw.uniform(0.1, 1) * 10.0 ** draw.integers(-6, 9):.{draw.integers(1, 15)}g}" for _ in range(3000)
    ]
    cells = [c.replace(".", decimal) for c in [*NUMBERS, *random_ones, *NULL_SPELLINGS]]
    path = written("".join(f"1;{cell}\n" for cell in cells).encode())
    layout = CsvLayout(separator=";", decimal=decimal, header=False, columns=("id", "x"))
    by_arrow = PandasFrames().read_csv(path, layout, numbers=["x"], text=[]).frame["x"]
    found = exact_numbers(pd.Series(cells, name="x", dtype="str"), decimal, np)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(
        found.to_numpy().view(np.int64)[: -len(NULL_SPELLINGS)],
        by_arrow.to_numpy().view(np.int64)[: -len(NULL_SPELLINGS)],
    )
    assert found.isna().sum() == by_arrow.isna().sum() == len(NULL_SPELLINGS)


@pytest.mark.parametrize(
    "cell",
    [
        "12a",
        "+1",
        "1e",
        "e5",
        ".",
        "1_000",
        "0x10",
        "inf",
        "1,5",
        "1e99999",
        "1234567890123456",
        "1e23",
        "1e-23",
        "1 2",
    ],
)
def test_other_cells_are_for_the_arrow_reader(cell: str) -> None:
    with pytest.raises(NotPlain, match="'x' has"):
        exact_numbers(pd.Series(["1", cell], name="x", dtype="str"), ".", np)


@pytest.mark.real
@pytest.mark.parametrize("file", ["tracks_114k.csv", "playlist_tracks_10k.csv", "song_attributes_2k.csv"])
def test_real_files(real_data: Path, file: str) -> None:
    """A real file that passes has the csv module's records, and its numbers have the bits of the Arrow reader's."""
    path = real_data / file
    layout = sniff(path).layout
    with path.open(newline="", encoding="utf-8") as lines:
        n_records = sum(1 for _ in csv.reader(lines)) - 1
    with suppress(NotPlain):
        assert count_records(path, layout) == n_records
    schema = read_schema(str(path))
    names = [name for name, kind in schema.kinds.items() if kind == "number"][:4]
    read = PandasFrames().read_csv(path, layout, numbers=names, text=[]).frame
    texts = PandasFrames().read_csv(path, layout, numbers=[], text=names).frame
    for name in names:
        try:
            found = exact_numbers(texts[name].fillna(""), ".", np)
        except NotPlain:
            continue
        np.testing.assert_array_equal(found, read[name])
