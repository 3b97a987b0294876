"""Errors of the device in the middle of a sweep: a failed job with its reason, or one line that ends the sweep. Run by `tests.test_gpu_fakes`."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import gpuclust as gc
from gpuclust.algorithms.hdbscan import HdbscanConfig
from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.mixture import GmmConfig
from gpuclust.errors import DeviceLost, GpuclustError
from tests.gpu_fakes.check_jobs import blobs
from tests.gpu_fakes.device import DEVICE, LAUNCH, Event, Failure


class CudaAPIError(Exception):
    """numba's: not a RuntimeError."""


class TypingError(Exception):
    """numba's."""


def illegal_address() -> Exception:
    return CudaAPIError("[700] Call to cuMemcpyDtoH results in CUDA_ERROR_ILLEGAL_ADDRESS")


def invalid_value() -> Exception:
    return CudaAPIError("[1] Call to cuLaunchKernel results in CUDA_ERROR_INVALID_VALUE")


def typing() -> Exception:
    return TypingError("Failed in cuda mode pipeline (step: nopython frontend)\nNo implementation of function\n")


JOBS = {
    "kmeans": [KMeansConfig(n_clusters=k, n_init=1, max_iter=2, engine="fused") for k in (2, 3)],
    "cuml": [KMeansConfig(n_clusters=k, n_init=1, max_iter=2, engine="library") for k in (2, 3)],
    "mixture": [GmmConfig(n_clusters=k, max_iter=2) for k in (2, 3)],
    "hdbscan": [HdbscanConfig(min_cluster_size=k, min_samples=3, exact=False) for k in (10, 15)],
}


def sweep(jobs: str) -> Any:
    return gc.sweep(blobs(90), *JOBS[jobs], backend="gpu", tracking=None, progress=False)


def events(jobs: str) -> dict[tuple[str, str, str], int]:
    """Each place of a sweep at which the device is used, by kind, step and function, with the number of its first event of that kind and
    step."""
    with DEVICE.measure() as counts:
        sweep(jobs)
    seen: dict[tuple[str, str, str], int] = {}
    number: dict[tuple[str, str], int] = {}
    for event in counts.events:
        step = (event.kind, event.name)
        number[step] = number.get(step, 0) + 1
        seen.setdefault((*step, place(event)), number[step])
    return seen


def place(event: Event) -> str:
    return event.where[0] if event.where else ""


@pytest.mark.parametrize("jobs", JOBS)
@pytest.mark.parametrize("make", [invalid_value, typing], ids=["launch", "typing"])
def test_an_error_of_a_step_fails_its_job_and_the_others_go_on(jobs: str, make: Any) -> None:
    step = {"kmeans": "kmeans", "cuml": "KMeans.fit", "mixture": "mixture", "hdbscan": "HDBSCAN.fit"}[jobs]
    with DEVICE.failing(Failure(make, LAUNCH, step)):
        board = sweep(jobs).leaderboard
    assert (board["status"] == "failed").any()
    failure = next(text for text in board["failure"] if text)
    assert "on the GPU" in failure
    assert type(make()).__name__ in failure
    assert "\n" not in failure
    if jobs == "cuml":  # its jobs share no step
        assert (board["status"] == "finished").any()


@pytest.mark.parametrize("jobs", JOBS)
def test_a_lost_device_ends_the_sweep_with_one_line(jobs: str) -> None:
    step = {"kmeans": "kmeans", "cuml": "KMeans.fit", "mixture": "mixture", "hdbscan": "HDBSCAN.fit"}[jobs]
    with DEVICE.failing(Failure(illegal_address, LAUNCH, step, sticky=True)), pytest.raises(DeviceLost) as caught:
        sweep(jobs)
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.campaign
@pytest.mark.parametrize("jobs", JOBS)
@pytest.mark.parametrize("make", [invalid_value, illegal_address], ids=["one", "lost"])
def test_an_error_anywhere_is_one_of_gpuclust(jobs: str, make: Any) -> None:
    """At each place where a sweep uses the device, from reading to the last score."""
    for (kind, name, where), after in events(jobs).items():
        try:
            with DEVICE.failing(Failure(make, kind, name, after, sticky=make is illegal_address)):
                board = sweep(jobs).leaderboard
        except Exception as error:
            if not isinstance(error, GpuclustError) or "\n" in str(error):
                raise AssertionError(f"{kind} {name} in {where}: {type(error).__name__}: {error}") from error
        else:
            assert make is not illegal_address or "probe" in where, (kind, name, where)
            assert pd.notna(board["failure"]).all(), (kind, name, where)
