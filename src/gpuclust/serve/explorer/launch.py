"""Start the explorer: check the options, open the exports, run Streamlit, and print the address."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Mapping, Sequence
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

LOCAL = ("localhost", "127.0.0.1", "::1")
MAX_START_SECONDS = 60
PING_SECONDS = 30
SCRIPT = Path(__file__).with_name("main.py")
# No connections to other sites, no file watching, no output of Streamlit.
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
    # Set for both themes, so that the light or dark mode of the visitor is used.
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
    rename: Callable[[Path, Mapping[int, str]], object] | None = None,
) -> int:
    """Serve the explorer of an export until SIGINT or SIGTERM; return the exit status.

    Args:
        folder: an export folder.
        host, port: the address; port 0 selects a free port.
        compare: another export to compare with.
        previews: URL template of a preview lookup, for exports without a preview column (see `gpuclust.tracks.previews`).
        url_template: URL template of the page of an item.
        browser: open the page in a browser if there is a display.
        allowed_hosts, token: as in `gpuclust.serve.access.access`.
        rename: gives clusters of an export names; visitors of a server that only this machine reaches may use it.

    Raises:
        ExportError: a folder is not an export.
        ConfigurationError: the address is not available, a template is invalid, or Streamlit or Plotly is not installed.
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
        rename = rename if host in LOCAL else None
        configure(Settings(folder.resolve(), compare.resolve() if compare else None, previews, url_template, rename))
        port = listening.getsockname()[1]
        threading.Thread(target=_announce, args=(host, port, rules, browser), daemon=True).start()
        _serve(rules, listening)
    except KeyboardInterrupt:  # uvicorn raises the signal again after shutdown
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
    """Run the Streamlit application behind the gate until a signal arrives."""
    import uvicorn
    from streamlit.starlette import App
    from streamlit.web.bootstrap import load_config_options

    from gpuclust.serve.explorer.gate import Gate
    from gpuclust.serve.explorer.map_data import ROUTES

    load_config_options(dict(OPTIONS))
    _warm()
    connections = settings() | {
        "ws": "websockets-sansio",
        "ws_ping_interval": PING_SECONDS,
        "ws_ping_timeout": PING_SECONDS,
    }
    uvicorn.Server(uvicorn.Config(Gate(App(SCRIPT, routes=ROUTES), rules), **connections)).run(sockets=[listening])


def _warm() -> None:
    """Import the modules of the first page before the first request."""
    import plotly.graph_objects as go

    import gpuclust.serve.explorer.app  # noqa: F401

    go.Figure(go.Scatter(x=[0], y=[0])).to_json()


def _announce(host: str, port: int, rules: Access, browser: bool) -> None:
    """Print the address as soon as the server responds, and open it in a browser if there is a display."""
    started = time.monotonic()
    while not _responds(host, port, rules.token):
        if time.monotonic() - started > MAX_START_SECONDS:
            return
        time.sleep(0.05)
    address = f"http://{_name(host)}:{port}"
    address_with_token = f"{address}/?{urlencode({'token': rules.token})}" if rules.token else address
    if (warned := warning(host, rules)) is not None:
        print(f"gpuclust: {warned}", file=sys.stderr, flush=True)
    print(address_with_token if rules.generated else address, flush=True)
    print("Ctrl-C stops it", file=sys.stderr, flush=True)
    if browser and _has_display():
        webbrowser.open(address_with_token)


def _responds(host: str, port: int, token: str) -> bool:
    """Whether pages are served; the socket accepts connections before that."""
    connection = HTTPConnection(_name(host).strip("[]"), port, timeout=1)
    try:
        connection.request("GET", "/_stcore/health", headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _has_display() -> bool:
    """Whether a browser can open a window."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _name(host: str) -> str:
    """The host as written in an address; localhost for all interfaces."""
    if host in WILDCARDS:
        return "localhost"
    return f"[{host}]" if ":" in host else host
