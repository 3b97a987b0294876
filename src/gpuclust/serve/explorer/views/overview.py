"""The Overview page: the data, the scores, the verdict, and the sizes and profiles of the clusters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isclose, isfinite
from pathlib import PurePosixPath
from typing import Any

import streamlit as st

from gpuclust.model.records import NOISE
from gpuclust.serve.explorer import charts
from gpuclust.serve.explorer.items import navigate, words_and_groups
from gpuclust.serve.explorer.session import OpenExport, open_export
from gpuclust.serve.explorer.texts import as_markdown, figure, fit, short, words
from gpuclust.serve.records import ExportInfo
from gpuclust.serve.share import page_of_folder

# Which curves of a sweep are drawn, in this order, as people call them.
CURVES = {
    "silhouette": "Silhouette",
    "inertia": "Elbow (inertia)",
    "bic": "BIC",
    "relative_validity": "Relative validity",
}
# The size that each algorithm of version 0.1.0 was swept over, which its exports do not say; and sizes in words.
SIZE_KEYS: Mapping[str, str | None] = {"kmeans": "n_clusters", "gmm": "n_clusters", "hdbscan": "min_cluster_size"}
SIZES = {"n_clusters": "clusters", "min_cluster_size": "smallest cluster"}


def overview() -> None:
    """The page."""
    shown = open_export()
    manifest = shown.library.facts.manifest
    st.title(as_markdown(_title(manifest)), anchor=False)
    st.caption(as_markdown(_made(manifest), 400))
    for warning in shown.library.facts.warnings:
        st.warning(as_markdown(warning, 600), icon=":material/warning:")
    _figures(shown, manifest)
    st.download_button(
        "Download as one HTML file",
        lambda: page_of_folder(shown.folder),
        f"{PurePosixPath(_title(manifest)).stem}.html",
        "text/html",
        key="page-to-send",
        icon=":material/download:",
        on_click="ignore",
        help="A page to send: map, heat map, clusters and a search over a sample. It works offline.",
    )
    _verdict(shown.library.facts)
    _curves(manifest)
    st.header("Clusters", anchor=False)
    st.plotly_chart(charts.size_bars(shown), key="sizes", config=charts.STILL, alt="Rows in each cluster")
    _cluster_links(shown)
    st.header("Profiles", anchor=False)
    if not shown.library.features:
        st.dataframe(words_and_groups(shown), hide_index=True, key="words")
        return
    order = charts.listed_clusters(shown)
    said = [
        "Mean of each feature in standard deviations from the mean of all rows; hover for original units.",
        f"The {charts.MAX_BARS} largest of {len(order)} clusters." if len(order) > charts.MAX_BARS else "",
        charts.left_out_features(shown, charts.MAX_FEATURES),
    ]
    st.caption(" ".join(filter(None, said)))
    st.plotly_chart(
        charts.profile_heatmap(shown, order[: charts.MAX_BARS]),
        key="heat",
        config=charts.STILL,
        alt="Mean z-scores by cluster",
    )


def _title(manifest: Mapping[str, Any]) -> str:
    source = str(manifest.get("source") or "")
    return str(manifest.get("dataset") or "") or source.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] or "Export"


def _made(manifest: Mapping[str, Any]) -> str:
    backend = manifest.get("backend") or {}
    device = backend.get("gpuclust.device") or backend.get("gpuclust.backend") or ""
    parts = [
        str(manifest.get("run_name") or manifest.get("algorithm") or ""),
        str(device),
        f"run {str(manifest.get('run_id', ''))[:8]}",
    ]
    return " · ".join(part for part in parts if part)


def _figures(shown: OpenExport, manifest: Mapping[str, Any]) -> None:
    metrics = manifest.get("metrics") or {}
    facts = shown.library.facts
    read = (manifest.get("rows") or {}).get("read")
    said: list[tuple[str, str, str]] = [
        ("Rows", f"{facts.n_rows:,}", f"{read:,} were read, {facts.n_rows:,} left after cleaning" if read else ""),
        ("Clusters", f"{facts.n_clusters:,}", ""),
        ("Silhouette", _score(metrics, "silhouette"), _error(metrics)),
    ]
    if NOISE in shown.clusters:
        noise = shown.clusters[NOISE]
        said[2] = (
            "Silhouette",
            _score(metrics, "silhouette"),
            f"of the rows in clusters, {_error(metrics)}".rstrip(", "),
        )
        if "silhouette_with_noise" in metrics:
            said.append(("Silhouette with noise", _score(metrics, "silhouette_with_noise"), "of all rows"))
        said.append(("Noise", f"{noise.fraction:.1%}", f"{noise.size:,} rows belong to no cluster"))
    if _reduced(manifest):
        said.append(("Explained variance", _share(metrics, "explained_variance"), "the share that the reduction keeps"))
    said.append(_of_the_map(shown))
    with st.container(horizontal=True, key="figures"):
        for label, value, explained in said:
            st.metric(label, value, help=explained or None, border=True, width="content")


def _reduced(manifest: Mapping[str, Any]) -> bool:
    """Whether the clustering was of components, not of the features themselves."""
    reduce = (manifest.get("config") or {}).get("reduce")
    return isinstance(reduce, Mapping) and reduce.get("method", "none") != "none"


def _of_the_map(shown: OpenExport) -> tuple[str, str, str]:
    """How good the map is: the share of the variance of principal components, the trustworthiness of others."""
    drawn = shown.library.facts.map
    if not drawn.linear:
        linear = "" if drawn.of_components is None else f"; that of principal components is {drawn.of_components:.3f}"
        return (
            "Trustworthiness of the map",
            "–" if drawn.trustworthiness is None else f"{drawn.trustworthiness:.3f}",
            f"1 if the neighbours of each row on the {drawn.label} map are its neighbours in what was clustered{linear}",
        )
    return (
        "Variance on the map",
        f"{shown.share(2):.1%}",
        f"share of the variance of what was clustered: two axes of the map show {shown.share(2):.1%}, "
        f"three {shown.share(3):.1%}",
    )


def _score(metrics: Mapping[str, Any], name: str) -> str:
    value = metrics.get(name)
    return "–" if not isinstance(value, (int, float)) else f"{value:.3f}"


def _share(metrics: Mapping[str, Any], name: str) -> str:
    value = metrics.get(name)
    return "–" if not isinstance(value, (int, float)) else f"{value:.1%}"


def _error(metrics: Mapping[str, Any]) -> str:
    error = metrics.get("silhouette_se")
    if not isinstance(error, (int, float)):
        return ""
    return f"from a sample of rows, standard error {figure(error)}" if error else "exact, from all rows"


def _verdict(facts: ExportInfo) -> None:
    """What the sweep says about the number of clusters, on which evidence, and whether this export is its choice."""
    sweep = facts.manifest.get("sweep") or {}
    verdict, _, more = str(sweep.get("verdict") or "").partition("\n")
    evidence = facts.because or tuple(more.splitlines())
    if verdict:
        box, icon = _BOXES.get(str(sweep.get("verdict_kind") or ""), _BOXES[""])
        getattr(st, box)(as_markdown(verdict, 600), icon=icon)
    if evidence:
        with st.expander("Evidence", key="evidence"):
            st.text("\n".join(short(line, 300) for line in evidence))
    if (choice := choice_of(facts)) != "":
        st.text(choice)


# How a verdict is shown, by its kind: only a clear one is a success.
_BOXES = {
    "clear": ("success", ":material/check_circle:"),
    "none": ("warning", ":material/gavel:"),
    "": ("info", ":material/gavel:"),
}


def choice_of(facts: ExportInfo) -> str:
    """Whether this export is what its sweep chose, and the reason of the choice; empty where there was no sweep."""
    sweep = facts.manifest.get("sweep") or {}
    reason, own = str(sweep.get("selection_reason") or ""), str(facts.manifest.get("run_name") or "")
    if facts.selected:
        return (
            f"This export is the sweep's choice: {short(reason, 400)}"
            if reason
            else "This export is the sweep's choice."
        )
    if facts.sweep_choice and own:
        said = (
            f"This export: {short(own)}{place_of(facts.manifest)}; the sweep's choice was {short(facts.sweep_choice)}"
        )
        return f"{said} ({short(reason, 400)})." if reason else f"{said}."
    return f"The sweep's choice: {short(reason, 400)}" if reason else ""


# Earlier versions write commas where this one has parentheses.
_REASON = re.compile(r" has the (highest|lowest) ([a-zA-Z ]+?)(?:, | \().*?,? of (\d+) jobs")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def place_of(manifest: Mapping[str, Any]) -> str:
    """The place of the export among the jobs of its sweep, as in ``, second of 9 by silhouette``; empty if the manifest does not
    have the score of every job."""
    sweep = manifest.get("sweep") or {}
    reason = _REASON.search(str(sweep.get("selection_reason") or ""))
    if reason is None:
        return ""
    best, label, n_jobs = reason[1], reason[2], int(reason[3])
    metric = label.lower().replace(" ", "_")
    own = _number((manifest.get("metrics") or {}).get(metric))
    curves = [points for name, points in (sweep.get("curves") or {}).items() if str(name).partition("/")[0] == metric]
    scores = [s for points in curves for value in points.values() if (s := _number(value)) is not None]
    if own is None or len(scores) != n_jobs:
        return ""
    # The store rounds nothing, but a score may have been computed again.
    better = sum((s > own if best == "highest" else s < own) and not isclose(s, own, rel_tol=1e-6) for s in scores)
    ordinal = _ORDINALS[better] if better < len(_ORDINALS) else f"number {better + 1}"
    return f", {ordinal} of {n_jobs} by {label}"


def _curves(manifest: Mapping[str, Any]) -> None:
    curves = (manifest.get("sweep") or {}).get("curves") or {}
    keys, algorithm = size_keys(manifest), str(manifest.get("algorithm"))
    drawn = [
        (name, title, found) for name, title in CURVES.items() if (found := curves_of(curves, name, algorithm, keys))
    ]
    if not drawn:
        return
    key = keys.get(algorithm) or "size"
    size = SIZES.get(key, words(key))
    for column, (name, title, found) in zip(st.columns(min(len(drawn), 3)), drawn[:3], strict=False):
        with column:
            chart = charts.curve(titled(title, name, found), found, own_point(manifest, name), size=size)
            st.plotly_chart(chart, key=f"curve-{title}", config=charts.STILL, alt=f"{title} over {size}")
    if any(own_point(manifest, name) for name, _, _ in drawn[:3]):
        st.caption(
            "The ring marks this export. No single score decides the number of clusters: the verdict uses several scores."
        )


def size_keys(manifest: Mapping[str, Any]) -> Mapping[str, str | None]:
    """Algorithm -> the key of the configuration that its sweeps have as their axis."""
    return manifest.get("size_keys") or SIZE_KEYS


def titled(title: str, name: str, lines: Mapping[str, object]) -> str:
    """A chart's title; it names the line where there is one that is not called as the score, as in ``BIC (gmm)``."""
    (only, *others) = lines
    return title if others or only == words(name) else f"{title} ({only})"


def own_point(manifest: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """The export's own size and score; None where the run has no such score (a K-Means run has no BIC)."""
    value, size = _number((manifest.get("metrics") or {}).get(name)), _chosen(manifest)
    return None if value is None or size is None else (size, value)


def curves_of(
    curves: Mapping[str, Any], name: str, algorithm: str, keys: Mapping[str, str | None] = SIZE_KEYS
) -> dict[str, dict[str, float]]:
    """The lines of a score with two points or more: one called as the score, or one for each other swept value.

    Lines of algorithms that are swept over another size than ``algorithm`` are left out: they have no axis in common.
    """
    found = {}
    for key, points in curves.items():
        metric, _, other = str(key).partition("/")
        own = keys.get(other.partition("/")[0], keys.get(algorithm)) == keys.get(algorithm)
        if metric == name and own and isinstance(points, Mapping):
            line = {
                str(at): float(v) for at, v in points.items() if isinstance(v, (int, float)) and _number(at) is not None
            }
            if len(line) > 1:
                found[words(other) if other else words(metric)] = line
    return found


def _chosen(manifest: Mapping[str, Any]) -> float | None:
    """The size of the export's run: the one asked for, or the one that ``auto`` took."""
    key = size_keys(manifest).get(str(manifest.get("algorithm")))
    configured = _number(((manifest.get("config") or {}).get("cluster") or {}).get(key))
    return configured if configured is not None else _number((manifest.get("metrics") or {}).get(key))


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if isfinite(number) else None


def _cluster_links(shown: OpenExport) -> None:
    """A button for each cluster, which the keyboard can reach too."""
    with st.container(horizontal=True, key="doors"):
        for c in list(shown.clusters)[:24]:
            if st.button(as_markdown(fit(shown.name(c), 44)), key=f"door-{c}"):
                navigate("clusters", cluster=c)
