"""How results show in a notebook: tables, lists and pictures as HTML that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from functools import partial
from html import escape
from typing import TYPE_CHECKING

from gpuclust.report.style import to_png

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def table(frame: pd.DataFrame) -> str:
    """A frame without its index; text is escaped."""
    return str(frame.to_html(index=False, float_format="{:,.4g}".format, na_rep=""))


def items(lines: Iterable[str]) -> str:
    """A list with an item for each line; nothing where there is none."""
    found = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{found}</ul>" if found else ""


def picture(figure: Figure, title: str) -> str:
    """A figure as an image."""
    encoded = base64.b64encode(to_png(figure)).decode()
    return f'<img alt="{escape(title)}" style="max-width:100%" src="data:image/png;base64,{encoded}">'


def shown_as_png(figure: Figure) -> Figure:
    """The figure, which a notebook shows as a picture; without ``%matplotlib`` it would show its type only."""
    figure._repr_png_ = partial(to_png, figure)  # type: ignore[attr-defined]
    return figure
