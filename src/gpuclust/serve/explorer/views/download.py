"""Download the assignments of all rows or of some clusters."""

from __future__ import annotations

import numpy as np
import streamlit as st

from gpuclust.model.manifest import ASSIGNMENTS, CLUSTERS
from gpuclust.serve.explorer import address
from gpuclust.serve.explorer.session import OpenExport, open_export
from gpuclust.serve.explorer.tables import as_csv, as_parquet, rows_of
from gpuclust.serve.explorer.texts import fit, plural


def download() -> None:
    """The Download page."""
    shown = open_export()
    st.title("Download", anchor=False)
    st.header("Assignments", anchor=False)
    chosen = st.multiselect(
        "Clusters",
        list(shown.clusters),
        format_func=lambda c: fit(shown.name(c), 60),
        placeholder="All clusters",
        **address.choices("clusters", list(shown.clusters)),
    )
    n_rows = sum(shown.clusters[c].size for c in chosen) if chosen else len(shown.library)
    st.text(
        f"{plural('row', n_rows)}: the id and the other columns of the table, the features, the cluster, the confidence, the axes of the map"
    )
    buttons(shown, tuple(chosen) or None, "assignments")
    st.header("Clusters", anchor=False)
    st.text("One row per cluster: name, size, means, medians, distinctive features, representative rows")
    st.download_button("clusters.parquet", lambda: (shown.folder / CLUSTERS).read_bytes(), "clusters.parquet", key="clusters-parquet", on_click="ignore", icon=":material/download:")  # fmt: skip


def buttons(shown: OpenExport, clusters: tuple[int, ...] | None, name: str) -> None:
    """Buttons for CSV and Parquet of some clusters or of all rows; the files are made on request."""

    def ranks() -> np.ndarray | None:
        return None if clusters is None else np.flatnonzero(np.isin(shown.library.column("cluster"), clusters))

    def parquet() -> bytes:
        whole = shown.folder / ASSIGNMENTS
        return whole.read_bytes() if clusters is None else as_parquet(rows_of(shown.library, ranks()))

    offer(name, lambda: as_csv(rows_of(shown.library, ranks())), parquet)


def offer(name: str, csv: object, parquet: object) -> None:
    """Two download buttons; the files are made when a button is pressed."""
    with st.container(horizontal=True):
        st.download_button(
            "CSV", csv, f"{name}.csv", "text/csv", key=f"{name}-csv", on_click="ignore", icon=":material/download:"
        )
        st.download_button("Parquet", parquet, f"{name}.parquet", "application/vnd.apache.parquet", key=f"{name}-parquet", on_click="ignore", icon=":material/download:")  # fmt: skip
