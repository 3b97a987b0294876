"""Faults for the campaign: commands that are killed at a chosen moment, disks that fill up, servers that misbehave."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

# Reads one command a line, as JSON, and runs each in a forked child, so that the imports are paid once. A child counts what
# it writes: SQL statements, files that are opened for writing, made, renamed or removed; it kills itself at the given count.
SERVER = """
import json, os, resource, signal, sys
import sqlalchemy
from sqlalchemy import event
import gpuclust.cli, gpuclust.commands, gpuclust.export, gpuclust.pipeline.sweep, gpuclust.choice, gpuclust.tracking.mlflow
import gpuclust.report.terminal, gpuclust.serve.library, gpuclust.runtime.cpu, gpuclust.pipeline.run_files
import mlflow.store.tracking.sqlalchemy_store

count, moment = 0, None

def wrote(*_):
    global count
    count += 1
    if count == moment:
        os.kill(os.getpid(), signal.SIGKILL)

def heard(name, args):
    if name in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link"):
        wrote()
    elif name == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        wrote()

for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
        continue
    os.setsid()
    os.chdir(asked["cwd"])
    os.environ.update(asked["environment"])
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if asked["largest_file"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["largest_file"],) * 2)
    moment = asked["moment"]
    sys.addaudithook(heard)
    event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", wrote)
    try:
        status = gpuclust.cli.main(asked["arguments"])
    except SystemExit as leave:
        status = leave.code
    except BaseException:
        import traceback
        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    with open(asked["count"], "w") as file:
        file.write(str(count))
    os._exit(status or 0)
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status (-9 when killed), what it printed, what it wrote, and the seconds it took."""

    status: int
    out: str
    err: str
    n_writes: int | None
    seconds: float

    @property
    def complaints(self) -> list[str]:
        """Its lines of error."""
        return [line for line in self.err.splitlines() if line.startswith("gpuclust: ")]


class Commands:
    """Runs gpuclust's commands in forked children of one process that has imported everything."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="gpuclust-campaign-")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_TRACKING", "GPUCLUST"))}
        self._server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __enter__(self) -> Commands:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(60)
        assert self._server.stdout is not None
        self._server.stdout.close()
        self._folder.cleanup()

    def run(
        self,
        cwd: Path,
        arguments: Sequence[str],
        *,
        moment: int | None = None,
        largest_file: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run one command; with ``moment`` it is killed when it writes for the so-many-th time."""
        folder = Path(self._folder.name)
        files = {name: str(folder / name) for name in ("out", "err", "count")}
        Path(files["count"]).unlink(missing_ok=True)
        asked = {
            "cwd": str(cwd),
            "arguments": list(arguments),
            "moment": moment,
            "largest_file": largest_file,
            "environment": dict(environment or {}),
            **files,
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        began = time.monotonic()
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        status = int(self._server.stdout.readline())
        counted = Path(files["count"])
        return Ended(
            status,
            Path(files["out"]).read_text(errors="replace"),
            Path(files["err"]).read_text(errors="replace"),
            int(counted.read_text()) if counted.exists() else None,
            time.monotonic() - began,
        )


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes in a folder. Raises OSError where mounting is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(done.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def resize(folder: Path, size: int) -> None:
    """Give a small disk another size."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True, capture_output=True)


class Proxy:
    """A proxy before a tracking server, which misbehaves in one way from some request on."""

    def __init__(self, target: int, fault: str, after: int = 0) -> None:
        self.n_requests, self.fault, self.after = 0, fault, after
        self.healed = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return self._answer
                raise AttributeError(name)

            def _answer(self) -> None:
                proxy._answer(self, target)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Answer no longer."""
        self.healed.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler, target: int) -> None:
        self.n_requests += 1
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        fault = "" if self.healed.is_set() or self.n_requests <= self.after else self.fault
        if fault in ("401", "500"):
            return _reply(request, int(fault), b'{"error_code": "X", "message": "no"}', "application/json")
        if fault == "html":
            return _reply(request, 200, b"<html>a login page</html>", "text/html")
        if fault == "flaky" and self.n_requests % 5 == 0:
            return _reply(request, 503, b"busy", "text/plain")
        if fault == "drop" and self.n_requests % 9 == 0:
            request.close_connection = True
            return None
        if fault == "dies":
            request.close_connection = True
            return None
        if fault == "hang":
            self.healed.wait(600)
            request.close_connection = True
            return None
        if fault == "slow":
            time.sleep(0.2)
        with closing(http.client.HTTPConnection("127.0.0.1", target, timeout=60)) as link:
            headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "connection")}
            link.request(request.command, request.path, body, headers)
            with link.getresponse() as answer:
                content = answer.headers.get("Content-Type", "application/json")
                return _reply(request, answer.status, answer.read(), content)


def _reply(request: BaseHTTPRequestHandler, status: int, body: bytes, kind: str) -> None:
    request.send_response(status)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


@contextmanager
def tracking_server(folder: Path, uri: str, port: int) -> Iterator[None]:
    """A real MLflow server on a store, until the context ends."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "2",
               "--artifacts-destination", str(folder / "artifacts")]  # fmt: skip
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as link:
                    link.request("GET", "/health")
                    with link.getresponse() as answer:
                        if answer.status == 200:
                            break
            except OSError:
                pass
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.3)
        yield
    finally:
        server.terminate()
        server.wait()
