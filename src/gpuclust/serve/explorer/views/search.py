"""Find an item, its cluster and its nearest neighbours."""

from __future__ import annotations

import streamlit as st

from gpuclust.serve.explorer.items import choose, details_of, item_card, navigate, query_param
from gpuclust.serve.explorer.session import OpenExport, open_export
from gpuclust.serve.explorer.texts import as_markdown, short
from gpuclust.serve.records import NotFound, SearchResult

HITS, MORE, NEIGHBOURS = 10, 100, 20


def search() -> None:
    """The Search page: search results, and the item in the address."""
    shown = open_export()
    st.title("Search", anchor=False)
    by_text = shown.has("title", "creator")
    typed = st.text_input(
        "Title, creator, or both" if by_text else "Id",
        key="query",
        placeholder="misspelt or cut short is fine" if by_text else "this table has no titles: search by id",
        icon=":material/search:",
    ).strip()
    wanted = query_param("item")
    if typed and by_text:
        _results(shown, typed)
    elif typed:
        wanted = typed
    if wanted is not None:
        _item(shown, wanted)


def _results(shown: OpenExport, typed: str) -> None:
    every = st.session_state.get("every-hit") == typed
    found = shown.library.search(typed, limit=MORE if every else HITS)
    if not found.hits:
        st.text("No results. Try fewer words, or only the beginning of a word.")
        return
    st.caption(counted(found))
    if found.ambiguous:
        st.text("Several creators have an item of this title: " + ", ".join(short(c, 40) for c in found.ambiguous))
    with st.container(key="hits", gap="xsmall"):
        for i, hit in enumerate(found.hits):
            with st.container(horizontal=True, vertical_alignment="center", key=f"hit-{i}"):
                label = hit.item.title or hit.item.id
                creator = ", ".join(hit.item.creators)
                shown_as = as_markdown(f"{short(label, 70)} – {short(creator, 50)}" if creator else label)
                if st.button(shown_as, key=f"hit-{i}-{hit.item.rank}", type="tertiary"):
                    navigate("search", item=hit.item.id)
                if (details := details_of(hit.item)) != "":
                    st.caption(as_markdown(details), width="content")
                st.caption(as_markdown(shown.name(hit.item.cluster), 40), width="content")
    if not every and found.total is not None and found.total > len(found.hits):
        st.button("Show more", key="more-hits", on_click=_show_every, args=(typed,), icon=":material/expand_more:")


def _show_every(typed: str) -> None:
    st.session_state["every-hit"] = typed


def counted(found: SearchResult) -> str:
    """The number of results shown and in total: ``10 of 143``."""
    if found.total is None:
        return "No item has all words; these are the nearest."
    total = f"more than {found.total // 100 * 100:,}" if found.total_is_minimum else f"{found.total:,}"
    nearest = "" if found.complete else "; not every word was found as typed"
    return f"{len(found.hits):,} of {total}{nearest}"


def _item(shown: OpenExport, id: str) -> None:
    try:
        item = shown.library.item(id)
    except NotFound as error:
        st.warning(as_markdown(str(error), 300))
        return
    st.divider()
    item_card(shown, item, "found", neighbours=False)
    st.subheader("Nearest", anchor=False)
    within = st.toggle("Only in its cluster", key="within")
    near = shown.library.similar(item.id, NEIGHBOURS, within_cluster=within)
    chosen = choose([n.item for n in near], f"near-{item.rank}-{within}", distances=[n.distance for n in near])
    if chosen is not None:
        item_card(shown, chosen, "neighbour")
