"""What tests share: the real tracks beside the checkout, and one seed that an environment variable can change."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

with suppress(ModuleNotFoundError):  # a machine that runs the GPU's tests alone may lack it
    from hypothesis import settings

    # The same examples in every run, so that a run tells what a change did; HYPOTHESIS_PROFILE=wander looks for new ones.
    settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=40)
    settings.register_profile("wander", deadline=None, print_blob=True)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":  # a test of kernels, in a process of its own
    from tests.gpu_fakes import simulator

    simulator.install()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real tracks: ``GPUCLUST_REAL_DATA``, else ``shared/data`` beside the checkout."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("GPUCLUST_REAL_DATA", beside))
    if not (folder / "tracks_114k.csv").is_file():
        pytest.skip(f"no real tracks in {folder}; set GPUCLUST_REAL_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def seed() -> int:
    """0, or any other by ``GPUCLUST_TEST_SEED``: no test may depend on which."""
    return int(os.environ.get("GPUCLUST_TEST_SEED", "0"))


@pytest.fixture(scope="session")
def tracks_11(real_data: Path) -> np.ndarray:
    """The 11 features of the data's README, of distinct tracks, standardised: (89741, 11) float64."""
    frame = pd.read_csv(real_data / "tracks_114k.csv").drop_duplicates("track_id")
    raw = frame[list(ELEVEN)].to_numpy(dtype=np.float64)
    return (raw - raw.mean(axis=0)) / raw.std(axis=0)


ELEVEN = ("danceability", "energy", "key", "loudness", "mode", "speechiness", "acousticness", "instrumentalness",
          "liveness", "valence", "tempo")  # fmt: skip


class Quiet:
    """A display that keeps what it was told."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.outcomes: list[Any] = []

    def stage(self, text: str, done: float = 0.0) -> None:
        self.stages.append(text)

    def finished(self, outcome: Any) -> None:
        self.outcomes.append(outcome)


@pytest.fixture
def main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore ``__main__`` after the test: Streamlit's AppTest replaces it, and processes that are spawned run it."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture
def quiet() -> Quiet:
    """A display that prints nothing."""
    return Quiet()


@pytest.fixture
def context(quiet: Quiet) -> Any:
    """A place to run jobs on the CPU, recorded in memory."""
    return cpu_context(quiet)


def cpu_context(display: Quiet) -> Any:
    """What the fixture `context` gives, for fixtures of a module."""
    from gpuclust.pipeline.context import RunContext
    from gpuclust.runtime.backend import BackendChoice
    from gpuclust.runtime.cache import ResultCache
    from gpuclust.runtime.cpu import CpuBackend
    from gpuclust.tracking.recorder import MemoryRecorder

    return RunContext(
        CpuBackend(), BackendChoice("cpu", "a test"), ResultCache(), MemoryRecorder(), display, "gpuclust test"
    )


@pytest.fixture(scope="session")
def store_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store that is migrated once: creating one takes seconds."""
    from gpuclust.tracking.mlflow import MlflowRecorder

    folder = tmp_path_factory.mktemp("store")
    MlflowRecorder(f"sqlite:///{folder / 'mlflow.db'}", "template")
    return folder / "mlflow.db"


@pytest.fixture
def uri(store_template: Path, tmp_path: Path) -> str:
    """The URI of a fresh MLflow store of this test's own."""
    shutil.copy(store_template, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder that this test may not write to, even where tests run as root."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(was)
            Path(folder).chmod(0o755)


@pytest.fixture
def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_in_simulator(file: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a file in a process where numba.cuda simulates the device: numba must be told before it is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file]
    env = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)
