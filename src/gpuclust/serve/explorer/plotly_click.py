"""Click events of 3-D figures, which Streamlit does not forward from Plotly."""

from __future__ import annotations

import streamlit as st

# A constant script without texts of the export. It finds the figure by the key of its container.
_SCRIPT = """
export default function ({ data, setTriggerValue }) {
  const listen = () => {
    for (const figure of document.querySelectorAll(`.st-key-${data.container} .js-plotly-plot`)) {
      figure.gpuclustPick = (rank) => setTriggerValue("rank", rank);
      if (figure.gpuclustListens || !figure.on) continue;
      figure.gpuclustListens = true;
      figure.on("plotly_click", (event) => {
        const point = event.points.find((p) => Number.isInteger(p.customdata));
        if (point) figure.gpuclustPick(point.customdata);
      });
    }
  };
  listen();
  const timer = setInterval(listen, 250);
  return () => clearInterval(timer);
}
"""


def clicked_in(container: str, *, key: str) -> int | None:
    """The ``customdata`` of the last point clicked in the figure in a container; None before the first click."""
    mount = st.components.v2.component("gpuclust.pointer", js=_SCRIPT)
    state = mount(key=key, data={"container": container}, on_rank_change=lambda: None)
    last = f"{key}-last"
    if isinstance(state.rank, (int, float)):
        st.session_state[last] = int(state.rank)
    known = st.session_state.get(last)
    return None if known is None else int(known)
