"""Start the explorer: check what was given, open the exports once, run Streamlit, say where it is."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import time
import webbrowser
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from gpuclust.errors import ConfigurationError
from gpuclust.serve.access import WILDCARDS, Access, access, warning
from gpuclust.serve.explorer.settings import Settings, configure
from gpuclust.serve.library import Library
from gpuclust.serve.server import bind, settings, show_progress
from gpuclust.tracks.links import check_template

MAX_START_SECONDS = 60
PING_SECONDS = 30
SCRIPT = Path(__file__).with_name("main.py")
# Nothing is fetched from or sent to anywhere else, no file is watched, nothing is printed but our own lines.
OPTIONS: Mapping[str, Any] = {
    "browser.gatherUsageStats": False,
    "server.headless": True,
    "server.fileWatcherType": "none",
    "server.runOnSave": False,
    "server.maxUploadSize": 1,
    "server.enableStaticServing": False,
    "client.toolbarMode": "viewer",
    "client.showErrorDetails": "none",
    "logger.level": "error",
    "runner.magicEnabled": False,
    # Set for both themes and not for one, so that the visitor's own choice of light or dark is followed.
    "theme.light.primaryColor": "#0072B2",
    "theme.dark.primaryColor": "#56B4E9",
}


def explore(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8501,
    compare: Path | None = None,
    previews: str | None = None,
    url_template: str | None = None,
    browser: bool = True,
    allowed_hosts: Sequence[str] = (),
    token: str | None = None,
) -> int:
    """Serve the explorer of an export until SIGINT or SIGTERM; the exit status.

    ``compare`` is another export to put beside it; ``previews`` the URL template of a lookup for exports without a column
    of previews (see `gpuclust.tracks.previews`); ``url_template`` that of an item's page; ``browser`` opens the
    page where there is a screen; ``port`` 0 takes a free one; ``allowed_hosts`` and ``token`` are as in
    `gpuclust.serve.access.access`. Raises ExportError for a folder that is no export, ConfigurationError for an address
    that cannot be listened on, a template that cannot work, or where Streamlit or Plotly is not installed.
    """
    _require("streamlit", "plotly", "uvicorn")
    if previews is not None:
        check_template(previews)
    if url_template is not None:
        check_template(url_template, "--url-template")
    if not 0 <= port <= 65535:
        raise ConfigurationError(f"--port {port} is outside 0 to 65535")
    rules = access(host, allowed_hosts, token)
    listening = bind(host, port)
    try:
        for path in filter(None, (folder, compare)):
            Library.open(path, show_progress).close()
        configure(Settings(folder.resolve(), compare.resolve() if compare else None, previews, url_template))
        port = listening.getsockname()[1]
        threading.Thread(target=_announce, args=(host, port, rules, browser), daemon=True).start()
        _serve(rules, listening)
    except KeyboardInterrupt:  # uvicorn raises the signal again when it has stopped
        pass
    finally:
        listening.close()
    return 0


def _require(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"the explorer needs {' and '.join(missing)}; install them with pip install 'gpuclust[serve]'"
        )


def _serve(rules: Access, listening: Any) -> None:
    """Streamlit's application behind our rules, in our own server, until a signal comes."""
    import uvicorn
    from streamlit.starlette import App
    from streamlit.web.bootstrap import load_config_options

    from gpuclust.serve.explorer.gate import Gate

    load_config_options(dict(OPTIONS))
    _warm()
    connections = settings() | {
        "ws": "websockets-sansio",
        "ws_ping_interval": PING_SECONDS,
        "ws_ping_timeout": PING_SECONDS,
    }
    uvicorn.Server(uvicorn.Config(Gate(App(SCRIPT), rules), **connections)).run(sockets=[listening])


def _warm() -> None:
    """Import what the first page needs before anybody waits for it."""
    import plotly.graph_objects as go

    import gpuclust.serve.explorer.app  # noqa: F401

    go.Figure(go.Scatter(x=[0], y=[0])).to_json()


def _announce(host: str, port: int, rules: Access, browser: bool) -> None:
    """Print the address as soon as it answers, and open it where there is a screen."""
    began = time.monotonic()
    while not _answers(host, port, rules.token):
        if time.monotonic() - began > MAX_START_SECONDS:
            return
        time.sleep(0.05)
    address = f"http://{_name(host)}:{port}"
    entrance = f"{address}/?{urlencode({'token': rules.token})}" if rules.token else address
    if (warned := warning(host, rules)) is not None:
        print(f"gpuclust: {warned}", file=sys.stderr, flush=True)
    print(entrance if rules.generated else address, flush=True)
    print("Ctrl-C stops it", file=sys.stderr, flush=True)
    if browser and _has_screen():
        webbrowser.open(entrance)


def _answers(host: str, port: int, token: str) -> bool:
    """Whether pages are served; a socket that takes connections is there before they are."""
    connection = HTTPConnection(_name(host).strip("[]"), port, timeout=1)
    try:
        connection.request("GET", "/_stcore/health", headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _has_screen() -> bool:
    """Whether a browser would open in a window and not in this terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _name(host: str) -> str:
    """A host as it is typed in an address; one that means every interface is reached by the local name."""
    if host in WILDCARDS:
        return "localhost"
    return f"[{host}]" if ":" in host else host
