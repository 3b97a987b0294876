"""The benches' parts for a GPU run, on stand-ins for the GPU libraries."""

from __future__ import annotations

import pytest

from tests.test_gpu_fakes import checked


def test_whole_fits_on_stand_ins() -> None:
    checked("benches", "-m", "not campaign")


@pytest.mark.campaign
def test_the_benches_on_stand_ins() -> None:
    checked("benches", "-m", "campaign")
