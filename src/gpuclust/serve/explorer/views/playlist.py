"""Make a playlist from a cluster, from liked items, or from a taste; listen to it and download it."""

from __future__ import annotations

import re

import streamlit as st

from gpuclust.serve.explorer.items import can_listen, choose, item_card, query_param
from gpuclust.serve.explorer.points import span_of, values_of
from gpuclust.serve.explorer.session import OpenExport, like, liked, open_export
from gpuclust.serve.explorer.settings import settings
from gpuclust.serve.explorer.texts import as_markdown, figure, short, words
from gpuclust.serve.records import NotFound
from gpuclust.tracks.links import location_of
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
from gpuclust.tracks.playlist_files import length_of, render

KINDS = ("A cluster", "Liked items", "A taste")
FILES = {
    "CSV": ("csv", "text/csv"),
    "JSON": ("json", "application/json"),
    "M3U8": ("m3u8", "application/vnd.apple.mpegurl"),
}
MAX_PER_CREATOR = 10


def playlist() -> None:
    """The Playlist page."""
    shown = open_export()
    st.title("Playlist", anchor=False)
    kind = st.segmented_control("From", KINDS, default=KINDS[1] if liked() else KINDS[0], required=True, key="kind")
    options = _options()
    made = {"A cluster": _of_cluster, "Liked items": _of_liked, "A taste": _of_taste}[str(kind)](shown, options)
    if made is not None:
        _show(shown, made)


def _options() -> PlaylistOptions:
    with st.container(horizontal=True, vertical_alignment="bottom", key="rules"):
        size = int(st.number_input("Length", 1, 500, SIZE, key="size", width=130))
        most = int(
            st.number_input(
                "Max per creator", 0, MAX_PER_CREATOR, PER_CREATOR, key="per-creator", width=160, help="0: no limit"
            )
        )
        diversity = float(
            st.slider(
                "Diversity",
                0.0,
                1.0,
                DIVERSITY,
                0.05,
                key="diversity",
                width=240,
                help="0 selects the nearest items; larger values prefer items that differ from those already selected",
            )
        )
    return PlaylistOptions(size, most or None, diversity)


def _of_cluster(shown: OpenExport, options: PlaylistOptions) -> Playlist:
    numbers = list(shown.clusters)
    known = {str(c): i for i, c in enumerate(numbers)}
    cluster = st.selectbox(
        "Cluster",
        numbers,
        index=known.get(query_param("cluster") or "", 0),
        format_func=lambda c: short(shown.name(c), 60),
        key="playlist-cluster",
    )
    return from_cluster(shown.library, int(cluster), options)


def _of_liked(shown: OpenExport, options: PlaylistOptions) -> Playlist | None:
    with st.form("add", clear_on_submit=True, border=False):
        typed = st.text_input("Add an item by title, creator, or id", key="add-text")
        if st.form_submit_button("Add", icon=":material/add:") and typed.strip():
            _add(shown, typed)
    likes = [id for id in liked() if _exists(shown, id)]
    if not likes:
        st.text("No items are liked yet: add an item here, or with “Add to playlist” on any item.")
        return None
    with st.container(horizontal=True, key="likes"):
        for id in likes:
            label = as_markdown(shown.library.item(id).label, 60)
            st.button(label, key=f"unlike-{id}", icon=":material/close:", on_click=like, args=(id,), help="Remove it")
    within = st.toggle("Only in their clusters", key="liked-within")
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


def _of_taste(shown: OpenExport, options: PlaylistOptions) -> Playlist | None:
    features = shown.library.features
    chosen = st.multiselect(
        "Features that matter", features, default=features[:2], format_func=words, key="taste-features"
    )
    if not chosen:
        st.text("Choose a feature.")
        return None
    taste = {}
    for column, feature in zip(st.columns(min(len(chosen), 3)) * len(chosen), chosen, strict=False):
        span = span_of(values_of(shown.library, feature), pad=0.0)
        middle = (span.low + span.high) / 2
        with column:
            taste[feature] = float(
                st.slider(
                    words(feature),
                    span.low,
                    span.high,
                    middle,
                    key=f"taste-{feature}",
                    format=_format(span.high - span.low),
                )
            )
    return from_taste(shown.library, taste, options)


def _format(width: float) -> str:
    return "%.0f" if width >= 100 else "%.1f" if width >= 10 else "%.2f"


def _show(shown: OpenExport, made: Playlist) -> None:
    st.subheader(as_markdown(made.name or "Playlist"), anchor=False)
    for note in made.notes:
        st.text(short(note, 300))
    if not made.entries:
        st.text("No item fits.")
        return
    listen = " and to listen" if can_listen(made.items) else ""
    st.caption(f"{len(made.entries)} items{_minutes(made)}. Select a row for details{listen}.")
    distances = [entry.distance for entry in made.entries]
    item = choose(made.items, "playlist-table", distances=distances, most=len(made.items))
    name, template = file_name(made.name), settings().url_template
    has_addresses = any(location_of(each, template) for each in made.items)
    with st.container(horizontal=True, key="playlist-files"):
        for label, (form, mime) in FILES.items():
            if form == "m3u8" and not has_addresses:
                continue
            mark = "\ufeff" if form == "csv" else ""  # marks UTF-8 for spreadsheets
            st.download_button(
                label,
                mark + render(made, form, url_template=template),
                f"{name}.{form}",
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
