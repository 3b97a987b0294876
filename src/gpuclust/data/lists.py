"""Parse lists written as text: ``['jazz', 'funk']`` becomes a list, without evaluating the text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_ITEM = re.compile(
    r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^\s,'"\[\]][^,'"\[\]]*))\s*(?:,|(?=['"])|$)""", re.S
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4}|.)", re.S)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}
_MISSING_ITEMS = frozenset({"None", "nan", "null", "NaN"})


def list_style(texts: Sequence[str | None]) -> str | None:
    """Detect how lists are written in texts; None if the texts are not lists.

    ``quoted``: at least nine in ten texts have brackets, and one has a quoted item or nothing between the brackets.
    ``bare``: an empty list is written ``[]`` and other lists without brackets, as in ``jazz, funk``.
    """
    seen = [text.strip() for text in texts if text]
    bracketed = [text for text in seen if text.startswith("[") and text.endswith("]")]
    n_empty = bracketed.count("[]")
    if len(bracketed) >= 0.9 * len(seen) and any(text[1:2] in ("'", '"', "]") for text in bracketed):
        return "quoted"
    return "bare" if n_empty > 0.01 * len(seen) and n_empty == len(bracketed) else None


def parse_list(text: str, style: str = "quoted") -> list[str]:
    """Parse one list; a text that is not a list becomes a list with the text as its only item.

    Items are quoted as in Python, JSON or NumPy, or not quoted; None and nan are skipped.
    """
    inside = text.strip()
    if not (inside.startswith("[") and inside.endswith("]") and len(inside) > 1):
        if style == "bare":
            return [bare for item in inside.split(",") if (bare := item.strip().strip("\"'"))]
        return [text]
    inside = inside[1:-1].strip()
    simple = inside[1:-1]
    if inside[:1] == "'" == inside[-1:] and "\\" not in inside and len(inside) > 1:
        items = simple.split("', '")
        if "'" not in "".join(items):
            return items
    return _parse_items(inside, text)


def _parse_items(inside: str, text: str) -> list[str]:
    items: list[str] = []
    position = 0
    while position < len(inside):
        found = _ITEM.match(inside, position)
        if found is None or found.end() == position:
            return [text]
        position = found.end()
        single, double, bare = found.groups()
        if bare is None:
            items.append(_ESCAPE.sub(_unescape, single if single is not None else double))
        elif bare.strip() not in _MISSING_ITEMS:
            items.append(bare.strip())
    return items


def _unescape(found: re.Match[str]) -> str:
    code = found[1]
    if len(code) == 1:
        return _ESCAPED.get(code, code)
    letter = chr(int(code[1:], 16))
    return "\ufffd" if "\ud800" <= letter <= "\udfff" else letter


def parse_lists(texts: Any, style: str) -> Any:
    """Convert an Arrow column of text to lists of text; an empty list becomes missing. Each distinct text is parsed once."""
    texts = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    encoded = texts.dictionary_encode()
    parsed = [parse_list(text, style) or None for text in encoded.dictionary.to_pylist()]
    return pa.array(parsed, pa.list_(pa.string())).take(encoded.indices)


def join_items(lists: Any, separator: str = "\x1f") -> Any:
    """Join the items of each list of an Arrow column to one text."""
    return pc.binary_join(lists, separator)
