"""The map page: what is on the axes, what is coloured, and what was chosen in it."""

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
from gpuclust.serve.explorer.map_figure import Cloud, deep, flat
from gpuclust.serve.explorer.plotly_click import clicked_in
from gpuclust.serve.explorer.points import (
    AXES,
    EVERY_POINT,
    Coding,
    Span,
    groups_of,
    in_box,
    in_lasso,
    sample_of,
    span_of,
    values_of,
)
from gpuclust.serve.explorer.session import NOISE_COLOR, Opened, opened
from gpuclust.serve.explorer.tables import as_csv, as_parquet, rows_of
from gpuclust.serve.explorer.texts import as_hover, short, words
from gpuclust.serve.explorer.views.download import offer

VIEWS = ("2-D", "3-D")
CLUSTER, GROUP = "cluster", "group"
LISTED = 200
TURN, TILT = 45, 25  # degrees, where three axes start
# Drawn at twice the screen's points, as Plotly does by default, a picture takes a browser without a GPU four times as long.
CONFIG = {"scrollZoom": True, "displaylogo": False, "plotGlPixelRatio": 1}
GROUP_COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8F7EE5", "#7A4419", "#B5BD61")


@dataclass(frozen=True)
class Choice:
    """What a visitor set: two or three ``axes``, the ``color``, the ``clusters`` shown, whether outliers are."""

    axes: tuple[str, ...]
    color: str
    clusters: tuple[int, ...]
    outliers: bool


def map_() -> None:
    """The page."""
    shown = opened()
    st.title("Map", anchor=False)
    choice = _controls(shown)
    if len(set(choice.axes)) < len(choice.axes):
        st.text("Choose a different axis for each direction.")
        return
    cloud = _cloud(shown.version, choice, shown)
    _say(shown, cloud, choice)
    if len(choice.axes) == 2:
        _flat(shown, cloud, choice)
    else:
        _deep(shown, cloud, choice)


def _controls(shown: Opened) -> Choice:
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
            "Show outliers", key="outliers", help="Without it, axes leave out a few values far beyond all others"
        )
    return Choice(tuple(axes), color, tuple(chosen), outliers)


def axis_label(shares: Sequence[float], name: str) -> str:
    """An axis as people call it: ``PC1 (26 %)`` with its share of the variance, or the name of a feature."""
    if name not in AXES:
        return words(name)
    number = AXES.index(name)
    return f"PC{number + 1} ({shares[number]:.0%})".replace("%", " %")


@st.cache_resource(max_entries=24, show_spinner=False)
def _cloud(version: str, choice: Choice, _shown: Opened) -> Cloud:
    library = _shown.library
    labels = library.column("cluster")
    points = tuple(values_of(library, axis) for axis in choice.axes)
    visible = np.isin(labels, choice.clusters) if choice.clusters else np.ones(len(labels), dtype=bool)
    dense = len(labels) > EVERY_POINT
    members = np.flatnonzero(visible)
    chosen = members[sample_of(labels[members], seed=_seed(version))] if dense else members
    coding, colors = _coding(_shown, choice.color)
    by_value = choice.color not in (CLUSTER, GROUP)
    return Cloud(
        points=points,
        labels=tuple(as_hover(axis_label(library.axis_shares, axis)) for axis in choice.axes),
        spans=tuple(span_of(values, everything=choice.outliers) for values in points),
        shown=chosen,
        hover=_hover(_shown, chosen),
        coding=coding,
        colors=colors,
        visible=visible,
        values=values_of(library, choice.color) if by_value else None,
        value_label=as_hover(words(choice.color)) if by_value else "",
        dense=dense,
    )


def _seed(version: str) -> int:
    """The same sample for the same export."""
    return int.from_bytes(hashlib.sha256(version.encode()).digest()[:4], "big")


def _coding(shown: Opened, color: str) -> tuple[Coding, tuple[str, ...]]:
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


def _hover(shown: Opened, ranks: np.ndarray) -> list[str]:
    rows = shown.library.rows.select(["id", "title", "creator", "cluster"]).take(ranks).to_pydict()
    names = {c: as_hover(shown.name(c), 50) for c in shown.clusters}
    return [
        f"<b>{as_hover(title or id, 60)}</b><br>{as_hover((creator or '').replace(';', ', '), 60)}<br>{names.get(cluster, '')}"
        for id, title, creator, cluster in zip(*rows.values(), strict=True)
    ]


def _say(shown: Opened, cloud: Cloud, choice: Choice) -> None:
    """What is drawn, in a line: a sample is called one."""
    n = int(cloud.visible.sum())
    said = [
        f"All {n:,} rows as density; a sample of {len(cloud.shown):,}, stratified by cluster, as points"
        if cloud.dense
        else f"All {n:,} rows as points"
    ]
    if set(choice.axes) <= set(AXES):
        share = sum(shown.library.axis_shares[AXES.index(axis)] for axis in choice.axes)
        said.append(f"the {len(choice.axes)} axes show {share:.0%} of the variance".replace("%", " %"))
    beyond = max((span.beyond for span in cloud.spans), default=0)
    if beyond:
        said.append(f"{beyond:,} rows lie beyond an axis")
    said.append(
        "choose a point to open it"
        + (", a box or a lasso to list and download its rows" if len(choice.axes) == 2 else ", drag to turn")
    )
    st.caption("; ".join(said) + ".")


def _flat(shown: Opened, cloud: Cloud, choice: Choice) -> None:
    config = CONFIG | {"modeBarButtonsToRemove": ["autoScale2d"]}
    event = st.plotly_chart(
        _flat_figure(shown.version, choice, cloud),
        key="map",
        on_select="rerun",
        config=config,
        alt="Map of the rows in two axes",
    )
    selection = event.selection
    region = _region(cloud, selection)
    ranks = [rank for point in selection.get("points", []) if (rank := _rank(point)) is not None]
    if region is not None:
        _selected(shown, np.flatnonzero(region & cloud.visible))
    elif ranks and ranks[0] < len(shown.library):
        item_card(shown, shown.library.at(ranks[:1])[0], "on-map")
    _make_ready(shown, choice)


@st.cache_resource(max_entries=24, show_spinner=False)
def _flat_figure(version: str, choice: Choice, _cloud: Cloud) -> go.Figure:
    return flat(_cloud)


@st.cache_resource(max_entries=24, show_spinner=False)
def _deep_figure(version: str, choice: Choice, turn: float, tilt: float, _cloud: Cloud) -> go.Figure:
    return deep(_cloud, turn=turn, tilt=tilt)


def _make_ready(shown: Opened, choice: Choice) -> None:
    """What three axes show first, as `_controls` has it, is made while the visitor looks at two."""
    if AXES[2] in choice.axes:
        return
    next_choice = replace(choice, axes=(*choice.axes, AXES[2]))
    _deep_figure(shown.version, next_choice, TURN, TILT, _cloud(shown.version, next_choice, shown))


def _rank(point: Any) -> int | None:
    """The rank that a clicked point carries."""
    data = point.get("customdata")
    data = data[0] if isinstance(data, (list, tuple)) and data else data
    return int(data) if isinstance(data, (int, float)) else None


def _region(cloud: Cloud, selection: Any) -> np.ndarray | None:
    """Which rows, of all and not only of the sample, lie in what was drawn on the map."""
    x, y = cloud.points
    inside = [in_box(x, y, box["x"], box["y"]) for box in selection.get("box", []) if box["x"]]
    inside += [in_lasso(x, y, lasso["x"], lasso["y"]) for lasso in selection.get("lasso", []) if lasso["x"]]
    return np.logical_or.reduce(inside) if inside else None


def _selected(shown: Opened, ranks: np.ndarray) -> None:
    st.subheader(f"{len(ranks):,} rows chosen", anchor=False)
    if not len(ranks):
        return
    found, counts = np.unique(shown.library.column("cluster")[ranks], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:6]
    st.text(" · ".join(f"{short(shown.name(int(found[i])), 40)}: {counts[i]:,}" for i in order))
    offer("selection", lambda: as_csv(rows_of(shown.library, ranks)), lambda: as_parquet(rows_of(shown.library, ranks)))
    if len(ranks) > LISTED:
        st.caption(f"The {LISTED} most popular of them; the files hold all.")
    digest = hashlib.sha256(ranks.tobytes()).hexdigest()[:12]
    item = choose(shown.library.at(ranks[:LISTED]), f"chosen-{digest}")
    if item is not None:
        item_card(shown, item, "chosen")


def _deep(shown: Opened, cloud: Cloud, choice: Choice) -> None:
    with st.container(horizontal=True, key="turning"):
        turn = st.slider(
            "Turn", 0, 360, TURN, 15, key="turn", width=240, help="Degrees; for the keyboard (the pointer turns it too)"
        )
        tilt = st.slider("Tilt", -80, 80, TILT, 10, key="tilt", width=240)
    with st.container(key="deep"):
        st.plotly_chart(
            _deep_figure(shown.version, choice, turn, tilt, cloud),
            key="map-deep",
            config=CONFIG,
            alt="Map of the rows in three axes",
        )
    rank = clicked_in("deep", key="deep-pointer")
    if rank is not None and 0 <= rank < len(shown.library):
        item_card(shown, shown.library.at([rank])[0], "in-depth")
    elif len(cloud.spans) and any(_is_cut(span) for span in cloud.spans):
        st.caption("Outliers are left out of the cube.")


def _is_cut(span: Span) -> bool:
    return span.beyond > 0
