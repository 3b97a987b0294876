"""Text from the data made safe to display (one line, no control or bidirectional characters), and numbers as text."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from numbers import Real

# Surrogates cannot be encoded; bidirectional controls would reorder the text around them (Unicode TR 9 and TR 36).
INVISIBLE = re.compile("[\ud800-\udfff\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\uffff]")
_CONTROL_OR_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def one_line(text: object, limit: int | None = None) -> str:
    """``text`` on one line without control characters, cut to ``limit`` characters with an ellipsis."""
    line = str(text)
    if not (
        line.isascii() and line.isprintable() and "  " not in line
    ):  # most texts are; the check is ten times as fast as the cleaning
        line = _CONTROL_OR_SPACE.sub(" ", INVISIBLE.sub("", line))
    line = line.strip()
    return line if limit is None else shorten(line, limit)


def shorten(line: str, limit: int) -> str:
    """``line`` cut to at most ``limit`` characters, the last of them an ellipsis where something was cut."""
    if len(line) <= limit:
        return line
    end = max(limit - 1, 0)
    while end > 0 and unicodedata.combining(line[end]):
        end -= 1
    return line[:end].rstrip(" ·,;") + "…"


def cluster_title(cluster: int, names: Mapping[int, str] | None, limit: int | None = None) -> str:
    """The name of a cluster where it has one, else ``cluster 3`` or ``noise``."""
    name = (names or {}).get(cluster)
    if name:
        return one_line(name, limit)
    return "noise" if cluster < 0 else f"cluster {cluster}"


def count(number: float) -> str:
    """A whole number with thousands separators: ``89,741``."""
    return f"{int(number):,}"


def number(value: object) -> str:
    """A number with four significant digits and thousands separators; any other value as its text."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return str(value)
    real = float(value)
    if math.isnan(real):
        return "–"
    if math.isinf(real):
        return "∞" if real > 0 else "-∞"
    if real == int(real) and abs(real) < 1e15:
        return f"{int(real):,}"
    if abs(real) >= 1000:
        return f"{real:,.1f}"
    return f"{real:.4g}" if abs(real) >= 1e-4 else f"{real:.2e}"
