"""The wheel: everything that a run needs is in it, and it runs away from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout's files."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; install gpuclust[dev]")
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(ROOT),
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "-w",
        str(out),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (built,) = out.glob("*.whl")
    return built


def test_the_code_conf_and_the_studies_are_inside_and_benches_are_not(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    configuration = {str(p.relative_to(ROOT)) for p in (ROOT / "conf").rglob("*.yaml") if "experiments" not in p.parts}
    studies = {f"conf/experiments/{p.name}" for p in (ROOT / "experiments").glob("*.yaml")}
    assert {f"gpuclust/{name}" for name in configuration | studies} <= names
    sources = (ROOT / "src").rglob("*")
    files = {str(p.relative_to(ROOT / "src")) for p in sources if p.is_file() and "__pycache__" not in p.parts}
    assert "gpuclust/py.typed" in files
    assert files <= names
    assert not [n for n in names if "bench" in n or "calibration" in n or n.startswith("tests")]
    assert all(any(n.endswith(f"licenses/{name}") for n in names) for name in ("LICENSE", "NOTICE"))


def test_an_installed_wheel_runs_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "work").mkdir()
    # -I would drop PYTHONPATH; -P keeps the current folder out.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")} | {
        "PYTHONPATH": str(tmp_path / "site")
    }
    code = (
        "import gpuclust, sys; assert 'site' in gpuclust.__file__, gpuclust.__file__; "
        "from gpuclust.cli import main; "
        "sys.exit(main(['data.n_rows=500', 'cluster.n_clusters=3', 'tracking=none', 'scale=minmax']))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path / "work",
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "kmeans k=3" in done.stderr
    assert not list((tmp_path / "work").iterdir())
