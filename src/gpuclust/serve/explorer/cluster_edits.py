"""What a person can do to a cluster: give it a name, and cluster its rows again."""

from __future__ import annotations

import shlex

import streamlit as st

from gpuclust.errors import GpuclustError
from gpuclust.model.manifest import MAX_NAME, merged_clusters
from gpuclust.model.records import NOISE, Cluster
from gpuclust.serve.explorer.session import OpenExport
from gpuclust.serve.explorer.settings import settings
from gpuclust.serve.explorer.texts import as_markdown


def cluster_edits(shown: OpenExport, cluster: Cluster) -> None:
    """The panels of a cluster; noise has none."""
    if cluster.cluster == NOISE:
        return
    with st.container(horizontal=True, key="cluster-edits"):
        with st.popover("Rename", icon=":material/edit:"):
            _rename(shown, cluster)
        with st.popover("Cluster this", icon=":material/account_tree:"):
            st.text("To divide these rows further, run these commands on the machine of the tracking store:")
            st.code("\n".join(split_commands(shown, cluster.cluster)), language="sh", wrap_lines=True)
            st.caption(
                "It sweeps K\\-Means over 2 to 6 clusters of these rows, with the data, the scaling and the features of this run. "
                "For another clustering, add keys to the first line, such as cluster=hdbscan."
            )


def _rename(shown: OpenExport, cluster: Cluster) -> None:
    """A form that writes the name into the export or, where this server may not, the command that does."""
    rename = settings().rename
    if rename is None:
        st.text("Visitors of this server cannot change the export. This command can:")
        st.code(f'gpuclust name {_folder(shown)} {cluster.cluster}="NAME"', language="sh", wrap_lines=True)
        return
    with st.form("rename", border=False):
        name = st.text_input("Name", cluster.name, max_chars=MAX_NAME, help="Leave empty to restore the generated name")
        if st.form_submit_button("Save", type="primary"):
            try:
                rename(shown.folder, {cluster.cluster: name})
            except GpuclustError as error:
                st.error(as_markdown(str(error), 300))
                return
            st.rerun()
    st.caption(as_markdown(f"gpuclust undo {_folder(shown)} undoes it.", 300))


def split_commands(shown: OpenExport, cluster: int) -> tuple[str, str, str]:
    """The commands that cluster the rows of a cluster again, export the result, and open it. A merged cluster is named by the clusters of the run
    that are in it."""
    manifest = shown.library.facts.manifest
    merged = merged_clusters(manifest.get("edits") or ())
    fitted = sorted({cluster, *(c for c, into in merged.items() if into == cluster)})
    out = _folder(shown, f"-{cluster}")
    return (
        f"gpuclust split {manifest.get('run_id', 'RUN')}:{'+'.join(map(str, fitted))}",
        f"gpuclust export best --out {out}",
        f"gpuclust explore {out}",
    )


def _folder(shown: OpenExport, ending: str = "") -> str:
    """The name of the folder for a shell, without where it is on the server."""
    return shlex.quote(f"{shown.folder.name}{ending}")
