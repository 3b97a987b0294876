"""Read from the manifest of an export: its run, the sweep of the run, and warnings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gpuclust.model.landmarks import LABELS
from gpuclust.model.manifest import Manifest
from gpuclust.model.records import noise_warning
from gpuclust.serve.records import ExportInfo, MapInfo

MAX_LISTED = 10  # cluster numbers in an error


def export_info(manifest: Manifest, *, n_rows: int, n_noise: int, n_clusters: int) -> ExportInfo:
    """Collect the information of a manifest; keys missing in exports of 0.1.0 are derived if possible."""
    text = manifest.text
    sweep = text.get("sweep") or {}
    return ExportInfo(
        folder=str(manifest.folder),
        key=manifest.digest,
        n_rows=n_rows,
        n_clusters=n_clusters,
        algorithm=str(text.get("algorithm", "")),
        features=tuple(manifest.features),
        roles=dict(text["roles"]),
        manifest=text,
        selected=_selected(text),
        sweep_choice=_sweep_choice(sweep),
        because=_lines(sweep.get("because")),
        warnings=(*_lines(text.get("warnings", [noise_warning(n_noise, n_rows)])), *_merged(text)),
        map=_map_of(text),
    )


def _map_of(text: Mapping[str, Any]) -> MapInfo:
    """The map, from the configuration and the metrics of the run; principal components in exports that do not say."""
    config, metrics = text.get("config") or {}, text.get("metrics") or {}
    chosen = config.get("map")
    method = chosen.get("method") if isinstance(chosen, Mapping) else None
    if not isinstance(chosen, Mapping) or not isinstance(method, str) or method == "pca":
        return MapInfo()
    own, linear = (
        value if isinstance(value, (int, float)) and 0 <= value <= 1 else None
        for value in (metrics.get(f"map_trustworthiness{of}") for of in ("", "_pca"))
    )
    return MapInfo(LABELS.get(method, method[:20]), 3 if chosen.get("n_components") == 3 else 2, own, linear)


def _merged(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence on the scores where clusters were merged after the fit."""
    merges = [edit["clusters"] for edit in manifest.get("edits") or () if edit.get("clusters")]
    if not merges:
        return ()
    said = "; ".join(" and ".join(map(str, clusters)) for clusters in merges[:MAX_LISTED])
    return (f"clusters were merged after the fit ({said}): the scores are those of the fitted clusters",)


def _selected(manifest: Mapping[str, Any]) -> bool | None:
    """Whether the sweep chose the run. In exports of 0.1.0 the reason begins with the name of the chosen run."""
    if isinstance(manifest.get("selected"), bool):
        return bool(manifest["selected"])
    reason, name = str((manifest.get("sweep") or {}).get("selection_reason") or ""), str(manifest.get("run_name") or "")
    return reason.startswith(f"{name} has ") if reason and name else None


def _sweep_choice(sweep: Mapping[str, Any]) -> str:
    """The name of the run that a sweep chose; empty if there is none."""
    if "chosen" in sweep:
        return str((sweep["chosen"] or {}).get("name") or "")
    chosen, has, _ = str(sweep.get("selection_reason") or "").partition(" has ")
    return chosen if has else ""


def _lines(value: Any) -> tuple[str, ...]:
    return tuple(str(line) for line in value if line is not None) if isinstance(value, (list, tuple)) else ()


def describe_numbers(numbers: Collection[int]) -> str:
    """Cluster numbers for an error: a list of up to ten, or a range such as ``0…201 and -1 (noise)``."""
    proper = sorted(n for n in numbers if n >= 0)
    gapless = proper == list(range(len(proper)))
    shown = (
        f"{proper[0]}…{proper[-1]}"
        if gapless and len(proper) > MAX_LISTED
        else ", ".join(map(str, proper[:MAX_LISTED]))
    )
    if not gapless and len(proper) > MAX_LISTED:
        shown += f" and {len(proper) - MAX_LISTED:,} more"
    return " and ".join(filter(None, (shown, "-1 (noise)" if -1 in numbers else "")))
