"""Start the MLflow UI on a store, and print the addresses of the charts, of the table of runs, and of the latest sweep."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping

from gpuclust.errors import TrackingError
from gpuclust.tracking.mlflow import MlflowRecorder
from gpuclust.tracking.store_location import pages

MAX_START_SECONDS = 60


def serve_ui(uri: str | None, experiment: str, host: str, port: int) -> int:
    """Serve until interrupted; return the exit status. Raises TrackingError if there is no store or the port is in use."""
    if not 0 < port < 65536:
        raise TrackingError(f"--port {port} is outside 1 to 65535")
    try:
        socket.getaddrinfo(host, port)
    except (OSError, UnicodeError) as error:
        raise TrackingError(f"--host {host} is not an address of this machine ({error}); give 127.0.0.1") from error
    recorder = MlflowRecorder(uri, experiment, create=False)
    recorder.share_view()
    latest = next((sweep.run_id for sweep in recorder.sweeps()), None)
    if recorder.uri.startswith("http"):
        print("the tracking server has its own UI:")
        _show(recorder.links(latest, sweeps=latest is not None))
        return 0
    if _responds(host, port):
        raise TrackingError(f"port {port} is in use; give another with --port")
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    if recorder.artifacts:
        command += ["--default-artifact-root", recorder.artifacts]
    environment = os.environ | {
        # Not a command-line option, because `ps` shows the command line, including a password, to every user.
        "MLFLOW_BACKEND_STORE_URI": recorder.uri,
        # Otherwise MLflow starts a job queue, which takes many seconds.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        started = time.monotonic()
        while not _responds(host, port):
            if server.poll() is not None or time.monotonic() - started > MAX_START_SECONDS:
                raise TrackingError(
                    f"the MLflow UI did not start on {recorder.uri}; to see why, set MLFLOW_BACKEND_STORE_URI to it and "
                    f"run: python {' '.join(command[1:])}"
                )
            time.sleep(0.05)
        _show(
            pages(
                f"http://{f'[{host}]' if ':' in host else host}:{port}",
                recorder.experiment_id,
                latest,
                sweeps=latest is not None,
            )
        )
        print("Ctrl-C stops it", file=sys.stderr)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        server.wait()


def _show(addresses: Mapping[str, str]) -> None:
    """Print the address of the charts, and the others with what they show."""
    print(addresses["charts"])
    for what, address in addresses.items():
        if what != "charts":
            print(f"{what.replace('this run', 'latest sweep')}: {address}")
    sys.stdout.flush()


def _responds(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=0.5).close()
    except OSError:
        return False
    return True
