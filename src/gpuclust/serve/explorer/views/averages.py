"""Averages of the features by year, group and creator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
import streamlit as st

from gpuclust.serve.explorer import charts
from gpuclust.serve.explorer.session import OpenExport, open_export
from gpuclust.serve.explorer.texts import short, words
from gpuclust.serve.records import Averages

BY: Mapping[str, Literal["year", "group", "creator"]] = {"Years": "year", "Groups": "group", "Creators": "creator"}
MAX_GROUPS = 1_000
LINES_AT_FIRST = 5


def averages() -> None:
    """The Averages page."""
    shown = open_export()
    st.title("Averages", anchor=False)
    available = [label for label, by in BY.items() if by in shown.library.facts.roles]
    if not available:
        st.text(
            "This table has no column for years, groups or creators (data.roles.year, data.roles.group, data.roles.creator)."
        )
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        label = st.segmented_control("By", available, default=available[0], required=True, key="by")
        cluster = _cluster(shown) if BY[label] != "creator" else None
    found = shown.library.averages(BY[label], cluster=cluster, min_count=None, limit=MAX_GROUPS)
    if BY[label] == "year":
        _years(shown, found)
    if (missing := left_out(found)) != "":
        st.caption(missing)
    if found.values:
        _table(found, label)


def left_out(found: Averages) -> str:
    """Describe what the averages leave out: rows without a valid year and values with too few rows; empty if nothing."""
    said = []
    if found.without:
        said.append(f"{found.without:,} {_of(found.without, 'row')} without a usable year")
    if found.left_out:
        said.append(
            f"{found.left_out:,} {_of(found.left_out, found.by)} with fewer than {found.min_count} rows "
            f"({found.left_out_rows:,} {_of(found.left_out_rows, 'row')}) left out"
        )
    return "; ".join(said) + "." if said else ""


def _of(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"


def _cluster(shown: OpenExport) -> int | None:
    options = [None, *shown.clusters]
    chosen = st.selectbox(
        "Rows",
        options,
        format_func=lambda c: "All clusters" if c is None else short(shown.name(c), 60),
        key="averages-cluster",
        width=320,
    )
    return None if chosen is None else int(chosen)


def _years(shown: OpenExport, found: Averages) -> None:
    if len(found.values) < 2:
        return
    features = shown.library.features
    chosen = st.multiselect(
        "Features", features, default=features[:LINES_AT_FIRST], format_func=words, key="year-features"
    )
    if len(chosen) == 1:
        chart = charts.one_over_years(found, chosen[0])
    else:
        standard = {f: _standard([a.features.get(f) for a in found.values]) for f in chosen}
        chart = charts.over_years(found, chosen, standard=standard)
        st.caption(
            "Each feature in standard deviations from its mean over the years; select a single feature for its own unit."
        )
    st.plotly_chart(chart, key="years", config={"displayModeBar": False}, alt="Averages of features over the years")


def _standard(values: list[float | None]) -> tuple[float, float]:
    known = np.array([v for v in values if v is not None and np.isfinite(v)])
    return (float(known.mean()), float(known.std()) or 1.0) if len(known) else (0.0, 1.0)


def _table(found: Averages, label: str) -> None:
    if found.total > len(found.values):
        st.caption(f"The {len(found.values):,} most frequent of {found.total:,}.")
    rows = [
        {label.lower()[:-1]: short(str(a.value), 80), "rows": a.count}
        | {words(f): _rounded(v) for f, v in a.features.items()}
        for a in found.values
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True, key="averages-table")


def _rounded(value: float) -> float:
    """Round to four significant digits."""
    return float(f"{value:.4g}")
