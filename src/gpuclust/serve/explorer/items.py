"""Items on a page: tables, item cards, and navigation between pages."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from gpuclust.serve.explorer.reasons import reasons
from gpuclust.serve.explorer.session import OpenExport, like, liked, open_export
from gpuclust.serve.explorer.settings import settings
from gpuclust.serve.explorer.texts import as_markdown, feature_word, figure, fit, plural, reading, short, words
from gpuclust.serve.records import Item
from gpuclust.tracks.links import embedded_player, is_address, page_of
from gpuclust.tracks.playlist_files import duration
from gpuclust.tracks.previews import preview_of

ROW_PIXELS = 35
MAX_FEATURE_COLUMNS = 6


def navigate(page: str, **query: str | int) -> None:
    """Open another page of the explorer."""
    st.switch_page(st.session_state["pages"][page], query_params={name: str(value) for name, value in query.items()})


def query_param(name: str) -> str | None:
    """A query parameter of the address, as in ``/clusters?cluster=2``."""
    return st.query_params.get(name)


def frame_of(items: Sequence[Item], distances: Sequence[float] | None = None) -> pd.DataFrame:
    """Convert items to a table, without empty columns and without the cluster if all items are in one.

    Items are shown by title, or by id if no item has a title.
    """
    columns: dict[str, list[object]] = {
        "title" if any(i.title for i in items) else "id": [short(i.title or i.id) for i in items],
        "creator": [short(", ".join(i.creators)) for i in items],
        "album": [short(i.album, 60) for i in items],
        "year": ["" if i.year is None else str(i.year) for i in items],
        "length": [duration(i) for i in items],
        "popularity": _numbers([i.popularity for i in items]),
        "group": [short(", ".join(i.groups), 60) for i in items],
        "cluster": [fit(f"{i.cluster} · {i.cluster_name}" if i.cluster >= 0 else "Noise", 48) for i in items],
    }
    if len({i.cluster for i in items}) < 2:
        del columns["cluster"]
    if distances is not None:
        columns["distance"] = [round(d, 3) for d in distances]
    return pd.DataFrame({name: own for name, own in columns.items() if any(v not in (None, "") for v in own)})


def _numbers(values: Sequence[float | None]) -> list[object]:
    """Numbers, or texts if one is missing, because a table would show a missing number as "None"."""
    return list(values) if None not in values else ["" if v is None else figure(v) for v in values]


def details_of(item: Item) -> str:
    """Details that distinguish items with the same title: album, year, length and popularity, if known."""
    known = (
        short(item.album, 40),
        str(item.year or ""),
        duration(item),
        "" if item.popularity is None else f"popularity {figure(item.popularity)}",
    )
    return " · ".join(part for part in known if part)


def search_words(shown: OpenExport) -> str:
    """What search looks at, for a label: "title or artist"."""
    return " or ".join(
        "title" if role == "title" else shown.word(role) for role in ("title", "creator") if shown.has(role)
    )


def can_listen(items: Sequence[Item]) -> bool:
    """Whether any of the items may have an audio preview."""
    return settings().previews is not None or any(is_address(item.preview) for item in items)


def choose(
    items: Sequence[Item],
    key: str,
    *,
    distances: Sequence[float] | None = None,
    without: Sequence[str] = (),
    most: int = 10,
) -> Item | None:
    """Show a table of items and return the selected item. At most ``most`` rows are visible without scrolling."""
    if not items:
        return None
    frame = frame_of(items, distances).drop(columns=list(without), errors="ignore")
    shown = open_export()
    if "title" not in frame:
        frame = _with_features(frame, shown, items)
    pages = [page_of(item, settings().url_template) or None for item in items]
    if any(pages):
        frame.insert(min(2, len(frame.columns)), "link", pages)
    columns = {role: st.column_config.Column(label=shown.word(role)) for role in ("creator", "group")}
    columns["title"] = st.column_config.TextColumn(width="large" if len(frame.columns) < 8 else 260)
    columns["link"] = st.column_config.LinkColumn(display_text="open", width="small")
    state = st.dataframe(
        frame, hide_index=True, key=key, on_select="rerun", selection_mode="single-row",
        height=ROW_PIXELS * (min(len(frame), most) + 1) + 3, column_config=columns,
    )  # fmt: skip
    rows = [row for row in state.selection.rows if row < len(items)]
    return items[rows[0]] if rows else None


def _with_features(frame: pd.DataFrame, shown: OpenExport, items: Sequence[Item]) -> pd.DataFrame:
    """Add the features that tell most about the clusters, for rows that have no title to know them by."""
    for name in shown.telling_features([c for c in shown.clusters if c >= 0], MAX_FEATURE_COLUMNS):
        if words(name) not in frame:
            frame[words(name)] = [float("nan") if (v := i.features[name]) is None else float(f"{v:.4g}") for i in items]
    return frame


def item_card(shown: OpenExport, item: Item, key: str, *, neighbours: bool = True) -> None:
    """Show an item: its details, cluster, preview, features and actions."""
    with st.container(border=True, key=f"item-{key}"):
        st.subheader(as_markdown(item.title or item.id), anchor=False)
        details = [", ".join(item.creators), ", ".join(item.groups), details_of(item)]
        if known := " · ".join(short(detail) for detail in details if detail) or (short(item.id) if item.title else ""):
            st.text(known)
        with st.container(horizontal=True, key=f"do-{key}"):
            if st.button(as_markdown(fit(shown.name(item.cluster), 60)), key=f"open-{key}", icon=":material/category:"):
                navigate("clusters", cluster=item.cluster)
            if neighbours and st.button("More like this", key=f"more-{key}", icon=":material/hub:"):
                navigate("search", item=item.id)
            if shown.has("title", "creator"):
                like_button(item, key, shown.list_word)
            if url := page_of(item, settings().url_template):
                st.link_button(f"Open{_place(url)}", url, icon=":material/open_in_new:")
        player(item, key)
        reasons(shown, item, key)
        if item.features:
            with st.expander("Features", expanded=not item.title, key=f"features-{key}"):
                st.dataframe(_features(shown, item), hide_index=True, key=f"table-{key}")


def _place(url: str) -> str:
    """Where a link leads, for its label."""
    return " in Spotify" if url.startswith("https://open.spotify.com/") else ""


def words_and_groups(shown: OpenExport) -> pd.DataFrame:
    """What sets clusters of vectors apart, a row each: their rows, words and groups."""
    rows = [
        {
            "cluster": short(shown.name(number)),
            "rows": cluster.size,
            "words": ", ".join(short(term.value, 30) for term in cluster.top_terms),
            plural(shown.word("group")): ", ".join(short(s.value, 30) for s in cluster.top_groups[:3]),
        }
        for number, cluster in shown.clusters.items()
    ]
    found = pd.DataFrame(rows)
    return found[[name for name in found if name in ("cluster", "rows") or found[name].any()]]


def like_button(item: Item, key: str, list_word: str) -> None:
    """A button that adds an item to the playlist or removes it."""
    inside = item.id in liked()
    label, icon = (
        (f"In the {list_word}", ":material/playlist_add_check:")
        if inside
        else (f"Add to {list_word}", ":material/playlist_add:")
    )
    st.button(
        label, key=f"like-{key}", icon=icon, on_click=like, args=(item.id,), type="primary" if inside else "secondary"
    )


def player(item: Item, key: str) -> None:
    """Players for the preview of an item and for its track; nothing is downloaded before the visitor turns one on."""
    template = settings().previews
    if (item.preview or template is not None) and st.toggle("Listen", key=f"listen-{key}-{item.rank}"):
        found = preview_of(item, template)
        if found.url:
            st.audio(found.url)
        else:
            st.caption(as_markdown(found.reason))
    if item.track and st.toggle("Spotify player (connects to open.spotify.com)", key=f"embedded-{key}"):
        st.iframe(embedded_player(item), height=152)


def _features(shown: OpenExport, item: Item) -> pd.DataFrame:
    """The features of an item and the means of its cluster, in original units."""
    own = shown.clusters.get(item.cluster)
    rows = []
    for name, value in item.features.items():
        stats = own.features[name] if own else None
        rows.append(
            {
                "feature": feature_word(name),
                f"this {shown.item_word}": reading(name, value),
                "cluster mean": reading(name, stats.mean) if stats else "–",
            }
        )
    return pd.DataFrame(rows)
