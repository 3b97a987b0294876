"""Compare two exports: how rows move between clusters."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from gpuclust.serve.explorer import charts
from gpuclust.serve.explorer.session import OpenExport, open_export
from gpuclust.serve.explorer.settings import settings
from gpuclust.serve.explorer.texts import as_markdown, short
from gpuclust.serve.explorer.transitions import ClusterTransitions, count_transitions


def compare() -> None:
    """The Compare page."""
    st.title("Compare", anchor=False)
    other = settings().compare
    if other is None:
        st.text(
            "This page shows how the clusters of this export match those of a second export of the same table, for example with "
            "another number of clusters, another algorithm or other features. Start the explorer with a second export:"
        )
        st.code(f"gpuclust explore {settings().folder.name}/ --compare OTHER_EXPORT/", language=None, wrap_lines=True)
        return
    first, second = open_export(), open_export(other)
    found = _moves(first.version, second.version, first, second)
    _heads(first, second, found)
    if not found.shared:
        st.warning("The two exports have no ids in common, so their clusters cannot be matched.")
        return
    st.header("Cluster overlap", anchor=False)
    drawn = found.largest(charts.MAX_BARS)
    if len(drawn.first) < len(found.first) or len(drawn.second) < len(found.second):
        st.caption(f"The {charts.MAX_BARS} largest clusters of each export; the list below has all.")
    table, flow = st.tabs(["Table", "Flow (Sankey)"])
    with table:
        st.caption("For each cluster of the first export, the share of its rows in each cluster of the second.")
        st.plotly_chart(
            charts.contingency_heatmap(drawn, first, second),
            key="meeting",
            config=charts.STILL,
            alt="Share of each cluster by cluster of the second export",
        )
    with flow:
        st.plotly_chart(
            charts.sankey(drawn, first, second),
            key="flows",
            config=charts.STILL,
            alt="Rows from clusters of the first export to those of the second",
        )
    st.header("Matching clusters", anchor=False)
    st.dataframe(_became(found, first, second), hide_index=True, key="became")


@st.cache_resource(max_entries=8, show_spinner=False)
def _moves(first_version: str, second_version: str, _first: OpenExport, _second: OpenExport) -> ClusterTransitions:
    return count_transitions(_first.library, _second.library)


def _heads(first: OpenExport, second: OpenExport, found: ClusterTransitions) -> None:
    for column, shown, label in zip(st.columns(2), (first, second), ("First", "Second"), strict=True):
        with column, st.container(border=True):
            manifest = shown.library.facts.manifest
            st.caption(label)
            st.markdown(
                f"**{as_markdown(str(manifest.get('run_name') or manifest.get('algorithm') or shown.folder.name))}**"
            )
            silhouette = (manifest.get("metrics") or {}).get("silhouette")
            said = [f"{len(shown.library):,} rows", f"{shown.library.facts.n_clusters} clusters"]
            said += [f"silhouette {silhouette:.3f}"] if isinstance(silhouette, float) else []
            st.text(" · ".join(said))
    with st.container(horizontal=True):
        st.metric("Shared rows", f"{found.shared:,}", border=True, width="content")
        st.metric(
            "Adjusted Rand index",
            f"{found.adjusted_rand:.3f}",
            border=True,
            width="content",
            help="1: equal clusters; 0: agreement by chance",
        )
        if found.only_first or found.only_second:
            st.metric("Only in one", f"{found.only_first:,} / {found.only_second:,}", border=True, width="content")


def _became(found: ClusterTransitions, first: OpenExport, second: OpenExport) -> pd.DataFrame:
    rows, of_first, of_second = [], found.totals(axis=1), found.totals(axis=0)
    for i, a in enumerate(found.first):
        for j, count in found.most_common(i, 3):
            rows.append({
                "first": short(first.name(a)), "second": short(second.name(found.second[j])), "rows": count,
                "of the first": f"{count / of_first[i]:.1%}", "of the second": f"{count / of_second[j]:.1%}",
            })  # fmt: skip
    return pd.DataFrame(rows)
