"""The contract checker: it finds what does not fit, and the GPU code fits the RAPIDS of `make contract`."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.contract.expressions import Report
from tests.contract.values import Declared
from tests.contract.walker import Walker

ROOT = Path(__file__).resolve().parents[1]
RAPIDS_PYTHON = ROOT / ".venv-rapids" / "bin" / "python"

LIBRARY = '''
import functools


class ndarray:
    """An array."""

    @property
    def size(self) -> int: ...

    def mean(self, axis=None, dtype=None) -> "ndarray": ...

    def get(self): ...


def asarray(a, dtype=None) -> ndarray: ...


def mystery(*args, **kwargs): ...


class Model:
    labels_ = property(lambda self: None)

    def __init__(self, *, n_clusters=8, tol=1e-4):
        self.n_clusters = n_clusters
        self._tree = None

    def fit(self, X, y=None) -> "Model":
        self.inertia_ = 0.0
        return self


class Refuses:
    def __init__(self, *, tol=1e-4):
        raise RuntimeError("a GPU is needed")


class Hidden:
    """Hides its parameters as cuML's copies of scikit-learn's scalers do."""

    def __init__(self, *, copy=True): ...

    def fit(self, X) -> "Hidden": ...


orig_init = None


def hide(cls):
    orig_init = cls.__init__

    def init(self, *args, **kwargs):
        orig_init(self, *args, **kwargs)

    cls.__init__ = init


hide(Hidden)
'''


HEAD = "from __future__ import annotations\nimport arrays\nfrom arrays import Model\n"


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Checks a piece of code that uses the stand-in library ``arrays``; its functions give arrays unless they say."""
    (tmp_path / "arrays.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(tmp_path)

    def run(code: str) -> Report:
        (tmp_path / "gpu_demo.py").write_text(HEAD + textwrap.dedent(code))
        importlib.invalidate_caches()
        arrays = importlib.import_module("arrays")
        known = Declared(returns={"arrays.ndarray.get": list})
        report = Walker(importlib.import_module("gpu_demo"), ("arrays",), known, constructs=("arrays",)).walk()
        assert arrays.__file__ == str(tmp_path / "arrays.py")
        return report

    yield run
    for name in ("arrays", "gpu_demo"):
        sys.modules.pop(name, None)


def test_code_that_fits_is_clean_and_counted(check):
    report = check("""
        def fit(X: arrays.ndarray) -> list:
            model = Model(n_clusters=3, tol=0.1).fit(X.mean(axis=0))
            print(model.labels_, model.inertia_, model._tree, X.size, X.get().count(1))
            return [arrays.asarray(row, dtype=float).mean() for row in X]
    """)
    assert report.problems == []
    assert report.unresolved == []
    assert len(report.calls) == 6
    assert len(report.constructed) == 1


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ("Model(clusters=3)", "unexpected keyword argument 'clusters'"),
        ("Model(3)", "too many positional arguments"),
        ("Model().fit()", "missing a required argument: 'X'"),
        ("Model().fit(X, None, None)", "too many positional arguments"),
        ("Model().fit(X).centres_", "has no attribute 'centres_'"),
        ("Model().fit(X, weight=X)", "unexpected keyword argument 'weight'"),
        ("arrays.zeros(3)", "has no attribute 'zeros'"),
        ("X.mean(1, 2, 3)", "too many positional arguments"),
        ("X.mean().median()", "has no attribute 'median'"),
        ("arrays.asarray(X).T", "has no attribute 'T'"),
        ("(X + 1).T", "has no attribute 'T'"),
        ("X[0].T", "has no attribute 'T'"),
        ("[row.T for row in X]", "has no attribute 'T'"),
        ("arrays.Hidden(deep=True)", "unexpected keyword argument 'deep'"),
        ("arrays.Hidden().fit(X).scale_", "has no attribute 'scale_'"),
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        "def use(X: arrays.ndarray):\n    {}",
        "def use(X: arrays.ndarray):\n    with open('x'):\n        try:\n            y = {}\n        except OSError:\n"
        "            pass",
        "class Use:\n    def __init__(self, X: arrays.ndarray):\n        self.X = X\n    def use(self):\n"
        "        X = self.X\n        return 1 if {} else 0",
        "def use(X: arrays.ndarray):\n    def inner():\n        return lambda: {}\n    return inner",
    ],
    ids=["statement", "with and try", "attribute of self", "closure"],
)
def test_what_does_not_fit_is_found_wherever_it_stands(check, line, finding, place):
    report = check(place.format(line))
    assert len(report.problems) == 1, report
    assert finding in report.problems[0]
    assert report.problems[0].startswith("gpu_demo.py:")


def test_a_name_that_the_library_does_not_have_is_found_when_imported_late(check):
    report = check("""
        def use():
            from arrays import Nowhere
            import arrays.nothing
    """)
    assert len(report.problems) == 2
    assert all("arrays" in problem for problem in report.problems)


@pytest.mark.parametrize(
    "line",
    ["arrays.mystery(1).shape", "X.shape", "[x.shape for x in X]", "arrays.mystery(1)[0].shape"],
)
def test_what_cannot_be_followed_is_reported_not_passed_over(check, line):
    report = check(f"from typing import Any\ndef use(X: Any):\n    {line}")
    assert len(report.unresolved) == 1
    assert "shape" in report.unresolved[0]


def test_an_annotation_that_means_nothing_is_reported(check):
    report = check("def use(X: arrays.matrix, Y: Undefined):\n    X.anything")
    assert [line.partition(": ")[2] for line in report.unresolved] == [
        "the annotation arrays.matrix",
        "the annotation Undefined",
    ]


def test_a_constructor_that_refuses_is_found(check):
    report = check("""
        def use():
            return arrays.Refuses(tol=1.0)
    """)
    assert len(report.problems) == 1
    assert "arrays.Refuses cannot be made: RuntimeError: a GPU is needed" in report.problems[0]


def test_a_wrong_call_of_our_own_is_found_too(check):
    report = check("""
        from gpuclust.model.preparation import Scaling
        def use(scaling: Scaling):
            print(scaling.factor)
            return Scaling("standard")
    """)
    assert len(report.problems) == 2
    assert "factor" in report.problems[0]
    assert "missing a required argument" in report.problems[1]


def test_signatures_of_compiled_objects_are_read_from_their_docstrings(check):
    from tests.contract.signatures import signature
    from tests.contract.values import Thing

    class Compiled:
        """PoolResource(Upstream upstream, initial_size=None, *, flags: "str" = (1, 2)) -> None"""

        __signature__ = "not one"

    found = signature(Thing(Compiled), Declared())
    assert found is not None
    assert list(found.parameters) == ["upstream", "initial_size", "flags"]
    assert found.parameters["flags"].kind.name == "KEYWORD_ONLY"


def with_rapids(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the Python that has RAPIDS, with every GPU hidden."""
    if not RAPIDS_PYTHON.exists():
        pytest.skip("RAPIDS is not installed in .venv-rapids: run make contract")
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [RAPIDS_PYTHON, *arguments], cwd=ROOT, env=hidden, capture_output=True, text=True, check=False
    )


def test_with_rapids_but_no_gpu_the_reason_is_given_in_words():
    code = "from gpuclust.runtime.backend import select_backend; print(select_backend('auto'))"
    done = with_rapids("-c", code)
    assert done.returncode == 0, done.stderr
    assert "name='cpu'" in done.stdout
    assert "no NVIDIA driver" in done.stdout or "no CUDA device" in done.stdout


def test_what_a_gpu_library_raises_becomes_one_line_with_what_to_do():
    code = """if True:
        from gpuclust.runtime.gpu import device_errors
        from gpuclust.errors import FitError
        for error in (MemoryError("std::bad_alloc"), RuntimeError("two\\nlines"), ValueError("NaN"), FitError("ours")):
            try:
                with device_errors("the tree"):
                    raise error
            except FitError as found:
                print(found)
    """
    done = with_rapids("-c", code)
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stdout + done.stderr
    assert lines[0].startswith("the GPU has too little memory for the tree (std::bad_alloc); use dtype=float32")
    assert lines[1] == "the tree failed on the GPU: two lines; try backend=cpu"
    assert lines[3] == "ours"


def test_the_memory_pool_of_the_driver_takes_its_first_size():
    code = """if True:
        import rmm.mr
        try:
            rmm.mr.CudaAsyncMemoryResource(initial_pool_size=2**20)
        except RuntimeError as error:  # there is no driver
            print(error)
    """
    done = with_rapids("-c", code)
    assert done.returncode == 0, done.stderr
    assert "cudaMallocAsync not supported" in done.stdout


def test_the_gpu_backend_fits_rapids():
    done = with_rapids("-m", "tests.contract.check_gpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fits: cuml" in done.stdout


def test_the_body_of_a_kernel_is_left_to_the_compile_check(check):
    report = check("""
        def cuda_kernel(device=False):
            return lambda function: function

        @cuda_kernel(device=True)
        def kernel(X: arrays.ndarray):
            X.nowhere
    """)
    assert report.problems == []
