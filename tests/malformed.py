"""Delimited text that is wrong, odd or hostile, each with what must hold of it: for the campaign in `test_malformed`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

N = 60


@dataclass(frozen=True)
class Case:
    """A table and what must hold: the exit statuses that are right, and how many rows it has, where that can be said."""

    name: str
    make: Callable[[Path], Path | str]
    statuses: tuple[int, ...] = (0, 1, 2)
    rows: int | None = None
    options: tuple[str, ...] = ()


def frame(n: int = N, seed: int = 0) -> pd.DataFrame:
    """A name, and three measurements in two groups."""
    r = np.random.default_rng(seed)
    group = np.arange(n) % 2 * 8
    measured = {name: np.round(r.normal(size=n) + group, 4) for name in "abc"}
    return pd.DataFrame({"name": [f"item {i % 50}" for i in range(n)], **measured})


def csv(n: int = N, seed: int = 0, **how: object) -> str:
    return str(frame(n, seed).to_csv(index=False, **how))  # type: ignore[call-overload]


def raw(name: str, content: bytes | str, suffix: str = ".csv", **rest: object) -> Case:
    """A case of one file with these bytes."""
    content = content.encode() if isinstance(content, str) else content

    def make(folder: Path) -> Path:
        path = folder / f"table{suffix}"
        path.write_bytes(content)
        return path

    return Case(name, make, **rest)  # type: ignore[arg-type]


def ok(name: str, content: bytes | str, suffix: str = ".csv", rows: int = N, **rest: object) -> Case:
    """A case that is clustered, every row accounted for."""
    return raw(name, content, suffix, statuses=(0,), rows=rows, **rest)


def bad(name: str, content: bytes | str, suffix: str = ".csv", **rest: object) -> Case:
    """A case that is refused."""
    return raw(name, content, suffix, statuses=(2,), **rest)


def swapped(text: str, rows: Sequence[int], change: Callable[[str], str]) -> str:
    """The text with some of its lines, the header being line 0, changed."""
    lines = text.split("\n")
    for row in rows:
        lines[row] = change(lines[row])
    return "\n".join(lines)


def encodings() -> Iterator[Case]:
    accents = csv().replace("item", "éa")
    for codec in ("utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"):
        yield ok(f"encoding {codec}", accents.encode(codec))
    yield ok("encoding gb18030", csv().replace("item", "中文歌曲").encode("gb18030"))
    for codec in ("utf-16-le", "utf-16-be", "utf-32", "shift_jis", "koi8-r", "cp037"):
        text = csv().replace("item", "словарь" if codec == "koi8-r" else "item")
        yield raw(f"encoding {codec}", text.encode(codec))
    yield ok("a broken byte in UTF-8", accents.encode().replace("éa 7".encode(), b"\xc3a 7", 1))
    yield raw("NUL bytes in a cell", csv().encode().replace(b"item 7", b"it\x00em", 1))
    yield raw("NUL bytes everywhere", csv().encode().replace(b",", b"\x00,"))
    yield ok("emoji, right-to-left and line separators", csv().replace("item 3,", "\U0001f98a \u202e \u2028,"))
    yield raw("UTF-8 mark twice", b"\xef\xbb\xbf\xef\xbb\xbf" + csv().encode())
    yield ok("control characters", csv().replace("item 3,", "\x07\x1b[31m,"))
    yield raw("surrogates as UTF-8", csv().encode().replace(b"item 4,", b"\xed\xa0\x80,"))


def separators() -> Iterator[Case]:
    for name, separator in {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}.items():
        yield ok(f"separator {name}", csv(sep=separator))
    for name, separator in {"colon": ":", "space": " ", "caret": "^", "unit": "\x1f"}.items():
        yield raw(f"separator {name}", csv(sep=separator))
    yield raw("separator of two characters", csv().replace(",", "||"))
    yield raw("separator changes halfway", csv()[:900] + csv()[900:].replace(",", ";"))
    yield raw("comma and space", csv().replace(",", ", "), statuses=(0,), rows=N)
    yield raw("a line sep=; first", "sep=;\n" + csv(sep=";"))


def quotes() -> Iterator[Case]:
    plain, everything = csv(), csv(quoting=1)
    for row in (1, 6, N):
        for column in (0, 1, 3):

            def unclosed(line: str, column: int = column) -> str:
                cells = line.split(",")
                cells[column] = '"' + cells[column]
                return ",".join(cells)

            yield raw(f"unclosed quote, row {row}, column {column}", swapped(plain, [row], unclosed), rows=N)
            skip = ("data.bad_rows=skip",)
            yield raw(f"… skipped, row {row}, column {column}", swapped(plain, [row], unclosed), rows=N, options=skip)
    yield raw("closing quote lost among quotes", swapped(everything, [9], lambda s: s.replace('",', ",", 1)), rows=N)
    yield raw("three closing quotes lost", swapped(everything, [9, 20, 40], lambda s: s.replace('",', ",", 1)), rows=N)
    yield ok("everything in quotes", everything)
    yield ok("an inch mark in a cell", plain.replace("item 7,", 'item 7" vinyl,'))
    yield ok("doubled quotes", plain.replace("item 7,", '"item ""7""",'))
    yield ok("line breaks in quotes", plain.replace("item 7,", '"item\n7",').replace("item 9,", '"a\n\nb\nc",'))
    yield raw("line breaks and a record in quotes", plain.replace("item 7,", '"x\n1,2,3,4\ny",'))
    yield raw("text after a closing quote", plain.replace("item 7,", '"item" 7,'))
    yield ok("single quotes", plain.replace("item 7,", "'item 7',"))
    yield raw("backslash escapes", plain.replace("item 7,", '"item \\"7\\"",'))
    yield raw("curly quotes", plain.replace("item 7,", "“item 7”,"))
    yield raw("nothing but quotes", '"' * 1000)


def records() -> Iterator[Case]:
    text = csv()
    short, long = (lambda s: s.rsplit(",", 1)[0]), (lambda s: s + ",9")
    for n in (1, 10, 30):
        rows = [int(r) for r in np.linspace(1, N, n)]
        yield bad(f"{n} records too short", swapped(text, rows, short))
        yield bad(f"{n} records too long", swapped(text, rows, long))
        skip = ("data.bad_rows=skip",)
        yield raw(f"{n} short, skipped", swapped(text, rows, short), statuses=(0,), rows=N, options=skip)
        yield raw(f"{n} long, skipped", swapped(text, rows, long), statuses=(0,), rows=N, options=skip)
    yield ok("one short of 500", swapped(csv(500), [77], short), rows=500)
    yield bad("one short of 500 and error", swapped(csv(500), [77], short), options=("data.bad_rows=error",))
    yield bad("all records longer by two", swapped(text, range(1, N + 1), lambda s: s + ",1,2"))
    yield raw("a separator at each end", swapped(text, range(N + 1), lambda s: s + ","))
    yield raw("a separator at the end of the records", swapped(text, range(1, N + 1), lambda s: s + ","))
    yield ok("empty lines between", text.replace("\n", "\n\n"))
    yield ok("empty lines at both ends", "\n\n" + text + "\n\n\n")
    yield raw("lines of spaces", text.replace("\n", "\n   \n"))
    yield raw("comments", "# made by hand\n" + text)
    yield raw("comments among records", swapped(text, [5], lambda s: s + "\n# half way"))
    yield raw("a footer", text + "Total,,,\n")
    yield raw("a title line", "Results of 2024\n\n" + text)
    yield raw("the header again", swapped(text, [30], lambda s: s + "\n" + text.split("\n")[0]), rows=N + 1)
    yield raw("a record of a megabyte", text.replace("item 7,", "x" * (1 << 20) + ","), rows=N)


def headers() -> Iterator[Case]:
    body = csv().partition("\n")[2]
    numeric = "\n".join(line.partition(",")[2] for line in body.splitlines()) + "\n"
    yield ok("no header, numbers only", numeric)
    yield raw("no header", body)
    odd = {
        "twice": "a,a,a,a", "empty": ",,,", "spaces": " , ,  , a ", "numbers": "0,1,2,3", "words": "id,cluster,x,y",
        "markup": "[bold]n[/bold],[red],[/],[link=x]", "formulas": "=1+1,@a,+b,-c", "hydra": "a=b,${x},{c},[d]",
        "unicode": "naïve,温度,\U0001f98a,Ω", "reserved": "cluster,cluster_source,confidence,distance", "dots": "a.b,a.1,..,/",
        "sql": "select,rowid,index,group", "long": f"{'n' * 5000},b,c,d",
    }  # fmt: skip
    for name, head in odd.items():
        yield raw(f"header {name}", f"{head}\n{body}", statuses=(0,), rows=N)
    yield raw("header with a line break", f'name,"a\nb",c,d\n{body}', rows=N)
    yield raw("header in quotes", f'"name","a","b","c"\n{body}', statuses=(0,), rows=N)
    yield bad("header only", "name,a,b,c\n")
    yield bad("header only, no line end", "name,a,b,c")
    yield raw("header shorter by one, as R writes it", f"a,b,c\n{body}", statuses=(0,), rows=N)
    yield bad("header shorter by two", f"a,b\n{body}")
    yield raw("two header lines", f"name,a,b,c\nunit,m,m,s\n{body}", rows=N + 1)


def numbers() -> Iterator[Case]:
    written = {
        "decimal comma": ("{0:.3f}", ".", ","), "thousands": ("1.{0:07.3f}", "", ""), "percent": ("{0:.3f}%", "", ""),
        "currency": ("${0:.2f}", "", ""), "exponent": ("{0:.3e}", "", ""), "plus": ("{0:+.3f}", "", ""),
        "padded": ("   {0:.3f}  ", "", ""), "hex": ("0x{1:x}", "", ""), "Arabic digits": ("{1}", "1", "١"),
        "minus sign": ("{0:.3f}", "-", "−"), "apostrophes": ("1'{0:06.2f}", "", ""), "units": ("{0:.2f} kg", "", ""),
        "dates": ("2024-01-{2:02d}", "", ""), "times": ("12:{2:02d}:00", "", ""), "booleans": ("{3}", "", ""),
        "JSON lists": ("[{0:.2f}]", "", ""), "fractions": ("{1}/7", "", ""), "complex": ("{0:.2f}+1j", "", ""),
        "1e308": ("{0:.3f}e307", "", ""), "1e200": ("{0:.3f}e199", "", ""), "1e-308": ("{0:.3f}e-308", "", ""),
        "1e400": ("{0:.3f}e400", "", ""), "1e9 away": ("{0:.3f}", "", ""), "beyond int64": ("{1}99999999999999999999", "", ""),
        "digits": ("0.{1}" + "7" * 400, "", ""),
    }  # fmt: skip
    r = np.random.default_rng(1)
    x = r.normal(size=(N, 3)) + 8 * (np.arange(N) % 2)[:, None]
    for name, (form, old, new) in written.items():
        lines = ["name;a;b;c"]
        for i, row in enumerate(x):
            cells = [form.format(v, i + 3 * j, i % 28 + 1, v > 4) for j, v in enumerate(row)]
            lines.append(";".join([f"item {i % 50}", *(c.replace(old, new) if old else c for c in cells)]))
        yield raw(f"numbers as {name}", "\n".join(lines) + "\n", rows=N)
        lines = [line.rpartition(";")[0] + f";{v:.4f}" for line, v in zip(lines[1:], x[:, 2], strict=True)]
        yield raw(f"one column of numbers and {name}", "name;a;b;c\n" + "\n".join(lines) + "\n", rows=N)
    for word in (
        "inf",
        "-inf",
        "Infinity",
        "1e309",
        "nan",
        "NA",
        "NULL",
        "-",
        "?",
        "n/a",
        "None",
        "#DIV/0!",
        "oops",
        "",
    ):
        yield ok(f"a cell {word or 'empty'}", swapped(csv(), [7, 8], lambda s, w=word: s.rsplit(",", 1)[0] + f",{w}"))
        all_of_it = swapped(csv(), range(1, N + 1), lambda s, w=word: s.rsplit(",", 1)[0] + f",{w}")
        yield raw(f"a column {word or 'empty'}", all_of_it, rows=N)
    for scale in ("none", "minmax", "robust"):
        for power in (307, 150, -200, -307):
            text = (frame()[list("abc")] * float(f"1e{power}")).to_csv(index=False)
            yield raw(f"1e{power} with scale={scale}", text, options=(f"scale={scale}",))
    for algorithm in ("gmm", "hdbscan"):
        size = "cluster.min_cluster_size=5" if algorithm == "hdbscan" else "cluster.n_clusters=2"
        yield raw(
            f"1e307 and {algorithm}",
            (frame()[list("abc")] * 1e307).to_csv(index=False),
            options=(f"cluster={algorithm}", size),
        )


def shapes() -> Iterator[Case]:
    for name, content in {
        "empty": "",
        "a space": " ",
        "a line end": "\n",
        "a mark": "\ufeff",
        "a NUL": "\x00",
        "a comma": ",",
    }.items():
        yield bad(f"nothing but {name}", content)
    yield bad("one cell", "x\n")
    yield bad("one number", "1\n")
    yield bad("one row", csv(1))
    yield raw("two rows", csv(2), rows=2)
    yield ok("one column", frame()[["a"]].to_csv(index=False))
    yield raw("one column of two values", "x\n" + "1\n2\n" * 30, rows=N)
    wide = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 2000))).round(3)
    yield ok("20 rows, 2,000 columns", wide.to_csv(index=False), rows=20)
    yield bad("one row, 3,000 columns", ",".join(f"c{i}" for i in range(3000)) + "\n" + ",".join(["1"] * 3000) + "\n")
    yield bad("60,000 columns", "\n".join(",".join(f"{row}{i}" for i in range(60_000)) for row in ("c", 1, 2)) + "\n")
    yield raw("3 rows of one value", "x,y\n" + "1,1\n" * 3)
    yield bad("a long line without an end", "x" * (3 << 20))


def values() -> Iterator[Case]:
    f = frame()
    same = {
        "constant": f.assign(a=1.0, b=1.0, c=1.0), "missing": f.assign(a=np.nan, b=np.nan, c=np.nan),
        "text": f.assign(a="x", b="y", c="z"), "ids": f.assign(a=range(N), b=range(N), c=range(N))[["a"]],
    }  # fmt: skip
    for name, table in same.items():
        yield raw(f"all {name}", table.to_csv(index=False), statuses=(2,) if name != "ids" else (0, 1, 2), rows=N)
    yield ok(
        "one row again and again",
        csv(2).split("\n")[0] + "\n" + (csv(2).split("\n")[1] + "\n") * 30 + csv(30).partition("\n")[2],
        rows=60,
    )
    yield ok("the same column thrice", f.assign(b=f["a"], c=f["a"]).to_csv(index=False))
    yield ok("flags only", (f[list("abc")] > 4).astype(int).to_csv(index=False))
    yield ok("most of a column missing", f.assign(a=f["a"].where(f.index < 10)).to_csv(index=False))
    yield bad("no row complete", f.assign(a=f["a"].where(f.index < 31), b=f["b"].where(f.index > 29), c=f["c"].where(f.index % 2 > 2)).to_csv(index=False),
              options=("data.features=[a,b,c]",))  # fmt: skip
    yield ok("an outlier", swapped(csv(), [5], lambda s: s.rsplit(",", 1)[0] + ",1e60"))
    yield ok("the largest double as a code for missing", swapped(csv(), [5], lambda s: s.rsplit(",", 1)[0] + ",1.7976931348623157e308"),
             options=("clean.bounds.c=[null,1e30]",))  # fmt: skip
    yield bad("the largest double", swapped(csv(), [5], lambda s: s.rsplit(",", 1)[0] + ",1.7976931348623157e308"))
    for offset in (1e9, 1e15, 1e18):
        yield raw(f"offset {offset:g}", (f[list("abc")] + offset).to_csv(index=False), options=("scale=none",), rows=N)


def line_ends() -> Iterator[Case]:
    text = csv()
    yield ok("line ends CRLF", text.replace("\n", "\r\n"))
    yield ok("line ends CR", text.replace("\n", "\r"))
    yield raw("line ends mixed", swapped(text, range(0, N, 2), lambda s: s + "\r"), rows=N)
    yield raw("line ends LFCR", text.replace("\n", "\n\r"))
    yield ok("no line end at the end", text.rstrip("\n"))
    yield raw("end-of-file mark", text + "\x1a")
    yield raw("form feeds", text.replace("item 7,", "item\x0c7,"), rows=N)
    yield raw("one line", text.replace("\n", " "))


def settings() -> Iterator[Case]:
    """A sound table with settings that do not fit it."""
    wrong = [
        "clean.bounds.a=[x,y]", "clean.bounds.a=[1]", "clean.bounds.a=[5,1]", "clean.bounds.nope=[0,1]", "clean.bounds.name=[0,1]",
        "clean.bounds.a=[1000,2000]", "data.features=[nope]", "data.features=[name]", "data.features=[a,a]", "data.exclude=[a,b,c]",
        "data.roles.id=nope", "data.n_rows=0", "data.n_rows=1", "data.n_rows=10000", "data.bad_rows=maybe", "clean.require_group=true",
        "data.join.path=none.csv", "clean.nulls=zero", "data.seed=-1", "data.roles.id=[a,b]",
    ]  # fmt: skip
    fine = ("data.features=[a,a]", "data.n_rows=10000")
    for option in wrong:
        yield raw(f"setting {option}", csv(), statuses=(0,) if option in fine else (2,), options=(option,))


FAMILIES = (encodings, separators, quotes, records, headers, numbers, shapes, values, line_ends, settings)
