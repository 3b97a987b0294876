"""The script that Streamlit runs for every page view; imported modules stay loaded."""

from gpuclust.serve.explorer.app import show

show()
