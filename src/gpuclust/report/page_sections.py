"""The sections of a page, each from plain values to HTML; None where there is nothing to show."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from gpuclust.report.markup import Html, data, join, tag
from gpuclust.report.palette import cluster_color, ink_on
from gpuclust.report.report_models import ClusterCard, FeatureLine, Item, Picture, ShareLine, Verdict
from gpuclust.report.text import cluster_label, count, number, one_line, percent

MAX_CARDS = 60
_FRACTIONS = ("fraction", "noise_fraction", "largest_fraction", "smallest_fraction", "explained_variance")
_SHOWN_OTHERWISE = ("chosen", "rank", "failure")
_BAR_LIMIT = 3.0


def verdict(value: Verdict | None) -> Html | None:
    """The decision and the figures that led to it."""
    if value is None or not value.text:
        return None
    because = tag("ul", *(tag("li", data(line, 400)) for line in value.because)) if value.because else None
    return tag("div", tag("p", data(value.text, 2000)), because, class_="verdict")


def warnings(texts: Sequence[str]) -> Html | None:
    """What to know before using the clustering, in a box of its own."""
    if not texts:
        return None
    return tag(
        "div",
        *(tag("p", tag("strong", "Warning: "), data(text, 2000)) for text in texts),
        class_="warning",
        role="note",
    )


def tiles(metrics: Mapping[str, float]) -> Html | None:
    """One tile for each metric."""
    if not metrics:
        return None
    made = [tag("div", tag("dt", words(name)), tag("dd", value_text(name, value))) for name, value in metrics.items()]
    return tag("dl", *made, class_="tiles")


def leaderboard(rows: Sequence[Mapping[str, Any]]) -> Html | None:
    """A table with a row for each job and every column that any row fills; the chosen job is marked."""
    if not rows:
        return None
    columns = _columns(rows)
    numeric = {c for c in columns if all(_is_number(row.get(c)) or not _filled(row.get(c)) for row in rows)}
    head = tag(
        "tr", tag("th", "#", class_="n"), *(tag("th", words(c), class_="n" if c in numeric else None) for c in columns)
    )
    body = [_leaderboard_row(i + 1, row, columns, numeric) for i, row in enumerate(rows)]
    table = tag("table", tag("thead", head), tag("tbody", *body), class_="board")
    scroll = tag("div", table, class_="scroll", tabindex="0", role="region", aria_label="Leaderboard")
    failures = [
        tag("li", data(row.get("job", "")), ": ", data(row["failure"], 600)) for row in rows if row.get("failure")
    ]
    return join(scroll, tag("h4", "Failed"), tag("ul", *failures, class_="failed")) if failures else scroll


def figures(pictures: Sequence[Picture]) -> Html | None:
    """The figures with their notes, each inside the page."""
    if not pictures:
        return None
    made = []
    for picture in pictures:
        source = Html("data:image/png;base64," + base64.b64encode(picture.png).decode("ascii"))
        image = tag("img", alt=picture.title, src=source)
        made.append(tag("figure", image, tag("figcaption", data(picture.note, 500)) if picture.note else None))
    return tag("div", *made, class_="figures")


def cards(clusters: Sequence[ClusterCard]) -> Html | None:
    """A card for each cluster, up to sixty."""
    if not clusters:
        return None
    shown = clusters[:MAX_CARDS]
    rest = len(clusters) - len(shown)
    more = tag("p", f"and {count(rest)} more clusters, in profile.csv", class_="quiet") if rest else None
    return join(tag("div", *(_card(c) for c in shown), class_="cards"), more)


def audit(value: Mapping[str, Any] | None) -> Html | None:
    """What was read, what each cleaning rule took, which columns were left out and why."""
    if not value:
        return None
    read, kept = value.get("rows_read", 0), value.get("rows_kept", 0)
    parts = [tag("p", f"{count(read)} rows read, {count(kept)} kept.")]
    if value.get("warnings"):
        parts.append(tag("ul", *(tag("li", data(line, 600)) for line in value["warnings"])))
    if value.get("features"):
        parts.append(tag("p", "Features: ", join(*_commas(value["features"])), "."))
    steps = [
        (
            s.get("rule", ""),
            s.get("detail", ""),
            s.get("rows_before", 0),
            s.get("rows_removed", 0),
            s.get("cells_changed", 0),
        )
        for s in value.get("steps", ())
    ]
    if steps:
        parts.append(table(("rule", "what", "rows before", "rows removed", "cells changed"), steps))
    left_out = [(c.get("column", ""), c.get("why", "")) for c in value.get("left_out", ())]
    if left_out:
        parts += [tag("h4", "Columns not used as features"), table(("column", "why"), left_out)]
    if value.get("notes"):
        parts += [tag("h4", "Notes"), tag("ul", *(tag("li", data(note, 600)) for note in value["notes"]))]
    if value.get("source"):
        parts += [tag("h4", "Source"), definitions(value["source"])]
    return join(*parts)


def reproduce(command: str, configuration: str, about: Mapping[str, str]) -> Html | None:
    """The exact command, the configuration, run ids and versions."""
    if not (command or configuration or about):
        return None
    settings = (
        tag("details", tag("summary", "The whole configuration"), tag("pre", configuration)) if configuration else None
    )
    return join(tag("pre", tag("code", command)) if command else None, settings, definitions(about) if about else None)


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> Html:
    """A plain table; columns of numbers are aligned at the right."""
    numeric = [all(_is_number(row[i]) for row in rows) for i in range(len(heads))]
    head = tag("tr", *(tag("th", h, class_="n" if n else None) for h, n in zip(heads, numeric, strict=True)))
    body = [
        tag(
            "tr",
            *(tag("td", data(number(v), 600), class_="n" if n else None) for v, n in zip(row, numeric, strict=True)),
        )
        for row in rows
    ]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="scroll")


def definitions(values: Mapping[str, Any]) -> Html:
    """Names and values, one below the other."""
    pairs = [
        (tag("dt", data(str(key).replace("_", " "))), tag("dd", data(number(value), 600)))
        for key, value in values.items()
    ]
    return tag("dl", *(part for pair in pairs for part in pair), class_="about")


def words(name: str) -> str:
    """A column's or metric's name as people read it."""
    return one_line(name).rpartition(".")[2].replace("_", " ")


def value_text(name: str, value: Any) -> str:
    """A metric as people read it: shares in per cent, times in seconds."""
    if not _is_number(value) or not math.isfinite(value):
        return number(value)
    if name in _FRACTIONS:
        return percent(value)
    if name.endswith("_seconds"):
        return f"{value:.3g} s"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 10 and value != int(value) else number(value)


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The job's name, then what any row fills, each fact once; run ids last."""
    present = [c for c in dict.fromkeys(c for row in rows for c in row) if any(_filled(row.get(c)) for row in rows)]

    def said_elsewhere(column: str) -> bool:
        """Whether ``cluster.n_clusters`` only repeats ``n_clusters``."""
        plain = column.rpartition(".")[2]
        return plain != column and plain in present and all(r.get(plain) in (r.get(column), None) for r in rows)

    kept = [c for c in present if c not in _SHOWN_OTHERWISE and not said_elsewhere(c)]
    return sorted(kept, key=lambda c: 0 if c == "job" else 2 if c == "run_id" else 1)


def _leaderboard_row(rank: int, row: Mapping[str, Any], columns: Sequence[str], numeric: set[str]) -> Html:
    """One job of the leaderboard."""
    chosen = row.get("chosen") in (True, "true", "True")
    cells = [tag("td", number(row.get("rank", rank)), class_="n")]
    for i, column in enumerate(columns):
        value = row.get(column)
        text = _cell(column, value)
        if i == 0:
            cells.append(tag("th", text, tag("span", "chosen", class_="mark") if chosen else None, scope="row"))
        else:
            cells.append(tag("td", text, class_="n" if column in numeric else None))
    failed = str(row.get("status", "")).lower() == "failed"
    return tag("tr", *cells, class_="chosen" if chosen else "failed" if failed else None)


def _cell(column: str, value: Any) -> Html:
    """One value of the leaderboard; a run id is shortened, the whole one is its tooltip."""
    if not _filled(value):
        return Html("")
    if column == "run_id":
        return tag("code", data(str(value)[:8]), title=str(value))
    return data(value_text(column, value), 300)


def _card(card: ClusterCard) -> Html:
    """One cluster."""
    color = cluster_color(card.cluster)
    chip = tag("span", cluster_label(card.cluster), class_="chip")
    share = tag("div", tag("i", style=f"width:{100 * min(max(card.fraction, 0.0), 1.0):.2f}%"), class_="share")
    parts = [
        tag("header", chip, tag("h3", data(card.name, 120))),
        tag("p", f"{count(card.size)} rows · {percent(card.fraction)}", class_="quiet"),
        share,
        tag("p", data(card.description, 600)) if card.description else None,
        _features(card.features) if card.features else None,
        tag("p", "Rule: ", data(card.rule, 400), class_="quiet") if card.rule else None,
        _titled("Top groups", [_share(line) for line in card.top_groups]),
        _titled("Top creators", [_share(line) for line in card.top_creators]),
        _titled("Representative", [_item(item) for item in card.representative]),
        _titled("Most popular", [_item(item) for item in card.popular]),
    ]
    return tag("article", *parts, class_="card", style=f"--chip:{color};--chip-ink:{ink_on(color)}")


def _features(lines: Sequence[FeatureLine]) -> Html:
    """Means with a bar for the distance from the mean of all rows."""
    heads = [("feature", None), ("mean", "n"), ("z", "n"), ("", "bar")]
    rows = []
    for line in lines:
        size = 50 * min(abs(line.z) / _BAR_LIMIT, 1.0) if math.isfinite(line.z) else 0.0
        bar = tag(
            "span", tag("i", class_="above" if line.z >= 0 else "below", style=f"width:{size:.1f}%"), aria_hidden="true"
        )
        z = f"{line.z:+.2f}" + (f" ± {line.z_se:.2f}" if line.z_se is not None and line.z_se >= 0.005 else "")
        title = None if line.median is None else f"median {number(line.median)}"
        mean = tag("td", number(line.mean), class_="n", title=title)
        rows.append(
            tag("tr", tag("td", data(line.feature, 60)), mean, tag("td", z, class_="n"), tag("td", bar, class_="bar"))
        )
    head = tag("tr", *(tag("th", text, class_=kind) for text, kind in heads))
    return tag("table", tag("thead", head), tag("tbody", *rows))


def _titled(title: str, items: Sequence[Html]) -> Html | None:
    """A heading and a list, None without items."""
    return join(tag("h4", title), tag("ul", *(tag("li", item) for item in items))) if items else None


def _share(line: ShareLine) -> Html:
    """``rock 1,204 (2.1×)``."""
    lift = "" if line.lift is None else f" ({line.lift:.1f}×)"
    return join(data(line.value, 80), tag("span", f" {count(line.count)}{lift}", class_="quiet"))


def _item(item: Item) -> Html:
    """``title · creator · note``."""
    rest = [tag("span", " · ", data(text, 100), class_="quiet") for text in (item.creator, item.note) if text]
    return join(data(item.title or "(no title)", 120), *rest)


def _commas(texts: Sequence[Any]) -> list[Html]:
    """Texts from the data with commas between them."""
    return [join(tag("span", ", ") if i else None, data(text, 60)) for i, text in enumerate(texts)]


def _filled(value: Any) -> bool:
    """Whether a cell has something to show."""
    return value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))


def _is_number(value: Any) -> bool:
    """Whether the value is a number (a bool is not)."""
    return isinstance(value, Real) and not isinstance(value, bool)
