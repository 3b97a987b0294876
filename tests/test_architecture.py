"""The rules of the layout, read from the imports: which package may import which, and which file a large library."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpuclust

PACKAGE = Path(gpuclust.__file__).parent
# A file imports only from packages to the left of its own.
ORDER = ("sanitize", "errors", "folders", "config", "model", "tracks", "data", "runtime", "algorithms", "reducers", "metrics", "analysis", "overrides",
         "compose", "report", "tracking", "pipeline", "choice", "export", "compare", "predict", "describe", "commands", "estimators", "planning", "results", "api",
         "completion", "usage", "cli", "__main__")  # fmt: skip
SERVE = {"sanitize", "errors", "model", "tracks", "serve"}
HEAVY = {
    "mlflow": ("tracking/",),
    "hydra": ("compose.py", "cli.py"),
    "omegaconf": ("compose.py",),
    "cuml": ("runtime/", "algorithms/", "reducers/gpu.py"),
    "cudf": ("runtime/",),
    "cupy": ("runtime/", "algorithms/", "reducers/gpu.py"),
    "rmm": ("runtime/",),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The absolute names that a file imports, wherever in it; not what is only for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checked = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in checked:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a name comes from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(name: str) -> str:
    """The package or top-level file that a dotted gpuclust name is in."""
    return name.split(".")[1]


def ours(path: Path) -> set[str]:
    """The packages of gpuclust that a file imports."""
    names = (name for name in imported(path) if name.startswith("gpuclust."))
    return {package_of(name) for name in names if package_of(name) != "__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_imports_only_from_packages_to_its_left(path: Path) -> None:
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    used = ours(path)
    if here == "__init__":
        assert not used
    elif here == "serve":
        assert used <= SERVE, "serve/ is independent of the training code"
    else:
        right = {name for name in used if name == "serve" or ORDER.index(name) > ORDER.index(here)}
        assert right <= ({"serve"} if here in ("commands", "api") else set()), f"{here} is left of {right}"


@pytest.mark.parametrize("algorithm", sorted(p.name for p in (PACKAGE / "algorithms").iterdir() if p.is_dir()))
def test_an_algorithm_imports_no_other(algorithm: str) -> None:
    if algorithm.startswith("__"):
        pytest.skip("no algorithm")
    for path in (PACKAGE / "algorithms" / algorithm).rglob("*.py"):
        parts = (name.split(".") for name in imported(path) if name.startswith("gpuclust.algorithms."))
        others = {part[2] for part in parts} - {algorithm, "registry"}
        assert not others, f"{path} imports {others}"


def modules() -> dict[str, Path]:
    """Dotted name -> file."""
    return {
        ".".join(("gpuclust", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in FILES
    }


def test_no_import_cycle() -> None:
    known = modules()
    edges = {}
    for name, path in known.items():
        found = set()
        for target in imported(path):
            while target.startswith("gpuclust.") and target not in known:
                target = target.rpartition(".")[0]
            if target in known and target not in ("gpuclust", name):
                found.add(target)
        edges[name] = found
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for target in sorted(edges[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in sorted(edges):
        visit(name, ())


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_one_place_knows_each_large_library(path: Path) -> None:
    here = str(path.relative_to(PACKAGE))
    for name in imported(path):
        homes = HEAVY.get(name.split(".")[0])
        assert homes is None or here.startswith(homes), f"{here} imports {name}, which belongs in {homes}"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from gpuclust.cli import main; main(['--help']); "
        "heavy = {'numpy', 'pandas', 'mlflow', 'hydra', 'sklearn', 'numba', 'matplotlib', 'rich', 'gpuclust.config'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
