"""Addresses that a player or a browser can open: from an item's own columns, or made from a template.

    https://open.spotify.com/track/{id}

A template holds some of ``{id}``, ``{title}``, ``{creator}`` and ``{query}`` (title and creator), each percent-encoded.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import string
from urllib.parse import quote, urlsplit

from gpuclust.errors import ConfigurationError
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
_NEVER = ("javascript:", "data:", "vbscript:")


def check_template(template: str, option: str = "--previews", *, web: bool = True) -> None:
    """Raises ConfigurationError when a template cannot work: no address (``web``: no http or https address), or a field
    that is not one of `FIELDS`."""
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ConfigurationError(f"{option} {template} is no template ({error})") from error
    if web and not is_address(template):
        raise ConfigurationError(f"{option} {template} is no http or https address")
    if not web and (not _SCHEME.match(template) or template.lower().startswith(_NEVER) or not template.isprintable()):
        raise ConfigurationError(f"{option} {template} is no address; write it as in https://example.org/{{id}}")
    if not names or set(names) - set(FIELDS):
        raise ConfigurationError(f"{option} {template} must hold one of {', '.join(f'{{{f}}}' for f in FIELDS)}")


def filled(template: str, item: Item) -> str:
    """The address of an item by a template that `check_template` accepts."""
    named = {"id": item.id, "title": item.title, "creator": " ".join(item.creators)}
    named["query"] = " ".join(filter(None, (named["title"], named["creator"]))) or item.id
    return template.format(**{name: quote(text, safe="") for name, text in named.items()})


def is_address(text: str) -> bool:
    """Whether a text is an http or https address; anything else is never given to a browser."""
    try:
        parts = urlsplit(text.strip())
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not any(c.isspace() for c in text.strip())
    except ValueError:
        return False


def location_of(item: Item, template: str | None = None) -> str:
    """What a player opens to play an item: by the template, else the item's web address or audio file, else its preview;
    empty where there is none. No other scheme, network share or kind of file of a table is given to a player."""
    if template is not None:
        return filled(template, item)
    return web_address(item.url) or _file(item.url) or web_address(item.preview)


def web_address(text: str) -> str:
    """A web address without its user part; empty for another scheme, and for an address that only this machine or its
    own network link knows, as the metadata services of cloud machines are."""
    try:
        parts = urlsplit(quote(text.strip(), safe=_RESERVED))
        if parts.scheme not in ("http", "https") or not parts.hostname or not _is_elsewhere(parts.hostname):
            return ""
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    except ValueError:
        return ""


def _is_elsewhere(host: str) -> bool:
    """Whether a host can be another machine's: not this one's, not link-local, in whichever way its number is written."""
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
    """A path, or a file: address, of a sound on this machine."""
    path = text.removeprefix("file://") if text.startswith("file:///") else text
    shared = path.startswith(("//", "\\\\", "/\\", "\\/"))
    usable = text.isprintable() and path.lower().endswith(AUDIO) and not path.startswith("#")
    return text if usable and not shared and not _SCHEME.match(path) else ""
