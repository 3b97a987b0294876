"""Running the API: a port that is bound before anything is printed, workers, and an end that lets answers finish."""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from gpuclust.errors import ConfigurationError, JobError
from gpuclust.serve.access import Access, access, warning

LAST_ANSWERS = 5  # seconds that answers under way have when the server is stopped
WAITING = 1024  # connections not yet accepted
SETTINGS: dict[str, Any] = {
    "log_level": "warning",
    "access_log": False,
    "server_header": False,
    "timeout_graceful_shutdown": LAST_ANSWERS,
    "ws": "none",
}
# A fork would share the open index of its parent; SQLite forbids that.
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class ServerConfig:
    """What is served to whom: an export folder, and `create_app`'s ``cors`` and ``access``."""

    folder: str
    cors: tuple[str, ...] = ()
    access: Access = field(default_factory=Access)


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    cors: Sequence[str] = (),
    workers: int = 1,
    allowed_hosts: Sequence[str] = (),
    token: str | None = None,
) -> int:
    """Serve an export folder until SIGTERM or Ctrl-C; the exit status.

    ``port`` 0 takes a free one; ``allowed_hosts`` and ``token`` are as in `gpuclust.serve.access.access`. Raises ConfigurationError when the address cannot be had or a value is wrong, ExportError
    or ModelError when the folder cannot be served; all before anything is served.
    """
    try:
        import uvicorn

        from gpuclust.serve.api import create_app
    except ImportError as error:
        raise ConfigurationError(f"gpuclust serve needs {error.name}; install gpuclust[serve]") from error
    _check(port, cors, workers)
    rules = access(host, allowed_hosts, token)
    listening = bind(host, port)
    orders = ServerConfig(str(folder), tuple(cors), rules)
    try:
        app = create_app(folder, cors=orders.cors, access=rules, progress=show_progress)
        facts = app.state.library.facts
        address = f"[{host}]" if ":" in host else host
        if (warned := warning(host, rules)) is not None:
            print(f"gpuclust: {warned}", file=sys.stderr, flush=True)
        where = f"http://{address}:{listening.getsockname()[1]}"
        print(
            f"{folder}: {facts.n_rows:,} rows in {facts.n_clusters} clusters on {where}/api/v1; Ctrl-C stops",
            flush=True,
        )
        if rules.generated:
            print(f"token: {rules.token}   (send it as Authorization: Bearer TOKEN)", flush=True)
        if workers == 1:
            uvicorn.Server(uvicorn.Config(app, **settings())).run(sockets=[listening])
        else:
            app.state.library.close()
            _supervise(orders, listening, workers)
    except KeyboardInterrupt:  # uvicorn raises the signal again when it has stopped
        pass
    finally:
        listening.close()
    print("stopped", flush=True)
    return 0


def _supervise(orders: ServerConfig, listening: socket.socket, workers: int) -> None:
    """Worker processes that share a socket, until a signal comes or one of them dies. Raises JobError for the latter."""
    processes = [SPAWN.Process(target=_work, args=(orders, listening), daemon=True) for _ in range(workers)]
    try:
        for process in processes:
            process.start()
        wait([process.sentinel for process in processes])
        raise JobError(
            "a worker ended; the others were stopped too: start again, with fewer --workers if memory is short"
        )
    finally:
        for process in processes:
            if process.pid is not None:
                process.terminate()
                process.join(2 * LAST_ANSWERS)


def _work(orders: ServerConfig, listening: socket.socket) -> None:
    """One worker process."""
    import uvicorn

    from gpuclust.serve.api import create_app

    with contextlib.suppress(KeyboardInterrupt):
        app = create_app(orders.folder, cors=orders.cors, access=orders.access)
        uvicorn.Server(uvicorn.Config(app, **settings())).run(sockets=[listening])


def settings() -> dict[str, Any]:
    """What uvicorn is told: nothing of its own is printed, and requests that do not arrive in time are given up."""
    from gpuclust.serve.connection import TimedProtocol

    return SETTINGS | {"http": TimedProtocol}


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigurationError when the address is in use, unknown, or not ours to take."""
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # With the protocol named, asyncio sets TCP_NODELAY on its connections; without, answers wait 40 ms for an ACK.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(place)
            listening.listen(WAITING)
        except BaseException:
            listening.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"cannot listen on {host} port {port} ({reason}); give another --port (0: any free one)"
        ) from error
    return listening


def _check(port: int, cors: Sequence[str], workers: int) -> None:
    if not 0 <= port <= 65535:
        raise ConfigurationError(f"--port {port} is outside 0 to 65535")
    for origin in cors:
        if origin != "*" and (not origin.startswith(("http://", "https://")) or origin.count("/") != 2):
            raise ConfigurationError(f"--cors {origin} is not an origin; write it as https://example.org, or * for any")
    if not 1 <= workers <= 64:
        raise ConfigurationError(f"--workers {workers} is outside 1 to 64")


def show_progress(stage: str, done: float) -> None:
    """Show the progress of building an index on a terminal; ``done`` is in [0, 1]."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{stage} ({done:.0%})" if done < 1 else "\r\x1b[K", end="", file=sys.stderr, flush=True)
