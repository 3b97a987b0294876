"""Find an item, its cluster and its nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import streamlit as st

from gpuclust.serve.explorer import address
from gpuclust.serve.explorer.items import choose, details_of, item_card, query_param, search_words
from gpuclust.serve.explorer.session import OpenExport, open_export
from gpuclust.serve.explorer.texts import as_markdown, fit, plural, short
from gpuclust.serve.records import NotFound, SearchResult

HITS, MORE, NEIGHBOURS, EXAMPLES = 10, 100, 20, 10


def search() -> None:
    """The Search page: search results, and the item in the address."""
    shown = open_export()
    st.title("Search", anchor=False)
    by_text = shown.has("title", "creator")
    tied = address.text("q")
    typed = st.text_input(
        search_words(shown).capitalize() if by_text else "Id",
        placeholder=f"Search {search_words(shown)}; typos are fine"
        if by_text
        else "this table has no titles: search by id",
        icon=":material/search:",
        key=tied["key"],
        on_change=lambda: _new_query(tied["on_change"]),
    ).strip()
    wanted = query_param("item")
    if typed and by_text:
        _results(shown, typed)
    elif typed:
        wanted = typed
    if wanted is not None:
        _item(shown, wanted)
    elif not typed:
        _examples(shown)


def _new_query(write: Callable[[], None]) -> None:
    """Write the query to the address, without the item of an earlier one."""
    write()
    if "item" in st.query_params:
        del st.query_params["item"]


def _examples(shown: OpenExport) -> None:
    """Items to begin with: the most popular, or one of each cluster."""
    popular = shown.has("popularity")
    if popular:
        ranks = list(dict.fromkeys(shown.library.recording_of(np.arange(min(5 * EXAMPLES, len(shown.library))))))
    else:
        ranks = [int(r) for c in shown.clusters for r in shown.library.cluster_ranks(c, "central", limit=1)]
    several = plural(shown.item_word)
    st.header(
        f"The most popular {several}" if popular else f"A typical {shown.item_word} of each cluster", anchor=False
    )
    item = choose(shown.library.at(ranks[:EXAMPLES]), "examples")
    if item is not None:
        _open(item.id)
        st.rerun()


def _open(id: str) -> None:
    """Show an item below the results."""
    st.query_params["item"] = id


def _results(shown: OpenExport, typed: str) -> None:
    every = st.session_state.get("every-hit") == typed
    found = shown.library.search(typed, limit=MORE if every else HITS)
    if not found.hits:
        st.text("No results. Try fewer words, or only the beginning of a word.")
        return
    st.caption(counted(found))
    if found.ambiguous:
        several = plural(shown.word("creator"))
        st.text(f"Several {several} have this title: " + ", ".join(short(c, 40) for c in found.ambiguous))
    with st.container(key="hits", gap="xsmall"):
        for i, hit in enumerate(found.hits):
            with st.container(horizontal=True, vertical_alignment="center", key=f"hit-{i}"):
                label = hit.item.title or hit.item.id
                creator = ", ".join(hit.item.creators)
                shown_as = as_markdown(f"{short(label, 70)} – {short(creator, 50)}" if creator else label)
                st.button(
                    shown_as, key=f"hit-{i}-{hit.item.rank}", type="tertiary", on_click=_open, args=(hit.item.id,)
                )
                if (details := details_of(hit.item)) != "":
                    st.caption(as_markdown(details), width="content")
                st.caption(as_markdown(fit(shown.name(hit.item.cluster), 40)), width="content")
    if not every and found.total is not None and found.total > len(found.hits):
        st.button("Show more", key="more-hits", on_click=_show_every, args=(typed,), icon=":material/expand_more:")


def _show_every(typed: str) -> None:
    st.session_state["every-hit"] = typed


def counted(found: SearchResult) -> str:
    """The number of results shown and in total: ``10 of 143``."""
    if found.total is None:
        return "No exact match. Closest results:"
    total = f"more than {found.total // 100 * 100:,}" if found.total_is_minimum else f"{found.total:,}"
    return f"{len(found.hits):,} of {total}" + ("" if found.complete else ". No exact match; closest results:")


def _item(shown: OpenExport, id: str) -> None:
    try:
        item = shown.library.item(id)
    except NotFound as error:
        st.warning(as_markdown(str(error), 300))
        return
    st.header(shown.item_word.capitalize(), anchor=False)
    item_card(shown, item, "found", neighbours=False)
    st.header(f"Nearest {plural(shown.item_word)}", anchor=False)
    within = st.toggle("Only in its cluster", **address.flag("within"))
    near = shown.library.similar(item.id, NEIGHBOURS, within_cluster=within)
    chosen = choose([n.item for n in near], f"near-{item.rank}-{within}", distances=[n.distance for n in near])
    if chosen is not None:
        item_card(shown, chosen, "neighbour")
