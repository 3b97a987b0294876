"""One HTML file to send: headline, map, heat map, three sentences, a card for each cluster and a search over a sample of the rows.

It loads nothing: pictures and data are in it, its script is named by its digest in its content security policy, and links only
lead to the page of an item. It follows the reader's light or dark theme and fits a phone. The map is a picture of all rows,
which the script replaces by a map of the sample that zooms, answers and filters (``web/points.js``).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from gpuclust.model.records import Cluster, Example
from gpuclust.pages.cards import cards, data, heat_map
from gpuclust.pages.environment import template
from gpuclust.pages.facts import headline, rows_word, sentences, unit
from gpuclust.pages.palette import cluster_color, ink_on
from gpuclust.pages.raster import central_rows, encode_png, frame_of, paint_clear, rasterize, widened
from gpuclust.pages.text import count, label_name, number, one_line, without_unit

MAP = (720, 450)
MAX_LABELS = 40  # clusters whose number is on the map
LABEL_GAP = 26.0  # pixels between two numbers on the map
MARKS_BELOW = 50_000  # rows up to which a row is a mark of several pixels


@dataclass(frozen=True)
class Item:
    """A row of the sample: what it is called, its cluster, and the address of its page or sound."""

    title: str
    creator: str
    group: str
    cluster: int
    address: str = ""


LINEAR = "features, on the two axes of the largest variance"
"""By what a map of principal components places a row."""


@dataclass(frozen=True)
class Share:
    """What the page shows. ``xy`` (n_rows, 2) and ``labels`` (n_rows,) are all rows on the map, noise -1; ``axes`` are the names of
    its two axes, ``placed`` says by what a row is placed there. ``sample`` (n,) are the numbers of the rows of the sample, and ``items`` say what they are called, for the search; empty
    for no search. ``addresses``: id -> the address of its page or sound.
    ``technical``: sections of (title, [(name, value)]). ``verdict``, ``kind`` and ``because`` are those of the sweep, if there was one."""

    dataset: str
    clusters: Sequence[Cluster]
    features: Sequence[str]
    xy: np.ndarray
    labels: np.ndarray
    axes: tuple[str, str] = ("PC 1", "PC 2")
    placed: str = LINEAR
    date: str = ""
    preset: str = "none"
    verdict: str = ""
    kind: str = ""
    because: Sequence[str] = ()
    warnings: Sequence[str] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    sample: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    items: Sequence[Item] = ()
    addresses: Mapping[str, str] = field(default_factory=dict)
    technical: Sequence[tuple[str, Sequence[tuple[str, Any]]]] = ()


def share_page(content: Share) -> str:
    """The page as HTML text, to be written in UTF-8."""
    rows = rows_word(content.preset)
    words = {f: without_unit(f).replace("_", " ").strip() or f for f in content.features}
    units = {f: u for f in content.features if (u := unit(f, content.preset))}
    sources = (files("gpuclust") / "web" / "points.js", files("gpuclust") / "pages" / "templates" / "share.js")
    script = Markup("\n".join(source.read_text(encoding="utf-8") for source in sources))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    n_rows = sum(c.size for c in content.clusters)
    said = (
        one_line(content.dataset),
        f"{count(n_rows)} {rows}",
        f"{count(int(content.metrics.get('n_features') or len(content.features)))} features",
        content.date,
    )
    return (
        template("share.html.j2").render(
            content=content,
            policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
            "base-uri 'none'; form-action 'none'",
            script=script,
            rows=rows,
            headline=headline(content.clusters, verdict=content.verdict, kind=content.kind, rows=rows),
            line=[part for part in said if part],
            map=_map(content),
            heat=heat_map(content.clusters, words),
            sentences=sentences(content.clusters, content.metrics, words, rows=rows),
            cards=cards(content.clusters, words, units, rows=rows, link=lambda e: _link(content, e)),
            sample=_json(content),
            technical=[
                (title, [(name, number(value)) for name, value in values]) for title, values in content.technical
            ],
        )
        + "\n"
    )


def _link(content: Share, example: Example) -> str:
    return content.addresses.get(example.id, "")


def _json(content: Share) -> Markup:
    """The sample as JSON that no HTML parser can mistake for markup."""
    colors = {c.cluster: cluster_color(c.cluster) for c in content.clusters}
    clusters = [
        (c, one_line(k.name, 300), colors[c], ink_on(colors[c]), label_name(c))
        for k in content.clusters
        for c in (k.cluster,)
    ]
    items = [
        (one_line(i.title, 160), one_line(i.creator, 120), one_line(i.group, 80), *([i.address] if i.address else []))
        for i in content.items
    ]
    found = {
        "clusters": clusters,
        "items": items,
        "axes": [one_line(axis, 80) for axis in content.axes],
        "rows": len(content.labels),
        "word": rows_word(content.preset),
        **_points(content),
    }
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _points(content: Share) -> dict[str, Any]:
    """The sample on the map: coordinates as 16 bits between the ends of each axis (65,535: missing), and clusters as 16 bits (32 where
    there are more)."""
    xy, labels = content.xy[content.sample], content.labels[content.sample]
    known = np.isfinite(xy)
    found: dict[str, Any] = {"spans": []}
    for i, axis in enumerate("xy"):
        values = xy[known[:, i], i]
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        scaled = np.round((np.where(known[:, i], xy[:, i], low) - low) / ((high - low) or 1.0) * 65_534)
        scaled[~known[:, i]] = 65_535
        found["spans"].append([low, high])
        found[axis] = _base64(scaled.astype("<u2"))
    wide = bool(len(labels)) and int(labels.max()) >= 1 << 15
    return {**found, "cluster": _base64(labels.astype("<i4" if wide else "<i2")), "wide": wide}


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


def _map(content: Share) -> Markup:
    """The rows as a picture with clear ground, and the numbers of the clusters at their central rows."""
    known = np.isfinite(content.xy).all(axis=1)
    xy, labels = content.xy[known].astype(np.float64), content.labels[known]
    if not len(xy):
        return Markup("")
    frame, (width, height) = frame_of(xy), MAP
    inside = frame.clip(xy)
    drawn, of = inside, labels
    if len(xy) <= MARKS_BELOW:
        drawn, of = widened(inside, labels, frame, MAP, int(np.clip(round(90 / np.sqrt(len(xy))), 1, 4)))
    picture = paint_clear(rasterize(drawn, of, frame, width, height), 0.28 if len(xy) > MARKS_BELOW else 0.8)
    encoded = base64.b64encode(encode_png(picture, level=6)).decode()
    clusters, at = central_rows(inside, labels)
    places = (at - (frame.x0, frame.y0)) / (frame.x1 - frame.x0, frame.y1 - frame.y0) * (1, -1) + (0, 1)
    spans, taken = [], np.empty((0, 2))
    names = {c.cluster: c.name for c in content.clusters}
    for cluster, place in zip(clusters[:MAX_LABELS].tolist(), places[:MAX_LABELS], strict=True):
        if (np.abs(taken - place * MAP) < LABEL_GAP).all(axis=1).any():
            continue
        taken = np.vstack((taken, place * MAP))
        color = cluster_color(cluster)
        spans.append(
            f'<a class="chip" href="#cluster-{cluster}" title="{escape(one_line(names.get(cluster, "")))}" '
            f'style="--chip:{color};--chip-ink:{ink_on(color)};left:{100 * place[0]:.2f}%;top:{100 * place[1]:.2f}%">{cluster}</a>'
        )
    note = f"Each of the {count(len(content.xy))} {rows_word(content.preset)} by its {content.placed}"
    return Markup(
        f'<figure class="map" id="map"><div class="plane"><img width="{width}" height="{height}" alt="Map of the clusters" '
        f'src="data:image/png;base64,{encoded}">{"".join(spans)}</div>'
        f"<figcaption>{note}: {data(content.axes[0])} across, {data(content.axes[1])} up.</figcaption></figure>"
    )
