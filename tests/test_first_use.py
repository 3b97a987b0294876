"""First use: kernels are compiled once and kept, told when it happens, and nothing breaks where they cannot be kept.

What comes after the fit is compiled by a helper meanwhile, and waited for.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from gpuclust.pipeline.start import COMPILING
from gpuclust.runtime.jit import SILHOUETTE_KERNELS, CompileWorker, notify_on_compile, set_worker

KERNEL = """
from gpuclust.runtime.jit import compiled

@compiled(fastmath=False)
def total(values):
    found = 0.0
    for value in values:
        found += value
    return found
"""
QUICK = ["data.n_rows=600", "tracking=none", "report=none", "score=none"]


def load(path: Path, name: str = "a_kernel") -> ModuleType:
    """The module of a file, its kernels not yet compiled in this process."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a kernel, another beside it for the helper, and a cache of their own."""
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "a_kernel.py"
    path.write_text(KERNEL)
    path.with_name("a_late_kernel.py").write_text(KERNEL)
    return path


def told(module: ModuleType) -> int:
    """How often it is said that something is compiled while the kernel adds up, rightly, two numbers."""
    said: list[bool] = []
    with notify_on_compile(lambda: said.append(True)):
        assert module.total(np.array([1.0, 2.5])) == 3.5
        assert module.total(np.array([1, 2])) == 3.0
    return len(said)


def test_it_is_told_once_when_kernels_are_compiled_and_not_when_they_are_read(kernel: Path) -> None:
    assert told(load(kernel)) == 1, "two versions were compiled, and told once"
    assert list((kernel.parent / "cache").rglob("*.nbi")), "they are kept"
    assert told(load(kernel)) == 0


def test_other_code_is_compiled_again(kernel: Path) -> None:
    assert told(load(kernel)) == 1
    kernel.write_text(KERNEL.replace("0.0", "0.0 + 0"))
    assert told(load(kernel)) == 1


def test_a_cache_that_is_gone_when_a_kernel_is_kept_costs_no_more_than_the_keeping(kernel: Path) -> None:
    module = load(kernel)
    shutil.rmtree(kernel.parent / "cache")
    (kernel.parent / "cache").write_text("a file, so that no folder can be made here")
    assert told(module) == 1


def test_a_damaged_cache_is_compiled_over(kernel: Path) -> None:
    assert told(load(kernel)) == 1
    for kept in (kernel.parent / "cache").rglob("*.nb*"):
        kept.write_bytes(kept.read_bytes()[:40])
    assert told(load(kernel)) == 1


def test_nothing_is_told_after_the_context(kernel: Path) -> None:
    said: list[bool] = []
    with notify_on_compile(lambda: said.append(True)):
        pass
    assert load(kernel).total(np.array([1.0])) == 1.0
    assert said == []


LATE = """
import sys, time
import numpy as np
sys.path.insert(0, sys.argv[1])
time.sleep(float(sys.argv[2]))
import a_late_kernel
assert a_late_kernel.total(np.array([1.0, 2.5])) == 3.5
"""


def helped(
    kernel: Path, monkeypatch: pytest.MonkeyPatch, program: str, *arguments: str
) -> tuple[list[str], CompileWorker]:
    """The modules whose kernels are compiled here when a helper, `program`, is to bring those of another; and the helper."""
    from numba.core import event

    class Compiled(event.Listener):
        def on_start(self, event: event.Event) -> None:
            modules.append(event.data["dispatcher"].py_func.__module__)

        def on_end(self, event: event.Event) -> None:
            pass

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(kernel.parent / "cache"))
    monkeypatch.syspath_prepend(kernel.parent)  # what another process kept names the module it is of
    late = kernel.with_name("a_late_kernel.py")
    modules: list[str] = []
    command = (sys.executable, "-c", program, str(kernel.parent), *arguments)
    helper = CompileWorker(command, frozenset({"a_late_kernel"}))
    with notify_on_compile(lambda: None), event.install_listener("numba:compile", Compiled()):
        set_worker(helper)
        assert load(kernel).total(np.array([1.0, 2.5])) == 3.5
        assert load(late, "a_late_kernel").total(np.array([1.0, 2.5])) == 3.5
    return modules, helper


def test_a_helper_compiles_meanwhile_and_is_waited_for(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules, _ = helped(kernel, monkeypatch, LATE, "1")
    assert modules == ["a_kernel"]


@pytest.mark.parametrize("program", ["raise SystemExit(3)", "print('brings nothing')"])
def test_what_a_helper_does_not_bring_is_compiled_here(
    program: str, kernel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules, _ = helped(kernel, monkeypatch, program)
    assert modules == ["a_kernel", "a_late_kernel"]


def test_a_helper_is_started_only_when_something_is_compiled(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helped(kernel, monkeypatch, LATE, "0")
    modules, helper = helped(kernel, monkeypatch, LATE, "0")
    assert modules == []
    assert helper.process is None


def test_a_helper_ends_with_the_work(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = CompileWorker((sys.executable, "-c", "import time; time.sleep(60)"), frozenset())
    began = time.monotonic()
    with notify_on_compile(lambda: None):
        set_worker(helper)
        assert load(kernel).total(np.array([1.0])) == 1.0
    assert helper.process is not None
    assert helper.process.returncode is not None
    assert time.monotonic() - began < 60


def test_no_helper_is_taken_outside_a_job(kernel: Path) -> None:
    helper = CompileWorker((sys.executable, "-c", ""), frozenset())
    set_worker(helper)
    assert told(load(kernel)) == 1
    assert helper.process is None


def run(folder: Path, *overrides: str, cache: Path | None = None, before: str = "", user: int | None = None) -> str:
    """What the command line prints; ``before`` is Python that runs first, ``user`` whom it runs as."""
    code = f"{before}\nimport sys\nfrom gpuclust.cli import main\nsys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "HOME": str(folder / "nowhere"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("XDG_CACHE_HOME", None)
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = str(cache)
    done = subprocess.run(
        [sys.executable, "-c", code, *QUICK, *overrides],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        user=user,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "done" in done.stderr
    return done.stderr


def figures(printed: str) -> str:
    """What a job found, by the line that says so."""
    line = next(line for line in printed.splitlines() if " done " in line)
    return line.rpartition("  ")[0].strip()


@pytest.mark.parametrize(
    "kind",
    [
        "a file",
        pytest.param("missing", marks=pytest.mark.campaign),
        pytest.param("read-only", marks=pytest.mark.campaign),
    ],
)
def test_a_cache_folder_that_cannot_be_used_breaks_nothing(kind: str, tmp_path: Path) -> None:
    """Numba then takes its next place: __pycache__, or the user's cache."""
    cache = tmp_path / "cache"
    if kind == "a file":  # the one that stops root too
        cache.write_text("")
    elif kind == "read-only":
        cache.mkdir(mode=0o555)
    assert figures(run(tmp_path, "cluster=kmeans", cache=cache)) == figures(run(tmp_path, "cluster=kmeans"))


HERE = """
import atexit
from numba.core import event

class Compiled(event.Listener):
    def on_start(self, event):
        modules.add(event.data["dispatcher"].py_func.__module__)

    def on_end(self, event):
        pass

modules = set()
event.register("numba:compile", Compiled())
atexit.register(lambda: print("compiled here:", *sorted(modules), file=sys.stderr))
"""


@pytest.mark.parametrize("algorithm", ["kmeans", pytest.param("hdbscan", marks=pytest.mark.campaign)])
def test_the_helper_brings_all_that_comes_after_a_fit(algorithm: str, tmp_path: Path) -> None:
    """Its few rows make the same versions of the kernels as a job's matrix."""
    printed = run(tmp_path, f"cluster={algorithm}", "score=default", cache=tmp_path / "cache", before=HERE)
    line = next(line for line in printed.splitlines() if line.startswith("compiled here:"))
    assert f"gpuclust.algorithms.{algorithm}." in line, "the fit's own"
    later = [SILHOUETTE_KERNELS, "gpuclust.algorithms.hdbscan.condense"]
    if len(os.sched_getaffinity(0)) > 1:
        assert not [module for module in later if module in line]
    assert figures(printed) == figures(run(tmp_path, f"cluster={algorithm}", "score=default", cache=tmp_path / "cache"))


NOWHERE = """
from numba.core import caching

def refuse(self):
    raise OSError(30, "Read-only file system")

for name in dir(caching):
    locator = getattr(caching, name)
    if isinstance(locator, type) and hasattr(locator, "ensure_cache_path"):
        locator.ensure_cache_path = refuse
"""


def test_where_no_folder_is_writable_kernels_are_compiled_in_memory_and_that_is_said(tmp_path: Path) -> None:
    printed = run(tmp_path, "cluster=kmeans", before=NOWHERE)
    assert printed.count(COMPILING) == 1
    assert figures(printed) == figures(run(tmp_path, "cluster=kmeans"))


def test_fast_hdbscan_is_used_where_no_folder_is_writable(tmp_path: Path) -> None:
    """Its kernels are declared with a cache, which numba then refuses."""
    code = f"{NOWHERE}\nimport gpuclust.algorithms.hdbscan.boruvka as module\nassert module.build_kdtree"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can run as someone else")
def test_a_user_who_may_write_neither_to_the_package_nor_at_home_can_work(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    nobody = 65534
    try:
        subprocess.run([sys.executable, "-c", "import gpuclust"], cwd="/", capture_output=True, user=nobody, check=True)
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("another user cannot run this environment's Python")
    printed = run(Path("/"), "cluster=kmeans", user=nobody)
    assert COMPILING in printed
    assert figures(printed) == figures(run(folder, "cluster=kmeans"))
