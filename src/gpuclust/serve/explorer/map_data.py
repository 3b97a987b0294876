"""What the map in the browser fetches from the explorer's own server: the columns of an export as arrays, and the texts of a row."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import gpuclust
from gpuclust.serve.explorer.items import details_of
from gpuclust.serve.explorer.points import AXES, Coding, groups_of, values_of
from gpuclust.serve.explorer.session import OpenExport
from gpuclust.serve.explorer.texts import short, words

PREFIX = "/points"
GROUP = "group"
MAX_GROUPS = 1_000
MAX_OPEN = 4  # exports whose columns can be fetched
FIRST_FILTERS = 3
# The content of an address never changes: it has the digest of the export. "identity" keeps the server from compressing floats.
HEADERS = {"cache-control": "private, max-age=86400, immutable", "content-encoding": "identity"}
SCRIPT = Path(gpuclust.__file__).with_name("web") / "points.js"


@dataclass(frozen=True)
class MapData:
    """The columns of an open export for the map: little-endian float32, ``cluster`` int32, ``group`` uint16."""

    shown: OpenExport

    @cached_property
    def columns(self) -> dict[str, dict[str, object]]:
        """The options of each column, as `mount` in ``web/points.js`` describes them."""
        library = self.shown.library
        shares, drawn = library.axis_shares, library.facts.map
        found: dict[str, dict[str, object]] = {}
        for number, (axis, share) in enumerate(zip(AXES, shares, strict=True), 1):
            if not drawn.linear:
                if number <= drawn.n_axes:
                    found[axis] = {"kind": "number", "label": f"{drawn.axis(number)} {drawn.quality}".strip()}
            elif axis in AXES[:2] or share > 0 or sum(shares) == 0:
                label = f"{drawn.axis(number)} ({share:.0%})".replace("%", " %")
                found[axis] = {"kind": "number", "label": label, "share": share}
        found["cluster"] = {"kind": "category", "label": "cluster"}
        if library.has(GROUP):
            found[GROUP] = {
                "kind": "category",
                "label": self.shown.word(GROUP),
                "names": [short(n, 60) for n in self.groups.names],
            }
        for role in ("year", "popularity"):
            if library.has(role) and role not in library.features:
                found[role] = {"kind": "number", "label": role}
        for feature in library.features:
            found[feature_key(feature)] = {"kind": "number", "label": words(feature)}
        return found

    @cached_property
    def groups(self) -> Coding:
        """The first group of each row."""
        return groups_of(self.shown.library, MAX_GROUPS)

    @property
    def options(self) -> dict[str, object]:
        """The data of the component: where to fetch the columns, what they are, and the clusters."""
        shown, features = self.shown, [feature_key(name) for name in self.shown.library.features]
        first = [name for name in (GROUP, "year") if name in self.columns]
        return {
            "base": f"{PREFIX}/{shown.version}",
            "columns": self.columns,
            "clusters": [
                {"id": int(c), "name": short(shown.name(c), 120), "color": shown.colors[c]} for c in shown.clusters
            ],
            "histograms": [*first, *features][:FIRST_FILTERS],
        }

    def array(self, name: str) -> np.ndarray:
        """The values (n_rows,) of a column, by rank. Raises KeyError."""
        if name not in self.columns:
            raise KeyError(name)
        if name == GROUP:
            return self.groups.codes.astype("<u2")
        library = self.shown.library
        if name == "cluster":
            return library.column("cluster").astype("<i4")
        values = values_of(library, name.removeprefix(FEATURE)) if name.startswith(FEATURE) else library.column(name)
        return np.asarray(values).astype("<f4")

    def describe(self, rank: int) -> dict[str, object]:
        """The title and the lines of the card of a row."""
        item = self.shown.library.at([rank])[0]
        lines = [", ".join(item.creators), ", ".join(item.groups), details_of(item)]
        return {"title": short(item.title or item.id), "lines": [short(line) for line in lines if line]}


FEATURE = "f/"


def feature_key(name: str) -> str:
    """The name of a feature among the columns of the map; a feature can be called ``x`` or ``cluster`` too."""
    return f"{FEATURE}{name}"


_served: dict[str, MapData] = {}


def map_data(shown: OpenExport) -> MapData:
    """The columns of an open export, which the routes can serve from now on."""
    if shown.version not in _served:
        while len(_served) >= MAX_OPEN:
            _served.pop(next(iter(_served)), None)
        _served[shown.version] = MapData(shown)
    return _served[shown.version]


def _found(request: Request) -> MapData | None:
    return _served.get(request.path_params["version"])


def _script(_: Request) -> Response:
    return Response(SCRIPT.read_bytes(), media_type="text/javascript")


def _column(request: Request) -> Response:
    data = _found(request)
    try:
        if data is not None:
            content = data.array(request.query_params.get("name", "")).tobytes()
            return Response(content, media_type="application/octet-stream", headers=HEADERS)
    except KeyError:
        pass
    return _missing()


def _row(request: Request) -> Response:
    data, rank = _found(request), int(request.path_params["rank"])
    if data is None or not 0 <= rank < len(data.shown.library):
        return _missing()
    return JSONResponse(data.describe(rank))


def _missing() -> Response:
    return JSONResponse({"error": "not found; reload the page"}, 404)


ROUTES = (
    Route(f"{PREFIX}/points.js", _script),
    Route(f"{PREFIX}/{{version}}/column", _column),
    Route(f"{PREFIX}/{{version}}/rows/{{rank:int}}", _row),
)

# The component: a constant script. It loads the module, fetches columns when they are needed, and passes clicks and selections on.
COMPONENT = """
export default async function ({ parentElement, data, setTriggerValue }) {
  const host = parentElement;
  host.gpuclust = { ...host.gpuclust, setTriggerValue, chosen: data.chosen };
  // Streamlit calls what the latest call returned when the page is left, and what an earlier one returned if a later one overtook it.
  const leave = () => setTimeout(() => { if (!host.isConnected) host.gpuclust.map?.destroy(); });
  if (host.gpuclust.base === data.base) {
    host.gpuclust.map?.retheme();
    return leave;
  }
  host.gpuclust.map?.destroy();
  host.gpuclust.base = data.base;
  const { mount } = await import(new URL("/points/points.js", location.href).href);
  const place = document.createElement("div");
  place.className = "gpuclust-map";
  host.append(place);
  const arrays = { cluster: Int32Array, group: Uint16Array };
  const fetched = (name) => async () => {
    // Not stored: the page keeps the array, and a cache in memory would hold a second one.
    const response = await fetch(`${data.base}/column?name=${encodeURIComponent(name)}`, { cache: "no-store" });
    if (!response.ok) throw new Error("this export has changed; reload the page");
    return new (arrays[name] ?? Float32Array)(await response.arrayBuffer());
  };
  const columns = Object.fromEntries(Object.keys(data.columns).map((name) => [name, fetched(name)]));
  const bits = (rows, n) => {
    const bytes = new Uint8Array(Math.ceil(n / 8));
    for (const row of rows) bytes[row >> 3] |= 1 << (row & 7);
    let text = "";
    for (let i = 0; i < bytes.length; i += 8190) text += String.fromCharCode(...bytes.subarray(i, i + 8190));
    return btoa(text);
  };
  const map = mount(place, columns, {
    columns: data.columns, clusters: data.clusters, histograms: data.histograms, listLabel: data.list, url: "query",
    height: Math.round(Math.min(600, Math.max(340, innerHeight * 0.66))),
    describe: async (row) => (await fetch(`${data.base}/rows/${row}`)).json(),
    onPick: (row) => host.gpuclust.setTriggerValue("pick", row),
    onSelect: (rows) => host.gpuclust.setTriggerValue("rows", rows ? bits(rows, map.stats().rows) : ""),
  });
  host.gpuclust.map = map;
  if (host.gpuclust.chosen && !new URLSearchParams(location.search).has("area")) host.gpuclust.setTriggerValue("rows", "");
  return leave;
}
"""


def chosen_rows(text: str, n_rows: int) -> np.ndarray | None:
    """The ranks that a selection in the browser has; None if it was removed.

    A bit for each row, the lowest first, in base64. Raises ValueError if it is no selection of these rows.
    """
    if not text:
        return None
    bits = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    if len(bits) != -(-n_rows // 8):
        raise ValueError(f"a selection of {8 * len(bits):,} rows, the export has {n_rows:,}")
    return np.flatnonzero(np.unpackbits(bits, count=n_rows, bitorder="little"))
