"""Servers of remote files on 127.0.0.1: moto in place of S3, and a web server with or without ranges."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@contextmanager
def moto_server(port: int) -> Iterator[str]:
    """A server that speaks S3's protocol, in a process of its own; its address."""
    pytest.importorskip("moto.server", reason="needs moto[server]")
    address = f"http://127.0.0.1:{port}"
    command = ["-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, address):
        yield address


@contextmanager
def google_server(port: int) -> Iterator[str]:
    """A server that speaks the protocol of Google Cloud Storage, in a process of its own; its address."""
    pytest.importorskip("gcp_storage_emulator", reason="needs gcp-storage-emulator")
    start = "from gcp_storage_emulator.__main__ import main; main()"
    address = f"http://127.0.0.1:{port}"
    with _running(["-c", start, "start", "--in-memory", "--host", "127.0.0.1", "--port", str(port)], address):
        yield address


@contextmanager
def _running(command: list[str], address: str) -> Iterator[None]:
    """Python with a command line, from when the address answers on."""
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    urllib.request.urlopen(address, timeout=2).close()
                except urllib.error.HTTPError:  # an answer
                    break
                except OSError:
                    time.sleep(0.1)
                else:
                    break
            yield
        finally:
            process.kill()


@contextmanager
def web_server(folder: Path, *, ranges: bool) -> Iterator[tuple[str, list[str]]]:
    """A web server of the files of a folder; its address, and the requests that it answered."""
    seen: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            seen.append(f"GET {self.path} {self.headers.get('Range', '')}".strip())
            if not ranges or asked is None:
                super().do_GET()
                return
            content = Path(self.translate_path(self.path)).read_bytes()
            start, stop = int(asked[1]), min(int(asked[2]) + 1, len(content))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
            self.send_header("Content-Length", str(stop - start))
            super().end_headers()
            self.wfile.write(content[start:stop])

        def end_headers(self) -> None:
            if ranges:
                self.send_header("Accept-Ranges", "bytes")
            super().end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
