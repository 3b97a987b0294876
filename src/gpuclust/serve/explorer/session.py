"""The exports that a server has open, and what one visitor has chosen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from gpuclust.model.records import NOISE, Cluster
from gpuclust.serve.explorer.settings import settings
from gpuclust.serve.export_reader import read_manifest
from gpuclust.serve.library import Library

NOISE_COLOR = "#B8B8B8"
_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")


@dataclass(frozen=True)
class OpenExport:
    """An open export. ``version`` is another one when the folder's content is; ``colors`` by cluster as ``#RRGGBB``."""

    folder: Path
    version: str
    library: Library
    clusters: Mapping[int, Cluster]
    colors: Mapping[int, str]

    def has(self, *roles: str) -> bool:
        """Whether the export has a column for one of some roles."""
        return any(self.library.has(role) for role in roles)

    def share(self, n_axes: int) -> float:
        """The share of the variance of what was clustered that the first axes of the map show."""
        return min(sum(self.library.axis_shares[:n_axes]), 1.0)

    def name(self, cluster: int) -> str:
        """A cluster as people call it: its number and its name. A text of the export."""
        known = self.clusters.get(cluster)
        return "Noise" if cluster == NOISE else f"{cluster} · {known.name}" if known else str(cluster)


def open_export(folder: Path | None = None) -> OpenExport:
    """The export (of the settings, unless another is named), opened once for all visitors and again when it changes.

    Raises ExportError or ModelError when it is no longer there or damaged.
    """
    folder = folder or settings().folder
    return _open(folder, read_manifest(folder).digest)


@st.cache_resource(max_entries=6, show_spinner="Opening the export")
def _open(folder: Path, digest: str) -> OpenExport:
    library = Library.open(folder)
    clusters = {c.cluster: c for c in library.clusters}
    return OpenExport(folder, digest, library, clusters, colors_of(library.facts.manifest.get("colors"), clusters))


def colors_of(given: object, clusters: Mapping[int, Cluster]) -> dict[int, str]:
    """The colour of each cluster: what the manifest says, else (an older export) Plotly's own, repeating."""
    from plotly.colors import qualitative

    said = given if isinstance(given, Mapping) else {}
    found = {}
    for c in clusters:
        color = said.get(str(c))
        usable = isinstance(color, str) and _COLOR.fullmatch(color) is not None
        found[c] = str(color) if usable else NOISE_COLOR if c < 0 else qualitative.D3[c % len(qualitative.D3)]
    return found


def liked() -> list[str]:
    """The ids that this visitor put into the next playlist, in their order."""
    chosen: list[str] = st.session_state.setdefault("liked", [])
    return chosen


def like(id: str) -> None:
    """Put an item into the next playlist, or take it out."""
    chosen = liked()
    if id in chosen:
        chosen.remove(id)
    else:
        chosen.append(id)
