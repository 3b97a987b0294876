"""Addresses of items for a media player or a browser: from columns of the export, from ids of a known form, or from a template.

    https://open.spotify.com/track/{id}

A template contains some of ``{id}``, ``{title}``, ``{creator}`` and ``{query}`` (title and creator), each percent-encoded.
Ids of a known form are those of Spotify: the id of a track (22 letters and digits), its URI or its web address.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import string
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from gpuclust.errors import ConfigurationError

if TYPE_CHECKING:
    from gpuclust.serve.records import Item

FIELDS = ("id", "title", "creator", "query")
AUDIO = (
    ".aac",
    ".aif",
    ".aiff",
    ".flac",
    ".m4a",
    ".mka",
    ".mp3",
    ".mp4",
    ".oga",
    ".ogg",
    ".opus",
    ".wav",
    ".webm",
    ".wma",
)
_RESERVED = ":/?#[]@!$&'()*+,;=%~"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)  # two characters or more: C:\ is a drive
_TRACK = re.compile(
    r"(?:spotify:track:|https?://open\.spotify\.com/(?:intl-[a-z]+/)?track/)(?P<id>[0-9A-Za-z]{22})(?:[?#].*)?"
)
# A number of 128 bits in base 62, so that the first character is at most 7; ids of other kinds rarely have digits and both cases.
_TRACK_ID = re.compile(r"(?=.*[a-z])(?=.*[A-Z])[0-7][0-9A-Za-z]{21}")
_NEVER = ("javascript:", "data:", "vbscript:")


def check_template(template: str, option: str = "--previews", *, web: bool = True) -> None:
    """Raise ConfigurationError if a template is not an address (with ``web``, an http or https address), or has a field that
    is not one of `FIELDS`."""
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ConfigurationError(f"{option} {template} is not a template ({error})") from error
    if web and not is_address(template):
        raise ConfigurationError(f"{option} {template} is not an http or https address")
    if not web and (not _SCHEME.match(template) or template.lower().startswith(_NEVER) or not template.isprintable()):
        raise ConfigurationError(f"{option} {template} is not an address; write it as in https://example.org/{{id}}")
    if not names or set(names) - set(FIELDS):
        raise ConfigurationError(f"{option} {template} must hold one of {', '.join(f'{{{f}}}' for f in FIELDS)}")


def fill_template(template: str, item: Item) -> str:
    """The address of an item from a template that `check_template` accepts."""
    named = {"id": item.id, "title": item.title, "creator": " ".join(item.creators)}
    named["query"] = " ".join(filter(None, (named["title"], named["creator"]))) or item.id
    return template.format(**{name: quote(text, safe="") for name, text in named.items()})


def is_address(text: str) -> bool:
    """Whether a text is an http or https address. No other text is passed to a browser."""
    try:
        parts = urlsplit(text.strip())
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not any(c.isspace() for c in text.strip())
    except ValueError:
        return False


def location_of(item: Item, template: str | None = None) -> str:
    """The address at which a player finds an item: from the template, else the item's web address or audio file, else its
    preview, else the page of its track; empty if there is none. Other schemes, network shares and other kinds of files are rejected."""
    if template is not None:
        return fill_template(template, item)
    return web_address(item.url) or _file(item.url) or web_address(item.preview) or track_page(item)


def page_of(item: Item, template: str | None = None) -> str:
    """The web page of an item, from the template, its column or its id; empty if there is none."""
    return fill_template(template, item) if template is not None else web_address(item.url) or track_page(item)


def uri_of(item: Item, template: str | None = None) -> str:
    """The URI that identifies an item: ``spotify:track:ID`` if its id has this form (and there is no template), else `location_of`."""
    return f"spotify:track:{item.track}" if item.track and template is None else location_of(item, template)


def track_id(id: str, url: str = "") -> str:
    """The id of a track at Spotify, from the id of a row or its web address; empty if neither has the form of one."""
    for written in (id, url):
        if (found := _TRACK.fullmatch(written.strip())) is not None:
            return found["id"]
    return id.strip() if _TRACK_ID.fullmatch(id.strip()) else ""


def track_page(item: Item) -> str:
    """The web page of a track of Spotify; empty for other items."""
    return f"https://open.spotify.com/track/{item.track}" if item.track else ""


def embedded_player(item: Item) -> str:
    """The address of a player of a track of Spotify for a frame of a page; empty for other items."""
    return f"https://open.spotify.com/embed/track/{item.track}" if item.track else ""


def web_address(text: str) -> str:
    """A web address without its user part; empty for other schemes, and for loopback and link-local addresses such as the
    metadata services of cloud machines."""
    try:
        parts = urlsplit(quote(text.strip(), safe=_RESERVED))
        if parts.scheme not in ("http", "https") or not parts.hostname or not _is_remote(parts.hostname):
            return ""
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    except ValueError:
        return ""


def _is_remote(host: str) -> bool:
    """Whether a host may be another machine: not loopback or link-local, in any notation of its address."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith((".localhost", ".internal")):
        return False
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(host))  # 2852039166, 0xa9fea9fe, 169.254.43518
        except OSError:
            return True  # a name
    mapped = getattr(address, "ipv4_mapped", None) or address
    return not (mapped.is_link_local or mapped.is_loopback or mapped.is_unspecified or mapped.is_multicast)


def _file(text: str) -> str:
    """The path or file: address of an audio file on this machine; empty for any other text."""
    path = text.removeprefix("file://") if text.startswith("file:///") else text
    shared = path.startswith(("//", "\\\\", "/\\", "\\/"))
    usable = text.isprintable() and path.lower().endswith(AUDIO) and not path.startswith("#")
    return text if usable and not shared and not _SCHEME.match(path) else ""
