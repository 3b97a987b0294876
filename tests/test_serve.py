"""`gpuclust serve` as a process: how it starts, what it says of wrong input, and how it stops."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from tests.exporting import made_export, tracks
from tests.serving import serving, start, stop


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    return made_export(tracks(60), tmp_path_factory.mktemp("serve"), store_template)


def complaint(*arguments: str) -> str:
    """The one line on standard error of a command that ends with status 2."""
    done = subprocess.run(
        [sys.executable, "-m", "gpuclust", "serve", *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_a_signal_stops_it_with_status_0(by: signal.Signals, folder: Path) -> None:
    process, address = start(folder)
    assert httpx.get(f"{address}/health").status_code == 200
    status, out, err = stop(process, by)
    assert (status, out, err) == (0, "stopped\n", "")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health")


def test_an_answer_under_way_is_finished_first(folder: Path) -> None:
    process, address = start(folder)
    place = urlsplit(address)
    body = b'{"cluster": 0}'
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=30) as connection:
        head = f"POST /api/v1/playlist HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[:5])
        time.sleep(0.5)  # the request has been taken up: its body is being waited for
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        connection.sendall(body[5:])
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert process.wait(60) == 0
    process.communicate()


def test_workers_share_a_port_and_end_together(folder: Path) -> None:
    process, address = start(folder, "--workers", "2")
    # The socket listens before the workers are up: the first request waits for one.
    assert httpx.get(f"{address}/clusters", timeout=60).status_code == 200
    for _ in range(3):
        httpx.get(f"{address}/clusters", timeout=60)
    measured = httpx.get(f"{address.removesuffix('/api/v1')}/metrics", timeout=60).text
    assert 'gpuclust_requests_total{method="GET",route="/api/v1/clusters",status="200"} 4.0' in measured.splitlines()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    assert stop(process)[0] == 0
    for _ in range(100):  # multiprocessing's own tracker goes when its pipe closes, a moment later
        if not (left := [child for child in children if Path(f"/proc/{child}").exists()]):
            break
        time.sleep(0.1)
    assert not left


def test_wrong_input_is_one_line(folder: Path, tmp_path: Path) -> None:
    assert "is not an export folder" in complaint(str(tmp_path))
    assert "is not an origin" in complaint(str(folder), "--cors", "music.example")
    assert "outside 0 to 65535" in complaint(str(folder), "--port", "70000")
    assert "outside 1 to 64" in complaint(str(folder), "--workers", "0")
    assert "cannot listen on 192.0.2.1" in complaint(str(folder), "--host", "192.0.2.1")
    with serving(folder) as address:
        port = str(urlsplit(address).port)
        assert f"port {port} (Address already in use)" in complaint(str(folder), "--port", port)


def test_it_listens_on_this_machine_alone_unless_told(folder: Path) -> None:
    with serving(folder) as address:
        assert urlsplit(address).hostname == "127.0.0.1"
        with pytest.raises(OSError), socket.create_connection(("127.0.0.2", urlsplit(address).port or 0), timeout=5):
            pass
    with serving(folder, "--host", "0.0.0.0") as address:
        answer = httpx.get(address.replace("0.0.0.0", "127.0.0.2") + "/health", headers={"host": "music.example"})
        assert answer.status_code == 200


class Payload:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


def test_nothing_of_the_export_is_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "out"))
    monkeypatch.chdir(tmp_path)
    with np.load(copy / "model" / "arrays.npz") as arrays:
        kept = dict(arrays)
    np.savez(copy / "model" / "arrays.npz", **kept | {"parameters/centers": np.array([Payload()], dtype=object)})
    assert "damaged" in complaint(str(copy))
    assert not (tmp_path / "ran").exists()
