"""Servers of remote files on 127.0.0.1: moto in place of S3, and a web server with or without ranges."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@contextmanager
def moto_server(port: int) -> Iterator[str]:
    """A server that speaks S3's protocol, in a process of its own; its address."""
    pytest.importorskip("moto.server", reason="needs moto[server]")
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with suppress(OSError):
                    urllib.request.urlopen(address, timeout=2).close()
                    break
                time.sleep(0.1)
            yield address
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
