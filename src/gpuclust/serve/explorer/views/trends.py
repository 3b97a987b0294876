"""Means of the features over the years, and by group and creator."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import streamlit as st

from gpuclust.serve.explorer import address, charts
from gpuclust.serve.explorer.session import OpenExport, open_export
from gpuclust.serve.explorer.texts import fit, plural, short, words
from gpuclust.serve.records import Averages

By = Literal["year", "group", "creator"]
ROLES: tuple[By, ...] = ("year", "group", "creator")
MIN_COUNT = 30  # rows of a point
MAX_GROUPS = 1_000
MAX_BUBBLES = 60
LINES_AT_FIRST, MAX_LINES = 5, 12


def trends() -> None:
    """The Trends page."""
    shown = open_export()
    st.title("Trends", anchor=False)
    available = [by for by in ROLES if shown.has(by)]
    if not available:
        st.text(
            "This table has no column for years, groups or creators (data.roles.year, data.roles.group, data.roles.creator)."
        )
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        by: By = st.segmented_control(
            "Group by",
            available,
            required=True,
            format_func=lambda role: plural(shown.word(role)).capitalize(),
            **address.choice("by", available, available[0]),
        )
        cluster = _cluster(shown) if by != "creator" else None
    found = _averages(shown, by, cluster)
    if by == "year":
        _years(shown, found)
    else:
        _bubbles(shown, found)
    if (missing := left_out(found, shown.word(by))) != "":
        st.caption(missing)
    if found.values:
        _table(found, shown.word(by))


def _averages(shown: OpenExport, by: By, cluster: int | None) -> Averages:
    """Means over at least 30 rows or, if fewer than two values have so many, the library's smaller number for a small table."""
    found = shown.library.averages(by, cluster=cluster, min_count=MIN_COUNT, limit=MAX_GROUPS)
    if len(found.values) < 2:
        found = shown.library.averages(by, cluster=cluster, min_count=None, limit=MAX_GROUPS)
    return found


def left_out(found: Averages, word: str) -> str:
    """Describe what the averages leave out: rows without a valid year and values with too few rows; empty if nothing."""
    said = []
    if found.without:
        said.append(f"{plural('row', found.without)} without a valid year")
    if found.left_out:
        said.append(
            f"{plural(word, found.left_out)} with fewer than {found.min_count} rows "
            f"({plural('row', found.left_out_rows)}) left out"
        )
    return "; ".join(said) + "." if said else ""


def _cluster(shown: OpenExport) -> int | None:
    options = ("all", *map(str, shown.clusters))
    chosen = st.selectbox(
        "Rows",
        options,
        format_func=lambda c: "All clusters" if c == "all" else fit(shown.name(int(c)), 60),
        width=320,
        **address.choice("cluster", options, "all"),
    )
    return None if chosen == "all" else int(chosen)


def _years(shown: OpenExport, found: Averages) -> None:
    if len(found.values) < 2:
        st.text("Fewer than two years have enough rows for a chart.")
        return
    features = shown.library.features
    if not features:
        st.text("The rows are vectors, which have no features to average.")
        return
    chosen = st.multiselect(
        "Features",
        features,
        format_func=words,
        **address.choices("feature", features, features[:LINES_AT_FIRST], most=MAX_LINES),
    )
    if not chosen:
        st.text("Choose a feature.")
        return
    if len(chosen) == 1:
        chart = charts.one_over_years(found, chosen[0])
    else:
        standard = {f: _standard([a.features.get(f) for a in found.values]) for f in chosen}
        chart = charts.over_years(found, chosen, standard=standard)
        st.caption("Standardised mean of each feature by year; select a single feature for its own unit.")
    st.plotly_chart(chart, key="years", config=charts.STILL, alt="Averages of features over the years")


def _bubbles(shown: OpenExport, found: Averages) -> None:
    """Groups or creators as bubbles in two features."""
    features = shown.library.features
    if len(found.values) < 2 or len(features) < 2:
        return
    with st.container(horizontal=True):
        x, y = (
            st.selectbox(label, features, format_func=words, width=220, **address.choice(name, features, features[i]))
            for i, (label, name) in enumerate((("X", "x"), ("Y", "y")))
        )
    chart = charts.bubbles(found.values[:MAX_BUBBLES], x, y)
    several = plural(shown.word(found.by))
    st.caption(
        f"The {min(len(found.values), MAX_BUBBLES)} most frequent {several}; the area of a bubble is its number of rows."
    )
    st.plotly_chart(chart, key="bubbles", config=charts.STILL, alt=f"Means of {several} in two features")


def _standard(values: list[float | None]) -> tuple[float, float]:
    known = np.array([v for v in values if v is not None and np.isfinite(v)])
    return (float(known.mean()), float(known.std()) or 1.0) if len(known) else (0.0, 1.0)


def _table(found: Averages, word: str) -> None:
    if found.total > len(found.values):
        st.caption(f"The {len(found.values):,} most frequent of {found.total:,}.")
    rows = [
        {word: short(str(a.value), 80), "rows": a.count} | {words(f): _rounded(v) for f, v in a.features.items()}
        for a in found.values
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True, key="averages-table")


def _rounded(value: float) -> float:
    """Round to four significant digits."""
    return float(f"{value:.4g}")
