"""Errors of GPU libraries: a failed job with its reason, or a lost device that ends the sweep with one line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core.errors import LoweringError, TypingError

from gpuclust.algorithms import registry
from gpuclust.algorithms.kmeans import KMeansConfig
from gpuclust.algorithms.registry import FitInput
from gpuclust.compose import plan
from gpuclust.errors import DeviceLost, FitError, GpuclustError
from gpuclust.pipeline import job as jobs
from gpuclust.pipeline import sweep
from gpuclust.runtime.cache import ResultCache
from gpuclust.runtime.cpu import CpuBackend
from gpuclust.runtime.gpu_errors import cuda_errors, failure_of
from gpuclust.tracking import recorder as tags
from gpuclust.tracking.recorder import FAILED, FINISHED

ROOT = Path(__file__).resolve().parents[1]
RAPIDS_PYTHON = ROOT / ".venv-rapids" / "bin" / "python"


class CudaError(Exception):
    """As most errors of CUDA libraries: not a RuntimeError."""


def healthy() -> None:
    """Waiting for a device that works."""


def lost() -> None:
    """Waiting for a device whose context is lost."""
    raise CudaError("cudaErrorIllegalAddress: an illegal memory access was encountered")


def once() -> Any:
    """Waiting for a device that has one pending error, which does not end the context."""
    errors = [CudaError("cudaErrorInvalidConfiguration: invalid configuration argument")]

    def synchronise() -> None:
        if errors:
            raise errors.pop()

    return synchronise


@pytest.mark.parametrize(
    "error",
    [
        TypingError("Failed in cuda mode pipeline\n\x1b[1mNo implementation of function\x1b[0m"),
        LoweringError("cannot lower"),
        TypeError("Unsupported type <class 'numpy.ndarray'>"),
        AssertionError(),
        ImportError("libnvvm.so cannot be found"),
        CudaError("CUDA_ERROR_INVALID_VALUE: one of the parameters is not in its range"),
        RuntimeError("two\nlines"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_any_error_is_a_failed_fit_with_its_reason(error: Exception) -> None:
    found = failure_of(error, "the tree", healthy)
    assert type(found) is FitError
    assert str(found).startswith("the tree failed on the GPU: ")
    assert str(found).endswith("; try backend=cpu")
    assert all(word in str(found) for word in str(error).replace("\x1b[1m", "").replace("\x1b[0m", "").split())
    assert isinstance(error, RuntimeError) or type(error).__name__ in str(found)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("std::bad_alloc"),
        RuntimeError("parallel_for failed: cudaErrorMemoryAllocation: out of memory"),
        CudaError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    ],
)
def test_too_little_memory_says_what_to_do(error: Exception) -> None:
    found = failure_of(error, "the tree", healthy)
    assert type(found) is FitError
    assert "too little memory for the tree" in str(found)
    assert "dtype=float32" in str(found)


def test_too_little_memory_of_the_machine_is_not_said_to_be_the_gpus() -> None:
    for error in (MemoryError("Unable to allocate 3.4 GiB for an array"), MemoryError()):
        found = failure_of(error, "the tree", healthy)
        assert type(found) is FitError
        assert "this machine has too little memory for the tree" in str(found)
        assert "GPU" not in str(found)


@pytest.mark.parametrize(
    "text",
    [
        "cudaErrorIllegalAddress: an illegal memory access was encountered",
        "CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure",
        "[716] Call to cuMemcpyDtoH_v2 results in CUDA_ERROR_MISALIGNED_ADDRESS",
        "CUDA error at: mr.hpp:84: cudaErrorECCUncorrectable uncorrectable ECC error encountered",
        "Fatal CUDA error encountered at: column.cu:12: 719 cudaErrorLaunchFailure unspecified launch failure",
    ],
)
def test_errors_that_end_the_context_are_a_lost_device(text: str) -> None:
    found = failure_of(RuntimeError(text), "the tree", healthy)
    assert type(found) is DeviceLost
    assert "the tree" in str(found)


def test_a_device_is_lost_where_it_keeps_failing_whatever_the_first_error_said() -> None:
    assert type(failure_of(ValueError("NaN"), "the tree", lost)) is DeviceLost
    assert type(failure_of(ValueError("NaN"), "the tree", once())) is FitError
    assert cuda_errors("no such name, cudaError, CUDA_ERROR_") == frozenset()


class FailingBackend(CpuBackend):
    """The CPU with the errors of a GPU."""

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """As `gpuclust.runtime.gpu.device_errors`."""
        try:
            yield
        except GpuclustError:
            raise
        except Exception as error:
            raise failure_of(error, what, healthy) from error


@pytest.fixture
def failing(context: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a sweep over 2, 3 and 4 clusters in which the fit of 3 raises an error."""

    def run(error: Exception, *, step: str = "cluster") -> sweep.SweepResult:
        original = getattr(jobs, step)

        def maybe(*arguments: Any, **options: Any) -> Any:
            if step != "cluster" or any(request.n_clusters == 3 for request in arguments[1]):
                raise error
            return original(*arguments, **options)

        monkeypatch.setattr(jobs, step, maybe)
        here = replace(context, backend=FailingBackend())
        planned = plan(
            ["data=catalogue", "data.n_rows=300", "report=none", "cluster.n_init=1", "cluster.n_clusters=2,3,4"],
            multirun=True,
        )
        return sweep.run(planned, sweep.jobs_of(planned, here.backend), here)

    return run


def test_a_typing_error_fails_its_job_and_the_others_go_on(context: Any, failing: Any) -> None:
    result = failing(TypingError("No implementation of function"))
    assert [o.status for o in result.outcomes] == [FINISHED, FAILED, FINISHED]
    run = context.recorder.runs[result.failed[0].run_id]
    assert run.status == FAILED
    assert run.tags[tags.FAILURE].startswith("the clustering failed on the GPU: TypingError: No implementation")


def test_a_lost_device_fails_its_job_and_stops_the_sweep_with_one_line(context: Any, failing: Any) -> None:
    with pytest.raises(DeviceLost, match=r"1 of 3 jobs are recorded and kept; the same command continues") as caught:
        failing(CudaError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered"))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 1
    started = [run for run in context.recorder.runs.values() if run.start.tags[tags.KIND] == "job"]
    assert [run.status for run in started] == [FINISHED, FAILED]  # the third never starts
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in started[1].tags[tags.FAILURE]
    (parent,) = (run for run in context.recorder.runs.values() if run.start.tags[tags.KIND] == "sweep")
    assert parent.status == FAILED


def test_an_error_before_any_job_leaves_no_run_behind(context: Any, failing: Any) -> None:
    with pytest.raises(FitError, match="reading the table failed on the GPU: TypeError: unhashable"):
        failing(TypeError("unhashable"), step="read")
    assert not context.recorder.runs


def test_configurations_are_not_fitted_again_one_by_one_on_a_lost_device(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def fit(data: FitInput, configs: Sequence[Any]) -> Any:
        calls.append(len(configs))
        raise DeviceLost("gone")

    own = registry.get_algorithm("kmeans")
    monkeypatch.setitem(registry._registered, "kmeans", replace(own, fit={"cpu": fit}))
    data = FitInput(np.zeros((5, 2)), 0, CpuBackend(), ResultCache(), "key")
    with pytest.raises(DeviceLost):
        registry.fit(data, [KMeansConfig(n_clusters=2), KMeansConfig(n_clusters=3)])
    assert calls == [2]


def test_what_the_real_libraries_raise_is_told_apart() -> None:
    if not RAPIDS_PYTHON.exists():
        pytest.skip("RAPIDS is not installed in .venv-rapids: run make contract")
    code = """if True:
        import cupy, cuda.core._utils.cuda_utils as core
        from cuda.bindings import runtime
        from numba.cuda.cudadrv.driver import CudaAPIError
        from numba.cuda.cudadrv.error import NvvmError
        from numba.cuda.core.errors import TypingError
        from gpuclust.errors import GpuclustError
        from gpuclust.runtime.gpu import device_errors

        def of_core():
            core._check_runtime_error(runtime.cudaError_t(719))
        def of_cupy():
            raise cupy.cuda.runtime.CUDARuntimeError(700)
        def of_numba():
            raise CudaAPIError(700, "Call to cuMemcpyDtoH_v2 results in CUDA_ERROR_ILLEGAL_ADDRESS")
        def full():
            raise cupy.cuda.memory.OutOfMemoryError(8 * 2**47, 0, 0)
        def nvvm():
            raise NvvmError("NVVM_ERROR_COMPILATION")
        def typing():
            raise TypingError("Unknown attribute")
        def file():
            open("/no/such/file")

        for fail in (of_core, of_cupy, of_numba, full, nvvm, typing, file):
            try:
                with device_errors("the tree"):
                    fail()
            except (GpuclustError, OSError) as found:
                print(fail.__name__, type(found).__name__, found)
    """
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [RAPIDS_PYTHON, "-c", code], cwd=ROOT, env=hidden, capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    kinds = [line.split()[1] for line in lines]
    expected = [*["DeviceLost"] * 3, *["FitError"] * 3, "FileNotFoundError"]
    assert kinds == expected, done.stdout + done.stderr
    assert "too little memory for the tree" in lines[3]
    assert "NvvmError" in lines[4]
