"""What was clustered, how well, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from gpuclust.serve.explorer import charts
from gpuclust.serve.explorer.items import go
from gpuclust.serve.explorer.session import Opened, opened
from gpuclust.serve.explorer.texts import as_markdown, figure, short, words

# Which curves of a sweep are drawn, in this order, as people call them.
CURVES = {
    "silhouette": "Silhouette",
    "inertia": "Elbow (inertia)",
    "bic": "BIC",
    "relative_validity": "Relative validity",
}


def overview() -> None:
    """The page."""
    shown = opened()
    manifest = shown.library.facts.manifest
    st.title(as_markdown(_title(manifest)), anchor=False)
    st.caption(as_markdown(_made(manifest), 400))
    _figures(shown, manifest)
    _verdict(manifest.get("sweep") or {})
    _curves(manifest)
    st.subheader("Clusters", anchor=False)
    st.plotly_chart(charts.sizes(shown), key="sizes", config={"displayModeBar": False}, alt="Rows in each cluster")
    _doors(shown)
    st.subheader("Profiles", anchor=False)
    st.caption("Mean of each feature in standard deviations from the mean of all rows; hover for original units.")
    st.plotly_chart(
        charts.heat(shown, charts.in_order(shown)),
        key="heat",
        config={"displayModeBar": False},
        alt="Mean z-scores by cluster",
    )


def _title(manifest: Mapping[str, Any]) -> str:
    source = str(manifest.get("source") or "")
    return source.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] or "Export"


def _made(manifest: Mapping[str, Any]) -> str:
    backend = manifest.get("backend") or {}
    device = backend.get("gpuclust.device") or backend.get("gpuclust.backend") or ""
    parts = [
        str(manifest.get("run_name") or manifest.get("algorithm") or ""),
        str(device),
        f"run {str(manifest.get('run_id', ''))[:8]}",
    ]
    return " · ".join(part for part in parts if part)


def _figures(shown: Opened, manifest: Mapping[str, Any]) -> None:
    metrics = manifest.get("metrics") or {}
    facts = shown.library.facts
    read = (manifest.get("rows") or {}).get("read")
    said: list[tuple[str, str, str]] = [
        ("Rows", f"{facts.n_rows:,}", f"{read:,} were read, {facts.n_rows:,} left after cleaning" if read else ""),
        ("Clusters", f"{facts.n_clusters:,}", ""),
        ("Silhouette", _score(metrics, "silhouette"), _error(metrics)),
        ("Explained variance", _share(metrics, "explained_variance"), "the share that the prepared features keep"),
    ]
    if metrics.get("noise_fraction"):
        said.append(("Noise", _share(metrics, "noise_fraction"), "rows that belong to no cluster"))
    with st.container(horizontal=True, key="figures"):
        for label, value, explained in said:
            st.metric(label, value, help=explained or None, border=True, width="content")


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


def _verdict(sweep: Mapping[str, Any]) -> None:
    verdict, reason = str(sweep.get("verdict") or ""), str(sweep.get("selection_reason") or "")
    first, _, evidence = verdict.partition("\n")
    if first:
        st.info(as_markdown(first, 600), icon=":material/gavel:")
    if evidence.strip():
        with st.expander("What speaks for it"):
            st.text("\n".join(short(line, 300) for line in evidence.splitlines()))
    if reason:
        st.text(f"Chosen: {reason}")


def _curves(manifest: Mapping[str, Any]) -> None:
    curves = (manifest.get("sweep") or {}).get("curves") or {}
    density = manifest.get("algorithm") == "hdbscan"
    drawn = [
        (name, title, found) for name, title in CURVES.items() if (found := curves_of(curves, name, density=density))
    ]
    if not drawn:
        return
    size = "smallest cluster" if density else "clusters"
    values = manifest.get("metrics") or {}
    for column, (name, title, found) in zip(st.columns(min(len(drawn), 3)), drawn[:3], strict=False):
        with column:
            chart = charts.curve(title, found, (_chosen(manifest), _number(values.get(name))), size=size)
            st.plotly_chart(chart, key=f"curve-{title}", config={"displayModeBar": False}, alt=f"{title} over {size}")


def curves_of(curves: Mapping[str, Any], name: str, *, density: bool = False) -> dict[str, dict[str, float]]:
    """The lines of a score with two points or more: one called as the score, or one for each other swept value.

    Lines over the smallest cluster's size are left out where ``density`` is false, lines over a number of clusters where it
    is true and there are others: a sweep across algorithms has both, and they have no axis in common.
    """
    if name == "relative_validity" and not density:  # only HDBSCAN has it
        return {}
    found = {}
    for key, points in curves.items():
        metric, _, other = str(key).partition("/")
        if metric == name and isinstance(points, Mapping):
            line = {
                str(at): float(v) for at, v in points.items() if isinstance(v, (int, float)) and _number(at) is not None
            }
            if len(line) > 1:
                found[words(other) if other else words(metric)] = line
    over_size = {line: points for line, points in found.items() if line.startswith("hdbscan")}
    if density:
        return over_size or found
    return {line: points for line, points in found.items() if line not in over_size}


def _chosen(manifest: Mapping[str, Any]) -> float | None:
    cluster = (manifest.get("config") or {}).get("cluster") or {}
    size = cluster.get("min_cluster_size") if manifest.get("algorithm") == "hdbscan" else cluster.get("n_clusters")
    return _number(size)


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None


def _doors(shown: Opened) -> None:
    """A way into each cluster that needs no pointer."""
    with st.container(horizontal=True, key="doors"):
        for c in list(shown.clusters)[:24]:
            if st.button(as_markdown(shown.name(c), 44), key=f"door-{c}"):
                go("clusters", cluster=c)
