"""Audio previews of items: the preview column of the export, or the result of a lookup service.

There is no lookup unless the server was started with a template, such as

    https://example.org/search?term={query}

(see `gpuclust.tracks.links`). The service returns audio, or JSON; in JSON the first address under a key named like a
preview is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from gpuclust.tracks.links import fill_template, is_address

if TYPE_CHECKING:
    from gpuclust.serve.records import Item

KEYS = ("previewurl", "preview_url", "preview", "audio_preview", "audio", "audiourl", "audio_url")
TIMEOUT_SECONDS = 4
MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Preview:
    """The ``url`` of a preview, or an empty ``url`` and the ``reason``."""

    url: str = ""
    reason: str = ""


def preview_of(item: Item, template: str | None) -> Preview:
    """The preview of an item from its column, else from the lookup. Never raises."""
    if is_address(item.preview):
        return Preview(item.preview.strip())
    if template is None:
        return Preview(reason="This item has no preview.")
    return _look_up(fill_template(template, item))


@lru_cache(maxsize=1_000)
def _request(url: str) -> str:
    """Request a preview from a lookup service; empty if the service has none. Failures are not cached."""
    request = Request(url, headers={"Accept": "application/json, audio/*", "User-Agent": "gpuclust"})
    with urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        if response.headers.get_content_maintype() == "audio":
            return str(response.url)
        found = json.loads(response.read(MAX_BYTES))
    return next(_addresses(found), "")


def _look_up(url: str) -> Preview:
    try:
        found = _request(url)
    except (URLError, OSError, ValueError, RecursionError):
        return Preview(reason="The preview service did not answer; try again later.")
    return Preview(found) if found else Preview(reason="The preview service knows no preview of this item.")


def _addresses(value: Any) -> Iterator[str]:
    """Yield the addresses under keys named like a preview, in document order."""
    if isinstance(value, list):
        for entry in value:
            yield from _addresses(entry)
    elif isinstance(value, dict):
        for key, entry in value.items():
            if isinstance(entry, str):
                if key.lower() in KEYS and is_address(entry):
                    yield entry.strip()
            else:
                yield from _addresses(entry)
