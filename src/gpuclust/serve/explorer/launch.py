"""Start the explorer: check what was given, open the exports once, run Streamlit, say where it is."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import threading
import time
import webbrowser
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from gpuclust.errors import ConfigurationError, ExportError
from gpuclust.serve.explorer.settings import Settings, configure
from gpuclust.serve.library import Library
from gpuclust.serve.links import check_template

PATIENCE_SECONDS = 60
SCRIPT = Path(__file__).with_name("script.py")
# Nothing is fetched from or sent to anywhere else, no file is watched, nothing is printed but our own lines.
OPTIONS = {
    "browser.gatherUsageStats": "false",
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "server.runOnSave": "false",
    "server.maxUploadSize": "1",
    "server.enableStaticServing": "false",
    "client.toolbarMode": "viewer",
    "client.showErrorDetails": "none",
    "logger.hideWelcomeMessage": "true",
    "logger.level": "error",
    "runner.magicEnabled": "false",
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
    browser: bool = True,
) -> int:
    """Serve the explorer of an export until SIGINT or SIGTERM; the exit status.

    ``compare`` is another export to put beside it; ``previews`` the URL template of a lookup for exports without a column
    of previews (see `gpuclust.serve.explorer.previews`); ``browser`` opens the page where there is a screen.
    Raises ExportError for a folder that is no export or a port that is taken, ConfigurationError for a template that
    cannot work or where Streamlit or Plotly is not installed.
    """
    _require("streamlit", "plotly")
    if previews is not None:
        check_template(previews)
    _require_free(host, port)
    for path in filter(None, (folder, compare)):
        Library.open(path, _progress).close()
    configure(Settings(folder.resolve(), compare.resolve() if compare else None, previews))
    address = f"http://{_name(host)}:{port}"
    threading.Thread(target=_announce, args=(host, port, address, browser), daemon=True).start()
    return _serve(host, port)


def _require(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"the explorer needs {' and '.join(missing)}; install them with pip install 'gpuclust[serve]'"
        )


def _require_free(host: str, port: int) -> None:
    if not 1 <= port <= 65535:
        raise ConfigurationError(f"--port {port} is not between 1 and 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ExportError(f"{host}:{port} cannot be served ({error.strerror or error}); give another --port") from error


def _serve(host: str, port: int) -> int:
    """Streamlit's own command line, in this process: its signal handlers end it gracefully."""
    from click import Abort
    from streamlit.web.cli import main as streamlit

    _warm()
    options = {**OPTIONS, "server.address": host, "server.port": str(port), "browser.serverAddress": _name(host)}
    flags = [f"--{name}={value}" for name, value in options.items()]
    with suppress(Abort, KeyboardInterrupt):  # told to stop before Streamlit's own handlers were there
        streamlit(["run", str(SCRIPT), *flags], standalone_mode=False)
    return 0


def _warm() -> None:
    """Import what the first page needs before anybody waits for it."""
    import plotly.graph_objects as go

    import gpuclust.serve.explorer.site  # noqa: F401

    go.Figure(go.Scatter(x=[0], y=[0])).to_json()


def _announce(host: str, port: int, address: str, browser: bool) -> None:
    """Print the address as soon as it answers, and open it where there is a screen."""
    began = time.monotonic()
    while not _answers(host, port):
        if time.monotonic() - began > PATIENCE_SECONDS:
            return
        time.sleep(0.05)
    print(address, flush=True)
    print("Ctrl-C stops it", file=sys.stderr, flush=True)
    if browser and _has_screen():
        webbrowser.open(address)


def _answers(host: str, port: int) -> bool:
    """Whether pages are served; a socket that takes connections is there before they are."""
    connection = HTTPConnection(_name(host).strip("[]"), port, timeout=1)
    try:
        connection.request("GET", "/_stcore/health")
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
    if host in ("0.0.0.0", "::", ""):
        return "localhost"
    return f"[{host}]" if ":" in host else host


def _progress(stage: str, done: float) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{stage} {done:.0%}", end="" if done < 1 else "\r\033[K", file=sys.stderr, flush=True)
