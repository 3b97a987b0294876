"""The image and the compose file for a GPU, read as text: no test here builds them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
RECIPE = (ROOT / "Dockerfile.gpu").read_text()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())


def test_everything_that_is_compiled_at_run_time_is_cached_on_the_volume() -> None:
    (volume,) = re.findall(r"^VOLUME (\S+)$", RECIPE, re.MULTILINE)
    caches = dict(re.findall(r"^\s+(\w*(?:CACHE|CONFIG)\w*)=(\S+?)(?: \\)?$", RECIPE, re.MULTILINE))
    assert {"NUMBA_CACHE_DIR", "CUPY_CACHE_DIR", "CUDA_CACHE_PATH", "LIBCUDF_KERNEL_CACHE_PATH"} <= set(caches)
    del caches["PIP_NO_CACHE_DIR"]
    assert all(folder.startswith(f"{volume}/") for folder in caches.values()), caches


def test_the_final_image_has_the_licence_and_the_notice() -> None:
    final = RECIPE.rpartition("\nFROM ")[2]
    assert "\nCOPY LICENSE NOTICE /usr/share/doc/gpuclust/\n" in final


def test_the_services_of_the_profile_use_the_image_its_volume_and_the_gpu() -> None:
    services = COMPOSE["services"]
    assert all(service["profiles"] == ["gpu"] for service in services.values())
    assert {service["image"] for service in services.values()} == {"gpuclust:gpu"}
    assert "runs:/runs" in services["gpuclust"]["volumes"]
    assert set(COMPOSE["volumes"]) == {"runs"}
    assert (ROOT / services["gpuclust"]["build"]["dockerfile"]).exists()
    (device,) = services["gpuclust"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert all(port.startswith("127.0.0.1:") for name in ("ui", "jobs") for port in services[name]["ports"])
    assert services["jobs"]["deploy"] == services["gpuclust"]["deploy"]


def test_the_commands_of_the_services_are_commands_of_gpuclust() -> None:
    for service in COMPOSE["services"].values():
        name, *options = service["command"]
        done = subprocess.run(
            [sys.executable, "-m", "gpuclust", name, "--help"], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert all(option in done.stdout for option in options if option.startswith("--"))
