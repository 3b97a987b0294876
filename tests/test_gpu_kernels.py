"""The CUDA kernels, compiled for five kinds of device without one: what they use is within limits, and they do not grow."""

from __future__ import annotations

import json

import pytest

from tests.test_contract import with_rapids

EXAMPLES = """
import json
from tests.gpu_kernels import check, examples

check.with_named_device()
first = examples.case()
kept = check.measure(first, ["75", "90"])
out = {"same": check.problems(first, kept, kept), "new": check.problems(first, kept, {})}
for name, case in (("grown", examples.case(1)), ("spilled", examples.case(max_registers=24))):
    out[name] = check.problems(case, check.measure(case, ["75", "90"]), kept)
print(json.dumps(out))
"""


OLDEST_AND_HOPPER = ("75", "90")


@pytest.mark.parametrize(
    "devices", [pytest.param(OLDEST_AND_HOPPER, id="two"), pytest.param((), id="all", marks=pytest.mark.campaign)]
)
def test_every_kernel_fits_each_device_and_has_not_grown(devices: tuple[str, ...]) -> None:
    done = with_rapids("-m", "tests.gpu_kernels.check", *(("--devices", *devices) if devices else ()))
    assert done.returncode == 0, done.stdout + done.stderr
    if "not counted" in done.stdout:
        pytest.skip(done.stdout)


def test_a_kernel_that_grows_or_spills_is_found() -> None:
    done = with_rapids("-c", EXAMPLES)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    assert found["same"] == []
    stack = [line for line in found["spilled"] if "bytes of stack memory; its case allows 0" in line]
    assert [line.split()[2] for line in stack] == ["sm_75", "sm_90"]
    if not found["new"]:
        pytest.skip("nvdisasm is not installed in .venv-rapids: run make contract")
    assert [line.partition(": ")[0] for line in found["grown"]] == ["products on sm_75", "products on sm_90"]
    assert all("a step of 'row' takes" in line for line in found["grown"])
    assert all("run this with --update" in line for line in found["new"])


def test_a_kernel_without_a_case_is_found() -> None:
    code = "from tests.gpu_kernels import check; check.with_named_device(); print(*check.without_case(check.cases('assign')), sep='\\n')"
    done = with_rapids("-c", code)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any("algorithms/mixture/kernels_cuda.py" in line and "has no case" in line for line in lines)
    assert not any("assign_cuda.py" in line for line in lines)
