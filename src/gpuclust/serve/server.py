"""Run the API: bind the port, print the address, start workers, and shut down gracefully."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gpuclust.errors import ConfigurationError, JobError
from gpuclust.serve.access import Access, access, warning

SHUTDOWN_SECONDS = 5  # for requests in progress when the server stops
BACKLOG = 1024  # connections not yet accepted
SETTINGS: dict[str, Any] = {
    "log_level": "warning",
    "access_log": False,
    "server_header": False,
    "timeout_graceful_shutdown": SHUTDOWN_SECONDS,
    "ws": "none",
}
# SQLite does not allow a forked process to use connections of its parent.
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class ServerConfig:
    """The export folder to serve, and the ``cors`` and ``access`` of `create_app`."""

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
    """Serve an export folder until SIGTERM or Ctrl-C; return the exit status.

    ``port`` 0 selects a free port; ``allowed_hosts`` and ``token`` are as in `gpuclust.serve.access.access`. Raises, before the
    server starts, ConfigurationError if the address is not available or a value is invalid, and ExportError or ModelError
    if the folder cannot be served.
    """
    try:
        import uvicorn

        from gpuclust.serve.api import create_app
    except ImportError as error:
        raise ConfigurationError(f"gpuclust serve needs {error.name}; install gpuclust[serve]") from error
    _check(port, cors, workers)
    rules = access(host, allowed_hosts, token)
    listening = bind(host, port)
    config = ServerConfig(str(folder), tuple(cors), rules)
    try:
        app = create_app(folder, cors=config.cors, access=rules, progress=show_progress)
        facts = app.state.library.facts
        address = f"[{host}]" if ":" in host else host
        if (warned := warning(host, rules)) is not None:
            print(f"gpuclust: {warned}", file=sys.stderr, flush=True)
        where = f"http://{address}:{listening.getsockname()[1]}"
        print(
            f"{folder}: {facts.n_rows:,} rows in {facts.n_clusters} clusters on {where}/api/v1 (documentation: {where}/docs); "
            "Ctrl-C stops",
            flush=True,
        )
        if rules.generated:
            print(f"token: {rules.token}   (send it as Authorization: Bearer TOKEN)", flush=True)
        if workers == 1:
            uvicorn.Server(uvicorn.Config(app, **settings())).run(sockets=[listening])
        else:
            app.state.library.close()
            _supervise(config, listening, workers)
    except KeyboardInterrupt:  # uvicorn raises the signal again after shutdown
        pass
    finally:
        listening.close()
    print("stopped", flush=True)
    return 0


def _supervise(config: ServerConfig, listening: socket.socket, workers: int) -> None:
    """Run worker processes that share a socket until a signal arrives. Raises JobError if one of them ends."""
    from gpuclust.serve.measures import SHARED_FOLDER

    processes = [SPAWN.Process(target=_worker, args=(config, listening), daemon=True) for _ in range(workers)]
    measured = TemporaryDirectory(prefix="gpuclust-measures-")
    os.environ.setdefault(SHARED_FOLDER, measured.name)
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
                process.join(2 * SHUTDOWN_SECONDS)
        measured.cleanup()


def _worker(config: ServerConfig, listening: socket.socket) -> None:
    """The main function of a worker process."""
    import uvicorn

    from gpuclust.serve.api import create_app

    with contextlib.suppress(KeyboardInterrupt):
        app = create_app(config.folder, cors=config.cors, access=config.access)
        uvicorn.Server(uvicorn.Config(app, **settings())).run(sockets=[listening])


def settings() -> dict[str, Any]:
    """Settings of uvicorn: no output of its own, and a timeout for requests that arrive slowly."""
    from gpuclust.serve.connection import TimedProtocol

    return SETTINGS | {"http": TimedProtocol}


def bind(host: str, port: int) -> socket.socket:
    """Open a listening socket. Raises ConfigurationError if the address is in use, unknown or not permitted."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # asyncio sets TCP_NODELAY only if the protocol is given; without it, responses wait 40 ms for an ACK.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
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
