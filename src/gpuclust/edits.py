"""Edits of an export folder: names that people give to clusters, clusters that are merged, and the history of both, which can be undone.

The manifest lists the edits (`gpuclust.model.manifest.Edit`). The files of the folder follow from the fitted clusters and this list
(`gpuclust.edited_files`). Each edit replaces the folder in one step. The numbers of the other clusters stay when clusters are merged.
"""

from __future__ import annotations

import getpass
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from gpuclust.edited_files import MERGE, NAME, PROPOSE, Row, clusters_of, rewrite
from gpuclust.errors import ExportError, InputError
from gpuclust.folders import locked, whole_folder
from gpuclust.model.expressions import read_rules
from gpuclust.model.manifest import MAX_NAME, Manifest, read_manifest
from gpuclust.model.records import NOISE


@dataclass(frozen=True)
class EditedExport:
    """An export after an edit: its ``clusters`` (the rows of ``clusters.parquet``, noise last), its ``edits``, and ``notes`` on what was not done."""

    folder: Path
    clusters: tuple[Row, ...]
    edits: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()


def open_edits(folder: Path) -> EditedExport:
    """The clusters and the edits of an export. Raises ExportError where it is none, or is damaged."""
    manifest = read_manifest(folder)
    return EditedExport(folder, tuple(clusters_of(manifest).to_pylist()), tuple(manifest.text.get("edits") or ()))


def name_clusters(folder: Path, names: Mapping[int, str], *, how: str = "", notes: Sequence[str] = ()) -> EditedExport:
    """Give clusters names; an empty name restores the generated one. Raises ExportError, and InputError for a name that cannot be."""
    return _edit(folder, {"action": NAME, "how": how, "names": names}, notes)


def name_by_rules(folder: Path, rules: Path) -> EditedExport:
    """Give each cluster the name of the first rule of a file that the means of its features meet (`gpuclust.model.expressions.read_rules`).

    Where several clusters meet one rule, all after the largest are numbered. Raises InputError where the file cannot be read, or a rule names
    a column that is no feature.
    """
    try:
        written = read_rules(rules.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{rules} cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except InputError as error:
        raise InputError(f"{rules}: {error}") from error
    manifest = read_manifest(folder)
    if missing := [c for condition, _ in written for c in condition.columns if c not in manifest.features]:
        raise InputError(f"{rules}: {missing[0]!r} is not a feature of {folder}; it has {', '.join(manifest.features)}")
    rows = [row for row in clusters_of(manifest).to_pylist() if row["cluster"] != NOISE]
    means = {f: np.array([row[f"mean_{f}"] for row in rows], dtype=np.float64) for f in manifest.features}
    names: dict[int, str] = {}
    counts: dict[str, int] = {}
    for condition, name in written:
        for i in np.flatnonzero(condition.matches(means)):
            if rows[i]["cluster"] not in names:
                counts[name] = counts.get(name, 0) + 1
                names[rows[i]["cluster"]] = name if counts[name] == 1 else f"{name} ({counts[name]})"
    unused = [f"no cluster meets the rule of {name!r}" for _, name in written if name not in counts]
    return name_clusters(folder, names, how=f"rules of {rules.name}", notes=unused)


def name_from(folder: Path, earlier: Path) -> EditedExport:
    """Give clusters the names that people gave to those of an earlier export with the same centres (`match_centres`)."""
    known = read_manifest(earlier)
    names, notes = _carried(clusters_of(known).to_pylist(), read_manifest(folder))
    return name_clusters(folder, names, how=_carried_from(known), notes=notes)


def propose_names(folder: Path, names: Mapping[int, str], *, how: str) -> EditedExport:
    """Record names that a model proposes; they are shown beside the generated ones."""
    return _edit(folder, {"action": PROPOSE, "how": how, "names": names})


def merge_clusters(folder: Path, clusters: Sequence[int], *, name: str = "") -> EditedExport:
    """Merge clusters into one, with the smallest of their numbers, and describe it again from its rows.

    It keeps the name that a person gave to one of them. Rows to predict that would be in one of the others are in it. Raises ExportError.
    """
    together = sorted(set(clusters))
    if len(together) < 2:
        raise InputError("merge needs two clusters or more, as in gpuclust merge out/ 2 5")
    return _edit(folder, {"action": MERGE, "clusters": together, "names": {together[0]: name} if name else {}})


def undo(folder: Path) -> EditedExport:
    """Undo the last edit. Raises ExportError where there is none."""
    manifest = read_manifest(folder)
    edits = list(manifest.text.get("edits") or ())
    if not edits:
        raise ExportError(f"{folder} was not edited, so nothing can be undone")
    return _replaced(manifest, edits[:-1], [f"undone: {in_words(edits[-1])}"])


def in_words(edit: Mapping[str, Any]) -> str:
    """An edit in a line: what, how, who and when."""
    names = [f"{c}={name!r}" for c, name in (edit.get("names") or {}).items()]
    what = f"merge {' '.join(map(str, edit['clusters']))}" if edit["action"] == MERGE else edit["action"]
    by = ", ".join(filter(None, (edit.get("how"), edit.get("who"), edit.get("when"))))
    return f"{' '.join((what, *names))}{f' ({by})' if by else ''}"


def carry_edits(folder: Path, earlier: Path) -> tuple[str, ...]:
    """Carry the edits of an export to a new export that will replace it, in place: all of them if it is of the same run, else the names, by
    matching centres. Returns notes on what was carried and what was not."""
    try:
        known = read_manifest(earlier)
        edits = list(known.text.get("edits") or ())
        if not edits:
            return ()
        new = read_manifest(folder)
        if known.text.get("run_id") and known.text.get("run_id") == new.text.get("run_id"):
            rewrite(folder, new, edits)
            return (f"kept the edits of the folder that it replaces ({len(edits)})",)
        names, notes = _carried(clusters_of(known).to_pylist(), new)
    except ExportError as error:
        return (f"the names of the folder that it replaces were not kept: {error}",)
    if names:
        rewrite(folder, new, [_signed({"action": NAME, "how": _carried_from(known), "names": names})])
    return (f"kept the names of the folder that it replaces ({len(names)})", *notes)


def _carried_from(manifest: Manifest) -> str:
    return f"carried from {manifest.text.get('run_name') or 'a run'} ({str(manifest.text.get('run_id', ''))[:8]})"


def _carried(earlier: Sequence[Row], manifest: Manifest) -> tuple[dict[int, str], tuple[str, ...]]:
    """Cluster -> the name of the earlier cluster with its centre; and a note for each name that is not carried."""
    given = {row["cluster"]: row["name"] for row in earlier if row.get("generated_name")}
    matches = match_centres(earlier, clusters_of(manifest).to_pylist())
    names = {matches[c]: name for c, name in given.items() if c in matches}
    lost = (f"no cluster has the centre of {c} ({name!r})" for c, name in given.items() if c not in matches)
    return names, tuple(lost)


def match_centres(earlier: Sequence[Row], later: Sequence[Row]) -> dict[int, int]:
    """Clusters with the same centre: earlier cluster -> later cluster.

    Centres are compared in their common features, in standard deviations of all earlier rows. Pairs are those of the least total squared distance
    (Kuhn 1955); a pair counts if its distance is at most half of that of the earlier cluster to its nearest neighbour. Arguments are
    rows of ``clusters.parquet``. Raises ExportError where the two have no feature in common.
    """
    from scipy.optimize import linear_sum_assignment

    first, second = ([row for row in rows if row["cluster"] != NOISE] for rows in (earlier, later))
    if not first or not second:
        return {}
    features = [n.removeprefix("mean_") for n in first[0] if n.startswith("mean_") and n in second[0]]
    if not features:
        raise ExportError(
            "the exports have no feature in common whose means they hold (those of vectors they do not), so their centres cannot be "
            "matched; gpuclust lineage matches clusters by their rows"
        )
    a, b = (
        np.array([[row[f"mean_{f}"] for f in features] for row in rows], dtype=np.float64) for rows in (first, second)
    )
    weight = np.array([row["size"] for row in first], dtype=np.float64)
    spread = np.array([[row[f"std_{f}"] for f in features] for row in first], dtype=np.float64)
    middle = np.average(a, axis=0, weights=weight)
    scale = np.sqrt(np.average(spread**2 + (a - middle) ** 2, axis=0, weights=weight))
    scale[~(scale > 0)] = 1.0
    distance = np.linalg.norm(a[:, None] / scale - b[None] / scale, axis=2)
    between = np.linalg.norm(a[:, None] / scale - a[None] / scale, axis=2)
    np.fill_diagonal(between, np.inf)
    limit = np.where(np.isfinite(between.min(axis=1)), between.min(axis=1) / 2, 1.0)
    pairs = zip(*linear_sum_assignment(distance**2), strict=True)
    return {first[i]["cluster"]: second[j]["cluster"] for i, j in pairs if distance[i, j] <= limit[i]}


def _edit(folder: Path, edit: Mapping[str, Any], notes: Sequence[str] = ()) -> EditedExport:
    """Add an edit to an export. Raises ExportError for clusters that it does not have, InputError for names that cannot be."""
    manifest = read_manifest(folder)
    edits = list(manifest.text.get("edits") or ())
    known = {row["cluster"]: row["name"] for row in clusters_of(manifest).to_pylist()}
    names = {int(c): " ".join(str(name).split()) for c, name in edit["names"].items()}
    for c in (*names, *edit.get("clusters", ())):
        if c == NOISE or c not in known:
            there = ", ".join(str(k) for k in sorted(known) if k != NOISE)
            raise ExportError(f"{folder} has no cluster {c} to {edit['action']}; there are {there}")
    for c, name in names.items():
        if len(name) > MAX_NAME:
            raise InputError(f"the name of cluster {c} has {len(name):,} characters, more than {MAX_NAME}; shorten it")
        taken = next(
            (
                k
                for k, other in {**known, **names}.items()
                if other == name and k != c and k not in edit.get("clusters", ())
            ),
            None,
        )
        if name and taken is not None and edit["action"] != PROPOSE:
            raise InputError(
                f"cluster {taken} is called {name!r} too; give another name, or join them: gpuclust merge {folder} {taken} {c}"
            )
    if not names and not edit.get("clusters"):
        return replace(open_edits(folder), notes=(*notes, "nothing was changed"))
    return _replaced(manifest, [*edits, _signed({**edit, "names": names})], notes)


def _signed(edit: Mapping[str, Any]) -> dict[str, Any]:
    """An edit with who made it and when, as the manifest has it."""
    try:
        who = getpass.getuser()
    except (OSError, KeyError):  # a container without a user
        who = ""
    kept = {key: value for key, value in edit.items() if value}
    kept |= {"names": {str(c): name for c, name in edit["names"].items()}} if edit.get("names") else {}
    return {**kept, "who": who, "when": datetime.now(UTC).isoformat(timespec="seconds")}


def _replaced(manifest: Manifest, edits: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> EditedExport:
    """Replace the folder by one with these edits, in one step. Raises ExportError where another process edits it."""
    folder = manifest.folder.resolve()
    lock = locked(folder)
    if lock is None:
        raise ExportError(
            f"{manifest.folder} is being edited by another process; run the command again when it has ended"
        )
    try:
        with whole_folder(folder, force=True) as new:
            shutil.copytree(folder, new, dirs_exist_ok=True, symlinks=True, copy_function=_link)
            rewrite(new, manifest, edits)
    finally:
        os.close(lock)
    return replace(open_edits(manifest.folder), notes=tuple(notes))


def _link(source: str, target: str) -> str:
    """A hard link to a file, or a copy where the file system has none: what an edit does not change takes no time and no space."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
    return target
