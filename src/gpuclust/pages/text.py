"""Text from the data made safe to display (one line, no control or bidirectional characters), and numbers and units as text."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from numbers import Real

# Surrogates cannot be encoded; bidirectional controls would reorder the text around them (Unicode TR 9 and TR 36).
INVISIBLE = re.compile("[\ud800-\udfff\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\uffff]")
# Units that a column name may end in, as in ``duration_ms``; times have their length in seconds. ``min`` also means minimum.
SECONDS = {"ms": 1e-3, "msec": 1e-3, "s": 1.0, "sec": 1.0, "secs": 1.0, "seconds": 1.0, "minutes": 60.0, "hour": 3600.0, "hours": 3600.0}  # fmt: skip
_SYMBOLS = {"db": "dB", "hz": "Hz", "khz": "kHz", "bpm": "BPM", "pct": "%", "percent": "%", "km": "km", "kg": "kg", "cm": "cm", "mm": "mm", "usd": "USD", "eur": "EUR"}  # fmt: skip
_UNIT = re.compile(rf"(?<=[^_\s])[_\s]+({'|'.join((*SECONDS, *_SYMBOLS))})$", re.IGNORECASE)
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


def without_unit(column: str) -> str:
    """A column name without the unit at its end: ``duration_ms`` is duration."""
    return _UNIT.sub("", column)


def unit_of(column: str) -> str:
    """The unit at the end of a column name, in lower case: ``ms`` for ``duration_ms``; empty where there is none."""
    found = _UNIT.search(column)
    return found[1].lower() if found else ""


def measure(value: float, unit: str = "") -> str:
    """A value with its unit: ``0.732``, ``-7.2 dB``, ``120 BPM``; a time as ``850 ms``, ``42 s``, ``3:42`` or ``14 min``."""
    if unit in SECONDS and math.isfinite(value):
        return duration(value * SECONDS[unit])
    return f"{figure(value)} {_SYMBOLS.get(unit, unit)}".rstrip()


def duration(seconds: float) -> str:
    """A time: ``850 ms``, ``4.2 s``, ``42 s``, ``3:42`` (minutes and seconds), ``14 min`` from ten minutes, ``2 h 5 min``."""
    sign, seconds = "-" if seconds < 0 else "", abs(seconds)
    if seconds < 59.5:
        return sign + (f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2g} s")
    minutes, rest = divmod(round(seconds), 60)
    if seconds < 600:
        return f"{sign}{minutes}:{rest:02}"
    minutes = round(seconds / 60)
    return f"{sign}{minutes} min" if minutes < 100 else f"{sign}{minutes // 60:,} h {minutes % 60} min"


def figure(value: float) -> str:
    """Format a number with three significant digits and thousands separators."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def percent(fraction: float) -> str:
    """Format a share: ``23.1 %``, or ``<0.1 %`` if it would round to zero."""
    if 0 < fraction < 0.0005:
        return "<0.1 %"
    return f"{100 * fraction:.1f} %" if fraction else "0 %"


def label_name(cluster: int) -> str:
    """``3``, or ``noise``."""
    return "noise" if cluster < 0 else str(cluster)


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
