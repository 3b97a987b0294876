"""What Streamlit runs each time that someone opens or changes a page; everything it needs stays imported."""

from gpuclust.serve.explorer.app import show

show()
