"""A pytest plug-in that installs the stand-ins before any test module is imported."""

from __future__ import annotations

import pytest

from tests.gpu_fakes.install import install

install()


@pytest.fixture(autouse=True)
def small_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches for a start take few rows and runs, because every thread of a kernel runs in Python here."""
    from gpuclust.algorithms.mixture import em_cuda, kernels_cuda, short_em

    monkeypatch.setattr(short_em, "ROUNDS", ((100, 3, 3), (150, 2, 2)))
    for module, name, value in ((em_cuda, "WARPS", 1), (em_cuda, "MERGERS", 2), (kernels_cuda, "M_STEP_THREADS", 4)):
        monkeypatch.setattr(module, name, value)
