"""What is imported is declared, what is declared is imported, the lower bounds are those that `make lowest` installs, and
importing gpuclust changes nothing outside it."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gpuclust

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(gpuclust.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# The distribution of a module, where its name is another.
DISTRIBUTIONS = {
    "PIL": "pillow", "umap": "umap-learn", "hydra": "hydra-core", "pynvml": "nvidia-ml-py", "sklearn": "scikit-learn", "yaml": "pyyaml",
    "pydantic_core": "pydantic",  # which pins its version
    "cuml": "cuml-cu13", "cudf": "cudf-cu13", "cupy": "cupy-cuda13x", "cupyx": "cupy-cuda13x", "rmm": "rmm-cu13",
}  # fmt: skip


def requirements(group: str | None = None) -> dict[str, str]:
    """Distribution -> version specifier, of the dependencies or of an extra."""
    lines = PROJECT["dependencies"] if group is None else PROJECT["optional-dependencies"][group]
    found = (re.fullmatch(r"([A-Za-z0-9_.-]+)(.*)", line) for line in lines)
    return {m[1].lower().replace("_", "-"): m[2] for m in found if m is not None}


def imported(path: Path) -> set[str]:
    """The distributions that a file imports, beside the standard library and gpuclust."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return {
        DISTRIBUTIONS.get(name, name).lower().replace("_", "-")
        for name in names - {"gpuclust"} - sys.stdlib_module_names
    }


def area(path: Path) -> str | None:
    """The extra that a file belongs to, None for what every installation runs."""
    place = path.relative_to(PACKAGE)
    if place.parts[0] == "serve":
        return "atlas" if place.stem == "atlas" else "serve"
    of_files = {
        "data/remote.py": "remote",
        "data/query_stores.py": "remote",
        "data/query.py": "duckdb",
        "data/excel.py": "excel",
        "data/lake_tables.py": "lakehouse",
        "tracks/audio.py": "audio",
        "reducers/umap.py": "maps",
        "reducers/pacmap.py": "maps",
    }
    if place.as_posix() in of_files:
        return of_files[place.as_posix()]
    if place.stem == "dask":
        return "dask"
    if place.as_posix() == "pipeline/search.py":
        return "optuna"
    if place.as_posix() == "algorithms/leiden/fit.py":
        return "leiden"
    return "gpu" if place.stem == "gpu" or place.stem.startswith("cudf") else None


def by_area() -> dict[str | None, set[str]]:
    found: dict[str | None, set[str]] = {
        None: set(),
        "serve": set(),
        "atlas": set(),
        "gpu": set(),
        "dask": set(),
        "optuna": set(),
        "duckdb": set(),
        "excel": set(),
        "lakehouse": set(),
        "audio": set(),
        "leiden": set(),
        "maps": set(),
        "remote": set(),
    }
    for path in PACKAGE.rglob("*.py"):
        found[area(path)] |= imported(path)
    return found


def test_what_is_imported_is_declared() -> None:
    core = set(requirements())
    for extra, names in by_area().items():
        declared = core | (set(requirements(extra)) if extra else set())
        assert names <= declared, f"{extra or 'every installation'} imports {names - declared}, which is not declared"


def test_what_is_declared_is_imported() -> None:
    found = by_area()
    for extra, names in found.items():
        # embedding-atlas and data/query.py import duckdb, fsspec aiohttp, and the dashboard of Dask bokeh. An extra may need later versions
        # of what every installation has.
        core = set(requirements()) if extra else set()
        declared = (
            set(requirements(extra)) - core - ({"duckdb"} if extra in ("atlas", "lakehouse") else {"aiohttp", "bokeh"})
        )
        assert declared <= names, f"{declared - names} is declared for {extra or 'every installation'} and not imported"
    renamed = {re.sub("12(x?)$", r"13\1", name) for name in requirements("gpu-cu12")}
    assert renamed == set(requirements("gpu"))


def test_the_lowest_versions_are_the_declared_ones() -> None:
    constraints = (ROOT / "tests" / "lowest-constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in constraints if line and not line.startswith("#"))
    declared = requirements() | requirements("serve")
    assert pinned == {name: re.match(r">=([0-9.]+)", bound)[1] for name, bound in declared.items()}  # type: ignore[index]


# Programs and plug-ins that are run and not imported, stubs for mypy, and packages that import another under a shorter name.
RUN = {
    "hatchling", "ipykernel", "mkdocs-material", "mkdocstrings-python", "moto", "mypy", "pandas-stubs", "pre-commit", "psycopg",
    "pytest-cov", "pytest-rerunfailures", "pytest-timeout", "pytest-xdist", "ruff", "schemathesis", "types-pyyaml",
}  # fmt: skip


def test_what_the_tests_the_benches_and_the_documentation_import_is_declared() -> None:
    extras = {
        name: set(requirements(name))
        for name in (
            "audio",
            "dask",
            "duckdb",
            "gpu",
            "lakehouse",
            "leiden",
            "optuna",
            "maps",
            "postgres",
            "serve",
            "dev",
            "docs",
        )
    }
    paths = [path for folder in ("tests", "experiments", "docs") for path in (ROOT / folder).rglob("*.py")]
    local = {name.replace("_", "-") for path in paths for name in (path.stem, *path.relative_to(ROOT).parts)}
    optional = {"faiss", "flash-kmeans", "k-means-constrained", "torch"}  # compared with where they are installed
    used = set().union(*map(imported, paths)) - local - optional
    assert used <= set(requirements()).union(*extras.values())
    assert extras["dev"] | extras["docs"] | extras["postgres"] <= used | RUN


ENVIRONMENT = """
import importlib, os, pkgutil, sys
import gpuclust
here = os.path.dirname(gpuclust.__file__)
changed = []

def watched(method):
    original = getattr(os._Environ, method)
    def call(self, *arguments):
        frame = sys._getframe(1)
        while frame.f_code.co_filename in (os.__file__, "<frozen os>", "<frozen _collections_abc>"):
            frame = frame.f_back
        if frame.f_code.co_filename.startswith(here):
            changed.append((frame.f_code.co_filename, arguments))
        return original(self, *arguments)
    setattr(os._Environ, method, call)

for method in ("__setitem__", "__delitem__"):
    watched(method)
os.environ["MLFLOW_RUN_ID"] = "of another program"
before = {k: v for k, v in os.environ.items() if k.startswith(("MLFLOW", "GPUCLUST", "HYDRA"))}
for module in pkgutil.walk_packages(gpuclust.__path__, "gpuclust."):
    if module.name in ("gpuclust.__main__", "gpuclust.serve.explorer.main"):  # they run the program
        continue
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        assert (error.name or "").split(".")[0] in ("cupy", "cuml", "cudf", "rmm", "pynvml", "dask"), error
after = {k: v for k, v in os.environ.items() if k.startswith(("MLFLOW", "GPUCLUST", "HYDRA"))}
assert not changed, changed
assert before == after, (before, after)
"""


def test_an_import_changes_no_environment_variable() -> None:
    pytest.importorskip("streamlit", reason="the explorer's modules need gpuclust[serve]")
    done = subprocess.run([sys.executable, "-c", ENVIRONMENT], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_notice_goes_where_the_licence_goes() -> None:
    assert PROJECT["license-files"] == ["LICENSE", "NOTICE"]
    recipe = (ROOT / "Dockerfile.gpu").read_text()
    copied = re.findall(r"^COPY (?!--from)(.*) \./$", recipe, re.MULTILINE)
    assert any({"LICENSE", "NOTICE"} <= set(files.split()) for files in copied)
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    assert {"!LICENSE", "!NOTICE"} <= set(kept)


def test_the_gpu_extra_has_the_versions_that_rapids_needs() -> None:
    """RAPIDS 26.10 itself pins the first two; its mixtures by scikit-learn on CuPy arrays need the third."""
    for extra, cuda in (("gpu", "13"), ("gpu-cu12", "12")):
        found = requirements(extra)
        assert found["pandas"] == ">=3.0"
        assert found[f"cupy-cuda{cuda}x"] == ">=14.0.1"
        assert found["scikit-learn"] == ">=1.8"
