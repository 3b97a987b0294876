"""Escape texts of an export, so that pages show them as plain text.

Streamlit interprets Markdown in headings, captions and labels, with extensions (LaTeX, ``:red[...]``, ``:material/icon:``,
emoji names, arrows, bare addresses), some of which are applied after Markdown. Plotly interprets some HTML in hover texts
and names. Tables show plain text.
"""

from __future__ import annotations

import re
from html import escape

from gpuclust.sanitize import printable

JOINER = "\u2060"  # a zero-width character that separates what an extension would interpret
MAX_TEXT_LENGTH = 120
_TOGETHER = re.compile(r"(?<=[:@])(?=\S)|(?<=[-<>=~+!])(?=[-<>=~+!])|(?<=www)(?=\.)", re.IGNORECASE)
# Parts of column names that do not say what a value is.
_NO_NOUNS = frozenset({"track", "tracks", "song", "songs", "playlist", "name", "names"})
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def short(text: str, longest: int = MAX_TEXT_LENGTH) -> str:
    """Make a text fit one line: no line breaks or direction marks, shortened if too long."""
    shown = printable(text)
    return shown if len(shown) <= longest else shown[: longest - 1].rstrip() + "…"


def fit(name: str, longest: int) -> str:
    """A name of parts, as in ``3 · High energy · Low valence``, with as many whole parts as fit."""
    shown = printable(name)
    while len(shown) > longest and " · " in shown:
        shown = shown.rpartition(" · ")[0]
    return short(shown, longest)


def as_markdown(text: str, longest: int = MAX_TEXT_LENGTH) -> str:
    """Escape a text for Markdown in Streamlit. CommonMark 0.31, 2.4: any ASCII punctuation may be escaped."""
    return _PUNCTUATION.sub(r"\\\1", _TOGETHER.sub(JOINER, short(text, longest)))


def as_hover(text: str, longest: int = MAX_TEXT_LENGTH) -> str:
    """Escape a text for HTML in Plotly. It must not begin with a dollar sign, which would start LaTeX."""
    shown = escape(short(text, longest), quote=False)
    return JOINER + shown if shown.startswith("$") else shown


def words(name: str) -> str:
    """A column name as words: ``duration_ms`` becomes "duration ms"."""
    return short(name.replace("_", " "))


def noun(column: str) -> str:
    """What one value of a column is, in the singular: ``track_artists`` and ``artist_name`` become "artist"."""
    parts = [part for part in re.split(r"[\W_]+", printable(column).lower()) if part]
    kept = [part for part in parts if part not in _NO_NOUNS] or parts or [column]
    *first, last = kept
    if last == "series":
        pass
    elif last.endswith("ies") and len(last) > 4:
        last = last[:-3] + "y"
    elif last.endswith("s") and not last.endswith(("ss", "us", "is")) and len(last) > 3:
        last = last[:-1]
    return short(" ".join([*first, last]), 40)


def plural(word: str, count: int | None = None) -> str:
    """A word for several; with a count, the count and the word."""
    several = word if word.endswith("s") else word[:-1] + "ies" if re.search(r"[^aeiou]y$", word) else f"{word}s"
    return several if count is None else f"{count:,} {word if count == 1 else several}"


def feature_word(feature: str) -> str:
    """A feature beside its `reading`: ``duration_ms`` is "duration", because its reading has the unit."""
    return words(feature).removesuffix(" ms") if feature.lower().endswith("duration_ms") else words(feature)


def reading(feature: str, value: float | None) -> str:
    """Format a value of a feature: milliseconds as minutes and seconds."""
    if feature.lower().endswith("duration_ms") and value is not None and 0 <= value < 1e9:
        return f"{round(value / 1000) // 60}:{round(value / 1000) % 60:02} min"
    return figure(value)


def figure(value: float | None) -> str:
    """Format a number; a dash if it is missing."""
    if value is None or value != value:
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.3g}"
