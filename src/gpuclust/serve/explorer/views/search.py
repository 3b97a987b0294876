"""Find an item; its cluster and what is nearest to it."""

from __future__ import annotations

import streamlit as st

from gpuclust.serve.explorer.items import asked, choose, go, item_card
from gpuclust.serve.explorer.session import Opened, opened
from gpuclust.serve.explorer.texts import as_markdown, short
from gpuclust.serve.records import Found, NotFound

HITS, NEIGHBOURS = 10, 20


def search() -> None:
    """The page: results of what was typed, and the item that the address names."""
    shown = opened()
    st.title("Search", anchor=False)
    typed = st.text_input(
        "Title, creator, or both", key="query", placeholder="misspelt or cut short is fine", icon=":material/search:"
    )
    if typed.strip():
        _results(shown, shown.library.search(typed, limit=HITS))
    wanted = asked("item")
    if wanted is not None:
        _item(shown, wanted)


def _results(shown: Opened, found: Found) -> None:
    if not found.hits:
        st.text("Nothing was found. Try fewer words, or only the beginning of one.")
        return
    if not found.complete:
        st.caption("Not every word was found as typed; these are the nearest.")
    if found.ambiguous:
        st.text("Several creators have an item of this title: " + ", ".join(short(c, 40) for c in found.ambiguous))
    with st.container(key="hits", gap="xsmall"):
        for i, hit in enumerate(found.hits):
            with st.container(horizontal=True, vertical_alignment="center", key=f"hit-{i}"):
                label = hit.item.title or hit.item.id
                creator = ", ".join(hit.item.creators)
                shown_as = as_markdown(f"{short(label, 70)} – {short(creator, 50)}" if creator else label)
                if st.button(shown_as, key=f"hit-{i}-{hit.item.rank}", type="tertiary"):
                    go("search", item=hit.item.id)
                st.caption(as_markdown(shown.name(hit.item.cluster), 40), width="content")


def _item(shown: Opened, id: str) -> None:
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
