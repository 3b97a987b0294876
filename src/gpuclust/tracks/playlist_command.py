"""`gpuclust playlist`: make a playlist from the options of the command, and print or write it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpuclust.errors import InputError
from gpuclust.tracks.links import check_template
from gpuclust.tracks.playlist import Playlist, PlaylistOptions, from_cluster, from_liked, from_taste
from gpuclust.tracks.playlist_files import ADDRESSES, FORMATS, render, write

if TYPE_CHECKING:
    from gpuclust.serve.library import Library

SUFFIXES = {".csv": "csv", ".json": "json", ".m3u8": "m3u8", ".m3u": "m3u8", ".txt": "table"}


@dataclass(frozen=True)
class PlaylistRequest:
    """The options of the command; ``form`` and ``out`` are None if not given. Raises InputError for invalid options."""

    cluster: int | None
    like: Sequence[str]
    taste: str | None
    within_cluster: bool
    options: PlaylistOptions
    form: str | None
    out: Path | None
    force: bool
    url_template: str | None = None
    popular: bool = False

    def __post_init__(self) -> None:
        if self.popular and (self.cluster is None or self.like or self.taste is not None):
            raise InputError("--popular needs --cluster, without --like and --taste")
        if self.like and self.taste is not None:
            raise InputError("give --like or --taste, not both")
        if self.cluster is None and not self.like and self.taste is None:
            raise InputError(
                "the playlist needs a start: give --cluster NUMBER, --like TITLE or --taste FEATURE=NUMBER,..."
            )
        if self.cluster is not None and self.like:
            raise InputError("--cluster goes with --taste or alone; with --like, use --within-cluster")
        if self.within_cluster and not self.like:
            raise InputError("--within-cluster goes with --like")
        if self.url_template is not None:
            check_template(self.url_template, "--url-template", web=False)
        if self.form is not None and self.form not in FORMATS:
            raise InputError(f"--format {self.form} is not one of {', '.join(FORMATS)}")
        if self.output_format is None:
            raise InputError(f"{self.out} does not say its format; end it in {', '.join(SUFFIXES)}, or give --format")

    @property
    def output_format(self) -> str | None:
        """The format given, else that of the suffix of ``out``, else ``table``; None for an unknown suffix."""
        return self.form or SUFFIXES.get(self.out.suffix.lower() if self.out else ".txt")


def make_playlist(library: Library, request: PlaylistRequest) -> Playlist:
    """Make the requested playlist from an open export. Raises InputError, or ExportError for an unknown cluster or item."""
    if request.like:
        return from_liked(library, request.like, request.options, within_cluster=request.within_cluster)
    if request.taste is not None:
        return from_taste(library, parse_taste(request.taste), request.options, cluster=request.cluster)
    assert request.cluster is not None
    return from_cluster(library, request.cluster, request.options, popular=request.popular)


def output_playlist(playlist: Playlist, request: PlaylistRequest) -> None:
    """Print a playlist, or write it to the requested file. Raises InputError or ExportError."""
    form = request.output_format or "table"
    address = ADDRESSES.get(form)
    lost = 0 if address is None else sum(not address(item, request.url_template) for item in playlist.items)
    notes = [*playlist.notes, *([f"{lost} items without an address are left out"] if lost else [])]
    if request.out is None:
        print(render(playlist, form, url_template=request.url_template), end="")
        if form != "table":
            for note in notes:
                print(f"gpuclust: {note}", file=sys.stderr)
        return
    path = write(playlist, request.out, form, force=request.force, url_template=request.url_template)
    print(f"{path}: {len(playlist.entries) - lost} items, {playlist.name}")
    for note in notes:
        print(f"({note})")


def parse_taste(text: str) -> dict[str, float]:
    """Parse ``energy=0.8,valence=0.6`` into numbers by feature. Raises InputError for an invalid part."""
    taste = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        feature, _, value = part.partition("=")
        try:
            taste[feature.strip()] = float(value)
        except ValueError:
            raise InputError(f"--taste {part!r} is not FEATURE=NUMBER, as in energy=0.8,valence=0.6") from None
    return taste
