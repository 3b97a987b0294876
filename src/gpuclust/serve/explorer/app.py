"""The application: its pages, their navigation and their common style."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

from gpuclust.errors import GpuclustError
from gpuclust.serve.explorer.session import OpenExport, open_export
from gpuclust.serve.explorer.settings import settings
from gpuclust.serve.explorer.texts import as_markdown
from gpuclust.serve.explorer.views.clusters import clusters
from gpuclust.serve.explorer.views.compare import compare
from gpuclust.serve.explorer.views.download import download
from gpuclust.serve.explorer.views.map import map_
from gpuclust.serve.explorer.views.overview import overview
from gpuclust.serve.explorer.views.playlist import playlist
from gpuclust.serve.explorer.views.search import search
from gpuclust.serve.explorer.views.trends import trends

# Path, title, icon (of the font included in Streamlit), page.
PAGES: Sequence[tuple[str, str, str, Callable[[], None]]] = (
    ("overview", "Overview", ":material/dashboard:", overview),
    ("map", "Map", ":material/scatter_plot:", map_),
    ("clusters", "Clusters", ":material/category:", clusters),
    ("search", "Search", ":material/search:", search),
    ("playlist", "Playlist", ":material/queue_music:", playlist),
    ("trends", "Trends", ":material/timeline:", trends),
    ("compare", "Compare", ":material/compare_arrows:", compare),
    ("download", "Download", ":material/download:", download),
)
# The pages that need a column for one of some roles.
NEEDED_ROLES = {"playlist": ("title", "creator"), "trends": ("year", "group", "creator")}
STYLE = """<style>
.stMainBlockContainer { padding-top: 4.2rem; padding-bottom: 3rem; max-width: 1320px; }
.stAppDeployButton, [data-testid="stAppDeployButton"] { display: none; }
[data-tag], [data-baseweb="tag"] { background-color: #0072B2 !important; }
h2 { font-size: 1.4rem !important; padding-top: 0.6rem !important; }
h3 { font-size: 1.2rem !important; }
[data-testid="stCaptionContainer"], [data-testid="stCaptionContainer"] * { color: inherit !important; }
[data-testid="stCaptionContainer"] { opacity: 0.78; }
.st-key-hits [data-testid="stElementContainer"]:has(> .stButton) { margin-right: auto; }
[data-testid="stMetricValue"] { font-variant-numeric: tabular-nums; }
:focus-visible { outline: 3px solid #56B4E9 !important; outline-offset: 2px; }
input:focus-visible { outline: none !important; }
:is([data-testid="stTextInputRootElement"], [data-testid="stNumberInputContainer"], [data-baseweb="select"] > div):focus-within {
  outline: 3px solid #56B4E9; outline-offset: 1px;
}
[data-testid="stButtonGroup"] button { min-height: 2.5rem; }
@media (max-width: 640px) {
  .stMainBlockContainer { padding: 3.8rem 0.9rem 2rem; }
  h1 { font-size: 1.6rem !important; }
}
@media (prefers-reduced-motion: reduce) { * { transition: none !important; animation: none !important; } }
</style>"""


def show() -> None:
    """Run the current page."""
    st.set_page_config(page_title=f"{settings().folder.name} · gpuclust", page_icon=_icon(), layout="wide")
    st.html(STYLE)
    try:
        shown = open_export()
    except GpuclustError:  # the page shows the error
        shown = None
    pages = {
        path: st.Page(
            _with_errors(page), title=_title_of(title, shown), icon=icon, url_path=path, default=path == "overview"
        )
        for path, title, icon, page in PAGES
        if shown is None or path not in NEEDED_ROLES or shown.has(*NEEDED_ROLES[path])
    }
    st.session_state["pages"] = pages
    st.navigation(list(pages.values()), position="top").run()


def _title_of(title: str, shown: OpenExport | None) -> str:
    """The title of a page in the navigation: a list of items that are not music is a sample."""
    return shown.list_word.title() if title == "Playlist" and shown is not None else title


def _with_errors(page: Callable[[], None]) -> Callable[[], None]:
    """Wrap a page so that it shows an error in one line, not as a traceback."""

    def run() -> None:
        try:
            page()
        except GpuclustError as error:
            st.error(as_markdown(str(error), 600))

    run.__name__ = page.__name__
    return run


@st.cache_resource
def _icon() -> Any:
    """An icon of four dots; an icon by name would be downloaded."""
    picture = np.zeros((64, 64, 4), dtype=np.uint8)
    row, column = np.mgrid[:64, :64]
    dots = {(18, 20): (0, 114, 178), (44, 18): (230, 159, 0), (22, 46): (0, 158, 115), (46, 44): (213, 94, 0)}
    for (y, x), color in dots.items():
        picture[(row - y) ** 2 + (column - x) ** 2 <= 121] = (*color, 255)
    return Image.fromarray(picture, "RGBA")
