"""The map: a Plotly scatter plot of the rows in two or three features or axes of the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, radians, sin

import numpy as np
import plotly.graph_objects as go

from gpuclust.serve.explorer import raster
from gpuclust.serve.explorer.points import Coding, Span, span_of
from gpuclust.serve.explorer.texts import as_hover

HEIGHT = 560
MAX_SVG_POINTS = 1_000  # more points are drawn faster with WebGL
SCALE = "Cividis"
NO_TEXT = {
    "title": {"text": ""},
    "showticklabels": False,
    "nticks": 4,
    "showspikes": False,
    "showbackground": False,
    "zeroline": False,
    "showline": True,
    "linecolor": "#888",
}
CAMERA_CENTER_Z = -0.12  # below the centre of the cube, because its near corner is the lowest
SYMBOL_3D = "square"  # two triangles per point; a circle has dozens


@dataclass(frozen=True)
class MapData:
    """The data of a map.

    ``points`` are two or three arrays (n_rows,), ``labels`` and ``spans`` those of the axes; ``shown`` the ranks drawn as points,
    with escaped ``hover`` texts. Points are coloured by ``coding`` with ``colors``, or by ``values`` (n_rows,) with the title
    ``value_label``. ``visible`` (n_rows,) bool marks the rows that are not filtered out. With ``dense`` a density is drawn.
    """

    points: tuple[np.ndarray, ...]
    labels: tuple[str, ...]
    spans: tuple[Span, ...]
    shown: np.ndarray
    hover: Sequence[str]
    coding: Coding
    colors: tuple[str, ...]
    visible: np.ndarray
    values: np.ndarray | None = None
    value_label: str = ""
    dense: bool = False


def scatter_2d(data: MapData) -> go.Figure:
    """A 2-D scatter plot. With more than 50,000 rows, a density image of all rows is behind a sample of points."""
    figure = go.Figure()
    if data.dense:
        figure.add_layout_image(
            source=_picture(data), xref="x", yref="y", x=data.spans[0].low, y=data.spans[1].high,
            sizex=data.spans[0].high - data.spans[0].low, sizey=data.spans[1].high - data.spans[1].low,
            sizing="stretch", layer="below",
        )  # fmt: skip
    scatter = go.Scattergl if len(data.shown) > MAX_SVG_POINTS else go.Scatter
    for trace in _traces(data, scatter, size=5):
        figure.add_trace(trace)
    axes = [
        {"title": {"text": label}, "range": [s.low, s.high], "zeroline": False}
        for label, s in zip(data.labels, data.spans, strict=True)
    ]
    figure.update_layout(xaxis=axes[0] | {"showgrid": True}, yaxis=axes[1], dragmode="pan", **_layout(data))
    return figure


def scatter_3d(data: MapData, *, turn: float, tilt: float) -> go.Figure:
    """A 3-D scatter plot that the pointer rotates; ``turn`` and ``tilt`` are the initial angles in degrees.

    With more than 50,000 rows, voxels with the density of all rows are behind a sample of points.
    """
    figure = go.Figure()
    if data.dense:
        figure.add_trace(_density_voxels(data))
    for trace in _traces(data, go.Scatter3d, size=2.5):
        figure.add_trace(trace)
    distance = 2.0  # the whole cube is visible
    eye = {
        "x": distance * cos(radians(tilt)) * cos(radians(turn)),
        "y": distance * cos(radians(tilt)) * sin(radians(turn)),
        "z": distance * sin(radians(tilt)),
    }
    scene: dict[str, object] = {
        f"{name}axis": {"range": [s.low, s.high], **NO_TEXT} for name, s in zip("xyz", data.spans, strict=True)
    }
    scene |= {
        "aspectmode": "cube",
        "camera": {"eye": eye, "center": {"x": 0, "y": 0, "z": CAMERA_CENTER_Z}},
        "dragmode": "turntable",
        "annotations": _edges(data),
    }
    figure.update_layout(scene=scene, uirevision=f"{turn} {tilt}", **_layout(data))
    return figure


def _edges(data: MapData) -> list[dict[str, object]]:
    """The labels of the axes and the ends of their ranges, along the edges of the cube.

    They are annotations because the labels of Plotly's 3-D axes are drawn as triangles, which takes 0.25 seconds.
    """
    near, far = (tuple(s.low + share * (s.high - s.low) for s in data.spans) for share in (0.01, 0.99))
    corners = ((near[0], far[1], near[2]), (far[0], near[1], near[2]), (far[0], near[1], near[2]))
    found = []
    for axis, corner, label, span in zip("xyz", corners, data.labels, data.spans, strict=True):
        for share, text in ((0.08, f"{span.low:.3g}"), (0.5, label), (0.92, f"{span.high:.3g}")):
            at = dict(zip("xyz", corner, strict=True)) | {axis: span.low + share * (span.high - span.low)}
            found.append({**at, "text": text, "showarrow": False})
    return found


def _layout(data: MapData) -> dict[str, object]:
    return {
        "height": HEIGHT,
        "margin": {"l": 0, "r": 0, "t": 8, "b": 0},
        "hovermode": "closest",
        "legend": {"orientation": "h", "y": -0.16, "x": 0, "yanchor": "top", "itemsizing": "constant"},
        "showlegend": data.values is None,
    }


def _picture(data: MapData) -> str:
    x, y = (values[data.visible] for values in data.points)
    spans = (data.spans[0], data.spans[1])
    if data.values is not None:
        return raster.as_png(raster.by_value(x, y, spans, data.values[data.visible], _scale()))
    coding = Coding(data.coding.codes[data.visible], data.coding.names)
    return raster.as_png(raster.by_category(x, y, spans, coding, data.colors))


def _scale() -> np.ndarray:
    """The colours of the colour scale: (256, 3) uint8."""
    from plotly.colors import sample_colorscale

    found = sample_colorscale(SCALE, [i / 255 for i in range(256)], colortype="tuple")
    return (np.array(found) * 255).astype(np.uint8)


def _traces(data: MapData, scatter: type, size: float) -> list[go.Scatter]:
    """One trace per category, for the legend; or one trace with a colour scale."""
    edge = (
        {"width": 0.5, "color": "rgba(255,255,255,0.6)"} if data.dense and scatter is not go.Scatter3d else {"width": 0}
    )
    if data.values is not None:
        span = span_of(data.values, pad=0.0)
        marker = {
            "size": size, "line": edge, "color": data.values[data.shown], "colorscale": SCALE, "cmin": span.low, "cmax": span.high,
            "colorbar": {"title": {"text": data.value_label}, "thickness": 12, "len": 0.8},
        }  # fmt: skip
        return [_trace(data, scatter, np.arange(len(data.shown)), marker, data.value_label)]
    codes = data.coding.codes[data.shown]
    found = []
    for code, (name, color) in enumerate(zip(data.coding.names, data.colors, strict=True)):
        own = np.flatnonzero(codes == code)
        if len(own):
            found.append(_trace(data, scatter, own, {"size": size, "line": edge, "color": color}, as_hover(name, 40)))
    return found


def _trace(data: MapData, scatter: type, places: np.ndarray, marker: dict[str, object], name: str) -> go.Scatter:
    ranks = data.shown[places]
    axes = {axis: values[ranks].astype(np.float32) for axis, values in zip("xyz", data.points, strict=False)}
    texts = [data.hover[i] for i in places]
    extra: dict[str, object] = {"opacity": 0.8} if data.dense or scatter is not go.Scatter3d else {}
    if scatter is not go.Scatter3d:
        extra["unselected"] = {"marker": {"opacity": 0.45}}
    return scatter(
        **axes,
        mode="markers",
        marker=marker | ({"symbol": SYMBOL_3D} if scatter is go.Scatter3d else {}),
        customdata=ranks.astype(np.int64),
        hovertext=texts,
        hoverinfo="text",
        name=name,
        **extra,
    )


def _density_voxels(data: MapData) -> go.Scatter3d:
    points = [values[data.visible] for values in data.points]
    coding = Coding(data.coding.codes[data.visible], data.coding.names)
    middles, counts, category = raster.voxels(points, data.spans, coding)
    depth = np.log1p(counts) / max(float(np.log1p(counts.max(initial=1))), 1e-9)
    return go.Scatter3d(
        x=middles[:, 0].astype(np.float32), y=middles[:, 1].astype(np.float32), z=middles[:, 2].astype(np.float32),
        mode="markers", hoverinfo="skip", showlegend=False, opacity=0.22, name="all rows",
        marker={"size": (3 + 11 * depth).astype(np.float32), "symbol": SYMBOL_3D, "line": {"width": 0}, **_stepped(category, data.colors)},
    )  # fmt: skip


def _stepped(category: np.ndarray, colors: tuple[str, ...]) -> dict[str, object]:
    """Marker colours by category number, which a browser parses faster than colour names."""
    last = max(len(colors) - 1, 1)
    scale = (
        [[i / last, color] for i, color in enumerate(colors)] if len(colors) > 1 else [[0, colors[0]], [1, colors[0]]]
    )
    return {"color": category.astype(np.int32), "cmin": 0, "cmax": last, "colorscale": scale}
