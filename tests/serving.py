"""A running `gpuclust serve` for tests: a process of its own, on a free port."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STARTED = re.compile(r"on (http://[^\s]+/api/v1)")


def start(folder: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """The process of `gpuclust serve` and the address that it printed."""
    return started("serve", str(folder), *options)


def started(*arguments: str, cwd: Path | None = None) -> tuple[subprocess.Popen[str], str]:
    """The process of a command that serves, on a free port, and the address of its API."""
    command = [sys.executable, "-m", "gpuclust", *arguments, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd)
    assert process.stdout is not None
    found = STARTED.search(process.stdout.readline())
    if found is None:
        process.kill()
        raise AssertionError(process.communicate(timeout=30)[1])
    return process, found[1]


def stop(process: subprocess.Popen[str], by: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
    """Exit status, output and errors of a server that is told to stop."""
    process.send_signal(by)
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, out, err


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[str]:
    """The address of a running server, stopped afterwards."""
    process, address = start(folder, *options)
    try:
        yield address
    finally:
        stop(process)
