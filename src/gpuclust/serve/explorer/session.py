"""The open exports of a server, and the session state of a visitor."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import streamlit as st

from gpuclust.model.manifest import read_manifest
from gpuclust.model.records import NOISE, Cluster
from gpuclust.serve.explorer.settings import settings
from gpuclust.serve.explorer.texts import noun
from gpuclust.serve.library import Library

NOISE_COLOR = "#B8B8B8"
_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")


@dataclass(frozen=True)
class OpenExport:
    """An open export. ``version`` identifies its content; ``colors`` are ``#RRGGBB`` by cluster, and ``path`` is where the
    clusters are in those of other runs (`data.within`)."""

    folder: Path
    version: str
    library: Library
    clusters: Mapping[int, Cluster]
    colors: Mapping[int, str]
    path: str = ""

    def has(self, *roles: str) -> bool:
        """Whether the export has a column for any of the roles."""
        return any(self.library.has(role) for role in roles)

    def word(self, role: str) -> str:
        """What a value of a role is called, from the name of its column: "artist" for a creator in ``track_artist``."""
        return noun(str(self.library.facts.roles.get(role, role)))

    @property
    def item_word(self) -> str:
        """What a row is called: a track, an item with a title, or a row."""
        if not self.has("title", "creator"):
            return "row"
        return "track" if self._of_tracks else "item"

    @property
    def list_word(self) -> str:
        """What a list of items is called: a playlist of music, else a sample."""
        return "playlist" if self._of_tracks or (self.has("title") and self.has("creator")) else "sample"

    @property
    def _of_tracks(self) -> bool:
        """Whether the table was read as one of music tracks."""
        data = (self.library.facts.manifest.get("config") or {}).get("data")
        return isinstance(data, Mapping) and data.get("preset") == "tracks"

    def telling_features(self, clusters: Sequence[int], most: int) -> list[str]:
        """All features in the order of the model or, if there are more than ``most``, those with the largest absolute z-score in
        any of the clusters, largest first."""
        features = list(self.library.features)
        if len(features) <= most:
            return features
        largest = {
            f: max((abs(z) for c in clusters if isfinite(z := self.clusters[c].features[f].z)), default=0.0)
            for f in features
        }
        return sorted(features, key=lambda f: -largest[f])[:most]

    def share(self, n_axes: int) -> float:
        """The share of the variance of the clustered data on the first ``n_axes`` axes of the map."""
        return min(sum(self.library.axis_shares[:n_axes]), 1.0)

    def name(self, cluster: int) -> str:
        """The label of a cluster: its number (3.0 in a run within cluster 3) and its name, which is a text of the export."""
        known = self.clusters.get(cluster)
        number = f"{self.path}.{cluster}" if self.path else str(cluster)
        return "Noise" if cluster == NOISE else f"{number} · {known.name}" if known else number


def open_export(folder: Path | None = None) -> OpenExport:
    """Open an export, by default that of the settings: once for all visitors, and again if it changes.

    Raises ExportError or ModelError if it is missing or damaged.
    """
    folder = folder or settings().folder
    return _open(folder, read_manifest(folder).digest)


@st.cache_resource(max_entries=6, show_spinner="Opening the export")
def _open(folder: Path, digest: str) -> OpenExport:
    library = Library.open(folder)
    clusters = {c.cluster: c for c in library.clusters}
    manifest = library.facts.manifest
    colors = colors_of(manifest.get("colors"), clusters)
    return OpenExport(folder, digest, library, clusters, colors, str(manifest.get("path") or ""))


def colors_of(given: object, clusters: Mapping[int, Cluster]) -> dict[int, str]:
    """The colour of each cluster from the manifest or, for an older export, from the colour cycle of Plotly."""
    from plotly.colors import qualitative

    stored = given if isinstance(given, Mapping) else {}
    found = {}
    for c in clusters:
        color = stored.get(str(c))
        usable = isinstance(color, str) and _COLOR.fullmatch(color) is not None
        found[c] = str(color) if usable else NOISE_COLOR if c < 0 else qualitative.D3[c % len(qualitative.D3)]
    return found


def liked() -> list[str]:
    """The ids of the items that this visitor added to the playlist, in order."""
    chosen: list[str] = st.session_state.setdefault("liked", [])
    return chosen


def like(id: str) -> None:
    """Add an item to the playlist, or remove it."""
    chosen = liked()
    if id in chosen:
        chosen.remove(id)
    else:
        chosen.append(id)
