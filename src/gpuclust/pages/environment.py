"""The templates of the pages. Everything that comes from the data is escaped, and control characters are removed."""

from __future__ import annotations

import base64
import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from gpuclust.pages.cards import data
from gpuclust.pages.text import INVISIBLE, count, number, one_line, percent

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@cache
def template(name: str) -> Template:
    """A compiled template of the folder ``templates``."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gpuclust.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "base64": lambda png: base64.b64encode(png).decode("ascii"),
        "count": count,
        "data": data,
        "number": number,
        "one_line": one_line,
        "percent": percent,
        "pick": lambda rows, *names: [tuple(row.get(name, "") for name in names) for row in rows],
        "plain_lines": plain_lines,
    }
    return environment


def plain_lines(text: object) -> str:
    """Text of several lines without control and bidirectional characters."""
    return _CONTROL.sub("", INVISIBLE.sub("", str(text)))


def _printable(value: object) -> object:
    """Text without control and bidirectional characters; several lines are allowed. HTML passes unchanged."""
    if isinstance(value, Markup):
        return value
    text = str(value)
    return text if text.isprintable() else plain_lines(text)
