"""Why an item is in its cluster: what its features contribute, its memberships, and its outlier score."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from gpuclust.errors import ModelError
from gpuclust.model.bundle import Bundle
from gpuclust.model.manifest import MODEL
from gpuclust.model.prediction import rule_of
from gpuclust.model.records import NOISE
from gpuclust.serve.explorer import charts
from gpuclust.serve.explorer.session import OpenExport
from gpuclust.serve.explorer.texts import as_markdown, figure, fit
from gpuclust.serve.reasons import memberships_of, why_of
from gpuclust.serve.records import Item

MAX_MEMBERSHIPS = 5


def reasons(shown: OpenExport, item: Item, key: str) -> None:
    """A switch that shows the reasons; the model is read at its first use. Items of exports of vectors have none, because the export does not
    hold the vectors."""
    if shown.library.vectors or not st.toggle("Why this cluster?", key=f"why-{key}-{item.rank}"):
        return
    model = _model(shown.folder, shown.version)
    names = {c: shown.name(c) for c in shown.clusters}
    try:
        said = why_of(item, model, names)
        st.text(f"Nearer to {fit(said.name, 60)} than to {fit(said.next_name, 60)}. What each feature contributes:")
        st.plotly_chart(
            charts.contributions(shown, said, item.features), key=f"reasons-{key}", config=charts.STILL,
            alt="What each feature contributes to the difference of the distances to the two clusters",
        )  # fmt: skip
    except ModelError as error:
        st.caption(as_markdown(str(error), 300))
    try:
        likely, outlier = memberships_of(item, model, names, MAX_MEMBERSHIPS)
    except ModelError:
        return
    st.caption("The likeliest clusters" if item.cluster != NOISE else "The likeliest clusters of this row of noise")
    rows = [{"cluster": fit(m.name, 60), "probability": f"{m.probability:.1%}"} for m in likely]
    st.dataframe(pd.DataFrame(rows), hide_index=True, key=f"memberships-{key}")
    meaning = rule_of(model.algorithm).outlier
    st.caption(as_markdown(f"Outlier score {figure(outlier)}" + (f" ({meaning})" if meaning else "")))


@st.cache_resource(max_entries=2, show_spinner="Reading the model")
def _model(folder: Path, version: str) -> Bundle:
    """The model of an export; ``version`` identifies its content."""
    return Bundle.load(folder / MODEL)
