"""Playlists as files: a table for people, CSV for spreadsheets, JSON for programs, M3U8 for players."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

from gpuclust.errors import ExportError, InputError
from gpuclust.sanitize import safe_cell, safe_row
from gpuclust.serve.links import location_of
from gpuclust.serve.playlist import Playlist, Taken
from gpuclust.serve.records import Item
from gpuclust.serve.text import printable

FORMATS = ("table", "csv", "json", "m3u8")
WIDEST = 48  # characters of a title or a creator in the table
DURATION = "duration_ms"  # the feature that says how long an item plays


def render(playlist: Playlist, form: str, *, url_template: str | None = None, option: str = "--url-template") -> str:
    """The playlist as text in one of `FORMATS`.

    M3U8 holds the items that a player can open (see `gpuclust.serve.links.location_of`). Raises InputError for another
    format, or when no item has an address; ``option`` is what it advises to set.
    """
    if form not in FORMATS:
        raise InputError(f"the format {form!r} is not one of {', '.join(FORMATS)}")
    if form == "m3u8":
        return _m3u8(playlist, url_template, option)
    return {"table": _table, "csv": _csv, "json": _json}[form](playlist)


def write(playlist: Playlist, path: Path, form: str, *, force: bool = False, url_template: str | None = None) -> Path:
    """Write the playlist; the file is whole or not there. Raises ExportError when it exists or cannot be written, and
    InputError as `render`."""
    if path.exists() and not force:
        raise ExportError(f"{path} exists; name another --out, or replace it with --force")
    text = render(playlist, form, url_template=url_template)
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # An Excel that is not told otherwise reads CSV in an encoding of its own; a mark at the start tells it.
        encoding = "utf-8-sig" if form == "csv" else "utf-8"
        temporary.write_text(text, encoding=encoding, newline="")
        os.replace(temporary, path)  # noqa: PTH105  replaces on every system
    except OSError as error:
        raise ExportError(f"{path} cannot be written ({error.strerror or error}); name another --out") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


COLUMNS = ("position", "title", "creator", "album", "year", "duration", "popularity", "cluster", "id")


def _table(playlist: Playlist) -> str:
    rows = [_row(i, taken) | {"duration": duration(taken.item)} for i, taken in enumerate(playlist.taken, 1)]
    shown = [["" if name == "position" else name for name in COLUMNS]]
    shown += [[_cut(row[name]) for name in COLUMNS] for row in rows]
    kept = [j for j in range(len(COLUMNS)) if any(row[j] for row in shown[1:])]
    if len({row["cluster"] for row in rows}) == 1:
        kept.remove(COLUMNS.index("cluster"))  # it says the same in each line
    widths = {j: max(_width(row[j]) for row in shown) for j in kept}
    lines = ["  ".join(row[j] + " " * (widths[j] - _width(row[j])) for j in kept).rstrip() for row in shown]
    notes = [f"({printable(note)})" for note in playlist.notes]
    return "\n".join([printable(playlist.name), *lines, *notes]) + "\n"


def length_of(item: Item) -> float | None:
    """How long an item plays in milliseconds, by a feature or another column; None where that is unknown."""
    length = item.features.get(DURATION)
    return item.duration_ms if length is None else length


def duration(item: Item) -> str:
    """How long an item plays, as ``3:45``; empty where that is unknown."""
    length = length_of(item)
    if length is None or not 0 <= length < 1e9:
        return ""
    minutes, seconds = divmod(round(length / 1000), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"


def _row(position: int, taken: Taken) -> dict[str, str]:
    item = taken.item
    return {
        "position": str(position),
        "id": item.id,
        "title": item.title,
        "creator": item.creator,
        "album": item.album,
        "group": "; ".join(item.groups),
        "popularity": "" if item.popularity is None else f"{item.popularity:g}",
        "year": "" if item.year is None else str(item.year),
        "cluster": str(item.cluster),
        "cluster_name": item.cluster_name,
        "distance": f"{taken.distance:.6g}",
        "preview": item.preview,
    }


def _cut(text: str) -> str:
    text = printable(text)
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _width(text: str) -> int:
    """Columns of a terminal: wide characters take two, marks none."""
    from unicodedata import category, east_asian_width

    return sum(0 if category(c) in ("Mn", "Me", "Cf") else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def _csv(playlist: Playlist) -> str:
    """CSV that is safe in a spreadsheet: a text that it would run as a formula begins with an apostrophe."""
    out = io.StringIO()
    rows = [_row(i, t) for i, t in enumerate(playlist.taken, 1)]
    features = list(playlist.items[0].features) if playlist.taken else []
    names = [*_row(0, playlist.taken[0]), *features] if playlist.taken else ["position", "id", "title", "creator"]
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(safe_row(names))
    numbers = {"position", "popularity", "year", "cluster", "distance"}
    for row, item in zip(rows, playlist.items, strict=True):
        cells = [value if name in numbers else safe_cell(value) for name, value in row.items()]
        writer.writerow([*cells, *("" if (v := item.features[f]) is None else repr(v) for f in features)])
    return out.getvalue()


def _json(playlist: Playlist) -> str:
    return json.dumps(playlist.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _m3u8(playlist: Playlist, template: str | None, option: str) -> str:
    """Extended M3U in UTF-8 (RFC 8216 names its tags): a line of what an item is, then where it is."""
    lines = ["#EXTM3U", f"#PLAYLIST:{printable(playlist.name)}"]
    for item in playlist.items:
        location = location_of(item, template)
        if not location:
            continue
        length = length_of(item)
        seconds = -1 if length is None else round(length / 1000)
        what = " - ".join(filter(None, (printable(item.creator), printable(item.title or item.id))))
        lines += [f"#EXTINF:{seconds},{what}", location]
    if playlist.items and len(lines) == 2:
        raise InputError(
            "M3U8 needs addresses that a player can open, and this export has no column of web addresses or audio files; "
            f"give {option}, as in 'https://open.spotify.com/track/{{id}}', or choose another format"
        )
    return "\n".join(lines) + "\n"
