"""Reading files: formats, separators, encodings, kinds of columns, roles, joins, and what is wrong with a file."""

from __future__ import annotations

import ast
import csv
import gzip
import io
import os
import tempfile
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuclust.config import DataConfig, JoinConfig, RolesConfig
from gpuclust.data.encoding import detect_encoding
from gpuclust.data.files import _file_digest, find_files
from gpuclust.data.frames import TEXT_LIST, LineCounter, PandasFrames
from gpuclust.data.lists import list_style, parse_list
from gpuclust.data.read import read
from gpuclust.data.sniff import sniff, utf8_stream
from gpuclust.data.source import fingerprint
from gpuclust.errors import ConfigurationError, DataError

FRAMES = PandasFrames()
AUDIO = (
    "acousticness", "danceability", "duration_ms", "energy", "instrumentalness", "liveness", "loudness",
    "speechiness", "tempo", "valence",
)  # fmt: skip


def table(path, **config):
    return read(DataConfig(path=str(path), **config), FRAMES)


def write(folder, text, name="table.csv", encoding="utf-8"):
    path = Path(folder) / name
    path.write_bytes(text.encode(encoding))
    return path


def reasons(read_table):
    return {out.column: out.reason for out in read_table.audit.left_out}


# Formats


@pytest.fixture
def songs() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": ["a", "b", "c", "d"],
            "title": ["One, two", 'Say "hi"', "Line\nbreak", "Ünïcode"],
            "energy": [0.5, 0.25, np.nan, 1.0],
            "plays": [10, 20, 30, 50],
        }
    )


WRITERS = {
    "t.csv": lambda f, p: f.to_csv(p, index=False),
    "t.tsv": lambda f, p: f.to_csv(p, index=False, sep="\t"),
    "t.txt": lambda f, p: f.to_csv(p, index=False, sep="|"),
    "semicolon.csv": lambda f, p: f.to_csv(p, index=False, sep=";"),
    "european.csv": lambda f, p: f.to_csv(p, index=False, sep=";", decimal=","),
    "t.csv.gz": lambda f, p: f.to_csv(p, index=False),
    "named_as_if_plain.csv": lambda f, p: f.to_csv(p, index=False, compression="gzip"),
    "indexed.csv": lambda f, p: f.to_csv(p),
    "windows.csv": lambda f, p: f.to_csv(p, index=False, lineterminator="\r\n"),
    "bom.csv": lambda f, p: f.to_csv(p, index=False, encoding="utf-8-sig"),
    "utf16.csv": lambda f, p: f.to_csv(p, index=False, encoding="utf-16"),
    "latin.csv": lambda f, p: f.to_csv(p, index=False, encoding="latin-1"),
    "latin.csv.gz": lambda f, p: f.to_csv(p, index=False, encoding="latin-1"),
    "t.parquet": lambda f, p: f.to_parquet(p),
    "parquet_named.csv": lambda f, p: f.to_parquet(p),
    "t.feather": lambda f, p: f.to_feather(p),
    "stream.arrow": lambda f, p: _write_stream(f, p),
}


def _write_stream(frame, path):
    arrow = pa.Table.from_pandas(frame)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, arrow.schema) as writer:
        writer.write_table(arrow)


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_reads_the_same_table(songs, tmp_path, name):
    WRITERS[name](songs, tmp_path / name)
    got = table(tmp_path / name, features=["energy", "plays"], roles=RolesConfig(title="title"))
    assert got.frame["id"].tolist() == songs["id"].tolist()
    assert got.frame["title"].tolist() == songs["title"].tolist()
    assert np.array_equal(got.frame["energy"], songs["energy"], equal_nan=True)
    assert np.array_equal(got.frame["plays"], songs["plays"])
    assert got.features == ("energy", "plays")
    assert got.audit.rows_read == got.audit.source["rows"] == 4


def test_the_audit_says_how_the_file_is_written(songs, tmp_path):
    songs.to_csv(tmp_path / "t.csv", sep=";", decimal=",", encoding="latin-1")
    source = table(tmp_path / "t.csv").audit.source
    assert source["separator"] == ";"
    assert source["decimal"] == ","
    assert source["encoding"] == "cp1252"
    assert source["index_column"] == "Unnamed: 0"
    assert source["format"] == "csv"
    assert not source["gzip"]


def test_a_folder_is_one_table(songs, tmp_path):
    songs.iloc[:2].to_csv(tmp_path / "part-0.csv", index=False)
    songs.iloc[2:][["plays", "energy", "title", "id"]].to_csv(tmp_path / "part-1.csv", index=False, sep=";")
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / ".part-0.csv.crc").write_text("x")
    got = table(tmp_path)
    assert got.frame["id"].tolist() == ["a", "b", "c", "d"]
    assert got.audit.source["files"] == 2


def test_a_folder_with_text_in_one_file_and_numbers_in_another(tmp_path):
    write(tmp_path, "x,y\n1,2\n3,5\n", "a.csv")
    write(tmp_path, "x,y\n1,2\nbroken,4\n", "b.csv")
    got = table(tmp_path)
    assert np.array_equal(got.frame["x"], [1, 3, 1, np.nan], equal_nan=True)
    assert got.audit.steps[0].cells_changed == 1


def test_files_of_a_folder_must_have_the_same_columns(tmp_path):
    write(tmp_path, "x,y\n1,2\n", "a.csv")
    write(tmp_path, "x,z\n1,2\n", "b.csv")
    with pytest.raises(DataError, match=r"b\.csv and a\.csv differ in column 'y'"):
        table(tmp_path)


def test_a_folder_holds_one_format(songs, tmp_path):
    songs.to_csv(tmp_path / "a.csv")
    songs.to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="mixes csv and parquet"):
        table(tmp_path)


def test_parquet_types_become_plain_ones(tmp_path):
    arrow = pa.table(
        {
            "genre": pa.array(["a", "b", None]).dictionary_encode(),
            "artists": pa.array([["x", "y"], [], None], pa.list_(pa.string())),
            "price": pa.array([Decimal("1.25"), Decimal(2), Decimal(4)]),
            "small": pa.array([1, None, 3], pa.int8()),
            "half": pa.array([0.5, 0.25, 1], pa.float32()),
            "released": pa.array([0, 400, 800], pa.date32()),
            "live": pa.array([True, False, True]),
            "extra": pa.array([{"a": 1}, {"a": 2}, {"a": 3}]),
            "__index_level_0__": pa.array([5, 6, 7]),
        }
    )
    pq.write_table(arrow, tmp_path / "t.parquet")
    roles = RolesConfig(group="genre", creator="artists", year="released")
    got = table(tmp_path / "t.parquet", roles=roles)
    assert got.features == ("price", "small", "half")
    assert got.frame["genre"].isna().tolist() == [False, False, True]
    assert got.frame["artists"].dtype == TEXT_LIST
    assert got.frame["year"].tolist() == [1970, 1971, 1972]
    assert reasons(got)["live"] == "boolean"
    assert reasons(got)["extra"] == "other"
    assert reasons(got)["__index_level_0__"] == "numbers the rows"


def test_columns_of_the_same_or_no_name_are_told_apart(tmp_path):
    got = table(write(tmp_path, "x,x,,y\n1,2,3,4\n2,3,4,6\n"))
    assert got.features == ("x", "x.1", "Unnamed: 2", "y")
    assert got.frame["x.1"].tolist() == [2, 3]


def test_numbers_without_a_header(tmp_path):
    got = table(write(tmp_path, "0.5,7\n0.25,8\n0.75,8\n"))
    assert got.features == ("column_0", "column_1")
    assert got.n_rows == 3
    assert table(write(tmp_path, "0,1\n0.5,7\n0.25,8\n")).features == ("0", "1")


def test_row_names_without_a_header_as_r_writes_them(tmp_path):
    got = table(write(tmp_path, 'x y\n"1" 1 2\n'.replace(" ", ",") + '"2",3,5\n'))
    assert got.features == ("x", "y")
    assert got.frame["y"].tolist() == [2, 5]


def test_records_of_another_length_are_left_out_and_counted(tmp_path):
    path = write(tmp_path, "x,y\n1,2\n3\n4,5,6\n7,8\n")
    got = table(path, bad_rows="skip")
    assert got.frame["x"].tolist() == [1, 7]
    assert got.audit.source["records_left_out"] == 2
    assert got.audit.warnings[0] == (
        "2 of 4 rows could not be read; the first is line 3 of table.csv (1 field instead of 2)"
    )
    with pytest.raises(DataError, match=r"2 of 4 rows could not be read.*data\.bad_rows=skip"):
        table(path)


def quoted(n, *, unclosed=(), closed=()):
    """Rows of a text in quotes and two numbers; the quote of some is not closed, or opened where there is none."""
    lines = ["title,x,y"]
    for i in range(n):
        first = f'"song {i}' if i in unclosed or i not in closed else f"song {i}"
        lines.append(f"{first}{'' if i in unclosed else chr(34) if i not in closed else ''},{i}.5,{i * i}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "lost", "first"),
    [
        (quoted(60, closed=range(60), unclosed=[5]), 55, 7),  # no further quote: the rest of the file
        (quoted(60, unclosed=[5]), 1, 7),  # closed by the next row's quote
        (quoted(60, unclosed=[59]), 1, 61),
        (quoted(60, unclosed=[5, 20, 40]), 3, 7),
        (quoted(60, closed=[7, 8, 9], unclosed=[6]), 4, 8),
        (quoted(60).replace('song 3"', 'song\n3"'), 0, 0),  # a line break that belongs to a title
        (quoted(60).replace("\n", "\n\n"), 0, 0),
        (quoted(60).replace("\n", "\r\n"), 0, 0),
        (quoted(60).rstrip("\n"), 0, 0),
        (quoted(60, closed=range(60)).replace("song 4,", 'song 4", live,'), 1, 6),
    ],
)
@pytest.mark.parametrize("block_bytes", [64, 1 << 20])
def test_rows_that_a_quote_swallowed_are_counted(tmp_path, text, lost, first, block_bytes):
    path = write(tmp_path, text)
    data = DataConfig(path=str(path), features=["x", "y"], bad_rows="skip")
    got = read(data, PandasFrames(block_bytes))
    assert got.n_rows + lost == 60
    assert got.audit.source["records_left_out"] == lost
    if lost:
        assert f"{lost} of 60 rows could not be read; the first is line {first} of" in got.audit.warnings[0]
        with pytest.raises(DataError, match=rf"{lost} of 60 rows"):
            read(DataConfig(path=str(path), features=["x", "y"]), PandasFrames(block_bytes))
    else:
        assert read(DataConfig(path=str(path), bad_rows="error"), PandasFrames(block_bytes)).audit.warnings == ()


def test_a_few_bad_rows_are_skipped_and_said(tmp_path):
    path = write(tmp_path, quoted(500, unclosed=[450]))
    assert "1 of 500 rows could not be read; the first is line 452" in table(path).audit.warnings[0]
    with pytest.raises(DataError, match="1 of 500"):
        table(path, bad_rows="error")


def test_bad_rows_of_the_second_table_count_too(tmp_path):
    write(tmp_path, "name,x,y\n" + "".join(f"n{i},{i}.5,{i % 7}.25\n" for i in range(9)), "a.csv")
    write(tmp_path, "name,genre\n" + "".join(f"n{i},g{i % 2}\n" for i in range(8)) + "n8\n", "b.csv")
    join = JoinConfig(path=str(tmp_path / "b.csv"), left="name")
    with pytest.raises(DataError, match=r"b\.csv: 1 of 9 rows could not be read"):
        table(tmp_path / "a.csv", join=join, roles=RolesConfig(group="genre"))
    got = table(tmp_path / "a.csv", join=join, roles=RolesConfig(group="genre"), bad_rows="skip")
    assert "1 of 9 rows could not be read" in got.audit.warnings[0]


def test_newlines_in_quotes_across_blocks(tmp_path, seed):
    """Blocks far smaller than the file, so that many of them end within quotes."""
    rng = np.random.default_rng(seed)
    titles = ["line one\nline two, " * int(n) for n in rng.integers(1, 6, 2000)]
    frame = pd.DataFrame({"title": titles, "x": rng.normal(size=2000)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    data = DataConfig(path=str(tmp_path / "t.csv"), roles=RolesConfig(title="title"))
    got = read(data, PandasFrames(block_bytes=1024))
    assert got.frame["title"].tolist() == titles
    assert np.array_equal(got.frame["x"], frame["x"])


def test_a_record_longer_than_a_block(tmp_path):
    frame = pd.DataFrame({"title": ["a", "b" * 5000, "c"], "x": [1.0, 2.0, 4.0]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    data = DataConfig(path=str(tmp_path / "t.csv"), roles=RolesConfig(title="title"))
    assert read(data, PandasFrames(block_bytes=1024)).frame["title"].str.len().tolist() == [1, 5000, 1]


# Encodings

CHINESE = "晴天 / 周杰伦 七里香 东风破 发如雪 稻香 青花瓷"
FRENCH = "Être à la fête, Noël déjà; cœur brisé – L'Impératrice, Björk, Beyoncé, Rosalía"


@pytest.mark.parametrize(
    ("text", "encoding", "found"),
    [
        ("plain", "ascii", "utf-8"),
        (CHINESE, "utf-8", "utf-8"),
        (CHINESE, "utf-8-sig", "utf-8-sig"),
        (CHINESE, "utf-16", "utf-16"),
        (CHINESE, "gbk", "gb18030"),
        (FRENCH, "utf-8", "utf-8"),
        (FRENCH, "cp1252", "cp1252"),
        (FRENCH.replace("œ", "oe").replace("–", "-"), "latin-1", "cp1252"),
        ("Björk, Åse Kleveland, Sigur Rós, Mötley Crüe, Röyksopp, Håkan Hellström", "latin-1", "cp1252"),
        ("El Niño y la niña, Mañana será, ¿Qué más?, João", "latin-1", "cp1252"),
        ("caf\x81\xe9", "latin-1", "latin-1"),
    ],
)
def test_encodings_are_told_apart(text, encoding, found):
    assert detect_encoding(text.encode(encoding)) == (found, False)


def test_one_broken_byte_does_not_make_utf8_latin():
    assert detect_encoding(CHINESE.encode() + b"\xff") == ("utf-8", True)


def test_chinese_titles_in_gbk(tmp_path):
    path = write(tmp_path, "title,x\n晴天,1\n七里香,2\n青花瓷,4\n", encoding="gbk")
    got = table(path, roles=RolesConfig(title="title"))
    assert got.frame["title"].tolist() == ["晴天", "七里香", "青花瓷"]
    assert got.audit.source["encoding"] == "gb18030"


@pytest.mark.parametrize(("encoding", "found"), [("latin-1", "cp1252"), ("gbk", "gb18030")])
def test_an_encoding_that_shows_late_is_corrected(tmp_path, encoding, found):
    """The first mebibyte and the pieces looked at are ASCII; only a row near the end is not."""
    late = {"latin-1": "Être à la fête", "gbk": "七里香 东风破"}[encoding]
    titles = ["plain title"] * 150_000
    titles[140_000] = late
    lines = "".join(f"{title},{i}.5\n" for i, title in enumerate(titles))
    path = write(tmp_path, "title,x\n" + lines, encoding=encoding)
    got = table(path, roles=RolesConfig(title="title"))
    assert sniff(path).layout.encoding == "utf-8"
    assert got.audit.source["encoding"] == found
    assert got.frame["title"].iloc[140_000] == late
    assert got.n_rows == 150_000


def test_bytes_that_fit_no_encoding_are_replaced_and_noted(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"title,x\n" + CHINESE.encode() + b",1\nbro\xffken,2\n")
    got = table(path, roles=RolesConfig(title="title"))
    assert got.frame["title"].tolist() == [CHINESE, "bro\ufffdken"]
    assert any("U+FFFD" in note for note in got.audit.notes)


def test_utf8_stream_gives_utf8(tmp_path):
    path = write(tmp_path, "title;x\n" + "Être;1\n" * 300_000, encoding="latin-1")
    with utf8_stream(path, sniff(path).layout) as stream:
        assert stream.read() == ("title;x\n" + "Être;1\n" * 300_000).encode()


# Kinds of columns


def test_text_in_a_numeric_column_becomes_missing_and_is_counted(tmp_path):
    rows = ["1.5", "2", "oops", "NA", "-", "?", "None", "", "+4", " 5 ", "1e3", "7", "8"]
    got = table(write(tmp_path, "x,y\n" + "".join(f"{x},{i}\n" for i, x in enumerate(rows))))
    expected = [1.5, 2, *[np.nan] * 6, 4, 5, 1000, 7, 8]
    assert np.array_equal(got.frame["x"], expected, equal_nan=True)
    assert [(s.rule, s.cells_changed, s.rows_removed) for s in got.audit.steps] == [("text", 1, 0)]


@pytest.mark.parametrize("sep", [",", ";"])
def test_text_far_down_a_numeric_column(tmp_path, sep):
    """Beyond what is looked at beforehand; with a decimal comma too."""
    mark = "," if sep == ";" else "."
    cells = [f"{i}{mark}5" for i in range(200_000)]
    cells[199_000] = "not measured"
    path = write(tmp_path, f"x{sep}y\n" + "".join(f"{x}{sep}{i % 7}\n" for i, x in enumerate(cells)))
    got = table(path)
    assert np.isnan(got.frame["x"].iloc[199_000])
    assert got.frame["x"].iloc[199_999] == 199_999.5
    assert got.audit.steps[0].cells_changed == 1


def test_a_column_that_looks_numeric_first_and_is_text_is_left_out(tmp_path):
    names = ["1999"] * 150_000 + ["a name that is text"] * 200_000
    path = write(tmp_path, "x,y\n" + "".join(f"{x},{i % 7}\n" for i, x in enumerate(names)))
    got = table(path)
    assert got.features == ("y",)
    assert reasons(got)["x"] == "text"


def test_a_column_that_looks_empty_first_is_read(tmp_path):
    cells = [""] * 60_000 + ["2.5", "3.5"] * 70_000
    path = write(tmp_path, "x,y\n" + "".join(f"{x},{i % 7}\n" for i, x in enumerate(cells)))
    got = table(path)
    assert got.features == ("x", "y")
    assert got.frame["x"].sum() == 3.0 * 140_000


def test_mostly_missing_columns_are_left_out_unless_named(tmp_path):
    path = write(tmp_path, "x,y,z\n1,,\n2,,\n3,5,\n")
    got = table(path)
    assert got.features == ("x",)
    assert reasons(got) == {"y": "67% missing", "z": "empty"}
    assert table(path, features=["x", "y"]).features == ("x", "y")


def test_booleans_are_features_only_when_named(tmp_path):
    path = write(tmp_path, "x,live\n1,True\n2,FALSE\n3,\n")
    assert table(path).features == ("x",)
    named = table(path, features=["x", "live"])
    assert np.array_equal(named.frame["live"], [1, 0, np.nan], equal_nan=True)


def test_a_named_text_feature_is_refused(songs, tmp_path):
    songs.to_csv(tmp_path / "t.csv")
    with pytest.raises(ConfigurationError, match="'title' is text"):
        table(tmp_path / "t.csv", features=["energy", "title"])


def test_ids_are_no_features(tmp_path, seed):
    rng = np.random.default_rng(seed)
    n = 1500
    frame = pd.DataFrame({"user_id": np.arange(n), "code": rng.permutation(10 * n)[:n], "ms": rng.integers(0, 500, n)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    got = table(tmp_path / "t.csv")
    assert got.features == ("ms",)
    assert set(reasons(got)) == {"user_id", "code"}


def test_different_whole_numbers_in_a_small_table_are_measurements(tmp_path):
    assert table(write(tmp_path, "weight,n\n120,1\n95,1\n240,2\n")).features == ("weight", "n")


# Roles


def test_row_numbers_are_the_id_where_there_is_none(tmp_path):
    got = table(write(tmp_path, "x,y\n1,2\n3,4\n"))
    assert got.roles.id == "id"
    assert got.frame["id"].tolist() == [0, 1]
    assert got.frame["id"].dtype == np.int64
    taken = table(write(tmp_path, "id,x,y\n1,2,4\n3,4,3\n"), roles=RolesConfig(id="y"))
    assert taken.roles.id == "y"


@pytest.mark.parametrize(
    ("ids", "dtype"),
    [
        (["7", "12", "-3"], "int64"),
        (["007", "12", "3"], "text"),
        (["9" * 30, "1", "2"], "text"),
        (["a", "1", "2"], "text"),
    ],
)
def test_ids_are_integers_only_when_nothing_is_lost(tmp_path, ids, dtype):
    got = table(write(tmp_path, "id,x\n" + "".join(f"{i},{n}.5\n" for n, i in enumerate(ids))))
    assert got.frame["id"].astype(str).tolist() == ids
    assert (got.frame["id"].dtype == "int64") == (dtype == "int64")


def test_words_for_nothing_are_titles_but_no_groups(tmp_path):
    path = write(tmp_path, "title,genre,x\nNone,pop,1\n?,NA,2\n,,3\n")
    got = table(path, roles=RolesConfig(title="title", group="genre"))
    assert got.frame["title"].isna().tolist() == [False, False, True]
    assert got.frame["title"].iloc[0] == "None"
    assert got.frame["genre"].isna().tolist() == [False, True, True]


def test_the_year_comes_out_of_a_date(tmp_path):
    path = write(tmp_path, "energy,release_date\n0.5,2019-06-14\n0.25,1987\n0.75,12/31/1999\n")
    got = table(path, preset="tracks")
    assert got.roles.year == "year"
    assert got.frame["year"].tolist() == [2019, 1987, 1999]
    assert "release_date" not in got.frame.columns


def test_popularity_and_year_are_whole_numbers_when_all_are_there(tmp_path):
    path = write(tmp_path, "energy,popularity,year\n0.5,70,2019\n0.25,,1987\n")
    got = table(path, preset="tracks")
    assert got.frame["year"].dtype == np.int64
    assert got.frame["popularity"].dtype == np.float64


def test_lists_written_as_text_become_lists(tmp_path):
    path = write(tmp_path, "energy,artists,genres\n1,\"['A', 'B']\",\"['pop']\"\n2,\"['C, D']\",[]\n")
    got = table(path, preset="tracks")
    assert got.frame["artists"].dtype == TEXT_LIST
    assert [list(a) for a in got.frame["artists"]] == [["A", "B"], ["C, D"]]
    assert got.frame["genres"].isna().tolist() == [False, True]


def test_names_joined_by_semicolons_are_no_lists(tmp_path):
    got = table(write(tmp_path, "energy,artists\n1,A;B\n2,C\n"), preset="tracks")
    assert got.frame["artists"].tolist() == ["A;B", "C"]


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("['jazz', 'funk']", ["jazz", "funk"]),
        ("['rock ''n'' roll']", ["rock ", "n", " roll"]),
        ("[\"L'Impératrice\", 'Air']", ["L'Impératrice", "Air"]),
        ("['it\\'s', 'a\\\\b', '\\u00e9', '\\xe9']", ["it's", "a\\b", "é", "é"]),
        ('["a", null, "b"]', ["a", "b"]),
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),
        ("[rock, hard rock]", ["rock", "hard rock"]),
        ("['a, b', 'c']", ["a, b", "c"]),
        ("['one']", ["one"]),
        ("['']", [""]),
        ("[]", []),
        ("[ ]", []),
        ("[1, 2.5]", ["1", "2.5"]),
        ("plain", ["plain"]),
        ("[", ["["]),
        ("]", ["]"]),
        ("['unclosed]", ["['unclosed]"]),
        ("[['a'], ['b']]", ["[['a'], ['b']]"]),
        ("['\\ud800']", ["\ufffd"]),
    ],
)
def test_lists_are_parsed_without_evaluation(text, items):
    assert parse_list(text) == items


@pytest.mark.parametrize(
    "hostile", ["[" * 100_000, "['" + "\\" * 99_999 + "']", "['a'," * 50_000, "[" + "'" * 100_001 + "]"]
)
def test_hostile_lists_are_some_text(hostile):
    assert all(isinstance(item, str) for item in parse_list(hostile))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_a_list_as_python_writes_it_reads_back(items):
    assert parse_list(repr(items)) == items


def test_list_styles():
    assert list_style(["['a']", "[]", None, "['b', 'c']"]) == "quoted"
    assert list_style(["jazz, funk", "[]", "pop"]) == "bare"
    assert list_style(["jazz, funk", "pop"]) is None
    assert list_style(["[live]", "[remix]"]) is None
    assert parse_list("jazz, funk", "bare") == ["jazz", "funk"]


# Rows, fingerprints, the catalogue


def test_a_sample_of_rows_is_seeded_and_keeps_their_order(tmp_path):
    path = write(tmp_path, "x\n" + "".join(f"{i % 11}\n" for i in range(1000)))
    got = table(path, n_rows=100, seed=3)
    again = table(path, n_rows=100, seed=3)
    other = table(path, n_rows=100, seed=4)
    assert got.n_rows == got.audit.rows_read == 100
    assert got.frame["id"].is_monotonic_increasing
    assert got.frame["id"].is_unique
    assert np.array_equal(got.frame["x"], got.frame["id"] % 11)
    assert got.frame.equals(again.frame)
    assert not got.frame.equals(other.frame)
    assert got.frame.index.equals(pd.RangeIndex(100))
    assert got.audit.source["sample"] == {"n_rows": 100, "seed": 3}
    assert any("100 of 1,000 rows" in note for note in got.audit.notes)


def test_the_fingerprint_is_of_the_content(tmp_path):
    one = write(tmp_path, "x\n1\n2\n", "one.csv")
    same = write(tmp_path, "x\n1\n2\n", "same.csv")
    other = write(tmp_path, "x\n1\n3\n", "other.csv")
    prints = [fingerprint(DataConfig(path=str(p))) for p in (one, same, other)]
    assert prints[0] == prints[1] != prints[2]
    assert prints[0] == table(one).fingerprint
    joined = fingerprint(DataConfig(path=str(one), join=JoinConfig(path=str(other))))
    assert joined not in prints


def test_the_fingerprint_is_taken_once_and_again_after_a_change(tmp_path):
    path = write(tmp_path, "x\n1\n2\n")
    first = fingerprint(DataConfig(path=str(path)))
    misses = _file_digest.cache_info().misses
    assert fingerprint(DataConfig(path=str(path))) == first
    assert _file_digest.cache_info().misses == misses
    path.write_text("x\n1\n9\n")
    os.utime(path, ns=(1, 1))
    assert fingerprint(DataConfig(path=str(path))) != first


def test_the_fingerprint_of_a_folder_covers_every_file(tmp_path):
    write(tmp_path, "x\n1\n", "a.csv")
    write(tmp_path, "x\n2\n", "b.csv")
    before = fingerprint(DataConfig(path=str(tmp_path)))
    write(tmp_path, "x\n22\n", "b.csv")
    assert fingerprint(DataConfig(path=str(tmp_path))) != before


def test_the_catalogue_is_a_table_of_tracks():
    data = DataConfig(source="catalogue", n_rows=500, seed=5)
    got = read(data, FRAMES)
    assert got.features == AUDIO
    assert got.n_rows == 500
    assert set(got.roles.named()) >= {"id", "title", "creator", "group", "popularity", "year"}
    assert got.fingerprint == fingerprint(data)
    assert got.fingerprint != fingerprint(DataConfig(source="catalogue", n_rows=500, seed=6))


# Joins


def joined(folder, first, second, **join):
    write(folder, first, "first.csv")
    second = write(folder, second, "second.csv")
    return table(folder / "first.csv", join=JoinConfig(path=str(second), **join), preset="tracks")


def test_a_join_by_a_list_gathers_all_genres_of_all_artists(tmp_path):
    got = joined(
        tmp_path,
        "energy,artists\n1,\"['B', 'A']\"\n2,\"['C']\"\n3,\"['nobody']\"\n4,\"['A', 'A']\"\n",
        'artists,genres\nA,"pop, rock"\nB,"rock, jazz"\nC,[]\n',
        left="artists",
        columns=["genres"],
    )
    assert got.roles.group == "genres"
    assert got.frame["genres"].dtype == TEXT_LIST
    assert [None if g is pd.NA else list(g) for g in got.frame["genres"]] == [
        ["rock", "jazz", "pop"], None, None, ["pop", "rock"],
    ]  # fmt: skip
    assert got.audit.source["join"]["rows_matched"] == 3


def test_a_join_by_a_plain_key_keeps_plain_text_and_rows(tmp_path):
    got = joined(
        tmp_path,
        "energy,artist\n1,B\n2,A\n3,\n4,Z\n",
        "name,genre,tempo\nA,pop,100\nB,jazz,90\n",
        left="artist",
        right="name",
    )
    assert got.features == ("energy", "tempo")
    assert got.frame["genre"].fillna("none").tolist() == ["jazz", "pop", "none", "none"]
    assert np.array_equal(got.frame["tempo"], [90, 100, np.nan, np.nan], equal_nan=True)


def test_a_join_to_repeated_keys_never_multiplies_rows(tmp_path):
    got = joined(
        tmp_path,
        "energy,artist\n1,A\n2,B\n",
        "artist,genre,tempo\nA,pop,100\nA,jazz,90\nB,pop,80\n",
        left="artist",
    )
    assert [list(g) for g in got.frame["genre"]] == [["pop", "jazz"], ["pop"]]
    assert got.frame["tempo"].tolist() == [95, 80]


def test_a_join_by_numbers(tmp_path):
    got = joined(tmp_path, "energy,key_id\n1,7\n2,08\n", "key_id,genre\n7,pop\n8,jazz\n", left="key_id")
    assert got.frame["genre"].fillna("none").tolist() == ["pop", "none"]
    pd.DataFrame({"key_id": [8, 7], "genre": ["jazz", "pop"]}).to_parquet(tmp_path / "second.parquet")
    pd.DataFrame({"energy": [1, 2, 3], "key_id": [7, None, 8]}).to_parquet(tmp_path / "first.parquet")
    join = JoinConfig(path=str(tmp_path / "second.parquet"), left="key_id")
    got = table(tmp_path / "first.parquet", join=join, preset="tracks")
    assert got.frame["genre"].fillna("none").tolist() == ["pop", "none", "jazz"]


def test_a_join_names_what_is_wrong(tmp_path):
    first, second = "energy,artist\n1,A\n", "artist,genre\nA,pop\n"
    with pytest.raises(ConfigurationError, match=r"data\.join\.left: .*'artists'; did you mean artist"):
        joined(tmp_path, first, second, left="artists")
    with pytest.raises(ConfigurationError, match=r"data\.join\.columns: .*'genres'; did you mean genre"):
        joined(tmp_path, first, second, left="artist", columns=["genres"])
    with pytest.raises(ConfigurationError, match=r"data\.join\.left is missing"):
        joined(tmp_path, first, second)


# What is wrong with a file


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", "is empty"),
        ("blank.csv", b"\n\n  \n", "is empty"),
        ("header.csv", b"x,y\n", "a header but no rows"),
        ("header_only.csv", b"x,y", "a header but no rows"),
        ("names.csv", b"name,born\nA,June\nB,May\n", "no numeric column"),
        ("junk.csv", bytes(range(256)) * 40, "binary data"),
        ("random.csv", np.random.default_rng(0).bytes(5000), "binary data"),
        ("book.csv", b"PK\x03\x04" + b"\x00" * 50, "Excel workbook"),
        ("short.parquet", b"PAR1" + b"\x00" * 100, "damaged Parquet"),
        ("text.parquet", b"x,y\n1,2\n", "not a Parquet file"),
        ("short.feather", b"ARROW1\x00\x00" + b"\x01" * 50, "damaged Feather"),
        ("cut.csv.gz", gzip.compress(b"x,y\n1,2\n" * 10_000, mtime=0)[:60], "gzip"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_a_file_that_is_no_table_is_one_clear_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        table(path)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_gzip_that_breaks_off_late_is_refused(tmp_path, seed):
    rng = np.random.default_rng(seed)
    text = "x,y\n" + "".join(f"{x},{y}\n" for x, y in rng.normal(size=(100_000, 2)))
    packed = gzip.compress(text.encode())
    (tmp_path / "t.csv.gz").write_bytes(packed[: len(packed) * 3 // 4])
    with pytest.raises(DataError, match=r"t\.csv\.gz cannot be read"):
        table(tmp_path / "t.csv.gz")


def test_a_parquet_file_with_a_damaged_page_is_refused(tmp_path, seed):
    rng = np.random.default_rng(seed)
    path = tmp_path / "t.parquet"
    pd.DataFrame({"x": rng.normal(size=10_000)}).to_parquet(path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[40:4000] = bytes(3960)
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a whole Parquet file"):
        table(path)


def test_a_missing_file_names_its_neighbour(tmp_path):
    write(tmp_path, "x\n1\n", "tracks.csv")
    with pytest.raises(DataError, match=r"does not exist.*did you mean tracks\.csv"):
        table(tmp_path / "trakcs.csv")
    with pytest.raises(DataError, match="does not exist"):
        fingerprint(DataConfig(path=str(tmp_path / "no" / "such.csv")))


def test_patterns_in_any_part_of_a_path(tmp_path, monkeypatch):
    for name in ("one/t.csv", "two/t.csv", "two/u.csv", "[x]/t.csv", "[x]/a*.csv", "x/t.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x,y\n1,2\n3,4\n")
    monkeypatch.chdir(tmp_path)

    def found(path):
        return [os.path.relpath(file) for file in find_files(path).paths]

    for above in ("", f"{tmp_path}/"):
        assert found(f"{above}[ot]*/t.csv") == ["one/t.csv", "two/t.csv"]
        assert found(f"{above}tw?/*.csv") == ["two/t.csv", "two/u.csv"]
        assert found(f"{above}**/u.csv") == ["two/u.csv"]
        assert (
            found(f"{above}[x]/t.csv") == found(f"{above}[x]/t*.csv") == ["[x]/t.csv"]
        )  # a literal folder comes first
        assert found(f"{above}[x]/a*.csv") == ["[x]/a*.csv"]
        with pytest.raises(DataError, match=r"\*/none\.csv matches no file; check the pattern"):
            find_files(f"{above}*/none.csv")
        with pytest.raises(DataError, match=r"none\.csv does not exist; check the path"):
            find_files(f"{above}[x]/none.csv")


def test_a_folder_without_tables_is_refused(tmp_path):
    with pytest.raises(DataError, match="folder without table files"):
        table(tmp_path)


def test_a_file_of_records_of_other_lengths_is_no_table(tmp_path):
    ragged = "".join("1" + ",2" * (i % 3 + 2) + "\n" for i in range(500))
    with pytest.raises(DataError, match="is not a table"):
        table(write(tmp_path, "x,y\n1,2\n" + ragged))


# Any small table reads back

NAMES = st.text("abcdefgh_", min_size=1, max_size=6).filter(lambda n: n != "id")
TEXT = st.text("abc XYZ,;|\t'\"\néüß-?", max_size=8).filter(lambda t: t.strip() not in ("", "-", "?"))
NUMBERS = st.one_of(st.none(), st.floats(-1e9, 1e9, allow_nan=False), st.integers(-(10**6), 10**6).map(float))


@st.composite
def tables(draw):
    n_rows = draw(st.integers(1, 12))
    names = draw(st.lists(NAMES, min_size=2, max_size=5, unique=True))
    numeric = {n: draw(st.lists(NUMBERS, min_size=n_rows, max_size=n_rows)) for n in names[1:]}
    return names[0], draw(st.lists(TEXT, min_size=n_rows, max_size=n_rows)), numeric


@settings(max_examples=150, deadline=None)
@given(
    tables(),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.booleans(),
    st.booleans(),
)
def test_any_table_reads_back(made, separator, encoding, quoting, packed, indexed):
    title, texts, numeric = made
    frame = pd.DataFrame({title: texts, **numeric})
    text = frame.to_csv(index=indexed, sep=separator, quoting=quoting, lineterminator="\n")
    raw = text.encode(encoding)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(gzip.compress(raw) if packed else raw)
        got = table(path, features=list(numeric), roles=RolesConfig(title=title))
    assert got.frame[title].tolist() == texts
    assert got.features == tuple(numeric)
    for name, values in numeric.items():
        assert np.array_equal(got.frame[name], np.array(values, dtype=float), equal_nan=True), name
    assert got.audit.rows_read == len(texts)


def test_reading_agrees_with_pandas_on_a_generated_catalogue(seed):
    made = read(DataConfig(source="catalogue", n_rows=3000, seed=seed), FRAMES).frame
    buffer = io.StringIO()
    made.to_csv(buffer, index=False)
    with tempfile.TemporaryDirectory() as folder:
        got = table(write(folder, buffer.getvalue()), preset="tracks").frame
    expected = pd.read_csv(io.StringIO(buffer.getvalue()), keep_default_na=False, float_precision="round_trip")
    for name in got.columns:
        assert (got[name] == expected[name]).all(), name


# The real tracks


REAL = {
    "tracks_114k.csv": (114_000, "track_id", "track_name", "artists", "track_genre", "popularity", None),
    "playlist_tracks_10k.csv": (9_621, "track_id", "track_name", "artist_name", "genre", "track_popularity", "year"),
    "playlist_songs_33k.csv": (
        32_833, "track_id", "track_name", "track_artist", "playlist_genre", "track_popularity", "year",
    ),
    "song_attributes_2k.csv": (2_017, "id", "song_title", "artist", None, None, None),
    "tracks_12k_lists.csv": (11_656, "id", "name", "artists", None, "popularity", "year"),
    "artist_genres_29k.csv": (28_680, "id", None, "artists", "genres", "popularity", None),
    "data_by_year.csv": (100, "id", None, None, None, "popularity", "year"),
}  # fmt: skip


@pytest.mark.real
class TestRealTracks:
    """Row counts and column names as the data's README gives them."""

    @pytest.mark.parametrize("name", REAL)
    def test_preset_knows_every_table(self, real_data, name):
        n_rows, *roles = REAL[name]
        got = table(real_data / name, preset="tracks")
        assert got.n_rows == n_rows
        assert got.features == AUDIO
        named = got.roles
        assert [named.id, named.title, named.creator, named.group, named.popularity, named.year] == roles
        assert not got.frame[list(AUDIO)].isna().any().any()

    @pytest.mark.parametrize("name", REAL)
    def test_numbers_equal_those_of_pandas(self, real_data, name):
        got = table(real_data / name, preset="tracks").frame
        expected = pd.read_csv(real_data / name, float_precision="round_trip")
        for feature in AUDIO:
            assert np.array_equal(got[feature], expected[feature].astype(float)), feature

    def test_the_index_column_and_the_empty_title(self, real_data):
        got = table(real_data / "tracks_114k.csv", preset="tracks")
        assert reasons(got)["Unnamed: 0"] == "numbers the rows"
        assert got.audit.source["index_column"] == "Unnamed: 0"
        assert got.frame["track_name"].isna().sum() == 1
        assert got.frame["track_id"].nunique() == 89_741

    def test_artists_are_lists(self, real_data):
        got = table(real_data / "tracks_12k_lists.csv", preset="tracks").frame["artists"]
        expected = pd.read_csv(real_data / "tracks_12k_lists.csv")["artists"].map(ast.literal_eval)
        assert [list(artists) for artists in got] == expected.tolist()

    def test_genres_join_to_tracks_as_by_hand(self, real_data):
        join = JoinConfig(path=str(real_data / "artist_genres_29k.csv"), left="artists", columns=["genres"])
        got = table(real_data / "tracks_12k_lists.csv", preset="tracks", join=join).frame["genres"]
        second = pd.read_csv(real_data / "artist_genres_29k.csv")
        genres = {
            artist: [] if text == "[]" else [g.strip('"') for g in text.split(", ")]
            for artist, text in zip(second["artists"], second["genres"], strict=True)
        }
        artists = pd.read_csv(real_data / "tracks_12k_lists.csv")["artists"].map(ast.literal_eval)
        by_hand = [list(dict.fromkeys(g for name in names for g in genres.get(name, []))) for names in artists]
        assert [[] if g is pd.NA else list(g) for g in got] == by_hand


@given(st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b"bc,", b"\r"]), max_size=30), st.integers(1, 7))
def test_lines_are_counted_whatever_the_pieces(parts, size):
    data = b"".join(parts)
    counter = LineCounter(io.BytesIO(data))
    while counter.read(size):
        pass
    assert counter.n_lines == sum(line not in (b"", b"\r") for line in data.split(b"\n"))
