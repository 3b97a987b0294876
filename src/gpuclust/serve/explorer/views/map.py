"""The map page: the map of every row in the browser, the clicked row, and the selected rows."""

from __future__ import annotations

import hashlib

import numpy as np
import streamlit as st

from gpuclust.serve.explorer.items import choose, item_card
from gpuclust.serve.explorer.map_data import COMPONENT, chosen_rows, map_data
from gpuclust.serve.explorer.session import OpenExport, open_export
from gpuclust.serve.explorer.tables import as_csv, as_parquet, rows_of
from gpuclust.serve.explorer.texts import short
from gpuclust.serve.explorer.views.download import offer

MAX_LISTED = 200


def map_() -> None:
    """The Map page."""
    shown = open_export()
    st.title("Map", anchor=False)
    picked, chosen = f"map-pick-{shown.version}", f"map-rows-{shown.version}"
    mount = st.components.v2.component("gpuclust.map", js=COMPONENT)
    data = map_data(shown).options | {"list": "List these rows", "chosen": chosen in st.session_state}
    with st.container(key="map"):
        state = mount(key="map-points", data=data, on_pick_change=lambda: None, on_rows_change=lambda: None)
    if isinstance(state.rows, str):
        st.session_state.pop(picked, None)
        try:
            ranks = chosen_rows(state.rows, len(shown.library))
        except ValueError:  # drawn in a map of an export that was replaced since
            ranks = None
        st.session_state.pop(chosen, None) if ranks is None else st.session_state.update({chosen: ranks})
    if isinstance(state.pick, (int, float)):
        st.session_state[picked] = int(state.pick)
    rank = st.session_state.get(picked)
    if rank is not None and 0 <= rank < len(shown.library):
        item_card(shown, shown.library.at([rank])[0], "on-map")
    if chosen in st.session_state:
        _selected(shown, st.session_state[chosen])


def _selected(shown: OpenExport, ranks: np.ndarray) -> None:
    st.subheader(f"{len(ranks):,} rows selected", anchor=False)
    if not len(ranks):
        return
    found, counts = np.unique(shown.library.column("cluster")[ranks], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:6]
    st.text(" · ".join(f"{short(shown.name(int(found[i])), 40)}: {counts[i]:,}" for i in order))
    offer("selection", lambda: as_csv(rows_of(shown.library, ranks)), lambda: as_parquet(rows_of(shown.library, ranks)))
    if len(ranks) > MAX_LISTED:
        first = "most popular" if shown.has("popularity") else "first"
        st.caption(f"The {MAX_LISTED} {first} of them; the files contain all.")
    digest = hashlib.sha256(ranks.tobytes()).hexdigest()[:12]
    item = choose(shown.library.at(ranks[:MAX_LISTED]), f"chosen-{digest}")
    if item is not None:
        item_card(shown, item, "chosen")
