"""The explorer: an export in a browser, with Streamlit and Plotly.

``launch.py`` checks what it was given and runs the server; ``main.py`` is what Streamlit runs for every page shown;
``session.py`` opens exports once for everybody; ``views/`` has a file for each page. What a page computes is in
``points.py``, ``raster.py`` and ``moves.py``, what it draws in ``charts.py`` and ``map_figure.py``. Texts of the export pass
``texts.py`` on their way to a page: they are shown as text, whatever they hold.
"""
