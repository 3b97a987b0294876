"""The map page: controls, the map in 2-D or 3-D, and the selected rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from gpuclust.serve.explorer.items import choose, item_card
from gpuclust.serve.explorer.map_figure import MapData, scatter_2d, scatter_3d
from gpuclust.serve.explorer.plotly_click import clicked_in
from gpuclust.serve.explorer.points import (
    AXES,
    MAX_POINTS,
    Coding,
    Span,
    groups_of,
    in_box,
    in_lasso,
    sample_of,
    span_of,
    values_of,
)
from gpuclust.serve.explorer.session import NOISE_COLOR, OpenExport, open_export
from gpuclust.serve.explorer.tables import as_csv, as_parquet, rows_of
from gpuclust.serve.explorer.texts import as_hover, short, words
from gpuclust.serve.explorer.views.download import offer

VIEWS = ("2-D", "3-D")
CLUSTER, GROUP = "cluster", "group"
MAX_LISTED = 200
TURN, TILT = 45, 25  # initial angles in degrees
# Plotly's default is two pixels per point, which takes four times as long in a browser without a GPU.
CONFIG = {"scrollZoom": True, "displaylogo": False, "plotGlPixelRatio": 1}
GROUP_COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8F7EE5", "#7A4419", "#B5BD61")


@dataclass(frozen=True)
class MapOptions:
    """The controls of the map: two or three ``axes``, the ``color``, the ``clusters`` to show, and whether to show ``outliers``."""

    axes: tuple[str, ...]
    color: str
    clusters: tuple[int, ...]
    outliers: bool


def map_() -> None:
    """The Map page."""
    shown = open_export()
    st.title("Map", anchor=False)
    options = _controls(shown)
    if len(set(options.axes)) < len(options.axes):
        st.text("Choose a different axis for each direction.")
        return
    data = _map_data(shown.version, options, shown)
    _caption(shown, data, options)
    if len(options.axes) == 2:
        _show_2d(shown, data, options)
    else:
        _show_3d(shown, data, options)


def _controls(shown: OpenExport) -> MapOptions:
    options = (*AXES, *shown.library.features)
    named = partial(axis_label, shown.library.axis_shares)
    with st.container(horizontal=True, vertical_alignment="bottom", key="map-controls"):
        view = st.segmented_control("View", VIEWS, default=VIEWS[0], required=True, key="view")
        n_axes = 3 if view == "3-D" else 2
        axes = [
            st.selectbox(label, options, index=i, format_func=named, key=f"axis-{i}", width=190)
            for i, label in enumerate(("X", "Y", "Z")[:n_axes])
        ]
        has_groups = "group" in shown.library.facts.roles
        colors = (CLUSTER, *([GROUP] if has_groups else []), *shown.library.features)
        color = st.selectbox("Colour", colors, format_func=named, key="color", width=190)
    with st.expander("Clusters shown, outliers", expanded=False):
        listed = list(shown.clusters)
        chosen = st.multiselect(
            "Clusters",
            listed,
            format_func=lambda c: short(shown.name(c), 50),
            key="map-clusters",
            placeholder="All clusters",
        )
        outliers = st.toggle(
            "Show outliers", key="outliers", help="If off, the axes leave out a few values far from all others"
        )
    return MapOptions(tuple(axes), color, tuple(chosen), outliers)


def axis_label(shares: Sequence[float], name: str) -> str:
    """The label of an axis: ``PC1 (26 %)`` with its share of the variance, or the name of a feature."""
    if name not in AXES:
        return words(name)
    number = AXES.index(name)
    return f"PC{number + 1} ({shares[number]:.0%})".replace("%", " %")


@st.cache_resource(max_entries=24, show_spinner=False)
def _map_data(version: str, options: MapOptions, _shown: OpenExport) -> MapData:
    library = _shown.library
    labels = library.column("cluster")
    points = tuple(values_of(library, axis) for axis in options.axes)
    visible = np.isin(labels, options.clusters) if options.clusters else np.ones(len(labels), dtype=bool)
    dense = len(labels) > MAX_POINTS
    members = np.flatnonzero(visible)
    chosen = members[sample_of(labels[members], seed=_seed(version))] if dense else members
    coding, colors = _coding(_shown, options.color)
    by_value = options.color not in (CLUSTER, GROUP)
    return MapData(
        points=points,
        labels=tuple(as_hover(axis_label(library.axis_shares, axis)) for axis in options.axes),
        spans=tuple(span_of(values, everything=options.outliers) for values in points),
        shown=chosen,
        hover=_hover(_shown, chosen),
        coding=coding,
        colors=colors,
        visible=visible,
        values=values_of(library, options.color) if by_value else None,
        value_label=as_hover(words(options.color)) if by_value else "",
        dense=dense,
    )


def _seed(version: str) -> int:
    """The seed of the sample, which depends only on the export."""
    return int.from_bytes(hashlib.sha256(version.encode()).digest()[:4], "big")


def _coding(shown: OpenExport, color: str) -> tuple[Coding, tuple[str, ...]]:
    if color == GROUP:
        coding = groups_of(shown.library)
        grey = {"other", "none"}
        colors = tuple(
            NOISE_COLOR if name in grey else GROUP_COLORS[i % len(GROUP_COLORS)] for i, name in enumerate(coding.names)
        )
        return coding, colors
    listed = np.array(sorted(shown.clusters))
    codes = np.searchsorted(listed, shown.library.column("cluster")).astype(np.int32)
    return Coding(codes, tuple(shown.name(int(c)) for c in listed)), tuple(shown.colors[int(c)] for c in listed)


def _hover(shown: OpenExport, ranks: np.ndarray) -> list[str]:
    rows = shown.library.rows.select(["id", "title", "creator", "cluster"]).take(ranks).to_pydict()
    names = {c: as_hover(shown.name(c), 50) for c in shown.clusters}
    return [
        f"<b>{as_hover(title or id, 60)}</b><br>{as_hover((creator or '').replace(';', ', '), 60)}<br>{names.get(cluster, '')}"
        for id, title, creator, cluster in zip(*rows.values(), strict=True)
    ]


def _caption(shown: OpenExport, data: MapData, options: MapOptions) -> None:
    """Describe in one line what the map shows."""
    n = int(data.visible.sum())
    said = [
        f"All {n:,} rows as density; a sample of {len(data.shown):,}, stratified by cluster, as points"
        if data.dense
        else f"All {n:,} rows as points"
    ]
    if set(options.axes) <= set(AXES):
        share = sum(shown.library.axis_shares[AXES.index(axis)] for axis in options.axes)
        said.append(f"the {len(options.axes)} axes show {share:.0%} of the variance".replace("%", " %"))
    beyond = max((span.beyond for span in data.spans), default=0)
    if beyond:
        said.append(f"{beyond:,} rows lie beyond an axis")
    said.append(
        "choose a point to open it"
        + (", a box or a lasso to list and download its rows" if len(options.axes) == 2 else ", drag to turn")
    )
    st.caption("; ".join(said) + ".")


def _show_2d(shown: OpenExport, data: MapData, options: MapOptions) -> None:
    config = CONFIG | {"modeBarButtonsToRemove": ["autoScale2d"]}
    event = st.plotly_chart(
        _figure_2d(shown.version, options, data),
        key="map",
        on_select="rerun",
        config=config,
        alt="Map of the rows in two axes",
    )
    selection = event.selection
    region = _region(data, selection)
    ranks = [rank for point in selection.get("points", []) if (rank := _rank(point)) is not None]
    if region is not None:
        _selected(shown, np.flatnonzero(region & data.visible))
    elif ranks and ranks[0] < len(shown.library):
        item_card(shown, shown.library.at(ranks[:1])[0], "on-map")
    _preload_3d(shown, options)


@st.cache_resource(max_entries=24, show_spinner=False)
def _figure_2d(version: str, options: MapOptions, _data: MapData) -> go.Figure:
    return scatter_2d(_data)


@st.cache_resource(max_entries=24, show_spinner=False)
def _figure_3d(version: str, options: MapOptions, turn: float, tilt: float, _data: MapData) -> go.Figure:
    return scatter_3d(_data, turn=turn, tilt=tilt)


def _preload_3d(shown: OpenExport, options: MapOptions) -> None:
    """Prepare the first 3-D figure while the visitor looks at the 2-D map."""
    if AXES[2] in options.axes:
        return
    next_options = replace(options, axes=(*options.axes, AXES[2]))
    _figure_3d(shown.version, next_options, TURN, TILT, _map_data(shown.version, next_options, shown))


def _rank(point: Any) -> int | None:
    """The rank of a clicked point."""
    data = point.get("customdata")
    data = data[0] if isinstance(data, (list, tuple)) and data else data
    return int(data) if isinstance(data, (int, float)) else None


def _region(data: MapData, selection: Any) -> np.ndarray | None:
    """Whether each row, not only of the sample, is in the selected boxes and lassos."""
    x, y = data.points
    inside = [in_box(x, y, box["x"], box["y"]) for box in selection.get("box", []) if box["x"]]
    inside += [in_lasso(x, y, lasso["x"], lasso["y"]) for lasso in selection.get("lasso", []) if lasso["x"]]
    return np.logical_or.reduce(inside) if inside else None


def _selected(shown: OpenExport, ranks: np.ndarray) -> None:
    st.subheader(f"{len(ranks):,} rows chosen", anchor=False)
    if not len(ranks):
        return
    found, counts = np.unique(shown.library.column("cluster")[ranks], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:6]
    st.text(" · ".join(f"{short(shown.name(int(found[i])), 40)}: {counts[i]:,}" for i in order))
    offer("selection", lambda: as_csv(rows_of(shown.library, ranks)), lambda: as_parquet(rows_of(shown.library, ranks)))
    if len(ranks) > MAX_LISTED:
        st.caption(f"The {MAX_LISTED} most popular of them; the files contain all.")
    digest = hashlib.sha256(ranks.tobytes()).hexdigest()[:12]
    item = choose(shown.library.at(ranks[:MAX_LISTED]), f"chosen-{digest}")
    if item is not None:
        item_card(shown, item, "chosen")


def _show_3d(shown: OpenExport, data: MapData, options: MapOptions) -> None:
    with st.container(horizontal=True, key="turning"):
        turn = st.slider(
            "Turn", 0, 360, TURN, 15, key="turn", width=240, help="Degrees; for the keyboard (the pointer turns it too)"
        )
        tilt = st.slider("Tilt", -80, 80, TILT, 10, key="tilt", width=240)
    with st.container(key="deep"):
        st.plotly_chart(
            _figure_3d(shown.version, options, turn, tilt, data),
            key="map-deep",
            config=CONFIG,
            alt="Map of the rows in three axes",
        )
    rank = clicked_in("deep", key="deep-pointer")
    if rank is not None and 0 <= rank < len(shown.library):
        item_card(shown, shown.library.at([rank])[0], "in-depth")
    elif len(data.spans) and any(_is_cut(span) for span in data.spans):
        st.caption("Outliers are left out of the cube.")


def _is_cut(span: Span) -> bool:
    return span.beyond > 0
