"""`gpuclust playlist`: from the options to a list on the screen or in a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpuclust.errors import InputError
from gpuclust.serve.library import Library
from gpuclust.serve.links import check_template, location_of
from gpuclust.serve.playlist import Playlist, Rules, from_cluster, from_liked, from_taste
from gpuclust.serve.playlist_files import FORMATS, render, write

SUFFIXES = {".csv": "csv", ".json": "json", ".m3u8": "m3u8", ".m3u": "m3u8", ".txt": "table"}


@dataclass(frozen=True)
class Asked:
    """The options of the command as typed: ``form`` and ``out`` None where not given."""

    folder: Path
    cluster: int | None
    like: Sequence[str]
    taste: str | None
    within_cluster: bool
    rules: Rules
    form: str | None
    out: Path | None
    force: bool
    url_template: str | None = None


def playlist(asked: Asked) -> None:
    """Make the list and print it, or write it where ``out`` says. Raises InputError or ExportError in one line."""
    _check(asked)
    form = asked.form or SUFFIXES.get(asked.out.suffix.lower() if asked.out else ".txt")
    if form is None:
        raise InputError(f"{asked.out} does not say its format; end it in {', '.join(SUFFIXES)}, or give --format")
    with Library.open(asked.folder, _say) as library:
        made = _make(library, asked)
    lost = sum(not location_of(item, asked.url_template) for item in made.items) if form == "m3u8" else 0
    notes = [*made.notes, *([f"{lost} items without an address are left out"] if lost else [])]
    if asked.out is None:
        print(render(made, form, url_template=asked.url_template), end="")
        if form != "table":
            for note in notes:
                print(f"gpuclust: {note}", file=sys.stderr)
        return
    path = write(made, asked.out, form, force=asked.force, url_template=asked.url_template)
    print(f"{path}: {len(made.taken) - lost} items, {made.name}")
    for note in notes:
        print(f"({note})")


def taste_of(text: str) -> dict[str, float]:
    """``energy=0.8,valence=0.6`` as numbers by feature. Raises InputError naming the part that is none."""
    taste = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        feature, _, value = part.partition("=")
        try:
            taste[feature.strip()] = float(value)
        except ValueError:
            raise InputError(f"--taste {part!r} is not FEATURE=NUMBER, as in energy=0.8,valence=0.6") from None
    return taste


def _check(asked: Asked) -> None:
    if asked.like and asked.taste is not None:
        raise InputError("give --like or --taste, not both")
    if asked.cluster is None and not asked.like and asked.taste is None:
        raise InputError(
            "the playlist needs a start: give --cluster NUMBER, --like TITLE or --taste FEATURE=NUMBER,..."
        )
    if asked.cluster is not None and asked.like:
        raise InputError("--cluster goes with --taste or alone; with --like, use --within-cluster")
    if asked.within_cluster and not asked.like:
        raise InputError("--within-cluster goes with --like")
    if asked.url_template is not None:
        check_template(asked.url_template, "--url-template", web=False)
    if asked.form is not None and asked.form not in FORMATS:
        raise InputError(f"--format {asked.form} is not one of {', '.join(FORMATS)}")


def _make(library: Library, asked: Asked) -> Playlist:
    if asked.like:
        return from_liked(library, asked.like, asked.rules, within_cluster=asked.within_cluster)
    if asked.taste is not None:
        return from_taste(library, taste_of(asked.taste), asked.rules, cluster=asked.cluster)
    assert asked.cluster is not None
    return from_cluster(library, asked.cluster, asked.rules)


def _say(stage: str, done: float) -> None:
    """Show on a terminal what is done once for an export; say nothing where nobody watches."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{stage} ({done:.0%})" if done < 1 else "\r\x1b[K", end="", file=sys.stderr, flush=True)
