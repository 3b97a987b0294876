"""Write playlists: a text table, CSV for spreadsheets, JSON, M3U8 for media players, and a list of URIs."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gpuclust.errors import ExportError, InputError
from gpuclust.sanitize import printable, safe_cell, safe_row
from gpuclust.tracks.links import location_of, uri_of
from gpuclust.tracks.playlist import Playlist, PlaylistEntry

if TYPE_CHECKING:
    from gpuclust.serve.records import Item

FORMATS = ("table", "csv", "json", "m3u8", "uris")
# The formats of addresses, and the address of an item in each; items without one are left out.
ADDRESSES: Mapping[str, Callable[[Item, str | None], str]] = {"m3u8": location_of, "uris": uri_of}
MAX_CELL_LENGTH = 48  # characters of a title or a creator in the table
DURATION = "duration_ms"  # the feature with the length of an item


def render(playlist: Playlist, form: str, *, url_template: str | None = None, option: str = "--url-template") -> str:
    """Convert a playlist to text in one of `FORMATS`.

    M3U8 contains the items that a player can open (see `gpuclust.tracks.links.location_of`); ``uris`` has a line for each item
    that has a URI (`gpuclust.tracks.links.uri_of`). Raises InputError for an unknown format, or if no item has an address;
    ``option`` is the option that the message recommends.
    """
    if form not in FORMATS:
        raise InputError(f"the format {form!r} is not one of {', '.join(FORMATS)}")
    if form in ADDRESSES:
        if playlist.items and not any(ADDRESSES[form](item, url_template) for item in playlist.items):
            raise InputError(
                f"{form} needs addresses that a player can open, and this export has no column of web addresses or audio files; "
                f"give {option}, as in 'https://open.spotify.com/track/{{id}}', or choose another format"
            )
        return (_m3u8 if form == "m3u8" else _uris)(playlist, url_template)
    return {"table": _table, "csv": _csv, "json": _json}[form](playlist)


def write(playlist: Playlist, path: Path, form: str, *, force: bool = False, url_template: str | None = None) -> Path:
    """Write a playlist to a file in one step. Raises ExportError if the file exists or cannot be written, and InputError as
    `render` does."""
    if path.exists() and not force:
        raise ExportError(f"{path} exists; name another --out, or replace it with --force")
    text = render(playlist, form, url_template=url_template)
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Excel reads CSV as UTF-8 only with a byte-order mark.
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
    rows = [_row(i, entry) | {"duration": duration(entry.item)} for i, entry in enumerate(playlist.entries, 1)]
    shown = [["" if name == "position" else name for name in COLUMNS]]
    shown += [[_cut(row[name]) for name in COLUMNS] for row in rows]
    kept = [j for j in range(len(COLUMNS)) if any(row[j] for row in shown[1:])]
    if len({row["cluster"] for row in rows}) == 1:
        kept.remove(COLUMNS.index("cluster"))  # the same in each line
    widths = {j: max(_width(row[j]) for row in shown) for j in kept}
    lines = ["  ".join(row[j] + " " * (widths[j] - _width(row[j])) for j in kept).rstrip() for row in shown]
    notes = [f"({printable(note)})" for note in playlist.notes]
    return "\n".join([printable(playlist.name), *lines, *notes]) + "\n"


def length_of(item: Item) -> float | None:
    """The length of an item in milliseconds, from a feature or another column; None if unknown."""
    length = item.features.get(DURATION)
    return item.duration_ms if length is None else length


def duration(item: Item) -> str:
    """The length of an item, as ``3:45``; empty if unknown."""
    length = length_of(item)
    if length is None or not 0 <= length < 1e9:
        return ""
    minutes, seconds = divmod(round(length / 1000), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"


def _row(position: int, entry: PlaylistEntry) -> dict[str, str]:
    item = entry.item
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
        "distance": f"{entry.distance:.6g}",
        "preview": item.preview,
    }


def _cut(text: str) -> str:
    text = printable(text)
    return text if len(text) <= MAX_CELL_LENGTH else text[: MAX_CELL_LENGTH - 1] + "…"


def _width(text: str) -> int:
    """The width in a terminal: wide characters take two columns, combining marks none."""
    from unicodedata import category, east_asian_width

    return sum(0 if category(c) in ("Mn", "Me", "Cf") else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def _csv(playlist: Playlist) -> str:
    """CSV in which text that a spreadsheet would run as a formula begins with an apostrophe."""
    out = io.StringIO()
    rows = [_row(i, t) for i, t in enumerate(playlist.entries, 1)]
    features = list(playlist.items[0].features) if playlist.entries else []
    names = [*_row(0, playlist.entries[0]), *features] if playlist.entries else ["position", "id", "title", "creator"]
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(safe_row(names))
    numbers = {"position", "popularity", "year", "cluster", "distance"}
    for row, item in zip(rows, playlist.items, strict=True):
        cells = [value if name in numbers else safe_cell(value) for name, value in row.items()]
        writer.writerow([*cells, *("" if (v := item.features[f]) is None else repr(v) for f in features)])
    return out.getvalue()


def _json(playlist: Playlist) -> str:
    return json.dumps(playlist.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _m3u8(playlist: Playlist, template: str | None) -> str:
    """Extended M3U in UTF-8 (tags as in RFC 8216): for each item a line with its length and title, then its address."""
    lines = ["#EXTM3U", f"#PLAYLIST:{printable(playlist.name)}"]
    for item in playlist.items:
        location = location_of(item, template)
        if not location:
            continue
        length = length_of(item)
        seconds = -1 if length is None else round(length / 1000)
        what = " - ".join(filter(None, (printable(item.creator), printable(item.title or item.id))))
        lines += [f"#EXTINF:{seconds},{what}", location]
    return "\n".join(lines) + "\n"


def _uris(playlist: Playlist, template: str | None) -> str:
    """A line for each URI, for a player into which a list of URIs can be pasted."""
    return "".join(f"{uri}\n" for item in playlist.items if (uri := uri_of(item, template)))
