"""What a server was started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """The export ``folder`` that is shown, another to ``compare`` it with, the template of a ``previews`` lookup, and that of
    an item's page (``url_template``)."""

    folder: Path
    compare: Path | None = None
    previews: str | None = None
    url_template: str | None = None


_settings: Settings | None = None


def configure(settings: Settings) -> None:
    """Say what this process serves; once, before its first page."""
    global _settings
    _settings = settings


def settings() -> Settings:
    """What this process serves."""
    assert _settings is not None, "the explorer is started by launch.explore"
    return _settings
