"""Where to listen to an item: its own preview, or one that a lookup service knows; nothing where there is none.

A lookup is off unless the server was started with a template, such as

    https://example.org/search?term={query}

(see `gpuclust.serve.links`). The service answers with a sound, or with JSON whose first address under a key named like a
preview is taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from gpuclust.serve.links import filled, is_address
from gpuclust.serve.records import Item

KEYS = ("previewurl", "preview_url", "preview", "audio_preview", "audio", "audiourl", "audio_url")
TIMEOUT_SECONDS = 4
MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Preview:
    """``url`` of a sound, or empty with the reason why there is none."""

    url: str = ""
    reason: str = ""


def preview_of(item: Item, template: str | None) -> Preview:
    """The preview of an item: from its own column, else from the lookup; never raises."""
    if is_address(item.preview):
        return Preview(item.preview.strip())
    if template is None:
        return Preview(reason="This item has no preview.")
    return _looked_up(filled(template, item))


@lru_cache(maxsize=1_000)
def _known(url: str) -> str:
    """The sound that a service names at an address, empty when it names none; failures are not kept."""
    request = Request(url, headers={"Accept": "application/json, audio/*", "User-Agent": "gpuclust"})
    with urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        if response.headers.get_content_maintype() == "audio":
            return str(response.url)
        found = json.loads(response.read(MAX_BYTES))
    return next(_addresses(found), "")


def _looked_up(url: str) -> Preview:
    try:
        found = _known(url)
    except (URLError, OSError, ValueError, RecursionError):
        return Preview(reason="The preview service did not answer; try again later.")
    return Preview(found) if found else Preview(reason="The preview service knows no preview of this item.")


def _addresses(value: Any) -> Iterator[str]:
    """Addresses under keys named like a preview, in their order."""
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
