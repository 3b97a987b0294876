"""Texts of an export on their way to a page: they are shown as text, whatever they hold.

Streamlit reads Markdown in headings, captions and labels, with extensions (LaTeX, ``:red[...]``, ``:material/icon:``,
emoji names, arrows, bare addresses) of which some look at the text after Markdown has; Plotly reads a part of HTML in hover
texts and names. Tables show text as it is.
"""

from __future__ import annotations

import re
from html import escape

from gpuclust.sanitize import printable

JOINER = "\u2060"  # has no width; keeps apart what an extension would read together
MAX_TEXT_LENGTH = 120
_TOGETHER = re.compile(r"(?<=[:@])(?=\S)|(?<=[-<>=~+!])(?=[-<>=~+!])|(?<=www)(?=\.)", re.IGNORECASE)
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def short(text: str, longest: int = MAX_TEXT_LENGTH) -> str:
    """A text for one line: nothing that breaks it or turns its direction, cut where it is too long."""
    shown = printable(text)
    return shown if len(shown) <= longest else shown[: longest - 1].rstrip() + "…"


def as_markdown(text: str, longest: int = MAX_TEXT_LENGTH) -> str:
    """A text for where Streamlit reads Markdown. CommonMark 0.31, 2.4: any ASCII punctuation may be escaped."""
    return _PUNCTUATION.sub(r"\\\1", _TOGETHER.sub(JOINER, short(text, longest)))


def as_hover(text: str, longest: int = MAX_TEXT_LENGTH) -> str:
    """A text for where Plotly reads HTML. A text between dollars is LaTeX to it, so it does not begin with one."""
    shown = escape(short(text, longest), quote=False)
    return JOINER + shown if shown.startswith("$") else shown


def words(name: str) -> str:
    """A column's name as people write it: ``duration_ms`` is "duration ms"."""
    return short(name.replace("_", " "))


def figure(value: float | None) -> str:
    """A number as people read it; a dash where there is none."""
    if value is None or value != value:
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.3g}"
