"""Make a playlist (of music) or a sample (of other items) from a cluster, from liked items, or from target values."""

from __future__ import annotations

import re

import numpy as np
import streamlit as st

from gpuclust.serve.explorer import address
from gpuclust.serve.explorer.items import can_listen, choose, item_card, search_words
from gpuclust.serve.explorer.points import span_of, values_of
from gpuclust.serve.explorer.session import OpenExport, like, liked, open_export
from gpuclust.serve.explorer.settings import settings
from gpuclust.serve.explorer.texts import as_markdown, figure, fit, plural, short, words
from gpuclust.serve.records import NotFound
from gpuclust.tracks.playlist import (
    DIVERSITY,
    PER_CREATOR,
    SIZE,
    Playlist,
    PlaylistOptions,
    from_cluster,
    from_liked,
    from_taste,
)
from gpuclust.tracks.playlist_files import ADDRESSES, length_of, render

FILES = {
    "CSV": ("csv", "text/csv"),
    "JSON": ("json", "application/json"),
    "M3U8": ("m3u8", "application/vnd.apple.mpegurl"),
    "URIs": ("uris", "text/plain"),
}
MAX_PER_CREATOR = 10
MAX_TARGETS = 12


def playlist() -> None:
    """The Playlist page."""
    shown = open_export()
    st.title(shown.list_word.title(), anchor=False)
    kinds = {"cluster": "A cluster", "liked": f"Liked {plural(shown.item_word)}", "target": "Target values"}
    _adopt_likes(shown)
    start = address.current("from") or ("liked" if liked() else "cluster")
    kind = st.segmented_control(
        "From",
        tuple(kinds),
        required=True,
        format_func=kinds.__getitem__,
        **address.choice("from", tuple(kinds), start),
    )
    options = _options(shown)
    made = {"cluster": _of_cluster, "liked": _of_liked, "target": _of_targets}[str(kind)](shown, options)
    if made is not None:
        _show(shown, made)


def _adopt_likes(shown: OpenExport) -> None:
    """Take the liked items of the address, once for each visitor; after that the address follows the list."""
    if "likes-adopted" not in st.session_state:
        st.session_state["likes-adopted"] = True
        for id in st.query_params.get_all("like"):
            if id not in liked() and _exists(shown, id):
                like(id)
    if liked() != st.query_params.get_all("like"):
        st.query_params["like"] = liked()


def _options(shown: OpenExport) -> PlaylistOptions:
    with st.container(horizontal=True, vertical_alignment="bottom", key="rules"):
        size = int(st.number_input("Length", 1, 500, width=130, **address.number("size", 1, 500, SIZE)))
        most = PER_CREATOR
        if shown.has("creator"):
            most = int(
                st.number_input(
                    f"Max per {shown.word('creator')}",
                    0,
                    MAX_PER_CREATOR,
                    width=160,
                    help="0: no limit",
                    **address.number("per-creator", 0, MAX_PER_CREATOR, PER_CREATOR),
                )
            )
        diversity = float(
            st.slider(
                "Diversity",
                0.0,
                1.0,
                step=0.05,
                width=240,
                help="0 selects the nearest items; larger values prefer items that differ from those already selected",
                **address.number("diversity", 0.0, 1.0, DIVERSITY),
            )
        )
    return PlaylistOptions(size, most or None, diversity)


def _of_cluster(shown: OpenExport, options: PlaylistOptions) -> Playlist:
    numbers = list(shown.clusters)
    cluster = st.selectbox(
        "Cluster",
        numbers,
        format_func=lambda c: fit(shown.name(c), 60),
        **address.choice("cluster", numbers, numbers[0]),
    )
    return from_cluster(shown.library, int(cluster), options)


def _of_liked(shown: OpenExport, options: PlaylistOptions) -> Playlist | None:
    with st.form("add", clear_on_submit=True, border=False):
        typed = st.text_input(f"Add by {search_words(shown)}, or id", key="add-text")
        if st.form_submit_button("Add", icon=":material/add:") and typed.strip():
            _add(shown, typed)
    likes = [id for id in liked() if _exists(shown, id)]
    if not likes:
        st.text(
            f"Nothing is liked yet: add {plural(shown.item_word)} here, or with “Add to {shown.list_word}” where one is shown."
        )
        return None
    with st.container(horizontal=True, key="likes"):
        for id in likes:
            label = as_markdown(shown.library.item(id).label, 60)
            st.button(label, key=f"unlike-{id}", icon=":material/close:", on_click=like, args=(id,), help="Remove it")
    within = st.toggle("Only in their clusters", **address.flag("within"))
    return from_liked(shown.library, likes, options, within_cluster=within)


def _add(shown: OpenExport, typed: str) -> None:
    hits = shown.library.search(typed, limit=1).hits
    try:
        id = hits[0].item.id if hits else shown.library.item(typed.strip()).id
    except NotFound as error:
        st.warning(as_markdown(str(error), 300))
        return
    if id not in liked():
        like(id)


def _exists(shown: OpenExport, id: str) -> bool:
    try:
        shown.library.rank_of(id)
    except NotFound:
        return False
    return True


def _of_targets(shown: OpenExport, options: PlaylistOptions) -> Playlist | None:
    features = shown.library.features
    if not features:
        st.text(
            f"The rows are vectors, which have no features to choose: make a {shown.list_word} of a cluster, or of what you like."
        )
        return None
    chosen = st.multiselect(
        "Features",
        features,
        format_func=words,
        **address.choices("feature", features, features[:2], most=MAX_TARGETS),
    )
    if not chosen:
        st.text("Choose a feature.")
        return None
    targets = {}
    for column, feature in zip(st.columns(min(len(chosen), 3)) * len(chosen), chosen, strict=False):
        low, high, middle = _range(shown, feature)
        with column:
            targets[feature] = float(
                st.slider(
                    words(feature),
                    low,
                    high,
                    step=(high - low) / 200,
                    format=_format(high - low),
                    **address.number(f"at-{feature}", low, high, middle),
                )
            )
    return from_taste(shown.library, targets, options)


def _range(shown: OpenExport, feature: str) -> tuple[float, float, float]:
    """The target values to choose from: the range of a feature without values far from all others, and its median."""
    values = values_of(shown.library, feature)
    span = span_of(values, pad=0.0)
    known = values[np.isfinite(values)]
    return span.low, span.high, float(np.clip(np.median(known), span.low, span.high)) if len(known) else span.low


def _format(width: float) -> str:
    return "%.0f" if width >= 100 else "%.1f" if width >= 10 else "%.2f"


def _show(shown: OpenExport, made: Playlist) -> None:
    st.header(as_markdown(made.name or shown.list_word.title()), anchor=False)
    for note in made.notes:
        st.text(short(note, 300))
    if not made.entries:
        st.text("No item matches.")
        return
    listen = " and to listen" if can_listen(made.items) else ""
    count = plural(shown.item_word, len(made.entries))
    st.caption(f"{count}{_minutes(made)}. Select a row for details{listen}.")
    distances = [entry.distance for entry in made.entries]
    item = choose(made.items, "playlist-table", distances=distances, most=len(made.items))
    name, template = file_name(made.name), settings().url_template
    with st.container(horizontal=True, key="playlist-files"):
        for label, (form, mime) in FILES.items():
            if form in ADDRESSES and not any(ADDRESSES[form](each, template) for each in made.items):
                continue
            mark = "\ufeff" if form == "csv" else ""  # marks UTF-8 for spreadsheets
            st.download_button(
                label,
                mark + render(made, form, url_template=template),
                f"{name}.{'txt' if form == 'uris' else form}",
                mime,
                key=f"playlist-{form}",
                on_click="ignore",
                icon=":material/download:",
            )
    if item is not None:
        item_card(shown, item, "in-playlist")


def _minutes(made: Playlist) -> str:
    lengths = [length_of(item) for item in made.items]
    known = [length for length in lengths if length is not None]
    return f", {figure(round(sum(known) / 60_000))} minutes" if known else ""


def file_name(name: str) -> str:
    """A file name that is valid on every file system."""
    return re.sub(r"[^\w]+", "-", short(name, 60)).strip("-").lower() or "playlist"
