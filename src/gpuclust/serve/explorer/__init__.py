"""The explorer: an export in a browser, with Streamlit and Plotly.

``launch.py`` checks the options and runs the server; ``main.py`` is the script that Streamlit runs for every page view;
``session.py`` opens each export once for all visitors; ``views/`` has one file per page. Computations are in ``points.py``
and ``transitions.py``, figures in ``charts.py``. The map is drawn in the browser by ``web/points.js``, which fetches its columns from
``map_data.py``. ``texts.py`` escapes the texts of an export,
so that pages show them as plain text.
"""
