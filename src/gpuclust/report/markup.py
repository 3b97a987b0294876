"""HTML that is safe by construction: every string is escaped unless this module made it."""

from __future__ import annotations

import html
import re

from gpuclust.report.text import INVISIBLE, one_line

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_VOID = frozenset({"meta", "img", "br", "hr"})


class Html(str):
    """Text that is HTML already; only :func:`tag`, :func:`join` and :func:`data` make it."""

    __slots__ = ()


def tag(_name: str, *children: str | None, **attributes: object) -> Html:
    """An element. Children that are not :class:`Html` are escaped; a trailing ``_`` of an attribute's name is dropped,
    other ``_`` become ``-``; attributes that are None are left out, True
    ones have no value, and one that is :class:`Html` is taken as it is."""
    parts = ["<", _name, *(_attribute(key, value) for key, value in attributes.items()), ">"]
    if _name not in _VOID:
        parts += [child if isinstance(child, Html) else _escape(child) for child in children if child is not None]
        parts += ["</", _name, ">"]
    return Html("".join(parts))


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = f" {key.rstrip('_').replace('_', '-')}"
    if value is True:
        return name
    return f'{name}="{value if isinstance(value, Html) else html.escape(one_line(value))}"'


def join(*parts: Html | None) -> Html:
    """Elements one after the other; None is left out."""
    return Html("".join(part for part in parts if part is not None))


def data(text: object, limit: int = 200) -> Html:
    """Text from the data, on one line, cut to ``limit`` characters, isolated from the direction of what is around it."""
    return Html(f"<bdi>{html.escape(one_line(text, limit))}</bdi>")


def style_sheet(css: str) -> Html:
    """A style element. Raises ValueError when the text would end it."""
    if "</" in css:
        raise ValueError("a style sheet must not contain '</'")
    return Html(f"<style>{css}</style>")


def _escape(text: str) -> str:
    """Several lines allowed; control and bidirectional characters dropped."""
    if not (text.isascii() and text.isprintable()):
        text = _CONTROL.sub("", INVISIBLE.sub("", text))
    return html.escape(text)
