"""A pytest plug-in that installs the stand-ins before any test module is imported."""

from __future__ import annotations

import pytest

from tests.gpu_fakes.install import install

install()


@pytest.fixture(autouse=True)
def small_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of few threads, and searches for a start on few rows, because every thread of a kernel runs in Python here."""
    from gpuclust.algorithms.mixture import em_cuda, kernels_cuda, short_em

    monkeypatch.setattr(short_em, "ROUNDS", ((50, 2, 2), (60, 1, 1)))
    monkeypatch.setattr(em_cuda, "WARPS", 1)
    monkeypatch.setattr(em_cuda, "MERGERS", 2)
    monkeypatch.setattr(kernels_cuda, "M_STEP_THREADS", 4)
