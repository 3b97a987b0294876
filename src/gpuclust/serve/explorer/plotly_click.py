"""Clicks in a figure with three axes, which Plotly reports to the page and Streamlit does not pass on."""

from __future__ import annotations

import streamlit as st

# Trusted and constant: no text of an export ever enters it. The figure is found by the key of the container it is in.
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
    """The number that the last point clicked carries (its ``customdata``), of the figure in the container of that key."""
    mount = st.components.v2.component("gpuclust.pointer", js=_SCRIPT)
    state = mount(key=key, data={"container": container}, on_rank_change=lambda: None)
    last = f"{key}-last"
    if isinstance(state.rank, (int, float)):
        st.session_state[last] = int(state.rank)
    known = st.session_state.get(last)
    return None if known is None else int(known)
