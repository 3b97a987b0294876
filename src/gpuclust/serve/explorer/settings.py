"""The settings of the explorer process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """The export ``folder``, another export to ``compare`` with, the URL template of a ``previews`` lookup, and the URL template
    of the page of an item (``url_template``), and what gives clusters names in an export (``rename``); None: visitors may not."""

    folder: Path
    compare: Path | None = None
    previews: str | None = None
    url_template: str | None = None
    rename: Callable[[Path, Mapping[int, str]], object] | None = None


_settings: Settings | None = None


def configure(settings: Settings) -> None:
    """Set the settings of this process; called once, before the first page."""
    global _settings
    _settings = settings


def settings() -> Settings:
    """The settings of this process."""
    assert _settings is not None, "the explorer is started by launch.explore"
    return _settings
